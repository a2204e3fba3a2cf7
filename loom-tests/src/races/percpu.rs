//! Counts that threads keep apart: counters, and references counted per thread.

use crate::world::{Watched, part};
use epoch_registry::{Counter, Domain, PercpuRef};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, Ordering};
use std::mem::forget;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// A counter that a thread flushes at every other count.
fn counter() -> Arc<Counter> {
    Arc::new(Counter::with_batch(2))
}

fn check(counter: &Counter, exact: i64) {
    assert_eq!(counter.sum(), exact);
    assert!(counter.approx().abs_diff(exact) <= counter.error_bound());
    assert!(counter.exceeds(exact - 1) && !counter.exceeds(exact));
}

pub fn counter_add_sum() {
    let (counter, counted) = (counter(), Arc::new(AtomicBool::new(false)));
    let (ours, flag) = (Arc::clone(&counter), Arc::clone(&counted));
    let counting = loom::thread::spawn(move || {
        ours.increment();
        flag.store(true, Ordering::Release);
        // Flushes.
        ours.increment();
    });
    let least = i64::from(counted.load(Ordering::Acquire));
    let sum = counter.sum();
    assert!((least..=2).contains(&sum), "{sum}");
    counting.join().unwrap();
    check(&counter, 2);
}

pub fn counter_exit_add() {
    let counter = counter();
    let ours = Arc::clone(&counter);
    // (Its thread-locals are destroyed after `join` has been told of its end.)
    let ending = loom::thread::spawn(move || ours.increment());
    counter.increment();
    let sum = counter.sum();
    assert!((1..=2).contains(&sum), "{sum}");
    ending.join().unwrap();
    check(&counter, 2);
    counter.increment();
    check(&counter, 3);
}

pub fn counter_grow_sum() {
    // A block has eight slots at first.
    let counters: Arc<[_; 9]> = Arc::new(std::array::from_fn(|_| Counter::with_batch(2)));
    counters[..8].iter().for_each(Counter::increment);
    let (ours, counted) = (Arc::clone(&counters), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&counted);
    let growing = loom::thread::spawn(move || {
        ours[0].increment();
        flag.store(true, Ordering::Release);
        ours[8].increment();
        ours[0].increment();
    });
    let least = i64::from(counted.load(Ordering::Acquire));
    let sum = counters[0].sum();
    assert!((1 + least..=3).contains(&sum), "{sum}");
    growing.join().unwrap();
    check(&counters[0], 3);
    check(&counters[8], 1);
}

pub fn counter_drop_add() {
    // Loom's `Arc`, so that the drop of the first counter is ordered after both threads' counts.
    let (first, second) = (loom::sync::Arc::new(Counter::with_batch(2)), counter());
    first.increment();
    let (their_first, their_second) = (loom::sync::Arc::clone(&first), Arc::clone(&second));
    let begun = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&begun);
    let counting = loom::thread::spawn(move || {
        their_first.increment();
        drop(their_first);
        // ORDERING: Relaxed, so that only the counter orders the threads. (This thread does not give the second counter its
        // place: loom would compare that with this thread's own look at the place, and with no other thread's.)
        let counts = flag.load(Ordering::Relaxed);
        if counts {
            their_second.increment();
        }
        i64::from(counts)
    });
    drop(first);
    second.increment();
    begun.store(true, Ordering::Relaxed);
    let counted = counting.join().unwrap();
    check(&second, 1 + counted);
}

/// A count of references to something that loom watches. Its release writes what users of a reference read.
struct Service {
    domain: Domain,
    references: PercpuRef,
    watched: Arc<Watched>,
    releases: Arc<AtomicUsize>,
}

impl Service {
    fn new() -> Arc<Service> {
        let domain = Domain::builder().name("model").manual().build();
        let watched =
            Arc::new(Watched { memory: UnsafeCell::new(1), drops: Arc::default(), dropped: Arc::default(), bit: 1 });
        let releases = Arc::new(AtomicUsize::new(0));
        let (released, end) = (Arc::clone(&releases), Arc::clone(&watched));
        let references = PercpuRef::with_release(&domain, move || {
            write(&end);
            released.fetch_add(1, Ordering::SeqCst);
        });
        Arc::new(Service { domain, references, watched, releases })
    }

