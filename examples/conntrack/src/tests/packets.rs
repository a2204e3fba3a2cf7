//! The flow of each frame.

use super::frames::*;
use crate::capture::Frame;
use crate::packet::{Ignored, Parser};

/// Returns the flow as `protocol sender receiver`, or why there is none.
fn flow_with(parser: &mut Parser, link: u16, frame: &[u8]) -> Result<String, Ignored> {
    parser.parse(link, frame).map(|packet| {
        let (from, to) = (packet.tuple.sender(packet.direction), packet.tuple.sender(packet.direction.reversed()));
        format!("{} {from} {to}", packet.tuple.proto_name())
    })
}

pub fn flow(link: u16, frame: &[u8]) -> Result<String, Ignored> {
    flow_with(&mut Parser::default(), link, frame)
}

fn in_ethernet(kind: u16, body: &[u8]) -> Result<String, Ignored> {
    flow(1, &ethernet(kind, body))
}

const TCP_FLOW: &str = "tcp 10.0.0.1:40000 10.0.0.2:80";
const TCP6_FLOW: &str = "tcp 2001:db8::1:40000 2001:db8::2:80";

fn tcp4() -> Vec<u8> {
    ipv4(A, B, 6, &tcp(40000, 80, SYN))
}

fn tcp6() -> Vec<u8> {
    ipv6(v6(1), v6(2), 6, &tcp(40000, 80, SYN))
}

#[test]
fn frames_of_each_link_type_are_parsed() {
    let v4 = |head: &[u8]| cat(&[head, &tcp4()]);
    let v6 = |head: &[u8]| cat(&[head, &tcp6()]);
    let cooked = |kind: [u8; 2]| cat(&[&[0; 14], &kind]);
    let cooked2 = |kind: [u8; 2]| cat(&[&kind, &[0; 18]]);
    for (link, frame, expected) in [
        (0, v4(&[2, 0, 0, 0]), TCP_FLOW),
        (0, v4(&[0, 0, 0, 2]), TCP_FLOW),
        (0, v6(&[24, 0, 0, 0]), TCP6_FLOW),
        (0, v6(&[0, 0, 0, 28]), TCP6_FLOW),
        (0, v6(&[30, 0, 0, 0]), TCP6_FLOW),
        (108, v4(&[0, 0, 0, 2]), TCP_FLOW),
        (113, v4(&cooked([8, 0])), TCP_FLOW),
        (113, v6(&cooked([0x86, 0xdd])), TCP6_FLOW),
        (276, v4(&cooked2([8, 0])), TCP_FLOW),
        (276, v6(&cooked2([0x86, 0xdd])), TCP6_FLOW),
        (101, v4(&[]), TCP_FLOW),
        (12, v6(&[]), TCP6_FLOW),
        (228, v4(&[]), TCP_FLOW),
        (229, v6(&[]), TCP6_FLOW),
        (9, v4(&[0xff, 3, 0, 0x21]), TCP_FLOW),
    ] {
        assert_eq!(flow(link, &frame).as_deref(), Ok(expected), "link type {link}");
    }
    assert_eq!(flow(108, &v4(&[2, 0, 0, 0])), Err(Ignored::NotIp), "loop is in network byte order only");
    assert_eq!(flow(147, &tcp4()), Err(Ignored::LinkType));
}

