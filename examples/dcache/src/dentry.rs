//! The entries of the cache: what the file system says about a name in a directory.

use std::ffi::OsStr;
use std::fs::{FileType, Metadata};
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use epoch_registry::{Equivalent, Handle};

/// What the file system says about a path. A symbolic link at its end is not followed.
pub type Answer = Result<Attributes, ErrorKind>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    pub kind: FileType,
    pub inode: Inode,
    /// In bytes.
    pub size: u64,
}

/// The number of a file and of its file system. Zero on systems without such numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inode {
    pub device: u64,
    pub number: u64,
}

/// Asks the file system about a path.
pub fn ask(path: &Path) -> Answer {
    let metadata = std::fs::symlink_metadata(path).map_err(|error| error.kind())?;
    Ok(Attributes { kind: metadata.file_type(), inode: inode(&metadata), size: metadata.len() })
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> Inode {
    use std::os::unix::fs::MetadataExt;
    Inode { device: metadata.dev(), number: metadata.ino() }
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> Inode {
    Inode { device: 0, number: 0 }
}

/// Returns when the file's metadata last changed: its names, its size, its contents.
#[cfg(unix)]
pub fn changed(metadata: &Metadata) -> Option<SystemTime> {
    use std::os::unix::fs::MetadataExt;
    let since = std::time::Duration::new(u64::try_from(metadata.ctime()).ok()?, metadata.ctime_nsec() as u32);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(not(unix))]
pub fn changed(metadata: &Metadata) -> Option<SystemTime> {
    metadata.modified().ok()
}

/// The id of the root directory of the cache, which has no entry of its own.
pub const ROOT: u64 = 0;

/// The key of an entry: a name, and the id of the directory's entry.
pub struct Name {
    directory: u64,
    text: Text,
}

/// The bytes of a name. Most names are short, and stored in the entry itself: if they were elsewhere, a lookup
/// would wait for memory once more. (The kernel's `d_shortname`.)
enum Text {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

/// The longest short name. With this a `Text` takes 32 bytes.
const SHORT: usize = 30;

impl Name {
    pub fn new(directory: u64, name: &OsStr) -> Self {
        let name = name.as_encoded_bytes();
        let mut short = [0; SHORT];
        let text = match short.get_mut(..name.len()) {
            Some(room) => {
                room.copy_from_slice(name);
                Text::Short(name.len() as u8, short)
            }
            None => Text::Long(name.into()),
        };
        Name { directory, text }
    }

    /// Returns the number of bytes that it takes on the heap.
    pub fn beside(&self) -> usize {
        match &self.text {
            Text::Short(..) => 0,
            Text::Long(name) => name.len(),
        }
    }
}

/// The parts of a [`Name`]. A lookup by these copies nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place<'n> {
    directory: u64,
    name: &'n [u8],
}

impl<'n> Place<'n> {
    pub fn new(directory: u64, name: &'n OsStr) -> Self {
        Place { directory, name: name.as_encoded_bytes() }
    }
}

impl Equivalent<Name> for Place<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        *self == name.place()
    }
}

impl Name {
    fn place(&self) -> Place<'_> {
        let name = match &self.text {
            Text::Short(length, name) => &name[..usize::from(*length)],
            Text::Long(name) => name,
        };
        Place { directory: self.directory, name }
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place().hash(state);
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Name {}

/// An entry: a file, or the fact that the name does not exist.
pub struct Dentry {
    /// The id is never reused, not even for the same directory when it is cached again.
    pub id: u64,
    /// Keeps the directory's entry from being evicted as long as there are entries below it, and leads from here
    /// to the root. (The kernel's `d_parent` does both.) `None` if the directory is the root.
    pub parent: Option<Handle<Name, Dentry>>,
    /// `None` in a negative entry: the name does not exist.
    file: Option<File>,
}

struct File {
    kind: FileType,
    inode: Inode,
    /// The size of a directory changes with its contents.
    size: AtomicU64,
    /// Whether it is a directory that is known to be searchable.
    is_searchable: AtomicBool,
}

/// Why a path cannot be followed beyond an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beyond {
    /// It is not a directory, or does not exist.
    Nothing(ErrorKind),
    /// It is a symbolic link.
    Link,
}

impl Dentry {
    pub fn new(id: u64, parent: Option<Handle<Name, Dentry>>, attributes: Option<Attributes>) -> Self {
        let file = attributes.map(|Attributes { kind, inode, size }| File {
            kind,
            inode,
            size: AtomicU64::new(size),
            is_searchable: AtomicBool::new(false),
        });
        Dentry { id, parent, file }
    }

    pub fn is_negative(&self) -> bool {
        self.file.is_none()
    }

    pub fn answer(&self) -> Answer {
        let File { kind, inode, size, .. } = self.file.as_ref().ok_or(ErrorKind::NotFound)?;
        // ORDERING: Relaxed. The value stands alone.
        Ok(Attributes { kind: *kind, inode: *inode, size: size.load(Ordering::Relaxed) })
    }

    /// Returns the id by which the names in this directory are found.
    pub fn enter(&self) -> Result<u64, Beyond> {
        match &self.file {
            Some(file) if file.kind.is_dir() => Ok(self.id),
            Some(file) if file.kind.is_symlink() => Err(Beyond::Link),
            Some(_) => Err(Beyond::Nothing(ErrorKind::NotADirectory)),
            None => Err(Beyond::Nothing(ErrorKind::NotFound)),
        }
    }

    /// Returns whether this directory is known to be searchable. `..` needs this too.
    pub fn is_searchable(&self) -> bool {
        // ORDERING: Relaxed. The flag stands alone.
        self.file.as_ref().is_some_and(|file| file.is_searchable.load(Ordering::Relaxed))
    }

    pub fn set_searchable(&self) {
        if let Some(file) = &self.file {
            // ORDERING: Relaxed, as in `is_searchable`.
            file.is_searchable.store(true, Ordering::Relaxed);
        }
    }

    /// Updates the size, if this is still the same file, and returns whether it is. The caller holds the lock of this
    /// directory.
    pub fn refresh(&self, new: &Answer) -> bool {
        match (&self.file, new) {
            (Some(file), Ok(new)) if (file.kind, file.inode) == (new.kind, new.inode) => {
                // ORDERING: Relaxed, as in `answer`.
                file.size.store(new.size, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    /// Returns whether an entry above was removed, so that no walk from the root leads here any more.
    pub fn is_orphan(&self) -> bool {
        std::iter::successors(self.parent.as_ref(), |above| above.parent.as_ref()).any(Handle::is_unlinked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasher, RandomState};

    #[test]
    fn a_name_is_found_by_its_parts_and_by_no_others() {
        let hasher = RandomState::new();
        for length in [0, 1, SHORT - 1, SHORT, SHORT + 1, 255] {
            let text = "n".repeat(length);
            let (name, place) = (Name::new(7, text.as_ref()), Place::new(7, text.as_ref()));
            assert!(place.equivalent(&name) && hasher.hash_one(&name) == hasher.hash_one(place), "{length}");
            assert!(!Place::new(8, text.as_ref()).equivalent(&name));
            assert!(!Place::new(7, format!("{text}n").as_ref()).equivalent(&name));
        }
    }
}
