//! The capture's clock: the time at which a packet with a given timestamp arrives, as far as the flows are concerned.
//!
//! Timestamps can be wrong: a record may be damaged, or the clock of the capturing machine may have been set. So
//! flows expire by this clock, and not by the timestamps. The clock has two rules:
//!
//! 1. It never goes back, except by at most ten seconds for packets that are out of order.
//! 2. It jumps ahead by more than ten seconds only if the packets after the jump confirm it.
//!
//! If the timestamp of a packet is more than ten seconds away from the clock, the packet is held until four more
//! packets have arrived or the capture ends. Each of their timestamps is nearer either to that of the held packet
//! or to the clock:
//!
//! | most are nearer to | the held packet is | what happens |
//! |---|---|---|
//! | the held packet, which is ahead | after a pause | the clock goes to its time, and idle flows expire |
//! | the held packet, which is behind | after a step back | the clock runs on from where it was |
//! | the clock, or a tie | an outlier | it takes the clock's time, and no flow expires |
//!
//! A capture may hold the packets of two clocks in turns. So a jump ahead that undoes at least half of the steps
//! back before it is not a pause: the clock runs on, and agrees with the timestamps again.
//!
//! The last packet has no packet after it. It is an outlier if it is more than 30 days away. The first packet has
//! no packet before it. It is an outlier if it is more than 30 days away from the second packet, and from the
//! median of itself and the next four.
//!
//! Flows report timestamps, not this clock: the two differ after a step back. The timestamp of an outlier is not
//! reported: the packet gets a timestamp that fits the clock.

use std::collections::VecDeque;

use crate::timeouts::SECOND;

/// How far a timestamp may be from the clock without confirmation.
const NEAR: u64 = 10 * SECOND;
/// The same bound at the ends of the capture, where there is no confirmation.
const FAR: u64 = 30 * 24 * 3600 * SECOND;

/// The number of packets that decide about the one before them.
const WITNESSES: usize = 4;

/// The time at which a packet arrived, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// By the capture's clock.
    pub clock: u64,
    /// By its timestamp, since 1970.
    pub stamp: u64,
}

impl Moment {
    /// Returns the same moment in a later round of the replay.
    pub fn shifted(self, by: u64) -> Self {
        Moment { clock: self.clock.saturating_add(by), stamp: self.stamp.saturating_add(by) }
    }
}

/// The number of timestamps that the clock did not follow.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Oddities {
    /// Packets that took the clock's time because their own was far from their neighbours'.
    pub outliers: u64,
    /// How often the timestamps stepped back, and stayed back.
    pub steps_back: u64,
}

/// Gives each packet its time. Packets leave in the order in which they entered.
pub struct Timeline<T> {
    /// The oldest undecided packet, and the witnesses after it.
    held: VecDeque<(u64, T)>,
    decided: VecDeque<(Moment, T)>,
    /// The latest time so far, or `None` before the first packet is decided.
    clock: Option<u64>,
    /// How far the clock is ahead of the timestamps, after steps back.
    ahead: u64,
    oddities: Oddities,
}

impl<T> Timeline<T> {
    pub fn new() -> Self {
        Timeline {
            held: VecDeque::new(),
            decided: VecDeque::new(),
            clock: None,
            ahead: 0,
            oddities: Oddities::default(),
        }
    }

    /// Adds a packet.
    pub fn push(&mut self, stamp: u64, item: T) {
        self.held.push_back((stamp, item));
        while self.decide(false) {}
    }

    /// Decides about all packets still held, as no more follow.
    pub fn finish(&mut self) {
        while self.decide(true) {}
    }

    /// Returns the next packet whose time is decided.
    pub fn pop(&mut self) -> Option<(Moment, T)> {
        self.decided.pop_front()
    }

    pub fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// Decides about the oldest held packet, if enough is known. Returns whether it did.
    fn decide(&mut self, is_end: bool) -> bool {
        let Some(&(stamp, _)) = self.held.front() else { return false };
        let is_known = is_end || self.held.len() > WITNESSES;
        let Some(clock) = self.clock else { return self.begin(stamp, is_known) };
        let away = |stamp: u64| stamp.saturating_add(self.ahead).abs_diff(clock);
        let is_believed = if away(stamp) <= NEAR {
            true
        } else if !is_known {
            return false;
        } else if self.held.len() == 1 {
            away(stamp) <= FAR
        } else {
            let witnesses = self.held.iter().skip(1);
            let confirming = witnesses.filter(|(witness, _)| witness.abs_diff(stamp) < away(*witness)).count();
            2 * confirming > self.held.len() - 1
        };
        if is_believed {
            self.believe(clock, stamp);
        } else {
            self.correct(clock);
        }
        true
    }

