//! Whole runs: the flows of a capture, the balance, the exit status.

use std::path::PathBuf;

use serde_json::Value;

use super::frames::*;
use crate::args::{Args, Command};
use crate::timeouts::SECOND;
use crate::{Outcome, run};

const START: u64 = 1_700_000_000 * SECOND;

/// A file for one test, removed when dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("conntrack-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("the temporary directory is writable");
        TempFile(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub struct Run {
    pub outcome: Outcome,
    pub report: String,
    pub problems: String,
    pub json: Value,
}

/// Runs on this capture, or on the shipped one.
pub fn conntrack(name: &str, capture: Option<&[u8]>, options: &[&str]) -> Run {
    let json = TempFile::new(&format!("{name}.json"), b"");
    let capture = capture.map(|bytes| TempFile::new(&format!("{name}.pcap"), bytes));
    let mut line: Vec<std::ffi::OsString> = vec!["conntrack".into(), "--json".into(), json.0.clone().into()];
    line.extend(options.iter().map(Into::into));
    line.extend(capture.iter().map(|file| file.0.clone().into()));
    let Ok(Command::Run(args)) = Args::parse(line) else { panic!("the options are correct") };
    let (mut report, mut problems) = (Vec::new(), Vec::new());
    let outcome = run(&args, &mut report, &mut problems);
    let text = |bytes| String::from_utf8(bytes).expect("the report is text");
    let json = std::fs::read_to_string(&json.0).expect("the file is there");
    Run {
        outcome,
        report: text(report),
        problems: text(problems),
        json: serde_json::from_str(&json).unwrap_or(Value::Null),
    }
}

/// Returns one line per flow: protocol, ends, packets and bytes from `a` to `b` and back, state.
pub fn flows(run: &Run) -> Vec<String> {
    let of = |flow: &Value, name: &str| match &flow[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let fields = ["proto", "a", "b", "packets_ab", "bytes_ab", "packets_ba", "bytes_ba", "state"];
    let lines = run.json["flows"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
    lines.map(|flow| fields.map(|name| of(flow, name)).join(" ")).collect()
}

/// Returns a capture of two connections, a DNS lookup, a ping, and a frame that is not IP.
fn small_capture() -> Vec<u8> {
    let mut frames = connection((A, 40000), (B, 80));
    frames.extend(connection((host(9), 80), (A, 9)));
    frames.push(ipv4(A, B, 17, &udp(5000, 53, b"query")));
    frames.push(ipv4(B, A, 17, &udp(53, 5000, b"an answer")));
    frames.push(ipv4(A, B, 1, &icmp(8, [0, 7, 0, 1], b"")));
    let mut shots: Vec<Shot> =
        frames.iter().zip(0..).map(|(packet, at)| Shot::new(START + at * SECOND, ethernet(0x0800, packet))).collect();
    shots.push(Shot::new(START, ethernet(0x0806, &[0; 28])));
    pcap(1, false, false, &shots)
}

#[test]
fn the_flows_of_a_small_capture_are_reported_one_by_one() {
    for workers in ["1", "3"] {
        let run = conntrack(&format!("small{workers}"), Some(&small_capture()), &["--workers", workers]);
        assert_eq!(run.outcome, Outcome::Balanced, "{}", run.problems);
        assert_eq!(
            flows(&run),
            [
                "tcp 10.0.0.1:40000 10.0.0.2:80 2 108 2 108 FIN_WAIT",
                "tcp 10.0.0.9:80 10.0.0.1:9 2 108 2 108 FIN_WAIT",
                "udp 10.0.0.1:5000 10.0.0.2:53 1 47 1 51 REPLIED",
                "icmp 10.0.0.1:7 10.0.0.2:7 1 42 0 0 UNREPLIED",
            ]
        );
        assert_eq!(
            (&run.json["packets"], &run.json["bytes"], &run.json["ignored"]),
            (&11.into(), &572.into(), &1.into())
        );
        let first = &run.json["flows"][2]["first"];
        assert_eq!(first.as_f64(), Some(1_700_000_008.0));
    }
}

#[test]
fn the_shipped_capture_is_reported_correctly() {
    let run = conntrack("shipped", None, &[]);
    assert_eq!(run.outcome, Outcome::Balanced, "{}", run.problems);
    assert_eq!(run.json["packets"], 14_000);
    assert_eq!(run.json["bytes"], 3_954_356);
    let flows = flows(&run);
    let count = |proto: &str| flows.iter().filter(|flow| flow.starts_with(proto)).count();
    assert_eq!((count("tcp "), count("udp "), count("icmp ")), (210, 119, 1));
    assert_eq!(flows[0], "tcp 127.0.0.1:33210 127.0.0.1:8081 516 57104 514 295564 ESTABLISHED");
    assert!(run.report.contains("balanced: every packet was exported exactly once"), "{}", run.report);
}

#[test]
fn rounds_are_merged_and_old_ones_are_evicted() {
    let run = conntrack("rounds", None, &["--repeat", "60", "--workers", "2"]);
    assert_eq!(run.outcome, Outcome::Balanced, "{}", run.problems);
    assert_eq!(run.json["packets"], 60 * 14_000);
    assert_eq!(flows(&run).len(), 330);
    assert_eq!(run.json["registry"]["inserted"], 60 * 330);
    assert_eq!(run.json["registry"]["exported"], 60 * 330);
    assert!(flows(&run)[0].starts_with("tcp 127.0.0.1:33210 127.0.0.1:8081 30960 3426240 30840 "));
    assert!(run.json["registry"]["reaped"].as_u64() > Some(0), "{}", run.report);
}

#[test]
fn a_flow_that_idled_out_is_a_new_flow_when_it_comes_back() {
    let packet = ethernet(0x0800, &ipv4(A, B, 17, &udp(5000, 53, b"")));
    let shots = [0, 30, 61].map(|at| Shot::new(START + at * SECOND, packet.clone()));
    let inserted = |options: &[&str], name| {
        let run = conntrack(name, Some(&pcap(1, true, true, &shots)), options);
        assert_eq!(run.outcome, Outcome::Balanced, "{}", run.problems);
        assert_eq!(flows(&run), ["udp 10.0.0.1:5000 10.0.0.2:53 3 126 0 0 UNREPLIED"]);
        run.json["registry"]["inserted"].as_u64()
    };
    assert_eq!(inserted(&[], "idle30"), Some(2));
    assert_eq!(inserted(&["--timeouts", "udp=31"], "idle31"), Some(1));
    assert_eq!(inserted(&["--timeouts", "udp=29.9"], "idle29"), Some(3));
}

#[test]
fn reused_ports_are_several_flows_that_are_reported_as_one() {
    let mut frames = connection((A, 40000), (B, 80));
    frames.push(ipv4(A, B, 6, &tcp(40000, 80, 0x04)));
    frames.extend(connection((A, 40000), (B, 80)));
    let shots: Vec<Shot> = frames.iter().map(|packet| Shot::new(START, ethernet(0x0800, packet))).collect();
    let run = conntrack("reuse", Some(&pcap(1, false, false, &shots)), &[]);
    assert_eq!(flows(&run), ["tcp 10.0.0.1:40000 10.0.0.2:80 5 270 4 216 FIN_WAIT"]);
    assert_eq!(run.json["registry"]["inserted"], 2);
}

#[test]
fn a_damaged_capture_is_reported_after_its_readable_part() {
    let whole = small_capture();
    let run = conntrack("damaged", Some(&whole[..whole.len() - 60]), &[]);
    assert_eq!(run.outcome, Outcome::Damaged);
    assert_eq!(run.json["packets"], 10);
    assert!(run.report.contains("balanced: every packet was exported exactly once"), "{}", run.report);
    assert!(run.problems.contains("truncated: the capture ends inside the record at byte 714"), "{}", run.problems);
}

#[test]
fn a_file_that_is_no_capture_is_refused() {
    let run = conntrack("text", Some(b"this is no capture"), &[]);
    assert_eq!((run.outcome, run.report.as_str()), (Outcome::Damaged, ""));
    assert!(run.problems.contains("neither pcap nor pcapng at byte 0"), "{}", run.problems);
}
