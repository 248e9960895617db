//! How timewait sockets go: each way the kernel has, and those it only seems to have. On the rungs that watch it, each
//! names its reason; on the others that they are gone is all there is to see.

use std::{net::SocketAddr, time::Duration};

use firstfin::{
    kernel::{
        host::HostFacts,
        plan::{self, Observed},
    },
    model::{Connection, Event, Leaving, TimeWaitChange},
    state::{Closes, Input, Limits, State},
};
use libtest_mimic::{Failed, Trial};

use crate::{
    actor::{Actor, Conn, Family, Fork, Listener, SocketOption, establish},
    case::{Outcome, lesser, trials},
    destroy,
    netns::Net,
    rung,
    scene::{FIN_WAIT2, Scene, Wanted, outbound},
    watch::{self, Watch},
    wire::{self, Way, Wire},
};

pub(crate) fn tests() -> Vec<Trial> {
    trials!("leaves":
        expired,
        fin_never_came,
        reused_by_a_connect_of_any_port,
        reused_by_a_connect_of_the_same_port,
        fin_wait2_reused_by_a_connect_of_the_same_port,
        replaced_by_a_new_syn,
        killed_by_a_reset needs Wire,
        fin_wait2_killed_by_a_reset,
        fin_wait2_reset_by_data,
        fin_wait2_killed_by_a_peer_that_lost_it,
        destroyed_from_outside,
        gone_with_its_namespace,
        became_time_wait,
        refused_by_the_limit,
        a_late_fin_takes_nothing_away needs Wire,
        a_syn_that_nobody_accepts_takes_nothing_away,
        where_the_function_that_takes_them_away_is_inlined,
    )
}

/// TIME_WAIT is 60 s, and the timer wheel may be late by some more.
const TIME_WAIT_OVER: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(60);

/// A client and a server with a connection, and what is needed for the next one.
struct Pair {
    client: Actor,
    server: Actor,
    listener: Listener,
    ours: Conn,
    theirs: Conn,
}

impl Pair {
    fn of(scene: &Scene<'_>) -> Result<Self, Failed> {
        let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
        let listener = server.listen_anywhere(Family::V4)?;
        let (ours, theirs) = establish(&mut client, &mut server, listener)?;
        Ok(Self { client, server, listener, ours, theirs })
    }

    /// From a port of the client's choice, which it can choose again.
    fn from_port(scene: &Scene<'_>, port: u16) -> Result<Self, Failed> {
        let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
        let listener = server.listen_anywhere(Family::V4)?;
        let ours = client.connect_from(local(port), &[SocketOption::ReuseAddress(true)], listener.address)?;
        let theirs = server.accept(listener)?;
        Ok(Self { client, server, listener, ours, theirs })
    }

    /// The client closes first, and its socket is in TIME_WAIT when this returns.
    fn close_client_first(&mut self, scene: &Scene<'_>) -> Outcome {
        self.client.close(self.ours.socket)?;
        self.server.receive_end(self.theirs.socket)?;
        self.server.close(self.theirs.socket)?;
        scene.ended(&self.ours, outbound(Wanted::TimeWait, self.client.who(), Some(self.client.who())))?;
        scene.watch().end(self.theirs.connection(&scene.net))?;
        Ok(())
    }

    /// The client closes, the server does not: an orphan in FIN_WAIT2 when this returns.
    fn close_client_only(&mut self, scene: &Scene<'_>) -> Outcome {
        self.client.close_in_fin_wait2(self.ours.socket)?;
        scene.ended(&self.ours, outbound(FIN_WAIT2, self.client.who(), Some(self.client.who())))?;
        Ok(())
    }

