//! The same fault twice, eight of forty nodes at once: a real Karpenter's node repair
//! alone, then nodemend alone. Both timelines are from the API server's audit log.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams};
use nodemend_core::api::{NodeRepair, Phase};
use nodemend_core::model::{Reason, VerdictKind};
use nodemend_lab::{AuditEvent, Lab, NodeSpec, Options, ZONES};
use serde_json::{Value, json};

use super::audit::every_write_was_intended;
use super::lab;
use super::site::{DEADLINE, NO_RULES, Setup, Site, USER};
use super::timeline::{Timeline, What, written};

const NODES: usize = 40;
const SICK: usize = 8;
/// What nodemend's `limits` allow where its configuration says nothing.
const IN_FLIGHT: i64 = 2;
const PER_HOUR: usize = 6;
/// The lab's hands, as the API server knows them.
const HANDS: &str = "nodemend-lab";
/// How long Karpenter lets a node's storage be bad, and a second.
const TOLERATION: SignedDuration = SignedDuration::from_secs(30 * 60 + 1);

/// One pod to a node.
const WORKLOAD: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 40
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}
      containers: [{name: app, image: lab, resources: {requests: {cpu: 100m}}}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: default}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
";

/// `for` is short, as the time that Karpenter waits is made to be over.
const POLICY: &str = r#"
apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: storage}
spec:
  mode: Enforce
  nodeSelector: {}
  faults:
  - name: StorageBad
    when: {all: [{condition: {type: StorageReady, statuses: ["False"]}}]}
    for: 1s
    actions: [Replace]
  replacement: {strategy: EC2}
"#;

#[test]
fn karpenter_takes_eight_of_forty_at_once_and_nodemend_two() {
    lab(async {
        let karpenter = karpenter_alone().await.context("Karpenter alone")?;
        let nodemend = nodemend_alone().await.context("nodemend alone")?;
        println!(
            "\nat most {} nodes taken out at once by Karpenter, {} by nodemend; \
             at most {} and {} pods down, where the budget allows 1",
            karpenter.most_taken(),
            nodemend.most_taken(),
            karpenter.most_down(),
            nodemend.most_down(),
        );
        Ok(())
    });
}

async fn karpenter_alone() -> Result<Timeline> {
    let lab = Lab::start(Options {
        karpenter: true,
        ..Options::default()
    })
    .await?;
    deploy(&lab).await?;
    let nodes = Api::<Node>::all(lab.admin());
    let all = nodes.list(&ListParams::default()).await?.items;
    let pods = Api::<Pod>::default_namespaced(lab.admin());
    let pods = pods.list(&ListParams::default()).await?.items;
    let used = pods.into_iter().filter_map(|pod| pod.spec?.node_name);
    let used: BTreeSet<String> = used.collect();
    ensure!(used.len() == NODES, "pods are on {} nodes", used.len());
    let sick: Vec<String> = used.into_iter().take(SICK).collect();
    fall_sick(&lab, &sick).await?;
    lab.wait_for("Karpenter to be through", DEADLINE, || async {
        let left = nodes.list(&ListParams::default()).await?.items;
        let gone = !left.iter().any(|node| sick.contains(&node.name_any()));
        Ok(gone.then_some(()))
    })
    .await?;
    whole(&lab).await?;

    let events = lab.audit().await?;
    let deletion = |event: &&AuditEvent| event.verb == "delete" && event.resource == "nodeclaims";
    // The claim's name is its node's host name.
    let of = |event: &AuditEvent| {
        let claim = event.name.as_ref();
        let mut nodes = all.iter();
        nodes.find(|node| node.labels().get("kubernetes.io/hostname") == claim)
    };
    let zero = written(&events, HANDS, "status", &sick)?;
    let timeline = Timeline::read(&events, zero, NODES, |event| {
        let node = Some(event).filter(deletion).and_then(of);
        node.map(Node::name_any)
    })?;
    println!("{}", timeline.table("claims deleted"));
    let deleted = events.iter().filter(deletion);
    let deleted: BTreeSet<_> = deleted.filter_map(of).map(Node::name_any).collect();
    ensure!(deleted.iter().eq(&sick), "{deleted:?}, not {sick:?}");
    ensure!(timeline.count(What::Taken) == SICK);
    let last = timeline.last(What::Taken).context("no claim was deleted")?;
    ensure!(last < SignedDuration::from_secs(10), "it took {last:?}");
    ensure!(timeline.most_down() > 1, "it kept the budget after all");
    Ok(timeline)
}

