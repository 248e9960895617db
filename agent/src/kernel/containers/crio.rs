//! CRI-O: the OCI configuration of a container, `RUNROOT/DRIVER-containers/ID/userdata/config.json`, with pod and names in
//! its annotations (pkg/annotations; those without `cri-o` are the kubelet's).

use std::{io, path::Path};

use serde::Deserialize;

use super::{Files, Found, containerd::MAX_CONFIG, kubelet::Labels, podman::DRIVERS};

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "io.kubernetes.cri-o.ImageName")]
    image: Option<String>,
    #[serde(flatten)]
    labels: Labels,
}

/// Nothing of a container without a pod: podman keeps a file of this name, too.
pub(super) fn look_up(files: &Files, storage: &Path, id: &str) -> io::Result<Option<Found>> {
    for driver in DRIVERS {
        let file = storage.join(driver).join(id).join("userdata/config.json");
        let Some((configuration, modified)) = files.read_json::<Configuration>(&file, MAX_CONFIG)? else { continue };
        let Some(annotations) = configuration.annotations.filter(|annotations| annotations.labels.pod.is_some()) else {
            continue;
        };
        let names = annotations.labels.names(annotations.image.as_deref());
        return Ok(Some(Found { names, file, modified }));
    }
    Ok(None)
}