    /// Decides about the first packet of the capture.
    fn begin(&mut self, stamp: u64, is_known: bool) -> bool {
        let is_near_second = self.held.get(1).is_some_and(|(second, _)| second.abs_diff(stamp) <= FAR);
        if !is_near_second && !is_known {
            return false;
        }
        let mut stamps: Vec<u64> = self.held.iter().map(|(stamp, _)| *stamp).collect();
        stamps.sort_unstable();
        let median = stamps[(stamps.len() - 1) / 2];
        // If there are only two packets and they are far apart, neither is more credible.
        if is_near_second || stamps.len() <= 2 || stamp.abs_diff(median) <= FAR {
            self.believe(stamp, stamp);
        } else {
            let credible = stamps.iter().find(|stamp| stamp.abs_diff(median) <= FAR);
            self.correct(*credible.unwrap_or(&median));
        }
        true
    }

    /// Accepts the timestamp of the oldest held packet.
    fn believe(&mut self, clock: u64, stamp: u64) {
        let time = stamp.saturating_add(self.ahead);
        if clock.saturating_sub(time) > NEAR {
            self.ahead = clock - stamp;
            self.oddities.steps_back += 1;
        } else if time.saturating_sub(clock) > NEAR.max(self.ahead / 2) {
            self.ahead = clock.saturating_sub(stamp).min(self.ahead);
        }
        let time = stamp.saturating_add(self.ahead);
        self.emit(clock.max(time), Moment { clock: time, stamp });
    }

    /// Gives the oldest held packet the clock's time.
    fn correct(&mut self, clock: u64) {
        self.oddities.outliers += 1;
        self.emit(clock, Moment { clock, stamp: clock - self.ahead });
    }

