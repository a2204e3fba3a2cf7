//! A session that is bound to one registry.

#![allow(unsafe_code)]

use crate::domain::{Inner, Session};
use crate::handle::Entry;
use crate::handle::Handle;
use crate::registry::Registry;
use crate::registry::view::View;
use crate::util::hasher::RandomState;
use equivalent::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash};

/// A thread's long-lived read session on a registry: the fastest way to read.
///
/// See [`Session`] for how it works and what it costs. Take it [`offline`](Self::offline) for work that blocks,
/// or drop it.
///
/// Every read ends the borrows of the read before it, which the compiler checks. Use a [`view`](Self::view) to
/// hold several entries at once.
///
/// # Examples
///
/// ```
/// use epoch_registry::Registry;
///
/// let registry = Registry::new();
/// registry.insert(1, "one");
/// let mut reader = registry.reader();
/// assert_eq!(reader.get(&1).map(|entry| *entry), Some("one"));
/// let kept = reader.lookup(&1);
/// assert!(reader.get(&2).is_none());
/// assert_eq!(*kept.unwrap(), "one");
/// ```
///
/// # Async
///
/// Do not hold a reader across an `await`. A `block_on`, or another executor that runs on one thread, accepts
/// such a future, and the reader then holds up its domain while the future is suspended. Instead, make a reader
/// for each poll, in a block that ends before the `await`, or take the reader [`offline`](Self::offline) while
/// the executor runs. [`Session`](crate::Session#async) shows both, and what a stall report says.
///
/// # Borrows
///
/// ```compile_fail,E0499
/// let registry = epoch_registry::Registry::<u64, u64>::new();
/// let mut reader = registry.reader();
/// let one = reader.get(&1);
/// let two = reader.get(&2); // the first borrow ends here ...
/// one.is_some(); // ... and must not be used here
/// ```
pub struct Reader<'r, K: Send + Sync + 'static, V: Send + Sync + 'static, S = RandomState> {
    view: View<'r, K, V, S>,
    /// The session. In a box, so that the cold path of a read knows no address but that of the session. In a loop
    /// of reads the compiler then keeps the rest of the reader in registers.
    session: Box<Session>,
    /// The session's domain, copied, because every read loads from it.
    domain: &'r Inner,
}

// All reads are `inline(always)`, as those of a view. A call would be an eighth of their instructions.
impl<'r, K, V, S> Reader<'r, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    pub(crate) fn new(registry: &'r Registry<K, V, S>) -> Self {
        let session = Box::new(registry.domain().session());
        // SAFETY: only `view` lends the view out, for the time between two quiescent states of the session. The
        // session belongs to the registry's domain, and is online during that time.
        let view = unsafe { View::new(&registry.core, &registry.hasher) };
        Reader { view, session, domain: registry.domain().inner() }
    }

    /// Announces a quiescent state if one has been requested, and returns the registry as seen until the next
    /// quiescent state.
    ///
    /// # Progress
    ///
    /// Wait-free. No fence and no locked instruction, unless a quiescent state has been requested since the last
    /// one.
    #[inline(always)]
    pub fn view(&mut self) -> &View<'r, K, V, S> {
        self.quiescent();
        &self.view
    }

    /// Returns the entry of `key`, borrowed until the next read, or `None` if the key is not in the registry.
    ///
    /// # Progress
    ///
    /// As [`view`](Self::view), and then as [`View::get`].
    #[inline(always)]
    pub fn get<Q>(&mut self, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.view().get(key)
    }

    /// Returns a handle to the entry of `key`, or `None` if the key is not in the registry.
    ///
    /// # Progress
    ///
    /// As [`get`](Self::get). Taking the handle costs one locked instruction.
    #[inline(always)]
    pub fn lookup<Q>(&mut self, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.view().lookup(key)
    }

    /// Returns whether `key` is in the registry.
    ///
    /// # Progress
    ///
    /// As [`get`](Self::get).
    #[inline(always)]
    pub fn contains_key<Q>(&mut self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.view().contains_key(key)
    }

    /// Announces a quiescent state if one has been requested. Call this in a loop that has nothing to read for a
    /// while.
    ///
    /// # Progress
    ///
    /// Wait-free.
    #[inline(always)]
    pub fn quiescent(&mut self) {
        self.session.answer(self.domain.asked());
    }

    /// Calls `f` with the session offline, so that it holds up no grace period. Use this for work that blocks.
    pub fn offline<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.session.offline(f)
    }
}

impl<K: Send + Sync, V: Send + Sync, S> fmt::Debug for Reader<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("session", &self.session).finish_non_exhaustive()
    }
}
