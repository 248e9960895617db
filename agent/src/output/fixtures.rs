//! Reports as real sessions give them, made by hand: what the snapshot tests print.

use crate::{
    model::{Asker, Call, ConnectFailure, Container, HeldOptions, Leaving, Name, Netns, Reset, SocketOptions},
    report::{
        BindFailure, ConnectFailures, Destination, Direction, Events, Finding, Holder, HolderKind, Hook, Host, Lost,
        NetnsPorts, NetnsTimeWait, PoisonedBy, PortForecast, PortOutcome, PortRate, PortUse, PortUser, Ports,
        ProcessInfo, ProcessTimeWait, Refusal, Report, Resets, SCHEMA, Session, Severity, TimeWait,
        UnattributedReasons,
    },
    rules::{Remedy, Rule},
};

const HOST: Netns = Netns(4_026_531_840);
const BLUE: Netns = Netns(4_026_532_297);

fn strings<const N: usize>(lines: [&str; N]) -> Vec<String> {
    lines.map(str::to_owned).to_vec()
}

fn process(pid: u32, comm: &str) -> ProcessInfo {
    ProcessInfo {
        pid,
        comm: Name::from(comm),
        exe: Some(Name::from(format!("/usr/bin/{comm}").as_str())),
        cgroup: None,
        unit: None,
        container: None,
        netns: Some(HOST),
        exited: false,
    }
}

fn in_unit(pid: u32, comm: &str, unit: &str) -> ProcessInfo {
    let cgroup = Some(Name::from(format!("/system.slice/{unit}").as_str()));
    ProcessInfo { unit: Some(Name::from(unit)), cgroup, ..process(pid, comm) }
}

fn in_pod(pid: u32, comm: &str) -> ProcessInfo {
    let container = Container {
        runtime: Name::from("containerd"),
        id: Name::from("4f3b2a1c9d8e7766554433221100ffeeddccbbaa99887766554433221100ffee"),
        pod_uid: Some(Name::from("0e2d1c8f-7a56-4b1e-9a43-55c1d2e3f405")),
        name: Some(Name::from(comm)),
        image: Some(Name::from(format!("registry.example/shop/{comm}:1.4").as_str())),
        pod: Some(Name::from("web-7d4b9")),
        namespace: Some(Name::from("shop")),
    };
    ProcessInfo { container: Some(container), netns: Some(BLUE), ..process(pid, comm) }
}

fn to(remote: &str, sockets: u64) -> Destination {
    Destination { remote: remote.to_owned(), local: None, direction: Some(Direction::Outbound), sockets }
}

fn from(remote: &str, local: &str, sockets: u64) -> Destination {
    let local = Some(local.to_owned());
    Destination { remote: remote.to_owned(), local, direction: Some(Direction::Inbound), sockets }
}

fn namespace(netns: Netns, total: u64) -> NetnsTimeWait {
    NetnsTimeWait {
        netns,
        total,
        kernel_total: total,
        max_tw_buckets: Some(262_144),
        port_range: Some((32_768, 60_999)),
        usable_ports: Some(28_232),
        overflowed: 0,
    }
}

fn ports_of(netns: Netns, poisoned: u64, poisoned_by: Vec<PoisonedBy>) -> NetnsPorts {
    NetnsPorts {
        netns,
        range: Some((32_768, 60_999)),
        reserved: Some(0),
        poisoned: Some(poisoned),
        peak_poisoned: Some(poisoned),
        usable: Some(28_232 - poisoned),
        taken: Some(28_200),
        tw_reuse: Some(2),
        tw_reuse_delay_ms: Some(1_000),
        timestamps: Some(1),
        poisoned_by,
    }
}

fn hoarder() -> PoisonedBy {
    PoisonedBy {
        process: Some(in_pod(15_030, "scanner")),
        kind: HolderKind::Bound,
        ports: 3_000,
        example: "10.1.0.1:33000".to_owned(),
    }
}

