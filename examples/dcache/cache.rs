//! The cache: paths resolved component by component, each looked up by its directory and its name.
//!
//! As the kernel does, it walks twice at the most. The first walk, `rcu_walk`, borrows every entry on its way: it takes
//! neither lock nor reference, and gives up at the first name that is not cached. Then `ref_walk` walks again with
//! handles, which last while it asks the file system for what is missing.
//!
//! Symbolic links are cached as what they are. A path that leads *through* one, or out of the root by `..`, is handed
//! to the file system; any other `..` goes to the entry's parent, which is right as no link was followed on the way.
//!
//! What is cached counts until somebody says otherwise: see [`Dcache::invalidate`]. The permissions are those of the
//! program at the time it asked.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use epoch_registry::{Domain, Entry, Handle, Reader, Registry, View, WhenFull};

use crate::dentry::{Answer, Beyond, Dentry, Name, Place, ROOT, ask};

type Dentries = Registry<Name, Dentry>;
pub type DcacheReader<'c> = Reader<'c, Name, Dentry, RandomState>;

/// Where an answer came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// All of it from the cache, without a lock.
    Cache,
    /// From the file system, for a part of the path at least, and is cached now.
    Filled,
    /// From the file system, of a path that is not cached.
    FileSystem,
}

/// Why a walk ended before the end of the path.
enum Stop {
    /// A name is not cached.
    Missed,
    /// The answer, for a path on which something is not there, or may not be looked at.
    Failed(ErrorKind),
    /// The path is none that is cached.
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

/// What may wait to be destroyed, beside so many entries: a share of them, and room for the threads to work with.
pub fn most_waiting(entries: usize) -> usize {
    (entries / 16).max(1024)
}

/// Locks for the directories, some for many: more than there are cores.
const LOCKS: usize = 64;

pub struct Dcache {
    root: PathBuf,
    registry: Dentries,
    next_id: AtomicU64,
    /// Held while a name in the directory is asked for and its answer cached, and while it is invalidated: so no answer
    /// from before a change is cached after the change was told of. (The kernel's `i_rwsem` of the directory.)
    locks: [Mutex<()>; LOCKS],
}

impl Dcache {
    /// An empty cache of the tree below `root`, which is to be canonical, for so many entries.
    pub fn new(root: PathBuf, entries: usize) -> Self {
        let domain = Domain::builder()
            .name("dcache")
            .backlog_objects(most_waiting(entries))
            // Who fills is offline, and may wait for readers.
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

    /// What the file system says, or said when it was asked last, of a path relative to the root.
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

    /// Asks the file system for a name, by its path, and caches what it says, also that there is no such name. Errors of
    /// other kinds are not cached.
    fn fill(
        &self,
        parent: Option<&Handle<Name, Dentry>>,
        directory: u64,
        name: &OsStr,
        path: &Path,
    ) -> Result<Handle<Name, Dentry>, ErrorKind> {
        let _lock = self.lock(directory);
        // Looks once more first: who had the lock before may have asked the same.
        self.registry.get_or_try_insert_with(Name::new(directory, name), || {
            let attributes = match ask(path) {
                Ok(attributes) => Some(attributes),
                Err(ErrorKind::NotFound) => None,
                Err(error) => return Err(error),
            };
            // ORDERING: Relaxed, only to be unlike the others.
            Ok(Dentry::new(self.next_id.fetch_add(1, Ordering::Relaxed), parent.cloned(), attributes))
        })
    }

    /// Forgets a name in a directory, and with it everything below: to be called when it was created, renamed (then the
    /// old name and the new one), removed or written to. From when this returns no answer is from before the change.
    ///
    /// What was below is out of reach at once, however much it is, as its directory's id is not handed out again.
    pub fn invalidate(&self, path: &Path) {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return };
        let parent = match above.as_os_str().is_empty() {
            true => None,
            false => match self.ref_walk(above) {
                Ok(parent) => Some(parent),
                // Nothing below is cached.
                Err(_) => return,
            },
        };
        let Ok(directory) = enter(parent.as_ref()) else { return };
        let _lock = self.lock(directory);
        self.registry.remove(&Place::new(directory, name));
        if let Some(parent) = parent {
            // The directory itself may have another size now.
            if !parent.refresh(&ask(&self.root.join(above))) {
                self.registry.remove_handle(&parent);
            }
        }
    }

    /// Removes entries that no path leads to any more. They would be evicted sooner or later, as nobody uses them.
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

/// The id of a directory, which may be the root.
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

/// How entries are held on to on the way.
trait Walk {
    type At: Deref<Target = Dentry>;

    /// The entry of a name in a directory, of which there is the id, and the entry unless it is the root.
    fn find(&mut self, parent: Option<&Self::At>, directory: u64, name: &OsStr) -> Result<Self::At, Stop>;

    /// The directory that a directory is in, unless that is the root. To go there one must be allowed to search where
    /// one is.
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

/// Has handles of entries, and fills in what is missing.
struct RefWalk<'c> {
    cache: &'c Dcache,
    /// Where it is.
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
