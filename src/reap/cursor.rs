//! The position of a walk through a registry.

/// The position of a walk through a registry, for [`Registry::scan`](crate::Registry::scan).
///
/// A cursor is a plain value. It holds no guard and no lock, and stays meaningful however much the registry
/// changes.
///
/// # Numbers
///
/// A cursor converts to a `u64` and back without loss, so that a server can hand it to a client, as Redis' `SCAN`
/// does. [`Cursor::new`] is the number 0. The number of a [done](Self::is_done) cursor is at least 2^63.
///
/// - Any number is a valid cursor for any registry. A number that no walk has made begins in the middle of the
///   registry, or at its end. It causes neither a panic nor a longer call than any other.
/// - A number stays valid while the shards of the registry grow and shrink, with what
///   [`scan`](crate::Registry::scan) promises for a cursor.
/// - A number belongs to one registry: its shards and its hasher. In another registry, or in another run of a
///   program with a randomly seeded hasher, a walk from it meets other entries.
///
/// # Examples
///
/// A server that keeps no state between two calls of a client:
///
/// ```
/// use epoch_registry::{Cursor, Registry};
///
/// let registry = Registry::new();
/// registry.set_many((0..1000).map(|key| (key, key)));
///
/// /// Returns some keys, and the number to pass next: 0 at the beginning and at the end, as in Redis.
/// fn scan(registry: &Registry<u64, u64>, number: u64) -> (u64, Vec<u64>) {
///     let (mut cursor, mut keys) = (Cursor::from(number), Vec::new());
///     registry.scan(&mut cursor, 100, |entry| keys.push(*entry.key()));
///     (if cursor.is_done() { 0 } else { cursor.into() }, keys)
/// }
///
/// let (mut number, mut count) = (0, 0);
/// loop {
///     let (next, keys) = scan(&registry, number);
///     (number, count) = (next, count + keys.len());
///     if number == 0 {
///         break;
///     }
/// }
/// assert_eq!(count, 1000);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    pub(crate) shard: usize,
    /// The next home to visit.
    pub(crate) home: usize,
    pub(crate) done: bool,
}

/// The bits for the shard: a registry has at most 2^16 shards, and a walk ends one beyond the last.
const SHARD_BITS: u32 = 17;

/// The bits for the home: a table of 2^46 buckets takes 4 PiB.
const HOME_BITS: u32 = 46;

impl Cursor {
    /// Returns a cursor at the beginning of the walk.
    pub fn new() -> Self {
        Cursor::default()
    }

    /// Returns whether the walk has reached its end.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Returns whether the walk reaches this position before it reaches `other`.
    pub(crate) fn is_before(&self, other: Cursor) -> bool {
        let place = |cursor: &Cursor| (cursor.done, cursor.shard, cursor.home.reverse_bits());
        place(self) < place(&other)
    }
}

/// Returns the number of a cursor.
///
/// ```text
///  bit 63   62 .. 17    16 .. 0
///  ┌──────┬───────────┬─────────┐
///  │ done │   home    │  shard  │
///  └──────┴───────────┴─────────┘
/// ```
///
/// The layout may change with a version of the crate.
impl From<Cursor> for u64 {
    fn from(cursor: Cursor) -> u64 {
        let home = cursor.home as u64 & ((1 << HOME_BITS) - 1);
        u64::from(cursor.done) << (SHARD_BITS + HOME_BITS) | home << SHARD_BITS | cursor.shard as u64
    }
}

/// Returns the cursor of a number. Any number will do.
impl From<u64> for Cursor {
    fn from(number: u64) -> Cursor {
        Cursor {
            shard: (number & ((1 << SHARD_BITS) - 1)) as usize,
            home: (number >> SHARD_BITS & ((1 << HOME_BITS) - 1)) as usize,
            done: number >> (SHARD_BITS + HOME_BITS) != 0,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_cursors_convert_without_loss() {
        for shard in [0, 1, 65_535, 65_536] {
            for home in [0, 1, 1 << 20, u32::MAX as usize] {
                for done in [false, true] {
                    let cursor = Cursor { shard, home, done };
                    let number = u64::from(cursor);
                    assert_eq!(Cursor::from(number), cursor);
                    assert_eq!(number >> 63 != 0, done);
                }
            }
        }
        assert_eq!((u64::from(Cursor::new()), Cursor::from(0)), (0, Cursor::new()));
        #[cfg(target_pointer_width = "64")]
        for number in (0..64).map(|bit| 1 << bit).chain([u64::MAX, 0x5555_5555_5555_5555]) {
            assert_eq!(u64::from(Cursor::from(number)), number);
        }
    }
}
