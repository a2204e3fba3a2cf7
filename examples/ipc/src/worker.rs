//! The work of each thread: it creates namespaces, uses them and those of other threads, and tears them down.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use epoch_registry::{Domain, Entry, Registry, Session};

use crate::ids::{Gone, Held, Id, Ids, Numbered};
use crate::namespace::{Fates, Key, Namespace, Object};
use crate::random::Random;

/// The state that all threads share.
pub struct Shared {
    pub domain: Domain,
    /// The namespaces. They have ids, as objects do.
    pub namespaces: Ids<Namespace>,
    /// A board where owners post the ids of their objects. A posted id may be stale.
    board: Registry<u32, Ticket>,
    pub fates: Arc<Fates>,
    /// The number of slots of each namespace.
    range: u32,
    /// The number of namespaces still to create.
    to_do: AtomicU64,
    until: Instant,
}

/// What a thread knows about an object.
#[derive(Clone, Copy)]
struct Ticket {
    namespace: Id,
    object: Id,
    serial: u64,
}

/// The counters and findings of a thread.
#[derive(Default)]
pub struct Seen {
    /// Lookups by id, and by key.
    pub by_id: u64,
    pub by_key: u64,
    /// Lookups of stale ids whose slot was empty, and whose slot held another id.
    pub empty: u64,
    pub reused: u64,
    /// Handles that were dropped after their object had left its namespace, and after its namespace was destroyed.
    pub outlived_entry: u64,
    pub outlived_namespace: u64,
    /// Errors that were found.
    pub wrong: Vec<String>,
    /// Handles that are kept until after the end.
    pub held: VecDeque<(u64, Held<Object>)>,
}

/// The objects that a thread has created in its namespace.
#[derive(Default)]
struct Filled {
    /// Objects that no other thread knows.
    mine: Vec<(Ticket, Held<Object>)>,
    posted: Vec<Held<Object>>,
}

/// How often a thread fills and empties its own namespace.
const ROUNDS: usize = 6;
/// The number of places on the board.
const BOARD: u32 = 512;
/// The number of handles that a thread keeps, so that they outlive many namespaces.
const HELD: usize = 2000;
/// The number of keys.
const KEYS: Key = 8;
/// The most namespaces at a time, per thread. Few, so that their ids are reused too.
const NAMESPACES: u32 = 4;

impl Shared {
    pub fn new(threads: usize, range: u32, namespaces: u64, until: Instant) -> Self {
        let domain = Domain::builder().name("ipc").build();
        Shared {
            namespaces: Ids::new(&domain, NAMESPACES * threads as u32),
            board: Registry::builder().domain(domain.clone()).build(),
            fates: Arc::default(),
            range,
            to_do: AtomicU64::new(namespaces),
            until,
            domain,
        }
    }

    /// Returns whether the thread has to create another namespace.
    fn take(&self) -> bool {
        // ORDERING: Relaxed. Only a count.
        let taken = self.to_do.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |to_do| to_do.checked_sub(1));
        taken.is_ok() && Instant::now() < self.until
    }
}

pub struct Worker<'s> {
    shared: &'s Shared,
    /// One session for all registries of the domain. A session for each of thousands of registries would cost too
    /// much.
    session: Session,
    random: Random,
    seen: Seen,
}

impl<'s> Worker<'s> {
    pub fn new(shared: &'s Shared, seed: u64) -> Self {
        Worker { shared, session: shared.domain.session(), random: Random::new(seed), seen: Seen::default() }
    }

    /// Returns a number below `bound`.
    fn choose(&mut self, bound: u32) -> u32 {
        self.random.below(bound as usize) as u32
    }

    pub fn run(mut self) -> Seen {
        while self.shared.take() {
            let made = Namespace::new(&self.shared.domain, self.shared.range, &self.shared.fates);
            let namespace = self.shared.namespaces.add(made).expect("there is a slot for each thread");
            let mut stale = Vec::new();
            for _ in 0..ROUNDS {
                let filled = self.fill(&namespace);
                self.look_up(&filled.mine);
                self.visit();
                self.empty(&namespace, filled, &mut stale);
                self.look_up_stale(&stale);
            }
            self.fill(&namespace);
            if !self.shared.namespaces.remove(&namespace) {
                self.seen.wrong.push("a namespace was removed by another thread than its own".to_string());
            }
            // The remaining objects end with the namespace, when its last visitor has dropped it.
        }
        self.seen
    }

    /// Creates objects, and posts some of them on the board.
    fn fill(&mut self, namespace: &Held<Namespace>) -> Filled {
        let mut filled = Filled::default();
        for nth in 0..self.shared.range / 2 {
            let made = if nth % 8 == 0 { namespace.get_or_create(self.choose(KEYS)) } else { namespace.create() };
            let Ok(object) = made else { break };
            let ticket = Ticket { namespace: namespace.id(), object: object.id(), serial: object.serial };
            if nth % 4 == 0 {
                self.post(ticket);
                filled.posted.push(object);
            } else {
                filled.mine.push((ticket, object));
            }
        }
        filled
    }

