//! All primitives that a model checker must see. This is the only file that knows whether the crate is compiled
//! against std and crossbeam, or against loom.
//!
//! | cfg | atomics, locks, thread-locals | epoch collector |
//! |---|---|---|
//! | none | std, parking_lot | crossbeam-epoch |
//! | `loom` | loom | `sync/model.rs`, an abstract collector that frees as early as the contract of an epoch allows |
//! | `loom` and `crossbeam_loom` | loom | the real crossbeam-epoch, itself compiled against loom |

#[cfg(not(loom))]
pub(crate) use self::real::*;

/// Whether every node has an allocation of its own, whose memory is never recycled. Checkers need this to
/// recognise a use after free. (`--cfg one_node_slabs` is for sanitizers.)
pub(crate) const ONE_NODE_SLABS: bool = cfg!(any(loom, miri, one_node_slabs));

/// How many nodes a shard retires before it hands them over. A model uses few, so that it reaches the handover.
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

    /// Declares a thread-local without destructor and without lazy initialisation, so that it can be used until
    /// its thread ends.
    macro_rules! const_thread_local {
        ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
            std::thread_local! { $(#[$meta])* static $name: $type = const { $init }; }
        };
    }
    pub(crate) use const_thread_local;

    /// Declares a [`Global`], which all threads share.
    macro_rules! global {
        ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
            $(#[$meta])* static $name: $crate::sync::Global<$type> = $crate::sync::Global::new($init);
        };
    }
    pub(crate) use global;

    /// Declares a `const fn`, which is not `const` under loom: loom's atomics and locks are not made at compile time.
    macro_rules! const_fn {
        ($(#[$meta:meta])* $visibility:vis fn $($rest:tt)*) => { $(#[$meta])* $visibility const fn $($rest)* };
        ($(#[$meta:meta])* $visibility:vis unsafe fn $($rest:tt)*) => {
            $(#[$meta])* $visibility const unsafe fn $($rest)*
        };
    }
    pub(crate) use const_fn;

    use parking_lot::RawRwLock;
    use parking_lot::lock_api::{self, RawMutex, RawRwLock as RawLockApi};
    use std::alloc::Layout;
    use std::ptr::NonNull;
    use std::time::Duration;

    /// A value that all threads share, until the end of the process.
    pub(crate) struct Global<T>(T);

    /// A reference to the value of a [`Global`].
    pub(crate) type GlobalRef<T> = &'static T;

    impl<T> Global<T> {
        pub(crate) const fn new(value: T) -> Self {
            Global(value)
        }

        #[inline]
        pub(crate) fn get(&'static self) -> GlobalRef<T> {
            &self.0
        }
    }

    /// A mutex that tells its user when the first try to take it fails.
    pub(crate) type TimedMutex<T> = lock_api::Mutex<Exclusive, T>;
    pub(crate) type TimedMutexGuard<'m, T> = lock_api::MutexGuard<'m, Exclusive, T>;

    /// The exclusive side of parking_lot's reader-writer lock, as a mutex.
    ///
    /// Its `try_lock` is one compare-exchange with constants, as the fast path of parking_lot's mutex is. The `try_lock`
    /// of that mutex loads the state first, which costs a write two to ten instructions more. A thread that waits for
    /// either lock spins and parks by the same rules.
    pub(crate) struct Exclusive(RawRwLock);

    // SAFETY: only exclusive locks are taken, and parking_lot allows one at a time.
    unsafe impl RawMutex for Exclusive {
        const INIT: Self = Exclusive(RawRwLock::INIT);
        type GuardMarker = <RawRwLock as RawLockApi>::GuardMarker;

        #[inline]
        fn lock(&self) {
            self.0.lock_exclusive();
        }

        #[inline]
        fn try_lock(&self) -> bool {
            self.0.try_lock_exclusive()
        }

        #[inline]
        unsafe fn unlock(&self) {
            // SAFETY: the caller guarantees that this thread holds the lock.
            unsafe { self.0.unlock_exclusive() };
        }
    }

    /// Takes a lock by one try. If that fails, because another thread holds the lock, calls `wait` to take it.
    #[inline(always)]
    pub(crate) fn lock_or<'m, T>(
        mutex: &'m TimedMutex<T>,
        wait: impl FnOnce(&'m TimedMutex<T>) -> TimedMutexGuard<'m, T>,
    ) -> TimedMutexGuard<'m, T> {
        mutex.try_lock().unwrap_or_else(|| wait(mutex))
    }

    /// Waits on `condvar`. May wake up spuriously.
    pub(crate) fn wait<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>) {
        condvar.wait(guard);
    }

    /// Waits on `condvar` for at most `timeout`. May wake up spuriously.
    pub(crate) fn wait_for<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, timeout: Duration) {
        condvar.wait_for(guard, timeout);
    }

    /// Sleeps until [`unpark`](thread::Thread::unpark), or for at most `timeout`.
    pub(crate) fn park_for(timeout: Duration) {
        thread::park_timeout(timeout);
    }

    /// Returns zeroed memory of `layout`. Zero is the initial state of every atomic, so `init` is not called
    /// here. The model checker's atomics have an identity, so under loom `init` constructs them.
    ///
    /// # Safety
    ///
    /// `layout` has a size above zero, and zero bytes are what `init` would have written.
    pub(crate) unsafe fn alloc_zeroed(layout: Layout, _init: impl FnOnce(*mut u8)) -> *mut u8 {
        // SAFETY: the caller guarantees that `layout` has a size above zero.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        if memory.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        memory
    }

    /// Frees memory from [`alloc_zeroed`].
    ///
    /// # Safety
    ///
    /// `memory` came from [`alloc_zeroed`] with this `layout`, and nothing uses it any more.
    pub(crate) unsafe fn dealloc_zeroed(memory: *mut u8, layout: Layout, _drop: impl FnOnce(*mut u8)) {
        // SAFETY: the caller guarantees that `memory` was allocated with this `layout` and is no longer used.
        unsafe { std::alloc::dealloc(memory, layout) };
    }

    /// Returns uninitialised memory of `layout`.
    ///
    /// # Safety
    ///
    /// `layout` has a size above zero.
    pub(crate) unsafe fn alloc(layout: Layout) -> NonNull<u8> {
        // SAFETY: the caller guarantees that `layout` has a size above zero.
        let memory = unsafe { std::alloc::alloc(layout) };
        NonNull::new(memory).unwrap_or_else(|| std::alloc::handle_alloc_error(layout))
    }

    /// Frees memory from [`alloc`].
    ///
    /// # Safety
    ///
    /// `memory` came from [`alloc`] with this `layout`, and nothing uses it any more.
    pub(crate) unsafe fn dealloc(memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller guarantees that `memory` was allocated with this `layout` and is no longer used.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
    }

    /// Returns the value with which a compare-exchange loop on `word` starts.
    #[inline]
    pub(crate) fn guess<T>(word: &AtomicPtr<T>) -> *mut T {
        // ORDERING: Relaxed, because the exchange verifies the value.
        word.load(atomic::Ordering::Relaxed)
    }

    /// Reports accesses to memory that the model checker does not see, and leaks of it. Without a model checker
    /// it does nothing.
    pub(crate) struct Presence;

    impl Presence {
        #[inline(always)]
        pub(crate) const fn new() -> Self {
            Presence
        }

        /// Reports that this thread uses the memory, perhaps at the same time as other threads.
        #[inline(always)]
        pub(crate) fn touch(&self) {}

        /// Reports that only this thread uses the memory: after all earlier accesses of other threads, and
        /// before all their later ones.
        #[inline(always)]
        pub(crate) fn own(&self) {}
    }

    /// The pause between two checks for the end of a grace period. The first few pauses only spin. Later pauses
    /// sleep, longer each time, up to a millisecond.
    ///
    /// A pause never yields. If readers keep all cores busy, a reader that was preempted in a critical section
    /// must get its core back. A thread that yields would run again before that reader does.
    pub(crate) struct Pause {
        attempts: u32,
        nap: Duration,
        longest: Duration,
    }

    impl Pause {
        pub(crate) fn new() -> Self {
            Pause { attempts: 0, nap: SHORTEST, longest: Duration::from_millis(1) }
        }

        /// Returns a pause for a caller in a hurry: all sleeps have the shortest length.
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

        /// Returns how long the next sleep would be.
        pub(crate) fn interval(&self) -> Duration {
            self.nap
        }
    }

    /// The shortest useful sleep. On Linux a timer takes 50 µs more.
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

    macro_rules! const_fn {
        ($($function:tt)*) => { $($function)* };
    }
    pub(crate) use const_fn;

    macro_rules! global {
        ($(#[$meta:meta])* static $name:ident: $type:ty = $init:expr;) => {
            loom::lazy_static! {
                $(#[$meta])* static ref $name: $crate::sync::Global<$type> = $crate::sync::Global::new($init);
            }
        };
    }
    pub(crate) use global;

    /// A value that the threads of one execution share. Loom drops its statics before the thread-locals of the main
    /// thread, so a thread-local that needs the value keeps a reference to it.
    pub(crate) struct Global<T>(std::sync::Arc<T>);

    pub(crate) type GlobalRef<T> = std::sync::Arc<T>;

    impl<T> Global<T> {
        pub(crate) fn new(value: T) -> Self {
            Global(std::sync::Arc::new(value))
        }

        pub(crate) fn get(&self) -> GlobalRef<T> {
            std::sync::Arc::clone(&self.0)
        }
    }

    #[cfg(not(crossbeam_loom))]
    pub(crate) use crate::sync::model as epoch;

    use loom::alloc::Track;
    use std::alloc::Layout;
    use std::collections::HashMap;
    use std::ptr::NonNull;
    use std::sync::Mutex as StdMutex;
    use std::time::Duration;

    /// A wrapper of loom's lock with the interface of parking_lot.
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

    pub(crate) type TimedMutex<T> = Mutex<T>;
    pub(crate) type TimedMutexGuard<'m, T> = MutexGuard<'m, T>;

    /// Takes a lock, and never calls `wait`: a model has no clock. A failed first try would also multiply the executions
    /// of a model.
    pub(crate) fn lock_or<'m, T>(
        mutex: &'m TimedMutex<T>,
        _wait: impl FnOnce(&'m TimedMutex<T>) -> TimedMutexGuard<'m, T>,
    ) -> TimedMutexGuard<'m, T> {
        mutex.lock()
    }

    /// As [`wait`]. Time does not pass in a model, so callers must not rely on a timeout.
    pub(crate) fn wait_for<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, _timeout: Duration) {
        wait(condvar, guard);
    }

    /// Waits on `condvar` until it is notified.
    pub(crate) fn wait<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>) {
        // SAFETY: the guard is written back below. Loom's `wait` panics only at the end of an execution that
        // has failed.
        let taken = unsafe { std::ptr::read(guard) };
        let back = condvar.wait(taken).unwrap();
        // SAFETY: the old guard was moved out above.
        unsafe { std::ptr::write(guard, back) };
    }

    pub(crate) fn park_for(_timeout: Duration) {
        loom::thread::yield_now();
    }

    pub(crate) unsafe fn alloc_zeroed(layout: Layout, init: impl FnOnce(*mut u8)) -> *mut u8 {
        // SAFETY: the caller guarantees that `layout` has a size above zero.
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
            // SAFETY: the caller guarantees that `memory` was allocated with this `layout`. The graveyard is
            // dropped when the execution is over, so no thread uses the memory any more.
            unsafe { std::alloc::dealloc(memory as *mut u8, layout) };
        })));
    }

    pub(crate) unsafe fn alloc(layout: Layout) -> NonNull<u8> {
        // SAFETY: the caller guarantees that `layout` has a size above zero.
        let memory = NonNull::new(unsafe { std::alloc::alloc(layout) }).expect("out of memory in a model");
        track(memory.as_ptr());
        memory
    }

    /// Keeps the memory until the end of the execution. So a use after free is a causality violation, which
    /// loom reports, instead of a crash. (Loom's atomics need no drop.)
    pub(crate) unsafe fn dealloc(memory: NonNull<u8>, layout: Layout) {
        untrack(memory.as_ptr());
        let memory = memory.as_ptr() as usize;
        GRAVEYARD.lock().unwrap().push(Grave(Box::new(move || {
            // SAFETY: the caller guarantees that `memory` was allocated with this `layout`. The graveyard is
            // dropped when the execution is over, so no thread uses the memory any more.
            unsafe { std::alloc::dealloc(memory as *mut u8, layout) };
        })));
    }

    /// Returns null without a load. Loom compares an access with the last access of any thread to the same
    /// word. After a load by the same thread, loom would compare the exchange only with that load, and would
    /// not explore its order with the loads of other threads.
    pub(crate) fn guess<T>(_word: &AtomicPtr<T>) -> *mut T {
        std::ptr::null_mut()
    }

    pub(crate) struct Presence {
        cell: loom::cell::UnsafeCell<()>,
        /// Loom reports it as a leak if it is not dropped by the end of an execution.
        _leak: Track<()>,
    }

    // SAFETY: loom checks that the accesses are ordered.
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
        /// The current allocations, by address. Loom reports a `Track` that is leaked, so the map must not drop
        /// them.
        static ref TRACKED: StdMutex<HashMap<usize, &'static mut Track<()>>> = StdMutex::default();
    }

    fn track(memory: *mut u8) {
        let tracked = Box::leak(Box::new(Track::new(())));
        TRACKED.lock().unwrap().insert(memory as usize, tracked);
    }

    /// Ends the tracking of an allocation. (The core of a registry is not tracked here: it is allocated by a
    /// `Box`, and its `Presence` reports a leak.)
    fn untrack(memory: *mut u8) {
        if let Some(tracked) = TRACKED.lock().unwrap().remove(&(memory as usize)) {
            // SAFETY: the pointer came from `Box::leak`, and was removed from the map.
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
