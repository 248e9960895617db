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
        functions: [("inet_twsk_alloc", 3), ("inet_twsk_kill", 1), ("inet_csk_get_port", 2)]
            .map(|(name, count)| (name.to_owned(), count))
            .to_vec(),
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

#[test]
fn every_program_is_attached_once_where_everything_is_allowed() {
    let plan = plan(&host(), Rung::Fentry).expect("nothing in the way");
    let mut attached = programs(&plan);
    attached.sort_unstable();
    assert_eq!(
        attached,
        [
            "inet_sock_set_state",
            "inet_sock_set_state_skipped",
            "sys_enter_bind",
            "sys_enter_listen",
            "sys_exit_bind",
            "sys_exit_listen",
            "tcp_destroy_sock",
            "tcp_receive_reset",
            "tcp_send_reset"
        ]
    );
    assert!(!plan.mount_tracefs);
}

#[test]
fn a_rung_the_host_allows_and_this_version_lacks_is_said_to_be_so() {
    let plan = plan(&host(), Rung::Fentry).expect("nothing in the way");
    let refused = step(&plan, Observed::RefusedCalls);
    assert_eq!(refused.rung, Rung::Tracepoint);
    assert_eq!(
        refused.hook().reason,
        "no fentry: the host allows it, this version of firstfin has no program for it; no kprobe: the host allows it, \
         this version of firstfin has no program for it; calls made through io_uring or by 32-bit programs are not seen"
    );
    let left = step(&plan, Observed::TimeWaitLeft);
    let missing = "no fentry: this kernel has no function tcp_timewait_state_process, or inlined it";
    assert!(left.hook().reason.starts_with(missing), "{}", left.hook().reason);
}

#[test]
fn without_tracefs_only_the_system_calls_are_lost() {
    let facts = HostFacts { tracefs: Tracefs::Unavailable("the kernel has no tracefs".to_owned()), ..host() };
    let plan = plan(&facts, Rung::Fentry).expect("the rest can be observed");
    assert_eq!(step(&plan, Observed::RefusedCalls).rung, Rung::None);
    assert_eq!(step(&plan, Observed::Transitions).rung, Rung::Tracepoint);
    assert_eq!(programs(&plan).len(), 5);
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
