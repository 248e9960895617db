//! Where things are: the workspace, what setup installs into it, and the cargo that started this.

use std::{
    env,
    ffi::OsString,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// The folder of the workspace. Asked from the environment, because a checkout may have moved since it was compiled.
pub(crate) fn root() -> Result<PathBuf> {
    let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
    Path::new(&xtask).parent().map(Path::to_path_buf).context("the folder of xtask has no parent")
}

/// Where cargo leaves what it builds.
pub(crate) fn target() -> Result<PathBuf> {
    let folder = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Ok(root()?.join(folder))
}

/// What setup installs, and its notes.
pub(crate) fn installed() -> Result<PathBuf> {
    Ok(root()?.join(".toolchain"))
}

/// cargo, in the workspace. The one that started this, so that one toolchain builds everything for the host.
pub(crate) fn cargo() -> Result<Command> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.current_dir(root()?);
    Ok(cargo)
}

/// Waits until nobody else has this lock; `other` says who that would be. It is given back when dropped.
pub(crate) fn lock(path: &Path, other: &str) -> Result<File> {
    let lock = File::create(path).with_context(|| format!("create {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            eprintln!("{other} is running here, waiting for it");
            lock.lock().with_context(|| format!("lock {}", path.display()))?;
            Ok(lock)
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// The first file of that name in the folders of `PATH`.
pub(crate) fn find_on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The target triple of this machine, as rustc names it.
pub(crate) fn host() -> Result<String> {
    let mut rustc = Command::new("rustc");
    rustc.arg("-vV").current_dir(root()?);
    let output = rustc.output().context("run rustc -vV")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc -vV does not name its host")
}
