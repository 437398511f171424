//! The webhook with a real HTTP client, over a socket.

use jiff::Timestamp;
use nodemend::alertmanager::Intake;
use nodemend::controller::{Age, Groups};
use nodemend::exec::CallError;
use nodemend::http::{Auth, Bounds, Limits, Method, serve, webhook};
use nodemend_core::api::AlertGroup;

/// A store that takes everything and remembers nothing.
#[derive(Clone)]
struct Sink;

impl Groups for Sink {
    async fn group(&self, _: &str, _: Age) -> Result<Option<AlertGroup>, CallError> {
        Ok(None)
    }
    async fn put_group(&self, _: AlertGroup) -> Result<(), CallError> {
        Ok(())
    }
    fn others(&self, _: &str, _: &str) -> Option<usize> {
        None
    }
}

#[tokio::test]
async fn a_client_is_answered_and_a_stranger_refused() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "s3cret").unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://{}/webhook/alertmanager",
        listener.local_addr().unwrap()
    );
    let limits = Limits {
        max_body: 1 << 20,
        max_requests: 4,
    };
    let auth = Auth::AnyOf(vec![Method::TokenFile(token.path().into())]);
    let router = webhook(
        Intake::new(Sink),
        auth,
        limits,
        || Some(Timestamp::UNIX_EPOCH),
        |_, _| (),
    );
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let server = tokio::spawn(serve(listener, router, Bounds::default(), shutdown));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body: serde_json::Value =
        serde_json::from_str(include_str!("../src/alertmanager/payload-0.34.json")).unwrap();
    for (token, status) in [("s3cret", 200), ("wrong", 401), ("s3cret", 200)] {
        let request = client.post(&url).bearer_auth(token).json(&body);
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    stop.send(()).unwrap();
    server.await.unwrap();
}
