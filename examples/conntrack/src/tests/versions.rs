//! Versions and header fields of captures: which ones are read, and which ones are refused.

use super::captures::{read, read_whole};
use super::frames::*;

const TIME: u64 = 1_700_000_000_123_456_000;

/// Returns a capture with one frame, of this version and with this link type field.
fn pcap_of(is_big: bool, version: (u16, u16), network: u32) -> Vec<u8> {
    let half = |value: u16| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut file = pcap(network, is_big, false, &[Shot { time: TIME, data: b"abc".to_vec(), length: 1500 }]);
    file[4..6].copy_from_slice(&half(version.0));
    file[6..8].copy_from_slice(&half(version.1));
    file
}

fn refusal(file: &[u8]) -> String {
    let (frames, error) = read(file);
    assert!(frames.is_empty(), "a refused capture has no frames");
    error.expect("it is refused").to_string()
}

#[test]
fn pcap_versions_that_do_not_exist_are_refused() {
    for is_big in [false, true] {
        for version in
            [(0, 0), (0, 4), (1, 0), (1, 4), (2, 5), (2, u16::MAX), (3, 0), (4, 2), (543, 0), (0x0200, 0x0400)]
        {
            let (major, minor) = version;
            let expected = format!("unsupported: pcap version {major}.{minor} (2.0 to 2.4 are read) at byte 0");
            assert_eq!(refusal(&pcap_of(is_big, version, 1)), expected);
        }
    }
}

#[test]
fn older_pcap_versions_have_their_lengths_in_another_order() {
    for is_big in [false, true] {
        let expected = [(TIME, 1500, 1, b"abc".to_vec())];
        let as_written = |minor| pcap_of(is_big, (2, minor), 1);
        let swapped = |minor| {
            let mut file = as_written(minor);
            file[32..40].rotate_left(4);
            file
        };
        for file in [swapped(0), swapped(1), swapped(2), swapped(3), as_written(3), as_written(4)] {
            assert_eq!(read_whole(&file), expected);
        }
    }
}

#[test]
fn reserved_bits_of_the_link_type_field_are_refused() {
    for is_big in [false, true] {
        for bit in (16..26).chain([27]) {
            let network = 1 | 1 << bit;
            let expected =
                format!("unsupported: link type field {network:#010x}, which has reserved bits set at byte 0");
            assert_eq!(refusal(&pcap_of(is_big, (2, 4), network)), expected);
        }
        // The length of a frame check sequence, and the bit that says that it is known.
        for network in [0x2400_0001, 0x2000_0001, 0x0400_0001, 0xf400_0001] {
            assert_eq!(read_whole(&pcap_of(is_big, (2, 4), network))[0].2, 1);
        }
    }
}

fn section_of(is_big: bool, version: (u16, u16)) -> Vec<u8> {
    let half = |value: u16| if is_big { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut section = section(is_big);
    section[12..14].copy_from_slice(&half(version.0));
    section[14..16].copy_from_slice(&half(version.1));
    section
}

fn pcapng_of(is_big: bool, version: (u16, u16)) -> Vec<u8> {
    cat(&[&section_of(is_big, version), &interface(is_big, 1, 0, &[]), &enhanced(is_big, 0, 7, b"abc")])
}

#[test]
fn pcapng_versions_that_do_not_exist_are_refused() {
    for is_big in [false, true] {
        for minor in [0, 2] {
            assert_eq!(read_whole(&pcapng_of(is_big, (1, minor))), [(7000, 3, 1, b"abc".to_vec())]);
        }
        for version in [(0, 0), (0, 1), (0, 2), (1, 1), (1, 3), (1, u16::MAX), (2, 0), (2, 4), (0x0100, 0)] {
            let (major, minor) = version;
            let expected = format!("unsupported: pcapng version {major}.{minor} (1.0 and 1.2 are read) at byte 0");
            assert_eq!(refusal(&pcapng_of(is_big, version)), expected);
        }
    }
}

#[test]
fn a_later_section_of_another_version_ends_the_capture_there() {
    let (good, bad) = (pcapng_of(false, (1, 0)), pcapng_of(true, (3, 0)));
    let (frames, error) = read(&cat(&[&good, &bad]));
    assert_eq!(frames.len(), 1);
    let expected = format!("unsupported: pcapng version 3.0 (1.0 and 1.2 are read) at byte {}", good.len());
    assert_eq!(error.map(|error| error.to_string()), Some(expected));
}

#[test]
fn a_section_header_too_short_for_a_version_is_malformed() {
    for length in [16u32, 20, 24] {
        let mut file = section(false);
        file[4..8].copy_from_slice(&length.to_le_bytes());
        file[length as usize - 4..][..4].copy_from_slice(&length.to_le_bytes());
        assert_eq!(refusal(&file), "malformed: block length at byte 0");
    }
}
