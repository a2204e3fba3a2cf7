//! From a frame to the flow it belongs to: IP, what may stand between IP and the transport, the transport.
//!
//! Which packets count, and for which flow, follows tshark's conversation tables:
//!
//! - a packet counts if its whole TCP (with options), UDP or ICMP header was captured and makes sense;
//! - a packet in a tunnel (IP in IP, GRE, MPLS, PPPoE) counts for the innermost flow, and only for that;
//! - the packet quoted by an ICMP error does not count;
//! - the frame that completes a fragmented datagram counts for it (see `fragments`).

use std::net::IpAddr;

use etherparse::{
    IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice,
    TcpHeaderSlice, UdpHeaderSlice,
};

use crate::fragments::{DatagramId, Fragments};
use crate::link::{self, Network, Payload};
use crate::tcp::TcpFlags;
use crate::tuple::{Direction, Proto, Tuple};

/// Tunnels in tunnels; more than this is an attack on the parser's stack.
const MAX_DEPTH: u32 = 16;

/// What the tracker needs to know of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    pub tuple: Tuple,
    pub direction: Direction,
    /// Empty for other protocols.
    pub flags: TcpFlags,
}

/// Why a frame belongs to no flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ignored {
    LinkType,
    NotIp,
    OtherProtocol,
    Fragment,
    Truncated,
    Malformed,
}

impl Ignored {
    pub const ALL: [Ignored; 6] = [
        Ignored::LinkType,
        Ignored::NotIp,
        Ignored::OtherProtocol,
        Ignored::Fragment,
        Ignored::Truncated,
        Ignored::Malformed,
    ];

    pub fn reason(self) -> &'static str {
        match self {
            Ignored::LinkType => "unknown link type",
            Ignored::NotIp => "not IP",
            Ignored::OtherProtocol => "not TCP, UDP or ICMP",
            Ignored::Fragment => "fragment that completes nothing",
            Ignored::Truncated => "header not captured",
            Ignored::Malformed => "malformed header",
        }
    }
}

#[derive(Default)]
pub struct Parser {
    fragments: Fragments,
}

/// Where in a packet the parser is.
#[derive(Clone, Copy)]
struct Place {
    source: IpAddr,
    destination: IpAddr,
    vlan: u16,
    /// Whether part of the IP payload was not captured.
    is_cut: bool,
    depth: u32,
}

type Parsed = Result<Packet, Ignored>;

impl Parser {
    /// The flow of a frame.
    ///
    /// # Errors
    ///
    /// Why it belongs to none.
    pub fn parse(&mut self, link: u16, frame: &[u8]) -> Parsed {
        self.network(link::peel(link, frame)?, 0)
    }

    fn network(&mut self, payload: Payload<'_>, depth: u32) -> Parsed {
        if depth > MAX_DEPTH {
            return Err(Ignored::Malformed);
        }
        let version = payload.data.first().ok_or(Ignored::Truncated)? >> 4;
        match (payload.network, version) {
            (Network::Ip, 4) => self.ipv4(payload.data, payload.vlan, depth),
            (Network::Ip | Network::Ipv6, 6) => self.ipv6(payload.data, payload.vlan, depth),
            _ => Err(Ignored::Malformed),
        }
    }

    fn ipv4(&mut self, data: &[u8], vlan: u16, depth: u32) -> Parsed {
        let header = Ipv4HeaderSlice::from_slice(data).map_err(|error| match error {
            etherparse::err::ipv4::HeaderSliceError::Len(_) => Ignored::Truncated,
            etherparse::err::ipv4::HeaderSliceError::Content(_) => Ignored::Malformed,
        })?;
        let body = &data[header.slice().len()..];
        let length = match usize::from(header.total_len()) {
            // Left for the network card to fill in, by an offloading sender.
            0 => body.len(),
            total => total.checked_sub(header.slice().len()).ok_or(Ignored::Malformed)?,
        };
        let destination = route_end_v4(header.options()).unwrap_or(header.destination());
        let place = Place {
            source: header.source().into(),
            destination: destination.into(),
            vlan,
            is_cut: body.len() < length,
            depth,
        };
        let body = &body[..length.min(body.len())];
        let protocol = header.protocol().0;
        if !header.is_fragmenting_payload() {
            return self.upper(place, protocol, body);
        }
        let offset = usize::from(header.fragments_offset().value()) * 8;
        if place.is_cut || body.is_empty() {
            // Cannot be put together, but a first fragment speaks for itself.
            return if offset == 0 { self.upper(place, protocol, body) } else { Err(Ignored::Fragment) };
        }
        let id = u32::from(header.identification());
        self.fragment(place, protocol, id, offset, !header.more_fragments(), body)
    }

