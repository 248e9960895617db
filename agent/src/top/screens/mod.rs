//! The screens: what a view knows, drawn. Pure: the same view gives the same cells.

mod failures;
mod frame;
mod help;
mod overview;
mod palette;
mod ports;
mod process;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::Line,
    widgets::{Paragraph, Wrap},
};

pub use self::palette::Palette;
use super::app::{App, Screen};

/// The least there has to be: columns and lines.
pub const SMALLEST: (u16, u16) = (80, 24);

/// Draws the view.
pub fn draw(frame: &mut Frame<'_>, app: &App, palette: Palette) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (width, height) = SMALLEST;
        let text =
            format!("firstfin needs {width}x{height} characters, and has {}x{}. q quits", area.width, area.height);
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    frame::head(frame, head, app, palette);
    match app.screen() {
        Screen::Overview => overview::draw(frame, body, app, palette),
        Screen::Ports => ports::draw(frame, body, app, palette),
        Screen::Failures => failures::draw(frame, body, app, palette),
        Screen::Process => process::draw(frame, body, app, palette),
        Screen::Help => help::draw(frame, body, app, palette),
    }
    frame::foot(frame, foot, app, palette);
}

/// Says in a list's place why it is empty.
fn nothing(frame: &mut Frame<'_>, area: Rect, app: &App, what: &str) {
    let (filter, _) = app.filter();
    let text = match (app.shown().report(), filter.text()) {
        (None, _) => "the sockets have not been looked at yet".to_owned(),
        (Some(_), "") => what.to_owned(),
        (Some(_), text) => format!("nothing that contains \"{text}\"; Esc clears the filter"),
    };
    frame.render_widget(Paragraph::new(text), area);
}

/// Lines of text, wrapped, from the one on that it is scrolled to.
fn page(frame: &mut Frame<'_>, area: Rect, app: &App, lines: Vec<Line<'_>>) {
    let width = usize::from(area.width.max(1));
    // At least as many as there are when they are wrapped at words: the last one stays in sight.
    let wrapped: usize = lines.iter().map(|line| line.width().div_ceil(width).max(1)).sum();
    let last = u16::try_from(wrapped.saturating_sub(1)).unwrap_or(u16::MAX);
    let paragraph = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(paragraph.scroll((app.scrolled().min(last), 0)), area);
}

/// A number per second: `12.3/s`.
fn rate(per_second: Option<f64>) -> String {
    per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}/s"))
}

/// Text of at most `width` characters; what is cut off leaves a mark.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('~');
    cut
}
