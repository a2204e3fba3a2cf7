//! Lists: their operations against `VecDeque`, walks beside writers, splices, and what user code may do in them.

use super::common::*;
use epoch_registry::{
    BacklogFull, BothWays, Domain, ListHandle, NotInList, RcuBidirList, RcuList, Registry, Splice, Walk, WhenFull,
};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

/// No thread of the domain's takes what a test is to see destroyed by its own calls.
fn domain() -> Domain {
    Domain::builder().writers_only().build()
}

fn contents<T: Copy + Send + Sync + 'static, D: Walk>(list: &RcuList<T, D>) -> Vec<T> {
    list.iter(&list.domain().pin()).map(|entry| *entry).collect()
}

fn numbers<D: Walk>(list: &RcuList<Counted, D>) -> Vec<u64> {
    list.iter(&list.domain().pin()).map(|entry| entry.get()).collect()
}

fn backward<T: Copy + Send + Sync + 'static>(list: &RcuBidirList<T>) -> Vec<T> {
    list.iter_back(&list.domain().pin()).map(|entry| *entry).collect()
}

// One thread.

/// A `VecDeque` of handles has the same order, and says which handles are in the list.
fn agree_with_a_deque<D: Walk>(seed: u64, list: &RcuList<Counted, D>, other: &RcuList<Counted, D>, ledger: &Ledger) {
    let mut rng = Rng::new(seed);
    let mut model: VecDeque<ListHandle<Counted, D>> = VecDeque::new();
    let (mut of_other, mut gone): (Vec<ListHandle<Counted, D>>, Vec<_>) = Default::default();
    for step in 0..200 {
        let value = || ledger.value(seed << 16 | step);
        let at = rng.below(model.len().max(1) as u64) as usize;
        match rng.below(14) {
            0 | 1 => model.push_back(list.push_back(value())),
            2 => model.push_front(list.push_front(value())),
            3 if !model.is_empty() => {
                let new = list.insert_before(&model[at], value()).unwrap();
                model.insert(at, new);
            }
            4 if !model.is_empty() => {
                let new = list.insert_after(&model[at], value()).unwrap();
                model.insert(at + 1, new);
            }
            5 => {
                let (popped, expected) = (list.pop_front(), model.pop_front());
                assert_eq!(popped.as_ref().map(|one| one.get()), expected.as_ref().map(|one| one.get()));
                gone.extend(popped);
            }
            6 if !model.is_empty() => {
                let handle = model.remove(at).unwrap();
                let cookie = list.remove(&handle).unwrap();
                list.domain().wait(cookie);
                gone.push(handle);
            }
            7 if !model.is_empty() => {
                let new = list.replace(&model[at], value()).unwrap();
                gone.push(std::mem::replace(&mut model[at], new));
            }
            8 => {
                let wanted = rng.below(8);
                let found = list.remove_first(|value| value.get() % 8 == wanted);
                let expected = model.iter().position(|value| value.get() % 8 == wanted);
                assert_eq!(found.as_ref().map(|one| one.get()), expected.map(|at| model[at].get()));
                expected.and_then(|at| model.remove(at));
                gone.extend(found);
            }
            9 => {
                let odd = rng.below(9);
                let before = model.len();
                model.retain(|value| value.get() % 9 != odd);
                assert_eq!(list.retain(|value| value.get() % 9 != odd), before - model.len());
            }
            10 if rng.below(8) == 0 => {
                assert_eq!(list.clear(), model.len());
                gone.extend(model.drain(..));
            }
            11 => of_other.push(other.push_back(value())),
            12 => {
                // Finished, or put back by its drop.
                let splice = list.splice_back(other);
                assert_eq!((splice.len(), other.len()), (of_other.len(), 0));
                assert!(of_other.iter().all(|handle| !other.is_linked(handle) && !list.is_linked(handle)));
                if rng.below(2) == 0 {
                    assert_eq!(splice.finish(), of_other.len());
                    model.extend(of_other.drain(..));
                }
            }
            _ if !gone.is_empty() => {
                let handle = &gone[rng.below(gone.len() as u64) as usize];
                let section = list.domain().pin();
                assert!(!list.is_linked(handle) && list.resume(handle, &section).is_none());
                drop(section);
                assert!(list.remove(handle).is_none());
                let NotInList(back) = list.replace(handle, value()).err().unwrap();
                let NotInList(back) = list.insert_before(handle, back).err().unwrap();
                let NotInList(back) = list.insert_after(handle, back).err().unwrap();
                assert_eq!(back.get(), seed << 16 | step);
                gone.truncate(8);
            }
            _ => {}
        }
        let section = list.domain().pin();
        assert!(list.iter(&section).map(|entry| entry.get()).eq(model.iter().map(|handle| handle.get())));
        assert_eq!((list.len(), list.is_empty()), (model.len(), model.is_empty()));
        assert_eq!(list.first(&section).map(|one| one.get()), model.front().map(|one| one.get()));
        assert!(model.iter().all(|handle| list.is_linked(handle) && !other.is_linked(handle)));
        assert!(numbers(other).into_iter().eq(of_other.iter().map(|handle| handle.get())));
        if let Some(handle) = model.get(at) {
            let rest = list.resume(handle, &section).unwrap();
            assert!(rest.map(|entry| entry.get()).eq(model.iter().skip(at + 1).map(|handle| handle.get())));
        }
    }
}

