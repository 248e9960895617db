//! Paths as each runtime writes them, with the ids replaced.

use proptest::prelude::*;

use super::*;

const A: &str = "3f2c1d0e9b8a7f6e5d4c3b2a190807f6e5d4c3b2a1908f7e6d5c4b3a29180706";
const B: &str = "a0b1c2d3e4f5061728394a5b6c7d8e9f00112233445566778899aabbccddeeff";
const POD: &str = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";
const POD_: &str = "1b4e28ba_2fa1_11d2_883f_0016d3cca427";
const STATIC_POD: &str = "6f6dab0b9fd9b4c0e5b7a4c6f8b1f0e2";
const TASK: &str = "34dc0b5e626f2c5c4c5170e34b10e765";
const GARDEN: &str = "6f265890-5165-7fab-6b52-18d1";

/// Runtime, id and pod uid of the container a path is expected to name.
type Expected = Option<(&'static str, &'static str, Option<&'static str>)>;

/// What it is, the path with placeholders for the ids above, the unit, the container.
#[rustfmt::skip]
const FIXTURES: &[(&str, &str, Option<&str>, Expected)] = &[
    // systemd alone
    ("root", "/", None, None),
    ("PID 1", "/init.scope", Some("init.scope"), None),
    ("a service", "/system.slice/nginx.service", Some("nginx.service"), None),
    ("an instance in its own slice", "/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service"), None),
    ("a service with cgroups below it", "/system.slice/postgresql@15-main.service/workers/3", Some("postgresql@15-main.service"), None),
    ("a dash in a name", r"/machine.slice/machine-qemu\x2d1\x2dvm1.scope/libvirt/emulator", Some("machine-qemu-1-vm1.scope"), None),
    ("a name the kernel has a file of", "/system.slice/_cpu.service", Some("cpu.service"), None),
    ("a login", "/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope"), None),
    ("a user's service", "/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service", Some("syncthing.service"), None),
    ("a user's application", r"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-org.gnome.Terminal-2817.scope", Some("app-gnome-org.gnome.Terminal-2817.scope"), None),
    ("a terminal's tab in its scope", r"/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte\x2dspawn\x2d8f1e.scope", Some("vte-spawn-8f1e.scope"), None),
    ("a user's manager", "/user.slice/user-1000.slice/user@1000.service/init.scope", Some("user@1000.service"), None),
    ("a slice only", "/system.slice", None, None),
    ("a mount of a container's", "/system.slice/var-lib-docker-containers-{a}-mounts-shm.mount", None, None),
    ("a removed cgroup", "/system.slice/cron.service (deleted)", Some("cron.service"), None),
    ("systemd-nspawn, its supervisor", "/machine.slice/systemd-nspawn@deb.service/supervisor", Some("systemd-nspawn@deb.service"), None),
    ("systemd-nspawn, its payload", "/machine.slice/systemd-nspawn@deb.service/payload/init.scope", Some("systemd-nspawn@deb.service"), None),
    ("a service in systemd-nspawn", "/machine.slice/systemd-nspawn@deb.service/payload/system.slice/ssh.service", Some("ssh.service"), None),
    ("a service in LXC", "/lxc.payload.web/system.slice/apache2.service", Some("apache2.service"), None),
    ("LXC without systemd", "/lxc/web", None, None),

    // Docker
    ("docker, cgroupfs", "/docker/{a}", None, Some(("docker", A, None))),
    ("docker, systemd", "/system.slice/docker-{a}.scope", None, Some(("docker", A, None))),
    ("docker, a systemd in the container", "/system.slice/docker-{a}.scope/init.scope", None, Some(("docker", A, None))),
    ("docker, a service in the container", "/system.slice/docker-{a}.scope/system.slice/nginx.service", Some("nginx.service"), Some(("docker", A, None))),
    ("docker, rootless", "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{a}.scope", None, Some(("docker", A, None))),
    ("docker, --cgroup-parent", "/batch/{a}", None, Some(("unknown", A, None))),
    ("docker, slice given to cgroupfs", "/system.slice:docker:{a}", None, Some(("docker", A, None))),
    ("docker in docker, cgroupfs", "/docker/{a}/docker/{b}", None, Some(("docker", B, None))),
    ("docker in docker, systemd outside", "/system.slice/docker-{a}.scope/docker/{b}", None, Some(("docker", B, None))),
    ("docker's builder", "/docker/buildkit/x5ya8ixn3zfhdb2q9pj0m1kwe", None, None),
    ("docker's own service", "/system.slice/docker.service", Some("docker.service"), None),

    // containerd, with and without Kubernetes
    ("nerdctl, systemd", "/system.slice/nerdctl-{a}.scope", None, Some(("containerd", A, None))),
    ("nerdctl, cgroupfs", "/default/{a}", None, Some(("containerd", A, None))),
    ("ctr with a name for an id", "/default/redis", None, None),
    ("kubelet, cgroupfs, burstable", "/kubepods/burstable/pod{pod}/{a}", None, Some(("unknown", A, Some(POD)))),
    ("kubelet, cgroupfs, guaranteed", "/kubepods/pod{pod}/{a}", None, Some(("unknown", A, Some(POD)))),
    ("kubelet, cgroupfs, a static pod", "/kubepods/burstable/pod{static}/{a}", None, Some(("unknown", A, Some(STATIC_POD)))),
    ("kubelet, systemd, containerd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod_}.slice/cri-containerd-{a}.scope", None, Some(("containerd", A, Some(POD)))),
    ("kubelet, systemd, guaranteed", "/kubepods.slice/kubepods-pod{pod_}.slice/cri-containerd-{a}.scope", None, Some(("containerd", A, Some(POD)))),
    ("kubelet, systemd, docker", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{pod_}.slice/docker-{a}.scope", None, Some(("docker", A, Some(POD)))),
    ("kubelet systemd, containerd cgroupfs", "/system.slice/containerd.service/kubepods-besteffort-pod{pod_}.slice:cri-containerd:{a}", None, Some(("containerd", A, Some(POD)))),
    ("the same as containerd without a service", "/kubepods-burstable-pod{pod_}.slice:cri-containerd:{a}", None, Some(("containerd", A, Some(POD)))),
    ("k3s", "/k3s/kubepods/besteffort/pod{pod}/{a}", None, Some(("unknown", A, Some(POD)))),
    ("k3s's own service", "/system.slice/k3s.service", Some("k3s.service"), None),
    ("a pod's cgroup itself", "/kubepods/besteffort/pod{pod}", None, None),
    ("kubelet", "/system.slice/kubelet.service", Some("kubelet.service"), None),
    ("a service in a pod's container", "/kubepods.slice/kubepods-pod{pod_}.slice/cri-containerd-{a}.scope/system.slice/sshd.service", Some("sshd.service"), Some(("containerd", A, Some(POD)))),
    ("docker in a pod", "/kubepods/burstable/pod{pod}/{a}/docker/{b}", None, Some(("docker", B, Some(POD)))),
    ("kind, cgroupfs", "/docker/{a}/kubelet/kubepods/burstable/pod{pod}/{b}", None, Some(("unknown", B, Some(POD)))),
    ("kind, systemd", "/system.slice/docker-{a}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{pod_}.slice/cri-containerd-{b}.scope", None, Some(("containerd", B, Some(POD)))),
    ("kind, the node's containerd", "/docker/{a}/system.slice/containerd.service", Some("containerd.service"), Some(("docker", A, None))),

    // CRI-O
    ("cri-o, systemd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod_}.slice/crio-{a}.scope", None, Some(("cri-o", A, Some(POD)))),
    ("cri-o with crun", "/kubepods.slice/kubepods-pod{pod_}.slice/crio-{a}.scope/container", None, Some(("cri-o", A, Some(POD)))),
    ("cri-o, cgroupfs", "/kubepods/burstable/pod{pod}/crio-{a}", None, Some(("cri-o", A, Some(POD)))),
    ("cri-o's monitor, systemd", "/kubepods.slice/kubepods-pod{pod_}.slice/crio-conmon-{a}.scope", Some("crio-conmon-{a}.scope"), None),
    ("cri-o's monitor, cgroupfs", "/kubepods/burstable/pod{pod}/crio-conmon-{a}", None, None),

    // podman
    ("podman", "/machine.slice/libpod-{a}.scope", None, Some(("podman", A, None))),
    ("podman with crun on v2", "/machine.slice/libpod-{a}.scope/container", None, Some(("podman", A, None))),
    ("podman, rootless", "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{a}.scope/container", None, Some(("podman", A, None))),
    ("podman, a pod of its own", "/machine.slice/machine-libpod_pod_{b}.slice/libpod-{a}.scope", None, Some(("podman", A, None))),
    ("podman, cgroupfs", "/libpod_parent/libpod-{a}", None, Some(("podman", A, None))),
    ("podman's monitor", "/machine.slice/libpod-conmon-{a}.scope", Some("libpod-conmon-{a}.scope"), None),
    ("podman in a unit (quadlet)", "/system.slice/web.service/libpod-payload-{a}", Some("web.service"), Some(("podman", A, None))),
    ("podman in a unit, its monitor", "/system.slice/web.service/supervisor", Some("web.service"), None),
    ("podman's health check", "/system.slice/{a}-5f1d.service", Some("{a}-5f1d.service"), None),
    ("podman, a service in the container", "/machine.slice/libpod-{a}.scope/container/system.slice/httpd.service", Some("httpd.service"), Some(("podman", A, None))),

    // Clouds
    ("ECS on EC2", "/ecs/{task}/{a}", None, Some(("unknown", A, None))),
    ("ECS on EC2, systemd", "/ecstasks.slice/ecstasks-{task}.slice/docker-{a}.scope", None, Some(("docker", A, None))),
    ("ECS on Fargate", "/ecs/{task}/{task}-1234567890", None, Some(("unknown", "34dc0b5e626f2c5c4c5170e34b10e765-1234567890", None))),
    ("Cloud Foundry", "/garden/{garden}", None, Some(("unknown", GARDEN, None))),
    ("an unknown runtime's scope", "/system.slice/newrt-{a}.scope", None, Some(("unknown", A, None))),

    // Not ids
    ("63 digits", "/docker/3f2c1d0e9b8a7f6e5d4c3b2a190807f6e5d4c3b2a1908f7e6d5c4b3a2918070", None, None),
    ("upper case", "/docker/3F2C1D0E9B8A7F6E5D4C3B2A190807F6E5D4C3B2A1908F7E6D5C4B3A29180706", None, None),
    ("a uuid", "/docker/{pod}", None, None),
    ("a unit with colons", "/system.slice/a:b:c.service", Some("a:b:c.service"), None),
];

