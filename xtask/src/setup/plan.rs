//! From facts to what is done next. Pure: nothing is read, run or changed here, so every decision has a test.
//!
//! Each function answers for one part and is asked again, with fresh facts, after its answer was carried out; what was
//! tried in vain is in `Tried`, so that nothing is tried twice and the report can say how it ended.

use std::collections::BTreeMap;

use super::facts::{Facts, Linker, Llvm, Toolchain, Version, parse_version};
use crate::privilege::Privilege;

/// The one bpf-linker that this workspace was checked with.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// The LLVM majors that it has a cargo feature for.
pub(crate) const LINKER_LLVMS: std::ops::RangeInclusive<u32> = 21..=23;
/// What the toolchain made of Debian's packages is called in rustup.
pub(crate) const DEBIAN_TOOLCHAIN: &str = "firstfin-ebpf";
/// bpf-linker links libstdc++.
pub(crate) const CXX_PACKAGE: &str = "g++";
/// Programs that a test compares with where they are installed, and the Debian package of each.
pub(crate) const TEST_TOOLS: &[(&str, &str)] = &[("ss", "iproute2")];

/// What has been tried in this run and how it failed.
#[derive(Default)]
pub(crate) struct Tried {
    /// apt's lists were refreshed, or that was tried.
    pub(crate) lists: bool,
    pub(crate) rust_src: Option<String>,
    pub(crate) debian: Option<String>,
    /// By the packages that were to be installed together.
    pub(crate) packages: BTreeMap<Vec<String>, String>,
    pub(crate) linker: Option<String>,
    pub(crate) crates: Option<String>,
}

/// Why it cannot go on here, and the way out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub(crate) missing: String,
    pub(crate) because: String,
    /// Commands to type, one a line.
    pub(crate) remedy: Vec<String>,
    /// Whether nothing works without it, or only less is tested.
    pub(crate) required: bool,
}

/// The next thing to do for a part of the set-up, or that it is done (with what was found).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<Done> {
    Done(Done),
    RefreshLists,
    Install(Vec<String>),
    AddRustSrc(String),
    /// Install these packages and link them as the toolchain `DEBIAN_TOOLCHAIN`.
    LinkDebian(Vec<String>),
    BuildLinker(Llvm),
    FetchCrates,
    Blocked(Blocked),
}

/// Which rustc builds the programs: the first that has the sources of its `core` and for which a linker can be had.
pub(crate) fn toolchain(facts: &Facts, tried: &Tried, minimum: Version) -> Next<Toolchain> {
    let new_enough = |toolchain: &&Toolchain| toolchain.release >= minimum;
    let there = [&facts.noted, &facts.current, &facts.debian];
    let ready = || there.iter().filter_map(|toolchain| toolchain.as_ref()).filter(new_enough).filter(|t| t.has_core);
    if let Some(toolchain) = ready().find(|toolchain| linkable(facts, toolchain.llvm)) {
        return Next::Done(toolchain.clone());
    }
    // Before ruling one out for want of LLVM packages: is that so, or are apt's lists only old?
    if facts.has_apt && !tried.lists && (ready().next().is_some() || linkable_current(facts, minimum).is_none()) {
        return Next::RefreshLists;
    }
    if facts.has_rustup
        && tried.rust_src.is_none()
        && let Some(name) = linkable_current(facts, minimum).and_then(|current| current.name.clone())
    {
        return Next::AddRustSrc(name);
    }
    if facts.has_rustup && facts.has_apt && facts.privilege != Privilege::Neither {
        if tried.debian.is_none() && debian_fits(facts, minimum) {
            return Next::LinkDebian(debian_packages().collect());
        }
        if !tried.lists {
            return Next::RefreshLists;
        }
    }
    // Better one whose linker is the next question than none: that question has its own answer.
    if let Some(toolchain) = ready().next() {
        return Next::Done(toolchain.clone());
    }
    if facts.has_rustup
        && tried.rust_src.is_none()
        && let Some(name) = facts.current.as_ref().filter(new_enough).and_then(|current| current.name.clone())
    {
        return Next::AddRustSrc(name);
    }
    Next::Blocked(no_toolchain(facts, tried, minimum))
}