    /// The server closes first, and its end of the connection is in TIME_WAIT when this returns.
    fn close_server_first(&mut self, scene: &Scene<'_>) -> Outcome {
        self.server.close(self.theirs.socket)?;
        self.client.receive_end(self.ours.socket)?;
        self.client.close(self.ours.socket)?;
        scene.watch().end(self.theirs.connection(&scene.net))?;
        scene.watch().end(self.ours.connection(&scene.net))?;
        Ok(())
    }
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// The timewait socket of a connection went, once, for this reason, and is counted as its process's.
fn left(watch: &Watch, connection: Connection, who: &Fork, why: Leaving, within: Duration) -> Outcome {
    if !rung::is_upper(Observed::TimeWaitLeft)? {
        lesser("that a timewait socket is gone shows at the next dump, why it went does not");
        return Ok(());
    }
    let of_connection = |event: &Event| match event {
        Event::TimeWait(event) if event.connection == connection => match event.change {
            TimeWaitChange::Left(why) => Some(why),
            TimeWaitChange::Became | TimeWaitChange::SynRejected => None,
        },
        _ => None,
    };
    let what = format!("{connection:?} to leave");
    watch.wait_for(connection.netns, &what, within, |events| events.iter().find_map(of_connection))?;
    let events = watch.events(connection.netns);
    let reasons: Vec<Leaving> = events.iter().filter_map(of_connection).collect();
    assert_eq!(reasons, [why], "{}", watch.story(connection.netns));
    let closes = closes(&events, who);
    assert_eq!((closes.entered, &closes.left), (1, &[(why, 1)].into()), "{}", watch.story(connection.netns));
    Ok(())
}

/// What the events say of a process.
fn closes(events: &[Event], who: &Fork) -> Closes {
    let mut state = State::new(watch::now(), Limits::default());
    for event in events {
        state.feed(Input::Event(event.clone()));
    }
    state.turnover().by_process().find(|(key, _)| *key == who.key).map(|(_, closes)| closes.clone()).unwrap_or_default()
}

/// No timewait socket of the scene has gone, by its events and by the kernel's count.
fn nothing_left(scene: &Scene<'_>, there: u64) -> Outcome {
    let gone = scene
        .mark()?
        .into_iter()
        .find(|event| matches!(event, Event::TimeWait(event) if matches!(event.change, TimeWaitChange::Left(_))));
    assert_eq!(gone, None, "{}", scene.story());
    assert_eq!(scene.net.kernel_time_wait()?, there, "{}", scene.story());
    Ok(())
}

fn expired() -> Outcome {
    let scene = Scene::new()?;
    let mut pair = Pair::of(&scene)?;
    pair.close_client_first(&scene)?;
    left(scene.watch(), pair.ours.connection(&scene.net), pair.client.who(), Leaving::Expired, TIME_WAIT_OVER)
}

fn fin_never_came() -> Outcome {
    let scene = Scene::new()?;
    scene.net.sysctl("ipv4/tcp_fin_timeout", "1")?;
    let mut pair = Pair::of(&scene)?;
    pair.close_client_only(&scene)?;
    left(scene.watch(), pair.ours.connection(&scene.net), pair.client.who(), Leaving::FinNeverCame, SOON)
}

/// With tcp_tw_reuse, once it is more than a second old.
fn reused_by_a_connect_of_any_port() -> Outcome {
    let scene = Scene::new()?;
    scene.net.sysctl("ipv4/tcp_tw_reuse", "1")?;
    scene.net.sysctl("ipv4/ip_local_port_range", "40000 40000")?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen(local(30_000))?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;
    let mut pair = Pair { client, server, listener, ours, theirs };
    pair.close_client_first(&scene)?;
    std::thread::sleep(Duration::from_millis(2_100));
    let again = pair.client.connect(pair.listener.address)?;
    assert_eq!(again.local, pair.ours.local);
    left(scene.watch(), pair.ours.connection(&scene.net), pair.client.who(), Leaving::Reused, SOON)
}

/// Whatever tcp_tw_reuse says, and at any age: it needs timestamps, nothing else.
fn reused_by_a_connect_of_the_same_port() -> Outcome {
    let scene = Scene::new()?;
    scene.net.sysctl("ipv4/tcp_tw_reuse", "0")?;
    let mut pair = Pair::from_port(&scene, 41_000)?;
    pair.close_client_first(&scene)?;
    pair.client.connect_from(pair.ours.local, &[SocketOption::ReuseAddress(true)], pair.listener.address)?;
    left(scene.watch(), pair.ours.connection(&scene.net), pair.client.who(), Leaving::Reused, SOON)
}

fn fin_wait2_reused_by_a_connect_of_the_same_port() -> Outcome {
    let scene = Scene::new()?;
    let mut pair = Pair::from_port(&scene, 41_001)?;
    pair.close_client_only(&scene)?;
    // The other side still has the old connection: this one is not made at once, but it has the four numbers.
    let socket = pair.client.socket(Family::V4, &[SocketOption::ReuseAddress(true)])?;
    pair.client.bind(socket, pair.ours.local)?;
    pair.client.connect_on_in_background(socket, pair.listener.address)?;
    left(scene.watch(), pair.ours.connection(&scene.net), pair.client.who(), Leaving::Reused, SOON)
}

fn replaced_by_a_new_syn() -> Outcome {
    let scene = Scene::new()?;
    let mut pair = Pair::from_port(&scene, 41_002)?;
    pair.close_server_first(&scene)?;
    pair.client.connect_from(pair.ours.local, &[SocketOption::ReuseAddress(true)], pair.listener.address)?;
    left(scene.watch(), pair.theirs.connection(&scene.net), pair.server.who(), Leaving::NewSyn, SOON)
}

/// RFC 1337: something late is answered by the timewait socket, the other side, which knows nothing any more, answers
/// that with a RST, and TIME_WAIT is over.
fn killed_by_a_reset() -> Outcome {
    let (left_scene, right) = (Scene::new()?, Scene::new()?);
    left_scene.net.sysctl("ipv4/tcp_rfc1337", "0")?;
    let (client, late_fin, wire, ours) = time_wait_with_a_late_fin(&left_scene, &right)?;
    wire.deliver(Way::RightToLeft, &late_fin)?;
    left(left_scene.watch(), ours.connection(&left_scene.net), client.who(), Leaving::Reset, SOON)
}

/// The same with tcp_rfc1337: the RST is not heeded, and the late FIN starts the 60 s anew.
fn a_late_fin_takes_nothing_away() -> Outcome {
    let (left_scene, right) = (Scene::new()?, Scene::new()?);
    let (_client, late_fin, wire, _ours) = time_wait_with_a_late_fin(&left_scene, &right)?;
    wire.hold(Way::RightToLeft);
    wire.deliver(Way::RightToLeft, &late_fin)?;
    let reset = wire.take(Way::RightToLeft, |segment| segment.is_reset())?;
    wire.deliver(Way::RightToLeft, &reset)?;
    nothing_left(&left_scene, 1)
}

/// A connection over a wire that is in TIME_WAIT on the left and gone on the right; and the FIN of the right side,
/// which can be delivered again.
pub(crate) fn time_wait_with_a_late_fin(
    left: &Scene<'_>,
    right: &Scene<'_>,
) -> Result<(Actor, wire::Segment, Wire, Conn), Failed> {
    let wire = Wire::between(&left.net, &right.net)?;
    let (mut client, mut server) = (left.actor("ff-client")?, right.actor("ff-server")?);
    let listener = server.listen((wire::RIGHT, 0).into())?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;
    client.close_in_fin_wait2(ours.socket)?;
    wire.hold(Way::RightToLeft);
    server.close(theirs.socket)?;
    let fin = wire.take(Way::RightToLeft, |segment| segment.is_fin())?;
    wire.deliver(Way::RightToLeft, &fin)?;
    wire.release(Way::RightToLeft);
    left.watch().end(ours.connection(&left.net))?;
    right.watch().end(theirs.connection(&right.net))?;
    Ok((client, fin, wire, ours))
}

fn fin_wait2_killed_by_a_reset() -> Outcome {
    let scene = Scene::new()?;
    let mut pair = Pair::of(&scene)?;
    pair.close_client_only(&scene)?;
    assert_eq!(scene.net.kernel_time_wait()?, 1, "the minisocket is there");
    pair.server.set(pair.theirs.socket, SocketOption::LingerZero)?;
    pair.server.close(pair.theirs.socket)?;
    scene.watch().end(pair.theirs.connection(&scene.net))?;
    // The RST is on its way yet.
    scene.net.await_time_wait(0)?;
    left(scene.watch(), pair.ours.connection(&scene.net), pair.client.who(), Leaving::Reset, SOON)
}

fn fin_wait2_reset_by_data() -> Outcome {
    let scene = Scene::new()?;
    let mut pair = Pair::of(&scene)?;
    pair.close_client_only(&scene)?;
    pair.server.send(pair.theirs.socket, 5)?;
    scene.watch().end(pair.theirs.connection(&scene.net))?;
    left(scene.watch(), pair.ours.connection(&scene.net), pair.client.who(), Leaving::ResetAfterData, SOON)
}

/// The other side has lost its end, and connects anew from the same port: its SYN is answered by an ACK, and it answers
/// that with a RST.
fn fin_wait2_killed_by_a_peer_that_lost_it() -> Outcome {
    let scene = Scene::new()?;
    let mut pair = Pair::from_port(&scene, 41_003)?;
    pair.server.close_in_fin_wait2(pair.theirs.socket)?;
    scene.watch().end(pair.theirs.connection(&scene.net))?;
    pair.client.set(pair.ours.socket, SocketOption::Repair)?;
    pair.client.close(pair.ours.socket)?;
    let socket = pair.client.socket(Family::V4, &[SocketOption::ReuseAddress(true)])?;
    pair.client.bind(socket, pair.ours.local)?;
    pair.client.connect_on_in_background(socket, pair.listener.address)?;
    left(scene.watch(), pair.theirs.connection(&scene.net), pair.server.who(), Leaving::Reset, SOON)
}

fn destroyed_from_outside() -> Outcome {
    let scene = Scene::new()?;
    let mut pair = Pair::of(&scene)?;
    pair.close_client_first(&scene)?;
    let connection = pair.ours.connection(&scene.net);
    destroy::sock_destroy(&scene.net, &connection)?;
    if scene.net.kernel_time_wait()? == 1 {
        lesser("before Linux 6.1 the kernel does not destroy timewait sockets");
        return nothing_left(&scene, 1);
    }
    left(scene.watch(), connection, pair.client.who(), Leaving::Destroyed, SOON)
}

fn gone_with_its_namespace() -> Outcome {
    let watch = Watch::shared()?;
    let net = Net::passing()?;
    watch.begin(net.id());
    let (mut client, mut server) = (net.actor("ff-client")?, net.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    let (ours, theirs) = establish(&mut client, &mut server, listener)?;
    client.close(ours.socket)?;
    server.receive_end(theirs.socket)?;
    server.close(theirs.socket)?;
    let connection = ours.connection(&net);
    watch.end(connection)?;
    let who = client.who().clone();
    drop((client, server, net));
    left(watch, connection, &who, Leaving::NetnsGone, SOON)
}

fn became_time_wait() -> Outcome {
    let scene = Scene::new()?;
    let mut pair = Pair::of(&scene)?;
    pair.close_client_only(&scene)?;
    pair.server.close(pair.theirs.socket)?;
    scene.watch().end(pair.theirs.connection(&scene.net))?;
    nothing_left(&scene, 1)?;
    if !rung::is_upper(Observed::TimeWaitLeft)? {
        lesser("when a FIN_WAIT2 minisocket becomes TIME_WAIT is not seen");
        return Ok(());
    }
    let closes = closes(&scene.events(), pair.client.who());
    assert_eq!((closes.entered, closes.became), (1, 1), "{}", scene.story());
    Ok(())
}

/// tcp_max_tw_buckets is reached: the connection is gone without a trace, and its process is told of.
fn refused_by_the_limit() -> Outcome {
    let scene = Scene::new()?;
    scene.net.sysctl("ipv4/tcp_max_tw_buckets", "0")?;
    let (mut client, mut server) = (scene.actor("ff-client")?, scene.actor("ff-server")?);
    let listener = server.listen_anywhere(Family::V4)?;
    for _ in 0..3 {
        let (ours, theirs) = establish(&mut client, &mut server, listener)?;
        client.close(ours.socket)?;
        server.receive_end(theirs.socket)?;
        server.close(theirs.socket)?;
        scene.watch().end(ours.connection(&scene.net))?;
    }
    // Up to 5.17 none fits below a limit of 0, later one does.
    let there = scene.net.kernel_time_wait()?;
    scene.mark()?;
    let closes = closes(&scene.events(), client.who());
    if rung::is_upper(Observed::TimeWaitEntered)? {
        assert_eq!((closes.entered, closes.refused), (there, 3 - there), "{}", scene.story());
    } else {
        lesser("a connection refused a timewait socket counts as entered");
        assert_eq!((closes.entered, closes.refused), (3, 0), "{}", scene.story());
    }
    assert_eq!(closes.closed_first, 3, "{}", scene.story());
    Ok(())
}

fn a_syn_that_nobody_accepts_takes_nothing_away() -> Outcome {
    let scene = Scene::new()?;
    let mut pair = Pair::from_port(&scene, 41_004)?;
    pair.close_server_first(&scene)?;
    pair.server.close(pair.listener.socket)?;
    let socket = pair.client.socket(Family::V4, &[SocketOption::ReuseAddress(true)])?;
    pair.client.bind(socket, pair.ours.local)?;
    pair.client.connect_on_in_background(socket, pair.listener.address)?;
    nothing_left(&scene, 1)
}

/// As on a kernel without `inet_twsk_kill`: the destructor tells the same.
fn where_the_function_that_takes_them_away_is_inlined() -> Outcome {
    if !rung::is_upper(Observed::TimeWaitLeft)? {
        lesser("that a timewait socket is gone shows at the next dump, why it went does not");
        return Ok(());
    }
    let mut facts = HostFacts::gather();
    facts.functions.retain(|(function, _)| function != "inet_twsk_kill");
    let settings = rung::settings();
    let watch = Watch::carry_out(plan::plan(&facts, settings.highest_rung)?, &settings)?;
    let steps = watch.plan().steps;
    let has = |end: &str| steps.iter().flat_map(|step| &step.programs).any(|program| program.name.ends_with(end));
    assert_eq!([has("_tcp_twsk_destructor"), has("_inet_twsk_kill")], [true, false], "{steps:#?}");

    let scene = Scene::new()?;
    watch.begin(scene.net.id());
    let mut reused = Pair::from_port(&scene, 41_000)?;
    reused.close_client_first(&scene)?;
    scene.net.sysctl("ipv4/tcp_fin_timeout", "1")?;
    let mut orphaned = Pair::of(&scene)?;
    orphaned.close_client_only(&scene)?;
    reused.client.connect_from(reused.ours.local, &[SocketOption::ReuseAddress(true)], reused.listener.address)?;
    for (pair, why) in [(orphaned, Leaving::FinNeverCame), (reused, Leaving::Reused)] {
        left(&watch, pair.ours.connection(&scene.net), pair.client.who(), why, SOON)?;
    }
    Ok(())
}
