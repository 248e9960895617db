//! The terminal: taken over and given back, whatever happens in between; its keys, and where log lines go meanwhile.

use std::{
    io::{self, IsTerminal as _, Stdout, Write},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, bail};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor, event,
        event::Event,
        execute,
        style::force_color_output,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

/// The terminal is taken over.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
/// What was logged meanwhile.
static HELD_BACK: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// Bytes of it, at most.
const MAX_HELD_BACK: usize = 1 << 16;
/// Keys that wait to be taken in; those beyond it wait in the terminal.
const KEYS: usize = 64;

/// Says so if standard output is not a terminal.
///
/// # Errors
/// It is not.
pub fn ensure_terminal() -> anyhow::Result<()> {
    if !io::stdout().is_terminal() {
        bail!("standard output is not a terminal, and a live view needs one: `firstfin report` prints to anything");
    }
    Ok(())
}

/// The terminal, as long as it is taken over. It is given back when this is dropped, and before a panic is told.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// It is none, or refuses.
    pub fn open(is_coloured: bool) -> anyhow::Result<Self> {
        ensure_terminal()?;
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let tell = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                tell(panic);
            }));
        });
        // Whether there are colours has been decided, by more than NO_COLOR.
        force_color_output(is_coloured);
        IS_TAKEN.store(true, Ordering::SeqCst);
        let taken = enable_raw_mode().and_then(|()| execute!(io::stdout(), EnterAlternateScreen, cursor::Hide));
        let terminal = taken.and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match terminal {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error).context("take over the terminal")
            }
        }
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// The terminal takes no more.
    pub fn draw(&mut self, draw: impl FnOnce(&mut ratatui::Frame<'_>)) -> anyhow::Result<()> {
        self.terminal.draw(draw).map(|_| ()).context("draw on the terminal")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back, once, and tells what was logged meanwhile.
fn give_back() {
    if !IS_TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // Each by itself, and as far as it goes: there is nobody to tell if the terminal is gone.
    let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
    let held_back = std::mem::take(&mut *HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner));
    let _ = io::stderr().write_all(&held_back);
}

/// Standard error, or a place to wait in while the terminal is taken over.
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !IS_TAKEN.load(Ordering::SeqCst) {
            return io::stderr().write(bytes);
        }
        let mut held_back = HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner);
        if held_back.len() + bytes.len() <= MAX_HELD_BACK {
            held_back.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// What its user does: keys, other sizes, and signals that end the view.
pub struct Input {
    events: mpsc::Receiver<io::Result<Event>>,
    signals: [Signal; 3],
}

/// What came.
pub enum Came {
    /// A key, or another size
    Event(Event),
    /// A signal to end
    Signal,
}

impl Input {
    /// Begins to listen. Needs a tokio runtime. There is no way to have a read of a terminal end, so the thread that does it
    /// ends with the process.
    ///
    /// # Errors
    /// Signals cannot be waited for.
    pub fn listen() -> anyhow::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(|kind| signal(kind).context("wait for signals"));
        let (sender, events) = mpsc::channel(KEYS);
        std::thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || {
                loop {
                    let event = event::read();
                    let is_last = event.is_err();
                    if sender.blocking_send(event).is_err() || is_last {
                        return;
                    }
                }
            })
            .context("start the thread that reads keys")?;
        Ok(Self { events, signals: [interrupt?, terminate?, hangup?] })
    }

    /// Waits for what comes next. Nothing is lost if this is dropped before.
    ///
    /// # Errors
    /// The terminal cannot be read any more.
    pub async fn next(&mut self) -> anyhow::Result<Came> {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            biased;
            _ = interrupt.recv() => Ok(Came::Signal),
            _ = terminate.recv() => Ok(Came::Signal),
            _ = hangup.recv() => Ok(Came::Signal),
            event = self.events.recv() => match event {
                Some(event) => Ok(Came::Event(event.context("read from the terminal")?)),
                None => bail!("the terminal cannot be read any more"),
            },
        }
    }
}
