//! Wrong timestamps: their effect on flows, and how they are reported.

use super::captures::read_whole;
use super::frames::*;
use super::runs::{Run, conntrack, flows};
use crate::Outcome;
use crate::timeouts::SECOND;

const START: u64 = 1_700_000_000 * SECOND;
const YEAR: u64 = 365 * 24 * 3600 * SECOND;

/// Returns three UDP flows that take turns, one packet per second, so that none is idle for long.
fn busy_shots() -> Vec<Shot> {
    (0..60)
        .map(|at| {
            let packet = ipv4(host(at as u8 % 3 + 1), B, 17, &udp(5000, 53, b"x"));
            Shot::new(START + at * SECOND, ethernet(0x0800, &packet))
        })
        .collect()
}

/// Runs on the same capture with the time of some packets changed.
fn with_times(name: &str, change: impl Fn(usize, u64) -> u64) -> Run {
    let mut shots = busy_shots();
    shots.iter_mut().enumerate().for_each(|(at, shot)| shot.time = change(at, shot.time));
    let run = conntrack(name, Some(&pcap(1, false, false, &shots)), &["--workers", "2"]);
    assert_eq!(run.outcome, Outcome::Balanced, "{}", run.problems);
    assert_eq!(run.json["packets"], 60);
    run
}

/// Returns the number of flows inserted, and of wrong timestamps: out of range, outliers, steps back.
fn figures(run: &Run) -> (u64, [u64; 3]) {
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let times = &run.json["timestamps"];
    (
        number(&run.json["registry"]["inserted"]),
        ["out_of_range", "outliers", "steps_back"].map(|name| number(&times[name])),
    )
}

#[test]
fn a_fraction_of_a_second_out_of_range_moves_no_clock() {
    for is_big in [false, true] {
        for (is_nano, fraction) in
            [(false, 0x8000_0000u32), (false, 1_000_000), (false, u32::MAX), (true, 1_000_000_000), (true, u32::MAX)]
        {
            let mut file = pcap(1, is_big, is_nano, &busy_shots());
            let bytes = if is_big { fraction.to_be_bytes() } else { fraction.to_le_bytes() };
            let record = 24 + 30 * (16 + 43);
            file[record + 4..][..4].copy_from_slice(&bytes);
            let largest = if is_nano { 999_999_999 } else { 999_999_000 };
            assert_eq!(read_whole(&file)[30].0, START + 30 * SECOND + largest);

            let run = conntrack(&format!("fraction{is_big}{is_nano}{fraction}"), Some(&file), &[]);
            assert_eq!(figures(&run), (3, [1, 0, 0]), "{}", run.report);
            assert!(run.report.contains("wrong timestamps 1: 1 out of range\n"), "{}", run.report);
        }
    }
}

#[test]
fn the_largest_fraction_of_a_second_is_in_range() {
    for (is_nano, fraction) in [(false, 999_999_000), (true, 999_999_999)] {
        let file = pcap(1, false, is_nano, &[Shot::new(START + fraction, ethernet(0x0800, &[]))]);
        assert_eq!(read_whole(&file)[0].0, START + fraction);
        let run = conntrack(&format!("largest{is_nano}"), Some(&file), &[]);
        assert_eq!(figures(&run), (0, [0, 0, 0]));
        assert!(run.report.contains("wrong timestamps 0\n"), "{}", run.report);
    }
}

#[test]
fn a_single_wild_timestamp_expires_no_flow() {
    for (name, wild) in [
        ("ahead", START + 30 * SECOND + 2147 * SECOND),
        ("years-ahead", START + 50 * YEAR),
        ("years-ago", START - 50 * YEAR),
        ("zero", 0),
    ] {
        // The last packet, less than 30 days ahead, counts as one after a pause.
        let last = if name == "ahead" { 58 } else { 59 };
        for at in [0, 1, 30, last] {
            let run = with_times(&format!("{name}{at}"), |packet, time| if packet == at { wild } else { time });
            let (inserted, _) = figures(&run);
            assert_eq!(inserted, 3, "{name} at {at}: {}", run.report);
        }
        let run = with_times(name, |packet, time| if packet == 30 { wild } else { time });
        assert_eq!(figures(&run), (3, [0, 1, 0]), "{name}: {}", run.report);
        assert!(run.report.contains("wrong timestamps 1: 1 far from those before and after\n"), "{}", run.report);
        // The flow of the packet reports the clock's time for it.
        let first: Vec<f64> =
            run.json["flows"].as_array().expect("flows").iter().filter_map(|flow| flow["first"].as_f64()).collect();
        assert_eq!(first, [1.7e9, 1.7e9 + 1.0, 1.7e9 + 2.0]);
    }
}

#[test]
fn timestamps_that_run_backwards_expire_no_flow_and_stop_no_clock() {
    let run = with_times("reversed", |packet, _| START - packet as u64 * SECOND);
    assert_eq!(figures(&run).0, 3, "{}", run.report);

    let run = with_times("set-back", |packet, time| if packet < 30 { time } else { time - 3600 * SECOND });
    assert_eq!(figures(&run), (3, [0, 0, 1]), "{}", run.report);
    assert!(run.report.contains("wrong timestamps 1: 1 the first after a step back\n"), "{}", run.report);

    // After the step, flows idle out as usual: the first flow has no packet for 31 seconds.
    let run = with_times("set-back-idle", |packet, time| match packet {
        0..30 => time,
        57.. => time - YEAR + 31 * SECOND,
        _ => time - YEAR,
    });
    assert_eq!(figures(&run).0, 6, "{}", run.report);
}

#[test]
fn a_pause_of_years_is_a_pause() {
    let run = with_times("pause", |packet, time| if packet < 30 { time } else { time + 3 * YEAR });
    assert_eq!(figures(&run), (6, [0, 0, 0]), "{}", run.report);
    let later = with_times("pause-goes-on", |packet, time| time + packet as u64 / 15 * YEAR);
    assert_eq!(figures(&later), (12, [0, 0, 0]), "time goes on after a pause: {}", later.report);
}

#[test]
fn a_pcapng_time_out_of_range_is_the_time_before() {
    // An offset of a hundred years before 1970 makes small times negative.
    let offset = [14, 0, 8, 0].into_iter().chain((-3_155_760_000i64).to_le_bytes()).collect::<Vec<u8>>();
    let frame = ethernet(0x0800, &ipv4(A, B, 17, &udp(5000, 53, b"x")));
    let file = cat(&[
        &section(false),
        &interface(false, 1, 0, &[]),
        &interface(false, 1, 0, &offset),
        &enhanced(false, 0, START / 1000, &frame),
        &enhanced(false, 1, 7, &frame),
        &enhanced(false, 1, u64::MAX, &frame),
    ]);
    let times: Vec<u64> = read_whole(&file).iter().map(|frame| frame.0).collect();
    assert_eq!(times, [START, START, START]);
    let run = conntrack("pcapng-range", Some(&file), &[]);
    assert_eq!(figures(&run), (1, [2, 0, 0]), "{}", run.report);
    assert_eq!(flows(&run).len(), 1);
}
