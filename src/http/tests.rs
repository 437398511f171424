//! Requests to the routers in process, polled once; sockets only where the wire matters.

use std::collections::BTreeMap;
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{Method as Verb, Request, Response, StatusCode};
use futures_util::{FutureExt, StreamExt, stream};
use http_body_util::BodyExt;
use nodemend_core::model::SignalState;
use tower::ServiceExt;

use super::*;
use crate::alertmanager::tests::{Memory, PAYLOAD, at, firing};
use crate::alertmanager::{Delivered, Intake};
use crate::controller::TokenReviews;
use crate::exec::CallError;
use crate::telemetry::Traceparent;

mod secured;
mod tls;
mod wire;

const LIMITS: Limits = Limits {
    max_body: 32 << 20,
    max_requests: 64,
};

/// What the clock shows while it is not known to be right.
const NO_TIME: i64 = i64::MIN;

type Seen = Arc<Mutex<Vec<Result<Delivered, Refusal>>>>;
type Causes = Arc<Mutex<Vec<Option<Traceparent>>>>;

/// A webhook over a store in memory, and what it reported.
struct Hook {
    store: Memory,
    seen: Seen,
    causes: Causes,
    /// In seconds.
    clock: Arc<AtomicI64>,
    router: Router,
}

fn hook(auth: Auth, limits: Limits) -> Hook {
    let (store, seen, causes) = (Memory::default(), Seen::default(), Causes::default());
    let (sink, linked) = (Arc::clone(&seen), Arc::clone(&causes));
    let observe = move |outcome, cause| {
        sink.lock().unwrap().push(outcome);
        linked.lock().unwrap().push(cause);
    };
    let clock = Arc::new(AtomicI64::new(0));
    let time = Arc::clone(&clock);
    let now = move || {
        let second = time.load(Ordering::Relaxed);
        (second != NO_TIME).then(|| at(second))
    };
    let router = webhook(Intake::new(store.clone()), auth, limits, now, observe);
    Hook {
        store,
        seen,
        causes,
        clock,
        router,
    }
}

