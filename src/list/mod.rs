//! Linked lists that readers walk while writers change them.

mod element;
mod iter;
mod links;
mod splice;
mod walk;

pub use element::{ListEntry, ListHandle};
pub use iter::{ListIter, ListIterBack};
pub use splice::Splice;
pub use walk::{BothWays, Forward, Walk};

use self::links::{At, Links};
use crate::domain::{Cookie, CriticalSection, Domain, IfFull};
use crate::sync::const_fn;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

/// A linked list that many threads walk and that writers change at any place: endpoints, listeners, rules, the order of use
/// of a cache.
///
/// A reader walks the list in a critical section, without locks, and borrows entries or takes [handles](ListHandle). A
/// writer takes the list's lock. An entry that has left the list is dropped after a grace period and when its last handle
/// is gone, as a [`Registry`](crate::Registry) drops an entry, and never by a reader.
///
/// ```
/// use epoch_registry::RcuList;
///
/// let list = RcuList::from(["b", "d"]);
///
/// // Write: at the ends, or next to an entry that the writer has a handle to.
/// let a = list.push_front("a");
/// let c = list.replace(&a, "c").unwrap();
/// list.insert_before(&c, "b0").unwrap();
///
/// // Read: in a critical section.
/// let section = list.domain().pin();
/// assert!(list.iter(&section).map(|entry| *entry).eq(["b0", "c", "b", "d"]));
/// ```
///
/// # What a walk sees
///
/// A walk returns each entry that is in the list during the whole walk, once, and in order. An entry that joins or leaves
/// meanwhile is returned or not. Of a [replaced](Self::replace) entry a walk sees the old one or the new one, never neither and
/// never both. A walk that stands at an entry that has left goes on from there: to the entry that was behind it when it left.
///
/// [`iter`](Self::iter) needs one critical section for the whole walk. A long walk holds up grace periods for as long as it
/// takes. To split it, keep a handle and [`resume`](Self::resume) behind that entry in another critical section.
///
/// # Two kinds of lists
///
/// | | walks | made by |
/// |---|---|---|
/// | `RcuList<T>` | forward | [`new`](RcuList::new), [`new_in`](RcuList::new_in) |
/// | [`RcuBidirList<T>`](RcuBidirList) | forward and backward | [`bidir`](RcuList::bidir), [`bidir_in`](RcuList::bidir_in) |
///
/// Handles of one kind do not fit the other. Where both kinds would do, write functions for `RcuList<T, D>` with any
/// [`Walk`] as `D`.
///
/// # Writers
///
/// Writers of a list wait for each other. A write links or unlinks a single entry in constant time. A write that removes
/// makes its share of reclamation, as a registry's writes do: it may run destructors of older entries and other objects of
/// the domain, under no lock.
///
/// # Sources
///
/// `include/linux/rculist.h` and `Documentation/RCU/listRCU.rst` of the Linux kernel: `list_add_rcu`, `list_del_rcu`,
/// `list_bidir_del_rcu`, `list_replace_rcu`, `list_splice_tail_init_rcu`. What is a rule for their callers is a type or a
/// result here:
///
/// | rule | here |
/// |---|---|
/// | A removed entry is not added again before a grace period. | An insertion takes a value. |
/// | The links of a removed entry are not followed after the critical section. | [`resume`](Self::resume) returns `None`. |
/// | `list_del_rcu` and backward walks do not mix. | The type of the list decides. |
/// | A splice waits for readers in between. | [`Splice`] holds the entries until then. |
pub struct RcuList<T: 'static, D: Walk = Forward> {
    links: Links<T, D>,
}

