//! Connection tracking without packet parsing. A worker looks up the flow of each packet and counts the packet. It
//! inserts new flows, and removes flows that end. Each worker has its own flows, as behind a network card that
//! distributes flows, but all workers share one map. Keys and values have the same size as in the example
//! `conntrack`.

use super::Results;
use super::reads::seed;
use crate::cases::{Case, Drops, Idiom, Kind};
use crate::harness::{Lane, Sample, interleave_weighed};
use crate::peers::hasher;
use crate::plan::Plan;
use ahash::RandomState;
use benches::Xorshift;
use epoch_registry::{Domain, Registry};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

/// The number of live flows of a worker.
const ALIVE: usize = 2_000;
/// The average number of packets of a flow.
const PACKETS: u64 = 20;

/// The key of a flow: two addresses, two ports and the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Tuple {
    addresses: [[u8; 16]; 2],
    ports: [u16; 2],
    protocol: u8,
}

impl Tuple {
    /// Returns the key of the flow with this number.
    fn of(number: u64) -> Tuple {
        let address = |number: u64| (u128::from(number) | 0xfe80 << 112).to_be_bytes();
        let ports = [number as u16 | 1024, 443];
        Tuple { addresses: [address(number), address(number % 1_000)], ports, protocol: 6 }
    }
}

struct Packet {
    tuple: Tuple,
    direction: usize,
    length: u64,
    time: u64,
    /// Whether this is the last packet of its flow.
    last: bool,
}

/// The counters of a flow.
#[derive(Default)]
struct Flow {
    state: AtomicU8,
    last: AtomicU64,
    packets: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
}

impl Flow {
    // ORDERING: Relaxed on all fields, because only one worker uses a flow.
    #[inline]
    fn count(&self, packet: &Packet) {
        self.packets[packet.direction].fetch_add(1, Ordering::Relaxed);
        self.bytes[packet.direction].fetch_add(packet.length, Ordering::Relaxed);
        self.last.store(packet.time, Ordering::Relaxed);
        if self.state.load(Ordering::Relaxed) == 0 && packet.direction == 1 {
            self.state.store(1, Ordering::Relaxed);
        }
    }

    fn first(packet: &Packet) -> Flow {
        let flow = Flow::default();
        flow.count(packet);
        flow
    }

    fn bytes(&self) -> u64 {
        self.bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }
}

/// A table of flows.
trait Flows: Sync + Sized {
    const NAME: &'static str;
    const KIND: Kind;
    const DROPS: Drops;

    /// Returns a closure that counts a packet, if its flow is present, and returns whether it is. It uses the table's
    /// fastest read.
    fn counter(&self) -> impl FnMut(&Packet) -> bool;

    fn insert(&self, packet: &Packet);

    /// Removes a flow. Returns its bytes, or `None` if it is absent.
    fn remove(&self, tuple: &Tuple) -> Option<u64>;
}

impl Flows for Registry<Tuple, Flow, RandomState> {
    const NAME: &'static str = "ours";
    const KIND: Kind = Kind::Ours;
    const DROPS: Drops = Drops::Later;

    fn counter(&self) -> impl FnMut(&Packet) -> bool {
        let mut reader = self.reader();
        move |packet| reader.get(&packet.tuple).map(|flow| flow.count(packet)).is_some()
    }

    fn insert(&self, packet: &Packet) {
        assert!(self.add(packet.tuple, Flow::first(packet)).is_ok(), "a flow belongs to one worker");
    }

    fn remove(&self, tuple: &Tuple) -> Option<u64> {
        Registry::remove(self, tuple).map(|flow| flow.bytes())
    }
}

impl Flows for papaya::HashMap<Tuple, Arc<Flow>, RandomState> {
    const NAME: &'static str = "papaya of Arc<Flow>";
    const KIND: Kind = Kind::LockFree;
    const DROPS: Drops = Drops::Later;

