//! Every carrier holds every payload: frames composed of all layers that announce each other by number.

use std::collections::HashSet;

use super::frames::*;
use super::packets::flow;
use crate::packet::layer::Layer;

/// What a carrier holds: a layer that is announced by a number of this space, or a fixed kind without a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Space {
    Link,
    EtherType,
    /// An Ethernet type, or the length of an 802.2 frame: both share the field.
    TypeOrLength,
    Ppp,
    Ip,
    Nsh,
    Gre,
    /// GRE with a sequence number.
    GreSequence,
    /// An IP packet, announced without a number.
    Packet,
    /// An Ethernet frame, announced without a number.
    Frame,
}
use Space::*;

struct Carrier {
    name: &'static str,
    /// The numbers that announce this carrier.
    numbers: &'static [(Space, u16)],
    holds: Space,
    /// Returns the carrier's bytes around a payload that is announced by this number.
    wrap: fn(u16, &[u8]) -> Vec<u8>,
}

const IP4: &[(Space, u16)] =
    &[(Link, 101), (Link, 12), (EtherType, 0x0800), (Ppp, 0x21), (Ip, 4), (Nsh, 1), (Packet, 0)];
const IP6: &[(Space, u16)] = &[(Link, 229), (EtherType, 0x86dd), (Ppp, 0x57), (Ip, 41), (Nsh, 2), (Packet, 0)];
const MACSEC: &[(Space, u16)] = &[(EtherType, 0x88e5)];
const ETHERNET: &[(Space, u16)] =
    &[(Link, 1), (EtherType, 0x6558), (Gre, 0x6400), (Gre, 0x88be), (Ip, 143), (Nsh, 3), (Frame, 0)];
const PPP: &[(Space, u16)] = &[(Link, 9), (Link, 50), (EtherType, 0x880b), (Gre, 0x8881), (Gre, 0x88d2)];
const MPLS: &[(Space, u16)] =
    &[(Link, 219), (EtherType, 0x8847), (EtherType, 0x8848), (Ppp, 0x0281), (Ppp, 0x0283), (Ip, 137), (Nsh, 5)];
const NSH: &[(Space, u16)] = &[(EtherType, 0x894f), (Nsh, 4), (Ip, 145)];

