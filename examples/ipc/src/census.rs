//! Counts the things that are made and dropped, each by its serial number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A census of things with serial numbers.
#[derive(Default)]
pub struct Census {
    made: AtomicU64,
    /// A lock is good enough, since things are never dropped by threads that read.
    dropped: Mutex<Dropped>,
}

#[derive(Default)]
struct Dropped {
    count: u64,
    /// One bit per serial number.
    seen: Vec<u64>,
    /// How often a thing was dropped that had been dropped before.
    again: u64,
}

impl Census {
    /// Returns the serial number of a new thing.
    pub fn make(&self) -> u64 {
        // ORDERING: Relaxed. Only a count.
        self.made.fetch_add(1, Ordering::Relaxed)
    }

    pub fn made(&self) -> u64 {
        // ORDERING: Relaxed. The count is exact once the threads that make things have been joined.
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

    /// Returns whether every thing was dropped, and none of them twice.
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
    fn an_object_dropped_twice_does_not_balance_one_that_was_not_dropped() {
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
