//! The cache. It resolves paths component by component, and looks up each component by its directory and its name.
//!
//! Like the kernel, it walks at most twice. The first walk, `rcu_walk`, borrows the entries on its way. It takes
//! neither a lock nor a reference, and stops at the first name that is not cached. Then `ref_walk` walks again
//! with handles. These stay valid while it asks the file system for what is missing.
//!
//! Symbolic links are cached as links. A path that leads *through* a link, or out of the root by `..`, is passed
//! to the file system. Any other `..` leads to the entry's parent, which is correct because no link was followed
//! on the way.
//!
//! A cached answer stays valid until the caller invalidates it: see [`Dcache::invalidate`]. The permissions are
//! those of the program at the time when it asked.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use epoch_registry::RandomState;
use epoch_registry::{Domain, Entry, Handle, Reader, Registry, View, WhenFull};

use crate::dentry::{Answer, Beyond, Dentry, Name, Place, ROOT, ask};

type Dentries = Registry<Name, Dentry>;
pub type DcacheReader<'c> = Reader<'c, Name, Dentry, RandomState>;

/// The origin of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Entirely from the cache, without a lock.
    Cache,
    /// From the file system, for at least a part of the path. It is cached now.
    Filled,
    /// From the file system, for a path that is not cached.
    FileSystem,
}

/// Why a walk ended before the end of the path.
enum Stop {
    /// A name is not cached.
    Missed,
    /// The answer for a path on which something does not exist, or may not be read.
    Failed(ErrorKind),
    /// Paths of this kind are not cached.
    NotCached,
}

impl From<Beyond> for Stop {
    fn from(beyond: Beyond) -> Self {
        match beyond {
            Beyond::Nothing(error) => Stop::Failed(error),
            Beyond::Link => Stop::NotCached,
        }
    }
}

/// Returns the limit of the backlog for a cache of `entries` entries: a fraction of them, but enough for the threads.
pub fn most_waiting(entries: usize) -> usize {
    (entries / 16).max(1024)
}

/// The number of locks. Directories share them. There are more locks than cores.
const LOCKS: usize = 64;

pub struct Dcache {
    root: PathBuf,
    registry: Dentries,
    next_id: AtomicU64,
    /// The lock of a directory is held while a name in it is asked for and its answer cached, and while a name is
    /// invalidated. So an answer from before a change is never cached after the invalidation. (The kernel's
    /// `i_rwsem` of the directory.)
    locks: [Mutex<()>; LOCKS],
}

impl Dcache {
    /// Creates an empty cache of the tree below `root`, for `entries` entries. `root` must be canonical.
    pub fn new(root: PathBuf, entries: usize) -> Self {
        let domain = Domain::builder()
            .name("dcache")
            .backlog_objects(most_waiting(entries))
            // The thread that fills is offline, so it may wait for readers.
            .when_full(WhenFull::Wait(Duration::from_secs(1)))
            .build();
        let registry = Registry::builder()
            .domain(domain)
            .max_entries(entries)
            // Directories are in use as long as something in them is cached.
            .spare_held(true)
            .weigher(|name: &Name, _| name.beside())
            .build();
        let next_id = AtomicU64::new(ROOT + 1);
        Dcache { root, registry, next_id, locks: std::array::from_fn(|_| Mutex::default()) }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn registry(&self) -> &Dentries {
        &self.registry
    }

    pub fn reader(&self) -> DcacheReader<'_> {
        self.registry.reader()
    }

    /// Returns what the file system says, or last said, about a path relative to the root.
    pub fn resolve(&self, reader: &mut DcacheReader<'_>, path: &Path) -> (Answer, Source) {
        match self.rcu_walk(reader, path) {
            // The session is not in a critical section while this thread waits for the disk.
            Err(Stop::Missed) => reader.offline(|| match self.ref_walk(path) {
                Ok(dentry) => (dentry.answer(), Source::Filled),
                Err(Stop::Failed(error)) => (Err(error), Source::Filled),
                Err(Stop::Missed | Stop::NotCached) => (ask(&self.root.join(path)), Source::FileSystem),
            }),
            Ok(answer) => (answer, Source::Cache),
            Err(Stop::Failed(error)) => (Err(error), Source::Cache),
            Err(Stop::NotCached) => (reader.offline(|| ask(&self.root.join(path))), Source::FileSystem),
        }
    }

    fn rcu_walk(&self, reader: &mut DcacheReader<'_>, path: &Path) -> Result<Answer, Stop> {
        walk(path, &mut RcuWalk { view: reader.view() }).map(Dentry::answer)
    }

    fn ref_walk(&self, path: &Path) -> Result<Handle<Name, Dentry>, Stop> {
        walk(path, &mut RefWalk { cache: self, path: self.root.clone() })
    }

