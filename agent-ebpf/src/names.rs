//! Names of maps, globals and programs, so that neither side spells them twice.

/// Ring buffer of records.
pub const EVENTS: &str = "EVENTS";
/// Per-CPU array of [`Counter`](crate::Counter) values.
pub const COUNTERS: &str = "COUNTERS";
/// Hash: `struct sock *` -> what is known of the connection.
pub const SOCKETS: &str = "SOCKETS";
/// Array: the same, where a socket has a place of its own.
pub const PLACES: &str = "PLACES";
/// LRU hash: process -> its start time; says whose record has been sent already.
pub const TASKS_SEEN: &str = "TASKS_SEEN";
/// LRU hash: thread -> the bind() or listen() it is in.
pub const CALLS: &str = "CALLS";
/// Per-CPU array: the last socket that seemed to enter TIME_WAIT on this CPU.
pub const CLAIM: &str = "CLAIM";
/// Per-CPU array: how often connect() looked for a port for how long, by [`duration_bucket`](crate::duration_bucket).
pub const SEARCHES: &str = "SEARCHES";
/// Per-CPU array: how many connections took how long from SYN_SENT to ESTABLISHED, by the same.
pub const HANDSHAKES: &str = "HANDSHAKES";
/// Read-only global [`Config`](crate::Config).
pub const CONFIG: &str = "CONFIG";

/// Raw tracepoint program on `inet_sock_set_state`.
pub const INET_SOCK_SET_STATE: &str = "inet_sock_set_state";
/// Program on the tracepoint `inet_sock_set_state` by its types, in its place where the kernel has them.
pub const INET_SOCK_SET_STATE_TYPED: &str = "inet_sock_set_state_typed";
/// Tracepoint program on `sock:inet_sock_set_state`, in its place where raw tracepoints do not keep the CPU.
pub const INET_SOCK_SET_STATE_UNPREEMPTED: &str = "inet_sock_set_state_unpreempted";
/// Raw tracepoint program on `inet_sock_set_state`, for what the kernel did not run the other one for.
pub const INET_SOCK_SET_STATE_SKIPPED: &str = "inet_sock_set_state_skipped";
/// Raw tracepoint program on `tcp_destroy_sock`.
pub const TCP_DESTROY_SOCK: &str = "tcp_destroy_sock";
/// Raw tracepoint program on `tcp_receive_reset`.
pub const TCP_RECEIVE_RESET: &str = "tcp_receive_reset";
/// Raw tracepoint program on `tcp_send_reset`.
pub const TCP_SEND_RESET: &str = "tcp_send_reset";
/// Tracepoint program on `syscalls:sys_enter_bind`.
pub const SYS_ENTER_BIND: &str = "sys_enter_bind";
/// Tracepoint program on `syscalls:sys_exit_bind`.
pub const SYS_EXIT_BIND: &str = "sys_exit_bind";
/// Tracepoint program on `syscalls:sys_enter_listen`.
pub const SYS_ENTER_LISTEN: &str = "sys_enter_listen";
/// Tracepoint program on `syscalls:sys_exit_listen`.
pub const SYS_EXIT_LISTEN: &str = "sys_exit_listen";
