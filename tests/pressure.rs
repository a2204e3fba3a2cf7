//! The pressure driver: `cargo test --features pressure --test pressure`.

#![cfg(feature = "pressure")]

mod common;

use common::isolated_builder;
use epoch_registry::pressure::{
    Available, Cgroup, Demand, Driver, Level, Manual, Marks, Own, Reading, Source, SourceState, Stats, Unavailable,
    Version, detect,
};
use epoch_registry::{Domain, ManualClock, Reaped, Reaper, Registry, Scan};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Waits for something that is to come. Long enough for a machine that has other things to do.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::yield_now();
    }
}

/// What a [`Fake`] does when it is asked to scan.
type OnScan = dyn Fn(usize) -> Reaped + Send + Sync;

/// A reaper that has what it is told to have, and notes what it is asked for.
struct Fake {
    count: AtomicUsize,
    seeks: u32,
    scans: Mutex<Vec<usize>>,
    on_scan: Box<OnScan>,
}

impl Fake {
    /// It finds nothing that can go.
    fn new(count: usize, seeks: u32) -> Arc<Self> {
        Self::with(count, seeks, |_| Reaped::default())
    }

    fn with(count: usize, seeks: u32, on_scan: impl Fn(usize) -> Reaped + Send + Sync + 'static) -> Arc<Self> {
        let (count, on_scan) = (AtomicUsize::new(count), Box::new(on_scan));
        Arc::new(Fake { count, seeks, scans: Mutex::default(), on_scan })
    }

    fn scanned(&self) -> usize {
        self.scans.lock().unwrap().iter().sum()
    }
}

impl Reaper for Fake {
    fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    fn scan(&self, scan: &mut Scan) -> Reaped {
        self.scans.lock().unwrap().push(scan.nr_to_scan);
        let reaped = (self.on_scan)(scan.nr_to_scan);
        self.count.fetch_sub(reaped.removed, SeqCst);
        reaped
    }

    fn seeks(&self) -> u32 {
        self.seeks
    }

    fn name(&self) -> &str {
        "fake"
    }
}

fn removed(entries: usize, bytes: u64) -> Reaped {
    let mut reaped = Reaped::default();
    (reaped.examined, reaped.removed, reaped.bytes) = (entries, entries, bytes);
    reaped
}

fn stopped() -> Reaped {
    let mut reaped = Reaped::default();
    reaped.stopped = true;
    reaped
}

/// A driver of these, without sources.
fn driver_of(fakes: &[&Arc<Fake>]) -> Driver {
    let driver = Driver::builder().build();
    fakes.iter().for_each(|fake| driver.add(fake));
    driver
}

/// Scanned and deferred, of each reaper.
fn table(stats: &Stats) -> Vec<(u64, u64)> {
    stats.reapers.iter().map(|reaper| (reaper.scanned, reaper.deferred)).collect()
}

#[test]
fn work_is_divided_by_the_rule_of_the_kernel() {
    let fakes = [Fake::new(10_000, 2), Fake::new(10_000, 4), Fake::new(10_000, 0), Fake::new(100, 2), Fake::new(0, 2)];
    let driver = driver_of(&fakes.each_ref());
    // Deltas of 2500, 1250, 5000 and 24, in batches of 128; the rests of less are deferred.
    let relieved = driver.relieve(Demand::Round(3));
    assert!(relieved.met && relieved.rounds == 1);
    assert_eq!(table(&driver.stats()), [(19 * 128, 68), (9 * 128, 98), (39 * 128, 8), (0, 24), (0, 0)]);
    // An eighth of what was deferred comes on top.
    driver.relieve(Demand::Round(3));
    assert_eq!(table(&driver.stats()), [(38 * 128, 136), (18 * 128, 196), (78 * 128, 16), (0, 48), (0, 0)]);
    // Everything, twice at the most: 20,000 of 20,136, and 10,196; 5016; and 200 of 248, of which one batch, as the
    // rest is less than a batch and than all there is.
    driver.relieve(Demand::Round(0));
    let expected = [((38 + 156) * 128, 168), ((18 + 79) * 128, 84), ((78 + 39) * 128, 24), (128, 120), (0, 0)];
    assert_eq!(table(&driver.stats()), expected);
    assert!(fakes.iter().all(|fake| fake.scans.lock().unwrap().iter().all(|batch| *batch == 128)));
    assert_eq!(fakes[0].scanned() as u64, driver.stats().reapers[0].scanned);
}

