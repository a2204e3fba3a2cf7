//! From a frame to the IP packet in it: the link layers and what may stand between them and IP.

use etherparse::{Ethernet2HeaderSlice, SingleVlanHeaderSlice};

use crate::packet::Ignored;

/// What a layer says that its payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// IP of the version that its first byte says. What is marked as IPv4 is taken so too, as tshark does.
    Ip,
    Ipv6,
}

/// An IP packet, with whatever padding the link layer left behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload<'a> {
    pub network: Network,
    pub data: &'a [u8],
    /// The innermost VLAN, zero without one.
    pub vlan: u16,
}

type Peeled<'a> = Result<Payload<'a>, Ignored>;

/// The IP packet in a frame of the given link type.
pub fn peel(link: u16, frame: &[u8]) -> Peeled<'_> {
    match link {
        // null: the address family, in the byte order of the machine that captured
        0 => {
            let (family, rest) = split(frame, 4)?;
            let family = u32::from_le_bytes([family[0], family[1], family[2], family[3]]);
            family_payload(if family > 0xffff { family.swap_bytes() } else { family }, rest)
        }
        // loop: the same in network byte order
        108 => {
            let (family, rest) = split(frame, 4)?;
            family_payload(u32::from_be_bytes([family[0], family[1], family[2], family[3]]), rest)
        }
        1 => ethernet(frame),
        9 => match frame {
            // address and control, if they were not left out
            [0xff, _, rest @ ..] | rest => ppp(rest, 0),
        },
        // raw IP, by three numbers
        12 | 14 | 101 | 228 => Ok(Payload { network: Network::Ip, data: frame, vlan: 0 }),
        229 => Ok(Payload { network: Network::Ipv6, data: frame, vlan: 0 }),
        // Linux cooked, version 1 and 2: what kind of device it was, and what follows
        113 => split(frame, 16).and_then(|(head, rest)| cooked(read_u16(head, 2), read_u16(head, 14), rest)),
        276 => split(frame, 20).and_then(|(head, rest)| cooked(read_u16(head, 8), read_u16(head, 0), rest)),
        _ => Err(Ignored::LinkType),
    }
}

pub fn ethernet(frame: &[u8]) -> Peeled<'_> {
    let header = Ethernet2HeaderSlice::from_slice(frame).map_err(|_| Ignored::Truncated)?;
    ether_type(header.ether_type().0, &frame[header.slice().len()..], 0)
}

/// What an Ethernet type says that follows.
pub fn ether_type(kind: u16, data: &[u8], vlan: u16) -> Peeled<'_> {
    match kind {
        0x0800 => Ok(Payload { network: Network::Ip, data, vlan }),
        0x86dd => Ok(Payload { network: Network::Ipv6, data, vlan }),
        0x8100 | 0x88a8 | 0x9100 => {
            let tag = SingleVlanHeaderSlice::from_slice(data).map_err(|_| Ignored::Truncated)?;
            ether_type(tag.ether_type().0, &data[tag.slice().len()..], tag.vlan_identifier().value())
        }
        0x8847 | 0x8848 => mpls(data, vlan),
        // PPPoE session: version, code and session, then how much of the frame is PPP
        0x8864 => {
            let (head, rest) = split(data, 6)?;
            let length = usize::from(read_u16(head, 4));
            ppp(&rest[..length.min(rest.len())], vlan)
        }
        // transparent Ethernet bridging
        0x6558 => ethernet(data),
        // no type but the length of an 802.2 frame
        length @ ..=1500 => llc(&data[..usize::from(length).min(data.len())], vlan),
        _ => Err(Ignored::NotIp),
    }
}

pub fn ppp(data: &[u8], vlan: u16) -> Peeled<'_> {
    match data {
        // The protocol's first byte may be left out when it is zero.
        [0x00, 0x21, data @ ..] | [0x21, data @ ..] => Ok(Payload { network: Network::Ip, data, vlan }),
        [0x00, 0x57, data @ ..] | [0x57, data @ ..] => Ok(Payload { network: Network::Ipv6, data, vlan }),
        _ => Err(Ignored::NotIp),
    }
}

/// A stack of labels. Nothing says what is below the last one, so its first four bits decide.
pub fn mpls(mut data: &[u8], vlan: u16) -> Peeled<'_> {
    loop {
        let (label, rest) = split(data, 4)?;
        data = rest;
        if label[2] & 1 == 1 {
            break;
        }
    }
    match data.first().map(|byte| byte >> 4) {
        Some(4 | 6) => Ok(Payload { network: Network::Ip, data, vlan }),
        _ => Err(Ignored::NotIp),
    }
}

fn llc(data: &[u8], vlan: u16) -> Peeled<'_> {
    match data {
        [0xaa, 0xaa, 0x03, 0, 0, 0, high, low, data @ ..] => ether_type(u16::from_be_bytes([*high, *low]), data, vlan),
        [0x06, 0x06, 0x03, data @ ..] => Ok(Payload { network: Network::Ip, data, vlan }),
        _ => Err(Ignored::NotIp),
    }
}

fn cooked(device: u16, protocol: u16, data: &[u8]) -> Peeled<'_> {
    const NETLINK: u16 = 824;
    match (device, protocol) {
        (NETLINK, _) => Err(Ignored::NotIp),
        (_, 0x0004) => llc(data, 0),
        (_, ..=1500) => Err(Ignored::NotIp),
        (_, kind) => ether_type(kind, data, 0),
    }
}

fn family_payload(family: u32, data: &[u8]) -> Peeled<'_> {
    match family {
        2 => Ok(Payload { network: Network::Ip, data, vlan: 0 }),
        // IPv6 has a number of its own on NetBSD and OpenBSD, on FreeBSD, and on macOS.
        24 | 28 | 30 => Ok(Payload { network: Network::Ipv6, data, vlan: 0 }),
        1501..=0xffff => ether_type(family as u16, data, 0),
        _ => Err(Ignored::NotIp),
    }
}

fn split(data: &[u8], at: usize) -> Result<(&[u8], &[u8]), Ignored> {
    data.split_at_checked(at).ok_or(Ignored::Truncated)
}

fn read_u16(data: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([data[at], data[at + 1]])
}
