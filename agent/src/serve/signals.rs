//! Signals: what ends the daemon, and what has it read its configuration again.

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM, SIGINT
    Stop,
    /// SIGHUP
    Reload,
}

/// Signals that came.
pub(super) struct Signals {
    asked: mpsc::Receiver<Asked>,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind, name: &str| signal(kind).with_context(|| format!("wait for {name}"));
        let interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
        let terminate = listen(SignalKind::terminate(), "SIGTERM")?;
        let hangup = listen(SignalKind::hangup(), "SIGHUP")?;
        // One of each kind can wait; the daemon needs to know that one came, not how many.
        let (sender, asked) = mpsc::channel(2);
        tokio::spawn(watch(interrupt, terminate, hangup, sender));
        Ok(Self { asked })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Asked {
        // The task ends only with the event loop.
        self.asked.recv().await.unwrap_or(Asked::Stop)
    }
}

async fn watch(mut interrupt: Signal, mut terminate: Signal, mut hangup: Signal, sender: mpsc::Sender<Asked>) {
    let mut is_stopping = false;
    loop {
        let asked = tokio::select! {
            _ = interrupt.recv() => Asked::Stop,
            _ = terminate.recv() => Asked::Stop,
            _ = hangup.recv() => Asked::Reload,
        };
        if asked == Asked::Stop {
            if is_stopping {
                // The second one ends it at once: 128 + SIGINT. What is attached goes with the process.
                std::process::exit(130);
            }
            is_stopping = true;
            // What waits is of no interest any more.
            let _ = sender.send(asked).await;
        } else if let Err(error) = sender.try_send(asked) {
            log::debug!("a SIGHUP more than can wait: {error}");
        }
    }
}
