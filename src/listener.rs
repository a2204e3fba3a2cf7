//! Who is told of entries that leave, and why they do.

use crate::handle::Handle;
use crate::node::contain;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Why an entry has left its registry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// By `remove` and its like, `retain`, `drain` or `clear`.
    Removed,
    /// By another entry of the same key, in `replace` or `update`.
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

/// The user's listener.
pub(crate) type Listener<K, V> = Box<dyn Fn(Cause, Handle<K, V>) + Send + Sync>;

/// An entry that has left.
type Event<K, V> = (Cause, Handle<K, V>);

/// A registry's listener, if it has one.
pub(crate) struct Listeners<K: 'static, V: 'static> {
    listener: Option<Listener<K, V>>,
    /// Events that came up while the listener ran, by what it did: for the call that it runs in to go on with.
    pending: Mutex<VecDeque<Event<K, V>>>,
    panics: AtomicU64,
}

thread_local! {
    /// The registries whose listener this thread is in, by address.
    static TELLING: RefCell<Vec<*const ()>> = const { RefCell::new(Vec::new()) };
}

/// In the listener of a registry, until dropped.
struct Telling(*const ());

impl Telling {
    /// `None` if this thread is in it already.
    fn begin(who: *const ()) -> Option<Telling> {
        let begun = TELLING.try_with(|telling| {
            let mut telling = telling.borrow_mut();
            let begun = !telling.contains(&who);
            if begun {
                telling.push(who);
            }
            begun
        });
        // Where there are no thread locals any more, the thread is about to end.
        begun.unwrap_or(true).then(|| Telling(who))
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        // (If there are no thread locals any more, nothing was entered.)
        let _ = TELLING.try_with(|telling| telling.borrow_mut().retain(|who| *who != self.0));
    }
}

impl<K, V> Listeners<K, V> {
    pub(crate) fn new(listener: Option<Listener<K, V>>) -> Self {
        Listeners { listener, pending: Mutex::default(), panics: AtomicU64::new(0) }
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
        let Some(_telling) = Telling::begin(ptr::from_ref(self).cast()) else {
            self.pending().extend(events);
            return;
        };
        let mut events = events.into_iter();
        while let Some((cause, entry)) = events.next().or_else(|| self.pending().pop_front()) {
            let panics = contain(|| listener(cause, entry));
            // ORDERING: Relaxed, a statistic.
            self.panics.fetch_add(panics.into(), Relaxed);
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, VecDeque<Event<K, V>>> {
        // Nothing panics under this lock.
        self.pending.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Calls of the listener that panicked.
    pub(crate) fn panics(&self) -> u64 {
        // ORDERING: Relaxed, a statistic.
        self.panics.load(Relaxed)
    }
}
