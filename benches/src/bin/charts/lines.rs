//! Draws scaling charts: the total throughput of all threads, as a function of their number.

use crate::figures::{Scale, grouped, number};
use crate::picture::{Picture, escape};
use crate::results::{Case, Kind, Results};
use std::fmt::Write;

/// The workloads of the group `scaling`, in the order of the panels.
const WORKS: [&str; 4] = ["reads", "95 reads, 5 writes", "50 reads, 50 writes", "writes"];

/// One contender. A point is a number of threads and the throughput in millions of operations per second. Numbers of
/// threads without a sample have no point.
struct Line {
    name: String,
    ours: bool,
    points: Vec<(usize, f64)>,
}

struct Panel {
    heading: String,
    lines: Vec<Line>,
}

// All lengths are in pixels.
const MARGIN: f64 = 20.0;
const WIDTH: f64 = 474.0;
const HEIGHT: f64 = 250.0;
const GAP: f64 = 24.0;
const TOP: f64 = 66.0;
/// Within a panel, the space to the left of the plot.
const LEFT: f64 = 44.0;
/// The space to the right of the plot, for the names of the lines.
const RIGHT: f64 = 108.0;
/// The space above the plot.
const ABOVE: f64 = 24.0;
/// The space below the plot.
const BELOW: f64 = 40.0;
/// The smallest distance between the names of two lines.
const NAME: f64 = 12.0;

const STYLE: &str = "\
text{font:11px Helvetica,Arial,sans-serif;fill:#1f2328}\
.title{font-size:16px;font-weight:bold}\
.heading{font-size:12px;font-weight:bold}\
.small{font-size:9.5px;fill:#59636e}\
.grid{stroke:#d8dee4}";

/// The colours of the lines. Ours has the first one.
const COLOURS: [&str; 7] = ["#d1480a", "#3b6ea5", "#5d8a3c", "#8250df", "#93a1b0", "#b08800", "#1f2328"];