    fn counter(&self) -> impl FnMut(&Packet) -> bool {
        |packet| self.pin().get(&packet.tuple).map(|flow| flow.count(packet)).is_some()
    }

    fn insert(&self, packet: &Packet) {
        self.pin().insert(packet.tuple, Arc::new(Flow::first(packet)));
    }

    fn remove(&self, tuple: &Tuple) -> Option<u64> {
        self.pin().remove(tuple).map(|flow| flow.bytes())
    }
}

impl Flows for dashmap::DashMap<Tuple, Arc<Flow>, RandomState> {
    const NAME: &'static str = "dashmap of Arc<Flow>";
    const KIND: Kind = Kind::Locking;
    const DROPS: Drops = Drops::AtOnce;

    fn counter(&self) -> impl FnMut(&Packet) -> bool {
        |packet| self.get(&packet.tuple).map(|flow| flow.count(packet)).is_some()
    }

    fn insert(&self, packet: &Packet) {
        dashmap::DashMap::insert(self, packet.tuple, Arc::new(Flow::first(packet)));
    }

    fn remove(&self, tuple: &Tuple) -> Option<u64> {
        dashmap::DashMap::remove(self, tuple).map(|(_, flow)| flow.bytes())
    }
}

fn lane<F: Flows>(flows: &F) -> Lane<'_, Vec<Packet>> {
    let idiom = if F::KIND == Kind::Ours { Idiom::Session } else { Idiom::Each };
    let turn = move |packets: &Vec<Packet>| {
        let (mut count, mut bytes) = (flows.counter(), 0);
        let begin = Instant::now();
        for packet in packets {
            if !count(packet) {
                flows.insert(packet);
            }
            if packet.last {
                bytes += flows.remove(&packet.tuple).expect("the flow is present");
            }
        }
        Sample::new(begin.elapsed(), packets.len(), bytes)
    };
    Lane { drops: Some(F::DROPS), ..Lane::new(F::NAME, idiom, F::KIND, turn) }
}

/// Returns the packets of one worker for one round. Each flow starts and ends in the round.
fn packets(count: usize, seed: u64) -> Vec<Packet> {
    let mut random = Xorshift::new(seed);
    let mut number = seed << 32;
    let mut flow = || {
        number += 1;
        number
    };
    let mut alive: Vec<u64> = (0..ALIVE).map(|_| flow()).collect();
    let mut packets: Vec<Packet> = (0..count as u64)
        .map(|time| {
            let place = random.below(ALIVE as u64) as usize;
            let (tuple, last) = (Tuple::of(alive[place]), random.below(PACKETS) == 0);
            if last {
                alive[place] = flow();
            }
            let direction = random.below(2) as usize;
            Packet { tuple, direction, length: 40 + random.below(1460), time, last }
        })
        .collect();
    let end = |&number| Packet { tuple: Tuple::of(number), direction: 0, length: 40, time: count as u64, last: true };
    packets.extend(alive.iter().map(end));
    packets
}

pub fn case(workers: usize) -> Case {
    let what = format!("{PACKETS} packets a flow");
    Case { group: "conntrack", work: "packets tracked", what, size: ALIVE * workers, threads: workers }
}

pub fn run(plan: &Plan, results: &mut Results) {
    let (workers, count) = (plan.cores, plan.amount(131_072, 2_048));
    let capacity = 2 * ALIVE * workers;
    let ours = Registry::builder().domain(Domain::new()).hasher(hasher()).capacity(capacity).build();
    let papaya = papaya::HashMap::with_capacity_and_hasher(capacity, hasher());
    let dashmap = dashmap::DashMap::with_capacity_and_hasher(capacity, hasher());
    let lanes = || vec![lane(&ours), lane(&papaya), lane(&dashmap)];
    let packets = |round, thread| packets(count, seed(round, thread));
    results.add(case(workers), "ns/packet", interleave_weighed(workers, plan.rounds(21), packets, lanes));
}
