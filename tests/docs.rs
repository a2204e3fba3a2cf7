//! Checks that the tests which the documents name exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// Whether `source` defines a function or a loom model of that name.
fn defines(source: &str, name: &str) -> bool {
    source.contains(&format!("fn {name}(")) || source.contains(&format!("\"{name}\""))
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let root = root();
    let text = read("docs/guarantees.md");
    let mut named = 0;
    for citation in text.split('`').filter(|part| part.contains("::") && part.chars().all(|c| c != ' ')) {
        let (place, name) = citation.split_once("::").unwrap();
        let source = match place {
            item if item.starts_with(char::is_uppercase) => continue,
            "model" => root.join("loom-tests/src/races.rs"),
            "refs" => root.join("src/node/refs.rs"),
            "compile_fail" => root.join("tests/compile-fail/src/compile_fail.rs"),
            file => {
                let of = |folder: &str| root.join(folder).join(file).with_extension("rs");
                Some(of("tests/suite")).filter(|suite| suite.exists()).unwrap_or_else(|| of("tests"))
            }
        };
        // A crate from the registry contains neither the models nor the programs that must not compile.
        let Ok(source) = fs::read_to_string(&source) else {
            assert!(["model", "compile_fail"].contains(&place), "{citation}: there is no {}", source.display());
            continue;
        };
        assert!(defines(&source, name), "docs/guarantees.md names {citation}, which does not exist");
        named += 1;
    }
    assert!(named > 40, "only {named} tests found: does this test still parse the document correctly?");
}

/// The README is shown on crates.io too, where relative links lead nowhere.
#[test]
fn every_link_of_the_readme_leads_to_a_file_of_the_package() {
    const SOURCE: &str = "https://docs.rs/crate/epoch-registry/latest/source/";
    let text = read("README.md");
    let defined: Vec<_> = text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).collect();
    for (label, target) in &defined {
        let file = target.strip_prefix(SOURCE).unwrap_or_else(|| panic!("{label}: {target} is not on docs.rs"));
        assert!(*label == file && root().join(file).exists(), "{label}: there is no {file}");
    }
    let cited: BTreeSet<_> = text.split('[').filter_map(|rest| rest.split_once(']')).map(|(label, _)| label).collect();
    let cited: Vec<_> = cited.into_iter().filter(|label| label.starts_with("docs/")).collect();
    assert!(cited.len() > 5, "only {} links found: is the document still read right?", cited.len());
    assert!(
        cited.iter().copied().eq(defined.iter().map(|(label, _)| *label)),
        "{cited:?} are not those that are defined"
    );
    let inline: Vec<_> = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(inline.iter().all(|target| target.starts_with("https://")), "relative: {inline:?}");
}

const MAP: &str = "docs/kernel-map.md";

/// Returns the cells of the column `name`, in all tables of `text` that have it.
fn column<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let (mut cells, mut is_table, mut at) = (Vec::new(), false, None);
    for line in text.lines() {
        let row: Vec<&str> = line.trim().split('|').map(str::trim).collect();
        if !line.trim().starts_with('|') {
            is_table = false;
        } else if !is_table {
            is_table = true;
            at = row.iter().position(|&head| head == name);
        } else {
            let cell = at.and_then(|at| row.get(at)).filter(|cell| !cell.starts_with("---"));
            cells.extend(cell);
        }
    }
    cells
}

