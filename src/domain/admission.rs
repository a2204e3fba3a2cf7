//! What happens when there is no room in the backlog.

use super::Inner;
use super::budget::{Backlog, Full, Refusal, WhenFull};
use crate::sync::Pause;
use crate::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Objects that one round destroys here.
const ROUND: usize = 1024;

impl Inner {
    /// Takes the place of one object of so many bytes, for which there was no room: reclaims, and then does as the policy
    /// says. Without any lock. Whoever has waited in vain waits no more, with the same `refusal`.
    #[cold]
    pub(crate) fn make_room(&self, bytes: u64, refusal: &mut Refusal) -> Result<(), Full> {
        let one = Backlog::one(bytes);
        let patience = match self.budget.when_full {
            WhenFull::Wait(patience)
                if matches!(refusal, Refusal::Possible | Refusal::Impossible) && !self.would_wait_for_itself() =>
            {
                patience
            }
            _ => Duration::ZERO,
        };
        let since = Instant::now();
        let mut pause = Pause::new();
        loop {
            self.drive_expedited(ROUND);
            if self.budget.take(one) {
                return Ok(());
            }
            if since.elapsed() >= patience {
                break;
            }
            pause.pause();
        }
        if matches!(refusal, Refusal::Possible | Refusal::AtOnce) {
            *refusal = Refusal::AtOnce;
            return Err(Full);
        }
        *refusal = Refusal::Hasty;
        // ORDERING: Relaxed, a statistic.
        self.overruns.fetch_add(1, Ordering::Relaxed);
        self.budget.overrun(one);
        Ok(())
    }
}
