//! What listeners are told on request: insertions, and the entries of a registry that is dropped.

use crate::handle::Handle;
use crate::registry::builder::Builder;

impl<K, V, S> Builder<K, V, S> {
    /// Sets a callback that runs after an entry is inserted, with the entry. Insertions by all calls are told;
    /// a replacement is told as a [departure](Self::listener) and an insertion. A rejected insertion is not
    /// told.
    ///
    /// The inserting thread runs the callback, outside every lock, before the call that inserts returns. In every other
    /// respect it is like the [`listener`](Self::listener): it may use the registry, is not called recursively, its
    /// panics are contained and [counted](crate::Stats::listener_panics), and it must not own the registry.
    ///
    /// # Order
    ///
    /// One thread's events are told in their order. With the departures that an insertion causes, evictions come first,
    /// then the replaced entry, and then the insertion. What a callback does is told after it has returned.
    ///
    /// Two threads may run callbacks at the same time. Other threads find the entry before its insertion is told. So
    /// another thread may remove the entry, and tell of the departure before the insertion. In both orders each is told
    /// once. A callback that keeps a mirror of the registry leaves out entries that [have
    /// left](Handle::is_unlinked), and does so under the lock of the mirror.
    ///
    /// # Cost
    ///
    /// Without a callback, nothing. With one, insertions do not take the shortest path: they handle the callback as
    /// they handle bounds and expiry.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{Handle, Registry};
    /// use std::collections::HashMap;
    /// use std::sync::{Arc, Mutex};
    ///
    /// /// The flows by destination, beside a registry of flows by source.
    /// type Mirror = Mutex<HashMap<u16, Handle<u64, u16>>>;
    ///
    /// let by_port: Arc<Mirror> = Arc::default();
    /// let (entered, left) = (by_port.clone(), by_port.clone());
    /// let flows: Registry<u64, u16> = Registry::builder()
    ///     .on_insert(move |flow: &Handle<u64, u16>| {
    ///         let mut mirror = entered.lock().unwrap();
    ///         if !flow.is_unlinked() {
    ///             mirror.insert(**flow, flow.clone());
    ///         }
    ///     })
    ///     .listener(move |_, flow: Handle<u64, u16>| {
    ///         let mut mirror = left.lock().unwrap();
    ///         if mirror.get(&*flow).is_some_and(|mirrored| mirrored.ptr_eq(&flow)) {
    ///             mirror.remove(&*flow);
    ///         }
    ///     })
    ///     .build();
    /// flows.insert(1, 80);
    /// flows.insert(2, 443);
    /// flows.remove(&1);
    /// assert_eq!(by_port.lock().unwrap().keys().collect::<Vec<_>>(), [&443]);
    /// ```
    pub fn on_insert(mut self, listener: impl Fn(&Handle<K, V>) + Send + Sync + 'static) -> Self {
        self.on_insert = Some(Box::new(listener));
        self
    }

    /// Sets whether the [`listener`](Self::listener) is told of the entries that are in the registry when it is
    /// dropped, with [`Cause::Dropped`](crate::Cause::Dropped). False by default. Without a listener it has no effect.
    ///
    /// The thread that drops the registry runs the listener for each entry, before that entry is destroyed. It includes
    /// expired entries that are not reaped yet. The entry has left then, as with every other cause. If the listener
    /// keeps the handle, the entry outlives the registry.
    ///
    /// The entries of plain data are dropped one by one then, and no longer a slab at a time.
    ///
    /// # Examples
    ///
    /// ```
    /// use epoch_registry::{Cause, Registry};
    /// use std::sync::{Arc, Mutex};
    ///
    /// let told = Arc::new(Mutex::new(Vec::new()));
    /// let log = told.clone();
    /// let sessions: Registry<u64, &str> = Registry::builder()
    ///     .listener(move |cause, session| log.lock().unwrap().push((cause, *session)))
    ///     .tell_dropped(true)
    ///     .build();
    /// sessions.insert(1, "ada");
    /// drop(sessions);
    /// assert_eq!(*told.lock().unwrap(), [(Cause::Dropped, "ada")]);
    /// ```
    pub fn tell_dropped(mut self, tell: bool) -> Self {
        self.tell_dropped = tell;
        self
    }
}
