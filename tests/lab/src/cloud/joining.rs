//! The cloud's side of the nodes: instances join as nodes, terminated ones leave.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams};

use super::moto::{Instance, Moto};
use crate::control_plane::client_of;
use crate::nodes::{self, NodeSpec, POOL_LABEL};

/// How often EC2 is asked.
const PERIOD: Duration = Duration::from_millis(300);
/// A tag `lab/label/KEY` becomes the node label KEY.
pub const LABEL_TAG: &str = "lab/label/";
/// A tag that names the node.
pub const NAME_TAG: &str = "lab/node";

/// What becomes of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its node joins and is Ready.
    Joins,
    /// Its node joins and is not Ready.
    JoinsSick,
    /// No node comes.
    NeverJoins,
}

/// How instances launched from now on join; clones share it.
#[derive(Debug, Clone)]
pub struct Joining(Arc<Mutex<(Fate, Duration)>>);

impl Default for Joining {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((Fate::Joins, Duration::ZERO))))
    }
}

impl Joining {
    /// Sets it for instances not yet seen.
    pub fn set(&self, fate: Fate, after: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (fate, after);
    }

    fn get(&self) -> (Fate, Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until the lab ends.
pub async fn run(
    moto: Moto,
    kubeconfig: PathBuf,
    joining: Joining,
    labels: BTreeMap<String, String>,
) {
    let mut state = State {
        moto,
        joining,
        labels,
        seen: BTreeMap::new(),
        joined: BTreeSet::new(),
    };
    let mut client = None;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if client.is_none() {
            client = client_of(&kubeconfig).await.ok();
        }
        // A part that is down is asked again at the next tick, as cloud controllers do.
        if let Some(client) = &client
            && let Err(error) = state.pass(client).await
        {
            eprintln!("lab: node controller: {error:#}");
        }
    }
}

struct State {
    moto: Moto,
    joining: Joining,
    labels: BTreeMap<String, String>,
    /// When an instance was first seen, and what was set for it then.
    seen: BTreeMap<String, (Instant, Fate, Duration)>,
    joined: BTreeSet<String>,
}

impl State {
    async fn pass(&mut self, client: &Client) -> Result<()> {
        let instances = self.moto.instances().await?;
        let nodes = Api::<Node>::all(client.clone())
            .list(&ListParams::default())
            .await?;
        for instance in &instances {
            match instance.state.as_str() {
                "pending" | "running" => self.join(client, instance).await?,
                "terminated" => leave(client, &instance.id, &nodes.items).await?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn join(&mut self, client: &Client, instance: &Instance) -> Result<()> {
        if self.joined.contains(&instance.id) {
            return Ok(());
        }
        let now = Instant::now();
        let (fate, after) = self.joining.get();
        // The lab's own first nodes join at once and well, whatever a test has set.
        let first = if instance.tags.contains_key(NAME_TAG) {
            (now, Fate::Joins, Duration::ZERO)
        } else {
            (now, fate, after)
        };
        let (since, fate, after) = *self.seen.entry(instance.id.clone()).or_insert(first);
        if fate == Fate::NeverJoins || now.duration_since(since) < after {
            return Ok(());
        }
        let mut spec = self.node_of(instance);
        if fate == Fate::JoinsSick {
            spec.labels
                .insert(nodes::NOT_READY.to_owned(), "true".to_owned());
        }
        nodes::create(client, &[spec]).await?;
        self.joined.insert(instance.id.clone());
        Ok(())
    }

    fn node_of(&self, instance: &Instance) -> NodeSpec {
        let name = instance
            .tags
            .get(NAME_TAG)
            .unwrap_or(&instance.private_dns_name);
        let mut spec = NodeSpec {
            zone: instance.zone.clone(),
            instance: instance.id.clone(),
            instance_type: instance.instance_type.clone(),
            labels: self.labels.clone(),
            ..NodeSpec::named(name)
        };
        let tagged = instance
            .tags
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(LABEL_TAG)?, value)));
        spec.labels
            .extend(tagged.map(|(key, value)| (key.to_owned(), value.clone())));
        if let Some(pool) = spec.labels.get(POOL_LABEL) {
            spec.pool.clone_from(pool);
        }
        spec
    }
}

/// First not ready, then gone, as a cloud's node controller does.
async fn leave(client: &Client, instance: &str, all: &[Node]) -> Result<()> {
    let on_it = |node: &&Node| {
        let provider = node
            .spec
            .as_ref()
            .and_then(|spec| spec.provider_id.as_deref());
        provider.is_some_and(|id| id.rsplit('/').next() == Some(instance))
    };
    for node in all.iter().filter(on_it) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if nodes::ready(node) == Some("True") {
            nodes::label_ready(client, name, false).await?;
        } else {
            match Api::<Node>::all(client.clone())
                .delete(name, &DeleteParams::default())
                .await
            {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
        }
    }
    Ok(())
}
