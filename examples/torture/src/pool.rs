//! Elements that age, in memory that is never freed.
//!
//! An element's *age* is 0 while it is published, 1 once it is replaced, and grows by one with every grace period
//! after that. At [`LAST_AGE`] its life ends: it is poisoned and returns to the pool for its next life.
//!
//! A reader that holds an element may see it at age 1, if the element was replaced in the meantime. It must never
//! see age 2: then a grace period has ended within the reader's critical section. The memory stays valid, so a
//! grace period that is too short shows as an age, and not as a crash.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::random::mix;

/// The age at which an element's life ends.
pub const LAST_AGE: usize = 6;
/// The number of ages that can be seen. The last one means that the element is back in the pool, perhaps in its
/// next life.
pub const AGES: usize = LAST_AGE + 1;
/// The first age that no reader may see.
pub const TOO_OLD: usize = 2;

pub struct Pool {
    elements: Box<[Element]>,
    free: Mutex<Vec<u64>>,
}

/// One cache line.
#[repr(align(64))]
struct Element {
    /// A [`Stamp`].
    stamp: AtomicU64,
    /// Computed from the number of the life, so that a torn or unpublished element is recognized.
    payload: [AtomicU64; 7],
}

const POISON: u64 = 0xdead_dead_dead_dead;

/// An element in one of its lives.
///
/// | bits | |
/// |---|---|
/// | 0..16 | its place in the pool |
/// | 16..64 | the number of the life |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name(pub u64);

impl Name {
    fn new(index: u64, life: u64) -> Self {
        Name(life << 16 | index)
    }

    fn index(self) -> u64 {
        self.0 & 0xffff
    }

    fn life(self) -> u64 {
        self.0 >> 16
    }
}

/// The age and the life of an element.
///
/// | bits | |
/// |---|---|
/// | 0..8 | the age |
/// | 8..64 | the number of the life |
#[derive(Clone, Copy)]
struct Stamp(u64);

impl Stamp {
    fn new(life: u64, age: usize) -> Self {
        Stamp(life << 8 | age as u64)
    }

    fn age(self) -> usize {
        (self.0 & 0xff) as usize
    }

    fn life(self) -> u64 {
        self.0 >> 8
    }
}

/// An element at the beginning of a life, ready to be published.
#[must_use = "an element that is not published never returns to the pool"]
pub struct Fresh(pub Name);

/// The right to age a replaced element.
#[must_use = "an element that is not aged never returns to the pool"]
pub struct Retired(Name);

/// The payload does not match the life that the reader holds.
#[derive(PartialEq, Eq, Debug)]
pub struct Torn;

impl Pool {
    pub fn new(elements: u16) -> Self {
        let free = (0..u64::from(elements)).collect();
        let element = |_| Element { stamp: AtomicU64::new(0), payload: Default::default() };
        Pool { elements: (0..elements).map(element).collect(), free: Mutex::new(free) }
    }

    /// Returns the number of elements that are not in use.
    pub fn free(&self) -> usize {
        self.free.lock().len()
    }

    pub fn size(&self) -> usize {
        self.elements.len()
    }

    pub fn take(&self) -> Option<Fresh> {
        let index = self.free.lock().pop()?;
        let element = &self.elements[index as usize];
        // ORDERING: Relaxed, here and below. The thread that publishes the element publishes this content with
        // it. An age is stored after a grace period, which orders it after the end of every section that may read
        // it.
        let life = Stamp(element.stamp.load(Relaxed)).life();
        element.fill(|place| payload(life, place));
        element.stamp.store(Stamp::new(life, 0).0, Relaxed);
        Some(Fresh(Name::new(index, life)))
    }

    /// Marks an element as replaced: no reader finds it any more. Returns `None` if this life of it is over.
    pub fn retire(&self, name: Name) -> Option<Retired> {
        let element = &self.elements[name.index() as usize];
        let stamp = Stamp(element.stamp.load(Relaxed));
        if stamp.life() != name.life() {
            return None;
        }
        element.stamp.store(Stamp::new(name.life(), stamp.age().max(1)).0, Relaxed);
        Some(Retired(name))
    }

    /// Ages an element after a grace period that began after the element was retired. Returns `None` when its
    /// life has ended.
    pub fn age(&self, retired: Retired) -> Option<Retired> {
        let Retired(name) = retired;
        let element = &self.elements[name.index() as usize];
        let age = Stamp(element.stamp.load(Relaxed)).age() + 1;
        if age < LAST_AGE {
            element.stamp.store(Stamp::new(name.life(), age).0, Relaxed);
            return Some(retired);
        }
        element.fill(|_| POISON);
        element.stamp.store(Stamp::new(name.life() + 1, age).0, Relaxed);
        self.free.lock().push(name.index());
        None
    }

    /// Returns the age of an element that a reader holds.
    pub fn look(&self, name: Name) -> Result<usize, Torn> {
        // The name may come from freed memory. An invalid name is to be reported, not to panic.
        let element = self.elements.get(name.index() as usize).ok_or(Torn)?;
        let stamp = Stamp(element.stamp.load(Relaxed));
        if stamp.life() != name.life() {
            return Ok(LAST_AGE);
        }
        let whole = (0..).zip(&element.payload).all(|(place, word)| word.load(Relaxed) == payload(name.life(), place));
        if whole || stamp.age() >= TOO_OLD { Ok(stamp.age()) } else { Err(Torn) }
    }
}

impl Element {
    fn fill(&self, word: impl Fn(u64) -> u64) {
        (0..).zip(&self.payload).for_each(|(place, to)| to.store(word(place), Relaxed));
    }
}

fn payload(life: u64, place: u64) -> u64 {
    mix(life).rotate_left(place as u32 * 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_ages_by_grace_periods_and_then_begins_another_life() {
        let pool = Pool::new(1);
        let Fresh(name) = pool.take().unwrap();
        assert_eq!(pool.look(name), Ok(0));
        assert!(pool.take().is_none());
        let mut retired = pool.retire(name);
        for age in 1..LAST_AGE {
            assert_eq!(pool.look(name), Ok(age));
            retired = pool.age(retired.unwrap());
        }
        assert!(retired.is_none());
        assert_eq!(pool.free(), 1);
        assert_eq!(pool.look(name), Ok(LAST_AGE), "the life of the element is over");
        let Fresh(again) = pool.take().unwrap();
        assert_eq!((pool.look(again), pool.look(name)), (Ok(0), Ok(LAST_AGE)), "another element now has the memory");
        assert!(pool.retire(name).is_none(), "a life ends once");
    }

    #[test]
    fn poisoned_torn_and_invented_elements_are_detected() {
        let pool = Pool::new(2);
        let Fresh(name) = pool.take().unwrap();
        pool.elements[name.index() as usize].payload[6].store(POISON, Relaxed);
        assert_eq!(pool.look(name), Err(Torn));
        assert_eq!(pool.look(Name(POISON)), Err(Torn));
    }
}
