//! The layers of a frame, and the numbers that announce them.
//!
//! A layer announces the next one by a number from one of six spaces: link types, Ethernet types, PPP protocols,
//! IP protocols, NSH protocols, address families. Each space has one table here, and all carriers that use a
//! space share its table. So what one carrier of a space can hold, every other one can hold too.

/// A layer that the parser can remove.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    // Link layers.
    /// BSD loopback. The address family is in the byte order of the capturing machine.
    Null,
    /// BSD loopback, with the address family in network byte order.
    Loop,
    /// Linux cooked capture, version 1 and 2.
    Cooked,
    Cooked2,
    Ethernet,
    /// PPP, with or without address and control bytes, or Cisco HDLC in its place.
    Ppp,
    CiscoHdlc,
    /// PPP's bridging protocol, which carries LAN frames.
    Bridging,
    /// A byte with the direction of the frame, then PPP.
    DirectedPpp,

    // Between link layer and IP.
    /// An 802.1Q tag: priority and VLAN, then an Ethernet type or a length.
    Vlan,
    /// This many bytes, then an Ethernet type or a length.
    Tag(u8),
    /// This many bytes, then an Ethernet frame.
    EthernetBehind(u8),
    /// 802.2, with its service access points or SNAP.
    Llc,
    /// MACsec. Its contents may be unencrypted.
    MacSec,
    PppoeSession,
    /// MPLS, with IP or a pseudowire of Ethernet below its labels.
    Mpls,
    /// Network service header.
    Nsh,
    Trill,

    // IP, and the headers between it and the transport.
    /// IP of the version in its first byte. What is announced as IPv4 is read like this too, as tshark does.
    Ip,
    Ipv6,
    /// A hop-by-hop or destination options header.
    Options,
    Routing,
    /// A header of the same form, which does not change the addresses.
    Extension,
    Fragment,
    Authentication,
    Gre,
    /// IGMP. Messages of PIM version 1 are IGMP messages.
    Igmp,
    Pim,

    // Layers that only GRE announces.
    /// IP, possibly behind a redirect header.
    Wccp,
    /// ERSPAN types II and III.
    Mirror,

    // Transport.
    Tcp,
    Udp,
    UdpLite,
    Icmp,
    Icmpv6,
}

impl Layer {
    /// Maps a link type of the tcpdump.org registry.
    pub fn of_link_type(number: u16) -> Option<Self> {
        Some(match number {
            0 => Layer::Null,
            1 => Layer::Ethernet,
            9 | 50 => Layer::Ppp,
            // Raw IP has four numbers.
            12 | 14 | 101 | 228 => Layer::Ip,
            51 => Layer::PppoeSession,
            104 => Layer::CiscoHdlc,
            108 => Layer::Loop,
            113 => Layer::Cooked,
            166 | 204 => Layer::DirectedPpp,
            219 => Layer::Mpls,
            229 => Layer::Ipv6,
            276 => Layer::Cooked2,
            _ => return None,
        })
    }

    /// Maps a type field of Ethernet. Tags, SNAP, Cisco HDLC, GRE, MACsec and cooked captures use it too.
    pub fn of_ether_type(number: u16) -> Option<Self> {
        Some(match number {
            0x0800 => Layer::Ip,
            0x86dd => Layer::Ipv6,
            // VLAN tags: customer, service, and three older numbers of stacked tags.
            0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 => Layer::Vlan,
            // 802.1BR E-tag, VN-tag
            0x893f => Layer::Tag(6),
            0x8926 => Layer::Tag(4),
            // Redundancy: HSR tag, 802.1CB R-tag.
            0x892f | 0xf1c1 => Layer::Tag(4),
            // Cisco MetaData
            0x8909 => Layer::Tag(6),
            // 802.1ah service instance tag
            0x88e7 => Layer::EthernetBehind(4),
            // Cisco FabricPath: its header is an Ethernet header itself.
            0x8903 => Layer::EthernetBehind(2),
            // transparent Ethernet bridging
            0x6558 => Layer::Ethernet,
            0x22f3 => Layer::Trill,
            0x88e5 => Layer::MacSec,
            0x894f => Layer::Nsh,
            0x8847 | 0x8848 => Layer::Mpls,
            0x8864 => Layer::PppoeSession,
            0x880b => Layer::Ppp,
            // 802.2 in frames that are too long for a length field.
            0x8870 => Layer::Llc,
            _ => return None,
        })
    }

    /// Maps a protocol field of PPP. The associated channels of MPLS use its numbers too.
    pub fn of_ppp_protocol(number: u16) -> Option<Self> {
        Some(match number {
            // The second number is the Ethernet type, which some senders write here.
            0x0021 | 0x0800 => Layer::Ip,
            0x0057 | 0x86dd => Layer::Ipv6,
            0x0031 => Layer::Bridging,
            0x0281 | 0x0283 => Layer::Mpls,
            _ => return None,
        })
    }

    /// Maps a protocol field of IPv4. IPv6 extension headers are followed in IPv4 too, as tshark does.
    pub fn of_ip_protocol(number: u8) -> Option<Self> {
        Some(match number {
            // hop-by-hop, destination
            0 | 60 => Layer::Options,
            1 => Layer::Icmp,
            2 => Layer::Igmp,
            4 => Layer::Ip,
            6 => Layer::Tcp,
            17 => Layer::Udp,
            41 => Layer::Ipv6,
            43 => Layer::Routing,
            44 => Layer::Fragment,
            47 => Layer::Gre,
            51 => Layer::Authentication,
            58 => Layer::Icmpv6,
            // EtherIP
            97 => Layer::EthernetBehind(2),
            103 => Layer::Pim,
            136 => Layer::UdpLite,
            137 => Layer::Mpls,
            // shim6
            140 => Layer::Extension,
            143 => Layer::Ethernet,
            145 => Layer::Nsh,
            _ => return None,
        })
    }

    /// Maps a next protocol field of NSH.
    pub fn of_nsh_protocol(number: u8) -> Option<Self> {
        Some(match number {
            1 => Layer::Ip,
            2 => Layer::Ipv6,
            3 => Layer::Ethernet,
            4 => Layer::Nsh,
            5 => Layer::Mpls,
            _ => return None,
        })
    }

    /// Maps an address family of BSD loopback captures, or an Ethernet type in its place.
    pub fn of_family(number: u32) -> Option<Self> {
        match number {
            2 => Some(Layer::Ip),
            // The number of IPv6 is 24 on NetBSD and OpenBSD, 28 on FreeBSD, and 30 on macOS.
            24 | 28 | 30 => Some(Layer::Ipv6),
            1501..=0xffff => Layer::of_ether_type(number as u16),
            _ => None,
        }
    }

    /// Maps a protocol field of GRE: Ethernet types, and numbers that only GRE uses.
    ///
    /// ERSPAN type I has neither a sequence number nor a header, so it is a plain Ethernet frame.
    pub fn of_gre_protocol(number: u16, has_sequence: bool) -> Option<Self> {
        match number {
            0x883e => Some(Layer::Wccp),
            0x88be if !has_sequence => Some(Layer::Ethernet),
            0x88be | 0x22eb => Some(Layer::Mirror),
            // MikroTik's EoIP
            0x6400 => Some(Layer::Ethernet),
            // CDMA2000
            0x8881 | 0x88d2 => Some(Layer::Ppp),
            number => Layer::of_ether_type(number),
        }
    }
}
