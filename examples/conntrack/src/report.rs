//! The report as text: totals, top flows, rates, and the statistics of the registry.

use std::collections::BTreeMap;
use std::io::{self, Write};

use indicatif::HumanCount;

use crate::accounts::{Account, Export};
use crate::packet::Ignored;
use crate::replay::Replay;
use crate::timeline::Oddities;

/// A flow of the report: all flows of one tuple, as seen from the sender of the first packet.
pub struct Row<'r> {
    pub account: &'r Account,
    pub export: &'r Export,
}

impl Row<'_> {
    pub fn a(&self) -> String {
        self.account.tuple.sender(self.account.first)
    }

    pub fn b(&self) -> String {
        self.account.tuple.sender(self.account.first.reversed())
    }

    /// Returns the packets from `a` to `b`, and back.
    pub fn packets(&self) -> [u64; 2] {
        self.seen_from_a(self.export.counts.packets)
    }

    pub fn bytes(&self) -> [u64; 2] {
        self.seen_from_a(self.export.counts.bytes)
    }

    fn seen_from_a(&self, counts: [u64; 2]) -> [u64; 2] {
        [counts[self.account.first as usize], counts[self.account.first.reversed() as usize]]
    }
}

/// Returns all flows in the order of tshark's tables: by protocol, then those with the most packets first, then
/// in the order of their first packets.
pub fn rows(replay: &Replay) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = replay
        .ledger
        .accounts
        .iter()
        .filter_map(|account| Some(Row { account, export: replay.merged.get(&account.tuple)? }))
        .collect();
    rows.sort_by_key(|row| (row.account.tuple.proto(), std::cmp::Reverse(row.export.counts.total_packets())));
    rows
}

#[derive(Default, Clone, Copy)]
pub struct Totals {
    pub tuples: u64,
    pub flows: u64,
    pub packets: u64,
    pub bytes: u64,
}

impl Totals {
    fn add(&mut self, export: &Export) {
        self.tuples += 1;
        self.flows += export.flows;
        self.packets += export.counts.total_packets();
        self.bytes += export.counts.total_bytes();
    }

    pub fn of(replay: &Replay) -> Self {
        let mut totals = Totals::default();
        replay.merged.values().for_each(|export| totals.add(export));
        totals
    }
}

/// Returns the number of frames that belong to no flow, in all rounds.
pub fn ignored(replay: &Replay) -> u64 {
    replay.ignored.iter().sum::<u64>() * replay.rounds
}

pub fn print(replay: &Replay, top: usize, out: &mut dyn Write) -> io::Result<()> {
    let rows = rows(replay);
    print_totals(replay, &rows, out)?;
    print_top(rows, top, out)?;
    print_rates(replay, out)?;
    print_registry(replay, out)
}

fn print_totals(replay: &Replay, rows: &[Row<'_>], out: &mut dyn Write) -> io::Result<()> {
    let mut groups: BTreeMap<(&str, &str), Totals> = BTreeMap::new();
    for row in rows {
        groups.entry((row.account.tuple.proto_name(), row.export.state)).or_default().add(row.export);
    }
    writeln!(
        out,
        "{:<8} {:<12} {:>10} {:>12} {:>14} {:>18}",
        "protocol", "last state", "tuples", "flows", "packets", "bytes"
    )?;
    let total = Totals::of(replay);
    for ((proto, state), group) in groups.into_iter().chain([(("total", ""), total)]) {
        let Totals { tuples, flows, packets, bytes } = group;
        let [tuples, flows, packets, bytes] = [tuples, flows, packets, bytes].map(grouped);
        writeln!(out, "{proto:<8} {state:<12} {tuples:>10} {flows:>12} {packets:>14} {bytes:>18}")?;
    }
    let reasons = Ignored::ALL.into_iter().zip(replay.ignored).filter(|(_, count)| *count > 0);
    let reasons: Vec<String> =
        reasons.map(|(why, count)| format!("{} {}", grouped(count * replay.rounds), why.reason())).collect();
    let list = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
    writeln!(out, "ignored frames {}{list}", grouped(ignored(replay)))?;
    print_times(replay, out)
}

fn print_times(replay: &Replay, out: &mut dyn Write) -> io::Result<()> {
    let Oddities { outliers, steps_back } = replay.oddities;
    let kinds = [
        (replay.repaired, "out of range"),
        (outliers, "far from those before and after"),
        (steps_back, "the first after a step back"),
    ];
    let total: u64 = kinds.iter().map(|(count, _)| count).sum();
    let kinds = kinds.iter().filter(|(count, _)| *count > 0);
    let kinds: Vec<String> = kinds.map(|(count, what)| format!("{} {what}", grouped(*count))).collect();
    let list = if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) };
    writeln!(out, "wrong timestamps {}{list}\n", grouped(total))
}

