//! Sessions: readers whose reads cost no fence, in the manner of QSBR.

use super::readers::ReaderState;
#[cfg(debug_assertions)]
use super::thread::thread_number;
use super::thread::{LateMark, Pin, Record, reader_thread};
use super::{Domain, DomainGuard};
use crate::sync::epoch::{Guard as EpochGuard, LocalHandle};
use std::fmt;
use std::rc::Rc;

/// A thread's long-lived registration with a domain, as a reader.
///
/// While it is *online* the session is in a critical section all the time. Before each read it announces a *quiescent
/// state*, if anybody has asked for one since the last: what earlier reads returned is no longer in use, which the
/// borrow checker sees to. So a read costs one load of a word that rarely changes, and neither fence nor locked
/// instruction.
///
/// The price: an online session that reads nothing for a while holds up every grace period of its domain. Drop it, or
/// wrap what takes long in [`offline`](Self::offline).
///
/// [`Registry::reader`](crate::Registry::reader) makes a session for one registry. Use this type to read several
/// registries of one domain.
///
/// # Async
///
/// A session is `!Send`, so an executor of several threads refuses a future that holds one across an `await`. An executor of
/// one thread takes it, as a `block_on` does. While that future is suspended, the session is online and reads nothing: it
/// holds up its domain. The [stall report](crate::StallReport) names the thread of the executor, and cannot name the task:
///
/// ```text
/// domain `watched`: a grace period has lasted 21.0s, held up by a session of thread `executor` (ThreadId(3)); 1 objects of 0 bytes and 0 callers wait
/// ```
///
/// - In a task, make the session anew for each poll: in a block that ends before the next `await`. For a single read,
///   [`Registry::with`](crate::Registry::with) needs no session.
/// - Outside of the tasks, take the session [`offline`](Self::offline) while the executor runs.
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
/// A session belongs to its thread:
///
/// ```compile_fail,E0277
/// let mut session = epoch_registry::Domain::new().session();
/// std::thread::spawn(move || session.quiescent());
/// ```
pub struct Session {
    /// `None` while offline. Declared before `local`: dropped first.
    guard: Option<EpochGuard>,
    local: LocalHandle,
    /// The domain's request that the last quiescent state answered.
    seen: usize,
    /// Where it counts that this thread has a session online.
    record: Option<Rc<Record>>,
    /// What others see of it.
    reader_state: std::sync::Arc<ReaderState>,
    /// The same as `record`, for a session that is made while the thread exits, when there is no record any more.
    late: Option<LateMark>,
    domain: Domain,
    /// The number of its thread: checks what `!Send` says, which unsafe code may have got around.
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

    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Announces a quiescent state if one has been asked for.
    ///
    /// # Progress
    ///
    /// Wait-free.
    #[inline]
    pub fn quiescent(&mut self) {
        let asked = self.domain.inner().asked();
        self.answer(asked);
    }

    /// Announces a quiescent state if the domain's request of that number is not answered yet.
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
            // Out and in again, with the fence of a new pin: see docs/ordering.md, "Sessions". A guard of `pin` that was forgotten
            // keeps the session in the section in which that guard was opened.
            let stays = guard.repin_after(|| self.local.is_pinned());
            if !stays {
                self.reader_state.renew();
            }
        }
    }

    /// Announces a quiescent state, and opens a critical section for reading with
    /// [`Registry::view`](crate::Registry::view). No fence.
    ///
    /// A guard that is forgotten (`std::mem::forget`) keeps the session in this critical section for ever: offline, and when
    /// the session is dropped.
    pub fn pin(&mut self) -> DomainGuard<'_> {
        self.quiescent();
        DomainGuard { pin: Pin::within_session(self.local.pin()), domain: self.domain.inner() }
    }

    /// Calls `f` with the session offline: in no critical section, so that it holds nothing up. For work that blocks.
    pub fn offline<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.go_offline();
        let session = BackOnline(self);
        let result = f();
        drop(session);
        result
    }

    fn online(&mut self) {
        self.seen = self.domain.inner().asked();
        // If a guard was forgotten, the session has not left its critical section, and counts still.
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
            // A guard was forgotten, and nothing will end its critical section: reports go on naming the session, and waits of
            // this thread are refused.
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

/// Brings the session back even if the closure panics.
struct BackOnline<'s>(&'s mut Session);

impl Drop for BackOnline<'_> {
    fn drop(&mut self) {
        self.0.online();
    }
}
