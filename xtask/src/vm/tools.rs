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

use crate::debian::Tree;

/// The suite they are taken from.
const SUITE: &str = "trixie";
const PACKAGES: [&str; 2] = ["qemu-system-x86", "busybox-static"];

/// The folder they are in.
pub(super) struct Tools(Tree);

impl Tools {
    /// Brings them if they are not there.
    pub(super) fn bring(folder: &Path) -> Result<Self> {
        let tree = Tree::bring(&folder.join("tools"), SUITE, &PACKAGES, &folder.join("apt").join(SUITE))?;
        let tools = Self(tree);
        let output = tools.qemu().arg("--version").output().context("run QEMU through setpriv")?;
        if !output.status.success() {
            bail!("QEMU does not run: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(tools)
    }

    /// Linked statically: it runs here, and in the machine without any library.
    pub(super) fn busybox(&self) -> PathBuf {
        self.0.file("usr/bin/busybox")
    }

    /// QEMU.
    pub(super) fn qemu(&self) -> Command {
        // Should this process be killed, its machines must not go on for half an hour.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL"]);
        self.0.let_start(&mut qemu, "usr/bin/qemu-system-x86_64");
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            qemu.arg("-L").arg(self.0.file(data));
        }
        // None is needed; those of another QEMU, installed here, would not fit.
        qemu.env("QEMU_MODULE_DIR", self.0.libraries().join("qemu"));
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
