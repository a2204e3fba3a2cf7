//! What reclaims besides the writers: a thread of the domain, jobs on the user's executor, or a
//! [backup](super::backup) thread for what writers leave.

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

/// The number of objects that are destroyed between two checks whether the thread must stop.
const ROUND: usize = 1024;
/// What a domain has besides its writers.
pub(crate) enum Reclaimer {
    Thread(ReclaimThread),
    Executor(Executor),
    /// Writers reclaim, and this thread reclaims what they leave.
    Backup(Backup),
}

impl Reclaimer {
    /// Tells the reclaimer that there is something to do.
    ///
    /// - A thread: lock-free. A system call if the thread is asleep.
    /// - An executor: a call of `spawn`, or a short lock and a wake of the job, if it may be asleep.
    /// - A backup: a fence and a load while its thread is awake, else a short lock and a system call.
    pub(crate) fn wake(&self) {
        match self {
            Reclaimer::Thread(thread) => thread.wake(),
            Reclaimer::Executor(executor) => executor.wake(),
            Reclaimer::Backup(backup) => backup.wake(),
        }
    }

    /// Called after a write, and after a round of reclamation. Returns false if the caller must reclaim: there is
    /// only a backup, or the executor drops its jobs or is behind with them. `due`: the caller is a writer that has
    /// handed over retired nodes.
    pub(crate) fn nudge(&self, due: bool) -> bool {
        match self {
            // The thread sleeps only when there is nothing to do, and what is retired then wakes it.
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

    /// Tells the reclaimer that callers wait for something that is ready.
    pub(super) fn hurry(&self) {
        match self {
            Reclaimer::Backup(backup) => backup.hurry(),
            _ => self.wake(),
        }
    }

    /// Returns whether the reclaimer has not been stopped.
    pub(crate) fn is_on(&self) -> bool {
        match self {
            // ORDERING: Acquire, pairs with the Release in `stop`.
            Reclaimer::Thread(thread) => !thread.signal.stop.load(Ordering::Acquire),
            Reclaimer::Executor(executor) => !executor.is_stopped(),
            Reclaimer::Backup(backup) => !backup.is_stopped(),
        }
    }

    /// Returns whether a thread or a job reclaims what waits if writers do not.
    pub(super) fn comes_later(&self) -> bool {
        match self {
            Reclaimer::Thread(_) | Reclaimer::Executor(_) => self.is_on(),
            Reclaimer::Backup(backup) => backup.is_awake(),
        }
    }

    /// Returns whether the backup thread must reclaim. It need not while the executor has a job under way.
    pub(super) fn needs_backup(&self) -> bool {
        match self {
            Reclaimer::Thread(_) => false,
            Reclaimer::Executor(executor) => executor.is_idle(),
            Reclaimer::Backup(_) => true,
        }
    }

    /// Logs, once, that the backup thread does the work of an executor. Called on that thread, because a logger is
    /// user code.
    pub(super) fn tell_of_backup(&self, domain: &str) {
        if let Reclaimer::Executor(executor) = self {
            executor.tell_of_backup(domain);
        }
    }

    /// Stops the reclaimer. Waits for its thread to end, unless the thread is the caller or could be waiting for
    /// the caller: then the thread ends by itself. Does not wait for the job of an executor, which ends with its
    /// round.
    pub(crate) fn stop(&self) {
        let wait = background::may_wait_for_threads();
        match self {
            Reclaimer::Thread(thread) => thread.stop(wait),
            Reclaimer::Executor(executor) => executor.stop(wait),
            Reclaimer::Backup(backup) => backup.stop(wait),
        }
    }
}

/// The reclaimer thread, as the domain holds it.
pub(crate) struct ReclaimThread {
    thread: thread::Thread,
    join: Mutex<Option<thread::JoinHandle<()>>>,
    /// The process that started the thread. A forked child has no such thread.
    process: u32,
    signal: Arc<Signal>,
}

/// What the thread checks before it parks. An unpark is not enough: the destructors that the thread runs may park
/// too, in a channel or a lock of std, and may consume it.
struct Signal {
    wake: AtomicBool,
    stop: AtomicBool,
}

impl ReclaimThread {
    /// Starts the thread. It holds the domain weakly, so that the domain is torn down with its last user.
    pub(crate) fn start(name: String, domain: Weak<Inner>) -> std::io::Result<ReclaimThread> {
        let signal = Arc::new(Signal { wake: AtomicBool::new(false), stop: AtomicBool::new(false) });
        let received = Arc::clone(&signal);
        let join = thread::Builder::new().name(name).spawn(move || work(&domain, &received))?;
        let (thread, process) = (join.thread().clone(), std::process::id());
        Ok(ReclaimThread { thread, join: Mutex::new(Some(join)), process, signal })
    }

    fn wake(&self) {
        // ORDERING: AcqRel, pairs with that in `work`: the thread sees what it is woken for. If the flag is set
        // already, the thread has not cleared it yet and will do so: the caller that set the flag unparks it.
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
        // Locked during the join, so that another caller waits too.
        let mut join = self.join.lock();
        if let Some(join) = join.take() {
            // The thread contains the panics of destructors. A panic of its own is a bug in this crate.
            join.join().expect("the reclaimer thread does not panic");
        }
    }
}

fn work(domain: &Weak<Inner>, signal: &Signal) {
    background::enter_for_good();
    set_works_for(signal);
    let mut naps = Naps::new();
    loop {
        // Cleared before the round: a wake during the round is for the next one. Cleared before the check of
        // `stop`: `stop` is set before the wake that goes with it.
        // ORDERING: AcqRel, pairs with that in `wake`.
        signal.wake.swap(false, Ordering::AcqRel);
        // ORDERING: Acquire, pairs with the Release in `stop`.
        if signal.stop.load(Ordering::Acquire) {
            return;
        }
        let Some(domain) = domain.upgrade() else { return };
        let (left, done) = domain.try_reclaim(ROUND);
        let nap = sooner(naps.after(&domain, left, done), domain.reap());
        // The thread does not hold the domain while it sleeps. If this is the last reference, the domain is torn
        // down here, on this thread.
        drop(domain);
        match nap {
            Some(Duration::ZERO) => {}
            Some(nap) => park_for(nap),
            None => {
                // ORDERING: AcqRel, pairs with that in `wake`, which comes before the unpark: if this exchange does
                // not see the flag yet, the unpark ends the park that follows.
                while !signal.wake.swap(false, Ordering::AcqRel) {
                    thread::park();
                }
            }
        }
    }
}
