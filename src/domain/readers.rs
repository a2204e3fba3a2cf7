//! The readers of a domain as other threads see them: the data for reports of stalled readers.
//!
//! Other threads use this data only for those reports, and to count the readers. What a reader asks about itself is
//! written by its own thread alone. So the data is in std's types, which the model checker does not see, and its
//! ordering is weak: a section that closes at this moment may be taken for open.

use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Thread, ThreadId};

/// One thread's pins in a domain, or one session, as other threads see them.
pub(crate) struct ReaderState {
    /// On a cache line of its own, which only the reader writes.
    sections: CachePadded<Sections>,
    thread: ReaderThread,
    /// The domain's number, and the list that receives it when the domain ends, for a thread that keeps a record of
    /// the domain. `None` for a session.
    departed: Option<(u64, Arc<DepartedDomains>)>,
}

/// A reader's thread, as far as it is known.
#[derive(Clone)]
pub(crate) enum ReaderThread {
    Handle(Thread),
    /// The thread exits, and its handle may be gone.
    Exiting(ThreadId),
    /// The thread exits, and has used no domain before.
    Unknown,
}

#[derive(Default)]
struct Sections {
    /// The number of sections entered minus the number of sections left. A nested section belongs to the outermost
    /// one. (The count does not overflow: the collector counts as many guards first, and panics if there are too
    /// many.)
    open: AtomicUsize,
    /// The number of sections that have ended, by leaving or by renewal.
    completed: AtomicUsize,
}

/// All methods except [`section`](Self::section) are for the reader alone. It is the only writer, so a load and a
/// store lose no update.
impl ReaderState {
    /// Makes the state of a thread's pins in the domain with number `domain`. When the domain is gone, its number
    /// is added to `departed`.
    pub(crate) fn of_thread(thread: Thread, domain: u64, departed: Arc<DepartedDomains>) -> Self {
        ReaderState::new(ReaderThread::Handle(thread), Some((domain, departed)))
    }

    pub(crate) fn of_session(thread: ReaderThread) -> Self {
        ReaderState::new(thread, None)
    }

    /// Makes the state of a reader that is in no domain's list.
    pub(crate) fn unlisted() -> Self {
        ReaderState::new(ReaderThread::Unknown, None)
    }

    fn new(thread: ReaderThread, departed: Option<(u64, Arc<DepartedDomains>)>) -> Self {
        ReaderState { sections: CachePadded::default(), thread, departed }
    }

    /// Records that the reader enters a critical section.
    #[inline]
    pub(crate) fn enter(&self) {
        self.set_open(self.open() + 1);
    }

    /// Records that the reader leaves a critical section. Returns whether it is then in none.
    #[inline]
    pub(crate) fn leave(&self) -> bool {
        let open = self.open() - 1;
        self.set_open(open);
        if open == 0 {
            self.complete();
        }
        open == 0
    }

    /// Records that the reader has left a critical section and entered another one. Does nothing in a nested
    /// section.
    #[inline]
    pub(crate) fn renew(&self) {
        if self.open() == 1 {
            self.complete();
        }
    }

    /// Returns whether the reader is in a critical section.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.open() > 0
    }

    #[inline]
    fn open(&self) -> usize {
        // ORDERING: Relaxed. The reader loads its own stores; for other threads it is a statistic.
        self.sections.open.load(Ordering::Relaxed)
    }

    #[inline]
    fn set_open(&self, open: usize) {
        // ORDERING: Relaxed, as in `open`.
        self.sections.open.store(open, Ordering::Relaxed);
    }

    #[inline]
    fn complete(&self) {
        // ORDERING: Relaxed, only the reader writes it.
        let completed = self.sections.completed.load(Ordering::Relaxed);
        // ORDERING: Release, pairs with the Acquire in `section`: a thread that loads this number also sees that
        // the section before has ended.
        self.sections.completed.store(completed.wrapping_add(1), Ordering::Release);
    }

    /// Returns the number of the reader's critical section, if it is in one. If that section ends during the call,
    /// the number may be that of a section that has ended, but never that of a section that has not begun.
    fn section(&self) -> Option<usize> {
        // ORDERING: Acquire, pairs with the Release in `complete`: `open` is loaded after the number.
        let number = self.sections.completed.load(Ordering::Acquire);
        self.is_open().then_some(number)
    }
}

