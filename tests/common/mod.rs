//! What the integration tests share: sizes, a value that counts its drops, hashers with collisions, and a watchdog.

// Each test binary uses only a part of this.
#![allow(dead_code)]

pub mod flood;

use std::hash::{BuildHasher, Hash, Hasher};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

use epoch_registry::{Builder, Domain, ManualClock, Reaped, Reaper, Registry, Scan};

/// Returns `n` times the environment variable `STRESS`, which may be a fraction. Its default is 1.
pub fn times(n: usize) -> usize {
    let factor = std::env::var("STRESS").ok().map_or(1.0, |text| text.parse::<f64>().expect("STRESS is a number"));
    ((n as f64 * factor) as usize).max(1)
}

/// Returns how long the threads of a stress test run: half a second, times `STRESS`.
pub fn a_while() -> Duration {
    Duration::from_millis(times(500) as u64)
}

/// Returns a registry with four shards in a domain of its own.
pub fn isolated<K, V>() -> Registry<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    isolated_builder().build()
}

/// Returns the builder of [`isolated`].
pub fn isolated_builder<K, V>() -> Builder<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // The domain has no thread. It would destroy what a test wants to see destroyed by its own calls.
    Registry::builder().shards(4).domain(Domain::builder().writers_only().build())
}

/// Returns the builder of [`isolated`] with a manual clock, and that clock.
pub fn clocked<K, V>() -> (Builder<K, V>, ManualClock)
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let clock = ManualClock::new();
    (isolated_builder().clock(clock.clone()), clock)
}

/// Runs `f` while another thread is in a critical section of `domain`.
pub fn with_reader(domain: &Domain, f: impl FnOnce()) {
    let (entered, has_entered) = mpsc::channel::<()>();
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _guard = domain.pin();
            entered.send(()).unwrap();
            let _ = is_done.recv();
        });
        has_entered.recv().unwrap();
        f();
        drop(done);
    });
}

/// Counts the values that it made, and those of them that were dropped.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Counts>);

#[derive(Default)]
struct Counts {
    created: AtomicU64,
    dropped: AtomicU64,
    /// How often a value was seen in a state that no reader may see.
    broken: AtomicI64,
}

impl Ledger {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a value that carries `number`, and counts it.
    pub fn value(&self, number: u64) -> Counted {
        self.0.created.fetch_add(1, SeqCst);
        Counted { number, check: !number, alive: AtomicU64::new(ALIVE), ledger: self.clone() }
    }

    pub fn created(&self) -> u64 {
        self.0.created.load(SeqCst)
    }

    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(SeqCst)
    }

    /// The number of values that were not dropped yet.
    pub fn live(&self) -> u64 {
        assert_eq!(self.0.broken.load(SeqCst), 0, "values were dropped twice, or were torn");
        self.created().checked_sub(self.dropped()).expect("more values were dropped than made")
    }
}

const ALIVE: u64 = 0x5afe_5afe_5afe_5afe;
const DEAD: u64 = 0xdead_dead_dead_dead;

/// A value that counts its drop, carries a checksum, and is poisoned when it is dropped.
pub struct Counted {
    number: u64,
    check: u64,
    alive: AtomicU64,
    ledger: Ledger,
}

impl Counted {
    /// Checks the checksum and the poison, and returns the number.
    pub fn get(&self) -> u64 {
        assert_eq!(self.alive.load(SeqCst), ALIVE, "a value was used after its drop");
        assert_eq!(self.check, !self.number, "a value is torn");
        self.number
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.alive.swap(DEAD, SeqCst) != ALIVE || self.check != !self.number {
            self.ledger.0.broken.fetch_add(1, SeqCst);
        }
        self.ledger.0.dropped.fetch_add(1, SeqCst);
    }
}

/// A value that calls a closure when it is dropped.
pub struct OnDrop(Option<Box<dyn FnOnce() + Send + Sync>>);