#[test]
fn a_small_reaper_is_scanned_whole_when_it_comes_to_that() {
    let small = Fake::new(10, 2);
    let driver = driver_of(&[&small]);
    for _ in 0..3 {
        driver.relieve(Demand::Round(4));
    }
    assert_eq!(small.scanned(), 0);
    driver.relieve(Demand::Round(0));
    assert_eq!(*small.scans.lock().unwrap(), [20]);
}

#[test]
fn a_demand_of_bytes_is_met_and_not_far_exceeded_with_all_equally_far() {
    let half = |asked: usize| removed(asked / 2, 10 * (asked / 2) as u64);
    let (large, small) = (Fake::with(60_000, 2, half), Fake::with(20_000, 2, half));
    let driver = driver_of(&[&large, &small]);
    let relieved = driver.relieve(Demand::Bytes(20_000));
    assert!(relieved.met, "{relieved:?}");
    assert!((20_000..20_000 + 640).contains(&relieved.reaped.bytes), "{relieved:?}");
    let (large, small) = (large.scanned(), small.scanned());
    assert!(large.abs_diff(3 * small) <= 3 * 128 * relieved.rounds as usize, "{large} and {small}");
}

#[test]
fn reapers_that_free_no_bytes_are_asked_down_to_the_last_priority() {
    let fake = Fake::with(100_000, 2, |_| removed(1, 0));
    let driver = driver_of(&[&fake]);
    let relieved = driver.relieve(Demand::Bytes(1));
    assert_eq!((relieved.met, relieved.rounds), (false, 13));
    assert!(fake.scanned() > 300_000);
    assert_eq!((driver.stats().demands, driver.stats().unmet, driver.stats().rounds), (1, 1, 13));
}

#[test]
fn a_reaper_that_stops_is_left_alone_for_the_round_and_owes_the_rest() {
    let calls = AtomicUsize::new(0);
    let on_scan = move |_| if calls.fetch_add(1, SeqCst) < 2 { Reaped::default() } else { stopped() };
    let (stops, goes_on) = (Fake::with(10_000, 2, on_scan), Fake::new(10_000, 2));
    let driver = driver_of(&[&stops, &goes_on]);
    let relieved = driver.relieve(Demand::Round(3));
    assert!(relieved.reaped.stopped);
    assert_eq!(table(&driver.stats()), [(256, 2500 - 256), (2432, 68)]);
    assert_eq!((stops.scans.lock().unwrap().len(), driver.stats().reapers[0].stops), (3, 1));
}

#[test]
fn a_reaper_that_panics_is_counted_and_harms_no_neighbour() {
    let panics = Fake::with(10_000, 2, |_| panic!("not today"));
    let goes_on = Fake::new(10_000, 2);
    let driver = driver_of(&[&panics, &goes_on]);
    let relieved = driver.relieve(Demand::Round(3));
    assert_eq!((relieved.panics, relieved.met), (1, true));
    assert_eq!(table(&driver.stats()), [(0, 2500), (2432, 68)]);
    assert_eq!((driver.stats().panics, driver.stats().reapers[0].panics), (1, 1));
    assert_eq!(driver.relieve(Demand::Round(3)).panics, 1);
}

/// A reaper of which all methods panic, and the destructor.
struct Bad;

impl Reaper for Bad {
    fn count(&self) -> usize {
        panic!("count")
    }

    fn scan(&self, _: &mut Scan) -> Reaped {
        unreachable!("it has told of nothing to scan")
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("drop")
    }
}

#[test]
fn a_reaper_that_can_only_panic_is_contained() {
    let (bad, good) = (Arc::new(Bad), Fake::new(10_000, 2));
    let driver = Driver::builder().build();
    driver.add(&bad);
    driver.add(&good);
    assert_eq!(driver.relieve(Demand::Round(3)).panics, 1);
    assert_eq!(good.scanned(), 2432);
    std::mem::forget(bad);
}

