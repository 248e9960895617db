//! What can be configured about names of containers: the section `[containers]`.

use std::path::{Path, PathBuf};

use super::Runtime;
use crate::config::section;

/// Where containerd keeps its state: its own, k3s's and RKE2's, k0s's, MicroK8s's, and that of dockerd's own containerd.
const CONTAINERD: [&str; 5] = [
    "/run/containerd",
    "/run/k3s/containerd",
    "/run/k0s/containerd",
    "/var/snap/microk8s/common/run/containerd",
    "/run/docker/containerd/daemon",
];
const DOCKER: [&str; 2] = ["/var/lib/docker", "/var/snap/docker/common/var-lib-docker"];
/// CRI-O writes what it runs to the first, and podman what it has to the second.
const STORAGE: [&str; 2] = ["/run/containers/storage", "/var/lib/containers/storage"];
const KUBELET: &str = "/var/log";

section! {
    /// Names of containers, from the files of their runtimes. The usual places of containerd (also k3s, RKE2, k0s,
    /// MicroK8s), Docker, podman, CRI-O and the kubelet are looked into without being listed here.
    "containers", Config {
        /// Look for names. If not, containers go by their id.
        [garde(skip)]
        enabled: bool = true, "true", restart: true;
        /// Where the host's file system is, seen from firstfin: "/", or where a DaemonSet has mounted it ("/host").
        [garde(custom(absolute))]
        host_root: PathBuf = PathBuf::from("/"), "\"/\"", restart: true;
        /// More state directories of containerd (`state` in its config.toml), as paths on the host.
        [garde(length(max = 16), inner(custom(absolute)))]
        containerd_state: Vec<PathBuf> = Vec::new(), "[]", restart: true;
        /// More data directories of Docker (`data-root` in daemon.json), as paths on the host.
        [garde(length(max = 16), inner(custom(absolute)))]
        docker_data: Vec<PathBuf> = Vec::new(), "[]", restart: true;
        /// More storage directories of podman and CRI-O (`runroot` and `graphroot` in storage.conf), as paths on the host.
        [garde(length(max = 16), inner(custom(absolute)))]
        storage: Vec<PathBuf> = Vec::new(), "[]", restart: true;
    }
}

impl Config {
    /// Every place, in the order in which they are asked: first those in which a pod has its name.
    pub(super) fn places(&self) -> Vec<(Runtime, PathBuf)> {
        let of = |runtime: Runtime, usual: &[&str], more: &[PathBuf]| -> Vec<(Runtime, PathBuf)> {
            let usual = usual.iter().map(PathBuf::from);
            more.iter().cloned().chain(usual).map(|place| (runtime, place)).collect()
        };
        [
            of(Runtime::Containerd, &CONTAINERD, &self.containerd_state),
            of(Runtime::CriO, &STORAGE, &self.storage),
            of(Runtime::Docker, &DOCKER, &self.docker_data),
            of(Runtime::Podman, &STORAGE, &self.storage),
            of(Runtime::Kubelet, &[KUBELET], &[]),
        ]
        .concat()
    }
}

fn absolute<P: AsRef<Path>>(path: &P, _: &()) -> garde::Result {
    let path = path.as_ref();
    if path.is_absolute() {
        Ok(())
    } else {
        Err(garde::Error::new(format!("{} does not begin with /: an absolute path is wanted", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use garde::Validate as _;

    use super::*;

    #[test]
    fn a_section_is_read_and_checked() {
        let config: Config =
            toml::from_str("host_root = \"/host\"\ncontainerd_state = [\"/srv/containerd\"]\n").unwrap();
        config.validate().unwrap();
        assert!(config.enabled);
        let places = config.places();
        assert_eq!(places.first(), Some(&(Runtime::Containerd, PathBuf::from("/srv/containerd"))), "one's own first");
        assert!(places.contains(&(Runtime::Docker, PathBuf::from("/var/lib/docker"))));
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
        Config::default().validate().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = toml::from_str::<Config>("host_rot = \"/\"\n").unwrap_err().to_string();
        assert!(error.contains("host_rot") && error.contains("host_root"), "{error}");
        let config: Config = toml::from_str("storage = [\"/a\", \"b/c\"]\n").unwrap();
        let report = config.validate().unwrap_err().to_string();
        assert!(report.contains("storage[1]") && report.contains("b/c") && report.contains("absolute"), "{report}");
    }
}
