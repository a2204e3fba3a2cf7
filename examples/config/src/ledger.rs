//! A ledger of the versions of the configuration: made, dropped, and by which thread.

use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

/// The versions that were made, each with the threads that have dropped it.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Vec<ThreadId>>>>);

/// A version's entry in the ledger. Its drop is entered.
pub struct Entry {
    ledger: Ledger,
    number: usize,
}

impl Ledger {
    /// Enters a new version.
    pub fn enter(&self) -> Entry {
        let mut drops = self.0.lock().expect("the ledger's users do not panic");
        drops.push(Vec::new());
        Entry { ledger: self.clone(), number: drops.len() - 1 }
    }

    /// Returns, for each version, the threads that have dropped it.
    pub fn drops(&self) -> Vec<Vec<ThreadId>> {
        self.0.lock().expect("the ledger's users do not panic").clone()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.0.lock().expect("the ledger's users do not panic")[self.number].push(thread::current().id());
    }
}
