//! The time that a registry uses: injectable, monotonic and coarse.

use std::any::TypeId;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The source of time of a registry.
///
/// Only differences of times matter, so the origin is arbitrary. If two threads read a clock one after the
/// other, the second may get a slightly earlier time: an entry then lives longer by that difference. Any
/// [`Duration`] is a valid time, and any difference of two is a valid age: nothing wraps. Times are exact to
/// the nanosecond for 4.5 years after the registry was built, and later to 2^-56 of the time since then (128 ns
/// after 584 years).
pub trait Clock: Send + Sync + 'static {
    /// Returns the time since the clock's origin.
    fn now(&self) -> Duration;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }
}

/// The machine's monotonic clock, read in the cheapest way. On Linux a read takes a few nanoseconds, and the
/// resolution is a few milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(coarse())
    }
}

/// A clock that advances only when it is told to, for tests and replays. Clones show the same time.
#[derive(Clone, Default)]
pub struct ManualClock(Arc<std::sync::atomic::AtomicU64>);

impl ManualClock {
    /// Returns a clock at its origin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Advances the clock by `by` (up to 584 years in total).
    pub fn advance(&self, by: Duration) {
        // ORDERING: SeqCst for all accesses of this clock: a test tool should be free of surprises, and its
        // speed does not matter.
        self.0.fetch_add(by.as_nanos() as u64, std::sync::atomic::Ordering::SeqCst);
    }

    /// Advances the clock to `to`, unless it is already later.
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

/// The clock with which a domain measures grace periods. It is exact to the nanosecond. It never runs user
/// code, because it is read under a lock.
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

/// A time since the origin of a registry, in 62 bits. Any [`Duration`] can be represented, and the order of the
/// words is the order of the times.
///
/// ```text
///  bit 63, 62   61 .. 56      55 .. 0
///  ┌──────────┬────────────┬──────────┐
///  │    0     │  exponent  │ mantissa │
///  └──────────┴────────────┴──────────┘
/// ```
///
/// Up to 2^57 ns (4.5 years) the word is the number of nanoseconds. From there on, the step doubles each time
/// the value doubles, as in a floating-point number: it is 128 ns at 584 years.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Time(u64);

/// The number of bits of the mantissa.
const MANTISSA: u32 = 56;

impl Time {
    pub(crate) const ZERO: Time = Time(0);
    /// Later than any time that a clock shows.
    pub(crate) const NEVER: Time = Time(u64::MAX);

    /// Converts nanoseconds to a time, rounded down.
    fn of(nanos: u128) -> Time {
        if nanos < 1 << (MANTISSA + 1) {
            return Time(nanos as u64);
        }
        let exponent = u128::BITS - nanos.leading_zeros() - (MANTISSA + 1);
        Time((u64::from(exponent) << MANTISSA) + (nanos >> exponent) as u64)
    }

    #[inline]
    fn of_nanos(nanos: u64) -> Time {
        if nanos < 1 << (MANTISSA + 1) { Time(nanos) } else { Time::of(nanos.into()) }
    }

    /// Converts the reading `now` of a clock that showed `origin` when the registry was built.
    #[inline]
    pub(crate) fn since_origin(now: Duration, origin: Duration) -> Time {
        Time::of(now.saturating_sub(origin).as_nanos())
    }

    /// Returns the smallest number of nanoseconds that this time stands for.
    fn nanos(self) -> u128 {
        if self.0 < 1 << (MANTISSA + 1) {
            return self.0.into();
        }
        let exponent = (self.0 >> MANTISSA) - 1;
        u128::from(self.0 - (exponent << MANTISSA)) << exponent
    }

    /// Returns the largest number of nanoseconds that this time stands for.
    fn last_nanos(self) -> u128 {
        Time(self.0 + 1).nanos() - 1
    }

    /// Converts a length of time, rounded up.
    pub(crate) fn ceil_from(length: Duration) -> Time {
        let nanos = length.as_nanos();
        let time = Time::of(nanos);
        if time.nanos() == nanos { time } else { Time(time.0 + 1) }
    }

    /// Returns the first time at which certainly more than `length` has passed since this time.
    #[inline]
    pub(crate) fn end_of(self, length: Time) -> Time {
        const SHORT: u64 = 1 << MANTISSA;
        if self.0 < SHORT && length.0 < SHORT { Time(self.0 + length.0 + 1) } else { self.end_of_long(length) }
    }

    #[cold]
    fn end_of_long(self, length: Time) -> Time {
        if self == Time::NEVER || length == Time::NEVER {
            return Time::NEVER;
        }
        Time(Time::of(self.last_nanos() + length.nanos()).0 + 1)
    }

