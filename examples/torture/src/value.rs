//! Values that check themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Relaxed};

use crate::figures::{Figures, Ledger};
use crate::random::mix;

const ALIVE: u64 = 0x5afe_5afe_5afe_5afe;
const DEAD: u64 = 0xdead_dead_dead_dead;

/// A value with its key, a version and a checksum of both. It is poisoned when it is dropped.
pub struct Value {
    key: u64,
    pub version: u64,
    check: u64,
    state: AtomicU64,
    /// Whether it belongs to a domain that comes and goes.
    passing: bool,
    figures: Arc<Figures>,
}

impl Value {
    pub fn new(key: u64, version: u64, figures: &Arc<Figures>) -> Self {
        Self::of(key, version, false, figures)
    }

    pub fn passing(key: u64, figures: &Arc<Figures>) -> Self {
        Self::of(key, 0, true, figures)
    }

    fn of(key: u64, version: u64, passing: bool, figures: &Arc<Figures>) -> Self {
        let figures = Arc::clone(figures);
        let value =
            Value { key, version, check: checksum(key, version), state: AtomicU64::new(ALIVE), passing, figures };
        value.ledger().created.up();
        value
    }

    /// Returns the value that replaces this one.
    pub fn next(&self) -> Self {
        Value::of(self.key, self.version + 1, self.passing, &self.figures)
    }

    /// Returns whether this is a live, intact value of `key`.
    pub fn is_sound(&self, key: u64) -> bool {
        self.state.load(Relaxed) == ALIVE && self.key == key && self.check == checksum(key, self.version)
    }

    fn ledger(&self) -> &Ledger {
        if self.passing { &self.figures.passing_values } else { &self.figures.values }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        if self.state.swap(DEAD, AcqRel) != ALIVE || self.check != checksum(self.key, self.version) {
            self.figures.faults.add("a value was dropped twice, or torn", || format!("key {}", self.key));
        }
        self.ledger().dropped.up();
    }
}

fn checksum(key: u64, version: u64) -> u64 {
    mix(key ^ version.rotate_left(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_or_torn_value_or_one_of_another_key_is_not_sound() {
        let figures = Arc::default();
        let mut value = Value::new(3, 1, &figures);
        assert!(value.is_sound(3) && !value.is_sound(4) && value.next().is_sound(3));
        value.version = 2;
        assert!(!value.is_sound(3));
        drop(value);
        assert_eq!((figures.values.created.get(), figures.values.dropped.get()), (2, 2));
        assert!(figures.faults.any());
    }
}
