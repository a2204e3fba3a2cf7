//! The links of a list: what readers follow, and what writers change.
//!
//! ```text
//!           ┌──────┐    ┌──────┬───────┐    ┌──────┬───────┐    ┌──────┬───────┐
//!           │ head ├───▶│ next │ value ├───▶│ next │ value ├───▶│ next │ value ├───▶ null
//!           └──────┘    ├──────┼───────┤    ├──────┼───────┤    ├──────┼───────┤    ┌──────┐
//!                null ◀─┤ prev │ home  │◀───┤ prev │ home  │◀───┤ prev │ home  │◀───┤ tail │
//!                       └──────┴───────┘    └──────┴───────┘    └──────┴───────┘    └──────┘
//! ```
//!
//! # The reader
//!
//! It is in a critical section. It loads `head`, and the `next` of each element that it has found, with Acquire. It uses
//! what it has found until the section ends. If it has a handle, it may begin at that element: it compares the element's
//! home with the list's number, and follows `next` if they are equal.
//!
//! # The writer
//!
//! 1. It makes a new element, or takes a place in the backlog for the element that is to leave, or both.
//! 2. It takes the lock `writers`. If the operation is given a handle, it compares home and number, as a reader does.
//! 3. It stores the links in the element that is to be inserted, which is not published yet.
//! 4. It stores the link that leads forward to the change: `head`, or the `next` of the element before. Then it stores the
//!    link that leads backward: `tail`, or the `prev` of the element after. The first of the two is the instant of the
//!    operation for forward walks, and the second for backward walks.
//! 5. It stores `NOWHERE` as the home of an element that has left. The links of that element stay as they are, so that a
//!    reader on it goes on.
//! 6. It releases the lock, and retires the element that has left.
//!
//! # The splice
//!
//! The first phase takes all elements out of their list as a *chain*: it empties `head` and `tail`, and gives the list a
//! new number, so that the homes of the chain are those of no list. Readers in the chain reach its end. The second phase
//! stores a number as the homes of the chain and links it into a list. To link it into another list than it came from, the
//! writer waits for a grace period first.
//!
//! # Invariants
//!
//! - **E1** Only the holder of the lock `writers` changes `head`, `tail`, `number`, and the links and homes of elements in the
//!   list. While the lock is free, `head` and the `next` of elements lead through all elements of the list to null, and
//!   `tail` and the `prev` of elements lead through the same elements in reverse order.
//! - **E2** An element is linked once, when it is published, and unlinked once. A chain moves as a whole, and its owner
//!   alone changes it. After the unlink, `next` and `prev` of the element do not change.
//! - **E3** An element is in a list exactly if its home is the list's number, for the holder of the lock. Numbers are used
//!   once. (Except that a chain keeps the number that its list had.)
//! - **E4** An element is retired by the thread that unlinked it, after it has released the lock.
//! - **E5** What a walk finds in a critical section is not destroyed, and has the list's reference, until the section ends.
//!   (The proof is in `docs/ordering.md`.)

#![allow(unsafe_code)]

use super::NotInList;
use super::element::{self, Element, ListHandle, NOWHERE, NewElement, head};
use super::iter::{ListIter, ListIterBack};
use super::walk::{BothWays, Walk};
use crate::domain::{Cookie, CriticalSection, Domain, GLOBAL, IfFull, Inner};
use crate::object::{self, Reserved};
use crate::sync::atomic::Ordering;
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Mutex, MutexGuard, const_fn};
use crate::util::check;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

pub(super) struct Links<T: 'static, D: Walk> {
    head: AtomicPtr<Element<T>>,
    /// The number of the list's domain.
    domain_id: u64,
    tail: AtomicPtr<Element<T>>,
    /// The number of the list (E3), or [`NOWHERE`] before the first insertion.
    number: AtomicU64,
    len: AtomicUsize,
    /// `None` stands for the global domain.
    domain: Option<Domain>,
    writers: Mutex<()>,
    _owns: PhantomData<(Box<T>, D)>,
}

// SAFETY: the list owns elements, and lends them to several threads (`Sync`). Any thread may drop them (`Send`).
unsafe impl<T: Send + Sync, D: Walk> Send for Links<T, D> {}
// SAFETY: as for `Send`. Writes take a lock.
unsafe impl<T: Send + Sync, D: Walk> Sync for Links<T, D> {}