const CARRIERS: &[Carrier] = &[
    carrier("Ethernet", ETHERNET, TypeOrLength, ethernet),
    carrier("null", &[(Link, 0)], EtherType, |kind, body| cat(&[&u32::from(kind).to_le_bytes(), body])),
    carrier("loop", &[(Link, 108)], EtherType, |kind, body| cat(&[&u32::from(kind).to_be_bytes(), body])),
    carrier("cooked", &[(Link, 113)], EtherType, |kind, body| tagged(&[0; 14], kind, body)),
    carrier("cooked 2", &[(Link, 276)], EtherType, |kind, body| cat(&[&kind.to_be_bytes(), &[0; 18], body])),
    carrier("cooked GRE", &[(Link, 113)], Gre, |kind, body| {
        tagged(&[0, 0, 3, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], kind, body)
    }),
    carrier("VLAN", &[(EtherType, 0x8100)], TypeOrLength, |kind, body| tagged(&[0, 7], kind, body)),
    carrier("service VLAN", &[(EtherType, 0x88a8)], TypeOrLength, |kind, body| tagged(&[0, 7], kind, body)),
    carrier(
        "old VLAN",
        &[(EtherType, 0x9100), (EtherType, 0x9200), (EtherType, 0x9300)],
        TypeOrLength,
        |kind, body| tagged(&[0, 7], kind, body),
    ),
    carrier("E-tag", &[(EtherType, 0x893f)], TypeOrLength, |kind, body| tagged(&[0, 1, 0, 2, 0, 0], kind, body)),
    carrier("VN-tag", &[(EtherType, 0x8926)], TypeOrLength, |kind, body| tagged(&[0, 1, 0, 2], kind, body)),
    carrier("HSR, R-tag", &[(EtherType, 0x892f), (EtherType, 0xf1c1)], TypeOrLength, |kind, body| {
        tagged(&[0, 60, 0, 2], kind, body)
    }),
    carrier("MetaData", &[(EtherType, 0x8909)], TypeOrLength, |kind, body| tagged(&[1, 1, 0, 1, 0, 2], kind, body)),
    carrier("802.1ah", &[(EtherType, 0x88e7)], TypeOrLength, |kind, body| cat(&[&[0, 0, 0, 5], &ethernet(kind, body)])),
    carrier("FabricPath", &[(EtherType, 0x8903)], Frame, |_, body| cat(&[&[0, 1], body])),
    carrier("TRILL", &[(EtherType, 0x22f3)], Frame, |_, body| cat(&[&[0, 0x41, 0, 1, 0, 2, 0, 0, 0, 0], body])),
    carrier("MACsec", MACSEC, TypeOrLength, |kind, body| macsec(0x03, &[], kind, body)),
    carrier("MACsec with SCI", MACSEC, TypeOrLength, |kind, body| macsec(0x20, &[1; 8], kind, body)),
    carrier("SNAP", &[(TypeOrLength, 0), (EtherType, 0x8870)], EtherType, |kind, body| {
        tagged(&[0xaa, 0xaa, 3, 0, 0, 0], kind, body)
    }),
    carrier("SNAP for bridges", &[(TypeOrLength, 0)], EtherType, |kind, body| {
        tagged(&[0xaa, 0xaa, 3, 0, 0, 0xf8], kind, body)
    }),
    carrier("SNAP with a frame", &[(TypeOrLength, 0)], Frame, |_, body| {
        cat(&[&[0xaa, 0xaa, 3, 0, 0x80, 0xc2, 0, 7], body])
    }),
    carrier("802.2 with IP", &[(TypeOrLength, 0), (EtherType, 0x8870)], Packet, |_, body| cat(&[&[6, 6, 3], body])),
    carrier("Cisco HDLC", &[(Link, 104)], EtherType, |kind, body| tagged(&[0x0f, 0], kind, body)),
    carrier("PPP", PPP, Ppp, |protocol, body| tagged(&[0xff, 3], protocol, body)),
    carrier("PPP, compressed", PPP, Ppp, |protocol, body| {
        if protocol < 256 { cat(&[&[protocol as u8], body]) } else { tagged(&[], protocol, body) }
    }),
    carrier("PPP, without address", PPP, Ppp, |protocol, body| tagged(&[], protocol, body)),
    carrier("PPP, in fact Cisco HDLC", PPP, EtherType, |kind, body| tagged(&[0x8f, 0], kind, body)),
    carrier("PPP with direction", &[(Link, 166), (Link, 204)], Ppp, |protocol, body| {
        tagged(&[1, 0xff, 3], protocol, body)
    }),
    carrier("PPP bridging", &[(Ppp, 0x0031)], Frame, |_, body| cat(&[&[0, 1], body])),
    carrier("PPP bridging with LAN", &[(Ppp, 0x0031)], Frame, |_, body| cat(&[&[0x40, 1, 0, 0, 0, 9], body])),
    carrier("PPPoE", &[(Link, 51), (EtherType, 0x8864)], Ppp, |protocol, body| {
        let length = 2 + body.len() as u16;
        tagged(&cat(&[&[0x11, 0, 0, 5], &length.to_be_bytes()]), protocol, body)
    }),
    carrier("MPLS", MPLS, Packet, |_, body| cat(&[&[0, 6, 0x40, 255, 0, 6, 0x41, 255], body])),
    carrier("MPLS pseudowire", MPLS, Frame, |_, body| cat(&[&[0, 6, 0x41, 255], body])),
    carrier("MPLS pseudowire with control word", MPLS, Frame, |_, body| cat(&[&[0, 6, 0x41, 255, 0, 0, 0, 0], body])),
    carrier("MPLS channel", MPLS, Ppp, |protocol, body| tagged(&[0, 6, 0x41, 255, 0x10, 0], protocol, body)),
    carrier("NSH", NSH, Nsh, |protocol, body| cat(&[&[0x0f, 0xc6, 1, protocol as u8, 0, 0, 1, 255], &[0; 16], body])),
    carrier("NSH without metadata", NSH, Nsh, |protocol, body| {
        cat(&[&[0x0f, 0xc2, 2, protocol as u8, 0, 0, 1, 255], body])
    }),
    carrier("IPv4", IP4, Ip, |protocol, body| ipv4([1; 4], [2; 4], protocol as u8, body)),
    carrier("IPv6", IP6, Ip, |protocol, body| ipv6(v6(11), v6(12), protocol as u8, body)),
    carrier("options", &[(Ip, 0), (Ip, 60), (Ip, 140)], Ip, |protocol, body| {
        cat(&[&[protocol as u8, 0, 1, 4, 0, 0, 0, 0], body])
    }),
    carrier("routing", &[(Ip, 43)], Ip, |protocol, body| {
        cat(&[&[protocol as u8, 2, 2, 0, 0, 0, 0, 0], &[9; 16], body])
    }),
    carrier("fragment", &[(Ip, 44)], Ip, |protocol, body| cat(&[&[protocol as u8, 0, 0, 0, 0, 0, 0, 7], body])),
    carrier("authentication", &[(Ip, 51)], Ip, |protocol, body| cat(&[&[protocol as u8, 4], &[0; 22], body])),
    carrier("GRE", &[(Ip, 47)], Gre, |kind, body| gre(0, 0, kind, body)),
    carrier("GRE with acknowledgement", &[(Ip, 47)], Gre, |kind, body| gre(0x2081, 8, kind, body)),
    carrier("GRE with key and sequence", &[(Ip, 47)], GreSequence, |kind, body| gre(0xb000, 12, kind, body)),
    carrier("GRE with routing", &[(Ip, 47)], Gre, |kind, body| {
        gre(0x4000, 4, kind, &cat(&[&[8, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 0], body]))
    }),
    carrier("WCCP", &[(Gre, 0x883e), (GreSequence, 0x883e)], Packet, |_, body| body.to_vec()),
    carrier("WCCP 2", &[(Gre, 0x883e), (GreSequence, 0x883e)], Packet, |_, body| cat(&[&[0, 0, 1, 1], body])),
    carrier("ERSPAN II", &[(GreSequence, 0x88be)], Frame, |_, body| cat(&[&[0x10, 1, 0, 1, 0, 0, 0, 0], body])),
    carrier("ERSPAN III", &[(GreSequence, 0x22eb), (Gre, 0x22eb)], Frame, |_, body| {
        cat(&[&[0x20, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], body])
    }),
    carrier("ERSPAN III with subheader", &[(GreSequence, 0x22eb)], Frame, |_, body| {
        cat(&[&[0x20, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1], &[0; 8], body])
    }),
    carrier("EtherIP", &[(Ip, 97)], Frame, |_, body| cat(&[&[0x30, 0], body])),
    carrier("PIM register", &[(Ip, 103)], Packet, |_, body| cat(&[&[0x21, 0, 0, 0, 0, 0, 0, 0], body])),
    carrier("PIM 1 register", &[(Ip, 2)], Packet, |_, body| cat(&[&[0x14, 1, 0, 0, 0x10, 0, 0, 0], body])),
];

