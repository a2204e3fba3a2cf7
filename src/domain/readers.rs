//! Who reads in a domain, as others may know it: for the reports of readers that stay.
//!
//! What others see of it is for those reports alone, and what its own thread asks it, no other thread writes. It is therefore
//! kept in std's types, which the model checker does not see, and read with little order: a section that closes at this very
//! moment may be taken for open.

use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, Thread, ThreadId};

/// One thread's pins, or one session, as others see it.
pub(crate) struct Watch {
    /// On a line of their own, which only their reader writes.
    sections: CachePadded<Sections>,
    /// `None` if it is not listed.
    thread: Option<Thread>,
    session: bool,
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
impl Watch {
    fn new(thread: Option<Thread>, session: bool) -> Arc<Self> {
        Arc::new(Watch { sections: CachePadded::default(), thread, session })
    }

    /// One that nobody else sees.
    pub(crate) fn unlisted() -> Arc<Self> {
        Watch::new(None, false)
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
pub(crate) struct Readers(Mutex<Vec<Weak<Watch>>>);

/// A critical section that was open when it was looked for.
pub(crate) struct Section {
    watch: Weak<Watch>,
    number: usize,
}

impl Readers {
    /// Registers the calling thread, with the sections that it opens by pins, or with a session.
    pub(crate) fn register(&self, session: bool) -> Arc<Watch> {
        let watch = Watch::new(Some(thread::current()), session);
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
        let thread = watch.thread.as_ref()?;
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
