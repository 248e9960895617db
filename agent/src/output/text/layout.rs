//! Lines, hanging indents and columns, on top of comfy-table, which knows how wide characters are.
//!
//! Nothing is wrapped without a width: a pipe gets one line an item. No frames and no rules: what is printed can be cut
//! with awk, pasted into a ticket, and read on any terminal.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use owo_colors::Style;

/// Text that grows downwards.
pub(super) struct Page {
    text: String,
    width: Option<u16>,
    colour: bool,
}

/// A column of a table.
pub(super) struct Column {
    title: &'static str,
    is_number: bool,
}

impl Column {
    pub(super) const fn number(title: &'static str) -> Self {
        Self { title, is_number: true }
    }

    pub(super) const fn text(title: &'static str) -> Self {
        Self { title, is_number: false }
    }
}

/// What stands before each of many things.
#[derive(Clone, Copy)]
pub(super) enum Marks {
    /// Their order means nothing
    Dashes,
    /// One after the other
    Numbers,
}

/// A row of a table, and what is to be said about it in lines of their own below.
#[derive(Default)]
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) below: Vec<String>,
}

impl From<Vec<String>> for Row {
    fn from(cells: Vec<String>) -> Self {
        Self { cells, below: Vec::new() }
    }
}

const INDENT: u16 = 2;
/// Lines below a row stand a little to the right of it.
const BELOW: u16 = 6;
/// Prose is hard to read in longer lines, and comfy-table needs room for a word.
const WIDTHS: std::ops::RangeInclusive<u16> = 40..=120;

impl Page {
    pub(super) fn new(width: Option<u16>, colour: bool) -> Self {
        let width = width.map(|width| width.clamp(*WIDTHS.start(), *WIDTHS.end()));
        Self { text: String::new(), width, colour }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// A part's first line: an empty line before it, its title in bold.
    pub(super) fn section(&mut self, title: &str, rest: &str) {
        self.gap();
        self.styled(title, Style::new().bold(), rest);
    }

    /// A line whose beginning stands out.
    pub(super) fn styled(&mut self, start: &str, style: Style, rest: &str) {
        let lines = hanging(self.width, 0, &[], &format!("{start}{rest}"));
        for (number, line) in lines.into_iter().enumerate() {
            match line.strip_prefix(start) {
                Some(rest) if number == 0 && self.colour => {
                    self.text.push_str(&style.style(start).to_string());
                    self.push_line(rest);
                }
                _ => self.push_line(&line),
            }
        }
    }

    /// A paragraph, indented.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.push_lines(hanging(self.width, INDENT, &[], text));
    }

    /// A paragraph, indented further: about the line above it.
    pub(super) fn below(&mut self, text: &str) {
        self.push_lines(hanging(self.width, BELOW, &[], text));
    }

    /// A word, in `label_width` columns, and what is to be said to it.
    pub(super) fn labelled(&mut self, label: &str, label_width: u16, text: &str) {
        self.push_lines(hanging(self.width, INDENT, &[(label, label_width)], text));
    }

    /// The same with many things to be said; each has a mark, so that it shows where a wrapped one ends.
    pub(super) fn list(&mut self, label: &str, label_width: u16, items: &[String], marks: Marks) {
        if let [only] = items {
            self.labelled(label, label_width, only);
            return;
        }
        for (item, number) in items.iter().zip(1_usize..) {
            let mark = match marks {
                Marks::Dashes => "-".to_owned(),
                Marks::Numbers => format!("{number}."),
            };
            let mark_width = u16::try_from(mark.len()).unwrap_or(1);
            let label = if number == 1 { label } else { "" };
            self.push_lines(hanging(self.width, INDENT, &[(label, label_width), (&mark, mark_width)], item));
        }
    }

    /// A table. Its cells are never wrapped: a number in two lines is no number any more.
    pub(super) fn table(&mut self, columns: &[Column], rows: Vec<Row>) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|column| column.title));
        let mut below = Vec::with_capacity(rows.len());
        for row in rows {
            table.add_row(row.cells);
            below.push(row.below);
        }
        for (column, definition) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            if definition.is_number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut lines = table.lines();
        if let Some(header) = lines.next() {
            self.push_line(&format!("  {header}"));
        }
        for (line, below) in lines.zip(below) {
            self.push_line(&format!("  {line}"));
            for text in below {
                self.below(&text);
            }
        }
    }

    fn push_lines(&mut self, lines: Vec<String>) {
        for line in lines {
            self.push_line(&line);
        }
    }

    fn push_line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

/// `text` in lines of `width` columns at most, each but the first beginning below the first one's text, which stands
/// behind the labels and their widths.
fn hanging(width: Option<u16>, indent: u16, labels: &[(&str, u16)], text: &str) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.saturating_sub(indent));
    }
    table.add_row(labels.iter().map(|(label, _)| *label).chain([text]));
    for column in table.column_iter_mut() {
        column.set_padding((0, 0));
    }
    let mut gap = 2;
    for (column, (_, label_width)) in table.column_iter_mut().zip(labels) {
        column.set_padding((0, gap)).set_constraint(ColumnConstraint::Absolute(Width::Fixed(label_width + gap)));
        // A mark stands close to its text.
        gap = 1;
    }
    let indentation = " ".repeat(usize::from(indent));
    table.lines().map(|line| format!("{indentation}{line}")).collect()
}
