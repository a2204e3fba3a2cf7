//! Levels that every system can report: the available memory, and the memory of the process.

use super::source::{Level, Marks, Reading, Source, Unavailable};
use sysinfo::System;

const AVAILABLE: &str = "available memory";
const OWN: &str = "own memory";

/// The memory of the machine that is available without swapping: the portable fallback.
///
/// It ignores any limit on the program's control group, and does not know which process uses the memory.
#[derive(Debug)]
pub struct Available {
    system: System,
    marks: Marks,
}

impl Available {
    /// Creates the source. By default shedding begins when less than 5% of the memory is available, and demands
    /// what is missing to 7%. [`marks`](Self::marks) changes this.
    ///
    /// # Errors
    ///
    /// Fails if the system does not report its available memory.
    pub fn new() -> Result<Self, Unavailable> {
        let mut available = Available { system: new_system(AVAILABLE)?, marks: Marks::new(0.95, 0.93) };
        available.level()?;
        Ok(available)
    }

    /// Sets where shedding begins and ends, as fractions of the machine's memory that are not available.
    pub fn marks(mut self, marks: Marks) -> Self {
        self.marks = marks;
        self
    }

    fn level(&mut self) -> Result<Level, Unavailable> {
        self.system.refresh_memory();
        let (total, available) = (self.system.total_memory(), self.system.available_memory());
        if total == 0 {
            return Err(Unavailable::new(AVAILABLE, "the system does not report its memory"));
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

/// The resident memory of the process, against a limit set by the program.
#[derive(Debug)]
pub struct Own {
    gauge: Gauge,
    limit: u64,
    marks: Marks,
}

impl Own {
    /// Creates a source with this limit, in bytes.
    ///
    /// # Errors
    ///
    /// Fails if the system does not report the memory of the process.
    pub fn new(limit: u64) -> Result<Self, Unavailable> {
        let mut own = Own { gauge: Gauge::new()?, limit, marks: Marks::default() };
        own.used()?;
        Ok(own)
    }

    /// Sets where shedding begins and ends, as fractions of the limit.
    pub fn marks(mut self, marks: Marks) -> Self {
        self.marks = marks;
        self
    }

    /// Returns the resident memory now, in bytes.
    ///
    /// # Errors
    ///
    /// Fails if the system does not report it.
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

/// Reads the resident memory of the process.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Gauge;

#[cfg(target_os = "linux")]
impl Gauge {
    fn new() -> Result<Self, Unavailable> {
        Ok(Gauge)
    }

    /// Reads `/proc/self/statm`, which takes a few microseconds. The portable way reads all that the system knows
    /// of the process, and takes a millisecond.
    fn read(&mut self) -> Result<u64, Unavailable> {
        let path = "/proc/self/statm";
        let text = std::fs::read_to_string(path).map_err(|error| Unavailable::file(OWN, path, error))?;
        let pages = resident(&text).ok_or_else(|| Unavailable::new(OWN, format!("{path}: unexpected format")))?;
        Ok(pages * rustix::param::page_size() as u64)
    }
}

/// Returns the second number: the resident pages.
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
        used.ok_or_else(|| Unavailable::new(OWN, "the system does not report the memory of the process"))
    }
}

fn new_system(source: &str) -> Result<System, Unavailable> {
    if sysinfo::IS_SUPPORTED_SYSTEM {
        Ok(System::new())
    } else {
        Err(Unavailable::new(source, "this system is not supported"))
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
