//! Expiry: by age, by idleness, and by a lifetime of each entry's own. No read finds an expired entry.

use epoch_registry::{ManualClock, Registry};
use std::time::Duration;

fn main() {
    // A clock that the program sets, as a test would. The default is the system's monotonic clock.
    let clock = ManualClock::new();
    let seconds = Duration::from_secs;

    let tokens = Registry::builder().max_age(seconds(60)).clock(clock.clone()).build();
    let sessions = Registry::builder().max_idle(seconds(60)).clock(clock.clone()).build();
    let leases = Registry::builder()
        .lifetime(|_: &&str, length: &u64| Some(Duration::from_secs(*length)))
        .clock(clock.clone())
        .build();
    tokens.set("ada", ());
    sessions.set("ada", ());
    leases.set("short", 10);
    leases.set("long", 3600);

    for _ in 0..7 {
        clock.advance(seconds(10));
        // A use keeps a session alive, and not a token.
        assert!(sessions.contains_key("ada"));
    }
    assert!(!tokens.contains_key("ada"), "70 seconds old");
    assert!(!leases.contains_key("short") && leases.contains_key("long"));

    // Expired entries are absent at once. Their memory is freed by a reaper: here by a call, or in the background
    // (`Builder::reap_in_background`).
    let reaped = tokens.expire(1000);
    println!(
        "{} token expired; {} session and {} lease are left",
        reaped.removed,
        sessions.len(),
        leases.pin().iter().count()
    );
    assert_eq!(reaped.removed, 1);
}
