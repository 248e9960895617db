//! How one receiver is reached: address, secrets, and the shape of its messages.

use std::{
    env,
    io::{self, Write as _},
    os::fd::AsFd as _,
    sync::Arc,
    time::Duration,
};

use ureq::Agent;

use super::{Outcome, http};
use crate::alert::{
    AlertsError,
    config::{Address, Config, Receiver, source},
    message::{self, Context},
    moment::Moment,
    queue::{Batch, Style},
    rules::Alert,
    secret::{Secret, SecretError, SecretSource},
};

/// A lease is this many resend intervals long, as that of Prometheus is: three may fail.
const LEASE: u32 = 4;

/// How one receiver is reached.
pub(in crate::alert) struct Target {
    pub(super) name: String,
    pub(super) style: Style,
    pub(super) timeout: Duration,
    pub(super) retry_min: Duration,
    pub(super) retry_max: Duration,
    group_by: Vec<String>,
    context: Arc<Context>,
    to: To,
}

enum To {
    Journal { has_priority: bool },
    Alertmanager { post: Post, lease: Duration },
    PagerDuty { post: Post, key: Secret },
    Webhook { post: Post },
}

/// Where to, and what is needed for it.
struct Post {
    client: Agent,
    url: Address,
    authorization: Option<Secret>,
}

impl Target {
    /// Reads its secrets.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub(in crate::alert) fn open(
        name: &str,
        receiver: &Receiver,
        config: &Config,
        context: &Arc<Context>,
    ) -> Result<Self, AlertsError> {
        let failed = |error| AlertsError::Secret { receiver: name.to_owned(), error };
        let secret = |source: Option<SecretSource>| source.map(|source| source.read()).transpose().map_err(failed);
        let resend = config.resend.0;
        let (style, to) = match receiver {
            Receiver::Journal => (Style::Single, To::Journal { has_priority: is_journal_on_stderr() }),
            Receiver::Alertmanager(it) => {
                let authorization = secret(source(it.authorization_file.as_ref(), it.authorization_env.as_ref()))?;
                let url = format!("{}/{}", it.url.expose().trim_end_matches('/'), message::alertmanager::PATH);
                let post = Post::new(address(name, &url)?, authorization);
                (Style::Lease { resend }, To::Alertmanager { post, lease: resend * LEASE })
            }
            Receiver::PagerDuty(it) => {
                let from = source(it.routing_key_file.as_ref(), it.routing_key_env.as_ref());
                let key = secret(from)?.ok_or_else(|| {
                    failed(SecretError::NotSet(SecretSource::Environment("routing_key_env".to_owned())))
                })?;
                (Style::Single, To::PagerDuty { post: Post::new(it.url.clone(), None), key })
            }
            Receiver::Webhook(it) => {
                let authorization = secret(source(it.authorization_file.as_ref(), it.authorization_env.as_ref()))?;
                let hidden = secret(source(it.url_file.as_ref(), it.url_env.as_ref()))?;
                let text = it.url.as_ref().map(Address::expose).or(hidden.as_ref().map(Secret::expose));
                let post = Post::new(address(name, text.unwrap_or_default())?, authorization);
                (Style::Grouped { wait: config.group_wait.0 }, To::Webhook { post })
            }
        };
        Ok(Self {
            name: name.to_owned(),
            style,
            timeout: config.timeout.0,
            retry_min: config.retry_min.0,
            retry_max: config.retry_max.0,
            group_by: config.group_by.clone(),
            context: Arc::clone(context),
            to,
        })
    }

    /// Names the group of an alert.
    pub(super) fn group_of(&self, alert: &Alert) -> String {
        message::webhook::group_key(alert, &self.group_by, &self.context)
    }

    /// Sends a message, within a time.
    pub(super) fn send(&self, batch: &Batch, now: Moment, timeout: Duration) -> Outcome {
        let context = &*self.context;
        match &self.to {
            To::Journal { has_priority } => {
                let texts = batch.steps.iter().map(|step| message::journal::text(step, *has_priority, context));
                match io::stderr().lock().write_all(texts.collect::<String>().as_bytes()) {
                    Ok(()) => Outcome::Delivered,
                    Err(error) => Outcome::Later { reason: format!("standard error: {error}"), after: None },
                }
            }
            To::Alertmanager { post, lease } => {
                let body = message::alertmanager::body(batch, now, *lease, context);
                post.send(&body, now, timeout, None)
            }
            To::PagerDuty { post, key } => match batch.steps.first() {
                Some(step) => post.send(&message::pagerduty::event(step, key, context), now, timeout, Some(key)),
                None => Outcome::Delivered,
            },
            To::Webhook { post } => match message::webhook::message(batch, &self.name, &self.group_by, now, context) {
                Some(body) => post.send(&body, now, timeout, None),
                None => Outcome::Delivered,
            },
        }
    }
}

impl Post {
    fn new(url: Address, authorization: Option<Secret>) -> Self {
        Self { client: http::client(&url), url, authorization }
    }

    fn send<T: serde::Serialize>(&self, body: &T, now: Moment, timeout: Duration, key: Option<&Secret>) -> Outcome {
        let authorization = self.authorization.as_ref();
        let answer = match http::post(&self.client, &self.url, authorization, body, timeout) {
            Ok(answer) => answer,
            Err(outcome) => return outcome,
        };
        let token = authorization.map(Secret::expose).unwrap_or_default();
        // `Bearer TOKEN`: what is repeated may be the second word alone.
        let word = token.split_whitespace().last().unwrap_or_default();
        let mut secrets = self.url.hidden();
        secrets.extend([token, word, key.map(Secret::expose).unwrap_or_default()]);
        http::outcome(&answer, now, &secrets)
    }
}

fn address(receiver: &str, text: &str) -> Result<Address, AlertsError> {
    Address::parse(text).map_err(|reason| AlertsError::Address { receiver: receiver.to_owned(), reason })
}

/// Whether standard error is the journal: systemd names its device and inode in `JOURNAL_STREAM` (sd-daemon(3)).
fn is_journal_on_stderr() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = rustix::fs::fstat(io::stderr().as_fd()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}
