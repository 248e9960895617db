//! What makes two findings the same problem.
//!
//! Nothing that changes from round to round is part of it: no pid, no count, no severity. A service that is restarted, or
//! whose numbers grow, has the same alert as before; receivers tell alerts apart by exactly these words.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Name, Netns},
    report::Finding,
};

/// Which problem of which process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// `id` of the finding
    pub finding: String,
    /// Name of the process; none if it is about no single one
    pub process: Option<Name>,
    /// systemd unit
    pub unit: Option<Name>,
    /// Name of the container; where that is not known its id, 12 digits of it as docker prints it
    pub container: Option<Name>,
    /// Kubernetes pod uid
    pub pod_uid: Option<Name>,
    /// Network namespace
    pub netns: Option<Netns>,
    /// Local address and port
    pub local: Option<String>,
    /// Remote address and port
    pub remote: Option<String>,
}

/// Stable name of an identity: 32 hexadecimal digits. The same on every host and in every version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AlertId(String);

impl AlertId {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Identity {
    /// What a finding is about.
    #[must_use]
    pub fn of(finding: &Finding) -> Self {
        let process = finding.process.as_ref();
        let container = process.and_then(|process| process.container.as_ref());
        Self {
            finding: finding.id.clone(),
            process: process.map(|process| process.comm.clone()),
            unit: process.and_then(|process| process.unit.clone()),
            container: container.map(|container| Name::from(container.short_name())),
            pod_uid: container.and_then(|container| container.pod_uid.clone()),
            netns: finding.netns.or_else(|| process.and_then(|process| process.netns)),
            local: finding.local.clone(),
            remote: finding.remote.clone(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> AlertId {
        let mut hash = StableHash::default();
        let words = [
            Some(self.finding.as_str()),
            self.process.as_ref().map(Name::as_str),
            self.unit.as_ref().map(Name::as_str),
            self.container.as_ref().map(Name::as_str),
            self.pod_uid.as_ref().map(Name::as_str),
        ];
        words.into_iter().for_each(|word| hash.word(word));
        hash.word(self.netns.map(|netns| netns.to_string()).as_deref());
        hash.word(self.local.as_deref());
        hash.word(self.remote.as_deref());
        AlertId(hash.digits())
    }

    /// Its unit, container or pod is known.
    #[must_use]
    pub const fn knows_place(&self) -> bool {
        self.unit.is_some() || self.container.is_some() || self.pod_uid.is_some()
    }

    /// Whether these are the same problem although one of them does not know its unit and container: a process can be gone
    /// before it could be looked up, and the next one of the same name may not be.
    #[must_use]
    pub fn is_same_but_for_place(&self, other: &Self) -> bool {
        (!self.knows_place() || !other.knows_place())
            && self.finding == other.finding
            && self.process == other.process
            && self.netns == other.netns
            && self.local == other.local
            && self.remote == other.remote
    }
}

/// FNV-1a of 128 bits over words and their lengths. Not the hash of the agent's tables: that one may change with a version
/// or a processor, and receivers keep these for weeks.
pub(super) struct StableHash(u128);

impl Default for StableHash {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl StableHash {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(Self::PRIME);
        }
    }

    /// A word that may be missing; a missing one is not an empty one.
    pub(super) fn word(&mut self, word: Option<&str>) {
        let Some(word) = word else { return self.bytes(&[0]) };
        self.bytes(&[1]);
        self.bytes(&u64::try_from(word.len()).unwrap_or(u64::MAX).to_le_bytes());
        self.bytes(word.as_bytes());
    }

    /// 32 hexadecimal digits.
    pub(super) fn digits(&self) -> String {
        format!("{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Container,
        report::{ProcessInfo, Severity},
    };

    fn finding() -> Finding {
        Finding {
            id: "EphemeralPortExhaustion".to_owned(),
            process: Some(ProcessInfo {
                pid: 7,
                comm: Name::from("crawler"),
                unit: Some(Name::from("crawler.service")),
                ..ProcessInfo::default()
            }),
            netns: Some(Netns(4_026_531_840)),
            remote: Some("10.0.0.5:6379".to_owned()),
            ..Finding::default()
        }
    }

    #[test]
    fn the_id_is_the_same_in_every_version() {
        assert_eq!(StableHash::default().digits(), "6c62272e07bb014262b821756295c58d", "the offset basis of FNV");
        let mut hash = StableHash::default();
        hash.bytes(b"a");
        assert_eq!(hash.digits(), "d228cb696f1a8caf78912b704e4a8964", "a published vector of FNV-1a");
        assert_eq!(Identity::of(&finding()).id().as_str().len(), 32);
    }

    #[test]
    fn what_changes_is_not_part_of_it_and_what_tells_problems_apart_is() {
        let one = Identity::of(&finding()).id();
        let mut other = finding();
        other.severity = Severity::Critical;
        other.summary = "23 times".to_owned();
        other.process.as_mut().unwrap().pid = 8;
        other.process.as_mut().unwrap().exited = true;
        assert_eq!(Identity::of(&other).id(), one);
        let changes: [fn(&mut Finding); 6] = [
            |it| it.id = "BindConflict".to_owned(),
            |it| it.remote = Some("10.0.0.5:6380".to_owned()),
            |it| it.local = Some("10.0.0.1:80".to_owned()),
            |it| it.netns = Some(Netns(1)),
            |it| it.process.as_mut().unwrap().comm = Name::from("other"),
            |it| it.process.as_mut().unwrap().unit = Some(Name::from("other.service")),
        ];
        for change in changes {
            let mut other = finding();
            change(&mut other);
            assert_ne!(Identity::of(&other).id(), one);
        }
    }

    #[test]
    fn a_process_that_could_not_be_looked_up_is_the_one_that_could() {
        let known = Identity::of(&finding());
        let mut gone = finding();
        gone.process.as_mut().unwrap().unit = None;
        let gone = Identity::of(&gone);
        assert_ne!(gone.id(), known.id());
        assert!(gone.is_same_but_for_place(&known) && known.is_same_but_for_place(&gone));
        let mut elsewhere = finding();
        elsewhere.process.as_mut().unwrap().container = Some(Container {
            runtime: Name::from("docker"),
            id: Name::from("4f3b2a1c9d8e7766554433221100ffeeddccbbaa99887766554433221100ffee"),
            ..Container::default()
        });
        let elsewhere = Identity::of(&elsewhere);
        assert_eq!(elsewhere.container, Some(Name::from("4f3b2a1c9d8e")));
        assert!(!elsewhere.is_same_but_for_place(&known), "both know where they are, and it is not the same place");
    }
}
