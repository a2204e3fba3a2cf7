//! The captures in `examples/data/frames`: one or two frames each, made by hand, with the expected answer for each.

use std::path::PathBuf;

use super::captures::read;
use super::runs::{conntrack, flows};
use crate::Outcome;
use crate::packet::Parser;

enum Answer {
    /// The capture holds one packet, with this protocol and these ends, from the first to the second.
    Flow(&'static str),
    /// There is no report, and the error contains this text.
    Refused(&'static str),
}
use Answer::*;

const TCP: Answer = Flow("tcp 10.0.0.1:40000 10.0.0.2:80");
const UDP: Answer = Flow("udp 10.0.0.1:1111 10.0.0.2:53");

const ANSWERS: &[(&str, Answer)] = &[
    ("chdlc", TCP),
    ("etag_8021br", TCP),
    ("gre_mpls_multicast", UDP),
    ("gre_wccp1", Flow("tcp 10.1.0.1:40000 10.1.0.2:80")),
    ("hoa_udp", Flow("udp 2001:db8::aa:1111 2001:db8::2:53")),
    ("macsec_clear", UDP),
    ("nsh", TCP),
    ("pbb_8021ah", TCP),
    ("pcap_linktype_reserved_bits", Refused("unsupported: link type field 0x00300001, which has reserved bits set")),
    ("pcap_version_1", Refused("unsupported: pcap version 1.0 (2.0 to 2.4 are read)")),
    ("pcapng_version_0", Refused("unsupported: pcapng version 0.1 (1.0 and 1.2 are read)")),
    ("pcapng_version_2", Refused("unsupported: pcapng version 2.0 (1.0 and 1.2 are read)")),
    ("ppp_is_chdlc", TCP),
    ("ppp_mpls", UDP),
    ("ppp_mpls_multicast", UDP),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/frames")
}

fn load(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("{name}.pcap"))).expect("the capture can be read")
}

#[test]
fn each_small_capture_has_the_right_answer() {
    for (name, answer) in ANSWERS {
        let run = conntrack(name, Some(&load(name)), &[]);
        match answer {
            Flow(expected) => {
                assert_eq!(run.outcome, Outcome::Balanced, "{name}: {}", run.problems);
                assert_eq!((&run.json["packets"], &run.json["ignored"]), (&1.into(), &0.into()), "{name}");
                let flows = flows(&run);
                assert!(flows.len() == 1 && flows[0].starts_with(&format!("{expected} 1 ")), "{name}: {flows:?}");
            }
            Refused(why) => {
                assert_eq!((run.outcome, run.report.as_str()), (Outcome::Damaged, ""), "{name}");
                assert!(run.problems.contains(why), "{name}: {}", run.problems);
            }
        }
    }
}

#[test]
fn each_small_capture_is_in_the_table() {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .expect("the folder can be read")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".pcap").map(str::to_string))
        .collect();
    names.sort();
    let listed: Vec<&str> = ANSWERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, listed);
}

/// Reads and parses a capture that may be damaged. Reading must end without a panic, and with no more frames than
/// the file has room for. The contents do not matter.
fn survive(file: &[u8]) {
    let frames = read(file).0;
    assert!(frames.len() <= file.len() / 16, "more frames than the file has room for");
    let mut parser = Parser::default();
    for (_, _, link, data) in frames {
        let _ = parser.parse(link, &data);
    }
}

#[test]
fn no_truncation_panics() {
    for (name, _) in ANSWERS {
        let file = load(name);
        (0..file.len()).for_each(|length| survive(&file[..length]));
        // The frame is cut, and the record says so: every layer meets the end of the data.
        for length in 40..file.len() {
            let mut cut = file[..length].to_vec();
            cut[32..36].copy_from_slice(&(length as u32 - 40).to_le_bytes());
            survive(&cut);
        }
    }
}

#[test]
fn no_flipped_bit_panics() {
    for (name, _) in ANSWERS {
        let file = load(name);
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            survive(&flipped);
        }
    }
}

#[test]
fn no_random_bytes_panic() {
    // xorshift64 with a constant seed, so that a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for (name, _) in ANSWERS {
        let file = load(name);
        for _ in 0..2000 {
            let mut mutated = file.clone();
            for _ in 0..1 + random() % 8 {
                // The headers of the file and the record stay intact, so that the bytes reach the parser.
                let at = 40 + random() % (file.len() - 40);
                mutated[at] = random() as u8;
            }
            survive(&mutated);
        }
    }
}