#[test]
fn ethernet_with_tags_labels_and_tunnels_is_parsed() {
    let tag = |kind: u16, body: &[u8]| cat(&[&[0, 7], &kind.to_be_bytes(), body]);
    let (inner, inner6) = (tcp4(), tcp6());
    let llc = cat(&[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &inner]);
    let outer = |protocol, body: &[u8]| ipv4([1, 1, 1, 1], [2, 2, 2, 2], protocol, body);
    for (kind, body) in [
        (0x8100, tag(0x0800, &inner)),
        (0x88a8, tag(0x8100, &tag(0x0800, &inner))),
        (0x8100, tag(0x8100, &tag(0x8100, &tag(0x0800, &inner)))),
        (llc.len() as u16, llc.clone()),
        (0x8847, cat(&[&[0, 1, 0, 9], &[0, 1, 1, 9], &inner])),
        (0x8864, cat(&[&[0x11, 0, 0, 5, 0, 42, 0, 0x21], &inner])),
        (0x0800, outer(4, &inner)),
        (0x0800, outer(47, &cat(&[&[0, 0, 8, 0], &inner]))),
        (0x0800, outer(47, &cat(&[&[0xb0, 0, 8, 0], &[0; 12], &inner]))),
    ] {
        assert_eq!(in_ethernet(kind, &body).as_deref(), Ok(TCP_FLOW));
    }
    assert_eq!(in_ethernet(0x0800, &outer(41, &inner6)).as_deref(), Ok(TCP6_FLOW));
    let endless = (0..40).fold(tcp4(), |inner, _| outer(4, &inner));
    assert_eq!(in_ethernet(0x0800, &endless), Err(Ignored::Malformed));
    assert_eq!(in_ethernet(0x0806, &[0; 28]), Err(Ignored::NotIp));
    assert_eq!(in_ethernet(0x0800, &ipv4(A, B, 132, &[0; 20])), Err(Ignored::OtherProtocol));
    assert_eq!(in_ethernet(0x86dd, &inner), Err(Ignored::Malformed));
    assert_eq!(flow(1, &[]), Err(Ignored::Truncated));
}

#[test]
fn a_packet_counts_once_its_whole_transport_header_is_there() {
    let mut segment = tcp(40000, 80, ACK);
    segment[12] = 8 << 4;
    let frame = ethernet(0x0800, &ipv4(A, B, 6, &cat(&[&segment, &[1; 12], b"payload"])));
    for length in 0..=frame.len() {
        let expected = if length >= 14 + 20 + 32 { Ok(TCP_FLOW.to_string()) } else { Err(Ignored::Truncated) };
        assert_eq!(flow(1, &frame[..length]), expected, "{length} bytes captured");
    }
    let frame = ethernet(0x0800, &ipv4(A, B, 17, &udp(5000, 53, b"payload")));
    for length in 0..=frame.len() {
        assert_eq!(flow(1, &frame[..length]).is_ok(), length >= 14 + 20 + 8, "{length} bytes captured");
    }
}

#[test]
fn wrong_lengths_are_found_or_tolerated() {
    let with = |at: usize, value: [u8; 2], mut packet: Vec<u8>| {
        packet[at..at + 2].copy_from_slice(&value);
        in_ethernet(0x0800, &packet)
    };
    assert_eq!(with(2, [0, 0], tcp4()).as_deref(), Ok(TCP_FLOW), "a length for the card to fill in");
    assert_eq!(with(2, [0, 19], tcp4()), Err(Ignored::Malformed), "IPv4 shorter than its header");
    assert_eq!(with(2, [0, 39], tcp4()), Err(Ignored::Truncated), "the bytes after the length are padding");
    assert_eq!(with(2, [15, 0], tcp4()).as_deref(), Ok(TCP_FLOW), "longer than captured");
    assert_eq!(with(32, [4 << 4, SYN], tcp4()), Err(Ignored::Malformed), "TCP shorter than its header");
    assert_eq!(with(32, [6 << 4, SYN], tcp4()), Err(Ignored::Truncated), "TCP longer than its packet");
    let datagram = || ipv4(A, B, 17, &udp(5000, 53, b"abcd"));
    assert_eq!(with(24, [0, 7], datagram()), Err(Ignored::Malformed), "UDP shorter than its header");
    assert!(with(24, [1, 0], datagram()).is_ok(), "UDP longer than its packet");
    assert_eq!(with(24, [0, 0], datagram()), Err(Ignored::Malformed));
    assert!(in_ethernet(0x86dd, &ipv6(v6(1), v6(2), 17, &[0, 1, 0, 2, 0, 0, 0, 0])).is_ok(), "a jumbogram");
}