fn path(template: &str) -> String {
    let ids = [
        ("{a}", A),
        ("{b}", B),
        ("{pod}", POD),
        ("{pod_}", POD_),
        ("{static}", STATIC_POD),
        ("{task}", TASK),
        ("{garden}", GARDEN),
    ];
    ids.iter().fold(template.to_owned(), |path, (placeholder, id)| path.replace(placeholder, id))
}

#[test]
fn every_runtime_is_told_by_its_paths() {
    for (what, template, unit, container) in FIXTURES {
        let identity = identify(&path(template));
        let unit = unit.map(|unit| Name::from(path(unit).as_str()));
        assert_eq!(identity.unit, unit, "{what}: {template}");
        let container = container.map(|(runtime, id, pod_uid)| Container {
            runtime: runtime.into(),
            id: id.into(),
            pod_uid: pod_uid.map(Name::from),
            ..Container::default()
        });
        assert_eq!(identity.container, container, "{what}: {template}");
    }
}

#[test]
fn the_best_of_several_hierarchies_is_chosen() {
    // Pure v2.
    assert_eq!(own_path("0::/system.slice/ssh.service\n"), Some("/system.slice/ssh.service"));
    assert_eq!(own_path("0::/\n"), Some("/"));
    // v1, and v2 that holds nothing.
    let v1 = "12:memory:/batch\n3:cpu,cpuacct:/batch\n1:name=systemd:/system.slice/cron.service\n0::/\n";
    assert_eq!(own_path(v1), Some("/system.slice/cron.service"));
    assert_eq!(own_path("9:name=systemd:/\n8:pids:/x\n4:memory:/jobs/7\n0::/\n"), Some("/jobs/7"));
    assert_eq!(own_path("9:name=systemd:/\n8:pids:/x\n0::/\n"), Some("/x"));
    assert_eq!(own_path("9:name=systemd:/\n8:pids:/\n"), Some("/"));
    assert_eq!(own_path("5:cpuset,memory:/m\n6:pids:/p\n"), Some("/m"));
    // Hybrid: the v2 path stays with the daemon, the container is in v1.
    let hybrid = format!("5:memory:/docker/{A}\n1:name=systemd:/docker/{A}\n0::/system.slice/containerd.service\n");
    assert_eq!(own_path(&hybrid), Some(format!("/docker/{A}").as_str()));
    // A path may have colons; a line may be none.
    assert_eq!(own_path("0::/a:b/c:d.service\n"), Some("/a:b/c:d.service"));
    assert_eq!(own_path("0::\nnonsense\n1:memory\n:::\n2:pids:relative\n"), None);
    assert_eq!(own_path(""), None);
}

