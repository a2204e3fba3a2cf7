//! Users, and the index of their sessions.

use crate::id::SessionId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A user who has sessions.
#[derive(Default)]
pub struct User {
    index: Mutex<Index>,
}

/// The sessions of a user.
#[derive(Default)]
struct Index {
    /// By their numbers, and so in the order of login.
    sessions: BTreeMap<u64, SessionId>,
    /// The last session has ended, and the user is about to leave the registry of users.
    is_closed: bool,
}

impl User {
    /// A panic leaves the index as it was, so a poisoned lock is harmless.
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session. Returns false if the user is closed.
    #[must_use]
    pub fn add(&self, number: u64, id: SessionId) -> bool {
        let mut index = self.index();
        if !index.is_closed {
            index.sessions.insert(number, id);
        }
        !index.is_closed
    }

    /// Takes a session out. Returns whether the user has no more sessions, and is closed.
    #[must_use]
    pub fn forget(&self, number: u64) -> bool {
        let mut index = self.index();
        index.sessions.remove(&number);
        index.is_closed |= index.sessions.is_empty();
        index.is_closed
    }

    /// Returns the ids of the sessions. Some may have expired, and not been removed yet.
    pub fn ids(&self) -> Vec<SessionId> {
        self.index().sessions.values().copied().collect()
    }
}
