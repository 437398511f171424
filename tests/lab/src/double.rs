//! A stand-in for any HTTP service: keeps what it is sent, answers what the test says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What a double does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// This status and body.
    Answer(u16, String),
    /// A redirect to this address.
    Redirect(String),
    /// No answer, ever.
    Hang,
}

/// A request as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Method, path and query, as in `POST /api?a=b`.
    pub line: String,
    /// The content type; empty if there is none.
    pub content_type: String,
    /// Every header that is text, by its name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// The service, on a port of its own; it ends when this is dropped.
#[derive(Debug)]
pub struct Double {
    /// Where it is: `http://127.0.0.1:…`.
    pub url: String,
    sent: Arc<Mutex<Vec<Sent>>>,
    task: JoinHandle<()>,
}

impl Double {
    /// Starts it.
    pub async fn start(reply: impl Fn(&Sent) -> Reply + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("binding a loopback port")?;
        let url = format!("http://{}", listener.local_addr()?);
        let sent = Arc::new(Mutex::new(Vec::new()));
        let (seen, reply) = (sent.clone(), Arc::new(reply));
        let router = Router::new().fallback(move |request: Request<Body>| {
            let (seen, reply) = (seen.clone(), reply.clone());
            async move {
                let request = read(request).await;
                keep(&seen, request.clone());
                respond(reply(&request)).await
            }
        });
        let task = tokio::spawn(async move {
            // Serving ends only with the task.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, sent, task })
    }

    /// What it was sent so far, in order.
    pub fn sent(&self) -> Vec<Sent> {
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn keep(seen: &Mutex<Vec<Sent>>, request: Sent) {
    seen.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(request);
}

async fn read(request: Request<Body>) -> Sent {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let headers: BTreeMap<String, String> = head
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect();
    Sent {
        line: format!("{} {}", head.method, head.uri),
        content_type: headers.get("content-type").cloned().unwrap_or_default(),
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

async fn respond(reply: Reply) -> Response {
    match reply {
        Reply::Answer(status, body) => (
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body,
        )
            .into_response(),
        Reply::Redirect(to) => (StatusCode::FOUND, [("location", to)]).into_response(),
        Reply::Hang => std::future::pending().await,
    }
}