#[test]
fn any_sequence_of_operations_agrees_with_a_deque() {
    for seed in 0..times(60) as u64 {
        let (ledger, domain) = (Ledger::new(), domain());
        let (list, other) = (RcuList::new_in(&domain), RcuList::new_in(&domain));
        agree_with_a_deque(seed, &list, &other, &ledger);
        domain.barrier();
        assert_eq!(ledger.live(), (list.len() + other.len()) as u64);
        drop((list, other));
        assert_eq!(ledger.live(), 0);
    }
}

#[test]
fn any_sequence_of_operations_on_lists_that_are_walked_both_ways_agrees_with_a_deque() {
    for seed in 0..times(60) as u64 {
        let (ledger, domain) = (Ledger::new(), domain());
        let (list, other) = (RcuList::bidir_in(&domain), RcuList::bidir_in(&domain));
        agree_with_a_deque(seed, &list, &other, &ledger);
        let section = domain.pin();
        let mut back: Vec<_> = list.iter_back(&section).map(|entry| entry.get()).collect();
        back.reverse();
        assert_eq!(back, numbers(&list));
        assert_eq!(list.last(&section).map(|entry| entry.get()), back.last().copied());
        for (at, handle) in list.iter(&section).map(|entry| entry.handle()).enumerate() {
            let before: Vec<_> = list.resume_back(&handle, &section).unwrap().map(|entry| entry.get()).collect();
            assert!(before.iter().rev().eq(&back[..at]));
        }
        drop(section);
        while let Some(last) = list.pop_back() {
            assert_eq!(Some(last.get()), back.pop());
        }
        assert!(back.is_empty() && list.is_empty());
        drop((list, other));
        domain.barrier();
        assert_eq!(ledger.live(), 0);
    }
}

#[test]
fn a_walk_goes_on_from_an_entry_that_leaves_under_it() {
    let list = RcuList::from([1, 2, 3, 4]);
    let section = list.domain().pin();
    let mut walk = list.iter(&section);
    assert_eq!(walk.next().map(|entry| *entry), Some(1));
    let two = walk.next().unwrap().handle();
    // Removed: on to what was behind it. Replaced: the same.
    list.remove(&two).unwrap();
    let three = walk.clone().next().unwrap().handle();
    list.replace(&three, 30).unwrap();
    assert!(walk.map(|entry| *entry).eq([3, 4]));
    assert_eq!(contents(&list), [1, 30, 4]);
    // A walk finds what joins behind it, also at its end.
    let mut walk = list.iter(&section);
    assert_eq!(walk.by_ref().count(), 3);
    assert!(walk.next().is_none());
    list.push_back(5);
    assert_eq!(walk.next().map(|entry| *entry), Some(5));
}

#[test]
fn a_walk_that_stands_at_a_cleared_entry_ends_with_the_cleared_entries() {
    let list = RcuList::from([1, 2, 3]);
    let section = list.domain().pin();
    let mut walk = list.iter(&section);
    let one = walk.next().unwrap();
    assert_eq!(list.clear(), 3);
    list.push_back(4);
    assert_eq!(*one, 1);
    assert!(walk.map(|entry| *entry).eq([2, 3]));
    assert_eq!(contents(&list), [4]);
    assert_eq!(list.clear() + list.clear(), 1);
}

