//! EC2: moto, the lab's front before it, and the nodes that instances become.

mod faults;
mod front;
mod joining;
mod listener;
mod moto;
mod query;
mod server;
mod xml;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::inside::Inside;
use crate::nodes::{NodeSpec, POOL_LABEL};
use crate::ports::free_port;
use crate::process::Recipe;
use crate::site::{Site, on_free_ports};

pub use faults::{Fault, Planned};
pub use front::Call;
pub use joining::{Fate, Joining};
pub use listener::{Cuttable, Peer};
pub use moto::{Instance, Moto};

use front::Front;
use joining::{LABEL_TAG, NAME_TAG};

/// How to set the cloud up.
#[derive(Debug, Clone)]
pub struct CloudOptions {
    /// The cluster's name, in the tag `kubernetes.io/cluster/NAME`.
    pub cluster: String,
    /// A launch template for each: `nodemend-lab` for `general`, else `nodemend-lab-POOL`.
    pub pools: Vec<String>,
    /// Labels of every node that joins.
    pub labels: BTreeMap<String, String>,
}

impl Default for CloudOptions {
    fn default() -> Self {
        Self {
            cluster: "lab".to_owned(),
            pools: vec!["general".to_owned()],
            labels: BTreeMap::new(),
        }
    }
}

/// The running cloud.
pub struct Cloud {
    /// The front's address: `AWS_ENDPOINT_URL_EC2` for nodemend.
    pub url: String,
    /// moto, past the front: for what is not nodemend's doing.
    pub moto: Moto,
    /// How the next instances join.
    pub joining: Joining,
    /// Launch template ids by name.
    pub launch_templates: BTreeMap<String, String>,
    /// Subnet ids by zone.
    pub subnets: BTreeMap<String, String>,
    front: Arc<Front<Moto>>,
}

impl Cloud {
    /// Starts moto and the front; [`Self::join_nodes`] comes after the control plane.
    pub async fn start(site: &Site, inside: &Inside, options: &CloudOptions) -> Result<Self> {
        let moto = Moto::new(&on_free_ports(|| start_moto(site)).await?)?;
        let mut launch_templates = BTreeMap::new();
        for pool in &options.pools {
            let tags = BTreeMap::from([
                (
                    format!("kubernetes.io/cluster/{}", options.cluster),
                    "owned".to_owned(),
                ),
                (format!("{LABEL_TAG}{POOL_LABEL}"), pool.clone()),
            ]);
            let name = template_of(pool);
            launch_templates.insert(
                name.clone(),
                moto.create_launch_template(&name, &tags).await?,
            );
        }
        let subnets = moto.subnets().await?;
        let front = Arc::new(Front::new(moto.clone()));
        let url = inside.serve_cuttable(server::router(front.clone()))?;
        Ok(Self {
            url,
            moto,
            joining: Joining::default(),
            launch_templates,
            subnets,
            front,
        })
    }

    /// From now on instances become nodes, and terminated ones' nodes go.
    pub fn join_nodes(&self, inside: &Inside, options: &CloudOptions, kubeconfig: PathBuf) {
        let labels = options.labels.clone();
        inside.handle().spawn(joining::run(
            self.moto.clone(),
            kubeconfig,
            self.joining.clone(),
            labels,
        ));
    }

    /// An instance for this node, past the front; its node joins soon. Gives the instance's id.
    pub async fn run_instance(&self, spec: &NodeSpec) -> Result<String> {
        let subnet = self
            .subnets
            .get(&spec.zone)
            .with_context(|| format!("no subnet in {}", spec.zone))?;
        let mut tags: BTreeMap<String, String> = spec
            .labels
            .iter()
            .map(|(key, value)| (format!("{LABEL_TAG}{key}"), value.clone()))
            .collect();
        tags.insert(NAME_TAG.to_owned(), spec.name.clone());
        self.moto
            .run(&template_of(&spec.pool), &spec.instance_type, subnet, &tags)
            .await
    }

    /// All instances, terminated ones too.
    pub async fn instances(&self) -> Result<Vec<Instance>> {
        self.moto.instances().await
    }

    /// The calls that came through the front.
    pub fn calls(&self) -> Vec<Call> {
        self.front.calls()
    }

    /// Those of one action.
    pub fn calls_of(&self, action: &str) -> Vec<Call> {
        self.calls()
            .into_iter()
            .filter(|call| call.action == action)
            .collect()
    }

    /// Forgets the calls.
    pub fn clear_calls(&self) {
        self.front.clear_calls();
    }

    /// A fault for the next calls of an action.
    pub fn fault(&self, action: &str, times: u32, fault: Fault) {
        self.front.faults.plan(Planned {
            action: action.to_owned(),
            fault,
            times,
        });
    }

    /// Forgets the faults to come.
    pub fn clear_faults(&self) {
        self.front.faults.clear();
    }
}

fn template_of(pool: &str) -> String {
    if pool == "general" {
        "nodemend-lab".to_owned()
    } else {
        format!("nodemend-lab-{pool}")
    }
}

async fn start_moto(site: &Site) -> Result<String> {
    let port = free_port()?;
    let url = format!("http://127.0.0.1:{port}");
    let recipe = Recipe::new(
        "moto",
        site.programs.get("moto_server")?,
        format!("{url}/moto-api/"),
        ["--host", "127.0.0.1", "--port", &port.to_string()],
    );
    site.start(recipe).await?;
    Ok(url)
}
