//! containerd: the bundle of a running task, `STATE/io.containerd.runtime.v2.task/NAMESPACE/ID/config.json`.
//!
//! It is the OCI configuration. containerd's CRI plugin, which Kubernetes uses, writes pod and names into its annotations
//! (pkg/cri/annotations), nerdctl its own. The bundle goes with the task.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Files, Found, Names, name_of};

const TASKS: &str = "io.containerd.runtime.v2.task";
/// Namespaces of containerd, which are not Kubernetes's: these are tried without listing the directory.
const NAMESPACES: [&str; 3] = ["k8s.io", "default", "moby"];
/// The configuration with all mounts and the environment; of real pods some ten KiB.
pub(super) const MAX_CONFIG: u64 = 1 << 20;

#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "io.kubernetes.cri.container-name")]
    container: Option<String>,
    #[serde(rename = "io.kubernetes.cri.image-name")]
    image: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-name")]
    pod: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-namespace")]
    namespace: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-uid")]
    pod_uid: Option<String>,
    #[serde(rename = "nerdctl/name")]
    nerdctl_name: Option<String>,
    #[serde(rename = "nerdctl/image-ref")]
    nerdctl_image: Option<String>,
}

pub(super) fn look_up(files: &Files, state: &Path, id: &str) -> io::Result<Option<Found>> {
    let tasks = state.join(TASKS);
    let usual = NAMESPACES.map(|namespace| tasks.join(namespace));
    for namespace in &usual {
        if let Some(found) = read(files, namespace.join(id).join("config.json"))? {
            return Ok(Some(found));
        }
    }
    for namespace in namespaces(files, state)?.into_iter().filter(|namespace| !usual.contains(namespace)) {
        if let Some(found) = read(files, namespace.join(id).join("config.json"))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The directories of containerd's namespaces.
pub(super) fn namespaces(files: &Files, state: &Path) -> io::Result<Vec<PathBuf>> {
    let tasks = state.join(TASKS);
    Ok(files.list(&tasks)?.unwrap_or_default().into_iter().map(|namespace| tasks.join(namespace)).collect())
}

fn read(files: &Files, file: PathBuf) -> io::Result<Option<Found>> {
    let Some((bundle, modified)) = files.read_json::<Bundle>(&file, MAX_CONFIG)? else { return Ok(None) };
    let names = bundle.annotations.map(Names::from).unwrap_or_default();
    Ok(Some(Found { names, file, modified }))
}

impl From<Annotations> for Names {
    fn from(annotations: Annotations) -> Self {
        Self {
            name: name_of(annotations.container.or(annotations.nerdctl_name).as_deref()),
            image: name_of(annotations.image.or(annotations.nerdctl_image).as_deref()),
            pod: name_of(annotations.pod.as_deref()),
            namespace: name_of(annotations.namespace.as_deref()),
            pod_uid: name_of(annotations.pod_uid.as_deref()),
        }
    }
}
