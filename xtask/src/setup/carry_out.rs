//! Does what the plan says. Nothing is decided here: a failure is written down in `Tried` and the plan goes on from it.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    facts::{self, Llvm},
    plan::{DEBIAN_TOOLCHAIN, LINKER_VERSION, Next, Tried},
};
use crate::{child, privilege::Privilege, workspace};

/// rustup waits for long for a server that does not answer, and there is another way to get what it would bring.
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);

/// apt-get gets no limit from outside, because stopping dpkg halfway leaves a broken system; these are its own.
pub(crate) const APT_LIMITS: [&str; 8] = [
    "-o",
    "Acquire::http::Timeout=30",
    "-o",
    "Acquire::https::Timeout=30",
    "-o",
    "Acquire::Retries=2",
    "-o",
    "DPkg::Lock::Timeout=300",
];

pub(crate) fn carry_out<Done>(action: Next<Done>, privilege: Privilege, tried: &mut Tried) -> Result<()> {
    match action {
        Next::Done(_) | Next::Blocked(_) => {}
        Next::RefreshLists => {
            if privilege != Privilege::Neither {
                // Its failure shows in what is then known and what is not.
                let _ = apt_get(privilege, &["update"], &[]);
            }
            tried.lists = true;
            // What failed with the old lists may work with the new.
            tried.debian = None;
            tried.packages.clear();
        }
        Next::Install(packages) => {
            let installed = apt_install(privilege, &packages).err();
            // What succeeds without changing anything must not be repeated for ever; likewise below.
            let tale = installed.unwrap_or_else(|| "apt-get succeeded, yet the files are not there".to_owned());
            tried.packages.insert(packages, tale);
        }
        Next::AddRustSrc(toolchain) => {
            let mut rustup = Command::new("rustup");
            rustup.args(["component", "add", "rust-src", "--toolchain", &toolchain]);
            let added = show_and_watch(&mut rustup, Some(RUSTUP_LIMIT));
            tried.rust_src =
                Some(added.err().unwrap_or_else(|| "it succeeded, yet the sources are not there".to_owned()));
        }
        Next::LinkDebian(packages) => {
            let mut rustup = Command::new("rustup");
            rustup.args(["toolchain", "link", DEBIAN_TOOLCHAIN, "/usr"]);
            let linked = apt_install(privilege, &packages).and_then(|()| show_and_watch(&mut rustup, None));
            tried.debian = Some(linked.err().unwrap_or_else(|| "it is linked, yet it does not run".to_owned()));
        }
        Next::BuildLinker(llvm) => {
            let built = build_linker(&llvm)?;
            tried.linker = Some(built.err().unwrap_or_else(|| "it was built, yet it does not run".to_owned()));
        }
        Next::FetchCrates => {
            let fetched = show_and_watch(&mut facts::fetch_crates(false)?, None);
            tried.crates =
                Some(fetched.err().unwrap_or_else(|| "cargo fetch succeeded, yet crates are missing".to_owned()));
        }
    }
    Ok(())
}

/// The name of the toolchain that agent/build.rs uses. Unchanged, the file is left alone: cargo looks at its time.
pub(crate) fn note_toolchain(name: &str) -> Result<()> {
    write_if_other(&workspace::installed()?.join("toolchain"), &format!("{name}\n"))
}

fn build_linker(llvm: &Llvm) -> Result<Result<(), String>> {
    let installed = workspace::installed()?;
    let build = installed.join("build");
    let stamp = installed.join("bpf-linker.stamp");
    // While it is replaced, the note of what is there would be wrong.
    if stamp.exists() {
        fs::remove_file(&stamp).with_context(|| format!("remove {}", stamp.display()))?;
    }
    let mut cargo = workspace::cargo()?;
    cargo
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force", "--no-default-features"])
        .args(["--features", &format!("llvm-{}", llvm.major)])
        .arg("--root")
        .arg(&installed)
        .arg("--target-dir")
        .arg(&build)
        .env("LLVM_PREFIX", &llvm.prefix)
        // Flags meant for firstfin are none for its tools.
        .env_remove("RUSTFLAGS");
    let built = show_and_watch(&mut cargo, None);
    if built.is_ok() {
        write_if_other(&stamp, &format!("bpf-linker {LINKER_VERSION} llvm-{}\n", llvm.major))?;
        // Some hundred megabytes that nothing needs any more; a failure to remove them is no failure to set up.
        let _ = fs::remove_dir_all(&build);
    }
    Ok(built)
}

/// Refuses to remove a package for it: on a machine whose rustup or rustc is Debian's own, rustc-web would replace it.
fn apt_install(privilege: Privilege, packages: &[String]) -> Result<(), String> {
    apt_get(privilege, &["install", "-y", "--no-install-recommends", "--no-remove"], packages)
}

fn apt_get(privilege: Privilege, arguments: &[&str], packages: &[String]) -> Result<(), String> {
    if privilege == Privilege::Sudo {
        eprintln!("    apt-get needs root: using sudo");
        privilege.ask_now();
    }
    // sudo starts with a clean environment, hence env.
    let mut apt = privilege.command("env");
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(APT_LIMITS).args(arguments).args(packages);
    eprintln!("    apt-get {} {}", arguments.join(" "), packages.join(" "));
    child::watch(&mut apt, None).map_err(|failure| format!("apt-get {}: {failure}", arguments.first().unwrap_or(&"")))
}

fn show_and_watch(command: &mut Command, limit: Option<Duration>) -> Result<(), String> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    eprintln!("    {program} {}", arguments.join(" "));
    // What they say last is the reason; a backtrace would hide it.
    child::watch(command.env("RUST_BACKTRACE", "0"), limit)
        .map_err(|failure| format!("{program} {}: {failure}", arguments.first().map_or("", String::as_str)))
}

/// In one step, so that a reader never sees half of it.
fn write_if_other(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let new = path.with_extension("new");
    fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("rename {} to {}", new.display(), path.display()))
}