#[test]
fn ipv6_extension_headers_are_followed() {
    let segment = tcp(40000, 80, SYN);
    let hop_by_hop = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let routing = |next: u8, left: u8| cat(&[&[next, 2, 0, left, 0, 0, 0, 0], &v6(9).octets()]);
    let authentication = |next: u8| cat(&[&[next, 4], &[0; 22]]);
    let fragment = |next: u8| [next, 0, 0, 0, 0, 0, 0, 7];
    let to_last_hop = "tcp 2001:db8::1:40000 2001:db8::9:80";
    for (next, headers, expected) in [
        (0, hop_by_hop(6).to_vec(), TCP6_FLOW),
        (60, cat(&[&hop_by_hop(60), &hop_by_hop(6)]), TCP6_FLOW),
        (43, routing(6, 0), TCP6_FLOW),
        (43, routing(6, 1), to_last_hop),
        (51, authentication(6), TCP6_FLOW),
        (44, fragment(6).to_vec(), TCP6_FLOW),
        (0, cat(&[&hop_by_hop(43), &routing(51, 0), &authentication(44), &fragment(6)]), TCP6_FLOW),
    ] {
        let packet = ipv6(v6(1), v6(2), next, &cat(&[&headers, &segment]));
        assert_eq!(in_ethernet(0x86dd, &packet).as_deref(), Ok(expected));
    }
    assert_eq!(in_ethernet(0x86dd, &ipv6(v6(1), v6(2), 59, &segment)), Err(Ignored::OtherProtocol));
}

#[test]
fn icmp_queries_have_an_identifier_and_errors_are_not_what_they_quote() {
    let echo = |kind| in_ethernet(0x0800, &ipv4(A, B, 1, &icmp(kind, [0x12, 0x34, 0, 1], b"ping")));
    assert_eq!(echo(8).as_deref(), Ok("icmp 10.0.0.1:4660 10.0.0.2:4660"));
    assert_eq!(echo(0), echo(8));
    let quoted = tcp4();
    for kind in [3, 4, 5, 11, 12] {
        let error = ipv4(A, B, 1, &icmp(kind, [0; 4], &quoted));
        assert_eq!(in_ethernet(0x0800, &error).as_deref(), Ok("icmp 10.0.0.1 10.0.0.2"));
    }
    let error6 = ipv6(v6(1), v6(2), 58, &icmp(1, [0; 4], &tcp6()));
    assert_eq!(in_ethernet(0x86dd, &error6).as_deref(), Ok("icmpv6 2001:db8::1 2001:db8::2"));
    let echo6 = ipv6(v6(1), v6(2), 58, &icmp(128, [0, 5, 0, 1], b""));
    assert_eq!(in_ethernet(0x86dd, &echo6).as_deref(), Ok("icmpv6 2001:db8::1:5 2001:db8::2:5"));
}

#[test]
fn the_frame_that_completes_a_datagram_counts() {
    let datagram = udp(5000, 53, &[7; 48]);
    let pieces = |id| {
        let piece = |offset: usize, more: u16| {
            let body = &datagram[offset..(offset + 24).min(datagram.len())];
            ethernet(0x0800, &ipv4_fragment(A, B, 17, body, id, offset as u16 | more))
        };
        [piece(0, 1 << 13), piece(24, 1 << 13), piece(48, 0)]
    };
    let mut parser = Parser::default();
    let (one, other) = (pieces(1), pieces(2));
    let mut feed = |frame: &[u8]| flow_with(&mut parser, 1, frame);
    for frame in [&one[2], &other[0], &one[0], &other[2]] {
        assert_eq!(feed(frame), Err(Ignored::Fragment));
    }
    assert_eq!(feed(&one[1]).as_deref(), Ok("udp 10.0.0.1:5000 10.0.0.2:53"));
    assert_eq!(feed(&other[1]).as_deref(), Ok("udp 10.0.0.1:5000 10.0.0.2:53"));
    assert!(
        feed(&one[0][..one[0].len() - 1]).is_ok(),
        "the first fragment counts alone if it was not captured completely"
    );
    assert_eq!(feed(&one[1][..one[1].len() - 1]), Err(Ignored::Fragment));
}