async fn nodemend_alone() -> Result<Timeline> {
    let site = Site::start(&Setup {
        policy: POLICY,
        polled: NO_RULES,
        alerting: NO_RULES,
        ..Setup::default()
    })
    .await?;
    let mut specs = NodeSpec::many(NODES);
    for spec in &mut specs {
        ZONES[0].clone_into(&mut spec.zone);
    }
    site.lab.add_node_specs(specs).await?;
    deploy(&site.lab).await?;
    let sick: Vec<String> = (0..SICK).map(|index| format!("node-{index}")).collect();
    fall_sick(&site.lab, &sick).await?;
    site.wait_for("as many repairs as an hour may have", || async {
        let repairs = site.repairs().await?;
        let done = repairs.iter().filter(|one| one.phase() == Phase::Succeeded);
        let mut held = 0;
        for node in &sick {
            let status = site.health(node).await?.and_then(|health| health.status);
            held += usize::from(status.is_some_and(|status| {
                status.verdict == VerdictKind::Held && status.reasons == [Reason::RateLimit]
            }));
        }
        let (done, all) = (done.count(), repairs.len());
        ensure!(
            (done, all, held) == (PER_HOUR, PER_HOUR, SICK - PER_HOUR),
            "{done} of {all} repairs are done, {held} nodes held"
        );
        Ok(Some(()))
    })
    .await?;
    whole(&site.lab).await?;

    let events = site.lab.audit().await?;
    let zero = written(&events, HANDS, "status", &sick)?;
    let timeline = Timeline::read(&events, zero, NODES, |event| {
        let cordon = event.user == USER && event.resource == "nodes" && event.verb == "patch";
        event.name.clone().filter(|_| cordon)
    })?;
    println!("{}", timeline.table("nodes cordoned"));
    let taken = (timeline.count(What::Taken), timeline.most_taken());
    ensure!(taken == (PER_HOUR, IN_FLIGHT), "{taken:?}");
    ensure!(timeline.most_down() <= 1, "over the budget");
    ensure!(timeline.count(What::Deleted) == 0, "deleted, not evicted");
    for repair in site.repairs().await? {
        in_order(&site, &timeline, &repair).await?;
    }
    let holds = holds(&events, zero)?;
    ensure!(holds.contains("RateLimit"), "{holds}");
    println!("{holds}");
    every_write_was_intended(&site).await?;
    Ok(timeline)
}

