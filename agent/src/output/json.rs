//! The report as JSON, `firstfin.report/1`. Its fields are those of [`Report`], nothing is added or left out here.

use crate::report::Report;

/// How JSON is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Over many lines: a report that stands alone
    Document,
    /// In one line: reports that follow each other
    Line,
}

/// The report as JSON, ended by a newline.
///
/// # Errors
/// Those of serde_json: none for a report, which has no keys but strings.
pub fn render(report: &Report, layout: Layout) -> serde_json::Result<String> {
    let mut text = match layout {
        Layout::Document => serde_json::to_string_pretty(report)?,
        Layout::Line => serde_json::to_string(report)?,
    };
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::output::fixtures;

    fn reports() -> [Report; 4] {
        [fixtures::quiet(), fixtures::full(), fixtures::lossy(), fixtures::long(3)]
    }

    #[test]
    fn a_report_survives_the_way_there_and_back() {
        for report in reports() {
            for layout in [Layout::Document, Layout::Line] {
                let text = render(&report, layout).unwrap();
                assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
            }
        }
    }

    #[test]
    fn a_line_is_one_line() {
        let text = render(&fixtures::full(), Layout::Line).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn reports_are_what_the_schema_says() {
        let schema = serde_json::to_value(schemars::schema_for!(Report)).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        for report in reports() {
            let value: Value = serde_json::from_str(&render(&report, Layout::Line).unwrap()).unwrap();
            assert!(validator.is_valid(&value), "{:?}", validator.iter_errors(&value).collect::<Vec<_>>());
            let mut broken = value;
            broken["time_wait"]["total"] = "many".into();
            assert!(!validator.is_valid(&broken));
        }
    }

    /// The contract for scripts: these names and their types stay as they are.
    #[test]
    fn the_document_as_scripts_see_it() {
        insta::assert_snapshot!(render(&fixtures::full(), Layout::Document).unwrap());
    }
}