/// An [`RcuList`] that is walked backward too. [`RcuList::bidir`] makes one.
///
/// A backward walk returns each entry that is in the list during the whole walk, once. It may miss an entry that is being
/// inserted, even if a forward walk has found it already: a writer links an entry forward first. As soon as the insertion
/// has returned, both find it.
///
/// ```
/// use epoch_registry::{RcuBidirList, RcuList};
///
/// let list: RcuBidirList<u32> = RcuList::bidir();
/// list.push_back(1);
/// let two = list.push_back(2);
/// list.push_back(3);
///
/// let section = list.domain().pin();
/// assert!(list.iter_back(&section).map(|entry| *entry).eq([3, 2, 1]));
/// assert!(list.resume_back(&two, &section).unwrap().map(|entry| *entry).eq([1]));
/// ```
///
/// A list that is walked forward only has no backward walks:
///
/// ```compile_fail,E0599
/// let list = epoch_registry::RcuList::from([1, 2]);
/// let section = list.domain().pin();
/// list.iter_back(&section);
/// ```
pub type RcuBidirList<T> = RcuList<T, BothWays>;

impl<T: Send + Sync + 'static> RcuList<T> {
    const_fn! {
        /// Returns an empty list in the [global](Domain::global) domain, also for a `static`.
        ///
        /// ```
        /// use epoch_registry::RcuList;
        ///
        /// static LISTENERS: RcuList<fn(u32)> = RcuList::new();
        ///
        /// LISTENERS.push_back(|number| println!("{number}"));
        /// assert_eq!(LISTENERS.len(), 1);
        /// ```
        pub fn new() -> Self {
            RcuList { links: Links::new() }
        }
    }

    /// Returns an empty list in a domain.
    pub fn new_in(domain: &Domain) -> Self {
        RcuList { links: Links::new_in(domain) }
    }
}

impl<T: Send + Sync + 'static> RcuList<T, BothWays> {
    const_fn! {
        /// Returns an empty list that is walked both ways, in the [global](Domain::global) domain, also for a `static`.
        pub fn bidir() -> Self {
            RcuList { links: Links::new() }
        }
    }

    /// Returns an empty list that is walked both ways, in a domain.
    pub fn bidir_in(domain: &Domain) -> Self {
        RcuList { links: Links::new_in(domain) }
    }

    /// Returns the last entry.
    ///
    /// # Progress and panics
    ///
    /// As [`iter`](Self::iter).
    pub fn last<'a>(&'a self, section: &'a impl CriticalSection) -> Option<ListEntry<'a, T, BothWays>> {
        self.links.iter_back(section).next()
    }

    /// Returns a walk from the last entry to the first. It may miss an entry that is being inserted.
    ///
    /// # Progress and panics
    ///
    /// As [`iter`](Self::iter).
    #[inline]
    pub fn iter_back<'a>(&'a self, section: &'a impl CriticalSection) -> ListIterBack<'a, T> {
        self.links.iter_back(section)
    }

    /// Returns a backward walk from before the entry of `handle`, or `None` if the entry is not in the list.
    ///
    /// # Progress and panics
    ///
    /// As [`resume`](Self::resume).
    pub fn resume_back<'a>(
        &'a self,
        handle: &ListHandle<T, BothWays>,
        section: &'a impl CriticalSection,
    ) -> Option<ListIterBack<'a, T>> {
        self.links.resume_back(handle, section)
    }

    /// Removes the last entry. Returns a handle to it.
    ///
    /// # Progress
    ///
    /// As [`remove`](Self::remove).
    pub fn pop_back(&self) -> Option<ListHandle<T, BothWays>> {
        self.links.pop_back()
    }
}

