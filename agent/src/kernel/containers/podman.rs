//! podman: the list of all containers, `GRAPHROOT/DRIVER-containers/containers.json`, and beside it that of those which a
//! reboot may forget (`--rm`).

use std::{io, path::Path};

use serde::Deserialize;

use super::{Files, Found, Names, name, name_of};

/// Where the storage of podman and CRI-O keeps containers, by its driver.
pub(super) const DRIVERS: [&str; 3] = ["overlay-containers", "vfs-containers", "btrfs-containers"];
pub(super) const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];
/// About a KiB a container.
pub(super) const MAX_LIST: u64 = 8 << 20;

#[derive(Deserialize)]
struct Listed {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    /// JSON in a string
    #[serde(default)]
    metadata: Option<String>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(rename = "image-name")]
    image: Option<String>,
}

pub(super) fn look_up(files: &Files, storage: &Path, id: &str) -> io::Result<Option<Found>> {
    for file in DRIVERS.iter().flat_map(|driver| LISTS.map(|list| storage.join(driver).join(list))) {
        let Some((listed, modified)) = files.read_json::<Vec<Listed>>(&file, MAX_LIST)? else { continue };
        let Some(container) = listed.into_iter().find(|container| container.id == id) else { continue };
        let metadata: Metadata =
            container.metadata.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let first = container.names.unwrap_or_default().into_iter().next();
        let names = Names {
            name: first.as_deref().and_then(name),
            image: name_of(metadata.image.as_deref()),
            ..Names::default()
        };
        return Ok(Some(Found { names, file, modified }));
    }
    Ok(None)
}
