//! Deliberate bugs, to check that the test notices them.

/// One deliberate bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    None,
    Early,
    Stale,
    Callback,
    Free,
    Outlive,
    Idle,
    Lost,
    Leak,
    Unreported,
    Endless,
}

impl Broken {
    pub const ALL: [(Broken, &str, &str); 11] = [
        (Broken::None, "none", "updaters do not wait for grace periods"),
        (Broken::Early, "early", "updaters poll a grace period once, and ignore the answer"),
        (Broken::Stale, "stale", "updaters wait for a grace period that began before the element was replaced"),
        (Broken::Callback, "callback", "callbacks run at once"),
        (Broken::Free, "free", "elements return to the pool when they are unlinked, without a grace period"),
        (Broken::Outlive, "outlive", "readers keep elements across a repin"),
        (Broken::Idle, "idle", "no element is ever replaced, so the run checks nothing"),
        (Broken::Lost, "lost", "one callback in a thousand is lost in a flood"),
        (Broken::Leak, "leak", "one handle in a thousand is leaked"),
        (Broken::Unreported, "unreported", "stall reports are dropped"),
        (Broken::Endless, "endless", "waits for grace periods never end"),
    ];

    pub fn of(wanted: &str) -> Result<Broken, String> {
        let known = Broken::ALL.iter().find(|(_, name, _)| *name == wanted);
        known.map(|&(broken, ..)| broken).ok_or_else(|| format!("unknown kind of bug: {wanted}"))
    }

    /// Returns one line for each kind.
    pub fn list() -> String {
        Broken::ALL.iter().map(|(_, name, what)| format!("  {name:<11} {what}\n")).collect()
    }
}
