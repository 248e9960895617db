//! The unit: systemd's opinion of it, and whether the capabilities it gives are those that firstfin needs.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{
    Verdict,
    debianized::{lines_of, run},
};
use crate::{privilege::Privilege, workspace};

/// Below the workspace.
pub(super) const PATH: &str = "packaging/systemd/firstfin.service";

/// What `systemd-analyze security` may say at most, times ten. docs/deployment.md names it.
const EXPOSURE: u32 = 28;

/// nobody: a user that owns nothing, as that of the unit.
const NOBODY: &str = "65534";

/// systemd's own check of names, values and that what is started is there.
pub(super) fn verify(unit: &str, unpacked: &Path, scratch: &Path) -> Result<Verdict> {
    if workspace::find_on_path("systemd-analyze").is_none() {
        return Ok(Verdict::Skipped("systemd-analyze is not here".to_owned()));
    }
    let there = format!("={}", unpacked.join("usr/bin/firstfin").display());
    let copy = scratch.join("firstfin.service");
    fs::write(&copy, unit.replace("=/usr/bin/firstfin", &there)).context("write a copy of the unit")?;
    let output = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy))?;
    // It ends well with a key it does not know, and says so.
    let lines: Vec<_> = lines_of(&output).into_iter().filter(|line| line.contains("firstfin")).collect();
    Ok(if output.status.success() && lines.is_empty() {
        Verdict::Good("nothing to remark".to_owned())
    } else {
        Verdict::Bad(lines)
    })
}

pub(super) fn exposure() -> Result<Verdict> {
    if workspace::find_on_path("systemd-analyze").is_none() {
        return Ok(Verdict::Skipped("systemd-analyze is not here".to_owned()));
    }
    let mut analyze = Command::new("systemd-analyze");
    analyze
        .args(["security", "--offline=true", "--no-pager", "--threshold"])
        .arg(EXPOSURE.to_string())
        .arg(workspace::root()?.join(PATH));
    let output = run(&mut analyze)?;
    let lines = lines_of(&output);
    let overall = lines.iter().rev().find(|line| line.contains("Overall exposure level"));
    Ok(match overall {
        Some(overall) if output.status.success() => Verdict::Good(overall.trim_matches(['→', ' ']).to_owned()),
        Some(overall) => Verdict::Bad(vec![format!("{overall}, more than {}.{}", EXPOSURE / 10, EXPOSURE % 10)]),
        None => Verdict::Bad(lines),
    })
}

/// Starts `doctor` as nobody, with the unit's capabilities and no others: it has to see what it sees as root.
pub(super) fn is_enough(unit: &str, unpacked: &Path) -> Result<Verdict> {
    let privilege = Privilege::of_this_process();
    if privilege == Privilege::Neither {
        return Ok(Verdict::Skipped("needs root, and sudo is not here".to_owned()));
    }
    if workspace::find_on_path("setpriv").is_none() {
        return Ok(Verdict::Skipped("setpriv is not here".to_owned()));
    }
    let set: Vec<_> =
        of_unit(unit, "AmbientCapabilities")?.iter().map(|name| format!("+{}", name.to_lowercase())).collect();
    let set = set.join(",");
    // Where nobody may look, the program could not even be started.
    let program = std::env::temp_dir().join(format!("firstfin-doctor-{}", std::process::id()));
    fs::copy(unpacked.join("usr/bin/firstfin"), &program).context("copy the program")?;
    let mut as_unit = privilege.command("setpriv");
    as_unit
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--no-new-privs"])
        .args(["--inh-caps", &format!("-all,{set}"), "--ambient-caps", &format!("-all,{set}")])
        .args(["--bounding-set", &format!("-all,{set}")])
        .arg(&program)
        .arg("doctor");
    let as_unit = run(&mut as_unit);
    let as_root = run(privilege.command(&program.to_string_lossy()).arg("doctor"));
    fs::remove_file(&program).with_context(|| format!("remove {}", program.display()))?;
    let (as_unit, as_root) = (as_unit?, as_root?);
    let (with_unit, with_root) = (lines_of(&as_unit), lines_of(&as_root));
    let lost: Vec<_> = with_root.iter().filter(|line| !with_unit.contains(line)).cloned().collect();
    Ok(if lost.is_empty() && as_unit.status == as_root.status {
        Verdict::Good(format!("as nobody with them, doctor says what it says as root ({} lines)", with_root.len()))
    } else {
        Verdict::Bad(
            std::iter::once(format!("doctor says other things as root ({}):", as_root.status)).chain(lost).collect(),
        )
    })
}

