//! The kernels to run on: which there are, and each one's image and modules brought here.
//!
//! They are Debian's `cloud-amd64` builds: small, with BTF, kprobes and fentry as distributions have them, and one from
//! each of the series that differ for firstfin. What was brought stays: a new build of a series is looked for when
//! `target/vm/kernels` is removed, so that one checkout always tests the same kernels, and needs no network for it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::debian::{self, Archives, Suite};

/// A line of kernels.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// As `--kernel` names it
    pub(super) name: &'static str,
    /// The suite of Debian that has it
    suite: &'static str,
    /// What its releases begin with
    prefix: &'static str,
}

/// From the oldest that firstfin supports to the newest there is. Released suites get their kernels as security updates.
pub(super) const SERIES: [Series; 5] = [
    Series { name: "5.10", suite: "bullseye-security", prefix: "5.10." },
    Series { name: "6.1", suite: "bookworm-security", prefix: "6.1." },
    Series { name: "6.12", suite: "trixie-security", prefix: "6.12." },
    Series { name: "6.18", suite: "trixie-backports", prefix: "6.18." },
    Series { name: "newest", suite: "trixie-backports", prefix: "" },
];

const FLAVOUR: &str = "cloud-amd64";
/// Since 7.0 the package of the image is empty and depends on the other two.
const PACKAGES: [&str; 3] = ["linux-image", "linux-binary", "linux-modules"];

/// A kernel that is here.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) series: &'static str,
    pub(super) image: PathBuf,
    pub(super) modules: PathBuf,
}

/// The kernel of a series, brought here if it is not.
pub(super) fn bring(series: &'static Series, folder: &Path) -> Result<Kernel> {
    let tree = folder.join("kernels").join(series.name);
    if !tree.exists() {
        eprintln!("kernel {}: not there, bringing it", series.name);
        let archives = Archives::of_this_machine()?;
        let suite = Suite::open(&archives, series.suite, &folder.join("apt").join(series.suite))?;
        let packages = suite.packages()?;
        let release = newest(&packages, series.prefix)
            .with_context(|| format!("{} has no {FLAVOUR} kernel {}", series.suite, series.prefix))?;
        debian::whole_folder(&tree, |new| suite.bring(&packages_of(&packages, release), new))?;
    }
    find(series.name, &tree).with_context(|| format!("kernel {}, in {}", series.name, tree.display()))
}

/// The highest release of a series, of those that have an image.
fn newest<'a>(packages: &'a [String], prefix: &str) -> Option<&'a str> {
    let releases = packages.iter().filter_map(|package| {
        let release = package.strip_prefix("linux-image-")?.strip_suffix(FLAVOUR)?.strip_suffix('-')?;
        let is_release = release.starts_with(|first: char| first.is_ascii_digit());
        (is_release && release.starts_with(prefix)).then_some(release)
    });
    releases.max_by_key(|release| numbers(release))
}

/// `6.12.115+deb13.1` -> 6, 12, 115, 13, 1.
fn numbers(release: &str) -> Vec<u32> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Those that make up a release.
fn packages_of(packages: &[String], release: &str) -> Vec<String> {
    let wanted = PACKAGES.map(|kind| format!("{kind}-{release}-{FLAVOUR}"));
    packages.iter().filter(|package| wanted.contains(package)).cloned().collect()
}

/// Image and modules of an unpacked kernel: they were in `/boot` and `/lib`, and moved to `/usr/lib` over the years.
fn find(series: &'static str, tree: &Path) -> Result<Kernel> {
    let modules = ["lib/modules", "usr/lib/modules"].iter().find_map(|folder| only_entry(&tree.join(folder)));
    let modules = modules.context("it has no modules")?;
    let release = modules.file_name().context("its modules have no name")?.to_string_lossy().into_owned();
    let images = [tree.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = images.into_iter().find(|image| image.exists()).context("it has no image")?;
    Ok(Kernel { series, image, modules })
}

fn only_entry(folder: &Path) -> Option<PathBuf> {
    Some(fs::read_dir(folder).ok()?.next()?.ok()?.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(list: &[&str]) -> Vec<String> {
        list.iter().map(|package| (*package).to_owned()).collect()
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        let all = packages(&[
            "linux-image-6.12.96+deb13-cloud-amd64",
            "linux-image-6.12.115+deb13-cloud-amd64",
            "linux-image-6.12.115+deb13.1-cloud-amd64",
            "linux-image-6.12.115+deb13.1-amd64",
            "linux-image-6.12.117+deb13-cloud-amd64-dbg",
            "linux-image-6.12.117+deb13-cloud-amd64-unsigned",
            "linux-image-cloud-amd64",
        ]);
        assert_eq!(newest(&all, "6.12."), Some("6.12.115+deb13.1"));
        assert_eq!(newest(&all, "6.1."), None);
    }

    #[test]
    fn the_newest_has_any_number() {
        let all = packages(&["linux-image-6.19.14+deb13-cloud-amd64", "linux-image-7.3.4+deb13-cloud-amd64"]);
        assert_eq!(newest(&all, ""), Some("7.3.4+deb13"));
    }

    #[test]
    fn a_release_is_one_package_or_three() {
        let all = packages(&[
            "linux-image-5.10.0-46-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-binary-unsigned-7.3.4+deb13-cloud-amd64",
            "linux-modules-7.3.4+deb13-cloud-amd64",
        ]);
        assert_eq!(packages_of(&all, "5.10.0-46"), packages(&["linux-image-5.10.0-46-cloud-amd64"]));
        assert_eq!(packages_of(&all, "7.3.4+deb13").len(), 3);
    }
}
