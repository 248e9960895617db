//! HardClose: connections that a process of this host cuts off with a RST, and what the other side loses by it.

use super::{thresholds, times, who};
use crate::{
    model::Reset,
    report::{Finding, Report, Resets, Severity},
};

pub(super) const ID: &str = "HardClose";

pub(super) fn findings(report: &Report) -> Vec<Finding> {
    report.resets.iter().filter(|reset| reset.count >= thresholds::HARD_CLOSES).filter_map(finding).collect()
}

fn finding(reset: &Resets) -> Option<Finding> {
    let process = reset.process.as_ref()?;
    let (how, cause, remedy, avoid) = match reset.kind {
        Reset::LingerZero => (
            "close() with SO_LINGER 0",
            "SO_LINGER with a time of zero makes close() discard what was not sent yet and send a RST: there is no TIME_WAIT, \
             and the other side gets ECONNRESET, possibly before it has read everything",
            vec![
                "remove SO_LINGER, or give it a time: the peer gets all data and an orderly end".to_owned(),
                "it is right only for connections that are to be thrown away: a peer that misbehaves, a health check that \
                 has its answer"
                    .to_owned(),
            ],
            vec!["SO_LINGER 0 to have fewer sockets in TIME_WAIT: it gives up the protection TIME_WAIT is for".to_owned()],
        ),
        Reset::UnreadData => (
            "close() with unread data",
            "a process that closes before it has read what was received makes the kernel send a RST (RFC 2525, 2.17): the \
             other side may lose data that is on its way to it",
            vec![
                "read until the end (recv() returns 0) before close(), or shutdown(SHUT_WR) first and then read on"
                    .to_owned(),
                "look at what arrives unread: often the rest of a request that was answered early, or bytes behind it"
                    .to_owned(),
            ],
            Vec::new(),
        ),
        _ => return None,
    };
    Some(Finding {
        id: ID.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "{} cuts connections off: {how}, {}, towards {}",
            who(process),
            times(reset.count),
            reset.remote
        ),
        process: Some(process.clone()),
        netns: Some(reset.netns),
        local: reset.local.clone(),
        remote: Some(reset.remote.clone()),
        cause: cause.to_owned(),
        evidence: vec![format!(
            "{} RSTs sent on close(){}",
            reset.count,
            reset.local.as_ref().map_or_else(String::new, |local| format!(", of connections to {local}"))
        )],
        remedy,
        avoid,
        ..Finding::default()
    })
}
