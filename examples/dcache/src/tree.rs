//! Walks the tree with many threads.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cache::Dcache;
use crate::dentry::{Attributes, ask};

/// The result of a walk.
#[derive(Default)]
pub struct Tree {
    /// The paths relative to the root, each once.
    pub paths: Vec<PathBuf>,
    pub directories: u64,
    /// Directories that could not be listed.
    pub unreadable: u64,
    /// Names that could not be examined, because permission was denied.
    pub refused: u64,
    pub elapsed: Duration,
}

/// The directories still to list.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    directories: Vec<PathBuf>,
    /// The number of threads that are listing a directory, and may find more.
    busy: usize,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the directories found in the last one, and returns the next one. `None` when all are done.
    fn next(&self, found: Vec<PathBuf>, was_busy: bool) -> Option<PathBuf> {
        let mut state = self.lock();
        state.directories.extend(found);
        state.busy -= usize::from(was_busy);
        self.changed.notify_all();
        loop {
            // Last in, first out. Going depth first keeps the queue short, and keeps the directories above in the
            // cache.
            if let Some(directory) = state.directories.pop() {
                state.busy += 1;
                return Some(directory);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Resolves every name of the tree, within one file system. Other file systems mounted in it are left out: some
/// of them, such as proc, do not record changes.
pub fn walk(cache: &Dcache, threads: usize) -> Tree {
    let started = Instant::now();
    let (queue, device) = (Queue::default(), ask(cache.root()).map(|root| root.inode.device));
    queue.lock().directories.push(PathBuf::new());
    let mut tree = std::thread::scope(|scope| {
        let walkers: Vec<_> = (0..threads).map(|_| scope.spawn(|| walk_alone(cache, &queue, device))).collect();
        walkers.into_iter().map(|walker| walker.join().expect("a walker panicked")).fold(
            Tree::default(),
            |mut all, one| {
                all.paths.extend(one.paths);
                all.directories += one.directories;
                all.unreadable += one.unreadable;
                all.refused += one.refused;
                all
            },
        )
    });
    // The threads have found the paths in any order.
    tree.paths.sort_unstable();
    tree.elapsed = started.elapsed();
    tree
}

fn walk_alone(cache: &Dcache, queue: &Queue, device: Result<u64, ErrorKind>) -> Tree {
    let (mut tree, mut reader) = (Tree::default(), cache.reader());
    let (mut found, mut was_busy) = (Vec::new(), false);
    // The session must not hold up grace periods while the thread waits or reads a directory.
    while let Some(directory) = reader.offline(|| queue.next(std::mem::take(&mut found), was_busy)) {
        was_busy = true;
        let names = reader.offline(|| list(&cache.root().join(&directory)));
        let Ok(names) = names else {
            tree.unreadable += 1;
            continue;
        };
        tree.directories += 1;
        for name in names {
            let path = directory.join(name);
            match cache.resolve(&mut reader, &path).0 {
                Ok(Attributes { kind, inode, .. }) if kind.is_dir() && Ok(inode.device) == device => {
                    found.push(path.clone());
                }
                Err(ErrorKind::PermissionDenied) => tree.refused += 1,
                _ => {}
            }
            tree.paths.push(path);
        }
    }
    tree
}

fn list(directory: &Path) -> std::io::Result<Vec<std::ffi::OsString>> {
    std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}
