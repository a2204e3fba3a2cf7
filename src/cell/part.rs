//! Parts of a cell's value.

use super::{RcuCell, Version};
use crate::domain::CriticalSection;
use std::fmt;
use std::ops::Deref;

/// A view of a part of a cell's value, from [`RcuCell::project`].
pub struct Projection<'c, T: ?Sized + 'static, F> {
    cell: &'c RcuCell<T>,
    part: F,
}

impl<'c, T, U, F> Projection<'c, T, F>
where
    T: ?Sized + Send + Sync + 'static,
    U: ?Sized,
    F: Fn(&T) -> &U,
{
    pub(super) fn new(cell: &'c RcuCell<T>, part: F) -> Self {
        Projection { cell, part }
    }

    /// Returns the part of the current version: see [`RcuCell::read`].
    #[inline]
    pub fn read<'a>(&'a self, section: &'a impl CriticalSection) -> &'a U {
        (self.part)(self.cell.read(section))
    }

    /// Calls `f` with the part of the current version: see [`RcuCell::with`].
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&U) -> R) -> R {
        self.cell.with(|value| f((self.part)(value)))
    }
}

impl<T, U, F> Projection<'_, T, F>
where
    T: ?Sized + Send + Sync + 'static,
    U: ?Sized,
    F: Fn(&T) -> &U + Clone,
{
    /// Returns a counted reference to the current version that leads to the part: see [`RcuCell::load`].
    #[inline]
    pub fn load(&self) -> Part<T, F> {
        Part { version: self.cell.load(), part: self.part.clone() }
    }
}

impl<T: ?Sized, F> fmt::Debug for Projection<'_, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projection").finish_non_exhaustive()
    }
}

/// A counted reference to a version, which dereferences to a part of it. From [`Projection::load`].
pub struct Part<T: ?Sized + 'static, F> {
    version: Version<T>,
    part: F,
}

impl<T: ?Sized, F> Part<T, F> {
    /// Returns the whole version.
    pub fn version(this: &Self) -> &Version<T> {
        &this.version
    }
}

impl<T, U, F> Deref for Part<T, F>
where
    T: ?Sized,
    U: ?Sized,
    F: Fn(&T) -> &U,
{
    type Target = U;

    #[inline]
    fn deref(&self) -> &U {
        (self.part)(&self.version)
    }
}
