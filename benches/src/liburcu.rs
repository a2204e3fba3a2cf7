//! Bindings to liburcu's memb flavour, in which readers execute no fences and writers call `membarrier`.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;

unsafe extern "C" {
    fn urcu_memb_register_thread();
    fn urcu_memb_unregister_thread();
    fn urcu_memb_synchronize_rcu();
    // These come from `shims/liburcu/shim.c`.
    fn urcu_memb_shim_read(cell: *const u64) -> u64;
    fn urcu_memb_shim_call();
    fn urcu_memb_shim_replace(cell: *mut *mut c_void);
    fn urcu_memb_shim_release(object: *mut c_void);
    fn urcu_memb_barrier();
}

/// The registration of a thread as a reader.
pub struct Reader {
    /// Makes the type not `Send`, because the registration belongs to the thread.
    _thread: PhantomData<*const ()>,
}

impl Reader {
    /// Registers this thread.
    ///
    /// # Safety
    ///
    /// The thread must not be registered already.
    pub unsafe fn register() -> Reader {
        // SAFETY: the caller guarantees that this thread is not registered.
        unsafe { urcu_memb_register_thread() };
        Reader { _thread: PhantomData }
    }

    /// Reads `cell` in its own critical section.
    #[inline]
    pub fn read(&self, cell: &AtomicU64) -> u64 {
        // SAFETY: the thread is registered, and the pointer comes from a reference. The shim loads an aligned word by a
        // volatile access, which is a relaxed load on every machine that liburcu supports.
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
    // SAFETY: any thread outside a critical section may call it, and `Reader::read` leaves its section.
    unsafe { urcu_memb_synchronize_rcu() };
}

/// Defers a function that frees 64 bytes.
pub fn call(_reader: &Reader) {
    // SAFETY: the thread is registered, because it has a `Reader`.
    unsafe { urcu_memb_shim_call() };
}

/// Waits until all functions deferred before the call have run.
pub fn barrier() {
    // SAFETY: any thread outside a critical section may call it, and `Reader::read` leaves its section.
    unsafe { urcu_memb_barrier() };
}

/// A pointer to 64 bytes that readers may follow.
#[derive(Debug)]
pub struct Cell(*mut c_void);

impl Cell {
    /// Returns a null cell.
    #[expect(clippy::new_without_default, reason = "nothing needs one")]
    pub fn new() -> Cell {
        Cell(std::ptr::null_mut())
    }

    /// Replaces the 64 bytes with new ones. The old ones are freed after a grace period.
    pub fn replace(&mut self, _reader: &Reader) {
        // SAFETY: the thread is registered, and the cell's pointer is null or comes from this function.
        unsafe { urcu_memb_shim_replace(&mut self.0) };
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // SAFETY: the pointer is null or comes from the shim's `malloc`, and no reader follows it any more.
        unsafe { urcu_memb_shim_release(self.0) };
    }
}
