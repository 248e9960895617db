//! Values that are more than a word or a number. Each refusal says what is allowed.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{cli, kernel::plan::Rung, metrics::ProcessLabel};

/// Where the endpoint listens unless told otherwise. Prometheus's own registry has given away 9100 to 9999, and from 32768
/// on any connection may have the port; RFC 9293 is TCP.
const PORT: u16 = 19_293;

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At this address and port
    At(SocketAddr),
    /// Nowhere
    Off,
}

impl Default for Listen {
    fn default() -> Self {
        Self::At(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT)))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => at.fmt(f),
            Self::Off => f.pad("off"),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let at = text.parse().map(Self::At);
        at.map_err(|_| format!("`{text}` is no place to listen: 127.0.0.1:{PORT}, [::1]:{PORT} or off is needed"))
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

const SHORTEST_ROUND: Duration = Duration::from_secs(1);
const LONGEST_ROUND: Duration = Duration::from_mins(10);

pub(super) fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = cli::duration(&text).map_err(|why| D::Error::custom(format!("`{text}`: {why}")))?;
    match (SHORTEST_ROUND..=LONGEST_ROUND).contains(&time) {
        true => Ok(time),
        false => Err(D::Error::custom(format!("`{text}`: a time from 1s to 10m is needed"))),
    }
}

pub(super) fn ring_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a size is needed, such as \"8MiB\" or 8388608")]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    let text = match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => bytes.to_string(),
        Size::Text(text) => text,
    };
    cli::ring_size(&text).map_err(|why| D::Error::custom(format!("`{text}`: {why}")))
}

pub(super) fn max_rung<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Rung, D::Error> {
    let text = String::deserialize(deserializer)?;
    let rungs = [Rung::Fentry, Rung::Kprobe, Rung::Tracepoint];
    let rung = rungs.into_iter().find(|rung| rung.name() == text);
    rung.ok_or_else(|| D::Error::custom(format!("`{text}` is none of \"fentry\", \"kprobe\", \"tracepoint\"")))
}

pub(super) fn no_label_twice(labels: &[ProcessLabel], _: &()) -> garde::Result {
    let twice = labels.iter().enumerate().find(|(place, label)| labels.iter().take(*place).any(|it| it == *label));
    match twice {
        Some((_, label)) => Err(garde::Error::new(format!("\"{label}\" is there twice"))),
        None => Ok(()),
    }
}
