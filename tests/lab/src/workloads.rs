//! Something on the nodes: Deployments, and budgets against their disruption.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::json;

use crate::apply::apply;
use crate::wait::wait_for;

/// A Deployment to make.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// Its name, and the value of its pods' label `app`.
    pub name: String,
    /// How many pods.
    pub replicas: u32,
    /// On which nodes.
    pub node_selector: BTreeMap<String, String>,
    /// With a disruption budget: how many pods must stay available.
    pub min_available: Option<u32>,
    /// At most one pod more on a node than on another.
    pub spread: bool,
}

/// Makes it in namespace `default` and waits until all its pods are available.
pub async fn add(client: &Client, workload: &Workload) -> Result<()> {
    let Workload { name, replicas, .. } = workload;
    let labels = json!({"app": name});
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }]);
    let mut items = vec![json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": workload.node_selector,
                    "topologySpreadConstraints": if workload.spread { spread } else { json!([]) },
                    "containers": [{"name": "app", "image": "lab", "resources": {"requests": {"cpu": "100m"}}}],
                },
            },
        },
    })];
    if let Some(least) = workload.min_available {
        items.push(json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"minAvailable": least, "selector": {"matchLabels": labels}},
        }));
    }
    apply(client, &json!({"items": items}).to_string()).await?;
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    wait_for(
        &format!("{replicas} pods of {name}"),
        Duration::from_mins(1),
        || async {
            let available = api
                .get(name)
                .await?
                .status
                .and_then(|status| status.available_replicas)
                .unwrap_or(0);
            Ok((i64::from(available) == i64::from(*replicas)).then_some(()))
        },
    )
    .await
}

/// The pods on a node that are not being deleted.
pub async fn pods_on(client: &Client, node: &str) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::all(client.clone());
    let pods = api
        .list(&ListParams::default().fields(&format!("spec.nodeName={node}")))
        .await?;
    Ok(pods
        .items
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .collect())
}