    fn post(&mut self, ticket: Ticket) {
        self.shared.board.insert(self.choose(BOARD), ticket);
    }

    /// Looks up objects that only this thread knows. They must be found.
    fn look_up(&mut self, mine: &[(Ticket, Held<Object>)]) {
        for (ticket, _) in mine {
            let found = self.find(*ticket, |_, found| found.serial);
            if found != Ok(ticket.serial) {
                self.seen.wrong.push(format!("{:?} is object {}, but was {found:?}", ticket.object, ticket.serial));
            }
        }
    }

    /// Looks up objects that this thread has removed. They must not be found, whatever is in the slot.
    fn look_up_stale(&mut self, stale: &[Ticket]) {
        for ticket in stale {
            match self.find(*ticket, |_, found| found.serial) {
                Ok(serial) => {
                    let Ticket { object, serial: old, .. } = ticket;
                    self.seen.wrong.push(format!("{object:?} was object {old}, is gone, and stands for {serial}"));
                }
                Err(Gone::Empty) => self.seen.empty += 1,
                Err(Gone::Reused) => self.seen.reused += 1,
            }
        }
    }

    /// Removes this thread's objects, and keeps some handles.
    fn empty(&mut self, namespace: &Namespace, filled: Filled, stale: &mut Vec<Ticket>) {
        for object in filled.posted {
            // Another thread may have removed it first.
            namespace.remove(&object);
        }
        for (ticket, object) in filled.mine {
            if !namespace.remove(&object) {
                self.seen.wrong.push(format!("{:?} was removed by another thread than its own", ticket.object));
            }
            stale.push(ticket);
            if self.choose(8) == 0 {
                self.hold(ticket.serial, object);
            }
        }
    }

    /// Looks up what other threads have posted. The object may be gone, with its namespace. If it is found, it
    /// must be the one that was posted. Keeps or removes some of the objects.
    fn visit(&mut self) {
        for _ in 0..self.shared.range / 2 {
            let place = self.choose(BOARD);
            let Some(ticket) = self.shared.board.lookup(&place).map(|ticket| *ticket) else { continue };
            let chance = self.choose(8);
            let found = self.find(ticket, |namespace, found| {
                // `None` if another thread is removing the object.
                let kept = if chance < 2 { found.handle() } else { None };
                if let (0, Some(object)) = (chance, &kept) {
                    namespace.remove(object);
                }
                (found.serial, kept)
            });
            match found {
                Err(Gone::Empty) => self.seen.empty += 1,
                Err(Gone::Reused) => self.seen.reused += 1,
                Ok((serial, _)) if serial != ticket.serial => {
                    self.seen.wrong.push(format!("{:?} was object {}, not {serial}", ticket.object, ticket.serial));
                }
                Ok((serial, Some(object))) => self.hold(serial, object),
                Ok((_, None)) => {}
            }
            if chance == 2 {
                self.visit_by_key(ticket.namespace);
            }
        }
    }

    /// Uses a namespace that another thread may remove at the same time. A handle keeps it alive.
    fn visit_by_key(&mut self, namespace: Id) {
        let Ok(namespace) = self.shared.namespaces.get(namespace) else { return };
        for key in 0..KEYS {
            self.seen.by_key += 1;
            if let Some(object) = namespace.find(key) {
                if (object.namespace, object.key) != (namespace.serial, Some(key)) {
                    self.seen.wrong.push(format!("key {key} stood for an object of {:?}", object.key));
                }
            }
        }
        // This may be the last object that the namespace gets.
        namespace.get_or_create(self.choose(KEYS)).ok();
    }

    /// Finds an object by the id of its namespace and its own id, both in one critical section.
    fn find<R>(
        &mut self,
        ticket: Ticket,
        use_it: impl FnOnce(&Namespace, Entry<'_, u32, Numbered<Object>>) -> R,
    ) -> Result<R, Gone> {
        self.seen.by_id += 1;
        let guard = self.session.pin();
        let namespaces = self.shared.namespaces.view(&guard).expect("all registries share a domain");
        let namespace = namespaces.get(ticket.namespace)?.value();
        let objects = namespace.objects.view(&guard).expect("all registries share a domain");
        Ok(use_it(namespace, objects.get(ticket.object)?))
    }

    /// Keeps a handle for a long time.
    fn hold(&mut self, serial: u64, object: Held<Object>) {
        self.seen.held.push_back((serial, object));
        if self.seen.held.len() > HELD {
            let (serial, object) = self.seen.held.pop_front().expect("more than `HELD` handles are kept");
            if object.serial != serial {
                self.seen.wrong.push(format!("a handle of object {serial} has become one of {}", object.serial));
            }
            self.seen.outlived_entry += u64::from(object.is_unlinked());
            self.seen.outlived_namespace += u64::from(self.shared.fates.namespaces.is_dropped(object.namespace));
        }
    }
}
