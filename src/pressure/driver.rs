//! The driver: looks at the sources, turns readings into demands, and has the reapers meet them.

use super::builder::DriverSettings;
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

/// The shortest time between two looks at a polled source.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// The highest rate at which a program is assumed to fill memory, in bytes per second. Used to plan the next look.
const FASTEST: u64 = 4 << 30;

/// Has [reapers](Reaper) shed entries when its [sources](Source) report pressure, or when the program asks for it.
///
/// See the [module](crate::pressure) for details. Dropping the driver stops its thread and waits for it. The
/// driver does not own the reapers.
pub struct Driver {
    shared: Arc<Shared>,
    thread: Mutex<Option<Thread>>,
}

/// The driver's thread, and the flag that stops this thread.
struct Thread {
    join: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

/// The state that the driver shares with its thread.
///
/// # Locks
///
/// - Reapers, sources, the hook and the clock are the user's code. They run behind the gate, so only one thread
///   at a time calls them.
/// - A thread waits for the gate only if the thread behind the gate cannot wait for it in turn
///   ([`may_wait_for_threads`]).
/// - Every other lock of the driver is held briefly, and never while the user's code runs. The exceptions are the
///   state of a [`Watch`] and the place of a [`Member`]: only the thread behind the gate takes these two.
/// - A logger is the user's code too, so lines are logged after the thread has left the gate.
pub(super) struct Shared {
    settings: DriverSettings,
    /// Held by the thread that checks or relieves. `true` while the work is in progress: a thread that enters and
    /// finds `true` was called from within its own work.
    gate: ReentrantMutex<Cell<bool>>,
    /// Lines to log after the gate is left.
    lines: Mutex<Vec<String>>,
    members: Mutex<Vec<Arc<Member>>>,
    /// Used only behind the gate, except for their figures.
    sources: Vec<Watch>,
    /// Polled by [`Driver::check`]. The driver's thread polls duplicates.
    descriptors: Mutex<Descriptors>,
    waker: Waker,
    totals: Mutex<Stats>,
}

impl Driver {
    pub(super) fn new(settings: DriverSettings, mut sources: Vec<Box<dyn Source>>, unavailable: Stats) -> Self {
        let waker = Waker::new();
        sources.iter_mut().for_each(|source| source.attach(waker.clone()));
        // If a descriptor cannot be duplicated (the process has too many open), the driver uses no descriptors at
        // all. A source that is not polled then reports nothing.
        let descriptors = Descriptors::of(sources.iter().map(|source| &**source as &dyn Source).enumerate());
        let descriptors = Mutex::new(descriptors);
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

    /// Adds a reaper, such as a registry, under its own [name](Reaper::name). The driver holds it weakly, and
    /// forgets it when it has been dropped.
    pub fn add<R: Reaper + 'static>(&self, reaper: &Arc<R>) {
        self.add_named(reaper.name(), reaper);
    }

    /// Adds a reaper as [`add`](Self::add) does, but under the given name in the figures.
    pub fn add_named<R: Reaper + 'static>(&self, name: impl Into<String>, reaper: &Arc<R>) {
        let reaper: Arc<dyn Reaper> = reaper.clone();
        let member = Arc::new(Member::new(name.into(), Arc::downgrade(&reaper)));
        let mut members = self.shared.members.lock();
        members.retain(|member| member.is_alive());
        members.push(member);
        drop(members);
    }

    /// Has the reapers shed entries now, on this thread, regardless of the sources.
    ///
    /// Does nothing if the call comes from a reaper, a source or the hook of this driver, or from the `Eq` of a key.
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
    /// May block: if another thread is checking or relieving, waits for it and for the hook that it runs. Then
    /// calls the reapers.
    ///
    /// If the other thread could be waiting for this one, the call does not wait: it does nothing while the other
    /// thread is working. This is so in a reaper, source or hook of any driver or domain, in a destructor or
    /// callback, in an executor's `spawn`, and in a critical section of any domain. (The caller must not hold a
    /// lock that a reaper takes too.)
    pub fn relieve(&self, demand: Demand) -> Relieved {
        let shared = &self.shared;
        shared.enter(|| shared.fulfil(&[demand])).unwrap_or_default()
    }

