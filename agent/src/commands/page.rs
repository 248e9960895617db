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

/// Writes the page, if one is asked for. Where that fails, the report can be printed all the same.
pub(super) fn write(
    file: Option<NewFile>,
    report: &Report,
    played: &Played,
    course: Option<&Course>,
) -> anyhow::Result<()> {
    if let (Some(file), Some(course)) = (file, course) {
        file.finish(&html::render(report, course, played.state.started())?)?;
    }
    Ok(())
}