    /// Returns how much time has certainly passed since `earlier`. Zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Time) -> Duration {
        if self.0 >> 62 != 0 {
            return Duration::MAX;
        }
        let nanos = self.nanos().saturating_sub(earlier.last_nanos());
        // A time that was rounded up may be beyond the longest `Duration`.
        u64::try_from(nanos / 1_000_000_000)
            .map_or(Duration::MAX, |seconds| Duration::new(seconds, (nanos % 1_000_000_000) as u32))
    }

    /// Returns this length of time plus a sixteenth, rounded up.
    pub(crate) fn and_a_sixteenth(self) -> Time {
        let nanos = self.nanos();
        Time(Time::of(nanos + nanos / 16).0 + 1)
    }

    /// Returns the time as a word. `NEVER` is the greatest word.
    #[inline]
    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    /// Converts a word from [`word`](Self::word) back to a time.
    #[inline]
    pub(crate) fn of_word(word: u64) -> Time {
        Time(word)
    }
}

/// A time in 37 bits: a [`Time`] without its last [`SHIFT`](Stamp::SHIFT) bits. These are worth 34 ms in the
/// first 4.5 years.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp(u64);

impl Stamp {
    const SHIFT: u32 = 25;
    /// The number of bits of a stamp above the low 32.
    pub(crate) const HIGH_BITS: u32 = 5;

    /// Converts a time to a stamp, rounded down.
    #[inline]
    pub(crate) fn of(time: Time) -> Stamp {
        Stamp(time.0 >> Self::SHIFT)
    }

    #[inline]
    pub(crate) fn low(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(crate) fn high(self) -> u8 {
        (self.0 >> 32) as u8
    }

    #[inline]
    pub(crate) fn from_halves(low: u32, high: u8) -> Stamp {
        Stamp(u64::from(high) << 32 | u64::from(low))
    }

    /// Returns the latest time that has this stamp.
    pub(crate) fn latest(self) -> Time {
        self.with_rest(u32::MAX)
    }

    /// Returns the time that has this stamp and the low bits `rest`.
    #[inline]
    pub(crate) fn with_rest(self, rest: u32) -> Time {
        Time(self.0 << Self::SHIFT | u64::from(rest & ((1 << Self::SHIFT) - 1)))
    }

    /// Returns the low bits of a time, which its stamp does not hold.
    #[inline]
    pub(crate) fn rest(time: Time) -> u32 {
        time.0 as u32
    }
}

/// The clock of a registry, and its reading when the registry was built. The monotonic clock needs no dynamic
/// call.
pub(crate) struct Timekeeper {
    /// `None` for the monotonic clock.
    clock: Option<(Box<dyn Clock>, Duration)>,
}

impl Timekeeper {
    /// Reads the clock, which may panic.
    pub(crate) fn new(clock: Option<Box<dyn Clock>>) -> Self {
        let clock = clock.map(|clock| {
            let origin = clock.now();
            (clock, origin)
        });
        Timekeeper { clock }
    }

    /// Returns the current time, which may be a few milliseconds old.
    #[inline]
    pub(crate) fn now(&self) -> Time {
        match &self.clock {
            None => Time::of_nanos(coarse()),
            Some((clock, origin)) => {
                crate::util::check::user_code();
                Time::since_origin(clock.now(), *origin)
            }
        }
    }

    /// Returns the current time for the start of an interval. It is never earlier than the true time. So an
    /// interval that starts here, and whose end is measured by [`now`](Self::now), never ends too early.
    #[inline]
    pub(crate) fn beginning(&self) -> Time {
        match &self.clock {
            None => Time::of_nanos(fine()),
            Some(_) => self.now(),
        }
    }

    /// Returns the reading of the clock: the time since the clock's origin, not the registry's.
    pub(crate) fn reading(&self) -> Duration {
        match &self.clock {
            None => Duration::from_nanos(coarse()),
            Some((clock, _)) => {
                crate::util::check::user_code();
                clock.now()
            }
        }
    }

    /// Converts a [`reading`](Self::reading) to a time, rounded up. A reading from before the registry was built
    /// becomes zero.
    pub(crate) fn time_of(&self, reading: Duration) -> Time {
        let origin = self.clock.as_ref().map_or(Duration::ZERO, |(_, origin)| *origin);
        Time::ceil_from(reading.saturating_sub(origin))
    }