/// The capabilities a line of a unit names, without `CAP_`.
fn of_unit(unit: &str, key: &str) -> Result<BTreeSet<String>> {
    let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let line = line.with_context(|| format!("the unit has no {key}="))?;
    Ok(line.split_ascii_whitespace().map(|name| name.trim_start_matches("CAP_").to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(path: &str) -> String {
        fs::read_to_string(workspace::root().unwrap().join(path)).unwrap()
    }

    /// `add: [A, B]`, the only list of that name.
    fn of_daemon_set(manifest: &str) -> BTreeSet<String> {
        let lists: Vec<_> = manifest.lines().filter_map(|line| line.trim().strip_prefix("add: [")).collect();
        assert_eq!(lists.len(), 1, "{lists:?}");
        lists[0].trim_end_matches(']').split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn unit_and_daemon_set_give_the_same_capabilities() {
        let unit = read(PATH);
        let bounding = of_unit(&unit, "CapabilityBoundingSet").unwrap();
        assert!(bounding.contains("BPF") && bounding.len() > 3, "{bounding:?}");
        assert_eq!(of_unit(&unit, "AmbientCapabilities").unwrap(), bounding);
        let manifest = read("packaging/kubernetes/daemonset.yaml");
        assert_eq!(of_daemon_set(&manifest), bounding);
        assert!(manifest.contains("drop: [ALL]"));
    }

    /// The table of docs/capabilities.md: capability -> what its second column says of `serve`.
    fn documented() -> BTreeMap<String, String> {
        let table = read("docs/capabilities.md");
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `CAP_"));
        rows.map(|row| {
            let mut columns = row.split('|').map(str::trim);
            let name = columns.next().unwrap().trim_end_matches('`').to_owned();
            (name, columns.next().unwrap().to_owned())
        })
        .collect()
    }

    #[test]
    fn each_capability_is_documented_and_what_serve_keeps_is_granted() {
        let unit = of_unit(&read(PATH), "CapabilityBoundingSet").unwrap();
        let documented = documented();
        let unknown: Vec<_> = unit.iter().filter(|name| !documented.contains_key(*name)).collect();
        assert!(unknown.is_empty(), "docs/capabilities.md does not say what {unknown:?} are for");
        let kept: Vec<_> = documented.iter().filter(|(_, kept)| *kept != "no").map(|(name, _)| name).collect();
        assert!(kept.len() >= 3, "{documented:?}");
        let refused: Vec<_> = kept.into_iter().filter(|name| !unit.contains(*name)).collect();
        assert!(refused.is_empty(), "the unit does not grant {refused:?}, which serve keeps");
    }

    #[test]
    fn the_documents_name_the_exposure_that_is_checked() {
        let figure = format!("**{}.{}**", EXPOSURE / 10, EXPOSURE % 10);
        assert!(read("docs/deployment.md").contains(&figure), "docs/deployment.md does not say {figure}");
    }

    #[test]
    fn the_unit_lets_call_what_firstfin_calls() {
        let unit = read(PATH);
        for needed in ["RestrictNamespaces=net\n", "ProtectProc=default\n", "Type=notify\n", "bpf", "AF_NETLINK"] {
            assert!(unit.contains(needed), "{needed}");
        }
    }
}