impl<T: Send + Sync + 'static, D: Walk> RcuList<T, D> {
    /// Returns the list's domain.
    pub fn domain(&self) -> &Domain {
        self.links.domain()
    }

    /// Returns the number of entries.
    ///
    /// # Progress
    ///
    /// Wait-free. Other threads may change the number at once.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Returns whether there are no entries.
    ///
    /// # Progress
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Returns the first entry.
    ///
    /// ```
    /// use epoch_registry::RcuList;
    ///
    /// let list = RcuList::new();
    /// let section = list.domain().pin();
    /// assert!(list.first(&section).is_none());
    /// list.push_back(1);
    /// assert_eq!(*list.first(&section).unwrap(), 1);
    /// ```
    ///
    /// # Progress and panics
    ///
    /// As [`iter`](Self::iter).
    pub fn first<'a>(&'a self, section: &'a impl CriticalSection) -> Option<ListEntry<'a, T, D>> {
        self.links.iter(section).next()
    }

    /// Returns a walk from the first entry to the last, within a critical section: a [pin](Domain::pin) of the list's domain, a
    /// [guard](crate::Guard) of a registry in that domain, or the [section](crate::Session::section) of a session.
    ///
    /// ```
    /// use epoch_registry::RcuList;
    ///
    /// let list = RcuList::from([1, 2, 3, 4]);
    /// let mut session = list.domain().session();
    /// let section = session.section();
    /// assert_eq!(list.iter(&section).map(|entry| *entry).sum::<u32>(), 10);
    /// ```
    ///
    /// What was read cannot outlive the section:
    ///
    /// ```compile_fail,E0505
    /// let list = epoch_registry::RcuList::from([1]);
    /// let guard = list.domain().pin();
    /// let one = list.first(&guard).unwrap();
    /// drop(guard);
    /// println!("{}", *one);
    /// ```
    ///
    /// # Progress
    ///
    /// Wait-free for each step. Writes nothing. A walk ends if entries do not join behind it as fast as it walks.
    ///
    /// # Panics
    ///
    /// If the section is of another domain.
    #[inline]
    pub fn iter<'a>(&'a self, section: &'a impl CriticalSection) -> ListIter<'a, T, D> {
        self.links.iter(section)
    }

    /// Returns a walk from behind the entry of `handle`, or `None` if the entry is not in the list: it was removed or
    /// replaced, is a part of a [splice](Splice), or belongs to another list.
    ///
    /// So a long walk may be split into several critical sections:
    ///
    /// ```
    /// use epoch_registry::{ListHandle, RcuList};
    ///
    /// let list: RcuList<u64> = (0..1000).collect();
    /// let mut session = list.domain().session();
    /// let (mut sum, mut last): (u64, Option<ListHandle<u64>>) = (0, None);
    /// loop {
    ///     let section = session.section(); // lets grace periods end
    ///     let walk = match &last {
    ///         None => list.iter(&section),
    ///         // `None` here: the entry has left, so begin anew, or end.
    ///         Some(last) => list.resume(last, &section).expect("no other thread removes entries"),
    ///     };
    ///     let mut stand = None;
    ///     for entry in walk.take(100) {
    ///         sum += *entry;
    ///         stand = Some(entry);
    ///     }
    ///     match stand {
    ///         Some(entry) => last = Some(entry.handle()),
    ///         None => break,
    ///     }
    /// }
    /// assert_eq!(sum, 499_500);
    /// ```
    ///
    /// # Progress
    ///
    /// Wait-free. Writes nothing.
    ///
    /// # Panics
    ///
    /// If the section is of another domain.
    #[inline]
    pub fn resume<'a>(
        &'a self,
        handle: &ListHandle<T, D>,
        section: &'a impl CriticalSection,
    ) -> Option<ListIter<'a, T, D>> {
        self.links.resume(handle, section)
    }

    /// Returns whether the entry of `handle` is in the list.
    ///
    /// # Progress
    ///
    /// Wait-free. Other threads may remove the entry at once.
    pub fn is_linked(&self, handle: &ListHandle<T, D>) -> bool {
        self.links.is_linked(handle)
    }

    /// Adds an entry before all others. Returns a handle to it.
    ///
    /// # Progress
    ///
    /// Takes the list's lock.
    pub fn push_front(&self, value: T) -> ListHandle<T, D> {
        self.push(value, At::Front, true).expect(WANTED)
    }

    /// Adds an entry behind all others. Returns a handle to it.
    ///
    /// # Progress
    ///
    /// Takes the list's lock.
    pub fn push_back(&self, value: T) -> ListHandle<T, D> {
        self.push(value, At::Back, true).expect(WANTED)
    }

    fn push(&self, value: T, end: At<'_, T, D>, wants_handle: bool) -> Option<ListHandle<T, D>> {
        self.links.insert(value, end, wants_handle).expect("the ends of a list are always there")
    }

    /// Adds an entry before that of `handle`. Returns a handle to it.
    ///
    /// # Errors
    ///
    /// [`NotInList`], with the value, if the entry of `handle` is not in the list.
    ///
    /// # Progress
    ///
    /// Takes the list's lock.
    pub fn insert_before(&self, handle: &ListHandle<T, D>, value: T) -> Result<ListHandle<T, D>, NotInList<T>> {
        self.links.insert(value, At::Before(handle), true).map(|new| new.expect(WANTED))
    }

    /// Adds an entry behind that of `handle`. Returns a handle to it.
    ///
    /// # Errors
    ///
    /// [`NotInList`], with the value, if the entry of `handle` is not in the list.
    ///
    /// # Progress
    ///
    /// Takes the list's lock.
    pub fn insert_after(&self, handle: &ListHandle<T, D>, value: T) -> Result<ListHandle<T, D>, NotInList<T>> {
        self.links.insert(value, At::After(handle), true).map(|new| new.expect(WANTED))
    }

    /// Replaces an entry by a new one at the same place. Returns a handle to the new one.
    ///
    /// A walk sees the old entry or the new one. A reader that stands at the old entry goes on to the entries behind the
    /// new one.
    ///
    /// ```
    /// use epoch_registry::RcuList;
    ///
    /// let list = RcuList::from([1, 3]);
    /// let two = list.push_back(2);
    /// let four = list.replace(&two, 4).unwrap();
    /// assert_eq!((*two, *four), (2, 4));
    /// assert_eq!(list.replace(&two, 5).unwrap_err().0, 5); // it has been replaced
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotInList`], with the value, if the entry of `handle` is not in the list.
    ///
    /// # Progress
    ///
    /// As [`remove`](Self::remove).
    pub fn replace(&self, handle: &ListHandle<T, D>, value: T) -> Result<ListHandle<T, D>, NotInList<T>> {
        self.links.replace(handle, value)
    }

    /// Removes the entry of `handle`. Returns a cookie that says when every reader has left it, or `None` if the entry is
    /// not in the list.
    ///
    /// ```
    /// use epoch_registry::RcuList;
    ///
    /// let list = RcuList::from([1, 2]);
    /// let three = list.push_back(3);
    /// let cookie = list.remove(&three).unwrap();
    /// list.domain().wait(cookie); // or `poll`, `poll_timeout`, `reached(cookie).await`
    /// // No reader has the entry any more, unless it has a handle.
    /// assert!(list.remove(&three).is_none());
    /// ```
    ///
    /// # Progress
    ///
    /// Takes the list's lock. Waits for readers only if the domain has a [limit](crate::DomainBuilder::backlog_objects) that
    /// it has reached, and whose policy is to wait.
    pub fn remove(&self, handle: &ListHandle<T, D>) -> Option<Cookie> {
        self.links.remove(handle, &mut IfFull::go_on())
    }

    /// Removes the first entry. Returns a handle to it.
    ///
    /// # Progress
    ///
    /// As [`remove`](Self::remove).
    pub fn pop_front(&self) -> Option<ListHandle<T, D>> {
        self.links.pop_front()
    }

    /// Removes the first entry for which `wanted` returns true. Returns a handle to it.
    ///
    /// ```
    /// use epoch_registry::RcuList;
    ///
    /// let list = RcuList::from([1, 2, 3, 4]);
    /// assert_eq!(*list.remove_first(|number| number % 2 == 0).unwrap(), 2);
    /// assert_eq!(list.len(), 3);
    /// ```
    ///
    /// It judges entries in a critical section and without the list's lock, so `wanted` may use the list.
    ///
    /// # Progress
    ///
    /// As [`remove`](Self::remove). If another thread removes or replaces the entry first, the walk begins anew.
    pub fn remove_first(&self, wanted: impl FnMut(&T) -> bool) -> Option<ListHandle<T, D>> {
        self.links.remove_first(wanted)
    }

    /// Removes the entries for which `keep` returns false. Returns how many it has removed.
    ///
    /// It judges each entry once, in one critical section and without the list's lock. Then it removes the entries that are to
    /// go, one after another, unless another thread has removed them meanwhile. It takes the memory of a handle for each of
    /// them. If `keep` panics, no entry is removed.
    ///
    /// # Progress
    ///
    /// As [`remove`](Self::remove). It waits for room in the domain's backlog once at the most.
    pub fn retain(&self, keep: impl FnMut(&T) -> bool) -> usize {
        self.links.retain(keep)
    }

    /// Removes all entries at one instant. Returns how many there were.
    ///
    /// # Progress
    ///
    /// Takes the list's lock for a few stores, and retires the entries without it. It waits for room in the domain's backlog
    /// once at the most.
    pub fn clear(&self) -> usize {
        self.links.clear()
    }

    /// Begins to move all entries of `other` to the end of this list. It does not block: see [`Splice`].
    ///
    /// The entries leave `other` at once. They join this list when no reader of `other` is among them any more, as such a
    /// reader would go on into this list.
    ///
    /// ```
    /// use epoch_registry::RcuList;
    ///
    /// let (list, other) = (RcuList::from([1, 2]), RcuList::from([3, 4]));
    /// let mut splice = list.splice_back(&other);
    /// assert!(other.is_empty());
    /// let moved = loop {
    ///     match splice.try_finish() {
    ///         Ok(moved) => break moved,
    ///         Err(unfinished) => splice = unfinished, // do something else
    ///     }
    /// };
    /// assert_eq!((moved, list.len()), (2, 4));
    /// ```
    ///
    /// # Progress
    ///
    /// Takes the lock of `other` for a few stores, and begins a grace period.
    ///
    /// # Panics
    ///
    /// If the lists are in different domains.
    pub fn splice_back<'l>(&'l self, other: &'l Self) -> Splice<'l, T, D> {
        Splice::begin(&other.links, &self.links)
    }
}

