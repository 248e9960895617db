//! A strict reading of the text formats, for tests: what a scraper would put up with is refused here.

use std::collections::{BTreeMap, BTreeSet};

use super::Format;

/// Names and values.
type Labels = Vec<(String, String)>;

/// Labels and values of a family, under its name.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Name of a sample -> its series: labels in their order, value
    pub(super) samples: BTreeMap<String, Vec<(Labels, f64)>>,
}

impl Read {
    /// The value of the series that has all of these labels; panics unless there is exactly one.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.matching(name, labels);
        assert_eq!(found.len(), 1, "{name} {labels:?}: {:?}", self.samples.get(name));
        found[0]
    }

    /// Values of every series that has all of these labels.
    pub(super) fn matching(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let has_all = |series: &[(String, String)]| {
            labels.iter().all(|(label, value)| series.iter().any(|(a, b)| a == label && b == value))
        };
        let series = self.samples.get(name).into_iter().flatten();
        series.filter(|(labels, _)| has_all(labels)).map(|(_, value)| *value).collect()
    }

    pub(super) fn sum(&self, name: &str) -> f64 {
        self.matching(name, &[]).iter().sum()
    }
}

#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    unit: Option<String>,
    series: BTreeSet<Labels>,
}

/// Reads a whole answer.
pub(super) fn read(text: &str, format: Format) -> Result<Read, String> {
    let body = match format {
        Format::OpenMetrics => text.strip_suffix("# EOF\n").ok_or("it does not end with # EOF")?,
        Format::Prometheus => text,
    };
    if !body.is_empty() && !body.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    let mut read = Read::default();
    let mut seen = BTreeSet::new();
    let mut family = Family::default();
    let mut help = None;
    for line in body.lines() {
        let refuse = |why: &str| Err(format!("{why}: {line}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, text)) = rest.split_once(' ') else { return refuse("no help") };
            if text.is_empty() || text.contains('\\') {
                return refuse("help is empty, or escaped");
            }
            help = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { return refuse("no type") };
            if help.take().as_deref() != Some(name) {
                return refuse("the help before is another's");
            }
            if !is_name(name) || !seen.insert(name.to_owned()) || !["gauge", "counter"].contains(&kind) {
                return refuse("a bad name, a second time, or a bad type");
            }
            family = Family { name: name.to_owned(), kind: kind.to_owned(), ..Family::default() };
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            if format == Format::Prometheus {
                return refuse("this format has no units");
            }
            let Some((name, unit)) = rest.split_once(' ') else { return refuse("no unit") };
            if name != family.name || !name.ends_with(&format!("_{unit}")) || !family.series.is_empty() {
                return refuse("a unit that is not the name's, or not in its place");
            }
            family.unit = Some(unit.to_owned());
        } else if line.starts_with('#') || line.is_empty() {
            return refuse("neither metadata nor a sample");
        } else {
            let (name, labels, value) = sample(line).map_err(|why| format!("{why}: {line}"))?;
            let expected = match (format, family.kind.as_str()) {
                (Format::OpenMetrics, "counter") => format!("{}_total", family.name),
                _ => family.name.clone(),
            };
            if name != expected {
                return refuse("a sample that is not of the family above it");
            }
            if family.kind == "counter" && !(value >= 0.0 && name.ends_with("_total")) {
                return refuse("no counter");
            }
            let mut sorted = labels.clone();
            sorted.sort();
            if sorted.windows(2).any(|pair| pair[0].0 == pair[1].0) || !family.series.insert(sorted) {
                return refuse("a label or a series twice");
            }
            read.samples.entry(name).or_default().push((labels, value));
        }
    }
    Ok(read)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|it| it.is_ascii_alphabetic() || it == b'_')
        && bytes.all(|it| it.is_ascii_alphanumeric() || it == b'_')
}

type Sample = (String, Labels, f64);

fn sample(line: &str) -> Result<Sample, &'static str> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err("a bad name");
    }
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        if rest.starts_with('}') {
            return Err("empty braces");
        }
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("a label without a value")?;
            if !is_name(label) {
                return Err("a bad label");
            }
            let (value, after) = quoted(after)?;
            labels.push((label.to_owned(), value));
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None => {
                    rest = after.strip_prefix('}').ok_or("labels without an end")?;
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    if value.is_empty() || value.contains(' ') {
        return Err("a timestamp, or no value");
    }
    Ok((name.to_owned(), labels, value.parse().map_err(|_| "no number")?))
}

/// A value up to its closing quote, and what follows.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, it @ ('\\' | '"'))) => value.push(it),
                _ => return Err("an unknown escape"),
            },
            it => value.push(it),
        }
    }
    Err("a value without an end")
}
