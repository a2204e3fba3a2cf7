//! Readers: they look again at everything that they hold before they release it.

use std::collections::VecDeque;
use std::sync::Arc;

use epoch_registry::RandomState;
use epoch_registry::{Cookie, Cursor, DomainGuard, Entry, Guard, Handle, View};

use crate::broken::Broken;
use crate::conductor::{Conductor, Seat};
use crate::figures::{Figures, Tally, nap, thread_name};
use crate::pipeline::{Lease, SLOTS};
use crate::pool::{Name, TOO_OLD, Torn};
use crate::rng::Rng;
use crate::torture::{Torture, WORLDS};
use crate::value::Value;
use crate::world::{LEASES, STABLE, World};

/// The most guards at a time, and handles kept.
const MANY: usize = 8;

pub fn read(torture: &Torture, seat: &Seat<'_>, rng: Rng) {
    let mut reader = Reader::new(rng, &torture.figures);
    while seat.go_on() {
        let world = reader.rng.pick(&torture.worlds);
        let conductor = &torture.conductor;
        // Mostly short bouts, to mix the kinds of readers. Some are long, so that a session sees many grace periods.
        let bout = if reader.rng.one_in(16) { 16_384 } else { 256 };
        match reader.rng.below(6) {
            0 | 1 => reader.guards(world, bout, conductor),
            2 => reader.session(world, bout, conductor),
            3 => reader.readers(world, bout, conductor),
            4 => reader.borrows(world, bout, conductor),
            _ => reader.handles(world, bout, conductor),
        }
        reader.hand_in();
    }
}

pub struct Reader {
    pub rng: Rng,
    figures: Arc<Figures>,
    tally: Tally,
    /// Elements found in the open section.
    held: Vec<Name>,
    /// A grace period that was started in the open section. It cannot end before the section does.
    asked: Option<Cookie>,
    /// The newest version found, by world and stable key.
    newest: [Vec<u64>; WORLDS],
}

