//! The driver: who is asked to shed, when, and by whom.

use super::builder::Settings;
use super::demand::{Demand, FIRST, Relieved};
use super::member::Member;
use super::source::Source;
use super::stats::Stats;
use super::wait::{Descriptors, Ready, Waker};
use super::watch::{Finding, Watch};
use crate::domain::{Calling, may_wait_for_threads};
use crate::reap::Reaper;
use crate::util::panics::contain;
use crate::util::reentrancy::shard_locked;
use parking_lot::{Mutex, ReentrantMutex};
use std::cell::Cell;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The shortest time between two looks at a level that is near its limit.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// The bytes a second that a program is thought to fill at the most, when the next look at a level is planned.
const FASTEST: u64 = 4 << 30;

/// Has [reapers](Reaper) shed when its [sources](Source) tell of pressure, or when it is told to.
///
/// See the [module](crate::pressure) for how. When it is dropped its thread is stopped and waited for; the reapers are
/// not its own.
pub struct Driver {
    shared: Arc<Shared>,
    thread: Mutex<Option<Thread>>,
}

/// A thread of the driver's, and what ends that one.
struct Thread {
    join: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

/// # Locks
///
/// Reapers, sources, the hook and the clock are the user's code, and run behind the gate: one thread at a time calls them. A
/// thread waits for the gate only where the thread behind it cannot be waiting for that one in turn
/// ([`may_wait_for_threads`]). Every other lock of the driver is held for a moment, and never while code of the user's runs,
/// but for the two that only the thread behind the gate takes: [`Watch`]'s state and [`Member`]'s place. A logger is the
/// user's code too: lines are logged after the gate.
pub(super) struct Shared {
    settings: Settings,
    /// Entered by a thread that checks or relieves, one at a time. `true`: that is under way, so a thread that comes in is called
    /// by it.
    gate: ReentrantMutex<Cell<bool>>,
    /// To be logged once the gate is left.
    lines: Mutex<Vec<String>>,
    members: Mutex<Vec<Arc<Member>>>,
    /// Behind the gate, but for their figures.
    sources: Vec<Watch>,
    /// For looks by hand.
    descriptors: Mutex<Descriptors>,
    waker: Waker,
    totals: Mutex<Stats>,
}

impl Driver {
    pub(super) fn new(settings: Settings, mut sources: Vec<Box<dyn Source>>, unavailable: Stats) -> Self {
        let waker = Waker::new();
        sources.iter_mut().for_each(|source| source.attach(waker.clone()));
        // What cannot be duplicated (there are too many) is looked at in intervals, as the others are.
        let descriptors = Descriptors::of(sources.iter().map(|source| &**source as &dyn Source).enumerate());
        let descriptors = Mutex::new(descriptors.unwrap_or_default());
        let shared = Shared {
            settings,
            gate: ReentrantMutex::new(Cell::new(false)),
            lines: Mutex::default(),
            members: Mutex::default(),
            sources: sources.into_iter().map(Watch::new).collect(),
            descriptors,
            waker,
            totals: Mutex::new(unavailable),
        };
        Driver { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// Adds a reaper, such as a registry, under its own [name](Reaper::name). It is held weakly, and forgotten when it
    /// is gone.
    pub fn add<R: Reaper + 'static>(&self, reaper: &Arc<R>) {
        self.add_named(reaper.name(), reaper);
    }

    /// Adds a reaper, as [`add`](Self::add) does, under this name in the figures.
    pub fn add_named<R: Reaper + 'static>(&self, name: impl Into<String>, reaper: &Arc<R>) {
        let reaper: Arc<dyn Reaper> = reaper.clone();
        let member = Arc::new(Member::new(name.into(), Arc::downgrade(&reaper)));
        let mut members = self.shared.members.lock();
        members.retain(|member| member.is_alive());
        members.push(member);
        drop(members);
    }

    /// Has the reapers shed, now, on this thread. What the sources say does not matter.
    ///
    /// Called from within a reaper, a source or the hook of this driver, or in the `Eq` of a key, it does nothing.
    ///
    /// ```
    /// use epoch_registry::Registry;
    /// use epoch_registry::pressure::{Demand, Driver};
    /// use std::sync::Arc;
    ///
    /// let pages: Registry<u64, Vec<u8>> = Registry::builder().weigher(|_, page: &Vec<u8>| page.capacity()).build();
    /// let pages = Arc::new(pages);
    /// (0..1000).for_each(|key| drop(pages.insert(key, vec![0; 10_000]).unwrap()));
    ///
    /// let driver = Driver::builder().build();
    /// driver.add(&pages);
    /// let relieved = driver.relieve(Demand::Bytes(1_000_000));
    /// assert!(relieved.met && relieved.reaped.bytes >= 1_000_000);
    /// assert!(pages.len() < 910 && pages.len() > 600);
    /// ```
    ///
    /// # Progress
    ///
    /// Waits for another thread that is at it, its hook included, and then calls the reapers.
    ///
    /// Where that thread could be waiting for this one, it does not wait, and does nothing while another thread is at it: in a
    /// reaper, source or hook of any driver or domain, in a destructor or callback, in an executor's `spawn`, and in a
    /// critical section of any domain. (A lock that a reaper takes as well must not be held by the caller.)
    pub fn relieve(&self, demand: Demand) -> Relieved {
        let shared = &self.shared;
        shared.enter(|| shared.fulfil(&[demand])).unwrap_or_default()
    }

