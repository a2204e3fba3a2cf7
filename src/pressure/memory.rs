//! Levels that every system knows: available memory, and the process's own.

use super::source::{Level, Marks, Reading, Source, Unavailable};
use sysinfo::System;

const AVAILABLE: &str = "available memory";
const OWN: &str = "own memory";

/// The memory of the machine that is still available without swapping: the portable fall-back.
///
/// It knows nothing of a limit on the program's control group, and does not see who uses the memory.
#[derive(Debug)]
pub struct Available {
    system: System,
    marks: Marks,
}

impl Available {
    /// Shedding begins, unless [told otherwise](Self::marks), when less than 5% is available, and frees what is missing
    /// from 7%.
    ///
    /// # Errors
    ///
    /// If it cannot be told on this system.
    pub fn new() -> Result<Self, Unavailable> {
        let mut available = Available { system: new_system(AVAILABLE)?, marks: Marks::new(0.95, 0.93) };
        available.level()?;
        Ok(available)
    }

    /// Where shedding begins and ends, as fractions of the machine's memory that are not available.
    pub fn marks(mut self, marks: Marks) -> Self {
        self.marks = marks;
        self
    }

    fn level(&mut self) -> Result<Level, Unavailable> {
        self.system.refresh_memory();
        let (total, available) = (self.system.total_memory(), self.system.available_memory());
        if total == 0 {
            return Err(Unavailable::new(AVAILABLE, "the system does not tell"));
        }
        Ok(Level::new(total.saturating_sub(available), total, self.marks))
    }
}

impl Source for Available {
    fn name(&self) -> &str {
        AVAILABLE
    }

    fn check(&mut self, _signalled: bool) -> Result<Reading, Unavailable> {
        self.level().map(Reading::Level)
    }
}

/// The process's own resident memory, against a limit set by hand.
#[derive(Debug)]
pub struct Own {
    gauge: Gauge,
    limit: u64,
    marks: Marks,
}

impl Own {
    /// The process is to use so many bytes at the most.
    ///
    /// # Errors
    ///
    /// If it cannot be told on this system what it uses.
    pub fn new(limit: u64) -> Result<Self, Unavailable> {
        let mut own = Own { gauge: Gauge::new()?, limit, marks: Marks::default() };
        own.used()?;
        Ok(own)
    }

    /// Where shedding begins and ends, as fractions of the limit.
    pub fn marks(mut self, marks: Marks) -> Self {
        self.marks = marks;
        self
    }

    /// The bytes of resident memory, now.
    ///
    /// # Errors
    ///
    /// If it cannot be told.
    pub fn used(&mut self) -> Result<u64, Unavailable> {
        self.gauge.read()
    }
}

impl Source for Own {
    fn name(&self) -> &str {
        OWN
    }

    fn check(&mut self, _signalled: bool) -> Result<Reading, Unavailable> {
        let used = self.used()?;
        Ok(Reading::Level(Level::new(used, self.limit, self.marks)))
    }
}

/// What reads the process's resident memory.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Gauge;

#[cfg(target_os = "linux")]
impl Gauge {
    fn new() -> Result<Self, Unavailable> {
        Ok(Gauge)
    }

    /// From the system's file: it takes a few microseconds, where the portable way goes through all that is known of
    /// the process and takes a millisecond.
    fn read(&mut self) -> Result<u64, Unavailable> {
        let path = "/proc/self/statm";
        let text = std::fs::read_to_string(path).map_err(|error| Unavailable::file(OWN, path, error))?;
        let pages = resident(&text).ok_or_else(|| Unavailable::new(OWN, format!("{path}: not what was expected")))?;
        Ok(pages * rustix::param::page_size() as u64)
    }
}

/// The second number: pages that are resident.
#[cfg(target_os = "linux")]
fn resident(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct Gauge {
    system: System,
    process: sysinfo::Pid,
}

#[cfg(not(target_os = "linux"))]
impl Gauge {
    fn new() -> Result<Self, Unavailable> {
        let process = sysinfo::get_current_pid().map_err(|why| Unavailable::new(OWN, why))?;
        Ok(Gauge { system: new_system(OWN)?, process })
    }

    fn read(&mut self) -> Result<u64, Unavailable> {
        let what = sysinfo::ProcessRefreshKind::nothing().with_memory();
        self.system.refresh_processes_specifics(sysinfo::ProcessesToUpdate::Some(&[self.process]), false, what);
        let used = self.system.process(self.process).map(sysinfo::Process::memory).filter(|used| *used > 0);
        used.ok_or_else(|| Unavailable::new(OWN, "the system does not tell"))
    }
}

fn new_system(source: &str) -> Result<System, Unavailable> {
    if sysinfo::IS_SUPPORTED_SYSTEM {
        Ok(System::new())
    } else {
        Err(Unavailable::new(source, "not known on this system"))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::resident;

    #[test]
    fn resident_pages_are_the_second_number() {
        assert_eq!(resident("1234 567 89 1 0 2 0\n"), Some(567));
        assert_eq!((resident("1234"), resident(""), resident("1 x")), (None, None, None));
    }
}
