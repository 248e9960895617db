//! Questions: a period, and what is asked about.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;

use super::rollup::Identity;
use crate::report::Finding;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Beginning of the period
    pub since: Timestamp,
    /// Its end, not part of it
    pub until: Timestamp,
    /// About what
    pub filter: Filter,
    /// List single minutes too
    pub by_minute: bool,
    /// Length of each list
    pub top: usize,
}

/// About what: all that is set has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Name of a process, or of its executable with or without its folder
    pub process: Option<String>,
    /// systemd unit, with or without `.service`
    pub unit: Option<String>,
    /// Container: the id or its beginning, or the uid of its pod
    pub container: Option<String>,
    /// The other side, or what was served here
    pub destination: Option<Address>,
    /// Kind of finding
    pub finding: Option<String>,
}

/// An address, with or without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address
    pub ip: IpAddr,
    /// The port; none: any
    pub port: Option<u16>,
}

impl Address {
    /// If a text of the history means it.
    #[must_use]
    pub fn matches(self, text: &str) -> bool {
        let (ip, port) = match text.parse::<SocketAddr>() {
            Ok(at) => (at.ip(), Some(at.port())),
            Err(_) => match text.parse::<IpAddr>() {
                Ok(ip) => (ip, None),
                Err(_) => return false,
            },
        };
        ip == self.ip && self.port.is_none_or(|wanted| Some(wanted) == port)
    }
}

impl Filter {
    /// If it asks for certain processes.
    #[must_use]
    pub const fn is_about_processes(&self) -> bool {
        self.process.is_some() || self.unit.is_some() || self.container.is_some()
    }

    /// If a process is asked for. One that is not known matches only if none is asked for.
    #[must_use]
    pub fn matches_process(&self, process: Option<&Identity>) -> bool {
        let Some(process) = process else { return !self.is_about_processes() };
        let is_named = |wanted: &String| {
            let exe = process.exe.as_ref().map(|exe| exe.as_str());
            let file = exe.and_then(|exe| exe.rsplit('/').next());
            process.comm.as_str() == wanted || exe == Some(wanted) || file == Some(wanted)
        };
        let is_in_unit = |wanted: &String| {
            let unit = process.unit.as_ref().map_or("", |unit| unit.as_str());
            unit == wanted || unit.strip_suffix(".service") == Some(wanted)
        };
        let is_in_container = |wanted: &String| {
            process.container.as_ref().is_some_and(|it| {
                let names = [&it.name, &it.pod, &it.pod_uid];
                it.id.as_str().starts_with(wanted.as_str())
                    || names.into_iter().flatten().any(|name| name.as_str() == wanted)
            })
        };
        self.process.as_ref().is_none_or(is_named)
            && self.unit.as_ref().is_none_or(is_in_unit)
            && self.container.as_ref().is_none_or(is_in_container)
    }

    /// If one of these addresses is asked for.
    #[must_use]
    pub fn matches_address(&self, remote: Option<&str>, local: Option<&str>) -> bool {
        self.destination.is_none_or(|wanted| remote.into_iter().chain(local).any(|text| wanted.matches(text)))
    }

    /// If a finding is asked for.
    #[must_use]
    pub fn matches_finding(&self, finding: &Finding) -> bool {
        let process = finding.process.as_ref().map(Identity::from);
        self.finding.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&finding.id))
            && self.matches_process(process.as_ref())
            && self.matches_address(finding.remote.as_deref(), finding.local.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Container, Name};

    fn nginx() -> Identity {
        Identity {
            comm: Name::from("nginx"),
            exe: Some(Name::from("/usr/sbin/nginx-debug")),
            unit: Some(Name::from("web.service")),
            container: Some(Container {
                runtime: Name::from("docker"),
                id: Name::from("4f3b2a1c9d8e77"),
                pod_uid: Some(Name::from("0e2d")),
                ..Container::default()
            }),
        }
    }

    #[test]
    fn processes_go_by_what_people_call_them() {
        let by = |set: fn(&mut Filter, String), text: &str| {
            let mut filter = Filter::default();
            set(&mut filter, text.to_owned());
            (filter.matches_process(Some(&nginx())), filter.matches_process(None))
        };
        for (name, expected) in
            [("nginx", true), ("nginx-debug", true), ("/usr/sbin/nginx-debug", true), ("ngin", false)]
        {
            assert_eq!(by(|it, name| it.process = Some(name), name), (expected, false), "{name}");
        }
        for (unit, expected) in [("web", true), ("web.service", true), ("we", false)] {
            assert_eq!(by(|it, unit| it.unit = Some(unit), unit), (expected, false), "{unit}");
        }
        for (id, expected) in [("4f3b2a1c9d8e", true), ("0e2d", true), ("3b2a", false)] {
            assert_eq!(by(|it, id| it.container = Some(id), id), (expected, false), "{id}");
        }
        assert!(Filter::default().matches_process(None));
    }

    #[test]
    fn an_address_without_a_port_means_all_of_them() {
        let any = Address { ip: "10.0.0.2".parse().unwrap(), port: None };
        assert!(any.matches("10.0.0.2:80") && any.matches("10.0.0.2"));
        assert!(!any.matches("10.0.0.20:80") && !any.matches("nonsense"));
        let one = Address { ip: "2001:db8::2".parse().unwrap(), port: Some(8443) };
        assert!(one.matches("[2001:db8::2]:8443") && !one.matches("[2001:db8::2]:80") && !one.matches("2001:db8::2"));
    }
}
