//! What the driver's thread sleeps on: the descriptors of its sources, and a bell for all others.

use std::sync::Arc;
use std::time::Duration;

/// Wakes a driver's thread, which then looks at its sources: from any thread, at any time. It does nothing if there is
/// no thread.
#[derive(Clone, Debug)]
pub struct Waker(pub(super) Arc<Bell>);

impl Waker {
    pub(super) fn new() -> Self {
        Waker(Arc::new(Bell::default()))
    }

    /// Has the driver look at its sources soon. Calls that come before it does are one.
    ///
    /// # Progress
    ///
    /// A system call, or a short lock where the system has no `eventfd`.
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
    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    use std::io;
    use std::os::fd::OwnedFd;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// An event descriptor, from when there is a thread.
    #[derive(Debug, Default)]
    pub(crate) struct Bell {
        rung: AtomicBool,
        descriptor: OnceLock<OwnedFd>,
    }

    impl Bell {
        /// Makes it one that can be waited for.
        pub(crate) fn hang(&self) -> io::Result<()> {
            if self.descriptor.get().is_none() {
                // (If another thread was faster, this one is closed.)
                let _ = self.descriptor.set(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
            }
            Ok(())
        }

        pub(crate) fn ring(&self) {
            // ORDERING: SeqCst, with `hang` and `wait`: either this finds the descriptor, or the thread, which looks at
            // the mark after it was set, finds that.
            self.rung.store(true, Ordering::SeqCst);
            if let Some(descriptor) = self.descriptor.get() {
                // It fails only if it was rung 2^64 times.
                let _ = rustix::io::write(descriptor, &1u64.to_ne_bytes());
            }
        }

        fn still(&self, descriptor: &OwnedFd) {
            // Not ready any more, or never was: the same.
            let _ = rustix::io::read(descriptor, &mut [0; 8]);
        }
    }

    /// Descriptors of sources, by the number of the source. Duplicates: they can be waited for while the sources are in
    /// use.
    #[derive(Default)]
    pub(crate) struct Descriptors(Vec<(usize, OwnedFd)>);

    impl Descriptors {
        pub(crate) fn of<'s>(sources: impl Iterator<Item = (usize, &'s dyn Source)>) -> io::Result<Self> {
            let descriptors = sources.filter_map(|(number, source)| Some((number, source.descriptor()?)));
            let owned = descriptors.map(|(number, descriptor)| Ok((number, descriptor.try_clone_to_owned()?)));
            owned.collect::<io::Result<_>>().map(Descriptors)
        }

        pub(crate) fn duplicate(&self) -> io::Result<Self> {
            let duplicates = self.0.iter().map(|(number, descriptor)| Ok((*number, descriptor.try_clone()?)));
            duplicates.collect::<io::Result<_>>().map(Descriptors)
        }

        /// Waits for one of them or the bell, if there is one, for so long at the most (`None`: for ever). Returns the
        /// numbers of those that are ready, and whether they are of use no more.
        pub(crate) fn wait(&mut self, bell: Option<&Bell>, timeout: Option<Duration>) -> Vec<Ready> {
            // ORDERING: SeqCst, as in `ring`: a bell rung before there was a descriptor to poll is seen here.
            let rung = bell.is_some_and(|bell| bell.rung.load(Ordering::SeqCst));
            let timeout = if rung { Some(Duration::ZERO) } else { timeout };
            // (What does not fit is longer than anybody waits.)
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            let hung = bell.and_then(|bell| bell.descriptor.get());
            let events = self.0.iter().map(|(_, descriptor)| PollFd::new(descriptor, PollFlags::PRI));
            let mut polled: Vec<_> = events.chain(hung.map(|bell| PollFd::new(bell, PollFlags::IN))).collect();
            // Interrupted, or no memory for it: as if nothing was ready. The thread looks at its sources and comes
            // again.
            let _ = poll(&mut polled, timeout.as_ref());
            let lost = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
            let outcomes: Vec<_> = polled.iter().map(PollFd::revents).collect();
            drop(polled);
            if let (Some(bell), Some(hung)) = (bell, hung) {
                // First the descriptor, then the mark: who rings in between is not missed, but comes twice.
                bell.still(hung);
                // ORDERING: SeqCst, as in `ring`, whose mark it reads: what was done before that is seen after this.
                bell.rung.swap(false, Ordering::SeqCst);
            }
            let mut ready = Vec::new();
            for ((source, _), outcome) in self.0.iter().zip(outcomes) {
                if !outcome.is_empty() {
                    ready.push(Ready { source: *source, lost: outcome.intersects(lost) });
                }
            }
            // One that is lost stays ready for ever.
            self.0.retain(|(source, _)| !ready.iter().any(|ready| ready.lost && ready.source == *source));
            ready
        }
    }

    /// What has become of a descriptor.
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

    /// Nothing: sources have none here.
    #[derive(Default)]
    pub(crate) struct Descriptors;

    impl Descriptors {
        pub(crate) fn of<'s>(_: impl Iterator<Item = (usize, &'s dyn Source)>) -> io::Result<Self> {
            Ok(Descriptors)
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

    /// What has become of a descriptor.
    pub(crate) struct Ready {
        pub(crate) source: usize,
        pub(crate) lost: bool,
    }
}
