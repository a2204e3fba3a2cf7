//! The causes for which entries leave a registry.

use std::fmt;

/// The cause for which an entry has left its registry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The entry was removed by `remove` or a similar call, `retain`, `drain` or `clear`.
    Removed,
    /// Another entry with the same key replaced it, in `insert`, `set` or `update`.
    Replaced,
    /// The entry was older than [`max_age`](crate::Builder::max_age), its own [lifetime](crate::Builder::lifetime) or its
    /// [time to live](crate::Registry::set_ttl) allows.
    Expired,
    /// The entry was not used for [`max_idle`](crate::Builder::max_idle).
    Idle,
    /// The entry was evicted to make room for another, within [`max_entries`](crate::Builder::max_entries) or
    /// [`max_weight`](crate::Builder::max_weight), or by [`evict`](crate::Registry::evict) or a similar call.
    Capacity,
    /// The entry was reaped by [`reap_if`](crate::Registry::reap_if), or by a [policy](crate::PolicyReaper) of
    /// the user.
    Reaped,
    /// The entry was reaped by the registry's own [reaper](crate::Reaper::scan), which is called under memory
    /// pressure.
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
