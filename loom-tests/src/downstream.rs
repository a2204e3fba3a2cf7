//! How a crate that uses epoch-registry tests its own code: the example of "Testing your own code under loom" in
//! `docs/verification.md`. Without `--cfg loom` the same tests run once, on real threads.

use epoch_registry::{Domain, ManualClock, Registry};
use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex};
use sync::{AtomicBool, AtomicUsize, Ordering, model, thread};

/// The one place where the crate switches.
mod sync {
    #[cfg(loom)]
    pub use loom::{
        model,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
        thread,
    };
    #[cfg(not(loom))]
    pub use std::{
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
        thread,
    };

    #[cfg(not(loom))]
    pub fn model(f: impl Fn() + Send + Sync + 'static) {
        f();
    }
}

/// The crate's own type: sessions by number, which are shut down when they are closed and no request uses them any more.
struct Sessions {
    table: Registry<u64, Session, BuildHasherDefault<DefaultHasher>>,
}

struct Session {
    /// Requests under way, and `CLOSED`.
    state: AtomicUsize,
    /// Whether its connection is there.
    is_up: AtomicBool,
}

const CLOSED: usize = 1 << (usize::BITS - 1);

impl Session {
    fn begin(&self) -> bool {
        let begin = |state| if state & CLOSED == 0 { Some(state + 1) } else { None };
        // ORDERING: Acquire, nothing of the request comes before it; pairs with nothing else.
        self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, begin).is_ok()
    }

    /// The race that the model is to find: a session may be closed between the two steps.
    #[cfg(loom)]
    fn begin_in_two_steps(&self) -> bool {
        if self.state.load(Ordering::Acquire) & CLOSED != 0 {
            return false;
        }
        self.state.fetch_add(1, Ordering::Acquire);
        true
    }

    fn end(&self) {
        // ORDERING: AcqRel. Release, for the one who shuts down; Acquire, if that is this one.
        if self.state.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            self.shut_down();
        }
    }

    fn close(&self) {
        // ORDERING: Acquire, pairs with the Release in `end`.
        if self.state.fetch_or(CLOSED, Ordering::Acquire) == 0 {
            self.shut_down();
        }
    }

    fn shut_down(&self) {
        self.is_up.store(false, Ordering::Relaxed);
    }
}

impl Sessions {
    /// Takes the domain and the clock, so that a model can bring its own.
    fn new(domain: Domain, clock: ManualClock) -> Sessions {
        Sessions { table: Registry::builder().domain(domain).clock(clock).shards(1).hasher(Default::default()).build() }
    }

    fn open(&self, number: u64) {
        let session = Session { state: AtomicUsize::new(0), is_up: AtomicBool::new(true) };
        assert!(self.table.try_insert(number, session).is_ok(), "session numbers are not used twice");
    }

    /// A request, which begins by `begin`. Whether the connection was there to its end, or `None` if there is no session.
    fn request(&self, number: u64, begin: fn(&Session) -> bool) -> Option<bool> {
        let session = self.table.lookup(&number).filter(|session| begin(session))?;
        // ORDERING: Relaxed, whoever shuts down does so before all requests or after them.
        let was_up = session.is_up.load(Ordering::Relaxed);
        session.end();
        Some(was_up)
    }

    fn close(&self, number: u64) -> bool {
        self.table.remove(&number).is_some_and(|session| {
            session.close();
            true
        })
    }
}

/// A request beside a close: what became of the request, in all the ways in which it can go.
fn request_close(begin: fn(&Session) -> bool) -> BTreeSet<Option<bool>> {
    // std's lock: what the test keeps from one execution to the next is no part of the model.
    let outcomes: Arc<Mutex<BTreeSet<_>>> = Arc::default();
    let seen = Arc::clone(&outcomes);
    model(move || {
        // All that the threads share is made for each execution anew, the domain above all.
        let domain = Domain::builder().name("model").build();
        let sessions = Arc::new(Sessions::new(domain.clone(), ManualClock::new()));
        sessions.open(1);
        let other = Arc::clone(&sessions);
        let requesting = thread::spawn(move || other.request(1, begin));
        assert!(sessions.close(1), "nobody else closes it");
        seen.lock().unwrap().insert(requesting.join().unwrap());
        domain.barrier();
        assert_eq!(sessions.table.stats().freed, 1, "a session is freed after its last handle");
    });
    let outcomes = outcomes.lock().unwrap();
    outcomes.clone()
}

const IT_WAS_SHUT_DOWN: Option<bool> = Some(false);

#[test]
fn a_request_never_meets_a_session_that_was_shut_down() {
    let outcomes = request_close(Session::begin);
    assert!(!outcomes.contains(&IT_WAS_SHUT_DOWN));
    // That both orders were explored: else the test would say nothing.
    assert!(cfg!(not(loom)) || outcomes.contains(&None) && outcomes.contains(&Some(true)));
}

/// That the model has teeth.
#[cfg(loom)]
#[test]
fn a_request_that_begins_in_two_steps_does() {
    assert!(request_close(Session::begin_in_two_steps).contains(&IT_WAS_SHUT_DOWN));
}
