//! Minutes of the history as CSV (RFC 4180, with newlines as Unix has them): a header, then a line for each.
//!
//! Columns are added at the end, never renamed or moved. Times are RFC 3339 in UTC.

use std::fmt::Write as _;

use crate::{
    history::{DestinationRow, MinuteRow, ProcessRow, rollup::Identity},
    report::Direction,
};

/// What stands for the sum of those that are not kept by name.
const OTHERS: &str = "(others)";

/// Minutes by process.
#[must_use]
pub fn processes(rows: &[ProcessRow]) -> String {
    let mut text =
        String::from("minute,process,pid,exe,unit,container,pod,time_wait,fin_wait2,entered,closed_first,overflowed\n");
    for row in rows {
        let it = &row.figures;
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{},{},{}",
            row.at,
            name(row.process.as_ref()),
            // The others have none.
            if row.process.is_some() { row.pid.to_string() } else { String::new() },
            field(row.process.as_ref().and_then(|it| it.exe.as_ref()).map_or("", |it| it.as_str())),
            unit(row.process.as_ref()),
            container(row.process.as_ref()),
            pod(row.process.as_ref()),
            it.sockets,
            it.fin_wait2,
            it.entered,
            it.closed_first,
            it.overflowed,
        );
    }
    text
}

/// Minutes by process and destination.
#[must_use]
pub fn destinations(rows: &[DestinationRow]) -> String {
    let mut text = String::from("minute,process,unit,container,pod,direction,remote,local,time_wait\n");
    for row in rows {
        let direction = match row.direction {
            Some(Direction::Outbound) => "outbound",
            Some(Direction::Inbound) => "inbound",
            None => "",
        };
        let _ = writeln!(
            text,
            "{},{},{},{},{},{direction},{},{},{}",
            row.at,
            name(row.process.as_ref()),
            unit(row.process.as_ref()),
            container(row.process.as_ref()),
            pod(row.process.as_ref()),
            field(row.remote.as_deref().unwrap_or_default()),
            field(row.local.as_deref().unwrap_or_default()),
            row.sockets,
        );
    }
    text
}

/// Minutes.
#[must_use]
pub fn minutes(rows: &[MinuteRow]) -> String {
    let mut text = String::from("minute,time_wait,entered,largest_process,largest_time_wait\n");
    for row in rows {
        let largest = row.largest.as_ref().map_or_else(String::new, |it| field(it.comm.as_str()));
        let _ = writeln!(text, "{},{},{},{largest},{}", row.at, row.sockets, row.entered, row.largest_sockets);
    }
    text
}

fn name(process: Option<&Identity>) -> String {
    process.map_or_else(|| OTHERS.to_owned(), |it| field(it.comm.as_str()))
}

fn unit(process: Option<&Identity>) -> String {
    field(process.and_then(|it| it.unit.as_ref()).map_or("", |it| it.as_str()))
}

fn container(process: Option<&Identity>) -> String {
    let container = process.and_then(|it| it.container.as_ref());
    field(container.map_or("", |it| it.name.as_ref().unwrap_or(&it.id).as_str()))
}

fn pod(process: Option<&Identity>) -> String {
    let pod = process.and_then(|it| it.container.as_ref()).and_then(|it| it.pod.as_ref().or(it.pod_uid.as_ref()));
    field(pod.map_or("", |it| it.as_str()))
}

/// A field, quoted where it has to be. A process may choose a name that a spreadsheet would take for a formula: such a one gets
/// an apostrophe in front, by which spreadsheets know text.
fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stays_a_field_and_is_no_formula() {
        assert_eq!(field("nginx: worker"), "nginx: worker");
        assert_eq!(field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(field("=HYPERLINK(1,2)"), "\"'=HYPERLINK(1,2)\"");
    }
}
