//! `firstfin doctor`: what this host allows, and what would have to change.

use std::{fmt::Write as _, process::ExitCode};

use serde::Serialize;

use crate::{
    cli::{Doctor, Format, Global},
    kernel::{
        Programs, Settings, StartError,
        containers::{Config, Containers, Reach, Source},
        host::{Answer, HostFacts, Tracefs},
        plan,
    },
    output,
    report::Hook,
};

/// Version of the JSON form.
const SCHEMA: &str = "firstfin.doctor/1";

#[derive(Serialize)]
struct Diagnosis {
    schema: &'static str,
    can_run: bool,
    facts: HostFacts,
    hooks: Vec<Hook>,
    containers: Vec<Source>,
    obstacles: Vec<Obstacle>,
    blind_spots: Vec<String>,
}

#[derive(Serialize)]
struct Obstacle {
    missing: String,
    meaning: String,
    remedy: String,
}

impl From<StartError> for Obstacle {
    fn from(error: StartError) -> Self {
        Self { missing: error.missing, meaning: error.meaning, remedy: error.remedy }
    }
}

pub(super) fn run(global: &Global, args: &Doctor) -> anyhow::Result<ExitCode> {
    let facts = HostFacts::gather();
    let mut obstacles: Vec<Obstacle> = plan::obstacles(&facts).into_iter().map(Obstacle::from).collect();
    let highest_rung = global.max_rung.rung();
    // Whether a program loads is known when it was tried: they are attached, for the moment that takes.
    let tried = if obstacles.is_empty() {
        let settings = Settings { highest_rung, ..Settings::default() };
        plan::plan(&facts, highest_rung)
            .and_then(|plan| Programs::carry_out(plan, &settings))
            .map_err(|error| obstacles.push(error.into()))
            .ok()
    } else {
        None
    };
    let hooks = tried.map_or_else(
        || plan::outlook(&facts, highest_rung).iter().map(plan::Step::hook).collect(),
        |programs| programs.plan().hooks(),
    );
    let diagnosis = Diagnosis {
        schema: SCHEMA,
        can_run: obstacles.is_empty(),
        hooks,
        containers: Containers::new(&Config::default()).survey(),
        blind_spots: plan::blind_spots(&facts),
        obstacles,
        facts,
    };
    let page = match args.format {
        Format::Text => text(&diagnosis),
        Format::Json => serde_json::to_string_pretty(&diagnosis)? + "\n",
    };
    output::write_stdout(&page)?;
    Ok(if diagnosis.can_run { ExitCode::SUCCESS } else { ExitCode::from(super::COULD_NOT_RUN) })
}

fn text(diagnosis: &Diagnosis) -> String {
    let mut page = String::new();
    let facts = &diagnosis.facts;
    // Writing to a String cannot fail.
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(page, "  {name:<20} {value}");
    };
    fact("kernel", &format!("{} {}", facts.kernel, facts.machine));
    let capabilities = &facts.capabilities;
    for (name, has, what_for) in [
        ("CAP_BPF", capabilities.bpf || capabilities.sys_admin, "load programs"),
        ("CAP_PERFMON", capabilities.perfmon || capabilities.sys_admin, "load tracing programs"),
        ("CAP_SYS_ADMIN", capabilities.sys_admin, "enter network namespaces, mount tracefs"),
        ("CAP_SYS_PTRACE", capabilities.sys_ptrace, "look up other users' processes"),
        ("CAP_DAC_READ_SEARCH", capabilities.dac_read_search, "read other users' open files, and names of containers"),
    ] {
        fact(name, &format!("{} ({what_for})", if has { "yes" } else { "no" }));
    }
    fact("BTF", &answer(&facts.btf));
    fact(
        "lockdown",
        facts.lockdown.as_deref().unwrap_or("unknown: /sys/kernel/security is not mounted or not readable"),
    );
    fact(
        "tracefs",
        match &facts.tracefs {
            Tracefs::Mounted => "mounted",
            Tracefs::Mountable => "not mounted; firstfin mounts it for itself, out of the host's sight",
            Tracefs::Unavailable(why) => why,
        },
    );
    fact("sock_diag", &answer(&facts.inet_diag));
    fact("raw tracepoints", &answer(&facts.raw_tracepoint));
    fact("tracepoints", &answer(&facts.tracepoint));
    fact("fentry", &answer(&facts.fentry));
    fact("kprobes", &answer(&facts.kprobe));
    fact("pid namespace", if facts.initial_pid_namespace { "the host's" } else { "its own" });

    page.push_str("\nobserved, and by what means\n");
    for hook in &diagnosis.hooks {
        let _ = writeln!(page, "  {:<38} {}", hook.observes, hook.rung);
        if hook.reason != plan::HIGHEST_RUNG {
            for reason in hook.reason.split("; ") {
                let _ = writeln!(page, "      {reason}");
            }
        }
    }
    page.push_str("\nnames of containers\n");
    if diagnosis.containers.is_empty() {
        page.push_str("  no runtime's files are here; a container would go by its id\n");
    }
    for Source { runtime, path, reach } in &diagnosis.containers {
        let said = match reach {
            Reach::Readable { containers: Some(1) } => "readable, 1 container".to_owned(),
            Reach::Readable { containers: Some(count) } => format!("readable, {count} containers"),
            Reach::Readable { containers: None } => "readable".to_owned(),
            Reach::Unreadable { why } => format!("its containers go by their id: {why}"),
        };
        let _ = writeln!(page, "  {runtime:<16} {}: {said}", path.display());
    }
    for spot in &diagnosis.blind_spots {
        let _ = writeln!(page, "\nblind spot: {spot}");
    }
    for obstacle in &diagnosis.obstacles {
        let _ = writeln!(
            page,
            "\nin the way: {}\n  what it means: {}\n  what to do:    {}",
            obstacle.missing, obstacle.meaning, obstacle.remedy
        );
    }
    page.push_str(if diagnosis.can_run {
        "\nfirstfin can run here.\n"
    } else {
        "\nfirstfin cannot run here as it is.\n"
    });
    page
}

fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Yes => "yes".to_owned(),
        Answer::No(why) => format!("no: {why}"),
        Answer::Unknown(why) => format!("unknown: {why}"),
    }
}
