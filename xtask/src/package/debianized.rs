//! Looks at the package with Debian's own tools, and installs it in a folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, bail};

use super::{Verdict, expected};
use crate::{privilege::Privilege, workspace};

/// Installs, looks, and purges, with `/run` hidden: the maintainer scripts find no systemd to talk to. `$1`: the root,
/// `$2`: the package. What the daemon would leave behind is put there, because purging has to take it away.
const INSTALL_AND_PURGE: &str = r#"
set -e
mount -t tmpfs none /run
apt() { dpkg --root="$1" --force-script-chrootless --force-depends --log=/dev/null "$2" "$3"; }
apt "$1" --install "$2"
test -L "$1/etc/systemd/system/multi-user.target.wants/firstfin.service" || { echo "the unit is not enabled"; exit 3; }
mkdir -p "$1/var/lib/private/firstfin"
ln -s private/firstfin "$1/var/lib/firstfin"
touch "$1/var/lib/private/firstfin/history"
apt "$1" --remove firstfin
test -e "$1/etc/firstfin/firstfin.toml" || { echo "remove took the configuration away"; exit 3; }
test -e "$1/var/lib/firstfin/history" || { echo "remove took the history away"; exit 3; }
apt "$1" --purge firstfin
"#;

pub(super) fn run(command: &mut Command) -> Result<Output> {
    command.env("LC_ALL", "C").output().with_context(|| format!("run {command:?}"))
}

/// What a command writes, which has to end well.
fn text_of(command: &mut Command) -> Result<String> {
    let output = run(command)?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a command says, on both its outputs, a line each.
pub(super) fn lines_of(output: &Output) -> Vec<String> {
    let both = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    both.iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
}

pub(super) fn unpack(package: &Path, into: &Path) -> Result<PathBuf> {
    text_of(Command::new("dpkg-deb").arg("--extract").arg(package).arg(into))?;
    Ok(into.to_path_buf())
}

pub(super) fn contents(package: &Path) -> Result<Verdict> {
    let contents = text_of(Command::new("dpkg-deb").arg("--contents").arg(package))?;
    let missing = expected::missing(&contents);
    if !missing.is_empty() {
        return Ok(Verdict::Bad(missing));
    }
    Ok(Verdict::Good(format!("{} files and folders, all that were expected", contents.lines().count())))
}

pub(super) fn control(package: &Path, version: &str) -> Result<Verdict> {
    let field = |name: &str| text_of(Command::new("dpkg-deb").arg("--field").arg(package).arg(name));
    let (found, depends) = (field("Version")?, field("Depends")?);
    let conffiles = text_of(Command::new("dpkg-deb").arg("--info").arg(package).arg("conffiles"))?;
    let mut wrong = Vec::new();
    if found.trim() != format!("{version}-1") {
        wrong.push(format!("the package has version {}, the workspace {version}", found.trim()));
    }
    if !depends.contains("libc6 (>= ") {
        wrong.push(format!("it does not depend on a C library: {}", depends.trim()));
    }
    if conffiles.lines().collect::<Vec<_>>() != expected::CONFFILES {
        wrong.push(format!("conffiles: {conffiles:?} instead of {:?}", expected::CONFFILES));
    }
    Ok(if wrong.is_empty() {
        Verdict::Good(format!("version {}, depends on {}", found.trim(), depends.trim()))
    } else {
        Verdict::Bad(wrong)
    })
}

/// The program says its version, and `doctor` comes to a conclusion, whichever.
pub(super) fn runs(unpacked: &Path, version: &str) -> Result<Verdict> {
    let program = unpacked.join("usr/bin/firstfin");
    let said = text_of(Command::new(&program).arg("--version"))?;
    if said.trim() != format!("firstfin {version}") {
        return Ok(Verdict::Bad(vec![format!("--version says {:?}", said.trim())]));
    }
    let doctor = run(Command::new(&program).arg("doctor"))?;
    let lines = lines_of(&doctor);
    let conclusion = lines.iter().rev().find(|line| line.contains("can run here") || line.contains("cannot run"));
    Ok(match (doctor.status.code(), conclusion) {
        (Some(0 | 2), Some(conclusion)) => Verdict::Good(format!("{}; doctor: {}", said.trim(), conclusion.trim())),
        _ => Verdict::Bad(std::iter::once(format!("doctor: {}", doctor.status)).chain(lines).collect()),
    })
}

pub(super) fn install_and_purge(package: &Path, root: &Path) -> Result<Verdict> {
    if workspace::find_on_path("deb-systemd-helper").is_none() {
        return Ok(Verdict::Skipped("deb-systemd-helper (init-system-helpers) is not here".to_owned()));
    }
    let privilege = Privilege::of_this_process();
    if privilege == Privilege::Neither {
        return Ok(Verdict::Skipped("dpkg needs root for it, and sudo is not here".to_owned()));
    }
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc", "usr"] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    }
    fs::write(root.join("var/lib/dpkg/status"), "").context("begin a database of dpkg")?;
    let mut command = privilege.command("unshare");
    command.args(["--mount", "sh", "-c", INSTALL_AND_PURGE, "sh"]).arg(root).arg(package);
    let output = run(&mut command)?;
    if !output.status.success() {
        return Ok(Verdict::Bad(lines_of(&output)));
    }
    let left: Vec<_> =
        [expected::ENABLED, "usr/bin/firstfin", "etc/firstfin", "var/lib/firstfin", "var/lib/private/firstfin"]
            .into_iter()
            .filter(|path| root.join(path).symlink_metadata().is_ok())
            .map(|path| format!("purging leaves {path}"))
            .collect();
    Ok(if left.is_empty() {
        Verdict::Good("the unit is enabled; removing keeps configuration and state, purging nothing".to_owned())
    } else {
        Verdict::Bad(left)
    })
}

pub(super) fn lintian(package: &Path) -> Result<Verdict> {
    if workspace::find_on_path("lintian").is_none() {
        return Ok(Verdict::Skipped("lintian is not here".to_owned()));
    }
    let output = run(Command::new("lintian").args(["--fail-on", "error", "--no-tag-display-limit"]).arg(package))?;
    let lines = lines_of(&output);
    Ok(if output.status.success() {
        Verdict::Good(format!("no error, {} remarks", lines.len()))
    } else {
        Verdict::Bad(lines)
    })
}
