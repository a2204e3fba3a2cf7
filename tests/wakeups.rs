//! The thread that reclaims overlooks no retired object and no callback.

mod common;

use common::*;
use epoch_registry::{Domain, Registry};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

/// A value whose drop reports that it has begun, and then waits until the test releases it.
struct Blocking {
    entered: mpsc::Sender<()>,
    release: Mutex<mpsc::Receiver<()>>,
}

impl Drop for Blocking {
    fn drop(&mut self) {
        self.entered.send(()).unwrap();
        self.release.lock().unwrap().recv().unwrap();
    }
}

fn blocking() -> (Blocking, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (entered, wait) = mpsc::channel();
    let (go, release) = mpsc::channel();
    (Blocking { entered, release: Mutex::new(release) }, wait, go)
}

/// A channel's `recv` parks the thread. It may consume the wake-up that was meant for the reclaimer.
#[test]
fn a_destructor_that_parks_does_not_lose_the_reclaimers_wake_up() {
    in_time(|| {
        let ledger = Ledger::new();
        let domain = Domain::builder().reclaimer(true).build();
        let blockers: Registry<u64, Blocking> = Registry::builder().domain(domain.clone()).build();
        let others: Registry<u64, Counted> = Registry::builder().domain(domain.clone()).build();
        let (value, entered, go) = blocking();
        drop(blockers.try_insert(0, value));
        drop(blockers.remove(&0));
        entered.recv().unwrap();
        for key in 0..10 {
            drop(others.try_insert(key, ledger.value(key)));
            drop(others.remove(&key));
        }
        go.send(()).unwrap();
        assert!(soon(|| ledger.dropped() == 10), "{} of 10", ledger.dropped());
        for key in 10..1000 {
            drop(others.try_insert(key, ledger.value(key)));
            drop(others.remove(&key));
        }
        assert!(soon(|| ledger.dropped() == 1000), "{} of 1000", ledger.dropped());
    });
}

/// A value whose destructor takes 10 ms.
struct Slow(Counted);

impl Drop for Slow {
    fn drop(&mut self) {
        assert!(self.0.get() < 4);
        thread::sleep(Duration::from_millis(10));
    }
}

/// Another thread has the only batch, so the reclaimer finds nothing. That thread stops at its budget.
#[test]
fn the_reclaimer_destroys_what_a_bounded_reclaim_leaves() {
    in_time(|| {
        for _ in 0..times(20) {
            let ledger = Ledger::new();
            let domain = Domain::builder().reclaimer(true).build();
            let registry: Registry<u64, Slow> = Registry::builder().shards(1).domain(domain.clone()).build();
            for key in 0..4 {
                drop(registry.try_insert(key, Slow(ledger.value(key))));
            }
            let guard = domain.pin();
            for key in 0..4 {
                drop(registry.remove(&key));
            }
            // By now the reclaimer sleeps long between two rounds.
            thread::sleep(Duration::from_millis(10));
            drop(guard);
            while ledger.dropped() == 0 {
                domain.reclaim(1);
            }
            assert!(soon(|| ledger.dropped() == 4), "{} of 4", ledger.dropped());
        }
    });
}

/// The callback is passed while another thread ends a round that has found nothing.
#[test]
fn a_callback_is_run_by_the_writes_that_follow_it() {
    in_time(|| {
        for _ in 0..times(3000) {
            let domain = Domain::new();
            let registry: Registry<u64, u64> = Registry::builder().domain(domain.clone()).build();
            let (ran, stop) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
            thread::scope(|scope| {
                let idler = scope.spawn(|| {
                    while !stop.load(SeqCst) {
                        domain.reclaim(0);
                    }
                });
                let seen = Arc::clone(&ran);
                thread::yield_now();
                domain.call(move || seen.store(true, SeqCst));
                stop.store(true, SeqCst);
                idler.join().unwrap();
            });
            assert!(soon(|| {
                drop(registry.insert(1, 1));
                ran.load(SeqCst)
            }));
        }
    });
}

#[test]
fn callbacks_run_in_the_order_of_their_calls_at_the_teardown_too() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let domain = Domain::new();
    let noted = AtomicU64::new(0);
    let note = || {
        let (log, number) = (Arc::clone(&log), noted.fetch_add(1, SeqCst));
        move || log.lock().unwrap().push(number)
    };
    domain.call(note());
    domain.call(note());
    while domain.stats().grace_periods == 0 {
        // The callbacks are collected and ready, but do not run.
        domain.reclaim(0);
    }
    domain.call(note());
    drop(domain);
    assert_eq!(*log.lock().unwrap(), [0, 1, 2]);
}