impl OnDrop {
    pub fn new(f: impl FnOnce() + Send + Sync + 'static) -> Self {
        OnDrop(Some(Box::new(f)))
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

/// A value that records the thread that drops it.
pub struct DropsOn(pub Arc<std::sync::Mutex<Vec<ThreadId>>>);

impl Drop for DropsOn {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(thread::current().id());
    }
}

/// A good hash of which only the bits of `mask` are kept. With 0 all keys collide.
#[derive(Clone, Copy, Debug)]
pub struct FewBits {
    pub mask: u64,
}

pub struct FewBitsHasher(u64, u64);

impl BuildHasher for FewBits {
    type Hasher = FewBitsHasher;

    fn build_hasher(&self) -> FewBitsHasher {
        FewBitsHasher(0x9e37_79b9_7f4a_7c15, self.mask)
    }
}

impl Hasher for FewBitsHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            self.0 ^= self.0 >> 29;
        }
    }

    fn finish(&self) -> u64 {
        self.0 & self.1
    }
}

/// Tells the other threads of a test to stop, even if its own thread panics.
#[derive(Default)]
pub struct Stop(AtomicBool);

impl Stop {
    pub fn stopped(&self) -> bool {
        self.0.load(SeqCst)
    }

    /// Returns an object that stops all threads when it is dropped.
    pub fn at_end(&self) -> AtEnd<'_> {
        AtEnd(self)
    }
}

/// Stops the threads when it is dropped: see [`Stop::at_end`].
pub struct AtEnd<'s>(&'s Stop);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, SeqCst);
    }
}

/// Runs `f`. Aborts the process if `f` takes so long that it must hang: four minutes, or the seconds that `DEADLOCK_AFTER`
/// says, times `STRESS`. So a deadlock is a failure.
pub fn in_time<R>(f: impl FnOnce() -> R) -> R {
    let (done, wait) = mpsc::channel::<()>();
    let test = thread::current().name().unwrap_or("?").to_string();
    let patience =
        std::env::var("DEADLOCK_AFTER").map_or(240, |seconds| seconds.parse().expect("DEADLOCK_AFTER: seconds"));
    let limit = Duration::from_secs(times(patience).max(patience) as u64);
    thread::spawn(move || {
        if wait.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            // Not `eprintln`, whose text the test harness keeps until the test ends.
            let _ = writeln!(std::io::stderr(), "{test}: did not end within {limit:?}");
            std::process::abort();
        }
    });
    let result = f();
    drop(done);
    result
}

/// Waits until another thread makes `condition` true, for a minute at most. Returns whether it became true.
pub fn soon(condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        thread::yield_now();
    }
    true
}

/// Runs `f`, which must panic, and returns the message of the panic.
pub fn panic_of<R>(f: impl FnOnce() -> R) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).err().expect("a panic was expected");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast_ref::<&str>().map_or("not a message", |text| text).to_string(),
    }
}

/// A small random number generator with a seed.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns a number below `end`, and below 2^31.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// A reaper without entries. It counts the calls of `expire`.
pub struct Calls(pub AtomicUsize);

impl Reaper for Calls {
    fn count(&self) -> usize {
        0
    }

    fn scan(&self, _: &mut Scan) -> Reaped {
        Reaped::default()
    }

    fn expire(&self, _: usize) -> Reaped {
        self.0.fetch_add(1, SeqCst);
        Reaped::default()
    }
}

/// Unparks a thread, and counts.
pub struct Unpark(pub Thread, pub AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, SeqCst);
        self.0.unpark();
    }
}

/// Polls a future only when its task was woken.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let unpark = Arc::new(Unpark(thread::current(), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&unpark));
    let mut future = pin!(future);
    loop {
        let woken = unpark.1.load(SeqCst);
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while unpark.1.load(SeqCst) == woken {
            thread::park();
        }
    }
}

/// Polls a future once.
pub fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
