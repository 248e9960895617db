//! `cargo xtask package`: the Debian package, built and looked at.
//!
//! cargo-deb puts it together (`[package.metadata.deb]` in `agent/Cargo.toml`). What a package can get wrong shows only
//! where it is installed, so that is done too: in a folder, never on this machine.

mod debianized;
mod expected;
mod unit;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{child, setup, workspace};

/// The cargo-deb that is used: its defaults, and what its maintainer scripts do, are part of the package.
const CARGO_DEB: &str = "3.8.0";

/// What came of one check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should be; what was seen.
    Good(String),
    /// Could not be looked at here, and why.
    Skipped(String),
    /// What is wrong, a line each.
    Bad(Vec<String>),
}

pub(crate) fn package(no_build: bool) -> Result<ExitCode> {
    let ready = setup::setup()?;
    if ready != ExitCode::SUCCESS {
        return Ok(ready);
    }
    let binary = workspace::target()?.join("release/firstfin");
    if !no_build {
        let mut cargo = workspace::cargo()?;
        cargo.args(["build", "--release", "--locked", "--package", "firstfin"]);
        let status = cargo.status().with_context(|| format!("run {cargo:?}"))?;
        if !status.success() {
            bail!("firstfin does not build: {status}");
        }
    } else if !binary.is_file() {
        bail!("{} is not there: leave --no-build away", binary.display());
    }
    let folder = workspace::target()?.join("debian");
    let package = build(&cargo_deb()?, &folder)?;
    println!("{}: {} bytes", package.display(), fs::metadata(&package)?.len());
    Ok(account(&checks(&package, &folder.join("check"))?))
}

/// cargo-deb in `.toolchain`, built there if it is not this version.
fn cargo_deb() -> Result<PathBuf> {
    let installed = workspace::installed()?;
    let program = installed.join("bin/cargo-deb");
    let version = Command::new(&program).arg("--version").output();
    if version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(CARGO_DEB)) {
        return Ok(program);
    }
    eprintln!("cargo-deb {CARGO_DEB}: not there, building it");
    let build = installed.join("build");
    let mut cargo = workspace::cargo()?;
    cargo
        .args(["install", "cargo-deb", "--version", CARGO_DEB, "--locked", "--force"])
        .args(["--no-default-features", "--features", "lzma", "--root"])
        .arg(&installed)
        .arg("--target-dir")
        .arg(&build)
        .env_remove("RUSTFLAGS");
    child::watch(&mut cargo, None).map_err(|failure| anyhow::anyhow!("cargo install cargo-deb: {failure}"))?;
    // Nothing needs it any more; that it cannot be removed is no failure.
    let _ = fs::remove_dir_all(&build);
    Ok(program)
}

/// Makes the package of what is in `target/release`. Not stripped any further: a backtrace names functions.
fn build(cargo_deb: &Path, folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut command = Command::new(cargo_deb);
    command
        .current_dir(workspace::root()?)
        .args(["deb", "--package", "firstfin", "--no-build", "--no-strip", "--output"])
        .arg(folder);
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("cargo-deb: {}: {}", output.status, said.trim());
    }
    // A warning is an asset that is not there, or there twice.
    if said.contains("warning") {
        bail!("cargo-deb is not content: {}", said.trim());
    }
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let path = path.lines().last().context("cargo-deb does not say what it wrote")?;
    Ok(workspace::root()?.join(path))
}

fn checks(package: &Path, scratch: &Path) -> Result<Vec<(&'static str, Verdict)>> {
    if scratch.exists() {
        fs::remove_dir_all(scratch).with_context(|| format!("remove {}", scratch.display()))?;
    }
    fs::create_dir_all(scratch).with_context(|| format!("create {}", scratch.display()))?;
    let version = version()?;
    let unpacked = debianized::unpack(package, &scratch.join("unpacked"))?;
    let unit = fs::read_to_string(workspace::root()?.join(unit::PATH)).context("read the unit")?;
    Ok(vec![
        ("contents", debianized::contents(package)?),
        ("control", debianized::control(package, &version)?),
        ("runs", debianized::runs(&unpacked, &version)?),
        ("install and purge", debianized::install_and_purge(package, &scratch.join("root"))?),
        ("lintian", debianized::lintian(package)?),
        ("unit: verify", unit::verify(&unit, &unpacked, scratch)?),
        ("unit: exposure", unit::exposure()?),
        ("unit: capabilities", unit::is_enough(&unit, &unpacked)?),
    ])
}

/// Of the workspace: what `firstfin --version` says.
fn version() -> Result<String> {
    let manifest = fs::read_to_string(workspace::root()?.join("Cargo.toml")).context("read Cargo.toml")?;
    let (_, section) = manifest.split_once("[workspace.package]").context("Cargo.toml has no [workspace.package]")?;
    let version = section.lines().find_map(|line| line.strip_prefix("version = "));
    Ok(version.context("[workspace.package] has no version")?.trim_matches('"').to_owned())
}

/// 0 when nothing is wrong, though something may have been skipped.
fn account(checks: &[(&str, Verdict)]) -> ExitCode {
    let mut is_good = true;
    for (name, verdict) in checks {
        match verdict {
            Verdict::Good(seen) => println!("{name:<20} ok: {seen}"),
            Verdict::Skipped(reason) => println!("{name:<20} SKIPPED: {reason}"),
            Verdict::Bad(lines) => {
                is_good = false;
                lines.iter().for_each(|line| println!("{name:<20} WRONG: {line}"));
            }
        }
    }
    ExitCode::from(u8::from(!is_good))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_workspace_and_of_the_changelog() {
        let version = version().unwrap();
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        let changelog = fs::read_to_string(workspace::root().unwrap().join("packaging/debian/changelog")).unwrap();
        assert!(changelog.starts_with(&format!("firstfin ({version}-1) ")), "{changelog}");
    }
}
