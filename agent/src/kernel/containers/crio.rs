//! CRI-O: the OCI configuration of a container, `RUNROOT/DRIVER-containers/ID/userdata/config.json`, with pod and names in
//! its annotations (pkg/annotations; those without `cri-o` are the kubelet's).

use std::{io, path::Path};

use serde::Deserialize;

use super::{Files, Found, Names, containerd::MAX_CONFIG, name_of, podman::DRIVERS};

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "io.kubernetes.container.name")]
    container: Option<String>,
    #[serde(rename = "io.kubernetes.cri-o.ImageName")]
    image: Option<String>,
    #[serde(rename = "io.kubernetes.pod.name")]
    pod: Option<String>,
    #[serde(rename = "io.kubernetes.pod.namespace")]
    namespace: Option<String>,
    #[serde(rename = "io.kubernetes.pod.uid")]
    pod_uid: Option<String>,
}

/// Nothing of a container without a pod: podman keeps a file of this name, too.
pub(super) fn look_up(files: &Files, storage: &Path, id: &str) -> io::Result<Option<Found>> {
    for driver in DRIVERS {
        let file = storage.join(driver).join(id).join("userdata/config.json");
        let Some((configuration, modified)) = files.read_json::<Configuration>(&file, MAX_CONFIG)? else { continue };
        let Some(annotations) = configuration.annotations.filter(|annotations| annotations.pod.is_some()) else {
            continue;
        };
        let names = Names {
            name: name_of(annotations.container.as_deref()),
            image: name_of(annotations.image.as_deref()),
            pod: name_of(annotations.pod.as_deref()),
            namespace: name_of(annotations.namespace.as_deref()),
            pod_uid: name_of(annotations.pod_uid.as_deref()),
        };
        return Ok(Some(Found { names, file, modified }));
    }
    Ok(None)
}
