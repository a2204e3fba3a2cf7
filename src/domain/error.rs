//! The errors of a domain, which return what the caller handed over.

use std::error::Error;
use std::fmt;

/// The error of an operation for which the domain's backlog has no room. Its [policy](crate::WhenFull) does not let
/// the operation exceed the limit, and nothing was done. Contains what the caller handed over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BacklogFull<T = ()>(pub T);

impl<T> fmt::Debug for BacklogFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BacklogFull").finish_non_exhaustive()
    }
}

impl<T> fmt::Display for BacklogFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the backlog of the domain is full")
    }
}

impl<T> Error for BacklogFull<T> {}
