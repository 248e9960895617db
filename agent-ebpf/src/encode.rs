//! Records as they lie in the ring buffer, for those who play the kernel: tests and benchmarks.

use zerocopy::IntoBytes as _;

use crate::{Ends, Header, RecordKind, TimeWaitRecord, TransitionRecord, conn_flag};

impl Ends {
    fn write(self, bytes: &mut Vec<u8>) {
        match self {
            Self::V4(local, remote) => bytes.extend([local, remote].concat()),
            Self::V6(local, remote) => bytes.extend([local, remote].concat()),
        }
    }

    const fn flag(self) -> u16 {
        match self {
            Self::V4(..) => 0,
            Self::V6(..) => conn_flag::IS_V6,
        }
    }
}

impl TransitionRecord {
    /// The record with all that follows it: the addresses and, if they are given, when the connection began and the address
    /// of its timewait socket. Sets the kind and the flags that say what follows.
    #[must_use]
    pub fn encode(mut self, ends: Ends, in_full: Option<[u64; 2]>) -> Vec<u8> {
        self.header.kind = RecordKind::Transition as u8;
        self.header.flags &= !(conn_flag::IS_V6 | conn_flag::IN_FULL);
        self.header.flags |= ends.flag() | if in_full.is_some() { conn_flag::IN_FULL } else { 0 };
        let mut bytes = self.as_bytes().to_vec();
        ends.write(&mut bytes);
        bytes.extend(in_full.iter().flatten().flat_map(|word| word.to_ne_bytes()));
        bytes
    }
}

impl TimeWaitRecord {
    /// The record with the addresses that follow it. Sets the kind and the flags.
    #[must_use]
    pub fn encode(mut self, ends: Ends) -> Vec<u8> {
        self.header.kind = RecordKind::TimeWait as u8;
        self.header.flags = ends.flag();
        let mut bytes = self.as_bytes().to_vec();
        ends.write(&mut bytes);
        bytes
    }
}

/// A record of the kind [`RecordKind::ClosedByPeer`], of a connection to this port.
#[must_use]
pub fn closed_by_peer(netns: u32, time_ns: u64, remote_port: u16, ends: Ends) -> Vec<u8> {
    let what = match ends {
        Ends::V4(..) => 4,
        Ends::V6(..) => 6,
    };
    let header = Header { kind: RecordKind::ClosedByPeer as u8, what, flags: remote_port, netns, time_ns };
    let mut bytes = header.as_bytes().to_vec();
    ends.write(&mut bytes);
    bytes
}
