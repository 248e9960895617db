//! `cargo xtask docs`: what the program can say about itself, written to `docs/generated`.
//!
//! The program writes into a folder of its own first; that is then compared with, or put in place of, what is there. A
//! document the program no longer writes counts as drift too.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{setup, workspace};

/// Path below the folder -> content.
type Files = BTreeMap<PathBuf, Vec<u8>>;

pub(crate) fn docs(check: bool) -> Result<ExitCode> {
    let ready = setup::setup()?;
    if ready != ExitCode::SUCCESS {
        return Ok(ready);
    }
    let committed = workspace::root()?.join("docs/generated");
    let scratch = env::temp_dir().join(format!("firstfin-docs-{}", process::id()));
    fs::create_dir(&scratch).with_context(|| format!("create {}", scratch.display()))?;
    let done = generate(&scratch).and_then(|()| {
        let written = read_folder(&scratch)?;
        if written.is_empty() {
            bail!("`firstfin generate` wrote nothing");
        }
        let drifted = drift(&read_folder(&committed)?, &written);
        if check { Ok(report(&drifted)) } else { replace(&committed, &written, &drifted) }
    });
    fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    done
}

fn generate(folder: &Path) -> Result<()> {
    let mut cargo = workspace::cargo()?;
    // No `--package`: with the selection of `cargo test --workspace`, what that has built is used as it is.
    cargo.args(["run", "--bin", "firstfin", "--", "generate"]).arg(folder);
    let status = cargo.status().with_context(|| format!("run {cargo:?}"))?;
    if !status.success() {
        bail!("firstfin generate: {status}");
    }
    Ok(())
}

/// Every file below a folder. A folder that is not there has none.
fn read_folder(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        if !next.exists() {
            continue;
        }
        for entry in fs::read_dir(&next).with_context(|| format!("list {}", next.display()))? {
            let path = entry.with_context(|| format!("list {}", next.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                files.insert(path.strip_prefix(folder).unwrap_or(&path).to_path_buf(), content);
            }
        }
    }
    Ok(files)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drift {
    New,
    Changed,
    LeftOver,
}

/// In which files what is there differs from what the program writes.
fn drift(there: &Files, written: &Files) -> BTreeMap<PathBuf, Drift> {
    let gone = there.keys().filter(|path| !written.contains_key(*path)).map(|path| (path.clone(), Drift::LeftOver));
    let written = written.iter().filter_map(|(path, content)| match there.get(path) {
        Some(same) if same == content => None,
        Some(_) => Some((path.clone(), Drift::Changed)),
        None => Some((path.clone(), Drift::New)),
    });
    gone.chain(written).collect()
}

fn report(drifted: &BTreeMap<PathBuf, Drift>) -> ExitCode {
    if drifted.is_empty() {
        println!("docs/generated is what the program writes");
        return ExitCode::SUCCESS;
    }
    println!("docs/generated is not what the program writes:");
    for (path, drift) in drifted {
        let how = match drift {
            Drift::New => "not there",
            Drift::Changed => "differs",
            Drift::LeftOver => "no longer written",
        };
        println!("  {how:<18} {}", path.display());
    }
    println!("run: cargo xtask docs");
    ExitCode::from(1)
}

fn replace(folder: &Path, written: &Files, drifted: &BTreeMap<PathBuf, Drift>) -> Result<ExitCode> {
    for path in drifted.keys() {
        let target = folder.join(path);
        match written.get(path) {
            Some(content) => {
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
                }
                fs::write(&target, content).with_context(|| format!("write {}", target.display()))?;
                println!("wrote {}", target.display());
            }
            None => {
                fs::remove_file(&target).with_context(|| format!("remove {}", target.display()))?;
                println!("removed {}", target.display());
            }
        }
    }
    println!("docs/generated: {} files, {} changed", written.len(), drifted.len());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(path, content)| (PathBuf::from(path), content.as_bytes().to_vec())).collect()
    }

    #[test]
    fn new_changed_and_left_over_files_are_drift() {
        let there = files(&[("cli.md", "old"), ("firstfin.1", "same"), ("gone.md", "")]);
        let written = files(&[("cli.md", "new"), ("firstfin.1", "same"), ("schema/report.json", "{}")]);
        let expected = BTreeMap::from([
            (PathBuf::from("cli.md"), Drift::Changed),
            (PathBuf::from("gone.md"), Drift::LeftOver),
            (PathBuf::from("schema/report.json"), Drift::New),
        ]);
        assert_eq!(drift(&there, &written), expected);
        assert_eq!(drift(&written, &written), BTreeMap::new());
    }

    #[test]
    fn replacing_leaves_exactly_what_was_written() {
        let folder = env::temp_dir().join(format!("firstfin-docs-test-{}", process::id()));
        let old = files(&[("cli.md", "old"), ("gone.md", "")]);
        let new = files(&[("cli.md", "new"), ("schema/report.json", "{}")]);
        for written in [&old, &new] {
            let drifted = drift(&read_folder(&folder).unwrap(), written);
            replace(&folder, written, &drifted).unwrap();
            assert_eq!(read_folder(&folder).unwrap(), *written);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
