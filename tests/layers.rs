//! The architecture: each folder of `src` imports only from the folders below it, in the order of `lib.rs`. Each file
//! is on the map in `docs/design.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders from top to bottom.
const ORDER: [&str; 15] = [
    "pressure",
    "registry",
    "shard",
    "handle",
    "list",
    "cell",
    "object",
    "percpu_ref",
    "domain",
    "table",
    "node",
    "reap",
    "percpu",
    "util",
    "sync",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the source files of a folder and of its subfolders.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Returns the code of a file, without comments and without the tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Returns the folders that the code names, as in `crate::domain::Inner`.
fn named(code: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices("crate::")
        // Skips `$crate::` and names that end in `crate`.
        .filter(|(at, _)| !code[..*at].ends_with(|c: char| is_name(c) || c == '$'))
        .map(|(at, found)| code[at + found.len()..].split(|c| !is_name(c)).next().unwrap().to_string())
        .collect()
}

fn level(folder: &str) -> usize {
    ORDER.iter().position(|one| *one == folder).unwrap_or_else(|| panic!("`crate::{folder}` is not in the order"))
}

#[test]
fn the_order_is_that_of_lib_rs() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mods = text.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    assert!(mods.eq(ORDER), "the order of the modules in lib.rs differs from the order in this test");
}

#[test]
fn folders_import_downward_only() {
    let mut upward = Vec::new();
    for (above, folder) in ORDER.iter().enumerate() {
        for file in sources(&root().join("src").join(folder)) {
            for name in named(&code(&file)) {
                if level(&name) < above {
                    upward.push(format!("{} imports from {name}", file.display()));
                }
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn an_upward_import_would_be_found() {
    let code = "use crate::registry::Core;\nuse ::other_crate::x;\nlet y = crate::node::Node::new();";
    assert!(named(code).into_iter().eq(["node", "registry"]));
    assert!(level("registry") < level("node"));
}

#[test]
fn every_file_is_on_the_map() {
    let design = fs::read_to_string(root().join("docs/design.md")).unwrap();
    let missing: Vec<_> = sources(&root().join("src"))
        .into_iter()
        .filter_map(|file| {
            let name = file.strip_prefix(root().join("src")).unwrap().to_str()?.to_string();
            let on_map = match name.split_once('/') {
                None => true,
                // A folder has a line on the map. Its files are named in that line or in the indented lines after it.
                Some((folder, rest)) => {
                    let stem = rest.trim_end_matches(".rs").trim_end_matches("/mod").rsplit('/').next().unwrap();
                    let mut lines = design.lines().skip_while(|line| !line.starts_with(&format!("{folder}/")));
                    let first = lines.next().unwrap_or_default();
                    let words = std::iter::once(first).chain(lines.take_while(|line| line.starts_with(' ')));
                    let is_named = |line: &str| line.split([' ', ',', ';', ':']).any(|word| word == stem);
                    !first.is_empty() && (stem == "mod" || words.into_iter().any(is_named))
                }
            };
            (!on_map).then_some(name)
        })
        .collect();
    assert!(missing.is_empty(), "not on the map in docs/design.md: {missing:?}");
}
