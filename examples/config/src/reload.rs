//! What makes the service read its file again: a change of the file, or SIGHUP.

use notify::{RecursiveMode, Watcher};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Why the file is to be read again, or that it is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    Changed,
    Hangup,
    Stop,
}

/// How long the file must stay as it is before it is read: an editor writes it in several steps.
const SETTLE: Duration = Duration::from_millis(20);

/// The sources of reasons.
pub struct Reasons {
    reasons: Receiver<Reason>,
    sender: Sender<Reason>,
    /// Watches the file until it is dropped.
    _watcher: notify::RecommendedWatcher,
}

impl Reasons {
    /// Begins to watch `file`, and to wait for SIGHUP.
    ///
    /// # Errors
    ///
    /// If the system cannot watch the file's directory, or the handler of the signal cannot be set.
    pub fn of(file: &Path) -> Result<Reasons, Box<dyn std::error::Error>> {
        let (sender, reasons) = channel();
        // The directory, since most editors replace the file by another one of its name.
        let name = file.file_name().ok_or("not the name of a file")?.to_os_string();
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let changed = sender.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let is_ours = |event: &notify::Event| {
                !event.kind.is_access() && event.paths.iter().any(|path| path.file_name() == Some(&name))
            };
            if event.as_ref().is_ok_and(is_ours) {
                // (There is no receiver any more when the program ends.)
                let _ = changed.send(Reason::Changed);
            }
        })?;
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        #[cfg(unix)]
        {
            let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGHUP])?;
            let hangup = sender.clone();
            std::thread::spawn(move || {
                for _ in &mut signals {
                    if hangup.send(Reason::Hangup).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Reasons { reasons, sender, _watcher: watcher })
    }

    /// Returns what tells the receiver to stop.
    pub fn stopper(&self) -> Sender<Reason> {
        self.sender.clone()
    }

    /// Waits for a reason. Several changes in a row are one.
    pub fn wait(&self) -> Reason {
        let mut reason = self.reasons.recv().unwrap_or(Reason::Stop);
        while reason == Reason::Changed {
            match self.reasons.recv_timeout(SETTLE) {
                Ok(next) => reason = next,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return reason,
            }
        }
        reason
    }
}
