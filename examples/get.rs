//! Reads: one at a time, many under one guard, and by a borrowed key.

use epoch_registry::Registry;

fn main() {
    let capitals: Registry<String, &str> = Registry::new();
    capitals.insert("France".to_string(), "Paris");
    capitals.insert("Peru".to_string(), "Lima");

    // One read: a critical section for the closure. The key is borrowed: nothing is allocated.
    let length = capitals.with("Peru", |capital| capital.len());
    assert_eq!(length, Some(4));
    assert!(!capitals.contains_key("Atlantis"));

    // Several reads: one critical section. Entries are borrowed for as long as the guard lives.
    let guard = capitals.pin();
    let (france, peru) = (guard.get("France").unwrap(), guard.get("Peru").unwrap());
    println!("{} and {}", *france, *peru);

    // A removal by another thread does not disturb what the guard has found.
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(capitals.delete("Peru")));
    });
    assert_eq!((*peru, peru.is_unlinked()), ("Lima", true));
    assert!(guard.get("Peru").is_none());
    println!("{} is no longer in the registry, and still readable", *peru);
}
