//! Values of single keys, from flags and environment variables.

use std::ffi::OsString;

use super::{Config, Key, Problem};

/// A value that is set for a key, whatever the file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// The flag or the variable, as errors name it
    pub origin: String,
    /// Its section
    pub section: String,
    /// Its name
    pub key: String,
    /// The value: TOML if it can be read as that, else a string
    pub value: toml::Value,
}

impl Override {
    /// `SECTION.KEY=VALUE`
    ///
    /// # Errors
    /// It has not this form. Whether there is such a key is found out when the configuration is read.
    pub fn assignment(flag: &str, text: &str) -> Result<Self, Problem> {
        let parts = text.split_once('=').and_then(|(key, value)| {
            let (section, key) = key.trim().split_once('.')?;
            Some((section.to_owned(), key.to_owned(), value))
        });
        let Some((section, key, value)) = parts else {
            return Err(Problem {
                place: format!("{flag} {text}"),
                key: String::new(),
                what: "SECTION.KEY=VALUE is needed, such as metrics.top=20".to_owned(),
            });
        };
        // The key as it was typed, not the value: that may be a secret.
        Ok(Self { origin: format!("{flag} {section}.{key}"), section, key, value: value_of(value.trim()) })
    }

    /// A flag of its own.
    #[must_use]
    pub fn flag(flag: &str, section: &str, key: &str, value: impl Into<toml::Value>) -> Self {
        Self { origin: flag.to_owned(), section: section.to_owned(), key: key.to_owned(), value: value.into() }
    }

    /// Every key that the environment sets. `variable` looks one up.
    ///
    /// # Errors
    /// A value that is not UTF-8.
    pub fn environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<Self>, Problem> {
        let set = Config::keys().filter_map(|key| variable(&key.variable()).map(|value| (key, value)));
        set.map(|(key, value)| Self::variable(key, value)).collect()
    }

    fn variable(key: &Key, value: OsString) -> Result<Self, Problem> {
        let origin = key.variable();
        match value.into_string() {
            Ok(value) => Ok(Self {
                origin,
                section: key.section.to_owned(),
                key: key.name.to_owned(),
                value: value_of(value.trim()),
            }),
            Err(_) => Err(Problem {
                place: origin,
                key: format!("{}.{}", key.section, key.name),
                what: "not UTF-8".to_owned(),
            }),
        }
    }
}

/// As the file would have it. What is no TOML is a string: nobody types the quotes of `--set observe.interval=5s`.
fn value_of(text: &str) -> toml::Value {
    let parsed = format!("value = {text}").parse::<toml::Table>().ok().filter(|table| table.len() == 1);
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| toml::Value::String(text.to_owned()))
}