#[test]
fn a_reaper_that_is_gone_is_forgotten() {
    let (gone, stays) = (Fake::new(10_000, 2), Fake::new(10_000, 2));
    let driver = driver_of(&[&gone]);
    driver.add_named("stays", &stays);
    drop(gone);
    driver.relieve(Demand::Round(3));
    let names: Vec<_> = driver.stats().reapers.into_iter().map(|reaper| reaper.name).collect();
    assert_eq!(names, ["stays"]);
    assert_eq!(stays.scanned(), 2432);
}

#[test]
fn a_reaper_may_be_the_last_to_be_dropped_by_the_driver() {
    let (held, driver) = (Arc::new(Mutex::new(None)), Driver::builder().build());
    let handle = Arc::clone(&held);
    let last = Fake::with(10_000, 2, move |_| {
        *handle.lock().unwrap() = None;
        Reaped::default()
    });
    driver.add(&last);
    *held.lock().unwrap() = Some(last);
    driver.relieve(Demand::Round(3));
    assert!(driver.stats().reapers.is_empty());
}

#[test]
fn a_reaper_may_call_its_driver_which_does_not_begin_anew() {
    let place: Arc<OnceLock<Arc<Driver>>> = Arc::default();
    let found = Arc::clone(&place);
    let calls = Fake::with(10_000, 2, move |_| {
        let driver = found.get().unwrap();
        assert_eq!(driver.relieve(Demand::Round(0)).rounds, 0);
        assert_eq!(driver.check(), None);
        assert_eq!(driver.stats().reapers.len(), 1);
        removed(1, 1)
    });
    let driver = Arc::new(driver_of(&[&calls]));
    assert!(place.set(Arc::clone(&driver)).is_ok());
    let relieved = driver.relieve(Demand::Round(3));
    assert_eq!((relieved.reaped.removed, relieved.panics), (19, 0));
}

#[test]
fn registries_share_by_their_size_and_cost() {
    let registry = |entries: u64, seeks: u32| {
        let registry = Arc::new(isolated_builder::<u64, u64>().seeks(seeks).max_entries(1 << 20).build());
        (0..entries).for_each(|key| drop(registry.insert(key, key).unwrap()));
        registry
    };
    let (large, small, dear) = (registry(40_000, 2), registry(20_000, 2), registry(40_000, 4));
    let driver = Driver::builder().build();
    [&large, &small, &dear].into_iter().for_each(|registry| driver.add(registry));
    let relieved = driver.relieve(Demand::Round(4));
    let gone = [40_000 - large.len(), 20_000 - small.len(), 40_000 - dear.len()];
    // 5000, 2500 and 2500 to scan; nothing was used, so all of them go. (Homes are not split, so a batch may be a few
    // more.)
    for (gone, share) in gone.into_iter().zip([5000, 2500, 2500]) {
        assert!(gone > share * 9 / 10 && gone < share * 12 / 10, "{gone} of {share}");
    }
    assert_eq!(relieved.reaped.removed, gone.iter().sum::<usize>());
}

#[test]
fn a_manual_source_drives_the_thread_and_the_registry_shrinks() {
    let registry = isolated_builder::<u64, Vec<u8>>().weigher(|_, value: &Vec<u8>| value.len()).build();
    let registry = Arc::new(registry);
    (0..10_000).for_each(|key| drop(registry.insert(key, vec![0; 100]).unwrap()));
    let (source, pressure) = Manual::new("test");
    let driver = Driver::builder().name("drives").source(source).start().unwrap();
    driver.add_named("values", &registry);
    let weight = registry.weight();
    pressure.demand(weight / 2);
    wait_for("half the weight", || registry.weight() <= weight / 2);
    pressure.raise();
    wait_for("the event", || driver.stats().sources[0].events == 2);
    pressure.demand(u64::MAX);
    wait_for("everything", || registry.is_empty());
    wait_for("the figures", || driver.stats().demands == 3);
    let stats = driver.stats();
    assert_eq!((stats.removed, stats.reapers[0].removed, stats.panics), (10_000, 10_000, 0));
    let text = stats.to_string();
    assert!(text.contains("\n  source test: works, events 3") && text.contains("\n  reaper values: "), "{text}");
}

