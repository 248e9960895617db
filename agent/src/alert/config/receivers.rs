//! Who is told: one table of the configuration each.

use std::{fmt, path::PathBuf};

use garde::Validate;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ureq::http::Uri;

use super::Named;
use crate::alert::secret::SecretSource;

/// Where PagerDuty takes events.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// An http or https address. What follows the host may be a secret (that of a chat's webhook is), so no format shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// Takes an address that can be sent to.
    ///
    /// # Errors
    /// What is wrong with it and what is allowed, without showing it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let address = Self(text.to_owned());
        address.check()?;
        Ok(address)
    }

    fn check(&self) -> Result<(), String> {
        let allowed = "an address such as https://alerts.example:9093/path is needed";
        let uri: Uri = self.0.parse().map_err(|_| allowed.to_owned())?;
        let authority = uri.authority().ok_or(allowed)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
            return Err(allowed.to_owned());
        }
        if authority.as_str().contains('@') {
            return Err("a user or password does not belong into an address: use authorization_file".to_owned());
        }
        Ok(())
    }

    /// The whole of it, for the request and for links.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What of it must not be shown where a receiver repeats it: itself, what follows the host, and each part of that which
    /// is long enough to be a token.
    pub(in crate::alert) fn hidden(&self) -> Vec<&str> {
        /// Bytes: shorter ones are words such as `alerts`
        const TOKEN: usize = 8;
        let after_scheme = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        let rest = after_scheme.find(['/', '?', '#']).and_then(|at| after_scheme.get(at..)).unwrap_or_default();
        let parts = rest.split(['/', '?', '&', '=', '#']).filter(|part| part.len() >= TOKEN);
        let whole = [self.0.as_str(), rest].into_iter().filter(|text| text.len() > 1);
        whole.chain(parts).collect()
    }

    /// Host, and port if it has one.
    #[must_use]
    pub fn authority(&self) -> &str {
        let after_scheme = self.0.split_once("://").map_or(self.0.as_str(), |(_, rest)| rest);
        let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
        authority.rsplit('@').next().unwrap_or_default()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.split_once("://").map_or("http", |(scheme, _)| scheme);
        write!(f, "{scheme}://{}", self.authority())?;
        let has_path = self.0.len() > scheme.len() + "://".len() + self.authority().len() + 1;
        if has_path { f.write_str("/[not shown]") } else { Ok(()) }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    /// Takes any text: an error of TOML would show the line it is in. What it is worth is looked at afterwards.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl Validate for Address {
    type Context = ();

    fn validate_into(&self, (): &(), parent: &mut dyn FnMut() -> garde::Path, report: &mut garde::Report) {
        if let Err(reason) = self.check() {
            report.append(parent(), garde::Error::new(reason));
        }
    }
}

/// Lines in the journal, or on standard error where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// Write them
    pub enabled: bool,
}

impl Default for Journal {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// An Alertmanager, which is told by its API v2.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Alertmanager {
    /// What it is called in messages and metrics; without one, its host and port
    #[serde(default)]
    pub name: Option<String>,
    /// Its address, without `/api/v2/alerts`
    #[garde(dive)]
    pub url: Address,
    /// File that holds the value of the header `Authorization`, such as `Bearer ...`
    #[serde(default)]
    #[garde(custom(only_one(&self.authorization_env)))]
    pub authorization_file: Option<PathBuf>,
    /// Environment variable that holds it
    #[serde(default)]
    pub authorization_env: Option<String>,
}

/// A service of PagerDuty, which is told by its Events API v2.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct PagerDuty {
    /// What it is called in messages and metrics; without one, where its key is
    #[serde(default)]
    pub name: Option<String>,
    /// File that holds the integration key
    #[serde(default)]
    #[garde(custom(only_one(&self.routing_key_env)), custom(at_least_one(&self.routing_key_env, "routing_key")))]
    pub routing_key_file: Option<PathBuf>,
    /// Environment variable that holds it
    #[serde(default)]
    pub routing_key_env: Option<String>,
    /// Where it takes events, if not at events.pagerduty.com (EU: `https://events.eu.pagerduty.com/v2/enqueue`)
    #[serde(default = "pagerduty")]
    #[garde(dive)]
    pub url: Address,
}

