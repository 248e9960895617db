//! The event loop of the view: one task, the only owner of what it shows.

use std::time::Duration;

use ratatui::crossterm::event::Event;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    app::App,
    screens::{self, Palette},
    source::Source,
    terminal::{Came, Input, Screen},
};

/// Time between two pictures, keys apart.
pub const TICK: Duration = Duration::from_millis(500);
/// Time between two looks at every socket, at least.
const LOOK: Duration = Duration::from_secs(1);
/// A look may take one part in so many of the time.
const LOOK_SHARE: u32 = 10;

/// What ended a wait.
enum Woken {
    Tick,
    Input(anyhow::Result<Came>),
}

/// Shows what comes from `source` until its user has seen enough.
///
/// # Errors
/// The source or the terminal fail.
pub async fn watch(source: &mut impl Source, screen: &mut Screen, palette: Palette, title: &str) -> anyhow::Result<()> {
    let mut input = Input::listen()?;
    let mut app = App::new(source.began(), title);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look_at = Instant::now();
    loop {
        let wait = async {
            tokio::select! {
                came = input.next() => Woken::Input(came),
                _ = ticks.tick() => Woken::Tick,
            }
        };
        match source.observe(wait).await? {
            Woken::Tick => {
                let began = Instant::now();
                let has_ended = source.advance()?;
                if has_ended {
                    app.end();
                }
                // Its last look is not to be waited for: it costs nothing.
                if (has_ended || began >= look_at)
                    && let Some(look) = source.look().await?
                {
                    app.look(look);
                    let now = Instant::now();
                    look_at = now + LOOK.max(now.duration_since(began) * LOOK_SHARE);
                }
                app.tick(source.tick());
            }
            Woken::Input(came) => match came? {
                Came::Signal => return Ok(()),
                Came::Event(Event::Key(key)) => app.key(&key),
                // Drawing finds out the size.
                Came::Event(_) => {}
            },
        }
        if app.is_over() {
            return Ok(());
        }
        screen.draw(|frame| screens::draw(frame, &app, palette))?;
    }
}
