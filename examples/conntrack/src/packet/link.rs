//! Link layers, and the tags between them and their payload.
//!
//! Each function removes one layer: it returns the next layer and its bytes, including any padding.

use super::layer::Layer;
use super::path::Path;
use super::{Ignored, Taken, read_u16, split};

/// BSD loopback captures. The family of a `Null` capture is in the byte order of the capturing machine.
pub fn loopback<'a>(is_network_order: bool, data: &'a [u8], path: &Path) -> Taken<'a> {
    let (family, rest) = split(data, 4)?;
    let family = u32::from_be_bytes([family[0], family[1], family[2], family[3]]);
    // Families are small numbers. If upper bits are set, the number is in the other byte order.
    let swapped = family.swap_bytes();
    let family = if is_network_order || swapped > 0xffff { family } else { swapped };
    Ok((Layer::of_family(family).ok_or(path.unknown())?, rest))
}

/// Linux cooked captures. Version 1 and 2 have the kind of the device and the protocol at different offsets.
pub fn cooked<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    let (head, rest) = split(data, 16)?;
    cooked_protocol(read_u16(head, 2), read_u16(head, 14), rest, path)
}

pub fn cooked2<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    let (head, rest) = split(data, 20)?;
    cooked_protocol(read_u16(head, 8), read_u16(head, 0), rest, path)
}

fn cooked_protocol<'a>(device: u16, protocol: u16, rest: &'a [u8], path: &Path) -> Taken<'a> {
    /// Netlink messages. Their protocol is not an Ethernet type.
    const NETLINK: u16 = 824;
    const GRE: u16 = 778;
    let layer = match (device, protocol) {
        (NETLINK, _) => None,
        (GRE, kind) => Layer::of_gre_protocol(kind, false),
        // Linux's own numbers for frames without an Ethernet type.
        (_, 3) => Some(Layer::Ethernet),
        (_, 4) => Some(Layer::Llc),
        (_, 7) => Some(Layer::Ppp),
        (_, kind) => Layer::of_ether_type(kind),
    };
    Ok((layer.ok_or(path.unknown())?, rest))
}

/// An Ethernet header. The VLANs of an outer frame do not apply to an inner one.
pub fn ethernet<'a>(data: &'a [u8], path: &mut Path) -> Taken<'a> {
    let (head, rest) = split(data, 14)?;
    path.vlan = 0;
    type_or_length(read_u16(head, 12), rest, path)
}

pub fn vlan<'a>(data: &'a [u8], path: &mut Path) -> Taken<'a> {
    let (tag, rest) = split(data, 4)?;
    path.vlan = read_u16(tag, 0) & 0x0fff;
    type_or_length(read_u16(tag, 2), rest, path)
}

/// A tag whose contents do not matter, only its length, then a type.
pub fn tag<'a>(length: usize, data: &'a [u8], path: &Path) -> Taken<'a> {
    let (head, rest) = split(data, length + 2)?;
    type_or_length(read_u16(head, length), rest, path)
}

/// Evaluates Ethernet's type field. A small value is the length of an 802.2 frame.
fn type_or_length<'a>(field: u16, rest: &'a [u8], path: &Path) -> Taken<'a> {
    match field {
        0..=1500 => Ok((Layer::Llc, &rest[..usize::from(field).min(rest.len())])),
        kind => Ok((Layer::of_ether_type(kind).ok_or(path.unknown())?, rest)),
    }
}

pub fn llc<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    match data {
        // SNAP with an Ethernet type, of the two organizations that use one.
        [0xaa, 0xaa, 0x03, 0, 0, 0 | 0xf8, high, low, rest @ ..] => {
            Ok((Layer::of_ether_type(u16::from_be_bytes([*high, *low])).ok_or(path.unknown())?, rest))
        }
        // SNAP with an Ethernet frame, with and without its check sequence.
        [0xaa, 0xaa, 0x03, 0x00, 0x80, 0xc2, 0, 1 | 7, rest @ ..] => Ok((Layer::Ethernet, rest)),
        [0x06, _, 0x03, rest @ ..] => Ok((Layer::Ip, rest)),
        _ => Err(path.unknown()),
    }
}