/// Where an insertion links the new element.
#[derive(Clone, Copy)]
pub(super) enum At<'h, T: 'static, D: Walk> {
    Front,
    Back,
    Before(&'h ListHandle<T, D>),
    After(&'h ListHandle<T, D>),
}

impl<T, D: Walk> Links<T, D> {
    const_fn! {
        /// Returns an empty list. `domain_id` is the number of `domain`, which stands for the global one if it is `None`.
        fn with(domain_id: u64, domain: Option<Domain>) -> Self {
            Links {
                head: AtomicPtr::new(ptr::null_mut()),
                domain_id,
                tail: AtomicPtr::new(ptr::null_mut()),
                number: AtomicU64::new(NOWHERE),
                len: AtomicUsize::new(0),
                domain,
                writers: Mutex::new(()),
                _owns: PhantomData,
            }
        }
    }

    const_fn! {
        /// Returns an empty list in the global domain.
        pub(super) fn new() -> Self {
            Links::with(GLOBAL, None)
        }
    }

    /// Returns an empty list in a domain.
    pub(super) fn new_in(domain: &Domain) -> Self {
        let id = domain.inner().id;
        Links::with(id, (id != GLOBAL).then(|| domain.clone()))
    }

    pub(super) fn domain(&self) -> &Domain {
        self.domain.as_ref().unwrap_or_else(|| Domain::global())
    }

    /// Returns whether both lists are in one domain.
    pub(super) fn has_domain_of(&self, other: &Self) -> bool {
        self.domain_id == other.domain_id
    }

    pub(super) fn len(&self) -> usize {
        // ORDERING: Relaxed, a figure.
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        // ORDERING: Relaxed, nothing is read through it.
        self.head.load(Ordering::Relaxed).is_null()
    }

    fn refuse_foreign(&self, section: &impl CriticalSection) {
        assert_eq!(section.domain().id, self.domain_id, "a critical section of another domain than the list's");
    }

    #[inline]
    pub(super) fn iter<'a>(&'a self, section: &'a impl CriticalSection) -> ListIter<'a, T, D> {
        self.refuse_foreign(section);
        // SAFETY: the walk borrows the list and the section, which is of the list's domain.
        unsafe { ListIter::new(&self.head) }
    }

    /// Returns the walk from behind the entry of `handle`, or `None` if the entry is not in the list.
    #[inline]
    pub(super) fn resume<'a>(
        &'a self,
        handle: &ListHandle<T, D>,
        section: &'a impl CriticalSection,
    ) -> Option<ListIter<'a, T, D>> {
        self.refuse_foreign(section);
        // SAFETY: E5 (the element's home was compared in this section, which the walk borrows).
        self.is_linked(handle).then(|| unsafe { ListIter::new(handle.next()) })
    }

    /// Returns whether the entry of `handle` is in the list. While the caller has the lock, the answer stays true. In a
    /// critical section, it means that the entry was in the list when the section began, or later (E5).
    #[inline]
    pub(super) fn is_linked(&self, handle: &ListHandle<T, D>) -> bool {
        // ORDERING: Relaxed, both. The lock orders writers. What a reader must see, its pin makes visible: see "A walk in
        // a list" in docs/ordering.md.
        let home = handle.head().home.load(Ordering::Relaxed);
        home != NOWHERE && home == self.number.load(Ordering::Relaxed)
    }

