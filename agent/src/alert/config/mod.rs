//! `[alerts]` of the configuration: what becomes an alert, and who is told.

mod receivers;

use std::{collections::BTreeMap, path::PathBuf};

pub(super) use self::receivers::source;
pub use self::receivers::{Address, Alertmanager, Journal, PagerDuty, Receiver, Webhook};
use super::{message, moment::Period, rules::OVERFLOW_ID};
use crate::{analysis, config::section, report::Severity};

section! {
    /// What becomes an alert, and who is told. Secrets are not written here: keys name a file that holds one, or an
    /// environment variable.
    "alerts", Config {
        /// Findings below this are no alerts: "info", "warning" or "critical".
        [garde(skip)]
        minimum_severity: Severity = Severity::Warning, "\"warning\"", restart: false;
        /// How long a finding has to be there before it is told. "0s": at once.
        [garde(skip)]
        hold as "for": Period = Period::seconds(60), "\"1m\"", restart: false;
        /// The same for some kinds of finding, by their id: { EphemeralPortExhaustion = "10s" }
        [garde(custom(are_findings))]
        for_finding: BTreeMap<String, Period> = BTreeMap::new(), "{}", restart: false;
        /// How long a finding has to be gone before its alert is resolved. One that comes and goes faster stays one alert.
        [garde(custom(at_least_a_second))]
        resolve_after: Period = Period::seconds(5 * 60), "\"5m\"", restart: false;
        /// How often an alert that goes on is told again. Alertmanager has its own `repeat_interval`.
        [garde(custom(at_least_a_second))]
        repeat: Period = Period::seconds(4 * 60 * 60), "\"4h\"", restart: false;
        /// Labels whose values put alerts into one message to a webhook.
        [garde(inner(custom(is_label)))]
        group_by: Vec<String> = vec!["alertname".to_owned()], "[\"alertname\"]", restart: false;
        /// How long the first alert of a message to a webhook waits for others.
        [garde(skip)]
        group_wait: Period = Period::seconds(10), "\"10s\"", restart: false;
        /// How often Alertmanager is told what still fires. Left alone for four times as long, it takes the alert for resolved.
        [garde(custom(at_least_a_second))]
        resend: Period = Period::seconds(60), "\"1m\"", restart: false;
        /// Labels for every alert: { team = "payments" }
        [garde(custom(are_new_labels))]
        labels: BTreeMap<String, String> = BTreeMap::new(), "{}", restart: false;
        /// Address before `docs/findings.md#...` in the link of an alert to its documentation, for example
        /// "https://wiki.example/firstfin/". Without it the link is that path alone.
        [garde(custom(is_empty_or_link))]
        documentation_url: String = String::new(), "\"\"", restart: false;
        /// Longest time a request may take, from the look-up of the name to the answer.
        [garde(custom(at_least_a_tenth))]
        timeout: Period = Period::seconds(5), "\"5s\"", restart: false;
        /// Wait before a message is sent again; doubles each time, and a random part of as much is added.
        [garde(custom(at_least_a_tenth))]
        retry_min: Period = Period::seconds(1), "\"1s\"", restart: false;
        /// The longest such wait. Five times as long where trying again soon is useless: a bad certificate, a refused key.
        [garde(custom(at_least_a_tenth))]
        retry_max: Period = Period::seconds(60), "\"1m\"", restart: false;
        /// Alerts at a time, those that wait for their hold included, from 1 to 1000. Findings beyond are counted, and that is an
        /// alert, too.
        [garde(range(min = 1, max = 1000))]
        max_active: usize = 200, "200", restart: false;
        /// Alerts each receiver may be owed: those that are active, and those that are over and could not be told yet. From 1 to
        /// 10000; less than `max_active` is as much as that.
        [garde(range(min = 1, max = 10_000))]
        max_queued: usize = 1000, "1000", restart: false;
        /// Folder of the file that lets alerts survive a restart: what fires, and what is owed. It is made if it is not there.
        [garde(skip)]
        state_folder: PathBuf = PathBuf::from("/var/lib/firstfin"), "\"/var/lib/firstfin\"", restart: true;
        /// Lines in the journal, or on standard error where there is none.
        [garde(skip)]
        journal: Journal = Journal::default(), "{ enabled = true }", restart: false;
        /// Alertmanagers. List every one of a cluster: each is told everything, and they agree among themselves. Keys: url,
        /// name, authorization_file, authorization_env: [{ url = "http://127.0.0.1:9093" }]
        [garde(dive, custom(have_names))]
        alertmanager: Vec<Alertmanager> = Vec::new(), "[]", restart: false;
        /// Services of PagerDuty. Keys: routing_key_file, routing_key_env, name, url:
        /// [{ routing_key_file = "/etc/firstfin/pagerduty.key" }]
        [garde(dive, custom(have_names))]
        pagerduty: Vec<PagerDuty> = Vec::new(), "[]", restart: false;
        /// Whatever takes the webhooks of Alertmanager, version 4. Keys: url, url_file, url_env, name, authorization_file,
        /// authorization_env: [{ url = "https://chat.example/hook" }]
        [garde(dive, custom(have_names))]
        webhook: Vec<Webhook> = Vec::new(), "[]", restart: false;
    }
}