    /// Returns whether a length of time by this clock is also a length of real time.
    pub(crate) fn is_real(&self) -> bool {
        self.clock.is_none()
    }
}

/// Boxes a clock, unless it is the monotonic clock.
pub(crate) fn boxed(clock: impl Clock) -> Option<Box<dyn Clock>> {
    fn is_monotonic<C: Clock>(_: &C) -> bool {
        TypeId::of::<C>() == TypeId::of::<MonotonicClock>()
    }
    if is_monotonic(&clock) { None } else { Some(Box::new(clock)) }
}

/// Returns a number that changes every few milliseconds. It distinguishes writers that come in bursts from
/// writers that come rarely.
pub(crate) fn coarse_ticks() -> u64 {
    coarse() >> 22
}

/// Returns the reading of the monotonic clock in nanoseconds, for the measurement of short times. It costs about four
/// times as much as a coarse reading. Under loom it is always zero.
pub(crate) fn exact_nanos() -> u64 {
    fine()
}

#[cfg(all(target_os = "linux", not(loom)))]
#[inline]
fn coarse() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE)
}

/// Reads the monotonic clock to the nanosecond. This takes about four times as long as `coarse`.
#[cfg(all(target_os = "linux", not(loom)))]
#[inline]
fn fine() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Reads a clock in nanoseconds. 64 bits hold 584 years.
#[cfg(all(target_os = "linux", not(loom)))]
#[allow(unsafe_code)]
#[inline]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local `timespec`. Both clocks exist since Linux 2.6.32.
    unsafe { libc::clock_gettime(clock, &mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

#[cfg(any(not(target_os = "linux"), loom))]
fn fine() -> u64 {
    coarse()
}

#[cfg(all(not(target_os = "linux"), not(loom)))]
fn coarse() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Models are deterministic: their time stands still unless they inject a clock.
#[cfg(loom)]
fn coarse() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of all magnitudes, and their neighbours.
    fn times() -> impl Iterator<Item = u128> {
        let most = Duration::MAX.as_nanos();
        (0..94)
            .flat_map(|bit| [-1, 0, 1, 12_345].map(|off| (1_i128 << bit) + off))
            .map(|n| n as u128)
            .chain([most])
            .filter(move |n| *n <= most)
    }

    #[test]
    fn times_keep_their_order_and_are_rounded_down() {
        let mut sorted: Vec<u128> = times().collect();
        sorted.sort_unstable();
        for pair in sorted.windows(2) {
            assert!(Time::of(pair[0]) <= Time::of(pair[1]));
        }
        for nanos in sorted {
            let time = Time::of(nanos);
            assert!(time.nanos() <= nanos && nanos <= time.last_nanos(), "{nanos}");
            assert!(nanos - time.nanos() <= nanos >> 56, "{nanos}");
            assert!(nanos >= 1 << 57 || time.nanos() == nanos);
            assert!(time.word() < 1 << 62);
            let stamp = Stamp::of(time);
            assert!(u32::from(stamp.high()) < 1 << Stamp::HIGH_BITS);
            let stamp = Stamp::from_halves(stamp.low(), stamp.high());
            assert_eq!(stamp.with_rest(Stamp::rest(time)), time);
            assert!(stamp.latest() >= time);
        }
    }

    #[test]
    fn an_end_is_never_early_and_hardly_late() {
        for start in times() {
            for length in times()
                .filter_map(|n| Some(Duration::new(u64::try_from(n / 1_000_000_000).ok()?, (n % 1_000_000_000) as u32)))
            {
                let end = Time::of(start).end_of(Time::ceil_from(length));
                let really = start + length.as_nanos();
                assert!(end.nanos() > really, "{start} + {length:?}");
                assert!(end.nanos() - really <= 1 + (really >> 54), "{start} + {length:?}");
            }
        }
        assert_eq!(Time::ZERO.end_of(Time::ceil_from(Duration::from_millis(50))), Time(50_000_001));
        assert!(Time::of(Duration::MAX.as_nanos()) < Time::ZERO.end_of(Time::ceil_from(Duration::MAX)));
        assert_eq!(Time::ZERO.end_of(Time::NEVER), Time::NEVER);
    }

    #[test]
    fn an_age_is_never_too_long() {
        let times: Vec<u128> = times().collect();
        for &now in &times {
            for &then in times.iter().filter(|&&then| then <= now) {
                let age = Time::of(now).since(Time::of(then)).as_nanos();
                assert!(age <= now - then && now - then - age <= now >> 54, "{now} - {then}: {age}");
            }
            assert_eq!(Time::ZERO.since(Time::of(now)), Duration::ZERO);
            let end = Time::of(now).end_of(Time::ceil_from(Duration::MAX));
            assert!(end.since(Time::of(now)) >= Duration::from_secs(1 << 62), "a length wraps");
        }
    }

    #[test]
    fn the_monotonic_clock_moves_forward() {
        let first = MonotonicClock.now();
        std::thread::sleep(Duration::from_millis(30));
        let passed = MonotonicClock.now() - first;
        assert!(passed >= Duration::from_millis(10) && passed < Duration::from_secs(30), "{passed:?}");
    }
}
