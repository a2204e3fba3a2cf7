//! A domain with default settings: writers reclaim, and a backup thread destroys what waits after the last write.

mod common;

use common::*;
use epoch_registry::{Domain, Registry};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The longest time that a removed value may stay without a further call, and the extra time that a loaded machine may
/// need.
const PROMPT: Duration = Duration::from_millis(50);
const SLACK: Duration = Duration::from_millis(450);

type Channels = Registry<u64, Sender<()>>;

/// Inserts the only sender of a channel under key 1, and calls `lose`, which makes the registry lose it. Waits until
/// the receiver notices, and returns how long that took. No other test of this binary may run at the same time, or it
/// takes longer.
fn time_to_disconnect<R>(registry: &Channels, lose: impl FnOnce(&Channels) -> R) -> Duration {
    let (sender, receiver) = channel();
    drop(registry.insert(1, sender));
    let kept = lose(registry);
    let begun = Instant::now();
    let outcome = receiver.recv_timeout(PROMPT + SLACK);
    let taken = begun.elapsed();
    assert_eq!(outcome, Err(RecvTimeoutError::Disconnected), "the sender was not dropped within {taken:?}");
    drop(kept);
    taken
}

/// Checks the median of five runs, because the threads of a test share a loaded machine.
fn is_prompt(what: &str, mut once: impl FnMut() -> Duration) {
    let mut taken: Vec<_> = (0..5).map(|_| once()).collect();
    taken.sort();
    println!("{what}: {taken:?}");
    assert!(taken[2] <= PROMPT, "{what}: {taken:?}");
}

/// Tries every way in which an entry can leave a registry.
fn every_way_out_is_prompt(registry: &Channels) {
    is_prompt("remove", || time_to_disconnect(registry, |registry| drop(registry.remove(&1))));
    is_prompt("replace", || {
        let (other, _receiver) = channel();
        time_to_disconnect(registry, |registry| drop(registry.insert(1, other)))
    });
    is_prompt("clear", || time_to_disconnect(registry, Registry::clear));
    is_prompt("retain", || time_to_disconnect(registry, |registry| registry.retain(|_, _| false)));
    is_prompt("drain", || time_to_disconnect(registry, |registry| registry.drain().for_each(drop)));
    is_prompt("a handle that is dropped after the removal", || {
        time_to_disconnect(registry, |registry| {
            let handle = registry.remove(&1);
            thread::sleep(Duration::from_millis(200));
            drop(handle);
        })
    });
    is_prompt("a handle that is dropped by another thread", || {
        time_to_disconnect(registry, |registry| {
            let handle = registry.lookup(&1);
            drop(registry.remove(&1));
            thread::spawn(move || drop(handle)).join().unwrap();
        })
    });
    is_prompt("a callback", || {
        time_to_disconnect(registry, |registry| {
            let handle = registry.lookup(&1);
            drop(registry.remove(&1));
            registry.domain().call(move || drop(handle));
        })
    });
    is_prompt("a reader that leaves", || {
        time_to_disconnect(registry, |registry| {
            let guard = registry.pin();
            drop(registry.remove(&1));
            thread::sleep(Duration::from_millis(50));
            drop(guard);
        })
    });
    is_prompt("after an idle time", || {
        thread::sleep(Duration::from_millis(500));
        time_to_disconnect(registry, |registry| drop(registry.remove(&1)))
    });
}

#[test]
fn removed_values_are_dropped_without_a_further_call_in_the_global_domain() {
    every_way_out_is_prompt(&Registry::new());
}

#[test]
fn removed_values_are_dropped_without_a_further_call_in_a_default_domain() {
    every_way_out_is_prompt(&Registry::builder().domain(Domain::new()).shards(2).build());
}

#[test]
fn a_large_backlog_is_destroyed_without_a_further_call() {
    let (registry, ledger) = (Registry::builder().domain(Domain::new()).build(), Ledger::new());
    (0..100_000).for_each(|key| drop(registry.try_insert(key, ledger.value(key))));
    registry.clear();
    assert!(soon(|| ledger.live() == 0), "{} live", ledger.live());
}

#[test]
fn threads_that_end_strand_nothing() {
    let ledger = Ledger::new();
    let registry = Arc::new(Registry::builder().domain(Domain::new()).build());
    for turn in 0..50 {
        let (theirs, value) = (Arc::clone(&registry), ledger.value(turn));
        thread::spawn(move || {
            drop(theirs.try_insert(turn, value));
            drop(theirs.remove(&turn));
        })
        .join()
        .unwrap();
    }
    assert!(soon(|| ledger.live() == 0), "{} live", ledger.live());
}

