//! What the cache holds: for a name in a directory, what the file system says of it.

use std::ffi::OsStr;
use std::fs::{FileType, Metadata};
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use epoch_registry::{Equivalent, Handle};

/// What the file system says of a path, the last symbolic link not followed.
pub type Answer = Result<Attributes, ErrorKind>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    pub kind: FileType,
    pub inode: Inode,
    /// In bytes.
    pub size: u64,
}

/// Which file it is, and of which file system. Zero on systems that have no such numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inode {
    pub device: u64,
    pub number: u64,
}

/// Asks the file system.
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

/// When the file's metadata changed last: its names, its size, what is in it.
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

/// The id that stands for the directory in which the cache begins, which has no entry of its own.
pub const ROOT: u64 = 0;

/// The key of an entry: a name, and the id of the directory's entry.
pub struct Name {
    directory: u64,
    text: Text,
}

/// The bytes of a name. Most are short, and in the entry itself: a lookup would wait for them if they were elsewhere. (The
/// kernel's `d_shortname`.)
enum Text {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

/// With this a `Text` takes 32 bytes.
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

    /// Bytes that it takes beside its own.
    pub fn beside(&self) -> usize {
        match &self.text {
            Text::Short(..) => 0,
            Text::Long(name) => name.len(),
        }
    }
}

/// The parts of a [`Name`], by which it is looked up: nothing is copied for that.
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

/// An entry: what a name stands for, or that it stands for nothing.
pub struct Dentry {
    /// Never used again, not even for the same directory when it is cached anew.
    pub id: u64,
    /// Keeps the directory's entry from being evicted as long as there are entries below it, and leads from here to
    /// the root, as the kernel's `d_parent` does both. `None` in the root itself.
    pub parent: Option<Handle<Name, Dentry>>,
    /// `None` in a negative entry: the name does not exist.
    file: Option<File>,
}

struct File {
    kind: FileType,
    inode: Inode,
    /// A directory's changes with what is in it.
    size: AtomicU64,
    /// A directory in which names may be looked up, as far as is known.
    is_searchable: AtomicBool,
}

/// Why a path cannot be followed beyond an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beyond {
    /// It is no directory.
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
        // ORDERING: Relaxed, a value for itself.
        Ok(Attributes { kind: *kind, inode: *inode, size: size.load(Ordering::Relaxed) })
    }

    /// The id that the names in this directory are found by.
    pub fn enter(&self) -> Result<u64, Beyond> {
        match &self.file {
            Some(file) if file.kind.is_dir() => Ok(self.id),
            Some(file) if file.kind.is_symlink() => Err(Beyond::Link),
            Some(_) => Err(Beyond::Nothing(ErrorKind::NotADirectory)),
            None => Err(Beyond::Nothing(ErrorKind::NotFound)),
        }
    }

    /// Whether names may be looked up in this directory, `..` among them, as far as is known.
    pub fn is_searchable(&self) -> bool {
        // ORDERING: Relaxed, a value for itself.
        self.file.as_ref().is_some_and(|file| file.is_searchable.load(Ordering::Relaxed))
    }

    pub fn set_searchable(&self) {
        if let Some(file) = &self.file {
            // ORDERING: Relaxed, as where it is read.
            file.is_searchable.store(true, Ordering::Relaxed);
        }
    }

    /// Takes note of a new size, if this is still the same file. Who calls holds the lock of this very directory.
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

    /// Whether no walk from the root leads here any more, as an entry on the way was removed.
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
