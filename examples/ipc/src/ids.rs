//! Ids as the Linux kernel's `ipc/util.c` assigns them: a slot, and how often the slots were gone through before.
//!
//! ```text
//! id = sequence * range + slot
//! ```
//!
//! Slots are assigned in turn, so an id is reused only after 2^32 others. If a thread still has the id of a
//! removed object, it finds an empty slot or a slot with another id, and can tell that the id is stale. The
//! registry, keyed by slots, is the only data structure: an insertion fails if the slot is taken.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use epoch_registry::RandomState;
use epoch_registry::{Domain, DomainGuard, Entry, ForeignGuard, Handle, Registry, View};

/// An id of an object or of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Id(u32);

/// Ids, and the values that they belong to.
pub struct Ids<T: Send + Sync + 'static> {
    slots: Registry<u32, Numbered<T>>,
    /// The number of slots.
    range: u32,
    /// The number of ids assigned so far. It gives the next id.
    next: AtomicU64,
}

/// A value with its id.
pub struct Numbered<T> {
    id: Id,
    value: T,
}

/// A handle to a value that has, or had, an id.
pub type Held<T> = Handle<u32, Numbered<T>>;

/// Why an id belongs to no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Its slot is empty.
    Empty,
    /// Its slot holds another id. (The kernel's `EIDRM`.)
    Reused,
}

/// The error if all slots are taken. Returns the value.
#[derive(PartialEq, Eq)]
pub struct NoSlot<T>(pub T);

impl<T> fmt::Debug for NoSlot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoSlot")
    }
}

impl<T: Send + Sync + 'static> Ids<T> {
    /// Creates an empty set with `range` slots.
    pub fn new(domain: &Domain, range: u32) -> Self {
        assert!(range > 0, "the range must not be zero");
        // One shard: there are many of these, each with few slots.
        let slots = Registry::builder().domain(domain.clone()).shards(1).build();
        Ids { slots, range, next: AtomicU64::new(0) }
    }

    /// Gives a value an id.
    ///
    /// # Errors
    ///
    /// [`NoSlot`] if all slots are taken.
    pub fn add(&self, mut value: T) -> Result<Held<T>, NoSlot<T>> {
        while self.len() < self.range as usize {
            for _ in 0..self.range {
                let id = self.next_id();
                let slot = self.slot(id);
                // A lookup costs less than an insertion that fails.
                if self.slots.contains_key(&slot) {
                    continue;
                }
                match self.slots.try_insert(slot, Numbered { id, value }) {
                    Ok(held) => return Ok(held),
                    Err(occupied) => value = occupied.value.value,
                }
            }
        }
        Err(NoSlot(value))
    }

    /// Removes exactly this value and its id. Returns false if it was removed before: if several threads try, one
    /// succeeds.
    pub fn remove(&self, held: &Held<T>) -> bool {
        self.slots.remove_handle(held)
    }

    /// Returns the value with this id.
    ///
    /// # Errors
    ///
    /// [`Gone`] says why the id belongs to no value.
    pub fn get(&self, id: Id) -> Result<Held<T>, Gone> {
        let held = self.slots.lookup(&self.slot(id)).ok_or(Gone::Empty)?;
        if held.id == id { Ok(held) } else { Err(Gone::Reused) }
    }

    /// Returns a view for lookups without handles, in a critical section that may span several sets of ids.
    ///
    /// # Errors
    ///
    /// [`ForeignGuard`] if the guard belongs to another domain.
    pub fn view<'g>(&'g self, guard: &'g DomainGuard<'_>) -> Result<IdsView<'g, T>, ForeignGuard> {
        Ok(IdsView { ids: self, view: self.slots.view(guard)? })
    }

    /// Returns handles to all values.
    pub fn all(&self) -> Vec<Held<T>> {
        self.slots.pin().iter().filter_map(Entry::handle).collect()
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    fn next_id(&self) -> Id {
        // The largest multiple of `range` that 32 bits hold, so that every sequence is complete.
        let ids = (1 << 32) / u64::from(self.range) * u64::from(self.range);
        // ORDERING: Relaxed. The number only has to be unique. The registry publishes the value.
        Id((self.next.fetch_add(1, Ordering::Relaxed) % ids) as u32)
    }

    fn slot(&self, id: Id) -> u32 {
        id.0 % self.range
    }
}

/// A view of [`Ids`] in a critical section.
pub struct IdsView<'g, T: Send + Sync + 'static> {
    ids: &'g Ids<T>,
    view: View<'g, u32, Numbered<T>, RandomState>,
}

impl<T: Send + Sync + 'static> IdsView<'_, T> {
    /// Like [`Ids::get`], but borrows the entry.
    pub fn get(&self, id: Id) -> Result<Entry<'_, u32, Numbered<T>>, Gone> {
        let entry = self.view.get(&self.ids.slot(id)).ok_or(Gone::Empty)?;
        if entry.id == id { Ok(entry) } else { Err(Gone::Reused) }
    }
}

impl<T> Numbered<T> {
    pub fn id(&self) -> Id {
        self.id
    }
}

impl<T> Deref for Numbered<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_slot_has_another_id() {
        let ids = Ids::new(&Domain::new(), 2);
        let old = ids.add("old").expect("there is room");
        assert!(ids.remove(&old) && !ids.remove(&old));
        assert_eq!(ids.get(old.id()).err(), Some(Gone::Empty));
        ids.add("other").expect("there is room");
        let new = ids.add("new").expect("there is room");
        assert_eq!((old.id(), new.id()), (Id(0), Id(2)), "the same slot, in the next sequence");
        assert_eq!(ids.get(old.id()).err(), Some(Gone::Reused));
        assert_eq!(**ids.get(new.id()).expect("the id is in use"), "new");
        // A handle removes by identity: the old handle does not remove the new value.
        assert!(!ids.remove(&old));
        assert_eq!(**old, "old");
    }

    #[test]
    fn if_all_slots_are_taken_the_value_is_returned() {
        let ids = Ids::new(&Domain::new(), 3);
        let held: Vec<_> = (0..3).map(|value| ids.add(value).expect("there is room")).collect();
        assert_eq!(ids.add(3).err(), Some(NoSlot(3)));
        ids.remove(&held[1]);
        let last = ids.add(4).expect("there is room");
        assert_eq!(last.id().0 % 3, 1, "the free slot must be used, even if another is next in turn");
    }

    #[test]
    fn ids_start_again_when_they_run_out() {
        let ids = Ids::new(&Domain::new(), 3);
        ids.next.store(u32::MAX.into(), Ordering::Relaxed);
        let numbers: Vec<u32> = (0..2).map(|value| ids.add(value).expect("there is room").id().0).collect();
        // 2^32 - 1 is the last multiple of three, but it is not an id.
        assert_eq!(numbers, [0, 1]);
    }

    #[test]
    fn threads_get_different_ids() {
        let domain = Domain::new();
        let ids = Ids::new(&domain, 1000);
        let add = || (0..500).map(|nth| ids.add(nth).expect("there is room").id()).collect::<Vec<_>>();
        let mut all: Vec<Id> = std::thread::scope(|scope| {
            let adding = [scope.spawn(add), scope.spawn(add)];
            adding.into_iter().flat_map(|thread| thread.join().expect("the thread does not panic")).collect()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!((all.len(), ids.len(), ids.add(9).is_err()), (1000, 1000, true));
    }
}