    fn ipv6(&mut self, data: &[u8], vlan: u16, depth: u32) -> Parsed {
        let header = Ipv6HeaderSlice::from_slice(data).map_err(|_| Ignored::Truncated)?;
        let body = &data[header.slice().len()..];
        let length = match header.payload_length() {
            0 => jumbo_length(header.next_header().0, body).ok_or(Ignored::Malformed)?,
            length => usize::from(length),
        };
        let place = Place {
            source: header.source().into(),
            destination: header.destination().into(),
            vlan,
            is_cut: body.len() < length,
            depth,
        };
        self.upper(place, header.next_header().0, &body[..length.min(body.len())])
    }

    /// What an IP protocol number says that follows. IPv6's extension headers are taken in IPv4 too, as tshark
    /// does.
    fn upper(&mut self, mut place: Place, mut protocol: u8, mut data: &[u8]) -> Parsed {
        loop {
            match protocol {
                // hop-by-hop, routing, destination options, shim6
                0 | 43 | 60 | 140 => {
                    let header = Ipv6RawExtHeaderSlice::from_slice(data).map_err(|_| Ignored::Truncated)?;
                    if protocol == 43 {
                        place.destination = route_end_v6(header.slice()).map_or(place.destination, IpAddr::from);
                    }
                    (protocol, data) = (header.next_header().0, &data[header.slice().len()..]);
                }
                // authentication
                51 => {
                    let header = IpAuthHeaderSlice::from_slice(data).map_err(|_| Ignored::Truncated)?;
                    (protocol, data) = (header.next_header().0, &data[header.slice().len()..]);
                }
                // fragment
                44 => {
                    let header = Ipv6FragmentHeaderSlice::from_slice(data).map_err(|_| Ignored::Truncated)?;
                    (protocol, data) = (header.next_header().0, &data[header.slice().len()..]);
                    if header.is_fragmenting_payload() {
                        if place.is_cut || data.is_empty() {
                            return Err(Ignored::Fragment);
                        }
                        let offset = usize::from(header.fragment_offset().value()) * 8;
                        let is_last = !header.more_fragments();
                        return self.fragment(place, protocol, header.identification(), offset, is_last, data);
                    }
                }
                4 => return self.network(Payload { network: Network::Ip, data, vlan: place.vlan }, place.depth + 1),
                41 => return self.network(Payload { network: Network::Ipv6, data, vlan: place.vlan }, place.depth + 1),
                47 => return self.network(gre(data, place.vlan)?, place.depth + 1),
                137 => return self.network(link::mpls(data, place.vlan)?, place.depth + 1),
                6 => return tcp(place, data),
                17 | 136 => return udp(place, protocol, data),
                1 => return icmp(place, data, |kind| matches!(kind, 0 | 8 | 13..=18)),
                58 => return icmp(place, data, |kind| matches!(kind, 128 | 129)),
                _ => return Err(Ignored::OtherProtocol),
            }
        }
    }

    fn fragment(&mut self, place: Place, protocol: u8, id: u32, offset: usize, is_last: bool, data: &[u8]) -> Parsed {
        let Place { source, destination, .. } = place;
        // Fragments of different VLANs are different datagrams, but tshark goes by that in IPv4 only.
        let vlan = if source.is_ipv4() { place.vlan } else { 0 };
        let id = DatagramId { source, destination, id, protocol, vlan };
        let whole = self.fragments.add(id, offset, is_last, data).ok_or(Ignored::Fragment)?;
        // What is in a datagram can be a fragment itself, with a header that puts it together again.
        let place = Place { depth: place.depth + 1, ..place };
        if place.depth > MAX_DEPTH { Err(Ignored::Malformed) } else { self.upper(place, protocol, &whole) }
    }
}

fn tcp(place: Place, data: &[u8]) -> Parsed {
    let header = TcpHeaderSlice::from_slice(data).map_err(|error| match error {
        etherparse::err::tcp::HeaderSliceError::Len(_) => Ignored::Truncated,
        etherparse::err::tcp::HeaderSliceError::Content(_) => Ignored::Malformed,
    })?;
    let flags = TcpFlags { syn: header.syn(), ack: header.ack(), fin: header.fin(), rst: header.rst() };
    Ok(packet(place, Proto::Tcp, (header.source_port(), header.destination_port()), flags))
}