    fn lock(&self) -> Locked<'_, T, D> {
        Locked { links: self, _guard: self.writers.lock() }
    }

    /// Takes a place in the backlog for an element. The caller does not hold the lock, as this may wait.
    fn reserve<'l>(&'l self, if_full: &mut IfFull<Infallible>) -> Reserved<'l> {
        Reserved::new(self.domain().inner(), element::bytes::<T>(), if_full)
    }

    /// Links a value. Returns a handle if the caller wants one.
    pub(super) fn insert(
        &self,
        value: T,
        at: At<'_, T, D>,
        wants_handle: bool,
    ) -> Result<Option<ListHandle<T, D>>, NotInList<T>> {
        let new = NewElement::new(value);
        let handle = wants_handle.then(|| new.handle());
        let locked = self.lock();
        let (prev, next) = match at {
            At::Front => (ptr::null_mut(), locked.first()),
            At::Back => (locked.last(), ptr::null_mut()),
            At::Before(other) | At::After(other) if !self.is_linked(other) => {
                drop(locked);
                drop(handle);
                return Err(NotInList(new.into_value()));
            }
            At::Before(other) => (locked.prev(other.pointer()), other.pointer().as_ptr()),
            At::After(other) => (other.pointer().as_ptr(), locked.next(other.pointer())),
        };
        locked.link(new, prev, next);
        locked.add_to_len(1);
        Ok(handle)
    }

    /// Unlinks and retires the entry of `handle`.
    pub(super) fn remove(&self, handle: &ListHandle<T, D>, if_full: &mut IfFull<Infallible>) -> Option<Cookie> {
        // (Without the lock this is a hint. It saves the place in the backlog, which may have to be waited for.)
        if !self.is_linked(handle) {
            return None;
        }
        let place = self.reserve(if_full);
        let unlinked = self.lock().unlink_if_linked(handle)?;
        Some(self.retire(unlinked, place))
    }

    /// Unlinks and retires the first entry. Returns a handle to it.
    pub(super) fn pop_front(&self) -> Option<ListHandle<T, D>> {
        if self.is_empty() {
            return None;
        }
        let place = self.reserve(&mut IfFull::go_on());
        let unlinked = {
            let locked = self.lock();
            locked.unlink(NonNull::new(locked.first())?)
        };
        let handle = unlinked.handle();
        self.retire(unlinked, place);
        Some(handle)
    }

    /// Unlinks and retires the first entry that `wanted` returns true for. Returns a handle to it. If another thread is faster,
    /// the walk begins anew: the entry may have been replaced, and its successor must not be missed.
    pub(super) fn remove_first(&self, mut wanted: impl FnMut(&T) -> bool) -> Option<ListHandle<T, D>> {
        if self.is_empty() {
            return None;
        }
        check::user_code();
        // Before the critical section begins: a thread does not wait for room while it is in one.
        let place = self.reserve(&mut IfFull::go_on());
        loop {
            let section = self.domain().pin();
            let handle = self.iter(&section).find(|entry| wanted(entry))?.handle();
            drop(section);
            // (A statement of its own: the lock is released at its end.)
            let unlinked = self.lock().unlink_if_linked(&handle);
            if let Some(unlinked) = unlinked {
                self.retire(unlinked, place);
                return Some(handle);
            }
        }
    }

    /// Replaces the entry of `handle` by an entry with `value`, in one step for each direction. Retires the old entry.
    pub(super) fn replace(&self, handle: &ListHandle<T, D>, value: T) -> Result<ListHandle<T, D>, NotInList<T>> {
        if !self.is_linked(handle) {
            return Err(NotInList(value));
        }
        let new = NewElement::new(value);
        let (of_new, place) = (new.handle(), self.reserve(&mut IfFull::go_on()));
        let locked = self.lock();
        if !self.is_linked(handle) {
            drop(locked);
            drop(of_new);
            return Err(NotInList(new.into_value()));
        }
        let old = handle.pointer();
        let (prev, next) = (locked.prev(old), locked.next(old));
        locked.link(new, prev, next);
        let unlinked = locked.leave(old);
        drop(locked);
        self.retire(unlinked, place);
        Ok(of_new)
    }

    /// Unlinks and retires the entries for which `keep` returns false. Returns how many. It judges all entries first, in one
    /// critical section, and removes what it condemned after that section, unless another thread has.
    pub(super) fn retain(&self, mut keep: impl FnMut(&T) -> bool) -> usize {
        check::user_code();
        let section = self.domain().pin();
        let condemned: Vec<_> = self.iter(&section).filter(|entry| !keep(entry)).map(|entry| entry.handle()).collect();
        drop(section);
        let mut if_full = IfFull::go_on();
        condemned.into_iter().filter(|handle| self.remove(handle, &mut if_full).is_some()).count()
    }

    /// Unlinks and retires all elements. Returns how many.
    pub(super) fn clear(&self) -> usize {
        let Some(chain) = self.detach() else { return 0 };
        let len = chain.len;
        let mut if_full = IfFull::go_on();
        for element in chain.elements() {
            let place = self.reserve(&mut if_full);
            self.retire(Unlinked(element), place);
        }
        len
    }

    fn retire(&self, unlinked: Unlinked<T>, place: Reserved<'_>) -> Cookie {
        let domain = self.domain().inner();
        // SAFETY: E4 (this thread has unlinked the element and released the lock), and E5 says who may still find it. The
        // element is in the list's domain (O4). Its type is `Send` and `Sync`, as the bounds of `RcuList` require. The place
        // in the backlog is taken.
        let number = unsafe { object::retire(element::object(unlinked.0), domain, place.use_up()) };
        Cookie::of_retired(domain, number)
    }

    /// Takes all elements out of the list, if there are any.
    pub(super) fn detach(&self) -> Option<Chain<T>> {
        let locked = self.lock();
        let (first, last) = (NonNull::new(locked.first())?, NonNull::new(locked.last())?);
        let len = self.len();
        locked.new_number();
        // ORDERING: Relaxed, all: null leads to nothing.
        self.head.store(ptr::null_mut(), Ordering::Relaxed);
        self.tail.store(ptr::null_mut(), Ordering::Relaxed);
        self.len.store(0, Ordering::Relaxed);
        Some(Chain { first, last, len })
    }

    /// Puts a chain at the end of the list. Returns the number of its elements.
    ///
    /// # Safety
    ///
    /// The chain comes from a list of the same domain, and a grace period has passed since. The caller holds no lock.
    pub(super) unsafe fn attach_back(&self, chain: Chain<T>) -> usize {
        let locked = self.lock();
        locked.adopt(&chain);
        let before = locked.last();
        // ORDERING: `D::BACKWARD`, as in `link`. Readers do not find the chain yet.
        // SAFETY: the chain owns its elements.
        unsafe { head(chain.first).as_ref() }.prev.store(before, D::BACKWARD);
        // ORDERING: Release, pairs with the Acquire in `ListIter::next`: publishes the elements of the chain.
        locked.link_after(before).store(chain.first.as_ptr(), Ordering::Release);
        // ORDERING: `D::BACKWARD`, as in `link`.
        self.tail.store(chain.last.as_ptr(), D::BACKWARD);
        locked.add_to_len(chain.len);
        chain.len
    }

    /// Puts a chain that was taken out of this list back at its front. Readers may still be in the chain. At its end
    /// they go on into the list that it came from.
    pub(super) fn put_back(&self, chain: Chain<T>) {
        let locked = self.lock();
        locked.adopt(&chain);
        let after = locked.first();
        // The end of the chain comes first. So readers who find the chain find what is behind it.
        // ORDERING: Release, pairs with the Acquire in `ListIter::next`: publishes the element behind the chain.
        // SAFETY: the chain owns its elements.
        unsafe { chain.last.as_ref() }.next.store(after, Ordering::Release);
        // ORDERING: Release, pairs with the Acquire in `ListIter::next`: publishes the elements of the chain.
        self.head.store(chain.first.as_ptr(), Ordering::Release);
        // ORDERING: `D::BACKWARD`, as in `link`.
        locked.link_before(after).store(chain.last.as_ptr(), D::BACKWARD);
        locked.add_to_len(chain.len);
    }
}

