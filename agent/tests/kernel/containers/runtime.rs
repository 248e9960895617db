//! A runtime of a test's own. It and all it writes are in a mount namespace with folders of its own where it would write,
//! so that nothing of it is left on this host, and it is found the way a DaemonSet finds the host's: below another root.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use firstfin::kernel::containers::Config;
use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};

use super::tools::{Tools, cgroup_roots};

/// How many connections a container makes, each by a process of its own that closes first and stays.
pub(super) const CONNECTIONS: u64 = 5;
/// How long anything of a runtime may take.
const WITHIN: Duration = Duration::from_secs(60);

/// New folders for what a runtime writes, in the mount namespace it is started in.
const OWN_FOLDERS: &str = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && mount -t tmpfs tmpfs /opt && \
                           mkdir /run/upper /run/work && \
                           mount -t overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work overlay /etc && \
                           exec \"$@\"";

/// What runs in the container. The server of busybox has room for the others.
const SCRIPTS: [(&str, &str); 3] = [
    (
        "play",
        "nc -ll -p 7000 -e /bin/drain &\nuntil grep -q ':1B58 ' /proc/net/tcp /proc/net/tcp6; do :; done\n\
              for i in 1 2 3 4 5; do nc 127.0.0.1 7000 -e /bin/leave & done\nsleep 600\n",
    ),
    ("drain", "cat >/dev/null\n"),
    ("leave", "exec 0<&- 1>&- 2>&-\nsleep 600\n"),
];
const APPLETS: [&str; 5] = ["sh", "nc", "cat", "grep", "sleep"];

/// A daemon that runs containers. It ends with this value, with all of them.
pub(super) struct Daemon {
    tools: Tools,
    process: Child,
    folder: PathBuf,
    is_docker: bool,
}

/// A container that runs.
pub(super) struct Started {
    pub(super) id: String,
    pid: u32,
}

impl Daemon {
    pub(super) fn containerd() -> Result<Self, Failed> {
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        Self::start("containerd", false, config, &["-c", "FOLDER/config"])
    }

    pub(super) fn docker() -> Result<Self, Failed> {
        let group = format!("--cgroup-parent=/{}/docker", group(true));
        let arguments = ["--config-file", "FOLDER/config", "--iptables=false", "--ip6tables=false", "--bridge=none"];
        let daemon = Self::start("dockerd", true, "{}", &[&arguments[..], &[&group]].concat())?;
        daemon.import()?;
        Ok(daemon)
    }

    fn start(program: &str, is_docker: bool, config: &str, arguments: &[&str]) -> Result<Self, Failed> {
        let tools = Tools::find();
        let folder = std::env::temp_dir().join(group(is_docker));
        let _ = fs::remove_dir_all(&folder);
        make_root(&folder.join("rootfs"), &tools)?;
        fs::write(folder.join("config"), config)?;
        let executable = tools.program(program).ok_or("it is not here")?;
        let log = fs::File::create(folder.join("log"))?;
        let template = tools.command(program);
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-c", OWN_FOLDERS, "sh"]).arg(executable);
        let at = |argument: &&str| argument.replace("FOLDER", &folder.display().to_string());
        unshare.args(arguments.iter().map(at)).envs(template.get_envs().filter_map(|(key, value)| Some((key, value?))));
        unshare.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let daemon = Self { tools, process: unshare.spawn()?, folder, is_docker };
        wait("the daemon's socket", || daemon.client(&["version"]).ok()).map_err(|failed| daemon.with_log(&failed))?;
        Ok(daemon)
    }

    /// Where its containers have their names.
    pub(super) fn config(&self) -> Config {
        Config { host_root: self.root(), ..Config::default() }
    }

