//! The report as one page of HTML that needs nothing else: no network, no script.
//!
//! The charts are SVG, drawn here, so that the page prints, can be read in a mail, and is the same for everybody; what they
//! show stands in tables, too. Text that came from outside is escaped by the template; drawings hold none.

mod chart;
mod diagram;
mod model;
mod over_time;

use askama::Template;

use self::{
    diagram::Edge,
    model::{
        BucketView, CountView, FindingView, NamespaceView, PortsView, ProcessView, RefusedView, Rows, SidesView,
        grouped,
    },
    over_time::OverTime,
};
use super::text::{self, session, time_wait};
use crate::{course::Course, model::Timestamp, report::Report};

const STYLE: &str = include_str!("page.css");

/// The page as it is laid out.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    style: &'static str,
    report: &'a Report,
    found: String,
    worst: &'static str,
    is_complete: bool,
    findings: Vec<FindingView<'a>>,
    time_wait: String,
    over_time: OverTime,
    step: String,
    processes: Rows<ProcessView>,
    unattributed: Vec<String>,
    left: Vec<String>,
    namespaces: Rows<NamespaceView>,
    rates: Vec<(&'static str, OverTime)>,
    destinations: Rows<PortsView>,
    poisoned: Vec<String>,
    refused: Rows<RefusedView>,
    connects: Rows<CountView>,
    resets: Rows<CountView>,
    latency: Vec<BucketView>,
    connected: String,
    no_latency: &'static str,
    searches: Vec<BucketView>,
    searched: String,
    no_searches: String,
    sides: Rows<SidesView>,
    all_sides: SidesView,
    sides_notes: Vec<String>,
    diagram: String,
    edges: Vec<Edge>,
    events: Vec<String>,
    attributed: String,
    observed: Vec<String>,
    rungs: Vec<String>,
    data: String,
}

/// The page of a session that began at `started`, ended by a newline.
///
/// # Errors
/// It could not be put together.
pub fn render(report: &Report, course: &Course, started: Timestamp) -> anyhow::Result<String> {
    let timeline = &course.timeline;
    let times = over_time::times(timeline, started.0);
    let edges = diagram::edges(report, &course.closings);
    let (sides, all_sides) = model::sides(&course.closings);
    let shared = session::shared_reasons(&report.session.hooks);
    let (latency, search) = (report.connect_latency.as_ref(), report.ports.search.as_ref());
    let page = Page {
        style: STYLE,
        report,
        found: text::found(report),
        worst: report.findings.iter().map(|it| it.severity).max().map_or("none", super::words::severity),
        is_complete: session::is_complete(report),
        findings: model::findings(report),
        time_wait: time_wait::summary(&report.time_wait, report.session.duration_s),
        over_time: over_time::time_wait(timeline, &times, started.0),
        step: chart::time_label(timeline.step() as f64 / 1e9, 1.0),
        processes: model::processes(report),
        unattributed: model::unattributed(report),
        left: model::left(report),
        namespaces: model::namespaces(report),
        rates: over_time::rates(timeline, &times),
        destinations: model::destinations(report),
        poisoned: model::poisoned(report),
        refused: model::refused(report),
        connects: model::connects(report),
        resets: model::resets(report),
        latency: model::histogram(latency.map_or(&[], |latency| &latency.buckets)),
        connected: latency.map_or_else(String::new, |latency| grouped(latency.connections)),
        no_latency: model::no_latency(course.connect_timed),
        searches: model::histogram(search.map_or(&[], |search| &search.buckets)),
        searched: search.map_or_else(String::new, |search| grouped(search.searches)),
        no_searches: model::no_searches(report, course.port_searches_observed),
        sides,
        all_sides,
        sides_notes: model::sides_notes(&course.closings),
        diagram: diagram::draw(&edges),
        edges,
        events: session::events(&report.session.events),
        attributed: session::attributed(report),
        observed: session::observed(&report.session.hooks, &shared),
        rungs: shared.iter().map(|reason| (*reason).to_owned()).collect(),
        // Within a script element only `<` could end it.
        data: serde_json::to_string(&over_time::data(timeline, &times, started.0))?.replace('<', "\\u003c"),
    };
    Ok(page.render()? + "\n")
}