/// A guard of one of three kinds.
enum Open<'w> {
    Domain(DomainGuard<'w>),
    Leases(Guard<'w, u64, Lease, RandomState>),
    Values(Guard<'w, u64, Value, RandomState>),
}

impl<'w> Open<'w> {
    fn new(world: &'w World, rng: &mut Rng) -> Self {
        match rng.below(3) {
            0 => Open::Domain(world.pipeline.domain.pin()),
            1 => Open::Leases(world.leases.pin()),
            _ => Open::Values(world.values.pin()),
        }
    }

    fn repin(&mut self) {
        match self {
            Open::Domain(guard) => guard.repin(),
            Open::Leases(guard) => guard.repin(),
            Open::Values(guard) => guard.repin(),
        }
    }
}

impl Reader {
    pub fn new(rng: Rng, figures: &Arc<Figures>) -> Self {
        Reader {
            rng,
            figures: Arc::clone(figures),
            tally: Tally::default(),
            held: Vec::new(),
            asked: None,
            newest: [(); WORLDS].map(|()| vec![0; STABLE as usize]),
        }
    }

    pub fn hand_in(&mut self) {
        self.tally.hand_in(&self.figures);
    }

    /// Reads in one section with one guard.
    pub fn section(&mut self, world: &World) {
        let _open = Open::new(world, &mut self.rng);
        self.hold(world);
        self.dawdle();
        self.let_go(world);
    }

    /// Reads in sections with guards that nest, overlap and outlive one another. Such a section lasts until the
    /// last guard is dropped.
    fn guards(&mut self, world: &World, bout: usize, conductor: &Conductor) {
        let mut open = Vec::with_capacity(MANY);
        for _ in 0..bout {
            if !conductor.is_playing() {
                return;
            }
            open.push(Open::new(world, &mut self.rng));
            loop {
                self.hold(world);
                self.dawdle();
                let which = self.rng.index(open.len());
                match self.rng.below(8) {
                    0 | 1 if open.len() < MANY => open.push(Open::new(world, &mut self.rng)),
                    2 if open.len() > 1 => drop(open.swap_remove(which)),
                    3 => {
                        // With other guards open, a repin does nothing. Alone, it ends the section.
                        if open.len() == 1 && !world.is(Broken::Outlive) {
                            self.let_go(world);
                        }
                        open[which].repin();
                    }
                    _ => break,
                }
            }
            self.let_go(world);
            open.clear();
        }
    }

    /// Reads in sections of a session, with guards in it. The session goes offline from time to time.
    fn session(&mut self, world: &World, bout: usize, conductor: &Conductor) {
        let domain = &world.pipeline.domain;
        let mut session = domain.session();
        for _ in 0..bout {
            if !conductor.is_playing() {
                return;
            }
            match self.rng.below(256) {
                0 => session.offline(|| domain.synchronize()),
                1 => session.offline(|| nap(self.rng.below(1000))),
                2..10 => session.quiescent(),
                _ => {}
            }
            let guard = session.pin();
            let values = world.values.view(&guard).expect("a guard of the domain");
            let leases = world.leases.view(&guard).expect("a guard of the domain");
            let nested = self.rng.one_in(4).then(|| domain.pin());
            self.hold(world);
            self.held.extend(leases.get(&self.rng.below(LEASES)).map(|lease| lease.name));
            let key = World::key(&mut self.rng);
            let value = values.get(&key).map(Entry::value);
            self.check(world, key, value);
            self.dawdle();
            if let Some(value) = value {
                self.check_sound(key, value);
            }
            drop(nested);
            if self.rng.one_in(2) {
                // The section lasts until the session's next quiescent state.
                drop(guard);
                self.dawdle();
            }
            self.let_go(world);
        }
    }

    /// Reads in sections of two sessions of this thread, each bound to a registry.
    fn readers(&mut self, world: &World, bout: usize, conductor: &Conductor) {
        let (mut leases, mut values) = (world.leases.reader(), world.values.reader());
        for _ in 0..bout {
            if !conductor.is_playing() {
                return;
            }
            if self.rng.one_in(256) {
                leases.offline(|| values.offline(|| nap(self.rng.below(1000))));
            }
            let view = leases.view();
            for _ in 0..=self.rng.below(3) {
                self.held.extend(view.get(&self.rng.below(LEASES)).map(|lease| lease.name));
            }
            self.values(world, values.view());
            self.dawdle();
            self.let_go(world);
        }
    }

    /// Reads with guards of the registry, and looks at each borrowed value twice.
    fn borrows(&mut self, world: &World, bout: usize, conductor: &Conductor) {
        let mut guard = world.values.pin();
        for _ in 0..bout {
            if !conductor.is_playing() {
                return;
            }
            self.values(world, &guard);
            if self.rng.one_in(64) {
                world.values.scan(&mut Cursor::new(), 256, |entry| self.check_sound(*entry.key(), &entry));
            }
            self.tally.sections += 1;
            if self.rng.one_in(2) {
                guard.repin();
            } else {
                drop(guard);
                guard = world.values.pin();
            }
        }
    }

    /// Keeps handles across many sections.
    fn handles(&mut self, world: &World, bout: usize, conductor: &Conductor) {
        let mut leases: VecDeque<Handle<u64, Lease>> = VecDeque::new();
        let mut values: VecDeque<Handle<u64, Value>> = VecDeque::new();
        for _ in 0..bout {
            if !conductor.is_playing() {
                break;
            }
            let (lease, key) = (self.rng.below(LEASES), World::key(&mut self.rng));
            if self.rng.one_in(2) {
                leases.extend(world.leases.lookup(&lease));
                values.extend(world.values.lookup(&key));
            } else {
                let guard = world.pipeline.domain.pin();
                leases.extend(world.leases.view(&guard).expect("a guard of the domain").lookup(&lease));
                // The entry is found, but may be removed before the handle is taken.
                let view = world.values.view(&guard).expect("a guard of the domain");
                values.extend(view.get(&key).and_then(Entry::handle));
            }
            self.dawdle();
            while leases.len() > MANY || values.len() > MANY {
                self.put(world, leases.pop_front(), values.pop_front());
            }
        }
        while !(leases.is_empty() && values.is_empty()) {
            self.put(world, leases.pop_front(), values.pop_front());
        }
    }

    /// Checks what handles have kept, and drops them.
    fn put(&mut self, world: &World, lease: Option<Handle<u64, Lease>>, value: Option<Handle<u64, Value>>) {
        // Not counted among the ages: the handle keeps the element young, not a grace period.
        if let Some(lease) = lease {
            self.tally.value_reads += 1;
            if world.pipeline.pool.look(lease.name).map_or(true, |age| age >= TOO_OLD) {
                self.figures.faults.add("an element aged although a handle keeps it", thread_name);
            }
        }
        if let Some(value) = value {
            self.check_sound(*value.key(), &value);
        }
    }

    /// Reads values in every way that a view offers. Borrowed values are checked again at the end.
    fn values(&mut self, world: &World, view: &View<'_, u64, Value, RandomState>) {
        let keys: [u64; MANY] = std::array::from_fn(|_| World::key(&mut self.rng));
        match self.rng.below(16) {
            0 => view.get_batch(&keys, |&key, found| self.check(world, key, found.map(Entry::value))),
            1 => view.lookup_batch(&keys, |&key, found| self.check(world, key, found.as_deref())),
            2 => {
                for found in view.iter().take(self.rng.index(256)) {
                    self.check_sound(*found.key(), found.value());
                }
            }
            _ => {
                let found = if self.rng.one_in(2) {
                    view.get_many(keys.each_ref())
                } else {
                    keys.each_ref().map(|key| view.get(key))
                };
                for (&key, found) in keys.iter().zip(&found) {
                    self.check(world, key, found.map(Entry::value));
                }
                self.dawdle();
                for (&key, found) in keys.iter().zip(&found).filter_map(|(key, found)| Some((key, found.as_ref()?))) {
                    self.check_sound(key, found);
                }
            }
        }
    }

    /// Checks the value that was found for `key`.
    fn check(&mut self, world: &World, key: u64, found: Option<&Value>) {
        if let Some(value) = found {
            self.check_sound(key, value);
        }
        if key >= STABLE {
            return;
        }
        let newest = &mut self.newest[world.number][key as usize];
        match found {
            None => {
                self.figures.faults.add("a stable key was not found", || format!("key {key}, by {}", thread_name()))
            }
            Some(value) if value.version < *newest => {
                let more = || format!("key {key}, from {newest} to {}", value.version);
                self.figures.faults.add("an updated key went back to an older version", more);
            }
            Some(value) => *newest = value.version,
        }
    }

    fn check_sound(&mut self, key: u64, value: &Value) {
        self.tally.value_reads += 1;
        if !value.is_sound(key) {
            self.figures.faults.add("a value is not sound", || format!("key {key}, read by {}", thread_name()));
        }
    }

    /// Finds elements in the open section.
    fn hold(&mut self, world: &World) {
        for _ in 0..=self.rng.below(3) {
            self.held.push(world.pipeline.read(self.rng.index(SLOTS)));
        }
        if self.rng.one_in(2) {
            let guard = world.leases.pin();
            self.held.extend(guard.get(&self.rng.below(LEASES)).map(|lease| lease.name));
        }
        if self.rng.one_in(4) {
            self.held.extend(self.rng.pick(&world.cells).with(|lease| lease.map(|lease| lease.name)));
            let guard = world.pipeline.domain.pin();
            self.held.extend(world.queue.iter(&guard).take(MANY).map(|lease| lease.name));
            self.held.extend(world.detour.iter(&guard).take(MANY).map(|lease| lease.name));
        }
        if self.rng.one_in(1024) {
            self.asked.get_or_insert_with(|| world.pipeline.domain.start_poll());
        }
    }

    /// Checks the elements that were found, and releases them. The section is still open.
    fn let_go(&mut self, world: &World) {
        let faults = &self.figures.faults;
        for name in self.held.drain(..) {
            match world.pipeline.pool.look(name) {
                Ok(age) => self.tally.element(age, faults),
                Err(Torn) => faults.add("an element is torn", thread_name),
            }
        }
        self.tally.sections += 1;
        if let Some(cookie) = self.asked.take() {
            self.figures.polls_in_sections.up();
            if world.pipeline.domain.poll(cookie) {
                faults.add("a grace period ended before a section that it covers", thread_name);
            }
        }
    }

    /// Delays the reader: mostly for a few instructions, sometimes for about a millisecond.
    fn dawdle(&mut self) {
        match self.rng.below(8192) {
            0 => nap(self.rng.below(3000)),
            1..8 => std::thread::yield_now(),
            8..256 => (0..self.rng.below(500)).for_each(|_| std::hint::spin_loop()),
            _ => (0..self.rng.below(8)).for_each(|_| std::hint::spin_loop()),
        }
    }
}