/// MACsec. If the E and C bits are clear, the contents are neither encrypted nor changed: type and payload as in
/// an Ethernet frame, then a check value of 16 bytes.
pub fn macsec<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    const VERSION: u8 = 0x80;
    const HAS_CHANNEL: u8 = 0x20;
    const ENCRYPTED: u8 = 0x08;
    const CHANGED: u8 = 0x04;
    const CHECK_VALUE: usize = 16;

    let &[flags, short_length, ..] = data else { return Err(Ignored::Truncated) };
    if flags & (VERSION | ENCRYPTED | CHANGED) != 0 {
        return Err(path.unknown());
    }
    let head = if flags & HAS_CHANNEL != 0 { 14 } else { 6 };
    let secured = split(data, head)?.1;
    let length = match usize::from(short_length & 0x3f) {
        // The contents have 48 bytes or more, and end where the check value begins. Only the captured part of the
        // check value can be removed.
        0 => secured.len().saturating_sub(CHECK_VALUE.saturating_sub(path.missing)),
        length => length.min(secured.len()),
    };
    tag(0, &secured[..length], path)
}

/// TRILL: a header with options, then an Ethernet frame.
pub fn trill(data: &[u8]) -> Taken<'_> {
    let (head, _) = split(data, 6)?;
    let options = usize::from(read_u16(head, 0) >> 6 & 0x1f) * 4;
    Ok((Layer::Ethernet, split(data, 6 + options)?.1))
}

/// PPPoE: version, code and session, then the length of the PPP frame.
pub fn pppoe(data: &[u8]) -> Taken<'_> {
    let (head, rest) = split(data, 6)?;
    let length = usize::from(read_u16(head, 4));
    Ok((Layer::Ppp, &rest[..length.min(rest.len())]))
}

pub fn ppp<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    match data {
        // Cisco HDLC: no PPP frame begins with this byte.
        [0x0f | 0x8f, ..] => Ok((Layer::CiscoHdlc, data)),
        // Address and control bytes, if they are present.
        [0xff, _, rest @ ..] => ppp_protocol(rest, path),
        _ => ppp_protocol(data, path),
    }
}

fn ppp_protocol<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    let (protocol, rest) = match data {
        // The first byte of a protocol is even, and may be omitted if it is zero. The second byte is odd.
        [low, rest @ ..] if low & 1 == 1 => (u16::from(*low), rest),
        [high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]), rest),
        _ => return Err(Ignored::Truncated),
    };
    Ok((Layer::of_ppp_protocol(protocol).ok_or(path.unknown())?, rest))
}

/// PPP's bridging protocol: flags, the kind of frame, the number of the LAN if a flag says so, and an Ethernet frame.
pub fn bridging<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    match data {
        [flags, 1, rest @ ..] if flags & 0x40 == 0 => Ok((Layer::Ethernet, rest)),
        [_, 1, _, _, _, _, rest @ ..] => Ok((Layer::Ethernet, rest)),
        [_, _, ..] => Err(path.unknown()),
        _ => Err(Ignored::Truncated),
    }
}

/// Cisco HDLC: address, control, and an Ethernet type.
pub fn cisco_hdlc<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    let (head, rest) = split(data, 4)?;
    Ok((Layer::of_ether_type(read_u16(head, 2)).ok_or(path.unknown())?, rest))
}

/// A stack of labels. It does not say what follows the last label, so the first bits there decide: IP, a control
/// word of a pseudowire, or the header of an associated channel.
pub fn mpls<'a>(mut data: &'a [u8], path: &Path) -> Taken<'a> {
    loop {
        let (label, rest) = split(data, 4)?;
        data = rest;
        if label[2] & 1 == 1 {
            break;
        }
    }
    match data {
        [first, ..] if matches!(first >> 4, 4 | 6) => Ok((Layer::Ip, data)),
        [first, _, high, low, rest @ ..] if first >> 4 == 1 => {
            let protocol = u16::from_be_bytes([*high, *low]);
            Ok((Layer::of_ppp_protocol(protocol).ok_or(path.unknown())?, rest))
        }
        _ => pseudowire(data, path),
    }
}

/// An Ethernet frame, with or without a control word of four bytes before it. A control word may look like the
/// beginning of an address, so the bytes at the place of the Ethernet type decide.
fn pseudowire<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    if is_ethernet(data) {
        return Ok((Layer::Ethernet, data));
    }
    match data.get(4..) {
        Some(frame) if is_ethernet(frame) => Ok((Layer::Ethernet, frame)),
        _ => Err(path.unknown()),
    }
}

/// Returns whether a known Ethernet type is at its place, or the length of an 802.2 frame with known contents.
fn is_ethernet(data: &[u8]) -> bool {
    match data.get(12..) {
        Some([high, low, rest @ ..]) => match u16::from_be_bytes([*high, *low]) {
            length @ 0..=1500 => {
                usize::from(length) <= rest.len() && matches!(rest, [0xaa, 0xaa, 3, ..] | [6, _, 3, ..])
            }
            kind => Layer::of_ether_type(kind).is_some(),
        },
        _ => false,
    }
}
