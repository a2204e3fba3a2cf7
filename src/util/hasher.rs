//! The default hasher.

use std::fmt;
use std::hash::BuildHasher;

/// The hasher of a registry that has no other. It is ahash, with keys from the operating system's random numbers. Without
/// the feature `ahash` it is std's.
///
/// # Examples
///
/// ```
/// use epoch_registry::RandomState;
/// use std::hash::BuildHasher;
///
/// let (one, other) = (RandomState::new(), RandomState::new());
/// assert_eq!(one.hash_one("key"), one.clone().hash_one("key"));
/// assert_ne!(one.hash_one("key"), other.hash_one("key")); // except once in 2^64 times
/// ```
#[derive(Clone)]
pub struct RandomState(Keys);

#[cfg(feature = "ahash")]
type Keys = ahash::RandomState;
#[cfg(not(feature = "ahash"))]
type Keys = std::hash::RandomState;

impl RandomState {
    /// Returns a hasher with random keys.
    pub fn new() -> Self {
        let random = std::hash::RandomState::new();
        // std gives its random keys to nothing but its hasher, whose hashes under these keys are random numbers too.
        #[cfg(feature = "ahash")]
        let random = {
            let key = |number: u64| random.hash_one(number);
            ahash::RandomState::with_seeds(key(0), key(1), key(2), key(3))
        };
        RandomState(random)
    }

    /// Returns a hasher with these keys, which hashes the same in each run of the program. Needs the feature `ahash`.
    #[cfg(feature = "ahash")]
    pub const fn with_seeds(k0: u64, k1: u64, k2: u64, k3: u64) -> Self {
        RandomState(ahash::RandomState::with_seeds(k0, k1, k2, k3))
    }
}

impl Default for RandomState {
    fn default() -> Self {
        RandomState::new()
    }
}

impl BuildHasher for RandomState {
    type Hasher = <Keys as BuildHasher>::Hasher;

    #[inline]
    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

impl fmt::Debug for RandomState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys are secret.
        f.debug_struct("RandomState").finish_non_exhaustive()
    }
}