#[test]
fn a_handle_of_another_list_is_refused() {
    let domain = domain();
    let (list, other) = (RcuList::from_iter_in(1..3, &domain), RcuList::from_iter_in(1..3, &domain));
    let section = domain.pin();
    let handle = other.first(&section).unwrap().handle();
    assert!(list.resume(&handle, &section).is_none() && !list.is_linked(&handle));
    drop(section);
    assert!(list.remove(&handle).is_none());
    assert_eq!(list.replace(&handle, 7), Err(NotInList(7)));
    assert_eq!(list.insert_after(&handle, 7), Err(NotInList(7)));
    assert_eq!(list.insert_before(&handle, 7), Err(NotInList(7)));
    assert!(other.is_linked(&handle));
    // A list without a number yet is the home of no handle that is nowhere.
    other.remove(&handle).unwrap();
    assert!(!RcuList::new_in(&domain).is_linked(&handle));
}

#[test]
fn a_section_or_list_of_another_domain_is_refused() {
    let (list, other) = (RcuBidirList::default(), RcuList::bidir_in(&domain()));
    list.push_back(1);
    let handle = other.push_back(2);
    let foreign = other.domain().pin();
    for message in [
        panic_of(|| list.iter(&foreign).count()),
        panic_of(|| list.iter_back(&foreign).count()),
        panic_of(|| list.resume(&handle, &foreign).is_some()),
        panic_of(|| list.resume_back(&handle, &foreign).is_some()),
    ] {
        assert!(message.contains("another domain than the list's"), "{message}");
    }
    assert!(panic_of(|| list.splice_back(&other).len()).contains("different domains"));
}

/// `FromIterator` is for the global domain.
trait FromIterIn<T> {
    fn from_iter_in(values: impl IntoIterator<Item = T>, domain: &Domain) -> Self;
}

impl<T: Send + Sync + 'static> FromIterIn<T> for RcuList<T> {
    fn from_iter_in(values: impl IntoIterator<Item = T>, domain: &Domain) -> Self {
        let list = RcuList::new_in(domain);
        (&list).extend(values);
        list
    }
}

#[test]
fn values_of_any_alignment_and_size_lie_where_they_belong() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    #[repr(align(128))]
    struct Wide(u8);
    fn check<T: Copy + PartialEq + std::fmt::Debug + Send + Sync + 'static>(values: [T; 3]) {
        let list: RcuBidirList<T> = values.into_iter().collect();
        let section = list.domain().pin();
        let aligned = |entry: &T| (entry as *const T).is_aligned();
        assert!(list.iter(&section).all(|entry| aligned(entry.value())));
        assert_eq!(contents(&list), values);
        assert_eq!(backward(&list), [values[2], values[1], values[0]]);
        let handle = list.first(&section).unwrap().handle();
        assert_eq!(list.replace(&handle, values[2]).map(|new| *new), Ok(values[2]));
        assert_eq!(list.replace(&handle, values[1]), Err(NotInList(values[1])));
    }
    check([(); 3]);
    check([1_u8, 2, 3]);
    check([1_u128, 2, 3]);
    check([Wide(1), Wide(2), Wide(3)]);
    check([[7_u64; 100]; 3]);
}

#[test]
fn what_is_printed_and_compared_is_the_value() {
    let list: RcuBidirList<u32> = [1, 2].into_iter().collect();
    let section = list.domain().pin();
    let one = list.first(&section).unwrap();
    let (handle, other) = (one.handle(), list.push_front(1));
    assert_eq!(format!("{list:?} {one:?} {handle:?} {handle}"), "[1, 1, 2] 1 1 1");
    assert_eq!(format!("{:?} {:?}", list.iter(&section), list.iter_back(&section)), "[1, 1, 2] [2, 1, 1]");
    assert!(handle == other && !ListHandle::ptr_eq(&handle, &other) && ListHandle::ptr_eq(&handle, &one.handle()));
    assert_eq!(
        format!("{:?}, {}", NotInList(()), NotInList(())),
        "NotInList(..), the entry of the handle is not in the list"
    );
    assert_eq!(size_of::<Option<ListHandle<u32>>>(), size_of::<usize>());
}

// When values are dropped.

