//! What the agent reads of the running kernel without a program: sockets by sock_diag, namespaces, processes, counters
//! and settings. Each is checked against another witness: the sockets the test made, procfs, the kernel's behaviour.

mod reach;
mod sockets;

use std::{
    io,
    os::fd::AsFd,
    process::{Child, Command, Stdio},
};

use firstfin::model::Inode;
use libtest_mimic::Trial;
pub(crate) use sockets::kernel_is_at_least;

pub(crate) fn tests() -> Vec<Trial> {
    let mut tests = sockets::tests();
    tests.extend(reach::tests());
    tests
}

/// A process that does nothing, until it is dropped.
pub(super) struct Idle(Child);

impl Idle {
    pub(super) fn start(stdin: Stdio) -> io::Result<Self> {
        Command::new("sleep").arg("600").stdin(stdin).spawn().map(Self)
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn end(&mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // It may have been ended already.
        let _ = self.end();
    }
}

pub(super) fn inode(socket: impl AsFd) -> io::Result<Option<Inode>> {
    Ok(Some(Inode(rustix::fs::fstat(socket)?.st_ino)))
}