/// Returns the code in a cell.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Returns whether a test exists that is named as the map says. `None` if its folder is missing: a crate from the
/// registry comes without models, patches and programs that must not compile.
fn test_exists(name: &str) -> Option<bool> {
    let (kind, rest) = name.split_once(' ').unwrap_or(("test", name));
    let has = |folder: &str, file: String, wanted: &dyn Fn(&str) -> bool| {
        let folder = root().join(folder);
        folder.exists().then(|| fs::read_to_string(folder.join(file)).is_ok_and(|source| wanted(&source)))
    };
    match kind {
        "loom" => has("loom-tests", "src/races.rs".into(), &|source| source.contains(&format!("\"{rest}\""))),
        "seeded" => has("tests/seeded", format!("{rest}.patch"), &|_| true),
        "compile-fail" => has("tests/compile-fail", format!("{rest}.rs"), &|_| true),
        "doctest" => {
            let (file, error) = rest.split_once(' ')?;
            has("src", format!("{file}.rs"), &|source| source.contains(&format!("compile_fail,{error}")))
        }
        "unit" | "test" => {
            let folder = if kind == "unit" { "src" } else { "tests" };
            let (file, test) = rest.rsplit_once("::").unwrap_or(("", rest));
            let source = format!("{}.rs", file.replace("::", "/"));
            has(folder, source, &|source| source.contains(&format!("fn {test}()")))
        }
        _ => Some(false),
    }
}

/// Returns the tests that the map `text` names and that do not exist.
fn missing_tests(text: &str) -> Vec<&str> {
    column(text, "shown by").into_iter().flat_map(code).filter(|name| test_exists(name) == Some(false)).collect()
}

/// The public items of one part of the source.
#[derive(Default)]
struct Items {
    /// The types that a `pub use` exports.
    exported: BTreeSet<String>,
    /// Functions, and methods, fields and variants as `Type::name`.
    parts: BTreeSet<String>,
}

impl Items {
    fn has(&self, item: &str) -> bool {
        let owner = item.split("::").next().unwrap();
        let is_type = owner.starts_with(char::is_uppercase);
        (!is_type || self.exported.contains(owner)) && (item == owner && is_type || self.parts.contains(item))
    }

    /// Adds the names in the `pub use` of a module.
    fn export(&mut self, module: &str) {
        for uses in module.split("\npub use ").skip(1) {
            self.exported.extend(words(uses.split(';').next().unwrap()).map(str::to_string));
        }
    }

