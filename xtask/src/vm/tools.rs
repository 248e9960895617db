//! QEMU and busybox, the same on every machine.
//!
//! They are unpacked next to the kernels with every library they need, the C library included, and never installed: one
//! emulator for everybody (QEMU 7.2, which Debian 12 has, cannot patch the text of newer kernels reliably), no root, and
//! no conflict with whatever of QEMU is installed here.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::debian::{self, Archives, LIBRARIES, Suite};

/// The suite they are taken from.
const SUITE: &str = "trixie";
const PACKAGES: [&str; 2] = ["qemu-system-x86", "busybox-static"];

/// The folder they are in, laid out like `/`.
pub(super) struct Tools {
    tree: PathBuf,
}

impl Tools {
    /// Brings them if they are not there.
    pub(super) fn bring(folder: &Path) -> Result<Self> {
        let tree = folder.join("tools");
        if !tree.exists() {
            eprintln!("emulator: not there, bringing it");
            let suite = Suite::open(&Archives::of_this_machine()?, SUITE, &folder.join("apt").join(SUITE))?;
            let packages = PACKAGES.map(str::to_owned);
            debian::whole_folder(&tree, |new| suite.bring_complete(&packages, new))?;
        }
        let tools = Self { tree };
        let output = tools.qemu().arg("--version").output().context("run QEMU through setpriv")?;
        if !output.status.success() {
            bail!("QEMU does not run: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(tools)
    }

    /// Linked statically: it runs here, and in the machine without any library.
    pub(super) fn busybox(&self) -> PathBuf {
        self.tree.join("usr/bin/busybox")
    }

    /// QEMU, started through the loader it was unpacked with: the C library of this machine may be an older one.
    pub(super) fn qemu(&self) -> Command {
        let libraries = self.tree.join(LIBRARIES);
        // Should this process be killed, its machines must not go on for half an hour.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL"]).arg(libraries.join("ld-linux-x86-64.so.2"));
        qemu.arg("--library-path").arg(&libraries).arg(self.tree.join("usr/bin/qemu-system-x86_64"));
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            qemu.arg("-L").arg(self.tree.join(data));
        }
        // None is needed; those of another QEMU, installed here, would not fit.
        qemu.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        qemu
    }

    /// A file as it was before it was compressed, by its ending.
    pub(super) fn decompress(&self, file: &Path) -> Result<Vec<u8>> {
        let mut command = match file.extension().and_then(|ending| ending.to_str()) {
            Some("xz") => {
                let mut busybox = Command::new(self.busybox());
                busybox.args(["unxz", "-c"]);
                busybox
            }
            Some("zst") => {
                let mut zstd = Command::new("zstd");
                zstd.args(["--decompress", "--stdout"]);
                zstd
            }
            _ => return std::fs::read(file).with_context(|| format!("read {}", file.display())),
        };
        let opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
        let output = command.stdin(opened).output().with_context(|| format!("run {command:?}"))?;
        if !output.status.success() {
            bail!("{command:?} on {}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output.stdout)
    }
}
