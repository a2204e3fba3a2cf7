//! What reclaims beside the writers: a thread of the domain's own, jobs on an executor of the user's, or a
//! [backup](super::backup) that ends the waiting after the last write.

use super::Inner;
use super::background;
use super::backup::Backup;
use super::job::{Executor, Naps, sooner};
use super::thread::{set_works_for, works_for};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, AtomicBool, Mutex, park_for, thread};
use std::sync::Weak;
use std::time::Duration;

pub(crate) use super::job::in_spawn;

/// Objects that are destroyed between two looks at whether the thread is to stop.
const ROUND: usize = 1024;
/// What a domain has beside its writers.
pub(crate) enum Reclaimer {
    Thread(ReclaimThread),
    Executor(Executor),
    /// Writers reclaim, and this thread after them.
    Backup(Backup),
}

impl Reclaimer {
    /// Says that there is something to do. Lock-free; for a thread, a system call if it is asleep.
    pub(crate) fn wake(&self) {
        match self {
            Reclaimer::Thread(thread) => thread.wake(),
            Reclaimer::Executor(executor) => executor.wake(),
            Reclaimer::Backup(backup) => backup.wake(),
        }
    }

    /// For writers that come by. False if they are to reclaim: there is a backup alone, or an executor that drops its jobs or
    /// is behind with them. `due`: the caller's shard has had a share of removals since it last came by.
    pub(crate) fn nudge(&self, due: bool) -> bool {
        match self {
            // It sleeps only when there was nothing to do, and is woken by what comes then.
            Reclaimer::Thread(_) => true,
            Reclaimer::Executor(executor) => {
                if executor.is_idle() {
                    executor.wake();
                }
                !executor.is_idle() && !executor.is_behind(due)
            }
            Reclaimer::Backup(backup) => {
                backup.wake_hint();
                false
            }
        }
    }

    /// Says that something is ready, for which callers wait.
    pub(super) fn hurry(&self) {
        match self {
            Reclaimer::Backup(backup) => backup.hurry(),
            _ => self.wake(),
        }
    }

    /// Whether it has not been stopped.
    pub(crate) fn is_on(&self) -> bool {
        match self {
            // ORDERING: Acquire, pairs with the Release in `stop`.
            Reclaimer::Thread(thread) => !thread.signal.stop.load(Ordering::Acquire),
            Reclaimer::Executor(executor) => !executor.is_stopped(),
            Reclaimer::Backup(backup) => !backup.is_stopped(),
        }
    }

    /// Whether a thread or a job sees to what waits, if writers do not.
    pub(super) fn comes_later(&self) -> bool {
        match self {
            Reclaimer::Thread(_) | Reclaimer::Executor(_) => self.is_on(),
            Reclaimer::Backup(backup) => backup.is_awake(),
        }
    }

    /// Whether the backup thread is to do something: not where an executor has a job under way.
    pub(super) fn needs_backup(&self) -> bool {
        match self {
            Reclaimer::Thread(_) => false,
            Reclaimer::Executor(executor) => executor.is_idle(),
            Reclaimer::Backup(_) => true,
        }
    }

    /// Logs, once, that the backup thread does the work of an executor. On that thread: a logger is the user's code.
    pub(super) fn tell_of_backup(&self, domain: &str) {
        if let Reclaimer::Executor(executor) = self {
            executor.tell_of_backup(domain);
        }
    }

    /// Ends it. Waits for a thread to end, unless that is the caller itself, or could be waiting for the caller: it then
    /// ends by itself. Does not wait for the job of an executor, which ends with its round.
    pub(crate) fn stop(&self) {
        let wait = background::may_wait_for_threads();
        match self {
            Reclaimer::Thread(thread) => thread.stop(wait),
            Reclaimer::Executor(executor) => executor.stop(wait),
            Reclaimer::Backup(backup) => backup.stop(wait),
        }
    }
}

/// The thread, as the domain holds it.
pub(crate) struct ReclaimThread {
    thread: thread::Thread,
    join: Mutex<Option<thread::JoinHandle<()>>>,
    /// The process that started it. A forked child has no such thread.
    process: u32,
    signal: Arc<Signal>,
}

/// What the thread looks at before it parks. (That it was unparked is not enough: the destructors that it runs may park
/// too, in a channel or a lock of std's, and take that for theirs.)
struct Signal {
    wake: AtomicBool,
    stop: AtomicBool,
}

impl ReclaimThread {
    /// Starts the thread. It holds the domain weakly, so that the domain's last user ends it.
    pub(crate) fn start(name: String, domain: Weak<Inner>) -> std::io::Result<ReclaimThread> {
        let signal = Arc::new(Signal { wake: AtomicBool::new(false), stop: AtomicBool::new(false) });
        let received = Arc::clone(&signal);
        let join = thread::Builder::new().name(name).spawn(move || work(&domain, &received))?;
        let (thread, process) = (join.thread().clone(), std::process::id());
        Ok(ReclaimThread { thread, join: Mutex::new(Some(join)), process, signal })
    }

    fn wake(&self) {
        // ORDERING: AcqRel, pairs with that in `work`: the thread finds what it is woken for. If it has been told already and
        // has not looked yet, it will: the thread that told it unparks it.
        let told = self.signal.wake.swap(true, Ordering::AcqRel);
        if !told && !works_for(&*self.signal) {
            self.thread.unpark();
        }
    }

    fn stop(&self, wait: bool) {
        // ORDERING: Release, pairs with the Acquire in `work`.
        self.signal.stop.store(true, Ordering::Release);
        self.wake();
        if !wait || self.process != std::process::id() || works_for(&*self.signal) {
            return;
        }
        // The lock is held meanwhile: another caller waits too.
        let mut join = self.join.lock();
        if let Some(join) = join.take() {
            // It contains the panics of destructors; a panic of its own would be a bug in this crate.
            join.join().expect("the reclaimer thread does not panic");
        }
    }
}

fn work(domain: &Weak<Inner>, signal: &Signal) {
    background::enter_for_good();
    set_works_for(signal);
    let mut naps = Naps::new();
    loop {
        // Before the round: what comes during it is for the next. And before the look at `stop`, which is set before.
        // ORDERING: AcqRel, pairs with that in `wake`.
        signal.wake.swap(false, Ordering::AcqRel);
        // ORDERING: Acquire, pairs with the Release in `stop`.
        if signal.stop.load(Ordering::Acquire) {
            return;
        }
        let Some(domain) = domain.upgrade() else { return };
        let (left, done) = domain.try_reclaim(ROUND);
        let nap = sooner(naps.after(&domain, left, done), domain.reap());
        // Not held while asleep. If this was the last one, the domain ends here, on this thread.
        drop(domain);
        match nap {
            Some(Duration::ZERO) => {}
            Some(nap) => park_for(nap),
            None => {
                // ORDERING: AcqRel, pairs with that in `wake`, which comes before the unpark: what this exchange does
                // not see yet ends the park that follows.
                while !signal.wake.swap(false, Ordering::AcqRel) {
                    thread::park();
                }
            }
        }
    }
}
