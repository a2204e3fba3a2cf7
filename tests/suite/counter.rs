//! Counters: nothing is lost, whichever threads count and however they end.

use crate::common::*;
use epoch_registry::Counter;
use std::cell::RefCell;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

#[test]
fn a_new_counter_is_zero_and_counts_up_and_down() {
    let counter = Counter::new();
    assert_eq!((counter.sum(), counter.approx()), (0, 0));
    assert!(!counter.exceeds(0) && counter.exceeds(-1));
    counter.add(1000);
    counter.decrement();
    assert_eq!(counter.sum(), 999);
    counter.add(-2000);
    counter.increment();
    assert_eq!(counter.sum(), -1000);
    assert!(counter.approx().abs_diff(-1000) <= counter.error_bound());
    assert_eq!(format!("{counter}"), "-1000");
    assert!(format!("{counter:?}").starts_with("Counter { approx: -"), "{counter:?}");
    assert_eq!(Counter::default().sum(), 0);
}

#[test]
fn a_batch_of_one_is_exact_and_a_batch_of_zero_is_refused() {
    let counter = Counter::with_batch(1);
    for n in 1..100 {
        counter.increment();
        assert_eq!((counter.approx(), counter.sum(), counter.error_bound()), (n, n, 0));
    }
    assert!(panic_of(|| drop(Counter::with_batch(0))).contains("batch is zero"));
}

#[test]
fn the_count_wraps_as_an_atomic_does() {
    for batch in [1, Counter::BATCH, u32::MAX] {
        let (counter, atomic) = (Counter::with_batch(batch), AtomicI64::new(0));
        for by in [i64::MAX, i64::MAX, 5, i64::MIN, i64::MIN, -7, i64::MIN, 1] {
            counter.add(by);
            atomic.fetch_add(by, SeqCst);
            assert_eq!(counter.sum(), atomic.load(SeqCst));
        }
    }
}

#[test]
fn exceeds_agrees_with_the_sum_far_from_the_limit_and_near_it() {
    let counter = Counter::with_batch(64);
    for sum in [0, 1, 63, 64, 65, 5_000, -5_000] {
        counter.add(sum - counter.sum());
        for limit in (sum - 200..sum + 200).chain([i64::MIN, i64::MAX, 0]) {
            assert_eq!(counter.exceeds(limit), sum > limit, "{sum} against {limit}");
        }
    }
}

/// Threads add random amounts, and rest at times: then the sum is exact, and the approximation within its bound.
#[test]
fn counts_of_many_threads_add_up_and_the_approximation_is_within_its_bound() {
    let (threads, rounds) = (6, times(30));
    for batch in [1, 2, 32, Counter::BATCH] {
        let (counter, exact, rest) = (Counter::with_batch(batch), AtomicI64::new(0), Barrier::new(threads + 1));
        thread::scope(|scope| {
            for seed in 0..threads as u64 {
                let (counter, exact, rest) = (&counter, &exact, &rest);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed + 1);
                    for _ in 0..rounds {
                        let mut added = 0;
                        for _ in 0..500 {
                            let by = rng.below(41) as i64 - 15;
                            counter.add(by);
                            added += by;
                        }
                        exact.fetch_add(added, SeqCst);
                        rest.wait();
                        rest.wait();
                    }
                });
            }
            for _ in 0..rounds {
                rest.wait();
                let (exact, approx) = (exact.load(SeqCst), counter.approx());
                let is_within = approx.abs_diff(exact) <= counter.error_bound();
                let sum = counter.sum();
                rest.wait();
                assert_eq!(sum, exact);
                assert!(is_within, "{approx} is too far from {exact}");
            }
        });
    }
}

/// A sum during counts has each count that happened before it once, and each other one at most once. So it never misses
/// or doubles what a thread flushes meanwhile.
#[test]
fn a_sum_during_counts_has_each_earlier_count_exactly_once() {
    in_time(|| {
        let (counter, begun, done) = (Counter::with_batch(2), AtomicI64::new(0), AtomicI64::new(0));
        let (stop, end) = (Stop::default(), Instant::now() + a_while());
        thread::scope(|scope| {
            let _end = stop.at_end();
            scope.spawn(|| {
                while !stop.stopped() {
                    begun.fetch_add(1, SeqCst);
                    counter.increment();
                    done.fetch_add(1, SeqCst);
                }
            });
            let mut sums = 0;
            while Instant::now() < end || sums < 1000 {
                let least = done.load(SeqCst);
                let sum = counter.sum();
                let most = begun.load(SeqCst);
                assert!((least..=most).contains(&sum), "{sum} is not within {least}..={most}");
                sums += 1;
            }
        });
        assert_eq!(counter.sum(), done.load(SeqCst));
    });
}

