//! Options and routing headers that contain the real ends of a flow.

/// Returns the last hop of a source route that a packet has not completed yet. This hop is the endpoint of the flow.
pub fn route_end_v4(mut options: &[u8]) -> Option<[u8; 4]> {
    loop {
        match options {
            [1, rest @ ..] => options = rest,
            // Loose and strict source routes: length, offset of the next hop, hops.
            [0x83 | 0x89, length, next, ..] if (4..=*length).contains(next) => {
                let hops = options.get(3..usize::from(*length))?;
                return hops.chunks_exact(4).next_back().and_then(|end| end.try_into().ok());
            }
            [0, ..] | [] | [_] => return None,
            [_, length, ..] => options = options.get(usize::from(*length).max(2)..)?,
        }
    }
}

/// Returns the same from an IPv6 routing header. Segment routing lists its segments in reverse order.
pub fn route_end_v6(header: &[u8]) -> Option<[u8; 16]> {
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

/// Returns the home address of a mobile node, from the options of a packet that it sends from another network.
/// The node's flows keep that address when the node moves.
pub fn home_address(mut options: &[u8]) -> Option<[u8; 16]> {
    const PAD: u8 = 0;
    const HOME_ADDRESS: u8 = 0xc9;
    loop {
        match options {
            [PAD, rest @ ..] => options = rest,
            [HOME_ADDRESS, 16, rest @ ..] => return rest.first_chunk().copied(),
            [_, length, rest @ ..] => options = rest.get(usize::from(*length)..)?,
            [] | [_] => return None,
        }
    }
}

/// Returns the length of an IPv6 packet longer than 64 KiB, from its hop-by-hop option.
pub fn jumbo_length(next_header: u8, body: &[u8]) -> Option<usize> {
    let &[_, _, 0xc2, 4, a, b, c, d, ..] = body else { return None };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    (next_header == 0 && length > usize::from(u16::MAX)).then_some(length)
}
