//! How rows are played, and how what was reported is judged.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use firstfin::{
    model::{Call, Event, SocketOptions},
    report::{BindFailure, Holder, HolderKind},
};
use libtest_mimic::Failed;

use super::row::{Claim, Kind, Row, Wants};
use crate::{
    actor::{Actor, Command, Family, Fork, Protocol, Socket, establish},
    case::Outcome,
    scene::{NOBODY, Scene, errno_of},
    watch::{self, NO_EVENT, Wishes},
};

/// Ports of the rows, outside the range the kernel chooses from.
const FIRST_PORT: u16 = 20_000;

/// A refusal as it is to be reported, or was.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) call: Call,
    pub(super) local: Option<SocketAddr>,
    pub(super) options: SocketOptions,
    pub(super) who: Fork,
    pub(super) uid: u32,
}

/// A row whose first half is there.
struct Ready {
    row: Row,
    /// The port, and the address that has it
    held: SocketAddr,
    /// The other end of it, if it is a connection
    remote: Option<SocketAddr>,
    /// What the socket will ask for
    wanted: SocketAddr,
    socket: Socket,
    /// Before anything of it was there
    since: Instant,
}

/// The processes of a play.
struct Cast {
    /// What is there is its own
    holder: Actor,
    /// The other end of its connections
    peer: Actor,
    intruder: Actor,
    /// The same, not root
    stranger: Actor,
}

impl Cast {
    fn new(scene: &Scene<'_>) -> Result<Self, Failed> {
        let mut stranger = scene.actor("ff-stranger")?;
        stranger.become_user(NOBODY)?;
        let (holder, peer, intruder) =
            (scene.actor("ff-holder")?, scene.actor("ff-peer")?, scene.actor("ff-intruder")?);
        Ok(Self { holder, peer, intruder, stranger })
    }

    fn asking(&mut self, wants: &Wants) -> &mut Actor {
        if wants.by_another_user { &mut self.stranger } else { &mut self.intruder }
    }

    /// Makes what is there, and the socket that will ask.
    fn prepare(&mut self, scene: &Scene<'_>, row: Row, port: u16) -> Result<Ready, Failed> {
        let since = Instant::now();
        let (there, wants) = row;
        let held_ip = there.claim.address.parse()?;
        let mut held = SocketAddr::new(held_ip, port);
        let mut remote = None;
        let mut listens = None;
        match there.kind {
            Kind::Listening | Kind::Bound => {
                let socket = bound_socket(&mut self.holder, &there.claim, held)?;
                listens = (there.kind == Kind::Listening).then_some(socket);
            }
            Kind::TimeWaitOfServer => {
                let socket = bound_socket(&mut self.holder, &there.claim, held)?;
                let listener = self.holder.listen_on(socket, 8)?;
                let (theirs, ours) = establish(&mut self.peer, &mut self.holder, listener)?;
                scene.leave_time_wait((&mut self.holder, ours), (&mut self.peer, theirs))?;
                remote = Some(ours.remote);
            }
            Kind::Client | Kind::TimeWaitOfClient => {
                let listener = self.peer.listen(held)?;
                let (ours, theirs) = establish(&mut self.holder, &mut self.peer, listener)?;
                assert_eq!(ours.local.ip(), held_ip, "the kernel's choice");
                if there.kind == Kind::TimeWaitOfClient {
                    scene.leave_time_wait((&mut self.holder, ours), (&mut self.peer, theirs))?;
                }
                (held, remote) = (ours.local, Some(ours.remote));
            }
        }
        if there.has_neighbour {
            self.peer.listen((Ipv4Addr::new(127, 0, 0, 3), held.port()).into())?;
        }
        let wanted = SocketAddr::new(wants.claim.address.parse()?, held.port());
        let asking = self.asking(&wants);
        let socket = match wants.call {
            Call::Bind => asking.socket_of(Family::of(wanted), wants.claim.protocol, wants.claim.options)?,
            Call::Listen => bound_socket(asking, &wants.claim, wanted)?,
        };
        if let Some(socket) = listens {
            self.holder.listen_on(socket, 8)?;
        }
        Ok(Ready { row, held, remote, wanted, socket, since })
    }

