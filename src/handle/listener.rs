//! Who is told of entries that leave, and why they do.

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

/// The user's listener.
pub(crate) type Listener<K, V> = Box<dyn Fn(Cause, Handle<K, V>) + Send + Sync>;

/// An entry that has left.
type Event<K, V> = (Cause, Handle<K, V>);

/// Entries that left by what the listener did, for the call that it runs in to go on with.
type Queued<K, V> = RefCell<VecDeque<Event<K, V>>>;

/// A registry's listener, if it has one.
pub(crate) struct Listeners<K: 'static, V: 'static> {
    listener: Option<Listener<K, V>>,
    panics: AtomicU64,
}

impl<K, V> Listeners<K, V> {
    pub(crate) fn new(listener: Option<Listener<K, V>>) -> Self {
        Listeners { listener, panics: AtomicU64::new(0) }
    }

    #[inline]
    pub(crate) fn is_some(&self) -> bool {
        self.listener.is_some()
    }

    /// Tells of an entry that has left. Without a lock: it is the user's code.
    #[inline]
    pub(crate) fn tell(&self, cause: Cause, entry: &Handle<K, V>) {
        if self.listener.is_some() {
            self.tell_all([(cause, entry.clone())]);
        }
    }

    /// Tells of entries that have left. In the listener itself, the call that it runs in does, when that returns: so there
    /// is no recursion, whatever the listener does.
    #[cold]
    pub(crate) fn tell_all(&self, events: impl IntoIterator<Item = Event<K, V>>) {
        let Some(listener) = &self.listener else { return };
        let this = ptr::from_ref(self).cast();
        let mut events = Some(events);
        let later = |pending: &Queued<K, V>| pending.borrow_mut().extend(events.take().into_iter().flatten());
        // SAFETY: below, it is with that type.
        if unsafe { reentrancy::find(this, later) } {
            return;
        }
        let pending = Queued::default();
        reentrancy::enter(this, &pending, || {
            let mut events = events.into_iter().flatten();
            while let Some((cause, entry)) = events.next().or_else(|| pending.borrow_mut().pop_front()) {
                let panics = contain(|| listener(cause, entry));
                // ORDERING: Relaxed, a statistic.
                self.panics.fetch_add(panics.into(), Relaxed);
            }
        });
    }

    /// Calls of the listener that panicked.
    pub(crate) fn panics(&self) -> u64 {
        // ORDERING: Relaxed, a statistic.
        self.panics.load(Relaxed)
    }
}
