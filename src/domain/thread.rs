//! The calling thread as a reader: its registration with each domain, the pin, and what it is in the middle of.
//!
//! # Invariants
//!
//! - **P1** A record lives for as long as a pin by it does: it leaves its thread's table only without pins. One that the table
//!   does not outlive, or that never was in it, owns itself, and is freed with its last pin.
//! - **P2** `RECENT` is null, or points to a record in the table.

#![allow(unsafe_code)]

use super::Inner;
use super::grace::Grace;
use super::header::put_last;
use super::readers::{Departed, ReaderState, ReaderThread};
use crate::node::Header;
use crate::sync::epoch::{Guard as EpochGuard, LocalHandle};
use crate::sync::{Arc, const_thread_local, thread_local};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::thread::{Thread, ThreadId};

/// One thread's registration with one domain.
pub(crate) struct Record {
    domain: u64,
    grace: Arc<Grace>,
    local: LocalHandle,
    /// Sessions of this thread that are online.
    sessions: Cell<usize>,
    /// Its pins, as it and others count them.
    reader_state: std::sync::Arc<ReaderState>,
    /// The thread's table of records is gone, and the sections of this one, if any are open, count as after thread-locals.
    is_after_tls: Cell<bool>,
    /// Itself, if it is freed with its last pin (P1): from `Rc::into_raw`.
    owns_itself: Cell<*const Record>,
}

impl Record {
    fn new(domain: &Inner, reader_state: std::sync::Arc<ReaderState>) -> Rc<Self> {
        Rc::new(Record {
            domain: domain.id,
            grace: Arc::clone(&domain.grace),
            local: domain.collector.register(),
            sessions: Cell::new(0),
            reader_state,
            is_after_tls: Cell::new(false),
            owns_itself: Cell::new(ptr::null()),
        })
    }

    pub(crate) fn session_online(&self) {
        self.sessions.set(self.sessions.get() + 1);
    }

    pub(crate) fn session_offline(&self) {
        self.sessions.set(self.sessions.get() - 1);
        self.left();
    }

    /// Whether its thread has no table of records any more, so that sections are no longer to be counted in it.
    pub(crate) fn is_late(&self) -> bool {
        self.is_after_tls.get()
    }

    /// After the end of a section: if it was the last of those that counted as late, they do no more.
    fn left(&self) {
        if self.is_after_tls.get() && !self.is_in_section() {
            SECTIONS_AFTER_TLS.with(|sections| sections.set(sections.get() - 1));
        }
    }

    /// Has its sections count as late from now on, and has it freed with its last pin (P1), of which there is one: for pins that
    /// outlive their thread's table of records.
    fn own_itself(self: Rc<Self>) {
        self.count_as_late();
        let record = Rc::into_raw(self);
        // SAFETY: the record is there, as nothing but its last pin frees it.
        unsafe { &*record }.owns_itself.set(record);
    }

    fn count_as_late(&self) {
        SECTIONS_AFTER_TLS.with(|sections| sections.set(sections.get() + 1));
        self.is_after_tls.set(true);
    }

    /// After the last pin of a late one.
    ///
    /// # Safety
    ///
    /// There is no pin by the record, and the caller does not use it afterwards.
    #[cold]
    unsafe fn unpinned_late(record: NonNull<Record>) {
        // SAFETY: P1, by the caller's promise.
        let this = unsafe { record.as_ref() };
        this.left();
        let owned = this.owns_itself.replace(ptr::null());
        if !owned.is_null() {
            // SAFETY: from `Rc::into_raw`, and once. There is no pin any more (and the guard of the last needs no record).
            drop(unsafe { Rc::from_raw(owned) });
        }
    }

    fn is_in_section(&self) -> bool {
        self.reader_state.is_open() || self.sessions.get() > 0
    }

    // Always, as `View`'s reads are.
    #[inline(always)]
    fn pin(&self) -> Pin {
        let guard = self.local.pin();
        self.reader_state.enter();
        Pin { guard, record: Some(NonNull::from(self)) }
    }
}

/// A thread's records.
struct Records {
    thread: Thread,
    /// By the number of the domain.
    all: RefCell<HashMap<u64, Rc<Record>, BuildHasherDefault<DomainHasher>>>,
    /// Domains that are gone, whose records are no longer needed.
    departed: std::sync::Arc<Departed>,
}

/// Hashes the number of a domain.
#[derive(Default)]
struct DomainHasher(u64);