    /// Makes the call of a row.
    fn ask(&mut self, ready: &Ready) -> io::Result<()> {
        let Ready { row: (_, wants), wanted, socket, .. } = ready;
        let asking = self.asking(wants);
        match (wants.call, wants.through_io_uring) {
            (Call::Bind, false) => asking.bind(*socket, *wanted),
            (Call::Bind, true) => asking.done(Command::UringBind { fd: socket.0, address: *wanted }),
            (Call::Listen, false) => asking.listen_on(*socket, 8).map(drop),
            (Call::Listen, true) => asking.done(Command::UringListen { fd: socket.0, backlog: 8 }),
        }
    }
}

fn bound_socket(actor: &mut Actor, claim: &Claim, address: SocketAddr) -> io::Result<Socket> {
    let socket = actor.socket_of(Family::of(address), claim.protocol, claim.options)?;
    actor.bind(socket, address)?;
    Ok(socket)
}

/// Plays the rows under the eyes of one session, each with a port of its own, and compares: what the kernel says, what
/// is reported, and who is named as holder.
pub(super) fn play(rows: &[Row]) -> Outcome {
    let scene = Scene::new()?;
    let mut cast = Cast::new(&scene)?;
    let holder = cast.holder.who().clone();
    let has_exited = rows.iter().any(|(there, _)| there.kind == Kind::TimeWaitOfServer);
    let ((answers, expected, failures, events), seen) = watch::session(&Wishes::of(&scene.net), || {
        let ready = rows.iter().zip(FIRST_PORT..).map(|(&row, port)| cast.prepare(&scene, row, port));
        let ready = ready.collect::<Result<Vec<_>, _>>()?;
        if has_exited {
            cast.holder.leave()?;
        }
        let mut answers = Vec::new();
        let (mut expected, mut failures) = (Vec::new(), Vec::new());
        for ready in ready {
            let wants = ready.row.1;
            let answer = match cast.ask(&ready) {
                Ok(()) => None,
                refused @ Err(_) => Some(errno_of(refused)?),
            };
            answers.push((ready.row, answer));
            if wants.is_reported()? {
                let local = SocketAddr::new(ready.wanted.ip().to_canonical(), ready.wanted.port());
                let who = cast.asking(&wants).who().clone();
                let uid = if wants.by_another_user { NOBODY } else { 0 };
                let options = wants.claim.reported_options();
                expected.push(Refused { call: wants.call, local: Some(local), options, who, uid });
                failures.push(ready);
            }
        }
        let events = scene.mark()?;
        if has_exited {
            // Nor does the server that could not start stay: it is named all the same.
            cast.intruder.leave()?;
        }
        Ok((answers, expected, failures, events))
    })?;

    let wrong: Vec<_> = answers
        .iter()
        .filter(|((_, wants), answer)| *answer != (!wants.is_granted).then_some(libc::EADDRINUSE))
        .collect();
    assert!(wrong.is_empty(), "the kernel says otherwise: {wrong:#?}");
    assert_reported(&scene, &events, &seen, &expected)?;
    let reported = &seen.report.bind_failures;
    assert_eq!(reported.len(), expected.len(), "{reported:#?}");
    for (ready, expected) in failures.iter().zip(&expected) {
        let local = expected.local.map(|local| local.to_string());
        let failure = reported.iter().find(|failure| failure.call == expected.call && failure.local == local);
        let failure = failure.ok_or_else(|| format!("{:?} is not in {reported:#?}", ready.row))?;
        assert_eq!((failure.count, failure.errno), (1, libc::EADDRINUSE.unsigned_abs()), "{failure:?}");
        let who = (failure.process.pid, &failure.process.comm);
        assert_eq!(who, (expected.who.key.tgid, &expected.who.comm), "{failure:?}");
        assert_eq!(failure.options, expected.options, "{failure:?}");
        assert_holder(ready, failure, &holder, has_exited);
    }
    Ok(())
}