    /// Looks at all the sources once, now, on this thread, and has the reapers shed if there is a demand: what was
    /// done, then.
    ///
    /// It is what the driver's thread does. It serves those who fill memory, as the kernel's direct reclaim does:
    /// called once in a megabyte or so, it takes some microseconds for reading what the sources read, and holds them up
    /// when there is a demand. And it serves programs that would rather have a thread of theirs do it, and tests.
    ///
    /// Called from within a reaper, a source or the hook of this driver, or in the `Eq` of a key, it does nothing.
    ///
    /// # Progress
    ///
    /// As [`relieve`](Self::relieve).
    pub fn check(&self) -> Option<Relieved> {
        let shared = &self.shared;
        let ready = || shared.descriptors.lock().wait(None, Some(Duration::ZERO));
        shared.enter(|| shared.check(&ready())).and_then(|(relieved, _)| relieved)
    }

    /// Starts the driver's thread, unless it runs.
    ///
    /// # Errors
    ///
    /// If the system gives no thread, or no descriptor.
    pub fn start(&self) -> io::Result<()> {
        let mut thread = self.thread.lock();
        if thread.as_ref().is_some_and(|thread| !thread.join.is_finished()) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        shared.waker.0.hang()?;
        let descriptors = shared.descriptors.lock().duplicate()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (name, stopped) = (shared.settings.name.clone(), Arc::clone(&stop));
        let join = std::thread::Builder::new().name(name).spawn(move || {
            shared.work(descriptors, &stopped);
            // Sources and the hook may end here, which is the user's code.
            let _calling = Calling::enter();
            drop(shared);
        })?;
        *thread = Some(Thread { join, stop });
        Ok(())
    }

    /// Stops the driver's thread, if it runs, and waits for it. Does not wait if this is that thread, or where that thread
    /// could be waiting for this one, as [`relieve`](Self::relieve) says: the thread then ends by itself.
    pub fn stop(&self) {
        let Some(Thread { join, stop }) = self.thread.lock().take() else { return };
        // ORDERING: Relaxed. The mark of the bell, set after it and taken before it is looked at, orders it.
        stop.store(true, Ordering::Relaxed);
        self.shared.waker.wake();
        if join.thread().id() != std::thread::current().id() && may_wait_for_threads() {
            // It contains the panics of others; one of its own would be a bug in this crate.
            join.join().expect("the driver's thread does not panic");
        }
    }

    /// Wakes the driver's thread, from wherever.
    pub fn waker(&self) -> Waker {
        self.shared.waker.clone()
    }

    /// What it has seen and done. Counted while it goes on.
    pub fn stats(&self) -> Stats {
        let mut stats = self.shared.totals.lock().clone();
        let unavailable = std::mem::take(&mut stats.sources);
        stats.sources = self.shared.sources.iter().map(Watch::stats).chain(unavailable).collect();
        stats.reapers = self.shared.living().iter().map(|member| member.stats()).collect();
        stats
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("name", &self.shared.settings.name).field("stats", &self.stats()).finish()
    }
}

/// Leaves the gate, by a panic too.
struct Leave<'g>(&'g Cell<bool>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Shared {
    /// Runs `f` when no other thread is at it. `None` if this thread itself is, or may not wait for another that is.
    fn enter<T>(&self, f: impl FnOnce() -> T) -> Option<T> {
        if shard_locked() {
            return None;
        }
        let gate = if may_wait_for_threads() { self.gate.lock() } else { self.gate.try_lock()? };
        if gate.replace(true) {
            return None;
        }
        let calling = Calling::enter();
        let leave = Leave(&gate);
        let result = f();
        drop(leave);
        drop(gate);
        self.log();
        drop(calling);
        Some(result)
    }

    /// Logs what was found out behind the gate.
    fn log(&self) {
        let lines = std::mem::take(&mut *self.lines.lock());
        for line in lines {
            let panics = contain(|| log::warn!(target: "epoch_registry", "{line}"));
            self.totals.lock().panics += u64::from(panics);
        }
    }

