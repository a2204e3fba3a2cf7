//! Bursts of work: thousands of keys that come and go, reapers, floods of callbacks.

use std::sync::Arc;
use std::time::Duration;

use epoch_registry::Cursor;

use crate::broken::Broken;
use crate::conductor::Seat;
use crate::figures::nap;
use crate::rng::Rng;
use crate::torture::Torture;
use crate::value::Value;
use crate::world::{STABLE, TRANSIENT, World};

/// The most callbacks in flight where the domain sets no limit.
const FLOOD: u64 = 50_000;

/// Makes the tables grow and shrink.
pub fn resize(torture: &Torture, seat: &Seat<'_>, mut rng: Rng) {
    while seat.go_on() {
        let world = rng.pick(&torture.worlds);
        let first = STABLE + rng.below(TRANSIENT);
        // Small ranges too, about as large as the stable keys: these make the stable keys move again and again.
        let most = *rng.pick(&[STABLE, TRANSIENT]);
        let keys = first..(first + rng.below(most)).min(STABLE + TRANSIENT);
        let playing = |_: &u64| torture.conductor.is_playing();
        for key in keys.clone().take_while(playing) {
            insert(world, key, &mut rng);
        }
        match rng.below(4) {
            0 => world.values.retain(|key, _| !keys.contains(key)),
            1 => {
                let mut cursor = Cursor::new();
                while world.values.fallible().retain(&mut cursor, |key, _| !keys.contains(key)).is_err() && playing(&0)
                {
                    nap(100);
                }
            }
            _ => keys.take_while(playing).for_each(|key| remove(world, key, &mut rng)),
        }
        match rng.below(4) {
            0 => world.values.shrink_to_fit(),
            1 => world.values.reserve(rng.index(TRANSIENT as usize)),
            _ => {}
        }
        nap(rng.below(1000));
    }
}

fn insert(world: &World, key: u64, rng: &mut Rng) {
    let figures = &world.pipeline.figures;
    let value = || Value::new(key, 0, figures);
    let entry = match rng.below(3) {
        0 => Some(world.values.get_or_insert_with(key, value)),
        1 => world.values.insert(key, value()),
        _ => world.values.try_insert(key, value()).ok(),
    };
    if world.is(Broken::Leak) && rng.one_in(1000) {
        std::mem::forget(entry);
    }
    figures.updates.up();
}

fn remove(world: &World, key: u64, rng: &mut Rng) {
    let removed = match rng.below(4) {
        0 => world.values.fallible().remove(&key).ok().flatten(),
        1 => world.values.remove_if(&key, |_, value| value.version == 0),
        2 => world.values.lookup(&key).filter(|entry| world.values.remove_handle(entry)),
        _ => world.values.remove(&key),
    };
    if removed.is_some_and(|entry| !entry.is_sound(key)) {
        world.pipeline.figures.faults.add("an entry that was removed is not sound", || format!("key {key}"));
    }
    world.pipeline.figures.updates.up();
}

/// Reaps transient keys.
pub fn reap(torture: &Torture, seat: &Seat<'_>, mut rng: Rng) {
    while seat.go_on() {
        let world = rng.pick(&torture.worlds);
        let sort = rng.below(8);
        let reaped = world.values.reap_if(rng.index(2000), |entry| *entry.key() >= STABLE && *entry.key() % 8 == sort);
        torture.figures.reaped.add(reaped.removed as u64);
        if rng.one_in(4) {
            torture.figures.evicted.add(world.leases.evict(1) as u64);
        }
        nap(rng.below(2000));
    }
}

/// Queues many callbacks at once.
pub fn flood(torture: &Torture, seat: &Seat<'_>, mut rng: Rng) {
    let figures = &torture.figures;
    while seat.go_on() {
        let world = rng.pick(&torture.worlds);
        for _ in 0..rng.below(10_000) {
            if !torture.conductor.is_playing()
                || figures.calls_given.get().saturating_sub(figures.calls_run.get()) > FLOOD
            {
                break;
            }
            if world.is(Broken::Lost) && rng.one_in(1000) {
                figures.calls_given.up();
                continue;
            }
            let count = Arc::clone(figures);
            // Counted before the call: the callback may have run when the call returns.
            figures.calls_given.up();
            if world.pipeline.domain.try_call(move || count.calls_run.up()).is_err() {
                figures.calls_given.take_back();
                figures.calls_refused.up();
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(rng.below(20)));
    }
}
