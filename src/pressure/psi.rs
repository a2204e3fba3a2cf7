//! Pressure stall information (PSI) of the Linux kernel. The kernel reports when tasks have stalled because
//! memory was short, for longer than a threshold within a window of time.

use super::source::{Reading, Source, Unavailable};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The PSI file of the whole machine.
const MACHINE: &str = "/proc/pressure/memory";

/// A process without the capability `CAP_SYS_RESOURCE` may choose only windows that are multiples of this.
const UNPRIVILEGED: Duration = Duration::from_secs(2);

/// When the kernel reports pressure: see [`Psi::with`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trigger {
    /// Whether all tasks have to stall at the same time. If not, some tasks are enough.
    pub full: bool,
    /// How long they have to stall in a window. Rounded down to microseconds.
    pub threshold: Duration,
    /// The window: 500 ms to 10 s. Rounded down to microseconds.
    pub window: Duration,
}

impl Default for Trigger {
    /// Some tasks stall for 150 ms in 1 s.
    fn default() -> Self {
        Trigger { full: false, threshold: Duration::from_millis(150), window: Duration::from_secs(1) }
    }
}

impl Trigger {
    /// Returns the text that is written to the kernel's file.
    fn text(&self) -> String {
        let whom = if self.full { "full" } else { "some" };
        // The kernel overwrites the last byte with a zero.
        format!("{whom} {} {}\0", self.threshold.as_micros(), self.window.as_micros())
    }

    /// Returns the next trigger that needs no privilege: the window is a multiple of 2 s, and the threshold is
    /// the same fraction of it.
    fn unprivileged(&self) -> Trigger {
        let windows = self.window.as_micros().div_ceil(UNPRIVILEGED.as_micros()).max(1);
        let window = UNPRIVILEGED * u32::try_from(windows).unwrap_or(u32::MAX / 2);
        let part = window.as_secs_f64() / self.window.as_secs_f64().max(1e-6);
        Trigger { threshold: self.threshold.mul_f64(part), window, ..*self }
    }
}

/// A trigger of pressure stall information. The driver waits for it without polling. The kernel reports at most
/// once per window, and reports no amount: a [`Reading::Event`].
#[derive(Debug)]
pub struct Psi {
    name: String,
    trigger: Trigger,
    #[cfg_attr(not(target_os = "linux"), expect(dead_code))]
    file: File,
}

impl Psi {
    /// Creates a trigger on the memory of the whole machine: `/proc/pressure/memory`.
    ///
    /// # Errors
    ///
    /// See [`with`](Self::with).
    pub fn machine(trigger: Trigger) -> Result<Self, Unavailable> {
        Self::with(MACHINE, trigger)
    }

    /// Creates a trigger on a file such as `/proc/pressure/memory`, or the `memory.pressure` of a control group
    /// (version 2).
    ///
    /// A process without the capability `CAP_SYS_RESOURCE` may choose only windows that are multiples of two
    /// seconds. If the kernel rejects the given trigger as invalid, `with` tries the next larger window that is
    /// allowed, with a threshold that is the same fraction of it. [`trigger`](Self::trigger) returns the one in
    /// use.
    ///
    /// # Errors
    ///
    /// Fails if
    ///
    /// - there is no such file: the kernel is older than 5.2, or PSI is switched off (some distributions need the
    ///   boot parameter `psi=1`);
    /// - the process may not write to the file;
    /// - the kernel rejects the trigger;
    /// - the system is not Linux.
    pub fn with(path: impl AsRef<Path>, trigger: Trigger) -> Result<Self, Unavailable> {
        let path = path.as_ref();
        let name = format!("PSI {}", path.display());
        if !cfg!(target_os = "linux") {
            return Err(Unavailable::new(name, "only Linux has it"));
        }
        let next = trigger.unprivileged();
        let (file, trigger) = match arm(path, trigger) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && next != trigger => (arm(path, next), next),
            armed => (armed, trigger),
        };
        match file {
            Ok(file) => Ok(Psi { name, trigger, file }),
            Err(error) => Err(Unavailable::file(name, path, error)),
        }
    }

    /// Creates a trigger on the memory of the process's own control group (version 2), or else of the machine.
    /// Returns `None` if neither is available. Also returns what was not available, and why.
    pub fn detect(trigger: Trigger) -> (Option<Self>, Vec<Unavailable>) {
        let own = super::cgroup::own_v2(Path::new("/")).map(|group| group.join("memory.pressure"));
        let mut missing = Vec::new();
        for path in own.into_iter().chain([PathBuf::from(MACHINE)]) {
            match Self::with(path, trigger) {
                Ok(psi) => return (Some(psi), missing),
                Err(why) => missing.push(why),
            }
        }
        (None, missing)
    }

    /// Returns the trigger that the kernel accepted.
    pub fn trigger(&self) -> Trigger {
        self.trigger
    }
}

/// Writes the trigger to the file. One open file holds one trigger.
fn arm(path: &Path, trigger: Trigger) -> io::Result<File> {
    let mut file = File::options().read(true).write(true).open(path)?;
    file.write_all(trigger.text().as_bytes())?;
    Ok(file)
}

impl Source for Psi {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&mut self, signalled: bool) -> Result<Reading, Unavailable> {
        Ok(if signalled { Reading::Event } else { Reading::Quiet })
    }

    #[cfg(target_os = "linux")]
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&self.file))
    }

    fn is_polled(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Trigger;
    use std::time::Duration;

    #[test]
    fn triggers_are_written_in_microseconds() {
        assert_eq!(Trigger::default().text(), "some 150000 1000000\0");
        let full = Trigger { full: true, threshold: Duration::from_micros(1500), window: Duration::from_millis(500) };
        assert_eq!(full.text(), "full 1500 500000\0");
    }

    #[test]
    fn without_privilege_the_window_is_the_next_multiple_of_two_seconds() {
        assert_eq!(Trigger::default().unprivileged().text(), "some 300000 2000000\0");
        let long = Trigger { window: Duration::from_secs(3), ..Trigger::default() };
        assert_eq!(long.unprivileged().text(), "some 200000 4000000\0");
        assert_eq!(long.unprivileged().unprivileged(), long.unprivileged());
    }
}
