//! What a container is called: its name, image, and Kubernetes pod and namespace, from the files its runtime keeps.
//!
//! Files, and not the runtime's socket: whoever may talk to that socket may start containers, which is more than an agent
//! that watches should be able to; and a file is there while the runtime restarts. They belong to root, so reading them
//! takes root or CAP_DAC_READ_SEARCH. Where nothing can be read, a container goes by its id.
//!
//! What is read is never trusted: names are made safe ([`Name`]), files are read up to a limit ([`files`]), and what is
//! kept is bounded ([`cache`]). Of a file that may hold passwords (the environment of a container) only the fields that
//! are named here are kept.

mod cache;
mod config;
mod containerd;
mod crio;
mod docker;
mod files;
mod kubelet;
mod podman;
mod survey;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use self::{
    cache::{Cache, Entry, Known},
    files::Files,
};
pub use self::{
    config::Config,
    survey::{Reach, Source},
};
use crate::model::{Container, Name};

/// The longest name that is kept, in characters. Kubernetes allows 253.
const MAX_NAME: usize = 255;

/// Names of containers. Cheap to clone; clones share what they know.
#[derive(Clone, Debug)]
pub struct Containers {
    places: Arc<Places>,
    shared: Arc<Mutex<Shared>>,
}

/// Where to look.
#[derive(Debug)]
struct Places {
    is_enabled: bool,
    files: Files,
    places: Vec<(Runtime, PathBuf)>,
}

#[derive(Debug, Default)]
struct Shared {
    cache: Cache,
    unreadable: Unreadable,
}

/// Files that are there and could not be read or understood.
#[derive(Debug, Default)]
struct Unreadable {
    containers: u64,
    /// What was wrong with the last one
    last: String,
}

/// Whose files they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runtime {
    Containerd,
    CriO,
    Docker,
    Podman,
    Kubelet,
}

impl Runtime {
    /// As [`Container::runtime`] has it.
    const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Kubelet => "kubelet",
        }
    }

    /// What it keeps in this place of a container. None: nothing.
    fn look_up(self, files: &Files, place: &Path, container: &Container) -> io::Result<Option<Found>> {
        let id = container.id.as_str();
        match self {
            Self::Containerd => containerd::look_up(files, place, id),
            Self::CriO => crio::look_up(files, place, id),
            Self::Docker => docker::look_up(files, place, id),
            Self::Podman => podman::look_up(files, place, id),
            Self::Kubelet => kubelet::look_up(files, place, id, container.pod_uid.as_ref().map(Name::as_str)),
        }
    }
}

/// What a runtime calls a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    name: Option<Name>,
    image: Option<Name>,
    pod: Option<Name>,
    namespace: Option<Name>,
    pod_uid: Option<Name>,
}

impl Names {
    const fn is_empty(&self) -> bool {
        self.name.is_none() && self.pod.is_none()
    }
}

/// What was found of a container, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    names: Names,
    file: PathBuf,
    /// When that file was last changed
    modified: Option<SystemTime>,
}

/// A name out of a file: safe to print, of bounded length, and none if it is empty.
fn name(text: &str) -> Option<Name> {
    let end = text.char_indices().nth(MAX_NAME).map_or(text.len(), |(end, _)| end);
    text.get(..end).filter(|text| !text.is_empty()).map(Name::from)
}

/// The same for a field that may be missing.
fn name_of(text: Option<&str>) -> Option<Name> {
    text.and_then(name)
}

