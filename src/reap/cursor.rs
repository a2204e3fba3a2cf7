//! A place in the walk through a registry.

/// A place in the walk through a registry, for [`Registry::scan`](crate::Registry::scan). It is a plain value: nothing is
/// held by it, and it stays meaningful however much the registry changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    pub(crate) shard: usize,
    /// The next home to visit.
    pub(crate) home: usize,
    pub(crate) done: bool,
}

impl Cursor {
    /// The beginning of the walk.
    pub fn new() -> Self {
        Cursor::default()
    }

    /// Whether the walk has come to its end.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether the walk comes here before it comes to `other`.
    pub(crate) fn is_before(&self, other: Cursor) -> bool {
        let place = |cursor: &Cursor| (cursor.done, cursor.shard, cursor.home.reverse_bits());
        place(self) < place(&other)
    }
}
