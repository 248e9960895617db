//! Files as the runtimes write them, and files as nobody should.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
    time::Duration,
};

use super::*;

const ID: &str = "4f3b2a1c9d8e7766554433221100ffeeddccbbaa99887766554433221100ffee";
const UID: &str = "0e2d1c8f-7a56-4b1e-9a43-55c1d2e3f405";

/// A host's file system in a folder, which goes with it.
struct HostRoot(PathBuf);

impl HostRoot {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("firstfin-containers-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    fn containers(&self) -> Containers {
        Containers::new(&Config { host_root: self.0.clone(), ..Config::default() })
    }

    /// Name, image, pod and namespace, and the runtime, of a container that the cgroup says this of.
    fn named(&self, runtime: &str) -> (Container, Option<String>) {
        let containers = self.containers();
        let mut container = unnamed(runtime);
        containers.name(&mut container);
        (container, containers.blind_spot())
    }
}

impl Drop for HostRoot {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn unnamed(runtime: &str) -> Container {
    Container { runtime: runtime.into(), id: ID.into(), ..Container::default() }
}

fn texts(container: &Container) -> [&str; 4] {
    let Container { name, image, pod, namespace, .. } = container;
    [name, image, pod, namespace].map(|name| name.as_ref().map_or("-", Name::as_str))
}

const CRI: &str = r#"{"ociVersion":"1.0.2","process":{"env":["PASSWORD=x"]},"annotations":{
    "io.kubernetes.cri.container-name":"web","io.kubernetes.cri.container-type":"container",
    "io.kubernetes.cri.image-name":"registry.example/shop/web:1.4","io.kubernetes.cri.sandbox-id":"77",
    "io.kubernetes.cri.sandbox-name":"web-7d4b9","io.kubernetes.cri.sandbox-namespace":"shop",
    "io.kubernetes.cri.sandbox-uid":"0e2d1c8f-7a56-4b1e-9a43-55c1d2e3f405"},"linux":{}}"#;

#[test]
fn a_pod_of_containerd_in_every_distribution_of_kubernetes() {
    for state in
        ["run/containerd", "run/k3s/containerd", "run/k0s/containerd", "var/snap/microk8s/common/run/containerd"]
    {
        let host = HostRoot::new("containerd");
        host.write(&format!("{state}/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"), CRI);
        // The cgroupfs driver leaves it open which runtime it is.
        for runtime in ["containerd", "unknown"] {
            let (container, blind_spot) = host.named(runtime);
            assert_eq!(texts(&container), ["web", "registry.example/shop/web:1.4", "web-7d4b9", "shop"], "{state}");
            assert_eq!((container.runtime.as_str(), blind_spot), ("containerd", None));
            assert_eq!(container.pod_uid.as_ref().map(Name::as_str), Some(UID));
            assert_eq!((container.short_name(), container.pod_name().as_deref()), ("web", Some("shop/web-7d4b9")));
        }
        assert_eq!(host.named("docker").0, unnamed("docker"), "another runtime's are not asked");
    }
}

#[test]
fn nerdctl_and_a_namespace_of_containerd_of_ones_own() {
    let host = HostRoot::new("nerdctl");
    let text = r#"{"annotations":{"nerdctl/name":"orders","nerdctl/namespace":"staging"}}"#;
    host.write(&format!("run/containerd/io.containerd.runtime.v2.task/staging/{ID}/config.json"), text);
    assert_eq!(texts(&host.named("containerd").0), ["orders", "-", "-", "-"]);
}

