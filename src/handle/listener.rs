//! The listeners of a registry: the user's callbacks that run after an entry has left, with the cause, and after an
//! entry was inserted.

#![allow(unsafe_code)]

use crate::handle::Handle;
use crate::reap::Cause;
use crate::util::panics::contain;
use crate::util::reentrancy;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The user's callback for entries that have left.
pub(crate) type Listener<K, V> = Box<dyn Fn(Cause, Handle<K, V>) + Send + Sync>;

/// The user's callback for entries that were inserted.
pub(crate) type InsertListener<K, V> = Box<dyn Fn(&Handle<K, V>) + Send + Sync>;

/// What a listener is told.
pub(crate) enum Event<K: 'static, V: 'static> {
    /// An entry has left, for this cause.
    Left(Cause, Handle<K, V>),
    /// An entry was inserted.
    Inserted(Handle<K, V>),
}

/// Events that a listener itself caused. The outer call on this thread processes them when the listener returns.
type Queued<K, V> = RefCell<VecDeque<Event<K, V>>>;

/// A registry's listeners, if there are any. All of them share one queue on each thread, so a thread's events are
/// told in their order.
pub(crate) struct Listeners<K: 'static, V: 'static> {
    left: Option<Listener<K, V>>,
    inserted: Option<InsertListener<K, V>>,
    /// Whether the entries that are in the registry when it is dropped are told as departures.
    tells_dropped: bool,
    panics: AtomicU64,
}

impl<K, V> Listeners<K, V> {
    pub(crate) fn new(
        left: Option<Listener<K, V>>,
        inserted: Option<InsertListener<K, V>>,
        tells_dropped: bool,
    ) -> Self {
        let tells_dropped = tells_dropped && left.is_some();
        Listeners { left, inserted, tells_dropped, panics: AtomicU64::new(0) }
    }

    /// Returns whether departures are told.
    #[inline]
    pub(crate) fn is_some(&self) -> bool {
        self.left.is_some()
    }

    /// Returns whether insertions are told.
    #[inline]
    pub(crate) fn tells_insertions(&self) -> bool {
        self.inserted.is_some()
    }

    /// Returns whether the entries that are in the registry when it is dropped are told.
    pub(crate) fn tells_dropped(&self) -> bool {
        self.tells_dropped
    }

    /// Reports an entry that has left. The caller holds no lock, because the listener is user code.
    #[inline]
    pub(crate) fn tell(&self, cause: Cause, entry: &Handle<K, V>) {
        if self.left.is_some() {
            self.tell_all([Event::Left(cause, entry.clone())]);
        }
    }

    /// Reports an entry that was replaced, unless insertions are told too: then the write has already told both, in
    /// their order.
    #[inline]
    pub(crate) fn tell_replaced(&self, entry: &Handle<K, V>) {
        if self.left.is_some() && self.inserted.is_none() {
            self.tell_all([Event::Left(Cause::Replaced, entry.clone())]);
        }
    }

    /// Reports events in their order.
    ///
    /// If a listener of this registry is already running on this thread, it queues the events instead, and the outer
    /// call reports them when the listener returns. So a listener never recurses.
    #[cold]
    pub(crate) fn tell_all(&self, events: impl IntoIterator<Item = Event<K, V>>) {
        let this = ptr::from_ref(self).cast();
        let mut events = Some(events);
        let later = |pending: &Queued<K, V>| {
            pending.borrow_mut().extend(events.take().into_iter().flatten());
            true
        };
        // SAFETY: the call of `enter` below is the only one for this address, and passes a `Queued<K, V>`.
        if unsafe { reentrancy::find(this, later) } {
            return;
        }
        let pending = Queued::default();
        reentrancy::enter(this, &pending, || {
            let mut events = events.into_iter().flatten();
            while let Some(event) = events.next().or_else(|| pending.borrow_mut().pop_front()) {
                let panics = contain(|| self.tell_one(event));
                // ORDERING: Relaxed, a statistic.
                self.panics.fetch_add(panics.into(), Relaxed);
            }
        });
    }

    /// Calls the listener of this event, if there is one. This is user code, which may panic.
    fn tell_one(&self, event: Event<K, V>) {
        match (event, &self.left, &self.inserted) {
            (Event::Left(cause, entry), Some(listener), _) => listener(cause, entry),
            (Event::Inserted(entry), _, Some(listener)) => listener(&entry),
            _ => {}
        }
    }

    /// Returns how many calls of listeners have panicked.
    pub(crate) fn panics(&self) -> u64 {
        // ORDERING: Relaxed, a statistic.
        self.panics.load(Relaxed)
    }
}
