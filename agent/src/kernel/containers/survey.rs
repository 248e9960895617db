//! Which runtimes' files are there, and whether they can be read: for `firstfin doctor`.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Files, Runtime, containerd, docker, files::is_absent, kubelet, podman};

/// A place where a runtime keeps what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Whose it is
    pub runtime: &'static str,
    /// Where, on the host
    pub path: PathBuf,
    /// Whether it can be read
    pub reach: Reach,
}

/// Whether a place can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// It can, and has files of so many containers; of podman and CRI-O it is not counted
    Readable {
        /// How many
        containers: Option<usize>,
    },
    /// It is there, but cannot be read
    Unreadable {
        /// Why not, and what it takes
        why: String,
    },
}

/// The places that are there. One that is not is left out.
pub(super) fn survey(files: &Files, places: &[(Runtime, PathBuf)]) -> Vec<Source> {
    let looked_at = places.iter().filter_map(|(runtime, path)| {
        let reach = match look(files, *runtime, path) {
            Ok(None) => return None,
            Ok(Some(containers)) => Reach::Readable { containers },
            Err(error) => Reach::Unreadable { why: error.to_string() },
        };
        // podman writes a configuration of this name, too.
        let runtime = if *runtime == Runtime::CriO { "cri-o or podman" } else { runtime.name() };
        Some(Source { runtime, path: path.clone(), reach })
    });
    looked_at.collect()
}

/// None: it is not there.
fn look(files: &Files, runtime: Runtime, place: &Path) -> io::Result<Option<Option<usize>>> {
    match runtime {
        Runtime::Containerd => {
            let mut bundles = Vec::new();
            let namespaces = containerd::namespaces(files, place)?;
            for namespace in &namespaces {
                let ids = files.list(namespace)?.unwrap_or_default();
                bundles.extend(ids.into_iter().map(|id| namespace.join(id).join("config.json")));
            }
            try_first(files, &bundles, containerd::MAX_CONFIG)?;
            Ok((!namespaces.is_empty()).then_some(Some(bundles.len())))
        }
        Runtime::Docker => {
            let directory = place.join(docker::CONTAINERS);
            let Some(ids) = files.list(&directory)? else { return Ok(None) };
            let configs: Vec<PathBuf> = ids.iter().map(|id| directory.join(id).join(docker::CONFIG)).collect();
            try_first(files, &configs, docker::MAX_CONFIG)?;
            Ok(Some(Some(configs.len())))
        }
        Runtime::CriO => configurations(files, place),
        Runtime::Podman => lists(files, place),
        Runtime::Kubelet => {
            let Some(logs) = files.list(&place.join(kubelet::CONTAINERS))? else { return Ok(None) };
            Ok(Some(Some(logs.len())))
        }
    }
}

/// Tries to read the first file that is there.
fn try_first(files: &Files, candidates: &[PathBuf], limit: u64) -> io::Result<()> {
    for file in candidates {
        match files.read(file, limit) {
            Ok(_) => return Ok(()),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The directories of containers, each with its OCI configuration.
fn configurations(files: &Files, storage: &Path) -> io::Result<Option<Option<usize>>> {
    for directory in podman::DRIVERS.map(|driver| storage.join(driver)) {
        let Some(ids) = files.list(&directory)? else { continue };
        let configs: Vec<PathBuf> = ids.iter().map(|id| directory.join(id).join("userdata/config.json")).collect();
        try_first(files, &configs, containerd::MAX_CONFIG)?;
        if !configs.is_empty() {
            return Ok(Some(None));
        }
    }
    Ok(None)
}

/// podman's lists.
fn lists(files: &Files, storage: &Path) -> io::Result<Option<Option<usize>>> {
    for file in podman::DRIVERS.iter().flat_map(|driver| podman::LISTS.map(|list| storage.join(driver).join(list))) {
        match files.read(&file, podman::MAX_LIST) {
            Ok(_) => return Ok(Some(None)),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
