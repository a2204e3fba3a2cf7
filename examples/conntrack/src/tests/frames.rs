//! Builders for frames and captures.

use std::net::{Ipv4Addr, Ipv6Addr};

pub const A: [u8; 4] = [10, 0, 0, 1];
pub const B: [u8; 4] = [10, 0, 0, 2];
pub const SYN: u8 = 0x02;
pub const SYN_ACK: u8 = 0x12;
pub const ACK: u8 = 0x10;
pub const FIN_ACK: u8 = 0x11;

pub fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    cat(&[&from.to_be_bytes(), &to.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 4, 0, 0, 0, 0, 0]])
}

pub fn udp(from: u16, to: u16, body: &[u8]) -> Vec<u8> {
    let length = 8 + body.len() as u16;
    cat(&[&from.to_be_bytes(), &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], body])
}

pub fn icmp(kind: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    cat(&[&[kind, 0, 0, 0], &rest, body])
}

pub fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, body: &[u8]) -> Vec<u8> {
    ipv4_fragment(from, to, protocol, body, 0, 0)
}

/// A fragment. `offset` is in bytes, plus `1 << 13` if more fragments follow.
pub fn ipv4_fragment(from: [u8; 4], to: [u8; 4], protocol: u8, body: &[u8], id: u16, offset: u16) -> Vec<u8> {
    let length = 20 + body.len() as u16;
    let fragment = (offset & 0x2000) | ((offset & 0x1fff) / 8);
    cat(&[
        &[0x45, 0],
        &length.to_be_bytes(),
        &id.to_be_bytes(),
        &fragment.to_be_bytes(),
        &[64, protocol, 0, 0],
        &from,
        &to,
        body,
    ])
}

pub fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u16;
    cat(&[&[0x60, 0, 0, 0], &length.to_be_bytes(), &[next, 64], &from.octets(), &to.octets(), body])
}

pub fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

pub fn host(last: u8) -> [u8; 4] {
    Ipv4Addr::new(10, 0, 0, last).octets()
}

pub fn ethernet(kind: u16, body: &[u8]) -> Vec<u8> {
    cat(&[&[2; 12], &kind.to_be_bytes(), body])
}

/// Four packets of a connection: the handshake and a FIN of the other side, 54 bytes each in Ethernet.
pub fn connection(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<Vec<u8>> {
    let out = |flags| ipv4(from.0, to.0, 6, &tcp(from.1, to.1, flags));
    let back = |flags| ipv4(to.0, from.0, 6, &tcp(to.1, from.1, flags));
    vec![out(SYN), back(SYN_ACK), out(ACK), back(FIN_ACK)]
}

/// A frame of a capture: its time in nanoseconds, its bytes, and its length on the wire if that was longer.
pub struct Shot {
    pub time: u64,
    pub data: Vec<u8>,
    pub length: usize,
}

impl Shot {
    pub fn new(time: u64, data: Vec<u8>) -> Self {
        Shot { time, length: data.len(), data }
    }
}

/// Returns a pcap file in either byte order, with microseconds or nanoseconds.
pub fn pcap(link: u32, is_big: bool, is_nano: bool, shots: &[Shot]) -> Vec<u8> {
    let word = |value: u32| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
    let half = |value: u16| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
    let magic = if is_nano { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut file = cat(&[&word(magic), &half(2), &half(4), &word(0), &word(0), &word(65535), &word(link)]);
    for Shot { time, data, length } in shots {
        let unit = if is_nano { 1 } else { 1000 };
        let (seconds, fraction) = ((time / 1_000_000_000) as u32, (time % 1_000_000_000 / unit) as u32);
        let head = [seconds, fraction, data.len() as u32, *length as u32].map(word);
        file.extend(cat(&[head.as_flattened(), data]));
    }
    file
}

/// Returns a block of a pcapng file: its body with padding and lengths.
pub fn block(is_big: bool, kind: u32, body: &[u8]) -> Vec<u8> {
    let word = |value: u32| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
    let padding = vec![0; body.len().wrapping_neg() % 4];
    let length = word((12 + body.len() + padding.len()) as u32);
    cat(&[&word(kind), &length, body, &padding, &length])
}

pub fn section(is_big: bool) -> Vec<u8> {
    let word = |value: u32| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
    let version = if is_big { [0, 1, 0, 0] } else { [1, 0, 0, 0] };
    block(is_big, 0x0a0d_0d0a, &cat(&[&word(0x1a2b_3c4d), &version, &[0xff; 8]]))
}

/// Returns an interface description block. Its options are already encoded.
pub fn interface(is_big: bool, link: u16, snaplen: u32, options: &[u8]) -> Vec<u8> {
    let head = if is_big { link.to_be_bytes() } else { link.to_le_bytes() };
    let snaplen = if is_big { snaplen.to_be_bytes() } else { snaplen.to_le_bytes() };
    block(is_big, 1, &cat(&[&head, &[0, 0], &snaplen, options]))
}

pub fn enhanced(is_big: bool, interface: u32, ticks: u64, data: &[u8]) -> Vec<u8> {
    let word = |value: u32| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
    let length = data.len() as u32;
    let head = [interface, (ticks >> 32) as u32, ticks as u32, length, length].map(word);
    block(is_big, 6, &cat(&[head.as_flattened(), data]))
}