/// A host on which nothing happens.
pub(crate) fn quiet() -> Report {
    let hook = |observes: &str, reason: &str| Hook {
        observes: observes.to_owned(),
        rung: "tracepoint".to_owned(),
        reason: reason.to_owned(),
    };
    Report {
        schema: SCHEMA.to_owned(),
        host: Host { name: Name::from("web-1"), kernel: Name::from("6.18.44"), version: "0.1.0".to_owned() },
        session: Session {
            started_at: "2026-05-09T07:29:33Z".to_owned(),
            duration_s: 30.002,
            interrupted: false,
            hooks: vec![
                hook("state transitions", "highest rung"),
                hook("resets", "highest rung"),
                hook(
                    "entering TIME_WAIT",
                    "no fentry: the kernel refuses it; no kprobe: the kernel was built without kprobes; when a \
                     FIN_WAIT2 minisocket becomes TIME_WAIT is not seen",
                ),
                hook(
                    "refused bind() and listen()",
                    "no fentry: the kernel refuses it; no kprobe: the kernel was built without kprobes; calls made \
                     through io_uring are not seen",
                ),
            ],
            events: Events { received: 12, bytes: 0, ..Events::default() },
            blind_spots: Vec::new(),
        },
        time_wait: TimeWait { namespaces: vec![namespace(HOST, 0)], ..TimeWait::default() },
        ports: Ports::default(),
        bind_failures: Vec::new(),
        connect_latency: None,
        connect_failures: Vec::new(),
        rejected_syns: Vec::new(),
        close_wait: Vec::new(),
        shared_ports: Vec::new(),
        resets: Vec::new(),
        findings: Vec::new(),
    }
}

