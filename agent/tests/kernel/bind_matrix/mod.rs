//! Who may have a port: what is there, who wants it, and what the kernel says. What it refuses is reported once, with
//! the right process and the holder; what it grants is not.

mod play;
mod row;

use std::net::{Ipv4Addr, SocketAddr};

use firstfin::{
    kernel::plan::Observed,
    model::{Call, SocketOptions},
};
use libtest_mimic::Trial;

use self::{
    play::{Refused, assert_reported, play},
    row::{bind, bound, client, client_in_time_wait, listen, listening, time_wait},
};
use crate::{
    actor::{
        Family, Protocol, REUSE,
        SocketOption::{self, ReusePort, V6Only},
        establish,
    },
    case::{Outcome, lesser, trials},
    rung,
    scene::{Scene, errno_of},
    watch::{self, Wishes},
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("bind_matrix":
        listeners,
        both_families,
        reuse_port,
        bound_to_be_shared,
        only_bound,
        time_wait_of_a_server,
        port_of_a_client,
        no_free_port,
        io_uring needs UringBind,
        mptcp needs Mptcp,
    )
}

const PLAIN: &[SocketOption] = &[];
const SHARE: &[SocketOption] = &[ReusePort(true)];
const DUAL: &[SocketOption] = &[V6Only(false)];
const ONLY_V6: &[SocketOption] = &[V6Only(true)];

/// A listener has its port to itself, whatever SO_REUSEADDR says.
fn listeners() -> Outcome {
    play(&[
        (listening("127.0.0.1", PLAIN), bind("127.0.0.1", PLAIN).refused()),
        (listening("127.0.0.1", REUSE), bind("127.0.0.1", REUSE).refused()),
        (listening("127.0.0.1", REUSE), bind("127.0.0.1", PLAIN).refused()),
        (listening("127.0.0.1", PLAIN), bind("127.0.0.1", REUSE).refused()),
        (listening("127.0.0.1", PLAIN), bind("127.0.0.1", SHARE).refused()),
        (listening("127.0.0.1", SHARE), bind("127.0.0.1", PLAIN).refused()),
        (listening("0.0.0.0", REUSE), bind("127.0.0.1", REUSE).refused()),
        (listening("127.0.0.1", REUSE), bind("0.0.0.0", REUSE).refused()),
        (listening("127.0.0.1", PLAIN), bind("127.0.0.2", PLAIN).granted()),
        (listening("127.0.0.1", PLAIN).with_a_neighbour(), bind("127.0.0.1", PLAIN).refused()),
        (listening("::1", PLAIN).with_a_neighbour(), bind("::1", PLAIN).refused()),
        (listening("::1", PLAIN), bind("::1", PLAIN).refused()),
        (listening("::1", PLAIN), bind("::1", ONLY_V6).refused()),
    ])
}

/// A dual-stack socket has the port in both.
fn both_families() -> Outcome {
    play(&[
        (listening("::", DUAL), bind("0.0.0.0", PLAIN).refused()),
        (listening("::", DUAL), bind("127.0.0.1", PLAIN).refused()),
        (listening("0.0.0.0", PLAIN), bind("::", DUAL).refused()),
        (listening("127.0.0.1", PLAIN), bind("::", DUAL).refused()),
        (listening("127.0.0.1", PLAIN), bind("::ffff:127.0.0.1", PLAIN).refused()),
        (listening("::", ONLY_V6), bind("0.0.0.0", PLAIN).granted()),
        (listening("0.0.0.0", PLAIN), bind("::", ONLY_V6).granted()),
        (listening("127.0.0.1", PLAIN), bind("::1", PLAIN).granted()),
    ])
}

/// Both sockets have to have it, and one user.
fn reuse_port() -> Outcome {
    play(&[
        (listening("127.0.0.1", SHARE), bind("127.0.0.1", SHARE).granted()),
        (listening("127.0.0.1", SHARE), listen("127.0.0.1", SHARE).granted()),
        (listening("127.0.0.1", SHARE), bind("127.0.0.1", SHARE).by_another_user().refused()),
        (bound("127.0.0.1", SHARE), bind("127.0.0.1", SHARE).granted()),
    ])
}

/// With SO_REUSEADDR sockets share a port, also of different users, until one of them listens.
fn bound_to_be_shared() -> Outcome {
    play(&[
        (bound("127.0.0.1", REUSE), bind("127.0.0.1", REUSE).granted()),
        (bound("127.0.0.1", REUSE), bind("127.0.0.1", REUSE).by_another_user().granted()),
        (bound("127.0.0.1", REUSE), listen("127.0.0.1", REUSE).granted()),
        (listening("127.0.0.1", REUSE), listen("127.0.0.1", REUSE).refused()),
        (bound("0.0.0.0", REUSE), bind("127.0.0.1", REUSE).granted()),
        (bound("0.0.0.0", REUSE), listen("127.0.0.1", REUSE).granted()),
        (listening("0.0.0.0", REUSE), listen("127.0.0.1", REUSE).refused()),
    ])
}

/// A socket that is bound and nothing else has its port all the same.
fn only_bound() -> Outcome {
    play(&[
        (bound("127.0.0.1", PLAIN), bind("127.0.0.1", PLAIN).refused()),
        (bound("127.0.0.1", PLAIN), bind("127.0.0.1", REUSE).refused()),
        (bound("127.0.0.1", SHARE), bind("127.0.0.1", SHARE).by_another_user().refused()),
        (bound("::1", PLAIN), bind("::1", PLAIN).refused()),
    ])
}