/// Whatever takes the webhooks of Alertmanager, version 4.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Webhook {
    /// What it is called in messages and metrics; without one, its host and port, or where its address is
    #[serde(default)]
    pub name: Option<String>,
    /// Its address
    #[serde(default)]
    #[garde(dive, custom(one_address(&self.url_file, &self.url_env)))]
    pub url: Option<Address>,
    /// File that holds the address, where that is a secret
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// Environment variable that holds it
    #[serde(default)]
    pub url_env: Option<String>,
    /// File that holds the value of the header `Authorization`, such as `Bearer ...`
    #[serde(default)]
    #[garde(custom(only_one(&self.authorization_env)))]
    pub authorization_file: Option<PathBuf>,
    /// Environment variable that holds it
    #[serde(default)]
    pub authorization_env: Option<String>,
}

/// Any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The journal, or standard error
    Journal,
    /// An Alertmanager
    Alertmanager(Alertmanager),
    /// A service of PagerDuty
    PagerDuty(PagerDuty),
    /// A webhook
    Webhook(Webhook),
}

impl Receiver {
    /// Kind and name: `webhook/chat.example`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Journal => "journal".to_owned(),
            Self::Alertmanager(it) => format!("alertmanager/{}", it.name()),
            Self::PagerDuty(it) => format!("pagerduty/{}", it.name()),
            Self::Webhook(it) => format!("webhook/{}", it.name()),
        }
    }
}

impl Named for Alertmanager {
    fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.url.authority().to_owned())
    }
}

impl Named for PagerDuty {
    fn name(&self) -> String {
        let key = || source(self.routing_key_file.as_ref(), self.routing_key_env.as_ref());
        self.name.clone().or_else(|| key().map(place_of)).unwrap_or_default()
    }
}

impl Named for Webhook {
    fn name(&self) -> String {
        let address = || source(self.url_file.as_ref(), self.url_env.as_ref());
        let shown = || self.url.as_ref().map(|url| url.authority().to_owned());
        self.name.clone().or_else(shown).or_else(|| address().map(place_of)).unwrap_or_default()
    }
}

/// Where a secret is, of the two places it can be in.
#[must_use]
pub(in crate::alert) fn source(file: Option<&PathBuf>, variable: Option<&String>) -> Option<SecretSource> {
    file.cloned().map(SecretSource::File).or_else(|| variable.cloned().map(SecretSource::Environment))
}

fn place_of(source: SecretSource) -> String {
    match source {
        SecretSource::File(path) => path.display().to_string(),
        SecretSource::Environment(name) => name,
    }
}

fn pagerduty() -> Address {
    Address(PAGERDUTY.to_owned())
}

fn only_one(variable: &Option<String>) -> impl FnOnce(&Option<PathBuf>, &()) -> garde::Result {
    let has_both = variable.is_some();
    move |file, ()| {
        if file.is_some() && has_both {
            return Err(garde::Error::new("a file and an environment variable are given; one of them is enough"));
        }
        Ok(())
    }
}

fn at_least_one(variable: &Option<String>, what: &'static str) -> impl FnOnce(&Option<PathBuf>, &()) -> garde::Result {
    let has_other = variable.is_some();
    move |file, ()| {
        if file.is_none() && !has_other {
            return Err(garde::Error::new(format!("{what}_file or {what}_env is needed")));
        }
        Ok(())
    }
}

fn one_address(
    file: &Option<PathBuf>,
    variable: &Option<String>,
) -> impl FnOnce(&Option<Address>, &()) -> garde::Result {
    let others = usize::from(file.is_some()) + usize::from(variable.is_some());
    move |url, ()| match others + usize::from(url.is_some()) {
        1 => Ok(()),
        0 => Err(garde::Error::new("url, url_file or url_env is needed")),
        _ => Err(garde::Error::new("more than one of url, url_file and url_env is given; one is enough")),
    }
}
