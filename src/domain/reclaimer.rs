//! The opt-in thread that reclaims, so that neither writers nor the droppers of handles need to.

use super::Inner;
use super::reclaim::Left;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, AtomicBool, park_for, thread};
use std::sync::Weak;
use std::time::Duration;

/// Nodes that it destroys between two looks at the rest of the world.
const ROUND: usize = 1024;
/// Between two looks at a grace period that readers hold up: the shortest and the longest sleep.
const SHORT_NAP: Duration = Duration::from_micros(50);
const LONG_NAP: Duration = Duration::from_millis(2);

/// The thread, as the domain holds it.
pub(crate) struct Reclaimer {
    thread: thread::JoinHandle<()>,
    signal: Arc<Signal>,
}

/// What the thread looks at before it parks. (That it was unparked is not enough: the destructors that it runs may park
/// too, in a channel or a lock of std's, and take that for theirs.)
struct Signal {
    wake: AtomicBool,
    stop: AtomicBool,
}

impl Reclaimer {
    /// Starts the thread. It holds the domain weakly, so that the domain's last user ends it.
    pub(crate) fn start(name: String, domain: Weak<Inner>) -> std::io::Result<Reclaimer> {
        let signal = Arc::new(Signal { wake: AtomicBool::new(false), stop: AtomicBool::new(false) });
        let received = Arc::clone(&signal);
        let thread = thread::Builder::new().name(name).spawn(move || work(&domain, &received))?;
        Ok(Reclaimer { thread, signal })
    }

    /// Says that there is something to do. Lock-free; a system call only if the thread is asleep.
    pub(crate) fn wake(&self) {
        // ORDERING: Release, pairs with the Acquire in `work`: the thread finds what it is woken for.
        self.signal.wake.store(true, Ordering::Release);
        if self.thread.thread().id() != thread::current().id() {
            self.thread.thread().unpark();
        }
    }

    /// Ends the thread and waits for it, unless it is the caller itself, which then ends by itself.
    pub(crate) fn stop(self) {
        // ORDERING: Release, pairs with the Acquire in `work`.
        self.signal.stop.store(true, Ordering::Release);
        self.wake();
        if self.thread.thread().id() != thread::current().id() {
            // It contains the panics of destructors; a panic of its own would be a bug in this crate.
            self.thread.join().expect("the reclaimer thread does not panic");
        }
    }
}

fn work(domain: &Weak<Inner>, signal: &Signal) {
    let mut nap = SHORT_NAP;
    // ORDERING: Acquire, pairs with the Release in `stop`.
    while !signal.stop.load(Ordering::Acquire) {
        // Before the round: what comes during it is for the next.
        // ORDERING: AcqRel, pairs with the Release in `wake`.
        signal.wake.swap(false, Ordering::AcqRel);
        let Some(domain) = domain.upgrade() else { return };
        let (left, done) = domain.drive(ROUND);
        // Not held while asleep. If this was the last one, the domain ends here, on this thread.
        drop(domain);
        if done > 0 {
            nap = SHORT_NAP;
        }
        match left {
            Left::Nothing => {
                // ORDERING: Acquire, pairs with the Release in `wake`. It is stored before the unpark, so that a park
                // that follows this load returns at once.
                while !signal.wake.load(Ordering::Acquire) {
                    thread::park();
                }
            }
            Left::Ready => {}
            Left::Waiting => {
                park_for(nap);
                nap = (nap * 2).min(LONG_NAP);
            }
        }
    }
}
