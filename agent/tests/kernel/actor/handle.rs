//! The test's side of an actor: start it, tell it what to do, end it.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    os::{
        fd::{AsFd as _, OwnedFd, RawFd},
        unix::{ffi::OsStrExt as _, net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command as Program, Stdio},
    time::Duration,
};

use firstfin::model::{Connection, Name, ProcessKey, TcpState};
use rustix::{
    process::{Signal, set_parent_process_death_signal},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{
    protocol::{Answer, Command, Family, Protocol, Reply, SocketOption},
    sockets::loopback,
};
use crate::netns::Net;

/// How long a test waits for an answer. Longer than any call of an actor blocks, shorter than anybody's patience.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// The same for thousands of connections.
const MANY_WITHIN: Duration = Duration::from_secs(120);

/// A workload process, in the network namespace it was started in. It ends with this value.
pub(crate) struct Actor {
    process: Child,
    control: BufReader<UnixStream>,
    who: Fork,
}

/// What names a workload process.
#[derive(Clone, Debug)]
pub(crate) struct Fork {
    /// Its process id and start time
    pub(crate) key: ProcessKey,
    /// Its name as it is to be reported
    pub(crate) comm: Name,
}

/// An open socket of an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket(pub(crate) RawFd);

/// A connected socket of an actor, with the addresses the process itself sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conn {
    /// The socket
    pub(crate) socket: Socket,
    /// getsockname()
    pub(crate) local: SocketAddr,
    /// getpeername()
    pub(crate) remote: SocketAddr,
}

impl Conn {
    /// How this end of the connection is to be reported: with IPv4-mapped addresses as IPv4.
    pub(crate) fn connection(&self, net: &Net) -> Connection {
        Connection { netns: net.id(), local: canonical(self.local), remote: canonical(self.remote) }
    }
}

