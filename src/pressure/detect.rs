//! What this machine has, in the order of its worth.

use super::cgroup::{Cgroup, Version};
use super::memory::Available;
use super::psi::{Psi, Trigger};
use super::source::{Source, Unavailable};
use std::fmt;

/// The sources that [`detect`] has found, and those that it has not.
#[non_exhaustive]
pub struct Detected {
    /// Ready to be given to a driver.
    pub sources: Vec<Box<dyn Source>>,
    /// What is not available here, and why.
    pub unavailable: Vec<Unavailable>,
}

impl fmt::Debug for Detected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources: Vec<_> = self.sources.iter().map(|source| source.name()).collect();
        f.debug_struct("Detected").field("sources", &sources).field("unavailable", &self.unavailable).finish()
    }
}

/// Looks for the sources of this machine: PSI, of the program's control group or else of the machine; the limits of its
/// control group, version 2 or else version 1; and if there are none, the available memory of the machine.
pub fn detect() -> Detected {
    let (psi, mut unavailable) = Psi::detect(Trigger::default());
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    sources.extend(psi.map(|psi| Box::new(psi) as _));
    let mut is_limited = false;
    for version in [Version::V2, Version::V1] {
        match Cgroup::new(version) {
            Ok(group) => {
                sources.push(Box::new(group));
                is_limited = true;
                break;
            }
            Err(why) => unavailable.push(why),
        }
    }
    if !is_limited {
        match Available::new() {
            Ok(available) => sources.push(Box::new(available)),
            Err(why) => unavailable.push(why),
        }
    }
    Detected { sources, unavailable }
}
