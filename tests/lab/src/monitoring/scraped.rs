//! The HTTP side of the exporter: what Prometheus scrapes and finds by service
//! discovery, and what a person may set by `PUT`.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::exporter::{Exporter, Metric};
use super::state_metrics;
use crate::control_plane::client_of;

#[derive(Clone)]
struct Shared {
    exporter: Exporter,
    kubeconfig: PathBuf,
    // Made on first use, as a client belongs to the runtime it is made on.
    client: std::sync::Arc<OnceCell<kube::Client>>,
}

/// The routes.
pub fn router(exporter: Exporter, kubeconfig: PathBuf) -> Router {
    Router::new()
        .route("/nodes/{node}/metrics", get(node_metrics))
        .route("/nodes/{node}/{metric}", put(set))
        .route("/metrics/kube-state-metrics", get(kube_state_metrics))
        .route("/targets", get(targets))
        .with_state(Shared {
            exporter,
            kubeconfig,
            client: std::sync::Arc::default(),
        })
}

async fn nodes(shared: &Shared) -> Result<Vec<Node>, Response> {
    let down = |error: String| (StatusCode::SERVICE_UNAVAILABLE, error).into_response();
    let client = shared
        .client
        .get_or_try_init(|| client_of(&shared.kubeconfig))
        .await
        .map_err(|error| down(format!("{error:#}\n")))?;
    let nodes = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await;
    Ok(nodes.map_err(|error| down(format!("{error}\n")))?.items)
}

async fn node_metrics(State(shared): State<Shared>, Path(node): Path<String>) -> Response {
    match shared.exporter.text(&node) {
        Some(text) => plain(text),
        None => (StatusCode::INTERNAL_SERVER_ERROR, "this exporter is down\n").into_response(),
    }
}

async fn kube_state_metrics(State(shared): State<Shared>) -> Response {
    match nodes(&shared).await {
        Ok(nodes) => plain(state_metrics::text(&nodes)),
        Err(response) => response,
    }
}

/// Prometheus' HTTP service discovery: one target per node, named as kube-prometheus names it.
async fn targets(State(shared): State<Shared>, headers: axum::http::HeaderMap) -> Response {
    let nodes = match nodes(&shared).await {
        Ok(nodes) => nodes,
        Err(response) => return response,
    };
    let here = headers
        .get("host")
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let targets: Vec<Value> = nodes
        .iter()
        .filter_map(|node| node.metadata.name.as_deref())
        .map(|name| {
            let labels =
                json!({"instance": name, "__metrics_path__": format!("/nodes/{name}/metrics")});
            json!({"targets": [here], "labels": labels})
        })
        .collect();
    axum::Json(targets).into_response()
}

async fn set(
    State(shared): State<Shared>,
    Path((node, metric)): Path<(String, String)>,
    body: String,
) -> Response {
    let Some(metric) = Metric::named(&metric) else {
        return (StatusCode::NOT_FOUND, "no metric that can be set\n").into_response();
    };
    match body.trim().parse() {
        Ok(value) => {
            shared.exporter.set(&node, metric, value);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(_) => (StatusCode::BAD_REQUEST, "the body must be a number\n").into_response(),
    }
}

fn plain(text: String) -> Response {
    ([("content-type", "text/plain; version=0.0.4")], text).into_response()
}
