//! Serving within bounds: so many connections, so long each. A connection carries
//! one request and is closed, so that one deadline holds for slow heads, slow bodies
//! and idle clients alike.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};

use super::webhook::{Refusal, Refused};

/// What a listener allows.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From a request's head to its answer.
    pub request: Duration,
    /// From a connection's start to its end; longer than `request`.
    pub connection: Duration,
    /// The most connections at the same time; more wait in the system's queue.
    pub connections: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            connection: Duration::from_secs(40),
            connections: 256,
        }
    }
}

/// Serves until `shutdown`, then finishes the requests under way.
pub async fn serve<S>(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    shutdown: S,
) -> io::Result<()>
where
    S: Future<Output = ()> + Send + 'static,
{
    let within = bounds.request;
    let router = router.layer(from_fn(move |request: Request, next: Next| async move {
        let answer = timeout(within, next.run(request)).await;
        let mut response = answer.unwrap_or_else(|_| {
            Refused::new(Refusal::Aborted, "this took too long").into_response()
        });
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        response
    }));
    let listener = BoundedListener {
        listener,
        places: Arc::new(Semaphore::new(bounds.connections)),
        within: bounds.connection,
    };
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
}

struct BoundedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    within: Duration,
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let connection = Connection {
            stream,
            end: Box::pin(sleep(self.within)),
            _place: place.expect("the semaphore is never closed"),
        };
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails once its time is up.
struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(Pin::new(&mut self.stream)),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.check(context) {
            Ok(stream) => stream.poll_read(context, buffer),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.check(context) {
            Ok(stream) => stream.poll_write(context, bytes),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
