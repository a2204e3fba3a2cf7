//! Compares the cache with the file system in temporary trees, and tests whole runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::args::{Args, Command};
use crate::cache::{Dcache, Source};
use crate::dentry::ask;
use crate::upheaval::TempTree;
use crate::{Outcome, run, tree};

fn small_tree() -> TempTree {
    let tree = TempTree::new("test").expect("a temporary directory");
    fs::create_dir_all(tree.path().join("a/b")).expect("the directory can be made");
    fs::write(tree.path().join("a/b/file"), "four").expect("the file can be written");
    fs::write(tree.path().join("a/file"), "").expect("the file can be written");
    tree
}

/// Resolves a path, checks the answer against the file system's, and returns where it came from.
fn source(cache: &Dcache, path: &str) -> Source {
    let (answer, source) = cache.resolve(&mut cache.reader(), Path::new(path));
    assert_eq!(answer, ask(&cache.root().join(path)), "{path}");
    source
}

#[test]
fn paths_are_cached_component_by_component() {
    let tree = small_tree();
    let cache = Dcache::new(tree.path().to_owned(), 100);
    assert_eq!(source(&cache, "a/b/file"), Source::Filled);
    for path in ["a", "a/b", "a/b/file", "a/./b"] {
        assert_eq!(source(&cache, path), Source::Cache, "{path}");
    }
    // The cache asks only once whether a directory may be searched: before a path first leads up from it.
    assert_eq!(source(&cache, "a/../a/b/../b"), Source::Filled);
    for path in ["a/../a/b", "a/b/../b/file"] {
        assert_eq!(source(&cache, path), Source::Cache, "{path}");
    }
    assert_eq!(cache.registry().len(), 3);
}

#[test]
fn a_missing_name_is_cached_and_nothing_below_it_is_asked_for() {
    let tree = small_tree();
    let cache = Dcache::new(tree.path().to_owned(), 100);
    assert_eq!(source(&cache, "a/none"), Source::Filled);
    for path in ["a/none", "a/none/below", "a/none/.."] {
        assert_eq!(source(&cache, path), Source::Cache, "{path}");
    }
    assert_eq!(source(&cache, "a/file/below"), Source::Filled);
    for path in ["a/file/other", "a/file/.."] {
        assert_eq!(source(&cache, path), Source::Cache, "{path}");
    }
    assert_eq!(cache.registry().len(), 3);
}

#[test]
fn outside_the_root_the_file_system_is_asked() {
    let tree = small_tree();
    let cache = Dcache::new(tree.path().join("a"), 100);
    for path in ["", "..", "../a/file", "/", "b/../../a"] {
        assert_eq!(source(&cache, path), Source::FileSystem, "{path:?}");
    }
}

#[cfg(unix)]
#[test]
fn links_are_cached_and_not_followed() {
    let tree = small_tree();
    std::os::unix::fs::symlink("a/b", tree.path().join("link")).expect("the link can be made");
    let cache = Dcache::new(tree.path().to_owned(), 100);
    assert_eq!(source(&cache, "link"), Source::Filled);
    assert_eq!(source(&cache, "link"), Source::Cache);
    // Through the link, `..` leads to `a`, the parent of the link's target.
    for path in ["link/file", "link/..", "link/../file"] {
        assert_eq!(source(&cache, path), Source::FileSystem, "{path}");
    }
}

#[test]
fn an_answer_stays_until_it_is_invalidated() {
    let tree = small_tree();
    let cache = Dcache::new(tree.path().to_owned(), 100);
    let new = tree.path().join("a/new");
    source(&cache, "a/new");
    fs::write(&new, "new").expect("the file can be written");
    let (stale, from) = cache.resolve(&mut cache.reader(), Path::new("a/new"));
    assert!(stale.is_err() && from == Source::Cache);
    cache.invalidate(Path::new("a/new"));
    assert_eq!(source(&cache, "a/new"), Source::Filled);
    // A directory grows with the names in it. On many file systems it does not grow with every name.
    for nth in 0..300 {
        let path = format!("a/a long name, of which there are many, so that the directory grows: {nth}");
        fs::write(tree.path().join(&path), "").expect("the file can be written");
        cache.invalidate(Path::new(&path));
    }
    assert_eq!(source(&cache, "a"), Source::Cache, "the cached size of the directory is old");
}

