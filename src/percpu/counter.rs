//! A counter that many threads change and few read.

use super::blocks::{Column, Slot, block_count};
use crate::sync::atomic::Ordering;
use crate::sync::{AtomicU64, const_fn};
use std::fmt;

/// A counter for many writers: each thread counts on its own cache line, by a plain load and store.
///
/// It is the kernel's `percpu_counter` (Linux, `lib/percpu_counter.c`), with threads in place of processors. It is for
/// statistics and limits that all threads change all the time, and that are read now and then.
///
/// | call | costs | exact |
/// |---|---|---|
/// | [`add`](Self::add) | about 1 ns on any number of cores | |
/// | [`approx`](Self::approx) | one load | to within [`error_bound`](Self::error_bound) |
/// | [`sum`](Self::sum) | a lock, and a load for each thread | while no thread counts |
/// | [`exceeds`](Self::exceeds) | that of `approx`, near the limit that of `sum` | as what it used |
///
/// The value is an `i64`, and wraps modulo 2^64, as std's atomics do.
///
/// ```
/// use epoch_registry::Counter;
/// use std::thread;
///
/// static REQUESTS: Counter = Counter::new();
///
/// let workers: Vec<_> = (0..4).map(|_| thread::spawn(|| (0..1000).for_each(|_| REQUESTS.increment()))).collect();
/// workers.into_iter().for_each(|worker| worker.join().unwrap());
///
/// assert_eq!(REQUESTS.sum(), 4000);
/// assert!(REQUESTS.approx().abs_diff(4000) <= REQUESTS.error_bound());
/// assert!(REQUESTS.exceeds(3999) && !REQUESTS.exceeds(4000));
/// ```
///
/// # Threads
///
/// There is no limit on threads. A thread takes a block of memory with its first count, with 16 bytes for each counter
/// of the process that it may meet. When the thread ends, its block stays, with its counts, and a later thread goes on
/// in it. So no count is lost, and there are never more blocks than threads at one time.
///
/// A destructor of a thread-local may count. If the block was given back before, it counts by atomic additions.
///
/// # Memory
///
/// A counter has two cache lines of its own, which threads share: its place in the blocks, which is read with each
/// count, and what `approx` returns. When a counter is dropped, a later one takes its place in the blocks. Blocks are
/// never freed.
///
/// # Fork and signals
///
/// A forked child goes on with the counts of all the parent's threads. Its only thread may count on if it has counted in
/// this counter before. Other calls in the child wait forever if another thread of the parent held the lock at the fork.
///
/// A signal handler must not count: if it interrupts a count of its own thread, one of the two is lost.
///
/// # Allocators
///
/// A global allocator may count its calls with a `Counter`. It must not call `sum`, and must not drop a counter.
#[repr(C, align(64))]
pub struct Counter {
    column: Column,
    /// The number of counts, up or down, after which a thread flushes.
    batch: u64,
    shared: Shared,
}

/// The part of a counter that threads write.
#[repr(align(64))]
struct Shared {
    /// What threads have flushed, modulo 2^64.
    flushed: AtomicU64,
    /// What threads without a slot have added, modulo 2^64. It is a part of `flushed` too.
    slotless: AtomicU64,
}

impl Counter {
    /// The [batch](Self::with_batch) of [`new`](Self::new).
    pub const BATCH: u32 = 256;

    const_fn! {
        /// Returns a counter at zero, with a batch of [`BATCH`](Self::BATCH).
        pub fn new() -> Counter {
            Counter::with_batch(Counter::BATCH)
        }
    }

    const_fn! {
        /// Returns a counter at zero. A thread flushes its count to [`approx`](Self::approx) when the part that is not
        /// flushed has reached `batch`, up or down.
        ///
        /// A larger batch writes the shared cache line less often: threads that count all the time write it once in
        /// `batch` counts each. A smaller one makes `approx` more precise. With a batch of 1 it is one shared atomic.
        ///
        /// # Panics
        ///
        /// If `batch` is zero.
        ///
        /// ```
        /// use epoch_registry::Counter;
        ///
        /// let connections = Counter::with_batch(16);
        /// (0..100).for_each(|_| connections.increment());
        /// assert!((85..=100).contains(&connections.approx()));
        /// ```
        pub fn with_batch(batch: u32) -> Counter {
            assert!(batch > 0, "a counter whose batch is zero");
            let shared = Shared { flushed: AtomicU64::new(0), slotless: AtomicU64::new(0) };
            Counter { column: Column::new(), batch: batch as u64, shared }
        }
    }

