//! The actor's own side: read a command, do it, answer.

use std::{
    ffi::{CString, OsString},
    io::{self, BufRead as _, BufReader, Write as _},
    os::{
        fd::AsFd as _,
        unix::{ffi::OsStrExt as _, net::UnixStream},
    },
    process::{ExitCode, exit},
};

use rustix::{
    process::{Pid, Signal, WaitOptions, set_parent_process_death_signal, waitpid},
    thread::{Uid, set_name, set_thread_res_uid},
};

use super::{
    protocol::{Answer, Command, Reply},
    sockets::Sockets,
    uring,
};

/// Runs as an actor until told to exit, or until the test lets go of the other end.
pub(crate) fn run(comm: Option<OsString>) -> ExitCode {
    let started = comm
        .ok_or_else(|| io::Error::other("an actor needs a name"))
        .and_then(|comm| rename(comm.as_bytes()))
        .and_then(|()| io::stdin().as_fd().try_clone_to_owned());
    match started {
        Ok(control) => {
            obey(UnixStream::from(control), Sockets::default());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("actor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A child made by fork(), and the way to it.
struct Child {
    pid: Pid,
    control: BufReader<UnixStream>,
}

fn obey(control: UnixStream, mut sockets: Sockets) {
    let mut child = None;
    let mut control = BufReader::new(control);
    while let Some(command) = read(&mut control) {
        let answer = match command {
            Command::Exit => {
                // Answered first: the test waits for the end of the process by itself.
                let answer: Answer = Ok(Reply::Done);
                let _ = write(control.get_mut(), &answer);
                exit(0);
            }
            Command::Fork { comm } => fork(&comm, &mut sockets, &mut child),
            Command::Child(command) => forward(*command, &mut child),
            command => carry_out(command, &mut sockets),
        };
        if write(control.get_mut(), &answer.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))).is_err() {
            return;
        }
    }
}

fn carry_out(command: Command, sockets: &mut Sockets) -> io::Result<Reply> {
    match command {
        Command::BecomeUser { uid } => {
            let uid = Uid::from_raw(uid);
            set_thread_res_uid(uid, uid, uid)?;
            Ok(Reply::Done)
        }
        Command::Rename { comm } => rename(&comm).map(|()| Reply::Done),
        Command::UringConnect { fd, remote } => {
            uring::connect(sockets.get(fd)?, remote)?;
            sockets.describe(fd)
        }
        Command::UringClose { fd } => uring::close(sockets.take(fd)?).map(|()| Reply::Done),
        Command::UringBind { fd, address } => uring::bind(sockets.get(fd)?, address).map(|()| Reply::Done),
        Command::UringListen { fd, backlog } => uring::listen(sockets.get(fd)?, backlog).map(|()| Reply::Done),
        command => sockets.carry_out(command),
    }
}

fn rename(comm: &[u8]) -> io::Result<()> {
    Ok(set_name(&CString::new(comm)?)?)
}

/// Makes a child that has copies of all descriptors and obeys commands of its own.
fn fork(comm: &[u8], sockets: &mut Sockets, child: &mut Option<Child>) -> io::Result<Reply> {
    let (ours, theirs) = UnixStream::pair()?;
    // SAFETY: an actor has one thread, so the child finds no lock held by a thread that is not there any more.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(ours);
            *child = None;
            // Should the parent be killed, the child must not stay behind.
            let ready =
                set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into).and_then(|()| rename(comm));
            if ready.is_ok() {
                obey(theirs, std::mem::take(sockets));
            }
            exit(0);
        }
        pid => {
            let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::Other)?;
            *child = Some(Child { pid, control: BufReader::new(ours) });
            Ok(Reply::Pid(pid.as_raw_nonzero().get().unsigned_abs()))
        }
    }
}

fn forward(command: Command, child: &mut Option<Child>) -> io::Result<Reply> {
    let Some(Child { pid, control }) = child else { return Err(io::Error::from_raw_os_error(libc::ECHILD)) };
    let is_exit = matches!(command, Command::Exit);
    write(control.get_mut(), &command)?;
    let answer: Answer = read(control).ok_or(io::ErrorKind::UnexpectedEof)?;
    if is_exit {
        // A process lets go of its descriptors before it can be waited for.
        waitpid(Some(*pid), WaitOptions::empty())?;
        *child = None;
    }
    answer.map_err(io::Error::from_raw_os_error)
}

/// The next value; none at the end, or if it is not to be understood.
fn read<T: serde::de::DeserializeOwned>(control: &mut BufReader<UnixStream>) -> Option<T> {
    let mut line = String::new();
    match control.read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => serde_json::from_str(&line).ok(),
    }
}

fn write<T: serde::Serialize>(control: &mut UnixStream, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    control.write_all(&line)
}
