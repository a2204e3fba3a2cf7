//! What keys and values are made of, and which keys a round asks for.

use benches::{Xorshift, Zipf};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A key, made from its number.
pub trait Key: Hash + Ord + Clone + Send + Sync + 'static {
    /// What the tables call it.
    const NAME: &'static str;
    fn of(number: u64) -> Self;
}

impl Key for u64 {
    const NAME: &'static str = "u64";

    fn of(number: u64) -> u64 {
        number
    }
}

impl Key for [u8; 16] {
    const NAME: &'static str = "16 bytes";

    fn of(number: u64) -> [u8; 16] {
        (u128::from(number) << 64 | u128::from(!number)).to_le_bytes()
    }
}

impl Key for String {
    const NAME: &'static str = "String";

    fn of(number: u64) -> String {
        format!("/var/lib/sessions/{number:016}")
    }
}

/// A value as a peer holds it, made from its number.
pub trait Value: Clone + Send + Sync + 'static {
    /// What ours holds in the same case: the value without a count of references, which an entry of ours has by itself.
    type Bare: Value;
    /// What the tables call it.
    fn name() -> String;
    fn of(number: u64) -> Self;
    fn number(&self) -> u64;
}

impl Value for u64 {
    type Bare = u64;

    fn name() -> String {
        "u64".into()
    }

    fn of(number: u64) -> u64 {
        number
    }

    #[inline]
    fn number(&self) -> u64 {
        *self
    }
}

impl<V: Value> Value for Arc<V> {
    type Bare = V;

    fn name() -> String {
        format!("Arc<{}>", V::name())
    }

    fn of(number: u64) -> Arc<V> {
        Arc::new(V::of(number))
    }

    #[inline]
    fn number(&self) -> u64 {
        (**self).number()
    }
}

/// A number whose drops are counted.
#[derive(Clone)]
pub struct Counted(u64);

static DROPPED: AtomicU64 = AtomicU64::new(0);

impl Counted {
    /// How many were dropped since the program began.
    pub fn dropped() -> u64 {
        // ORDERING: Relaxed, a figure.
        DROPPED.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // ORDERING: Relaxed, a figure.
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

impl Value for Counted {
    type Bare = Counted;

    fn name() -> String {
        "u64 with a counted drop".into()
    }

    fn of(number: u64) -> Counted {
        Counted(number)
    }

    #[inline]
    fn number(&self) -> u64 {
        self.0
    }
}

/// The distribution that keys are drawn from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Keys that are there, all alike.
    Uniform,
    /// Keys that are there, with a probability in proportion to 1 / rank^0.99.
    Zipf,
    /// Keys that are not there.
    Missing,
    /// One key.
    Hot,
}

impl Pattern {
    /// What the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Uniform => "uniform",
            Pattern::Zipf => "Zipf 0.99",
            Pattern::Missing => "misses",
            Pattern::Hot => "one hot key",
        }
    }
}

/// Ways to read one map, at most.
const SETS: usize = 7;

/// Keys for each way to read a map.
pub type Sets<K> = Vec<Vec<K>>;

/// Draws keys of a map that holds the numbers below `size`.
pub struct Draw {
    pattern: Pattern,
    size: u64,
    zipf: Option<Zipf>,
}

impl Draw {
    pub fn new(pattern: Pattern, size: usize) -> Draw {
        let zipf = (pattern == Pattern::Zipf).then(|| Zipf::new(size, 0.99));
        Draw { pattern, size: size as u64, zipf }
    }

    /// So many numbers, the same for the same seed.
    pub fn numbers(&self, count: usize, seed: u64) -> impl Iterator<Item = u64> {
        let mut random = Xorshift::new(seed);
        (0..count).map(move |_| match (self.pattern, &self.zipf) {
            (Pattern::Missing, _) => self.size + random.below(self.size),
            (Pattern::Hot, _) => self.size / 2,
            // Hot keys were not inserted one after the other: a prime keeps neighbours in rank apart.
            (_, Some(zipf)) => zipf.draw(&mut random) * 1_000_000_007 % self.size,
            (_, None) => random.below(self.size),
        })
    }

    /// So many keys.
    pub fn keys<K: Key>(&self, count: usize, seed: u64) -> Vec<K> {
        self.numbers(count, seed).map(K::of).collect()
    }

    /// So many keys, in as many sets as there are ways to read one map: what one has read would be in the cache for the
    /// next that reads it.
    pub fn sets<K: Key>(&self, count: usize, seed: u64) -> Sets<K> {
        (0..SETS as u64).map(|set| self.keys(count, seed * SETS as u64 + set)).collect()
    }
}
