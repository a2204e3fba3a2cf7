//! Packets and bytes per tuple: as the flows export them, and, counted separately, as the capture holds them.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};

use epoch_registry::RandomState;

use crate::tuple::{Direction, Tuple};

/// Packets and bytes in each [`Direction`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
}

impl Counts {
    pub fn count(&mut self, direction: Direction, length: u32) {
        self.packets[direction as usize] += 1;
        self.bytes[direction as usize] += u64::from(length);
    }

    fn add(&mut self, other: &Counts) {
        for side in 0..2 {
            self.packets[side] += other.packets[side];
            self.bytes[side] += other.bytes[side];
        }
    }

    fn times(&self, factor: u64) -> Self {
        Counts { packets: self.packets.map(|count| count * factor), bytes: self.bytes.map(|count| count * factor) }
    }

    pub fn total_packets(&self) -> u64 {
        self.packets.iter().sum()
    }

    pub fn total_bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

/// The export of a flow, or of all flows of one tuple together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Export {
    pub counts: Counts,
    /// When the last packet arrived, by the capture's clock.
    pub seen: u64,
    /// The earliest and the latest timestamp: nanoseconds since 1970.
    pub first: u64,
    pub last: u64,
    /// The state of the flow that was active last.
    pub state: &'static str,
    pub flows: u64,
}

impl Export {
    fn merge(&mut self, other: &Export) {
        self.counts.add(&other.counts);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        if other.seen >= self.seen {
            (self.seen, self.state) = (other.seen, other.state);
        }
        self.flows += other.flows;
    }
}

const STRIPES: usize = 32;

/// Merges the exports of flows by tuple. Its size depends on the number of tuples, not of flows.
///
/// Flows are exported from `Drop`, which never runs on a thread that reads, so a lock is good enough. The lock is
/// striped, so that threads that drop flows seldom wait for each other.
pub struct Collector {
    stripes: [Mutex<HashMap<Tuple, Export, RandomState>>; STRIPES],
    hasher: RandomState,
}

impl Collector {
    pub fn new() -> Self {
        Collector { stripes: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }

    pub fn export(&self, tuple: Tuple, export: Export) {
        let stripe = &self.stripes[self.hasher.hash_one(tuple) as usize % STRIPES];
        let mut merged = stripe.lock().unwrap_or_else(PoisonError::into_inner);
        merged.entry(tuple).and_modify(|sum| sum.merge(&export)).or_insert(export);
    }

    pub fn merged(&self) -> HashMap<Tuple, Export, RandomState> {
        let mut merged = HashMap::default();
        for stripe in &self.stripes {
            merged.extend(
                stripe.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(tuple, export)| (*tuple, *export)),
            );
        }
        merged
    }
}

/// One tuple of the capture, counted by the thread that reads the capture.
pub struct Account {
    pub tuple: Tuple,
    /// The direction of its first packet. The sender of that packet is endpoint `a`.
    pub first: Direction,
    pub counts: Counts,
}

/// The independent count, in the order of first packets.
#[derive(Default)]
pub struct Ledger {
    index: HashMap<Tuple, usize, RandomState>,
    pub accounts: Vec<Account>,
}

impl Ledger {
    /// Counts a packet. Returns the number of its account; accounts are numbered from zero in the order of first
    /// packets.
    pub fn count(&mut self, tuple: Tuple, direction: Direction, length: u32) -> usize {
        let next = self.accounts.len();
        let at = *self.index.entry(tuple).or_insert(next);
        if at == next {
            self.accounts.push(Account { tuple, first: direction, counts: Counts::default() });
        }
        self.accounts[at].counts.count(direction, length);
        at
    }

    /// Compares the exports with the capture, which was replayed `rounds` times. Returns the differences.
    pub fn differences(&self, merged: &HashMap<Tuple, Export, RandomState>, rounds: u64) -> Vec<String> {
        let wrong = self.accounts.iter().filter_map(|account| {
            let expected = account.counts.times(rounds);
            let exported = merged.get(&account.tuple).map(|export| export.counts).unwrap_or_default();
            (exported != expected).then(|| format!("{}: exported {exported:?}, captured {expected:?}", account.tuple))
        });
        let unknown = merged.keys().filter(|tuple| !self.index.contains_key(tuple));
        wrong.chain(unknown.map(|tuple| format!("{tuple}: exported, but not in the capture"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuple::Proto;

    fn tuple(port: u16) -> Tuple {
        Tuple::new(Proto::Udp, ([10, 0, 0, 1].into(), port), ([10, 0, 0, 2].into(), 53)).0
    }

    fn export(packets: [u64; 2], last: u64, state: &'static str) -> Export {
        Export {
            counts: Counts { packets, bytes: packets.map(|count| count * 100) },
            seen: last,
            first: last - 1,
            last,
            state,
            flows: 1,
        }
    }

    #[test]
    fn exports_of_a_tuple_add_up_and_the_last_one_gives_the_state() {
        let collector = Collector::new();
        collector.export(tuple(1), export([1, 0], 50, "LATE"));
        collector.export(tuple(1), export([2, 3], 9, "EARLY"));
        let sum = collector.merged()[&tuple(1)];
        assert_eq!(sum.counts, Counts { packets: [3, 3], bytes: [300, 300] });
        assert_eq!((sum.first, sum.last, sum.state, sum.flows), (8, 50, "LATE", 2));
    }

    #[test]
    fn a_packet_lost_or_counted_twice_is_found() {
        let mut ledger = Ledger::default();
        ledger.count(tuple(1), Direction::FromLow, 100);
        ledger.count(tuple(1), Direction::FromHigh, 100);
        let differences = |packets| {
            let collector = Collector::new();
            collector.export(tuple(1), export(packets, 9, ""));
            ledger.differences(&collector.merged(), 2).len()
        };
        assert_eq!(differences([2, 2]), 0);
        assert_eq!(differences([2, 1]), 1);
        assert_eq!(differences([3, 2]), 1);
        assert_eq!(differences([1, 3]), 1, "the directions are counted apart");
        assert_eq!(ledger.differences(&HashMap::default(), 2).len(), 1, "a tuple without an export");
        let stranger = Collector::new();
        stranger.export(tuple(1), export([2, 2], 9, ""));
        stranger.export(tuple(7), export([1, 0], 9, ""));
        assert_eq!(ledger.differences(&stranger.merged(), 2).len(), 1, "an export without a packet");
    }
}
