//! The output, and the verdict.

use std::io::{self, Write};
use std::time::Duration;

use epoch_registry::{DomainStats, Stats};

use crate::args::Args;
use indicatif::HumanCount;

use crate::figures::{Figures, Ledger};
use crate::pipeline::Flavour;
use crate::torture::Torture;
use crate::world::World;

/// Separates the lines of a verdict.
const INDENT: &str = "\n        ";

/// Returns the status line during a run.
pub fn line(torture: &Torture, elapsed: Duration) -> String {
    let Figures { updates, stalls_provoked, stalls_reported, .. } = &*torture.figures;
    let reads = HumanCount(torture.figures.reads());
    let stats = torture.worlds.each_ref().map(|world| world.pipeline.domain.stats());
    let grace = HumanCount(stats.iter().map(|stats| stats.grace_periods).sum());
    let backlog = HumanCount(stats.iter().map(|stats| stats.backlog.objects).sum());
    let oldest = torture.figures.oldest();
    format!(
        "{:>5} s: {reads} reads, {updates} updates, {grace} grace periods, oldest age {oldest}, backlog {backlog}, \
         stalls {stalls_reported}/{stalls_provoked}",
        elapsed.as_secs()
    )
}

/// Writes the table at the end of a run.
pub fn table(torture: &Torture, elapsed: Duration, out: &mut dyn Write) -> io::Result<()> {
    let rate =
        |many| format!("{}, {} a second", HumanCount(many), HumanCount((many as f64 / elapsed.as_secs_f64()) as u64));
    let Args { seed, threads, .. } = torture.args;
    let figures = &*torture.figures;
    let Figures { sections, polls_in_sections, updates, reaped, evicted, aged, .. } = figures;
    let Figures { calls_given, calls_run, calls_refused, passers, registries, domains, .. } = figures;
    let Figures { stalls_provoked, stalls_reported, stalls_late, slowest_report_ms, other_reports, .. } = figures;
    let Figures { values: Ledger { created, dropped }, audits, .. } = figures;
    let periods = torture.worlds.iter().map(|world| world.pipeline.domain.stats().grace_periods).sum();
    let longest = figures.slowest_us.get() / 1000;
    let ages: Vec<_> = figures.ages.iter().enumerate().map(|(age, seen)| format!("{age}: {seen}")).collect();
    let stalls = format!("{stalls_provoked} provoked, {stalls_reported} reported, {stalls_late} late, the slowest");

    let mut rows = vec![
        ("torture", format!("{elapsed:.1?}, seed {seed}, {threads} readers and updaters")),
        ("reads", rate(figures.reads())),
        ("sections", format!("{sections}, {polls_in_sections} polled")),
        ("updates", format!("{updates}, {reaped} reaped, {evicted} evicted")),
        ("grace periods", format!("{}; the longest wait {longest} ms", rate(periods))),
    ];
    let by_flavour = Flavour::ALL.iter().zip(aged).enumerate();
    rows.extend(by_flavour.map(|(row, (flavour, times))| {
        (if row == 0 { "aged by" } else { "" }, format!("{:>12} {flavour}", times.to_string()))
    }));
    rows.extend([
        ("ages seen", ages.join(", ")),
        ("callbacks", format!("{calls_given} given, {calls_run} run, {calls_refused} refused")),
        ("values", format!("{created} created, {dropped} dropped; {audits} audits")),
        ("stalls", format!("{stalls} after {slowest_report_ms} ms; {other_reports} other reports")),
        ("passing", format!("{passers} threads, {registries} registries, {domains} domains")),
    ]);
    rows.extend(torture.worlds.iter().map(|world| (world.pipeline.domain.name(), domain(world))));
    rows.iter().try_for_each(|(name, text)| writeln!(out, "{name:<15}{text}"))
}

fn domain(world: &World) -> String {
    let Stats { resizes, domain: DomainStats { grace_periods, latency, peak, overruns, .. }, .. } =
        world.values.stats();
    let (periods, resizes) = (HumanCount(grace_periods), HumanCount(resizes));
    format!("{periods} grace periods ({latency}), peak backlog {peak}, {overruns} overruns, {resizes} resizes")
}

/// Returns what the run has shown, or what went wrong.
pub fn verdict(figures: &Figures) -> Result<String, String> {
    let mut problems = problems(figures);
    // A run that a fault ended early may not have exercised everything.
    if problems.is_empty() {
        problems = missing_teeth(figures);
        let (late, reported) = (figures.stalls_late.get(), figures.stalls_reported.get());
        if late > 2 && late > reported / 2 {
            problems.push(format!("stalls are reported late: {late} of {reported}"));
        }
    }
    if !problems.is_empty() {
        return Err(problems.join(INDENT));
    }
    let waited: u64 = Flavour::WAITING.iter().map(|&flavour| figures.aged[flavour as usize].get()).sum();
    let teeth = figures.ages[1].get();
    let bound =
        |many: u64| format!("{:.1e} (3/N for N = {}, with 95% confidence)", 3.0 / many as f64, HumanCount(many));
    let lines = [
        format!("no reader held an element older than age 1, and {} were seen at age 1", HumanCount(teeth)),
        format!("grace periods too short, of those waited for: less than {}", bound(waited)),
        format!("the same, of those during which a reader held the element: less than {}", bound(teeth)),
    ];
    Ok(lines.join(INDENT))
}

/// Returns the faults found so far. What only a complete run can show is not included.
pub fn problems(figures: &Figures) -> Vec<String> {
    let faults = figures.faults.kinds().into_iter();
    faults.map(|(kind, fault)| format!("{kind}: {} ({})", HumanCount(fault.count), fault.first)).collect()
}

/// Returns what the run has not exercised. Its result counts only if there is nothing.
fn missing_teeth(figures: &Figures) -> Vec<String> {
    let aged =
        Flavour::ALL.iter().zip(&figures.aged).map(|(flavour, times)| (format!("nothing aged by {flavour}"), times));
    let rest = [
        ("no reader held an element while it was replaced", &figures.ages[1]),
        ("no grace period was polled in a section", &figures.polls_in_sections),
        ("no thread came and went", &figures.passers),
        ("no registry came and went", &figures.registries),
    ];
    let all = aged.chain(rest.map(|(what, count)| (what.to_string(), count)));
    all.filter(|(_, count)| count.get() == 0).map(|(what, _)| format!("no teeth: {what}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Count;
    use crate::pool::TOO_OLD;

    #[test]
    fn a_run_without_teeth_or_with_a_fault_fails() {
        let figures = Figures::default();
        let missing = verdict(&figures).unwrap_err();
        assert!(missing.contains("no teeth: no reader held"), "{missing}");
        figures.aged.iter().chain(&figures.ages[..TOO_OLD]).for_each(Count::up);
        [&figures.polls_in_sections, &figures.passers, &figures.registries].into_iter().for_each(Count::up);
        assert!(verdict(&figures).is_ok());
        figures.faults.balance("accounts", 1, 2);
        assert_eq!(verdict(&figures).unwrap_err(), "accounts: 1 (1 against 2)");
    }
}
