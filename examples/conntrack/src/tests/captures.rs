//! File formats, and damaged files.

use std::io::Write;

use super::frames::*;
use crate::capture::{Capture, CaptureError, Problem};

/// Time, length, link type and captured bytes of each frame, and the error that ended reading, if any.
pub type Contents = (Vec<(u64, u32, u16, Vec<u8>)>, Option<CaptureError>);

pub fn read(file: &[u8]) -> Contents {
    let mut frames = Vec::new();
    let mut capture = match Capture::open(file) {
        Ok(capture) => capture,
        Err(error) => return (frames, Some(error)),
    };
    loop {
        match capture.next() {
            Ok(Some(frame)) => frames.push((frame.time, frame.length, frame.link, frame.data.to_vec())),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

pub fn read_whole(file: &[u8]) -> Vec<(u64, u32, u16, Vec<u8>)> {
    let (frames, error) = read(file);
    assert!(error.is_none(), "{error:?}");
    frames
}

const TIME: u64 = 1_700_000_000_123_456_000;

#[test]
fn pcap_is_read_in_both_byte_orders_and_both_resolutions() {
    let shots = [Shot::new(TIME, b"abc".to_vec()), Shot { time: TIME + 1000, data: b"de".to_vec(), length: 1500 }];
    for is_big in [false, true] {
        for is_nano in [false, true] {
            let frames = read_whole(&pcap(113, is_big, is_nano, &shots));
            assert_eq!(frames, [(TIME, 3, 113, b"abc".to_vec()), (TIME + 1000, 1500, 113, b"de".to_vec())]);
        }
    }
    let exact = [Shot::new(TIME + 789, Vec::new())];
    assert_eq!(read_whole(&pcap(1, false, true, &exact))[0].0, TIME + 789);
}

#[test]
fn pcapng_interfaces_have_their_own_link_types_and_clocks() {
    for is_big in [false, true] {
        let milliseconds_since_1000 =
            if is_big { [0, 14, 0, 8, 0, 0, 0, 0, 0, 0, 3, 232] } else { [14, 0, 8, 0, 232, 3, 0, 0, 0, 0, 0, 0] };
        let resolution = |value: u8| if is_big { [0, 9, 0, 1, value, 0, 0, 0] } else { [9, 0, 1, 0, value, 0, 0, 0] };
        let file = cat(&[
            &section(is_big),
            &interface(is_big, 1, 0, &[]),
            &interface(is_big, 113, 0, &cat(&[&resolution(3), &milliseconds_since_1000])),
            &interface(is_big, 101, 0, &resolution(0x8a)),
            &enhanced(is_big, 0, 5_000_007, b"a"),
            &block(is_big, 5, b"statistics are skipped"),
            &enhanced(is_big, 1, 5_007, b"bb"),
            &enhanced(is_big, 2, 5 * 1024 + 512, b"ccccc"),
        ]);
        let expected = [
            (5_000_007_000, 1, 1, b"a".to_vec()),
            (1_005_007_000_000, 2, 113, b"bb".to_vec()),
            (5_500_000_000, 5, 101, b"ccccc".to_vec()),
        ];
        assert_eq!(read_whole(&file), expected);
    }
}

#[test]
fn simple_packets_have_the_time_of_the_packet_before_them_and_the_interfaces_limit() {
    let file = cat(&[
        &section(false),
        &interface(false, 1, 6, &[]),
        &enhanced(false, 0, 1_000_000, b"a"),
        &block(false, 3, &cat(&[&100u32.to_le_bytes(), b"abcdef"])),
        &block(false, 3, &cat(&[&3u32.to_le_bytes(), b"xyz"])),
    ]);
    let expected = [
        (1_000_000_000, 1, 1, b"a".to_vec()),
        (1_000_000_000, 100, 1, b"abcdef".to_vec()),
        (1_000_000_000, 3, 1, b"xyz".to_vec()),
    ];
    assert_eq!(read_whole(&file), expected);
}

#[test]
fn a_new_section_may_change_the_byte_order_and_forgets_the_interfaces() {
    let (little, big) =
        (cat(&[&section(false), &interface(false, 1, 0, &[])]), cat(&[&section(true), &interface(true, 9, 0, &[])]));
    let file = cat(&[&little, &enhanced(false, 0, 1, b"a"), &big, &enhanced(true, 0, 2, b"b")]);
    let links: Vec<u16> = read_whole(&file).iter().map(|frame| frame.2).collect();
    assert_eq!(links, [1, 9]);
    let without = cat(&[&little, &section(true), &enhanced(true, 0, 1, b"a")]);
    let (frames, error) = read(&without);
    assert!(frames.is_empty() && matches!(error, Some(CaptureError { what: Problem::Malformed(_), .. })), "{error:?}");
}

#[test]
fn obsolete_packet_blocks_are_read() {
    let body = cat(&[&[0, 0, 0, 0], &[0; 4], &7u32.to_le_bytes(), &2u32.to_le_bytes(), &60u32.to_le_bytes(), b"ab"]);
    let file = cat(&[&section(false), &interface(false, 1, 0, &[]), &block(false, 2, &body)]);
    assert_eq!(read_whole(&file), [(7000, 60, 1, b"ab".to_vec())]);
}

#[test]
fn compressed_captures_are_recognised() -> std::io::Result<()> {
    let plain = pcap(1, false, false, &[Shot::new(TIME, b"abc".to_vec())]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain)?;
    assert_eq!(read_whole(&gzip.finish()?), read_whole(&plain));
    assert_eq!(read_whole(crate::SHIPPED).len(), 14_000);
    Ok(())
}

#[test]
fn a_truncated_capture_is_read_up_to_its_end() {
    let shots: Vec<Shot> = (0..3).map(|at| Shot::new(TIME + at, vec![7; 10])).collect();
    let file = pcap(1, false, true, &shots);
    for length in 24..file.len() {
        let (frames, error) = read(&file[..length]);
        let whole = (length - 24) / 26;
        assert_eq!(frames.len(), whole);
        if (length - 24) % 26 == 0 {
            assert!(error.is_none(), "a capture may end between two records");
        } else {
            let error = error.expect("a capture may not end inside a record");
            assert!(matches!(error.what, Problem::Truncated(_)));
            assert_eq!(error.offset, 24 + 26 * whole as u64, "the error does not name the record that is cut");
        }
    }
}

#[test]
fn damage_is_reported_at_its_position() {
    let shots: Vec<Shot> = (0..3).map(|at| Shot::new(TIME + at, vec![7; 10])).collect();
    let mut file = pcap(1, false, true, &shots);
    file[24 + 26 + 8..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let (frames, error) = read(&file);
    assert_eq!(frames.len(), 1);
    let text = error.expect("no frame is that long").to_string();
    assert_eq!(text, "malformed: record longer than any frame at byte 50");

    let head = cat(&[&section(false), &interface(false, 1, 0, &[]), &enhanced(false, 0, 1, b"a")]);
    let mut damaged = cat(&[&head, &enhanced(false, 0, 1, b"bb")]);
    let last = damaged.len() - 4;
    damaged[last] += 4;
    let (frames, error) = read(&damaged);
    assert_eq!((frames.len(), error.expect("the lengths differ").offset), (1, head.len() as u64));

    for (file, expected) in [
        (&b""[..], "truncated: the capture ends inside the file header at byte 0"),
        (b"GIF89a, or so", "neither pcap nor pcapng at byte 0"),
        (&file[..20], "truncated: the capture ends inside the file header at byte 0"),
    ] {
        assert_eq!(read(file).1.map(|error| error.to_string()).as_deref(), Some(expected));
    }
}

/// With any byte damaged, reading ends without a panic.
#[test]
fn no_damage_panics() {
    let frame = ethernet(0x0800, &ipv4(A, B, 6, &tcp(1, 2, SYN)));
    let ng = cat(&[
        &section(true),
        &interface(true, 1, 0, &[0, 9, 0, 1, 6, 0, 0, 0]),
        &enhanced(true, 0, 1, &frame),
        &block(true, 3, &cat(&[&54u32.to_be_bytes(), &frame])),
        &block(true, 2, &[0; 28]),
    ]);
    for file in [pcap(1, false, true, &[Shot::new(TIME, frame)]), ng] {
        for at in 0..file.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = value;
                let mut parser = crate::packet::Parser::default();
                for (_, _, link, data) in read(&damaged).0 {
                    let _ = parser.parse(link, &data);
                }
            }
        }
    }
}
