//! The weight of an entry, in two bytes.

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