    fn living(&self) -> Vec<Arc<Member>> {
        let mut members = self.members.lock();
        members.retain(|member| member.is_alive());
        members.clone()
    }

    /// The driver's thread.
    fn work(&self, mut descriptors: Descriptors, stop: &AtomicBool) {
        let mut ready = Vec::new();
        // ORDERING: Relaxed, as in `stop`.
        while !stop.load(Ordering::Relaxed) {
            let mut next = Some(self.settings.interval);
            // Reapers, sources and the hook are contained one by one. There is the clock, too.
            let panics = contain(|| next = self.enter(|| self.check(&ready)).and_then(|(_, next)| next));
            if panics > 0 {
                self.totals.lock().panics += u64::from(panics);
            }
            ready = descriptors.wait(Some(&self.waker.0), next);
        }
    }

    /// Looks at the sources and does what they demand. Returns what was done, and when to look again.
    fn check(&self, ready: &[Ready]) -> (Option<Relieved>, Option<Duration>) {
        let settings = &self.settings;
        let now = settings.clock.now();
        let count = || self.living().iter().fold(0_usize, |sum, member| sum.saturating_add(member.count()));
        let (mut bytes, mut round, mut panics) = (0, None::<u32>, 0);
        let mut next = None::<Duration>;
        for (number, watch) in self.sources.iter().enumerate() {
            let ready = ready.iter().find(|ready| ready.source == number);
            let look = watch.look(ready, settings, now, count);
            panics += look.panics;
            self.lines.lock().extend(look.line);
            match look.finding {
                Finding::Nothing => {}
                Finding::Bytes(wanted) => bytes = bytes.max(wanted),
                // The lowest is the most urgent.
                Finding::Round(priority) => round = Some(round.map_or(priority, |other| other.min(priority))),
            }
            if watch.is_polled() {
                // Before it could be full.
                let headroom = look.headroom.map_or(settings.interval, |bytes| {
                    Duration::from_secs_f64(bytes as f64 / FASTEST as f64).max(SHORTEST)
                });
                let sooner = headroom.min(settings.interval);
                next = Some(next.map_or(sooner, |next| next.min(sooner)));
            }
        }
        let mut totals = self.totals.lock();
        totals.checks += 1;
        totals.panics += panics;
        drop(totals);
        let demands: Vec<_> =
            (bytes > 0).then_some(Demand::Bytes(bytes)).into_iter().chain(round.map(Demand::Round)).collect();
        if demands.is_empty() {
            return (None, next);
        }
        let relieved = self.fulfil(&demands);
        let again = relieved.reaped.stopped.then(|| now.saturating_add(settings.interval));
        self.sources.iter().for_each(|watch| watch.settle(relieved.reaped, again));
        (Some(relieved), next)
    }

    /// Does what is demanded, and then calls the hook.
    fn fulfil(&self, demands: &[Demand]) -> Relieved {
        let mut all = Relieved { met: true, ..Relieved::default() };
        for demand in demands {
            let relieved = self.shed(*demand);
            let mut totals = self.totals.lock();
            totals.demands += 1;
            totals.unmet += u64::from(!relieved.met);
            totals.rounds += u64::from(relieved.rounds);
            totals.removed += relieved.reaped.removed as u64;
            totals.bytes += relieved.reaped.bytes;
            totals.panics += relieved.panics;
            drop(totals);
            all = all.then(relieved);
        }
        if let Some(hook) = &self.settings.on_shed {
            let panics = contain(|| hook(&all));
            self.totals.lock().panics += u64::from(panics);
        }
        all
    }

    fn shed(&self, demand: Demand) -> Relieved {
        let (first, last, wanted) = match demand {
            Demand::Bytes(bytes) => (FIRST, 0, bytes),
            Demand::Round(priority) => (priority.min(FIRST), priority.min(FIRST), 0),
        };
        let members = self.living();
        let mut relieved = Relieved::default();
        for priority in (last..=first).rev() {
            let met = |relieved: &Relieved| wanted > 0 && relieved.reaped.bytes >= wanted;
            let mut turns: Vec<_> = members.iter().filter_map(|member| member.begin(priority, &mut relieved)).collect();
            // Who is furthest behind with its part is next, so that all are equally far when the demand is met.
            while let Some(turn) =
                turns.iter_mut().filter(|turn| turn.is_open()).min_by(|one, other| one.cmp_done(other))
            {
                turn.batch(&mut relieved);
                if met(&relieved) {
                    break;
                }
            }
            relieved.met = wanted == 0 || met(&relieved);
            turns.into_iter().for_each(|turn| turn.end(&mut relieved));
            relieved.rounds += 1;
            if relieved.met {
                break;
            }
        }
        relieved
    }
}