#[test]
fn docker_and_a_rename() {
    let host = HostRoot::new("docker");
    let file = format!("var/lib/docker/containers/{ID}/config.v2.json");
    let text = |name: &str| {
        format!(
            r#"{{"State":{{"Pid":1}},"ID":"{ID}","Config":{{"Image":"shop/orders:2","Labels":null}},"Name":"/{name}"}}"#
        )
    };
    host.write(&file, &text("orders"));
    let containers = host.containers();
    let start = Instant::now();
    let name_after = |seconds: u64| {
        let mut container = unnamed("docker");
        containers.name_at(&mut container, start + Duration::from_secs(seconds));
        texts(&container).map(str::to_owned)
    };
    assert_eq!(name_after(0), ["orders", "shop/orders:2", "-", "-"]);
    // As dockerd does it: a new file in the old one's place.
    host.write("var/lib/docker/new", &text("orders-old"));
    let later = SystemTime::now() + Duration::from_secs(5);
    let new = host.path("var/lib/docker/new");
    fs::File::options().write(true).open(&new).unwrap().set_modified(later).unwrap();
    fs::rename(new, host.path(&file)).unwrap();
    assert_eq!(name_after(5)[0], "orders", "not looked at every time");
    assert_eq!(name_after(15)[0], "orders-old");
    // Removed: it is spoken of for some minutes.
    fs::remove_dir_all(host.0.join("var")).unwrap();
    assert_eq!(name_after(30)[0], "orders-old");
    assert_eq!(name_after(10 * 60)[0], "orders-old");
    assert_eq!(name_after(20 * 60)[0], "-");
    assert_eq!(containers.blind_spot(), None, "a container that is gone is none that cannot be read");
    // One of the same id (docker start) is found again.
    host.write(&file, &text("orders"));
    assert_eq!(name_after(21 * 60)[0], "orders");
}

#[test]
fn a_pod_of_cri_dockerd() {
    let host = HostRoot::new("cri-dockerd");
    let text = r#"{"Name":"/k8s_web_web-7d4b9_shop_0e2d_0","Config":{"Image":"sha256:77","Labels":{
        "io.kubernetes.container.name":"web","io.kubernetes.pod.name":"web-7d4b9","io.kubernetes.pod.namespace":"shop"}}}"#;
    host.write(&format!("var/lib/docker/containers/{ID}/config.v2.json"), text);
    assert_eq!(texts(&host.named("docker").0), ["web", "sha256:77", "web-7d4b9", "shop"]);
}

#[test]
fn podman_and_those_that_a_reboot_may_forget() {
    let other = r#"{"id":"00","names":["other"],"layer":"1"}"#;
    let this = format!(
        r#"{{"id":"{ID}","names":["orders","orders-alias"],"metadata":"{{\"image-name\":\"docker.io/shop/orders:2\",\"name\":\"x\"}}"}}"#
    );
    for list in ["containers.json", "volatile-containers.json"] {
        let host = HostRoot::new("podman");
        host.write("var/lib/containers/storage/overlay-containers/containers.json", &format!("[{other}]"));
        host.write(&format!("var/lib/containers/storage/overlay-containers/{list}"), &format!("[{other},{this}]"));
        // Without a pod it is not CRI-O's.
        let config = r#"{"annotations":{"io.container.manager":"libpod"},"hostname":"4f3b2a1c9d8e"}"#;
        host.write(&format!("var/lib/containers/storage/overlay-containers/{ID}/userdata/config.json"), config);
        for runtime in ["podman", "unknown"] {
            let (container, _) = host.named(runtime);
            assert_eq!(texts(&container), ["orders", "docker.io/shop/orders:2", "-", "-"], "{list}");
            assert_eq!(container.runtime.as_str(), "podman");
        }
    }
}

#[test]
fn a_pod_of_crio() {
    let host = HostRoot::new("crio");
    let config = r#"{"annotations":{"io.kubernetes.container.name":"web","io.kubernetes.pod.name":"web-7d4b9",
        "io.kubernetes.pod.namespace":"shop","io.kubernetes.cri-o.ImageName":"shop/web:1","io.kubernetes.pod.uid":"u"}}"#;
    host.write(&format!("run/containers/storage/overlay-containers/{ID}/userdata/config.json"), config);
    for runtime in ["cri-o", "unknown"] {
        let (container, _) = host.named(runtime);
        assert_eq!(texts(&container), ["web", "shop/web:1", "web-7d4b9", "shop"]);
        assert_eq!(container.runtime.as_str(), "cri-o");
    }
}

