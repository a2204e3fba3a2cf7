//! Transport headers. They complete the flow of a packet.

use etherparse::{TcpHeaderSlice, UdpHeaderSlice};

use super::path::Ends;
use super::{Ignored, Packet, Parsed};
use crate::tcp::TcpFlags;
use crate::tuple::{Proto, Tuple};

pub fn tcp(ends: Ends, data: &[u8]) -> Parsed {
    let header = TcpHeaderSlice::from_slice(data).map_err(|error| match error {
        etherparse::err::tcp::HeaderSliceError::Len(_) => Ignored::Truncated,
        etherparse::err::tcp::HeaderSliceError::Content(_) => Ignored::Malformed,
    })?;
    let flags = TcpFlags { syn: header.syn(), ack: header.ack(), fin: header.fin(), rst: header.rst() };
    Ok(packet(ends, Proto::Tcp, (header.source_port(), header.destination_port()), flags))
}

/// UDP, or UDP-Lite.
pub fn udp(is_lite: bool, ends: Ends, data: &[u8]) -> Parsed {
    let header = UdpHeaderSlice::from_slice(data).map_err(|_| Ignored::Truncated)?;
    // In UDP-Lite this field is not the length. In IPv6 a jumbogram has zero here.
    let is_sound = header.length() >= 8 || is_lite || (header.length() == 0 && ends.source.is_ipv6());
    if !is_sound {
        return Err(Ignored::Malformed);
    }
    Ok(packet(ends, Proto::Udp, (header.source_port(), header.destination_port()), TcpFlags::default()))
}

pub fn icmp(ends: Ends, data: &[u8]) -> Parsed {
    message(ends, data, |kind| matches!(kind, 0 | 8 | 13..=18))
}

pub fn icmpv6(ends: Ends, data: &[u8]) -> Parsed {
    message(ends, data, |kind| matches!(kind, 128 | 129))
}

fn message(ends: Ends, data: &[u8], is_query: impl Fn(u8) -> bool) -> Parsed {
    let &[kind, _code, _, _, id_high, id_low, _, _, ..] = data else { return Err(Ignored::Truncated) };
    Ok(if is_query(kind) {
        let id = u16::from_be_bytes([id_high, id_low]);
        packet(ends, Proto::IcmpQuery, (id, id), TcpFlags::default())
    } else {
        packet(ends, Proto::IcmpOther, (0, 0), TcpFlags::default())
    })
}

fn packet(ends: Ends, proto: Proto, ports: (u16, u16), flags: TcpFlags) -> Packet {
    let (tuple, direction) = Tuple::new(proto, (ends.source, ports.0), (ends.destination, ports.1));
    Packet { tuple, direction, flags }
}
