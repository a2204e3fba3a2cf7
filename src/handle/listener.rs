//! The listener of a registry: the user's callback that runs after an entry has left, with the cause.

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

/// The user's callback.
pub(crate) type Listener<K, V> = Box<dyn Fn(Cause, Handle<K, V>) + Send + Sync>;

/// An entry that has left, and the cause.
type Event<K, V> = (Cause, Handle<K, V>);

/// Events that the listener itself caused. The outer call of the listener on this thread processes them when
/// the listener returns.
type Queued<K, V> = RefCell<VecDeque<Event<K, V>>>;

/// A registry's listener, if there is one.
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

    /// Reports an entry that has left. The caller holds no lock, because the listener is user code.
    #[inline]
    pub(crate) fn tell(&self, cause: Cause, entry: &Handle<K, V>) {
        if self.listener.is_some() {
            self.tell_all([(cause, entry.clone())]);
        }
    }

    /// Reports entries that have left.
    ///
    /// If the listener is already running on this thread, it queues the events instead, and the outer call
    /// reports them when the listener returns. So the listener never recurses, whatever it does.
    #[cold]
    pub(crate) fn tell_all(&self, events: impl IntoIterator<Item = Event<K, V>>) {
        let Some(listener) = &self.listener else { return };
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
            while let Some((cause, entry)) = events.next().or_else(|| pending.borrow_mut().pop_front()) {
                let panics = contain(|| listener(cause, entry));
                // ORDERING: Relaxed, a statistic.
                self.panics.fetch_add(panics.into(), Relaxed);
            }
        });
    }

    /// Returns how many calls of the listener have panicked.
    pub(crate) fn panics(&self) -> u64 {
        // ORDERING: Relaxed, a statistic.
        self.panics.load(Relaxed)
    }
}
