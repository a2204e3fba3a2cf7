//! Every primitive that a model checker must see, in one place: the only file that knows whether the crate is
//! compiled against std and crossbeam, or against loom.
//!
//! With `--cfg loom` the atomics, locks and thread-locals are loom's, and the epoch collector is
//! `sync/model.rs`, an abstract one that frees as early as the contract of an epoch allows. With
//! `--cfg crossbeam_loom` as well, the collector is the real crossbeam-epoch, itself compiled against loom.

#[cfg(not(loom))]
pub(crate) use self::real::*;

/// Whether every node has an allocation of its own, whose memory is not recycled: where a use after free must be seen as what
/// it is. (`--cfg one_node_slabs` is for sanitizers.)
pub(crate) const ONE_NODE_SLABS: bool = cfg!(any(loom, miri, one_node_slabs));

/// Nodes that a shard retires before it hands them over. (Few in a model, so that it does.)
pub(crate) const BAG: usize = if cfg!(loom) { 2 } else { 128 };

#[cfg(not(loom))]
mod real {
    #![allow(unsafe_code)]

    pub(crate) use crossbeam_epoch as epoch;
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::sync::Arc;
    pub(crate) use std::sync::atomic::{self, AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, fence};
    pub(crate) use std::thread;
    pub(crate) use std::thread_local;

    /// A thread-local without destructor or lazy initialisation, so that it can be used to the very end of its thread.
    macro_rules! const_thread_local {
        ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
            std::thread_local! { $(#[$meta])* static $name: $type = const { $init }; }
        };
    }
    pub(crate) use const_thread_local;

    use std::alloc::Layout;
    use std::ptr::NonNull;
    use std::time::Duration;

    /// Waits on `condvar` for at most `timeout`; may wake without cause.
    pub(crate) fn wait_for<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, timeout: Duration) {
        condvar.wait_for(guard, timeout);
    }

    /// Sleeps until [`unpark`](thread::Thread::unpark), or for `timeout` at most.
    pub(crate) fn park_for(timeout: Duration) {
        thread::park_timeout(timeout);
    }

    /// Zeroed memory of `layout`. Zero is the initial state of every atomic, so `init` has nothing to do here;
    /// the model checker's atomics have identity and are built by it.
    ///
    /// # Safety
    ///
    /// `layout` has a size above zero, and zero bytes are what `init` would have written.
    pub(crate) unsafe fn alloc_zeroed(layout: Layout, _init: impl FnOnce(*mut u8)) -> *mut u8 {
        // SAFETY: the caller's promise on `layout`.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        if memory.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        memory
    }

    /// Gives back what [`alloc_zeroed`] gave.
    ///
    /// # Safety
    ///
    /// `memory` came from [`alloc_zeroed`] with this `layout`, and nothing uses it any more.
    pub(crate) unsafe fn dealloc_zeroed(memory: *mut u8, layout: Layout, _drop: impl FnOnce(*mut u8)) {
        // SAFETY: the caller's promise.
        unsafe { std::alloc::dealloc(memory, layout) };
    }

    /// Memory of `layout`.
    ///
    /// # Safety
    ///
    /// `layout` has a size above zero.
    pub(crate) unsafe fn alloc(layout: Layout) -> NonNull<u8> {
        // SAFETY: the caller's promise.
        let memory = unsafe { std::alloc::alloc(layout) };
        NonNull::new(memory).unwrap_or_else(|| std::alloc::handle_alloc_error(layout))
    }

    /// Gives back what [`alloc`] gave.
    ///
    /// # Safety
    ///
    /// `memory` came from [`alloc`] with this `layout`, and nothing uses it any more.
    pub(crate) unsafe fn dealloc(memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
    }

    /// The value with which a loop of exchanges of `word` begins.
    #[inline]
    pub(crate) fn guess<T>(word: &AtomicPtr<T>) -> *mut T {
        // ORDERING: Relaxed, the exchange compares it.
        word.load(atomic::Ordering::Relaxed)
    }

    /// Tells a model checker of the uses of memory that it does not see, and of a leak. Nothing without one.
    pub(crate) struct Presence;

    impl Presence {
        #[inline(always)]
        pub(crate) const fn new() -> Self {
            Presence
        }

        /// The memory is used, perhaps by other threads as well.
        #[inline(always)]
        pub(crate) fn touch(&self) {}

        /// The memory is used by this thread alone: after all that others did with it, and before all that they do.
        #[inline(always)]
        pub(crate) fn own(&self) {}
    }

    /// Between two attempts to see a grace period end: at once a few times, then asleep for ever longer, to a
    /// millisecond. It never yields: where readers keep all cores busy, one that was preempted in a critical section must
    /// get its core back, and a thread that yields is next in line before it has.
    pub(crate) struct Pause {
        attempts: u32,
        nap: Duration,
        longest: Duration,
    }

    impl Pause {
        pub(crate) fn new() -> Self {
            Pause { attempts: 0, nap: SHORTEST, longest: Duration::from_millis(1) }
        }

        /// For one in a hurry: its naps stay as short as they can be.
        pub(crate) fn expedited() -> Self {
            Pause { longest: SHORTEST, ..Pause::new() }
        }

        pub(crate) fn pause(&mut self) {
            if self.attempts < 16 {
                self.attempts += 1;
                std::hint::spin_loop();
            } else {
                thread::sleep(self.nap);
                self.nap = (self.nap * 5 / 4).min(self.longest);
            }
        }

        /// How long the next nap would be.
        pub(crate) fn interval(&self) -> Duration {
            self.nap
        }
    }

    /// What a timer can do: on Linux it takes 50 µs more.
    const SHORTEST: Duration = Duration::from_micros(10);
}

