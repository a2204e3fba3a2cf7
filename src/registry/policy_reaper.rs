//! Registries as reapers.

use crate::reap::Cause;
use crate::reap::{Reaped, Reaper, Scan};
use crate::registry::Registry;
use crate::registry::policy::{Policy, Verdict};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Weak};

/// Under pressure a registry sheds what has expired, and then by second chance: entries that were used since the last scan
/// stay, until they are not. Those with handles are skipped, if it was built to
/// [spare them](crate::Builder::spare_held).
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

/// A registry as a reaper with a policy of the caller's: whether an entry may be missed is as that says, and not by second
/// chance.
///
/// It does not keep the registry: when that is gone, it has nothing to reap any more.
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
    /// A reaper of this registry, which removes what `policy` says when it is asked to [scan](Reaper::scan).
    pub fn new(registry: &Arc<Registry<K, V, S>>, policy: P) -> Self {
        PolicyReaper { registry: Arc::downgrade(registry), policy, in_background: false }
    }

    /// It removes the same also without being under pressure: when it is asked to [expire](Reaper::expire) what is due, as in
    /// the background of a domain. It then goes round all entries of the registry, a few at a time.
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
        // Where little was to be had, it is not worth a second call at once.
        reaped.stopped |= reaped.removed < budget / 4;
        reaped
    }
}

impl<K: Send + Sync, V: Send + Sync, S, P> fmt::Debug for PolicyReaper<K, V, S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyReaper").finish_non_exhaustive()
    }
}