/// A listening socket of an actor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listener {
    /// The socket
    pub(crate) socket: Socket,
    /// getsockname()
    pub(crate) address: SocketAddr,
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Actor {
    /// Starts a process named `comm` in `net`.
    pub(crate) fn start(net: &Net, comm: &[u8]) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let namespace = net.handle()?;
        let mut program = Program::new("/proc/self/exe");
        program.arg("actor").arg(std::ffi::OsStr::from_bytes(comm));
        program.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        // SAFETY: between fork() and exec() two system calls are made, and nothing is allocated or locked.
        unsafe {
            program.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
            });
        }
        let process = program.spawn()?;
        let key = process_key(process.id())?;
        let mut actor =
            Self { process, control: BufReader::new(ours), who: Fork { key, comm: Name::from_bytes(comm) } };
        // Its first answer is the sign that it runs under its own name.
        actor.done(Command::Rename { comm: comm.to_vec() })?;
        Ok(actor)
    }

    /// Process id.
    pub(crate) const fn pid(&self) -> u32 {
        self.who.key.tgid
    }

    /// Who this is.
    pub(crate) const fn who(&self) -> &Fork {
        &self.who
    }

    /// A socket with options.
    pub(crate) fn socket(&mut self, family: Family, options: &[SocketOption]) -> io::Result<Socket> {
        self.socket_of(family, Protocol::Tcp, options)
    }

    /// A socket that need not be TCP.
    pub(crate) fn socket_of(
        &mut self,
        family: Family,
        protocol: Protocol,
        options: &[SocketOption],
    ) -> io::Result<Socket> {
        let (socket, ..) = self.opened(Command::Socket { family, protocol })?;
        for &option in options {
            self.set(socket, option)?;
        }
        Ok(socket)
    }

    /// setsockopt(2)
    pub(crate) fn set(&mut self, socket: Socket, option: SocketOption) -> io::Result<()> {
        self.done(Command::Set { fd: socket.0, option })
    }

    /// bind(2)
    pub(crate) fn bind(&mut self, socket: Socket, address: SocketAddr) -> io::Result<()> {
        self.done(Command::Bind { fd: socket.0, address })
    }

    /// listen(2) on a socket that may be bound.
    pub(crate) fn listen_on(&mut self, socket: Socket, backlog: i32) -> io::Result<Listener> {
        let (socket, address, _) = self.opened(Command::Listen { fd: socket.0, backlog })?;
        Ok(Listener { socket, address })
    }

    /// A listener on this address, with SO_REUSEADDR as most servers have it.
    pub(crate) fn listen(&mut self, address: SocketAddr) -> io::Result<Listener> {
        let socket = self.socket(Family::of(address), &[SocketOption::ReuseAddress(true)])?;
        self.bind(socket, address)?;
        self.listen_on(socket, 128)
    }

    /// A listener on the loopback address of a family, on a port of the kernel's choice.
    pub(crate) fn listen_anywhere(&mut self, family: Family) -> io::Result<Listener> {
        self.listen(SocketAddr::new(loopback(family), 0))
    }

    /// connect(2) with a new socket.
    pub(crate) fn connect(&mut self, remote: SocketAddr) -> io::Result<Conn> {
        let socket = self.socket(Family::of(remote), &[])?;
        self.connect_on(socket, remote)
    }

    /// connect(2)
    pub(crate) fn connect_on(&mut self, socket: Socket, remote: SocketAddr) -> io::Result<Conn> {
        self.connected(Command::Connect { fd: socket.0, remote })
    }

    /// connect(2) with a new socket that was bound before.
    pub(crate) fn connect_from(
        &mut self,
        local: SocketAddr,
        options: &[SocketOption],
        remote: SocketAddr,
    ) -> io::Result<Conn> {
        let socket = self.socket(Family::of(remote), options)?;
        self.bind(socket, local)?;
        self.connect_on(socket, remote)
    }

    /// accept(2)
    pub(crate) fn accept(&mut self, listener: Listener) -> io::Result<Conn> {
        self.connected(Command::Accept { listener: listener.socket.0 })
    }

    /// connect(2) through io_uring.
    pub(crate) fn uring_connect(&mut self, socket: Socket, remote: SocketAddr) -> io::Result<Conn> {
        self.connected(Command::UringConnect { fd: socket.0, remote })
    }

    /// Sends a command whose answer is a connected socket.
    pub(crate) fn connected(&mut self, command: Command) -> io::Result<Conn> {
        match self.opened(command)? {
            (socket, local, Some(remote)) => Ok(Conn { socket, local, remote }),
            (.., None) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// connect(2) that does not wait for the handshake; the local address is chosen when it returns.
    pub(crate) fn connect_in_background(&mut self, remote: SocketAddr) -> io::Result<Conn> {
        let socket = self.socket(Family::of(remote), &[])?;
        self.connect_on_in_background(socket, remote)
    }

    /// The same with a socket of the caller's.
    pub(crate) fn connect_on_in_background(&mut self, socket: Socket, remote: SocketAddr) -> io::Result<Conn> {
        let (socket, local, _) = self.opened(Command::ConnectInBackground { fd: socket.0, remote })?;
        Ok(Conn { socket, local, remote })
    }

    /// close(2)
    pub(crate) fn close(&mut self, socket: Socket) -> io::Result<()> {
        self.done(Command::Close { fd: socket.0 })
    }

    /// shutdown(2) of the sending side.
    pub(crate) fn shutdown_write(&mut self, socket: Socket) -> io::Result<()> {
        self.done(Command::ShutdownWrite { fd: socket.0 })
    }

    /// shutdown(2), and close(2) when the FIN has been acknowledged: leaves a FIN_WAIT2 minisocket for certain.
    pub(crate) fn close_in_fin_wait2(&mut self, socket: Socket) -> io::Result<()> {
        self.shutdown_write(socket)?;
        self.await_state(socket, TcpState::FinWait2)?;
        self.close(socket)
    }

    /// send(2)
    pub(crate) fn send(&mut self, socket: Socket, bytes: usize) -> io::Result<()> {
        self.done(Command::Send { fd: socket.0, bytes })
    }

    /// Waits for that many bytes.
    pub(crate) fn receive(&mut self, socket: Socket, bytes: usize) -> io::Result<()> {
        self.done(Command::Receive { fd: socket.0, bytes })
    }

    /// Waits for the other side's FIN.
    pub(crate) fn receive_end(&mut self, socket: Socket) -> io::Result<()> {
        self.done(Command::ReceiveEnd { fd: socket.0 })
    }

    /// Waits until the kernel says the socket is in this state.
    pub(crate) fn await_state(&mut self, socket: Socket, state: TcpState) -> io::Result<()> {
        self.done(Command::AwaitState { fd: socket.0, state: state as u8 })
    }

    /// fork(2)
    pub(crate) fn fork(&mut self, comm: &[u8]) -> io::Result<Fork> {
        match self.ask(&Command::Fork { comm: comm.to_vec() })? {
            Reply::Pid(pid) => Ok(Fork { key: process_key(pid)?, comm: Name::from_bytes(comm) }),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends the child with everything it has open, and waits for that.
    pub(crate) fn child_exit(&mut self) -> io::Result<()> {
        self.done(Command::Child(Box::new(Command::Exit)))
    }

    /// _exit(2) with everything open.
    pub(crate) fn exit(mut self) -> io::Result<Fork> {
        self.leave()?;
        Ok(self.who.clone())
    }

    /// The same, for one that others are still to be compared with. It answers no more.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        self.done(Command::Exit)?;
        // A process lets go of its descriptors before it can be waited for.
        self.process.wait()?;
        Ok(())
    }

    /// SIGKILL with everything open.
    pub(crate) fn kill(mut self) -> io::Result<Fork> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(self.who.clone())
    }

    /// Gives up root.
    pub(crate) fn become_user(&mut self, uid: u32) -> io::Result<()> {
        self.done(Command::BecomeUser { uid })
    }

    /// Begins `count` connections one after the other, from ports of the kernel's choice or from `from` upwards;
    /// [`Self::ports`] waits for their end.
    pub(crate) fn begin_churn(
        &mut self,
        remote: SocketAddr,
        count: usize,
        closes_first: bool,
        from: Option<u16>,
    ) -> io::Result<()> {
        self.tell(&Command::Churn { remote, count, closes_first, from })
    }

    /// Begins to serve `count` connections; [`Self::finish`] waits for their end.
    pub(crate) fn begin_serve(&mut self, listener: Listener, count: usize, closes_first: bool) -> io::Result<()> {
        self.tell(&Command::Serve { listener: listener.socket.0, count, closes_first })
    }

    /// Begins to send that many bytes; [`Self::finish`] waits until the last one is on its way.
    pub(crate) fn begin_send(&mut self, socket: Socket, bytes: usize) -> io::Result<()> {
        self.tell(&Command::Send { fd: socket.0, bytes })
    }

    /// The local ports of the connections begun with [`Self::begin_churn`], in the order of their use.
    pub(crate) fn ports(&mut self) -> io::Result<Vec<u16>> {
        match self.answer(MANY_WITHIN)? {
            Reply::Ports(ports) => Ok(ports),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for what was begun.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.answer(MANY_WITHIN).map(drop)
    }

    /// The local address of a socket.
    pub(crate) fn local_address(&mut self, socket: Socket) -> io::Result<SocketAddr> {
        self.opened(Command::Describe { fd: socket.0 }).map(|(_, local, _)| local)
    }

    /// Sends a command that has nothing to tell.
    pub(crate) fn done(&mut self, command: Command) -> io::Result<()> {
        match self.ask(&command)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn opened(&mut self, command: Command) -> io::Result<(Socket, SocketAddr, Option<SocketAddr>)> {
        match self.ask(&command)? {
            Reply::Socket { fd, local, remote } => Ok((Socket(fd), local, remote)),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&mut self, command: &Command) -> io::Result<Reply> {
        self.tell(command)?;
        self.answer(ANSWER_WITHIN)
    }

    fn tell(&mut self, command: &Command) -> io::Result<()> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        self.control.get_mut().write_all(&line)
    }

    fn answer(&mut self, within: Duration) -> io::Result<Reply> {
        self.control.get_ref().set_read_timeout(Some(within))?;
        let mut line = String::new();
        match self.control.read_line(&mut line) {
            Ok(0) => return Err(io::Error::other(format!("actor {} is gone", self.who.comm))),
            Err(error) => return Err(io::Error::other(format!("no answer from actor {}: {error}", self.who.comm))),
            Ok(_) => {}
        }
        let answer: Answer = serde_json::from_str(&line)?;
        answer.map_err(io::Error::from_raw_os_error)
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended already; either way it is waited for, so that its sockets are closed before its namespace.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn unexpected(reply: &Reply) -> io::Error {
    io::Error::other(format!("actor answered {reply:?}"))
}

/// What `/proc` says of a process that runs now.
fn process_key(pid: u32) -> io::Result<ProcessKey> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    let stat = String::from_utf8_lossy(&stat);
    // The name is in parentheses and may hold anything, also parentheses; the start time is the 20th field behind it.
    let start_ticks = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)?.parse().ok());
    let start_ticks = start_ticks.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat: {stat}")))?;
    Ok(ProcessKey { tgid: pid, start_ticks })
}

/// A connection between two actors: the client's end and the server's.
pub(crate) fn establish(client: &mut Actor, server: &mut Actor, listener: Listener) -> io::Result<(Conn, Conn)> {
    let ours = client.connect(listener.address)?;
    let theirs = server.accept(listener)?;
    if theirs.remote.port() == ours.local.port() { Ok((ours, theirs)) } else { Err(io::Error::other("a stranger")) }
}
