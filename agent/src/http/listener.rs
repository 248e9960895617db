//! A listener that gives nobody more than their share: so many connections, each with so much time.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// Connections at the same time. Others wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long nothing may happen on a connection between two requests. Longer than any scrape interval, so that the other side
/// closes first: whoever does has the TIME_WAIT.
const IDLE: Duration = Duration::from_secs(300);
/// How long a request may take to arrive.
const REQUEST: Duration = Duration::from_secs(10);
/// How long nothing is accepted after there was no descriptor for it.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

impl Listener for Bounded {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                // Only a semaphore that was closed refuses, and nobody closes it.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, from)) => return (Timed::new(stream, place), from),
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    log::warn!("the endpoint cannot accept connections for now: {error}");
                    sleep(OUT_OF_DESCRIPTORS).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The connection broke off before it was accepted: says nothing about the next one.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A connection that ends when its time is over.
#[derive(Debug)]
pub(super) struct Timed {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    /// A request has begun to arrive, and was not answered yet
    is_asked: bool,
    _place: OwnedSemaphorePermit,
}

impl Timed {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        Self { stream, end: Box::pin(sleep(REQUEST)), is_asked: true, _place: place }
    }

    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.end.as_mut().poll(context).is_ready()
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the connection's time is over")
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                if buffer.filled().len() > before && !self.is_asked {
                    self.is_asked = true;
                    self.end.as_mut().reset(Instant::now() + REQUEST);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.is_over(context) => Poll::Ready(Err(timed_out())),
            other => other,
        }
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, buffer) {
            Poll::Ready(Ok(written)) => {
                self.is_asked = false;
                self.end.as_mut().reset(Instant::now() + IDLE);
                Poll::Ready(Ok(written))
            }
            Poll::Pending if self.is_over(context) => Poll::Ready(Err(timed_out())),
            other => other,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, TcpStream as Client},
    };

    use super::*;

    /// What a client that begins a request and does not end it is left with.
    #[test]
    fn a_request_that_does_not_arrive_is_not_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut client, from_server) = runtime.block_on(async {
            let mut listener = Bounded::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
            let client = Client::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().await;
            server.end.as_mut().reset(Instant::now() + Duration::from_millis(50));
            (&client).write_all(b"GET /metr").unwrap();
            let mut space = [0; 64];
            let mut buffer = ReadBuf::new(&mut space);
            let mut results = Vec::new();
            for _ in 0..2 {
                let read = std::future::poll_fn(|context| Pin::new(&mut server).poll_read(context, &mut buffer)).await;
                results.push(read.map_err(|error| error.kind()));
            }
            drop(server);
            assert_eq!(listener.places.available_permits(), MAX_CONNECTIONS);
            (client, results)
        });
        assert_eq!(from_server, [Ok(()), Err(io::ErrorKind::TimedOut)]);
        let mut rest = Vec::new();
        // The bytes were read, so it is an ordinary end.
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
}
