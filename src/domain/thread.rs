//! The calling thread as a reader: its registration with each domain, its pins, and the destructors that it is
//! running.
//!
//! A record, session or section is *late* if its thread's table of records is already destroyed: the thread exits,
//! and a destructor of another thread-local still reads.
//!
//! # Invariants
//!
//! - **P1** A record lives at least as long as each pin by it. A thread's table drops a record only if the record
//!   has no pins. A record that outlives the table, or that was never in it, owns itself, and is freed with its
//!   last pin.
//! - **P2** `RECENT` is null, or points to a record in the table.

#![allow(unsafe_code)]

use super::Inner;
use super::grace::Grace;
use super::readers::{DepartedDomains, ReaderState, ReaderThread};
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
    /// The number of this thread's sessions that are online.
    sessions: Cell<usize>,
    /// The record's pins, as this thread and other threads count them.
    reader_state: std::sync::Arc<ReaderState>,
    /// Whether the record is late: the thread's table of records is gone, and the open sections of this record, if
    /// any, are counted in `SECTIONS_AFTER_TLS`.
    is_after_tls: Cell<bool>,
    /// The record itself, from `Rc::into_raw`, if it is freed with its last pin (P1). Else null.
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

    /// Returns whether the thread's table of records is gone. New sections are then not counted in this record.
    pub(crate) fn is_late(&self) -> bool {
        self.is_after_tls.get()
    }

    /// Called after the end of a section. If the record is late and this was its last section, it no longer counts
    /// in `SECTIONS_AFTER_TLS`.
    fn left(&self) {
        if self.is_after_tls.get() && !self.is_in_section() {
            SECTIONS_AFTER_TLS.with(|sections| sections.set(sections.get() - 1));
        }
    }

    /// Makes the record late, and makes it own itself until its last pin ends (P1). The record has a pin.
    fn own_itself(self: Rc<Self>) {
        self.count_as_late();
        let record = Rc::into_raw(self);
        // SAFETY: P1 (the reference from `into_raw` keeps the record; the last pin gives it up, and the record has
        // a pin).
        unsafe { &*record }.owns_itself.set(record);
    }

    fn count_as_late(&self) {
        SECTIONS_AFTER_TLS.with(|sections| sections.set(sections.get() + 1));
        self.is_after_tls.set(true);
    }

    /// Called after the last pin of a late record has ended. Frees the record if it owns itself.
    ///
    /// # Safety
    ///
    /// The record has no pin, and is not freed yet. The caller does not use it afterwards.
    #[cold]
    unsafe fn unpinned_late(record: NonNull<Record>) {
        // SAFETY: the caller guarantees that the record is not freed.
        let this = unsafe { record.as_ref() };
        this.left();
        let owned = this.owns_itself.replace(ptr::null());
        if !owned.is_null() {
            // SAFETY: from `Rc::into_raw`, and `replace` hands it out once. The record has no pin. (The epoch guard
            // of the last pin, which is dropped later, does not need the record.)
            drop(unsafe { Rc::from_raw(owned) });
        }
    }

    fn is_in_section(&self) -> bool {
        self.reader_state.is_open() || self.sessions.get() > 0
    }

    // `inline(always)`, as the reads of `View` are.
    #[inline(always)]
    fn pin(&self) -> Pin {
        let guard = self.local.pin();
        self.reader_state.enter();
        Pin { guard, record: Some(NonNull::from(self)) }
    }
}

/// A thread's table of records.
struct Records {
    thread: Thread,
    /// The records, by the number of their domain.
    all: RefCell<HashMap<u64, Rc<Record>, BuildHasherDefault<DomainHasher>>>,
    /// Domains that are gone. Their records are no longer needed.
    departed: std::sync::Arc<DepartedDomains>,
}

/// Hashes the number of a domain.
#[derive(Default)]
struct DomainHasher(u64);

