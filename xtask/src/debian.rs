//! Debian packages for the machines and the bench: found, verified and unpacked in a folder of ours.
//!
//! Nothing is installed and no root is needed. apt gets a state of its own with one suite as its only source, so neither
//! what this machine has installed nor its configured suites matter, only where it gets Debian from and which keys it
//! trusts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{child, setup::APT_LIMITS, workspace};

/// Where Debian keeps its keys. A machine without the file trusts those of `/etc/apt/trusted.gpg.d`.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// Where Debian keeps libraries, and the loader of programs, in a folder laid out like `/`.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The addresses this machine gets Debian from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Archives {
    main: String,
    security: String,
}

impl Archives {
    /// As apt is configured here.
    pub(crate) fn of_this_machine() -> Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg-deb"] {
            if workspace::find_on_path(program).is_none() {
                bail!("{program} is not here: the kernels and the emulator are Debian packages, brought by apt");
            }
        }
        let format = "$(RELEASE)|$(ORIGIN)|$(REPO_URI)";
        let output = Command::new("apt-get").args(["indextargets", "--format", format]).output();
        let output = output.context("run apt-get indextargets")?;
        Self::among(&String::from_utf8_lossy(&output.stdout))
            .context("apt-get gets nothing from Debian here, so it is not known where to get Debian's kernels from")
    }

    /// Reads `RELEASE|ORIGIN|REPO_URI` lines. The origin is only known once apt's lists were fetched.
    fn among(targets: &str) -> Option<Self> {
        let debian = |line: &str| {
            let mut fields = line.split('|');
            let (release, origin, address) = (fields.next()?, fields.next()?, fields.next()?.trim_end_matches('/'));
            let is_named_so = address.ends_with("/debian") || address.ends_with("/debian-security");
            (origin == "Debian" || (origin.is_empty() && is_named_so))
                .then(|| (release.ends_with("-security"), address.to_owned()))
        };
        let all: Vec<_> = targets.lines().filter_map(debian).collect();
        let first = |is_security| all.iter().find(|(security, _)| *security == is_security).map(|(_, at)| at.clone());
        let main = first(false)?;
        let security = first(true).unwrap_or_else(|| format!("{main}-security"));
        Some(Self { main, security })
    }

    fn of(&self, suite: &str) -> &str {
        if suite.ends_with("-security") { &self.security } else { &self.main }
    }
}

/// apt with a state of its own, for one suite.
pub(crate) struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// Fetches the list of what the suite has.
    pub(crate) fn open(archives: &Archives, suite: &str, folder: &Path) -> Result<Self> {
        for needed in ["state/lists/partial", "cache/archives/partial", "packages"] {
            let needed = folder.join(needed);
            fs::create_dir_all(&needed).with_context(|| format!("create {}", needed.display()))?;
        }
        let keyring = KEYRINGS.into_iter().find(|path| Path::new(path).exists());
        let signed = keyring.map(|keyring| format!(" signed-by={keyring}")).unwrap_or_default();
        let source = format!("deb [arch=amd64 target=Packages{signed}] {} {suite} main\n", archives.of(suite));
        for (name, text) in [("sources.list", source.as_str()), ("state/status", "")] {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        }

        let this = Self { folder: folder.to_path_buf() };
        eprintln!("    the packages of {suite}");
        // Without it, a list that could not be fetched is a warning.
        let mut update = this.command("apt-get");
        update.args(["-o", "APT::Update::Error-Mode=any", "update"]);
        child::watch(&mut update, None).map_err(|failure| anyhow::anyhow!("apt-get update for {suite}: {failure}"))?;
        Ok(this)
    }

    /// The names of all packages.
    pub(crate) fn packages(&self) -> Result<Vec<String>> {
        let output = self.command("apt-cache").arg("dumpavail").output().context("run apt-cache dumpavail")?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter_map(|line| line.strip_prefix("Package: ")).map(str::to_owned).collect())
    }

    /// Brings exactly these packages and unpacks them into a folder.
    pub(crate) fn bring(&self, packages: &[String], into: &Path) -> Result<()> {
        let downloads = self.folder.join("packages");
        let mut apt = self.command("apt-get");
        apt.arg("download").args(packages).current_dir(&downloads);
        download(&mut apt, packages)?;
        unpack(&downloads, into)
    }

    /// Brings these packages with all they depend on, down to the C library, and unpacks them into a folder.
    fn bring_complete(&self, packages: &[String], into: &Path) -> Result<()> {
        let mut apt = self.command("apt-get");
        apt.args(["install", "--download-only", "--no-install-recommends", "-y"]).args(packages);
        download(&mut apt, packages)?;
        unpack(&self.folder.join("cache/archives"), into)
    }

    fn command(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        let option = |name: &str, value: &str| format!("{name}={}", self.folder.join(value).display());
        apt.args(["-o", &option("Dir::State", "state"), "-o", &option("Dir::Cache", "cache")]);
        apt.args(["-o", &option("Dir::Etc::sourcelist", "sources.list"), "-o", "Dir::Etc::sourceparts=/dev/null"]);
        // Pins of this machine, and what it has installed, have no say in what is only unpacked.
        apt.args(["-o", "Dir::Etc::preferences=/dev/null", "-o", "Dir::Etc::preferencesparts=/dev/null"]);
        apt.args(["-o", &option("Dir::State::status", "state/status")]).args(APT_LIMITS).env("LC_ALL", "C");
        apt
    }
}

