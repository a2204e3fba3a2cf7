//! The types of keys and values, and the keys that a round uses.

use benches::{Xorshift, Zipf};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A type of keys, each made from a number.
pub trait Key: Hash + Ord + Clone + Send + Sync + 'static {
    /// The name in the tables.
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

/// A type of values that peers hold, each made from a number.
pub trait Value: Clone + Send + Sync + 'static {
    /// The type that ours holds in the same case: the value without a reference count, since each entry has one.
    type Bare: Value;
    /// Returns the name in the tables.
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
    /// Returns the number of drops since the start of the program.
    pub fn dropped() -> u64 {
        // ORDERING: Relaxed, a statistic that orders nothing.
        DROPPED.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // ORDERING: Relaxed, a statistic that orders nothing.
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

/// The distribution of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Present keys, all with the same probability.
    Uniform,
    /// Present keys, with a probability proportional to 1 / rank^0.99.
    Zipf,
    /// Absent keys.
    Missing,
    /// A single present key.
    Hot,
}

impl Pattern {
    /// Returns the name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Uniform => "uniform",
            Pattern::Zipf => "Zipf 0.99",
            Pattern::Missing => "misses",
            Pattern::Hot => "one hot key",
        }
    }
}

/// The largest number of ways to read one map.
const SETS: usize = 7;

/// One set of keys for each way to read a map.
pub type Sets<K> = Vec<Vec<K>>;

/// A generator of keys for a map that holds the numbers below `size`.
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

    /// Returns `count` numbers, which depend only on the seed.
    pub fn numbers(&self, count: usize, seed: u64) -> impl Iterator<Item = u64> {
        let mut random = Xorshift::new(seed);
        (0..count).map(move |_| match (self.pattern, &self.zipf) {
            (Pattern::Missing, _) => self.size + random.below(self.size),
            (Pattern::Hot, _) => self.size / 2,
            // A factor that is prime spreads keys of similar rank, so that hot keys were not inserted one after
            // another.
            (_, Some(zipf)) => zipf.draw(&mut random) * 1_000_000_007 % self.size,
            (_, None) => random.below(self.size),
        })
    }

    /// Returns `count` keys.
    pub fn keys<K: Key>(&self, count: usize, seed: u64) -> Vec<K> {
        self.numbers(count, seed).map(K::of).collect()
    }

    /// Returns one set of `count` keys for each way to read one map. With shared keys, the first contender would load
    /// the cache for the next one.
    pub fn sets<K: Key>(&self, count: usize, seed: u64) -> Sets<K> {
        (0..SETS as u64).map(|set| self.keys(count, seed * SETS as u64 + set)).collect()
    }
}
