//! Updaters, which replace elements and age them, and fake updaters, which wait for grace periods without need.

use std::time::{Duration, Instant};

use crate::conductor::Seat;
use crate::figures::nap;
use crate::pipeline::{Flavour, Lease, SLOTS};
use crate::pool::Retired;
use crate::rng::Rng;
use crate::torture::Torture;
use crate::value::Value;
use crate::world::{LEASES, QUEUED, STABLE, World};

/// The number of rounds before the updater picks a world again.
const BOUT: usize = 32;

pub fn update(torture: &Torture, seat: &Seat<'_>, mut rng: Rng) {
    while seat.go_on() {
        let world = rng.pick(&torture.worlds);
        // The elements that this bout has replaced. The grace periods that it waits for age them.
        let mut removed = Vec::new();
        for _ in 0..BOUT {
            if !torture.conductor.is_playing() {
                break;
            }
            update_value(world, &mut rng);
            match rng.below(5) {
                0 => replace_and_call(world, &mut rng),
                1 if rng.one_in(2) => replace_lease(world, &mut rng),
                1 => replace_version(world, &mut rng),
                2 => change_queue(world, &mut rng),
                _ => replace_and_wait(world, &mut removed, &mut rng),
            }
        }
        removed.into_iter().for_each(|retired| world.pipeline.age_by_calls(retired));
    }
}

pub fn fake(torture: &Torture, seat: &Seat<'_>, mut rng: Rng) {
    while seat.go_on() {
        let world = rng.pick(&torture.worlds);
        let domain = &world.pipeline.domain;
        let begun = Instant::now();
        match rng.below(8) {
            0 => domain.synchronize(),
            1 => domain.synchronize_expedited(),
            2 => world.barrier(),
            3 => {
                domain.poll_timeout(domain.start_poll(), Duration::from_micros(rng.below(500)));
            }
            4 => {
                let cookies: Vec<_> = (0..rng.below(8)).map(|_| domain.start_poll()).collect();
                // If a later grace period is over, an earlier one is over too.
                let over: Vec<_> = cookies.iter().map(|&cookie| domain.poll(cookie)).collect();
                if let (Some(&first), Some(&last)) = (cookies.first(), cookies.last()) {
                    if over[over.len() - 1] && !domain.poll(first) {
                        torture.figures.faults.add("grace periods ended out of order", || format!("{last:?}"));
                    }
                }
            }
            _ => {
                domain.reclaim(rng.index(1000));
            }
        }
        torture.figures.slowest_us.at_least(begun.elapsed().as_micros() as u64);
        nap(rng.below(500));
    }
}

fn replace_and_wait(world: &World, removed: &mut Vec<Retired>, rng: &mut Rng) {
    for _ in 0..=rng.below(3) {
        let Some(fresh) = world.pipeline.fresh() else { break };
        removed.extend(world.pipeline.replace(rng.index(SLOTS), fresh));
        world.pipeline.figures.updates.up();
    }
    let flavour = *rng.pick(Flavour::WAITING);
    let begun = Instant::now();
    world.pipeline.wait(flavour, rng);
    world.pipeline.figures.slowest_us.at_least(begun.elapsed().as_micros() as u64);
    *removed = removed.drain(..).filter_map(|retired| world.pipeline.pool.age(retired)).collect();
}

fn replace_and_call(world: &World, rng: &mut Rng) {
    let pipeline = &world.pipeline;
    // Sometimes within a section, where `call` is allowed too.
    let _guard = rng.one_in(4).then(|| pipeline.domain.pin());
    for _ in 0..=rng.below(8) {
        let Some(fresh) = pipeline.fresh() else { return nap(100) };
        if let Some(retired) = pipeline.replace(rng.index(SLOTS), fresh) {
            pipeline.age_by_calls(retired);
        }
        pipeline.figures.updates.up();
    }
}

fn replace_lease(world: &World, rng: &mut Rng) {
    for _ in 0..=rng.below(8) {
        let Some(fresh) = world.pipeline.fresh() else { return nap(100) };
        let (key, lease) = (rng.below(LEASES), Lease::new(fresh, &world.pipeline));
        let old = if rng.one_in(8) {
            let old = world.leases.remove(&key);
            // If another thread inserts first, this lease is dropped without having been published.
            drop(world.leases.try_insert(key, lease));
            old
        } else {
            world.leases.insert(key, lease)
        };
        if let Some(old) = old {
            old.unlinked();
        }
        world.pipeline.figures.updates.up();
    }
}

/// Links, replaces, unlinks and moves elements in lists.
fn change_queue(world: &World, rng: &mut Rng) {
    let (queue, detour) = (&world.queue, &world.detour);
    for _ in 0..=rng.below(8) {
        let Some(fresh) = world.pipeline.fresh() else { return nap(100) };
        let lease = Lease::new(fresh, &world.pipeline);
        let at = rng.index(QUEUED);
        let found = queue.iter(&world.pipeline.domain.pin()).nth(at).map(|entry| entry.handle());
        let old = match (rng.below(8), found) {
            // Where another thread is faster, this lease is dropped without having been published.
            (0..4, Some(old)) => queue.replace(&old, lease).is_ok().then_some(old),
            (4, Some(old)) => {
                drop(queue.insert_before(&old, lease));
                queue.pop_front()
            }
            (5, _) => {
                detour.push_back(lease);
                if rng.one_in(2) { detour.pop_front() } else { queue.pop_front() }
            }
            _ => {
                queue.push_back(lease);
                if queue.len() > QUEUED { queue.remove_first(|_| rng.one_in(3)) } else { None }
            }
        };
        if let Some(old) = old {
            old.unlinked();
        }
        // Most of them find readers in the way, and are put back.
        match rng.below(8) {
            0 => drop(queue.splice_back(detour).try_finish()),
            1 => drop(detour.splice_back(queue).try_finish()),
            _ => {}
        }
        world.pipeline.figures.updates.up();
    }
    // Of what has gathered, only so many stay.
    while queue.len() + detour.len() > 4 * QUEUED {
        let Some(old) = detour.pop_front().or_else(|| queue.pop_front()) else { return };
        old.unlinked();
    }
}

/// Replaces the version of a cell, or empties the cell. The version's destructor ages the element.
fn replace_version(world: &World, rng: &mut Rng) {
    for _ in 0..=rng.below(8) {
        let Some(fresh) = world.pipeline.fresh() else { return nap(100) };
        let (cell, lease) = (rng.pick(&world.cells), Lease::new(fresh, &world.pipeline));
        let old = match rng.below(8) {
            0 => {
                // The lease is dropped without having been published.
                drop(lease);
                cell.take()
            }
            1 => {
                let current = cell.load();
                // If another thread is faster, this lease is dropped without having been published.
                cell.compare_exchange(current.as_ref(), Some(lease)).is_ok().then_some(current).flatten()
            }
            _ => cell.replace(Some(lease)),
        };
        if let Some(old) = old {
            old.unlinked();
        }
        world.pipeline.figures.updates.up();
    }
}

fn update_value(world: &World, rng: &mut Rng) {
    let key = rng.below(STABLE);
    let updated = match rng.below(2) {
        0 => Ok(world.values.update(&key, |_, value: &Value| value.next())),
        _ => world.values.fallible().update(&key, |_, value| value.next()),
    };
    // The fallible call fails if there is no room for the old value.
    if let Ok(updated) = updated {
        world.pipeline.figures.updates.up();
        if updated.is_none() {
            world.pipeline.figures.faults.add("a stable key was not there to be updated", || format!("key {key}"));
        }
    }
}
