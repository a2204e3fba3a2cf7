//! Changes a temporary tree while all threads resolve paths in it, invalidates the cache, and checks that its
//! answers follow.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::cache::Dcache;
use crate::dentry::ask;
use crate::random::Random;

#[derive(Default)]
pub struct Upheaval {
    pub changes: u64,
    pub compared: u64,
    /// Paths resolved by the other threads during the changes.
    pub resolved: u64,
    pub evicted: u64,
    pub pruned: u64,
    pub differences: Vec<String>,
}

/// A temporary directory, which is removed when dropped.
pub struct TempTree(PathBuf);

impl TempTree {
    pub fn new(name: &str) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // ORDERING: Relaxed. The number only has to be unique.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("epoch-registry-{name}-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        // The root of a cache must be canonical.
        Ok(TempTree(fs::canonicalize(&path)?))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempTree {
    fn drop(&mut self) {
        // If it cannot be removed, there is nowhere to report that.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const TOP: usize = 4;
const MIDDLE: usize = 4;
const FILES: usize = 4;
const ROUNDS: usize = 150;
/// A name that comes and goes, and that all threads ask for again and again; and how often it changes in a round.
const HOT: &str = "hot";
const FLIPS: usize = 30;
/// Less than the number of paths, so that entries are evicted while others are invalidated.
const ENTRIES: usize = 128;

/// Runs the test.
///
/// # Errors
///
/// Fails if the tree cannot be made or changed.
pub fn run(threads: usize) -> io::Result<Upheaval> {
    let tree = TempTree::new("dcache")?;
    let cache = Dcache::new(tree.path().to_owned(), ENTRIES);
    let paths = all_paths();
    let mut random = Random::new(11);
    for top in 0..TOP {
        for middle in 0..MIDDLE {
            fill(&tree.path().join(format!("d{top}/s{middle}")), 1)?;
        }
    }
    let (stop, resolved) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut upheaval = Upheaval::default();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (cache, paths, stop, resolved) = (&cache, &paths, &stop, &resolved);
            scope.spawn(move || {
                let (mut reader, mut random) = (cache.reader(), Random::new(100 + thread as u64));
                // ORDERING: Relaxed, a flag and a count that publish nothing.
                while !stop.load(Ordering::Relaxed) {
                    let path = if random.below(2) == 0 { Path::new(HOT) } else { &paths[random.below(paths.len())] };
                    if random.below(4) == 0 {
                        // An invalidation without need: the name is asked for again, also while it changes.
                        reader.offline(|| cache.invalidate(path));
                    }
                    let _ = cache.resolve(&mut reader, path);
                    resolved.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let outcome = (0..ROUNDS).try_for_each(|round| {
            let changed = change(tree.path(), round, &mut random)?;
            upheaval.changes += 1;
            changed.iter().for_each(|path| cache.invalidate(path));
            compare(&cache, &paths, &mut upheaval);
            for _ in 0..FLIPS {
                flip(&tree.path().join(HOT))?;
                upheaval.changes += 1;
                cache.invalidate(Path::new(HOT));
                compare(&cache, &[HOT], &mut upheaval);
            }
            Ok(())
        });
        // ORDERING: Relaxed, as in the loop of the threads.
        stop.store(true, Ordering::Relaxed);
        outcome
    })
    .map(|()| {
        upheaval.resolved = resolved.into_inner();
        upheaval.pruned = cache.prune();
        upheaval.evicted = cache.registry().stats().evicted;
        upheaval
    })
}

/// Returns all paths that ever exist, and more.
fn all_paths() -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for top in (0..TOP).flat_map(|top| [format!("d{top}"), format!("e{top}")]) {
        for middle in (0..MIDDLE).flat_map(|middle| [format!("s{middle}"), format!("t{middle}")]) {
            let directory = Path::new(&top).join(middle);
            paths.extend((0..FILES).map(|file| directory.join(format!("f{file}"))));
            paths.push(directory.join("new"));
            paths.push(directory.join("../s0/f0"));
            paths.push(directory);
        }
        paths.push(top.into());
    }
    paths
}

/// Makes a directory with files of about `size` bytes.
fn fill(directory: &Path, size: usize) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    (0..FILES).try_for_each(|file| fs::write(directory.join(format!("f{file}")), vec![b'x'; size + file]))
}

/// Makes a change. Returns the names that the cache must forget.
fn change(root: &Path, round: usize, random: &mut Random) -> io::Result<Vec<PathBuf>> {
    // Directories at both levels change their names from time to time.
    let top = either(root, Path::new(""), "d", "e", random.below(TOP));
    let middle = either(root, &top, "s", "t", random.below(MIDDLE));
    let file = middle.join(format!("f{}", random.below(FILES)));
    let at = |path: &Path| root.join(path);
    match round % 6 {
        // Creates or removes a name.
        0 => {
            let new = middle.join("new");
            flip(&at(&new))?;
            Ok(vec![new])
        }
        1 => {
            fs::write(at(&file), vec![b'y'; 100 + round])?;
            Ok(vec![file])
        }
        2 => rename(root, middle),
        3 => rename(root, top),
        // Another directory with the same name, perhaps with the same inode.
        4 => {
            fs::remove_dir_all(at(&middle))?;
            fill(&at(&middle), round)?;
            fs::remove_file(at(&file))?;
            Ok(vec![middle])
        }
        // Replaces a file by another one.
        _ => {
            let other = middle.join("other");
            fs::write(at(&other), vec![b'z'; 1000 + round])?;
            fs::rename(at(&other), at(&file))?;
            Ok(vec![other, file])
        }
    }
}

/// Makes a file, or removes it.
fn flip(path: &Path) -> io::Result<()> {
    if path.exists() { fs::remove_file(path) } else { fs::write(path, "new") }
}

/// Returns the one that exists of `directory/one<nth>` and `directory/other<nth>`.
fn either(root: &Path, directory: &Path, one: &str, other: &str, nth: usize) -> PathBuf {
    let path = directory.join(format!("{one}{nth}"));
    if root.join(&path).exists() { path } else { directory.join(format!("{other}{nth}")) }
}

/// Renames `d1` to `e1` or `s1` to `t1`, or back.
fn rename(root: &Path, path: PathBuf) -> io::Result<Vec<PathBuf>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (letter, number) = name.split_at(1);
    let letter = match letter {
        "d" => "e",
        "e" => "d",
        "s" => "t",
        _ => "s",
    };
    let renamed = path.with_file_name(format!("{letter}{number}"));
    fs::rename(root.join(&path), root.join(&renamed))?;
    Ok(vec![path, renamed])
}

fn compare(cache: &Dcache, paths: &[impl AsRef<Path>], upheaval: &mut Upheaval) {
    let mut reader = cache.reader();
    for path in paths.iter().map(AsRef::as_ref) {
        let (answer, truth) = (cache.resolve(&mut reader, path).0, ask(&cache.root().join(path)));
        upheaval.compared += 1;
        if answer != truth {
            upheaval.differences.push(format!("{}: {answer:?}, but {truth:?} after the change", path.display()));
        }
    }
}
