//! Detection of the sources that this machine has.

use super::cgroup::{Cgroup, Version};
use super::memory::Available;
use super::psi::{Psi, Trigger};
use super::source::{Source, Unavailable};
use std::fmt;

/// The sources that [`detect`] found, and the sources that are not available.
#[non_exhaustive]
pub struct Detected {
    /// The sources, ready to be given to a driver.
    pub sources: Vec<Box<dyn Source>>,
    /// The sources that are not available here, and why.
    pub unavailable: Vec<Unavailable>,
}

impl fmt::Debug for Detected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources: Vec<_> = self.sources.iter().map(|source| source.name()).collect();
        f.debug_struct("Detected").field("sources", &sources).field("unavailable", &self.unavailable).finish()
    }
}

/// Looks for the sources of this machine, in this order:
///
/// 1. PSI of the program's control group, or else of the machine.
/// 2. The limits of the control group, version 2 or else version 1.
/// 3. The available memory of the machine, if there is no limit.
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
