//! Sessions: readers whose reads need no fence, as in QSBR.

use super::readers::ReaderState;
#[cfg(debug_assertions)]
use super::thread::thread_number;
use super::thread::{LateMark, Pin, Record, reader_thread};
use super::{Domain, DomainGuard};
use crate::sync::epoch::{Guard as EpochGuard, LocalHandle};
use std::fmt;
use std::rc::Rc;

/// A long-lived registration of a thread as a reader of a domain.
///
/// While the session is *online*, it is in a critical section at all times. Before each read it announces a
/// *quiescent state*, if one was requested since the last: no result of an earlier read is still in use, which the
/// borrow checker guarantees. So a read costs one load of a word that rarely changes, and neither a fence nor a
/// locked instruction.
///
/// The price: an online session that does not read for a while holds up every grace period of its domain. Drop it,
/// or run long work in [`offline`](Self::offline).
///
/// [`Registry::reader`](crate::Registry::reader) makes a session for one registry. Use this type to read several
/// registries of one domain.
///
/// # Async
///
/// A session is `!Send`, so a multi-threaded executor refuses a future that holds one across an `await`. A
/// single-threaded executor, such as a `block_on`, accepts it. While that future is suspended, the session is
/// online and does not read: it holds up its domain. The [stall report](crate::StallReport) names the executor's
/// thread, but cannot name the task:
///
/// ```text
/// domain `watched`: a grace period has lasted 21.0s, held up by a session of thread `executor` (ThreadId(3)); 1 objects of 0 bytes and 0 callers wait
/// ```
///
/// - In a task, make a new session for each poll, in a block that ends before the next `await`. A single read by
///   [`Registry::with`](crate::Registry::with) needs no session.
/// - Outside of tasks, take the session [`offline`](Self::offline) while the executor runs.
///
/// ```
/// # fn block_on<F: Future>(future: F) -> F::Output {
/// #     let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// #     let mut future = std::pin::pin!(future);
/// #     loop {
/// #         if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
/// #             return output;
/// #         }
/// #     }
/// # }
/// # async fn answer() {}
/// use epoch_registry::Registry;
///
/// async fn length(registry: &Registry<u64, String>, key: u64) -> Option<usize> {
///     let length = {
///         let mut reader = registry.reader();
///         reader.get(&key).map(|entry| entry.len())
///     }; // the reader ends here
///     answer().await;
///     length
/// }
///
/// let registry = Registry::new();
/// registry.insert(1, "one".to_string());
/// let mut session = registry.domain().session();
/// assert_eq!(session.offline(|| block_on(length(&registry, 1))), Some(3));
/// ```
///
/// # Threads
///
/// A session belongs to its thread, and cannot be sent to another:
///
/// ```compile_fail,E0277
/// let mut session = epoch_registry::Domain::new().session();
/// std::thread::spawn(move || session.quiescent());
/// ```
pub struct Session {
    /// `None` while the session is offline. Declared before `local`, so that it is dropped first.
    guard: Option<EpochGuard>,
    local: LocalHandle,
    /// The number of the domain's request that the last quiescent state answered.
    seen: usize,
    /// The thread's record, which counts its online sessions.
    record: Option<Rc<Record>>,
    /// The session as other threads see it.
    reader_state: std::sync::Arc<ReaderState>,
    /// Counts the session in place of `record`, if it goes online while the thread exits and has no table of
    /// records.
    late: Option<LateMark>,
    domain: Domain,
    /// The number of the session's thread: checks that unsafe code has not moved the `!Send` session to another
    /// thread.
    #[cfg(debug_assertions)]
    thread: u64,
}

impl Session {
    pub(super) fn new(domain: Domain) -> Session {
        let local = domain.inner().collector.register();
        let record = domain.inner().record();
        let reader_state = domain.inner().readers.register(ReaderState::of_session(reader_thread()));
        let mut session = Session {
            guard: None,
            local,
            seen: 0,
            record,
            reader_state,
            late: None,
            domain,
            #[cfg(debug_assertions)]
            thread: thread_number(),
        };
        session.online();
        session
    }

    /// Returns the session's domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Announces a quiescent state if one was requested.
    ///
    /// # Progress
    ///
    /// Wait-free.
    #[inline]
    pub fn quiescent(&mut self) {
        let asked = self.domain.inner().asked();
        self.answer(asked);
    }

    /// Announces a quiescent state if the domain's request number `asked` is not answered yet.
    #[inline]
    pub(crate) fn answer(&mut self, asked: usize) {
        #[cfg(debug_assertions)]
        assert_eq!(self.thread, thread_number(), "a session is used by another thread than its own");
        if asked != self.seen {
            self.pin_anew(asked);
        }
    }

    #[cold]
    fn pin_anew(&mut self, asked: usize) {
        self.seen = asked;
        if let Some(guard) = &mut self.guard {
            // Unpins and pins again, with the fence of a new pin: see docs/ordering.md, "Sessions". If a guard from
            // `pin` was forgotten, the session stays in the section in which that guard was opened.
            let stays = guard.repin_after(|| self.local.is_pinned());
            if !stays {
                self.reader_state.renew();
            }
        }
    }

    /// Announces a quiescent state if one was requested, and opens a critical section for reads with
    /// [`Registry::view`](crate::Registry::view). It needs no fence.
    ///
    /// A guard that is forgotten (`std::mem::forget`) keeps the session in this critical section forever, even
    /// while the session is offline and after it is dropped.
    pub fn pin(&mut self) -> DomainGuard<'_> {
        self.quiescent();
        DomainGuard { pin: Pin::within_session(self.local.pin()), domain: self.domain.inner() }
    }

    /// Calls `f` while the session is offline: it is in no critical section, and holds up no grace period. For work
    /// that blocks.
    pub fn offline<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.go_offline();
        let session = BackOnline(self);
        let result = f();
        drop(session);
        result
    }

    fn online(&mut self) {
        self.seen = self.domain.inner().asked();
        // If a guard was forgotten, the session has not left its critical section, and is still counted.
        let stayed = self.local.is_pinned();
        self.guard = Some(self.local.pin());
        if stayed {
            return;
        }
        self.reader_state.enter();
        match &self.record {
            Some(record) if !record.is_late() => record.session_online(),
            _ => self.late = Some(LateMark::new()),
        }
    }

    fn go_offline(&mut self) {
        self.guard = None;
        if self.local.is_pinned() || !self.reader_state.is_open() {
            return;
        }
        self.reader_state.leave();
        match (&self.record, self.late.take()) {
            (Some(record), None) => record.session_offline(),
            (_, late) => drop(late),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.go_offline();
        if self.reader_state.is_open() {
            // A guard was forgotten, and nothing will end its critical section. Reports continue to name the
            // session, and waits on this thread are refused.
            std::mem::forget((std::sync::Arc::clone(&self.reader_state), self.late.take()));
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let online = self.guard.is_some();
        f.debug_struct("Session").field("domain", &self.domain.name()).field("online", &online).finish()
    }
}

/// Brings the session back online, even if the closure panics.
struct BackOnline<'s>(&'s mut Session);

impl Drop for BackOnline<'_> {
    fn drop(&mut self) {
        self.0.online();
    }
}