#[test]
fn escapes_are_undone_and_made_safe_again() {
    assert_eq!(identify(r"/system.slice/a\x2db\x40c.service").unit, Some("a-b@c.service".into()));
    assert_eq!(identify(r"/system.slice/a\x0ab\x1b.service").unit, Some("a\nb\u{1b}.service".into()));
    assert_eq!(identify(r"/system.slice/a\x2.service").unit, Some(r"a\x2.service".into()));
    assert_eq!(identify(r"/system.slice/a\xzz\.service").unit, Some(r"a\xzz\.service".into()));
}

fn is_well_formed(id: &str) -> bool {
    is_id(id) || is_fargate_id(id) || is_garden_id(id)
}

proptest! {
    #[test]
    fn any_path_is_taken(path in "\\PC{0,200}", text in "(\\PC|[:/\n]){0,200}") {
        let _ = identify(&path);
        let _ = own_path(&text);
    }

    #[test]
    fn ids_have_the_shape_of_ids_and_pods_are_uids(
        pieces in prop::collection::vec(prop::sample::select(vec![
            A, B, POD, POD_, TASK, GARDEN, "docker", "crio-", "crio-conmon-", "libpod-", "libpod-payload-", ".scope", "/",
            "/", "/", ".slice", ":", "cri-containerd", "pod", "-pod", "kubepods", ".service", "x", "garden", "-7", "é",
            "init.scope", "_", "\\x2d",
        ]), 0..24),
    ) {
        let path: String = pieces.concat();
        let identity = identify(&path);
        if let Some(container) = identity.container {
            prop_assert!(is_well_formed(container.id.as_str()), "{} of {}", container.id, path);
            prop_assert!(path.contains(container.id.as_str()));
            if let Some(uid) = container.pod_uid {
                prop_assert_eq!(uid.as_str().bytes().filter(u8::is_ascii_hexdigit).count(), 32);
            }
        }
        if let Some(unit) = identity.unit {
            prop_assert!(unit.as_str().ends_with(".service") || unit.as_str().ends_with(".scope"));
        }
    }

    #[test]
    fn what_is_above_a_container_does_not_change_it(above in "(/[a-z0-9.-]{1,12}){0,4}") {
        let path = format!("{above}/docker-{A}.scope");
        let container = identify(&path).container.unwrap();
        prop_assert_eq!((container.runtime.as_str(), container.id.as_str()), ("docker", A));
    }
}
