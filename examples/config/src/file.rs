//! The configuration: what the file may say, and what is wrong with it if it does not.

use crate::ledger::Entry;
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// The configuration of the service.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name that the service answers with.
    pub name: String,
    /// The most requests that a client may make in a second.
    pub requests_per_second: u32,
    /// Where requests go, by the beginning of their path. The first route that matches counts.
    #[serde(default)]
    pub route: Vec<Route>,
    /// Enters the drop of this version in the ledger.
    #[serde(skip)]
    pub entry: Option<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub prefix: String,
    pub upstream: String,
}

/// What is wrong with a configuration file, and where.
pub struct Broken {
    file: PathBuf,
    /// Line and column, if the text itself is wrong.
    place: Option<(usize, usize)>,
    what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.what)
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    ///
    /// [`Broken`], with the line, if the file cannot be read or is not a configuration.
    pub fn read(file: &Path) -> Result<Config, Broken> {
        let broken = |place, what| Broken { file: file.to_path_buf(), place, what };
        let text = std::fs::read_to_string(file).map_err(|error| broken(None, error.to_string()))?;
        toml::from_str(&text).map_err(|error| {
            let place = error.span().map(|span| {
                let before = &text[..span.start.min(text.len())];
                let line_begins = before.rfind('\n').map_or(0, |newline| newline + 1);
                (before.matches('\n').count() + 1, before[line_begins..].chars().count() + 1)
            });
            broken(place, error.message().to_string())
        })
    }

    /// Returns the upstream of a request for `path`.
    pub fn upstream(&self, path: &str) -> Option<&str> {
        self.route.iter().find(|route| path.starts_with(&route.prefix)).map(|route| route.upstream.as_str())
    }
}
