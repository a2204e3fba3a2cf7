//! The workloads, by group.

pub mod bounded;
pub mod cell;
pub mod conntrack;
pub mod counter;
pub mod dropped;
pub mod growth;
pub mod list;
pub mod locks;
pub mod memory;
pub mod mixes;
pub mod reads;
pub mod scaling;
pub mod seed;
pub mod tails;
pub mod whole;
pub mod writes;

use crate::cases::{Case, Measured, Series};

/// All results. Each case is printed when it is added.
#[derive(Default)]
pub struct Results(pub Vec<Measured>);

impl Results {
    pub fn add(&mut self, case: Case, unit: &'static str, series: Vec<Series>) {
        let measured = Measured { case, unit, series };
        println!("{measured}");
        self.0.push(measured);
    }
}