#[test]
fn a_removed_value_is_dropped_after_its_readers_and_handles() {
    let (ledger, domain) = (Ledger::new(), domain());
    let list = RcuList::new_in(&domain);
    drop(list.push_back(ledger.value(1)));
    let kept = list.push_back(ledger.value(2));
    let mut cookie = None;
    with_reader(&domain, || {
        cookie = list.remove(&list.first(&domain.pin()).unwrap().handle());
        list.remove(&kept).unwrap();
        while domain.reclaim(100) > 0 {}
        assert!(!domain.poll(cookie.unwrap()));
        assert_eq!(ledger.dropped(), 0);
    });
    domain.wait(cookie.unwrap());
    domain.barrier();
    assert_eq!((ledger.dropped(), kept.get()), (1, 2));
    drop(list);
    drop(kept);
    domain.barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn a_handle_outlives_list_and_domain() {
    let ledger = Ledger::new();
    let list = RcuList::new_in(&domain());
    let (kept, removed) = (list.push_back(ledger.value(1)), list.push_back(ledger.value(2)));
    list.remove(&removed).unwrap();
    list.push_back(ledger.value(3));
    drop(list);
    assert_eq!((kept.get(), removed.get(), ledger.live()), (1, 2, 2));
    drop((kept, removed));
    assert_eq!(ledger.live(), 0);
}

#[test]
fn readers_run_no_destructor() {
    let dropped_on = std::sync::Arc::new(Mutex::new(Vec::new()));
    let domain = domain();
    let list = RcuList::new_in(&domain);
    let handles: Vec<_> = (0..300).map(|_| list.push_back(DropsOn(dropped_on.clone()))).collect();
    list.clear();
    domain.barrier();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = domain.session();
            for handle in handles {
                let section = session.section();
                assert!(list.resume(&handle, &section).is_none() && list.first(&section).is_none());
                drop(handle);
            }
        });
    });
    assert!(dropped_on.lock().unwrap().is_empty());
    domain.barrier();
    let dropped_on = dropped_on.lock().unwrap();
    assert!(dropped_on.len() == 300 && dropped_on.iter().all(|&id| id == thread::current().id()));
}