#[test]
fn the_thread_is_stopped_and_joined_and_may_be_started_again() {
    let (source, pressure) = Manual::new("test");
    let (called, alive) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
    let held = Arc::downgrade(&alive);
    let count = Arc::clone(&called);
    let hook = move |_: &_| {
        let _alive = &alive;
        count.fetch_add(1, SeqCst);
    };
    let driver = Driver::builder().source(source).on_shed(hook).build();
    pressure.raise();
    driver.start().unwrap();
    driver.start().unwrap();
    wait_for("the hook", || called.load(SeqCst) == 1);
    driver.stop();
    driver.stop();
    pressure.raise();
    assert_eq!(called.load(SeqCst), 1, "there is no thread");
    driver.start().unwrap();
    wait_for("the hook", || called.load(SeqCst) == 2);
    drop(driver);
    assert_eq!(held.strong_count(), 0, "the thread was joined");
    pressure.raise();
}

#[test]
fn a_driver_may_be_dropped_by_its_own_thread() {
    let (source, pressure) = Manual::new("test");
    let (held, done) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
    let (place, flag) = (Arc::clone(&held), Arc::clone(&done));
    let hook = move |_: &_| {
        // (Not under the lock.)
        let driver = place.lock().unwrap().take();
        drop::<Option<Driver>>(driver);
        flag.store(true, SeqCst);
    };
    *held.lock().unwrap() = Some(Driver::builder().source(source).on_shed(hook).start().unwrap());
    pressure.raise();
    wait_for("the drop", || done.load(SeqCst));
    // The thread ends, and lets go of all it had.
    wait_for("its end", || Arc::strong_count(&done) == 1);
}

#[test]
fn a_hook_that_panics_is_counted() {
    let driver = Driver::builder().on_shed(|_| panic!("not today")).build();
    driver.relieve(Demand::Round(0));
    assert_eq!((driver.relieve(Demand::Round(0)).met, driver.stats().panics), (true, 2));
}

#[test]
fn events_in_a_row_raise_the_priority_and_quiet_resets_it() {
    let (source, pressure) = Manual::new("test");
    let (fake, clock) = (Fake::new(1 << 16, 2), ManualClock::new());
    let driver =
        Driver::builder().source(source).clock(clock.clone()).quiet(Duration::from_secs(10)).event_priority(6).build();
    driver.add(&fake);
    let mut before = 0;
    let mut event = |seconds| {
        clock.advance(Duration::from_secs(seconds));
        pressure.raise();
        assert!(driver.check().unwrap().met);
        let scanned = fake.scanned() - before;
        before += scanned;
        scanned
    };
    assert_eq!([event(0), event(1), event(10)], [2048, 4096, 8192]);
    assert_eq!([event(11), event(1)], [2048, 4096]);
    for _ in 0..10 {
        assert!(event(1) <= 2 << 16);
    }
    assert_eq!(event(1), 2 << 16);
    assert_eq!(driver.check(), None);
    assert_eq!(driver.stats().sources[0].events, 16);
}

/// What the next look at a [`Script`] is to show.
type Next = Arc<Mutex<Result<Reading, &'static str>>>;

/// A source that says what it is told to say, and panics if there is nothing.
struct Script(Next);

impl Source for Script {
    fn name(&self) -> &str {
        "script"
    }

    fn check(&mut self, _: bool) -> Result<Reading, Unavailable> {
        let next = *self.0.lock().unwrap();
        match next {
            Err("panic") => std::panic::resume_unwind(Box::new(())),
            next => next.map_err(|why| Unavailable::new("script", why)),
        }
    }
}

fn level(used: u64) -> Result<Reading, &'static str> {
    // The mark is at 900,000, the low one at 800,000; a step is 3906.
    Ok(Reading::Level(Level::new(used, 1_000_000, Marks::new(0.9, 0.8))))
}

