//! Registries as reapers.

use crate::reap::Cause;
use crate::reap::{Reaped, Reaper, Scan};
use crate::registry::Registry;
use crate::registry::policy::{Policy, Verdict};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Weak};

/// Under memory pressure, a registry removes expired entries first, and then others by second chance: an entry
/// that was used since the last scan stays this time. Entries with handles are skipped, if
/// [`spare_held`](crate::Builder::spare_held) is set.
impl<K, V, S> Reaper for Registry<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync,
{
    fn count(&self) -> usize {
        self.len()
    }

    fn scan(&self, scan: &mut Scan) -> Reaped {
        let mut reaped = self.core.expire(scan.nr_to_scan);
        if reaped.stopped {
            return reaped;
        }
        let spare_held = self.core.settings().spare_held;
        let left = scan.nr_to_scan.saturating_sub(reaped.examined);
        reaped += self.reap_from(&mut scan.cursor, left, Cause::Pressure, &mut |candidate| {
            if spare_held && candidate.is_held() {
                Verdict::Skip
            } else if candidate.is_used() {
                Verdict::Rotate
            } else {
                Verdict::Remove
            }
        });
        reaped
    }

    fn expire(&self, budget: usize) -> Reaped {
        Registry::expire(self, budget)
    }

    fn seeks(&self) -> u32 {
        self.core.settings().seeks
    }

    fn name(&self) -> &str {
        self.domain().name()
    }
}

/// A reaper of a registry that removes entries by a policy of the caller's instead of second chance.
///
/// It holds a weak reference to the registry. After the registry is dropped, it has nothing to reap.
///
/// # Examples
///
/// ```
/// use epoch_registry::{PolicyReaper, Reaper, Registry, Scan, policy};
/// use std::sync::Arc;
///
/// let registry = Arc::new(Registry::new());
/// (0..100).for_each(|key: u64| drop(registry.insert(key, key)));
/// let reaper = PolicyReaper::new(&registry, policy::when::<u64, u64>(|entry| entry.key() % 4 == 0));
/// assert_eq!((reaper.count(), reaper.scan(&mut Scan::new(1000)).removed, reaper.count()), (100, 25, 75));
/// ```
pub struct PolicyReaper<K: Send + Sync + 'static, V: Send + Sync + 'static, S, P> {
    registry: Weak<Registry<K, V, S>>,
    policy: P,
    in_background: bool,
}

impl<K, V, S, P> PolicyReaper<K, V, S, P>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
    P: Policy<K, V>,
{
    /// Returns a reaper of `registry`, which removes what `policy` says when it [scans](Reaper::scan).
    pub fn new(registry: &Arc<Registry<K, V, S>>, policy: P) -> Self {
        PolicyReaper { registry: Arc::downgrade(registry), policy, in_background: false }
    }

    /// Has the reaper also remove what the policy says without memory pressure: when it is called to
    /// [expire](Reaper::expire) entries, as in the background of a domain. It then goes round all entries of the
    /// registry, a few at a time.
    pub fn in_background(mut self) -> Self {
        self.in_background = true;
        self
    }
}

impl<K, V, S, P> Reaper for PolicyReaper<K, V, S, P>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher + Send + Sync,
    P: Policy<K, V>,
{
    fn count(&self) -> usize {
        self.registry.upgrade().map_or(0, |registry| registry.len())
    }

    fn scan(&self, scan: &mut Scan) -> Reaped {
        self.registry.upgrade().map(|registry| registry.reap_by(&self.policy, scan)).unwrap_or_default()
    }

    fn expire(&self, budget: usize) -> Reaped {
        let Some(registry) = self.registry.upgrade().filter(|_| self.in_background) else {
            return Reaped::default();
        };
        let mut reaped = registry.reap_round(&self.policy, budget);
        // If this call has removed little, another call at once is not worthwhile.
        reaped.stopped |= reaped.removed < budget / 4;
        reaped
    }
}

impl<K: Send + Sync, V: Send + Sync, S, P> fmt::Debug for PolicyReaper<K, V, S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyReaper").finish_non_exhaustive()
    }
}