    /// Asks the file system for a name, by its path, and caches the answer, also if the name does not exist.
    /// Other errors are not cached.
    fn fill(
        &self,
        parent: Option<&Handle<Name, Dentry>>,
        directory: u64,
        name: &OsStr,
        path: &Path,
    ) -> Result<Handle<Name, Dentry>, ErrorKind> {
        let _lock = self.lock(directory);
        // Looks the name up again first: the last holder of the lock may have asked for it.
        self.registry.get_or_try_insert_with(Name::new(directory, name), || {
            let attributes = match ask(path) {
                Ok(attributes) => Some(attributes),
                Err(ErrorKind::NotFound) => None,
                Err(error) => return Err(error),
            };
            // ORDERING: Relaxed. The id only has to be unique.
            Ok(Dentry::new(self.next_id.fetch_add(1, Ordering::Relaxed), parent.cloned(), attributes))
        })
    }

    /// Forgets a name in a directory, and everything below it. The caller calls this when the name was created,
    /// removed, written to or renamed (then for the old name and the new one). When it has returned, no answer is
    /// from before the change.
    ///
    /// Everything below becomes unreachable at once, however many entries there are, since the id of a directory
    /// is never reused.
    pub fn invalidate(&self, path: &Path) {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return };
        let parent = match above.as_os_str().is_empty() {
            true => None,
            false => match self.ref_walk(above) {
                Ok(parent) => Some(parent),
                // If the directory is not cached, nothing below it is.
                Err(_) => return,
            },
        };
        let Ok(directory) = enter(parent.as_ref()) else { return };
        let _lock = self.lock(directory);
        self.registry.remove(&Place::new(directory, name));
        if let Some(parent) = parent {
            // The size of the directory itself may have changed.
            if !parent.refresh(&ask(&self.root.join(above))) {
                self.registry.remove_handle(&parent);
            }
        }
    }

    /// Removes entries that no path leads to any more. Without this they would be evicted in time, as no walk
    /// uses them.
    pub fn prune(&self) -> u64 {
        let mut pruned = 0;
        self.registry.retain(|_, dentry| {
            let is_orphan = dentry.is_orphan();
            pruned += u64::from(is_orphan);
            !is_orphan
        });
        pruned
    }

    fn lock(&self, directory: u64) -> MutexGuard<'_, ()> {
        self.locks[directory as usize % LOCKS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the id of a directory. `None` is the root.
fn enter<D: Deref<Target = Dentry>>(at: Option<&D>) -> Result<u64, Beyond> {
    at.map_or(Ok(ROOT), |dentry| dentry.enter())
}

/// Follows a path from the root.
fn walk<W: Walk>(path: &Path, walk: &mut W) -> Result<W::At, Stop> {
    let mut at = None;
    for component in path.components() {
        let directory = enter(at.as_ref())?;
        at = match (component, &at) {
            (Component::Normal(name), above) => Some(walk.find(above.as_ref(), directory, name)?),
            (Component::ParentDir, Some(dentry)) => walk.up(dentry)?,
            (Component::CurDir, _) => at,
            _ => return Err(Stop::NotCached),
        };
    }
    // The root is not cached.
    at.ok_or(Stop::NotCached)
}

/// How a walk holds the entries on its way.
trait Walk {
    type At: Deref<Target = Dentry>;

    /// Returns the entry of a name in a directory. `directory` is the directory's id, `parent` its entry (`None`:
    /// root).
    fn find(&mut self, parent: Option<&Self::At>, directory: u64, name: &OsStr) -> Result<Self::At, Stop>;

    /// Returns the parent of a directory, or `None` if the parent is the root. This requires permission to search
    /// the directory.
    fn up(&mut self, at: &Self::At) -> Result<Option<Self::At>, Stop>;
}

/// Borrows entries, within a critical section.
struct RcuWalk<'g> {
    view: &'g View<'g, Name, Dentry, RandomState>,
}

impl<'g> Walk for RcuWalk<'g> {
    type At = &'g Dentry;

    fn find(&mut self, _: Option<&&'g Dentry>, directory: u64, name: &OsStr) -> Result<&'g Dentry, Stop> {
        self.view.get(&Place::new(directory, name)).map(Entry::value).ok_or(Stop::Missed)
    }

    fn up(&mut self, at: &&'g Dentry) -> Result<Option<&'g Dentry>, Stop> {
        if at.is_searchable() { Ok(at.parent.as_deref()) } else { Err(Stop::Missed) }
    }
}

/// Holds handles to entries, and fills in what is missing.
struct RefWalk<'c> {
    cache: &'c Dcache,
    /// The path walked so far.
    path: PathBuf,
}

impl Walk for RefWalk<'_> {
    type At = Handle<Name, Dentry>;

    fn find(&mut self, parent: Option<&Self::At>, directory: u64, name: &OsStr) -> Result<Self::At, Stop> {
        self.path.push(name);
        match self.cache.registry.lookup(&Place::new(directory, name)) {
            Some(dentry) => Ok(dentry),
            None => self.cache.fill(parent, directory, name, &self.path).map_err(Stop::Failed),
        }
    }

    fn up(&mut self, at: &Self::At) -> Result<Option<Self::At>, Stop> {
        if !at.is_searchable() {
            ask(&self.path.join(".")).map_err(Stop::Failed)?;
            at.set_searchable();
        }
        self.path.pop();
        Ok(at.parent.clone())
    }
}
