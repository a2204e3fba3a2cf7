//! The contenders, behind one trait for reading and one for writing. The loop of each contender is monomorphised:
//! only a whole turn is called through a pointer.

pub mod bounded;
pub mod dashmap;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod flurry;
pub mod ids;
pub mod locks;
pub mod ours;
pub mod papaya;
pub mod plain;
pub mod scc;
#[cfg(feature = "liburcu")]
pub mod urcu;

use crate::cases::{Drops, Idiom, Kind};
use crate::harness::{Lane, Sample, reads};
use crate::keys::{Key, Sets, Value};
use ahash::RandomState;

/// Returns the hasher of all contenders, with the same seeds in every run.
pub fn hasher() -> RandomState {
    RandomState::with_seeds(1, 2, 3, 4)
}

/// Returns the same as the type that a registry has by default.
pub fn our_hasher() -> epoch_registry::RandomState {
    epoch_registry::RandomState::with_seeds(1, 2, 3, 4)
}

/// A map of keys to numbers that many threads read.
///
/// The reading thread creates the closure that reads, with the guard that the closure holds. The closure returns the
/// number of the value, which stands for its use. A map that has no guard to hold uses its plain read in its place.
pub trait Reads<K: Key>: Sync + Sized {
    const NAME: &'static str;
    const KIND: Kind;

    /// Runs a borrowed read in its own critical section.
    fn get(&self, key: &K) -> Option<u64>;

    /// Runs an owned read, whose result outlives the critical section, in its own critical section.
    fn get_owned(&self, key: &K) -> Option<u64>;

    /// Returns a closure for borrowed reads by a session. Each caller passes a number of its own, and so has a closure of
    /// its own, which the compiler puts into the caller's loop. One that several loops share would be called.
    fn session<const SITE: u8>(&self) -> impl FnMut(&K) -> Option<u64> {
        |key| self.get(key)
    }

    /// Returns a closure for owned reads by a session.
    fn session_owned(&self) -> impl FnMut(&K) -> Option<u64> {
        |key| self.get_owned(key)
    }

    /// Returns a closure for borrowed reads in one critical section.
    fn held(&self) -> impl FnMut(&K) -> Option<u64> {
        |key| self.get(key)
    }

    /// Returns a closure for owned reads in one critical section.
    fn held_owned(&self) -> impl FnMut(&K) -> Option<u64> {
        |key| self.get_owned(key)
    }

    /// Returns the sum of all numbers.
    fn sum(&self) -> u64;
}

/// A map that many threads write.
pub trait Map<K: Key>: Reads<K> {
    /// When removed values are dropped.
    const DROPS: Drops;

    /// Returns an empty map that holds `capacity` entries without growing.
    fn with_capacity(capacity: usize) -> Self;

    /// Inserts an entry. Returns whether the key was new.
    fn insert(&self, key: K, number: u64) -> bool;

    /// Removes a key. Returns whether it was present.
    fn remove(&self, key: &K) -> bool;

    /// Replaces the value of a present key.
    fn replace(&self, key: K, number: u64);

    /// Inserts entries. Returns the number of new keys.
    #[inline]
    fn insert_all(&self, entries: impl Iterator<Item = (K, u64)>) -> usize {
        entries.filter_map(|(key, number)| self.insert(key, number).then_some(())).count()
    }

    /// Removes keys. Returns the number that were present.
    #[inline]
    fn remove_all<'k>(&self, keys: impl Iterator<Item = &'k K>) -> usize {
        keys.filter(|key| self.remove(key)).count()
    }

    /// Replaces the values of present keys.
    #[inline]
    fn replace_all(&self, entries: impl Iterator<Item = (K, u64)>) {
        entries.for_each(|(key, number)| self.replace(key, number));
    }

    /// Asks the map's collector to drop all values that it can drop now. Does nothing if the operations drop values at
    /// once.
    fn reclaim(&self) {}

    /// Destroys the map. Ours also waits until its retired entries are destroyed.
    fn destroy(self) {}

    /// Does the same as [`reclaim`](Self::reclaim) for destroyed maps, if their collector is global.
    fn reclaim_destroyed() {}

    /// Returns a map with the numbers below `size`.
    fn filled(size: usize) -> Self {
        let map = Self::with_capacity(size);
        for number in 0..size as u64 {
            assert!(map.insert(K::of(number), number), "{}: a key is present twice", Self::NAME);
        }
        map
    }
}

