//! Cells: readers, owners and waiters against writers.

use crate::world::{Watched, part};
use epoch_registry::{Domain, RcuCell, Version};
use loom::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A cell with the value 1, its domain, and a count of dropped values.
struct Shared {
    cell: RcuCell<Watched>,
    domain: Domain,
    drops: Arc<AtomicUsize>,
}

fn watched(content: u32, drops: &Arc<AtomicUsize>) -> Watched {
    Watched { memory: UnsafeCell::new(content), drops: Arc::clone(drops), dropped: Arc::default(), bit: 1 << content }
}

impl Shared {
    fn new() -> Arc<Shared> {
        let domain = Domain::builder().name("model").build();
        let drops = Arc::default();
        let cell = RcuCell::new_in(watched(1, &drops), &domain);
        Arc::new(Shared { cell, domain, drops })
    }

    fn value(&self, content: u32) -> Watched {
        watched(content, &self.drops)
    }

    /// Checks that all values but the current one are dropped, once each.
    fn account(&self, created: usize) {
        self.domain.barrier();
        assert_eq!(self.drops.load(Ordering::SeqCst), created - 1);
    }
}

pub fn cell_read_store() {
    let shared = Shared::new();
    let reader = Arc::clone(&shared);
    let reading = part(&shared.domain, move || {
        let guard = reader.domain.pin();
        assert!([1, 2].contains(&reader.cell.read(&guard).read()));
    });
    shared.cell.store(shared.value(2));
    shared.domain.reclaim(2);
    reading.join().unwrap();
    shared.account(2);
}

pub fn cell_reclaim_read_store() {
    let shared = Shared::new();
    let reader = Arc::clone(&shared);
    let reading = part(&shared.domain, move || {
        reader.domain.reclaim(1);
        let guard = reader.domain.pin();
        assert!([1, 2].contains(&reader.cell.read(&guard).read()));
    });
    shared.cell.store(shared.value(2));
    shared.domain.reclaim(1);
    reading.join().unwrap();
    shared.account(2);
}

pub fn cell_section_store() {
    let shared = Shared::new();
    let reader = Arc::clone(&shared);
    let reading = part(&shared.domain, move || {
        let mut session = reader.domain.session();
        assert!([1, 2].contains(&reader.cell.read(&session.section()).read()));
        assert!([1, 2].contains(&reader.cell.read(&session.section()).read()));
    });
    shared.cell.store(shared.value(2));
    shared.domain.reclaim(2);
    reading.join().unwrap();
    shared.account(2);
}

pub fn cell_load_store() {
    let shared = Shared::new();
    let reader = Arc::clone(&shared);
    let reading = part(&shared.domain, move || {
        let version = reader.cell.load();
        assert_eq!(u64::from(version.read()), 1 + Version::number(&version));
    });
    shared.cell.store(shared.value(2));
    shared.domain.reclaim(2);
    reading.join().unwrap();
    shared.account(2);
}

/// The old version has no reader left: its last reference is dropped while its grace period ends.
pub fn cell_put_reclaim() {
    let shared = Shared::new();
    let version = shared.cell.load();
    shared.cell.store(shared.value(2));
    let owning = part(&shared.domain, move || {
        assert_eq!(version.read(), 1);
        drop(version);
    });
    shared.domain.reclaim(2);
    owning.join().unwrap();
    shared.account(2);
}

pub fn cell_drop_put() {
    let domain = Domain::builder().name("model").build();
    let drops = Arc::default();
    let cell = RcuCell::new_in(watched(1, &drops), &domain);
    let version = cell.load();
    let owning = part(&domain, move || {
        assert_eq!(version.read(), 1);
        drop(version);
    });
    drop(cell);
    owning.join().unwrap();
    domain.barrier();
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

pub fn cell_update_update() {
    let shared = Shared::new();
    let other = Arc::clone(&shared);
    let writing = part(&shared.domain, move || {
        other.cell.update(|old| other.value(old.read() + 1));
    });
    shared.cell.update(|old| shared.value(old.read() + 1));
    writing.join().unwrap();
    assert_eq!(shared.cell.with(Watched::read), 3);
    shared.account(3);
}

pub fn cell_update_store() {
    let shared = Shared::new();
    let other = Arc::clone(&shared);
    let writing = part(&shared.domain, move || {
        let old = other.cell.replace(other.value(5));
        old.read()
    });
    shared.cell.update(|old| shared.value(old.read() + 1));
    let replaced = writing.join().unwrap();
    // The store comes before the update or after it, and not in between.
    let last = shared.cell.with(Watched::read);
    assert!((replaced, last) == (1, 6) || (replaced, last) == (2, 5), "{replaced} was replaced, and {last} is left");
    shared.account(3);
}

pub fn cell_cookie_reader() {
    let shared = Shared::new();
    let reader = Arc::clone(&shared);
    let reading = part(&shared.domain, move || {
        let guard = reader.domain.pin();
        let read = reader.cell.read(&guard).read();
        assert!(read == 1 || read == 2, "{read}");
    });
    let old = shared.cell.load();
    let cookie = shared.cell.store(shared.value(2));
    shared.domain.wait(cookie);
    old.memory.with_mut(|memory| {
        // SAFETY: loom checks that every reader of the old version has left its section.
        unsafe { *memory = 7 }
    });
    drop(old);
    reading.join().unwrap();
    shared.account(2);
}

pub fn cell_version_store() {
    let shared = Shared::new();
    let reader = Arc::clone(&shared);
    let reading = part(&shared.domain, move || {
        let number = reader.cell.version();
        let read = reader.cell.with(Watched::read);
        assert!(u64::from(read) > number, "version {number} was there, and {read} was read");
    });
    shared.cell.store(shared.value(2));
    reading.join().unwrap();
    shared.account(2);
}

pub fn cell_wait_store() {
    let shared = Shared::new();
    let waiter = Arc::clone(&shared);
    let waiting = part(&shared.domain, move || {
        assert_eq!(waiter.cell.wait_changed(0), 1);
        assert_eq!(waiter.cell.with(Watched::read), 2, "a read after the wait finds the new version");
    });
    shared.cell.store(shared.value(2));
    waiting.join().unwrap();
    shared.account(2);
}

pub fn cell_future_store() {
    let shared = Shared::new();
    let waiter = Arc::clone(&shared);
    let waiting = part(&shared.domain, move || {
        assert_eq!(loom::future::block_on(waiter.cell.changed(0)), 1);
        assert_eq!(waiter.cell.with(Watched::read), 2, "a read after the wait finds the new version");
    });
    shared.cell.store(shared.value(2));
    waiting.join().unwrap();
    shared.account(2);
}
