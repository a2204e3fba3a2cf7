//! A tracked flow: the value in the registry. It counts packets through a shared reference, and exports itself
//! when it is dropped.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::accounts::{Collector, Counts, Export};
use crate::packet::Packet;
use crate::tcp::TcpWord;
use crate::timeline::Moment;
use crate::timeouts::{SECOND, Timeouts};
use crate::tuple::{Proto, Tuple};

/// A UDP flow with packets both ways for longer than this is a stream, as in nf_conntrack.
const STREAM_AFTER: u64 = 2 * SECOND;

/// The tuple in one round of the replay.
///
/// Each round has its own addresses. A capture may hold any address, so no shift within 32 or 128 bits would
/// avoid collisions. Instead the addresses are made wider, by the number of the round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowKey {
    pub tuple: Tuple,
    pub round: u32,
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tuple.hash(state);
        state.write_u32(self.round);
    }
}

/// A flow. One worker handles all packets of a flow, in order. The reaper reads the fields at the same time.
pub struct Flow {
    tuple: Tuple,
    /// The sender of the first packet, as an index into the counters.
    opener: u8,
    /// When the first packet arrived, by the capture's clock.
    opened: u64,
    // ORDERING: Relaxed on all fields below. Each field stands alone and publishes nothing. The reaper may read
    // an old `seen`, but none older than the position that the worker has announced (see `Positions`). `Drop` has
    // exclusive access.
    tcp: AtomicU8,
    /// When the last packet arrived, by the capture's clock.
    seen: AtomicU64,
    /// The earliest and the latest timestamp, for the report.
    first: AtomicU64,
    last: AtomicU64,
    packets: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
    collector: Arc<Collector>,
}

impl Flow {
    /// Creates a flow from its first packet, which the caller still has to count.
    pub fn new(packet: &Packet, moment: Moment, collector: Arc<Collector>) -> Self {
        Flow {
            tuple: packet.tuple,
            opener: packet.direction as u8,
            opened: moment.clock,
            tcp: AtomicU8::new(TcpWord::first(packet.flags).bits()),
            seen: AtomicU64::new(moment.clock),
            first: AtomicU64::new(moment.stamp),
            last: AtomicU64::new(moment.stamp),
            packets: Default::default(),
            bytes: Default::default(),
            collector,
        }
    }

    /// Counts a packet, and updates the state of the connection.
    pub fn count(&self, packet: &Packet, length: u32, moment: Moment) {
        let side = packet.direction as usize;
        self.packets[side].fetch_add(1, Relaxed);
        self.bytes[side].fetch_add(u64::from(length), Relaxed);
        // Plain stores are enough below: one worker handles all packets of a flow.
        if moment.clock > self.seen.load(Relaxed) {
            self.seen.store(moment.clock, Relaxed);
        }
        if moment.stamp > self.last.load(Relaxed) {
            self.last.store(moment.stamp, Relaxed);
        } else if moment.stamp < self.first.load(Relaxed) {
            self.first.store(moment.stamp, Relaxed);
        }
        if self.tuple.proto() == Proto::Tcp {
            let before = self.tcp_word();
            let after = before.next(packet.direction as u8 == self.opener, packet.flags);
            if after != before {
                self.tcp.store(after.bits(), Relaxed);
            }
        }
    }

    /// Returns whether the packet belongs to this flow. If not, it begins a new flow with the same tuple: this
    /// one was closed, or has idled out by `time` and was not evicted yet.
    pub fn accepts(&self, packet: &Packet, time: u64, timeouts: &Timeouts) -> bool {
        let is_reopened = self.tuple.proto() == Proto::Tcp && self.tcp_word().is_reopened_by(packet.flags);
        !is_reopened && !self.is_idle(time, timeouts)
    }

    /// Returns whether the flow has outlived its timeout at `time`, by the capture's clock.
    pub fn is_idle(&self, time: u64, timeouts: &Timeouts) -> bool {
        let seen = self.seen.load(Relaxed);
        time.saturating_sub(seen) > self.timeout(seen, timeouts)
    }

    fn timeout(&self, seen: u64, timeouts: &Timeouts) -> u64 {
        match self.tuple.proto() {
            Proto::Tcp => timeouts.tcp(self.tcp_word().state()),
            Proto::Udp => timeouts.udp(self.is_replied() && self.is_stream(seen)),
            Proto::IcmpQuery | Proto::IcmpOther => timeouts.icmp(self.tuple.is_ipv6()),
        }
    }