const fn carrier(
    name: &'static str,
    numbers: &'static [(Space, u16)],
    holds: Space,
    wrap: fn(u16, &[u8]) -> Vec<u8>,
) -> Carrier {
    Carrier { name, numbers, holds, wrap }
}

fn tagged(head: &[u8], kind: u16, body: &[u8]) -> Vec<u8> {
    cat(&[head, &kind.to_be_bytes(), body])
}

fn gre(flags: u16, fields: usize, kind: u16, body: &[u8]) -> Vec<u8> {
    cat(&[&flags.to_be_bytes(), &kind.to_be_bytes(), &vec![0; fields], body])
}

fn macsec(flags: u8, channel: &[u8], kind: u16, body: &[u8]) -> Vec<u8> {
    let length = 2 + body.len();
    let short_length = if length < 48 { length as u8 } else { 0 };
    cat(&[&[flags, short_length, 0, 0, 0, 1], channel, &kind.to_be_bytes(), body, &[0xee; 16]])
}

/// Returns the numbers by which `holds` can announce a layer that has the numbers `numbers`.
fn announcements(holds: Space, numbers: &[(Space, u16)], length: usize) -> Vec<u16> {
    let in_space = |space: Space| numbers.iter().filter(move |(of, _)| *of == space).map(|(_, number)| *number);
    match holds {
        TypeOrLength => in_space(EtherType).chain(in_space(TypeOrLength).map(|_| length as u16)).collect(),
        // GRE's numbers are Ethernet types and a few of its own. With a sequence number, 0x88be has another meaning.
        Gre => in_space(EtherType).chain(in_space(Gre)).collect(),
        GreSequence => {
            let shared = in_space(Gre).filter(|number| !matches!(number, 0x883e | 0x88be | 0x22eb));
            in_space(EtherType).chain(shared).chain(in_space(GreSequence)).collect()
        }
        holds => in_space(holds).collect(),
    }
}

