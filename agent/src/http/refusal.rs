//! Listening; and where the port is taken, saying by whom, which is what firstfin is for.

use std::{
    fmt::Write as _,
    io,
    net::{SocketAddr, TcpListener},
};

use thiserror::Error;

use crate::{
    kernel::{held, netns, processes::Procfs},
    why::{self, Found, Question},
};

/// The endpoint cannot listen.
#[derive(Debug, Error)]
#[error("the endpoint cannot listen at {at} (http.listen): {error}{holders}")]
pub struct CannotListen {
    /// Where
    pub at: SocketAddr,
    /// Why not
    #[source]
    pub error: io::Error,
    /// Who has the port, a line each
    pub holders: String,
}

/// Listens.
///
/// # Errors
/// The kernel refuses; where the port is taken, the error says who has it.
pub fn listen(at: SocketAddr) -> Result<TcpListener, CannotListen> {
    let listener = TcpListener::bind(at).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|error| {
        let holders = if error.kind() == io::ErrorKind::AddrInUse { holders(at) } else { String::new() };
        CannotListen { at, error, holders }
    })
}

/// A line for each socket that is in the way.
fn holders(at: SocketAddr) -> String {
    let procfs = Procfs::host();
    let own = netns::current().ok();
    let held = held::at_port(&procfs, &procfs.socket_holders(), at.port(), own);
    let found = held.namespaces.into_iter().map(|it| Found {
        netns: it.netns,
        sockets: it.sockets,
        settings: it.settings,
        is_local: None,
    });
    let uid = rustix::process::geteuid().as_raw();
    let question = Question { port: at.port(), address: Some(at.ip()), uid };
    let answer = why::bind(&question, own, found.collect());
    let mut text = String::new();
    for holder in answer.namespaces.iter().filter(|it| it.is_own).flat_map(|it| &it.holders) {
        let who = holder.process.as_ref().map_or_else(
            || "an unknown process".to_owned(),
            |process| {
                let unit = process.unit.as_ref().map(|unit| format!(", {unit}")).unwrap_or_default();
                format!("{}[{}]{unit}", process.comm, process.pid)
            },
        );
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {} is held by {who}", holder.local);
        if let Some(seconds) = holder.seconds_left {
            let _ = write!(text, ", in TIME_WAIT for {seconds} s more");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn who_has_the_port_is_said() {
        let taken = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let at = taken.local_addr().unwrap();
        let refusal = listen(at).unwrap_err().to_string();
        let (comm, pid) = (std::fs::read_to_string("/proc/self/comm").unwrap(), std::process::id());
        let held = format!("{at} is held by {}[{pid}]", comm.trim_end());
        assert!(refusal.starts_with(&format!("the endpoint cannot listen at {at} (http.listen): ")), "{refusal}");
        assert!(refusal.contains(&held), "{refusal}\n{held}");
    }

    #[test]
    fn an_address_of_another_host_is_refused_as_such() {
        let refusal = listen(([192, 0, 2, 1], 1).into()).unwrap_err();
        assert_eq!((refusal.error.kind(), refusal.holders.as_str()), (io::ErrorKind::AddrNotAvailable, ""));
    }
}
