//! The real Prometheus and Alertmanager for the tests, and tmux where it is not installed, as Debian has them: unpacked in
//! `target/servers` with every library they need, and never installed.
//!
//! A test finds a program by its variable. Where they cannot be had, the tests that need one are skipped, with the reason.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{debian::Tree, workspace};

const SUITE: &str = "trixie";

/// Packages that are brought together, and programs of theirs.
struct Set {
    /// Folder they are unpacked in
    folder: &'static str,
    packages: &'static [&'static str],
    programs: &'static [Program],
}

struct Program {
    /// The variable a test finds it by
    variable: &'static str,
    name: &'static str,
    /// Has it say its version
    version: &'static str,
}

const fn program(variable: &'static str, name: &'static str, version: &'static str) -> Program {
    Program { variable, name, version }
}

const SERVERS: Set = Set {
    folder: "tree",
    packages: &["prometheus", "prometheus-alertmanager"],
    programs: &[
        program("FIRSTFIN_ALERTMANAGER", "prometheus-alertmanager", "--version"),
        program("FIRSTFIN_AMTOOL", "amtool", "--version"),
        program("FIRSTFIN_PROMETHEUS", "prometheus", "--version"),
        program("FIRSTFIN_PROMTOOL", "promtool", "--version"),
    ],
};
const TERMINAL: Set =
    Set { folder: "terminal", packages: &["tmux"], programs: &[program("FIRSTFIN_TMUX", "tmux", "-V")] };
/// Says to the tests why there are none.
const MISSING: &str = "FIRSTFIN_NO_SERVERS";
const NO_TERMINAL: &str = "FIRSTFIN_NO_TERMINAL";

/// `exec` all along: whoever starts a server has its own pid to end it by.
const START: &str = r#"#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
start='
mount --bind "$1/usr/share" /usr/share || exit 1
libraries=$1/usr/lib/x86_64-linux-gnu program=$1/usr/bin/$2
shift 2
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$program" "$@"'
map=
test "$(id -u)" = 0 || map=--map-root-user
"#;

/// What the tests are told.
pub(super) struct Servers(pub(super) Vec<(&'static str, String)>);

/// Brings them, if they are not there yet.
pub(super) fn bring() -> Servers {
    let mut variables = told(&SERVERS, MISSING);
    // The one that is installed does as well.
    if workspace::find_on_path("tmux").is_none() {
        variables.extend(told(&TERMINAL, NO_TERMINAL));
    }
    Servers(variables)
}

/// What the tests are told of a set; in `missing` why there is none.
fn told(set: &Set, missing: &'static str) -> Vec<(&'static str, String)> {
    programs(set).unwrap_or_else(|error| {
        eprintln!("no {}, tests with it will be skipped: {error:#}", set.packages.join(" and "));
        vec![(missing, format!("{error:#}").replace('\n', " "))]
    })
}

impl Servers {
    /// Tells a command about them; what its user has set stays.
    pub(super) fn lend(&self, command: &mut Command) {
        let unset = self.0.iter().filter(|(variable, _)| std::env::var_os(variable).is_none());
        command.envs(unset.map(|(variable, value)| (variable, value)));
    }
}

fn programs(set: &Set) -> Result<Vec<(&'static str, String)>> {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        bail!("they are brought for Linux on x86-64 only");
    }
    let folder = workspace::target()?.join("servers");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let _lock = workspace::lock(&folder.join("lock"), "another test run that brings them")?;
    let tree = Tree::bring(&folder.join(set.folder), SUITE, set.packages, &folder.join("apt"))?;
    let programs = set.programs.iter();
    programs.map(|program| Ok((program.variable, starter(&folder, &tree, set, program)?))).collect()
}

/// A file that starts a program through the loader it was unpacked with: the C library of this machine may be older. It sees
/// the `/usr/share` it was unpacked with, too, where Alertmanager looks for its templates: in a mount namespace of its own,
/// and of a user namespace where this is not root.
fn starter(folder: &Path, tree: &Tree, set: &Set, program: &Program) -> Result<String> {
    let name = program.name;
    let unpacked = tree.file("usr/bin").join(name);
    if !unpacked.is_file() {
        bail!("{} is not in Debian's packages any more", unpacked.display());
    }
    let script =
        format!("{START}exec unshare $map --mount sh -c \"$start\" sh \"$here/{}\" {name} \"$@\"\n", set.folder);
    let path = folder.join(name);
    let of = || path.display().to_string();
    if !fs::read_to_string(&path).is_ok_and(|there| there == script) {
        fs::write(&path, script).with_context(|| format!("write {}", of()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).with_context(|| format!("chmod {}", of()))?;
    }
    let output = Command::new(&path).arg(program.version).output().with_context(|| format!("run {}", of()))?;
    if !output.status.success() {
        bail!("{name} does not run here: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(of())
}