#[test]
fn a_home_address_is_the_flows_source() {
    let datagram = udp(1111, 53, b"abcd");
    let home = |address: &[u8]| cat(&[&[0xc9, 16], address]);
    let options = |next: u8, options: &[u8]| {
        let length = (2 + options.len()).next_multiple_of(8);
        let mut header = cat(&[&[next, (length / 8 - 1) as u8], options]);
        header.resize(length, 0);
        header
    };
    let in_ipv6 = |next, headers: &[u8]| in_ethernet(0x86dd, &ipv6(v6(1), v6(2), next, &cat(&[headers, &datagram])));
    let from = |last: u16| Ok(format!("udp {}:1111 2001:db8::2:53", v6(last)));

    let address = home(&v6(0xaa).octets());
    let padded = cat(&[&[1, 2, 0, 0, 0], &address]);
    assert_eq!(in_ipv6(60, &options(17, &padded)), from(0xaa));
    let fragment = [17, 0, 0, 0, 0, 0, 0, 7];
    assert_eq!(in_ipv6(60, &cat(&[&options(44, &address), &fragment])), from(0xaa), "before other headers");
    assert_eq!(in_ipv6(0, &cat(&[&options(60, &[1, 0]), &options(17, &address)])), from(0xaa), "after other headers");
    assert_eq!(in_ipv6(60, &options(17, &[0xc9, 4, 1, 2, 3, 4])), from(1), "too short");
    assert_eq!(in_ipv6(60, &options(17, &cat(&[&[0xc9, 16], &[1; 4]]))), from(1), "cut off by the header's end");
    assert_eq!(in_ipv6(60, &options(17, &cat(&[&[5, 200], &address]))), from(1), "after an option that is too long");
    // The other end of mobile IPv6: the routing header of type 2.
    let routing = cat(&[&[60, 2, 2, 1, 0, 0, 0, 0], &v6(0xbb).octets()]);
    let both = in_ipv6(43, &cat(&[&routing, &options(17, &address)]));
    assert_eq!(both.as_deref(), Ok("udp 2001:db8::aa:1111 2001:db8::bb:53"));
    let tunnelled = cat(&[&options(4, &address), &tcp4()]);
    assert_eq!(in_ethernet(0x86dd, &ipv6(v6(1), v6(2), 60, &tunnelled)).as_deref(), Ok(TCP_FLOW));
    let in_ipv4 = in_ethernet(0x0800, &ipv4(A, B, 60, &cat(&[&options(17, &address), &datagram])));
    assert_eq!(in_ipv4.as_deref(), Ok("udp 10.0.0.1:1111 10.0.0.2:53"), "IPv4 has no home address");
}

#[test]
fn macsec_is_followed_when_it_is_in_the_clear() {
    let secured = |flags: u8, short_length: u8, rest: &[u8]| {
        in_ethernet(0x88e5, &cat(&[&[flags, short_length, 0, 0, 0, 1], rest]))
    };
    let (contents, check_value) = (cat(&[&[8, 0], &tcp4()]), [0xee; 16]);
    let whole = cat(&[&contents, &check_value]);
    assert_eq!(secured(0x00, 42, &whole).as_deref(), Ok(TCP_FLOW));
    assert_eq!(secured(0x53, 42, &cat(&[&whole, &[0; 18]])).as_deref(), Ok(TCP_FLOW), "padded");
    assert_eq!(secured(0x20, 42, &cat(&[&[1; 8], &whole])).as_deref(), Ok(TCP_FLOW), "with a channel");
    for (flags, what) in [(0x08, "for the key agreement"), (0x04, "changed"), (0x0c, "encrypted"), (0x80, "version 1")]
    {
        assert_eq!(secured(flags, 42, &whole), Err(Ignored::NotIp), "{what}");
    }
    assert_eq!(secured(0, 41, &whole), Err(Ignored::Truncated), "a short length ends the contents");
    // Without a short length, the check value ends the contents. It is not part of the TCP header.
    assert_eq!(secured(0, 0, &whole).as_deref(), Ok(TCP_FLOW));
    assert_eq!(secured(0, 0, &whole[..whole.len() - 1]), Err(Ignored::Truncated));
}

#[test]
fn a_check_value_that_was_not_captured_is_not_taken_off() {
    let frame = ethernet(0x88e5, &cat(&[&[0, 0, 0, 0, 0, 1, 8, 0], &tcp4(), &[0xee; 16]]));
    let mut parser = Parser::default();
    for captured in frame.len() - 16..=frame.len() {
        let data = &frame[..captured];
        let packet = parser.parse_frame(&Frame { length: frame.len() as u32, data, ..EMPTY });
        assert!(packet.is_ok(), "{captured} bytes captured: {packet:?}");
    }
    let data = &frame[..frame.len() - 17];
    assert_eq!(parser.parse_frame(&Frame { length: frame.len() as u32, data, ..EMPTY }), Err(Ignored::Truncated));
}

