//! Ids as the Linux kernel's `ipc/util.c` hands them out: a slot, and how often the slots were gone through before.
//!
//! ```text
//! id = sequence * range + slot
//! ```
//!
//! Slots are handed out in turn, so an id comes again when 2^32 others were handed out, and not before: who still has
//! the id of something that was removed finds nothing, or somebody else in the slot, and can tell. The registry, keyed
//! by slots, is all that there is: an insertion is refused where the slot is taken.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use epoch_registry::{Domain, DomainGuard, Entry, ForeignGuard, Handle, Registry, View};

/// An id, of a thing or of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Id(u32);

/// Ids, and what they stand for.
pub struct Ids<T: Send + Sync + 'static> {
    slots: Registry<u32, Numbered<T>>,
    /// How many slots there are.
    range: u32,
    /// The next id, and how often ids began anew.
    next: AtomicU64,
}

/// What an id stands for, with the id.
pub struct Numbered<T> {
    id: Id,
    value: T,
}

/// A handle on what an id stands for, or stood for.
pub type Held<T> = Handle<u32, Numbered<T>>;

/// Why an id stands for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Its slot is empty.
    Empty,
    /// Its slot has another id by now. (The kernel's `EIDRM`.)
    Reused,
}

/// All slots are taken. With the value.
#[derive(PartialEq, Eq)]
pub struct NoSlot<T>(pub T);

impl<T> fmt::Debug for NoSlot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NoSlot")
    }
}

impl<T: Send + Sync + 'static> Ids<T> {
    /// None yet, and so many at a time.
    pub fn new(domain: &Domain, range: u32) -> Self {
        assert!(range > 0, "there must be a slot");
        // A shard for each would be too much: there are many of these, of a few slots each.
        let slots = Registry::builder().domain(domain.clone()).shards(1).build();
        Ids { slots, range, next: AtomicU64::new(0) }
    }

    /// Gives a value an id of its own.
    ///
    /// # Errors
    ///
    /// [`NoSlot`] if all are taken.
    pub fn add(&self, mut value: T) -> Result<Held<T>, NoSlot<T>> {
        while self.len() < self.range as usize {
            for _ in 0..self.range {
                let id = self.next_id();
                let slot = self.slot(id);
                // A look costs less than an insertion that is refused.
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

    /// Takes the id from this very value. False if it has none any more: of several who try, one succeeds.
    pub fn remove(&self, held: &Held<T>) -> bool {
        self.slots.remove_handle(held)
    }

    /// What an id stands for.
    ///
    /// # Errors
    ///
    /// That the id stands for nothing, and why.
    pub fn get(&self, id: Id) -> Result<Held<T>, Gone> {
        let held = self.slots.lookup(&self.slot(id)).ok_or(Gone::Empty)?;
        if held.id == id { Ok(held) } else { Err(Gone::Reused) }
    }

    /// To look up without taking handles, in a critical section that may span several of these.
    ///
    /// # Errors
    ///
    /// [`ForeignGuard`] if the guard is of another domain.
    pub fn view<'g>(&'g self, guard: &'g DomainGuard<'_>) -> Result<IdsView<'g, T>, ForeignGuard> {
        Ok(IdsView { ids: self, view: self.slots.view(guard)? })
    }

    /// Everything that has an id.
    pub fn all(&self) -> Vec<Held<T>> {
        self.slots.pin().iter().filter_map(Entry::handle).collect()
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    fn next_id(&self) -> Id {
        // As many ids as there are whole sequences in 32 bits.
        let ids = (1 << 32) / u64::from(self.range) * u64::from(self.range);
        // ORDERING: Relaxed, only to be unlike the others. What is found by an id was published by the registry.
        Id((self.next.fetch_add(1, Ordering::Relaxed) % ids) as u32)
    }

    fn slot(&self, id: Id) -> u32 {
        id.0 % self.range
    }
}

/// Ids as seen from within a critical section.
pub struct IdsView<'g, T: Send + Sync + 'static> {
    ids: &'g Ids<T>,
    view: View<'g, u32, Numbered<T>, RandomState>,
}

impl<T: Send + Sync + 'static> IdsView<'_, T> {
    /// As [`Ids::get`], but borrowed.
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
    fn a_slot_that_is_used_again_has_another_id() {
        let ids = Ids::new(&Domain::new(), 2);
        let old = ids.add("old").expect("there is room");
        assert!(ids.remove(&old) && !ids.remove(&old));
        assert_eq!(ids.get(old.id()).err(), Some(Gone::Empty));
        ids.add("other").expect("there is room");
        let new = ids.add("new").expect("there is room");
        assert_eq!((old.id(), new.id()), (Id(0), Id(2)), "the same slot, in the next sequence");
        assert_eq!(ids.get(old.id()).err(), Some(Gone::Reused));
        assert_eq!(**ids.get(new.id()).expect("it is there"), "new");
        // By identity: the old handle does not remove the new one.
        assert!(!ids.remove(&old));
        assert_eq!(**old, "old");
    }

    #[test]
    fn when_all_slots_are_taken_the_value_comes_back() {
        let ids = Ids::new(&Domain::new(), 3);
        let held: Vec<_> = (0..3).map(|value| ids.add(value).expect("there is room")).collect();
        assert_eq!(ids.add(3).err(), Some(NoSlot(3)));
        ids.remove(&held[1]);
        let last = ids.add(4).expect("there is room");
        assert_eq!(last.id().0 % 3, 1, "the slot that was free, wherever the turn was");
    }

    #[test]
    fn ids_begin_anew_when_there_are_no_more() {
        let ids = Ids::new(&Domain::new(), 3);
        ids.next.store(u32::MAX.into(), Ordering::Relaxed);
        let numbers: Vec<u32> = (0..2).map(|value| ids.add(value).expect("there is room").id().0).collect();
        // 2^32 - 1 is the last multiple of three, and no id.
        assert_eq!(numbers, [0, 1]);
    }

    #[test]
    fn threads_get_different_ids() {
        let domain = Domain::new();
        let ids = Ids::new(&domain, 1000);
        let add = || (0..500).map(|nth| ids.add(nth).expect("there is room").id()).collect::<Vec<_>>();
        let mut all: Vec<Id> = std::thread::scope(|scope| {
            let adding = [scope.spawn(add), scope.spawn(add)];
            adding.into_iter().flat_map(|thread| thread.join().expect("it does not panic")).collect()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!((all.len(), ids.len(), ids.add(9).is_err()), (1000, 1000, true));
    }
}
