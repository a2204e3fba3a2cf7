//! What a reaper removes: policies, which judge one entry after another.

#![allow(unsafe_code)]

use crate::handle::Entry;
use crate::node::life::{Idleness, Life};
use crate::registry::core::Core;
use crate::util::clock::Time;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

/// What is to become of an entry, as a [`Policy`] judges it. (The kernel's `enum lru_status`.)
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// It goes.
    Remove,
    /// It stays.
    Keep,
    /// It stays, and loses the mark of its use: unless it is used again, it is not [used](Candidate::is_used) at the next
    /// look. A second chance.
    Rotate,
    /// It is in use, and cannot be judged now.
    Skip,
}

/// Judges entries, one by one: which go, and which stay.
///
/// Any closure of this signature is one, and [`policy`](crate::policy) has some ready-made. They run in a critical section
/// of the registry's domain, and under no lock.
pub trait Policy<K, V>: Send + Sync {
    /// What is to become of this entry.
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

/// An entry that is to be judged, and what the registry knows of it. Dereferences to the [`Entry`], and so to the value.
pub struct Candidate<'g, K: 'static, V: 'static> {
    entry: Entry<'g, K, V>,
    /// If it can expire.
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
        // SAFETY: found in the critical section that outlasts 'g.
        let life = unsafe { core.life_of(entry.node_pointer()) };
        Candidate { entry, life, idleness: core.settings().lifetimes.idleness(), now }
    }
}

impl<'g, K, V> Candidate<'g, K, V> {
    /// How long ago it was inserted: never too long, and within 17 ms (in a registry that is four and a half years old, or a clock
    /// that has run for so long, twice that, and so on). Exactly, where entries expire by
    /// [`max_age`](crate::Builder::max_age) or its like, since the registry was built.
    pub fn age(&self) -> Duration {
        self.now.since(self.inserted())
    }

    /// The latest time at which it can have been inserted.
    fn inserted(&self) -> Time {
        let stamp = self.entry.header().stamp();
        self.life.map_or(stamp.latest(), |life| life.inserted(stamp))
    }

    /// For how long it was not used, at the least: what is known of its last use is right to a sixteenth of
    /// [`max_idle`](crate::Builder::max_idle). Always zero if the registry has no such limit: then no read takes note of when it
    /// used an entry.
    pub fn idle(&self) -> Duration {
        let idleness = self.idleness;
        match self.life {
            Some(life) if idleness.limit != Time::NEVER && !self.entry.header().used.is_busy() => {
                self.now.since(life.last_use(idleness).end_of(idleness.note))
            }
            _ => Duration::ZERO,
        }
    }

    /// Whether it was used since the last look that took its mark away. (The first look finds that all were, in a registry
    /// without bounds: there, entries are inserted with the mark.)
    pub fn is_used(&self) -> bool {
        self.entry.header().used.is_marked()
    }

    /// Whether there are handles of it, at this moment.
    pub fn is_held(&self) -> bool {
        self.entry.header().refs.is_more_than(1)
    }

    /// The bytes that it counts for: its own, and what the [weigher](crate::Builder::weigher) says.
    pub fn weight(&self) -> u64 {
        self.entry.header().weight.bytes()
    }

    /// The entry.
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

/// Entries that were inserted longer ago than `age` go. See [`reap_older_than`](crate::Registry::reap_older_than) on how
/// exactly.
pub fn older_than<K, V>(age: Duration) -> impl Policy<K, V> {
    let limit = Time::ceil_from(age);
    move |candidate: &Candidate<'_, K, V>| {
        let end = candidate.inserted().end_of(limit);
        if candidate.now >= end { Verdict::Remove } else { Verdict::Keep }
    }
}

/// Entries go that were not used for longer than `time`, as far as that [is known](Candidate::idle).
pub fn idle_for<K, V>(time: Duration) -> impl Policy<K, V> {
    when(move |candidate: &Candidate<'_, K, V>| candidate.idle() > time)
}

/// Entries go that were not used since the last look; the others get a second chance. Approximates the least recently
/// used.
pub fn second_chance<K, V>() -> impl Policy<K, V> {
    |candidate: &Candidate<'_, K, V>| if candidate.is_used() { Verdict::Rotate } else { Verdict::Remove }
}

/// Entries go for which `condition` holds.
pub fn when<K, V>(condition: impl Fn(&Candidate<'_, K, V>) -> bool + Send + Sync) -> impl Policy<K, V> {
    move |candidate: &Candidate<'_, K, V>| if condition(candidate) { Verdict::Remove } else { Verdict::Keep }
}

/// As `policy`, but that entries are skipped of which there are handles.
///
/// (A handle may be taken at the very moment that its entry is found to have none. Who must know whether an entry is still
/// in the registry asks [`Handle::is_unlinked`](crate::Handle::is_unlinked): the kernel's `percpu_ref_tryget_live`.)
pub fn unless_held<K, V>(policy: impl Policy<K, V>) -> impl Policy<K, V> {
    move |candidate: &Candidate<'_, K, V>| match policy.judge(candidate) {
        Verdict::Remove if candidate.is_held() => Verdict::Skip,
        verdict => verdict,
    }
}

/// Entries go that either policy removes. The others are as `first` says, or as `second` does where `first` keeps them.
pub fn either<K, V>(first: impl Policy<K, V>, second: impl Policy<K, V>) -> impl Policy<K, V> {
    move |candidate: &Candidate<'_, K, V>| match (first.judge(candidate), second.judge(candidate)) {
        (Verdict::Remove, _) | (_, Verdict::Remove) => Verdict::Remove,
        (Verdict::Keep, verdict) | (verdict, _) => verdict,
    }
}

/// Entries go that both policies remove. The others are as that policy says that does not.
pub fn both<K, V>(first: impl Policy<K, V>, second: impl Policy<K, V>) -> impl Policy<K, V> {
    move |candidate: &Candidate<'_, K, V>| match first.judge(candidate) {
        Verdict::Remove => second.judge(candidate),
        verdict => verdict,
    }
}
