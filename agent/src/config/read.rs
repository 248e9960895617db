//! File and overrides -> a configuration, or an error that names the place, the key and what is allowed.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use garde::Validate as _;
use serde::Deserialize as _;
use toml::de::{DeTable, DeValue};

use super::{Config, ConfigError, Override, Problem};

/// Read if no other file is named, and it is there.
pub const DEFAULT_PATH: &str = "/etc/firstfin/firstfin.toml";
/// A file that is larger is none of ours.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where a configuration comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// The file that was named; none: [`DEFAULT_PATH`], which need not be there
    pub file: Option<PathBuf>,
    /// What beats the file, later ones beat earlier ones
    pub overrides: Vec<Override>,
}

/// Reads a configuration.
///
/// # Errors
/// Everything that is wrong with it, as far as it could be read.
pub fn read(source: &Source) -> Result<Config, ConfigError> {
    let path = source.file.as_deref().unwrap_or_else(|| Path::new(DEFAULT_PATH));
    let text = match file(path) {
        Ok(text) => text,
        Err(error) if source.file.is_none() && error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            let (place, what) = (path.display().to_string(), format!("cannot be read: {error}"));
            return Err(Problem { place, key: String::new(), what }.into());
        }
    };
    let document = Document { path, text: &text };
    document.check()?;
    let mut table: toml::Table = text.parse().map_err(|error| document.problem(&error))?;
    for one in &source.overrides {
        set(&mut table, one)?;
    }
    let config = Config::deserialize(toml::Value::Table(table)).map_err(|error| Problem {
        // Each part was read by itself already.
        place: path.display().to_string(),
        key: String::new(),
        what: error.message().to_owned(),
    })?;
    match config.validate() {
        Ok(()) => Ok(config),
        Err(report) => {
            let problem = |(key, error): &(garde::Path, garde::Error)| {
                let key = key.to_string();
                let beaten = source.overrides.iter().rev().find(|one| is_below(&key, one));
                let place = beaten.map_or_else(|| document.place_of(&key), |one| one.origin.clone());
                Problem { place, key, what: error.message().to_owned() }
            };
            Err(ConfigError { problems: report.iter().map(problem).collect() })
        }
    }
}

fn file(path: &Path) -> io::Result<String> {
    // A pipe or a device could be read for ever.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is larger than 1 MiB"));
    }
    fs::read_to_string(path)
}

/// Puts a value into the table, if it can be one of that key.
fn set(table: &mut toml::Table, one: &Override) -> Result<(), Problem> {
    let alone = toml::Table::from_iter([(
        one.section.clone(),
        toml::Value::Table(toml::Table::from_iter([(one.key.clone(), one.value.clone())])),
    )]);
    Config::deserialize(toml::Value::Table(alone)).map_err(|error| Problem {
        place: one.origin.clone(),
        key: format!("{}.{}", one.section, one.key),
        what: error.message().to_owned(),
    })?;
    let section = table.entry(one.section.as_str()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if let toml::Value::Table(section) = section {
        section.insert(one.key.clone(), one.value.clone());
    }
    Ok(())
}

/// Whether a key is the one that was overridden, or part of its value.
fn is_below(key: &str, one: &Override) -> bool {
    let rest = key.strip_prefix(one.section.as_str()).and_then(|rest| rest.strip_prefix('.'));
    let rest = rest.and_then(|rest| rest.strip_prefix(one.key.as_str()));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A file as it was read: for saying where in it something is.
struct Document<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Document<'_> {
    /// The file by itself, while it is known where in it everything is.
    fn check(&self) -> Result<(), Problem> {
        toml::from_str::<Config>(self.text).map(drop).map_err(|error| self.problem(&error))
    }

    fn problem(&self, error: &toml::de::Error) -> Problem {
        let at = error.span().map_or(0, |span| span.start);
        let table = DeTable::parse(self.text).ok();
        let key = table.and_then(|table| key_at(table.get_ref(), at)).unwrap_or_default();
        Problem { place: self.at(at), key, what: error.message().to_owned() }
    }

    /// File, line and column of a byte.
    fn at(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        format!("{}:{line}:{column}", self.path.display())
    }

    /// Where the value of a key is; the file, if it is not in there.
    fn place_of(&self, key: &str) -> String {
        let table = DeTable::parse(self.text).ok();
        let span = table.and_then(|table| span_of(table.get_ref(), key));
        span.map_or_else(|| self.path.display().to_string(), |span| self.at(span.start))
    }
}

/// The key that is at a byte, or whose value is: `http.listen`.
fn key_at(table: &DeTable<'_>, at: usize) -> Option<String> {
    for (key, value) in table {
        let name = key.get_ref().to_string();
        match value.get_ref() {
            // Those of a table are further down in the file than its head.
            DeValue::Table(inner) => {
                if let Some(rest) = key_at(inner, at) {
                    return Some(format!("{name}.{rest}"));
                }
            }
            DeValue::Array(elements) => {
                let inner = elements.iter().enumerate().find_map(|(place, element)| match element.get_ref() {
                    DeValue::Table(table) => key_at(table, at).map(|rest| format!("{name}[{place}].{rest}")),
                    _ => None,
                });
                if inner.is_some() {
                    return inner;
                }
            }
            _ => {}
        }
        if key.span().contains(&at) || value.span().contains(&at) {
            return Some(name);
        }
    }
    None
}

/// Where the value of a key is: `http.listen`, `alerts.receivers[0].url`.
fn span_of(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let mut steps = key.split(['.', '[', ']']).filter(|step| !step.is_empty());
    let mut value = table.get(steps.next()?)?;
    for step in steps {
        let inner = match value.get_ref() {
            DeValue::Table(table) => table.get(step),
            DeValue::Array(elements) => step.parse::<usize>().ok().and_then(|place| elements.get(place)),
            _ => None,
        };
        let Some(inner) = inner else { break };
        value = inner;
    }
    Some(value.span())
}