/// Calls a function that is generic over maps for every map that can be written, and returns the results. Ours comes
/// first. The peers hold `V`.
macro_rules! of_every_map {
    ($V:ty, $make:ident($($argument:expr),*)) => {
        vec![
            $make::<$crate::peers::ours::Ours<u64, <$V as $crate::keys::Value>::Bare>>($($argument),*),
            $make::<$crate::peers::papaya::Papaya<u64, $V>>($($argument),*),
            $make::<$crate::peers::scc::Index<u64, $V>>($($argument),*),
            $make::<$crate::peers::flurry::Flurry<u64, $V>>($($argument),*),
            $make::<$crate::peers::scc::Scc<u64, $V>>($($argument),*),
            $make::<$crate::peers::dashmap::Dash<u64, $V>>($($argument),*),
            $make::<$crate::peers::locks::Shared<u64, $V>>($($argument),*),
            $make::<$crate::peers::locks::Exclusive<u64, $V>>($($argument),*),
        ]
    };
}
pub(crate) use of_every_map;

/// Works as `of_every_map`, and adds two variants of ours after the first: writes with handles, and writes in batches.
macro_rules! of_every_writer {
    ($V:ty, $make:ident($($argument:expr),*)) => {{
        use $crate::{keys::Value, peers::ours};
        let mut all = $crate::peers::of_every_map!($V, $make($($argument),*));
        all.insert(1, $make::<ours::Ours<u64, <$V as Value>::Bare, ours::Handles>>($($argument),*));
        all.insert(2, $make::<ours::Ours<u64, <$V as Value>::Bare, ours::Batches>>($($argument),*));
        all
    }};
}
pub(crate) use of_every_writer;

/// Returns a contender that reads `map` in one way.
pub fn read_lane<'m, K: Key, M: Reads<K>>(map: &'m M, idiom: Idiom, owned: bool) -> Lane<'m, Sets<K>> {
    fn lane<'m, K: Key, M: Reads<K>>(idiom: Idiom, turn: impl Fn(&[K]) -> Sample + 'm) -> Lane<'m, Sets<K>> {
        Lane::new(M::NAME, idiom, M::KIND, move |sets: &Sets<K>| turn(&sets[idiom as usize]))
    }
    match (idiom, owned) {
        (Idiom::Held, false) => lane::<K, M>(idiom, |keys| reads(keys, map.held())),
        (Idiom::Held, true) => lane::<K, M>(idiom, |keys| reads(keys, map.held_owned())),
        (Idiom::Session, false) => lane::<K, M>(idiom, |keys| reads(keys, map.session::<0>())),
        (Idiom::Session, true) => lane::<K, M>(idiom, |keys| reads(keys, map.session_owned())),
        (_, false) => lane::<K, M>(idiom, |keys| reads(keys, |key| map.get(key))),
        (_, true) => lane::<K, M>(idiom, |keys| reads(keys, |key| map.get_owned(key))),
    }
}

/// All maps that are read by key, with the same entries.
pub struct Maps<K: Key, V: Value> {
    pub ours: ours::Ours<K>,
    pub papaya: papaya::Papaya<K, V>,
    pub index: scc::Index<K, V>,
    pub scc: scc::Scc<K, V>,
    pub dashmap: dashmap::Dash<K, V>,
    pub flurry: flurry::Flurry<K, V>,
    pub rwlock: locks::Shared<K, V>,
    pub mutex: locks::Exclusive<K, V>,
    pub swapped: plain::Swapped<K, V>,
    pub plain: plain::Plain<K, V>,
}

impl<K: Key, V: Value> Maps<K, V> {
    pub fn filled(size: usize) -> Self {
        Maps {
            ours: Map::filled(size),
            papaya: Map::filled(size),
            index: Map::filled(size),
            scc: Map::filled(size),
            dashmap: Map::filled(size),
            flurry: Map::filled(size),
            rwlock: Map::filled(size),
            mutex: Map::filled(size),
            swapped: plain::Swapped::filled(size),
            plain: plain::Plain::filled(size),
        }
    }

    /// Returns a contender for each way to read each map.
    pub fn lanes(&self, owned: bool) -> Vec<Lane<'_, Sets<K>>> {
        use Idiom::{Each, Held, Session};
        let mut lanes = vec![
            read_lane(&self.ours, Session, owned),
            read_lane(&self.ours, Each, owned),
            read_lane(&self.ours, Held, owned),
        ];
        if owned {
            lanes.push(self.ours.local_lane());
        }
        lanes.extend(self.ours.batch_lanes(owned));
        lanes.extend([
            read_lane(&self.papaya, Each, owned),
            read_lane(&self.papaya, Held, owned),
            read_lane(&self.index, Each, owned),
            read_lane(&self.index, Held, owned),
            read_lane(&self.flurry, Each, owned),
            read_lane(&self.flurry, Held, owned),
            read_lane(&self.scc, Each, owned),
            read_lane(&self.dashmap, Each, owned),
            read_lane(&self.rwlock, Each, owned),
            // A limit, because the held read lock blocks every writer.
            Lane { kind: Kind::Limit, ..read_lane(&self.rwlock, Held, owned) },
            read_lane(&self.mutex, Each, owned),
            read_lane(&self.swapped, Session, owned),
            read_lane(&self.swapped, Each, owned),
            read_lane(&self.plain, Held, owned),
        ]);
        lanes
    }
}