/// Wraps a payload in up to `depth` carriers, in all ways, and checks the flow of each frame.
fn compose(payload: &[u8], numbers: &[(Space, u16)], expected: &str, depth: u32, path: &str) -> u64 {
    let mut composed = 0;
    for &(space, link) in numbers {
        if space == Link {
            assert_eq!(flow(link, payload).as_deref(), Ok(expected), "{path} as link type {link}");
            composed += 1;
        }
    }
    if depth == 0 {
        return composed;
    }
    for carrier in CARRIERS {
        for number in announcements(carrier.holds, numbers, payload.len()) {
            let around = (carrier.wrap)(number, payload);
            let path = format!("{} ({number:#x}) / {path}", carrier.name);
            composed += compose(&around, carrier.numbers, expected, depth - 1, &path);
        }
    }
    composed
}

#[test]
fn every_carrier_holds_every_payload() {
    let v4 = ipv4(A, B, 6, &tcp(40000, 80, SYN));
    let v6 = ipv6(v6(1), v6(2), 17, &udp(5000, 53, b"abcd"));
    let composed = compose(&v4, IP4, "tcp 10.0.0.1:40000 10.0.0.2:80", 3, "IPv4")
        + compose(&v6, IP6, "udp 2001:db8::1:5000 2001:db8::2:53", 3, "IPv6");
    assert!(composed > 10_000, "only {composed} frames were composed");
}

/// Every number in a table belongs to a carrier here. Otherwise the test above would miss a layer.
#[test]
fn every_number_in_the_tables_is_tried() {
    const NONE: [u16; 0] = [];
    let tried: HashSet<(Space, u16)> =
        CARRIERS.iter().flat_map(|carrier| carrier.numbers).chain(IP4).chain(IP6).copied().collect();
    let known = |space, of: fn(u16) -> Option<Layer>| {
        let numbers = (0..=u16::MAX).filter(move |number| of(*number).is_some());
        numbers.filter(|number| !tried.contains(&(space, *number))).collect::<Vec<_>>()
    };
    assert_eq!(known(EtherType, Layer::of_ether_type), NONE);
    // The Ethernet types that some senders write there. Raw IP has more numbers.
    assert_eq!(known(Ppp, Layer::of_ppp_protocol), [0x0800, 0x86dd]);
    assert_eq!(known(Link, Layer::of_link_type), [14, 228]);
    assert_eq!(known(Nsh, |number| u8::try_from(number).ok().and_then(Layer::of_nsh_protocol)), NONE);
    let transports = [1, 6, 17, 58, 136];
    assert_eq!(known(Ip, |number| u8::try_from(number).ok().and_then(Layer::of_ip_protocol)), transports);
}
