//! Users, and the index of their sessions.

use crate::id::SessionId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is known about a session. The session and the index of its user share it: a list of sessions looks at no session,
/// as that would count as a use.
pub struct About {
    /// The number of the session, which is no secret.
    pub number: u64,
    /// When it was created, by the clock of the store.
    pub created: Duration,
    uses: AtomicU64,
    /// When it was last used, in nanoseconds of the clock.
    last_used: AtomicU64,
}

// ORDERING: Relaxed for both: figures that no other memory depends on.
impl About {
    pub fn new(number: u64, now: Duration) -> Self {
        let last_used = AtomicU64::new(now.as_nanos() as u64);
        About { number, created: now, uses: AtomicU64::new(0), last_used }
    }

    pub fn count_use(&self, now: Duration) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        self.last_used.fetch_max(now.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    pub fn last_used(&self) -> Duration {
        Duration::from_nanos(self.last_used.load(Ordering::Relaxed))
    }
}

/// A user who has sessions.
#[derive(Default)]
pub struct User {
    sessions: Mutex<Index>,
}

/// The sessions of a user.
#[derive(Default)]
struct Index {
    /// By their numbers, and so in the order of login.
    sessions: BTreeMap<u64, (SessionId, Arc<About>)>,
    /// The last session has ended, and the user is about to leave the registry of users.
    is_closed: bool,
}

impl User {
    /// No code of the index panics in between two changes that belong together.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session. Returns false if the user is closed.
    #[must_use]
    pub fn add(&self, id: SessionId, about: Arc<About>) -> bool {
        let mut index = self.index();
        if !index.is_closed {
            index.sessions.insert(about.number, (id, about));
        }
        !index.is_closed
    }

    /// Takes a session out. Returns whether the user has no more sessions, and is closed.
    #[must_use]
    pub fn forget(&self, about: &About) -> bool {
        let mut index = self.index();
        index.sessions.remove(&about.number);
        index.is_closed |= index.sessions.is_empty();
        index.is_closed
    }

    pub fn ids(&self) -> Vec<SessionId> {
        self.index().sessions.values().map(|(id, _)| *id).collect()
    }

    pub fn sessions(&self) -> Vec<Arc<About>> {
        self.index().sessions.values().map(|(_, about)| about.clone()).collect()
    }
}