impl<T> Links<T, BothWays> {
    #[inline]
    pub(super) fn iter_back<'a>(&'a self, section: &'a impl CriticalSection) -> ListIterBack<'a, T> {
        self.refuse_foreign(section);
        // SAFETY: the walk borrows the list and the section, which is of the list's domain.
        unsafe { ListIterBack::new(&self.tail) }
    }

    /// As [`resume`](Self::resume), backward.
    #[inline]
    pub(super) fn resume_back<'a>(
        &'a self,
        handle: &ListHandle<T, BothWays>,
        section: &'a impl CriticalSection,
    ) -> Option<ListIterBack<'a, T>> {
        self.refuse_foreign(section);
        // SAFETY: E5 (the element's home was compared in this section, which the walk borrows).
        self.is_linked(handle).then(|| unsafe { ListIterBack::new(&handle.head().prev) })
    }

    /// Unlinks and retires the last entry. Returns a handle to it.
    pub(super) fn pop_back(&self) -> Option<ListHandle<T, BothWays>> {
        if self.is_empty() {
            return None;
        }
        let place = self.reserve(&mut IfFull::go_on());
        let unlinked = {
            let locked = self.lock();
            locked.unlink(NonNull::new(locked.last())?)
        };
        let handle = unlinked.handle();
        self.retire(unlinked, place);
        Some(handle)
    }
}