#[test]
fn the_kubelets_logs_know_any_runtime() {
    let host = HostRoot::new("kubelet");
    symlink("/nowhere", host.path(&format!("var/log/containers/web-7d4b9_shop_web-{ID}.log"))).unwrap();
    let (container, _) = host.named("unknown");
    assert_eq!(texts(&container), ["web", "-", "web-7d4b9", "shop"]);
    assert_eq!(container.runtime.as_str(), "unknown", "which runtime it is they do not tell");

    let host = HostRoot::new("pods");
    fs::create_dir_all(host.path(&format!("var/log/pods/shop_web-7d4b9_{UID}/web"))).unwrap();
    let mut container = Container { pod_uid: Some(UID.into()), ..unnamed("cri-o") };
    host.containers().name(&mut container);
    assert_eq!(texts(&container), ["-", "-", "web-7d4b9", "shop"]);
    assert_eq!(container.short_name(), "4f3b2a1c9d8e", "the pod is known, the container goes by its id");
}

#[test]
fn a_hostile_name_is_made_safe_and_short() {
    let host = HostRoot::new("hostile");
    let text = |name: &str| format!(r#"{{"Name":"/{name}","Config":{{"Image":""}}}}"#);
    host.write(&format!("var/lib/docker/containers/{ID}/config.v2.json"), &text("a\\u001b[2J\\u202eb\\nc"));
    assert_eq!(texts(&host.named("docker").0), ["a\\x1b[2J\\u{202e}b\\nc", "-", "-", "-"]);
    host.write(&format!("var/lib/docker/containers/{ID}/config.v2.json"), &text(&"ü".repeat(5000)));
    assert_eq!(host.named("docker").0.name.unwrap().as_str(), "ü".repeat(MAX_NAME));
}

#[test]
fn what_is_no_configuration_leaves_the_id_and_says_why() {
    let file = format!("var/lib/docker/containers/{ID}/config.v2.json");
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let huge = format!(r#"{{"Name":"/x","Padding":"{}"}}"#, "x".repeat(2 << 20));
    for (text, reason) in [
        ("", "line 1 column 0"),
        ("{\"Name\":\"/secr", "line 1 column"),
        ("{\"Name\":[\"secret\"]}", "line 1 column"),
        (deep.as_str(), "line 1 column"),
        (huge.as_str(), "more than 1048576 bytes"),
        ("\0\u{ffff}", "line 1 column"),
    ] {
        let host = HostRoot::new("malformed");
        host.write(&file, text);
        let (container, blind_spot) = host.named("docker");
        assert_eq!(container, unnamed("docker"));
        let said = blind_spot.unwrap();
        assert!(said.starts_with("1 container(s)") && said.contains(reason), "{said}");
        assert!(said.contains("config.v2.json") && !said.contains("secr"), "{said}");
    }
    // What is well-formed and has no name is not an error.
    for text in ["{}", "[]", r#"{"Name":null,"Config":null}"#] {
        let host = HostRoot::new("nameless");
        host.write(&file, text);
        assert_eq!(host.named("docker"), (unnamed("docker"), None));
    }
}

#[test]
fn links_fifos_and_devices_are_no_trap() {
    let file = format!("var/lib/docker/containers/{ID}/config.v2.json");
    let refused = |host: &HostRoot, reason: &str| {
        let (container, blind_spot) = host.named("docker");
        assert_eq!(container, unnamed("docker"));
        let said = blind_spot.unwrap_or_else(|| "nothing".to_owned());
        assert!(said.contains(reason), "{reason}: {said}");
    };
    let host = HostRoot::new("loop");
    symlink("config.v2.json", host.path(&file)).unwrap();
    refused(&host, "symbolic links");

    let host = HostRoot::new("fifo");
    assert!(Command::new("mkfifo").arg(host.path(&file)).status().unwrap().success());
    refused(&host, "no plain file");

    let host = HostRoot::new("directory");
    fs::create_dir_all(host.path(&file)).unwrap();
    refused(&host, "no plain file");

    // Out of the host's file system: the link leads to what the host has there, which is nothing.
    let host = HostRoot::new("outside");
    let outside = HostRoot::new("outside-target");
    outside.write("config.json", r#"{"Name":"/outside"}"#);
    symlink(outside.0.join("config.json"), host.path(&file)).unwrap();
    assert_eq!(host.named("docker"), (unnamed("docker"), None));
    // And as the host would follow it.
    let host = HostRoot::new("inside");
    host.write(&format!("srv/docker/containers/{ID}/config.v2.json"), r#"{"Name":"/inside"}"#);
    symlink("/srv/docker", host.path("var/lib/docker")).unwrap();
    assert_eq!(texts(&host.named("docker").0)[0], "inside");
}

#[test]
fn an_id_that_is_none_opens_nothing() {
    let host = HostRoot::new("traversal");
    host.write("var/lib/docker/config.v2.json", r#"{"Name":"/above"}"#);
    for id in ["..", "../../../etc/passwd", "", "/", ".", "../../docker/../docker"] {
        let mut container = Container { id: id.into(), ..unnamed("docker") };
        host.containers().name(&mut container);
        assert_eq!(container.name, None, "{id}");
    }
}

#[test]
fn nothing_is_looked_for_if_it_is_not_wanted() {
    let host = HostRoot::new("disabled");
    host.write(&format!("var/lib/docker/containers/{ID}/config.v2.json"), r#"{"Name":"/orders"}"#);
    let containers = Containers::new(&Config { enabled: false, host_root: host.0.clone(), ..Config::default() });
    let mut container = unnamed("docker");
    containers.name(&mut container);
    assert_eq!(container, unnamed("docker"));
    assert_eq!(containers.survey(), []);
    assert_eq!(texts(&host.named("docker").0)[0], "orders");
}

#[test]
fn a_place_of_ones_own_comes_first() {
    let host = HostRoot::new("own-place");
    host.write(&format!("var/lib/docker/containers/{ID}/config.v2.json"), r#"{"Name":"/usual"}"#);
    host.write(&format!("srv/data/containers/{ID}/config.v2.json"), r#"{"Name":"/own"}"#);
    let docker_data = vec![PathBuf::from("/srv/data")];
    let containers = Containers::new(&Config { host_root: host.0.clone(), docker_data, ..Config::default() });
    let mut container = unnamed("docker");
    containers.name(&mut container);
    assert_eq!(texts(&container)[0], "own");
}

#[test]
fn the_survey_says_what_is_there_and_what_cannot_be_read() {
    let host = HostRoot::new("survey");
    assert_eq!(host.containers().survey(), []);
    host.write(&format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"), CRI);
    host.write(&format!("var/lib/docker/containers/{ID}/config.v2.json"), "{}");
    host.write("var/lib/containers/storage/overlay-containers/containers.json", "[]");
    let source = |runtime, path: &str, reach| Source { runtime, path: path.into(), reach };
    let one = Reach::Readable { containers: Some(1) };
    let survey = host.containers().survey();
    assert!(survey.contains(&source("containerd", "/run/containerd", one.clone())), "{survey:?}");
    assert!(survey.contains(&source("docker", "/var/lib/docker", one)), "{survey:?}");
    assert!(
        survey.contains(&source("podman", "/var/lib/containers/storage", Reach::Readable { containers: None })),
        "{survey:?}"
    );

    // Root reads everything, so the refusal is asked for as another user, where that can be.
    let closed = host.0.join("var/lib/docker/containers");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let refused = as_nobody(|| host.containers().survey());
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    let docker = refused.iter().find(|source| source.runtime == "docker").unwrap();
    let Reach::Unreadable { why } = &docker.reach else { panic!("{docker:?}") };
    assert!(why.contains("CAP_DAC_READ_SEARCH"), "{why}");
}

/// On a thread of its own without the capabilities that root has over files.
fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut sets = rustix::thread::capabilities(None).unwrap();
            sets.effective -=
                rustix::thread::CapabilitySet::DAC_OVERRIDE | rustix::thread::CapabilitySet::DAC_READ_SEARCH;
            rustix::thread::set_capabilities(None, sets).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}
