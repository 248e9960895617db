//! A test as the harness sees it: a name, what it needs of the host, and what it does.

use std::{
    cell::Cell,
    panic,
    sync::{Mutex, MutexGuard, PoisonError},
};

use libtest_mimic::{Completion, Failed, Trial};

use crate::{actor, containers::Tools, watch::NO_EVENT, wire};

/// How a test ends.
pub(crate) type Outcome = Result<(), Failed>;

/// What a test needs besides root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// TUN devices
    Wire,
    /// io_uring
    Uring,
    /// bind() and listen() through io_uring
    UringBind,
    /// MPTCP sockets
    Mptcp,
    /// IP_LOCAL_PORT_RANGE
    PortRange,
    /// containerd, and what it takes to run a container
    Containerd,
    /// Docker, likewise
    Docker,
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Self::Wire => wire::is_usable().err(),
            Self::Uring => actor::is_uring_usable().err(),
            Self::UringBind => actor::has_uring_bind().err(),
            Self::PortRange => actor::is_port_range_usable().err(),
            Self::Containerd => Tools::lacks_containerd(),
            Self::Docker => Tools::lacks_docker(),
            Self::Mptcp => rustix::net::socket(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::STREAM,
                Some(rustix::net::ipproto::MPTCP),
            )
            .err()
            .map(|error| format!("MPTCP socket: {error}")),
        }
    }
}

/// Set where any test that fails is run once more.
const SECOND_RUN: &str = "FIRSTFIN_SECOND_RUN";

thread_local! {
    static NAME: Cell<&'static str> = const { Cell::new("?") };
}

/// Says that the running test, should it pass, has shown less than on the highest rung: what is documented for this one.
/// The tables of compatibility are made of this.
pub(crate) fn lesser(what: &str) {
    eprintln!("LESSER {}: {what}", NAME.get());
}

/// Held by tests of thousands of connections, one at a time: in an emulator two of them together take longer than
/// TIME_WAIT lasts.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a test that is skipped, with the reason, where it cannot be run.
pub(crate) fn trial(name: &'static str, needs: &'static [Need], body: fn() -> Outcome) -> Trial {
    Trial::ignorable_test(name, move || {
        let missing = if rustix::process::geteuid().is_root() {
            needs.iter().find_map(|need| need.missing())
        } else {
            Some("not root: programs cannot be attached, nor namespaces made".to_owned())
        };
        match missing {
            Some(why) => {
                eprintln!("SKIP {name}: {why}");
                Ok(Completion::ignored_with(why))
            }
            None => {
                NAME.set(name);
                run(name, body).map(|()| Completion::Completed)
            }
        }
    })
}

/// Runs a test, and once more if an event did not come, and says so.
///
/// There are kernels, of sandboxes and hosted CI, that run no program in the context of a process they protect. What a
/// packet or a timer does while it interrupts that process no session is told of, and nothing counts it: seen about once
/// in fifty runs of all tests. A fault of ours that loses an event shows in the second run, too; anything else that is
/// wrong fails at once.
///
/// Not so where [`SECOND_RUN`] is set, as it is in emulated machines: there a CPU stands still for longer than the kernel's
/// timers are meant to wait, so whatever failed is run once more, and `cargo xtask vm` tells of it.
fn run(name: &str, body: fn() -> Outcome) -> Outcome {
    let Err(failed) = caught(body) else { return Ok(()) };
    let message = failed.message().unwrap_or("it says nothing");
    if message.starts_with(NO_EVENT) {
        eprintln!("AGAIN {name}: {message}");
    } else if std::env::var_os(SECOND_RUN).is_some() {
        // Its first line, and below it the rest.
        eprintln!("UNSTEADY {name}: {}", message.replace('\n', "\n    "));
    } else {
        return Err(failed);
    }
    body()
}

/// What a test ends with, also one that panics.
fn caught(body: fn() -> Outcome) -> Outcome {
    panic::catch_unwind(body).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        Err(text.unwrap_or("panicked, and not with a text").into())
    })
}

/// Lists the tests of a module by their functions' names.
macro_rules! trials {
    ($module:literal: $($name:ident $(needs $need:ident)?),* $(,)?) => {
        vec![$($crate::case::trial(
            concat!($module, "::", stringify!($name)),
            &[$($crate::case::Need::$need)?],
            $name,
        )),*]
    };
}
pub(crate) use trials;