#[test]
fn entries_below_an_invalidated_directory_are_unreachable_and_pruned() {
    let tree = small_tree();
    let cache = Dcache::new(tree.path().to_owned(), 100);
    ["a/b/file", "a/b/none", "a/file"].iter().for_each(|path| assert_eq!(source(&cache, path), Source::Filled));
    fs::remove_dir_all(tree.path().join("a/b")).expect("the directory can be removed");
    fs::create_dir(tree.path().join("a/b")).expect("the directory can be made");
    fs::write(tree.path().join("a/b/none"), "now there is").expect("the file can be written");
    cache.invalidate(Path::new("a/b"));
    assert_eq!(cache.registry().len(), 4);
    assert_eq!(cache.prune(), 2);
    ["a/b", "a/b/file", "a/b/none"].iter().for_each(|path| assert_eq!(source(&cache, path), Source::Filled));
    assert_eq!(cache.prune(), 0);
}

#[test]
fn a_cache_of_two_entries_gives_the_same_answers() {
    let tree = small_tree();
    let cache = Dcache::new(tree.path().to_owned(), 2);
    for _ in 0..10 {
        for path in ["a", "a/b/file", "a/none", "a/b/../file"] {
            source(&cache, path);
            assert!(cache.registry().len() <= 2);
        }
    }
    assert!(cache.registry().stats().evicted > 0);
}

#[test]
fn a_walk_finds_every_name_once() {
    let tree = small_tree();
    for threads in [1, 4] {
        let walked = tree::walk(&Dcache::new(tree.path().to_owned(), 100), threads);
        assert_eq!(walked.paths, ["a", "a/b", "a/b/file", "a/file"].map(PathBuf::from));
        assert_eq!((walked.directories, walked.unreadable, walked.refused), (3, 0, 0));
    }
}

fn outcome(root: &Path, entries: usize) -> (Outcome, String) {
    let args = Args { root: root.to_owned(), threads: 2, entries, time: Duration::from_millis(50) };
    let mut written = (Vec::new(), Vec::new());
    let outcome = run(&args, &mut written.0, &mut written.1);
    (outcome, String::from_utf8_lossy(&[written.0, written.1].concat()).into_owned())
}

#[test]
fn a_whole_run_proves_the_answers_in_any_tree() {
    let tree = small_tree();
    fs::create_dir(tree.path().join("empty")).expect("the directory can be made");
    for (root, entries) in [("", 100), ("", 1), ("a/b", 100), ("empty", 100)] {
        let (outcome, written) = outcome(&tree.path().join(root), entries);
        assert_eq!(outcome, Outcome::Proved, "{root}: {written}");
    }
    let (outcome, written) = outcome(&tree.path().join("a/file"), 100);
    assert_eq!(outcome, Outcome::Unreadable, "{written}");
}

#[test]
fn nonsense_is_refused() {
    let parse = |args: &[&str]| Args::parse(["dcache"].iter().chain(args));
    for args in [&["--threads", "0"][..], &["--entries", "-1"], &["--seconds", "NaN"], &["/usr"], &["--root"]] {
        assert!(parse(args).is_err(), "{args:?}");
    }
    assert!(matches!(parse(&["--help"]), Ok(Command::Help)));
    assert!(matches!(parse(&["-r", "/", "-t", "3"]), Ok(Command::Run(args)) if args.threads == 3));
}

#[cfg(unix)]
#[test]
fn a_path_through_an_unsearchable_directory_gets_the_answer_of_the_file_system() {
    use std::os::unix::fs::PermissionsExt;
    let tree = small_tree();
    let closed = tree.path().join("a/b");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).expect("the directory is ours");
    let cache = Dcache::new(tree.path().to_owned(), 100);
    // The superuser may search every directory, and finds all of this.
    for path in ["a/b", "a/b/file", "a/b/..", "a/b/../file", "a/b/.."] {
        source(&cache, path);
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("the directory is ours");
}
