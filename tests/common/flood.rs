//! Floods: threads that write, or pass callbacks to a domain, as fast as they can.

use super::Stop;
use epoch_registry::{Domain, DomainBuilder, ReclaimJob};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// What one thread of a flood calls in a loop. The argument is the number of the call.
pub type Work<'w> = Box<dyn Fn(u64) + Send + Sync + 'w>;

/// How long a flood runs before a test looks at anything.
pub const WARM_UP: Duration = Duration::from_millis(100);

/// The longest time that a call may take in a flood. A correct call takes some milliseconds.
pub const SOON: Duration = Duration::from_secs(3);

/// Lets only one test of a binary have a flood at a time, because two floods would measure each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ways in which a domain can have its objects destroyed, with their names.
pub fn drivers() -> [(&'static str, DomainBuilder); 4] {
    [
        ("writers alone", Domain::builder().writers_only()),
        ("writers and their backup", Domain::builder()),
        ("a reclaimer thread", Domain::builder().reclaimer(true)),
        ("an executor", Domain::builder().executor(pool())),
    ]
}

/// Returns an executor with one thread. The thread ends with the domain.
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

/// Runs each of `works` on a thread of its own, and `f` on this thread. The flood ends when `f` returns.
pub fn amid<R>(works: &[Work<'_>], f: impl FnOnce() -> R) -> R {
    let stop = Stop::default();
    thread::scope(|scope| {
        let _end = stop.at_end();
        start(scope, works, &stop);
        f()
    })
}

/// Starts the flood of `works`, and then calls `f`. Returns its result and the time that it took.
///
/// # Panics
///
/// If `f` takes longer than `limit()`, which is called just before `f`. The flood is then stopped, so that `f` can
/// return.
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
        "{what}: the call did not return within {limit:?}. It returned after {took:?}, once the flood was stopped"
    );
    (result, took)
}

/// Counts objects that were made, and objects that were destroyed.
#[derive(Default)]
pub struct Account {
    made: AtomicU64,
    destroyed: AtomicU64,
}

impl Account {
    pub fn open() -> Arc<Account> {
        Arc::default()
    }

    /// The number of objects that exist.
    pub fn there(&self) -> u64 {
        let destroyed = self.destroyed.load(SeqCst);
        self.made.load(SeqCst).saturating_sub(destroyed)
    }
}

/// Whether destructors return at once. Set when a test has failed, so that the rest of the objects is destroyed
/// quickly.
static HURRY: AtomicBool = AtomicBool::new(false);

/// If `on`, all destructors return at once from now on. If not, they take their time again.
pub fn hurry(on: bool) {
    HURRY.store(on, SeqCst);
}

thread_local! {
    static DESTROYED: Cell<u64> = const { Cell::new(0) };
}

/// The number of [`Costly`] values that this thread has destroyed.
pub fn destroyed_here() -> u64 {
    DESTROYED.get()
}

/// A value whose destructor takes the time that it was made with.
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

/// The fewest samples of which one may be an outlier.
const FEWEST: usize = 20;

/// Figures that were sampled at regular intervals.
pub struct Samples(Vec<u64>);

impl Samples {
    /// Takes a figure every 10 ms for `time`. If a busy machine has taken too few by then, goes on for up to four times
    /// as long. Stops at a figure beyond `too_much`.
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

    /// The figure that nine of ten samples do not exceed. It leaves out the moments in which a thread was not
    /// scheduled.
    pub fn usual_most(&self) -> u64 {
        self.0.get(self.0.len() * 9 / 10).copied().unwrap_or(0)
    }
}
