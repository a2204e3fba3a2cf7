//! Walks of lists against writers, and writers against each other.

use crate::world::{Watched, part};
use epoch_registry::{BothWays, Domain, Forward, ListHandle, RcuList, Walk};
use loom::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A list, another list in the same domain, and a count of dropped values. Shared by std's `Arc`, which loom does not model.
struct Lists<D: Walk> {
    list: RcuList<Watched, D>,
    other: RcuList<Watched, D>,
    domain: Domain,
    drops: Arc<AtomicUsize>,
}

impl Lists<Forward> {
    fn new(contents: impl IntoIterator<Item = u32>) -> Arc<Self> {
        let domain = Domain::builder().name("model").build();
        let (list, other) = (RcuList::new_in(&domain), RcuList::new_in(&domain));
        Arc::new(Lists { list, other, domain, drops: Arc::default() }.filled(contents))
    }
}

impl Lists<BothWays> {
    fn bidir(contents: impl IntoIterator<Item = u32>) -> Arc<Self> {
        let domain = Domain::builder().name("model").build();
        let (list, other) = (RcuList::bidir_in(&domain), RcuList::bidir_in(&domain));
        Arc::new(Lists { list, other, domain, drops: Arc::default() }.filled(contents))
    }

    fn seen_backward(&self) -> Vec<u32> {
        self.list.iter_back(&self.domain.pin()).map(|entry| entry.read()).collect()
    }
}

impl<D: Walk> Lists<D> {
    fn filled(self, contents: impl IntoIterator<Item = u32>) -> Self {
        contents.into_iter().for_each(|content| drop(self.list.push_back(self.value(content))));
        self
    }

    fn value(&self, content: u32) -> Watched {
        Watched { memory: UnsafeCell::new(content), drops: Arc::clone(&self.drops), dropped: Arc::default(), bit: 1 }
    }

    /// Returns a handle to the entry at a position.
    fn handle(&self, position: usize) -> ListHandle<Watched, D> {
        self.list.iter(&self.domain.pin()).nth(position).expect("the position is in the list").handle()
    }

    /// Returns what one walk finds.
    fn seen(&self) -> Vec<u32> {
        self.list.iter(&self.domain.pin()).map(|entry| entry.read()).collect()
    }

    /// Runs a barrier, and checks that the values are dropped that are in no list.
    fn account(&self, created: usize) {
        self.domain.barrier();
        let live = self.list.len() + self.other.len();
        assert_eq!(self.drops.load(Ordering::SeqCst) + live, created, "{live} live");
    }
}

/// Returns what one walk sees while `write` changes the list at the entry of this position.
fn walk_while<D: Walk>(
    lists: &Arc<Lists<D>>,
    position: usize,
    walk: fn(&Lists<D>) -> Vec<u32>,
    write: impl FnOnce(ListHandle<Watched, D>),
) -> Vec<u32> {
    let (handle, reader) = (lists.handle(position), Arc::clone(lists));
    let reading = part(&lists.domain, move || walk(&reader));
    write(handle);
    reading.join().unwrap()
}

impl<D: Walk> Lists<D> {
    fn remove(&self, handle: ListHandle<Watched, D>) {
        assert!(self.list.remove(&handle).is_some());
        drop(handle);
        self.domain.reclaim(usize::MAX);
    }

    fn replace(&self, handle: ListHandle<Watched, D>) {
        self.list.replace(&handle, self.value(100)).unwrap();
        drop(handle);
        self.domain.reclaim(usize::MAX);
    }

    fn insert_before(&self, handle: ListHandle<Watched, D>) {
        self.list.insert_before(&handle, self.value(2)).unwrap();
    }
}

pub fn list_iterate_remove() {
    let lists = Lists::new(1..=3);
    let seen = walk_while(&lists, 1, Lists::seen, |handle| lists.remove(handle));
    assert!(seen == [1, 2, 3] || seen == [1, 3], "{seen:?}");
    lists.account(3);
}

pub fn list_iterate_insert() {
    let lists = Lists::new([1, 3]);
    let seen = walk_while(&lists, 1, Lists::seen, |handle| lists.insert_before(handle));
    assert!(seen == [1, 2, 3] || seen == [1, 3], "{seen:?}");
    lists.account(3);
}

pub fn list_iterate_replace() {
    let lists = Lists::new(1..=3);
    let seen = walk_while(&lists, 1, Lists::seen, |handle| lists.replace(handle));
    assert!(seen == [1, 2, 3] || seen == [1, 100, 3], "{seen:?}");
    lists.account(4);
}

pub fn list_iterate_clear() {
    let lists = Lists::new(1..=2);
    let reader = Arc::clone(&lists);
    let reading = part(&lists.domain, move || reader.seen());
    assert_eq!(lists.list.clear(), 2);
    lists.domain.reclaim(usize::MAX);
    let seen = reading.join().unwrap();
    assert!(seen == [1, 2] || seen.is_empty(), "{seen:?}");
    lists.account(2);
}

pub fn list_iterate_splice() {
    let lists = Lists::new(1..=2);
    let reader = Arc::clone(&lists);
    let reading = part(&lists.domain, move || reader.seen());
    lists.other.push_back(lists.value(0));
    assert_eq!(lists.other.splice_back(&lists.list).finish(), 2);
    lists.other.push_back(lists.value(3));
    let seen = reading.join().unwrap();
    // Nothing of the other list.
    assert!(seen == [1, 2] || seen.is_empty(), "{seen:?}");
    lists.account(4);
}