#[test]
fn a_long_list_is_dropped_and_cleared_without_recursion() {
    let (ledger, domain) = (Ledger::new(), domain());
    let n = times(200_000);
    for cleared in [false, true] {
        let list = RcuList::new_in(&domain);
        (&list).extend((0..n as u64).map(|number| ledger.value(number)));
        if cleared {
            assert_eq!(list.clear(), n);
        }
    }
    domain.barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn removing_many_builds_no_backlog() {
    let domain = domain();
    let list = RcuList::new_in(&domain);
    let most = AtomicUsize::new(0);
    let watch = || {
        most.fetch_max(domain.backlog().objects as usize, SeqCst);
    };
    let fill = || {
        for _ in 0..50_000 {
            list.push_back(());
        }
    };
    fill();
    while list.pop_front().is_some() {
        watch();
    }
    fill();
    assert_eq!(list.retain(|()| false), 50_000);
    watch();
    fill();
    assert_eq!(list.clear(), 50_000);
    watch();
    let handles: Vec<_> = (0..50_000).map(|_| list.push_back(())).collect();
    for handle in handles {
        list.replace(&handle, ()).unwrap();
        watch();
    }
    assert!(most.load(SeqCst) < 10_000, "{most:?} objects waited");
}

#[test]
fn lists_keep_to_the_limit_of_the_backlog_and_count_what_goes_beyond() {
    let full = || Domain::builder().backlog_objects(8).when_full(WhenFull::Refuse).manual().build();
    let domain = full();
    let list = RcuList::new_in(&domain);
    (&list).extend(0..40);
    let handle = list.push_back(0);
    for _ in 0..8 {
        list.pop_front();
    }
    // Nothing is in the way of reclamation, so there is room.
    assert_eq!(domain.stats().overruns, 0);
    with_reader(&domain, || {
        for _ in 0..10 {
            list.pop_front();
        }
        assert!(domain.stats().overruns > 0);
        assert!(matches!(domain.try_call(|| ()), Err(BacklogFull(_))));
    });
    domain.barrier();
    let before = domain.stats().overruns;
    // What fails gives its place back.
    list.remove(&handle).unwrap();
    for _ in 0..100 {
        assert!(list.remove(&handle).is_none());
        assert!(list.remove_first(|_| false).is_none());
        assert!(list.replace(&handle, 1).is_err());
    }
    domain.barrier();
    for _ in 0..8 {
        list.pop_front();
    }
    assert_eq!(domain.stats().overruns, before);
}

// Splices.

#[test]
fn a_splice_is_finished_when_no_reader_is_in_the_way_and_does_not_wait_before() {
    let domain = domain();
    let (list, other) = (RcuList::from_iter_in(1..3, &domain), RcuList::from_iter_in(3..5, &domain));
    let section = domain.pin();
    let splice = list.splice_back(&other).try_finish().unwrap_err();
    let nine = other.push_back(9);
    assert_eq!((contents(&list), contents(&other)), (vec![1, 2], vec![9]));
    // A splice that cannot be finished puts the entries back. That of an empty list needs no grace period.
    assert!(panic_of(AssertUnwindSafe(|| other.splice_back(&list).finish())).contains("would wait for itself"));
    assert_eq!(contents(&list), [1, 2]);
    assert_eq!(list.splice_back(&RcuList::new_in(&domain)).finish(), 0);
    drop(section);
    domain.wait(splice.cookie());
    assert_eq!(splice.try_finish().unwrap(), 2);
    assert_eq!((contents(&list), contents(&other)), (vec![1, 2, 3, 4], vec![9]));
    assert!(other.is_linked(&nine));
}

#[test]
fn an_entry_that_was_spliced_is_one_of_its_new_list() {
    let domain = domain();
    let (list, other) = (RcuList::bidir_in(&domain), RcuList::bidir_in(&domain));
    list.push_back(1);
    let (two, three) = (other.push_back(2), other.push_back(3));
    list.splice_back(&other).finish();
    assert!(list.is_linked(&two) && !other.is_linked(&two));
    assert!(other.remove(&two).is_none());
    list.insert_before(&two, 10).unwrap();
    list.replace(&three, 30).unwrap();
    list.remove(&two).unwrap();
    assert_eq!((contents(&list), backward(&list)), (vec![1, 10, 30], vec![30, 10, 1]));
}

#[test]
fn a_dropped_splice_puts_the_entries_back_before_those_that_came_since() {
    let domain = domain();
    let (list, other) = (RcuList::bidir_in(&domain), RcuList::bidir_in(&domain));
    let handles: Vec<_> = (1..4).map(|number| other.push_back(number)).collect();
    for later in [None, Some(4)] {
        let section = domain.pin();
        let mut walk = other.iter(&section);
        assert_eq!(walk.next().map(|entry| *entry), Some(1));
        let splice = list.splice_back(&other);
        assert!(other.is_empty() && handles.iter().all(|handle| !other.is_linked(handle)));
        later.map(|later| other.push_back(later));
        drop(splice);
        assert!(handles.iter().all(|handle| other.is_linked(handle)));
        // A reader that was among them goes on.
        assert!(walk.map(|entry| *entry).eq([2, 3].into_iter().chain(later)));
        let expected: Vec<_> = [1, 2, 3].into_iter().chain(later).collect();
        assert_eq!(contents(&other), expected);
        assert!(backward(&other).into_iter().rev().eq(expected));
    }
    assert!(list.is_empty());
    other.remove(&handles[2]).unwrap();
    assert_eq!(contents(&other), [1, 2, 4]);
}

#[test]
fn a_list_may_be_spliced_into_itself_and_a_splice_sent_to_another_thread() {
    let domain = domain();
    let list = RcuList::from_iter_in(1..4, &domain);
    let splice = list.splice_back(&list);
    list.push_back(9);
    let moved = thread::scope(|scope| scope.spawn(move || splice.finish()).join().unwrap());
    assert_eq!((moved, contents(&list)), (3, vec![9, 1, 2, 3]));
}

#[test]
fn a_forgotten_splice_leaks_its_entries_and_does_no_other_harm() {
    let (ledger, domain) = (Ledger::new(), domain());
    let (list, other) = (RcuList::new_in(&domain), RcuList::new_in(&domain));
    let handle = other.push_back(ledger.value(1));
    std::mem::forget(list.splice_back(&other));
    assert!(other.remove(&handle).is_none());
    other.push_back(ledger.value(2));
    drop((list, other));
    domain.barrier();
    assert_eq!((ledger.live(), handle.get()), (1, 1));
    // For LeakSanitizer, what is leaked stays reachable.
    static LEAKED: Mutex<Vec<ListHandle<Counted>>> = Mutex::new(Vec::new());
    LEAKED.lock().unwrap().push(handle);
}

// User code.

#[test]
fn predicates_may_use_the_list_and_may_panic() {
    let (ledger, domain) = (Ledger::new(), domain());
    let list = RcuList::new_in(&domain);
    let handles: Vec<_> = (0..6).map(|number| list.push_back(ledger.value(number))).collect();
    // The entry leaves while it is judged: another one is found.
    let found = list.remove_first(|value| {
        if value.get() == 2 {
            list.remove(&handles[2]).unwrap();
        }
        value.get() >= 2
    });
    assert_eq!(found.unwrap().get(), 3);
    // Judged while the list is changed by the judge.
    let removed = list.retain(|value| {
        if value.get() == 0 {
            list.push_back(ledger.value(7));
            list.remove(&handles[1]).unwrap();
        }
        value.get() % 2 == 0
    });
    assert_eq!((removed, numbers(&list)), (2, vec![0, 4]));
    for last in 0..2 {
        let judge = |calls: &mut usize| {
            assert!(*calls < last, "a judge that panics");
            *calls += 1;
            false
        };
        let mut calls = (0, 0);
        assert!(catch_unwind(AssertUnwindSafe(|| list.retain(|_| judge(&mut calls.0)))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| list.remove_first(|_| judge(&mut calls.1)))).is_err());
        assert_eq!(calls, (last, last));
    }
    assert_eq!(numbers(&list), [0, 4]);
    drop((list, handles));
    domain.barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn an_iterator_that_panics_loses_nothing() {
    let ledger = Ledger::new();
    let list: RcuList<Counted> = RcuList::new();
    let values = (0..5).map(|number| {
        assert!(number < 3, "an iterator that panics");
        ledger.value(number)
    });
    assert!(catch_unwind(AssertUnwindSafe(|| (&list).extend(values))).is_err());
    assert_eq!(numbers(&list), [0, 1, 2]);
    drop(list);
    assert_eq!(ledger.live(), 0);
}

#[test]
fn a_value_that_panics_in_drop_harms_no_neighbour() {
    let (ledger, domain) = (Ledger::new(), domain());
    let bomb = |armed: bool, value: Counted| {
        let bomb = OnDrop::new(move || assert!(!armed, "a value that panics in drop"));
        (value, bomb)
    };
    for cleared in [true, false] {
        let list = RcuList::new_in(&domain);
        let kept: Vec<_> = (0..6).map(|number| list.push_back(bomb(number == 2, ledger.value(number)))).collect();
        let held = kept[4].clone();
        drop(kept);
        if cleared {
            list.clear();
            domain.barrier();
            drop(list);
            drop(held);
        } else {
            assert!(panic_of(|| drop(list)).contains("panics in drop"));
            assert_eq!(held.0.get(), 4);
            drop(held);
        }
        domain.barrier();
        assert_eq!(ledger.live(), 0);
    }
    assert_eq!(domain.stats().callback_panics, 1);
}

#[test]
fn the_drop_of_a_value_may_use_the_list() {
    let domain = domain();
    let list = std::sync::Arc::new(RcuList::new_in(&domain));
    for number in 0..10 {
        let weak = std::sync::Arc::downgrade(&list);
        list.push_back((
            number,
            OnDrop::new(move || {
                if let Some(list) = weak.upgrade() {
                    list.pop_front();
                    list.push_back((100, OnDrop::new(|| ())));
                    list.retain(|(number, _)| *number != 100);
                }
            }),
        ));
    }
    // Each of these calls may run such a destructor, as the writer's share.
    in_time(|| {
        for round in 0.. {
            let first = list.first(&domain.pin()).map(|entry| entry.handle());
            let Some(first) = first else { break };
            thread::sleep(std::time::Duration::from_millis(5));
            match round % 5 {
                0 => drop(list.pop_front()),
                1 => drop(list.remove_first(|_| true)),
                2 => drop(list.replace(&first, (200, OnDrop::new(|| ())))),
                3 => drop(list.remove(&first)),
                _ => drop(list.retain(|(number, _)| *number < 100)),
            }
        }
        list.clear();
        domain.barrier();
    });
    assert_eq!(list.len(), 0);
}

#[test]
fn a_list_may_be_changed_within_an_eq_under_a_shard_lock() {
    struct Nosy(u64, std::sync::Arc<RcuList<u64>>);
    impl PartialEq for Nosy {
        fn eq(&self, other: &Nosy) -> bool {
            self.1.push_back(self.0);
            self.1.pop_front();
            self.0 == other.0
        }
    }
    impl Eq for Nosy {}
    impl std::hash::Hash for Nosy {
        fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
    }
    let domain = domain();
    let list = std::sync::Arc::new(RcuList::new_in(&domain));
    list.push_back(0);
    let registry = Registry::builder().shards(1).domain(domain.clone()).build();
    for number in 0..100 {
        registry.insert(Nosy(number, list.clone()), ());
    }
    assert_eq!((registry.len(), list.len()), (100, 1));
}

#[test]
fn an_entry_is_in_a_registry_and_a_list_with_one_count() {
    let (ledger, domain) = (Ledger::new(), domain());
    let registry = Registry::builder().domain(domain.clone()).build();
    let recent = RcuList::new_in(&domain);
    for key in 0..4 {
        recent.push_back(registry.insert_and_get(key, ledger.value(key)));
    }
    // One guard serves both.
    {
        let guard = registry.pin();
        let oldest = recent.first(&guard).unwrap();
        assert!(std::ptr::eq(&**oldest, &*guard.get(&0).unwrap()));
    }
    // What leaves the registry stays as long as it is in the list, and the other way round.
    registry.remove(&0);
    recent.remove_first(|entry| *entry.key() == 1).unwrap();
    domain.barrier();
    assert_eq!((ledger.dropped(), recent.len(), registry.len()), (0, 3, 3));
    let oldest = recent.pop_front().unwrap();
    assert_eq!((*oldest.key(), oldest.get()), (0, 0));
    drop(oldest);
    registry.remove(&1);
    domain.barrier();
    assert_eq!(ledger.dropped(), 2);
    drop((registry, recent));
    domain.barrier();
    assert_eq!(ledger.live(), 0);
}

// Several threads.

/// Threads insert, remove, replace, clear and splice while others walk. Entries that stay are found by every walk.
fn storm<D: Walk>(list: &RcuList<Counted, D>, other: &RcuList<Counted, D>, ledger: &Ledger, check: impl Fn() + Sync) {
    /// The entries that stay have these numbers.
    const STAY: u64 = 8;
    let stay: Vec<_> = (0..STAY).map(|number| list.push_back(ledger.value(number))).collect();
    let (domain, stop) = (list.domain(), Stop::default());
    in_time(|| {
        thread::scope(|scope| {
            for reader in 0..2 {
                let (stop, stay, check) = (&stop, &stay, &check);
                scope.spawn(move || {
                    let mut session = domain.session();
                    while !stop.stopped() {
                        let section = session.section();
                        let found = list.iter(&section).map(|entry| entry.get()).filter(|&number| number < STAY);
                        assert!(found.eq(0..STAY), "an entry that stays is missing, or twice, or out of order");
                        for (number, handle) in stay.iter().enumerate() {
                            let rest = list.resume(handle, &section).expect("an entry that stays");
                            let found = rest.map(|entry| entry.get()).filter(|&number| number < STAY);
                            assert!(found.eq(number as u64 + 1..STAY));
                        }
                        assert!(other.iter(&section).all(|entry| entry.get() >= STAY));
                        check();
                        if reader == 0 {
                            session.offline(thread::yield_now);
                        }
                    }
                });
            }
            let writers: Vec<_> = (0..2)
                .map(|writer: u64| {
                    let stay = &stay;
                    scope.spawn(move || {
                        let mut rng = Rng::new(writer + 1);
                        let mut mine: Vec<ListHandle<Counted, D>> = Vec::new();
                        let end = std::time::Instant::now() + a_while();
                        while std::time::Instant::now() < end {
                            let value = ledger.value(1000 + rng.below(1000));
                            let near = &stay[rng.below(STAY) as usize];
                            let at = rng.below(mine.len().max(1) as u64) as usize;
                            match rng.below(12) {
                                0 => mine.push(list.push_back(value)),
                                1 => mine.push(list.push_front(value)),
                                2 | 3 => mine.push(list.insert_after(near, value).unwrap()),
                                4 => mine.push(list.insert_before(near, value).unwrap()),
                                5 | 6 if !mine.is_empty() => drop(list.remove(&mine.swap_remove(at))),
                                7 | 8 if !mine.is_empty() => match list.replace(&mine[at], value) {
                                    Ok(new) => mine[at] = new,
                                    Err(NotInList(value)) => {
                                        value.get();
                                        mine.swap_remove(at);
                                    }
                                },
                                9 => drop(list.remove_first(|value| value.get() >= STAY)),
                                10 => drop(other.push_back(value)),
                                _ if rng.below(16) == 0 => drop(list.retain(|value| value.get() < STAY)),
                                _ if rng.below(16) == 0 => drop(other.clear()),
                                _ => drop(list.splice_back(other).try_finish()),
                            }
                        }
                    })
                })
                .collect();
            let _stop = stop.at_end();
            writers.into_iter().for_each(|writer| writer.join().unwrap());
        });
    });
    drop(stay);
    domain.barrier();
    assert_eq!(ledger.live(), (numbers(list).len() + numbers(other).len()) as u64);
    assert_eq!((list.len(), other.len()), (numbers(list).len(), numbers(other).len()));
    list.clear();
    other.clear();
    domain.barrier();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn a_storm_of_walks_and_writes_loses_and_leaks_nothing() {
    let (ledger, domain) = (Ledger::new(), Domain::new());
    storm(&RcuList::new_in(&domain), &RcuList::new_in(&domain), &ledger, || ());
}

#[test]
fn a_storm_of_walks_both_ways_loses_and_leaks_nothing() {
    let (ledger, domain) = (Ledger::new(), Domain::new());
    let (list, other) = (RcuList::bidir_in(&domain), RcuList::bidir_in(&domain));
    storm(&list, &other, &ledger, || {
        let section = domain.pin();
        let found = list.iter_back(&section).map(|entry| entry.get()).filter(|&number| number < 8);
        assert!(found.eq((0..8).rev()));
    });
}

/// Two threads move everything back and forth. A walk of one list finds nothing of what is only in the other.
#[test]
fn no_walk_wanders_into_the_list_that_entries_move_to() {
    let (domain, stop) = (Domain::new(), Stop::default());
    let (list, other) = (RcuList::new_in(&domain), RcuList::new_in(&domain));
    (&list).extend(0..20);
    (&other).extend([1000]);
    in_time(|| {
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.stopped() {
                    let section = domain.pin();
                    let found: Vec<u64> = list.iter(&section).map(|entry| *entry).collect();
                    assert!(found.is_empty() || found.iter().copied().eq(0..20), "{found:?}");
                }
            });
            let _stop = stop.at_end();
            for _ in 0..times(300) {
                assert_eq!(other.splice_back(&list).finish(), 20);
                // A walk that is still among them would find it.
                let behind = other.push_back(2000);
                assert_eq!(other.pop_front().map(|first| *first), Some(1000));
                other.remove(&behind).unwrap();
                assert_eq!(list.splice_back(&other).finish(), 20);
                other.push_back(1000);
            }
        });
    });
}