#[test]
fn a_level_demands_again_only_when_there_is_reason() {
    let next: Next = Arc::new(Mutex::new(level(0)));
    let fake = Fake::with(10_000, 2, |asked| removed(asked, 100 * asked as u64));
    let driver = Driver::builder().source(Script(Arc::clone(&next))).build();
    driver.add(&fake);
    let at = |used: u64| {
        *next.lock().unwrap() = level(used);
        driver.check().map(|relieved| relieved.reaped.bytes / 12_800)
    };
    // Batches that were removed, of 12,800 bytes.
    assert_eq!(at(900_000), None);
    assert_eq!(at(920_000), Some(10), "120,000 bytes");
    assert_eq!([at(920_000), at(910_000), at(923_900)], [None; 3], "what was shed is on its way");
    // All growth of 10,000 is new: three times as much, less the 8000 that were shed beyond the demand.
    assert_eq!(at(930_000), Some(2), "22,000 bytes");
    assert_eq!(at(930_000), None);
    // More than half of what was shed has come anew, and usage is the same: it took the place of what was shed.
    fake.count.fetch_add(1300, SeqCst);
    assert!(at(930_000).is_some_and(|batches| batches >= 8));
    assert_eq!(at(930_000), None);
    // Down to the mark, and above it again.
    assert_eq!(at(900_000), None);
    assert_eq!(at(900_001), Some(8), "100,001 bytes");
    assert_eq!(driver.stats().unmet, 0);
}

#[test]
fn a_level_is_not_shed_for_again_while_usage_stays_whatever_is_looked_at() {
    let next: Next = Arc::new(Mutex::new(level(950_000)));
    let registry = isolated_builder::<u64, Vec<u8>>().weigher(|_, value: &Vec<u8>| value.len()).build();
    let registry = Arc::new(registry);
    (0..9000).for_each(|key| drop(registry.insert(key, vec![0; 100]).unwrap()));
    let driver = Driver::builder().source(Script(next)).build();
    driver.add(&registry);
    assert!(driver.check().unwrap().met);
    let left = registry.len();
    assert!(left > 5000, "{left} of 9000 left");
    for _ in 0..1000 {
        assert_eq!(driver.check(), None);
    }
    assert_eq!(registry.len(), left);
}

#[test]
fn a_level_whose_reaper_stopped_demands_again_after_an_interval() {
    let next: Next = Arc::new(Mutex::new(level(950_000)));
    let (fake, clock) = (Fake::with(10_000, 2, |_| stopped()), ManualClock::new());
    let driver = Driver::builder().source(Script(next)).clock(clock.clone()).build();
    driver.add(&fake);
    let met = || driver.check().map(|relieved| relieved.met);
    assert_eq!([met(), met()], [Some(false), None]);
    clock.advance(Duration::from_millis(99));
    assert_eq!(met(), None);
    clock.advance(Duration::from_millis(1));
    assert_eq!([met(), met()], [Some(false), None]);
}

#[test]
fn a_source_that_fails_or_panics_says_so_and_is_asked_again() {
    let next: Next = Arc::new(Mutex::new(Err("it rains")));
    let driver = Driver::builder().source(Script(Arc::clone(&next))).build();
    let state = || {
        driver.check();
        driver.stats().sources[0].state.clone()
    };
    assert_eq!(state(), SourceState::Fails("it rains".into()));
    *next.lock().unwrap() = Err("panic");
    assert_eq!(state(), SourceState::Fails("it panicked".into()));
    assert_eq!(driver.stats().panics, 1);
    *next.lock().unwrap() = Ok(Reading::Quiet);
    assert_eq!(state(), SourceState::Works);
    assert_eq!(driver.stats().sources[0].last, Some(Reading::Quiet));
}

#[test]
fn the_largest_demand_counts_and_not_the_sum() {
    let (one, more) = (Manual::new("one"), Manual::new("more"));
    let fake = Fake::with(1 << 20, 2, |asked| removed(asked, asked as u64));
    let driver = Driver::builder().source(one.0).source(more.0).build();
    driver.add(&fake);
    one.1.demand(50_000);
    more.1.demand(60_000);
    let relieved = driver.check().unwrap();
    assert!((60_000..60_128).contains(&relieved.reaped.bytes), "{relieved:?}");
}