/// The linker, when the programs are built by a rustc with this LLVM.
pub(crate) fn linker(facts: &Facts, tried: &Tried, llvm: u32) -> Next<Linker> {
    if let Some(linker) = fitting_linker(facts, llvm) {
        return Next::Done(linker.clone());
    }
    let blocked = |because: String, remedy: Vec<String>| {
        Next::Blocked(Blocked { missing: format!("bpf-linker for LLVM {llvm}"), because, remedy, required: true })
    };
    if !LINKER_LLVMS.contains(&llvm) {
        return blocked(
            format!(
                "bpf-linker {LINKER_VERSION} knows LLVM {} to {}, the toolchain has {llvm}",
                LINKER_LLVMS.start(),
                LINKER_LLVMS.end()
            ),
            release_binary(llvm),
        );
    }
    let files = facts.llvms.iter().find(|files| files.major == llvm);
    if let Some(files) = files.filter(|_| facts.has_cxx || !facts.has_apt) {
        return match &tried.linker {
            None => Next::BuildLinker(files.clone()),
            Some(failure) => blocked(failure.clone(), vec![build_linker_line(files)]),
        };
    }
    let packages: Vec<_> = if files.is_some() { Vec::new() } else { llvm_packages(llvm).collect() };
    let packages: Vec<_> = packages.into_iter().chain((!facts.has_cxx).then(|| CXX_PACKAGE.to_owned())).collect();
    let because = format!("LLVM {llvm}'s development files are what bpf-linker is built from");
    if !facts.has_apt {
        let mut remedy = vec![
            "Fedora:  sudo dnf install llvm-devel gcc-c++    (its LLVM must be that version)".to_owned(),
            "Arch:    sudo pacman -S llvm gcc                (its LLVM must be that version)".to_owned(),
        ];
        remedy.extend(release_binary(llvm));
        return blocked(format!("{because}, and apt-get is not here"), remedy);
    }
    match install(facts, tried, packages) {
        Ok(next) => next,
        Err((why, mut remedy)) => {
            remedy.extend(release_binary(llvm));
            blocked(format!("{because}; {why}"), remedy)
        }
    }
}

/// The programs that tests compare with.
pub(crate) fn tools(facts: &Facts, tried: &Tried) -> Next<()> {
    if facts.missing_tools.is_empty() {
        return Next::Done(());
    }
    let packages: Vec<_> = facts.missing_tools.iter().map(|package| (*package).to_owned()).collect();
    let missing = packages.join(", ");
    let because = "a second witness for what the kernel tests see".to_owned();
    let required = false;
    if !facts.has_apt {
        let remedy = vec!["install it with your distribution's own package manager".to_owned()];
        return Next::Blocked(Blocked { missing, because, remedy, required });
    }
    install(facts, tried, packages).unwrap_or_else(|(why, remedy)| {
        Next::Blocked(Blocked { missing, because: format!("{because}; {why}"), remedy, required })
    })
}

/// For the line that says they are all there.
pub(crate) fn tool_names() -> String {
    TEST_TOOLS.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ")
}

/// The crates of Cargo.lock.
pub(crate) fn crates(facts: &Facts, tried: &Tried) -> Next<()> {
    match &tried.crates {
        _ if facts.has_crates => Next::Done(()),
        None => Next::FetchCrates,
        Some(failure) => Next::Blocked(Blocked {
            missing: "crates that Cargo.lock names".to_owned(),
            because: failure.clone(),
            remedy: vec!["cargo fetch --locked".to_owned()],
            required: true,
        }),
    }
}

/// Packages by apt-get: refresh its lists first if it does not know them, or if it failed with the old ones. `Err` is
/// why not, and what to type.
fn install<Done>(facts: &Facts, tried: &Tried, packages: Vec<String>) -> Result<Next<Done>, (String, Vec<String>)> {
    let type_it = vec![apt_line(facts.privilege, "update"), apt_install_line(facts.privilege, &packages)];
    if facts.privilege == Privilege::Neither {
        return Err(("apt-get needs root, and sudo is not here".to_owned(), type_it));
    }
    let unknown = packages.iter().find(|package| !facts.candidates.contains_key(*package));
    match (unknown, tried.packages.get(&packages)) {
        (None, None) => Ok(Next::Install(packages)),
        (Some(_), _) | (_, Some(_)) if !tried.lists => Ok(Next::RefreshLists),
        (_, Some(failure)) => Err((failure.clone(), type_it)),
        (Some(unknown), None) => Err((format!("apt-get knows no package {unknown}"), type_it)),
    }
}

/// A linker cannot read the bitcode of a newer LLVM; an older one it can. Ours must be the checked version; what the
/// user put on `PATH` is the user's choice.
fn fitting_linker(facts: &Facts, llvm: u32) -> Option<&Linker> {
    let own = facts.own_linker.as_ref().filter(|own| own.version == LINKER_VERSION);
    own.or(facts.other_linker.as_ref()).filter(|linker| linker.llvm.is_some_and(|has| has >= llvm))
}

