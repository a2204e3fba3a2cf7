//! The weight of an entry, in two bytes.

use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

/// The number of bytes that an entry counts for, rounded up by at most a thousandth. Bits 0 to 10 hold a
/// mantissa, bits 11 to 15 a binary exponent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Weight(u16);

const MANTISSA: u32 = 11;

impl Weight {
    /// Returns the smallest weight that is not less than `bytes`. Weights saturate at about 4 TB.
    pub(crate) fn at_least(bytes: u64) -> Weight {
        let bytes = bytes.min(((1 << MANTISSA) - 1) << 31);
        let mut exponent = (u64::BITS - bytes.leading_zeros()).saturating_sub(MANTISSA);
        let mut mantissa = bytes.div_ceil(1 << exponent);
        if mantissa >> MANTISSA != 0 {
            // The mantissa was rounded up to the next power of two.
            exponent += 1;
            mantissa >>= 1;
        }
        Weight((exponent << MANTISSA) as u16 | mantissa as u16)
    }

    #[inline]
    pub(crate) fn bytes(self) -> u64 {
        let mantissa = u64::from(self.0) & ((1 << MANTISSA) - 1);
        mantissa << (self.0 >> MANTISSA)
    }
}

/// The weight of an entry as its node holds it, which may change (N5).
///
/// Not modelled by loom: the shard lock orders all changes, and retirement carries the last one to the threads that
/// reclaim. Other accesses are hints.
pub(crate) struct EntryWeight(AtomicU16);

impl EntryWeight {
    #[inline]
    pub(crate) fn new(weight: Weight) -> Self {
        EntryWeight(AtomicU16::new(weight.0))
    }

    /// Changes the weight (N5).
    pub(crate) fn set(&self, weight: Weight) {
        // ORDERING: Relaxed, the shard lock orders it.
        self.0.store(weight.0, Relaxed);
    }

    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        // ORDERING: Relaxed, the shard lock or the retirement of the node orders it. Otherwise it is a hint.
        Weight(self.0.load(Relaxed)).bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_rounded_up_by_a_thousandth_at_most() {
        let near_powers = (0..42).flat_map(|bit| [-1, 0, 1].map(|off| (1_i64 << bit) + off));
        for bytes in (0..5000).chain(near_powers).map(|bytes| bytes as u64) {
            let told = Weight::at_least(bytes).bytes();
            assert!(told >= bytes && told - bytes <= bytes / 1000, "{bytes}: {told}");
            assert_eq!(Weight::at_least(told).bytes(), told, "{bytes}");
        }
        let most = 2047 << 31;
        assert_eq!((Weight::at_least(most).bytes(), Weight::at_least(u64::MAX).bytes()), (most, most));
    }
}
