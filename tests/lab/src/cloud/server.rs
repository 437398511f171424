//! The front on a port: EC2 for nodemend, and `/lab/…` for people.

use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::faults::Planned;
use super::front::{Call, Front};
use super::listener::Peer;
use super::moto::Moto;
use super::query;

type Shared = State<Arc<Front<Moto>>>;

/// The routes.
pub fn router(front: Arc<Front<Moto>>) -> Router {
    Router::new()
        .route("/", post(ec2))
        .route("/lab/calls", get(calls).delete(clear_calls))
        .route("/lab/faults", get(faults).post(plan).delete(clear_faults))
        .with_state(front)
}

async fn ec2(
    State(front): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let Ok(params) = query::parse(&body) else {
        return (StatusCode::BAD_REQUEST, "no form\n").into_response();
    };
    let authorization = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    // On its own: a client that hangs up does not undo a call.
    let reply = tokio::spawn(front.take(authorization, params))
        .await
        .ok()
        .flatten();
    if let Some(answer) = reply {
        (answer.status, [("content-type", "text/xml")], answer.body).into_response()
    } else {
        peer.cut.cut();
        StatusCode::NO_CONTENT.into_response()
    }
}

async fn calls(State(front): Shared) -> Json<Vec<Call>> {
    Json(front.calls())
}

async fn clear_calls(State(front): Shared) -> StatusCode {
    front.clear_calls();
    StatusCode::NO_CONTENT
}

async fn faults(State(front): Shared) -> Json<Vec<Planned>> {
    Json(front.faults.planned())
}

async fn plan(State(front): Shared, Json(planned): Json<Planned>) -> StatusCode {
    front.faults.plan(planned);
    StatusCode::NO_CONTENT
}

async fn clear_faults(State(front): Shared) -> StatusCode {
    front.faults.clear();
    StatusCode::NO_CONTENT
}
