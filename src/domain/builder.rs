//! Settings of a domain.

use super::reclaimer::Reclaimer;
use super::{Domain, Inner};
use std::sync::Arc;

/// Settings of a new [`Domain`].
#[derive(Debug)]
pub struct DomainBuilder {
    name: Option<String>,
    reclaimer: bool,
}

impl DomainBuilder {
    pub(super) fn new() -> Self {
        DomainBuilder { name: None, reclaimer: false }
    }

    /// The domain's name, in panics, reports and the name of its reclaimer thread.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Whether the domain has a thread of its own that runs destructors and callbacks, promptly and off everybody
    /// else's time. It is joined when the domain is torn down. Off by default: then writers share the work, with a
    /// bounded share each.
    pub fn reclaimer(mut self, on: bool) -> Self {
        self.reclaimer = on;
        self
    }

    /// Builds the domain.
    ///
    /// # Panics
    ///
    /// If the reclaimer thread cannot be started.
    pub fn build(self) -> Domain {
        let domain = Domain(Inner::new(self.name));
        if self.reclaimer {
            let name = format!("{}-reclaim", domain.name());
            let reclaimer = Reclaimer::start(name, Arc::downgrade(&domain.0)).expect("starting the reclaimer");
            assert!(domain.0.reclaimer.set(reclaimer).is_ok(), "it is set once");
        }
        domain
    }
}
