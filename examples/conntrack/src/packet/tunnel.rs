//! Tunnels over IP, and NSH. Each function removes one layer, like those of `link`.

use super::layer::Layer;
use super::path::Path;
use super::{Ignored, Taken, read_u16, split};

/// GRE. The type in its protocol field says what it carries.
pub fn gre<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const ACKNOWLEDGMENT: u16 = 0x0080;
    const VERSION: u16 = 0x0007;

    let (head, _) = split(data, 4)?;
    let (flags, protocol) = (read_u16(head, 0), read_u16(head, 2));
    let has = |flag| usize::from(flags & flag != 0);
    // The checksum and the offset of the routing entries are present together. Only version 1 has an acknowledgment.
    let acknowledgment = usize::from(flags & (ACKNOWLEDGMENT | VERSION) == (ACKNOWLEDGMENT | 1));
    let fields = has(CHECKSUM | ROUTING) + has(KEY) + has(SEQUENCE) + acknowledgment;
    let mut rest = split(data, 4 + 4 * fields)?.1;
    // Each routing entry has a family, an offset, a length, and an address of that length. The last one is empty.
    let mut is_routed = flags & ROUTING != 0;
    while is_routed {
        let (entry, addresses) = split(rest, 4)?;
        is_routed = read_u16(entry, 0) != 0 || entry[3] != 0;
        rest = split(addresses, usize::from(entry[3]))?.1;
    }
    let layer = Layer::of_gre_protocol(protocol, flags & SEQUENCE != 0);
    Ok((layer.ok_or(path.unknown())?, rest))
}

/// The contents of a WCCP tunnel. In version 2 a redirect header of four bytes precedes the IP packet. The lower
/// six bits of its first byte are reserved and zero, which they are in no IP header.
pub fn wccp(data: &[u8]) -> Taken<'_> {
    let first = data.first().ok_or(Ignored::Truncated)?;
    let head = if first & 0x3f == 0 || !matches!(first >> 4, 4 | 6) { 4 } else { 0 };
    Ok((Layer::Ip, split(data, head)?.1))
}

/// A mirrored frame behind an ERSPAN header of type II or III, according to its version field.
pub fn mirror<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    const FRAME_TYPE: u16 = 0x7c00;
    const IP_FRAME: u16 = 0x0800;
    const HAS_SUBHEADER: u16 = 0x0001;

    match data.first().ok_or(Ignored::Truncated)? >> 4 {
        1 => Ok((Layer::Ethernet, split(data, 8)?.1)),
        2 => {
            let flags = read_u16(split(data, 12)?.0, 10);
            let head = if flags & HAS_SUBHEADER != 0 { 20 } else { 12 };
            let layer = match flags & FRAME_TYPE {
                0 => Layer::Ethernet,
                IP_FRAME => Layer::Ip,
                _ => return Err(path.unknown()),
            };
            Ok((layer, split(data, head)?.1))
        }
        _ => Err(path.unknown()),
    }
}

/// NSH: its length in words, its next protocol, a service path and metadata.
pub fn nsh<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    let (head, _) = split(data, 8)?;
    let length = usize::from(head[1] & 0x3f) * 4;
    if length < 8 {
        return Err(Ignored::Malformed);
    }
    Ok((Layer::of_nsh_protocol(head[3]).ok_or(path.unknown())?, split(data, length)?.1))
}

/// The packet that a PIM register message carries to a rendezvous point.
pub fn pim<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    const REGISTER: u8 = 0x21;
    let (head, rest) = split(data, 8)?;
    if head[0] == REGISTER { Ok((Layer::Ip, rest)) } else { Err(path.unknown()) }
}

/// The packet in a register message of PIM version 1, whose messages are in IGMP.
pub fn igmp<'a>(data: &'a [u8], path: &Path) -> Taken<'a> {
    const PIM: u8 = 0x14;
    const REGISTER: u8 = 1;
    match data {
        [PIM, REGISTER, _, _, _, _, _, _, rest @ ..] => Ok((Layer::Ip, rest)),
        _ => Err(path.unknown()),
    }
}
