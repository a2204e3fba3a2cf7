//! Walks of a linked list of a thousand entries, which nothing changes: what a walk costs that other threads may run beside.

use super::Results;
use crate::cases::{Case, Idiom, Kind};
use crate::harness::{Lane, Sample, interleave};
use crate::plan::Plan;
use epoch_registry::{Domain, RcuBidirList, RcuList};
use parking_lot::{Mutex, RwLock};
use std::collections::LinkedList;
use std::time::Instant;

pub const WALK: &str = "walk over a list";
pub const SIZE: usize = 1_000;
/// The names of the contenders that nothing protects.
pub const PLAIN: &str = "LinkedList";
pub const BOXED: &str = "list of boxes";
pub const VEC: &str = "RwLock<Vec>";

/// The walks of a turn.
const WALKS: usize = 200;

/// A hand-written list, linked one way.
struct Boxed<T> {
    value: T,
    next: Option<Box<Boxed<T>>>,
}

impl<T> Drop for Boxed<T> {
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut one) = next {
            next = one.next.take();
        }
    }
}

pub fn case(what: &str) -> Case {
    Case { group: "list", work: WALK, what: what.into(), size: SIZE, threads: 1 }
}

/// Returns the contender that adds up a list with `sum`.
fn lane<'m>(name: &'static str, idiom: Idiom, kind: Kind, mut sum: impl FnMut() -> u64 + 'm) -> Lane<'m, ()> {
    let lane = Lane::new(name, idiom, kind, move |()| {
        let begin = Instant::now();
        let sum = (0..WALKS).fold(0_u64, |all, _| all.wrapping_add(std::hint::black_box(sum())));
        Sample::new(begin.elapsed(), WALKS * SIZE, sum)
    });
    // All of them add up the same values.
    Lane { set: 0, ..lane }
}

fn walks<T: Copy + Send + Sync + 'static>(
    plan: &Plan,
    what: &str,
    value: fn(u64) -> T,
    see: impl Fn(&T) -> u64 + Copy + Sync,
    results: &mut Results,
) {
    let values = || (0..SIZE as u64).map(value);
    // Each is filled for itself, so that all lie in memory in the order of their links.
    let plain: LinkedList<T> = values().collect();
    let boxed = values().rev().fold(None, |next, value| Some(Box::new(Boxed { value, next })));
    let domain = Domain::new();
    let (list, both) = (RcuList::new_in(&domain), RcuList::bidir_in(&domain));
    (&list).extend(values());
    (&both).extend(values());
    let (list, both): (&RcuList<T>, &RcuBidirList<T>) = (&list, &both);
    let rwlock: RwLock<LinkedList<T>> = RwLock::new(values().collect());
    let mutex: Mutex<LinkedList<T>> = Mutex::new(values().collect());
    let vec: RwLock<Vec<T>> = RwLock::new(values().collect());
    let lanes = || {
        let mut session = domain.session();
        let domain = &domain;
        let (plain, boxed, rwlock, mutex, vec) = (&plain, &boxed, &rwlock, &mutex, &vec);
        vec![
            lane("ours", Idiom::Session, Kind::Ours, move || {
                list.iter(&session.section()).fold(0, |sum, entry| sum + see(&entry))
            }),
            lane("ours", Idiom::Each, Kind::Ours, move || {
                list.iter(&domain.pin()).fold(0, |sum, entry| sum + see(&entry))
            }),
            lane("ours, both ways", Idiom::Each, Kind::Ours, move || {
                both.iter(&domain.pin()).fold(0, |sum, entry| sum + see(&entry))
            }),
            lane("ours, backward", Idiom::Each, Kind::Ours, move || {
                both.iter_back(&domain.pin()).fold(0, |sum, entry| sum + see(&entry))
            }),
            lane(PLAIN, Idiom::Each, Kind::Limit, move || plain.iter().fold(0, |sum, value| sum + see(value))),
            lane(BOXED, Idiom::Each, Kind::Limit, move || {
                let (mut sum, mut at) = (0, boxed);
                while let Some(one) = at {
                    (sum, at) = (sum + see(&one.value), &one.next);
                }
                sum
            }),
            lane("RwLock<LinkedList>", Idiom::Each, Kind::Locking, move || {
                rwlock.read().iter().fold(0, |sum, value| sum + see(value))
            }),
            lane("Mutex<LinkedList>", Idiom::Each, Kind::Locking, move || {
                mutex.lock().iter().fold(0, |sum, value| sum + see(value))
            }),
            lane(VEC, Idiom::Each, Kind::Locking, move || vec.read().iter().fold(0, |sum, value| sum + see(value))),
        ]
    };
    let series = interleave(1, plan.rounds(31), |_, _| (), lanes);
    results.add(case(what), "ns/entry", series);
}

/// Measures walks over small values, and over values of a cache line.
pub fn run(plan: &Plan, results: &mut Results) {
    walks::<u64>(plan, "u64 values", |number| number, |value| *value, results);
    walks::<[u64; 8]>(plan, "values of 64 bytes", |number| [number; 8], |value| value[0] + value[7], results);
}
