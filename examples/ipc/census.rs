//! Counts what is made and what is dropped, one by one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Of things that have a serial number each.
#[derive(Default)]
pub struct Census {
    made: AtomicU64,
    /// Things are never dropped by those who read, so a lock is good enough.
    dropped: Mutex<Dropped>,
}

#[derive(Default)]
struct Dropped {
    count: u64,
    /// A bit for each serial number.
    seen: Vec<u64>,
    /// Dropped that were dropped before.
    again: u64,
}

impl Census {
    /// The serial number of a new one.
    pub fn make(&self) -> u64 {
        // ORDERING: Relaxed, a count.
        self.made.fetch_add(1, Ordering::Relaxed)
    }

    pub fn made(&self) -> u64 {
        // ORDERING: Relaxed, exact once those who make them are joined.
        self.made.load(Ordering::Relaxed)
    }

    pub fn drop(&self, serial: u64) {
        let (word, bit) = (serial as usize / 64, 1 << (serial % 64));
        let mut dropped = self.lock();
        if word >= dropped.seen.len() {
            dropped.seen.resize(word + 1, 0);
        }
        dropped.again += u64::from(dropped.seen[word] & bit != 0);
        dropped.seen[word] |= bit;
        dropped.count += 1;
    }

    pub fn dropped(&self) -> u64 {
        self.lock().count
    }

    pub fn is_dropped(&self, serial: u64) -> bool {
        self.lock().seen.get(serial as usize / 64).is_some_and(|word| word & 1 << (serial % 64) != 0)
    }

    /// Whether every one that was made was dropped, and none of them twice.
    pub fn is_balanced(&self) -> bool {
        let dropped = self.lock();
        (dropped.count, dropped.again) == (self.made(), 0)
    }

    fn lock(&self) -> MutexGuard<'_, Dropped> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dropped_twice_does_not_stand_for_another() {
        let census = Census::default();
        let serials: Vec<u64> = (0..100).map(|_| census.make()).collect();
        serials[1..].iter().for_each(|&serial| census.drop(serial));
        assert!(!census.is_balanced() && !census.is_dropped(0) && census.is_dropped(99));
        census.drop(99);
        assert!(!census.is_balanced() && census.dropped() == census.made());
        census.drop(0);
        assert!(!census.is_balanced());
    }
}