#[cfg(loom)]
pub(crate) use self::looming::*;

#[cfg(loom)]
mod looming {
    #![allow(unsafe_code)]

    #[cfg(crossbeam_loom)]
    pub(crate) use crossbeam_epoch as epoch;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{self, AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, fence};
    pub(crate) use loom::sync::{Condvar, MutexGuard};
    pub(crate) use loom::thread;
    pub(crate) use loom::thread_local;

    macro_rules! const_thread_local {
        ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
            loom::thread_local! { $(#[$meta])* static $name: $type = $init; }
        };
    }
    pub(crate) use const_thread_local;

    #[cfg(not(crossbeam_loom))]
    pub(crate) use crate::sync::model as epoch;

    use loom::alloc::Track;
    use std::alloc::Layout;
    use std::collections::HashMap;
    use std::ptr::NonNull;
    use std::sync::Mutex as StdMutex;
    use std::time::Duration;

    /// parking_lot's face over loom's lock.
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    /// Waits on `condvar` until it is notified: time does not pass in a model. Callers must rely on no timeout.
    pub(crate) fn wait_for<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, _timeout: Duration) {
        // SAFETY: it is written back below, and loom's `wait` does not return by a panic but at the end of an execution that
        // has failed.
        let taken = unsafe { std::ptr::read(guard) };
        let back = condvar.wait(taken).unwrap();
        // SAFETY: what was there was taken.
        unsafe { std::ptr::write(guard, back) };
    }

    pub(crate) fn park_for(_timeout: Duration) {
        loom::thread::yield_now();
    }

    pub(crate) unsafe fn alloc_zeroed(layout: Layout, init: impl FnOnce(*mut u8)) -> *mut u8 {
        // SAFETY: the caller's promise on `layout`.
        let memory = unsafe { std::alloc::alloc(layout) };
        assert!(!memory.is_null(), "out of memory in a model");
        init(memory);
        track(memory);
        memory
    }

    pub(crate) unsafe fn dealloc_zeroed(memory: *mut u8, layout: Layout, drop: impl FnOnce(*mut u8)) {
        drop(memory);
        untrack(memory);
        let memory = memory as usize;
        GRAVEYARD.lock().unwrap().push(Grave(Box::new(move || {
            // SAFETY: the caller's promise; the execution is over.
            unsafe { std::alloc::dealloc(memory as *mut u8, layout) };
        })));
    }

    pub(crate) unsafe fn alloc(layout: Layout) -> NonNull<u8> {
        // SAFETY: the caller's promise.
        let memory = NonNull::new(unsafe { std::alloc::alloc(layout) }).expect("out of memory in a model");
        track(memory.as_ptr());
        memory
    }

    /// Keeps the memory to the end of the execution, so that a use after free is a causality violation that loom reports, and
    /// not a crash. (Loom's atomics need no drop.)
    pub(crate) unsafe fn dealloc(memory: NonNull<u8>, layout: Layout) {
        untrack(memory.as_ptr());
        let memory = memory.as_ptr() as usize;
        GRAVEYARD.lock().unwrap().push(Grave(Box::new(move || {
            // SAFETY: the caller's promise; the execution is over.
            unsafe { std::alloc::dealloc(memory as *mut u8, layout) };
        })));
    }

    /// No load: loom compares an access with the last one of any thread to that word. After a load by the same thread, an
    /// exchange is compared with that load alone, and its order with the loads of other threads is not explored.
    pub(crate) fn guess<T>(_word: &AtomicPtr<T>) -> *mut T {
        std::ptr::null_mut()
    }

    pub(crate) struct Presence {
        cell: loom::cell::UnsafeCell<()>,
        /// Loom reports it at the end of an execution, if it is not dropped.
        _leak: Track<()>,
    }

    // SAFETY: that the accesses are ordered is what loom checks.
    unsafe impl Sync for Presence {}

    impl Presence {
        pub(crate) fn new() -> Self {
            Presence { cell: loom::cell::UnsafeCell::new(()), _leak: Track::new(()) }
        }

        pub(crate) fn touch(&self) {
            self.cell.with(|_| ());
        }

        pub(crate) fn own(&self) {
            self.cell.with_mut(|_| ());
        }
    }

    struct Grave(Box<dyn Fn() + Send>);

    impl Drop for Grave {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    loom::lazy_static! {
        static ref GRAVEYARD: StdMutex<Vec<Grave>> = StdMutex::new(Vec::new());
        /// What is allocated, with what has loom report it if it is leaked: not dropped with the map.
        static ref TRACKED: StdMutex<HashMap<usize, &'static mut Track<()>>> = StdMutex::default();
    }

    fn track(memory: *mut u8) {
        let tracked = Box::leak(Box::new(Track::new(())));
        TRACKED.lock().unwrap().insert(memory as usize, tracked);
    }

    /// (The memory of a core comes from a box, and tells by its `Presence`.)
    fn untrack(memory: *mut u8) {
        if let Some(tracked) = TRACKED.lock().unwrap().remove(&(memory as usize)) {
            // SAFETY: from `Box::leak`, and taken out of the map.
            drop(unsafe { Box::from_raw(tracked) });
        }
    }

    pub(crate) struct Pause;

    impl Pause {
        pub(crate) fn new() -> Self {
            Pause
        }

        pub(crate) fn expedited() -> Self {
            Pause
        }

        pub(crate) fn pause(&mut self) {
            loom::thread::yield_now();
        }

        pub(crate) fn interval(&self) -> Duration {
            Duration::ZERO
        }
    }
}

#[cfg(all(loom, not(crossbeam_loom)))]
pub(crate) mod model;