#[test]
fn a_splice_is_unfinished_in_a_critical_section_of_its_own_thread() {
    let (list, other): (RcuList<u8>, RcuList<u8>) = (RcuList::from([1]), RcuList::from([2]));
    let section = list.domain().pin();
    let unfinished: Splice<'_, u8> = list.splice_back(&other).try_finish().err().unwrap();
    assert_eq!((unfinished.len(), unfinished.is_empty()), (1, false));
    assert!(format!("{unfinished:?}").starts_with("Splice { len: 1"));
    drop(section);
    assert_eq!(unfinished.finish(), 1);
}

#[test]
fn of_concurrent_removals_of_one_entry_exactly_one_succeeds() {
    let list: RcuList<usize, BothWays> = RcuList::bidir_in(&domain());
    for round in 0..times(500) {
        let handles: Vec<_> = (0..8).map(|number| list.push_back(number)).collect();
        let removed = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..3 {
                let (list, handles, removed) = (&list, &handles, &removed);
                scope.spawn(move || {
                    for at in 0..8 {
                        let done = match (thread + round) % 3 {
                            0 => list.remove(&handles[7 - at]).is_some(),
                            1 => list.pop_back().is_some(),
                            _ => list.remove(&handles[at]).is_some(),
                        };
                        removed.fetch_add(usize::from(done), SeqCst);
                    }
                });
            }
        });
        assert_eq!((removed.load(SeqCst), list.len()), (8, 0));
    }
}
