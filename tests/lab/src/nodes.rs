//! Fake nodes: real Node objects, with kwok as their kubelet.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::wait::wait_for;

/// The zones that the lab's nodes are spread over.
pub const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];
/// The label that names a node's pool (for nodemend's `poolLabels`).
pub const POOL_LABEL: &str = "lab.nodemend.dev/pool";
/// With this label a node's kubelet says that it is not ready.
pub const NOT_READY: &str = "node-not-ready.stage.kwok.x-k8s.io";

/// A node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name, also its host name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Its pool, the value of [`POOL_LABEL`].
    pub pool: String,
    /// The EC2 instance that it runs on (`i-…`).
    pub instance: String,
    /// The instance's type.
    pub instance_type: String,
    /// Its `InternalIP`; a loopback address, as the lab's traffic stays there.
    pub address: String,
    /// More labels; these win.
    pub labels: BTreeMap<String, String>,
}

impl NodeSpec {
    /// A node of pool `general` in the first zone, with an instance id made from its name.
    pub fn named(name: &str) -> Self {
        let hash = Sha256::digest(name.as_bytes());
        let mut instance = "i-0".to_owned();
        for byte in &hash[..8] {
            // Writing to a String cannot fail.
            let _ = write!(instance, "{byte:02x}");
        }
        Self {
            name: name.to_owned(),
            zone: ZONES[0].to_owned(),
            pool: "general".to_owned(),
            instance,
            instance_type: "m5.large".to_owned(),
            address: format!(
                "127.{}.{}.{}",
                10 + hash[8] % 200,
                hash[9],
                1 + hash[10] % 250
            ),
            labels: BTreeMap::new(),
        }
    }

    /// `count` nodes, `node-0` on, zone after zone.
    pub fn many(count: usize) -> Vec<Self> {
        (0..count)
            .map(|index| Self {
                zone: ZONES[index % ZONES.len()].to_owned(),
                ..Self::named(&format!("node-{index}"))
            })
            .collect()
    }

    /// How the cloud provider would name its instance.
    pub fn provider_id(&self) -> String {
        format!("aws:///{}/{}", self.zone, self.instance)
    }

    fn object(&self) -> Value {
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname", self.name.clone()),
            ("kubernetes.io/os", "linux".to_owned()),
            ("kubernetes.io/arch", "amd64".to_owned()),
            ("topology.kubernetes.io/zone", self.zone.clone()),
            (
                "topology.kubernetes.io/region",
                self.zone.trim_end_matches(char::is_alphabetic).to_owned(),
            ),
            (
                "node.kubernetes.io/instance-type",
                self.instance_type.clone(),
            ),
            (POOL_LABEL, self.pool.clone()),
        ]);
        labels.extend(
            self.labels
                .iter()
                .map(|(key, value)| (key.as_str(), value.clone())),
        );
        let room =
            json!({"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"});
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
            "spec": {"providerID": self.provider_id()},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": self.address},
                    {"type": "Hostname", "address": self.name},
                ],
                "capacity": room,
                "allocatable": room,
            },
        })
    }
}

/// Waits until each of these nodes is Ready and without taints.
pub async fn await_ready(client: &Client, specs: &[NodeSpec]) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    wait_for(
        "the new nodes to be ready",
        Duration::from_mins(1),
        || async {
            let nodes = api.list(&ListParams::default()).await?;
            let fit = |spec: &NodeSpec| {
                nodes.items.iter().any(|node| {
                    node.metadata.name.as_deref() == Some(&spec.name)
                        && ready(node) == Some("True")
                        && node
                            .spec
                            .as_ref()
                            .is_none_or(|s| s.taints.as_ref().is_none_or(Vec::is_empty))
                })
            };
            Ok(specs.iter().all(fit).then_some(()))
        },
    )
    .await
}

/// Makes the nodes.
pub async fn create(client: &Client, specs: &[NodeSpec]) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let objects: Vec<Node> = specs
        .iter()
        .map(|spec| serde_json::from_value(spec.object()).context("writing a Node"))
        .collect::<Result<_>>()?;
    let created = stream::iter(objects).map(|node| create_one(api.clone(), node));
    created.buffer_unordered(20).try_collect().await
}

async fn create_one(api: Api<Node>, node: Node) -> Result<()> {
    let created = api.create(&PostParams::default(), &node).await;
    created.with_context(|| format!("creating {}", node.metadata.name.unwrap_or_default()))?;
    Ok(())
}

/// The status of a node's Ready condition.
pub fn ready(node: &Node) -> Option<&str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .map(|condition| condition.status.as_str())
}

/// Makes a node's kubelet well or not, and waits until the API shows it.
pub async fn set_ready(client: &Client, name: &str, wanted: bool) -> Result<()> {
    label_ready(client, name, wanted).await?;
    let api: Api<Node> = Api::all(client.clone());
    let status = if wanted { "True" } else { "False" };
    wait_for(
        &format!("{name} to be Ready={status}"),
        Duration::from_secs(30),
        || async { Ok((ready(&api.get(name).await?) == Some(status)).then_some(())) },
    )
    .await
}

/// Tells a node's kubelet to be well or not.
pub async fn label_ready(client: &Client, name: &str, wanted: bool) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let value = if wanted { Value::Null } else { "true".into() };
    let patch = json!({"metadata": {"labels": {NOT_READY: value}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .context("labelling the node")?;
    Ok(())
}

/// Sets any other condition; kwok leaves those alone.
pub async fn set_condition(
    client: &Client,
    name: &str,
    kind: &str,
    status: &str,
    reason: &str,
) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let now = jiff::Timestamp::now().to_string();
    let condition = json!({
        "type": kind, "status": status, "reason": reason, "message": "set by a test",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    });
    let patch = json!({"status": {"conditions": [condition]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch))
        .await
        .context("setting a condition")?;
    Ok(())
}
