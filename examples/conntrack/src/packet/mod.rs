//! From a frame to its flow.
//!
//! A frame is a stack of layers. The parser removes them one after another, in one loop. Each layer announces the
//! next one by a number, and a table in `layer` maps the number to a layer. So every layer is followed inside
//! every other layer that can carry it.
//!
//! - `layer`: the layers, and the tables of numbers
//! - `link`, `tunnel`, `ip`, `options`, `transport`: remove a layer
//! - `path`: what the parser remembers of the layers removed
//! - `fragments`: reassembles datagrams
//!
//! Which packets count, and for which flow, follows tshark's conversation tables:
//!
//! - A packet counts if its whole TCP (with options), UDP or ICMP header was captured and is valid.
//! - A packet in a tunnel (IP in IP, GRE, MPLS, PPPoE and the others of `layer`) counts for the innermost flow only.
//! - The contents of UDP and TCP are not parsed.
//! - The packet quoted by an ICMP error does not count.
//! - The frame that completes a fragmented datagram counts for it (see `fragments`).

mod fragments;
mod ip;
pub mod layer;
mod link;
mod options;
mod path;
mod transport;
mod tunnel;

use self::fragments::{DatagramId, Fragments};
use self::ip::{Behind, Piece};
use self::layer::Layer;
use self::path::{Ends, Path};
use crate::capture::Frame;
use crate::tcp::TcpFlags;
use crate::tuple::{Direction, Tuple};

/// What the tracker needs to know about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    pub tuple: Tuple,
    pub direction: Direction,
    /// The flags of a TCP packet. Empty for other protocols.
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

type Parsed = Result<Packet, Ignored>;

/// The result of removing a layer: the next layer, and its bytes.
type Taken<'a> = Result<(Layer, &'a [u8]), Ignored>;

#[derive(Default)]
pub struct Parser {
    fragments: Fragments,
}

impl Parser {
    /// Returns the packet in a frame, with its flow.
    ///
    /// # Errors
    ///
    /// Returns the reason if the frame belongs to no flow.
    pub fn parse_frame(&mut self, frame: &Frame<'_>) -> Parsed {
        let missing = (frame.length as usize).saturating_sub(frame.data.len());
        let layer = Layer::of_link_type(frame.link).ok_or(Ignored::LinkType)?;
        self.dissect(layer, frame.data, Path::new(missing))
    }

    /// Parses a frame that was captured completely.
    #[cfg(test)]
    pub fn parse(&mut self, link: u16, data: &[u8]) -> Parsed {
        self.parse_frame(&Frame { time: 0, is_time_repaired: false, length: data.len() as u32, link, data })
    }

    /// Removes layers up to the transport header.
    fn dissect(&mut self, mut layer: Layer, mut data: &[u8], mut path: Path) -> Parsed {
        loop {
            path.descend()?;
            let taken = match layer {
                Layer::Null => link::loopback(false, data, &path),
                Layer::Loop => link::loopback(true, data, &path),
                Layer::Cooked => link::cooked(data, &path),
                Layer::Cooked2 => link::cooked2(data, &path),
                Layer::Ethernet => link::ethernet(data, &mut path),
                Layer::EthernetBehind(head) => split(data, head.into()).map(|(_, rest)| (Layer::Ethernet, rest)),
                Layer::Ppp => link::ppp(data, &path),
                Layer::Bridging => link::bridging(data, &path),
                Layer::DirectedPpp => split(data, 1).map(|(_, rest)| (Layer::Ppp, rest)),
                Layer::CiscoHdlc => link::cisco_hdlc(data, &path),
                Layer::Vlan => link::vlan(data, &mut path),
                Layer::Tag(length) => link::tag(length.into(), data, &path),
                Layer::Llc => link::llc(data, &path),
                Layer::MacSec => link::macsec(data, &path),
                Layer::PppoeSession => link::pppoe(data),
                Layer::Mpls => link::mpls(data, &path),
                Layer::Trill => link::trill(data),
                Layer::Nsh => tunnel::nsh(data, &path),
                Layer::Gre => tunnel::gre(data, &path),
                Layer::Wccp => tunnel::wccp(data),
                Layer::Mirror => tunnel::mirror(data, &path),
                Layer::Igmp => tunnel::igmp(data, &path),
                Layer::Pim => tunnel::pim(data, &path),
                Layer::Options | Layer::Routing | Layer::Extension => ip::extension(layer, data, &mut path),
                Layer::Authentication => ip::authentication(data),
                Layer::Ip | Layer::Ipv6 | Layer::Fragment => match ip::take_off(layer, data, &mut path)? {
                    Behind::Layer(layer, data) => Ok((layer, data)),
                    Behind::Piece(piece) => return self.piece(&piece, path),
                },
                Layer::Tcp => return transport::tcp(path.ends()?, data),
                Layer::Udp => return transport::udp(false, path.ends()?, data),
                Layer::UdpLite => return transport::udp(true, path.ends()?, data),
                Layer::Icmp => return transport::icmp(path.ends()?, data),
                Layer::Icmpv6 => return transport::icmpv6(path.ends()?, data),
            };
            (layer, data) = taken?;
        }
    }

    /// Returns the packet of a datagram, if this fragment completes it.
    fn piece(&mut self, piece: &Piece<'_>, path: Path) -> Parsed {
        let Ends { source, destination } = path.ends()?;
        // Fragments in different VLANs belong to different datagrams. tshark considers this for IPv4 only.
        let vlan = if source.is_ipv4() { path.vlan } else { 0 };
        let id = DatagramId { source, destination, id: piece.id, protocol: piece.protocol, vlan };
        let whole = self.fragments.add(id, piece.offset, piece.is_last, piece.data).ok_or(Ignored::Fragment)?;
        // A datagram can contain a fragment again. `path` goes on counting layers, which bounds the depth.
        let (layer, data) = ip::protocol_layer(piece.protocol, &whole)?;
        self.dissect(layer, data, path)
    }
}

fn split(data: &[u8], at: usize) -> Result<(&[u8], &[u8]), Ignored> {
    data.split_at_checked(at).ok_or(Ignored::Truncated)
}

fn read_u16(data: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([data[at], data[at + 1]])
}
