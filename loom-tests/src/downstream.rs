//! The example of "Testing your own code under loom" in `docs/verification.md`: how a crate that uses epoch-registry
//! tests its own code. Without `--cfg loom` the same tests run once, on real threads.

use epoch_registry::{Domain, ManualClock, Registry};
use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex};
use sync::{AtomicBool, AtomicUsize, Ordering, model, thread};

/// The only module of the crate that switches on `cfg(loom)`.
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

/// The crate's own type: a table of sessions. A session is shut down when it is closed and no request uses it.
struct Sessions {
    table: Registry<u64, Session, BuildHasherDefault<DefaultHasher>>,
}

struct Session {
    /// The number of requests under way, and the flag `CLOSED`.
    state: AtomicUsize,
    /// Whether the session's connection is up.
    is_up: AtomicBool,
}

const CLOSED: usize = 1 << (usize::BITS - 1);

impl Session {
    fn begin(&self) -> bool {
        let begin = |state| if state & CLOSED == 0 { Some(state + 1) } else { None };
        // ORDERING: Acquire keeps the request's accesses after this step. It pairs with no Release.
        self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, begin).is_ok()
    }

    /// Contains the race that the model must find: a session may be closed between the two steps.
    #[cfg(loom)]
    fn begin_in_two_steps(&self) -> bool {
        if self.state.load(Ordering::Acquire) & CLOSED != 0 {
            return false;
        }
        self.state.fetch_add(1, Ordering::Acquire);
        true
    }

    fn end(&self) {
        // ORDERING: AcqRel. Release orders this request before a shutdown by another thread, Acquire orders the other
        // requests before a shutdown by this one.
        if self.state.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1 {
            self.shut_down();
        }
    }

    fn close(&self) {
        // ORDERING: Acquire, pairs with the Release in `end`: a shutdown comes after all requests.
        if self.state.fetch_or(CLOSED, Ordering::Acquire) == 0 {
            self.shut_down();
        }
    }

    fn shut_down(&self) {
        // ORDERING: Relaxed. No request begins after this, and the caller's Acquire orders earlier requests before it.
        self.is_up.store(false, Ordering::Relaxed);
    }
}

impl Sessions {
    /// Takes the domain and the clock as parameters, so that a model can pass its own.
    fn new(domain: Domain, clock: ManualClock) -> Sessions {
        Sessions { table: Registry::builder().domain(domain).clock(clock).shards(1).hasher(Default::default()).build() }
    }

    fn open(&self, number: u64) {
        let session = Session { state: AtomicUsize::new(0), is_up: AtomicBool::new(true) };
        assert!(self.table.try_insert(number, session).is_ok(), "a session number must not be used twice");
    }

    /// Runs a request, which `begin` starts. Returns whether the connection was up at its end, or `None` if there is no
    /// open session.
    fn request(&self, number: u64, begin: fn(&Session) -> bool) -> Option<bool> {
        let session = self.table.lookup(&number).filter(|session| begin(session))?;
        // ORDERING: Relaxed. With a correct `begin`, a shutdown comes before all requests or after all of them.
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

/// Races a request with a close. Returns the results of the request in all explored interleavings.
fn request_close(begin: fn(&Session) -> bool) -> BTreeSet<Option<bool>> {
    // A lock of std: the test keeps this set from one execution to the next, so it is not part of the model.
    let outcomes: Arc<Mutex<BTreeSet<_>>> = Arc::default();
    let seen = Arc::clone(&outcomes);
    model(move || {
        // Each execution creates its own shared objects, including the domain.
        let domain = Domain::builder().name("model").build();
        let sessions = Arc::new(Sessions::new(domain.clone(), ManualClock::new()));
        sessions.open(1);
        let other = Arc::clone(&sessions);
        let requesting = thread::spawn(move || other.request(1, begin));
        assert!(sessions.close(1), "no other thread closes the session");
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
    // Both orders must have been explored; otherwise the test shows nothing.
    assert!(cfg!(not(loom)) || outcomes.contains(&None) && outcomes.contains(&Some(true)));
}

/// Shows that the model can find the race.
#[cfg(loom)]
#[test]
fn a_request_that_begins_in_two_steps_does() {
    assert!(request_close(Session::begin_in_two_steps).contains(&IT_WAS_SHUT_DOWN));
}