    fn emit(&mut self, clock: u64, moment: Moment) {
        self.clock = Some(clock);
        self.decided.extend(self.held.pop_front().map(|(_, item)| (moment, item)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    const YEAR: u64 = 365 * DAY;

    /// Returns clock and timestamp of each packet, in seconds after a start, and what was odd.
    fn times(stamps: &[u64]) -> (Vec<(u64, u64)>, Oddities) {
        const START: u64 = 1_700_000_000;
        let mut timeline = Timeline::new();
        let mut moments = Vec::new();
        for (at, stamp) in stamps.iter().enumerate() {
            timeline.push((START + stamp) * SECOND, at);
            moments.extend(std::iter::from_fn(|| timeline.pop()));
        }
        timeline.finish();
        moments.extend(std::iter::from_fn(|| timeline.pop()));
        assert!(
            moments.iter().map(|(_, at)| *at).eq(0..stamps.len()),
            "the packets must come in order, and none may be lost"
        );
        let seconds = |time: u64| (time / SECOND).wrapping_sub(START);
        let moments = moments.iter().map(|(moment, _)| (seconds(moment.clock), seconds(moment.stamp))).collect();
        (moments, timeline.oddities())
    }

    fn odd(outliers: u64, steps_back: u64) -> Oddities {
        Oddities { outliers, steps_back }
    }

    /// Asserts that the clock follows the timestamps.
    fn assert_followed(stamps: &[u64]) {
        let expected = stamps.iter().map(|stamp| (*stamp, *stamp)).collect();
        assert_eq!(times(stamps), (expected, odd(0, 0)));
    }

    #[test]
    fn timestamps_are_followed_as_they_are() {
        assert_followed(&[]);
        assert_followed(&[5]);
        assert_followed(&[100, 101, 100, 109, 99, 110]);
    }

    #[test]
    fn pauses_of_any_length_are_followed() {
        assert_followed(&[0, 1000, 1001]);
        assert_followed(&[0, 1, 3 * YEAR, 3 * YEAR + 1]);
        assert_followed(&[0, 6 * 3600, 12 * 3600, 18 * 3600, 24 * 3600]);
        assert_followed(&[0, 5 * DAY + 1]);
        assert_followed(&[0, 1, YEAR, 2 * YEAR, 3 * YEAR, 3 * YEAR + 10]);
    }

    #[test]
    fn a_single_wild_timestamp_is_corrected() {
        for wild in [30, 2147, DAY, YEAR, 80 * YEAR] {
            let (moments, oddities) = times(&[100, 101, 100 + wild, 102, 103]);
            assert_eq!(moments, [(100, 100), (101, 101), (101, 101), (102, 102), (103, 103)]);
            assert_eq!(oddities, odd(1, 0));
        }
        let (moments, oddities) = times(&[10 * YEAR, 10 * YEAR + 1, 5, 10 * YEAR + 2]);
        assert_eq!(moments[2], (10 * YEAR + 1, 10 * YEAR + 1), "a timestamp in the past");
        assert_eq!(oddities, odd(1, 0));
    }

    #[test]
    fn three_wild_timestamps_in_a_row_are_corrected() {
        let (moments, oddities) = times(&[100, 101, 5 * YEAR, 5 * YEAR, 5 * YEAR + 1, 102, 103, 104]);
        let clocks: Vec<u64> = moments.iter().map(|(clock, _)| *clock).collect();
        assert_eq!((clocks, oddities), (vec![100, 101, 101, 101, 101, 102, 103, 104], odd(3, 0)));
        let (moments, oddities) = times(&[5, YEAR, 6, 9 * YEAR, 7, 3 * YEAR, 8, 9, 0]);
        assert_eq!(moments.last(), Some(&(0, 0)));
        assert_eq!(oddities, odd(3, 0), "every second timestamp");
    }

    #[test]
    fn a_wild_timestamp_at_either_end_is_corrected() {
        assert_eq!(times(&[50 * YEAR, 7, 8]), (vec![(7, 7), (7, 7), (8, 8)], odd(1, 0)));
        assert_eq!(times(&[0, 50 * YEAR, 50 * YEAR + 1]).0[0], (50 * YEAR, 50 * YEAR));
        assert_eq!(
            times(&[50 * YEAR, 20 * YEAR, 8, 7, 9]).0,
            [(7, 7), (7, 7), (8, 8), (7, 7), (9, 9)],
            "two wild timestamps"
        );
        assert_eq!(times(&[7, 50 * YEAR, 8]), (vec![(7, 7), (7, 7), (8, 8)], odd(1, 0)));
        assert_eq!(times(&[7, 8, 50 * YEAR]), (vec![(7, 7), (8, 8), (8, 8)], odd(1, 0)));
        assert_eq!(times(&[7, 50 * YEAR]), (vec![(7, 7), (7, 7)], odd(1, 0)));
    }

    #[test]
    fn the_clock_runs_on_when_timestamps_step_back() {
        let (moments, oddities) = times(&[9000, 9001, 100, 101, 131, 132, 9002, 9003]);
        let clocks: Vec<u64> = moments.iter().map(|(clock, _)| *clock).collect();
        assert_eq!(
            clocks,
            [9000, 9001, 9001, 9002, 9032, 9033, 9033, 9034],
            "pauses count, but the step back does not"
        );
        assert_eq!(moments[2], (9001, 100), "the timestamp is reported as it is");
        assert_eq!(oddities, odd(0, 1));
    }

    #[test]
    fn two_clocks_in_turns_do_not_make_time_pass() {
        let stamps: Vec<u64> = (0..300).map(|at| if at / 10 % 2 == 0 { 5000 + at } else { at }).collect();
        let moments = times(&stamps).0;
        assert!(moments.iter().all(|(clock, _)| *clock <= 5300), "{moments:?}");
    }

    #[test]
    fn the_clock_never_goes_back_when_all_timestamps_do() {
        let stamps: Vec<u64> = (0..1000).map(|at| 100_000 - 7 * at).collect();
        let (moments, oddities) = times(&stamps);
        let mut latest = 0;
        for (clock, _) in &moments {
            assert!(clock + 10 >= latest, "{clock} after {latest}");
            latest = latest.max(*clock);
        }
        assert_eq!(latest, 100_000);
        assert!(moments.iter().map(|(_, stamp)| *stamp).eq(stamps), "timestamps are reported as they are");
        assert_eq!(oddities.outliers, 0);
    }

    #[test]
    fn the_largest_and_the_smallest_time_cause_no_panic() {
        for stamps in [[0, u64::MAX, 0], [u64::MAX, 0, u64::MAX], [0, 0, u64::MAX], [u64::MAX, u64::MAX, 0]] {
            let mut timeline = Timeline::new();
            stamps.iter().for_each(|stamp| timeline.push(*stamp, ()));
            timeline.finish();
            assert_eq!(std::iter::from_fn(|| timeline.pop()).count(), 3);
        }
    }
}
