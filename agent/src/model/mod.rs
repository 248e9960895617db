//! The words of the domain: plain data, no I/O, no clock. Everything else in the agent speaks in these.

mod census;
mod ending;
pub mod errno;
mod event;
mod name;
mod process;
mod rows;
mod socket;
mod tcp_state;
mod time;
mod timewait;

pub use census::{Census, HeldSocket, NetnsCensus, NetnsSettings, SocketHolders};
pub use ending::{ConnectFailure, Ending, Reset};
pub use event::{
    Asker, Call, ClosedByPeer, Event, OpenKind, RefusedCall, Retraction, SocketFacts, SocketOptions, Transition,
};
pub use name::Name;
pub use process::{Container, Process, ProcessKey, Task};
pub use rows::{RowPlace, Rows};
pub use socket::{Connection, HeldOptions, Inode, Netns, SocketId, SocketRow, TimeWaitId, TimeWaitSubstate};
pub use tcp_state::TcpState;
pub use time::Timestamp;
pub use timewait::{Leaving, TimeWaitChange, TimeWaitEvent, TimeWaitMade};
