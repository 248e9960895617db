use agent_ebpf::names;

use super::*;
use crate::kernel::host::Capabilities;

/// A host that allows everything: Debian 12 on bare metal, as root.
fn host() -> HostFacts {
    HostFacts {
        kernel: "6.1.0-40-amd64".to_owned(),
        machine: "x86_64".to_owned(),
        capabilities: Capabilities {
            bpf: true,
            perfmon: true,
            sys_admin: true,
            sys_ptrace: true,
            dac_read_search: true,
            net_admin: true,
        },
        btf: Answer::Yes,
        offsets: None,
        functions: functions("6.1"),
        lockdown: Some("none".to_owned()),
        tracefs: Tracefs::Mounted,
        inet_diag: Answer::Yes,
        raw_tracepoint: Answer::Yes,
        tracepoint: Answer::Yes,
        fentry: Answer::Yes,
        kprobe: Answer::Yes,
        initial_pid_namespace: true,
    }
}

fn no(why: &str) -> Answer {
    Answer::No(why.to_owned())
}

fn step(plan: &Plan, observed: Observed) -> &Step {
    plan.steps.iter().find(|step| step.observed == observed).expect("a step for each thing observed")
}

fn programs(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().flat_map(|step| &step.programs).map(|program| program.name).collect()
}

/// The functions of Debian's kernels that decide, with their numbers of arguments.
fn functions(kernel: &str) -> Vec<(String, usize)> {
    let (hashdance, packet, purge, accept) = match kernel {
        "5.10" => (("inet_twsk_hashdance", 3), 3, 2, 4),
        "6.1" => (("inet_twsk_hashdance", 3), 3, 1, 4),
        "6.12" => (("inet_twsk_hashdance_schedule", 4), 4, 1, 2),
        _ => (("inet_twsk_hashdance_schedule", 4), 5, 1, 2),
    };
    [
        hashdance,
        ("tcp_timewait_state_process", packet),
        ("inet_twsk_purge", purge),
        ("inet_csk_accept", accept),
        ("inet_twsk_alloc", 3),
        ("inet_twsk_kill", 1),
        ("tcp_twsk_destructor", 1),
        ("tw_timer_handler", 1),
        ("tcp_twsk_unique", 3),
        ("tcp_abort", 2),
        ("inet_csk_get_port", 2),
        ("inet_hash_connect", 2),
        ("inet6_hash_connect", 2),
    ]
    .map(|(name, count)| (name.to_owned(), count))
    .to_vec()
}

const KERNELS: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7.3"];

#[test]
fn everything_is_on_the_wanted_rung_on_every_known_kernel() {
    for kernel in KERNELS {
        for rung in [Rung::Fentry, Rung::Kprobe] {
            let facts = HostFacts { functions: functions(kernel), ..host() };
            let plan = plan(&facts, rung).expect("nothing in the way");
            let upper = plan.steps.iter().filter(|step| step.rung == rung).count();
            assert_eq!(upper, 5, "{kernel} {rung:?}: {:#?}", plan.hooks());
            assert!(!plan.mount_tracefs);
        }
    }
}

/// A program that reads its function's result one argument too early loads on some kernels, and reads garbage.
#[test]
fn what_reads_a_result_is_chosen_by_the_number_of_arguments() {
    let expected = [("5.10", 3, 4), ("6.1", 3, 4), ("6.12", 4, 2), ("6.18", 5, 2), ("7.3", 5, 2)];
    for (kernel, packet, accept) in expected {
        let facts = HostFacts { functions: functions(kernel), ..host() };
        let plan = plan(&facts, Rung::Fentry).expect("nothing in the way");
        let programs = programs(&plan);
        let chosen = |prefix: &str| -> Vec<_> { programs.iter().filter(|name| name.starts_with(prefix)).collect() };
        let prefix = "fexit_tcp_timewait_state_process";
        assert_eq!(chosen(prefix), [&format!("{prefix}_{packet}")], "{kernel}");
        let prefix = "fexit_inet_csk_accept";
        assert_eq!(chosen(prefix), [&format!("{prefix}_{accept}")], "{kernel}");
    }
}

