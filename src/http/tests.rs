//! Requests to the routers in process, polled once; sockets only where the wire matters.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use super::*;
use crate::alertmanager::tests::{Memory, PAYLOAD, at, firing};
use crate::alertmanager::{Delivered, Intake};
use crate::exec::CallError;

const LIMITS: Limits = Limits {
    max_body: 32 << 20,
    max_requests: 64,
};

type Seen = Arc<Mutex<Vec<Result<Delivered, Refusal>>>>;

/// A webhook over a store in memory, and what it reported.
struct Hook {
    store: Memory,
    seen: Seen,
    router: Router,
}

fn hook(auth: Auth, limits: Limits) -> Hook {
    let (store, seen) = (Memory::default(), Seen::default());
    let sink = Arc::clone(&seen);
    let observe = move |outcome| sink.lock().unwrap().push(outcome);
    let router = webhook(Intake::new(store.clone()), auth, limits, || at(0), observe);
    Hook {
        store,
        seen,
        router,
    }
}

struct Answer {
    status: StatusCode,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Polls once: the routers may need no runtime.
fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).now_or_never();
    let response: Response<Body> = response.expect("needs no runtime").unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().now_or_never().expect("whole").unwrap();
    Answer {
        status: head.status,
        headers: head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect(),
        body: String::from_utf8(body.to_bytes().to_vec()).unwrap(),
    }
}

fn post(body: impl Into<Body>, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post("/webhook/alertmanager");
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

/// A request that must be refused, counted once, and leave no trace.
fn check_refused(hook: &Hook, request: Request<Body>, status: u16, reason: Refusal) {
    let answer = ask(&hook.router, request);
    assert_eq!(
        answer.status.as_u16(),
        status,
        "{reason:?}: {}",
        answer.body
    );
    let body: BTreeMap<String, String> = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["reason"], format!("{reason:?}"));
    assert!(!body["error"].is_empty() && !answer.body.contains('\n'));
    assert_eq!(
        answer.headers.contains_key("retry-after"),
        status == 503,
        "{reason:?}"
    );
    assert_eq!(
        std::mem::take(&mut *hook.seen.lock().unwrap()),
        [Err(reason)]
    );
    assert_eq!(hook.store.writes(), 0);
}

fn token_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_delivery_is_stored_and_acknowledged() {
    let hook = hook(Auth::Anonymous, LIMITS);
    for kind in ["application/json", "Application/JSON; charset=utf-8"] {
        let request = post(
            PAYLOAD,
            &[("content-type", kind), ("content-encoding", "identity")],
        );
        assert_eq!(ask(&hook.router, request).status, StatusCode::OK);
    }
    let outcome = |written| {
        Ok(Delivered {
            stored: 2,
            skipped: 0,
            written,
        })
    };
    assert_eq!(*hook.seen.lock().unwrap(), [outcome(true), outcome(false)]);
    assert_eq!(hook.store.writes(), 1);
}

#[test]
fn a_wrong_method_or_type_is_refused() {
    let hook = hook(Auth::Anonymous, LIMITS);
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let mut request = post(PAYLOAD, &[]);
        *request.method_mut() = method;
        check_refused(&hook, request, 405, Refusal::Method);
    }
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "",
        "application/jsonx",
    ] {
        let request = post(PAYLOAD, &[("content-type", kind)]);
        check_refused(&hook, request, 415, Refusal::ContentType);
    }
    let mut request = post(PAYLOAD, &[]);
    request.headers_mut().remove("content-type");
    check_refused(&hook, request, 415, Refusal::ContentType);
    let other = Request::post("/webhook").body(Body::empty()).unwrap();
    assert_eq!(ask(&hook.router, other).status, StatusCode::NOT_FOUND);
}

