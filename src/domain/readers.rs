//! Who reads in a domain, as others may know it: for the reports of readers that stay.
//!
//! Nothing depends on what is here but those reports. It is therefore kept in std's types, which the model checker does
//! not see, and read without order: a section that closes at this very moment may be taken for open.

use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, Thread, ThreadId};

/// One thread's pins, or one session, as others see it.
pub(crate) struct Watch {
    /// Odd within a critical section. On a line of its own, which only its reader writes.
    sections: CachePadded<AtomicU64>,
    thread: Thread,
    session: bool,
}

impl Watch {
    /// Says that a critical section opens or closes. For the reader alone.
    #[inline]
    pub(crate) fn turn(&self) {
        self.add(1);
    }

    /// Says that a critical section has closed and another has opened.
    #[inline]
    pub(crate) fn renew(&self) {
        self.add(2);
    }

    #[inline]
    fn add(&self, by: u64) {
        // ORDERING: Relaxed, a statistic; and no addition is lost, as there is one writer.
        self.sections.store(self.sections.load(Ordering::Relaxed) + by, Ordering::Relaxed);
    }

    /// The number of its critical section, if it is in one.
    fn section(&self) -> Option<u64> {
        // ORDERING: Relaxed, as in `add`.
        let sections = self.sections.load(Ordering::Relaxed);
        (sections % 2 == 1).then_some(sections)
    }
}

/// The readers of a domain.
#[derive(Default)]
pub(crate) struct Readers(Mutex<Vec<Weak<Watch>>>);

/// A critical section that was open when it was looked for.
pub(crate) struct Section {
    watch: Weak<Watch>,
    number: u64,
}

impl Readers {
    /// Registers the calling thread, with the sections that it opens by pins, or with a session.
    pub(crate) fn register(&self, session: bool) -> Arc<Watch> {
        let watch = Arc::new(Watch { sections: CachePadded::default(), thread: thread::current(), session });
        let mut all = self.lock();
        // Room is looked for among those gone before the list grows: that keeps the cost of a registration constant.
        if all.len() == all.capacity() {
            all.retain(|known| known.strong_count() > 0);
        }
        all.push(Arc::downgrade(&watch));
        watch
    }

    /// The number of readers, threads and sessions, that are registered.
    pub(crate) fn count(&self) -> usize {
        self.lock().iter().filter(|known| known.strong_count() > 0).count()
    }

    /// All critical sections that are open.
    pub(crate) fn open(&self) -> Vec<Section> {
        let all = self.lock();
        let section = |known: &Weak<Watch>| {
            let number = known.upgrade()?.section()?;
            Some(Section { watch: Weak::clone(known), number })
        };
        all.iter().filter_map(section).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Watch>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Section {
    /// Who is in it, if it is still open.
    pub(crate) fn reader(&self) -> Option<StalledReader> {
        let watch = self.watch.upgrade()?;
        let thread = &watch.thread;
        (watch.section() == Some(self.number)).then(|| StalledReader {
            thread_name: thread.name().map(str::to_string),
            thread_id: thread.id(),
            is_session: watch.session,
        })
    }
}

/// A reader that has been in one critical section for as long as a [stall](crate::StallReport) has lasted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StalledReader {
    /// The name of its thread, if it has one.
    pub thread_name: Option<String>,
    /// Its thread.
    pub thread_id: ThreadId,
    /// Whether it is a session that is online, and has read nothing since, rather than a guard that is held.
    pub is_session: bool,
}