impl Hasher for DomainHasher {
    fn write_u64(&mut self, domain: u64) {
        // By the golden ratio. Numbers that follow each other differ in the product's lower half, which the table's slots are
        // taken from, and numbers with a power of two between them in its upper half.
        let product = domain.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the number of a domain is a u64");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

const_thread_local! {
    /// The record used last (P2).
    static RECENT: Cell<*const Record> = Cell::new(ptr::null());
}

fn set_recent(record: *const Record) {
    // (It is gone before its thread is in a model alone.)
    let _ = RECENT.try_with(|recent| recent.set(record));
}

thread_local! {
    /// `None` if std dropped the thread's handle before the thread used a domain.
    static RECORDS: Option<Records> = Records::new();
}

const_thread_local! {
    /// The thread's id, once it has a table of records: the thread's handle may be gone when the table is.
    static THREAD: Cell<Option<ThreadId>> = Cell::new(None);
}

/// Calls `f` with the thread's table of records. `None` if it has none: while it exits.
fn with_records<R>(f: impl FnOnce(&Records) -> R) -> Option<R> {
    RECORDS.try_with(|records| records.as_ref().map(f)).ok().flatten()
}

/// The calling thread, as a report names it.
pub(crate) fn reader_thread() -> ReaderThread {
    let id = || THREAD.try_with(Cell::get).ok().flatten();
    with_records(|records| ReaderThread::Handle(records.thread.clone()))
        .or_else(|| id().map(ReaderThread::Exiting))
        .unwrap_or(ReaderThread::Unknown)
}

const_thread_local! {
    /// Critical sections opened after `RECORDS` was destroyed, by the destructors of other thread-locals, and one more
    /// for each domain of which there were any before.
    static SECTIONS_AFTER_TLS: Cell<usize> = Cell::new(0);
}

const_thread_local! {
    /// The innermost reclamation that this thread is in the middle of.
    static RUNNING: Cell<*const Running> = Cell::new(ptr::null());
}

impl Inner {
    /// This thread's record. `None` while the thread exits, when it has no table of records.
    pub(crate) fn record(&self) -> Option<Rc<Record>> {
        with_records(|records| records.of(self))
    }

    /// Opens a critical section.
    #[inline(always)]
    pub(crate) fn pin(&self) -> Pin {
        let recent = RECENT.try_with(Cell::get).unwrap_or(ptr::null());
        // SAFETY: P2, and the table keeps its records; it is this thread's, which does nothing else meanwhile.
        match unsafe { recent.as_ref() } {
            Some(recent) if recent.domain == self.id => recent.pin(),
            _ => self.pin_by_another(),
        }
    }

    #[cold]
    fn pin_by_another(&self) -> Pin {
        with_records(|records| records.of(self).pin()).unwrap_or_else(|| self.pin_after_tls())
    }

    /// A pin by a destructor of another thread-local, after ours: by a record of its own, which ends with it.
    #[cold]
    fn pin_after_tls(&self) -> Pin {
        let record = Record::new(self, std::sync::Arc::new(ReaderState::unlisted()));
        let pin = record.pin();
        record.own_itself();
        pin
    }

    /// Whether this thread holds critical sections of this domain up.
    pub(crate) fn in_critical_section(&self) -> bool {
        let recorded = with_records(|records| {
            let all = records.all.borrow();
            all.get(&self.id).is_some_and(|record| record.is_in_section())
        });
        // Late sections are not told apart by domain; a wait in one is refused for all.
        recorded.unwrap_or(false) || SECTIONS_AFTER_TLS.with(|sections| sections.get() > 0)
    }
}

const_thread_local! {
    /// What this thread works for, if it is a thread of a domain: an address that tells it from others.
    static WORKS_FOR: Cell<*const ()> = Cell::new(ptr::null());
}

/// Says what this thread works for, until it ends.
pub(super) fn set_works_for<T>(what: *const T) {
    WORKS_FOR.with(|works_for| works_for.set(what.cast()));
}

/// Whether this is the thread that works for `what`. (Asked of a thread-local of ours, as std's handle of the thread may be gone.)
pub(super) fn works_for<T>(what: *const T) -> bool {
    WORKS_FOR.with(Cell::get) == what.cast()
}

/// Whether this thread is in a critical section of any domain.
pub(crate) fn in_any_section() -> bool {
    let recorded = with_records(|records| records.all.borrow().values().any(|record| record.is_in_section()));
    recorded.unwrap_or(false) || SECTIONS_AFTER_TLS.with(|sections| sections.get() > 0)
}

impl Drop for Records {
    fn drop(&mut self) {
        // P2.
        set_recent(ptr::null());
        for (_, record) in std::mem::take(self.all.get_mut()) {
            // A section or session in some other thread-local outlives this table.
            if record.reader_state.is_open() {
                record.own_itself();
            } else if record.is_in_section() {
                record.count_as_late();
            }
        }
    }
}

impl Records {
    /// The table of the calling thread, unless std has dropped the thread's handle already.
    ///
    /// No destructor of a thread-local comes as late as that, but one of the C library's keys (`pthread_key_create`) may. std's
    /// destructors have run by then: a table made now would be leaked. There is no way to ask std but the call that panics,
    /// and the panic is caught. (The program's panic hook sees it, and with `panic = "abort"` it ends the program.)
    fn new() -> Option<Self> {
        let thread = std::panic::catch_unwind(std::thread::current).ok()?;
        let _ = THREAD.try_with(|id| id.set(Some(thread.id())));
        Some(Records { thread, all: RefCell::default(), departed: std::sync::Arc::default() })
    }

    /// The thread's record of `domain`, which is then the one used last.
    fn of(&self, domain: &Inner) -> Rc<Record> {
        let known = self.all.borrow().get(&domain.id).map(Rc::clone);
        let record = known.unwrap_or_else(|| self.register(domain));
        set_recent(Rc::as_ptr(&record));
        record
    }

    #[cold]
    fn register(&self, domain: &Inner) -> Rc<Record> {
        self.forget_departed();
        let reader_state =
            ReaderState::of_thread(self.thread.clone(), domain.id, std::sync::Arc::clone(&self.departed));
        let record = Record::new(domain, domain.readers.register(reader_state));
        self.all.borrow_mut().insert(domain.id, Rc::clone(&record));
        record
    }

    /// Drops the records of domains that are gone: each once, so that the cost of a first pin is constant on average.
    fn forget_departed(&self) {
        let departed = self.departed.take();
        if departed.is_empty() {
            return;
        }
        set_recent(ptr::null()); // P2
        let mut all = self.all.borrow_mut();
        for domain in departed {
            // One with a pin stays (P1): its guard was forgotten.
            if all.get(&domain).is_some_and(|record| !record.reader_state.is_open()) {
                let record = all.remove(&domain);
                debug_assert!(record.is_some_and(|record| record.grace.is_abandoned()), "the domain is not gone");
            }
        }
    }
}

/// An open critical section. `!Send`, by the epoch guard in it.
pub(crate) struct Pin {
    guard: EpochGuard,
    /// What it counts on (P1). `None` within a session's section, which outlasts it.
    record: Option<NonNull<Record>>,
}

impl Pin {
    /// For a critical section that lies within a session's.
    pub(crate) fn within_session(guard: EpochGuard) -> Pin {
        Pin { guard, record: None }
    }

    pub(crate) fn guard(&self) -> &EpochGuard {
        &self.guard
    }

    /// Closes the section and opens a new one, unless it is nested in another.
    pub(crate) fn repin(&mut self) {
        // The full way round, with its fence, and not the collector's `repin`: see docs/ordering.md, "Sessions".
        self.guard.repin_after(|| ());
        if let Some(record) = &self.record {
            // SAFETY: P1.
            unsafe { record.as_ref() }.reader_state.renew();
        }
    }
}

impl Drop for Pin {
    #[inline]
    fn drop(&mut self) {
        let Some(record) = self.record else { return };
        // SAFETY: P1.
        let this = unsafe { record.as_ref() };
        if this.reader_state.leave() && this.is_after_tls.get() {
            // SAFETY: P1.
            unsafe { Record::unpinned_late(record) };
        }
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin").finish_non_exhaustive()
    }
}

/// A number of the calling thread's own, and of no other's ever. It can be asked for at any time, unlike std's.
#[cfg(debug_assertions)]
pub(crate) fn thread_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};

