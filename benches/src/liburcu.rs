//! liburcu in its memb flavour: readers without fences, writers that call `membarrier`.

use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;

unsafe extern "C" {
    fn urcu_memb_register_thread();
    fn urcu_memb_unregister_thread();
    fn urcu_memb_synchronize_rcu();
    /// Of `shims/liburcu/shim.c`.
    fn urcu_memb_shim_read(cell: *const u64) -> u64;
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
