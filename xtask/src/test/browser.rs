//! A real headless Chromium for the tests of the page, as Debian has it: unpacked in `target/browser` with everything it needs,
//! and never installed.
//!
//! A test finds it by its variable. Where it cannot be had, the tests that need it are skipped, with the reason.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::servers::Servers;
use crate::{debian::Tree, workspace};

const SUITE: &str = "trixie";
const PACKAGES: [&str; 1] = ["chromium-headless-shell"];
/// Names the program.
const PROGRAM: &str = "FIRSTFIN_CHROMIUM";
/// Says to the tests why there is none.
const MISSING: &str = "FIRSTFIN_NO_CHROMIUM";

/// Chromium starts itself again and looks for its files beside itself, so it has to be where its package has it: the unpacked
/// tree is its root. Of this machine it sees what is no file of a package, and the folder that its profile is in.
const START: &str = r#"#!/bin/sh
tree=$(cd "$(dirname "$0")" && pwd)/tree folder=
for argument; do
    case $argument in --user-data-dir=*) folder=$(dirname "${argument#*=}") ;; esac
done
start='
tree=$1 folder=$2
shift 2
mkdir -p "$tree/proc" "$tree/dev" "$tree/sys" "$tree/tmp" || exit 1
for shared in /proc /dev /sys; do mount --rbind "$shared" "$tree$shared" || exit 1; done
mount -t tmpfs tmpfs "$tree/tmp" || exit 1
if test -n "$folder"; then mkdir -p "$tree$folder" && mount --bind "$folder" "$tree$folder" || exit 1; fi
exec chroot "$tree" /usr/lib/chromium/chromium-headless-shell "$@"'
map=
test "$(id -u)" = 0 || map=--map-root-user
exec unshare $map --mount sh -c "$start" sh "$tree" "$folder" "$@"
"#;

/// Brings it, if it is not there yet.
pub(super) fn bring() -> Servers {
    match program() {
        Ok(program) => Servers(vec![(PROGRAM, program)]),
        Err(error) => {
            eprintln!("no Chromium, tests of the page with it will be skipped: {error:#}");
            Servers(vec![(MISSING, format!("{error:#}").replace('\n', " "))])
        }
    }
}

fn program() -> Result<String> {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        bail!("it is brought for Linux on x86-64 only");
    }
    let folder = workspace::target()?.join("browser");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let _lock = workspace::lock(&folder.join("lock"), "another test run that brings it")?;
    let tree = Tree::bring(&folder.join("tree"), SUITE, &PACKAGES, &folder.join("apt"))?;
    // The package that makes them is part of every Debian, so nothing depends on it.
    for link in ["bin", "lib", "lib64"] {
        let path = tree.file(link);
        if path.symlink_metadata().is_err() {
            symlink(format!("usr/{link}"), &path).with_context(|| format!("link {}", path.display()))?;
        }
    }
    let path = folder.join("chromium");
    let of = || path.display().to_string();
    if !fs::read_to_string(&path).is_ok_and(|there| there == START) {
        fs::write(&path, START).with_context(|| format!("write {}", of()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).with_context(|| format!("chmod {}", of()))?;
    }
    let output =
        Command::new(&path).args(["--no-sandbox", "--version"]).output().with_context(|| format!("run {}", of()))?;
    if !output.status.success() {
        bail!("it does not run here: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(of())
}