#[test]
fn h8_what_is_not_version_4_is_refused() {
    let hook = hook(Auth::Anonymous, LIMITS);
    let other = PAYLOAD.replace(r#""version": "4""#, r#""version": "3""#);
    check_refused(&hook, post(other, &[]), 400, Refusal::Version);
    check_refused(&hook, post(r#"{"text":"x"}"#, &[]), 400, Refusal::Version);
}

#[test]
fn h9_bad_bodies_are_refused_with_a_reason() {
    let hook = hook(
        Auth::Anonymous,
        Limits {
            max_body: 10_000,
            ..LIMITS
        },
    );
    for body in ["", "<html>", "{", "\u{0}"] {
        check_refused(&hook, post(body, &[]), 400, Refusal::NotJson);
    }
    check_refused(&hook, post("4", &[]), 400, Refusal::Shape);
    for encoding in ["gzip", "deflate", "gzip, identity", ""] {
        let request = post(PAYLOAD, &[("content-encoding", encoding)]);
        check_refused(&hook, request, 415, Refusal::ContentEncoding);
    }
    let large = || " ".repeat(10_001);
    check_refused(&hook, post(large(), &[]), 413, Refusal::BodyTooLarge);
    // What the head says is not read at all; what it keeps silent is read up to the limit.
    let announced = post(Body::empty(), &[("content-length", "104857600")]);
    check_refused(&hook, announced, 413, Refusal::BodyTooLarge);
    let chunks =
        futures_util::stream::iter((0..100_000).map(|_| Ok::<_, std::io::Error>("x".repeat(1000))));
    check_refused(
        &hook,
        post(Body::from_stream(chunks), &[]),
        413,
        Refusal::BodyTooLarge,
    );
    let broken = futures_util::stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]);
    check_refused(
        &hook,
        post(Body::from_stream(broken), &[]),
        400,
        Refusal::BodyBroken,
    );
}

#[test]
fn h2_a_store_that_fails_is_a_503() {
    let hook = hook(Auth::Anonymous, LIMITS);
    hook.store.fail(&[CallError::NoAnswer("secret".into())]);
    check_refused(&hook, post(PAYLOAD, &[]), 503, Refusal::Store);
    assert_eq!(ask(&hook.router, post(PAYLOAD, &[])).status, StatusCode::OK);
}

#[test]
fn h66_a_missing_or_wrong_token_lets_nobody_in() {
    let file = token_file("s3cret\n");
    let hook = hook(Auth::TokenFile(file.path().into()), LIMITS);
    check_refused(&hook, post(PAYLOAD, &[]), 401, Refusal::Unauthorized);
    for header in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer s3cre",
        "Bearer s3cret2",
        "Basic s3cret",
        "s3cret",
        "Bearer s3cret s3cret",
    ] {
        let request = post(PAYLOAD, &[("authorization", header)]);
        check_refused(&hook, request, 401, Refusal::Unauthorized);
    }
    for header in ["Bearer s3cret", "bearer s3cret"] {
        let request = post(PAYLOAD, &[("authorization", header)]);
        assert_eq!(ask(&hook.router, request).status, StatusCode::OK);
    }
}

#[test]
fn h66_without_a_usable_token_file_it_is_closed() {
    for text in ["", " \n", &"x".repeat(5000)] {
        let file = token_file(text);
        let hook = hook(Auth::TokenFile(file.path().into()), LIMITS);
        for header in ["Bearer ", "Bearer x"] {
            let request = post(PAYLOAD, &[("authorization", header)]);
            check_refused(&hook, request, 503, Refusal::NoToken);
        }
    }
    let hook = hook(Auth::TokenFile("/nonexistent/token".into()), LIMITS);
    check_refused(&hook, post(PAYLOAD, &[]), 503, Refusal::NoToken);
}

#[test]
fn a_new_token_counts_at_once() {
    let file = token_file("old");
    let hook = hook(Auth::TokenFile(file.path().into()), LIMITS);
    let status = |token: &str| {
        let header = format!("Bearer {token}");
        ask(&hook.router, post(PAYLOAD, &[("authorization", &header)])).status
    };
    assert_eq!(status("old"), StatusCode::OK);
    std::fs::write(file.path(), "new").unwrap();
    assert_eq!(
        (status("old"), status("new")),
        (StatusCode::UNAUTHORIZED, StatusCode::OK)
    );
}

