//! What a cgroup path tells about a process: its systemd unit, its container, its Kubernetes pod.
//!
//! Every container runtime writes the container's id into the path, each in its own way and in another one under
//! systemd's driver than under cgroupfs. The path is all this looks at: no socket of a runtime, no file, so that it
//! also works for a process that is gone. A name that only looks like an id is left alone; nothing is guessed.

use crate::model::{Container, Name};

#[cfg(test)]
mod tests;

/// What a cgroup path tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The innermost systemd service or scope. Inside a container only what runs under a systemd in that container, or
    /// the service podman was told to run it in: the scope that a runtime made for the container says nothing more than
    /// its id.
    pub unit: Option<Name>,
    /// The innermost container
    pub container: Option<Container>,
}

/// Chooses the path that tells most out of the text of `/proc/PID/cgroup`: that of cgroup v2, unless it is the root or
/// names no container where a v1 hierarchy does (on hybrid hosts runtimes leave the v2 path on the daemon's service).
/// Of the v1 hierarchies systemd's own comes first, then memory, then any.
#[must_use]
pub fn own_path(proc_pid_cgroup: &str) -> Option<&str> {
    let mut paths: Vec<(u8, &str)> = proc_pid_cgroup.lines().filter_map(hierarchy).collect();
    paths.sort_by_key(|&(rank, _)| rank);
    let paths = || paths.iter().map(|&(_, path)| path);
    paths()
        .find(|path| identify(path).container.is_some())
        .or_else(|| paths().find(|&path| path != "/"))
        .or_else(|| paths().next())
}

/// A line of `/proc/PID/cgroup`, `hierarchy:controllers:path`, with its place in the order of preference.
fn hierarchy(line: &str) -> Option<(u8, &str)> {
    let mut parts = line.splitn(3, ':');
    let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let rank = match controllers {
        "" if id == "0" => 0,
        "name=systemd" => 1,
        _ if controllers.split(',').any(|controller| controller == "memory") => 2,
        _ => 3,
    };
    path.starts_with('/').then_some((rank, path))
}

/// Tells unit and container from a cgroup path.
#[must_use]
pub fn identify(path: &str) -> Identity {
    // The kernel marks the path of a cgroup that was removed while it still had a process, which is a zombie.
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let mut identity = Identity::default();
    let mut pod_uid = None;
    let mut parent = "";
    for component in path.split('/').filter(|component| !component.is_empty()) {
        pod_uid = pod(component).or(pod_uid);
        if let Some(found) = container(component, parent) {
            if found.layout != Layout::InUnit {
                identity.unit = None;
            }
            identity.container = Some(Container {
                runtime: found.runtime.into(),
                id: found.id.into(),
                pod_uid: pod_uid.clone(),
                ..Container::default()
            });
        } else if let Some(unit) = unit(component, path) {
            identity.unit = Some(unit);
        }
        parent = component;
    }
    identity
}

/// A container's id in a path component.
struct Found<'a> {
    runtime: &'static str,
    id: &'a str,
    layout: Layout,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// The cgroup is the container's, and the units above it are not about it
    Own,
    /// The container runs inside the service above it (`podman run --cgroups=split`)
    InUnit,
}

/// Runtimes by what they write before the id, `PREFIX-ID.scope` under systemd and `PREFIX-ID` under cgroupfs.
const PREFIXES: [(&str, &str, Layout); 6] = [
    ("docker", "docker", Layout::Own),
    ("cri-containerd", "containerd", Layout::Own),
    ("nerdctl", "containerd", Layout::Own),
    ("crio", "cri-o", Layout::Own),
    ("libpod", "podman", Layout::Own),
    ("libpod-payload", "podman", Layout::InUnit),
];

/// Runtimes by the directory above a bare id. containerd writes `/NAMESPACE/ID`, and Kubernetes's pods give no runtime.
const PARENTS: [(&str, &str); 3] = [("docker", "docker"), ("default", "containerd"), ("k8s.io", "containerd")];

const UNKNOWN: &str = "unknown";