fn download(apt: &mut Command, packages: &[String]) -> Result<()> {
    eprintln!("    {}", packages.join(" "));
    child::watch(apt, None).map_err(|failure| anyhow::anyhow!("apt-get, for {}: {failure}", packages.join(" ")))
}

/// Unpacks every package of a folder and removes it there.
fn unpack(packages: &Path, into: &Path) -> Result<()> {
    let list = || format!("list {}", packages.display());
    for entry in fs::read_dir(packages).with_context(list)? {
        let package = entry.with_context(list)?.path();
        if package.extension().is_none_or(|extension| extension != "deb") {
            continue;
        }
        let output = Command::new("dpkg-deb").arg("-x").arg(&package).arg(into).output().context("run dpkg-deb")?;
        if !output.status.success() {
            bail!("unpack {}: {}", package.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        fs::remove_file(&package).with_context(|| format!("remove {}", package.display()))?;
    }
    Ok(())
}

/// Packages with all they depend on, unpacked in a folder that is laid out like `/`.
pub(crate) struct Tree(PathBuf);

impl Tree {
    /// Brings them out of a suite, if the folder is not there yet. `state`: where apt keeps its own.
    pub(crate) fn bring(folder: &Path, suite: &str, packages: &[&str], state: &Path) -> Result<Self> {
        if !folder.exists() {
            eprintln!("{}: not there, bringing it", packages.join(" and "));
            let suite = Suite::open(&Archives::of_this_machine()?, suite, state)?;
            let packages: Vec<String> = packages.iter().map(|package| (*package).to_owned()).collect();
            whole_folder(folder, |new| suite.bring_complete(&packages, new))?;
        }
        Ok(Self(folder.to_path_buf()))
    }

    /// A file of theirs.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// Where their libraries are.
    pub(crate) fn libraries(&self) -> PathBuf {
        self.file(LIBRARIES)
    }

    /// Lets a command that starts another one start a program of theirs, through the loader it was unpacked with: the C
    /// library of this machine may be an older one.
    pub(crate) fn let_start(&self, command: &mut Command, program: &str) {
        let libraries = self.libraries();
        command
            .arg(libraries.join("ld-linux-x86-64.so.2"))
            .arg("--library-path")
            .arg(libraries)
            .arg(self.file(program));
    }
}

/// Makes a folder at once or not at all: whoever finds it finds it complete.
pub(crate) fn whole_folder(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let new = folder.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("remove {}", new.display()))?;
    }
    fs::create_dir_all(&new).with_context(|| format!("create {}", new.display()))?;
    fill(&new)?;
    fs::rename(&new, folder).with_context(|| format!("rename {} to {}", new.display(), folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_is_found_among_what_else_is_configured() {
        let targets = "stable|Example|https://packages.example.org/apt/\n\
                       bookworm-security|Debian|http://mirror.example/security/\n\
                       bookworm-updates|Debian|http://mirror.example/debian/\n";
        let found = Archives::among(targets).unwrap();
        assert_eq!(found.of("trixie"), "http://mirror.example/debian");
        assert_eq!(found.of("trixie-security"), "http://mirror.example/security");
    }

    #[test]
    fn before_the_first_update_the_address_tells() {
        let found =
            Archives::among("trixie||http://mirror.example/debian/\nstable||http://other.example/x/\n").unwrap();
        assert_eq!(found.of("bookworm-security"), "http://mirror.example/debian-security");
    }

    #[test]
    fn another_distribution_is_not_debian() {
        assert_eq!(Archives::among("noble|Ubuntu|http://mirror.example/ubuntu/\n"), None);
        assert_eq!(Archives::among(""), None);
    }
}