/// Nothing is known of such a kernel, so nothing is tried on it.
#[test]
fn a_number_of_arguments_nobody_knows_is_a_rung_less() {
    let functions = functions("6.12").into_iter().map(|(name, count)| match name.as_str() {
        "inet_csk_accept" => (name, 3),
        "inet_csk_get_port" => (name, 3),
        _ => (name, count),
    });
    let facts = HostFacts { functions: functions.collect(), ..host() };
    let plan = plan(&facts, Rung::Fentry).expect("the rest can be observed");
    let accepted = step(&plan, Observed::AcceptedBy);
    assert_eq!((accepted.rung, accepted.programs.len()), (Rung::Tracepoint, 0));
    let why = "no fentry: this kernel's inet_csk_accept has 3 arguments; firstfin knows it with 4 or 2";
    assert!(accepted.hook().reason.starts_with(why), "{}", accepted.hook().reason);
    assert_eq!(step(&plan, Observed::PortConflicts).rung, Rung::Tracepoint);
    assert_eq!(step(&plan, Observed::TimeWaitLeft).rung, Rung::Fentry);
}

#[test]
fn where_inet_twsk_kill_is_inlined_the_destructor_tells() {
    let functions: Vec<_> = functions("6.18").into_iter().filter(|(name, _)| name != "inet_twsk_kill").collect();
    for (rung, program) in [(Rung::Fentry, "fentry_tcp_twsk_destructor"), (Rung::Kprobe, "kprobe_tcp_twsk_destructor")]
    {
        let facts = HostFacts { functions: functions.clone(), ..host() };
        let plan = plan(&facts, rung).expect("nothing in the way");
        assert_eq!(step(&plan, Observed::TimeWaitLeft).rung, rung);
        assert!(programs(&plan).contains(&program));
    }
    let without_both = functions.into_iter().filter(|(name, _)| name != "tcp_twsk_destructor").collect();
    let plan = plan(&HostFacts { functions: without_both, ..host() }, Rung::Fentry).expect("the rest can be observed");
    let left = step(&plan, Observed::TimeWaitLeft);
    assert_eq!(left.rung, Rung::SockDiag);
    let why = "no fentry: this kernel has no function inet_twsk_kill, or inlined it";
    assert!(left.hook().reason.starts_with(why), "{}", left.hook().reason);
}

#[test]
fn a_rung_that_cannot_be_carried_out_is_left_for_the_next_and_says_why() {
    let mut plan = plan(&host(), Rung::Fentry).expect("nothing in the way");
    let number = plan.steps.iter().position(|step| step.observed == Observed::PortConflicts).expect("a step");
    let taken = |plan: &Plan| (plan.steps[number].rung, plan.steps[number].programs.len());
    assert_eq!(taken(&plan), (Rung::Fentry, 1));
    plan.fall(number, "trampolines are out".to_owned());
    assert_eq!(taken(&plan), (Rung::Kprobe, 2));
    plan.fall(number, "kprobes too".to_owned());
    assert_eq!(taken(&plan), (Rung::Tracepoint, 0));
    assert_eq!(
        plan.steps[number].hook().reason,
        "no fentry: trampolines are out; no kprobe: kprobes too; calls made through io_uring, by 32-bit programs, or for \
         MPTCP sockets are not seen"
    );
}

#[test]
fn conflicts_are_not_seen_where_the_system_calls_that_tell_of_them_are_not() {
    let mut plan = plan(&host(), Rung::Tracepoint).expect("nothing in the way");
    let number = plan.steps.iter().position(|step| step.observed == Observed::RefusedCalls).expect("a step");
    plan.fall(number, "EPERM".to_owned());
    assert_eq!(step(&plan, Observed::RefusedCalls).rung, Rung::None);
    assert_eq!(step(&plan, Observed::PortConflicts).rung, Rung::None);
}

#[test]
fn where_a_program_may_lose_the_cpu_another_is_taken_that_does_not() {
    let of = |kernel: &str, tracefs: Tracefs| {
        let facts = HostFacts { kernel: kernel.to_owned(), tracefs, ..host() };
        let plan = plan(&facts, Rung::Fentry).expect("nothing in the way");
        let programs = step(&plan, Observed::Transitions).programs.iter().map(|program| program.name);
        (programs.collect::<Vec<_>>(), blind_spots(&facts))
    };
    let usual = |kernel: &str, program| assert_eq!(of(kernel, Tracefs::Mounted), (vec![program], Vec::new()));
    usual("6.18.15-cloud-amd64", names::INET_SOCK_SET_STATE_TYPED);
    // The type of the current task is known since 5.11 only.
    usual("5.10.0-39-amd64", names::INET_SOCK_SET_STATE);
    let raw = vec![names::INET_SOCK_SET_STATE, names::INET_SOCK_SET_STATE_SKIPPED];
    let preemptible = vec![names::INET_SOCK_SET_STATE_UNPREEMPTED, names::INET_SOCK_SET_STATE_SKIPPED];
    assert_eq!(of("7.3.4+deb13-cloud-amd64", Tracefs::Mountable), (preemptible, Vec::new()));
    let spot = "transitions are skipped where a task loses the CPU to another (they are counted): tracefs is out of \
                reach: EPERM; to mount it: mount -t tracefs tracefs /sys/kernel/tracing";
    let blind = of("7.3.4+deb13-cloud-amd64", Tracefs::Unavailable("EPERM".to_owned()));
    assert_eq!(blind, (raw, vec![spot.to_owned()]));
}

