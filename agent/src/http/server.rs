//! The thread that answers.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::sync::oneshot;

use super::{
    listener::Bounded,
    pages::{LANDING, Shared},
};
use crate::{metrics::Format, output::json};

/// How long answers that are under way get when the daemon stops.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// An endpoint that is served until it is told to stop.
#[derive(Debug)]
pub struct Server {
    at: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Starts it. The listener is a non-blocking one.
    ///
    /// # Errors
    /// There is no thread or event loop to be had.
    pub fn start(listener: TcpListener, shared: Arc<Shared>) -> io::Result<Self> {
        let at = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("http".to_owned()).spawn(move || {
            runtime.block_on(async {
                if let Err(error) = serve(listener, shared, stopped).await {
                    log::error!("the endpoint is gone: {error}");
                }
            });
        })?;
        Ok(Self { at, stop, thread })
    }

    /// Where it listens.
    #[must_use]
    pub const fn at(&self) -> SocketAddr {
        self.at
    }

    /// Answers what is asked already, for half a second at most, and ends.
    pub fn stop(self) {
        // It ended by itself if nobody receives this.
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            log::error!("the endpoint's thread panicked");
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) -> io::Result<()> {
    let listener = Bounded::new(tokio::net::TcpListener::from_std(listener)?);
    let (tell, told) = oneshot::channel();
    let answering = axum::serve(listener, router(shared)).with_graceful_shutdown(async move {
        // A sender that is gone is a daemon that is gone.
        let _ = stopped.await;
        let _ = tell.send(());
    });
    tokio::select! {
        result = answering => result,
        () = async {
            let _ = told.await;
            tokio::time::sleep(LAST_ANSWERS).await;
        } => Ok(()),
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(|| async { Html(LANDING) }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/report", get(report))
        .with_state(shared)
}

async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    match shared.metrics(format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    match shared.readiness(Instant::now()) {
        Ok(text) => text.into_response(),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
    }
}

async fn report(State(shared): State<Arc<Shared>>) -> Response {
    let Some(report) = shared.report() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the first round is not done yet\n").into_response();
    };
    match json::render(&report, json::Layout::Document) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