#[test]
fn a_driver_and_many_writers_end() {
    let (source, pressure) = Manual::new("test");
    let driver = Driver::builder().source(source).start().unwrap();
    let domain = Domain::new();
    let registries: Vec<Arc<Registry<usize, usize>>> =
        (0..3).map(|_| Arc::new(Registry::builder().domain(domain.clone()).build())).collect();
    registries.iter().for_each(|registry| driver.add(registry));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (registries, driver, pressure) = (&registries, &driver, pressure.clone());
            scope.spawn(move || {
                for key in 0..common::times(20_000) {
                    let registry = &registries[key % 3];
                    drop(registry.replace(key * 4 + thread, key));
                    match key % 512 {
                        0 => pressure.raise(),
                        128 => pressure.demand(1000),
                        256 => assert_eq!(driver.relieve(Demand::Bytes(1000)).panics, 0),
                        384 => assert!(driver.check().is_none_or(|relieved| relieved.panics == 0)),
                        _ => {}
                    }
                }
            });
        }
    });
    drop(driver);
    domain.barrier();
    for registry in registries {
        let stats = registry.stats();
        assert_eq!(stats.inserted, stats.live + stats.reaped + stats.replaced + stats.removed);
    }
}

/// A source with a descriptor.
#[cfg(target_os = "linux")]
struct Wire(std::os::unix::net::UnixStream);

#[cfg(target_os = "linux")]
impl Source for Wire {
    fn name(&self) -> &str {
        "wire"
    }