#[test]
fn h3_more_requests_than_there_is_room_for_are_shed() {
    let hook = hook(
        Auth::Anonymous,
        Limits {
            max_requests: 2,
            ..LIMITS
        },
    );
    let waiting = || {
        let never = futures_util::stream::pending::<Result<String, std::io::Error>>();
        let request = post(Body::from_stream(never), &[("content-length", "10")]);
        let mut answer = Box::pin(hook.router.clone().oneshot(request));
        assert!(answer.as_mut().now_or_never().is_none());
        answer
    };
    let (first, second) = (waiting(), waiting());
    check_refused(&hook, post(PAYLOAD, &[]), 503, Refusal::Overloaded);
    drop(first);
    assert_eq!(
        std::mem::take(&mut *hook.seen.lock().unwrap()),
        [Err(Refusal::Aborted)],
        "a request that is dropped is counted"
    );
    assert_eq!(ask(&hook.router, post(PAYLOAD, &[])).status, StatusCode::OK);
    drop(second);
}

#[test]
fn every_refusal_has_one_label_and_a_status_that_alertmanager_understands() {
    let labels: std::collections::BTreeSet<String> = Refusal::ALL
        .iter()
        .map(|refusal| format!("{refusal:?}"))
        .collect();
    assert_eq!(labels.len(), Refusal::ALL.len());
    for refusal in Refusal::ALL {
        let status = refusal.status();
        assert!(
            status == 503 || status.is_client_error() && status != 429,
            "{refusal:?}"
        );
    }
}

#[test]
fn readiness_names_what_is_missing() {
    let readiness = Readiness::declare(&["nodes", "webhook"]);
    let router = service(readiness.clone(), || "# EOF\n".to_owned());
    let get = |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        ask(&router, request)
    };
    assert_eq!(get("/livez").status, StatusCode::OK);
    let answer = get("/readyz");
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        answer.body,
        "nodes: has not started yet\nwebhook: has not started yet\n"
    );
    readiness.set("webhook", Ok(()));
    readiness.set("nodes", Err("forbidden".into()));
    assert_eq!(get("/readyz").body, "nodes: forbidden\n");
    readiness.set("nodes", Ok(()));
    assert_eq!(get("/readyz").status, StatusCode::OK);
    readiness.remark("configuration", Err("refused".into()));
    let remarked = get("/readyz");
    assert_eq!(remarked.status, StatusCode::OK);
    assert_eq!(remarked.body, "ok\nconfiguration: refused\n");
    readiness.remark("configuration", Ok(()));
    assert_eq!(get("/readyz").body, "ok\n");
    let metrics = get("/metrics");
    assert_eq!(metrics.body, "# EOF\n");
    assert_eq!(
        metrics.headers["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
}

/// Serves a webhook on a socket, hands its address to `client`, and shuts down after.
async fn over_tcp<F: Future<Output = ()>>(
    bounds: Bounds,
    client: impl FnOnce(std::net::SocketAddr, Hook) -> F,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hook = hook(Auth::Anonymous, LIMITS);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let server = tokio::spawn(serve(listener, hook.router.clone(), bounds, shutdown));
    client(address, hook).await;
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

async fn talk(address: std::net::SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

fn head(length: usize) -> String {
    format!(
        "POST /webhook/alertmanager HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn over_a_socket_each_connection_carries_one_request() {
    over_tcp(Bounds::default(), |address, hook| async move {
        let request = head(firing().len()) + &firing();
        let answer = talk(address, &request.repeat(2)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1);
        assert_eq!(hook.store.writes(), 1);
    })
    .await;
}

#[tokio::test]
async fn h68_slow_heads_slow_bodies_and_idle_clients_are_cut_off() {
    let bounds = Bounds {
        request: Duration::from_millis(50),
        connection: Duration::from_millis(200),
        connections: 4,
    };
    over_tcp(bounds, |address, hook| async move {
        let body = firing();
        assert_eq!(talk(address, "").await, "");
        assert_eq!(talk(address, "POST /webhook/alertmanager HT").await, "");
        let slow = talk(address, &(head(body.len()) + &body[..10])).await;
        assert!(slow.starts_with("HTTP/1.1 503"), "{slow}");
        assert_eq!(*hook.seen.lock().unwrap(), [Err(Refusal::Aborted)]);
        // As many idle clients as there are places do not keep others out for long.
        let idle: Vec<TcpStream> =
            futures_util::future::join_all((0..4).map(|_| TcpStream::connect(address)))
                .await
                .into_iter()
                .map(Result::unwrap)
                .collect();
        let answer = talk(address, &(head(body.len()) + &body)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        drop(idle);
    })
    .await;
}