    /// Its mount namespace.
    fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.process.id()))
    }

    /// Runs its client in its mount namespace, and returns what it said.
    pub(super) fn client(&self, arguments: &[&str]) -> Result<String, Failed> {
        self.client_with(arguments, None)
    }

    fn client_with(&self, arguments: &[&str], input: Option<Vec<u8>>) -> Result<String, Failed> {
        let program = if self.is_docker { "docker" } else { "ctr" };
        let template = self.tools.command(program);
        let mut client = Command::new("nsenter");
        client.arg("--mount").args(["--target", &self.process.id().to_string()]).arg(template.get_program());
        if !self.is_docker {
            client.args(["--namespace", "k8s.io"]);
        }
        client.args(arguments).envs(template.get_envs().filter_map(|(key, value)| Some((key, value?))));
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = client.spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(&input.unwrap_or_default())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{program} {}: {}: {said}", arguments.join(" "), output.status).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A container in the cgroup of a pod, with annotations as containerd's CRI plugin writes them.
    pub(super) fn run_pod(&self, uid: &str, annotations: &[(&str, &str)]) -> Result<Started, Failed> {
        let id = random_id()?;
        let cgroup = format!("/{}/kubepods/burstable/pod{uid}/{id}", group(false));
        let rootfs = self.folder.join("rootfs").display().to_string();
        let annotations: Vec<String> =
            annotations.iter().map(|(key, value)| format!("io.kubernetes.cri.{key}={value}")).collect();
        let mut arguments = vec!["run", "--detach", "--rootfs", "--cgroup", &cgroup];
        arguments.extend(annotations.iter().flat_map(|annotation| ["--annotation", annotation]));
        arguments.extend([rootfs.as_str(), &id, "/bin/play"]);
        self.client(&arguments).map_err(|failed| self.with_log(&failed))?;
        let tasks = self.client(&["task", "list"])?;
        let pid = tasks.lines().find_map(|line| line.strip_prefix(&id)?.split_whitespace().next()?.parse().ok());
        Ok(Started { pid: pid.ok_or_else(|| format!("no task {id}: {tasks}"))?, id })
    }

    /// A container without a network but its own loopback.
    pub(super) fn run_container(&self, name: &str) -> Result<Started, Failed> {
        let arguments = ["run", "--detach", "--name", name, "--network", "none", "firstfin/test", "/bin/play"];
        let id = self.client(&arguments).map_err(|failed| self.with_log(&failed))?;
        let pid = self.client(&["inspect", "--format", "{{.State.Pid}}", &id])?;
        Ok(Started { id, pid: pid.parse().map_err(|error| format!("{pid}: {error}"))? })
    }

    /// Makes the image.
    fn import(&self) -> Result<(), Failed> {
        let rootfs = self.folder.join("rootfs");
        let tar = Command::new("tar").arg("-C").arg(rootfs).args(["-c", "."]).output()?;
        self.client_with(&["import", "-", "firstfin/test"], Some(tar.stdout)).map(drop)
    }

    fn with_log(&self, failed: &Failed) -> Failed {
        let mut log = String::new();
        let _ = fs::File::open(self.folder.join("log")).and_then(|mut file| file.read_to_string(&mut log));
        let start = log.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
        format!("{}; its log ends: {}", failed.message().unwrap_or("?"), log.get(start..).unwrap_or(&log)).into()
    }

    /// Ends every container, as well as it goes.
    fn end_containers(&self) {
        if self.is_docker {
            if let Ok(ids) = self.client(&["ps", "-aq"]) {
                for id in ids.lines() {
                    let _ = self.client(&["rm", "-f", id]);
                }
            }
        } else if let Ok(tasks) = self.client(&["task", "list", "-q"]) {
            for id in tasks.lines() {
                let _ = self.client(&["task", "rm", "-f", id]);
                let _ = self.client(&["container", "rm", id]);
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end_containers();
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = wait("its end", || self.process.try_wait().ok().flatten());
        let _ = self.process.kill();
        let _ = self.process.wait();
        for root in cgroup_roots() {
            remove_cgroups(&root.join(group(self.is_docker)));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Started {
    /// Waits until the kernel counts the TIME_WAIT of the container.
    pub(super) fn await_time_wait(&self) -> Result<(), Failed> {
        let path = format!("/proc/{}/net/sockstat", self.pid);
        wait("TIME_WAIT in the container", || {
            let text = fs::read_to_string(&path).ok()?;
            text.contains(&format!(" tw {CONNECTIONS} ")).then_some(())
        })
    }
}

/// The name of all that is of a daemon of this process.
fn group(is_docker: bool) -> String {
    format!("firstfin-test-{}-{}", if is_docker { "docker" } else { "containerd" }, std::process::id())
}

fn make_root(rootfs: &Path, tools: &Tools) -> Result<(), Failed> {
    for folder in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        fs::create_dir_all(rootfs.join(folder))?;
    }
    fs::copy(tools.program("busybox").ok_or("no busybox")?, rootfs.join("bin/busybox"))?;
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet))?;
    }
    for (name, text) in SCRIPTS {
        let script = rootfs.join("bin").join(name);
        fs::write(&script, format!("#!/bin/sh\n{text}"))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn remove_cgroups(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// 64 hexadecimal digits.
fn random_id() -> Result<String, Failed> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Failed> {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(format!("{what}: not within {WITHIN:?}").into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}
