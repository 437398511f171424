//! A delivery without a socket: the same router, called in process.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use tower::ServiceExt as _;

/// Where deliveries are posted.
pub const WEBHOOK_PATH: &str = "/webhook/alertmanager";

/// Posts a payload to the webhook as Alertmanager does, and gives back what it answers.
pub async fn deliver(router: &Router, payload: Vec<u8>) -> StatusCode {
    let mut request = Request::new(Body::from(payload));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(WEBHOOK_PATH);
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    let Ok(response) = router.clone().oneshot(request).await;
    response.status()
}