/// The replacement was Ready before the first eviction, and the pods were evicted before
/// the instance was terminated.
async fn in_order(site: &Site, timeline: &Timeline, repair: &NodeRepair) -> Result<()> {
    let old = &repair.spec.node_name;
    let replacement = repair
        .status
        .as_ref()
        .and_then(|status| status.replacement.clone());
    let replacement = replacement.with_context(|| format!("{old} has no replacement"))?;
    let nodes = Api::<Node>::all(site.lab.admin());
    let nodes = nodes.list(&ListParams::default()).await?.items;
    let on_it = |node: &&Node| {
        let provider = node
            .spec
            .as_ref()
            .and_then(|spec| spec.provider_id.as_deref());
        provider.is_some_and(|id| id.ends_with(&replacement.instance_id))
    };
    let new = nodes
        .iter()
        .find(on_it)
        .context("the replacement is no node")?;
    let joined = timeline.when(What::Joined, &new.name_any())?;
    let terminations = site.lab.ec2().calls_of("TerminateInstances");
    let mut terminations = terminations.iter().filter(|call| {
        call.params
            .values()
            .any(|value| *value == repair.spec.plan.instance_id)
    });
    let call = terminations.next().context("no call to terminate it")?;
    let terminated: Timestamp = call.time.parse()?;
    let pods: Vec<&String> = timeline
        .nodes
        .iter()
        .filter(|(_, node)| *node == old)
        .map(|(pod, _)| pod)
        .collect();
    ensure!(!pods.is_empty(), "{old} had no pod");
    for pod in pods {
        let evicted = timeline.when(What::Evicted, pod)?;
        ensure!(
            joined < evicted && evicted < terminated,
            "{old}: replacement Ready at {joined}, {pod} evicted at {evicted}, terminated at {terminated}"
        );
    }
    Ok(())
}

/// No record ever said that a node is held, and not why. For each reason how many nodes
/// were held by it, and since when.
fn holds(events: &[AuditEvent], zero: Timestamp) -> Result<String> {
    let mut holds: BTreeMap<String, (SignedDuration, BTreeSet<String>)> = BTreeMap::new();
    for event in events
        .iter()
        .filter(|event| event.resource == "nodehealths")
    {
        let health = event.request.as_ref().unwrap_or(&Value::Null);
        if health["status"]["verdict"] != "Held" {
            continue;
        }
        let node = health["spec"]["nodeName"].as_str().context("no node")?;
        let reasons: Vec<Reason> = serde_json::from_value(health["status"]["reasons"].clone())?;
        ensure!(!reasons.is_empty(), "{node} was held without a reason");
        let at: Timestamp = event.answered.parse()?;
        let (_, nodes) = holds
            .entry(format!("{reasons:?}"))
            .or_insert((at.duration_since(zero), BTreeSet::new()));
        nodes.insert(node.to_owned());
    }
    let lines = holds.iter().map(|(reasons, (since, nodes))| {
        format!(
            "held by {reasons}: {} nodes, the first at {:.1} s\n",
            nodes.len(),
            since.as_secs_f64()
        )
    });
    Ok(lines.collect())
}

async fn deploy(lab: &Lab) -> Result<()> {
    lab.apply(WORKLOAD).await?;
    whole(lab).await
}

/// Waits until all pods are there and one of them may be disrupted.
async fn whole(lab: &Lab) -> Result<()> {
    let deployments = Api::<Deployment>::default_namespaced(lab.admin());
    let budgets = Api::<PodDisruptionBudget>::default_namespaced(lab.admin());
    lab.wait_for("all pods to be available", DEADLINE, || async {
        let deployment = deployments.get("web").await?;
        let available = deployment
            .status
            .and_then(|status| status.available_replicas);
        let budget = budgets.get("web").await?.status.unwrap_or_default();
        ensure!(available == Some(40), "{available:?}");
        Ok((budget.disruptions_allowed == Some(1)).then_some(()))
    })
    .await
}

/// The storage of these nodes fails, all at once; Karpenter goes by the time that the
/// condition tells, nodemend by its own clock.
async fn fall_sick(lab: &Lab, nodes: &[String]) -> Result<()> {
    let api = Api::<Node>::all(lab.admin());
    let (params, since) = (PatchParams::default(), ago(TOLERATION));
    let condition = json!({
        "type": "StorageReady", "status": "False", "reason": "IOErrors", "message": "set by a test",
        "lastHeartbeatTime": since, "lastTransitionTime": since,
    });
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    try_join_all(
        nodes
            .iter()
            .map(|node| api.patch_status(node, &params, &patch)),
    )
    .await?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "Karpenter lives by this clock")]
fn ago(time: SignedDuration) -> Timestamp {
    Timestamp::now() - time
}
