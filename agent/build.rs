//! Builds the eBPF programs of `agent-ebpf` and leaves the object as `$OUT_DIR/firstfin-programs`.
//!
//! aya-build runs the inner cargo. This file exists to choose what aya-build would otherwise take from the environment
//! (toolchain, linker, `RUSTC_BOOTSTRAP`), so that plain `cargo build`, `cargo test` and `cargo clippy --all-targets`
//! work after `cargo xtask setup` with no variable set.
//!
//! It refuses to install or download anything: what is missing is named, and `cargo xtask setup` brings it.

use std::{
    env,
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow};
use aya_build::{Package, Toolchain};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

fn main() {
    if let Err(error) = build() {
        // `cargo::error` fails the build and shows the text without cargo's dump of a script's whole output.
        for line in format!("{error:#}").lines() {
            println!("cargo::error={line}");
        }
    }
}

fn build() -> Result<()> {
    let agent = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?);
    let workspace = agent.parent().context("the agent's folder has no parent")?;
    let installed = workspace.join(".toolchain");
    let note = installed.join("toolchain");

    // The agent depends on the host half of agent-ebpf only: a new aya-ebpf, or another profile, shows here alone.
    rerun_if_changed(&workspace.join("Cargo.lock"));
    rerun_if_changed(&workspace.join("Cargo.toml"));
    rerun_if_changed(&note);

    let search = env::join_paths(
        std::iter::once(installed.join("bin")).chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    )
    .context("put .toolchain/bin on PATH")?;
    // SAFETY: a build script has this one thread until aya-build starts its own, which is after these calls.
    unsafe {
        env::set_var("PATH", search);
        // build-std is a nightly feature; with this, aya-build uses it on any rustc.
        env::set_var("RUSTC_BOOTSTRAP", "1");
        // aya-build turns each line of the inner cargo's stderr into a warning: without its progress lines only real
        // warnings and errors are left.
        env::set_var("CARGO_TERM_QUIET", "true");
    }

    let toolchain = toolchain_name(&note);
    check(&installed, &toolchain)?;

    let root_dir = workspace.join("agent-ebpf");
    let root_dir = root_dir.to_str().context("the workspace's path is not UTF-8")?;
    let package = Package { name: "agent-ebpf", root_dir, ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain)).context("build the eBPF programs")?;
    let object = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?).join("firstfin-programs");
    strip(&object).with_context(|| format!("take the debug sections out of {}", object.display()))
}

/// Takes out what was only needed to make BTF from: four fifths of the object, which the agent would carry with it.
fn strip(object: &Path) -> Result<()> {
    let whole = fs::read(object)?;
    let mut builder = Builder::read(whole.as_slice())?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    // LLVM keeps the names of sections with those of symbols, and this builder does not.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = elf::SHT_STRTAB;
    names.data = SectionData::SectionString;
    builder.delete_orphans();
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(fs::write(object, stripped)?)
}

/// To cargo a file that is not there is one that always changed: it would run this script on every build.
fn rerun_if_changed(file: &Path) {
    if file.exists() {
        println!("cargo::rerun-if-changed={}", file.display());
    }
}

/// The toolchain that builds the programs: what setup noted, else the one in use, else `stable`.
fn toolchain_name(note: &Path) -> String {
    let noted = fs::read_to_string(note).unwrap_or_default();
    match noted.trim() {
        "" => env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".to_owned()),
        name => name.to_owned(),
    }
}

/// Looks for what the inner cargo needs, because its own messages do not say what to do.
fn check(installed: &Path, toolchain: &str) -> Result<()> {
    let sysroot = rustc(toolchain, &["--print", "sysroot"])?;
    if !Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists() {
        return Err(missing(
            format!("the sources of `core` (rust-src) are missing from the toolchain `{toolchain}`"),
            "the eBPF target has no ready-made `core`, it is compiled from source with the programs",
        ));
    }

    let Some(linker) = find_on_path("bpf-linker") else {
        return Err(missing(
            "bpf-linker is missing",
            "without it the eBPF programs cannot be linked into an object the kernel loads",
        ));
    };
    rerun_if_changed(&linker);
    // Only of the linker that setup built is it known which LLVM it carries.
    if linker.starts_with(installed) {
        let stamp = fs::read_to_string(installed.join("bpf-linker.stamp")).unwrap_or_default();
        let version = rustc(toolchain, &["-vV"])?;
        if let (Some(linker), Some(rustc)) = (major_after(&stamp, "llvm-"), major_after(&version, "LLVM version: "))
            && linker < rustc
        {
            return Err(missing(
                format!("bpf-linker was built for LLVM {linker}, the toolchain `{toolchain}` has LLVM {rustc}"),
                "a linker cannot read the bitcode of an LLVM newer than its own",
            ));
        }
    }
    Ok(())
}

/// What the toolchain's rustc prints. Without rustup it is the rustc on `PATH`, which is what aya-build does too.
fn rustc(toolchain: &str, arguments: &[&str]) -> Result<String> {
    let mut command = match find_on_path("rustup") {
        Some(rustup) => {
            let mut command = Command::new(rustup);
            command.args(["run", toolchain, "rustc"]);
            command
        }
        None => Command::new("rustc"),
    };
    let output = command.args(arguments).output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        return Err(missing(
            format!(
                "the toolchain `{toolchain}` does not run: {}",
                String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("it says nothing")
            ),
            "it is the one chosen to build the eBPF programs",
        ));
    }
    String::from_utf8(output.stdout).with_context(|| format!("read the output of {command:?}"))
}

/// What the build cannot do without, in the three parts every failure has: what, why it matters, what to type.
fn missing(what: impl Display, meaning: &str) -> anyhow::Error {
    anyhow!("{what}\n{meaning}\nrun: cargo xtask setup")
}

fn find_on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The number that follows `label`, up to the first character that is no digit.
fn major_after(text: &str, label: &str) -> Option<u32> {
    let (_, rest) = text.split_once(label)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
