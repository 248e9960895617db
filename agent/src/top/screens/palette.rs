//! Colours, where there are any. Whatever they say is said in words or by a place as well.

use ratatui::style::{Color, Modifier, Style};

use crate::report::Severity;

/// How things are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Palette {
    /// With colours
    pub is_coloured: bool,
}

impl Palette {
    fn colour(self, style: Style, colour: Color) -> Style {
        if self.is_coloured { style.fg(colour) } else { style }
    }

    pub(super) const fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn label(self) -> Style {
        self.colour(Style::new(), Color::Cyan)
    }

    /// Columns' titles.
    pub(super) const fn header(self) -> Style {
        Style::new().add_modifier(Modifier::UNDERLINED)
    }

    pub(super) const fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(super) fn chart(self) -> Style {
        self.colour(Style::new(), Color::Green)
    }

    pub(super) fn warning(self) -> Style {
        self.colour(self.title(), Color::Yellow)
    }

    pub(super) fn severity(self, severity: Severity) -> Style {
        self.colour(
            self.title(),
            match severity {
                Severity::Critical => Color::Red,
                Severity::Warning => Color::Yellow,
                Severity::Info => Color::Cyan,
            },
        )
    }

    /// Of a part of the whole, 0 to 1, that is better not large.
    pub(super) fn share(self, share: f64) -> Style {
        let colour = match share {
            0.9.. => Color::Red,
            0.5.. => Color::Yellow,
            _ => Color::Green,
        };
        self.colour(Style::new(), colour)
    }
}
