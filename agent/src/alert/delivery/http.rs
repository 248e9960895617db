//! Posts JSON, and says in which of four ways that ended.

use std::{io, net::IpAddr, time::Duration};

use serde::Serialize;
use ureq::{
    Agent,
    http::{Response, StatusCode, Uri},
    tls::{RootCerts, TlsConfig},
};

use super::Outcome;
use crate::alert::{config::Address, moment::Moment, secret::Secret};

/// Bytes of an answer that are looked at.
const ANSWER: u64 = 4096;
/// Characters of it that are shown.
const SHOWN: usize = 200;

/// A client for one receiver: certificates are those the system trusts, redirects are not followed (a secret would go
/// along), and a proxy of the environment is used for all but this host.
pub(super) fn client(url: &Address) -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("firstfin/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls);
    if is_this_host(url) {
        config = config.proxy(None);
    }
    config.build().new_agent()
}

fn is_this_host(url: &Address) -> bool {
    let uri: Option<Uri> = url.expose().parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Posts a body. No text of the outcome shows a secret, the address's path among them.
pub(super) fn post<T: Serialize>(
    client: &Agent,
    url: &Address,
    authorization: Option<&Secret>,
    body: &T,
    timeout: Duration,
) -> Result<Response<String>, Outcome> {
    let body = serde_json::to_vec(body).map_err(|error| Outcome::Refused(format!("cannot be written: {error}")))?;
    let mut request = client.post(url.expose()).header("Content-Type", "application/json");
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization.expose());
    }
    let answer = request.config().timeout_global(Some(timeout)).build().send(&body);
    let (parts, mut answer) = answer.map_err(failure)?.into_parts();
    let text = answer.with_config().limit(ANSWER).lossy_utf8(true).read_to_string().unwrap_or_default();
    Ok(Response::from_parts(parts, text))
}

/// What no answer at all means.
fn failure(error: ureq::Error) -> Outcome {
    let later = |reason: String| Outcome::Later { reason, after: None };
    match error {
        ureq::Error::Timeout(_) => later("no answer in time".to_owned()),
        ureq::Error::HostNotFound => later("its host name is not known".to_owned()),
        // rustls reports a certificate that is not trusted as data that is not valid.
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            Outcome::Misconfigured(format!("TLS: {error}"))
        }
        ureq::Error::Io(error) => later(error.to_string()),
        error @ (ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_)) => {
            Outcome::Misconfigured(format!("TLS: {error}"))
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            Outcome::Misconfigured("its address or a header cannot be sent".to_owned())
        }
        ureq::Error::InvalidProxyUrl => Outcome::Misconfigured("the proxy of the environment is no address".to_owned()),
        error => later(error.to_string()),
    }
}

/// What an answer means.
///
/// The message is at fault only where the receiver says so by 400, 413, 415, 422 and the like. Where the address or the
/// key is wrong (401, 403, 404 ...), every message would be refused, and what is owed is kept until somebody has put it
/// right.
pub(super) fn outcome(answer: &Response<String>, now: Moment, secrets: &[&str]) -> Outcome {
    let status = answer.status();
    if status.is_success() {
        return Outcome::Delivered;
    }
    let reason = reason(status, answer.body(), secrets);
    match status.as_u16() {
        408 | 425 | 429 | 500..=599 => {
            let asked = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
            Outcome::Later { reason, after: asked.and_then(|asked| retry_after(asked, now)) }
        }
        300..=399 | 401 | 402 | 403 | 404 | 405 | 407 | 410 | 451 => Outcome::Misconfigured(reason),
        400..=499 => Outcome::Refused(reason),
        _ => Outcome::Later { reason, after: None },
    }
}

/// `HTTP 400 Bad Request: bad label`, without a secret the receiver may have repeated.
fn reason(status: StatusCode, body: &str, secrets: &[&str]) -> String {
    let mut text = body.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "[secret]");
    }
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
    let name = status.canonical_reason().map(|name| format!(" {name}")).unwrap_or_default();
    match text.trim() {
        "" => format!("HTTP {}{name}", status.as_u16()),
        text => format!("HTTP {}{name}: {text}", status.as_u16()),
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(text: &str, now: Moment) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Moment(date).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Response<String> {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        answer.body(body.to_owned()).unwrap()
    }

    fn now() -> Moment {
        Moment("2026-05-09T07:00:00Z".parse().unwrap())
    }

    #[test]
    fn each_answer_has_its_meaning() {
        let of = |status| outcome(&answer(status, &[], ""), now(), &[]);
        for status in [200, 202, 204] {
            assert_eq!(of(status), Outcome::Delivered);
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(of(status), Outcome::Later { after: None, .. }), "{status}");
        }
        for status in [400, 413, 415, 422] {
            assert!(matches!(of(status), Outcome::Refused(_)), "{status}");
        }
        for status in [301, 308, 401, 403, 404] {
            assert!(matches!(of(status), Outcome::Misconfigured(_)), "{status}");
        }
    }

    #[test]
    fn a_receiver_that_asks_to_be_left_alone_is() {
        let after = |text: &str| match outcome(&answer(429, &[("Retry-After", text)], ""), now(), &[]) {
            Outcome::Later { after, .. } => after.map(|after| after.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(after("120"), Some(120));
        assert_eq!(after("Sat, 09 May 2026 07:00:30 GMT"), Some(30));
        assert_eq!(after("Sat, 09 May 2026 06:00:30 GMT"), Some(0));
        assert_eq!(after("soon"), None);
    }

    #[test]
    fn a_secret_that_is_repeated_is_not_shown() {
        let refused = outcome(&answer(400, &[], "key swordfish\nis\u{1b}[31m unknown"), now(), &["swordfish", ""]);
        assert_eq!(refused, Outcome::Refused("HTTP 400 Bad Request: key [secret] is [31m unknown".to_owned()));
    }

    #[test]
    fn this_host_is_reached_without_a_proxy() {
        let is_here = |text| is_this_host(&Address::parse(text).unwrap());
        for text in ["http://127.0.0.1:9093", "http://localhost/x", "http://[::1]:1"] {
            assert!(is_here(text), "{text}");
        }
        assert!(!is_here("http://10.0.0.1:9093") && !is_here("https://localhost.example"));
    }
}
