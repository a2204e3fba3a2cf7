//! What can be broken on purpose, to see that it is noticed.

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
        (Broken::None, "none", "grace periods are not waited for at all"),
        (Broken::Early, "early", "grace periods are polled once, and taken for over whatever the answer is"),
        (Broken::Stale, "stale", "the grace period waited for began before the element was replaced"),
        (Broken::Callback, "callback", "callbacks run at once"),
        (Broken::Free, "free", "an element is given back when it is unlinked, be it from a slot or a registry"),
        (Broken::Outlive, "outlive", "readers keep what they hold beyond a repin"),
        (Broken::Idle, "idle", "nothing is ever replaced, so that nothing could be seen"),
        (Broken::Lost, "lost", "one callback in a thousand is lost"),
        (Broken::Leak, "leak", "one handle in a thousand is forgotten"),
        (Broken::Unreported, "unreported", "reports of stalls are thrown away"),
        (Broken::Endless, "endless", "grace periods never end for those who wait"),
    ];

    pub fn of(wanted: &str) -> Result<Broken, String> {
        let known = Broken::ALL.iter().find(|(_, name, _)| *name == wanted);
        known.map(|&(broken, ..)| broken).ok_or_else(|| format!("nothing that can be broken: {wanted}"))
    }

    /// One line for each kind.
    pub fn list() -> String {
        Broken::ALL.iter().map(|(_, name, what)| format!("  {name:<11} {what}\n")).collect()
    }
}
