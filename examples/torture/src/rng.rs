//! Random choices that a seed repeats.

use crate::random::mix;

/// The random number generator of one thread (xorshift64*). It is not shared, so the choices of a thread do not
/// depend on other threads.
pub struct Rng(u64);

impl Rng {
    /// Creates the generator for stream number `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        Rng(mix(mix(seed) ^ stream) | 1)
    }

    /// Returns a generator for a short-lived thread.
    pub fn fork(&mut self) -> Self {
        Rng(mix(self.next()) | 1)
    }

    /// Returns a number below `end`. `end` must be below 2^32.
    pub fn below(&mut self, end: u64) -> u64 {
        ((self.next() >> 32) * end) >> 32
    }

    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.index(among.len())]
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_choices_and_streams_differ() {
        let take = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            [(); 8].map(|()| rng.below(1000))
        };
        assert_eq!(take(1, 2), take(1, 2));
        assert_ne!(take(1, 2), take(1, 3));
        assert_ne!(take(1, 2), take(2, 2));
    }
}
