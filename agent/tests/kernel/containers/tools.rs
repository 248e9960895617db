//! The programs of the runtimes: what `cargo xtask runtimes` unpacked, else what is installed.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where they are.
pub(crate) struct Tools {
    folder: Option<PathBuf>,
}

impl Tools {
    pub(crate) fn find() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/runtimes");
        Self { folder: fs::canonicalize(folder).ok() }
    }

    /// Why a container of containerd cannot be run here.
    pub(crate) fn lacks_containerd() -> Option<String> {
        Self::find().lacks(&["containerd", "ctr", "containerd-shim-runc-v2", "runc", "busybox"])
    }

    /// Why a container of Docker cannot be run here.
    pub(crate) fn lacks_docker() -> Option<String> {
        Self::find().lacks(&["dockerd", "docker", "containerd", "containerd-shim-runc-v2", "runc", "busybox"])
    }

    fn lacks(&self, programs: &[&str]) -> Option<String> {
        let missing: Vec<_> = programs.iter().filter(|program| self.program(program).is_none()).copied().collect();
        if !missing.is_empty() {
            return Some(format!(
                "not here: {} (`cargo xtask runtimes` brings them into target/runtimes)",
                missing.join(", ")
            ));
        }
        // A container needs a cgroup.
        let name = format!("firstfin-probe-{}-{}", programs.join("-"), std::process::id());
        let probe = cgroup_roots().map(|root| root.join(&name));
        for folder in probe {
            if let Err(error) = fs::create_dir(&folder) {
                return Some(format!("no cgroup can be made: {}: {error}", folder.display()));
            }
            let _ = fs::remove_dir(&folder);
        }
        None
    }

    /// The file of a program.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        env::split_paths(&self.path()).map(|folder| folder.join(name)).find(|file| file.is_file())
    }

    /// A command of theirs, which finds the others and its libraries.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.program(program).unwrap_or_else(|| PathBuf::from(program)));
        command.env("PATH", self.path());
        if let Some(folder) = &self.folder {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|path| folder.join(path));
            command.env("LD_LIBRARY_PATH", env::join_paths(libraries).unwrap_or_default());
        }
        command
    }

    fn path(&self) -> OsString {
        let own = self
            .folder
            .iter()
            .flat_map(|folder| ["usr/bin", "usr/sbin", "bin", "sbin"].map(|programs| folder.join(programs)));
        let installed = env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        env::join_paths(own.chain(env::split_paths(&installed)).chain(system)).unwrap_or(installed)
    }
}

/// The root of every hierarchy of cgroups.
pub(crate) fn cgroup_roots() -> impl Iterator<Item = PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let roots: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (place, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup" || kind == "cgroup2").then(|| PathBuf::from(place))
        })
        .collect();
    roots.into_iter()
}
