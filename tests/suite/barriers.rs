//! What `barrier` and `synchronize` guarantee, and where they refuse to wait.

use crate::common::*;
use epoch_registry::{Domain, Registry};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;

/// Several threads retire objects to one queue. The barrier of each covers what that thread removed.
// One thread makes the queue non-empty by an exchange, and then calls `enqueue`. Between these steps another thread may
// push to the queue, return, and call `barrier`. Without the grace period that `barrier` waits for, this test and the
// next fail within some 50,000 rounds.
#[test]
fn a_barrier_covers_what_its_caller_removed_while_other_threads_remove() {
    in_time(|| {
        let registry = Registry::builder().shards(1).domain(Domain::new()).build();
        let start = Barrier::new(4);
        let stop = Stop::default();
        thread::scope(|scope| {
            // Two threads only retire, so that the queue changes hands all the time.
            for id in 0..2u64 {
                let (registry, start, stop) = (&registry, &start, &stop);
                scope.spawn(move || {
                    start.wait();
                    let ledger = Ledger::new();
                    while !stop.stopped() {
                        drop(registry.insert(id, ledger.value(id)));
                    }
                });
            }
            let (registry, start) = (&registry, &start);
            let checkers: Vec<_> = (2..4u64)
                .map(|id| {
                    scope.spawn(move || {
                        start.wait();
                        let ledger = Ledger::new();
                        for round in 0..times(60_000) {
                            drop(registry.try_insert(id, ledger.value(id)));
                            drop(registry.remove(&id));
                            registry.domain().barrier();
                            assert_eq!(ledger.live(), 0, "round {round}");
                        }
                    })
                })
                .collect();
            let _end = stop.at_end();
            let results: Vec<_> = checkers.into_iter().map(|checker| checker.join()).collect();
            drop(_end);
            for result in results {
                result.unwrap();
            }
        });
    });
}

/// The same for entries that become ready by the drop of their last handle.
#[test]
fn a_barrier_covers_the_handles_that_its_caller_dropped_while_other_threads_drop() {
    in_time(|| {
        let registry = Registry::builder().shards(1).domain(Domain::new()).build();
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for id in 0..3u64 {
                let (registry, start) = (&registry, &start);
                scope.spawn(move || {
                    start.wait();
                    let ledger = Ledger::new();
                    for round in 0..times(30_000) {
                        let handle = registry.try_insert(id, ledger.value(id)).unwrap();
                        drop(registry.remove(&id));
                        registry.domain().barrier();
                        assert_eq!(ledger.live(), 1);
                        drop(handle);
                        registry.domain().barrier();
                        assert_eq!(ledger.live(), 0, "round {round}");
                    }
                });
            }
        });
    });
}

#[test]
fn a_barrier_waits_for_a_destructor_that_another_thread_runs() {
    let registry: Registry<u64, OnDrop> = isolated();
    let (running, is_running) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let dropped = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&dropped);
    let value = OnDrop::new(move || {
        running.send(()).unwrap();
        may_go_on.lock().unwrap().recv().unwrap();
        dropped.store(true, SeqCst);
    });
    drop(registry.try_insert(1, value));
    drop(registry.remove(&1));
    thread::scope(|scope| {
        scope.spawn(|| registry.domain().barrier());
        is_running.recv().unwrap();
        let second = scope.spawn(|| {
            registry.domain().barrier();
            assert!(seen.load(SeqCst), "a barrier returned while the destructor still ran");
        });
        // A barrier that does not wait would return within this time.
        thread::sleep(std::time::Duration::from_millis(50));
        assert!(!second.is_finished());
        go_on.send(()).unwrap();
        second.join().unwrap();
    });
}

#[test]
fn barriers_of_many_threads_at_once_all_return() {
    in_time(|| {
        let registry: Registry<u64, Counted> = isolated();
        let ledger = Ledger::new();
        thread::scope(|scope| {
            for id in 0..6u64 {
                let (registry, ledger) = (&registry, &ledger);
                scope.spawn(move || {
                    for round in 0..times(100) as u64 {
                        drop(registry.try_insert(id * 1_000_000 + round, ledger.value(round)));
                        drop(registry.remove(&(id * 1_000_000 + round)));
                        registry.domain().barrier();
                    }
                });
            }
        });
        registry.domain().barrier();
        assert_eq!(ledger.live(), 0);
    });
}

#[test]
fn a_barrier_runs_the_callbacks_given_before_it_after_the_sections_open_then() {
    let domain = Domain::new();
    let order = Arc::new(AtomicU64::new(0));
    thread::scope(|scope| {
        let (pinned, is_pinned) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let (domain, order) = (&domain, &order);
        scope.spawn(move || {
            let guard = domain.pin();
            pinned.send(()).unwrap();
            may_go_on.recv().unwrap();
            assert_eq!(order.load(SeqCst), 0, "the callback ran while an older guard was open");
            order.store(1, SeqCst);
            drop(guard);
        });
        is_pinned.recv().unwrap();
        let seen = Arc::clone(order);
        domain.call(move || {
            assert_eq!(seen.swap(2, SeqCst), 1);
        });
        for _ in 0..1000 {
            domain.reclaim(100);
        }
        go_on.send(()).unwrap();
        domain.barrier();
        assert_eq!((order.load(SeqCst), domain.stats().callback_panics), (2, 0));
    });
}

