//! Policies: they judge entries one by one, and so decide what a reaper removes.

#![allow(unsafe_code)]

use crate::handle::Entry;
use crate::node::life::{Idleness, Life};
use crate::registry::core::Core;
use crate::util::clock::Time;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

/// The verdict of a [`Policy`] on an entry. (The kernel's `enum lru_status`.)
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// The entry is removed.
    Remove,
    /// The entry stays.
    Keep,
    /// The entry stays and gets a second chance: it loses its mark of use. Unless it is used again, it is not
    /// [used](Candidate::is_used) the next time.
    Rotate,
    /// The entry is in use, and cannot be judged now. It stays.
    Skip,
}

/// A policy, which judges entries one by one: whether each is removed or stays.
///
/// A closure of the signature of [`judge`](Self::judge) is a policy, and [`policy`](crate::policy) has ready-made
/// ones. Policies run in a critical section of the registry's domain, under no lock.
pub trait Policy<K, V>: Send + Sync {
    /// Returns the verdict on this entry.
    fn judge(&self, candidate: &Candidate<'_, K, V>) -> Verdict;
}

impl<K, V, F: Fn(&Candidate<'_, K, V>) -> Verdict + Send + Sync> Policy<K, V> for F {
    fn judge(&self, candidate: &Candidate<'_, K, V>) -> Verdict {
        self(candidate)
    }
}

impl<K, V> Policy<K, V> for Box<dyn Policy<K, V>> {
    fn judge(&self, candidate: &Candidate<'_, K, V>) -> Verdict {
        (**self).judge(candidate)
    }
}

/// An entry that a policy judges, with what the registry knows of it.
///
/// Dereferences to the [`Entry`], and so to the value.
pub struct Candidate<'g, K: 'static, V: 'static> {
    entry: Entry<'g, K, V>,
    /// The life of the entry, if it can expire.
    life: Option<&'g Life>,
    idleness: Idleness,
    now: Time,
}

impl<'g, K, V> Candidate<'g, K, V>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(entry: Entry<'g, K, V>, core: &'g Core<K, V>, now: Time) -> Self {
        // SAFETY: the entry was found in the critical section that outlasts `'g`.
        let life = unsafe { core.life_of(entry.node_pointer()) };
        Candidate { entry, life, idleness: core.settings().lifetimes.idleness(), now }
    }
}

impl<'g, K, V> Candidate<'g, K, V> {
    /// Returns the age of the entry: the time since its insertion. Never too long, and at most 34 ms too short.
    ///
    /// The 34 ms double when the registry, or its clock, has run for four and a half years, and again at each
    /// doubling of that time. If entries could expire, by [`max_age`](crate::Builder::max_age) or its like, since
    /// the registry was built, the age is exact.
    pub fn age(&self) -> Duration {
        self.now.since(self.inserted())
    }

    /// Returns the latest time at which the entry can have been inserted.
    fn inserted(&self) -> Time {
        let stamp = self.entry.header().stamp();
        self.life.map_or(stamp.latest(), |life| life.inserted(stamp))
    }

    /// Returns for how long the entry was not used, at least.
    ///
    /// The time of the last use is known to a sixteenth of [`max_idle`](crate::Builder::max_idle). Always zero if
    /// the registry has no such limit: then reads do not store the time of a use.
    pub fn idle(&self) -> Duration {
        let idleness = self.idleness;
        match self.life {
            Some(life) if idleness.limit != Time::NEVER && !self.entry.header().used.is_busy() => {
                self.now.since(life.last_use(idleness).end_of(idleness.note))
            }
            _ => Duration::ZERO,
        }
    }

    /// Returns whether the entry was used since its mark of use was last taken away.
    ///
    /// In a registry without bounds, entries are inserted with the mark, so at first all entries are used.
    pub fn is_used(&self) -> bool {
        self.entry.header().used.is_marked()
    }

    /// Returns whether there are handles to the entry at this moment.
    pub fn is_held(&self) -> bool {
        self.entry.header().refs.is_more_than(1)
    }

    /// Returns the weight of the entry in bytes: its own size, and what the [weigher](crate::Builder::weigher)
    /// has returned.
    pub fn weight(&self) -> u64 {
        self.entry.header().weight.bytes()
    }

    /// Returns the entry.
    pub fn entry(&self) -> Entry<'g, K, V> {
        self.entry
    }
}

impl<'g, K, V> Deref for Candidate<'g, K, V> {
    type Target = Entry<'g, K, V>;

    fn deref(&self) -> &Entry<'g, K, V> {
        &self.entry
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Candidate<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.fmt(f)
    }
}

/// Returns a policy that removes entries inserted longer than `age` ago.
///
/// See [`reap_older_than`](crate::Registry::reap_older_than) on how exact that is.
pub fn older_than<K, V>(age: Duration) -> impl Policy<K, V> {
    let limit = Time::ceil_from(age);
    move |candidate: &Candidate<'_, K, V>| {
        let end = candidate.inserted().end_of(limit);
        if candidate.now >= end { Verdict::Remove } else { Verdict::Keep }
    }
}

/// Returns a policy that removes entries that were not used for longer than `time`, as far as that [is
/// known](Candidate::idle).
pub fn idle_for<K, V>(time: Duration) -> impl Policy<K, V> {
    when(move |candidate: &Candidate<'_, K, V>| candidate.idle() > time)
}

/// Returns a policy that removes entries that were not used since it last saw them. The other entries get a
/// second chance.
///
/// This approximates least recently used.
pub fn second_chance<K, V>() -> impl Policy<K, V> {
    |candidate: &Candidate<'_, K, V>| if candidate.is_used() { Verdict::Rotate } else { Verdict::Remove }
}

/// Returns a policy that removes entries for which `condition` returns true.
pub fn when<K, V>(condition: impl Fn(&Candidate<'_, K, V>) -> bool + Send + Sync) -> impl Policy<K, V> {
    move |candidate: &Candidate<'_, K, V>| if condition(candidate) { Verdict::Remove } else { Verdict::Keep }
}

/// Returns a policy that judges as `policy` does, but skips an entry that would be removed and has handles.
///
/// A handle may be taken at the moment at which its entry is found to have none. To find out whether an entry is
/// still in the registry, call [`Handle::is_unlinked`](crate::Handle::is_unlinked). (The kernel's
/// `percpu_ref_tryget_live` asks the same.)
pub fn unless_held<K, V>(policy: impl Policy<K, V>) -> impl Policy<K, V> {
    move |candidate: &Candidate<'_, K, V>| match policy.judge(candidate) {
        Verdict::Remove if candidate.is_held() => Verdict::Skip,
        verdict => verdict,
    }
}

/// Returns a policy that removes entries that `first` or `second` removes.
///
/// The verdict on other entries is that of `first`, or that of `second` if `first` keeps them.
pub fn either<K, V>(first: impl Policy<K, V>, second: impl Policy<K, V>) -> impl Policy<K, V> {
    move |candidate: &Candidate<'_, K, V>| match (first.judge(candidate), second.judge(candidate)) {
        (Verdict::Remove, _) | (_, Verdict::Remove) => Verdict::Remove,
        (Verdict::Keep, verdict) | (verdict, _) => verdict,
    }
}

/// Returns a policy that removes entries that both `first` and `second` remove.
///
/// The verdict on other entries is that of `first`, or that of `second` if `first` removes them.
pub fn both<K, V>(first: impl Policy<K, V>, second: impl Policy<K, V>) -> impl Policy<K, V> {
    move |candidate: &Candidate<'_, K, V>| match first.judge(candidate) {
        Verdict::Remove => second.judge(candidate),
        verdict => verdict,
    }
}