impl Hook {
    /// What became of the requests since it was last asked.
    fn seen(&self) -> Vec<Result<Delivered, Refusal>> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn by_token_file(path: impl Into<std::path::PathBuf>) -> Auth {
    Auth::AnyOf(vec![Method::TokenFile(path.into())])
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
    assert_eq!(hook.store.writes(), 2, "two alerts, two buckets, once each");
}

#[test]
fn a_wrong_method_or_type_is_refused() {
    let hook = hook(Auth::Anonymous, LIMITS);
    for method in [Verb::GET, Verb::PUT, Verb::DELETE] {
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
    for encoding in ["br", "deflate", "gzip, identity", ""] {
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

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_compressed_delivery_is_read() {
    let hook = hook(Auth::Anonymous, LIMITS);
    let body = gzip(PAYLOAD.as_bytes());
    let cut = body
        .chunks(7)
        .map(|part| Ok::<_, std::io::Error>(part.to_vec()));
    let cut = Body::from_stream(futures_util::stream::iter(cut.collect::<Vec<_>>()));
    for body in [Body::from(body.clone()), cut] {
        let request = post(body, &[("content-encoding", "GZIP")]);
        assert_eq!(ask(&hook.router, request).status, StatusCode::OK);
    }
    // Two alerts, in two buckets, and nothing new the second time.
    assert_eq!(hook.store.writes(), 2);
}

#[test]
fn h9_a_compressed_body_is_bounded_by_what_it_becomes() {
    let limits = Limits {
        max_body: 100_000,
        max_requests: 4,
    };
    let hook = hook(Auth::Anonymous, limits);
    let post = |body: Vec<u8>| post(body, &[("content-encoding", "gzip")]);
    // A thousandfold bomb, alone and as the body of a delivery.
    let bomb = gzip(&vec![b' '; 100 << 20]);
    assert!(bomb.len() > limits.max_body);
    check_refused(
        &hook,
        post(bomb[..90_000].into()),
        413,
        Refusal::BodyTooLarge,
    );
    let small = gzip(&vec![b' '; limits.max_body + 1]);
    assert!(small.len() < 1000);
    check_refused(&hook, post(small), 413, Refusal::BodyTooLarge);
    let fits = gzip(&vec![b' '; limits.max_body]);
    check_refused(&hook, post(fits), 400, Refusal::NotJson);
    // Blocks without content: it becomes nothing, and never ends.
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let endless = [&header[..], &[0, 0, 0, 0xff, 0xff].repeat(limits.max_body)].concat();
    let parts: Vec<_> = endless
        .chunks(1000)
        .map(|part| Ok::<_, std::io::Error>(part.to_vec()))
        .collect();
    let mut request = post(vec![]);
    *request.body_mut() = Body::from_stream(futures_util::stream::iter(parts));
    check_refused(&hook, request, 413, Refusal::BodyTooLarge);
    // What is no gzip, is cut off, is damaged, or goes on behind its end.
    let good = gzip(PAYLOAD.as_bytes());
    let mut damaged = good.clone();
    let last = damaged.len() - 5;
    damaged[last] ^= 1;
    let cut = good[..good.len() - 9].to_vec();
    let longer = [&good[..], b"more"].concat();
    for body in [PAYLOAD.into(), vec![], cut, damaged, longer] {
        check_refused(&hook, post(body), 400, Refusal::BodyBroken);
    }
}

#[test]
fn h9_what_a_body_becomes_takes_room_from_the_others() {
    let limits = Limits {
        max_body: 100_000,
        max_requests: 40,
    };
    let hook = hook(Auth::Anonymous, limits);
    let large = vec![b' '; limits.max_body];
    let waiting = |body: Vec<u8>, headers: &[(&str, &str)]| {
        let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(body)]);
        let never = futures_util::StreamExt::chain(stream, futures_util::stream::pending());
        let request = post(Body::from_stream(never), headers);
        let mut answer = Box::pin(hook.router.clone().oneshot(request));
        assert!(answer.as_mut().now_or_never().is_none());
        answer
    };
    // Half of the room is for small ones.
    let announced = [("content-length", "100000")];
    let plain = waiting(large[..50_000].to_vec(), &announced);
    let one = gzip(&large);
    // It has room for itself, and not for another.
    let inflating = waiting(one.clone(), &[("content-encoding", "gzip")]);
    let request = post(one, &[("content-encoding", "gzip")]);
    check_refused(&hook, request, 503, Refusal::Overloaded);
    let request = post(large.clone(), &[]);
    check_refused(&hook, request, 503, Refusal::Overloaded);
    drop((plain, inflating));
    hook.seen();
    check_refused(&hook, post(large, &[]), 400, Refusal::NotJson);
    assert_eq!(ask(&hook.router, post(PAYLOAD, &[])).status, StatusCode::OK);
}

#[test]
fn h9_large_bodies_leave_room_for_small_ones() {
    let limits = Limits {
        max_body: 100_000,
        max_requests: 8,
    };
    let hook = hook(Auth::Anonymous, limits);
    let mut waiting = Vec::new();
    let mut refused = 0;
    // Each sends all but the end.
    for _ in 0..limits.max_requests - 1 {
        let large = stream::iter([Ok::<_, std::io::Error>(vec![b' '; 99_000])]);
        let request = post(Body::from_stream(large.chain(stream::pending())), &[]);
        let mut answer = Box::pin(hook.router.clone().oneshot(request));
        match answer.as_mut().now_or_never() {
            None => waiting.push(answer),
            Some(answer) => {
                assert_eq!(answer.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
                refused += 1;
            }
        }
    }
    assert_eq!((waiting.len(), refused), (2, 5));
    assert_eq!(ask(&hook.router, post(PAYLOAD, &[])).status, StatusCode::OK);
}

#[test]
fn h70_no_url_of_a_delivery_is_fetched_or_kept() {
    let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}/latest/meta-data", trap.local_addr().unwrap());
    let mut payload: serde_json::Value = serde_json::from_str(PAYLOAD).unwrap();
    payload["externalURL"] = url.clone().into();
    for alert in payload["alerts"].as_array_mut().unwrap() {
        alert["generatorURL"] = url.clone().into();
        alert["labels"]["url"] = url.clone().into();
        for name in ["runbook_url", "dashboard", "image"] {
            alert["annotations"][name] = url.clone().into();
        }
    }
    payload["commonAnnotations"] = serde_json::json!({"runbook_url": url});
    let hook = hook(Auth::Anonymous, LIMITS);
    let answer = ask(&hook.router, post(payload.to_string(), &[]));
    assert_eq!(answer.status, StatusCode::OK);
    let stored = serde_json::to_string(&hook.store.specs()).unwrap();
    assert!(
        stored.contains("NodeDiskIOErrors") && !stored.contains("http"),
        "{stored}"
    );
    assert_eq!(
        trap.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
}

#[test]
fn a_traceparent_is_handed_on_if_it_is_valid() {
    let hook = hook(Auth::Anonymous, LIMITS);
    let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut twice = post(PAYLOAD, &[("traceparent", valid)]);
    twice
        .headers_mut()
        .append("traceparent", valid.parse().unwrap());
    ask(&hook.router, post(PAYLOAD, &[("traceparent", valid)]));
    ask(&hook.router, post(PAYLOAD, &[("traceparent", "00-0-0-01")]));
    ask(&hook.router, twice);
    let expect = [Traceparent::parse(valid), None, None];
    assert!(expect[0].is_some());
    assert_eq!(*hook.causes.lock().unwrap(), expect);
}

#[test]
fn h2_a_store_that_fails_is_a_503() {
    let hook = hook(Auth::Anonymous, LIMITS);
    // Its alerts are in two objects.
    let error = || CallError::NoAnswer("secret".into());
    hook.store.fail(&[error(), error()]);
    check_refused(&hook, post(PAYLOAD, &[]), 503, Refusal::Store);
    assert_eq!(ask(&hook.router, post(PAYLOAD, &[])).status, StatusCode::OK);
}

#[test]
fn nothing_is_taken_by_a_clock_that_may_be_wrong() {
    let hook = hook(Auth::Anonymous, LIMITS);
    hook.clock.store(NO_TIME, Ordering::Relaxed);
    check_refused(&hook, post(PAYLOAD, &[]), 503, Refusal::Clock);
    hook.clock.store(0, Ordering::Relaxed);
    assert_eq!(ask(&hook.router, post(PAYLOAD, &[])).status, StatusCode::OK);
}

#[test]
fn h66_a_missing_or_wrong_token_lets_nobody_in() {
    let file = token_file("s3cret\n");
    let hook = hook(by_token_file(file.path()), LIMITS);
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
        let hook = hook(by_token_file(file.path()), LIMITS);
        for header in ["Bearer ", "Bearer x"] {
            let request = post(PAYLOAD, &[("authorization", header)]);
            check_refused(&hook, request, 503, Refusal::NoToken);
        }
    }
    let hook = hook(by_token_file("/nonexistent/token"), LIMITS);
    check_refused(&hook, post(PAYLOAD, &[]), 503, Refusal::NoToken);
}

#[test]
fn a_new_token_counts_at_once() {
    let file = token_file("old");
    let hook = hook(by_token_file(file.path()), LIMITS);
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
