//! Generates the part of docs/benchmarks.md between its markers.

use crate::CHARTS;
use crate::costs;
use crate::figures::grouped;
use crate::picture::{Picture, escape};
use crate::results::{Case, Kind, Quartiles, Results, Series, Target};
use crate::toolbox;

use benches::figure;

/// Where `charts` reads the results of the maps.
const RESULTS: &str = "benches/results.json";
const BEGIN: &str = "<!-- charts: begin -->";
const END: &str = "<!-- charts: end -->";

/// Returns the page with `generated` between its markers.
pub fn refreshed(page: &str, generated: &str) -> Result<String, String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or_else(|| format!("{BEGIN} and {END} must both be there, in this order"))?;
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", generated.trim()))
}

pub fn generated(results: &Results, toolbox: Option<&Results>, pictures: &[Picture]) -> String {
    let parts = [
        Some(run(results, "##", RESULTS)),
        Some(targets(&results.targets)),
        Some(shown(pictures)),
        costs::section(results),
        Some(peers_win(results)),
        toolbox.map(toolbox::section),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// Escapes a text so that Markdown and HTML render it literally.
pub fn plain(text: &str) -> String {
    escape(text).replace('|', "\\|").replace('[', "\\[").replace(']', "\\]").replace('_', "\\_")
}

/// Returns the text of a cell with a median and its quartiles: `1.02 [0.99, 1.10]`.
fn ratio(quartiles: Quartiles) -> Option<String> {
    let [low, median, high] = quartiles.get()?.map(figure);
    Some(format!("{median} \\[{low}, {high}\\]"))
}

/// Returns the description of a run whose results are in `file`, under a heading of this level.
pub fn run(results: &Results, level: &str, file: &str) -> String {
    let machine = &results.machine;
    let versions: Vec<_> = results
        .versions
        .iter()
        .map(|(name, version)| format!("{} {}", plain(name), version.as_deref().unwrap_or("(unknown)")))
        .collect();
    let command = repeated(&results.command, file);
    let is_there = |library: &&str| {
        results.cases.iter().flat_map(|case| &case.series).any(|one| one.contender.starts_with(*library))
    };
    let features: Vec<_> = ["liburcu", "DPDK"].into_iter().filter(is_there).map(str::to_lowercase).collect();
    let features = if features.is_empty() { String::new() } else { format!(" --features {}", features.join(",")) };
    format!(
        "{level} The run\n\n{}; {} cores; {}. Versions: {}.\n\n\
         ```sh\ncargo run --release -p benches{features} --bin compare -- {command}\n```\n",
        plain(machine.cpu.as_deref().unwrap_or("A processor that does not say its name")),
        machine.cores,
        plain(&machine.system),
        versions.join(", "),
    )
}

/// Returns the arguments with which a reader can repeat the run. The output path becomes the `file` that `charts` reads.
fn repeated(command: &[String], file: &str) -> String {
    let mut path = false;
    let arguments = command.iter().skip(1).map(|argument| {
        let argument = if path { file } else { argument };
        path = argument == "--json";
        argument
    });
    arguments.collect::<Vec<_>>().join(" ")
}

/// Returns whether the target is reached, or `None` if there is no target or no measured value.
fn reached(target: &Target) -> Option<bool> {
    target.measured.and_then(Quartiles::median).and(target.reached)
}

/// Returns a table of targets.
pub fn target_rows<'t>(targets: impl Iterator<Item = &'t Target>) -> String {
    let rows = targets.map(|target| {
        let measured = target.measured.map(|measured| ratio(measured).unwrap_or("no sample".into()));
        let reached = match reached(target) {
            Some(true) => "reached",
            Some(false) => "**not reached**",
            None => "",
        };
        let cells = [
            plain(&target.work),
            plain(&target.against),
            plain(target.peer.as_deref().unwrap_or("")),
            target.target.clone(),
            measured.unwrap_or("not measured".into()),
            reached.into(),
        ];
        format!("| {} |\n", cells.join(" | "))
    });
    let header = "| what | against | which | target | measured | |\n|---|---|---|---|---|---|\n".to_string();
    header + &rows.collect::<String>()
}

fn targets(targets: &[Target]) -> String {
    let count = |of| targets.iter().filter(|target| reached(target) == Some(of)).count();
    let (met, missed) = (count(true), count(false));
    let all = targets.iter().filter(|target| target.target != "-").count();
    format!(
        "## Targets\n\n{met} reached, {missed} not reached, {} not measured. A ratio is theirs over ours, of times or bytes, \
         where a row does not say otherwise: the median of the rounds and its quartiles. Where there are several peers, \
         the one that comes closest to missing the target is named.\n\n{}",
        all - met - missed,
        target_rows(targets.iter())
    )
}

fn shown(pictures: &[Picture]) -> String {
    let shown = |picture: &Picture| {
        let (title, alt) = (plain(&picture.title), plain(&picture.alt));
        format!("\n### {title}\n\n![{alt}]({CHARTS}/{})\n", picture.file)
    };
    format!("## Charts\n{}", pictures.iter().map(shown).collect::<String>())
}

/// Returns each case together with the texts that `of` returns for its peers. Cases without a text are left out.
fn rows(results: &Results, of: impl Fn(&Series) -> Option<String>) -> Vec<(&Case, Vec<String>)> {
    let row = |case: &Case| case.series.iter().filter(|series| is_peer(series)).filter_map(&of).collect::<Vec<_>>();
    results.cases.iter().map(|case| (case, row(case))).filter(|(_, peers)| !peers.is_empty()).collect()
}

fn is_peer(series: &Series) -> bool {
    matches!(series.kind, Kind::LockFree | Kind::Locking | Kind::Foreign)
}

fn named(series: &Series) -> String {
    plain(&format!("{}, {}", series.contender, series.idiom))
}

fn table(rows: &[(&Case, Vec<String>)], last: &str) -> String {
    let row = |(case, peers): &(&Case, Vec<String>)| {
        let Case { group, work, what, size, threads, .. } = *case;
        let (work, what) = (plain(work), plain(what));
        format!("| {group} | {work} | {what} | {} | {threads} | {} |\n", grouped(*size), peers.join("<br>"))
    };
    let header = format!("| group | work | of | entries | threads | {last} |\n|---|---|---|---|---|---|\n");
    header + &rows.iter().map(row).collect::<String>()
}

fn peers_win(results: &Results) -> String {
    let wins = rows(results, |series| {
        let median = series.over.median().filter(|&median| median < 1.0)?;
        // A ratio that rounds to 1.00 is shown with four decimals, so that it shows which side is faster.
        let shown = figure(median);
        Some(format!("{} {}", named(series), if shown == "1.00" { format!("{median:.4}") } else { shown }))
    });
    let mute = rows(results, |series| series.over.median().is_none().then(|| named(series)));
    let mut text = format!(
        "## Where peers win\n\nIn {} of {} cases some peer is faster or smaller than ours: the median of its ratio to ours \
         of the same idiom (else to our session) is below 1. Limits are not peers, and not listed.\n",
        wins.len(),
        results.cases.len(),
    );
    if !wins.is_empty() {
        text += &format!("\n{}", table(&wins, "peer, idiom, ratio"));
    }
    if !mute.is_empty() {
        text += &format!(
            "\nWithout a ratio, as there is no round in which both they and we have a sample:\n\n{}",
            table(&mute, "peer, idiom")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gallery;
    use crate::results::tests::example;
    use crate::svg::picture;

    fn page() -> String {
        let results = example();
        let charts = gallery::charts(&results);
        generated(&results, None, &charts.iter().map(picture).collect::<Vec<_>>())
    }

    #[test]
    fn only_the_text_between_the_markers_changes() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = refreshed(&page, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(refreshed(&new, "new\n").unwrap(), new);
        for wrong in ["", BEGIN, END, &format!("{END}{BEGIN}")] {
            assert!(refreshed(wrong, "new").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_peer_that_wins_is_listed_and_a_limit_is_not() {
        let page = page();
        let wins = page.split_once("## Where peers win").unwrap().1;
        assert!(wins.contains("In 1 of 4 cases"), "{wins}");
        assert!(
            wins.contains("| reads | borrowed reads | u64 keys, uniform | 1,000 | 1 | papaya, each its own 0.97 |"),
            "{wins}"
        );
        assert!(!wins.contains("0.46"), "the page lists a limit");
        assert!(!wins.contains("papaya, guard held"), "the page lists a peer although ours is faster");
        let mute = wins.split_once("Without a ratio").unwrap().1;
        assert!(mute.contains("| RwLock&lt;HashMap&gt;, each its own |"), "{mute}");
    }

    #[test]
    fn a_target_is_reached_or_not_or_was_not_measured() {
        let page = page();
        assert!(page.contains("1 reached, 0 not reached, 1 not measured."), "{page}");
        assert!(page.contains("| at least 1.5 | 2.10 \\[2.00, 2.20\\] | reached |"), "{page}");
        assert!(page.contains("| at least 1.5 | no sample |  |"), "{page}");
        assert!(page.contains("| writes | best peer |  | - | not measured |  |"), "{page}");
    }

    #[test]
    fn a_command_keeps_its_arguments_and_writes_where_results_are_read() {
        let command = ["compare", "--json", "/tmp/x.json", "reads", "--size", "64"].map(str::to_owned);
        assert_eq!(repeated(&command, RESULTS), "--json benches/results.json reads --size 64");
    }

    #[test]
    fn the_page_shows_how_to_repeat_the_run() {
        let page = page();
        assert!(page.contains("A \\| B; 2 cores; linux. Versions: papaya 0.2.5, scc (unknown).\n"), "{page}");
        assert!(page.contains("-p benches --bin compare -- reads --json benches/results.json\n"), "{page}");
        assert!(page.contains("](benchmarks/reads-borrowed.svg)"));
        let (alt, _) = page.split_once("](benchmarks/reads-borrowed.svg)").unwrap();
        assert!(!alt.rsplit_once("![").unwrap().1.contains('<'));
    }
}
