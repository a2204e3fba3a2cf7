//! Floods: threads that write, or give callbacks, as fast as they can.

use super::Stop;
use epoch_registry::{Domain, DomainBuilder, ReclaimJob};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// What one thread of a flood does over and over. It is given a number that counts its calls.
pub type Work<'w> = Box<dyn Fn(u64) + Send + Sync + 'w>;

/// How long a flood lasts before a test looks at anything.
pub const WARM_UP: Duration = Duration::from_millis(100);

/// How long a call may take that a flood of others must not hold up. (It takes some milliseconds where it is right.)
pub const SOON: Duration = Duration::from_secs(3);

/// Lets one test of a binary have a flood at a time: two would measure each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ways in which a domain has its objects destroyed, with their names.
pub fn drivers() -> [(&'static str, DomainBuilder); 4] {
    [
        ("writers alone", Domain::builder().writers_only()),
        ("writers and their backup", Domain::builder()),
        ("a reclaimer thread", Domain::builder().reclaimer(true)),
        ("an executor", Domain::builder().executor(pool())),
    ]
}

/// An executor of one thread, which ends with the domain.
pub fn pool() -> impl Fn(ReclaimJob) + Send + Sync + 'static {
    let (send, jobs) = mpsc::channel::<ReclaimJob>();
    thread::spawn(move || jobs.iter().for_each(ReclaimJob::run));
    move |job| drop(send.send(job))
}

fn start<'s>(scope: &'s thread::Scope<'s, '_>, works: &'s [Work<'_>], stop: &'s Stop) {
    for work in works {
        scope.spawn(move || (0..).take_while(|_| !stop.stopped()).for_each(work));
    }
}

/// Runs each of `works` on a thread of its own, and `f` on this thread. The flood ends with `f`.
pub fn amid<R>(works: &[Work<'_>], f: impl FnOnce() -> R) -> R {
    let stop = Stop::default();
    thread::scope(|scope| {
        let _end = stop.at_end();
        start(scope, works, &stop);
        f()
    })
}

/// Calls `f` once the flood of `works` is under way. Returns its result and how long it took.
///
/// # Panics
///
/// If it takes longer than `limit` says, which is called just before `f`. The flood is stopped then, so that `f`
/// returns.
#[track_caller]
pub fn returns_amid<R: Send>(
    what: &str,
    works: &[Work<'_>],
    limit: impl FnOnce() -> Duration,
    f: impl FnOnce() -> R + Send,
) -> (R, Duration) {
    hurry(false);
    let stop = Stop::default();
    let (result, took, limit) = thread::scope(|scope| {
        let end = stop.at_end();
        start(scope, works, &stop);
        thread::sleep(WARM_UP);
        let limit = limit();
        let (returned, has_returned) = mpsc::channel::<()>();
        let call = scope.spawn(move || {
            let since = Instant::now();
            let result = f();
            let took = since.elapsed();
            drop(returned);
            (result, took)
        });
        let late = has_returned.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
        hurry(late);
        drop(end);
        let (result, took) = call.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (result, took, limit)
    });
    assert!(
        took <= limit,
        "{what}: not back after {limit:?}, but {took:?} after its call, when the flood had been stopped"
    );
    (result, took)
}

/// What was made, and what has been destroyed.
#[derive(Default)]
pub struct Account {
    made: AtomicU64,
    destroyed: AtomicU64,
}

impl Account {
    pub fn open() -> Arc<Account> {
        Arc::default()
    }

    /// How many are there.
    pub fn there(&self) -> u64 {
        let destroyed = self.destroyed.load(SeqCst);
        self.made.load(SeqCst).saturating_sub(destroyed)
    }
}

/// Whether destructors take no time any more, as a test has failed and what is left is to end.
static HURRY: AtomicBool = AtomicBool::new(false);

/// Lets destructors take no time from now on, or the time that they are to take.
pub fn hurry(on: bool) {
    HURRY.store(on, SeqCst);
}

thread_local! {
    static DESTROYED: Cell<u64> = const { Cell::new(0) };
}

/// How many [`Costly`] values this thread has destroyed.
pub fn destroyed_here() -> u64 {
    DESTROYED.get()
}

/// A value whose destructor takes its time.
pub struct Costly {
    takes: Duration,
    account: Arc<Account>,
}

impl Costly {
    pub fn new(takes: Duration, account: &Arc<Account>) -> Self {
        account.made.fetch_add(1, SeqCst);
        Costly { takes, account: Arc::clone(account) }
    }
}

impl Drop for Costly {
    fn drop(&mut self) {
        if !self.takes.is_zero() {
            let since = Instant::now();
            while since.elapsed() < self.takes && !HURRY.load(SeqCst) {
                std::hint::spin_loop();
            }
        }
        DESTROYED.set(DESTROYED.get() + 1);
        self.account.destroyed.fetch_add(1, SeqCst);
    }
}

/// Samples of which one may be out of the ordinary.
const FEWEST: usize = 20;

/// Figures that were taken at regular times.
pub struct Samples(Vec<u64>);

impl Samples {
    /// Takes a figure every 10 ms for as long as `time`, and up to four times as long where a busy machine has taken too
    /// few by then. Stops at a figure beyond `too_much`.
    pub fn take(time: Duration, too_much: u64, figure: impl Fn() -> u64) -> Self {
        let (since, mut samples) = (Instant::now(), Vec::new());
        let goes_on = |taken| since.elapsed() < time || taken < FEWEST && since.elapsed() < 4 * time;
        while goes_on(samples.len()) && samples.last().is_none_or(|&last| last <= too_much) {
            thread::sleep(Duration::from_millis(10));
            samples.push(figure());
        }
        samples.sort_unstable();
        Samples(samples)
    }

    pub fn most(&self) -> u64 {
        self.0.last().copied().unwrap_or(0)
    }

    /// The figure that nine of ten are not above: what a thread that was not scheduled for a while does not show in.
    pub fn usual_most(&self) -> u64 {
        self.0.get(self.0.len() * 9 / 10).copied().unwrap_or(0)
    }
}