/// Counts in a thread-local's destructor.
struct AtExit(Option<Arc<Counter>>);

impl Drop for AtExit {
    fn drop(&mut self) {
        if let Some(counter) = self.0.take() {
            counter.add(100);
            counter.increment();
        }
    }
}

thread_local! {
    static EARLY: RefCell<AtExit> = const { RefCell::new(AtExit(None)) };
    static LATE: RefCell<AtExit> = const { RefCell::new(AtExit(None)) };
}

/// One of the two thread-locals is destroyed before the thread's block is given back and one after, in whichever order
/// std destroys them.
#[test]
fn threads_that_end_lose_no_count_nor_do_their_thread_local_destructors() {
    let counter = Arc::new(Counter::with_batch(8));
    let rounds = times(200) as i64;
    let mut exact = 0;
    for round in 0..rounds {
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let counter = Arc::clone(&counter);
                thread::spawn(move || {
                    if n != 1 {
                        EARLY.with(|at_exit| at_exit.borrow_mut().0 = Some(Arc::clone(&counter)));
                    }
                    // The last thread counts in destructors alone.
                    if n != 3 {
                        (0..round % 10).for_each(|_| counter.increment());
                        counter.increment();
                    }
                    if n != 2 {
                        LATE.with(|at_exit| at_exit.borrow_mut().0 = Some(counter));
                    }
                })
            })
            .collect();
        // (Unlike a scope, `join` waits for the destructors of thread-locals.)
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        exact += 3 * (round % 10 + 1) + 6 * 101;
        assert_eq!(counter.sum(), exact);
        assert!(counter.approx().abs_diff(exact) <= counter.error_bound());
    }
}

#[test]
fn a_thread_that_ends_leaves_its_block_to_the_next() {
    let counter = Counter::with_batch(2);
    let threads = times(2_000) as i64;
    for _ in 0..threads {
        thread::scope(|scope| {
            scope.spawn(|| counter.increment()).join().unwrap();
        });
    }
    assert_eq!(counter.sum(), threads);
    // With a batch of two, the bound is the number of blocks. (Other tests count meanwhile.)
    assert!(counter.error_bound() < 500, "{} blocks for one thread after the other", counter.error_bound());
}

#[test]
fn a_counter_that_takes_the_place_of_a_dropped_one_begins_at_zero() {
    let (rounds, turn) = (times(300), Barrier::new(3));
    let shared = std::sync::Mutex::new(Arc::new(Counter::with_batch(3)));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0..rounds as i64 {
                    turn.wait();
                    let counter = Arc::clone(&shared.lock().unwrap());
                    (0..=round % 7).for_each(|_| counter.increment());
                    drop(counter);
                    turn.wait();
                }
            });
        }
        for round in 0..rounds as i64 {
            let counter = Arc::new(Counter::with_batch(3));
            *shared.lock().unwrap() = Arc::clone(&counter);
            turn.wait();
            turn.wait();
            assert_eq!(counter.sum(), 2 * (round % 7 + 1));
            assert!(counter.approx().abs_diff(counter.sum()) <= counter.error_bound());
        }
    });
}

#[test]
fn counts_survive_when_blocks_grow() {
    let counters: Vec<_> = (0..2_000).map(|_| Counter::with_batch(4)).collect();
    let threads = 3;
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for at in 0..counters.len() {
                    // The first counter counts before, between and after all growths.
                    counters[0].increment();
                    counters[at].add(at as i64);
                }
            });
        }
        // Sums meanwhile find slots in blocks of any length.
        for counter in counters.iter().step_by(97) {
            assert!(counter.sum() >= 0);
        }
    });
    assert_eq!(counters[0].sum(), threads * counters.len() as i64);
    for (at, counter) in counters.iter().enumerate().skip(1) {
        assert_eq!(counter.sum(), threads * at as i64);
    }
}

/// A static is never dropped, and needs no initialisation.
#[test]
fn a_counter_may_be_a_static() {
    static COUNTER: Counter = Counter::with_batch(16);
    let before = COUNTER.sum();
    let threads: Vec<_> = (0..4).map(|_| thread::spawn(|| (0..100).for_each(|_| COUNTER.increment()))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(COUNTER.sum(), before + 400);
}

#[test]
fn a_panic_between_counts_leaves_the_thread_counting() {
    let counter = Counter::new();
    for _ in 0..10 {
        panic_of(|| {
            counter.increment();
            panic!("planned");
        });
        counter.increment();
    }
    assert_eq!(counter.sum(), 20);
}
