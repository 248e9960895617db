//! The words for what the model names, the same wherever people read them.

use crate::{
    model::{Call, ConnectFailure, Container, Leaving, Reset, SocketOptions, errno},
    report::{ConnectFailures, Destination, Direction, HolderKind, ProcessInfo, Severity},
};

/// What stands where no process is known.
pub(crate) const NO_PROCESS: &str = "unknown process";

/// `nginx[812]`
pub(crate) fn process(process: &ProcessInfo) -> String {
    format!("{}[{}]", process.comm, process.pid)
}

/// `nginx[812]`, or that it is not known.
pub(crate) fn process_or_unknown(info: Option<&ProcessInfo>) -> String {
    info.map_or_else(|| NO_PROCESS.to_owned(), process)
}

/// Where a process belongs: its container or unit, else its executable. Empty if nothing is known.
pub(crate) fn place(process: &ProcessInfo, with_netns: bool) -> String {
    let mut parts = Vec::new();
    if process.exited {
        parts.push("exited".to_owned());
    }
    match (&process.container, &process.unit, &process.exe) {
        (Some(it), _, _) => parts.push(container(it)),
        (None, Some(unit), _) => parts.push(format!("unit {unit}")),
        // Only what the process is not already called by.
        (None, None, Some(exe)) => {
            let is_named = exe.as_str().rsplit('/').next() == Some(process.comm.as_str());
            parts.extend((!is_named).then(|| exe.to_string()));
        }
        (None, None, None) => parts.extend(process.cgroup.as_ref().map(|path| format!("cgroup {path}"))),
    }
    if with_netns {
        parts.extend(process.netns.map(|netns| format!("netns {netns}")));
    }
    parts.join(", ")
}

/// `docker orders`, `containerd web, pod shop/web-7d4b9`; with the id where there is no name.
fn container(container: &Container) -> String {
    let name = container.short_name();
    let runtime = match container.runtime.as_str() {
        "unknown" => "container",
        runtime => runtime,
    };
    match container.pod_name() {
        Some(pod) => format!("{runtime} {name}, pod {pod}"),
        None => format!("{runtime} {name}"),
    }
}

/// `10.0.0.5:443`; of what was served here, with its end here: `10.0.0.5 at 10.0.0.1:80`
pub(crate) fn ends(remote: &str, local: Option<&str>) -> String {
    match local {
        Some(local) => format!("{remote} at {local}"),
        None => remote.to_owned(),
    }
}

/// Where connections go to, come from, or are served: `to 10.0.0.5:443`.
pub(crate) fn destination(it: &Destination) -> String {
    let way = match it.direction {
        Some(Direction::Outbound) => "to",
        Some(Direction::Inbound) => "from",
        None => "with",
    };
    format!("{way} {}", ends(&it.remote, it.local.as_deref()))
}

/// The system call, as it is written.
pub(crate) const fn call(call: Call) -> &'static str {
    match call {
        Call::Bind => "bind()",
        Call::Listen => "listen()",
    }
}

/// What went wrong with connect(), without its errno.
pub(crate) const fn connect_failure(cause: ConnectFailure) -> &'static str {
    match cause {
        ConnectFailure::NoFreePort => "no free ephemeral port",
        ConnectFailure::TupleInUse => "the same connection exists already",
        ConnectFailure::Refused => "refused with a RST",
        ConnectFailure::TimedOut => "no answer",
        ConnectFailure::Unreachable => "unreachable",
        ConnectFailure::Abandoned => "closed before it was made",
        ConnectFailure::HandshakeBroken => "inbound, broke off in the handshake",
        ConnectFailure::Other => "failed",
    }
}

/// The same with its errno: `refused with a RST (ECONNREFUSED)`.
pub(crate) fn connect_cause(it: &ConnectFailures) -> String {
    let words = connect_failure(it.cause);
    match (it.cause, it.error.as_str()) {
        (ConnectFailure::Other, error) if !error.is_empty() => error.to_owned(),
        (_, "") => words.to_owned(),
        (_, error) => format!("{words} ({error})"),
    }
}

