//! What can go wrong, with what the caller gets back.

use std::error::Error;
use std::fmt;

/// There is no room in the domain's backlog, and its [policy](crate::WhenFull) is to refuse: nothing was done. With what
/// the caller handed over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BacklogFull<T = ()>(pub T);

impl<T> fmt::Debug for BacklogFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BacklogFull").finish_non_exhaustive()
    }
}

impl<T> fmt::Display for BacklogFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too much waits to be destroyed already")
    }
}

impl<T> Error for BacklogFull<T> {}
