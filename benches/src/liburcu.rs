//! liburcu in its memb flavour: readers without fences, writers that call `membarrier`.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;

unsafe extern "C" {
    fn urcu_memb_register_thread();
    fn urcu_memb_unregister_thread();
    fn urcu_memb_synchronize_rcu();
    /// Of `shims/liburcu/shim.c`.
    fn urcu_memb_shim_read(cell: *const u64) -> u64;
    fn urcu_memb_shim_call();
    fn urcu_memb_shim_replace(cell: *mut *mut c_void);
    fn urcu_memb_shim_release(object: *mut c_void);
    fn urcu_memb_barrier();
}

/// This thread's registration as a reader.
pub struct Reader {
    /// Not `Send`: the registration is the thread's.
    _thread: PhantomData<*const ()>,
}

impl Reader {
    /// Registers this thread.
    ///
    /// # Safety
    ///
    /// It is not registered already.
    pub unsafe fn register() -> Reader {
        // SAFETY: the caller's promise.
        unsafe { urcu_memb_register_thread() };
        Reader { _thread: PhantomData }
    }

    /// Reads `cell` in a critical section of its own.
    #[inline]
    pub fn read(&self, cell: &AtomicU64) -> u64 {
        // SAFETY: the thread is registered, and the pointer comes from a reference. (The shim's load is volatile, and
        // of an aligned word: what C calls a relaxed load on every machine that liburcu runs on.)
        unsafe { urcu_memb_shim_read(cell.as_ptr()) }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: `register` registered this thread, and the type is not `Send`.
        unsafe { urcu_memb_unregister_thread() };
    }
}

/// Waits for a grace period.
pub fn synchronize() {
    // SAFETY: it may be called by any thread that is not in a critical section, and `Reader::read` leaves its own.
    unsafe { urcu_memb_synchronize_rcu() };
}

/// Defers a function that frees 64 bytes.
pub fn call(_reader: &Reader) {
    // SAFETY: the thread is registered, as it has a reader.
    unsafe { urcu_memb_shim_call() };
}

/// Waits for the functions that were deferred before.
pub fn barrier() {
    // SAFETY: as `synchronize`.
    unsafe { urcu_memb_barrier() };
}

/// A pointer to 64 bytes, which readers may follow.
#[derive(Debug)]
pub struct Cell(*mut c_void);

impl Cell {
    /// One that points nowhere.
    #[expect(clippy::new_without_default, reason = "nothing needs one")]
    pub fn new() -> Cell {
        Cell(std::ptr::null_mut())
    }

    /// Puts 64 new bytes in the place of the old, which are freed after a grace period.
    pub fn replace(&mut self, _reader: &Reader) {
        // SAFETY: the thread is registered, and the cell's pointer comes from this function or is null.
        unsafe { urcu_memb_shim_replace(&mut self.0) };
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // SAFETY: the pointer comes from the shim's `malloc` or is null, and no reader follows it any more.
        unsafe { urcu_memb_shim_release(self.0) };
    }
}
