//! The closing half of RFC 9293's state diagram (figure 5), with how many connections of the session went each way.
//!
//! Counts are of connections that ended during the session: which states one was in follows from how it ended. What is
//! still on its way is not among them.

use std::fmt::Write as _;

use crate::{
    course::Closings,
    model::{Leaving, TcpState},
    report::Report,
};

/// A transition.
#[derive(Debug)]
pub(super) struct Edge {
    /// State before
    pub(super) from: &'static str,
    /// State after
    pub(super) to: &'static str,
    /// By what
    pub(super) why: &'static str,
    /// How often; none: not counted
    pub(super) count: Option<u64>,
    /// Why it is not counted, or what is not in it
    pub(super) note: &'static str,
    /// Its line, and where its count stands: x, y, anchor
    line: &'static str,
    label: (u32, u32, &'static str),
}

const MINISOCKETS: &str =
    "a FIN_WAIT2 minisocket counts when it is seen to get here, which is not observed everywhere: see Session";
const NOT_RECORDED: &str = "not recorded: this session kept only what a report needs";

impl Edge {
    /// How often, as it is written.
    pub(super) fn times(&self) -> String {
        self.count.map_or_else(|| "\u{2013}".to_owned(), super::model::grouped)
    }
}

/// The transitions of a session.
pub(super) fn edges(report: &Report, closings: &Closings) -> Vec<Edge> {
    let paths = &closings.paths;
    let broken = |states: &[TcpState]| states.iter().map(|state| paths.broken_off(*state)).sum::<u64>();
    let time_wait = &report.time_wait;
    let fin_never_came = time_wait.left.get(&Leaving::FinNeverCame).copied().unwrap_or_default();
    let left: u64 = time_wait.left.values().sum::<u64>() - fin_never_came;
    let in_fin_wait2 = paths.time_wait + paths.fin_wait2 + paths.refused + broken(&[TcpState::FinWait2]);
    let in_closing = paths.simultaneous + paths.refused_simultaneous + broken(&[TcpState::Closing]);
    let active = in_fin_wait2 + in_closing + broken(&[TcpState::FinWait1]);
    let in_last_ack = paths.passive + broken(&[TcpState::LastAck]);
    let passive = in_last_ack + broken(&[TcpState::CloseWait]);
    let is_recorded = has_passive_closes(closings);
    let seen = |count| is_recorded.then_some(count);
    let unseen = if is_recorded { "" } else { NOT_RECORDED };
    let watches_leaving = time_wait.left.keys().any(|why| *why != Leaving::Unseen) || time_wait.left.is_empty();
    let edge = |from, to, why, count, note, line, label| Edge { from, to, why, count, note, line, label };
    vec![
        edge("ESTABLISHED", "FIN_WAIT1", "closed here: FIN sent", Some(active), "", "M190 56L98 120", (128, 84, "end")),
        edge("FIN_WAIT1", "FIN_WAIT2", "ACK of the FIN", Some(in_fin_wait2), "", "M80 156L80 230", (74, 198, "end")),
        edge(
            "FIN_WAIT1",
            "CLOSING",
            "FIN of the other side",
            Some(in_closing),
            "",
            "M134 156L206 230",
            (180, 190, "start"),
        ),
        edge(
            "FIN_WAIT1",
            "TIME_WAIT",
            "FIN and ACK in one segment",
            None,
            "Linux goes by FIN_WAIT2: counted there",
            "M30 156C-2 210 -2 306 30 360",
            (12, 214, "start"),
        ),
        edge(
            "FIN_WAIT2",
            "TIME_WAIT",
            "FIN of the other side",
            Some(paths.time_wait.saturating_sub(paths.retracted) + time_wait.became_time_wait),
            if paths.fin_wait2 > 0 { MINISOCKETS } else { "" },
            "M80 266L80 360",
            (86, 318, "start"),
        ),
        edge(
            "CLOSING",
            "TIME_WAIT",
            "ACK of the FIN",
            Some(paths.simultaneous),
            "",
            "M206 266L132 360",
            (182, 318, "start"),
        ),
        edge(
            "TIME_WAIT",
            "CLOSED",
            "timeout, or taken away before",
            Some(left),
            if watches_leaving {
                ""
            } else {
                "leaving is not observed: what a later look at the host did not show any more"
            },
            "M110 396L250 480",
            (160, 446, "end"),
        ),
        edge(
            "FIN_WAIT2",
            "CLOSED",
            "timeout: the other side's FIN never came",
            Some(fin_never_came + paths.refused),
            if paths.refused > 0 { "with those that got no timewait socket (TCPTimeWaitOverflow)" } else { "" },
            "M130 256C230 300 262 400 276 480",
            (252, 372, "end"),
        ),
        edge(
            "ESTABLISHED",
            "CLOSED",
            "cut off by a RST, or given up",
            Some(broken(&[TcpState::Established, TcpState::SynRecv])),
            "",
            "M306 56L306 480",
            (312, 290, "start"),
        ),
        edge(
            "ESTABLISHED",
            "CLOSE_WAIT",
            "FIN of the other side",
            seen(passive),
            unseen,
            "M330 56L430 120",
            (392, 84, "start"),
        ),
        edge(
            "CLOSE_WAIT",
            "LAST_ACK",
            "closed here: FIN sent",
            seen(in_last_ack),
            unseen,
            "M440 156L440 230",
            (446, 198, "start"),
        ),
        edge(
            "LAST_ACK",
            "CLOSED",
            "ACK of the FIN",
            seen(paths.passive),
            unseen,
            "M430 266L336 480",
            (402, 372, "start"),
        ),
    ]
}

/// Whether connections that the other side closed first are recorded with their process. A session that keeps only what
/// a report needs says no more of them than that they ended.
pub(super) const fn has_passive_closes(closings: &Closings) -> bool {
    closings.paths.passive > 0 || closings.closed_by_peer == 0
}

const BOXES: [(&str, u32, u32); 7] = [
    ("ESTABLISHED", 260, 20),
    ("FIN_WAIT1", 80, 120),
    ("CLOSE_WAIT", 440, 120),
    ("FIN_WAIT2", 80, 230),
    ("CLOSING", 222, 230),
    ("LAST_ACK", 440, 230),
    ("TIME_WAIT", 80, 360),
];

/// The diagram as SVG.
pub(super) fn draw(edges: &[Edge]) -> String {
    let mut out = String::from(
        "<svg class=\"states\" viewBox=\"0 0 520 530\" role=\"img\" aria-label=\"State diagram of closing a TCP connection, \
         with the number of connections at each transition. The table next to it has the same.\"><defs><marker id=\"arrow\" \
         viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto-start-reverse\"><path \
         class=\"head\" d=\"M0 0L10 5L0 10z\"/></marker></defs>",
    );
    for edge in edges {
        let class = match edge.count {
            None => "edge uncounted",
            Some(0) => "edge idle",
            Some(_) => "edge",
        };
        let _ = write!(out, "<path class=\"{class}\" d=\"{}\" marker-end=\"url(#arrow)\"/>", edge.line);
    }
    for (name, x, y) in BOXES.into_iter().chain([("CLOSED", 290, 480)]) {
        let _ = write!(
            out,
            "<rect class=\"state\" x=\"{}\" y=\"{y}\" width=\"124\" height=\"36\" rx=\"6\"/><text class=\"name\" x=\"{x}\" \
             y=\"{}\">{name}</text>",
            x - 62,
            y + 23
        );
    }
    for edge in edges {
        let (x, y, anchor) = edge.label;
        let text = edge.times();
        let _ = write!(out, "<text class=\"count\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>");
    }
    out.push_str("</svg>");
    out
}