/// What an errno of bind() that is no conflict means, in brackets; nothing for the others.
pub(crate) const fn bind_error(errno: u32) -> &'static str {
    match errno {
        errno::EACCES => " (a port below ip_unprivileged_port_start, without CAP_NET_BIND_SERVICE)",
        errno::EADDRNOTAVAIL => " (not an address of this host)",
        _ => "",
    }
}

/// Who cut a connection off, and by what.
pub(crate) const fn reset(kind: Reset) -> &'static str {
    match kind {
        Reset::Received => "RST received",
        Reset::LingerZero => "close() with SO_LINGER 0",
        Reset::UnreadData => "close() with unread data",
        Reset::Disconnected => "connect() to AF_UNSPEC",
        Reset::NotAccepted => "listener closed before accept()",
        Reset::Destroyed => "destroyed from outside (SOCK_DESTROY)",
    }
}

/// Why a timewait socket went, after a number.
pub(crate) const fn leaving(why: Leaving) -> &'static str {
    match why {
        Leaving::Expired => "expired",
        Leaving::FinNeverCame => "expired without the peer's FIN",
        Leaving::Reused => "reused by connect()",
        Leaving::NewSyn => "replaced by a new SYN",
        Leaving::Reset => "killed by a RST",
        Leaving::ResetAfterData => "reset by data after close",
        Leaving::Destroyed => "destroyed from outside (SOCK_DESTROY)",
        Leaving::NetnsGone => "gone with their namespace",
        Leaving::Unexplained => "for a reason not known",
        Leaving::Unseen => "not seen to leave",
    }
}

/// One socket of this kind.
pub(crate) const fn holder(kind: HolderKind) -> &'static str {
    match kind {
        HolderKind::Listener => "listener",
        HolderKind::Bound => "bound socket",
        HolderKind::Connection => "connection",
        HolderKind::TimeWait => "TIME_WAIT",
        HolderKind::FinWait2 => "FIN_WAIT2",
    }
}

pub(crate) const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

/// `SO_REUSEADDR, IPV6_V6ONLY`, or `none`.
pub(crate) fn options(options: SocketOptions) -> String {
    let set: Vec<_> = [
        (options.reuse_address, "SO_REUSEADDR"),
        (options.reuse_port, "SO_REUSEPORT"),
        (options.v6_only, "IPV6_V6ONLY"),
    ]
    .into_iter()
    .filter_map(|(is_set, name)| is_set.then_some(name))
    .collect();
    if set.is_empty() { "none".to_owned() } else { set.join(", ") }
}

/// `1 socket`, `2 sockets`: for nouns that take an s.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_goes_by_the_best_that_is_known() {
        let id = "4f3b2a1c9d8e7766554433221100ffeeddccbbaa99887766554433221100ffee";
        let bare = Container { runtime: "unknown".into(), id: id.into(), ..Container::default() };
        assert_eq!(container(&bare), "container 4f3b2a1c9d8e");
        let in_pod = Container { runtime: "cri-o".into(), pod_uid: Some("0e2d".into()), ..bare };
        assert_eq!(container(&in_pod), "cri-o 4f3b2a1c9d8e, pod 0e2d");
        let pod = Container { pod: Some("web-7d4b9".into()), namespace: Some("shop".into()), ..in_pod };
        assert_eq!(container(&pod), "cri-o 4f3b2a1c9d8e, pod shop/web-7d4b9");
        let named = Container { name: Some("web".into()), ..pod };
        assert_eq!(container(&named), "cri-o web, pod shop/web-7d4b9");
        let short = Container { runtime: "docker".into(), id: "4f3b".into(), ..Container::default() };
        assert_eq!(container(&short), "docker 4f3b");
    }
}
