//! Draws bar charts: panels of horizontal bars, two side by side. A chart has its own background, so that it is
//! legible on every page.

use crate::figures::{Scale, label, spread, tick};
use crate::picture::{Picture, escape};
use crate::results::Kind;
use std::fmt::Write;

pub struct Chart {
    pub name: &'static str,
    title: String,
    pub panels: Vec<Panel>,
}

/// One case of a chart.
pub struct Panel {
    pub heading: String,
    pub unit: String,
    /// The bars. Empty if the case was not run.
    pub bars: Vec<Bar>,
}

pub struct Bar {
    pub name: String,
    /// The idiom. Empty if all series of the case have the same one.
    pub idiom: String,
    pub kind: Kind,
    /// The quartiles, or `None` if there is no sample.
    pub quartiles: Option<[f64; 3]>,
}

// All lengths are in pixels.
const MARGIN: f64 = 20.0;
const PANEL: f64 = 474.0;
/// The gap between two panels side by side.
const GAP: f64 = 24.0;
/// The space to the left of the bars, for names and idioms.
const NAMES: f64 = 232.0;
/// The part of `NAMES` for idioms, next to the bars.
const IDIOMS: f64 = 64.0;
/// The space to the right of the bars, for values.
const VALUES: f64 = 60.0;
const PLOT: f64 = PANEL - NAMES - VALUES;
const ROW: f64 = 18.0;
const BAR: f64 = 11.0;
/// The space above the bars of a panel.
const HEADING: f64 = 24.0;
/// The space below the bars of a panel.
const AXIS: f64 = 46.0;
/// The space at the top of a chart, for the title and the legend.
const TOP: f64 = 66.0;

const STYLE: &str = "\
text{font:11px Helvetica,Arial,sans-serif;fill:#1f2328}\
.title{font-size:16px;font-weight:bold}\
.heading{font-size:12px;font-weight:bold}\
.small{font-size:9.5px;fill:#59636e}\
.ours{fill:#d1480a}\
.lock-free{fill:#3b6ea5}\
.locking{fill:#93a1b0}\
.foreign{fill:#5d8a3c}\
.limit{fill:url(#hatch);stroke:#59636e;stroke-width:.8;stroke-dasharray:3 2}\
.grid{stroke:#d8dee4}\
.whisker{stroke:#1f2328;fill:none}\
text.mine{fill:#a83703;font-weight:bold}";

/// Returns the CSS class of a kind, and its name in the legend.
fn legend(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Ours => ("ours", "ours"),
        Kind::LockFree => ("lock-free", "lock-free reads"),
        Kind::Locking => ("locking", "locking"),
        Kind::Foreign => ("foreign", "C library"),
        Kind::Limit => ("limit", "(limit: does less)"),
    }
}

impl Bar {
    /// Returns the name as shown. A limit is in brackets, as in the tables of `compare`.
    fn shown_name(&self) -> String {
        if self.kind == Kind::Limit { format!("({})", self.name) } else { self.name.clone() }
    }

    fn shown_value(&self, unit: &str) -> String {
        self.quartiles.map_or("no sample".into(), |[_, median, _]| label(median, unit))
    }

    fn described(&self, unit: &str) -> String {
        let idiom = if self.idiom.is_empty() { String::new() } else { format!(", {}", self.idiom) };
        format!("{}{idiom} {}", self.shown_name(), self.shown_value(unit))
    }
}

impl Panel {
    /// Describes the given bars of the panel in words.
    fn described<'b>(&self, bars: impl Iterator<Item = &'b Bar>) -> String {
        let bars: Vec<_> = bars.map(|bar| bar.described(&self.unit)).collect();
        if bars.is_empty() {
            format!("{}: not measured", self.heading)
        } else {
            format!("{}: {}", self.heading, bars.join("; "))
        }
    }

    fn quartiles(&self) -> Vec<[f64; 3]> {
        self.bars.iter().filter_map(|bar| bar.quartiles).collect()
    }

    /// Returns the label of the axis, without its scale.
    fn quantity(&self) -> &str {
        if self.unit == "ns" { "time" } else { &self.unit }
    }
}

impl Chart {
    pub fn new(name: &'static str, title: impl Into<String>, panels: Vec<Panel>) -> Chart {
        Chart { name, title: title.into(), panels }
    }

    fn file(&self) -> String {
        format!("{}.svg", self.name)
    }

    /// Describes the chart in words: for each panel, the best of ours and the best of the peers.
    fn summary(&self) -> String {
        let panels = self.panels.iter().map(|panel| {
            let best =
                |ours| panel.bars.iter().find(move |bar| bar.kind != Kind::Limit && (bar.kind == Kind::Ours) == ours);
            panel.described([best(true), best(false)].into_iter().flatten())
        });
        format!("{}. {}.", self.title, panels.collect::<Vec<_>>().join(". "))
    }