/// Whether a linker for this LLVM is there or could be made.
fn linkable(facts: &Facts, llvm: u32) -> bool {
    let buildable = facts.llvms.iter().any(|files| files.major == llvm)
        || llvm_packages(llvm).all(|package| facts.candidates.contains_key(&package));
    fitting_linker(facts, llvm).is_some() || (LINKER_LLVMS.contains(&llvm) && buildable) || !facts.has_apt
}

fn linkable_current(facts: &Facts, minimum: Version) -> Option<&Toolchain> {
    facts.current.as_ref().filter(|current| current.release >= minimum && linkable(facts, current.llvm))
}

/// Debian's own Rust is often too old; the one made for web browsers follows closely.
fn debian_fits(facts: &Facts, minimum: Version) -> bool {
    debian_packages()
        .all(|package| facts.candidates.get(&package).and_then(|v| parse_version(v)).is_some_and(|v| v >= minimum))
}

fn no_toolchain(facts: &Facts, tried: &Tried, minimum: Version) -> Blocked {
    let mut because = Vec::new();
    match &facts.current {
        Some(current) if current.release < minimum => because.push(format!(
            "the toolchain in use is Rust {}.{}, firstfin needs {}.{}",
            current.release.0, current.release.1, minimum.0, minimum.1
        )),
        Some(_) => {}
        None => because.push("no rustc runs here".to_owned()),
    }
    if !facts.has_rustup {
        because.push("rustup, which could add them, is not here".to_owned());
    }
    because.extend(tried.rust_src.clone());
    if facts.has_rustup && facts.has_apt {
        match &tried.debian {
            Some(failure) => because.push(format!("Debian's rustc-web: {failure}")),
            None if facts.privilege == Privilege::Neither => {
                because.push("Debian's rustc-web needs root to install, and sudo is not here".to_owned());
            }
            None => because.push(format!("apt-get knows no rustc-web of {}.{} or newer", minimum.0, minimum.1)),
        }
    }
    let name = facts.current.as_ref().and_then(|current| current.name.as_deref()).unwrap_or("stable");
    let remedy = if facts.has_rustup {
        let mut remedy = vec![format!("rustup component add rust-src --toolchain {name}")];
        if facts.has_apt {
            remedy.push("or, on Debian:".to_owned());
            remedy.push(apt_line(facts.privilege, "update"));
            remedy.push(apt_install_line(facts.privilege, &debian_packages().collect::<Vec<_>>()));
            remedy.push(format!("rustup toolchain link {DEBIAN_TOOLCHAIN} /usr"));
        }
        remedy
    } else {
        vec![
            "install rustup (https://rustup.rs), then: rustup component add rust-src".to_owned(),
            "or install your distribution's package with the sources of its Rust (Debian: rust-src)".to_owned(),
        ]
    };
    Blocked {
        missing: "the sources of Rust's `core` library, from which the eBPF target is compiled".to_owned(),
        because: because.join("; "),
        remedy,
        required: true,
    }
}

pub(crate) fn llvm_packages(llvm: u32) -> impl Iterator<Item = String> {
    // llvm-config names Polly among the libraries, so it has to be there.
    [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")].into_iter()
}

pub(crate) fn debian_packages() -> impl Iterator<Item = String> {
    ["rustc-web", "cargo-web", "rust-web-src"].into_iter().map(str::to_owned)
}

fn release_binary(llvm: u32) -> Vec<String> {
    vec![format!(
        "or put a bpf-linker built for LLVM {llvm} or newer on PATH: https://github.com/aya-rs/bpf-linker/releases"
    )]
}

fn build_linker_line(files: &Llvm) -> String {
    format!(
        "LLVM_PREFIX={} cargo install bpf-linker --version {LINKER_VERSION} --locked --no-default-features --features \
         llvm-{}",
        files.prefix.display(),
        files.major
    )
}

fn apt_line(privilege: Privilege, rest: &str) -> String {
    match privilege {
        Privilege::Root => format!("apt-get {rest}"),
        Privilege::Sudo => format!("sudo apt-get {rest}"),
        Privilege::Neither => format!("as root: apt-get {rest}"),
    }
}

fn apt_install_line(privilege: Privilege, packages: &[String]) -> String {
    apt_line(privilege, &format!("install -y --no-install-recommends {}", packages.join(" ")))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
