//! The ladders: for each thing observed its rungs, highest first, and what each needs, attaches and loses.

use agent_ebpf::names;

use super::{Attachment, Observed, Program, Rung};

/// What a rung needs of the host, besides the functions its programs attach to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    RawTracepoints,
    Tracepoints,
    Fentry,
    Kprobe,
    InetDiag,
    Nothing,
}

/// A program, or one of several that do the same on kernels that differ: the first that fits is taken, never the first
/// that loads.
pub(super) type Pick = &'static [(Program, Fit)];

/// Which kernels a program is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fit {
    Any,
    /// Its function has that many arguments by BTF
    Arguments(usize),
    /// A program on a raw tracepoint may lose the CPU, and the tracepoints of tracefs are within reach
    PreemptibleTracepoints,
    /// A program on a raw tracepoint may lose the CPU; elsewhere no such program is needed
    OnlyPreemptible,
    /// The verifier knows the current task's type (5.11), and a raw tracepoint keeps the CPU
    TypedTasks,
}

pub(super) struct RungOf {
    pub(super) rung: Rung,
    pub(super) need: Need,
    pub(super) programs: &'static [Pick],
    /// What is lost compared with the rung above
    pub(super) lost: &'static str,
}

pub(super) struct Ladder {
    pub(super) observed: Observed,
    pub(super) rungs: &'static [RungOf],
}

const fn raw(name: &'static str) -> (Program, Fit) {
    (Program { name, attachment: Attachment::RawTracepoint(name) }, Fit::Any)
}

const fn typed(name: &'static str, hook: &'static str) -> (Program, Fit) {
    (Program { name, attachment: Attachment::TypedTracepoint(hook) }, Fit::TypedTasks)
}

const fn syscall(name: &'static str) -> (Program, Fit) {
    (Program { name, attachment: Attachment::Tracepoint("syscalls", name) }, Fit::Any)
}

const fn fentry(name: &'static str, function: &'static str, arguments: usize) -> (Program, Fit) {
    (Program { name, attachment: Attachment::Fentry(function) }, Fit::Arguments(arguments))
}

const fn fexit(name: &'static str, function: &'static str, arguments: usize) -> (Program, Fit) {
    (Program { name, attachment: Attachment::Fexit(function) }, Fit::Arguments(arguments))
}

const fn kprobe(name: &'static str, function: &'static str, arguments: usize) -> (Program, Fit) {
    (Program { name, attachment: Attachment::Kprobe(function) }, Fit::Arguments(arguments))
}

const fn kretprobe(name: &'static str, function: &'static str, arguments: usize) -> (Program, Fit) {
    (Program { name, attachment: Attachment::Kretprobe(function) }, Fit::Arguments(arguments))
}

/// The one rung of what has no other.
const fn only(programs: &'static [Pick]) -> RungOf {
    RungOf { rung: Rung::Tracepoint, need: Need::RawTracepoints, programs, lost: "" }
}

const ENTERED_FENTRY: &[Pick] = &[&[fexit("fexit_inet_twsk_alloc", "inet_twsk_alloc", 3)]];
const ENTERED_KPROBE: &[Pick] = &[
    &[
        kprobe("kprobe_inet_twsk_hashdance", "inet_twsk_hashdance_schedule", 4),
        kprobe("kprobe_inet_twsk_hashdance", "inet_twsk_hashdance", 3),
    ],
    &[kretprobe("kretprobe_inet_twsk_alloc", "inet_twsk_alloc", 3)],
];

