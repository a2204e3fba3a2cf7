//! Panics of user code that must not propagate.

use crate::util::check;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f` and contains its panic. Returns how many panics there were: 0 or 1. (If the drop of the panic's
/// payload panics in turn, the second payload is leaked. Its drop could panic again, without end.)
pub(crate) fn contain(f: impl FnOnce()) -> u32 {
    check::user_code();
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(()) => 0,
        Err(payload) => {
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                std::mem::forget(again);
            }
            1
        }
    }
}