    fn description(&self) -> String {
        let panels: Vec<_> = self.panels.iter().map(|panel| panel.described(panel.bars.iter())).collect();
        format!("Medians. {}.", panels.join(". "))
    }

    /// Returns the subtitle: the units of the panels, and which direction is better.
    fn subtitle(&self) -> String {
        let mut units: Vec<_> = self.panels.iter().map(Panel::quantity).filter(|unit| !unit.is_empty()).collect();
        units.dedup();
        let units = if units.is_empty() { "not measured".into() } else { units.join(", ") };
        format!("{units}: less is better. Medians, and whiskers from quartile to quartile.")
    }
}

pub fn picture(chart: &Chart) -> Picture {
    Picture { file: chart.file(), title: chart.title.clone(), alt: chart.summary(), svg: draw(chart) }
}

fn draw(chart: &Chart) -> String {
    // All panels have the same kind of scale, because they are compared with each other.
    let logarithmic = chart.panels.iter().any(|panel| spread(&panel.quartiles()));
    let columns = chart.panels.len().clamp(1, 2);
    let width = 2.0 * MARGIN + columns as f64 * (PANEL + GAP) - GAP;
    let (mut body, mut top) = (String::new(), TOP);
    for row in chart.panels.chunks(columns) {
        let bars = row.iter().map(|panel| panel.bars.len()).max().unwrap_or(0).max(1);
        for (column, panel) in row.iter().enumerate() {
            let left = MARGIN + column as f64 * (PANEL + GAP);
            let _ = writeln!(body, r#"<g transform="translate({left} {top})">"#);
            draw_panel(&mut body, panel, logarithmic);
            body.push_str("</g>\n");
        }
        top += HEADING + bars as f64 * ROW + AXIS;
    }
    let height = top + MARGIN / 2.0;
    let (title, description) = (escape(&chart.title), escape(&chart.description()));
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-labelledby="title description">
<title id="title">{title}</title>
<desc id="description">{description}</desc>
<style>{STYLE}</style>
<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="5" height="5" fill="#fff"/><rect width="1.5" height="5" fill="#93a1b0"/></pattern></defs>
<rect x=".5" y=".5" width="{}" height="{}" rx="6" fill="#fff" stroke="#d0d7de"/>
<text class="title" x="{MARGIN}" y="28">{title}</text>
<text class="small" x="{MARGIN}" y="46">{}</text>
{}{body}</svg>
"##,
        width - 1.0,
        height - 1.0,
        escape(&chart.subtitle()),
        draw_legend(chart, width),
    )
}

