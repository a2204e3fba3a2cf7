//! Executor jobs: driven by a simple loop or as a future, dropped, and woken while they sleep.

mod common;

use common::*;
use epoch_registry::{Domain, DomainBuilder, ReclaimJob, Registry};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, Once};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Returns a domain that sends its jobs to a channel.
fn queued(builder: DomainBuilder) -> (Domain, Receiver<ReclaimJob>) {
    let (send, jobs) = channel();
    (builder.executor(move |job| drop(send.send(job))).build(), jobs)
}

/// Churns a cache of 1 MiB for a while, and returns the most bytes that waited.
fn churn(domain: &Domain) -> u64 {
    let registry: Registry<u64, Vec<u8>> = Registry::builder()
        .domain(domain.clone())
        .max_weight(1 << 20)
        .weigher(|_, value: &Vec<u8>| value.len())
        .build();
    let end = Instant::now() + 2 * a_while();
    thread::scope(|scope| {
        for thread in 0..2 {
            let registry = &registry;
            scope.spawn(move || {
                let mut key = thread;
                while Instant::now() < end {
                    for _ in 0..64 {
                        drop(registry.try_insert(key, vec![1; 1000]));
                        key += 2;
                    }
                }
            });
        }
    });
    let stats = domain.stats();
    println!("{} evicted, peak {}", registry.stats().evicted, stats.peak);
    stats.peak.bytes
}

#[test]
fn a_loop_that_sleeps_a_millisecond_after_each_step_keeps_up() {
    let (domain, jobs) = queued(Domain::builder());
    let pool = thread::spawn(move || {
        for mut job in jobs {
            while let Some(wait) = job.step() {
                // An async timer has no shorter time.
                thread::sleep(wait.max(Duration::from_millis(1)));
            }
        }
    });
    let peak = churn(&domain);
    drop(domain);
    pool.join().unwrap();
    assert!(peak < 32 << 20, "{peak} bytes waited");
}

/// The lines that were logged.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| log::set_logger(&Lines).unwrap());
    log::set_max_level(log::LevelFilter::Warn);
}

fn lines_about(domain: &str) -> usize {
    let name = format!("domain `{domain}`");
    LINES.lock().unwrap().iter().filter(|line| line.contains(&name)).count()
}

#[test]
fn if_an_executor_drops_its_job_a_thread_takes_over_and_a_warning_is_logged() {
    listen();
    let (domain, jobs) = queued(Domain::builder().name("dropped"));
    let (registry, ledger) = (Registry::builder().domain(domain.clone()).shards(1).build(), Ledger::new());
    let insert_and_remove = || {
        drop(registry.try_insert(1, ledger.value(1)));
        drop(registry.remove(&1));
    };
    insert_and_remove();
    // The runtime ends, and its task with it.
    drop(jobs);
    assert!(soon(|| ledger.live() == 0), "{} live", ledger.live());
    for _ in 0..10 {
        insert_and_remove();
        assert!(soon(|| ledger.live() == 0), "{} live", ledger.live());
    }
    assert_eq!(lines_about("dropped"), 1);
    domain.stop_reclaimer();
    insert_and_remove();
    thread::sleep(Duration::from_millis(100));
    assert_eq!(ledger.live(), 1, "the value was dropped without a writer, although writers reclaim from now on");
}

#[test]
fn an_executor_that_runs_its_jobs_gets_no_thread_and_no_warning() {
    listen();
    let (domain, jobs) = queued(Domain::builder().name("healthy"));
    let pool = thread::spawn(move || jobs.into_iter().for_each(ReclaimJob::run));
    let (registry, ledger) = (Registry::builder().domain(domain.clone()).build(), Ledger::new());
    for turn in 0..times(50) as u64 {
        (0..100).for_each(|key| drop(registry.try_insert(key, ledger.value(turn))));
        (0..100).for_each(|key| drop(registry.remove(&key)));
        assert!(soon(|| ledger.live() == 0));
    }
    drop((registry, domain));
    pool.join().unwrap();
    assert_eq!(lines_about("healthy"), 0);
}

#[test]
fn reapers_are_still_called_when_the_executor_has_ended() {
    listen();
    let (domain, jobs) = queued(Domain::builder().name("reaping").reap_every(Duration::from_millis(5)));
    let reaper = Arc::new(Calls(AtomicUsize::new(0)));
    domain.add_reaper(&reaper);
    let mut job = jobs.recv().unwrap();
    assert!(job.step().is_some_and(|wait| wait <= Duration::from_millis(20)) && reaper.0.load(SeqCst) == 1);
    drop((job, jobs));
    assert!(soon(|| reaper.0.load(SeqCst) > 5));
    assert_eq!(lines_about("reaping"), 1);
}