/// Everything at once.
pub(crate) fn full() -> Report {
    let curl = ProcessInfo { exe: Some(Name::from("/usr/bin/python3.13")), ..process(4242, "curl-loop") };
    let nginx = in_unit(812, "nginx", "nginx.service");
    let apache = in_unit(900, "apache2", "apache2.service");
    let mut report = quiet();
    report.session.events.received = 61_044;
    report.time_wait = TimeWait {
        total: 28_490,
        fin_wait2: 20,
        kernel_total: 28_492,
        unattributed: 34,
        unattributed_reasons: UnattributedReasons { before_session: 30, kernel_thread: 4, ..Default::default() },
        entered: 28_460,
        overflowed: 0,
        became_time_wait: 200,
        left: [(Leaving::Expired, 3), (Leaving::Reused, 1)].into(),
        namespaces: vec![namespace(HOST, 28_264), namespace(BLUE, 226), namespace(Netns(4_026_532_400), 0)],
        by_process: vec![
            ProcessTimeWait {
                process: curl.clone(),
                sockets: 28_230,
                fin_wait2: 0,
                entered: 28_230,
                entered_per_s: 940.94,
                closed_first: 28_230,
                overflowed: 0,
                became_time_wait: 28_000,
                left: [].into(),
                outbound: 28_230,
                inbound: 0,
                destinations: vec![
                    to("10.0.0.2:80", 28_000),
                    to("[2001:db8::2]:8443", 120),
                    to("10.0.0.3:80", 60),
                    to("10.0.0.4:80", 25),
                ],
                destinations_omitted: 7,
            },
            ProcessTimeWait {
                process: in_pod(15_022, "java"),
                sockets: 206,
                fin_wait2: 20,
                entered: 230,
                entered_per_s: 7.67,
                closed_first: 226,
                overflowed: 12,
                became_time_wait: 200,
                left: [(Leaving::Expired, 3), (Leaving::Reused, 1)].into(),
                outbound: 0,
                inbound: 226,
                destinations: vec![from("10.1.0.9", "10.1.0.1:8080", 226)],
                destinations_omitted: 0,
            },
        ],
        processes_omitted: 0,
    };
    report.ports = Ports {
        namespaces: vec![ports_of(HOST, 40, Vec::new()), ports_of(BLUE, 3_000, vec![hoarder()])],
        destinations: vec![PortUse {
            netns: HOST,
            local: "10.0.0.1".to_owned(),
            remote: "10.0.0.2:80".to_owned(),
            used: 26_102,
            usable: 28_192,
            peak_used: 28_000,
            live: 102,
            time_wait: 28_000,
            reusable: 2_000,
            second_choice: 12_004,
            processes: vec![
                PortUser { process: Some(curl.clone()), live: 2, time_wait: 27_990 },
                PortUser { process: None, live: 100, time_wait: 10 },
            ],
            processes_omitted: 0,
            rate: Some(PortRate {
                time_wait_per_s: 940.94,
                lowest_per_s: 930.1,
                highest_per_s: 951.78,
                ended_per_s: 941.2,
                seconds: 30.0,
            }),
            forecast: Some(PortForecast {
                outcome: PortOutcome::RunsOut,
                seconds: Some(2.221),
                seconds_soonest: Some(2.196),
                seconds_latest: Some(2.247),
                level: None,
            }),
        }],
        search: None,
        destinations_omitted: 12,
        rates_evicted: 0,
    };
    report.bind_failures = vec![
        BindFailure {
            process: ProcessInfo { exited: true, ..nginx.clone() },
            call: Call::Bind,
            local: Some("0.0.0.0:80".to_owned()),
            netns: HOST,
            errno: 98,
            error: "EADDRINUSE".to_owned(),
            options: SocketOptions { reuse_address: true, ..SocketOptions::default() },
            asker: Asker { uid: Some(0), device: Some(0), ..Asker::default() },
            count: 5,
            over_s: 0.0,
            processes: 5,
            holders: vec![
                Holder {
                    kind: HolderKind::Listener,
                    local: "0.0.0.0:80".to_owned(),
                    remote: None,
                    process: Some(apache.clone()),
                    seconds_left: None,
                    sockets: 1,
                    also_open_in: vec![process(5_201, "apache2")],
                    options: HeldOptions {
                        reuse_address: Some(true),
                        reuse_port: Some(false),
                        ..HeldOptions::default()
                    },
                },
                Holder {
                    kind: HolderKind::TimeWait,
                    local: "10.0.0.1:80".to_owned(),
                    remote: Some("10.0.0.9:51234".to_owned()),
                    process: Some(ProcessInfo { exited: true, ..apache }),
                    seconds_left: Some(43),
                    sockets: 12,
                    also_open_in: Vec::new(),
                    options: HeldOptions::default(),
                },
            ],
            holders_omitted: 3,
            holders_unknown: None,
            refusal: Some(Refusal { rule: Some(Rule::HolderListens), unknown: Vec::new() }),
            remedies: vec![Remedy::ReusePortOnBoth, Remedy::OtherPort],
        },
        BindFailure {
            process: process(5200, "exporter"),
            call: Call::Listen,
            local: None,
            netns: BLUE,
            errno: 98,
            error: "EADDRINUSE".to_owned(),
            options: SocketOptions::default(),
            asker: Asker::default(),
            count: 1,
            over_s: 0.0,
            processes: 1,
            holders: Vec::new(),
            holders_omitted: 0,
            holders_unknown: Some("it had let go before the sockets could be listed".to_owned()),
            refusal: None,
            remedies: Vec::new(),
        },
    ];
    report.connect_failures = vec![
        ConnectFailures {
            process: Some(curl.clone()),
            remote: "10.0.0.2:80".to_owned(),
            netns: HOST,
            cause: ConnectFailure::NoFreePort,
            errno: 99,
            error: "EADDRNOTAVAIL".to_owned(),
            count: 318,
        },
        ConnectFailures {
            process: None,
            remote: "10.0.0.77:40112".to_owned(),
            netns: BLUE,
            cause: ConnectFailure::HandshakeBroken,
            errno: 0,
            error: String::new(),
            count: 2,
        },
    ];
    report.resets = vec![Resets {
        process: Some(nginx),
        remote: "10.0.0.9".to_owned(),
        local: Some("10.0.0.1:443".to_owned()),
        netns: HOST,
        kind: Reset::LingerZero,
        count: 17,
    }];
    report.findings = vec![
        Finding {
            id: "EphemeralPortExhaustion".to_owned(),
            severity: Severity::Critical,
            summary: "curl-loop[4242] has no free ephemeral port towards 10.0.0.2:80.".to_owned(),
            process: Some(curl),
            evidence: strings([
                "318 connect() calls failed with EADDRNOTAVAIL and no local port chosen",
                "28000 of 28232 usable ports of 32768-60999 are in TIME_WAIT towards this destination, all of them \
                 left by curl-loop[4242]",
            ]),
            remedy: strings([
                "Keep connections open and use them again: HTTP keep-alive, a connection pool.",
                "Let the other side close first, then its port is the one that waits.",
            ]),
            ..Finding::default()
        },
        Finding {
            id: "BindConflict".to_owned(),
            severity: Severity::Warning,
            summary: "nginx[812] cannot bind to 0.0.0.0:80: apache2[900] listens there.".to_owned(),
            process: None,
            evidence: strings(["5 refused bind() calls by 5 processes"]),
            remedy: strings(["Stop apache2.service, or give one of both another port."]),
            ..Finding::default()
        },
    ];
    report
}

