//! A file that appears whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// A file that is being made: under another name beside its own until it is whole. Only its owner may read it, as it names
/// what is on the host.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    /// None where the path is no ordinary file (a pipe, /dev/stdout) and is written as it is
    temporary: Option<PathBuf>,
    file: File,
}

impl NewFile {
    /// Begins it, so that what would be in the way shows before anything is done for it.
    ///
    /// # Errors
    /// It cannot be created there.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let create = || -> io::Result<Self> {
            let (file, temporary) = match fs::metadata(path) {
                Ok(there) if there.is_dir() => return Err(io::Error::from(io::ErrorKind::IsADirectory)),
                Ok(there) if !there.is_file() => (File::options().write(true).open(path)?, None),
                _ => {
                    let mut name = OsString::from(".");
                    name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
                    name.push(format!(".{}.new", std::process::id()));
                    let temporary = path.with_file_name(name);
                    let file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
                    (file, Some(temporary))
                }
            };
            Ok(Self { path: path.to_path_buf(), temporary, file })
        };
        create().with_context(|| format!("create {}", path.display()))
    }

    /// Writes it and gives it its name; what had that name is replaced.
    ///
    /// # Errors
    /// It cannot be written. Nothing is left of it then, and what was there before stays.
    pub fn finish(mut self, text: &str) -> anyhow::Result<()> {
        let written = self.file.write_all(text.as_bytes());
        let finished = written.and_then(|()| match &self.temporary {
            Some(temporary) => fs::rename(temporary, &self.path),
            None => Ok(()),
        });
        if finished.is_ok() {
            self.temporary = None;
        }
        finished.with_context(|| format!("write {}", self.path.display()))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // It was never whole, and nobody knows its name.
            let _ = fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("firstfin-new-file-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn it_appears_whole_and_for_its_owner() {
        let folder = folder("whole");
        let path = folder.join("page.html");
        fs::write(&path, "before").unwrap();
        let new = NewFile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        new.finish("after").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(NewFile::create(&path).unwrap());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_in_the_way_is_told_with_the_path() {
        let folder = folder("way");
        let error = format!("{:#}", NewFile::create(&folder.join("missing/page.html")).unwrap_err());
        assert!(error.starts_with("create /") && error.contains("missing/page.html: No such file"), "{error}");
        let error = format!("{:#}", NewFile::create(&folder).unwrap_err());
        assert!(error.contains("is a directory"), "{error}");
        NewFile::create(Path::new("/dev/null")).unwrap().finish("gone").unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}