    const_thread_local! {
        /// Zero until it is asked for.
        static NUMBER: Cell<u64> = Cell::new(0);
    }
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NUMBER.with(|number| {
        if number.get() == 0 {
            // ORDERING: Relaxed, only the number matters. (std's own atomic: identity is not part of any model.)
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

/// Counts a late session.
pub(crate) struct LateMark(());

impl LateMark {
    pub(crate) fn new() -> Self {
        SECTIONS_AFTER_TLS.with(|sections| sections.set(sections.get() + 1));
        LateMark(())
    }
}

impl Drop for LateMark {
    fn drop(&mut self) {
        SECTIONS_AFTER_TLS.with(|sections| sections.set(sections.get() - 1));
    }
}

const NO_DOMAIN: u64 = u64::MAX;

/// That this thread runs destructors or callbacks of a domain: a frame of its stack.
pub(crate) struct Running {
    domain: u64,
    /// A destructor or callback of this run tried to reclaim in the same domain: there may be more to do.
    pub(crate) cascade: Cell<bool>,
    /// Nodes of the same domain whose last reference a destructor of this run has put.
    pub(crate) orphans: RefCell<Vec<NonNull<Header>>>,
    /// A destructor or callback of this run is under way, after which the run looks at `orphans`. Other code of the user's that
    /// runs in the frame, such as an executor's `spawn`, leaves nothing there.
    adopts: Cell<bool>,
    outer: *const Running,
}

impl Running {
    /// Calls `f` with the frame in place. `Err` if the domain is being reclaimed further down this very stack, which is
    /// then told that there is more to do: that keeps chains of destructors from nesting.
    pub(crate) fn enter<R>(domain: &Inner, f: impl FnOnce(&Running) -> R) -> Result<R, ()> {
        if Running::cascade(domain) {
            return Err(());
        }
        Ok(Running::frame(domain.id, f))
    }

    /// Calls `f` as a callback of no domain in particular: one that may retire and reclaim, and must not wait.
    pub(crate) fn callback<R>(f: impl FnOnce() -> R) -> R {
        Running::frame(NO_DOMAIN, |_| f())
    }

    fn frame<R>(domain: u64, f: impl FnOnce(&Running) -> R) -> R {
        let outer = RUNNING.with(Cell::get);
        let frame =
            Running { domain, cascade: Cell::new(false), orphans: RefCell::default(), adopts: Cell::new(false), outer };
        let restore = Restore(outer);
        RUNNING.with(|running| running.set(&frame));
        let result = f(&frame);
        drop(restore);
        // Pending by a run that does not look at them: that of a domain's end.
        for orphan in frame.orphans.take() {
            // SAFETY: it has no reference left, and was left to this frame alone.
            unsafe { put_last(orphan) };
        }
        result
    }

    /// If this thread runs destructors or callbacks of `domain`: tells that run that they left more to do.
    pub(crate) fn cascade(domain: &Inner) -> bool {
        Running::find(domain, |frame| frame.cascade.set(true))
    }

    /// Runs destructors and callbacks of the frame's domain, which contain their panics. The caller looks at `orphans` next.
    pub(crate) fn destroy<R>(&self, f: impl FnOnce() -> R) -> R {
        self.adopts.set(true);
        let result = f();
        self.adopts.set(false);
        result
    }

    /// If a destructor or callback of `domain` is under way on this thread: leaves a node without references to its run.
    pub(crate) fn adopt(domain: &Inner, orphan: NonNull<Header>) -> bool {
        let mut adopted = false;
        Running::find(domain, |frame| {
            adopted = frame.adopts.get();
            if adopted {
                frame.orphans.borrow_mut().push(orphan);
            }
        });
        adopted
    }

    /// Whether this thread runs destructors or callbacks of any domain.
    pub(crate) fn is_anywhere() -> bool {
        !RUNNING.with(Cell::get).is_null()
    }

    fn find(domain: &Inner, found: impl FnOnce(&Running)) -> bool {
        let mut frame = RUNNING.with(Cell::get);
        // SAFETY: frames are linked by `enter` for as long as they are on this thread's stack, and unlinked by
        // `Restore` even if a panic leaves it.
        while let Some(this) = unsafe { frame.as_ref() } {
            if this.domain == domain.id {
                found(this);
                return true;
            }
            frame = this.outer;
        }
        false
    }
}

struct Restore(*const Running);

impl Drop for Restore {
    fn drop(&mut self) {
        RUNNING.with(|running| running.set(self.0));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::DomainHasher;
    use std::collections::HashSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    /// std's table takes the slot from the lower bits of a hash, and what it compares first from the upper seven.
    #[test]
    fn numbers_of_domains_spread_over_the_table_whatever_lies_between_them() {
        for gap in (0..32).map(|shift| 1 << shift).chain([3, 10, 1000, 1_000_000]) {
            let hash = |n: u64| BuildHasherDefault::<DomainHasher>::default().hash_one(n * gap);
            let slots: HashSet<_> = (0..256).map(|n| hash(n) % 512).collect();
            let tags: HashSet<_> = (0..256).map(|n| hash(n) >> 57).collect();
            // By chance it would be 201 and 111. One search looks at 16 slots at a time.
            assert!(slots.len() > 64 && tags.len() > 64, "gap {gap}: {} slots, {} tags", slots.len(), tags.len());
        }
    }
}