const LEFT_FENTRY: &[Pick] = &[
    &[fentry("fentry_tw_timer_handler", "tw_timer_handler", 1)],
    &[fexit("fexit_tcp_twsk_unique", "tcp_twsk_unique", 3)],
    &[
        fentry("fentry_tcp_timewait_state_process", "tcp_timewait_state_process", 3),
        fentry("fentry_tcp_timewait_state_process", "tcp_timewait_state_process", 4),
        fentry("fentry_tcp_timewait_state_process", "tcp_timewait_state_process", 5),
    ],
    &[
        fexit("fexit_tcp_timewait_state_process_3", "tcp_timewait_state_process", 3),
        fexit("fexit_tcp_timewait_state_process_4", "tcp_timewait_state_process", 4),
        fexit("fexit_tcp_timewait_state_process_5", "tcp_timewait_state_process", 5),
    ],
    &[fentry("fentry_inet_twsk_purge", "inet_twsk_purge", 1), fentry("fentry_inet_twsk_purge", "inet_twsk_purge", 2)],
    &[fexit("fexit_inet_twsk_purge", "inet_twsk_purge", 1), fexit("fexit_inet_twsk_purge", "inet_twsk_purge", 2)],
    &[fentry("fentry_tcp_abort", "tcp_abort", 2)],
    &[fexit("fexit_tcp_abort", "tcp_abort", 2)],
    // Last: who takes a socket away is noted before it goes.
    &[
        fentry("fentry_inet_twsk_kill", "inet_twsk_kill", 1),
        fentry("fentry_tcp_twsk_destructor", "tcp_twsk_destructor", 1),
    ],
];
const LEFT_KPROBE: &[Pick] = &[
    &[kprobe("kprobe_tw_timer_handler", "tw_timer_handler", 1)],
    &[kprobe("kprobe_tcp_twsk_unique", "tcp_twsk_unique", 3)],
    &[kretprobe("kretprobe_tcp_twsk_unique", "tcp_twsk_unique", 3)],
    &[
        kprobe("kprobe_tcp_timewait_state_process", "tcp_timewait_state_process", 3),
        kprobe("kprobe_tcp_timewait_state_process", "tcp_timewait_state_process", 4),
        kprobe("kprobe_tcp_timewait_state_process", "tcp_timewait_state_process", 5),
    ],
    &[
        kretprobe("kretprobe_tcp_timewait_state_process", "tcp_timewait_state_process", 3),
        kretprobe("kretprobe_tcp_timewait_state_process", "tcp_timewait_state_process", 4),
        kretprobe("kretprobe_tcp_timewait_state_process", "tcp_timewait_state_process", 5),
    ],
    &[kprobe("kprobe_inet_twsk_purge", "inet_twsk_purge", 1), kprobe("kprobe_inet_twsk_purge", "inet_twsk_purge", 2)],
    &[
        kretprobe("kretprobe_inet_twsk_purge", "inet_twsk_purge", 1),
        kretprobe("kretprobe_inet_twsk_purge", "inet_twsk_purge", 2),
    ],
    &[kprobe("kprobe_tcp_abort", "tcp_abort", 2)],
    &[kretprobe("kretprobe_tcp_abort", "tcp_abort", 2)],
    &[
        kprobe("kprobe_inet_twsk_kill", "inet_twsk_kill", 1),
        kprobe("kprobe_tcp_twsk_destructor", "tcp_twsk_destructor", 1),
    ],
];

const KPROBE_LOSES: &str = "a kprobe is not run where it interrupts another one or a bpf() call, which is rare";

