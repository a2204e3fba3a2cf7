//! The position of a walk through a registry.

/// The position of a walk through a registry, for [`Registry::scan`](crate::Registry::scan).
///
/// A cursor is a plain value. It holds no guard and no lock, and stays meaningful however much the registry
/// changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    pub(crate) shard: usize,
    /// The next home to visit.
    pub(crate) home: usize,
    pub(crate) done: bool,
}

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
