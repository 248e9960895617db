//! What the agent tells the programs before they are loaded: where this kernel keeps its fields, and what to send.
//!
//! Rust eBPF has no CO-RE relocations. The agent resolves each offset in `/sys/kernel/btf/vmlinux` and hands it over in
//! a read-only global; the verifier sees constants.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where a structure has a bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Bit {
    /// Bytes from the start of the structure
    pub offset: u32,
    /// The bit in that byte; 0: it is not known where this kernel has it
    pub mask: u32,
}

/// Byte offsets of kernel structure members, and bit numbers of kernel flags, on the running kernel.
///
/// `sock_common` has been the same on every kernel looked at (5.10 to 7.3), but is resolved like the rest: it costs
/// nothing and a kernel with another layout is then no special case. Those of its members that are in every record are
/// read at once, see [`Offsets::COMMON_SIZE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Offsets {
    /// `sock_common.skc_family`
    pub skc_family: u32,
    /// `sock_common.skc_daddr`
    pub skc_daddr: u32,
    /// `sock_common.skc_rcv_saddr`
    pub skc_rcv_saddr: u32,
    /// `sock_common.skc_dport`, network order
    pub skc_dport: u32,
    /// `sock_common.skc_num`, host order; zeroed by the kernel before a transition to CLOSE is traced
    pub skc_num: u32,
    /// `sock_common.skc_state`
    pub skc_state: u32,
    /// the byte of `skc_reuse` (bits 0-3), `skc_reuseport` (bit 4) and `skc_ipv6only` (bit 5), which follows `skc_state`
    pub skc_reuse_byte: u32,
    /// `sock_common.skc_net`
    pub skc_net: u32,
    /// `sock_common.skc_v6_daddr`
    pub skc_v6_daddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`
    pub skc_v6_rcv_saddr: u32,
    /// `sock_common.skc_flags`
    pub skc_flags: u32,
    /// `sock_common.skc_cookie`
    pub skc_cookie: u32,
    /// `sock_common.skc_bound_dev_if`
    pub skc_bound_dev_if: u32,
    /// `sock.sk_uid`
    pub sk_uid: u32,
    /// `sock.sk_protocol`
    pub sk_protocol: u32,
    /// Size of `sock.sk_protocol` in bytes: 2 since 5.6
    pub sk_protocol_size: u32,
    /// `sock.sk_err`
    pub sk_err: u32,
    /// `sock.sk_shutdown`
    pub sk_shutdown: u32,
    /// `sock.sk_lingertime`
    pub sk_lingertime: u32,
    /// `sock.sk_max_ack_backlog`: what listen() was told; a listener's children keep its value
    pub sk_max_ack_backlog: u32,
    /// `sock.sk_socket`
    pub sk_socket: u32,
    /// `inet_sock.inet_sport`, network order; unlike `skc_num` it survives the port's release
    pub inet_sport: u32,
    /// `tcp_sock.snd_una`: the first byte sent and not acknowledged
    pub snd_una: u32,
    /// `tcp_sock.write_seq`: the byte behind the last one to be sent, a FIN included
    pub write_seq: u32,
    /// IP_FREEBIND, of `inet_sock`
    pub inet_free_bind: Bit,
    /// IP_BIND_ADDRESS_NO_PORT, of `inet_sock`
    pub inet_bind_address_no_port: Bit,
    /// `inet_timewait_sock.tw_substate`
    pub tw_substate: u32,
    /// `inet_timewait_sock.tw_timer`
    pub tw_timer: u32,
    /// `socket.state`
    pub socket_state: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `net.ns.inum`
    pub net_inum: u32,
    /// `task_struct.group_leader`
    pub task_group_leader: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.start_boottime` (`real_start_time` before 5.5)
    pub task_start_boottime: u32,
    /// `task_struct.flags`
    pub task_flags: u32,
    /// `task_struct.cred`
    pub task_cred: u32,
    /// `cred.uid`
    pub cred_uid: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`
    pub css_set_dfl_cgrp: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `kernfs_node.id`
    pub kernfs_node_id: u32,
    /// `task_struct.files`
    pub task_files: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.fd`
    pub fdt_fd: u32,
    /// `fdtable.max_fds`
    pub fdt_max_fds: u32,
    /// `file.private_data`
    pub file_private_data: u32,
    /// Bit number of `SOCK_DONE` in `skc_flags`: a FIN was received
    pub sock_done_bit: u32,
    /// Bit number of `SOCK_LINGER` in `skc_flags`
    pub sock_linger_bit: u32,
}

/// How much of a connection's life is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Detail {
    /// What a report is made of: ends that leave a timewait socket, failures, resets, listeners. Of a connection that
    /// was accepted and closed by the other side first, nothing at all; of one that was opened here and closed by the
    /// other side first, that it ended
    #[default]
    Report = 0,
    /// Every end of a connection, and listeners; and how long handshakes took is counted
    Ends = 1,
    /// Every transition
    States = 2,
}

impl Offsets {
    /// The IPv4 addresses, the ports, the family, the options and the namespace of a socket are within so many bytes from
    /// its start.
    pub const COMMON_SIZE: usize = 64;
}

/// Which records are wanted. A zero field (or an empty comm) lets everything pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Filter {
    /// cgroup v2 id of the opener or the closer
    pub cgroup: u64,
    /// Thread group id of the opener or the closer
    pub tgid: u32,
    /// Inode number of the network namespace
    pub netns: u32,
    /// Local or remote port, host order
    pub port: u32,
    /// 1 if `comm` is to be compared
    pub has_comm: u32,
    /// Name of the opener's or closer's thread group leader, NUL padded
    pub comm: [u8; 16],
}

impl Filter {
    /// Whether certain processes are asked for.
    #[must_use]
    pub const fn names_a_process(&self) -> bool {
        self.tgid != 0 || self.cgroup != 0 || self.has_comm != 0
    }
}

/// The read-only global `CONFIG`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Config {
    /// What is to be sent
    pub filter: Filter,
    /// Bytes waiting in the ring buffer at which the agent is woken without waiting for its timer
    pub wakeup_bytes: u32,
    /// [`Detail`] as a number
    pub detail: u32,
    /// [`ABI_VERSION`](crate::ABI_VERSION) of the agent
    pub abi_version: u32,
    /// Thread group id of the agent in the initial pid namespace; 0: not known
    pub agent_tgid: u32,
    /// 1: it matters when connections began; 0: only whether that was seen
    pub wants_births: u32,
    /// Bits of a 64-bit hash beyond those that number the places of the table of sockets: 1 to 63
    pub place_shift: u32,
    /// Where this kernel keeps things
    pub offsets: Offsets,
}