    /// Adds `by`, which may be negative.
    ///
    /// It orders nothing, as a relaxed addition.
    ///
    /// # Progress
    ///
    /// Wait-free, except for a thread's first count in this counter: that one may take a short lock, and allocate.
    #[inline]
    pub fn add(&self, by: i64) {
        let by = by as u64;
        let counted = self.column.with(|slot| {
            let total = slot.add(by);
            let ahead = slot.unflushed(total);
            if (ahead as i64).unsigned_abs() >= self.batch {
                self.flush(slot, total, ahead);
            }
        });
        if counted.is_none() {
            self.add_without_slot(by);
        }
    }

    /// Adds one.
    ///
    /// # Progress
    ///
    /// As [`add`](Self::add).
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Subtracts one.
    ///
    /// # Progress
    ///
    /// As [`add`](Self::add).
    #[inline]
    pub fn decrement(&self) {
        self.add(-1);
    }

    /// Flushes all of the slot's `total`, of which `ahead` is not flushed yet.
    #[cold]
    fn flush(&self, slot: &Slot, total: u64, ahead: u64) {
        slot.set_flushed(total);
        // ORDERING: Relaxed, a count.
        self.shared.flushed.fetch_add(ahead, Ordering::Relaxed);
    }

    #[cold]
    fn add_without_slot(&self, by: u64) {
        // ORDERING: Relaxed, both: counts.
        self.shared.slotless.fetch_add(by, Ordering::Relaxed);
        self.shared.flushed.fetch_add(by, Ordering::Relaxed);
    }

    /// Returns the count to within [`error_bound`](Self::error_bound): what threads have flushed.
    ///
    /// What other threads count during the call may be missing.
    ///
    /// # Progress
    ///
    /// Wait-free: one load.
    #[inline]
    pub fn approx(&self) -> i64 {
        // ORDERING: Relaxed, a count.
        self.shared.flushed.load(Ordering::Relaxed) as i64
    }

    /// Returns the most by which [`approx`](Self::approx) differs from the count, up or down: `batch - 1` for each block
    /// of memory. There are as many blocks as threads have counted at one time, in any counter.
    ///
    /// # Progress
    ///
    /// Wait-free: one load.
    pub fn error_bound(&self) -> u64 {
        (self.batch - 1).saturating_mul(block_count() as u64)
    }

    /// Returns the sum of all counts. Each count that happens before the call is in it exactly once, each concurrent one
    /// at most once. So it is exact while no thread counts.
    ///
    /// # Progress
    ///
    /// Takes a lock of the process for one load per thread. A thread that sums holds up no thread that counts, except one
    /// that counts for the first time.
    pub fn sum(&self) -> i64 {
        // ORDERING: Relaxed. A count that happens before this load is seen by coherence.
        self.column.sum().wrapping_add(self.shared.slotless.load(Ordering::Relaxed)) as i64
    }

    /// Returns whether the count is more than `limit`. Uses [`approx`](Self::approx), unless that is so close to the
    /// limit that its error matters; then it uses [`sum`](Self::sum). So the answer is that of `sum`. (The kernel's
    /// `percpu_counter_compare`.)
    ///
    /// Two threads that ask before they count may both be told that there is room for one.
    ///
    /// # Progress
    ///
    /// Far from the limit wait-free: two loads. Near it as `sum`.
    pub fn exceeds(&self, limit: i64) -> bool {
        let approx = self.approx();
        if approx.abs_diff(limit) > self.error_bound() { approx > limit } else { self.sum() > limit }
    }
}

impl Default for Counter {
    /// Returns a counter at zero, as [`new`](Self::new).
    fn default() -> Self {
        Counter::new()
    }
}

/// Shows the [sum](Counter::sum).
impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sum().fmt(f)
    }
}

/// Shows the [approximation](Counter::approx), and takes no lock.
impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter").field("approx", &self.approx()).field("error_bound", &self.error_bound()).finish()
    }
}
