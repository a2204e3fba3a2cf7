//! The command line, and the amounts of work that it selects.

use lexopt::{Arg, Parser, ValueExt};
use std::path::PathBuf;

/// The groups of workloads, in the order in which they run.
pub const GROUPS: [&str; 18] = [
    "reads",
    "hot",
    "writes",
    "mixes",
    "dropped",
    "scaling",
    "iteration",
    "teardown",
    "growth",
    "tails",
    "memory",
    "seed",
    "bounded",
    "conntrack",
    "cell",
    "counter",
    "list",
    "locks",
];

/// The parts to run.
pub struct Plan {
    pub groups: Vec<String>,
    pub sizes: Vec<usize>,
    pub rounds: Option<usize>,
    pub quick: bool,
    pub json: Option<PathBuf>,
    /// The JSON file of an earlier run, with which reads are compared.
    pub baseline: Option<PathBuf>,
    /// The number of cores of the machine.
    pub cores: usize,
}

impl Plan {
    /// Reads the command line of this process. Exits if it is invalid.
    pub fn read() -> Plan {
        Plan::parse(Parser::from_env()).unwrap_or_else(|error| {
            let groups = GROUPS.join(", ");
            eprintln!("{error}\nusage: compare [GROUP ...] [--size N ...] [--rounds N] [--quick] [--json FILE] [--baseline FILE]");
            eprintln!("groups: {groups}; all by default");
            std::process::exit(2);
        })
    }

    fn parse(mut parser: Parser) -> Result<Plan, lexopt::Error> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let mut plan =
            Plan { groups: vec![], sizes: vec![], rounds: None, quick: false, json: None, baseline: None, cores };
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("size") => plan.sizes.push(parser.value()?.parse::<u32>()?.max(64) as usize),
                Arg::Long("rounds") => plan.rounds = Some(parser.value()?.parse::<u16>()?.max(1).into()),
                Arg::Long("quick") => plan.quick = true,
                Arg::Long("json") => plan.json = Some(parser.value()?.into()),
                Arg::Value(group) if GROUPS.iter().any(|&known| group == known) => plan.groups.push(group.string()?),
                Arg::Long("baseline") => plan.baseline = Some(parser.value()?.into()),
                other => return Err(other.unexpected()),
            }
        }
        if plan.sizes.is_empty() {
            plan.sizes = if plan.quick { vec![1_000] } else { vec![1_000, 100_000, 1_000_000, 10_000_000] };
        }
        Ok(plan)
    }

    /// Returns whether the group is to be run.
    pub fn wants(&self, group: &str) -> bool {
        self.groups.is_empty() || self.groups.iter().any(|wanted| wanted == group)
    }

    /// Returns the number of rounds: that of the command line if given, else 2 in a quick run, else `rounds`.
    pub fn rounds(&self, rounds: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { rounds })
    }

    /// Returns `quick` in a quick run, else `amount`.
    pub fn amount(&self, amount: usize, quick: usize) -> usize {
        if self.quick { quick } else { amount }
    }

    /// Returns the numbers of threads to measure: 1, and the number of cores.
    pub fn threads(&self) -> Vec<usize> {
        if self.cores == 1 { vec![1] } else { vec![1, self.cores] }
    }
}