pub(super) const LADDERS: &[Ladder] = &[
    Ladder {
        observed: Observed::Transitions,
        rungs: &[only(&[
            &[
                (
                    Program {
                        name: names::INET_SOCK_SET_STATE_UNPREEMPTED,
                        attachment: Attachment::Tracepoint("sock", names::INET_SOCK_SET_STATE),
                    },
                    Fit::PreemptibleTracepoints,
                ),
                typed(names::INET_SOCK_SET_STATE_TYPED, names::INET_SOCK_SET_STATE),
                raw(names::INET_SOCK_SET_STATE),
            ],
            &[(
                Program {
                    name: names::INET_SOCK_SET_STATE_SKIPPED,
                    attachment: Attachment::RawTracepoint(names::INET_SOCK_SET_STATE),
                },
                Fit::OnlyPreemptible,
            )],
        ])],
    },
    Ladder { observed: Observed::SocketGone, rungs: &[only(&[&[raw(names::TCP_DESTROY_SOCK)]])] },
    Ladder {
        observed: Observed::Resets,
        rungs: &[only(&[&[raw(names::TCP_RECEIVE_RESET)], &[raw(names::TCP_SEND_RESET)]])],
    },
    Ladder {
        observed: Observed::TimeWaitEntered,
        rungs: &[
            RungOf { rung: Rung::Fentry, need: Need::Fentry, programs: ENTERED_FENTRY, lost: "" },
            RungOf { rung: Rung::Kprobe, need: Need::Kprobe, programs: ENTERED_KPROBE, lost: KPROBE_LOSES },
            RungOf {
                rung: Rung::Tracepoint,
                need: Need::RawTracepoints,
                // The transitions say it; there is nothing more to attach.
                programs: &[],
                lost: "a connection refused a timewait socket by tcp_max_tw_buckets counts as entered (the total of \
                       those is shown)",
            },
        ],
    },
    Ladder {
        observed: Observed::TimeWaitLeft,
        rungs: &[
            RungOf { rung: Rung::Fentry, need: Need::Fentry, programs: LEFT_FENTRY, lost: "" },
            RungOf { rung: Rung::Kprobe, need: Need::Kprobe, programs: LEFT_KPROBE, lost: KPROBE_LOSES },
            RungOf {
                rung: Rung::SockDiag,
                need: Need::InetDiag,
                programs: &[],
                lost: "that a timewait socket is gone is seen at the next dump, why it went is not; nor is when a \
                       FIN_WAIT2 minisocket becomes TIME_WAIT",
            },
        ],
    },
    Ladder {
        observed: Observed::TimeWaitNow,
        rungs: &[RungOf { rung: Rung::SockDiag, need: Need::InetDiag, programs: &[], lost: "" }],
    },
    Ladder {
        observed: Observed::PortConflicts,
        rungs: &[
            RungOf {
                rung: Rung::Fentry,
                need: Need::Fentry,
                programs: &[&[fexit("fexit_inet_csk_get_port", "inet_csk_get_port", 2)]],
                lost: "",
            },
            RungOf {
                rung: Rung::Kprobe,
                need: Need::Kprobe,
                programs: &[
                    &[kprobe("kprobe_inet_csk_get_port", "inet_csk_get_port", 2)],
                    &[kretprobe("kretprobe_inet_csk_get_port", "inet_csk_get_port", 2)],
                ],
                lost: KPROBE_LOSES,
            },
            RungOf {
                rung: Rung::Tracepoint,
                need: Need::Tracepoints,
                // Those of the other refusals see it.
                programs: &[],
                lost: "calls made through io_uring, by 32-bit programs, or for MPTCP sockets are not seen",
            },
            RungOf {
                rung: Rung::None,
                need: Need::Nothing,
                programs: &[],
                lost: "bind() and listen() that lose a conflict are not seen at all",
            },
        ],
    },
    Ladder {
        observed: Observed::RefusedCalls,
        rungs: &[
            RungOf {
                rung: Rung::Tracepoint,
                need: Need::Tracepoints,
                programs: &[
                    &[syscall(names::SYS_ENTER_BIND)],
                    &[syscall(names::SYS_EXIT_BIND)],
                    &[syscall(names::SYS_ENTER_LISTEN)],
                    &[syscall(names::SYS_EXIT_LISTEN)],
                ],
                lost: "",
            },
            RungOf {
                rung: Rung::None,
                need: Need::Nothing,
                programs: &[],
                lost: "bind() and listen() refused for another reason than a conflict are not seen at all",
            },
        ],
    },
    Ladder {
        observed: Observed::NoFreePort,
        rungs: &[
            RungOf {
                rung: Rung::Fentry,
                need: Need::Fentry,
                programs: &[
                    &[fexit("fexit_inet_hash_connect", "inet_hash_connect", 2)],
                    &[fexit("fexit_inet6_hash_connect", "inet6_hash_connect", 2)],
                ],
                lost: "",
            },
            RungOf {
                rung: Rung::Kprobe,
                need: Need::Kprobe,
                programs: &[
                    &[kprobe("kprobe_inet_hash_connect", "inet_hash_connect", 2)],
                    &[kretprobe("kretprobe_inet_hash_connect", "inet_hash_connect", 2)],
                    &[kprobe("kprobe_inet_hash_connect", "inet6_hash_connect", 2)],
                    &[kretprobe("kretprobe_inet_hash_connect", "inet6_hash_connect", 2)],
                ],
                lost: KPROBE_LOSES,
            },
            RungOf {
                rung: Rung::Tracepoint,
                need: Need::RawTracepoints,
                programs: &[],
                lost: "a connect() that found no memory for a port looks the same as one that found no port",
            },
        ],
    },
    Ladder {
        observed: Observed::AcceptedBy,
        rungs: &[
            RungOf {
                rung: Rung::Fentry,
                need: Need::Fentry,
                programs: &[&[
                    fexit("fexit_inet_csk_accept_4", "inet_csk_accept", 4),
                    fexit("fexit_inet_csk_accept_2", "inet_csk_accept", 2),
                ]],
                lost: "",
            },
            RungOf {
                rung: Rung::Kprobe,
                need: Need::Kprobe,
                programs: &[&[
                    kretprobe("kretprobe_inet_csk_accept", "inet_csk_accept", 4),
                    kretprobe("kretprobe_inet_csk_accept", "inet_csk_accept", 2),
                ]],
                lost: "where more threads wait in accept() than the kernel prepared for (twice the CPUs, ten at least), \
                       some are not seen to return",
            },
            RungOf {
                rung: Rung::Tracepoint,
                need: Need::RawTracepoints,
                programs: &[],
                lost: "an accepted connection is known by the process that closes it, before that by its listener's",
            },
        ],
    },
];

/// Every function that decides about a rung: by whether the kernel has it, and with how many arguments.
pub(in crate::kernel) fn functions() -> impl Iterator<Item = &'static str> {
    let programs = LADDERS.iter().flat_map(|ladder| ladder.rungs).flat_map(|rung| rung.programs).copied().flatten();
    programs.filter_map(|(program, _)| program.attachment.function())
}
