//! What is on this machine. Facts only: nothing is decided, installed or changed here.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::plan::{self, DEBIAN_TOOLCHAIN};
use crate::{privilege::Privilege, workspace};

/// A version as far as it matters here: major, minor.
pub(crate) type Version = (u32, u32);

/// A rustc that could build the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// Its name in rustup; `None` when it is the rustc on `PATH` and there is no rustup.
    pub(crate) name: Option<String>,
    pub(crate) release: Version,
    /// Major version of the LLVM it carries: the linker's must not be older.
    pub(crate) llvm: u32,
    /// Whether the sources of its `core` are there.
    pub(crate) has_core: bool,
}

/// A bpf-linker that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
    /// `None`: it does not show which LLVM it was built with.
    pub(crate) llvm: Option<u32>,
}

/// LLVM's development files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Llvm {
    pub(crate) major: u32,
    pub(crate) prefix: PathBuf,
}

#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) privilege: Privilege,
    pub(crate) has_rustup: bool,
    /// The one that an earlier setup chose, if it still runs.
    pub(crate) noted: Option<Toolchain>,
    /// The one that cargo uses here.
    pub(crate) current: Option<Toolchain>,
    /// The one made of Debian's packages, if it was linked before.
    pub(crate) debian: Option<Toolchain>,
    /// The linker that an earlier setup built, in `.toolchain/bin`.
    pub(crate) own_linker: Option<Linker>,
    /// The first linker on `PATH`, looked at only when there is none of our own: ours is found first.
    pub(crate) other_linker: Option<Linker>,
    pub(crate) llvms: Vec<Llvm>,
    pub(crate) has_cxx: bool,
    /// Whether packages come by apt-get.
    pub(crate) has_apt: bool,
    /// Package -> the version apt-get would install. Empty until it was asked (`ask_apt`).
    pub(crate) candidates: BTreeMap<String, String>,
    /// Whether every crate of Cargo.lock is on this machine.
    pub(crate) has_crates: bool,
    /// Which of `plan::TEST_TOOLS` are not on `PATH`, as packages.
    pub(crate) missing_tools: Vec<&'static str>,
}

impl Facts {
    pub(crate) fn gather() -> Result<Self> {
        let installed = workspace::installed()?;
        let has_rustup = workspace::find_on_path("rustup").is_some();
        let noted = fs::read_to_string(installed.join("toolchain")).unwrap_or_default();
        let noted = if has_rustup { toolchain(Some(noted.trim())) } else { None };
        let current = if has_rustup { toolchain(current_name().as_deref()) } else { toolchain(None) };
        let stamp = fs::read_to_string(installed.join("bpf-linker.stamp")).unwrap_or_default();
        let own_linker = linker(installed.join("bin/bpf-linker"), Some(&stamp));
        let other_linker = match &own_linker {
            Some(_) => None,
            None => workspace::find_on_path("bpf-linker").and_then(|path| linker(path, None)),
        };
        Ok(Self {
            privilege: Privilege::of_this_process(),
            has_rustup,
            noted,
            debian: if has_rustup { toolchain(Some(DEBIAN_TOOLCHAIN)) } else { None },
            own_linker,
            other_linker,
            llvms: current.iter().map(|current| current.llvm).chain(plan::LINKER_LLVMS).filter_map(llvm).collect(),
            current,
            has_cxx: workspace::find_on_path("c++").is_some(),
            has_apt: workspace::find_on_path("apt-get").is_some(),
            candidates: BTreeMap::new(),
            has_crates: fetch_crates(true)?.output().is_ok_and(|output| output.status.success()),
            missing_tools: plan::TEST_TOOLS
                .iter()
                .filter(|(program, _)| workspace::find_on_path(program).is_none())
                .map(|(_, package)| *package)
                .collect(),
        })
    }

    /// Asks apt-get what it could install: slow enough to be asked only when something is missing.
    pub(crate) fn ask_apt(&mut self) {
        if !self.has_apt {
            return;
        }
        let packages = self.llvms_wanted().flat_map(plan::llvm_packages).chain(plan::debian_packages());
        let packages = packages.chain([plan::CXX_PACKAGE.to_owned()]);
        let packages = packages.chain(self.missing_tools.iter().map(|package| (*package).to_owned()));
        let answer = Command::new("apt-cache").arg("policy").args(packages).env("LC_ALL", "C").output();
        if let Ok(answer) = answer {
            self.candidates = candidates(&String::from_utf8_lossy(&answer.stdout));
        }
    }

    fn llvms_wanted(&self) -> impl Iterator<Item = u32> {
        [&self.noted, &self.current, &self.debian].into_iter().flatten().map(|toolchain| toolchain.llvm)
    }
}

/// The cargo command that brings every crate the host and the eBPF target need, or with `check` only looks for them.
pub(crate) fn fetch_crates(check: bool) -> Result<Command> {
    let mut cargo = workspace::cargo()?;
    cargo.args(["fetch", "--locked", "--target", &workspace::host()?, "--target", "bpfel-unknown-none"]);
    if check {
        cargo.arg("--offline");
    }
    Ok(cargo)
}

/// What rustup would use here. `RUSTUP_TOOLCHAIN` is set by rustup's own cargo.
fn current_name() -> Option<String> {
    if let Ok(name) = env::var("RUSTUP_TOOLCHAIN") {
        return Some(name);
    }
    let shown = output(Command::new("rustup").args(["show", "active-toolchain"]).current_dir(workspace::root().ok()?))?;
    shown.split_whitespace().next().map(str::to_owned)
}

