//! The view's state: keys and snapshots in, what is to be drawn out. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind};

use super::{
    filter::Filter,
    keys::{self, Action},
    model::{Model, Row},
    snapshot::{Look, Tick},
    sort::{PortColumn, ProcessColumn, Sort},
};
use crate::{
    model::{ProcessKey, Timestamp},
    report::{BindFailure, ConnectFailures, PortUse, ProcessInfo, Resets},
};

/// What can be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    /// TIME_WAIT by process
    #[default]
    Overview,
    /// Ephemeral ports by destination
    Ports,
    /// What was refused
    Failures,
    /// One process
    Process,
    /// The keys
    Help,
}

impl Screen {
    /// In the order of their keys.
    pub const ALL: [Self; 5] = [Self::Overview, Self::Ports, Self::Failures, Self::Process, Self::Help];

    /// Its title.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Overview => "1 Overview",
            Self::Ports => "2 Ports",
            Self::Failures => "3 Failures",
            Self::Process => "4 Process",
            Self::Help => "? Help",
        }
    }

    fn next(self) -> Self {
        let mut all = Self::ALL.into_iter().cycle().skip_while(|it| *it != self);
        all.nth(1).unwrap_or_default()
    }
}

/// Something that was refused or cut off.
#[derive(Clone, Copy, Debug)]
pub enum Failure<'a> {
    /// bind() or listen()
    Bind(&'a BindFailure),
    /// connect()
    Connect(&'a ConnectFailures),
    /// A connection
    Reset(&'a Resets),
}

impl Failure<'_> {
    /// Who it happened to.
    #[must_use]
    pub const fn process(&self) -> Option<&ProcessInfo> {
        match self {
            Self::Bind(it) => Some(&it.process),
            Self::Connect(it) => it.process.as_ref(),
            Self::Reset(it) => it.process.as_ref(),
        }
    }
}

/// The view.
#[derive(Clone, Debug, Default)]
pub struct App {
    model: Model,
    /// What is shown while it stands still
    frozen: Option<Model>,
    screen: Screen,
    /// What was shown before the help
    before_help: Screen,
    /// The process that is selected; none: the first one
    chosen: Option<ProcessKey>,
    port: usize,
    failure: usize,
    /// Lines that a page of text is scrolled by
    scrolled: u16,
    processes_by: Sort<ProcessColumn>,
    ports_by: Sort<PortColumn>,
    filter: Filter,
    is_typing: bool,
    has_ended: bool,
    is_over: bool,
    source: String,
}

impl App {
    /// A view of a session that began at `began`; `source` says what is looked at.
    #[must_use]
    pub fn new(began: Timestamp, source: impl Into<String>) -> Self {
        Self { model: Model::new(began), source: source.into(), ..Self::default() }
    }

    /// Takes in what the events say.
    pub fn tick(&mut self, tick: Tick) {
        self.model.tick(tick);
    }

    /// Takes in what a look at every socket found.
    pub fn look(&mut self, look: Look) {
        self.model.look(look);
    }

    /// What is looked at has come to its end: no more will come.
    pub const fn end(&mut self) {
        self.has_ended = true;
    }

    /// Takes in a key.
    pub fn key(&mut self, key: &KeyEvent) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        let action = keys::action(key);
        if self.is_typing && !key.modifiers.intersects(ratatui::crossterm::event::KeyModifiers::CONTROL) {
            self.type_filter(key.code);
        } else if let Some(action) = action {
            self.act(action);
        }
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char(character) => self.filter.push(character),
            KeyCode::Backspace => self.filter.pop(),
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            _ => {}
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Show(screen) => self.show(screen),
            Action::NextScreen => self.show(self.screen.next()),
            Action::Move(by) => self.select(|at, _| at.saturating_add_signed(by)),
            Action::First => self.select(|_, _| 0),
            Action::Last => self.select(|_, count| count),
            Action::Enter => self.enter(),
            Action::Sort => match self.screen {
                Screen::Overview => self.processes_by.by = self.processes_by.by.next(),
                Screen::Ports => self.ports_by.by = self.ports_by.by.next(),
                Screen::Failures | Screen::Process | Screen::Help => {}
            },
            Action::Reverse => match self.screen {
                Screen::Overview => self.processes_by.is_reversed ^= true,
                Screen::Ports => self.ports_by.is_reversed ^= true,
                Screen::Failures | Screen::Process | Screen::Help => {}
            },
            Action::Filter => {
                if matches!(self.screen, Screen::Process | Screen::Help) {
                    self.show(Screen::Overview);
                }
                self.is_typing = true;
            }
            Action::Pause => {
                self.frozen = if self.frozen.is_some() { None } else { Some(self.model.clone()) };
            }
            Action::Back => match self.screen {
                Screen::Help => self.show(self.before_help),
                Screen::Process => self.show(Screen::Overview),
                _ if !self.filter.text().is_empty() => self.filter.clear(),
                _ => self.is_over = true,
            },
            Action::Quit => self.is_over = true,
        }
    }

    fn show(&mut self, screen: Screen) {
        if screen == Screen::Help && self.screen != Screen::Help {
            self.before_help = self.screen;
        }
        self.screen = screen;
        self.scrolled = 0;
    }

    fn select(&mut self, to: impl Fn(usize, usize) -> usize) {
        match self.screen {
            Screen::Overview => {
                let processes = self.processes();
                let last = processes.len().saturating_sub(1);
                let chosen = processes.get(to(self.process_at(), last).min(last)).map(|row| row.key);
                self.chosen = chosen;
            }
            Screen::Ports => {
                let last = self.ports().len().saturating_sub(1);
                self.port = to(self.port.min(last), last).min(last);
            }
            Screen::Failures => {
                let last = self.failures().len().saturating_sub(1);
                self.failure = to(self.failure.min(last), last).min(last);
            }
            Screen::Process | Screen::Help => {
                let most = usize::from(u16::MAX);
                self.scrolled = u16::try_from(to(self.scrolled.into(), most).min(most)).unwrap_or_default();
            }
        }
    }

    /// Shows the process of what is selected, if it is known and has TIME_WAIT to show.
    fn enter(&mut self) {
        let pid = match self.screen {
            Screen::Overview => {
                self.chosen = self.chosen().map(|row| row.key);
                None
            }
            Screen::Ports => {
                let port = self.ports().get(self.port_at()).copied();
                port.and_then(|it| it.processes.iter().find_map(|user| user.process.as_ref())).map(|it| it.pid)
            }
            Screen::Failures => {
                self.failures().get(self.failure_at()).and_then(|it| it.process().map(|process| process.pid))
            }
            Screen::Process | Screen::Help => return,
        };
        if let Some(pid) = pid {
            let Some(key) = self.shown().rows().iter().map(|row| row.key).find(|key| key.tgid == pid) else { return };
            self.chosen = Some(key);
        }
        self.show(Screen::Process);
    }

    /// What is drawn: what is known now or, while the view stands still, was known then.
    #[must_use]
    pub fn shown(&self) -> &Model {
        self.frozen.as_ref().unwrap_or(&self.model)
    }

    /// The processes the filter takes, as sorted.
    #[must_use]
    pub fn processes(&self) -> Vec<&Row> {
        let mut rows: Vec<_> = self.shown().rows().iter().filter(|row| self.filter.takes_row(row)).collect();
        rows.sort_by(|a, b| self.processes_by.turn(self.processes_by.by.compare(a, b)));
        rows
    }

    /// Which of them is selected.
    #[must_use]
    pub fn process_at(&self) -> usize {
        self.processes().iter().position(|row| Some(row.key) == self.chosen).unwrap_or_default()
    }

    /// The process that is selected, whether the filter takes it or not; none if there is none.
    #[must_use]
    pub fn chosen(&self) -> Option<&Row> {
        let chosen = self.shown().rows().iter().find(|row| Some(row.key) == self.chosen);
        chosen.or_else(|| self.processes().first().copied())
    }

    /// The destinations the filter takes, as sorted.
    #[must_use]
    pub fn ports(&self) -> Vec<&PortUse> {
        let report = self.shown().report();
        let all = report.iter().flat_map(|report| &report.ports.destinations);
        let mut ports: Vec<_> = all.filter(|it| self.filter.takes_ports(it)).collect();
        ports.sort_by(|a, b| self.ports_by.turn(self.ports_by.by.compare(a, b)));
        ports
    }

    /// Which of them is selected.
    #[must_use]
    pub fn port_at(&self) -> usize {
        self.port.min(self.ports().len().saturating_sub(1))
    }

    /// What was refused and the filter takes, most frequent first of each kind.
    #[must_use]
    pub fn failures(&self) -> Vec<Failure<'_>> {
        let Some(report) = self.shown().report() else { return Vec::new() };
        let filter = &self.filter;
        let binds = report.bind_failures.iter().filter(|it| filter.takes_bind(it)).map(Failure::Bind);
        let connects = report.connect_failures.iter().filter(|it| filter.takes_connect(it)).map(Failure::Connect);
        let resets = report.resets.iter().filter(|it| filter.takes_reset(it)).map(Failure::Reset);
        binds.chain(connects).chain(resets).collect()
    }

    /// Which of them is selected.
    #[must_use]
    pub fn failure_at(&self) -> usize {
        self.failure.min(self.failures().len().saturating_sub(1))
    }

    /// Which screen it is.
    #[must_use]
    pub const fn screen(&self) -> Screen {
        self.screen
    }

    /// Lines that a page of text is scrolled by.
    #[must_use]
    pub const fn scrolled(&self) -> u16 {
        self.scrolled
    }

    /// How the processes are sorted.
    #[must_use]
    pub const fn processes_by(&self) -> Sort<ProcessColumn> {
        self.processes_by
    }

    /// How the ports are sorted.
    #[must_use]
    pub const fn ports_by(&self) -> Sort<PortColumn> {
        self.ports_by
    }

    /// The filter, and whether it is being typed.
    #[must_use]
    pub const fn filter(&self) -> (&Filter, bool) {
        (&self.filter, self.is_typing)
    }

    /// Whether the view stands still.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// Whether no more will come.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether to quit.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// What is looked at.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}
