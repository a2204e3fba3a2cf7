//! What happens when there is no room in the backlog.

use super::Inner;
use super::budget::{Backlog, Failure, IfFull, WhenFull};
use crate::sync::Pause;
use crate::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Objects that one round destroys here.
const ROUND: usize = 1024;

impl Inner {
    /// Takes the place of one object of so many bytes, for which there was no room: reclaims, and then does as the policy and
    /// `if_full` say. The caller holds no lock. An operation that has waited in vain does not wait again.
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
        E::full()?;
        // ORDERING: Relaxed, a statistic.
        self.overruns.fetch_add(1, Ordering::Relaxed);
        self.budget.charge_unchecked(one);
        Ok(())
    }
}