fn container<'a>(component: &'a str, parent: &str) -> Option<Found<'a>> {
    // runc's cgroupfs driver under a systemd slice: `SLICE:PREFIX:ID`.
    if let Some((rest, id)) = component.rsplit_once(':').filter(|(_, id)| is_id(id)) {
        let prefix = rest.rsplit_once(':').map_or(rest, |(_, prefix)| prefix);
        let runtime = runtime_of(prefix).map_or(UNKNOWN, |(runtime, _)| runtime);
        return Some(Found { runtime, id, layout: Layout::Own });
    }
    let (name, is_scope) = component.strip_suffix(".scope").map_or((component, false), |name| (name, true));
    if is_id(name) {
        let runtime = PARENTS.iter().find(|(above, _)| *above == parent).map_or(UNKNOWN, |&(_, runtime)| runtime);
        return Some(Found { runtime, id: name, layout: Layout::Own });
    }
    if is_fargate_id(name) || (parent == "garden" && is_garden_id(name)) {
        return Some(Found { runtime: UNKNOWN, id: name, layout: Layout::Own });
    }
    let (prefix, id) = name.rsplit_once('-').filter(|(_, id)| is_id(id))?;
    // The monitors of CRI-O and podman stand beside the container (`crio-conmon-ID.scope`).
    let unknown = (is_scope && !prefix.ends_with("conmon")).then_some((UNKNOWN, Layout::Own));
    let (runtime, layout) = runtime_of(prefix).or(unknown)?;
    Some(Found { runtime, id, layout })
}

fn runtime_of(prefix: &str) -> Option<(&'static str, Layout)> {
    PREFIXES.iter().find(|(known, ..)| *known == prefix).map(|&(_, runtime, layout)| (runtime, layout))
}

/// What Docker, containerd, CRI-O and podman make: 256 bits in lower-case hexadecimal.
fn is_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// AWS Fargate: the task's 32 digits and a number.
fn is_fargate_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(task, number)| {
        task.len() == 32 && is_hex(task) && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Cloud Foundry's Garden: five groups, 8-4-4-4-4.
fn is_garden_id(text: &str) -> bool {
    has_groups(text, &[8, 4, 4, 4, 4])
}

/// The pod uid in `podUID`, `kubepods-burstable-podUID.slice` and `kubepods-burstable-podUID.slice:PREFIX:ID`.
/// systemd's driver writes `_` for `-`; a static pod's uid is a bare MD5 sum.
fn pod(component: &str) -> Option<Name> {
    let slice = component.split(':').next().unwrap_or(component);
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let uid = name.strip_prefix("pod").or_else(|| name.rsplit_once("-pod").map(|(_, uid)| uid))?.replace('_', "-");
    let is_uid = has_groups(&uid, &[8, 4, 4, 4, 12]) || (uid.len() == 32 && is_hex(&uid));
    is_uid.then(|| Name::from(uid.as_str()))
}

fn has_groups(text: &str, lengths: &[usize]) -> bool {
    text.split('-').map(str::len).eq(lengths.iter().copied()) && text.split('-').all(is_hex)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The systemd unit a path component is, if it is one that runs processes for their own sake.
fn unit(component: &str, path: &str) -> Option<Name> {
    // systemd puts a `_` before a name that the kernel has a file of (`cpu.service`): cg_escape, basic/cgroup-util.c.
    let name = component.strip_prefix('_').unwrap_or(component);
    let stem = name.strip_suffix(".service").or_else(|| name.strip_suffix(".scope"))?;
    // `init.scope` is where each systemd itself sits: PID 1, a user's manager, the one inside a container.
    (!stem.is_empty() && (name != "init.scope" || path == "/init.scope")).then(|| Name::from_bytes(&unescape(name)))
}

/// Undoes systemd's `\xNN` (`systemd-escape`), most often `\x2d` for a dash within a name.
fn unescape(name: &str) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match rest {
            [b'\\', b'x', high, low, after @ ..] => hex_digit(*high).zip(hex_digit(*low)).map(|digits| (digits, after)),
            _ => None,
        };
        if let Some(((high, low), after)) = escaped {
            plain.push(high << 4 | low);
            rest = after;
        } else {
            plain.push(byte);
            rest = after;
        }
    }
    plain
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