/// User code runs under no lock, and its panics leave the links as they were or as they were to be.
impl<T: Send + Sync + 'static, D: Walk> RefUnwindSafe for RcuList<T, D> {}
impl<T: Send + Sync + 'static, D: Walk> UnwindSafe for RcuList<T, D> {}

const WANTED: &str = "a handle was asked for";

impl<T: Send + Sync + 'static, D: Walk> Default for RcuList<T, D> {
    /// Returns an empty list in the [global](Domain::global) domain.
    fn default() -> Self {
        RcuList { links: Links::new() }
    }
}

impl<T: Send + Sync + 'static, const N: usize> From<[T; N]> for RcuList<T> {
    /// Returns a list of the values in the [global](Domain::global) domain.
    fn from(values: [T; N]) -> Self {
        values.into_iter().collect()
    }
}

impl<T: Send + Sync + 'static, D: Walk> FromIterator<T> for RcuList<T, D> {
    /// Returns a list of the values in the [global](Domain::global) domain.
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut list = RcuList::default();
        list.extend(values);
        list
    }
}

impl<T: Send + Sync + 'static, D: Walk> Extend<T> for RcuList<T, D> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        for value in values {
            self.push(value, At::Back, false);
        }
    }
}

impl<T: Send + Sync + 'static, D: Walk> Extend<T> for &RcuList<T, D> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        for value in values {
            self.push(value, At::Back, false);
        }
    }
}

impl<T: Send + Sync + fmt::Debug + 'static, D: Walk> fmt::Debug for RcuList<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter(&self.domain().pin())).finish()
    }
}

/// The error of an operation with a handle: its entry is not in the list. It returns the value that was to be added.
///
/// The entry was removed or replaced, is a part of a [splice](Splice), or belongs to another list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NotInList<T>(pub T);

impl<T> fmt::Debug for NotInList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NotInList").finish_non_exhaustive()
    }
}

impl<T> fmt::Display for NotInList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the entry of the handle is not in the list")
    }
}

impl<T> std::error::Error for NotInList<T> {}
