//! Handles: owned references to entries, which outlive guards, removals and the registry itself.

use epoch_registry::Registry;
use std::thread;

fn main() {
    let sessions: Registry<u64, String> = Registry::new();
    let ada = sessions.insert_and_get(1, "ada".to_string());

    // A handle is one word. It is cloned by one atomic addition, and can be sent to other threads.
    let elsewhere = ada.clone();
    let greeting = thread::spawn(move || format!("hello, {}", *elsewhere)).join().unwrap();
    println!("{greeting}");

    // The entry leaves the registry; the handle keeps it.
    assert!(sessions.remove_handle(&ada));
    assert!(sessions.lookup(&1).is_none() && ada.is_unlinked());

    // A lookup returns a handle too. Here the key belongs to another entry by now.
    sessions.insert(1, "grace".to_string());
    let grace = sessions.lookup(&1).unwrap();
    assert!(!grace.ptr_eq(&ada));

    drop(sessions);
    println!("{} and {} outlive the registry", *ada, *grace);
}