#[test]
fn a_job_that_sleeps_until_its_reapers_are_due_is_woken_by_a_removal() {
    let (domain, jobs) = queued(Domain::builder().reap_every(Duration::from_secs(3600)));
    thread::spawn(move || jobs.into_iter().for_each(ReclaimJob::run));
    let reaper = Arc::new(Calls(AtomicUsize::new(0)));
    domain.add_reaper(&reaper);
    assert!(soon(|| reaper.0.load(SeqCst) == 1));
    thread::sleep(Duration::from_millis(50));
    let (registry, ledger) = (Registry::builder().domain(domain.clone()).build(), Ledger::new());
    drop(registry.try_insert(1, ledger.value(1)));
    drop(registry.remove(&1));
    assert!(soon(|| ledger.live() == 0), "{} live", ledger.live());
}

/// A waker that unparks a thread.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    while future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        thread::park();
    }
}

/// A future that sleeps on a thread of its own, for at least a millisecond.
struct Sleep(Arc<AtomicBool>, Duration, bool);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0.load(SeqCst) {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut self.2, true) {
            let (over, time, waker) = (Arc::clone(&self.0), self.1, context.waker().clone());
            thread::spawn(move || {
                thread::sleep(time.max(Duration::from_millis(1)));
                over.store(true, SeqCst);
                waker.wake();
            });
        }
        Poll::Pending
    }
}

fn sleep(time: Duration) -> Sleep {
    assert!(!time.is_zero(), "the time to sleep is zero");
    Sleep(Arc::default(), time, false)
}

#[test]
fn a_job_as_a_future_keeps_up_and_ends() {
    let (domain, jobs) = queued(Domain::builder());
    let pool = thread::spawn(move || jobs.into_iter().for_each(|job| block_on(job.run_with(sleep))));
    let peak = churn(&domain);
    let (registry, ledger) = (Registry::builder().domain(domain.clone()).build(), Ledger::new());
    for _ in 0..20 {
        drop(registry.try_insert(1, ledger.value(1)));
        let guard = registry.pin();
        drop(registry.remove(&1));
        thread::sleep(Duration::from_millis(2));
        drop(guard);
        assert!(soon(|| ledger.live() == 0));
    }
    drop((registry, domain));
    pool.join().unwrap();
    assert!(peak < 32 << 20, "{peak} bytes waited");
}

#[test]
fn a_future_that_sleeps_is_woken_by_a_removal_and_yields_between_rounds() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    let (domain, jobs) = queued(Domain::builder().reap_every(Duration::from_secs(3600)));
    let reaper = Arc::new(Calls(AtomicUsize::new(0)));
    domain.add_reaper(&reaper);
    // Only a removal ends this sleep.
    let mut job = pin!(is_send(jobs.recv().unwrap().run_with(|_| std::future::pending())));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    assert!(job.as_mut().poll(&mut context).is_pending() && reaper.0.load(SeqCst) == 1 && !woken.take());
    let (registry, ledger) = (Registry::builder().domain(domain.clone()).build(), Ledger::new());
    drop(registry.try_insert(1, ledger.value(1)));
    drop(registry.remove(&1));
    assert!(woken.take(), "the removal did not wake the task");
    assert!(job.as_mut().poll(&mut context).is_pending() && ledger.live() == 0);
    // These callbacks do not fit into one slice of time.
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..2000 {
        let count = Arc::clone(&ran);
        domain.call(move || {
            thread::sleep(Duration::from_micros(1));
            count.fetch_add(1, SeqCst);
        });
    }
    let mut polls = 0;
    while woken.take() {
        assert!(job.as_mut().poll(&mut context).is_pending());
        polls += 1;
    }
    // Each poll runs for about one slice of time.
    assert!(polls >= 8 && ran.load(SeqCst) == 2000, "{polls} polls, {}", domain.backlog());
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Woken {
    fn take(&self) -> bool {
        self.0.swap(false, SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// While a reader holds up the grace period, the job sleeps, and runs a round every 2 ms.
#[test]
fn a_job_sleeps_while_a_reader_is_in_the_way() {
    let (domain, jobs) = queued(Domain::builder());
    let guard = domain.pin();
    domain.call(|| ());
    let sleeps = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sleeps);
    let (ended, has_ended) = channel();
    let pool = thread::spawn(move || {
        let job = jobs.recv().unwrap().run_with(move |time| {
            count.fetch_add(1, SeqCst);
            sleep(time)
        });
        block_on(job);
        ended.send(()).unwrap();
        // A thread that runs the next job uses little processor time.
        let job = jobs.recv().unwrap();
        let begun = processor_time();
        job.run();
        processor_time().zip(begun).map(|(now, begun)| now - begun)
    });
    thread::sleep(Duration::from_millis(200));
    let count = sleeps.load(SeqCst);
    assert!((10..=200).contains(&count), "{count} sleeps in 200 ms");
    drop(guard);
    // A job that has not ended would take the next callback, too.
    has_ended.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(domain.backlog().objects, 0);
    let guard = domain.pin();
    domain.call(|| ());
    thread::sleep(Duration::from_millis(500));
    drop(guard);
    let spent = pool.join().unwrap();
    assert!(spent.is_none_or(|ticks| ticks <= 10), "{spent:?} hundredths of a second");
}

/// The processor time of this thread, in hundredths of a second, if the system reports it.
fn processor_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}
