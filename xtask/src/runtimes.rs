//! `cargo xtask runtimes`: containerd, runc, Docker and a static busybox for the kernel tests that name real containers.
//!
//! From Debian, and from the very suite this machine runs: containerd starts its shim, and the shim itself, by their own
//! paths, so they cannot be led through another C library's loader the way the bench does it. Unpacked, never installed:
//! no service starts, and nothing outside `target/` changes.

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{debian::Tree, workspace};

/// Where the kernel tests look for them (`agent/tests/kernel/containers/`).
const FOLDER: &str = "target/runtimes";
/// What they start. Newer Debians have Docker's client in a package of its own.
const PACKAGES: [&str; 4] = ["containerd", "runc", "docker.io", "busybox-static"];
const CLIENT: &str = "docker-cli";
const CLIENT_SINCE: u32 = 13;

pub(crate) fn runtimes() -> Result<ExitCode> {
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let (suite, version) = debian(&release).context(
        "this is not a released Debian: install containerd, runc, docker and a static busybox by other means, and the \
         tests find them on PATH",
    )?;
    let mut packages = PACKAGES.to_vec();
    if version >= CLIENT_SINCE {
        packages.push(CLIENT);
    }
    let folder = workspace::root()?.join(FOLDER);
    let tree = Tree::bring(&folder, suite, &packages, &folder.with_extension("apt"))?;
    for program in ["usr/bin/containerd", "usr/sbin/runc", "usr/sbin/dockerd", "usr/bin/docker"] {
        if !tree.file(program).exists() && !tree.file(&program.replace("sbin", "bin")).exists() {
            bail!("{program} is in none of the packages {}", packages.join(", "));
        }
    }
    println!("{}", folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Suite and version of a Debian, from the text of `/etc/os-release`.
fn debian(release: &str) -> Option<(&str, u32)> {
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"'))
    };
    let version = value("VERSION_ID")?.parse().ok()?;
    (value("ID")? == "debian").then_some((value("VERSION_CODENAME")?, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_released_debian_is_one() {
        let bookworm = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(debian(bookworm), Some(("bookworm", 12)));
        assert_eq!(debian("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\n"), None);
        assert_eq!(debian("ID=debian\nVERSION_CODENAME=forky\n"), None, "testing has no number");
    }
}