const EMPTY: Frame<'_> = Frame { time: 0, is_time_repaired: false, length: 0, link: 1, data: &[] };

#[test]
fn wrong_headers_of_tunnels_are_found() {
    let nsh = |head: [u8; 8]| in_ethernet(0x894f, &cat(&[&head, &tcp4()]));
    assert_eq!(nsh([0x0f, 0xc2, 2, 1, 0, 0, 1, 255]).as_deref(), Ok(TCP_FLOW));
    assert_eq!(nsh([0x0f, 0xc1, 2, 1, 0, 0, 1, 255]), Err(Ignored::Malformed), "shorter than its header");
    assert_eq!(nsh([0x0f, 0xff, 2, 1, 0, 0, 1, 255]), Err(Ignored::Truncated), "longer than the frame");
    assert_eq!(nsh([0x0f, 0xc2, 2, 9, 0, 0, 1, 255]), Err(Ignored::NotIp));
    let over = |protocol, head: &[u8]| in_ethernet(0x0800, &ipv4([1; 4], [2; 4], protocol, &cat(&[head, &tcp4()])));
    assert_eq!(over(103, &[0x21, 0, 0, 0, 0, 0, 0, 0]).as_deref(), Ok(TCP_FLOW));
    assert_eq!(over(103, &[0x20, 0, 0, 0, 0, 0, 0, 0]), Err(Ignored::OtherProtocol), "a hello");
    assert_eq!(over(2, &[0x14, 0, 0, 0, 0x10, 0, 0, 0]), Err(Ignored::OtherProtocol), "a query of version 1");
    assert_eq!(over(2, &[0x16, 0, 0, 0, 224, 0, 0, 9]), Err(Ignored::OtherProtocol), "a membership report");
    assert_eq!(over(47, &[0x40, 0, 8, 0, 0, 0, 0, 0, 0, 1, 0, 200]), Err(Ignored::Truncated), "routing to nowhere");
    assert_eq!(over(47, &[0, 0, 0x12, 0x34]), Err(Ignored::OtherProtocol));
    assert_eq!(over(47, &[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x30, 0, 0, 0, 0, 0, 0, 0]), Err(Ignored::OtherProtocol));
    assert_eq!(over(47, &[0, 0, 0x88, 0x3e, 0x40, 0, 1, 1]).as_deref(), Ok(TCP_FLOW), "the alternative bucket");
    assert_eq!(in_ethernet(0x8847, &[0, 6, 0x40, 255].repeat(20)), Err(Ignored::Truncated), "labels without an end");
}

#[test]
fn too_many_layers_are_malformed() {
    let tags = |count: usize| cat(&[&[0u8, 7, 0x81, 0].repeat(count), &[0, 7, 8, 0], &tcp4()]);
    assert_eq!(in_ethernet(0x8100, &tags(30)).as_deref(), Ok(TCP_FLOW));
    assert_eq!(in_ethernet(0x8100, &tags(300)), Err(Ignored::Malformed));
    let paths = (0..100).fold(tcp4(), |inner, _| cat(&[&[0x0f, 0xc2, 2, 4, 0, 0, 1, 255], &inner]));
    assert_eq!(in_ethernet(0x894f, &paths), Err(Ignored::Malformed));
    // Datagrams in datagrams, each completed by two fragments.
    let mut inner = tcp4();
    let mut parser = Parser::default();
    for id in 0..100 {
        inner.resize(inner.len().next_multiple_of(8), 0);
        let half = inner.len() / 16 * 8;
        let first = ipv4_fragment(A, B, 4, &inner[..half], id, 1 << 13);
        assert_eq!(flow_with(&mut parser, 1, &ethernet(0x0800, &first)), Err(Ignored::Fragment));
        inner = ipv4_fragment(A, B, 4, &inner[half..], id, half as u16);
    }
    assert_eq!(flow_with(&mut parser, 1, &ethernet(0x0800, &inner)), Err(Ignored::Malformed));
}