    /// Adds the items of a file that is formatted by rustfmt.
    fn add(&mut self, source: &str) {
        let (mut owner, mut kind) = (String::new(), "");
        for line in source.lines() {
            let is_outer = !line.starts_with([' ', '}', '/', '#', ')', '{']) && !line.is_empty();
            let name_after = |word: &str| line.split_once(word).and_then(|(_, rest)| words(rest).next()).unwrap_or("");
            if is_outer {
                kind = ["impl", "pub struct ", "pub enum ", "pub trait ", "where"]
                    .into_iter()
                    .find(|start| line.starts_with(start))
                    .unwrap_or("");
                match kind {
                    "where" => kind = "impl",
                    "impl" => {
                        owner = self_type(line);
                        if line.contains(" for ") {
                            kind = "impl of a trait";
                        }
                    }
                    kind => owner = name_after(kind).to_string(),
                }
            }
            let inner = line.trim_start();
            let is_of_trait = matches!(kind, "pub trait " | "impl of a trait");
            let is_public = inner.starts_with("pub fn ") || inner.starts_with("pub const fn ");
            let part = if is_public || is_of_trait && inner.starts_with("fn ") {
                name_after("fn ")
            } else if kind == "pub struct " && inner.starts_with("pub ") && !is_outer {
                name_after("pub ")
            } else if kind == "pub enum " && inner.starts_with(char::is_uppercase) {
                words(inner).next().unwrap()
            } else {
                continue;
            };
            self.parts.insert(if is_outer { part.to_string() } else { format!("{owner}::{part}") });
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Returns the type that a line `impl ...` is about.
fn self_type(line: &str) -> String {
    let line = line.replace("->", "");
    let mut depth = 0;
    let after_generics = line.trim_start_matches("impl").trim_start_matches(|c| {
        depth += i32::from(c == '<') - i32::from(c == '>');
        depth > 0 || c == '>'
    });
    let subject = after_generics.split(" for ").last().unwrap();
    subject.split(['<', '{']).next().unwrap().rsplit("::").next().unwrap().trim_matches([' ', '&']).to_string()
}

/// The public items of the crate without the module `pressure`, and those of that module.
struct Public {
    main: Items,
    pressure: Items,
}

impl Public {
    fn of_this_crate() -> Self {
        fn sources(folder: &Path) -> Vec<PathBuf> {
            let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
        }

        let (mut main, mut pressure) = (Items::default(), Items::default());
        for file in sources(&root().join("src")) {
            let items = if file.starts_with(root().join("src/pressure")) { &mut pressure } else { &mut main };
            items.add(&fs::read_to_string(file).unwrap());
        }
        main.export(&read("src/lib.rs"));
        pressure.export(&read("src/pressure/mod.rs"));
        Public { main, pressure }
    }

    /// Returns whether code in the column "here" names an item that exists, or nothing of this crate.
    fn has(&self, name: &str) -> bool {
        if let Some(item) = name.strip_prefix("pressure::") {
            return self.pressure.has(item);
        }
        if let Some(item) = name.strip_prefix("policy::") {
            return self.main.has(item);
        }
        !name.starts_with(char::is_uppercase) || self.main.has(name)
    }

    /// Returns the items that the map `text` names and that do not exist.
    fn missing<'t>(&self, text: &'t str) -> Vec<&'t str> {
        column(text, "here").into_iter().flat_map(code).filter(|name| !self.has(name)).collect()
    }
}

#[test]
fn every_test_that_the_kernel_map_names_exists() {
    let map = read(MAP);
    assert_eq!(missing_tests(&map), [""; 0], "named in {MAP}, and not there");
    let cells = column(&map, "shown by");
    assert!(cells.len() > 25, "only {} cells found: is the document still read right?", cells.len());
    let bare: Vec<_> = cells.into_iter().filter(|cell| code(cell).count() == 0 && !cell.contains("(a rule")).collect();
    assert_eq!(bare, [""; 0], "no test is named, and no reason is given");
}

#[test]
fn every_item_that_the_kernel_map_names_exists() {
    let map = read(MAP);
    assert_eq!(Public::of_this_crate().missing(&map), [""; 0], "named in {MAP}, and not there");
    let cells = column(&map, "here");
    assert!(cells.len() > 70, "only {} cells found: is the document still read right?", cells.len());
    let bare: Vec<_> = cells.into_iter().filter(|&cell| code(cell).count() == 0 && cell != "none").collect();
    assert_eq!(bare, [""; 0], "neither an item nor \"none\"");
}

#[test]
fn a_missing_test_or_item_would_be_found() {
    let map = "\
| pitfall | shown by | here |
|---|---|---|
| a | `suite::grace::no_such_test`, `no_such_file::test` | `Domain::pin`, `Domain::no_such_method` |
| b | `loom no_such_model`, `seeded 00-none`, `compile-fail none` | `NoSuchType`, `Reaped::removed`, `Reaped::none` |
| c | `doctest cell/mod E9999`, `unit node/refs::none`, `other x` | `pressure::Driver::add`, `pressure::Driver::none` |
| d | `threads::destructors_of_thread_locals_may_use_the_registry` | `policy::none`, `Verdict::Keep`, `Verdict::None` |
| e | `doctest cell/mod E0505` | `Reaper::count`, `Reaper::none`, `Bag`, `std::sync::Arc` |

Not in a table: `suite::none::none`.
";
    let missing = missing_tests(map);
    assert_eq!(missing[..2], ["suite::grace::no_such_test", "no_such_file::test"]);
    assert_eq!(missing[missing.len() - 3..], ["doctest cell/mod E9999", "unit node/refs::none", "other x"]);
    // A crate from the registry comes without models, patches and programs that must not compile.
    assert_eq!(missing.len(), if root().join("loom-tests").exists() { 8 } else { 5 });
    let expected = [
        "Domain::no_such_method",
        "NoSuchType",
        "Reaped::none",
        "pressure::Driver::none",
        "policy::none",
        "Verdict::None",
        "Reaper::none",
        "Bag",
    ];
    assert_eq!(Public::of_this_crate().missing(map), expected);
}
