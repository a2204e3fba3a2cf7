//! Checks that the tests which the documents name exist.

use std::fs;
use std::path::Path;

/// Whether `source` defines a function or a loom model of that name.
fn defines(source: &str, name: &str) -> bool {
    source.contains(&format!("fn {name}(")) || source.contains(&format!("\"{name}\""))
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/guarantees.md")).unwrap();
    let mut named = 0;
    for citation in text.split('`').filter(|part| part.contains("::") && part.chars().all(|c| c != ' ')) {
        let (place, name) = citation.split_once("::").unwrap();
        let source = match place {
            item if item.starts_with(char::is_uppercase) => continue,
            "model" => root.join("loom-tests/src/races.rs"),
            "refs" => root.join("src/node/refs.rs"),
            file => {
                let of = |folder: &str| root.join(folder).join(file).with_extension("rs");
                Some(of("tests/suite")).filter(|suite| suite.exists()).unwrap_or_else(|| of("tests"))
            }
        };
        // A crate from the registry does not contain the models.
        let Ok(source) = fs::read_to_string(&source) else {
            assert_eq!(place, "model", "{citation}: there is no {}", source.display());
            continue;
        };
        assert!(defines(&source, name), "docs/guarantees.md names {citation}, which does not exist");
        named += 1;
    }
    assert!(named > 40, "only {named} tests found: does this test still parse the document correctly?");
}
