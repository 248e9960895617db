//! Files of a host, which may be mounted below a folder: read without leaving that folder, and up to a limit.
//!
//! A symbolic link of the host is followed as the host would, so that `/var/run -> /run` leads to `/host/run` and never
//! out of it (openat2(2), RESOLVE_IN_ROOT). What is no plain file is not read: a FIFO would block, a device never end.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

/// Directories are listed up to here. A node of Kubernetes has some hundred containers, and keeps the logs of some more.
const MAX_ENTRIES: usize = 20_000;

/// The file system of a host.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    pub(super) fn under(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// What a plain file holds, and when it was last changed. More than `limit` bytes are an error.
    pub(super) fn read(&self, path: &Path, limit: u64) -> io::Result<(Vec<u8>, Option<SystemTime>)> {
        let file = File::from(self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(invalid(path, "it is no plain file"));
        }
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| at(path, &error))?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
            return Err(invalid(path, &format!("it has more than {limit} bytes")));
        }
        Ok((bytes, metadata.modified().ok()))
    }

    /// The same, read as JSON. None if there is no such file.
    pub(super) fn read_json<T: serde::de::DeserializeOwned>(
        &self,
        path: &Path,
        limit: u64,
    ) -> io::Result<Option<(T, Option<SystemTime>)>> {
        let (bytes, modified) = match self.read(path, limit) {
            Ok(read) => read,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The message of serde_json may quote what it read, which may be a secret: only its place is told.
        let parsed = serde_json::from_slice(&bytes).map_err(|error| {
            invalid(path, &format!("not the JSON it should be, line {} column {}", error.line(), error.column()))
        })?;
        Ok(Some((parsed, modified)))
    }

    /// When a file was last changed.
    pub(super) fn modified(&self, path: &Path) -> io::Result<SystemTime> {
        File::from(self.open(path, OFlags::PATH)?).metadata()?.modified()
    }

    /// The names in a directory. None if there is no such directory.
    pub(super) fn list(&self, path: &Path) -> io::Result<Option<Vec<OsString>>> {
        let directory = match self.open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in Dir::new(directory).map_err(|error| at(path, &error.into()))?.take(MAX_ENTRIES) {
            let name = entry.map_err(|error| at(path, &error.into()))?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(Some(names))
    }

    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let opened = if self.root == Path::new("/") {
            openat(CWD, path, flags, Mode::empty())
        } else {
            let inside = path.strip_prefix("/").unwrap_or(path);
            openat(CWD, &self.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).and_then(
                |root| {
                    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                    openat2(&root, inside, flags, Mode::empty(), resolve)
                },
            )
        };
        opened.map_err(|errno| {
            if errno == Errno::NOSYS {
                return invalid(
                    path,
                    "openat2(2) is missing (Linux 5.6), without which links may lead out of host_root",
                );
            }
            at(path, &errno.into())
        })
    }
}

/// Whether an error says that there is nothing of that name.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// An error with the file it is about; its kind stays.
fn at(path: &Path, error: &io::Error) -> io::Error {
    let remedy =
        if error.kind() == io::ErrorKind::PermissionDenied { " (takes root or CAP_DAC_READ_SEARCH)" } else { "" };
    io::Error::new(error.kind(), format!("{path:?}: {error}{remedy}"))
}

fn invalid(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path:?}: {what}"))
}
