//! The identity of a flow: its protocol and its two endpoints, in either order.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The protocols that are tracked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Proto {
    Tcp,
    /// UDP and UDP-Lite.
    Udp,
    /// ICMP and ICMPv6 queries and their answers. The ports of the endpoints are the query's identifier.
    IcmpQuery,
    /// Every other ICMP message: errors (which do not count for the flow that they quote), neighbour discovery.
    IcmpOther,
}

/// Which endpoint of its [`Tuple`] sent a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Direction {
    FromLow = 0,
    FromHigh = 1,
}

impl Direction {
    pub fn reversed(self) -> Self {
        match self {
            Direction::FromLow => Direction::FromHigh,
            Direction::FromHigh => Direction::FromLow,
        }
    }
}

/// Both directions of a flow: the endpoints are sorted, so that a packet and its answer have the same tuple.
///
/// The addresses come first, so that hashing a copy of the tuple reads whole words as they were written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuple {
    /// IPv4 addresses are in the last four bytes.
    addresses: [[u8; 16]; 2],
    ports: [u16; 2],
    proto: Proto,
    is_ipv6: bool,
}

impl Tuple {
    /// Returns the tuple of a packet, and the packet's direction in it. A packet from an endpoint to itself
    /// counts as [`Direction::FromLow`].
    pub fn new(proto: Proto, source: (IpAddr, u16), destination: (IpAddr, u16)) -> (Self, Direction) {
        let (from, to) = ((to_bytes(source.0), source.1), (to_bytes(destination.0), destination.1));
        let (low, high, direction) =
            if from <= to { (from, to, Direction::FromLow) } else { (to, from, Direction::FromHigh) };
        let is_ipv6 = source.0.is_ipv6();
        (Tuple { addresses: [low.0, high.0], ports: [low.1, high.1], proto, is_ipv6 }, direction)
    }

    pub fn proto(&self) -> Proto {
        self.proto
    }

    pub fn is_ipv6(&self) -> bool {
        self.is_ipv6
    }

    pub fn proto_name(&self) -> &'static str {
        match (self.proto, self.is_ipv6) {
            (Proto::Tcp, _) => "tcp",
            (Proto::Udp, _) => "udp",
            (Proto::IcmpQuery | Proto::IcmpOther, false) => "icmp",
            (Proto::IcmpQuery | Proto::IcmpOther, true) => "icmpv6",
        }
    }

    /// Returns the sender of packets in `direction`, as tshark prints it: `address:port`. The port of an ICMP
    /// query is its identifier. Other ICMP messages have no port.
    pub fn sender(&self, direction: Direction) -> String {
        let (address, port) = (self.to_address(self.addresses[direction as usize]), self.ports[direction as usize]);
        match self.proto {
            Proto::IcmpOther => address,
            _ => format!("{address}:{port}"),
        }
    }

    fn to_address(self, bytes: [u8; 16]) -> String {
        let v4 = Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]);
        match bytes {
            _ if !self.is_ipv6 => v4.to_string(),
            // IPv4-compatible addresses are printed as inet_ntop prints them. The standard library does not.
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low, ..] if (high, low) != (0, 0) => format!("::{v4}"),
            bytes => Ipv6Addr::from(bytes).to_string(),
        }
    }
}

impl Hash for Tuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [low, high] = self.addresses.map(u128::from_ne_bytes);
        let ports = u64::from(self.ports[0]) << 32 | u64::from(self.ports[1]) << 16;
        state.write_u128(low);
        state.write_u128(high);
        state.write_u64(ports | (self.proto as u64) << 1 | u64::from(self.is_ipv6));
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = (self.sender(Direction::FromLow), self.sender(Direction::FromHigh));
        write!(f, "{} {low} <-> {high}", self.proto_name())
    }
}

fn to_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8, port: u16) -> (IpAddr, u16) {
        (Ipv4Addr::new(10, 0, 0, last).into(), port)
    }

    #[test]
    fn a_packet_and_its_answer_are_one_flow() {
        let (there, out) = Tuple::new(Proto::Tcp, v4(1, 40000), v4(2, 80));
        let (back, home) = Tuple::new(Proto::Tcp, v4(2, 80), v4(1, 40000));
        assert_eq!(there, back);
        assert_eq!(out, home.reversed());
        assert_eq!(there.sender(out), "10.0.0.1:40000");
        assert_eq!(there.sender(home), "10.0.0.2:80");
    }

    #[test]
    fn protocol_family_and_ports_tell_flows_apart() {
        let tcp = Tuple::new(Proto::Tcp, v4(1, 1), v4(2, 2)).0;
        assert_ne!(tcp, Tuple::new(Proto::Udp, v4(1, 1), v4(2, 2)).0);
        assert_ne!(tcp, Tuple::new(Proto::Tcp, v4(1, 2), v4(2, 1)).0);
        let v6 =
            |last: u8, port| -> (IpAddr, u16) { (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0x0a00, last.into()).into(), port) };
        assert_ne!(tcp, Tuple::new(Proto::Tcp, v6(1, 1), v6(2, 2)).0);
    }

    #[test]
    fn endpoints_print_as_tshark_prints_them() {
        let v6 = |text: &str, port| -> (IpAddr, u16) { (text.parse().expect("an address"), port) };
        let (tuple, from) = Tuple::new(Proto::Udp, v6("2001:db8::1", 53), v6("2001:db8::2", 9));
        assert_eq!(tuple.sender(from), "2001:db8::1:53");
        let (tuple, from) = Tuple::new(Proto::Udp, v6("::1.2.3.4", 53), v6("::1", 9));
        assert_eq!((tuple.sender(from), tuple.sender(from.reversed())), ("::1.2.3.4:53".into(), "::1:9".into()));
        let (tuple, from) = Tuple::new(Proto::IcmpOther, v4(1, 0), v4(2, 0));
        assert_eq!(tuple.sender(from), "10.0.0.1");
    }
}