    /// Uses a reference, and puts it.
    fn use_and_put(&self) {
        assert_eq!(self.watched.read(), 1);
        self.references.put();
    }

    fn releases(&self) -> usize {
        self.releases.load(Ordering::SeqCst)
    }

    /// Checks that zero was reached, and is released with the next barrier at the latest.
    fn ended(&self, releases: usize) {
        assert!(self.references.is_zero());
        self.domain.barrier();
        assert_eq!(self.releases(), releases);
    }
}

fn write(watched: &Watched) {
    watched.memory.with_mut(|memory| {
        // SAFETY: loom checks that no other access is concurrent with this write.
        unsafe { *memory = 1 }
    });
}

/// Takes a reference on a thread of its own during `race`, and leaves it. Checks that zero is reached with its put.
fn get_during(race: impl FnOnce(&Service)) {
    let service = Service::new();
    let user = Arc::clone(&service);
    let using = part(&service.domain, move || user.references.try_get_live().map(forget).is_some());
    race(&service);
    service.domain.barrier();
    let is_taken = using.join().unwrap();
    assert_eq!((service.references.is_zero(), service.releases()), (!is_taken, usize::from(!is_taken)));
    if is_taken {
        service.use_and_put();
    }
    service.ended(1);
}

pub fn ref_get_kill() {
    get_during(|service| assert!(service.references.kill()));
}

pub fn ref_put_kill() {
    let service = Service::new();
    service.references.get();
    let user = Arc::clone(&service);
    let using = part(&service.domain, move || user.use_and_put());
    assert!(service.references.kill());
    service.domain.barrier();
    using.join().unwrap();
    service.ended(1);
}

pub fn ref_confirm_get() {
    let service = Service::new();
    let (user, confirmed) = (Arc::clone(&service), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&confirmed);
    let using = part(&service.domain, move || {
        let guard = user.domain.pin();
        if let Some(reference) = user.references.try_get_live_in(&guard) {
            // Relaxed: even the latest value is not set.
            assert!(!flag.load(Ordering::Relaxed), "confirmed during a `try_get_live` that succeeds");
            reference.put_in(&guard);
        }
    });
    // ORDERING: Relaxed, nothing but the section may keep this after the load above.
    assert!(service.references.kill_and_confirm(move || confirmed.store(true, Ordering::Relaxed)));
    service.domain.barrier();
    using.join().unwrap();
    service.ended(1);
}

pub fn ref_put_wait() {
    let service = Service::new();
    service.references.get();
    let user = Arc::clone(&service);
    let using = part(&service.domain, move || user.use_and_put());
    assert!(service.references.kill());
    assert!(service.references.wait_zero(Duration::MAX));
    write(&service.watched);
    using.join().unwrap();
    service.ended(1);
}

pub fn ref_put_resurrect() {
    let service = Service::new();
    service.references.get();
    assert!(service.references.kill());
    service.domain.barrier();
    let user = Arc::clone(&service);
    let using = part(&service.domain, move || user.references.put());
    assert!(service.references.resurrect());
    service.references.get();
    assert!(service.references.kill());
    service.domain.barrier();
    using.join().unwrap();
    assert!(!service.references.is_zero());
    service.references.put();
    service.domain.barrier();
    // If the put came before the resurrection, it reached zero, and the first kill has a release as well.
    let releases = service.releases();
    assert!((1..=2).contains(&releases), "{releases}");
    service.ended(releases);
}

pub fn ref_zero_resurrect() {
    let service = Service::new();
    service.references.get();
    assert!(service.references.kill());
    service.domain.barrier();
    let user = Arc::clone(&service);
    let using = part(&service.domain, move || user.references.put());
    let was_zero = service.references.is_zero();
    assert!(service.references.resurrect());
    using.join().unwrap();
    service.domain.barrier();
    let releases = service.releases();
    assert!((usize::from(was_zero)..=1).contains(&releases), "{releases}");
    assert!(!service.references.is_zero() && service.references.kill());
    service.domain.barrier();
    service.ended(releases + 1);
}

pub fn ref_get_call_off() {
    get_during(|service| {
        assert!(service.references.kill() && service.references.resurrect() && service.references.kill());
    });
}