impl Hasher for DomainHasher {
    fn write_u64(&mut self, domain: u64) {
        // Multiplies by the golden ratio. Consecutive numbers differ in the lower half of the product, which
        // selects the table's slot. Numbers that are a power of two apart differ in the upper half, which is folded
        // into the lower one.
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
    /// The record that was used last (P2).
    static RECENT: Cell<*const Record> = Cell::new(ptr::null());
}

fn set_recent(record: *const Record) {
    // (`RECENT` is destroyed before its thread ends only in a model.)
    let _ = RECENT.try_with(|recent| recent.set(record));
}

thread_local! {
    /// `None` if std dropped the thread's handle before the thread first used a domain.
    static RECORDS: Option<Records> = Records::new();
}

const_thread_local! {
    /// The thread's id, from when the thread has a table of records. When the table is gone, the thread's handle
    /// may be gone too.
    static THREAD: Cell<Option<ThreadId>> = Cell::new(None);
}

/// Calls `f` with the thread's table of records. Returns `None` if the thread has none, because it exits.
fn with_records<R>(f: impl FnOnce(&Records) -> R) -> Option<R> {
    RECORDS.try_with(|records| records.as_ref().map(f)).ok().flatten()
}

/// Returns the calling thread, as a report names it.
pub(crate) fn reader_thread() -> ReaderThread {
    let id = || THREAD.try_with(Cell::get).ok().flatten();
    with_records(|records| ReaderThread::Handle(records.thread.clone()))
        .or_else(|| id().map(ReaderThread::Exiting))
        .unwrap_or(ReaderThread::Unknown)
}

const_thread_local! {
    /// The number of late sections: one for each late session, one for each record made after `RECORDS` was
    /// destroyed, and one for each record whose sections were open when `RECORDS` was destroyed.
    static SECTIONS_AFTER_TLS: Cell<usize> = Cell::new(0);
}

impl Inner {
    /// Returns this thread's record of the domain. Registers the thread if it has none. Returns `None` if the
    /// thread exits and has no table of records.
    pub(crate) fn record(&self) -> Option<Rc<Record>> {
        with_records(|records| records.of(self))
    }

    /// Opens a critical section.
    #[inline(always)]
    pub(crate) fn pin(&self) -> Pin {
        let recent = RECENT.try_with(Cell::get).unwrap_or(ptr::null());
        // SAFETY: P2 (the table keeps its records; the table is this thread's, which does not change it here).
        match unsafe { recent.as_ref() } {
            Some(recent) if recent.domain == self.id => recent.pin(),
            _ => self.pin_by_another(),
        }
    }

    #[cold]
    fn pin_by_another(&self) -> Pin {
        with_records(|records| records.of(self).pin()).unwrap_or_else(|| self.pin_after_tls())
    }

    /// Opens a critical section in a destructor of another thread-local, after `RECORDS` was destroyed. Its record
    /// is not in a table, and is freed with the pin.
    #[cold]
    fn pin_after_tls(&self) -> Pin {
        let record = Record::new(self, std::sync::Arc::new(ReaderState::unlisted()));
        let pin = record.pin();
        record.own_itself();
        pin
    }

    /// Returns whether this thread is in a critical section of this domain.
    pub(crate) fn in_critical_section(&self) -> bool {
        let recorded = with_records(|records| {
            let all = records.all.borrow();
            all.get(&self.id).is_some_and(|record| record.is_in_section())
        });
        // Late sections are counted for all domains together: in a late section, a wait is refused in every domain.
        recorded.unwrap_or(false) || SECTIONS_AFTER_TLS.with(|sections| sections.get() > 0)
    }
}

const_thread_local! {
    /// What this thread works for, if it is a thread of a domain: an address that no other such thread has.
    static WORKS_FOR: Cell<*const ()> = Cell::new(ptr::null());
}

/// Sets what this thread works for, until it ends.
pub(super) fn set_works_for<T>(what: *const T) {
    WORKS_FOR.with(|works_for| works_for.set(what.cast()));
}

/// Returns whether this is the thread that works for `what`. It reads a thread-local of this crate, because std's
/// handle of the thread may be gone.
pub(super) fn works_for<T>(what: *const T) -> bool {
    WORKS_FOR.with(Cell::get) == what.cast()
}

/// Returns whether this thread is in a critical section of any domain.
pub(crate) fn in_any_section() -> bool {
    let recorded = with_records(|records| records.all.borrow().values().any(|record| record.is_in_section()));
    recorded.unwrap_or(false) || SECTIONS_AFTER_TLS.with(|sections| sections.get() > 0)
}

impl Drop for Records {
    fn drop(&mut self) {
        // P2.
        set_recent(ptr::null());
        for (_, record) in std::mem::take(self.all.get_mut()) {
            // A section or a session that another thread-local holds outlives this table.
            if record.reader_state.is_open() {
                record.own_itself();
            } else if record.is_in_section() {
                record.count_as_late();
            }
        }
    }
}

impl Records {
    /// Makes the table of the calling thread. Returns `None` if std has already dropped the thread's handle.
    ///
    /// No destructor of a thread-local runs so late, but the destructor of a key of the C library
    /// (`pthread_key_create`) may. std's destructors have run by then, and a table made now would be leaked. The
    /// only way to ask std is a call that panics, so the panic is caught. (The program's panic hook sees it, and
    /// with `panic = "abort"` it ends the program.)
    fn new() -> Option<Self> {
        let thread = std::panic::catch_unwind(std::thread::current).ok()?;
        let _ = THREAD.try_with(|id| id.set(Some(thread.id())));
        Some(Records { thread, all: RefCell::default(), departed: std::sync::Arc::default() })
    }