/// Returns one chart for each size of the group `scaling`, or none if the group was not run.
pub fn charts(results: &Results) -> Vec<Picture> {
    let cases: Vec<_> = results.cases.iter().filter(|case| case.group == "scaling").collect();
    let mut sizes: Vec<_> = cases.iter().map(|case| case.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let cores = results.machine.cores;
    sizes.into_iter().map(|size| chart(&cases, size, cores)).collect()
}

fn chart(cases: &[&Case], size: u64, cores: usize) -> Picture {
    let title = format!("Scaling to {cores} threads, {} entries", grouped(size));
    let panels: Vec<_> = WORKS.iter().map(|work| panel(cases, work, size)).collect();
    let described: Vec<_> = panels.iter().map(Panel::described).collect();
    Picture {
        file: format!("scaling-{cores}-{size}.svg"),
        alt: format!("{title}. {}.", described.join(". ")),
        svg: draw(&title, &format!("{}.", described.join(". ")), &panels),
        title,
    }
}

fn panel(cases: &[&Case], work: &str, size: u64) -> Panel {
    let mut cases: Vec<_> = cases.iter().filter(|case| case.work == work && case.size == size).collect();
    cases.sort_by_key(|case| case.threads);
    let mut lines: Vec<Line> = vec![];
    for case in cases {
        for series in &case.series {
            let Some(nanoseconds) = series.figure.median().filter(|&time| time > 0.0) else { continue };
            let point = (case.threads, case.threads as f64 * 1e3 / nanoseconds);
            match lines.iter_mut().find(|line| line.name == series.contender) {
                Some(line) => line.points.push(point),
                None => lines.push(Line {
                    name: series.contender.clone(),
                    ours: series.kind == Kind::Ours,
                    points: vec![point],
                }),
            }
        }
    }
    lines.sort_by_key(|line| !line.ours);
    Panel { heading: work.into(), lines }
}

impl Panel {
    /// Describes the panel in words: each line at its last number of threads.
    fn described(&self) -> String {
        let line = |line: &Line| {
            let last = line.points.last()?;
            Some(format!("{} {} on {}", line.name, number(last.1), last.0))
        };
        let lines: Vec<_> = self.lines.iter().filter_map(line).collect();
        let lines = if lines.is_empty() { "not measured".into() } else { lines.join("; ") };
        format!("{}: {lines}", self.heading)
    }
}

fn draw(title: &str, description: &str, panels: &[Panel]) -> String {
    let width = 2.0 * MARGIN + 2.0 * WIDTH + GAP;
    let height = TOP + panels.len().div_ceil(2) as f64 * (HEIGHT + GAP);
    let mut body = String::new();
    for (place, panel) in panels.iter().enumerate() {
        let left = MARGIN + (place % 2) as f64 * (WIDTH + GAP);
        let top = TOP + (place / 2) as f64 * (HEIGHT + GAP);
        let _ = writeln!(body, r#"<g transform="translate({left} {top})">"#);
        draw_panel(&mut body, panel);
        body.push_str("</g>\n");
    }
    let (title, description) = (escape(title), escape(description));
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-labelledby="title description">
<title id="title">{title}</title>
<desc id="description">{description}</desc>
<style>{STYLE}</style>
<rect x=".5" y=".5" width="{}" height="{}" rx="6" fill="#fff" stroke="#d0d7de"/>
<text class="title" x="{MARGIN}" y="28">{title}</text>
<text class="small" x="{MARGIN}" y="46">millions of operations a second, of all threads together: more is better. Medians.</text>
{body}</svg>
"##,
        width - 1.0,
        height - 1.0,
    )
}

fn draw_panel(body: &mut String, panel: &Panel) {
    let _ = writeln!(body, r#"<text class="heading" x="0" y="12">{}</text>"#, escape(&panel.heading));
    let points = || panel.lines.iter().flat_map(|line| &line.points);
    let Some(most) = points().map(|point| point.0).max() else {
        let _ = writeln!(body, r#"<text x="0" y="{}">not measured</text>"#, ABOVE + 12.0);
        return;
    };
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BELOW);
    let highest = points().map(|point| point.1).fold(0.0, f64::max);
    let scale = Scale::Linear(highest);
    let x = |threads: usize| {
        // A single number of threads is in the middle.
        let part = if most == 1 { 0.5 } else { (threads as f64).log2() / (most as f64).log2() };
        LEFT + part * (right - LEFT)
    };
    let y = |throughput: f64| bottom - scale.place(throughput) * (bottom - ABOVE);
    for tick in scale.ticks() {
        let (height, label) = (y(tick), number(tick));
        let _ = write!(body, r#"<path class="grid" d="M{LEFT} {height:.1}H{right}"/>"#);
        let (x, y) = (LEFT - 6.0, height + 3.0);
        let _ = writeln!(body, r#"<text class="small" x="{x}" y="{y:.1}" text-anchor="end">{label}</text>"#);
    }
    let mut threads: Vec<_> = points().map(|point| point.0).collect();
    threads.sort_unstable();
    threads.dedup();
    for threads in threads {
        let (x, y) = (x(threads), bottom + 14.0);
        let _ = writeln!(body, r#"<text class="small" x="{x:.1}" y="{y}" text-anchor="middle">{threads}</text>"#);
    }
    let (middle, below) = ((LEFT + right) / 2.0, bottom + 28.0);
    let _ = writeln!(body, r#"<text class="small" x="{middle}" y="{below}" text-anchor="middle">threads</text>"#);
    for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<_> = line.points.iter().map(|&(threads, rate)| (x(threads), y(rate))).collect();
        let path: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let width = if line.ours { 2.5 } else { 1.5 };
        let _ =
            writeln!(body, r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="{width}"/>"#, path.join("L"));
        for (x, y) in points {
            let _ = writeln!(body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.5" fill="{colour}"/>"#);
        }
    }
    for (place, height) in names(panel, |line| y(line.points.last().map_or(0.0, |point| point.1))) {
        let (line, colour) = (&panel.lines[place], COLOURS[place % COLOURS.len()]);
        let (x, y, name) = (right + 8.0, height + 4.0, escape(&line.name));
        let _ = writeln!(body, r#"<text x="{x}" y="{y:.1}" style="fill:{colour}">{name}</text>"#);
    }
}

/// Returns the index of each line and the height of its name, which is beside the line's end or below the previous
/// name.
fn names(panel: &Panel, end: impl Fn(&Line) -> f64) -> Vec<(usize, f64)> {
    let mut names: Vec<_> = panel.lines.iter().map(end).enumerate().collect();
    names.sort_by(|a, b| a.1.total_cmp(&b.1));
    let lowest = HEIGHT - BELOW - NAME * (names.len() as f64 - 1.0);
    let mut next = f64::NEG_INFINITY;
    for (place, (_, height)) in names.iter_mut().enumerate() {
        // High enough to leave room above the axis for the names below it.
        *height = height.min(lowest + NAME * place as f64).max(next);
        next = *height + NAME;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::example;

    #[test]
    fn throughput_is_that_of_all_threads() {
        let results = example();
        let cases: Vec<_> = results.cases.iter().filter(|case| case.group == "scaling").collect();
        let panel = panel(&cases, "reads", 1000);
        let shown: Vec<_> = panel.lines.iter().map(|line| (&*line.name, &*line.points)).collect();
        let theirs = (1, 1e3 / 30.0);
        assert_eq!(shown, [("ours", &[(1, 100.0), (2, 200.0)][..]), ("dashmap", &[theirs, (2, 2e3 / 120.0)])]);
        assert_eq!(panel.described(), "reads: ours 200 on 2; dashmap 16.7 on 2");
    }

    #[test]
    fn a_workload_that_was_not_run_is_shown_as_not_measured() {
        let charts = charts(&example());
        assert_eq!(charts.len(), 1, "one size");
        assert_eq!(charts[0].file, "scaling-2-1000.svg");
        assert_eq!(charts[0].svg.matches(">not measured</text>").count(), 3);
        assert!(charts[0].alt.contains("writes: not measured"), "{}", charts[0].alt);
        assert!(!charts[0].svg.contains("NaN"));
    }

    #[test]
    fn names_do_not_overlap() {
        let line = |name: &str| Line { name: name.into(), ours: false, points: vec![(1, 1.0)] };
        let panel = Panel { heading: String::new(), lines: ["a", "b", "c"].map(line).into() };
        let heights: Vec<_> = names(&panel, |_| HEIGHT - BELOW).iter().map(|name| name.1).collect();
        assert_eq!(heights, [186.0, 198.0, 210.0]);
    }
}