/// Asserts that these refusals were reported in this order and no others, by the shared programs as by the session.
///
/// # Errors
/// The session says that it lost some.
pub(super) fn assert_reported(
    scene: &Scene<'_>,
    events: &[Event],
    seen: &watch::Observed,
    expected: &[Refused],
) -> Outcome {
    let expected: Vec<_> = expected.iter().map(Refused::line).collect();
    for (events, whose) in [(events, "shared programs"), (&seen.events, "session")] {
        let refusals = events.iter().filter_map(|event| match event {
            Event::Refused(call) => {
                assert_eq!(call.errno, libc::EADDRINUSE.unsigned_abs(), "{call:?}");
                let who = Fork { key: call.task.key, comm: call.task.comm.clone() };
                Some(Refused { call: call.call, local: call.local, options: call.options, who, uid: call.task.uid })
            }
            _ => None,
        });
        let reported: Vec<_> = refusals.map(|refused| refused.line()).collect();
        let session = &seen.report.session;
        let (lost, blind_spots) = (&session.events.lost_by_kind, &session.blind_spots);
        let story = || format!("{reported:#?}, wanted {expected:#?}\n{lost:?} {blind_spots:#?}\n{}", scene.story());
        let is_counted =
            lost.refused_calls > 0 || blind_spots.iter().any(|spot| spot.contains("could not be followed"));
        if reported.len() < expected.len() && is_counted {
            return Err(format!("{NO_EVENT}, and it was counted as lost: {whose}: {}", story()).into());
        }
        assert!(reported == expected, "{whose}: {}", story());
    }
    Ok(())
}

impl Refused {
    /// All of it in a line, for comparing.
    fn line(&self) -> String {
        let Self { call, local, options, who, uid } = self;
        format!("{call:?} {local:?} {options:?} {} {:?} uid {uid}", who.comm, who.key)
    }
}

/// Asserts that a failure names the one socket that is there, and its process.
fn assert_holder(ready: &Ready, failure: &BindFailure, holder: &Fork, has_exited: bool) {
    let (there, _) = ready.row;
    let [found] = &failure.holders[..] else { panic!("one holder expected for {:?}: {failure:#?}", ready.row) };
    let Holder { kind, local, remote, process, seconds_left, sockets, also_open_in, options } = found;
    assert_eq!((*kind, *sockets), (there.holder_kind(), 1), "{failure:?}");
    assert_eq!(local, &ready.held.to_string(), "{failure:?}");
    assert_eq!(remote, &ready.remote.map(|remote| remote.to_string()), "{failure:?}");
    let process = process.as_ref().map(|process| (process.pid, &process.comm, process.exited));
    assert_eq!(process, Some((holder.key.tgid, &holder.comm, has_exited)), "{failure:?}");
    assert_eq!(seconds_left.is_some(), *kind == HolderKind::TimeWait, "{failure:?}");
    assert_eq!(also_open_in, &[], "{failure:?}");
    if there.claim.protocol == Protocol::Tcp {
        let wanted = there.claim.reported_options();
        let known = (options.reuse_address, options.reuse_port);
        assert_eq!(known, (Some(wanted.reuse_address), Some(wanted.reuse_port)), "{failure:?}");
        // All of it is known, so there is no doubt about the rule.
        let rule = failure.refusal.as_ref().and_then(|refusal| refusal.rule);
        assert!(rule.is_some(), "{:?}: {failure:#?}", ready.row);
    }
    // As old as it can be by now, and a second for rounding.
    let least = 59_u64.saturating_sub(ready.since.elapsed().as_secs());
    assert!(seconds_left.is_none_or(|left| (least..=60).contains(&left)), "{least} s at least: {failure:?}");
}
