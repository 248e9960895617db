//! The keys, and how the screens are to be read.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::{
    super::{app::App, keys::BINDINGS},
    Palette,
};

/// Columns of the keys.
const KEYS: usize = 16;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, palette: Palette) {
    let lines = BINDINGS.iter().map(|binding| {
        Line::from(vec![Span::styled(format!("{:<KEYS$}", binding.names), palette.title()), Span::raw(binding.does)])
    });
    super::page(frame, area, app, lines.collect());
}
