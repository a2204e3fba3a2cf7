//! Checks in debug builds, like the kernel's PROVE_RCU: they verify at run time what the types cannot express.
//! Release builds contain no checks.

use crate::sync::const_thread_local;
use crate::util::reentrancy::shard_locked;
use std::cell::Cell;

const_thread_local! {
    /// Whether this thread is in the `Eq` of a key, which may run under a shard lock.
    static IN_EQ: Cell<bool> = Cell::new(false);
}

/// Checks, before user code other than `Eq` runs, that this thread holds no shard lock. The code may run under
/// a shard lock only if `Eq` itself has called it.
#[inline]
#[track_caller]
pub(crate) fn user_code() {
    if cfg!(debug_assertions) {
        assert!(!shard_locked() || IN_EQ.with(Cell::get), "user code would run under a shard lock");
    }
}

/// Runs the `Eq` of a key.
#[inline]
pub(crate) fn eq(f: impl FnOnce() -> bool) -> bool {
    if !cfg!(debug_assertions) {
        return f();
    }
    let _restore = Restore(IN_EQ.with(|cell| cell.replace(true)));
    f()
}

struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        IN_EQ.with(|cell| cell.set(self.0));
    }
}

#[cfg(all(test, not(loom), debug_assertions))]
mod tests {
    use super::*;
    use crate::util::reentrancy::set_shard_locked;
    use std::panic::catch_unwind;

    #[test]
    fn user_code_under_a_shard_lock_is_detected_unless_an_eq_called_it() {
        user_code();
        set_shard_locked(true);
        assert!(catch_unwind(user_code).is_err());
        let in_eq = catch_unwind(|| {
            eq(|| {
                user_code();
                true
            })
        });
        let after_a_panic = catch_unwind(|| eq(|| panic!("in eq"))).is_err() && catch_unwind(user_code).is_err();
        set_shard_locked(false);
        assert!(in_eq.is_ok() && after_a_panic);
    }
}