/// The lock of a list.
struct Locked<'l, T: 'static, D: Walk> {
    links: &'l Links<T, D>,
    _guard: MutexGuard<'l, ()>,
}

impl<'l, T, D: Walk> Locked<'l, T, D> {
    fn first(&self) -> *mut Element<T> {
        // ORDERING: Relaxed, E1 (the lock orders writers).
        self.links.head.load(Ordering::Relaxed)
    }

    fn last(&self) -> *mut Element<T> {
        // ORDERING: Relaxed, E1 (the lock orders writers).
        self.links.tail.load(Ordering::Relaxed)
    }

    /// Returns the element after an element of the list.
    fn next(&self, element: NonNull<Element<T>>) -> *mut Element<T> {
        // ORDERING: Relaxed, E1 (the lock orders writers).
        // SAFETY: O1 (the element is in the list, and does not leave it while the lock is held).
        unsafe { element.as_ref() }.next.load(Ordering::Relaxed)
    }

    /// Returns the element before an element of the list.
    fn prev(&self, element: NonNull<Element<T>>) -> *mut Element<T> {
        // ORDERING: Relaxed, E1 (the lock orders writers).
        // SAFETY: O1 (the element is in the list, and does not leave it while the lock is held).
        unsafe { head(element).as_ref() }.prev.load(Ordering::Relaxed)
    }

    /// Returns the link that leads forward from an element of the list, or from the head if that is null.
    fn link_after(&self, element: *mut Element<T>) -> &AtomicPtr<Element<T>> {
        // SAFETY: O1 (the element is in the list, and does not leave it while the lock is held).
        NonNull::new(element).map_or(&self.links.head, |element| unsafe { &element.as_ref().next })
    }

    /// Returns the link that leads backward from an element of the list, or from the tail if that is null.
    fn link_before(&self, element: *mut Element<T>) -> &AtomicPtr<Element<T>> {
        // SAFETY: O1 (the element is in the list, and does not leave it while the lock is held).
        NonNull::new(element).map_or(&self.links.tail, |element| unsafe { &head(element).as_ref().prev })
    }

    /// Links a new element between `prev` and `next`: neighbours, or the neighbours of an element that leaves.
    fn link(&self, new: NewElement<T>, prev: *mut Element<T>, next: *mut Element<T>) {
        let new = new.into_pointer();
        {
            // SAFETY: this owns the element until it is published below.
            let (head, element) = (unsafe { head(new).as_ref() }, unsafe { new.as_ref() });
            // ORDERING: Relaxed, all. The element is not published yet.
            head.prev.store(prev, Ordering::Relaxed);
            head.home.store(self.number(), Ordering::Relaxed);
            element.next.store(next, Ordering::Relaxed);
        }
        // ORDERING: Release, pairs with the Acquire in `ListIter::next`: publishes the element.
        self.link_after(prev).store(new.as_ptr(), Ordering::Release);
        // ORDERING: `D::BACKWARD`. Where readers follow it, it pairs with the Acquire in `ListIterBack::next`.
        self.link_before(next).store(new.as_ptr(), D::BACKWARD);
    }

    /// Unlinks an element of the list.
    fn unlink(&self, element: NonNull<Element<T>>) -> Unlinked<T> {
        let (prev, next) = (self.prev(element), self.next(element));
        // ORDERING: Release, pairs with the Acquire in `ListIter::next`: a reader that has not found `next` before finds it
        // complete.
        self.link_after(prev).store(next, Ordering::Release);
        // ORDERING: `D::BACKWARD`, as in `link`.
        self.link_before(next).store(prev, D::BACKWARD);
        let len = self.links.len();
        // ORDERING: Relaxed, a figure.
        self.links.len.store(len - 1, Ordering::Relaxed);
        self.leave(element)
    }

    fn unlink_if_linked(&self, handle: &ListHandle<T, D>) -> Option<Unlinked<T>> {
        self.links.is_linked(handle).then(|| self.unlink(handle.pointer()))
    }