#[test]
fn if_only_writers_reclaim_nothing_is_dropped_without_a_further_call() {
    let explicit: [fn() -> Domain; 4] = [
        || Domain::builder().writers_only().build(),
        || Domain::builder().reclaimer(false).build(),
        || Domain::builder().manual().build(),
        || {
            let domain = Domain::new();
            domain.stop_reclaimer();
            domain
        },
    ];
    for domain in explicit {
        let domain = domain();
        let (registry, ledger) = (Registry::builder().domain(domain.clone()).shards(1).build(), Ledger::new());
        drop(registry.try_insert(1, ledger.value(1)));
        drop(registry.remove(&1));
        thread::sleep(Duration::from_millis(100));
        assert_eq!(ledger.live(), 1);
        domain.barrier();
        assert_eq!(ledger.live(), 0);
    }
}

#[test]
fn after_stop_reclaimer_the_thread_ends_and_writers_reclaim() {
    in_time(|| {
        let (domain, ledger) = (Domain::builder().name("stopped").build(), Ledger::new());
        let registry = Registry::builder().domain(domain.clone()).shards(1).build();
        drop(registry.try_insert(1, ledger.value(1)));
        drop(registry.remove(&1));
        assert!(soon(|| ledger.live() == 0));
        assert_eq!(threads_named("stopped-reclaim"), usize::from(cfg!(target_os = "linux")));
        domain.stop_reclaimer();
        assert!(soon(|| threads_named("stopped-reclaim") == 0));
        drop(registry.try_insert(1, ledger.value(1)));
        drop(registry.remove(&1));
        thread::sleep(Duration::from_millis(100));
        assert_eq!((ledger.live(), threads_named("stopped-reclaim")), (1, 0));
        assert!(soon(|| {
            thread::sleep(Duration::from_millis(5));
            drop(registry.try_insert(2, ledger.value(2)));
            drop(registry.remove(&2));
            ledger.live() <= 1
        }));
    });
}

/// Counts the threads of this process with that name. The system shows only the first 15 bytes of a name.
fn threads_named(name: &str) -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|found| found.trim() == &name[..name.len().min(15)]).count()
}

#[test]
fn a_domain_starts_its_thread_when_something_waits_and_the_thread_ends_with_it() {
    let domain = Domain::builder().name("lazily").build();
    // The registry has room from the start, because a table that a resize replaces waits too.
    let registry = Registry::builder().domain(domain.clone()).capacity(1000).build();
    (0..100).for_each(|key| drop(registry.try_insert(key, key)));
    (0..100).for_each(|key| drop(registry.lookup(&key)));
    assert_eq!(threads_named("lazily-reclaim"), 0, "a thread was started although nothing waits");
    drop(registry.remove(&1));
    if cfg!(target_os = "linux") {
        assert!(soon(|| threads_named("lazily-reclaim") == 1));
    }
    drop((registry, domain));
    assert!(soon(|| threads_named("lazily-reclaim") == 0));
}

#[test]
fn short_lived_domains_leave_no_threads() {
    in_time(|| {
        let ledger = Ledger::new();
        for turn in 0..200 {
            let registry = Registry::builder().domain(Domain::builder().name("brief").build()).shards(1).build();
            drop(registry.try_insert(1, ledger.value(1)));
            let handle = registry.remove(&1);
            if turn % 2 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            drop(registry);
            drop(handle);
        }
        assert_eq!(ledger.live(), 0);
        assert!(soon(|| threads_named("brief-reclaim") == 0));
    });
}

#[test]
fn the_backup_thread_may_drop_the_last_reference_to_its_domain() {
    in_time(|| {
        for _ in 0..100 {
            let (registry, ledger) = (Registry::builder().domain(Domain::new()).shards(1).build(), Ledger::new());
            let handle = registry.try_insert(1, ledger.value(1)).unwrap();
            drop(registry.remove(&1));
            let held = Mutex::new(Some((registry, handle)));
            let domain = held.lock().unwrap().as_ref().unwrap().0.domain().clone();
            // The callback drops the registry, the handle and the domain, on whatever thread it runs.
            let theirs = domain.clone();
            domain.call(move || drop((held, theirs)));
            drop(domain);
            assert!(soon(|| ledger.live() == 0));
        }
    });
}

#[test]
fn the_backup_thread_calls_reapers_and_a_removal_wakes_it() {
    let domain = Domain::builder().reap_every(Duration::from_secs(3600)).build();
    let reaper = Arc::new(Calls(AtomicUsize::new(0)));
    domain.add_reaper(&reaper);
    assert!(soon(|| reaper.0.load(SeqCst) == 1));
    // The thread waits an hour for the next round. The removal wakes it.
    thread::sleep(Duration::from_millis(300));
    let registry = Registry::builder().domain(domain.clone()).build();
    is_prompt("remove", || time_to_disconnect(&registry, |registry| drop(registry.remove(&1))));
    let often = Domain::builder().reap_every(Duration::from_millis(20)).build();
    often.add_reaper(&reaper);
    assert!(soon(|| reaper.0.load(SeqCst) > 10));
}

