//! What an operation does when there is no room for it in the backlog.

use super::Inner;
use super::budget::{Backlog, Failure, IfFull, WhenFull};
use crate::sync::Pause;
use crate::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The most objects that one round destroys here.
const ROUND: usize = 1024;

impl Inner {
    /// Takes the place of one object of `bytes` bytes, after an attempt to take it has failed.
    ///
    /// It reclaims first. If there is still no room, it does what the policy and `if_full` say: it waits, fails, or
    /// goes beyond the limit. In all these cases it clears `if_full.may_wait`, so that an operation that has waited
    /// in vain does not wait again. The caller holds no lock of the crate.
    #[cold]
    pub(crate) fn make_room<E: Failure>(&self, bytes: u64, if_full: &mut IfFull<E>) -> Result<(), E> {
        let one = Backlog::one(bytes);
        let patience = match self.budget.when_full {
            WhenFull::Wait(patience) if if_full.may_wait && !self.would_wait_for_itself() => patience,
            _ => Duration::ZERO,
        };
        let since = Instant::now();
        let mut pause = Pause::new();
        loop {
            self.try_reclaim_expedited(ROUND);
            if self.budget.take(one) {
                return Ok(());
            }
            if since.elapsed() >= patience {
                break;
            }
            pause.pause();
        }
        if_full.may_wait = false;
        // The operation fails, if it may fail. An infallible one goes beyond the limit.
        E::full()?;
        // ORDERING: Relaxed, a statistic.
        self.overruns.fetch_add(1, Ordering::Relaxed);
        self.budget.charge_unchecked(one);
        Ok(())
    }
}
