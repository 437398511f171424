//! Serving within bounds: so many connections, so long each. A connection carries
//! one request and is closed, so that deadlines hold for slow handshakes, heads and
//! bodies and for idle clients alike.
//!
//! Where every place is taken, a newcomer displaces the oldest connection that still owes
//! its head, of the address that holds the most of them. So a flood of idle clients only
//! displaces itself, and a sender that asks at once is served at once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::tls::{ClientNames, Tls};
use super::webhook::{Refusal, Refused};

/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// What a newcomer is told where every place is at work, unless it speaks TLS.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
/// How long to wait after the system refused to hand out a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// What a listener allows.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For a TLS handshake, and again for a request's head.
    pub head: Duration,
    /// From a request's head to its answer.
    pub request: Duration,
    /// From a connection's start to its end; longer than `request`.
    pub connection: Duration,
    /// The most connections at the same time.
    pub connections: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            request: Duration::from_secs(30),
            connection: Duration::from_secs(40),
            connections: 256,
        }
    }
}

/// Where to listen, and how.
pub struct Socket {
    listener: TcpListener,
    tls: Option<Tls>,
    cut: Box<dyn Fn(Refusal) + Send + Sync>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl Socket {
    /// Plain, or by TLS. `cut` is told of each connection that ended before its request began.
    pub fn new<C>(listener: TcpListener, tls: Option<Tls>, cut: C) -> Self
    where
        C: Fn(Refusal) + Send + Sync + 'static,
    {
        Self {
            listener,
            tls,
            cut: Box::new(cut),
        }
    }
}

impl From<TcpListener> for Socket {
    fn from(listener: TcpListener) -> Self {
        Self::new(listener, None, |_| ())
    }
}

/// Serves until `shutdown`, then finishes the requests under way.
pub async fn serve<S>(socket: impl Into<Socket>, router: Router, bounds: Bounds, shutdown: S)
where
    S: Future<Output = ()> + Send,
{
    let Socket { listener, tls, cut } = socket.into();
    let server = Arc::new(Server {
        router: within(router, bounds.request),
        bounds,
        tls,
        cut,
        places: Mutex::default(),
    });
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = shutdown.as_mut() => break,
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => server.admit(stream, peer, &stopped, &mut tasks),
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    while tasks.join_next().await.is_some() {}
}

fn within(router: Router, deadline: Duration) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| async move {
        let answer = timeout(deadline, next.run(request)).await;
        let mut response = answer.unwrap_or_else(|_| {
            Refused::new(Refusal::Aborted, "this took too long").into_response()
        });
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        response
    }))
}

struct Server {
    router: Router,
    bounds: Bounds,
    tls: Option<Tls>,
    cut: Box<dyn Fn(Refusal) + Send + Sync>,
    places: Mutex<Places>,
}

impl Server {
    fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        stopped: &watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
    ) {
        let most = self.bounds.connections;
        let Some((id, displaced)) = self.places().enter(peer.ip().to_canonical(), most) else {
            if self.tls.is_none() {
                // So little fits into a new socket; if it does not, the end says the same.
                let _ = stream.try_write(FULL);
            }
            (self.cut)(Refusal::Overloaded);
            return;
        };
        let seat = Seat {
            server: Arc::clone(self),
            id,
        };
        let stopped = stopped.clone();
        tasks.spawn(async move {
            let server = &seat.server;
            tokio::select! {
                biased;
                () = displaced.notified() => (server.cut)(Refusal::Displaced),
                ended = timeout(server.bounds.connection, seat.talk(stream, stopped)) => {
                    // What a request came to is told by whoever handled it.
                    let refused = ended.unwrap_or(Err(Refusal::Head)).err();
                    if let Some(refusal) = refused && server.places().is_waiting(id) {
                        (server.cut)(refusal);
                    }
                }
            }
        });
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place; it goes with this.
struct Seat {
    server: Arc<Server>,
    id: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.server.places().open.remove(&self.id);
    }
}

impl Seat {
    async fn talk(&self, stream: TcpStream, stopped: watch::Receiver<bool>) -> Result<(), Refusal> {
        let Some(tls) = &self.server.tls else {
            return self.answer(stream, None, stopped).await;
        };
        let handshake = TlsAcceptor::from(tls.config()).accept(stream);
        let stream = match timeout(self.server.bounds.head, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                return Err(Refusal::Handshake);
            }
            Err(_) => return Err(Refusal::Handshake),
        };
        let names = ClientNames::of(stream.get_ref().1);
        self.answer(stream, names, stopped).await
    }

    async fn answer<I>(
        &self,
        stream: I,
        names: Option<ClientNames>,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), Refusal>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
            self.server.places().begin(self.id);
            if let Some(names) = &names {
                request.extensions_mut().insert(names.clone());
            }
            self.server.router.clone().oneshot(request)
        });
        let mut connection = pin!(
            http1::Builder::new()
                .keep_alive(false)
                .timer(TokioTimer::new())
                .header_read_timeout(self.server.bounds.head)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop(&mut stopped) => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        };
        ended.map_err(|_| Refusal::Head)
    }
}

async fn stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// The connections that are open, in the order in which they came.
#[derive(Default)]
struct Places {
    next: u64,
    open: BTreeMap<u64, Place>,
}

struct Place {
    peer: IpAddr,
    /// Whether its request has not begun.
    waiting: bool,
    displaced: Arc<Notify>,
}

impl Places {
    /// A place, and what tells that it is lost again; none if all are in use.
    fn enter(&mut self, peer: IpAddr, most: usize) -> Option<(u64, Arc<Notify>)> {
        if self.open.len() >= most {
            let lost = self.least_deserved()?;
            self.open.remove(&lost)?.displaced.notify_one();
        }
        let displaced = Arc::new(Notify::new());
        let place = Place {
            peer,
            waiting: true,
            displaced: Arc::clone(&displaced),
        };
        self.next += 1;
        self.open.insert(self.next, place);
        Some((self.next, displaced))
    }

    fn least_deserved(&self) -> Option<u64> {
        let mut waiting: BTreeMap<IpAddr, (usize, Reverse<u64>)> = BTreeMap::new();
        for (id, place) in self.open.iter().filter(|(_, place)| place.waiting) {
            waiting.entry(place.peer).or_insert((0, Reverse(*id))).0 += 1;
        }
        let (_, Reverse(oldest)) = waiting.into_values().max()?;
        Some(oldest)
    }

    fn begin(&mut self, id: u64) {
        if let Some(place) = self.open.get_mut(&id) {
            place.waiting = false;
        }
    }

    fn is_waiting(&self, id: u64) -> bool {
        self.open.get(&id).is_some_and(|place| place.waiting)
    }
}
