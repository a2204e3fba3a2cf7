//! Makes all threads play, rest and end together.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use parking_lot::{Condvar, Mutex};

const PLAY: u8 = 0;
const REST: u8 = 1;
const END: u8 = 2;

#[derive(Default)]
pub struct Conductor {
    /// Written under the lock of the seats.
    phase: AtomicU8,
    seats: Mutex<Vec<Player>>,
    /// Signalled when a phase begins, and when a player rests or leaves.
    changed: Condvar,
    /// Held while a phase changes, or while a thread needs the others to play on.
    solo: Mutex<()>,
}

struct Player {
    name: String,
    playing: bool,
}

impl Conductor {
    /// Registers a thread. It plays from now on.
    pub fn seat(&self, name: &str) -> Seat<'_> {
        let mut seats = self.seats.lock();
        seats.push(Player { name: name.to_string(), playing: true });
        Seat { conductor: self, number: seats.len() - 1 }
    }

    /// Returns whether threads should go on. If not, the caller drops all that it holds and calls [`Seat::go_on`].
    pub fn is_playing(&self) -> bool {
        // ORDERING: Relaxed. Only a hint: `Seat::go_on` reads the phase again under the lock.
        self.phase.load(Relaxed) == PLAY
    }

    /// Calls `f` while all threads rest.
    pub fn rest<R>(&self, f: impl FnOnce() -> R) -> R {
        let _solo = self.solo.lock();
        self.begin(REST);
        let mut seats = self.seats.lock();
        while seats.iter().any(|player| player.playing) {
            self.changed.wait(&mut seats);
        }
        drop(seats);
        let result = f();
        self.begin(PLAY);
        result
    }

    /// Calls `f` while no rest and no end can begin.
    pub fn undisturbed<R>(&self, f: impl FnOnce() -> R) -> R {
        let _solo = self.solo.lock();
        f()
    }

    pub fn end(&self) {
        let _solo = self.solo.lock();
        self.begin(END);
    }

    /// Returns the names of the threads that play, for the report of a hang.
    pub fn players(&self) -> Vec<String> {
        self.seats.lock().iter().filter(|player| player.playing).map(|player| player.name.clone()).collect()
    }

    fn begin(&self, phase: u8) {
        let _seats = self.seats.lock();
        self.phase.store(phase, Relaxed);
        self.changed.notify_all();
    }
}

/// The registration of a thread. Dropping it ends the registration.
pub struct Seat<'c> {
    conductor: &'c Conductor,
    number: usize,
}

impl Seat<'_> {
    /// Rests if all threads have to. Returns false at the end. The caller must hold nothing: no section, no
    /// session, no handle.
    pub fn go_on(&self) -> bool {
        let conductor = self.conductor;
        if conductor.is_playing() {
            return true;
        }
        let mut seats = conductor.seats.lock();
        seats[self.number].playing = false;
        conductor.changed.notify_all();
        while conductor.phase.load(Relaxed) == REST {
            conductor.changed.wait(&mut seats);
        }
        seats[self.number].playing = true;
        conductor.phase.load(Relaxed) == PLAY
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.conductor.seats.lock()[self.number].playing = false;
        self.conductor.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    #[test]
    fn during_a_rest_no_player_plays_and_at_the_end_all_leave() {
        let (conductor, playing) = (Conductor::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for name in ["a", "b", "c"] {
                let seat = conductor.seat(name);
                let playing = &playing;
                scope.spawn(move || {
                    while seat.go_on() {
                        playing.fetch_add(1, Relaxed);
                        thread::yield_now();
                        playing.fetch_sub(1, Relaxed);
                    }
                });
            }
            for _ in 0..100 {
                conductor.rest(|| {
                    assert_eq!(playing.load(Relaxed), 0);
                    assert!(conductor.players().is_empty());
                });
            }
            conductor.end();
        });
    }
}
