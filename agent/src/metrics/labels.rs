//! Which processes are one group: those whose labels are the same.

use std::{fmt, sync::Arc};

use compact_str::{CompactString, ToCompactString as _, format_compact};
use serde::{Deserialize, Serialize};

use crate::{
    model::{Name, Netns},
    report::ProcessInfo,
};

/// Every label of the group that everybody is in who has no series of their own.
pub const OTHER: &str = "other";
/// The name of a process that is not known, as reports write it.
const UNKNOWN: &str = "?";
/// Bytes of a label's value, at most. What is longer is cut, which may make one group of two.
const LONGEST: usize = 120;

/// A label that a group of processes can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessLabel {
    /// Its name
    Process,
    /// Its systemd unit
    Unit,
    /// The name of its container; where that is not known the runtime's id, twelve digits
    Container,
    /// The Kubernetes pod
    Pod,
    /// The Kubernetes namespace
    Namespace,
    /// The Kubernetes pod's uid
    PodUid,
    /// The path of its executable
    Exe,
    /// The path of its cgroup
    Cgroup,
    /// The inode number of the network namespace
    Netns,
    /// Its process id
    Pid,
    /// The local address and port, of what is about one
    Local,
    /// The remote address and port, of what is about one
    Remote,
}

impl ProcessLabel {
    /// Every one.
    pub const ALL: [Self; 12] = [
        Self::Process,
        Self::Unit,
        Self::Container,
        Self::Pod,
        Self::Namespace,
        Self::PodUid,
        Self::Exe,
        Self::Cgroup,
        Self::Netns,
        Self::Pid,
        Self::Local,
        Self::Remote,
    ];
    /// Those that are exposed unless others are asked for.
    pub const DEFAULT: [Self; 3] = [Self::Process, Self::Unit, Self::Container];

    /// As it is exposed, and written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Unit => "unit",
            Self::Container => "container",
            Self::Pod => "pod",
            Self::Namespace => "namespace",
            Self::PodUid => "pod_uid",
            Self::Exe => "exe",
            Self::Cgroup => "cgroup",
            Self::Netns => "netns",
            Self::Pid => "pid",
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }

    fn value(self, place: &Place<'_>) -> CompactString {
        let text = |name: Option<&Name>| name.map(|name| name.as_str().to_compact_string());
        let of = |value: fn(&ProcessInfo) -> Option<&Name>| text(place.process.and_then(value));
        let container = place.process.and_then(|process| process.container.as_ref());
        let value = match self {
            Self::Process => of(|process| Some(&process.comm)).or_else(|| Some(UNKNOWN.to_compact_string())),
            Self::Unit => of(|process| process.unit.as_ref()),
            Self::Exe => of(|process| process.exe.as_ref()),
            Self::Cgroup => of(|process| process.cgroup.as_ref()),
            Self::Container => container.map(|container| container.short_name().to_compact_string()),
            Self::Pod => text(container.and_then(|container| container.pod.as_ref())),
            Self::Namespace => text(container.and_then(|container| container.namespace.as_ref())),
            Self::PodUid => text(container.and_then(|container| container.pod_uid.as_ref())),
            Self::Netns => place
                .netns
                .or_else(|| place.process.and_then(|process| process.netns))
                .map(|netns| format_compact!("{netns}")),
            Self::Pid => place.process.map(|process| format_compact!("{}", process.pid)),
            Self::Local => place.local.map(CompactString::new),
            Self::Remote => place.remote.map(CompactString::new),
        };
        cut(value.unwrap_or_default())
    }
}

impl fmt::Display for ProcessLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

fn cut(mut value: CompactString) -> CompactString {
    if value.len() > LONGEST {
        let mut end = LONGEST;
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
    }
    value
}

/// What a number of a report is about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place<'a> {
    /// Whose it is, if that is known
    pub(super) process: Option<&'a ProcessInfo>,
    /// Where, if it is about a single namespace
    pub(super) netns: Option<Netns>,
    /// Local address and port, if it is about one
    pub(super) local: Option<&'a str>,
    /// Remote address and port, if it is about one
    pub(super) remote: Option<&'a str>,
}

/// The labels of a group: cheap to share.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(Arc<[(&'static str, CompactString)]>);

impl Group {
    pub(super) fn of(labels: &[ProcessLabel], place: &Place<'_>) -> Self {
        Self(labels.iter().map(|label| (label.name(), label.value(place))).collect())
    }

    pub(super) fn other(labels: &[ProcessLabel]) -> Self {
        Self(labels.iter().map(|label| (label.name(), CompactString::const_new(OTHER))).collect())
    }

    /// Names and values, in the order of the configuration.
    #[must_use]
    pub fn labels(&self) -> &[(&'static str, CompactString)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Container;

    #[test]
    fn names_are_those_of_the_configuration() {
        for label in ProcessLabel::ALL {
            assert_eq!(serde_json::to_value(label).unwrap(), label.name());
        }
        let names = ProcessLabel::DEFAULT.map(ProcessLabel::name);
        assert_eq!(names, super::super::catalogue::DEFAULT_PROCESS_LABELS);
    }

    #[test]
    fn values_are_bounded_and_an_unknown_process_is_said_to_be() {
        let long = "é".repeat(200);
        let process = ProcessInfo {
            pid: 7,
            comm: Name::from("nginx"),
            exe: Some(Name::from(long.as_str())),
            container: Some(Container {
                runtime: Name::from("docker"),
                id: Name::from("0123456789abcdef"),
                ..Container::default()
            }),
            netns: Some(Netns(1)),
            ..ProcessInfo::default()
        };
        let place = Place { process: Some(&process), netns: Some(Netns(2)), local: None, remote: Some("10.0.0.1:443") };
        let group = Group::of(&ProcessLabel::ALL, &place);
        let value = |name: &str| group.labels().iter().find(|(label, _)| *label == name).unwrap().1.clone();
        assert_eq!((value("process"), value("container")), ("nginx".into(), "0123456789ab".into()));
        assert_eq!((value("netns"), value("pid"), value("remote")), ("2".into(), "7".into(), "10.0.0.1:443".into()));
        assert_eq!((value("unit"), value("local")), ("".into(), "".into()));
        assert_eq!(value("exe").len(), LONGEST);

        let unknown = Group::of(&ProcessLabel::DEFAULT, &Place::default());
        assert_eq!(unknown.labels()[0], ("process", "?".into()));
        assert!(Group::other(&ProcessLabel::DEFAULT).labels().iter().all(|(_, value)| value == OTHER));
    }
}
