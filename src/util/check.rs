//! Checks that debug builds make, in the manner of the kernel's PROVE_RCU: what the types cannot say is looked at where it
//! matters. Release builds contain none of it.

use crate::sync::const_thread_local;
use crate::util::reentrancy::shard_locked;
use std::cell::Cell;

const_thread_local! {
    /// Whether this thread is in the `Eq` of a key, which may run under a shard lock.
    static IN_EQ: Cell<bool> = Cell::new(false);
}

/// Code of the user's, other than `Eq`, is about to run: there must be no shard lock, unless `Eq` itself has led here.
#[inline]
#[track_caller]
pub(crate) fn user_code() {
    if cfg!(debug_assertions) {
        assert!(!shard_locked() || IN_EQ.with(Cell::get), "the user's code would run under a shard lock");
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
    fn user_code_under_a_shard_lock_is_noticed_unless_eq_has_led_there() {
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
