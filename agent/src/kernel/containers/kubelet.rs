//! The kubelet, for any runtime: names of log files, which outlive the container for a while.
//!
//! `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`, and the directory of a pod, `/var/log/pods/NAMESPACE_POD_UID`
//! (pkg/kubelet/kuberuntime/legacy.go, helpers.go). No name of Kubernetes has a `_` in it.
//!
//! And the labels it gives a container, which some runtimes keep.

use std::{ffi::OsStr, io, path::Path};

use serde::Deserialize;

use super::{Files, Found, Names, name, name_of};

pub(super) const CONTAINERS: &str = "containers";
pub(super) const PODS: &str = "pods";

/// What the kubelet writes on a container (pkg/kubelet/types/labels.go).
#[derive(Default, Deserialize)]
pub(super) struct Labels {
    #[serde(rename = "io.kubernetes.container.name")]
    pub(super) container: Option<String>,
    #[serde(rename = "io.kubernetes.pod.name")]
    pub(super) pod: Option<String>,
    #[serde(rename = "io.kubernetes.pod.namespace")]
    pub(super) namespace: Option<String>,
    #[serde(rename = "io.kubernetes.pod.uid")]
    pub(super) pod_uid: Option<String>,
}

impl Labels {
    /// The names they tell, with an image that is told elsewhere.
    pub(super) fn names(&self, image: Option<&str>) -> Names {
        Names {
            name: name_of(self.container.as_deref()),
            image: name_of(image),
            pod: name_of(self.pod.as_deref()),
            namespace: name_of(self.namespace.as_deref()),
            pod_uid: name_of(self.pod_uid.as_deref()),
        }
    }
}

/// By the container's id; if it has no log, by its pod, which leaves the container without a name of its own.
pub(super) fn look_up(files: &Files, logs: &Path, id: &str, pod_uid: Option<&str>) -> io::Result<Option<Found>> {
    let containers = logs.join(CONTAINERS);
    let listed = files.list(&containers)?.unwrap_or_default();
    if let Some(names) = listed.iter().find_map(|file| of_container(file, id)) {
        // A link to the log, which changes with every line: what tells is its name, so the directory stands for it.
        return Ok(Some(found(files, &containers, names)));
    }
    let Some(pod_uid) = pod_uid else { return Ok(None) };
    let pods = logs.join(PODS);
    let listed = files.list(&pods)?.unwrap_or_default();
    Ok(listed.iter().find_map(|directory| of_pod(directory, pod_uid)).map(|names| found(files, &pods, names)))
}

fn found(files: &Files, directory: &Path, names: Names) -> Found {
    Found { names, file: directory.to_owned(), modified: files.modified(directory).ok() }
}

fn of_container(file: &OsStr, id: &str) -> Option<Names> {
    let rest = file.to_str()?.strip_suffix(".log")?.strip_suffix(id)?.strip_suffix('-')?;
    let mut parts = rest.splitn(3, '_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Names { name: name(container), pod: name(pod), namespace: name(namespace), ..Names::default() })
}

fn of_pod(directory: &OsStr, uid: &str) -> Option<Names> {
    let (namespace, pod) = directory.to_str()?.strip_suffix(uid)?.strip_suffix('_')?.split_once('_')?;
    Some(Names { pod: name(pod), namespace: name(namespace), ..Names::default() })
}
