//! Karpenter with its kwok provider: real node pools and claims, fake machines, of which
//! the lab's kwok is the kubelet.

use anyhow::{Context, Result};
use kube::Client;

use crate::apply::apply;
use crate::ports::free_port;
use crate::process::Recipe;
use crate::site::{Site, on_free_ports};

/// Who it is to the API server, and the name of its kubeconfig.
pub const USER: &str = "karpenter";

/// One pool in one zone, which shrinks by nothing but node repair.
const POOL: &str = r"
apiVersion: karpenter.kwok.sh/v1alpha1
kind: KWOKNodeClass
metadata: {name: lab}
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: lab}
spec:
  template:
    spec:
      nodeClassRef: {group: karpenter.kwok.sh, kind: KWOKNodeClass, name: lab}
      requirements:
      - {key: topology.kubernetes.io/zone, operator: In, values: [test-zone-a]}
      - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
      - {key: kubernetes.io/arch, operator: In, values: [amd64]}
      - {key: kubernetes.io/os, operator: In, values: [linux]}
      expireAfter: Never
  disruption: {consolidationPolicy: WhenEmpty, consolidateAfter: Never}
";

/// Starts it with node repair on, and gives it a pool to grow.
pub async fn start(site: &Site, admin: &Client) -> Result<()> {
    let crds = site
        .programs
        .get("karpenter")?
        .ancestors()
        .nth(2)
        .context("a program that is in no directory")?
        .join("crds.yaml");
    let crds =
        std::fs::read_to_string(&crds).with_context(|| format!("reading {}", crds.display()))?;
    apply(admin, &crds).await?;
    on_free_ports(|| run(site)).await?;
    apply(admin, POOL).await
}

async fn run(site: &Site) -> Result<()> {
    let (health, metrics) = (free_port()?, free_port()?);
    let mut recipe = Recipe::new::<String>(
        "karpenter",
        site.programs.get("karpenter")?,
        format!("http://127.0.0.1:{health}/readyz"),
        [],
    );
    let kubeconfig = site.path(&format!("config/{USER}.kubeconfig"));
    recipe.env = [
        ("KUBECONFIG", kubeconfig.as_str()),
        ("SYSTEM_NAMESPACE", "kube-system"),
        ("DISABLE_LEADER_ELECTION", "true"),
        ("FEATURE_GATES", "NodeRepair=true"),
        // Both on all interfaces: it has no way to say otherwise.
        ("HEALTH_PROBE_PORT", &health.to_string()),
        ("METRICS_PORT", &metrics.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    site.start(recipe).await
}