/// `None` when there is no such toolchain, or it does not run.
fn toolchain(name: Option<&str>) -> Option<Toolchain> {
    if name == Some("") {
        return None;
    }
    let rustc = || match name {
        Some(name) => {
            let mut rustc = Command::new("rustup");
            rustc.args(["run", name, "rustc"]);
            rustc
        }
        None => Command::new("rustc"),
    };
    let version = output(rustc().arg("-vV"))?;
    let field = |label: &str| version.lines().find_map(|line| line.strip_prefix(label));
    let sysroot = output(rustc().args(["--print", "sysroot"]))?;
    Some(Toolchain {
        name: name.map(str::to_owned),
        release: parse_version(field("release: ")?)?,
        llvm: parse_version(field("LLVM version: ")?)?.0,
        has_core: Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists(),
    })
}

/// `None` when it is not there or does not run: a linker whose libLLVM was removed does not.
fn linker(path: PathBuf, stamp: Option<&str>) -> Option<Linker> {
    let version = output(Command::new(&path).arg("--version"))?;
    let version = version.trim().strip_prefix("bpf-linker ")?.to_owned();
    let stamped = stamp.and_then(|stamp| number_after(stamp.as_bytes(), b"llvm-"));
    let llvm = stamped.or_else(|| llvm_inside(&fs::read(&path).ok()?));
    Some(Linker { path, version, llvm })
}

/// Debian keeps every LLVM in a folder of its own; elsewhere `llvm-config` knows.
fn llvm(major: u32) -> Option<Llvm> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    if debian.join("bin/llvm-config").exists() && debian.join("lib/libLLVM.so").exists() {
        return Some(Llvm { major, prefix: debian });
    }
    [format!("llvm-config-{major}"), "llvm-config".to_owned()].into_iter().find_map(|config| {
        let version = output(Command::new(&config).arg("--version"))?;
        let prefix = output(Command::new(&config).arg("--prefix"))?;
        (parse_version(&version)?.0 == major).then(|| Llvm { major, prefix: PathBuf::from(prefix.trim()) })
    })
}

/// What a program prints, if it runs and ends well.
fn output(command: &mut Command) -> Option<String> {
    let output: io::Result<_> = command.output();
    output.ok().filter(|output| output.status.success()).and_then(|output| String::from_utf8(output.stdout).ok())
}

/// `1.96.0-nightly`, `22.1.8`, `1.96.0+dfsg1-1~deb12u2` -> the first two numbers.
pub(crate) fn parse_version(text: &str) -> Option<Version> {
    let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The LLVM of a linker, from its own bytes: the name of the library it loads, or, linked statically, the version that
/// LLVM writes into every bitcode file.
fn llvm_inside(binary: &[u8]) -> Option<u32> {
    ["libLLVM.so.", "libLLVM-", "LLVM"].iter().find_map(|label| number_after(binary, label.as_bytes()))
}

/// The number directly behind the first `label` that has one, ended by something that could end a version.
fn number_after(bytes: &[u8], label: &[u8]) -> Option<u32> {
    let behind = |at: usize| bytes.get(at + label.len()..);
    (0..bytes.len()).filter(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(label))).find_map(|at| {
        let rest = behind(at)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let ends_well = matches!(rest.get(digits), None | Some(b'.' | b'\n' | 0));
        let digits = std::str::from_utf8(rest.get(..digits)?).ok()?;
        digits.parse().ok().filter(|_| ends_well)
    })
}

/// Reads `apt-cache policy`: a package that is known but cannot be installed has the candidate `(none)`.
fn candidates(policy: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut package = None;
    for line in policy.lines() {
        if let Some(version) = line.strip_prefix("  Candidate: ") {
            if let Some(package) = package.take().filter(|_| version != "(none)") {
                found.insert(package, version.to_owned());
            }
        } else if !line.starts_with(' ') {
            package = line.strip_suffix(':').map(str::to_owned);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_rustc_llvm_and_debian_write_them() {
        assert_eq!(parse_version("1.96.0-nightly"), Some((1, 96)));
        assert_eq!(parse_version("22.1.8\n"), Some((22, 1)));
        assert_eq!(parse_version("1.85.0+dfsg3-1~deb12u3"), Some((1, 85)));
        assert_eq!(parse_version("unknown"), None);
    }

    #[test]
    fn the_llvm_of_a_linker_is_the_one_it_loads() {
        assert_eq!(llvm_inside(b"\0libgcc_s.so.1\0libLLVM.so.22.1\0LLVMInit\0"), Some(22));
        assert_eq!(llvm_inside(b"\0libLLVM-18.so.1\0"), Some(18));
    }

    #[test]
    fn the_llvm_of_a_static_linker_is_the_one_it_writes_into_bitcode() {
        assert_eq!(llvm_inside(b"\0LLVMFuzzer\0LLVM64bit\0LLVM23.1.0\0"), Some(23));
        assert_eq!(llvm_inside(b"\0LLVM bitcode\0"), None);
    }

    #[test]
    fn a_package_without_a_candidate_is_none() {
        let policy = "llvm-22-dev:\n  Installed: (none)\n  Candidate: 1:22.1.8-1~deb12u1\n  Version table:\n     \
                      1:22.1.8-1~deb12u1 500\nrustc-web:\n  Installed: (none)\n  Candidate: (none)\n";
        assert_eq!(candidates(policy), BTreeMap::from([("llvm-22-dev".to_owned(), "1:22.1.8-1~deb12u1".to_owned())]));
        assert_eq!(candidates(""), BTreeMap::new());
    }
}
