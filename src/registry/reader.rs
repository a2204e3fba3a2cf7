//! A session bound to one registry.

#![allow(unsafe_code)]

use crate::domain::{Inner, Session};
use crate::handle::Entry;
use crate::handle::Handle;
use crate::registry::Registry;
use crate::registry::view::View;
use equivalent::Equivalent;
use std::fmt;
use std::hash::{BuildHasher, Hash};

/// A thread's long-lived read session on a registry: the fastest way to read. See [`Session`] for how it works and what
/// it asks for: take it [`offline`](Self::offline) for work that blocks, or drop it.
///
/// Every read ends the borrows of the one before, which the compiler checks; take a [`view`](Self::view) to hold several
/// at once.
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
/// Do not hold a reader across an `await`. A `block_on`, or another executor of one thread, accepts such a future, and the
/// reader holds up its domain while the future is suspended. Make a reader for each poll, in a block that ends before the
/// `await`, or take it [`offline`](Self::offline) while the executor runs. [`Session`](crate::Session#async) shows both, and
/// what a stall report says.
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
pub struct Reader<'r, K: Send + Sync + 'static, V: Send + Sync + 'static, S> {
    view: View<'r, K, V, S>,
    /// Boxed, so that nothing but the session is at an address which its cold path knows: in a loop of reads the compiler keeps
    /// the rest in registers.
    session: Box<Session>,
    /// The session's domain, at hand, as every read looks at it.
    domain: &'r Inner,
}

// The reads are inlined always, as those of a view: a call would be an eighth of their instructions.
impl<'r, K, V, S> Reader<'r, K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    pub(crate) fn new(registry: &'r Registry<K, V, S>) -> Self {
        let session = Box::new(registry.domain().session());
        // SAFETY: the view is lent out by `view` alone, for the time between two quiescent states of the session, which
        // is online then and of the registry's domain.
        let view = unsafe { View::new(&registry.core, &registry.hasher) };
        Reader { view, session, domain: registry.domain().inner() }
    }

    /// Announces a quiescent state, and returns the registry as seen until the next.
    ///
    /// # Progress
    ///
    /// Wait-free, without a fence or locked instruction unless a grace period is wanted.
    #[inline(always)]
    pub fn view(&mut self) -> &View<'r, K, V, S> {
        self.quiescent();
        &self.view
    }

    /// The entry of `key`, borrowed until the next read.
    #[inline(always)]
    pub fn get<Q>(&mut self, key: &Q) -> Option<Entry<'_, K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.view().get(key)
    }

    /// A handle on the entry of `key`.
    #[inline(always)]
    pub fn lookup<Q>(&mut self, key: &Q) -> Option<Handle<K, V>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.view().lookup(key)
    }

    /// Whether `key` is in the registry.
    #[inline(always)]
    pub fn contains_key<Q>(&mut self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.view().contains_key(key)
    }

    /// Announces a quiescent state if one has been asked for. For a loop that finds nothing to read for a while.
    #[inline(always)]
    pub fn quiescent(&mut self) {
        self.session.answer(self.domain.asked());
    }

    /// Calls `f` with the session offline, so that it holds no grace period up. For work that blocks.
    pub fn offline<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.session.offline(f)
    }
}

impl<K: Send + Sync, V: Send + Sync, S> fmt::Debug for Reader<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("session", &self.session).finish_non_exhaustive()
    }
}