fn print_top(mut rows: Vec<Row<'_>>, top: usize, out: &mut dyn Write) -> io::Result<()> {
    rows.sort_by_key(|row| std::cmp::Reverse(row.export.counts.total_bytes()));
    rows.truncate(top);
    if rows.is_empty() {
        return Ok(());
    }
    let ends: Vec<[String; 2]> = rows.iter().map(|row| [row.a(), row.b()]).collect();
    let [wide_a, wide_b] = [0, 1].map(|end| ends.iter().map(|pair| pair[end].len()).max().unwrap_or(1));
    writeln!(
        out,
        "{:<8} {:<wide_a$}     {:<wide_b$} {:>10} {:>14} {:>10} {:>14}  last state",
        "top", "a", "b", "-> packets", "-> bytes", "<- packets", "<- bytes"
    )?;
    for (row, [a, b]) in rows.iter().zip(ends) {
        let ([packets_ab, packets_ba], [bytes_ab, bytes_ba]) = (row.packets().map(grouped), row.bytes().map(grouped));
        let (proto, state) = (row.account.tuple.proto_name(), row.export.state);
        writeln!(
            out,
            "{proto:<8} {a:<wide_a$} <-> {b:<wide_b$} {packets_ab:>10} {bytes_ab:>14} {packets_ba:>10} {bytes_ba:>14}  {state}"
        )?;
    }
    writeln!(out)
}

fn print_rates(replay: &Replay, out: &mut dyn Write) -> io::Result<()> {
    let packets = Totals::of(replay).packets;
    let rate =
        |packets: u64, time: std::time::Duration| grouped((packets as f64 / time.as_secs_f64().max(1e-9)) as u64);
    let seconds = replay.elapsed.as_secs_f64();
    write!(out, "{} packets in {seconds:.3} s: {} packets/s", grouped(packets), rate(packets, replay.elapsed))?;
    if replay.rounds > 1 {
        let replayed = packets / replay.rounds * (replay.rounds - 1);
        let (time, rounds) = (replay.elapsed_replaying, replay.rounds - 1);
        write!(out, "; {} packets/s in the {} rounds without parsing", rate(replayed, time), grouped(rounds))?;
    }
    writeln!(out)
}

fn print_registry(replay: &Replay, out: &mut dyn Write) -> io::Result<()> {
    let (end, drained) = (&replay.stats_at_end, &replay.stats_after_drain);
    writeln!(
        out,
        "registry at the end of the capture: {} live (at most {}), {} inserted, {} reaped, {} removed, {} freed, \
         {} in the backlog, {} grace periods",
        grouped(end.live),
        grouped(replay.peak_live),
        grouped(end.inserted),
        grouped(end.reaped),
        grouped(end.removed),
        grouped(end.freed),
        grouped(end.backlog),
        grouped(end.domain.grace_periods)
    )?;
    writeln!(
        out,
        "registry after it was cleared:      {} live, {} inserted, {} freed, {} in the backlog, {} grace periods",
        grouped(drained.live),
        grouped(drained.inserted),
        grouped(drained.freed),
        grouped(drained.backlog),
        grouped(drained.domain.grace_periods)
    )
}

/// Formats a number with its digits in groups of three. Returns a string, so that the caller can pad it.
fn grouped(number: u64) -> String {
    HumanCount(number).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