/// The readers of a domain.
#[derive(Default)]
pub(crate) struct Readers(Mutex<List>);

#[derive(Default)]
struct List {
    all: Vec<Weak<ReaderState>>,
    /// The length at which dead readers are next removed from the list: twice its length after the last removal. So
    /// the amortized cost of a registration is constant.
    full: usize,
}

/// The numbers of domains that are gone and of which a thread keeps a record. The threads on which the domains end
/// write it.
#[derive(Default)]
pub(crate) struct DepartedDomains(Mutex<Vec<u64>>);

impl DepartedDomains {
    fn add(&self, domain: u64) {
        self.lock().push(domain);
    }

    /// Returns the numbers that were added since the last call.
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A critical section that was open when the readers were sampled.
pub(crate) struct Section {
    reader_state: Weak<ReaderState>,
    number: usize,
}

impl Readers {
    /// Adds a reader: a thread with its pins, or a session.
    pub(crate) fn register(&self, reader_state: ReaderState) -> Arc<ReaderState> {
        let reader_state = Arc::new(reader_state);
        let mut list = self.lock();
        if list.all.len() >= list.full {
            list.all.retain(|known| known.strong_count() > 0);
            list.full = (2 * list.all.len()).max(4);
        }
        list.all.push(Arc::downgrade(&reader_state));
        reader_state
    }

    /// Returns the number of registered readers, threads and sessions.
    pub(crate) fn count(&self) -> usize {
        self.lock().all.iter().filter(|known| known.strong_count() > 0).count()
    }

    /// Returns all critical sections that are open.
    pub(crate) fn open(&self) -> Vec<Section> {
        let list = self.lock();
        let section = |known: &Weak<ReaderState>| {
            let number = known.upgrade()?.section()?;
            Some(Section { reader_state: Weak::clone(known), number })
        };
        list.all.iter().filter_map(section).collect()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the threads that keep a record of the domain that the domain has ended, so that they drop the record.
impl Drop for Readers {
    fn drop(&mut self) {
        for reader_state in self.lock().all.iter().filter_map(Weak::upgrade) {
            if let Some((domain, departed)) = &reader_state.departed {
                departed.add(*domain);
            }
        }
    }
}

impl Section {
    /// Returns the reader that is in this section, if the section is still open and the reader's thread is known.
    pub(crate) fn reader(&self) -> Option<StalledReader> {
        let reader_state = self.reader_state.upgrade()?;
        let (thread_name, thread_id) = match &reader_state.thread {
            ReaderThread::Handle(thread) => (thread.name().map(str::to_string), thread.id()),
            ReaderThread::Exiting(id) => (None, *id),
            ReaderThread::Unknown => return None,
        };
        let is_session = reader_state.departed.is_none();
        (reader_state.section() == Some(self.number)).then_some(StalledReader { thread_name, thread_id, is_session })
    }
}

/// A reader that has been in one critical section for as long as a [stall](crate::StallReport) has lasted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StalledReader {
    /// The name of the reader's thread. `None` if the thread has no name, and for a session that was made in a
    /// destructor of a thread-local, while its thread exited.
    pub thread_name: Option<String>,
    /// The id of the reader's thread.
    pub thread_id: ThreadId,
    /// Whether the reader is a session, and not a guard. Such a session is online and has not read since, or one of
    /// its guards ([`Session::pin`](crate::Session::pin)) was forgotten (`std::mem::forget`).
    pub is_session: bool,
}

#[cfg(test)]
mod tests {
    use super::{ReaderState, ReaderThread, Readers};

    /// This holds for any number of other readers, even for the largest number that fits into the list's memory.
    #[test]
    fn short_lived_readers_beside_others_rarely_search_the_list() {
        let (readers, session) = (Readers::default(), || ReaderState::of_session(ReaderThread::Unknown));
        let length = || readers.lock().all.len();
        for others in [1, 3, 127, 128, 1023] {
            let _others: Vec<_> = (0..others).map(|_| readers.register(session())).collect();
            let mut searches = 0;
            for _ in 0..10_000 {
                let before = length();
                drop(readers.register(session()));
                searches += usize::from(length() <= before);
            }
            assert!(searches <= 10_000 / others + 1, "{searches} searches beside {others} others");
            assert!(length() <= 2 * (others + 1023), "{} readers are listed, with {others} others", length());
        }
    }
}
