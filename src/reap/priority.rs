//! The order in which entries are evicted.

/// How early an entry is evicted, relative to others: the answer of a [priority function](crate::Builder::priority).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Priority {
    /// Evicted as soon as the search for a victim meets the entry, even if the entry was used.
    First,
    /// Evicted by second chance: if the entry was not used since the search met it before.
    #[default]
    Normal,
    /// Evicted only if the search finds no other victim among the entries that it looks at: up to 16, or all in the
    /// shard.
    Last,
    /// Never evicted. The entry can still be removed, replaced, reaped, and expire.
    Never,
}
