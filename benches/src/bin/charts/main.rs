//! Draws charts and tables of one run of `compare`, for docs/benchmarks.md.
//!
//! - Input: the output of `compare --json` (benches/results.json). If benches/scaling.json exists, its scaling charts
//!   are added. It holds the output of `compare scaling --json` on a machine with more cores.
//!   If benches/toolbox.json exists, the section of cells, lists, counters and locks is added. It holds the output of
//!   `compare cell counter list locks --json`.
//! - Output: the charts in docs/benchmarks/, and the text between the markers in docs/benchmarks.md.
//!
//! `charts --check` writes nothing, and fails if any output differs from what it would write.
//!
//! - `results`: the input
//! - `figures`: the formatting of numbers, and the scales of axes
//! - `picture`: a chart as a file
//! - `gallery`, `svg`: the list of bar charts, and their drawing
//! - `lines`: the scaling charts
//! - `costs`: the table of writes
//! - `page`: the generated part of the document
//! - `toolbox`: its section of what is not a map

mod costs;
mod figures;
mod gallery;
mod lines;
mod page;
mod picture;
mod results;
mod svg;
mod toolbox;

use lexopt::{Arg, Parser};
use results::Results;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The directory of the charts, next to the document.
const CHARTS: &str = "benchmarks";
const DOCUMENT: &str = "benchmarks.md";

struct Plan {
    json: PathBuf,
    /// The file with the scaling results of another machine. It may be absent.
    scaling: PathBuf,
    /// The file with the results of cells, lists, counters and locks. It may be absent.
    toolbox: PathBuf,
    /// The directory of the document.
    docs: PathBuf,
    check: bool,
}

impl Plan {
    fn parse(mut parser: Parser) -> Result<Plan, lexopt::Error> {
        let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut plan = Plan {
            json: benches.join("results.json"),
            scaling: benches.join("scaling.json"),
            toolbox: benches.join("toolbox.json"),
            docs: benches.with_file_name("docs"),
            check: false,
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("json") => plan.json = parser.value()?.into(),
                Arg::Long("scaling") => plan.scaling = parser.value()?.into(),
                Arg::Long("toolbox") => plan.toolbox = parser.value()?.into(),
                Arg::Long("docs") => plan.docs = parser.value()?.into(),
                Arg::Long("check") => plan.check = true,
                other => return Err(other.unexpected()),
            }
        }
        Ok(plan)
    }
}

fn main() -> ExitCode {
    let plan = match Plan::parse(Parser::from_env()) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!(
                "{error}\nusage: charts [--json FILE] [--scaling FILE] [--toolbox FILE] [--docs DIRECTORY] [--check]"
            );
            return ExitCode::from(2);
        }
    };
    match run(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("charts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

fn read(path: &Path) -> Result<Results, String> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn run(plan: &Plan) -> Result<(), String> {
    let results = read(&plan.json)?;
    let (document, directory) = (plan.docs.join(DOCUMENT), plan.docs.join(CHARTS));
    let mut pictures: Vec<_> = gallery::charts(&results).iter().map(svg::picture).collect();
    pictures.extend(lines::charts(&results));
    if plan.scaling.exists() {
        pictures.extend(lines::charts(&read(&plan.scaling)?));
    }
    let toolbox = if plan.toolbox.exists() { Some(read(&plan.toolbox)?) } else { None };
    let page = fs::read_to_string(&document).map_err(at(&document))?;
    let page = page::refreshed(&page, &page::generated(&results, toolbox.as_ref(), &pictures))
        .map_err(|error| format!("{}: {error}", document.display()))?;
    let mut files: Vec<(PathBuf, String)> =
        pictures.into_iter().map(|picture| (directory.join(picture.file), picture.svg)).collect();
    files.push((document, page));
    if plan.check { check(&directory, &files) } else { write(&directory, &files) }
}

fn write(directory: &Path, files: &[(PathBuf, String)]) -> Result<(), String> {
    fs::create_dir_all(directory).map_err(at(directory))?;
    files.iter().try_for_each(|(path, text)| fs::write(path, text).map_err(at(path)))
}

/// Checks that the files exist with these contents, and that the directory holds no other file.
fn check(directory: &Path, files: &[(PathBuf, String)]) -> Result<(), String> {
    let differs = |(path, text): &&(PathBuf, String)| fs::read_to_string(path).ok().as_ref() != Some(text);
    let mut wrong: Vec<_> = files.iter().filter(differs).map(|(path, _)| path.clone()).collect();
    let there = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    wrong.extend(there.filter(|path| files.iter().all(|(file, _)| file != path)));
    wrong.sort();
    if wrong.is_empty() {
        return Ok(());
    }
    let wrong: Vec<_> = wrong.iter().map(|path| path.display().to_string()).collect();
    Err(format!("not what the results give:\n  {}", wrong.join("\n  ")))
}
