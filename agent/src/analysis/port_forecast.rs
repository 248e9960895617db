//! ExhaustionForecast: no connect() failed yet, but at this rate one will.

use super::{ports, thresholds, who_or_unknown};
use crate::{
    model::ConnectFailure,
    report::{Finding, PortForecast, PortOutcome, PortUse, Report, Severity},
};

pub(super) const ID: &str = "ExhaustionForecast";

pub(super) fn findings(report: &Report) -> Vec<Finding> {
    report.ports.destinations.iter().filter_map(|used| of_destination(report, used)).collect()
}

fn of_destination(report: &Report, used: &PortUse) -> Option<Finding> {
    let forecast = used.forecast.as_ref()?;
    let severity = severity(used, forecast)?;
    // Where it has happened, a forecast of it is no news.
    let has_failed = report.connect_failures.iter().any(|failure| {
        failure.cause == ConnectFailure::NoFreePort && failure.netns == used.netns && failure.remote == used.remote
    });
    if has_failed {
        return None;
    }
    let place = report.ports.namespace(used.netns);
    let most = used.processes.iter().find_map(|user| user.process.as_ref());
    let name = who_or_unknown(most);
    let mut evidence = vec![format!(
        "in use: {} of {}, {} of them by live connections, {} in TIME_WAIT",
        used.used,
        used.usable,
        used.live,
        used.time_wait - used.reusable
    )];
    evidence.extend(used.rate.map(|rate| {
        format!(
            "{:.1} connections a second entered TIME_WAIT in the last {:.0} s (between {:.1} and {:.1})",
            rate.time_wait_per_s, rate.seconds, rate.lowest_per_s, rate.highest_per_s
        )
    }));
    evidence.push(format!("{} of the ports in use are from the half that connect() tries second", used.second_choice));
    evidence.extend(ports::search(report));
    evidence.extend(place.and_then(ports::limits));
    evidence.extend(ports::users(used));
    let mut remedy = vec![
        "keep connections open and use them again (keep-alive, a connection pool): each close costs a port for 60 s"
            .to_owned(),
        "or let the other side close first: TIME_WAIT then stays there".to_owned(),
    ];
    remedy.extend(ports::wider_range(place));
    let (reuse, avoid) = ports::against_time_wait(place, &used.remote);
    remedy.extend(reuse);
    Some(Finding {
        id: ID.to_owned(),
        severity,
        summary: format!("{name} is running out of ephemeral ports towards {}: {}", used.remote, when(forecast)),
        process: most.cloned(),
        netns: Some(used.netns),
        local: Some(used.local.clone()),
        remote: Some(used.remote.clone()),
        cause: "each connection that is closed here first keeps its port in TIME_WAIT, and more come than leave"
            .to_owned(),
        evidence,
        remedy,
        avoid,
        ..Finding::default()
    })
}

/// It will happen, it may, or one that lasts is close to its limit.
fn severity(used: &PortUse, forecast: &PortForecast) -> Option<Severity> {
    let level = forecast.level.unwrap_or_default() as f64 / used.usable.max(1) as f64;
    match forecast.outcome {
        PortOutcome::Exhausted | PortOutcome::RunsOut => Some(Severity::Critical),
        PortOutcome::LevelsOff if level >= thresholds::PORTS_CRITICAL => Some(Severity::Warning),
        PortOutcome::LevelsOff => None,
    }
}

fn when(forecast: &PortForecast) -> String {
    match (forecast.outcome, forecast.seconds, forecast.level) {
        (PortOutcome::Exhausted, ..) => "none is left".to_owned(),
        (PortOutcome::RunsOut, Some(seconds), _) => format!("none will be left in {seconds:.0} s{}", between(forecast)),
        (_, _, Some(level)) => format!("at this rate {level} will be in use, and little more load takes the rest"),
        _ => "when is not known".to_owned(),
    }
}

fn between(forecast: &PortForecast) -> String {
    match (forecast.seconds_soonest, forecast.seconds_latest) {
        (Some(soonest), Some(latest)) => format!(" ({soonest:.0} to {latest:.0} s)"),
        (Some(soonest), None) => format!(" ({soonest:.0} s at the soonest; it may also just last)"),
        _ => String::new(),
    }
}
