//! Why an entry has left its registry.

use std::fmt;

/// Why an entry has left its registry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// By `remove` and its like, `retain`, `drain` or `clear`.
    Removed,
    /// By another entry of the same key, in `insert`, `set` or `update`.
    Replaced,
    /// It was older than [`max_age`](crate::Builder::max_age) or its own [lifetime](crate::Builder::lifetime) allows.
    Expired,
    /// It was not used for [`max_idle`](crate::Builder::max_idle).
    Idle,
    /// To make room for another, within [`max_entries`](crate::Builder::max_entries) or
    /// [`max_weight`](crate::Builder::max_weight), or by [`evict`](crate::Registry::evict) and its like.
    Capacity,
    /// By [`reap_if`](crate::Registry::reap_if), or by a [policy](crate::PolicyReaper) of the caller's.
    Reaped,
    /// By the registry's own [reaper](crate::Reaper::scan), which is asked to under memory pressure.
    Pressure,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Removed => "removed",
            Cause::Replaced => "replaced",
            Cause::Expired => "expired",
            Cause::Idle => "idle",
            Cause::Capacity => "capacity",
            Cause::Reaped => "reaped",
            Cause::Pressure => "pressure",
        })
    }
}
