//! Values that are more than a word or a number: what is accepted, and what is said where it is not.
//!
//! Each refusal names the form that would do. Nothing is looked up here.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use jiff::SignedDuration;

use crate::{model::Name, what_if::Who};

/// A network namespace as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetnsArg {
    /// Inode number of its file in nsfs
    Inode(u32),
    /// A path that leads to it
    Path(PathBuf),
}

/// A cgroup as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupArg {
    /// cgroup v2 id: inode number of its folder
    Id(u64),
    /// Its path, in the cgroup hierarchy or in the file system
    Path(PathBuf),
}

/// A port, at one address or at any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// None: any
    pub address: Option<IpAddr>,
    /// Never 0
    pub port: u16,
}

/// Far beyond any session, and far below what a clock could not add up.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const SHORTEST: Duration = Duration::from_millis(1);

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration =
        text.parse().map_err(|_| "a number with a unit is needed, such as 500ms, 30s, 5m or 1h30m".to_owned())?;
    Duration::try_from(parsed)
        .ok()
        .filter(|time| (SHORTEST..=LONGEST).contains(time))
        .ok_or_else(|| "a time from 1ms to 8784h (a year) is needed".to_owned())
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match seconds {
        Some(time) if (SHORTEST..=LONGEST).contains(&time) => Ok(time),
        Some(_) => Err("a time from 0.001 s to a year is needed".to_owned()),
        None => {
            duration(text).map_err(|_| "a number of seconds is needed, or one with a unit: 5, 0.5, 30s, 2m".to_owned())
        }
    }
}

pub(super) fn port_range(text: &str) -> Result<(u16, u16), String> {
    let range =
        text.split_once('-').and_then(|(low, high)| Some((low.trim().parse().ok()?, high.trim().parse().ok()?)));
    range
        .filter(|(low, high)| *low > 0 && low <= high)
        .ok_or_else(|| "two ports from 1 to 65535 are needed, the lower one first: 10240-65535".to_owned())
}

/// A process as it is typed: its id if it is a number, else its name.
pub(super) fn program(text: &str) -> Result<Who, String> {
    if let Ok(pid) = text.parse() {
        return if pid > 0 { Ok(Who::Pid(pid)) } else { Err("a process id is 1 or more".to_owned()) };
    }
    comm(text).map(|comm| Who::Comm(Name::from_bytes(comm.as_bytes())))
}

pub(super) fn place(text: &str) -> Result<Place, String> {
    let place = text
        .parse::<u16>()
        .map(|port| Place { address: None, port })
        .or_else(|_| text.parse::<SocketAddr>().map(|at| Place { address: Some(at.ip()), port: at.port() }));
    place.ok().filter(|place| place.port != 0).ok_or_else(|| {
        "a port from 1 to 65535, or an address and one, is needed: 8080, 10.0.0.1:8080 or [::1]:8080".to_owned()
    })
}

pub(super) fn destination(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .ok()
        .filter(|at: &SocketAddr| at.port() != 0 && !at.ip().is_unspecified())
        .ok_or_else(|| "an address and a port are needed: 10.0.0.5:443 or [2001:db8::5]:443".to_owned())
}

pub(crate) fn ring_size(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text.get(digits.len()..) {
        Some("") => 0,
        Some("KiB") => 10,
        Some("MiB") => 20,
        Some("GiB") => 30,
        _ => return Err("the suffixes are KiB, MiB and GiB".to_owned()),
    };
    let number: u64 = digits.trim_end().parse().map_err(|_| "a number of bytes is needed, such as 8388608 or 8MiB")?;
    number
        .checked_mul(1 << shift)
        .and_then(|bytes| u32::try_from(bytes).ok())
        .filter(|bytes| bytes.is_power_of_two() && (1 << 12..=1 << 30).contains(bytes))
        .ok_or_else(|| "the kernel takes powers of two: 4KiB, 8KiB, 16KiB ... 1GiB".to_owned())
}

/// `TASK_COMM_LEN` less its NUL
const COMM_LENGTH: usize = 15;

pub(super) fn comm(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a process name is needed".to_owned());
    }
    if text.len() > COMM_LENGTH {
        let mut end = COMM_LENGTH;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let kept = text.get(..end).unwrap_or_default();
        return Err(format!("the kernel keeps only {COMM_LENGTH} bytes of a name: try `{kept}`"));
    }
    Ok(text.to_owned())
}

pub(super) fn netns(text: &str) -> Result<NetnsArg, String> {
    // readlink(2) of /proc/PID/ns/net says net:[4026531840].
    let number = text.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        return number.parse().map(NetnsArg::Inode).map_err(|_| "an inode number has 32 bits".to_owned());
    }
    if text.contains('/') {
        return Ok(NetnsArg::Path(PathBuf::from(text)));
    }
    Err("an inode number or a path is needed, such as 4026531840, /run/netns/blue or /proc/PID/ns/net".to_owned())
}

pub(super) fn cgroup(text: &str) -> Result<CgroupArg, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(CgroupArg::Id).map_err(|_| "a cgroup id has 64 bits".to_owned());
    }
    if text.contains('/') {
        return Ok(CgroupArg::Path(PathBuf::from(text)));
    }
    Err("an id or a path is needed, such as 4711, /system.slice/nginx.service or /sys/fs/cgroup/system.slice"
        .to_owned())
}