    fn check(&mut self, signalled: bool) -> Result<Reading, Unavailable> {
        Ok(if signalled { Reading::Event } else { Reading::Quiet })
    }

    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&self.0))
    }

    fn is_polled(&self) -> bool {
        false
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_descriptor_that_is_lost_is_said_to_be_and_not_waited_for() {
    let (source, peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let (manual, pressure) = Manual::new("manual");
    let driver = Driver::builder().source(Wire(source)).source(manual).start().unwrap();
    wait_for("a look", || driver.stats().sources[0].state == SourceState::Works);
    drop(peer);
    wait_for("the loss", || driver.stats().sources[0].state == SourceState::Lost);
    let looks = driver.stats().checks;
    pressure.raise();
    wait_for("the event", || driver.stats().demands == 1);
    let stats = driver.stats();
    // (One look may have been under way.)
    assert!(stats.sources[0].events == 0 && stats.checks <= looks + 2, "it does not spin: {stats}");
}

/// A clock that stops going.
struct Broken(AtomicBool);

impl epoch_registry::Clock for Broken {
    fn now(&self) -> Duration {
        assert!(!self.0.swap(false, SeqCst), "broken");
        Duration::ZERO
    }
}

#[test]
fn a_clock_that_panics_ends_neither_driver_nor_thread() {
    let (source, pressure) = Manual::new("test");
    let clock = Broken(AtomicBool::new(true));
    let driver = Driver::builder().source(source).clock(clock).start().unwrap();
    wait_for("the panic", || driver.stats().panics == 1);
    pressure.raise();
    wait_for("the event", || driver.stats().demands == 1);
}

/// Real ones, as far as this machine has them.
mod real {
    use super::*;

    /// Notes what could not be tested here.
    fn is_there<S>(source: Result<S, Unavailable>) -> Option<S> {
        source.map_err(|why| eprintln!("NOT TESTED on this machine: {why}")).ok()
    }

    /// What a driver with this source says of it after a look.
    fn looked_at(source: impl Source) -> (SourceState, Option<Reading>) {
        let driver = Driver::builder().source(source).build();
        driver.check();
        let stats = driver.stats();
        eprintln!("{stats}");
        (stats.sources[0].state.clone(), stats.sources[0].last)
    }

    #[test]
    fn own_memory_is_read_and_a_limit_below_it_demands() {
        let Some(mut own) = is_there(Own::new(1 << 50)) else { return };
        let before = own.used().unwrap();
        let ballast = vec![1_u8; 64 << 20];
        let after = own.used().unwrap();
        assert!(after > before + (32 << 20), "{before} before, {after} after 64 MiB more");
        assert!(ballast.iter().all(|byte| *byte == 1));
        let fake = Fake::with(1 << 20, 2, |asked| removed(asked, 4096 * asked as u64));
        let driver = Driver::builder().source(Own::new(after / 2).unwrap()).build();
        driver.add(&fake);
        assert!(driver.check().unwrap().met);
    }

    #[test]
    fn available_memory_is_read() {
        let Some(available) = is_there(Available::new()) else { return };
        let (state, last) = looked_at(available.marks(Marks::new(1.0, 1.0)));
        let Some(Reading::Level(level)) = last else { panic!("{state:?}, {last:?}") };
        assert!(level.used > 0 && level.used < level.limit && level.limit > 16 << 20);
    }

    #[test]
    fn control_groups_are_read() {
        for version in [Version::V2, Version::V1] {
            let Some(group) = is_there(Cgroup::new(version)) else { continue };
            let (state, last) = looked_at(group.marks(Marks::new(1.0, 1.0)));
            let Some(Reading::Level(level)) = last else { panic!("{state:?}, {last:?}") };
            assert!(level.used > 0 && level.used <= level.limit * 11 / 10, "{level}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pressure_stall_information_on_memory_is_waited_for() {
        use epoch_registry::pressure::{Psi, Trigger};
        let (psi, missing) = Psi::detect(Trigger::default());
        missing.iter().for_each(|why| eprintln!("NOT TESTED on this machine: {why}"));
        let Some(psi) = psi else { return };
        eprintln!("{} with {:?}", psi.name(), psi.trigger());
        assert_eq!(looked_at(psi).0, SourceState::Works);
    }

    /// The processor's pressure has the same interface, and can be made.
    #[cfg(target_os = "linux")]
    #[test]
    fn an_event_of_pressure_stall_information_wakes_the_thread() {
        use epoch_registry::pressure::{Psi, Trigger};
        let trigger = Trigger { full: false, threshold: Duration::from_millis(5), window: Duration::from_millis(500) };
        let Some(psi) = is_there(Psi::with("/proc/pressure/cpu", trigger)) else { return };
        eprintln!("{} with {:?}", psi.name(), psi.trigger());
        let fake = Fake::with(1 << 16, 2, |_| removed(1, 1));
        let driver = Driver::builder().source(psi).start().unwrap();
        driver.add(&fake);
        let done = AtomicBool::new(false);
        let threads = 4 * std::thread::available_parallelism().map_or(1, |cores| cores.get());
        std::thread::scope(|scope| {
            (0..threads).for_each(|_| {
                scope.spawn(|| {
                    while !done.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                });
            });
            let begun = Instant::now();
            while fake.scanned() == 0 && begun.elapsed() < Duration::from_secs(60) {
                std::thread::yield_now();
            }
            done.store(true, SeqCst);
        });
        assert!(driver.stats().sources[0].events > 0, "{}", driver.stats());
    }

    #[test]
    fn a_trigger_on_what_is_no_such_file_is_refused_by_name() {
        use epoch_registry::pressure::{Psi, Trigger};
        let why = Psi::with("/nowhere/memory.pressure", Trigger::default()).unwrap_err().to_string();
        assert!(why.starts_with("PSI /nowhere/memory.pressure is not available: "), "{why}");
    }

    #[test]
    fn what_is_detected_works_and_the_rest_is_said() {
        let detected = detect();
        eprintln!("{detected:?}");
        let (found, missing) = (detected.sources.len(), detected.unavailable.len());
        assert!(found > 0, "no source at all");
        drop(detected);
        let driver = Driver::builder().detect().start().unwrap();
        wait_for("a look", || driver.stats().checks > 0);
        let stats = driver.stats();
        eprintln!("{stats}");
        let works = stats.sources.iter().filter(|source| source.state == SourceState::Works).count();
        let unavailable = |state: &SourceState| matches!(state, SourceState::Unavailable(_));
        assert_eq!(works, found);
        assert_eq!(stats.sources.iter().filter(|source| unavailable(&source.state)).count(), missing);
    }
}

/// Everything here may be shared by threads.
#[test]
fn a_driver_is_shared() {
    fn is_shared<T: Send + Sync>(_: &T) {}
    let driver = Driver::builder().build();
    is_shared(&driver);
    is_shared(&driver.waker());
    driver.waker().wake();
    assert!(format!("{driver:?}").starts_with("Driver"));
}