impl Config {
    /// Every receiver, by a name that no other one has.
    #[must_use]
    pub fn receivers(&self) -> BTreeMap<String, Receiver> {
        let mut all = BTreeMap::new();
        if self.journal.enabled {
            all.insert("journal".to_owned(), Receiver::Journal);
        }
        let alertmanagers = self.alertmanager.iter().cloned().map(Receiver::Alertmanager);
        let pagerduty = self.pagerduty.iter().cloned().map(Receiver::PagerDuty);
        let webhooks = self.webhook.iter().cloned().map(Receiver::Webhook);
        all.extend(alertmanagers.chain(pagerduty).chain(webhooks).map(|receiver| (receiver.name(), receiver)));
        all
    }
}

fn at_least_a_second(period: &Period, (): &()) -> garde::Result {
    at_least(*period, Period::seconds(1))
}

fn at_least_a_tenth(period: &Period, (): &()) -> garde::Result {
    at_least(*period, Period(std::time::Duration::from_millis(100)))
}

fn at_least(period: Period, least: Period) -> garde::Result {
    if period < least {
        return Err(garde::Error::new(format!("must be at least {least}")));
    }
    Ok(())
}

fn are_findings(by_id: &BTreeMap<String, Period>, (): &()) -> garde::Result {
    let is_known = |id: &str| id == OVERFLOW_ID || analysis::IDS.contains(&id);
    match by_id.keys().find(|id| !is_known(id)) {
        Some(id) => Err(garde::Error::new(format!(
            "no finding is called `{id}`; there are {}, {OVERFLOW_ID}",
            analysis::IDS.join(", ")
        ))),
        None => Ok(()),
    }
}

fn is_label(name: &str, (): &()) -> garde::Result {
    let mut bytes = name.bytes();
    let is_named = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_named {
        return Ok(());
    }
    Err(garde::Error::new(format!("`{name}` is no label: letters, digits and _ are allowed, and no digit first")))
}

fn is_empty_or_link(text: &str, (): &()) -> garde::Result {
    if text.is_empty() {
        return Ok(());
    }
    let is_one = ["http://", "https://", "file:///"].iter().any(|scheme| text.starts_with(scheme));
    if is_one && !text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    Err(garde::Error::new("an address that begins with http://, https:// or file:/// is needed"))
}

fn are_new_labels(labels: &BTreeMap<String, String>, (): &()) -> garde::Result {
    for name in labels.keys() {
        is_label(name, &())?;
        if message::LABELS.contains(&name.as_str()) {
            return Err(garde::Error::new(format!(
                "`{name}` is a label that alerts have already: {}",
                message::LABELS.join(", ")
            )));
        }
    }
    Ok(())
}

/// Something that has a name among its kind.
trait Named {
    fn name(&self) -> String;
}

fn have_names<T: Named>(receivers: &[T], (): &()) -> garde::Result {
    let mut names = std::collections::BTreeSet::new();
    for receiver in receivers {
        let name = receiver.name();
        if !names.insert(name.clone()) {
            return Err(garde::Error::new(format!("two are called `{name}`: give each a `name` of its own")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
