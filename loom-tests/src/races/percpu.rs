//! Counts that threads keep apart: counters, and references counted per thread.

use epoch_registry::Counter;
use loom::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

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
