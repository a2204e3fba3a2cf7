//! What the integration tests share: sizes, a value that counts its drops, bad hashers, and a watchdog.

// Every test binary uses its own part of this.
#![allow(dead_code)]

pub mod flood;

use std::hash::{BuildHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use epoch_registry::{Builder, Domain, ManualClock, Reaped, Reaper, Registry, Scan};

/// `n`, times the environment's `STRESS` (1 if not set; fractions are fine).
pub fn times(n: usize) -> usize {
    let factor = std::env::var("STRESS").ok().map_or(1.0, |text| text.parse::<f64>().expect("STRESS is a number"));
    ((n as f64 * factor) as usize).max(1)
}

/// How long the threads of a stress test run: half a second, times `STRESS`.
pub fn a_while() -> Duration {
    Duration::from_millis(times(500) as u64)
}

/// A registry in a domain of its own, with a few shards.
pub fn isolated<K, V>() -> Registry<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    isolated_builder().build()
}

/// The builder of [`isolated`].
pub fn isolated_builder<K, V>() -> Builder<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    // No thread of the domain's takes what a test is to see destroyed by its own calls.
    Registry::builder().shards(4).domain(Domain::builder().writers_only().build())
}

/// The builder of [`isolated`], by a clock that is moved by hand.
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

/// Counts values created and dropped.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Counts>);

#[derive(Default)]
struct Counts {
    created: AtomicU64,
    dropped: AtomicU64,
    /// Values seen in a state in which no reader may see them.
    broken: AtomicI64,
}

impl Ledger {
    pub fn new() -> Self {
        Self::default()
    }

    /// A value that shows `number`, and is entered here.
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

    /// Values that are neither dropped nor lost.
    pub fn live(&self) -> u64 {
        assert_eq!(self.0.broken.load(SeqCst), 0, "values seen after their drop, torn, or dropped twice");
        self.created().checked_sub(self.dropped()).expect("more drops than values")
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
    /// The number, after a look at checksum and poison.
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

/// A value that notes the thread it is dropped on.
pub struct DropsOn(pub Arc<std::sync::Mutex<Vec<ThreadId>>>);

impl Drop for DropsOn {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(thread::current().id());
    }
}

/// Hashes to `mask`ed bits of a good hash: 0 makes every key collide.
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

/// Tells the other threads of a test to stop, also if its own thread panics.
#[derive(Default)]
pub struct Stop(AtomicBool);

impl Stop {
    pub fn stopped(&self) -> bool {
        self.0.load(SeqCst)
    }

    /// Stops everybody when the returned value is dropped.
    pub fn at_end(&self) -> AtEnd<'_> {
        AtEnd(self)
    }
}

/// From [`Stop::at_end`].
pub struct AtEnd<'s>(&'s Stop);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, SeqCst);
    }
}

/// Runs `f`, and aborts the process if it takes longer than a minute (times `STRESS`): a deadlock is a failure.
pub fn within_a_minute<R>(f: impl FnOnce() -> R) -> R {
    let (done, wait) = mpsc::channel::<()>();
    let test = thread::current().name().unwrap_or("?").to_string();
    let limit = Duration::from_secs(times(60).max(60) as u64);
    thread::spawn(move || {
        if wait.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{test}: stuck for {limit:?}");
            std::process::abort();
        }
    });
    let result = f();
    drop(done);
    result
}

/// Waits until `condition` holds, for ten seconds at most. For what another thread is to do by itself.
pub fn soon(condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        thread::yield_now();
    }
    true
}

/// The message of the panic that `f` must end in.
pub fn panic_of<R>(f: impl FnOnce() -> R) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).err().expect("a panic");
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast_ref::<&str>().map_or("not a message", |text| text).to_string(),
    }
}

/// A small, seeded source of numbers.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `end`, and below 2^31.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// A reaper without entries, which counts its calls to expire.
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
