//! The root file system of a machine, as the archive that the kernel unpacks at boot.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use cpio::newc;

use super::{modules::Module, programs::Programs, rounds::Round};

const INIT: &str = include_str!("init.sh");
/// Where file systems are mounted, and what programs expect to be there.
const FOLDERS: [&str; 7] = ["/dev", "/proc", "/sys", "/tmp", "/run", "/root", "/etc"];
const FOLDER_MODE: u32 = 0o040_755;
const PROGRAM_MODE: u32 = 0o100_755;

/// Everything a machine needs to run these rounds.
pub(super) fn build(
    programs: &Programs,
    busybox: Vec<u8>,
    modules: Vec<Module>,
    rounds: &[Round],
    folder: &Path,
) -> Result<Vec<u8>> {
    let mut files = programs.files.clone();
    files.insert("/bin/busybox".into(), busybox);
    files.insert("/init".into(), INIT.into());
    files.insert("/rounds/program".into(), line(&programs.tests.to_string_lossy()));
    files.insert("/rounds/folder".into(), line(&folder.to_string_lossy()));
    files.insert("/rounds/list".into(), rounds.iter().flat_map(|round| line(&round.for_init())).collect());
    files.insert("/modules/order".into(), modules.iter().flat_map(|module| line(&module.name)).collect());
    for module in modules {
        files.insert(format!("/modules/{}.ko", module.name).into(), module.bytes);
    }
    let folders = FOLDERS.iter().map(PathBuf::from).chain([folder.to_path_buf()]);
    archive(&files, folders)
}

fn line(text: &str) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

/// Uncompressed: unpacking it in an emulator would take longer than reading it.
fn archive(files: &BTreeMap<PathBuf, Vec<u8>>, folders: impl Iterator<Item = PathBuf>) -> Result<Vec<u8>> {
    let folders = with_parents(folders.chain(files.keys().filter_map(|file| Some(file.parent()?.to_path_buf()))));
    let mut archive = Vec::new();
    let mut number = 0;
    let mut add = |path: &Path, mode: u32, content: &[u8]| -> Result<()> {
        number += 1;
        let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large"))?;
        let mut entry = newc::Builder::new(&name).ino(number).mode(mode).write(&mut archive, size);
        entry.write_all(content).and_then(|()| entry.finish()).with_context(|| format!("pack {name}"))?;
        Ok(())
    };
    // A folder comes before what is in it: shorter paths sort first.
    for folder in folders {
        add(&folder, FOLDER_MODE, &[])?;
    }
    for (path, content) in files {
        add(path, PROGRAM_MODE, content)?;
    }
    newc::trailer(archive).context("pack the end")
}

/// Folders and the folders they are in, but for `/`.
fn with_parents(folders: impl Iterator<Item = PathBuf>) -> BTreeSet<PathBuf> {
    let all = folders.flat_map(|folder| folder.ancestors().map(Path::to_path_buf).collect::<Vec<_>>());
    all.filter(|folder| folder.parent().is_some()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read as _};

    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them() {
        let files = BTreeMap::from([("/a/b/program".into(), b"12345".to_vec())]);
        let packed = archive(&files, ["/proc".into()].into_iter()).unwrap();

        let mut source = Cursor::new(packed);
        let mut found = Vec::new();
        loop {
            let mut reader = newc::Reader::new(source).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            found.push((reader.entry().name().to_owned(), reader.entry().mode(), content.len()));
            source = reader.finish().unwrap();
        }
        let expected = [("a", FOLDER_MODE, 0), ("a/b", FOLDER_MODE, 0), ("proc", FOLDER_MODE, 0)];
        let expected: Vec<_> = expected.into_iter().chain([("a/b/program", PROGRAM_MODE, 5)]).collect();
        let found: Vec<_> = found.iter().map(|(name, mode, size)| (name.as_str(), *mode, *size)).collect();
        assert_eq!(found, expected);
    }
}
