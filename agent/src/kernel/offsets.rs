//! Where this kernel keeps what the programs read.

use agent_ebpf::{Bit, Offsets};

use super::btf::{Btf, BtfError};

/// Looks up every offset.
///
/// # Errors
/// The first member this kernel does not have.
pub(super) fn resolve(btf: &Btf) -> Result<Offsets, BtfError> {
    let at = |structure: &str, path: &str| btf.member(structure, path).map(|member| member.offset);
    // Read together, as the first bytes of the socket.
    let common = |path: &str| match btf.member("sock_common", path)? {
        member if (member.offset + 8) as usize <= Offsets::COMMON_SIZE => Ok(member.offset),
        _ => Err(BtfError::NotFound(format!("{path} among the first {} bytes of sock_common", Offsets::COMMON_SIZE))),
    };
    let protocol = btf.member("sock", "sk_protocol")?;
    Ok(Offsets {
        skc_family: common("skc_family")?,
        skc_daddr: common("skc_daddr")?,
        skc_rcv_saddr: common("skc_rcv_saddr")?,
        skc_dport: common("skc_dport")?,
        skc_num: common("skc_num")?,
        skc_state: common("skc_state")?,
        skc_reuse_byte: common("skc_reuse")?,
        skc_net: common("skc_net.net")?,
        skc_v6_daddr: at("sock_common", "skc_v6_daddr")?,
        skc_v6_rcv_saddr: at("sock_common", "skc_v6_rcv_saddr")?,
        skc_flags: at("sock_common", "skc_flags")?,
        skc_cookie: at("sock_common", "skc_cookie")?,
        skc_bound_dev_if: at("sock_common", "skc_bound_dev_if")?,
        sk_uid: at("sock", "sk_uid")?,
        sk_protocol: protocol.offset,
        sk_protocol_size: protocol.size,
        sk_err: at("sock", "sk_err")?,
        sk_shutdown: at("sock", "sk_shutdown")?,
        sk_lingertime: at("sock", "sk_lingertime")?,
        sk_max_ack_backlog: at("sock", "sk_max_ack_backlog")?,
        sk_socket: at("sock", "sk_socket")?,
        inet_sport: at("inet_sock", "inet_sport")?,
        snd_una: at("tcp_sock", "snd_una")?,
        write_seq: at("tcp_sock", "write_seq")?,
        inet_free_bind: option(btf, "freebind", "INET_FLAGS_FREEBIND"),
        inet_bind_address_no_port: option(btf, "bind_address_no_port", "INET_FLAGS_BIND_ADDRESS_NO_PORT"),
        tw_substate: at("inet_timewait_sock", "tw_substate")?,
        tw_timer: at("inet_timewait_sock", "tw_timer")?,
        socket_state: at("socket", "state")?,
        socket_sk: at("socket", "sk")?,
        net_inum: at("net", "ns.inum")?,
        task_group_leader: at("task_struct", "group_leader")?,
        task_comm: at("task_struct", "comm")?,
        // Renamed in 5.5.
        task_start_boottime: at("task_struct", "start_boottime").or_else(|_| at("task_struct", "real_start_time"))?,
        task_flags: at("task_struct", "flags")?,
        task_cred: at("task_struct", "cred")?,
        cred_uid: at("cred", "uid")?,
        task_cgroups: at("task_struct", "cgroups")?,
        css_set_dfl_cgrp: at("css_set", "dfl_cgrp")?,
        cgroup_kn: at("cgroup", "kn")?,
        kernfs_node_id: at("kernfs_node", "id")?,
        task_files: at("task_struct", "files")?,
        files_fdt: at("files_struct", "fdt")?,
        fdt_fd: at("fdtable", "fd")?,
        fdt_max_fds: at("fdtable", "max_fds")?,
        file_private_data: at("file", "private_data")?,
        sock_done_bit: btf.enumerator("sock_flags", "SOCK_DONE")?,
        sock_linger_bit: btf.enumerator("sock_flags", "SOCK_LINGER")?,
    })
}

/// A bit field of `struct inet_sock` or, since 6.6, a bit of its `inet_flags`. What this kernel has in neither way is not
/// known of its sockets, and nothing rests on it.
fn option(btf: &Btf, bit_field: &str, flag: &str) -> Bit {
    let bit = btf.bit("inet_sock", bit_field).or_else(|_| {
        let flags = btf.member("inet_sock", "inet_flags")?.offset * 8;
        Ok::<_, BtfError>(flags + btf.any_enumerator(flag)?)
    });
    // Bits count from the low end of a byte, and bytes from the low end of a word: x86-64 and arm64 are little-endian.
    bit.map_or_else(|_| Bit::default(), |bit| Bit { offset: bit / 8, mask: 1 << (bit % 8) })
}
