//! Workload processes: real programs with a name of their own that do, one step at a time, what a test tells them.
//!
//! The test binary starts itself again as `actor COMM`, inside the network namespace of the test. The actor obeys one
//! [`Command`] a line on its standard input, which is one end of a socket pair, and writes one answer a line back.
//! Nothing happens by itself and nothing happens twice, so a test knows which process made which system call, and
//! that the call has returned, before it looks at what was reported.

mod handle;
mod process;
mod protocol;
mod sockets;
mod uring;

pub(crate) use handle::{Actor, Conn, Fork, Listener, Socket, establish};
pub(crate) use process::run;
pub(crate) use protocol::{Command, Family, Protocol, REUSE, SocketOption};
pub(crate) use sockets::{await_state, is_port_range_usable, receive_end, set_number};
pub(crate) use uring::{has_bind as has_uring_bind, is_usable as is_uring_usable};
