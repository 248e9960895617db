//! Docker: `DATA/containers/ID/config.v2.json`, which dockerd writes anew when the container is renamed.
//!
//! Under cri-dockerd a container's labels name its pod.

use std::{io, path::Path};

use serde::Deserialize;

use super::{Files, Found, Names, kubelet::Labels, name};

/// Some KiB; with a long environment some ten.
pub(super) const MAX_CONFIG: u64 = 1 << 20;
pub(super) const CONTAINERS: &str = "containers";
pub(super) const CONFIG: &str = "config.v2.json";

#[derive(Deserialize)]
struct Kept {
    /// With a slash before it
    #[serde(rename = "Name", default)]
    name: Option<String>,
    #[serde(rename = "Config", default)]
    config: Option<Settings>,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(rename = "Image", default)]
    image: Option<String>,
    #[serde(rename = "Labels", default)]
    labels: Option<Labels>,
}

pub(super) fn look_up(files: &Files, data: &Path, id: &str) -> io::Result<Option<Found>> {
    let file = data.join(CONTAINERS).join(id).join(CONFIG);
    let Some((kept, modified)) = files.read_json::<Kept>(&file, MAX_CONFIG)? else { return Ok(None) };
    let (image, labels) = kept.config.map(|config| (config.image, config.labels)).unwrap_or_default();
    let labels = labels.unwrap_or_default();
    let own = kept.name.as_deref().map(|name| name.strip_prefix('/').unwrap_or(name)).and_then(name);
    let named = labels.names(image.as_deref());
    let names = Names { name: named.name.or(own), ..named };
    Ok(Some(Found { names, file, modified }))
}