pub fn list_iterate_abandon() {
    let lists = Lists::new(1..=2);
    let reader = Arc::clone(&lists);
    let reading = part(&lists.domain, move || reader.seen());
    let splice = lists.other.splice_back(&lists.list);
    lists.list.push_back(lists.value(3));
    drop(splice);
    let seen = reading.join().unwrap();
    // The chain, what came for it, or both in the order of the list.
    let possible: [&[u32]; 4] = [&[], &[1, 2], &[3], &[1, 2, 3]];
    assert!(possible.contains(&&*seen), "{seen:?}");
    assert_eq!(lists.seen(), [1, 2, 3]);
    lists.account(3);
}

pub fn list_resume_remove() {
    let lists = Lists::new(1..=2);
    // Shared, so that the drop of the last one is not a part of the race.
    let first = Arc::new(lists.handle(0));
    let (handle, reader) = (Arc::clone(&first), Arc::clone(&lists));
    let reading = part(&lists.domain, move || {
        let section = reader.domain.pin();
        let walk = reader.list.resume(&handle, &section)?;
        Some(walk.map(|entry| entry.read()).collect::<Vec<_>>())
    });
    lists.list.remove(&first);
    drop(lists.list.pop_front());
    lists.domain.reclaim(usize::MAX);
    if let Some(seen) = reading.join().unwrap() {
        assert!(seen == [2] || seen.is_empty(), "{seen:?}");
    }
    drop(first);
    lists.account(2);
}

pub fn list_resume_clear() {
    let lists = Lists::new(1..=2);
    let first = Arc::new(lists.handle(0));
    let (handle, reader) = (Arc::clone(&first), Arc::clone(&lists));
    let reading = part(&lists.domain, move || {
        let section = reader.domain.pin();
        let walk = reader.list.resume(&handle, &section)?;
        Some(walk.map(|entry| entry.read()).collect::<Vec<_>>())
    });
    assert_eq!(lists.list.clear(), 2);
    lists.domain.reclaim(usize::MAX);
    if let Some(seen) = reading.join().unwrap() {
        assert_eq!(seen, [2]);
    }
    drop(first);
    lists.account(2);
}

pub fn list_handle_remove() {
    let lists = Lists::new(1..=1);
    let reader = Arc::clone(&lists);
    let reading = part(&lists.domain, move || {
        let handle = reader.list.first(&reader.domain.pin()).map(|entry| entry.handle());
        if let Some(handle) = handle {
            assert_eq!(handle.read(), 1);
        }
    });
    drop(lists.list.pop_front());
    lists.domain.reclaim(usize::MAX);
    reading.join().unwrap();
    lists.account(1);
}

pub fn list_put_remove() {
    let lists = Lists::new(1..=1);
    let (handle, holder) = (lists.handle(0), Arc::clone(&lists));
    let putting = part(&lists.domain, move || {
        assert_eq!(handle.read(), 1);
        drop(handle);
        drop(holder);
    });
    drop(lists.list.pop_front());
    lists.domain.reclaim(usize::MAX);
    putting.join().unwrap();
    lists.account(1);
}

pub fn list_remove_remove() {
    let lists = Lists::new(1..=2);
    let (handle, other) = (lists.handle(0), Arc::clone(&lists));
    let own = handle.clone();
    let removing = part(&lists.domain, move || other.list.remove(&own).is_some());
    let removed = lists.list.remove(&handle).is_some();
    drop(handle);
    assert!(removed != removing.join().unwrap());
    assert_eq!(lists.seen(), [2]);
    lists.account(2);
}

pub fn list_remove_neighbour() {
    let lists = Lists::new(1..=3);
    let (first, second, other) = (lists.handle(0), lists.handle(1), Arc::clone(&lists));
    let removing = part(&lists.domain, move || assert!(other.list.remove(&first).is_some()));
    assert!(lists.list.remove(&second).is_some());
    drop(second);
    removing.join().unwrap();
    assert_eq!(lists.seen(), [3]);
    lists.account(3);
}

pub fn list_back_remove() {
    let lists = Lists::bidir(1..=3);
    let seen = walk_while(&lists, 1, Lists::seen_backward, |handle| lists.remove(handle));
    assert!(seen == [3, 2, 1] || seen == [3, 1], "{seen:?}");
    lists.account(3);
}

pub fn list_back_insert() {
    let lists = Lists::bidir([1, 3]);
    let seen = walk_while(&lists, 1, Lists::seen_backward, |handle| lists.insert_before(handle));
    assert!(seen == [3, 2, 1] || seen == [3, 1], "{seen:?}");
    assert_eq!(lists.seen_backward(), [3, 2, 1]);
    lists.account(3);
}

pub fn list_back_replace() {
    let lists = Lists::bidir(1..=3);
    let seen = walk_while(&lists, 1, Lists::seen_backward, |handle| lists.replace(handle));
    assert!(seen == [3, 2, 1] || seen == [3, 100, 1], "{seen:?}");
    lists.account(4);
}