fn udp(place: Place, protocol: u8, data: &[u8]) -> Parsed {
    let header = UdpHeaderSlice::from_slice(data).map_err(|_| Ignored::Truncated)?;
    // In UDP-Lite the field is not the length; zero in IPv6 is a jumbogram's.
    let is_sound = header.length() >= 8 || protocol == 136 || (header.length() == 0 && place.source.is_ipv6());
    if !is_sound {
        return Err(Ignored::Malformed);
    }
    Ok(packet(place, Proto::Udp, (header.source_port(), header.destination_port()), TcpFlags::default()))
}

fn icmp(place: Place, data: &[u8], is_query: impl Fn(u8) -> bool) -> Parsed {
    let &[kind, _code, _, _, id_high, id_low, _, _, ..] = data else { return Err(Ignored::Truncated) };
    Ok(if is_query(kind) {
        let id = u16::from_be_bytes([id_high, id_low]);
        packet(place, Proto::IcmpQuery, (id, id), TcpFlags::default())
    } else {
        packet(place, Proto::IcmpOther, (0, 0), TcpFlags::default())
    })
}

fn packet(place: Place, proto: Proto, ports: (u16, u16), flags: TcpFlags) -> Packet {
    let (tuple, direction) = Tuple::new(proto, (place.source, ports.0), (place.destination, ports.1));
    Packet { tuple, direction, flags }
}

/// GRE's payload, which is known by its Ethernet type.
fn gre(data: &[u8], vlan: u16) -> Result<Payload<'_>, Ignored> {
    let &[flags, version, high, low, ..] = data else { return Err(Ignored::Truncated) };
    let kind = u16::from_be_bytes([high, low]);
    // Checksum, key, sequence number, and in version 1 an acknowledgement: four bytes each.
    let fields = (flags & 0x80 != 0) as usize
        + (flags & 0x20 != 0) as usize
        + (flags & 0x10 != 0) as usize
        + (version & 0x87 == 0x81) as usize;
    let rest = data.get(4 + 4 * fields..).ok_or(Ignored::Truncated)?;
    match (kind, rest) {
        // PPTP's PPP, mostly with address and control bytes
        (0x880b, [0xff, 0x03, rest @ ..] | rest) => link::ppp(rest, vlan),
        // ERSPAN's first type has no header of its own, the second has eight bytes and a sequence number.
        (0x88be, rest) if flags & 0x10 == 0 => link::ethernet(rest),
        (0x88be, rest) => link::ethernet(rest.get(8..).ok_or(Ignored::Truncated)?),
        (0x0800 | 0x86dd | 0x6558 | 0x8847, rest) => link::ether_type(kind, rest, vlan),
        _ => Err(Ignored::OtherProtocol),
    }
}

/// Where a source-routed packet is going in the end, if it is not there yet: that is the flow's endpoint.
fn route_end_v4(mut options: &[u8]) -> Option<[u8; 4]> {
    loop {
        match options {
            [1, rest @ ..] => options = rest,
            // loose and strict: length, the next hop's place, the hops
            [0x83 | 0x89, length, next, ..] if (4..=*length).contains(next) => {
                let hops = options.get(3..usize::from(*length))?;
                return hops.chunks_exact(4).next_back().and_then(|end| end.try_into().ok());
            }
            [0, ..] | [] | [_] => return None,
            [_, length, ..] => options = options.get(usize::from(*length).max(2)..)?,
        }
    }
}

/// The same for an IPv6 routing header; segment routing lists its segments last one first.
fn route_end_v6(header: &[u8]) -> Option<[u8; 16]> {
    let &[_, _, kind, segments_left, ..] = header else { return None };
    let mut hops = header.get(8..)?.chunks_exact(16);
    let end = match kind {
        _ if segments_left == 0 => None,
        0 | 2 | 3 => hops.next_back(),
        4 => hops.next(),
        _ => None,
    };
    end.and_then(|end| end.try_into().ok())
}

/// The length of an IPv6 packet longer than 64 KiB, from its hop-by-hop option.
fn jumbo_length(next_header: u8, body: &[u8]) -> Option<usize> {
    let &[_, _, 0xc2, 4, a, b, c, d, ..] = body else { return None };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    (next_header == 0 && length > usize::from(u16::MAX)).then_some(length)
}
