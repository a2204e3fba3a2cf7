//! The store of sessions.

use crate::census::{Census, Counted};
use crate::id::SessionId;
use crate::user::User;
use epoch_registry::{Cause, Clock, Domain, Handle, Registry, Stats};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A session, as requests use it.
pub type SessionHandle = Handle<SessionId, Session>;

/// The value of a session.
pub struct Session {
    pub user: Handle<String, User>,
    /// The number of the session, which is no secret.
    pub number: u64,
    uses: AtomicU64,
    /// What the client keeps in its session.
    data: Mutex<Arc<[u8]>>,
    _counted: Counted,
}

impl Session {
    fn new(user: Handle<String, User>, number: u64, census: &Census) -> Self {
        let data = Mutex::new(Arc::from(&b""[..]));
        Session { user, number, uses: AtomicU64::new(0), data, _counted: census.count() }
    }

    pub fn data(&self) -> Arc<[u8]> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_data(&self, data: &[u8]) {
        let mut data = Arc::from(data);
        std::mem::swap(&mut data, &mut self.data.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A session, as its user sees it.
#[derive(Serialize)]
pub struct Shown {
    pub number: u64,
    pub uses: u64,
    pub age_seconds: f64,
    /// How long it lasts if it is not used.
    pub expires_in_seconds: f64,
}

/// The bounds of sessions.
#[derive(Clone, Copy)]
pub struct Limits {
    /// A session that is not used for this long ends.
    pub max_idle: Duration,
    /// A session ends when it is this old, however much it is used.
    pub max_age: Duration,
    /// The most sessions. Beyond it, sessions that were not used lately end.
    pub max_sessions: usize,
}

/// How sessions have ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Ended {
    pub logged_out: u64,
    pub too_old: u64,
    pub idle: u64,
    pub evicted: u64,
}

#[derive(Default)]
struct EndedCounts {
    logged_out: AtomicU64,
    too_old: AtomicU64,
    idle: AtomicU64,
    evicted: AtomicU64,
}

impl EndedCounts {
    // ORDERING: Relaxed, statistics.
    fn count(&self, cause: Cause) {
        let count = match cause {
            Cause::Expired => &self.too_old,
            Cause::Idle => &self.idle,
            Cause::Capacity => &self.evicted,
            _ => &self.logged_out,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> Ended {
        let [logged_out, too_old, idle, evicted] =
            [&self.logged_out, &self.too_old, &self.idle, &self.evicted].map(|count| count.load(Ordering::Relaxed));
        Ended { logged_out, too_old, idle, evicted }
    }
}

/// The statistics of the store.
#[derive(Serialize)]
pub struct Statistics {
    pub sessions: usize,
    pub users: usize,
    pub created: u64,
    pub destroyed: u64,
    pub ended: Ended,
    pub registry: Stats,
}

/// What was created, and what was destroyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accounts {
    pub created: u64,
    pub dropped: u64,
    /// Users that are left.
    pub users: usize,
}

/// All sessions, and the users who have some.
///
/// A session holds a handle to its user, and the index of the user holds the id of the session. The listener of the
/// registry takes a session out of the index when the session leaves, for any cause.
pub struct Sessions {
    sessions: Registry<SessionId, Session>,
    users: Arc<Registry<String, User>>,
    limits: Limits,
    census: Census,
    ended: Arc<EndedCounts>,
    logins: AtomicU64,
}

impl Sessions {
    /// Makes an empty store, whose values are destroyed in `domain`. Sessions expire in the background, so the domain needs
    /// an executor or a thread.
    pub fn new(domain: &Domain, limits: Limits, clock: impl Clock) -> Self {
        let users: Arc<Registry<String, User>> = Arc::new(Registry::builder().domain(domain.clone()).build());
        let ended = Arc::new(EndedCounts::default());
        let sessions = Registry::builder()
            .domain(domain.clone())
            .clock(clock)
            .max_idle(limits.max_idle)
            .max_age(limits.max_age)
            .max_entries(limits.max_sessions)
            .listener({
                let (users, ended) = (users.clone(), ended.clone());
                move |cause, session: SessionHandle| {
                    ended.count(cause);
                    if session.user.forget(session.number) {
                        users.remove_handle(&session.user);
                    }
                }
            })
            .reap_in_background(true)
            .build();
        Sessions { sessions, users, limits, census: Census::default(), ended, logins: AtomicU64::new(0) }
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Begins a session of a user.
    ///
    /// # Errors
    ///
    /// If the operating system has no random numbers.
    pub fn log_in(&self, name: &str) -> Result<SessionHandle, getrandom::Error> {
        // ORDERING: Relaxed, as only the number itself must be new.
        let number = self.logins.fetch_add(1, Ordering::Relaxed);
        loop {
            let id = SessionId::random()?;
            let user = self.users.get_or_insert_by_ref(name, User::default);
            // First into the index: then the listener finds the session there, however soon it ends. A logout everywhere
            // that finds it there, and not yet in the registry, came before this login.
            if !user.add(number, id) {
                // The last session of the user has just ended. The next round makes the user anew.
                self.users.remove_handle(&user);
                continue;
            }
            let session = Session::new(user.clone(), number, &self.census);
            match self.sessions.try_insert(id, session) {
                Ok(session) => return Ok(session),
                // The id is in use. (That happens once in 2^128 logins.)
                Err(occupied) => {
                    if user.forget(occupied.value.number) {
                        self.users.remove_handle(&user);
                    }
                }
            }
        }
    }

    /// Returns a session, and counts the use, which prolongs the session's life up to its greatest age.
    pub fn use_session(&self, id: SessionId) -> Option<SessionHandle> {
        let session = self.sessions.lookup(&id)?;
        // ORDERING: Relaxed, a statistic.
        session.uses.fetch_add(1, Ordering::Relaxed);
        Some(session)
    }

    /// Ends a session. Returns whether it was there.
    pub fn log_out(&self, session: &SessionHandle) -> bool {
        self.sessions.remove_handle(session)
    }

    /// Ends all sessions of a user that have begun before this call. Returns their number.
    pub fn log_out_everywhere(&self, user: &User) -> usize {
        // Without the lock of the index, which the listener takes.
        let ids = user.ids();
        self.sessions.delete_many(&ids)
    }

    /// Returns what a user sees of a session.
    pub fn show(&self, session: &SessionHandle) -> Shown {
        Shown {
            number: session.number,
            // ORDERING: Relaxed, a statistic.
            uses: session.uses.load(Ordering::Relaxed),
            age_seconds: self.sessions.age(session).as_secs_f64(),
            expires_in_seconds: self.sessions.remaining(session).unwrap_or(Duration::MAX).as_secs_f64(),
        }
    }

    /// Returns the sessions of a user, in the order of login. To be listed prolongs no session's life.
    pub fn list(&self, user: &User) -> Vec<Shown> {
        user.ids().iter().filter_map(|id| Some(self.show(&self.sessions.peek(id)?))).collect()
    }

    pub fn statistics(&self) -> Statistics {
        // Expired sessions count until they are removed.
        self.sessions.expire(usize::MAX);
        Statistics {
            sessions: self.sessions.len(),
            users: self.users.len(),
            created: self.census.created(),
            destroyed: self.census.dropped(),
            ended: self.ended.get(),
            registry: self.sessions.stats(),
        }
    }

    /// Ends all sessions, and waits until they and their users are destroyed. No request may be under way.
    pub async fn shut_down(&self) -> Accounts {
        self.sessions.clear();
        self.sessions.domain().barrier_async().await;
        Accounts { created: self.census.created(), dropped: self.census.dropped(), users: self.users.len() }
    }
}
