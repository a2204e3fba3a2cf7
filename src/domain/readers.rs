//! The readers of a domain, as other threads see them: for the reports of readers that stay.
//!
//! Other threads use it for those reports alone, and what its own thread asks it, no other thread writes. It is therefore
//! kept in std's types, which the model checker does not see, and read with little order: a section that closes at this very
//! moment may be taken for open.

use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Thread, ThreadId};

/// One thread's pins, or one session, as other threads see it.
pub(crate) struct ReaderState {
    /// On a line of their own, which only their reader writes.
    sections: CachePadded<Sections>,
    thread: ReaderThread,
    /// Where the end of the domain is announced to a thread that keeps a record of it. `None` for a session.
    departed: Option<(u64, Arc<Departed>)>,
}

/// A reader's thread, as far as it is known.
#[derive(Clone)]
pub(crate) enum ReaderThread {
    Handle(Thread),
    /// The thread exits, and its handle may be gone.
    Exiting(ThreadId),
    /// The thread exits, and used no domain before.
    Unknown,
}

#[derive(Default)]
struct Sections {
    /// How many times more often a section was entered than left: one within another belongs to it. (The collector counts as
    /// many guards, before, and panics where there are too many to count.)
    open: AtomicUsize,
    /// Those that have ended, by leaving or renewal.
    completed: AtomicUsize,
}

/// All but [`section`](Self::section) is for the reader alone. Nothing is lost, as there is one writer.
impl ReaderState {
    /// The pins of a thread in the domain of that number. The thread is told in `departed` when the domain is gone.
    pub(crate) fn of_thread(thread: Thread, domain: u64, departed: Arc<Departed>) -> Self {
        ReaderState::new(ReaderThread::Handle(thread), Some((domain, departed)))
    }

    pub(crate) fn of_session(thread: ReaderThread) -> Self {
        ReaderState::new(thread, None)
    }

    /// A reader that is in no domain's list.
    pub(crate) fn unlisted() -> Self {
        ReaderState::new(ReaderThread::Unknown, None)
    }

    fn new(thread: ReaderThread, departed: Option<(u64, Arc<Departed>)>) -> Self {
        ReaderState { sections: CachePadded::default(), thread, departed }
    }

    /// Says that it enters a critical section.
    #[inline]
    pub(crate) fn enter(&self) {
        self.set_open(self.open() + 1);
    }

    /// Says that it leaves a critical section. True if it is in none then.
    #[inline]
    pub(crate) fn leave(&self) -> bool {
        let open = self.open() - 1;
        self.set_open(open);
        if open == 0 {
            self.complete();
        }
        open == 0
    }

    /// Says that it has left a critical section and entered another, unless that lies within another.
    #[inline]
    pub(crate) fn renew(&self) {
        if self.open() == 1 {
            self.complete();
        }
    }

    /// Whether it is in a critical section.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.open() > 0
    }

    #[inline]
    fn open(&self) -> usize {
        // ORDERING: Relaxed, the reader's own; and to others a statistic.
        self.sections.open.load(Ordering::Relaxed)
    }

    #[inline]
    fn set_open(&self, open: usize) {
        // ORDERING: Relaxed, as in `open`.
        self.sections.open.store(open, Ordering::Relaxed);
    }

    #[inline]
    fn complete(&self) {
        // ORDERING: Relaxed, the reader's own.
        let completed = self.sections.completed.load(Ordering::Relaxed);
        // ORDERING: Release, as in `section`.
        self.sections.completed.store(completed.wrapping_add(1), Ordering::Release);
    }

    /// The number of its critical section, if it is in one. If that ends meanwhile, it may be the number of one that has ended,
    /// but never of one that has not begun.
    fn section(&self) -> Option<usize> {
        // ORDERING: Acquire, so that what is open is looked at after the number is.
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
    /// The length at which the list is next searched for readers that are gone: twice that after the last search. So the cost
    /// of a registration is constant on average.
    full: usize,
}

/// The domains of which a thread keeps a record and which are gone. Written by the threads on which they end.
#[derive(Default)]
pub(crate) struct Departed(Mutex<Vec<u64>>);

impl Departed {
    fn add(&self, domain: u64) {
        self.lock().push(domain);
    }

    /// The numbers of those that were added since the last call.
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A critical section that was open when it was looked for.
pub(crate) struct Section {
    reader_state: Weak<ReaderState>,
    number: usize,
}

impl Readers {
    /// Adds a reader: a thread with the sections that it opens by pins, or a session.
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

    /// The number of readers, threads and sessions, that are registered.
    pub(crate) fn count(&self) -> usize {
        self.lock().all.iter().filter(|known| known.strong_count() > 0).count()
    }

    /// All critical sections that are open.
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

/// The domain ends: its threads are told, so that they forget it.
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
    /// The reader that is in it, if it is still open and the reader is known.
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
    /// The name of its thread. `None` if the thread has none, and for a session that was made in a destructor of a
    /// thread-local, while its thread exited.
    pub thread_name: Option<String>,
    /// Its thread.
    pub thread_id: ThreadId,
    /// Whether it is a session rather than a guard that is held: one that is online and has read nothing since, or one of
    /// whose guards ([`Session::pin`](crate::Session::pin)) was forgotten (`std::mem::forget`).
    pub is_session: bool,
}

#[cfg(test)]
mod tests {
    use super::{ReaderState, ReaderThread, Readers};

    /// Whatever their number: also where it is the most that fit into the list's memory.
    #[test]
    fn readers_that_come_and_go_beside_others_rarely_have_the_list_searched() {
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
            assert!(length() <= 2 * (others + 1023), "{} are listed, of {others}", length());
        }
    }
}
