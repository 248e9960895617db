//! The page of a session, for the commands that can write one.

use std::path::Path;

use crate::{
    course::Course,
    output::{NewFile, html},
    recording::Played,
    report::Report,
};

/// Begins the file of a page that is asked for.
pub(super) fn create(path: Option<&Path>) -> anyhow::Result<Option<NewFile>> {
    path.map(NewFile::create).transpose()
}

/// Makes the report, writes the page if one is asked for, and prints the report, whether or not the page could be written.
pub(super) fn tell(
    played: &Played,
    page: Option<NewFile>,
    course: Option<&Course>,
    print: impl FnOnce(&Report) -> anyhow::Result<()>,
) -> anyhow::Result<Report> {
    let report = played.report();
    let written = page
        .zip(course)
        .map_or(Ok(()), |(file, course)| file.finish(&html::render(&report, course, played.state.started())?));
    print(&report)?;
    written?;
    Ok(report)
}