    /// Notes that an element to which no link leads any more has left the list.
    fn leave(&self, element: NonNull<Element<T>>) -> Unlinked<T> {
        // ORDERING: Relaxed, as in `is_linked`. It is stored before the lock is released, so that it is visible to every
        // reader that must not go on from here.
        // SAFETY: O1 (the list's reference is there until the element is retired).
        unsafe { head(element).as_ref() }.home.store(NOWHERE, Ordering::Relaxed);
        Unlinked(element)
    }

    /// Returns the number of the list, which gets its first one here.
    fn number(&self) -> u64 {
        // ORDERING: Relaxed, E1 (the lock orders writers).
        match self.links.number.load(Ordering::Relaxed) {
            NOWHERE => self.new_number(),
            number => number,
        }
    }

    /// Gives the list a new number (E3).
    fn new_number(&self) -> u64 {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(NOWHERE + 1);
        // ORDERING: Relaxed, only the number matters. (Not modelled by loom: no model depends on it.)
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // ORDERING: Relaxed, as in `is_linked`.
        self.links.number.store(number, Ordering::Relaxed);
        number
    }

    /// Makes the list the home of the elements of a chain.
    fn adopt(&self, chain: &Chain<T>) {
        let number = self.number();
        for element in chain.elements() {
            // ORDERING: Relaxed, as in `is_linked`.
            // SAFETY: the chain owns its elements.
            unsafe { head(element).as_ref() }.home.store(number, Ordering::Relaxed);
        }
    }

    fn add_to_len(&self, more: usize) {
        let len = self.links.len();
        // ORDERING: Relaxed, a figure.
        self.links.len.store(len + more, Ordering::Relaxed);
    }
}

/// The list's reference of an element that has left, which is to be retired.
#[must_use = "the element leaks unless it is retired"]
struct Unlinked<T>(NonNull<Element<T>>);

impl<T> Unlinked<T> {
    fn handle<D: Walk>(&self) -> ListHandle<T, D> {
        // SAFETY: O1 (the list's reference is there until the element is retired).
        unsafe { ListHandle::take(self.0) }
    }
}

/// Elements that were taken out of a list, with the list's references. If it is dropped, the elements leak.
#[must_use = "the elements leak unless they are linked again or retired"]
pub(super) struct Chain<T> {
    first: NonNull<Element<T>>,
    last: NonNull<Element<T>>,
    len: usize,
}

// SAFETY: a chain owns elements, and other threads may read them (`Sync`). Any thread may drop them (`Send`).
unsafe impl<T: Send + Sync> Send for Chain<T> {}
// SAFETY: a shared chain gives nothing.
unsafe impl<T: Send + Sync> Sync for Chain<T> {}

impl<T> Chain<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the elements. The next one is found before an element is returned, so the caller may retire that.
    fn elements(&self) -> impl Iterator<Item = NonNull<Element<T>>> + use<T> {
        let (mut next, last) = (Some(self.first), self.last);
        std::iter::from_fn(move || {
            let element = next?;
            next = (element != last)
                // ORDERING: Relaxed. The lock of the list that the chain was taken out of orders the last store with this.
                // SAFETY: the chain owns its elements, and the caller has not retired this one yet.
                .then(|| NonNull::new(unsafe { element.as_ref() }.next.load(Ordering::Relaxed)))
                .flatten();
            Some(element)
        })
    }
}

impl<T, D: Walk> Drop for Links<T, D> {
    fn drop(&mut self) {
        /// The elements that are left. They are dropped even if the drop of a value panics.
        struct Rest<'d, T>(*mut Element<T>, &'d Inner);

        impl<T> Rest<'_, T> {
            fn put_all(&mut self) {
                while let Some(element) = NonNull::new(self.0) {
                    // ORDERING: Relaxed. The list is dropped, so there are no other writers.
                    // SAFETY: O1 (the element still has the list's reference).
                    self.0 = unsafe { element.as_ref() }.next.load(Ordering::Relaxed);
                    // SAFETY: readers and splices borrow the list, so there are none. The element is of the list's domain, and is
                    // not used again.
                    unsafe { object::put_containers(element::object(element), self.1) };
                }
            }
        }

        impl<T> Drop for Rest<'_, T> {
            fn drop(&mut self) {
                self.put_all();
            }
        }
        // ORDERING: Relaxed. The list is dropped, so there are no other writers.
        Rest(self.head.load(Ordering::Relaxed), self.domain().inner()).put_all();
    }
}
