//! What is taken from this machine into the emulated ones: the test binary, firstfin, `ss`, and their libraries.
//!
//! A second build, for a smaller root or another libc, would test something else than what runs here and would cost more
//! than all the machines together. So the files are the ones that `cargo test` starts natively, at the same paths,
//! because the path of firstfin is compiled into the tests; only their debug sections are left behind, which are nine
//! tenths of them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, Result, bail};

use crate::{test, workspace};

/// What the tests run besides firstfin, where it is installed.
const COMPARED_WITH: &str = "ss";

/// Programs, and what is in them.
pub(super) struct Programs {
    /// The test binary
    pub(super) tests: PathBuf,
    /// The names of its tests
    pub(super) names: Vec<String>,
    /// Path -> content, libraries included
    pub(super) files: BTreeMap<PathBuf, Vec<u8>>,
}

/// Builds the tests, if they are not. `None`: they do not build.
pub(super) fn build() -> Result<Option<Programs>> {
    let Some(tests) = test::build_kernel_tests()? else { return Ok(None) };
    let names = names(&tests)?;
    // target/debug/deps/kernel-0123456789abcdef -> target/debug/firstfin
    let firstfin = tests.ancestors().nth(2).context("the test binary is in no target folder")?.join("firstfin");
    let mut files = BTreeMap::new();
    for program in [&tests, &firstfin] {
        files.insert(program.clone(), stripped(program)?);
    }
    let mut programs = vec![tests.clone(), firstfin];
    if let Some(ss) = workspace::find_on_path(COMPARED_WITH) {
        files.insert(ss.clone(), read(&ss)?);
        programs.push(ss);
    }
    for program in programs {
        for library in libraries(&program)? {
            if let Entry::Vacant(place) = files.entry(library) {
                let content = read(place.key())?;
                place.insert(content);
            }
        }
    }
    Ok(Some(Programs { tests, names, files }))
}

fn names(tests: &Path) -> Result<Vec<String>> {
    let output = Command::new(tests).arg("--list").output().with_context(|| format!("run {}", tests.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names: Vec<_> = text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
    if names.is_empty() {
        bail!("{} lists no test", tests.display());
    }
    Ok(names)
}

/// A program without its debug sections. `strip` comes with the C compiler that Rust needs; without it, as it is.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let copy = env::temp_dir().join(format!("firstfin-stripped-{}", process::id()));
    let done = Command::new("strip").arg("--strip-debug").arg("-o").arg(&copy).arg(program).status();
    let content = read(if done.is_ok_and(|status| status.success()) { &copy } else { program });
    let _ = fs::remove_file(&copy);
    content
}

/// The shared libraries a program is started with, the loader among them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
        bail!("{} lacks a library: {}", program.display(), missing.trim());
    }
    Ok(paths(&text))
}

/// Reads ldd: `libc.so.6 => /lib/libc.so.6 (0x...)`, `/lib64/ld-linux-x86-64.so.2 (0x...)`, `linux-vdso.so.1 (0x...)`.
fn paths(ldd: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let named = line.split_once("=> ").map_or(line, |(_, path)| path);
        named.split_whitespace().next().filter(|path| path.starts_with('/')).map(PathBuf::from)
    };
    ldd.lines().filter_map(path).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_ldd_has_a_path_for() {
        let ldd = "\tlinux-vdso.so.1 (0x00007fe6)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fe6)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007fe6)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(paths(ldd), expected);
        assert_eq!(paths("\tstatically linked\n"), [""; 0].map(PathBuf::from));
    }
}
