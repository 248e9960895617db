//! Which rung the tests run on, and what is to be expected there.
//!
//! `FIRSTFIN_MAX_RUNG` is `fentry`, `kprobe` or `tracepoint`: the rung that everything with a choice has to be observed
//! on. Without it the tests take what this host allows.

use std::sync::OnceLock;

use agent_ebpf::{Detail, names};

use firstfin::{
    kernel::{
        Settings,
        plan::{Observed, Rung},
    },
    report::Events,
};
use libtest_mimic::{Failed, Trial};

use crate::{
    case::{Outcome, lesser, trials},
    readers::kernel_is_at_least,
    watch::Watch,
};

const VARIABLE: &str = "FIRSTFIN_MAX_RUNG";

pub(crate) fn tests() -> Vec<Trial> {
    trials!("rung": everything_is_observed_on_the_wanted_rung, transitions_are_read_by_the_program_meant_for_this_kernel)
}

/// The rung asked for.
pub(crate) fn wanted() -> Option<Rung> {
    static WANTED: OnceLock<Option<Rung>> = OnceLock::new();
    *WANTED.get_or_init(|| {
        let value = std::env::var(VARIABLE).ok()?;
        let rung = [Rung::Fentry, Rung::Kprobe, Rung::Tracepoint].into_iter().find(|rung| rung.name() == value);
        Some(rung.unwrap_or_else(|| panic!("{VARIABLE} is {value}: fentry, kprobe or tracepoint")))
    })
}

/// The settings of every watch of these tests that wishes nothing else: every end of a connection.
pub(crate) fn settings() -> Settings {
    Settings { highest_rung: wanted().unwrap_or(Rung::Fentry), detail: Detail::Ends, ..Settings::default() }
}

/// The same for the program itself.
pub(crate) fn arguments() -> [&'static str; 2] {
    ["--max-rung", wanted().unwrap_or(Rung::Fentry).name()]
}

/// The rung something is observed on, in the session all tests share.
pub(crate) fn of(observed: Observed) -> Result<Rung, Failed> {
    Ok(Watch::shared()?.plan().rung(observed))
}

/// Whether it is watched going on in the kernel, by fentry programs or kprobes.
pub(crate) fn is_upper(observed: Observed) -> Result<bool, Failed> {
    Ok(of(observed)? < Rung::Tracepoint)
}

/// Nothing was lost. A kprobe is not run where it interrupts another one, nor on a CPU where a task has lost it in the
/// middle of a bpf(2) call; and since 7.0 the same is true of the program for transitions. There skipped programs are in
/// the nature of things, as long as they are counted. Elsewhere one is skipped only where a packet interrupts that very
/// program: once in ten thousand records, on a slow machine. Returns how many were: at most so many connections may be
/// unknown, and none may be wrong.
pub(crate) fn assert_nothing_lost(events: &Events) -> Result<u64, Failed> {
    let may_skip = of(Observed::TimeWaitLeft)? == Rung::Kprobe || kernel_is_at_least(7, 0)?;
    let skipped = events.lost_by_kind.skipped_programs;
    assert_eq!(events.lost - skipped, 0, "{events:?}");
    assert!(may_skip || skipped <= events.received / 10_000, "{events:?}");
    if skipped > 0 {
        lesser("programs are skipped, and counted");
    }
    Ok(skipped)
}

/// What falls to a lower rung does so silently for the other tests: they would pass, and prove less.
fn everything_is_observed_on_the_wanted_rung() -> Outcome {
    let Some(wanted) = wanted() else { return Ok(()) };
    let plan = Watch::shared()?.plan();
    for observed in [
        Observed::TimeWaitEntered,
        Observed::TimeWaitLeft,
        Observed::PortConflicts,
        Observed::NoFreePort,
        Observed::AcceptedBy,
    ] {
        let expected = match (wanted, observed) {
            // Below kprobes there is no hook that sees it.
            (Rung::Tracepoint, Observed::TimeWaitLeft) => Rung::SockDiag,
            _ => wanted,
        };
        assert_eq!(plan.rung(observed), expected, "{observed:?}: {:#?}", plan.hooks());
    }
    Ok(())
}

/// A kernel that refuses the one meant for it gets another one, which does the same more slowly, and nobody would notice.
fn transitions_are_read_by_the_program_meant_for_this_kernel() -> Outcome {
    let plan = Watch::shared()?.plan();
    let step =
        plan.steps.iter().find(|step| step.observed == Observed::Transitions).ok_or("no step for transitions")?;
    let programs: Vec<_> = step.programs.iter().map(|program| program.name).collect();
    let expected = if kernel_is_at_least(7, 0)? {
        vec![names::INET_SOCK_SET_STATE_UNPREEMPTED, names::INET_SOCK_SET_STATE_SKIPPED]
    } else if kernel_is_at_least(5, 11)? {
        vec![names::INET_SOCK_SET_STATE_TYPED]
    } else {
        vec![names::INET_SOCK_SET_STATE]
    };
    assert_eq!(programs, expected);
    Ok(())
}