/// Runs this binary again with one test alone, and with `variable` set. Returns its output. Panics if the run fails.
fn again(test: &str, variable: &str, others: &[(&str, &str)]) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(variable, "1").envs(others.iter().copied());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
    text
}

/// A logger that prints every record.
struct Printing;

impl log::Log for Printing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        println!("{}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

#[test]
fn if_no_thread_can_be_started_writers_reclaim_and_it_is_logged_once() {
    if std::env::var_os("BACKUP_NO_THREAD").is_none() {
        // No address space has room for a stack of this size.
        let test = "if_no_thread_can_be_started_writers_reclaim_and_it_is_logged_once";
        let stack = if usize::BITS == 64 { "70368744177664" } else { "4026531840" };
        let text = again(test, "BACKUP_NO_THREAD", &[("RUST_MIN_STACK", stack)]);
        assert_eq!(text.matches("WARN: domain `poor`").count(), 1, "{text}");
        return;
    }
    log::set_logger(&Printing).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    assert!(thread::Builder::new().spawn(|| ()).is_err(), "a thread was started, although the stack is too large");
    let (domain, ledger) = (Domain::builder().name("poor").build(), Ledger::new());
    let registry = Registry::builder().domain(domain).shards(1).build();
    let end = Instant::now() + Duration::from_millis(2500);
    while Instant::now() < end {
        drop(registry.try_insert(1, ledger.value(1)));
        drop(registry.remove(&1));
        thread::sleep(Duration::from_millis(5));
        assert!(ledger.live() < 20, "{} live", ledger.live());
    }
}

#[test]
fn a_process_may_exit_while_the_thread_is_at_work() {
    if std::env::var_os("BACKUP_EXIT").is_none() {
        for _ in 0..20 {
            again("a_process_may_exit_while_the_thread_is_at_work", "BACKUP_EXIT", &[]);
        }
        return;
    }
    let registry = Registry::new();
    (0..50_000_u64).for_each(|key| drop(registry.try_insert(key, vec![key; 10])));
    registry.clear();
    thread::sleep(Duration::from_millis(u64::from(std::process::id() % 20)));
    std::mem::forget(registry);
}

#[cfg(target_os = "linux")]
#[test]
fn a_forked_child_starts_a_thread_of_its_own() {
    // The parent's thread is parked, so it holds no lock.
    let domain = Domain::builder().name("forked").build();
    let registry = Registry::builder().domain(domain.clone()).shards(1).build();
    time_to_disconnect(&registry, |registry| drop(registry.remove(&1)));
    thread::sleep(Duration::from_millis(500));
    // SAFETY: the child uses only what no other thread holds, and ends by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let (sender, receiver) = channel();
        drop(registry.insert(1, sender));
        drop(registry.remove(&1));
        let first = receiver.recv_timeout(Duration::from_secs(5)) == Err(RecvTimeoutError::Disconnected);
        drop((registry, domain));
        // SAFETY: `_exit` only ends the process.
        unsafe { libc::_exit(if first { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: the pointer is to a local variable.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child's exit status");
    time_to_disconnect(&registry, |registry| drop(registry.remove(&1)));
}

/// A thread retires more than the soft mark in one registry all the time, and readers make grace periods long. Another
/// registry of the domain has a single entry, in a shard that no thread writes to any more. When that entry is removed,
/// it is destroyed in time.
#[test]
fn a_quiet_shard_is_not_forgotten_beyond_the_soft_mark() {
    for (who, builder) in [("the backup", Domain::builder()), ("writers", Domain::builder().writers_only())] {
        let domain = builder.build();
        let busy: Registry<u64, u64> = Registry::builder().shards(1).domain(domain.clone()).build();
        let quiet: Registry<u64, OnDrop> = Registry::builder().shards(1).domain(domain.clone()).build();
        let stop = Stop::default();
        thread::scope(|scope| {
            let (busy, domain, stop) = (&busy, &domain, &stop);
            for turn in 0..2 {
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(15) * turn);
                    while !stop.stopped() {
                        let _reading = domain.pin();
                        thread::sleep(Duration::from_millis(30));
                    }
                });
            }
            scope.spawn(move || {
                let since = Instant::now();
                let mut written = 0;
                while !stop.stopped() {
                    // 200,000 writes a second.
                    while written < since.elapsed().as_micros() as u64 / 5 {
                        busy.set(written % 1000, written);
                        written += 1;
                    }
                    thread::sleep(Duration::from_micros(200));
                }
            });
            let _end = stop.at_end();
            thread::sleep(Duration::from_millis(300));
            for key in 0..3 {
                let (send, dropped) = channel();
                quiet.set(key, OnDrop::new(move || send.send(()).unwrap()));
                quiet.delete(&key);
                let since = Instant::now();
                assert!(dropped.recv_timeout(Duration::from_secs(2)).is_ok(), "{who}: not destroyed after 2 s");
                println!("{who}: destroyed after {:?}", since.elapsed());
            }
        });
    }
}