    /// Returns the thread's record of `domain`, and makes it the one used last.
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

    /// Drops the records of domains that are gone. Each record is dropped once, so the amortized cost of a first
    /// pin is constant.
    fn forget_departed(&self) {
        let departed = self.departed.take();
        if departed.is_empty() {
            return;
        }
        set_recent(ptr::null()); // P2
        let mut all = self.all.borrow_mut();
        for domain in departed {
            // A record with a pin stays (P1): the guard of that pin was forgotten.
            if all.get(&domain).is_some_and(|record| !record.reader_state.is_open()) {
                let record = all.remove(&domain);
                debug_assert!(record.is_some_and(|record| record.grace.is_abandoned()), "the domain is not gone");
            }
        }
    }
}

/// An open critical section. It is `!Send`, because it contains an epoch guard.
pub(crate) struct Pin {
    guard: EpochGuard,
    /// The record that counts this pin (P1). `None` within the section of a session, which outlasts the pin.
    record: Option<NonNull<Record>>,
}

impl Pin {
    /// Makes the pin of a critical section that lies within the section of a session.
    pub(crate) fn within_session(guard: EpochGuard) -> Pin {
        Pin { guard, record: None }
    }

    pub(crate) fn guard(&self) -> &EpochGuard {
        &self.guard
    }

    /// Closes the section and opens a new one, unless it is nested in another.
    pub(crate) fn repin(&mut self) {
        // Unpins and pins with the fence of a full pin, unlike the collector's `repin`: see docs/ordering.md,
        // "Sessions".
        self.guard.repin_after(|| ());
        if let Some(record) = &self.record {
            // SAFETY: P1 (this pin keeps the record).
            unsafe { record.as_ref() }.reader_state.renew();
        }
    }
}

impl Drop for Pin {
    #[inline]
    fn drop(&mut self) {
        let Some(record) = self.record else { return };
        // SAFETY: P1 (this pin keeps the record).
        let this = unsafe { record.as_ref() };
        if this.reader_state.leave() && this.is_after_tls.get() {
            // SAFETY: P1 (this pin has kept the record until now). `leave` has returned that no pin is left, and
            // the record is not used below.
            unsafe { Record::unpinned_late(record) };
        }
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin").finish_non_exhaustive()
    }
}

/// Returns a number of the calling thread, which no other thread ever has. Unlike std's id, it is available at any
/// time.
#[cfg(debug_assertions)]
pub(crate) fn thread_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};

    const_thread_local! {
        /// Zero until the thread first asks for it.
        static NUMBER: Cell<u64> = Cell::new(0);
    }
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NUMBER.with(|number| {
        if number.get() == 0 {
            // ORDERING: Relaxed, only the number matters. (std's own atomic: no model depends on a thread's
            // number.)
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

/// Counts a late session, as long as the mark lives.
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::DomainHasher;
    use std::collections::HashSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    /// std's table takes the slot from the lower bits of a hash, and the tag that it compares first from the upper
    /// seven.
    #[test]
    fn numbers_of_domains_spread_over_the_table_with_any_gap_between_them() {
        for gap in (0..32).map(|shift| 1 << shift).chain([3, 10, 1000, 1_000_000]) {
            let hash = |n: u64| BuildHasherDefault::<DomainHasher>::default().hash_one(n * gap);
            let slots: HashSet<_> = (0..256).map(|n| hash(n) % 512).collect();
            let tags: HashSet<_> = (0..256).map(|n| hash(n) >> 57).collect();
            // Random hashes would give 201 slots and 111 tags. One search looks at 16 slots at a time.
            assert!(slots.len() > 64 && tags.len() > 64, "gap {gap}: {} slots, {} tags", slots.len(), tags.len());
        }
    }
}
