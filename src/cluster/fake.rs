//! For tests: an API that gives answers by turns.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use serde_json::Value;

use super::{Kubernetes, Lease, groups};
use crate::telemetry::Telemetry;

/// An API that gives these answers by turns, the last without an end, and what it was
/// asked: method, URI and body. An answer of lines that begins with a `Status` has its code.
pub(super) fn api(answers: Vec<Vec<Value>>) -> (Kubernetes, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, answers) = (Arc::clone(&asked), Mutex::new(VecDeque::from(answers)));
    let answers = Arc::new(answers);
    let service = tower::service_fn(move |request: hyper::Request<kube::client::Body>| {
        let (seen, answers) = (Arc::clone(&seen), Arc::clone(&answers));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let body = str::from_utf8(&body).unwrap();
            let question = format!("{} {} {body}", head.method, head.uri);
            seen.lock().unwrap().push(question.trim_end().to_owned());
            let mut left = answers.lock().unwrap();
            let lines: Vec<_> = left.pop_front().into_iter().flatten().collect();
            let failure = lines.first().filter(|line| line["kind"] == "Status");
            let code = failure.map_or(200, |failure| failure["code"].as_u64().unwrap());
            let lines = lines
                .into_iter()
                .map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{line}\n")))));
            let body = if left.is_empty() {
                stream::iter(lines).chain(stream::pending()).left_stream()
            } else {
                stream::iter(lines).right_stream()
            };
            let answer = hyper::Response::builder().status(u16::try_from(code).unwrap());
            Ok::<_, Infallible>(answer.body(StreamBody::new(body)).unwrap())
        }
    });
    let cluster = Kubernetes {
        client: kube::Client::new(service, "default"),
        lease: Lease::default(),
        telemetry: Telemetry::silent(),
        groups: groups::Known::default(),
    };
    (cluster, asked)
}