/// Events were lost, and not everything could be looked at.
pub(crate) fn lossy() -> Report {
    let mut report = quiet();
    report.session.interrupted = true;
    report.session.duration_s = 4.26;
    report.session.events = Events {
        received: 41_900,
        bytes: 0,
        lost: 3_107,
        lost_by_kind: Lost { transitions: 3_100, refused_calls: 0, processes: 5, timewait: 0, skipped_programs: 2 },
        malformed: 1,
        sockets_not_followed: 12,
        evicted: 4,
    };
    report.session.hooks.push(Hook {
        observes: "connect() without a free port".to_owned(),
        rung: "none".to_owned(),
        reason: "no tracepoint: tracefs cannot be mounted; such a connect() is not seen".to_owned(),
    });
    report.session.blind_spots = strings(["netns 4026532297 could not be entered: Operation not permitted"]);
    report.time_wait = TimeWait {
        total: 3_000,
        kernel_total: 2_950,
        unattributed: 3_000,
        unattributed_reasons: UnattributedReasons {
            before_session: 0,
            closing_before_session: 1,
            kernel_thread: 0,
            closed_under_observation: 0,
            event_lost: 2_990,
            not_seen: 9,
        },
        entered: 1,
        overflowed: 1_024,
        namespaces: vec![NetnsTimeWait {
            netns: HOST,
            total: 3_000,
            kernel_total: 2_950,
            max_tw_buckets: Some(3_000),
            port_range: None,
            usable_ports: None,
            overflowed: 1_024,
        }],
        ..TimeWait::default()
    };
    report
}

/// Lists of `length` entries each.
pub(crate) fn long(length: u32) -> Report {
    let mut report = quiet();
    let full = full();
    for number in 0..length {
        let count = u64::from(length - number);
        let worker = process(1000 + number, &format!("worker-{number}"));
        let template = full.time_wait.by_process.first().cloned().unwrap();
        report.time_wait.by_process.push(ProcessTimeWait {
            process: worker.clone(),
            sockets: count,
            destinations: vec![to("10.0.0.2:80", count)],
            destinations_omitted: 0,
            ..template
        });
        report.time_wait.total += count;
        report.time_wait.kernel_total += count;
        report.connect_failures.push(ConnectFailures {
            process: Some(worker.clone()),
            count,
            ..full.connect_failures.first().cloned().unwrap()
        });
        report.resets.push(Resets { process: Some(worker.clone()), count, ..full.resets.first().cloned().unwrap() });
        let mut refused = full.bind_failures.first().cloned().unwrap();
        refused.holders = vec![refused.holders.first().cloned().unwrap(); usize::try_from(length).unwrap()];
        report.bind_failures.push(BindFailure { process: worker, count, ..refused });
        report.session.blind_spots.push(format!("/proc/{} could not be read: Permission denied", 2000 + number));
    }
    report.time_wait.processes_omitted = 40;
    report
}
