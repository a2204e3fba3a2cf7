//! Panics of the user's code that must go no further.

use crate::util::check;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f` and keeps a panic of it in here. Returns how many there were: 0 or 1. (A payload whose own drop panics is
/// leaked, since there is no end to that otherwise.)
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
