//! Time, as the registry sees it: injectable, monotonic, and coarse.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Where a registry takes the time from.
///
/// Only differences matter, so the origin is free; a clock never goes back. Ages are kept with a resolution of 2^24 ns
/// (16.8 ms) and are right up to 417 days.
pub trait Clock: Send + Sync + 'static {
    /// The time since the clock's origin.
    fn now(&self) -> Duration;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }
}

/// The machine's monotonic clock, read the cheapest way there is (a few nanoseconds, and a few milliseconds coarse on
/// Linux).
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        coarse()
    }
}

/// A clock that moves only when told to, for tests and replays. Clones show the same time.
#[derive(Clone, Default)]
pub struct ManualClock(Arc<std::sync::atomic::AtomicU64>);

impl ManualClock {
    /// A clock at its origin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock on by `by` (up to 584 years in total).
    pub fn advance(&self, by: Duration) {
        // ORDERING: SeqCst (all of this clock): a test tool, which is to surprise nobody.
        self.0.fetch_add(by.as_nanos() as u64, std::sync::atomic::Ordering::SeqCst);
    }

    /// Moves the clock on to `to`, unless it is past that.
    pub fn advance_to(&self, to: Duration) {
        // ORDERING: SeqCst, as in `advance`.
        self.0.fetch_max(to.as_nanos() as u64, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        // ORDERING: SeqCst, as in `advance`.
        Duration::from_nanos(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

/// What a domain measures grace periods by: to the nanosecond, and no code of the user's, since it is read under a lock.
pub(crate) enum Stopwatch {
    Real(std::time::Instant),
    Manual(ManualClock),
}

impl Stopwatch {
    pub(crate) fn now(&self) -> Duration {
        match self {
            // Models are deterministic.
            Stopwatch::Real(_) if cfg!(loom) => Duration::ZERO,
            Stopwatch::Real(start) => start.elapsed(),
            Stopwatch::Manual(clock) => clock.now(),
        }
    }
}

/// A time in units of 2^24 ns, modulo 2^32 of them (2.3 years). Differences are taken modulo 2^32 too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tick(pub(crate) u32);

impl Tick {
    /// Times are told in ticks that do not wrap, and kept as this.
    #[inline]
    pub(crate) fn of(ticks: u64) -> Tick {
        Tick(ticks as u32)
    }

    #[cfg(test)]
    fn at(time: Duration) -> Tick {
        Tick::of(ticks(time))
    }

    pub(crate) fn spanned(ticks: u32) -> Duration {
        Duration::from_nanos(u64::from(ticks) << 24)
    }

    /// Whole ticks from `earlier` to this one; none if `earlier` is later by up to 18 minutes (as times that two threads
    /// have read may be, by a little).
    pub(crate) fn since(self, earlier: Tick) -> u32 {
        let ticks = self.0.wrapping_sub(earlier.0);
        if ticks > u32::MAX - (1 << 16) { 0 } else { ticks }
    }

    /// The number of ticks that surely span `age`: something is older than `age` once more than these have passed.
    /// `None` if no age that is kept is that old.
    pub(crate) fn spanning(age: Duration) -> Option<u32> {
        let ticks = age.as_nanos().div_ceil(1 << 24);
        u32::try_from(ticks).ok().filter(|&ticks| ticks < i32::MAX as u32)
    }
}

/// A time in units of 2^24 ns: 40 bits of them, which is 584 years. (Then it stands still.)
#[inline]
pub(crate) fn ticks(time: Duration) -> u64 {
    let nanos = time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into());
    (nanos >> 24).min((1 << 40) - 2)
}

/// The time of the [`MonotonicClock`], in such units.
#[inline]
pub(crate) fn ticks_of_monotonic() -> u64 {
    ticks(coarse())
}

/// A number that changes every few milliseconds. Tells writers apart that come in a burst from those that come rarely.
pub(crate) fn coarse_ticks() -> u64 {
    let time = coarse();
    (time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos())) >> 22
}

#[cfg(all(target_os = "linux", not(loom)))]
#[allow(unsafe_code)]
#[inline]
fn coarse() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours; the clock exists since Linux 2.6.32.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(all(not(target_os = "linux"), not(loom)))]
fn coarse() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed()
}

/// Models are deterministic: their time stands still unless they inject a clock.
#[cfg(loom)]
fn coarse() -> Duration {
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_told_apart_across_their_wrap() {
        let before = Tick(u32::MAX - 2);
        assert_eq!(Tick(5).since(before), 8);
        assert_eq!(before.since(Tick(5)), 0, "a later time is not old");
        assert_eq!(before.since(before), 0);
    }

    #[test]
    fn an_age_is_never_counted_as_reached_too_early() {
        let start = Duration::from_nanos((1 << 24) - 1);
        let age = Duration::from_secs(1);
        let needed = Tick::spanning(age).unwrap();
        let mut now = start;
        while Tick::at(now).since(Tick::at(start)) <= needed {
            now += Duration::from_micros(100);
        }
        assert!(now - start > age);
        assert!(now - start <= age + Duration::from_nanos(2 << 24));
        assert_eq!(Tick::spanning(Duration::MAX), None);
    }

    #[test]
    fn the_monotonic_clock_moves_forward() {
        let first = MonotonicClock.now();
        std::thread::sleep(Duration::from_millis(30));
        let passed = MonotonicClock.now() - first;
        assert!(passed >= Duration::from_millis(10) && passed < Duration::from_secs(30), "{passed:?}");
    }
}