impl Containers {
    /// Looks where the configuration says.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let places =
            Places { is_enabled: config.enabled, files: Files::under(&config.host_root), places: config.places() };
        Self { places: Arc::new(places), shared: Arc::default() }
    }

    /// Looks nowhere.
    #[must_use]
    pub fn unnamed() -> Self {
        Self::new(&Config { enabled: false, ..Config::default() })
    }

    /// Adds to a container what its runtime calls it, if that can be found out.
    pub fn name(&self, container: &mut Container) {
        self.name_at(container, Instant::now());
    }

    fn name_at(&self, container: &mut Container, now: Instant) {
        if !self.places.is_enabled || !is_id(container.id.as_str()) {
            return;
        }
        // Files are read without the lock: a second reader may do the same work, and nobody waits for a disk.
        let known = self.lock().cache.get(&container.id, now);
        let entry = match known {
            Known::Fresh(entry) => entry,
            Known::Stale(Some(entry)) if !self.places.has_changed(&entry) => {
                self.lock().cache.confirm(&container.id, now);
                Some(entry)
            }
            Known::Stale(earlier) => self.look_up(container, earlier, now),
            Known::Nothing => self.look_up(container, None, now),
        };
        if let Some(Entry { runtime, found, .. }) = entry {
            apply(container, runtime, &found.names);
        }
    }

    fn look_up(&self, container: &Container, earlier: Option<Entry>, now: Instant) -> Option<Entry> {
        let looked_up = self.places.look_up(container);
        let mut shared = self.lock();
        match looked_up {
            Ok(Some((runtime, found))) => {
                let entry = Entry { runtime, found };
                shared.cache.insert(container.id.clone(), Some(entry.clone()), now);
                return Some(entry);
            }
            Ok(None) => {}
            Err(error) => {
                // Once a container: the next look finds it among those that have no name.
                if !shared.cache.is_known(&container.id) {
                    shared.unreadable.containers += 1;
                }
                log::debug!("container {}: {error}", container.id);
                shared.unreadable.last = error.to_string();
            }
        }
        match earlier {
            // Its files went with it. Its processes and its TIME_WAIT are spoken of for some time yet.
            Some(entry) => shared.cache.keep(&container.id, now).then_some(entry),
            None => {
                shared.cache.insert(container.id.clone(), None, now);
                None
            }
        }
    }

    /// What there is of each runtime, and whether it can be read.
    #[must_use]
    pub fn survey(&self) -> Vec<Source> {
        if self.places.is_enabled { survey::survey(&self.places.files, &self.places.places) } else { Vec::new() }
    }

    /// What the names lack that should be there, in words.
    #[must_use]
    pub fn blind_spot(&self) -> Option<String> {
        let shared = self.lock();
        let Unreadable { containers, last } = &shared.unreadable;
        (*containers > 0).then(|| {
            format!(
                "{containers} container(s) go by their id, since what the runtime keeps of them could not be read, the \
                 last one because of {last}"
            )
        })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Looks in the places of the runtime that the cgroup names, or of all; then at what the kubelet wrote.
    fn look_up(&self, container: &Container) -> io::Result<Option<(Runtime, Found)>> {
        let named = container.runtime.as_str();
        let is_meant = |runtime: Runtime| runtime == Runtime::Kubelet || named == "unknown" || named == runtime.name();
        let mut failed = None;
        for (runtime, place) in self.places.iter().filter(|(runtime, _)| is_meant(*runtime)) {
            match runtime.look_up(&self.files, place, container) {
                Ok(Some(found)) if !found.names.is_empty() => return Ok(Some((*runtime, found))),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Whether the file it was read from is another one by now, or not there.
    fn has_changed(&self, entry: &Entry) -> bool {
        let modified = self.files.modified(&entry.found.file).ok();
        modified.is_none() || modified != entry.found.modified
    }
}

fn apply(container: &mut Container, runtime: Runtime, names: &Names) {
    if runtime != Runtime::Kubelet && container.runtime.as_str() == "unknown" {
        container.runtime = runtime.name().into();
    }
    let Names { name, image, pod, namespace, pod_uid } = names.clone();
    container.name = name;
    container.image = image;
    container.pod = pod;
    container.namespace = namespace;
    container.pod_uid = container.pod_uid.take().or(pod_uid);
}

/// What may become part of a path: [`super::cgroup`] lets nothing else pass, but a container may come from elsewhere.
fn is_id(id: &str) -> bool {
    (12..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}
