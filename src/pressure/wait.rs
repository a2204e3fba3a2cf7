//! What the driver's thread waits on: the descriptors of its sources, and a bell that any thread can ring.

use std::sync::Arc;
use std::time::Duration;

/// Wakes a driver's thread, which then looks at its sources. May be used from any thread at any time. Does
/// nothing if the driver has no thread.
#[derive(Clone, Debug)]
pub struct Waker(pub(super) Arc<Bell>);

impl Waker {
    pub(super) fn new() -> Self {
        Waker(Arc::new(Bell::default()))
    }

    /// Has the driver look at its sources soon. Calls made before the driver looks have the effect of one call.
    ///
    /// # Progress
    ///
    /// Makes one system call, or takes a short lock if the system has no `eventfd`.
    pub fn wake(&self) {
        self.0.ring();
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::{Bell, Descriptors, Ready};
#[cfg(not(target_os = "linux"))]
pub(super) use portable::{Bell, Descriptors, Ready};

#[cfg(target_os = "linux")]
mod linux {
    use super::Duration;
    use crate::pressure::source::Source;
    use crate::util::panics::contain;
    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    use std::io;
    use std::os::fd::OwnedFd;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering, fence};

    /// A mark, and an `eventfd` that is created when the driver's thread is started.
    #[derive(Debug, Default)]
    pub(crate) struct Bell {
        rung: AtomicBool,
        descriptor: OnceLock<OwnedFd>,
    }

    impl Bell {
        /// Creates the descriptor, so that a thread can wait for the bell.
        pub(crate) fn hang(&self) -> io::Result<()> {
            if self.descriptor.get().is_none() {
                // If another thread has set one first, ours is closed.
                let _ = self.descriptor.set(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
            }
            Ok(())
        }

        pub(crate) fn ring(&self) {
            // ORDERING: SeqCst, the store and the fence; pair with the fence and the load in `wait`, which comes after
            // `hang`. If this fence comes first, the thread sees the mark. If that of `wait` comes first, this call
            // finds the descriptor and writes to it.
            self.rung.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if let Some(descriptor) = self.descriptor.get() {
                // The write fails only after 2^64 rings.
                let _ = rustix::io::write(descriptor, &1u64.to_ne_bytes());
            }
        }

        fn still(&self, descriptor: &OwnedFd) {
            // It fails if the descriptor is not ready, which does not matter.
            let _ = rustix::io::read(descriptor, &mut [0; 8]);
        }
    }

    /// The descriptors of sources, each with the number of its source. They are duplicates, so a thread can wait
    /// for them while another thread uses the sources.
    #[derive(Default)]
    pub(crate) struct Descriptors(Vec<(usize, OwnedFd)>);

    impl Descriptors {
        /// Duplicates the descriptors of sources. A descriptor that cannot be duplicated (the process has too many) is
        /// left out, with a warning: no thread wakes for that source.
        pub(crate) fn of<'s>(sources: impl Iterator<Item = (usize, &'s dyn Source)>) -> Self {
            let duplicate = |(number, source): (usize, &'s dyn Source)| {
                let error = match source.descriptor()?.try_clone_to_owned() {
                    Ok(descriptor) => return Some((number, descriptor)),
                    Err(error) => error,
                };
                contain(|| {
                    log::warn!(
                        target: "epoch_registry",
                        "a source of memory pressure is not waited for: its descriptor cannot be duplicated ({error})"
                    );
                });
                None
            };
            Descriptors(sources.filter_map(duplicate).collect())
        }

        pub(crate) fn duplicate(&self) -> io::Result<Self> {
            let duplicates = self.0.iter().map(|(number, descriptor)| Ok((*number, descriptor.try_clone()?)));
            duplicates.collect::<io::Result<_>>().map(Descriptors)
        }

        /// Waits for a descriptor or for the bell (if given), at most for `timeout` (`None`: no limit). Returns
        /// the descriptors that are ready, and says for each whether it is lost.
        pub(crate) fn wait(&mut self, bell: Option<&Bell>, timeout: Option<Duration>) -> Vec<Ready> {
            // ORDERING: SeqCst, the fence and the load; pair with the store and the fence in `ring`. Sees a ring that
            // found no descriptor yet.
            fence(Ordering::SeqCst);
            let rung = bell.is_some_and(|bell| bell.rung.load(Ordering::SeqCst));
            let timeout = if rung { Some(Duration::ZERO) } else { timeout };
            // A timeout that does not fit is longer than any wait.
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            let hung = bell.and_then(|bell| bell.descriptor.get());
            let events = self.0.iter().map(|(_, descriptor)| PollFd::new(descriptor, PollFlags::PRI));
            let mut polled: Vec<_> = events.chain(hung.map(|bell| PollFd::new(bell, PollFlags::IN))).collect();
            // If the call is interrupted or out of memory, nothing counts as ready. The thread looks at its
            // sources and waits again.
            let _ = poll(&mut polled, timeout.as_ref());
            let lost = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
            let outcomes: Vec<_> = polled.iter().map(PollFd::revents).collect();
            drop(polled);
            if let (Some(bell), Some(hung)) = (bell, hung) {
                // First the descriptor, then the mark: a ring in between is not lost, it only wakes the thread
                // once more.
                bell.still(hung);
                // ORDERING: SeqCst, pairs with the store in `ring`. What the ringing thread did before it is
                // visible after this.
                bell.rung.swap(false, Ordering::SeqCst);
            }
            let mut ready = Vec::new();
            for ((source, _), outcome) in self.0.iter().zip(outcomes) {
                if !outcome.is_empty() {
                    ready.push(Ready { source: *source, lost: outcome.intersects(lost) });
                }
            }
            // A lost descriptor would stay ready for ever, so it is dropped.
            self.0.retain(|(source, _)| !ready.iter().any(|ready| ready.lost && ready.source == *source));
            ready
        }
    }

    /// The state of a descriptor that has become ready.
    pub(crate) struct Ready {
        pub(crate) source: usize,
        pub(crate) lost: bool,
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use super::Duration;
    use crate::pressure::source::Source;
    use parking_lot::{Condvar, Mutex};
    use std::io;

    #[derive(Debug, Default)]
    pub(crate) struct Bell {
        rung: Mutex<bool>,
        changed: Condvar,
    }

    impl Bell {
        pub(crate) fn hang(&self) -> io::Result<()> {
            Ok(())
        }

        pub(crate) fn ring(&self) {
            *self.rung.lock() = true;
            self.changed.notify_all();
        }
    }

    /// Empty: sources have no descriptors on this system.
    #[derive(Default)]
    pub(crate) struct Descriptors;

    impl Descriptors {
        pub(crate) fn of<'s>(_: impl Iterator<Item = (usize, &'s dyn Source)>) -> Self {
            Descriptors
        }

        pub(crate) fn duplicate(&self) -> io::Result<Self> {
            Ok(Descriptors)
        }

        pub(crate) fn wait(&mut self, bell: Option<&Bell>, timeout: Option<Duration>) -> Vec<Ready> {
            if let Some(bell) = bell {
                let mut rung = bell.rung.lock();
                match timeout {
                    Some(timeout) => drop(bell.changed.wait_while_for(&mut rung, |rung| !*rung, timeout)),
                    None => bell.changed.wait_while(&mut rung, |rung| !*rung),
                }
                *rung = false;
            }
            Vec::new()
        }
    }

    /// The state of a descriptor that has become ready.
    pub(crate) struct Ready {
        pub(crate) source: usize,
        pub(crate) lost: bool,
    }
}
