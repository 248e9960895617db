//! What is around every screen: what is looked at, which screen it is, the keys.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{
    super::{
        app::{App, Screen},
        keys::BINDINGS,
    },
    Palette,
};

pub(super) fn head(frame: &mut Frame<'_>, area: Rect, app: &App, palette: Palette) {
    let [first, second] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
    let seconds = app.shown().duration().as_secs();
    let mut title = vec![Span::styled("firstfin  ", palette.title())];
    if app.is_paused() {
        title.push(Span::styled("PAUSED, p goes on  ", palette.warning()));
    }
    if app.has_ended() {
        title.push(Span::styled("the recording has ended  ", palette.warning()));
    }
    title.push(Span::raw(format!("{}:{:02} of {}", seconds / 60, seconds % 60, app.source())));
    frame.render_widget(Paragraph::new(Line::from(title)), first);
    let mut tabs = Vec::new();
    for screen in Screen::ALL {
        // The brackets say the same as the style does.
        let (text, style) = if screen == app.screen() {
            (format!("[{}] ", screen.title()), palette.title())
        } else {
            (format!(" {}  ", screen.title()), palette.label())
        };
        tabs.push(Span::styled(text, style));
    }
    frame.render_widget(Paragraph::new(Line::from(tabs)), second);
}

pub(super) fn foot(frame: &mut Frame<'_>, area: Rect, app: &App, palette: Palette) {
    let (filter, is_typing) = app.filter();
    if is_typing {
        let line = Line::from(vec![
            Span::styled("filter: ", palette.label()),
            Span::raw(format!("{}_", filter.text())),
            Span::styled("   Enter keeps it, Esc clears it", palette.label()),
        ]);
        return frame.render_widget(Paragraph::new(line), area);
    }
    let mut spans = Vec::new();
    for (binding, short) in BINDINGS.iter().filter_map(|binding| Some((binding, binding.short?))) {
        let key = binding.names.split(' ').next().unwrap_or_default();
        spans.push(Span::styled(format!("{key} "), palette.title()));
        spans.push(Span::raw(format!("{short}  ")));
    }
    if !filter.text().is_empty() {
        spans.push(Span::styled(format!("filter: {}", filter.text()), palette.warning()));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}
