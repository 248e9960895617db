//! Other tools that watch the same hook, as Debian has them: unpacked next to the figures with every library they need, and
//! never installed.

use std::{path::Path, rc::Rc};

use anyhow::Result;

use super::subject::Subject;
use crate::debian::Tree;

const SUITE: &str = "trixie";
/// What they are called here.
pub(super) const NAMES: [&str; 3] = ["tcplife", "tcpstates", "bpftrace"];
const PACKAGES: [&str; 2] = ["libbpf-tools", "bpftrace"];
/// Each transition on a line of its own, which is what tcpstates prints.
const BPFTRACE: &str =
    "tracepoint:sock:inet_sock_set_state { printf(\"%d %d %d\\n\", pid, args->oldstate, args->newstate); }";

pub(super) fn bring(results: &Path) -> Result<Vec<Subject>> {
    let tree = Rc::new(Tree::bring(&results.join("peers"), SUITE, &PACKAGES, &results.join("apt"))?);
    let started: [(&str, &[&str]); 3] =
        [("usr/sbin/tcplife-libbpf", &[]), ("usr/sbin/tcpstates-libbpf", &[]), ("usr/bin/bpftrace", &["-e", BPFTRACE])];
    let peers = NAMES.iter().zip(started);
    Ok(peers.map(|(name, (program, arguments))| Subject::peer(name, &tree, program, arguments, results)).collect())
}
