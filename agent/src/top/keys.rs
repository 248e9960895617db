//! The keys: one table that both the handling and the help are made from.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::Screen;

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Show a screen
    Show(Screen),
    /// Show the next one
    NextScreen,
    /// Select the entry so many further down; negative: up
    Move(isize),
    /// Select the first entry
    First,
    /// Select the last one
    Last,
    /// Show the process of the selected entry
    Enter,
    /// Sort by the next column
    Sort,
    /// Sort the other way round
    Reverse,
    /// Type a filter
    Filter,
    /// Have the view stand still, or go on
    Pause,
    /// Go back, or quit where there is nothing to go back to
    Back,
    /// Quit
    Quit,
}

/// Keys, and what they do.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// The keys
    pub keys: &'static [KeyCode],
    /// What is written on them
    pub names: &'static str,
    /// What they do, in words
    pub does: &'static str,
    /// The same in a word, for the foot of the screen; none where that is no place for it
    pub short: Option<&'static str>,
    /// What they do
    pub action: Action,
}

/// Entries that a page has.
const PAGE: isize = 10;

const fn binding(keys: &'static [KeyCode], names: &'static str, action: Action, does: &'static str) -> Binding {
    Binding { keys, names, does, short: None, action }
}

const fn at_foot(binding: Binding, short: &'static str) -> Binding {
    Binding { short: Some(short), ..binding }
}

use KeyCode::{BackTab, Backspace, Char, Down, End, Enter, Esc, F, Home, Left, PageDown, PageUp, Right, Tab, Up};

/// All of them, in the order of the help.
pub const BINDINGS: [Binding; 20] = [
    binding(&[Char('1')], "1", Action::Show(Screen::Overview), "overview: TIME_WAIT by process, and what is wrong"),
    binding(&[Char('2')], "2", Action::Show(Screen::Ports), "ephemeral ports by destination, and how long they last"),
    binding(
        &[Char('3')],
        "3",
        Action::Show(Screen::Failures),
        "refused bind(), listen() and connect(), and who holds the port",
    ),
    binding(
        &[Char('4')],
        "4",
        Action::Show(Screen::Process),
        "the selected process: destinations, ages, findings and remedies",
    ),
    at_foot(binding(&[Char('?'), Char('h'), F(1)], "? h F1", Action::Show(Screen::Help), "this help"), "help"),
    binding(&[Tab, Right], "Tab Right", Action::NextScreen, "the next screen"),
    binding(&[Up, Char('k')], "Up k", Action::Move(-1), "select the entry above; on a page of text: up"),
    binding(&[Down, Char('j')], "Down j", Action::Move(1), "select the entry below; on a page of text: down"),
    binding(&[PageUp], "PageUp", Action::Move(-PAGE), "ten entries up"),
    binding(&[PageDown, Char(' ')], "PageDown Space", Action::Move(PAGE), "ten entries down"),
    binding(&[Home, Char('g')], "Home g", Action::First, "the first entry"),
    binding(&[End, Char('G')], "End G", Action::Last, "the last entry"),
    at_foot(binding(&[Enter], "Enter", Action::Enter, "show the process of the selected entry"), "process"),
    at_foot(binding(&[Char('s')], "s", Action::Sort, "sort by the next column"), "sort"),
    binding(&[Char('r')], "r", Action::Reverse, "sort the other way round"),
    at_foot(
        binding(&[Char('/')], "/", Action::Filter, "only what contains a text: name, unit, container, destination"),
        "filter",
    ),
    at_foot(binding(&[Char('p')], "p", Action::Pause, "have the view stand still, while the session goes on"), "pause"),
    binding(&[Backspace, Left, BackTab], "Backspace Left", Action::Show(Screen::Overview), "back to the overview"),
    binding(&[Esc], "Esc", Action::Back, "clear the filter, leave the help or a process; else quit"),
    at_foot(binding(&[Char('q')], "q Ctrl-C", Action::Quit, "quit"), "quit"),
];

/// What a key does; nothing if it is none of ours.
#[must_use]
pub fn action(key: &KeyEvent) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == Char('c')).then_some(Action::Quit);
    }
    if key.modifiers.contains(KeyModifiers::ALT) {
        return None;
    }
    BINDINGS.iter().find(|binding| binding.keys.contains(&key.code)).map(|binding| binding.action)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_key_does_two_things() {
        let mut seen = HashSet::new();
        for key in BINDINGS.iter().flat_map(|binding| binding.keys) {
            assert!(seen.insert(*key), "{key:?}");
        }
    }

    #[test]
    fn a_key_with_ctrl_or_alt_is_another_key() {
        assert_eq!(action(&KeyEvent::new(Char('q'), KeyModifiers::NONE)), Some(Action::Quit));
        assert_eq!(action(&KeyEvent::new(Char('G'), KeyModifiers::SHIFT)), Some(Action::Last));
        assert_eq!(action(&KeyEvent::new(Char('c'), KeyModifiers::CONTROL)), Some(Action::Quit));
        assert_eq!(action(&KeyEvent::new(Char('q'), KeyModifiers::CONTROL)), None);
        assert_eq!(action(&KeyEvent::new(Char('q'), KeyModifiers::ALT)), None);
        assert_eq!(action(&KeyEvent::new(Char('x'), KeyModifiers::NONE)), None);
    }
}