    fn tcp_word(&self) -> TcpWord {
        TcpWord::from_bits(self.tcp.load(Relaxed))
    }

    fn is_replied(&self) -> bool {
        self.packets.iter().all(|count| count.load(Relaxed) > 0)
    }

    fn is_stream(&self, seen: u64) -> bool {
        seen - self.opened > STREAM_AFTER
    }

    fn state_name(&self, seen: u64) -> &'static str {
        match self.tuple.proto() {
            Proto::Tcp => self.tcp_word().state().name(),
            _ if !self.is_replied() => "UNREPLIED",
            Proto::Udp if self.is_stream(seen) => "STREAM",
            _ => "REPLIED",
        }
    }
}

impl Drop for Flow {
    /// Exports the flow. The registry drops it after the last handle is dropped and after every critical section
    /// that may have counted a packet. So the export is complete.
    fn drop(&mut self) {
        let counts = Counts {
            packets: self.packets.each_mut().map(|count| *count.get_mut()),
            bytes: self.bytes.each_mut().map(|count| *count.get_mut()),
        };
        let (seen, first, last) = (*self.seen.get_mut(), *self.first.get_mut(), *self.last.get_mut());
        let state = self.state_name(seen);
        self.collector.export(self.tuple, Export { counts, seen, first, last, state, flows: 1 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::TcpFlags;
    use crate::tuple::Direction;

    fn packet(proto: Proto, direction: Direction, flags: TcpFlags) -> Packet {
        let (tuple, _) = Tuple::new(proto, ([10, 0, 0, 1].into(), 9), ([10, 0, 0, 2].into(), 53));
        Packet { tuple, direction, flags }
    }

    /// A moment of a capture with correct timestamps.
    fn at(time: u64) -> Moment {
        Moment { clock: time, stamp: time }
    }

    fn flow(first: &Packet, time: u64) -> (Flow, Arc<Collector>) {
        let collector = Arc::new(Collector::new());
        let flow = Flow::new(first, at(time), Arc::clone(&collector));
        flow.count(first, 100, at(time));
        (flow, collector)
    }

    #[test]
    fn a_flow_is_exported_once_with_all_it_counted() {
        let there = packet(Proto::Udp, Direction::FromHigh, TcpFlags::default());
        let back = packet(Proto::Udp, Direction::FromLow, TcpFlags::default());
        let (flow, collector) = flow(&there, 1000);
        flow.count(&back, 50, at(900));
        flow.count(&there, 1, at(3 * SECOND));
        drop(flow);
        let export = collector.merged()[&there.tuple];
        assert_eq!(export.counts, Counts { packets: [1, 2], bytes: [50, 101] });
        assert_eq!((export.first, export.last, export.state, export.flows), (900, 3 * SECOND, "STREAM", 1));
    }

    #[test]
    fn a_udp_flow_lives_longer_once_it_is_a_stream() {
        let there = packet(Proto::Udp, Direction::FromLow, TcpFlags::default());
        let back = packet(Proto::Udp, Direction::FromHigh, TcpFlags::default());
        let timeouts = Timeouts::default();
        let (flow, _collector) = flow(&there, 0);
        assert!(flow.accepts(&there, 30 * SECOND, &timeouts));
        assert!(!flow.accepts(&there, 30 * SECOND + 1, &timeouts));
        flow.count(&back, 1, at(SECOND));
        assert!(flow.is_idle(31 * SECOND + 1, &timeouts), "a flow with only one answer is not a stream yet");
        flow.count(&back, 1, at(3 * SECOND));
        assert!(!flow.is_idle(123 * SECOND, &timeouts));
        assert!(flow.is_idle(123 * SECOND + 1, &timeouts));
    }

    #[test]
    fn a_syn_after_a_reset_begins_another_flow() {
        let syn = packet(Proto::Tcp, Direction::FromLow, TcpFlags { syn: true, ..Default::default() });
        let reset = packet(Proto::Tcp, Direction::FromHigh, TcpFlags { rst: true, ..Default::default() });
        let (flow, _collector) = flow(&syn, 0);
        assert!(flow.accepts(&syn, 1, &Timeouts::default()), "a repeated SYN belongs to the same flow");
        flow.count(&reset, 1, at(2));
        assert!(!flow.accepts(&syn, 3, &Timeouts::default()));
        assert!(flow.accepts(&reset, 3, &Timeouts::default()));
    }
}
