//! Processes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Name, Netns};

/// What names a process for good: pids are used again, a pid and a start time are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Thread group id: what userspace calls a pid
    pub tgid: u32,
    /// Start of the thread group leader, `CLOCK_BOOTTIME` in clock ticks of 10 ms, the unit of `/proc/PID/stat`
    pub start_ticks: u64,
}

/// A process as an eBPF program saw it in its own context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Which process
    pub key: ProcessKey,
    /// User id, in the initial user namespace
    pub uid: u32,
    /// `comm` of the thread group leader
    pub comm: Name,
    /// cgroup v2 id, the inode number of its directory in cgroupfs
    pub cgroup_id: u64,
    /// A kernel thread: it runs on someone's behalf, but is nobody's process
    pub is_kernel_thread: bool,
    /// It is this agent, in its own context
    #[serde(default)]
    pub is_agent: bool,
}

impl Task {
    /// Whether what it does to a connection says nothing about whose the connection is.
    ///
    /// A kernel thread closes on somebody's behalf. So does the agent: while it looks at the open files of a process
    /// (`/proc/PID/fd`), the kernel lends it a reference to each, and if the process closes one just then, it is the
    /// agent that drops the last one (`proc_fd_link()`, fs/proc/fd.c).
    #[must_use]
    pub const fn is_bystander(&self) -> bool {
        self.is_kernel_thread || self.is_agent
    }
}

/// A container: what its cgroup path tells, and what its runtime calls it where that could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// `docker`, `containerd`, `cri-o`, `podman`, or `unknown` where the path has an id and nothing else
    pub runtime: Name,
    /// The id, 64 hexadecimal digits
    pub id: Name,
    /// Kubernetes pod uid
    pub pod_uid: Option<Name>,
    /// Its name; in Kubernetes that of the container within the pod
    #[serde(default)]
    pub name: Option<Name>,
    /// Its image
    #[serde(default)]
    pub image: Option<Name>,
    /// Kubernetes pod
    #[serde(default)]
    pub pod: Option<Name>,
    /// Kubernetes namespace
    #[serde(default)]
    pub namespace: Option<Name>,
}

impl Container {
    /// Its name, else the twelve digits of its id that the runtimes' own tools show.
    #[must_use]
    pub fn short_name(&self) -> &str {
        let id = self.id.as_str();
        let digits = || id.char_indices().nth(12).and_then(|(end, _)| id.get(..end)).unwrap_or(id);
        self.name.as_ref().map_or_else(digits, Name::as_str)
    }

    /// `shop/web-7d4b9`, as kubectl has it; else the uid of the pod, if it is in one.
    #[must_use]
    pub fn pod_name(&self) -> Option<String> {
        match (&self.namespace, &self.pod) {
            (Some(namespace), Some(pod)) => Some(format!("{namespace}/{pod}")),
            (None, Some(pod)) => Some(pod.to_string()),
            (_, None) => self.pod_uid.as_ref().map(Name::to_string),
        }
    }
}

/// What is known of a process. Everything but the key and the name may be missing: the process can be gone before it
/// could be looked up, or belong to another pid namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Which process
    pub key: ProcessKey,
    /// `comm` of the thread group leader
    pub comm: Name,
    /// User id, in the initial user namespace
    pub uid: Option<u32>,
    /// Path of its executable
    pub exe: Option<Name>,
    /// Path of its cgroup: v2, else v1's `name=systemd` or another hierarchy's that is not the root
    pub cgroup: Option<Name>,
    /// systemd unit of that cgroup
    pub unit: Option<Name>,
    /// Container of that cgroup
    pub container: Option<Container>,
    /// Its network namespace
    pub netns: Option<Netns>,
}

impl Process {
    /// What an event alone tells.
    #[must_use]
    pub fn from_task(task: &Task) -> Self {
        Self {
            key: task.key,
            comm: task.comm.clone(),
            uid: Some(task.uid),
            exe: None,
            cgroup: None,
            unit: None,
            container: None,
            netns: None,
        }
    }
}