    /// Looks at all sources once, now, on this thread. If there is a demand, has the reapers shed and returns the
    /// result.
    ///
    /// The driver's thread does the same. Call `check`
    ///
    /// - on a thread that fills memory, for instance once per megabyte: this is the kernel's direct reclaim. The
    ///   call takes some microseconds to read the sources, and delays the caller if there is a demand;
    /// - in a program that uses a thread of its own instead of the driver's, and in tests.
    ///
    /// Does nothing if the call comes from a reaper, a source or the hook of this driver, or from the `Eq` of a key.
    ///
    /// # Progress
    ///
    /// See [`relieve`](Self::relieve).
    pub fn check(&self) -> Option<Relieved> {
        let shared = &self.shared;
        let ready = || shared.descriptors.lock().wait(None, Some(Duration::ZERO));
        shared.enter(|| shared.check(&ready())).and_then(|(relieved, _)| relieved)
    }

    /// Starts the driver's thread, unless it is running.
    ///
    /// # Errors
    ///
    /// Fails if the system cannot create a thread or a descriptor.
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
            // This may drop the sources and the hook, which runs the user's code.
            let _calling = Calling::enter();
            drop(shared);
        })?;
        *thread = Some(Thread { join, stop });
        Ok(())
    }

    /// Stops the driver's thread, if it is running, and waits for it.
    ///
    /// Does not wait on that thread itself, or where that thread could be waiting for this one (see
    /// [`relieve`](Self::relieve)). The thread then ends by itself.
    pub fn stop(&self) {
        let Some(Thread { join, stop }) = self.thread.lock().take() else { return };
        // ORDERING: Relaxed. `wake` stores the bell's mark after this store, and `Descriptors::wait` takes the
        // mark before `work` loads the flag. That pair orders the flag.
        stop.store(true, Ordering::Relaxed);
        self.shared.waker.wake();
        if join.thread().id() != std::thread::current().id() && may_wait_for_threads() {
            // The thread contains the panics of the user's code. Any other panic is a bug in this crate.
            join.join().expect("the driver's thread does not panic");
        }
    }

    /// Returns a handle that wakes the driver's thread from any thread.
    pub fn waker(&self) -> Waker {
        self.shared.waker.clone()
    }

    /// Returns what the driver has seen and done. The counters may change while they are read.
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

/// Marks the gate as free when dropped, also if the work panics.
struct Leave<'g>(&'g Cell<bool>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Shared {
    /// Runs `f` when no other thread is behind the gate. Returns `None` if this thread itself is, or if another
    /// thread is and this one may not wait for it.
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

    /// Logs the lines that were collected behind the gate.
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

    /// The main loop of the driver's thread.
    fn work(&self, mut descriptors: Descriptors, stop: &AtomicBool) {
        let mut ready = Vec::new();
        // ORDERING: Relaxed. The swap of the bell's mark in `wait` orders it after the store in `stop`.
        while !stop.load(Ordering::Relaxed) {
            let mut next = Some(self.settings.interval);
            // Reapers, sources and the hook are contained one by one. This contains the clock and everything else.
            let panics = contain(|| next = self.enter(|| self.check(&ready)).and_then(|(_, next)| next));
            if panics > 0 {
                self.totals.lock().panics += u64::from(panics);
            }
            ready = descriptors.wait(Some(&self.waker.0), next);
        }
    }

    /// Looks at the sources and meets their demands. Returns the result, and the time until the next look.
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
                // The lowest priority is the hardest round.
                Finding::Round(priority) => round = Some(round.map_or(priority, |other| other.min(priority))),
            }
            if watch.is_polled() {
                // Look again before the level can reach its limit.
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

    /// Meets the demands, then calls the hook.
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
            // The reaper that has done the smallest part of its share is next, so all are equally far when the
            // demand is met.
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