/// Draws the legend, right-aligned, with the kinds that the chart has.
fn draw_legend(chart: &Chart, width: f64) -> String {
    let mut kinds = [Kind::Limit, Kind::Foreign, Kind::Locking, Kind::LockFree, Kind::Ours].to_vec();
    kinds.retain(|&kind| chart.panels.iter().flat_map(|panel| &panel.bars).any(|bar| bar.kind == kind));
    let (mut swatches, mut right) = (String::new(), width - MARGIN);
    let y = if chart.panels.len() > 1 { 46.0 } else { 60.0 };
    for (class, name) in kinds.into_iter().map(legend) {
        right -= 5.6 * name.len() as f64 + 4.0;
        let left = right - 15.0;
        let _ = write!(swatches, r#"<rect class="{class}" x="{left:.1}" y="{}" width="11" height="9"/>"#, y - 8.0);
        let _ = writeln!(swatches, r#"<text class="small" x="{right:.1}" y="{y}">{name}</text>"#);
        right = left - 10.0;
    }
    swatches
}

fn draw_panel(body: &mut String, panel: &Panel, logarithmic: bool) {
    let quartiles = panel.quartiles();
    let scale = if logarithmic { Scale::logarithmic(&quartiles) } else { Scale::linear(&quartiles) };
    let _ = writeln!(body, r#"<text class="heading" x="0" y="12">{}</text>"#, escape(&panel.heading));
    if panel.bars.is_empty() {
        let _ = writeln!(body, r#"<text x="0" y="{}">not measured</text>"#, HEADING + 12.0);
        return;
    }
    let bottom = HEADING + ROW * panel.bars.len() as f64;
    let at = |value: f64| NAMES + PLOT * scale.place(value);
    for value in scale.ticks() {
        let (x, y) = (at(value), bottom + 12.0);
        let _ = write!(body, r#"<path class="grid" d="M{x:.1} {HEADING}V{bottom}"/>"#);
        let tick = tick(value, &panel.unit);
        let _ = writeln!(body, r#"<text class="small" x="{x:.1}" y="{y}" text-anchor="middle">{tick}</text>"#);
    }
    let (x, y, kind) = (NAMES + PLOT / 2.0, bottom + 25.0, if logarithmic { ", logarithmic scale" } else { "" });
    let quantity = escape(panel.quantity());
    let _ = writeln!(body, r#"<text class="small" x="{x}" y="{y}" text-anchor="middle">{quantity}{kind}</text>"#);
    for (row, bar) in panel.bars.iter().enumerate() {
        draw_bar(body, bar, &panel.unit, HEADING + ROW * row as f64 + ROW / 2.0, at);
    }
}

fn draw_bar(body: &mut String, bar: &Bar, unit: &str, middle: f64, at: impl Fn(f64) -> f64) {
    let ((class, _), end, text) = (legend(bar.kind), NAMES + PLOT, middle + 4.0);
    let mine = if bar.kind == Kind::Ours { r#" class="mine""# } else { "" };
    let mut x = NAMES - 6.0;
    if !bar.idiom.is_empty() {
        let idiom = escape(&bar.idiom);
        let _ = writeln!(body, r#"<text class="small" x="{x}" y="{text}" text-anchor="end">{idiom}</text>"#);
        x -= IDIOMS;
    }
    let name = escape(&bar.shown_name());
    let _ = writeln!(body, r#"<text{mine} x="{x}" y="{text}" text-anchor="end">{name}</text>"#);
    let value = bar.shown_value(unit);
    let _ = writeln!(body, r#"<text{mine} x="{PANEL}" y="{text}" text-anchor="end">{value}</text>"#);
    let Some(quartiles) = bar.quartiles else { return };
    let [low, median, high] = quartiles.map(|value| at(value).min(end));
    let (top, long) = (middle - BAR / 2.0, median - NAMES);
    let _ = writeln!(body, r#"<rect class="{class}" x="{NAMES}" y="{top}" width="{long:.1}" height="{BAR}"/>"#);
    // The whisker has caps at both quartiles. If the upper one is beyond the axis, it has an arrow there.
    let (up, down) = (middle - 3.0, middle + 3.0);
    let cap = if at(quartiles[2]) > end { "m-4 -3l4 3l-4 3".to_owned() } else { format!("M{high:.1} {up}V{down}") };
    let _ = writeln!(body, r#"<path class="whisker" d="M{low:.1} {up}V{down}M{low:.1} {middle}H{high:.1}{cap}"/>"#);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gallery;
    use crate::results::tests::example;

    fn drawn() -> Vec<String> {
        gallery::charts(&example()).iter().map(draw).collect()
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escape(r#"a<b> & "c""#), "a&lt;b&gt; &amp; &quot;c&quot;");
        assert!(drawn()[0].contains("(RwLock&lt;HashMap&gt;)"));
        assert!(drawn().iter().all(|svg| !svg.contains("<HashMap>")));
    }

    #[test]
    fn missing_samples_and_cases_are_shown_as_missing() {
        let svg = &drawn()[0];
        assert!(svg.contains(">no sample</text>"), "a contender without a sample");
        assert!(svg.contains(">not measured</text>"), "a case that was not run");
        assert!(drawn().iter().all(|svg| !svg.contains("NaN") && !svg.contains("inf")));
    }

    #[test]
    fn a_chart_describes_itself() {
        let chart = &gallery::charts(&example())[0];
        let summary = chart.summary();
        assert!(summary.contains("1,000 entries: ours, guard held 6.48; papaya, guard held 9.20. "), "{summary}");
        assert!(summary.contains("100,000 entries: not measured."), "{summary}");
        assert!(chart.description().contains("(RwLock<HashMap>), guard held 2.92"));
        assert!(chart.subtitle().starts_with("ns/read: less"));
    }

    #[test]
    fn a_quartile_beyond_the_axis_is_an_arrow_at_its_end() {
        let mut body = String::new();
        let bar = |quartiles| Bar { name: "x".into(), idiom: String::new(), kind: Kind::Locking, quartiles };
        let bars = vec![bar(Some([1.0, 2.0, 900.0])), bar(Some([10.0, 20.0, 21.0])), bar(None)];
        draw_panel(&mut body, &Panel { heading: "y".into(), unit: "ns/read".into(), bars }, false);
        assert_eq!(body.matches("l4 3l-4 3").count(), 1);
        assert_eq!(body.matches("<rect").count(), 2);
        assert!(!body.contains("logarithmic"));
    }
}