#[test]
fn synchronize_waits_for_the_sections_open_when_it_starts() {
    let domain = Domain::new();
    let closed = AtomicBool::new(false);
    thread::scope(|scope| {
        let (pinned, is_pinned) = channel();
        let (domain, closed) = (&domain, &closed);
        scope.spawn(move || {
            let guard = domain.pin();
            pinned.send(()).unwrap();
            thread::sleep(std::time::Duration::from_millis(30));
            closed.store(true, SeqCst);
            drop(guard);
        });
        is_pinned.recv().unwrap();
        domain.synchronize();
        assert!(closed.load(SeqCst));
    });
}

#[test]
fn a_cookie_is_over_when_the_sections_open_at_its_start_have_closed() {
    let domain = Domain::new();
    let guard = domain.pin();
    let cookie = domain.start_poll();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..1000 {
                assert!(!domain.poll(cookie));
            }
            assert!(!domain.poll_timeout(cookie, std::time::Duration::from_millis(20)));
        });
    });
    drop(guard);
    assert!(domain.poll_timeout(cookie, std::time::Duration::from_secs(10)));
    assert!(domain.poll(cookie), "a grace period that was over is not over any more");
}

#[test]
fn a_cookie_of_another_domain_is_refused() {
    let (one, two) = (Domain::new(), Domain::new());
    let cookie = one.start_poll();
    assert!(panic_of(|| two.poll(cookie)).contains("a cookie of another domain"));
}

// Places where waiting is refused.

const IN_SECTION: &str = "within a critical section of that domain would wait for itself";
const IN_DESTRUCTOR: &str = "within a destructor or callback, of that domain or another, could wait for itself";

/// Checks that both waits panic with a message that contains `why` and the name of the domain.
fn refuses(domain: &Domain, why: &str) {
    for (name, message) in
        [("synchronize", panic_of(|| domain.synchronize())), ("barrier", panic_of(|| domain.barrier()))]
    {
        assert!(message.starts_with(name) && message.contains(why), "{message}");
        assert!(message.contains(&format!("`{}`", domain.name())), "{message}");
    }
}

#[test]
fn waiting_is_refused_under_a_guard_and_allowed_after_it() {
    let registry: Registry<u64, u64> = isolated();
    let domain = registry.domain();
    let outer = registry.pin();
    let inner = domain.pin();
    refuses(domain, IN_SECTION);
    drop(inner);
    refuses(domain, IN_SECTION);
    drop(outer);
    domain.synchronize();
    domain.barrier();
}

#[test]
fn waiting_is_refused_in_an_online_session_and_allowed_in_offline() {
    let registry: Registry<u64, u64> = isolated();
    let domain = registry.domain();
    let mut reader = registry.reader();
    let mut session = domain.session();
    refuses(domain, IN_SECTION);
    reader.offline(|| {
        refuses(domain, IN_SECTION);
        session.offline(|| {
            domain.synchronize();
            domain.barrier();
        });
        refuses(domain, IN_SECTION);
    });
    drop(session);
    refuses(domain, IN_SECTION);
    drop(reader);
    domain.barrier();
}

#[test]
fn waiting_is_refused_again_after_a_panic_within_offline() {
    let registry: Registry<u64, u64> = isolated();
    let mut reader = registry.reader();
    assert_eq!(panic_of(|| reader.offline(|| panic!("within"))), "within");
    refuses(registry.domain(), IN_SECTION);
    reader.offline(|| registry.domain().barrier());
}

#[test]
fn waiting_is_refused_in_destructors_and_callbacks() {
    let registry: Registry<u64, OnDrop> = isolated();
    let domain = registry.domain();
    let ran = Arc::new(AtomicU64::new(0));
    let (in_drop, in_call, seen) = (domain.clone(), domain.clone(), [Arc::clone(&ran), Arc::clone(&ran)]);
    let [first, second] = seen;
    let value = OnDrop::new(move || {
        refuses(&in_drop, IN_DESTRUCTOR);
        first.fetch_add(1, SeqCst);
    });
    drop(registry.try_insert(1, value));
    drop(registry.remove(&1));
    domain.call(move || {
        refuses(&in_call, IN_DESTRUCTOR);
        second.fetch_add(1, SeqCst);
    });
    domain.barrier();
    assert_eq!(ran.load(SeqCst), 2);
    assert_eq!((registry.stats().drop_panics, domain.stats().callback_panics), (0, 0));
}

#[test]
fn waiting_for_another_domain_is_allowed_except_in_destructors_and_callbacks() {
    let (one, two) = (Domain::new(), Domain::new());
    let guard = one.pin();
    let mut session = one.session();
    two.synchronize();
    two.barrier();
    drop(guard);
    let other = two.clone();
    let ran = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ran);
    one.call(move || {
        refuses(&other, IN_DESTRUCTOR);
        seen.store(true, SeqCst);
    });
    session.offline(|| one.barrier());
    assert!(ran.load(SeqCst));
}

/// A key whose `Eq` waits for a grace period.
struct Waits(u64, Domain);

impl Hash for Waits {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Waits {
    fn eq(&self, other: &Self) -> bool {
        self.1.synchronize();
        self.0 == other.0
    }
}

impl Eq for Waits {}

/// A reader that writes under its guard waits for the shard lock. `Eq` runs under that lock. If it waited for readers,
/// the two would wait for each other.
#[test]
fn waiting_is_refused_in_an_eq_that_runs_under_a_shard_lock() {
    let registry: Registry<Waits, u64> = isolated();
    let key = || Waits(1, registry.domain().clone());
    registry.try_insert(key(), 1).unwrap();
    let message = panic_of(|| registry.try_insert(key(), 2));
    assert!(message.contains("Eq"), "{message}");
    assert_eq!(registry.len(), 1);
}
