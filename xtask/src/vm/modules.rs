//! The kernel modules a machine loads, in the order in which they load.
//!
//! Read from the modules themselves, which say what they depend on: `modules.dep` is written when a kernel is
//! installed, and here none is.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::tools::Tools;

/// What the tests need and Debian builds as modules: `sock_diag` for TCP, and the devices that their wires are made of.
/// A real host loads them when they are asked for; a machine has no modprobe.
const NEEDED: [&str; 4] = ["inet_diag", "tcp_diag", "tun", "veth"];

/// A module, decompressed.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The needed modules and theirs, each after those it depends on. One that is no file is built in, or not there: the
/// tests say so.
pub(super) fn needed(folder: &Path, tools: &Tools) -> Result<Vec<Module>> {
    let files = files(folder)?;
    let mut read = |name: &str| {
        let file = files.iter().find(|file| name_of(file).is_some_and(|found| found == name));
        file.map(|file| tools.decompress(file)).transpose()
    };
    let mut found = Found::default();
    for name in NEEDED {
        found.add(name, &mut read)?;
    }
    Ok(found.modules)
}

#[derive(Default)]
struct Found {
    seen: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Found {
    fn add(&mut self, name: &str, read: &mut impl FnMut(&str) -> Result<Option<Vec<u8>>>) -> Result<()> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(bytes) = read(name)? else { return Ok(()) };
        for dependency in dependencies(&bytes) {
            self.add(&dependency, read)?;
        }
        self.modules.push(Module { name: name.to_owned(), bytes });
        Ok(())
    }
}

/// What a module says of itself is text that ends with NUL: `depends=inet_diag,x`.
fn dependencies(module: &[u8]) -> Vec<String> {
    let named = module.split(|byte| *byte == 0).find_map(|text| text.strip_prefix(b"depends="));
    let named = String::from_utf8_lossy(named.unwrap_or_default()).replace('-', "_");
    named.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// `kernel/net/ipv4/tcp_diag.ko.xz` -> `tcp_diag`. A dash in a file's name is an underscore in the module's.
fn name_of(file: &Path) -> Option<String> {
    let file = file.file_name()?.to_str()?;
    let (name, compression) = file.split_once(".ko")?;
    ["", ".xz", ".zst"].contains(&compression).then(|| name.replace('-', "_"))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("list {}", next.display()))? {
            let entry = entry.with_context(|| format!("list {}", next.display()))?;
            // Not through links: one leads to the sources.
            let kind = entry.file_type().with_context(|| format!("look at {}", entry.path().display()))?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_depends_on() {
        let module = b"\x7fELF\0alias=net-pf-16\0license=GPL\0depends=inet-diag,udp_tunnel\0name=tcp_diag\0";
        assert_eq!(dependencies(module), ["inet_diag", "udp_tunnel"]);
        assert_eq!(dependencies(b"license=GPL\0depends=\0"), [""; 0]);
        assert_eq!(dependencies(b"\x7fELF"), [""; 0]);
    }

    #[test]
    fn files_are_named_after_their_modules() {
        let name = |file: &str| name_of(Path::new(file));
        assert_eq!(name("kernel/net/ipv4/tcp_diag.ko").as_deref(), Some("tcp_diag"));
        assert_eq!(name("kernel/net/nf-log.ko.zst").as_deref(), Some("nf_log"));
        assert_eq!(name("kernel/veth.ko.xz").as_deref(), Some("veth"));
        assert_eq!(name("kernel/veth.ko.sig"), None);
        assert_eq!(name("modules.order"), None);
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let mut read = |name: &str| {
            Ok(match name {
                "a" => Some(b"\0depends=c,b\0".to_vec()),
                "b" => Some(b"\0depends=c\0".to_vec()),
                "c" => Some(b"\0depends=built_in\0".to_vec()),
                _ => None,
            })
        };
        let mut found = Found::default();
        for name in ["b", "a", "built_in"] {
            found.add(name, &mut read).unwrap();
        }
        let order: Vec<_> = found.modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(order, ["c", "b", "a"]);
    }
}