/// The classic: a server is started again, and what its predecessor left has the port. It keeps the options of the
/// listener it came from, and of the user nothing.
fn time_wait_of_a_server() -> Outcome {
    play(&[
        (time_wait("127.0.0.1", PLAIN), bind("127.0.0.1", PLAIN).refused()),
        (time_wait("127.0.0.1", REUSE), bind("127.0.0.1", PLAIN).refused()),
        (time_wait("127.0.0.1", PLAIN), bind("127.0.0.1", REUSE).refused()),
        (time_wait("127.0.0.1", REUSE), bind("127.0.0.1", REUSE).granted()),
        (time_wait("127.0.0.1", SHARE), bind("127.0.0.1", SHARE).granted()),
        (time_wait("127.0.0.1", SHARE), bind("127.0.0.1", SHARE).by_another_user().granted()),
        (time_wait("127.0.0.1", PLAIN), bind("0.0.0.0", PLAIN).refused()),
        (time_wait("127.0.0.1", PLAIN), bind("127.0.0.2", PLAIN).granted()),
    ])
}

/// A server meets a connection that happens to have its port. SO_REUSEADDR does not help: the client had none.
fn port_of_a_client() -> Outcome {
    play(&[
        (client("127.0.0.1"), bind("127.0.0.1", REUSE).refused()),
        (client("127.0.0.1"), bind("0.0.0.0", REUSE).refused()),
        (client("127.0.0.1"), bind("127.0.0.2", REUSE).granted()),
        (client_in_time_wait("127.0.0.1"), bind("127.0.0.1", REUSE).refused()),
        (client_in_time_wait("127.0.0.1"), bind("0.0.0.0", REUSE).refused()),
        (client_in_time_wait("127.0.0.1"), bind("127.0.0.2", REUSE).granted()),
    ])
}

/// Any port was asked for, and there is none; with or without a word about the address. Nobody in particular has it.
fn no_free_port() -> Outcome {
    let scene = Scene::new()?;
    let (mut holder, mut peer) = (scene.actor("ff-holder")?, scene.actor("ff-peer")?);
    let mut intruder = scene.actor("ff-intruder")?;
    let (events, seen) = watch::session(&Wishes::of(&scene.net), || {
        let mut ask = || -> Outcome {
            let socket = intruder.socket(Family::V4, PLAIN)?;
            assert_eq!(errno_of(intruder.bind(socket, (Ipv4Addr::LOCALHOST, 0).into()))?, libc::EADDRINUSE);
            let socket = intruder.socket(Family::V4, PLAIN)?;
            assert_eq!(errno_of(intruder.listen_on(socket, 8))?, libc::EADDRINUSE);
            Ok(())
        };
        let listener = peer.listen((Ipv4Addr::LOCALHOST, 8_080).into())?;

        scene.net.sysctl("ipv4/ip_local_port_range", "45000 45001")?;
        for _ in 0..2 {
            let socket = holder.socket(Family::V4, PLAIN)?;
            holder.listen_on(socket, 8)?;
        }
        ask()?;

        scene.net.sysctl("ipv4/ip_local_port_range", "45002 45003")?;
        // Or the second connection may get the first one's port, and one is free.
        scene.net.sysctl("ipv4/tcp_tw_reuse", "0")?;
        for _ in 0..2 {
            let (ours, theirs) = establish(&mut holder, &mut peer, listener)?;
            scene.leave_time_wait((&mut holder, ours), (&mut peer, theirs))?;
        }
        ask()?;

        scene.net.sysctl("ipv4/ip_local_port_range", "46000 46999")?;
        scene.mark()
    })?;

    let refused = |call, address: &str| Refused {
        call,
        local: address.parse::<SocketAddr>().ok(),
        options: SocketOptions::default(),
        who: intruder.who().clone(),
        uid: 0,
    };
    let both = [refused(Call::Bind, "127.0.0.1:0"), refused(Call::Listen, "0.0.0.0:0")];
    assert_reported(&scene, &events, &seen, &[both.clone(), both].concat())?;
    let failures = &seen.report.bind_failures;
    assert_eq!(failures.len(), 2, "{failures:?}");
    for failure in failures {
        assert_eq!((failure.count, &failure.holders[..], &failure.holders_unknown), (2, &[][..], &None), "{failure:?}");
    }
    Ok(())
}

/// No system call of that name is made. The search for the port is the same.
fn io_uring() -> Outcome {
    if !rung::is_upper(Observed::PortConflicts)? {
        lesser("bind() and listen() through io_uring are not seen");
    }
    play(&[
        (listening("127.0.0.1", PLAIN), bind("127.0.0.1", PLAIN).through_io_uring().refused()),
        (listening("::1", PLAIN), bind("::1", PLAIN).through_io_uring().refused()),
        (listening("127.0.0.1", REUSE), listen("127.0.0.1", REUSE).through_io_uring().refused()),
        (listening("127.0.0.1", PLAIN), bind("127.0.0.2", PLAIN).through_io_uring().granted()),
    ])
}

/// An MPTCP socket asks for its port through a TCP socket of its own.
fn mptcp() -> Outcome {
    if !rung::is_upper(Observed::PortConflicts)? {
        lesser("bind() and listen() of MPTCP sockets are not seen");
    }
    play(&[
        (listening("127.0.0.1", PLAIN), bind("127.0.0.1", PLAIN).over(Protocol::Mptcp).refused()),
        (listening("127.0.0.1", REUSE), listen("127.0.0.1", REUSE).over(Protocol::Mptcp).refused()),
        (listening("127.0.0.1", PLAIN), bind("127.0.0.2", PLAIN).over(Protocol::Mptcp).granted()),
        (listening("127.0.0.1", PLAIN).over(Protocol::Mptcp), bind("127.0.0.1", PLAIN).refused()),
    ])
}