#[test]
fn no_better_rung_than_the_one_wanted_is_taken() {
    let plan = plan(&host(), Rung::Tracepoint).expect("nothing in the way");
    assert_eq!(step(&plan, Observed::TimeWaitLeft).rung, Rung::SockDiag);
    let conflicts = step(&plan, Observed::PortConflicts);
    assert_eq!(conflicts.rung, Rung::Tracepoint);
    let why = "no fentry: not wanted (--max-rung tracepoint); no kprobe: not wanted (--max-rung tracepoint); ";
    assert!(conflicts.hook().reason.starts_with(why), "{}", conflicts.hook().reason);
}

/// Every function that decides is asked of the kernel, or its rung is never taken.
#[test]
fn the_functions_of_all_ladders_are_known_here() {
    let known: std::collections::HashSet<String> =
        KERNELS.iter().flat_map(|kernel| functions(kernel)).map(|(name, _)| name).collect();
    let asked: std::collections::HashSet<String> = ladders::functions().map(str::to_owned).collect();
    assert_eq!(known, asked);
}

#[test]
fn without_tracefs_only_the_system_calls_are_lost() {
    let facts = HostFacts { tracefs: Tracefs::Unavailable("the kernel has no tracefs".to_owned()), ..host() };
    let plan = plan(&facts, Rung::Fentry).expect("the rest can be observed");
    assert_eq!(step(&plan, Observed::RefusedCalls).rung, Rung::None);
    assert_eq!(step(&plan, Observed::Transitions).rung, Rung::Tracepoint);
    assert_eq!(step(&plan, Observed::PortConflicts).rung, Rung::Fentry);
    assert!(!programs(&plan).iter().any(|name| name.starts_with("sys_")));
    let reason = step(&plan, Observed::RefusedCalls).hook().reason;
    assert!(
        reason.contains("no tracepoint: tracefs is out of reach: the kernel has no tracefs; to mount it"),
        "{reason}"
    );
}

#[test]
fn a_tracefs_that_is_not_mounted_is_mounted_for_the_loader() {
    let plan = plan(&HostFacts { tracefs: Tracefs::Mountable, ..host() }, Rung::Fentry).expect("nothing in the way");
    assert!(plan.mount_tracefs);
    assert_eq!(step(&plan, Observed::RefusedCalls).rung, Rung::Tracepoint);
}

#[test]
fn each_obstacle_says_what_is_missing_what_it_means_and_what_to_do() {
    let nobody = Capabilities::default();
    let cases = [
        (HostFacts { capabilities: nobody, ..host() }, "CAP_BPF and CAP_PERFMON", "sudo firstfin"),
        (HostFacts { btf: no("it is missing"), ..host() }, "type information", "CONFIG_DEBUG_INFO_BTF"),
        (HostFacts { lockdown: Some("confidentiality".to_owned()), ..host() }, "locked down", "lockdown=integrity"),
        (HostFacts { raw_tracepoint: no("EPERM"), ..host() }, "cannot be loaded: EPERM", "seccomp"),
        (HostFacts { inet_diag: no("ENOENT"), ..host() }, "does not list its sockets", "modprobe tcp_diag"),
    ];
    for (facts, missing, remedy) in cases {
        let error = plan(&facts, Rung::Fentry).expect_err(missing);
        assert!(error.missing.contains(missing), "{error}");
        assert!(error.remedy.contains(remedy), "{error}");
        let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 3, "{error}");
        assert!(lines[1].starts_with("  what it means: ") && lines[2].starts_with("  what to do:    "), "{error}");
    }
}

#[test]
fn the_old_all_in_one_capability_is_enough() {
    let facts = HostFacts { capabilities: Capabilities { sys_admin: true, ..Capabilities::default() }, ..host() };
    assert!(plan(&facts, Rung::Fentry).is_ok());
    // What it does without is told.
    assert!(blind_spots(&facts).iter().any(|spot| spot.contains("CAP_SYS_PTRACE")));
}

#[test]
fn a_host_that_allows_everything_has_no_blind_spot() {
    assert_eq!(blind_spots(&host()), Vec::<String>::new());
}
