//! Races for one key between callers that make its value, update it, or remove it.

use crate::world::{Watched, World, part};
use loom::sync::Notify;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A task that loom knows.
struct Task(Notify);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// Polls a future whenever its task is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    let task = Arc::new(Task(Notify::new()));
    let waker = Waker::from(Arc::clone(&task));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        task.0.wait();
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Two callers ask for an absent key: this one by a loader that succeeds, the other by `ask`. Returns what the other has
/// read, if anything, and how many loaders have made a value.
fn race(ask: impl FnOnce(&World, &mut dyn FnMut() -> Watched) -> Option<u32> + Send + 'static) -> (Option<u32>, usize) {
    let world = World::new(0..0);
    let (other, made) = (Arc::clone(&world), Arc::new(AtomicUsize::new(0)));
    let theirs = Arc::clone(&made);
    let asking = part(&world.domain, move || {
        let mut load = || {
            theirs.fetch_add(1, Ordering::SeqCst);
            other.value(1)
        };
        ask(&other, &mut load)
    });
    let entry = world.registry().get_or_insert_with(1, || {
        made.fetch_add(1, Ordering::SeqCst);
        world.value(2)
    });
    let mine = entry.read();
    let theirs = asking.join().unwrap();
    let made = made.load(Ordering::SeqCst);
    assert_eq!(world.registry().stats().inserted, 1);
    assert_eq!(world.registry().lookup(&1).unwrap().read(), mine);
    assert!(theirs.is_none_or(|theirs| theirs == mine));
    drop(entry);
    world.account(made);
    (theirs, made)
}

pub fn load_load() {
    let (theirs, made) = race(|world, load| Some(world.registry().get_or_insert_with(1, load).read()));
    assert!(theirs.is_some() && made == 1);
}

pub fn load_panic() {
    let (_, made) = race(|world, _| {
        let load = || resume_unwind(Box::new("a loader panics on purpose"));
        let entry = catch_unwind(AssertUnwindSafe(|| world.registry().get_or_insert_with(1, load)));
        entry.ok().map(|entry| entry.read())
    });
    assert_eq!(made, 1);
}

pub fn load_failure() {
    let (_, made) = race(|world, _| {
        let entry = world.registry().get_or_try_insert_with(1, || Err(()));
        entry.ok().map(|entry| entry.read())
    });
    assert_eq!(made, 1);
}

pub fn load_task() {
    let (theirs, made) = race(|world, load| {
        let entry = block_on(world.registry().get_or_insert_async(1, async || load()));
        Some(entry.read())
    });
    assert!(theirs.is_some() && made == 1);
}

pub fn load_dropped_wait() {
    let (_, made) = race(|world, load| {
        let mut waiting = pin!(world.registry().get_or_insert_async(1, async || load()));
        match poll(waiting.as_mut()) {
            Poll::Ready(entry) => Some(entry.read()),
            // The future is dropped while it waits, or while its waker is called.
            Poll::Pending => None,
        }
    });
    assert_eq!(made, 1);
}

pub fn load_dropped_loader() {
    let (theirs, made) = race(|world, _| {
        let mut stuck = pin!(world.registry().get_or_insert_async(1, std::future::pending));
        match poll(stuck.as_mut()) {
            Poll::Ready(entry) => Some(entry.read()),
            Poll::Pending => None,
        }
    });
    assert!(theirs.is_none_or(|theirs| theirs == 2) && made == 1);
}

pub fn update_update() {
    let world = World::new(1..2);
    let other = Arc::clone(&world);
    let updating = part(&world.domain, move || {
        drop(other.registry().update(&1, |_, old| other.value(old.read() + 1)).expect("the key is present"));
    });
    drop(world.registry().update(&1, |_, old| world.value(old.read() + 1)).expect("the key is present"));
    updating.join().unwrap();
    assert_eq!(world.registry().lookup(&1).unwrap().read(), 3, "an update is lost");
    world.account(3);
}

pub fn update_remove() {
    let world = World::new(1..2);
    let other = Arc::clone(&world);
    let removing = part(&world.domain, move || other.registry().remove(&1).expect("the key is present").read());
    let updated = world.registry().update(&1, |_, old| world.value(old.read() + 1)).map(|new| new.read());
    let removed = removing.join().unwrap();
    // The update came first, and the removal took the new entry; or the removal came first.
    assert!(matches!((updated, removed), (Some(2), 2) | (None, 1)));
    assert!(world.registry().is_empty());
    world.account(1 + usize::from(updated.is_some()));
}

pub fn update_remove_handle() {
    let world = World::new(1..2);
    let other = Arc::clone(&world);
    let entry = world.registry().lookup(&1).unwrap();
    let removing = part(&world.domain, move || {
        let removed = other.registry().remove_handle(&entry);
        drop(entry);
        removed
    });
    let mut runs = 0;
    let updated = world.registry().update(&1, |_, old| {
        runs += 1;
        world.value(old.read() + 1)
    });
    let removed = removing.join().unwrap();
    // Either the update replaced the entry, or the removal took it away, perhaps while the closure ran.
    assert!(updated.is_some() ^ removed);
    assert_eq!(world.registry().len(), usize::from(updated.is_some()));
    drop(updated);
    world.account(1 + runs);
}
