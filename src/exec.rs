//! Performs what the core says, one repair at a time: observe, ask the machine,
//! write the intent, act, write the outcome. Owns the traits that adapters and
//! the simulator implement; awaits nothing else.

use std::collections::BTreeMap;

use jiff::Timestamp;
use nodemend_core::api::{
    Action, GaveUp, LaunchPlan, LaunchTemplate, NodeRepair, Outcome, Plan, Step,
};
use nodemend_core::config::Confirm;
use nodemend_core::evidence::probe::Reading;
use nodemend_core::model::{
    InstanceState, InstanceView, NodeView, PodView, QUARANTINE_ANNOTATION, Reason, Span,
};
use nodemend_core::repair::{self, Change, Command, Effect, Next, Observed};

/// Why a call had no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The object changed, or is another one than expected.
    #[error("conflict: {0}")]
    Conflict(String),
    /// Refused now, allowed later: a disruption budget, a rate limit.
    #[error("not now: {0}")]
    NotNow(String),
    /// Refused for good.
    #[error("refused: {0}")]
    Refused(String),
    /// No answer, or one that says nothing of the effect.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

/// A cordon or its undoing, tested against the node as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePatch {
    /// The node's name.
    pub name: String,
    /// The UID that must match.
    pub uid: String,
    /// The resourceVersion that must match.
    pub resource_version: String,
    /// The value of `spec.unschedulable`.
    pub unschedulable: bool,
    /// The quarantine annotation; none takes it off.
    pub quarantined_by: Option<String>,
    /// Shows in the audit log.
    pub field_manager: String,
}

/// The Kubernetes API, as far as repairs need it. Every call has a deadline of its own.
#[allow(
    async_fn_in_trait,
    reason = "used with one concrete type per program; no Send bound is wanted"
)]
pub trait Cluster {
    /// A live read; none if there is no such node.
    async fn node(&self, name: &str) -> Result<Option<NodeView>, CallError>;
    /// A live read of when the node's kubelet last renewed its Lease; none if it has none.
    async fn renewed(&self, node: &str) -> Result<Option<Timestamp>, CallError>;
    /// A consistent list.
    async fn nodes(&self) -> Result<Vec<NodeView>, CallError>;
    /// A JSON Patch with tests on UID and resourceVersion.
    async fn patch_node(&self, patch: &NodePatch) -> Result<(), CallError>;
    /// A consistent list of the pods bound to a node.
    async fn pods(&self, node: &str) -> Result<Vec<PodView>, CallError>;
    /// Evicts a pod of this UID with at most this grace in seconds. A pod that is gone is evicted.
    async fn evict(
        &self,
        pod: &PodView,
        grace_seconds: Option<i64>,
        field_manager: &str,
    ) -> Result<(), CallError>;
    /// Writes a repair's status by PUT with its resourceVersion; gives back what is stored.
    async fn put_repair(&self, repair: &NodeRepair) -> Result<NodeRepair, CallError>;
    /// Takes the finalizer off a terminal repair.
    async fn finish_repair(&self, repair: &NodeRepair) -> Result<(), CallError>;
}

/// EC2, as far as repairs need it.
#[allow(
    async_fn_in_trait,
    reason = "used with one concrete type per program; no Send bound is wanted"
)]
pub trait Cloud {
    /// The instance; none if EC2 does not know it.
    async fn instance(&self, id: &str) -> Result<Option<InstanceView>, CallError>;
    /// The instance that this client token made, if any.
    async fn by_token(&self, token: &str) -> Result<Option<InstanceView>, CallError>;
    /// Launches under the token; the same token and parameters give the same instance.
    async fn launch(&self, token: &str, plan: &LaunchPlan) -> Result<String, CallError>;
    /// Restarts one instance. Asked twice, it may restart twice.
    async fn reboot(&self, id: &str) -> Result<(), CallError>;
    /// Ends one instance.
    async fn terminate(&self, id: &str) -> Result<(), CallError>;
}

/// The time, and whether there is enough of it left.
pub trait Clock {
    /// The time. Never goes back, and never jumps with the wall's clock.
    fn now(&self) -> Timestamp;
    /// Whether something new may still begin: a pass acts on what it saw at its start,
    /// which must not be old, and a service that stops begins nothing.
    fn may_begin(&self) -> bool;
}

/// The exporters on the nodes, as far as second opinions need them.
#[allow(
    async_fn_in_trait,
    reason = "used with one concrete type per program; no Send bound is wanted"
)]
pub trait Probes {
    /// Reads the metric from the node's own exporter, within a deadline of its own.
    async fn probe(&self, node: &NodeView, confirm: &Confirm) -> Reading;
}

/// What the controller knows beside the journal.
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, none excludes another"
)]
pub struct Context<'a, T> {
    /// The time.
    pub clock: &'a T,
    /// The leader's epoch.
    pub epoch: u64,
    /// All nodes of the last list.
    pub nodes: &'a BTreeMap<String, NodeView>,
    /// Whether the fault is true.
    pub fault: nodemend_core::model::Truth,
    /// Whether it was false long enough.
    pub recovered: bool,
    /// Whether to give up.
    pub abort: bool,
    /// Whether the policy or its fault is gone.
    pub orphaned: bool,
    /// Whether a further repair of the node is open.
    pub superseded: bool,
    /// Whether `nodes` is whole and young.
    pub current: bool,
    /// Why nothing disruptive may begin.
    pub paused: Option<Reason>,
}

/// How many steps one pass takes at most; a repair has fewer.
const STEPS_PER_PASS: usize = 64;

/// Takes a repair as far as it goes now. Gives back the time to look again.
pub async fn advance<C: Cluster, K: Cloud, T: Clock>(
    cluster: &C,
    cloud: &K,
    repair: &mut NodeRepair,
    context: &Context<'_, T>,
) -> Result<Option<Timestamp>, CallError> {
    let mut untried = false;
    for _ in 0..STEPS_PER_PASS {
        let now = context.clock.now();
        if let Some(until) = repair::retry_at(repair).filter(|until| *until > now) {
            return Ok(Some(until));
        }
        let observed = match observe(cluster, cloud, repair, context).await {
            Ok(observed) => Observed {
                untried,
                ..observed
            },
            // What an open step cannot see is a failure of that step: on record, with backoff.
            Err(error) if repair::open_entry(repair).is_some() => {
                let change = Change::Fail(error.to_string());
                write(cluster, repair, change, context).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let change = match repair::next(repair, &observed, now) {
            Next::Finished => {
                if repair
                    .metadata
                    .finalizers
                    .as_ref()
                    .is_some_and(|finalizers| !finalizers.is_empty())
                {
                    cluster.finish_repair(repair).await?;
                    repair.metadata.finalizers = None;
                }
                return Ok(None);
            }
            Next::Wait(until, message) => {
                if let Some(note) = repair::note(repair, message) {
                    write(cluster, repair, note, context).await?;
                }
                return Ok(Some(until));
            }
            Next::Write(change) => change,
            Next::Act(_) if !context.clock.may_begin() => return Ok(Some(now)),
            Next::Act(command) => {
                let conclude = |done, detail| {
                    let at = context.clock.now();
                    Change::Conclude(Outcome { at, done, detail })
                };
                match perform(cluster, cloud, context.clock, repair, &observed, &command).await {
                    Effect::Done(detail) => conclude(true, detail),
                    Effect::Nothing(detail) => conclude(false, detail),
                    Effect::Progress(message) => {
                        if let Some(note) = repair::note(repair, message) {
                            write(cluster, repair, note, context).await?;
                        }
                        return Ok(Some(Span::seconds(5).after(context.clock.now())));
                    }
                    Effect::Failed(message) => Change::Fail(message),
                    Effect::Refused(reason, message) => Change::GiveUp(reason, message),
                }
            }
        };
        untried = matches!(change, Change::IntendReboot(..));
        write(cluster, repair, change, context).await?;
    }
    Ok(Some(context.clock.now()))
}

async fn write<C: Cluster, T: Clock>(
    cluster: &C,
    repair: &mut NodeRepair,
    change: Change,
    context: &Context<'_, T>,
) -> Result<(), CallError> {
    let mut next = repair.clone();
    repair::apply(&mut next, change, context.epoch, context.clock.now());
    *repair = cluster.put_repair(&next).await?;
    Ok(())
}

async fn observe<C: Cluster, K: Cloud, T>(
    cluster: &C,
    cloud: &K,
    repair: &NodeRepair,
    context: &Context<'_, T>,
) -> Result<Observed, CallError> {
    let live = cluster.node(&repair.spec.node_name).await?;
    let other = |node: &NodeView| {
        node.uid != repair.spec.node_uid && node.provider_id == repair.spec.provider_id
    };
    let reborn = live.as_ref().is_some_and(other) || context.nodes.values().any(other);
    let node = live.filter(|node| node.uid == repair.spec.node_uid);
    let mut observed = Observed {
        node,
        old: None,
        launched: None,
        replacement: None,
        fault: context.fault,
        recovered: context.recovered,
        abort: context.abort,
        orphaned: context.orphaned,
        reborn,
        superseded: context.superseded,
        untried: false,
        current: context.current,
        paused: context.paused,
    };
    let open = repair::open_entry(repair).map(|entry| entry.intent.step);
    if matches!(open, Some(Step::Drain | Step::Reboot | Step::Terminate)) {
        observed.old = cloud.instance(&repair.spec.plan.instance_id).await?;
    }
    if let Some(replacement) = repair
        .status
        .as_ref()
        .and_then(|status| status.replacement.as_ref())
        .filter(|_| repair.open())
    {
        observed.launched = cloud.instance(&replacement.instance_id).await?;
        let joined = context
            .nodes
            .values()
            .find(|node| node.instance_id() == Some(&replacement.instance_id));
        if let Some(node) = joined {
            observed.replacement = cluster
                .node(&node.name)
                .await?
                .filter(|live| live.uid == node.uid);
        }
    }
    Ok(observed)
}

async fn perform<C: Cluster, K: Cloud, T: Clock>(
    cluster: &C,
    cloud: &K,
    clock: &T,
    repair: &NodeRepair,
    observed: &Observed,
    command: &Command,
) -> Effect {
    match command {
        Command::Cordon => cordon(cluster, repair, observed).await,
        Command::Uncordon => uncordon(cluster, repair, observed).await,
        Command::Launch(token, plan) => launch(cloud, repair, token, plan).await,
        Command::Settle(token) => match cloud.by_token(token).await {
            Ok(Some(instance)) => Effect::Done(instance.id),
            Ok(None) => Effect::Nothing("nothing was launched".into()),
            Err(error) => failed(&error),
        },
        Command::Drain => drain(cluster, clock, repair, observed).await,
        Command::Reboot(id) => reboot(cloud, repair, observed, id).await,
        Command::Terminate(id) => terminate(cloud, repair, observed, id).await,
    }
}

fn failed(error: &CallError) -> Effect {
    Effect::Failed(error.to_string())
}

/// The node's identity is compared with the journal, live, before it is touched.
fn same_node<'a>(repair: &NodeRepair, observed: &'a Observed) -> Result<&'a NodeView, Effect> {
    match &observed.node {
        Some(node) if node.provider_id == repair.spec.provider_id => Ok(node),
        Some(_) => Err(Effect::Refused(
            GaveUp::NodeReborn,
            "the node's providerID changed".into(),
        )),
        None => Err(Effect::Refused(GaveUp::NodeGone, "the node is gone".into())),
    }
}

async fn cordon<C: Cluster>(cluster: &C, repair: &NodeRepair, observed: &Observed) -> Effect {
    let node = match same_node(repair, observed) {
        Ok(node) => node,
        Err(effect) => return effect,
    };
    let name = repair.name();
    let found = match node
        .annotations
        .get(QUARANTINE_ANNOTATION)
        .and_then(|value| value.split_once('='))
    {
        // An earlier try of ours landed, or an earlier repair left it on: keep what was found.
        Some((_, found)) => found.to_owned(),
        None => node.unschedulable.to_string(),
    };
    let patch = NodePatch {
        name: node.name.clone(),
        uid: node.uid.clone(),
        resource_version: node.resource_version.clone(),
        unschedulable: true,
        quarantined_by: Some(format!("{name}={found}")),
        field_manager: repair::field_manager(repair, Step::Quarantine),
    };
    if node.unschedulable
        && node.annotations.get(QUARANTINE_ANNOTATION) == patch.quarantined_by.as_ref()
    {
        return Effect::Done(outcome_of(&found));
    }
    match cluster.patch_node(&patch).await {
        Ok(()) => Effect::Done(outcome_of(&found)),
        Err(error) => failed(&error),
    }
}

fn outcome_of(found: &str) -> String {
    if found == "true" {
        repair::WAS_UNSCHEDULABLE.into()
    } else {
        String::new()
    }
}

async fn uncordon<C: Cluster>(cluster: &C, repair: &NodeRepair, observed: &Observed) -> Effect {
    let Ok(node) = same_node(repair, observed) else {
        return Effect::Done("the node is gone".into());
    };
    let name = repair.name();
    let Some((owner, found)) = node
        .annotations
        .get(QUARANTINE_ANNOTATION)
        .and_then(|value| value.split_once('='))
    else {
        return Effect::Done("nothing of ours is on it".into());
    };
    if owner != name {
        return Effect::Done(format!("quarantined by {owner}"));
    }
    let patch = NodePatch {
        name: node.name.clone(),
        uid: node.uid.clone(),
        resource_version: node.resource_version.clone(),
        unschedulable: found == "true",
        quarantined_by: None,
        field_manager: repair::field_manager(repair, Step::Release),
    };
    match cluster.patch_node(&patch).await {
        Ok(()) => Effect::Done(String::new()),
        Err(error) => failed(&error),
    }
}

/// How often a launch that EC2 refuses is tried before a person is asked; with the
/// backoff this takes four minutes, which outlives a fresh grant on its way through IAM.
const REFUSALS: u32 = 7;

/// Looks the token up first: what an earlier, unanswered try made is ours.
async fn launch<K: Cloud>(
    cloud: &K,
    repair: &NodeRepair,
    token: &str,
    plan: &LaunchPlan,
) -> Effect {
    let tried = repair.last(Step::Launch).map_or(0, |entry| entry.failures);

    match cloud.by_token(token).await {
        Ok(Some(instance)) => return Effect::Done(instance.id),
        Ok(None) => {}
        Err(error) => return failed(&error),
    }
    match cloud.launch(token, plan).await {
        Ok(id) => Effect::Done(id),
        Err(CallError::Refused(message)) if tried >= REFUSALS => {
            Effect::Refused(GaveUp::Refused, message)
        }
        Err(error) => failed(&error),
    }
}

/// One request. Without an answer to it, only the bootID tells.
async fn reboot<K: Cloud>(cloud: &K, repair: &NodeRepair, observed: &Observed, id: &str) -> Effect {
    if let Err(effect) = same_node(repair, observed) {
        return effect;
    }
    let Some(instance) = &observed.old else {
        return Effect::Nothing("EC2 does not know the instance".into());
    };
    if let Err(effect) = ours(repair, instance) {
        return effect;
    }
    if instance.state != InstanceState::Running {
        return Effect::Nothing(format!("the instance is {:?}", instance.state));
    }
    match cloud.reboot(id).await {
        Ok(()) => Effect::Done(String::new()),
        Err(CallError::Refused(message)) => Effect::Refused(GaveUp::Refused, message),
        Err(CallError::NotNow(message) | CallError::Conflict(message)) => Effect::Nothing(message),
        Err(error @ CallError::NoAnswer(_)) => failed(&error),
    }
}

async fn terminate<K: Cloud>(
    cloud: &K,
    repair: &NodeRepair,
    observed: &Observed,
    id: &str,
) -> Effect {
    let seen = observed
        .old
        .iter()
        .chain(&observed.launched)
        .find(|instance| instance.id == id);
    let Some(instance) = seen else {
        return Effect::Progress("not seen".into());
    };
    if let Err(effect) = ours(repair, instance) {
        return effect;
    }
    match cloud.terminate(id).await {
        // Only an observed `terminated` settles it.
        Ok(()) => Effect::Progress("ending".into()),
        Err(CallError::Refused(message)) => Effect::Refused(GaveUp::Refused, message),
        Err(error) => failed(&error),
    }
}

/// The cluster's tag is read live before anything on the instance is disturbed.
fn ours(repair: &NodeRepair, instance: &InstanceView) -> Result<(), Effect> {
    let tag = &repair.spec.plan.cluster_tag;
    if instance.tags.get(tag).map(String::as_str) == Some("owned") {
        return Ok(());
    }
    Err(Effect::Refused(
        GaveUp::NotOurInstance,
        format!("{} is not tagged {tag}=owned", instance.id),
    ))
}

/// How long after its grace period a pod must be gone, if its kubelet lives.
const DEAD_AFTER: Span = Span::minutes(1);

/// One pass over the pods: evicts what may go, and is done when nothing is left that must.
async fn drain<C: Cluster, T: Clock>(
    cluster: &C,
    clock: &T,
    repair: &NodeRepair,
    observed: &Observed,
) -> Effect {
    let node = match same_node(repair, observed) {
        Ok(node) => node,
        Err(effect) => return effect,
    };
    let Some(instance) = &observed.old else {
        return Effect::Progress("EC2 does not know the old instance".into());
    };
    if let Err(effect) = ours(repair, instance) {
        return effect;
    }
    let pods = match cluster.pods(&repair.spec.node_name).await {
        Ok(pods) => pods,
        Err(error) => return failed(&error),
    };
    let leave = |pod: &&PodView| {
        !(pod.mirror
            || pod.finished
            || pod.owner_kind == "DaemonSet"
            || pod.tolerates_unschedulable)
    };
    let pods: Vec<&PodView> = pods.iter().filter(leave).collect();
    if let Some(pod) = pods
        .iter()
        .find(|pod| pod.owner_kind.is_empty() || pod.local_data)
    {
        return Effect::Refused(
            GaveUp::LocalData,
            format!(
                "pod {}/{} has no owner or keeps data on the node",
                pod.namespace, pod.name
            ),
        );
    }
    // A dead kubelet ends no pod. What it should have ended a minute ago ends with its machine.
    let (left, pods): (Vec<&PodView>, Vec<&PodView>) = pods.into_iter().partition(|pod| {
        let over = |due: Timestamp| DEAD_AFTER.after(due) <= clock.now();
        !node.ready() && pod.gone_by.is_some_and(over)
    });
    if pods.is_empty() {
        return Effect::Done(match left.len() {
            0 => String::new(),
            count => format!("{count} pods are left to a kubelet that does not answer"),
        });
    }
    let mut blocked = Vec::new();
    for pod in pods.iter().filter(|pod| pod.gone_by.is_none()) {
        if !clock.may_begin() {
            break;
        }
        if pod.do_not_disrupt {
            blocked.push(format!(
                "{}/{} asks not to be disrupted",
                pod.namespace, pod.name
            ));
            continue;
        }
        let grace = repair
            .spec
            .plan
            .max_pod_grace_period
            .map(|max| pod.grace_seconds.min(max.as_seconds()).max(1));
        match cluster
            .evict(pod, grace, &repair::field_manager(repair, Step::Drain))
            .await
        {
            // A UID conflict means that this very pod is gone.
            Ok(()) | Err(CallError::Conflict(_)) => {}
            Err(CallError::NotNow(message)) => {
                blocked.push(format!("{}/{}: {message}", pod.namespace, pod.name));
            }
            Err(error) => return failed(&error),
        }
    }
    if blocked.is_empty() {
        return Effect::Progress("pods that were evicted have not ended yet".into());
    }
    Effect::Progress(blocked.join("; "))
}

/// Tags of instances that something else replaces when they end: then one more of ours
/// would be one too many.
const OWNERS: [&str; 5] = [
    "aws:autoscaling:groupName",
    "eks:nodegroup-name",
    "karpenter.sh/nodeclaim",
    "karpenter.sh/nodepool",
    "sigs.k8s.io/cluster-api-provider-aws/role",
];

/// What will be done about a fault, or why nothing can be.
pub async fn plan<K: Cloud>(
    cloud: &K,
    node: &NodeView,
    policy: &nodemend_core::config::Policy,
    (action, then): (Action, Option<Action>),
    cluster_tag: &str,
) -> Result<Plan, Reason> {
    let mut plan = Plan {
        action,
        then,
        strategy: policy.strategy,
        instance_id: node.instance_id().unwrap_or_default().to_owned(),
        cluster_tag: cluster_tag.to_owned(),
        launch: None,
        ready_timeout: policy.ready_timeout,
        max_attempts: policy.max_attempts,
        drain_timeout: policy.drain_timeout,
        max_pod_grace_period: policy.max_pod_grace_period,
    };
    // Nothing but the node object is touched.
    if action == Action::Cordon {
        return Ok(plan);
    }
    policy.strategy.ok_or(Reason::NoOwner)?;
    let id = node.instance_id().ok_or(Reason::NoOwner)?;
    let instance = cloud
        .instance(id)
        .await
        .map_err(|_| Reason::CloudUnavailable)?
        .ok_or(Reason::NoOwner)?;
    if instance.tags.get(cluster_tag).map(String::as_str) != Some("owned")
        || instance.state == InstanceState::Other
    {
        return Err(Reason::NotOurInstance);
    }
    if action == Action::Replace {
        plan.launch = Some(launch_plan(&instance, policy, cluster_tag)?);
    }
    Ok(plan)
}

fn launch_plan(
    instance: &InstanceView,
    policy: &nodemend_core::config::Policy,
    cluster_tag: &str,
) -> Result<LaunchPlan, Reason> {
    if OWNERS.iter().any(|tag| instance.tags.contains_key(*tag)) {
        return Err(Reason::OwnedByOther);
    }
    let tag = |name: &str| instance.tags.get(name).cloned();
    let from_tags = || {
        Some(LaunchTemplate {
            id: tag("aws:ec2launchtemplate:id")?,
            version: tag("aws:ec2launchtemplate:version")?,
        })
    };
    let template = policy
        .launch_template
        .clone()
        .or_else(from_tags)
        .ok_or(Reason::NoOwner)?;
    Ok(LaunchPlan {
        template,
        subnet: instance.subnet.clone(),
        instance_type: instance.instance_type.clone(),
        cluster_tag: cluster_tag.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    /// Knows one instance.
    struct One(InstanceView);

    impl Cloud for One {
        async fn instance(&self, _: &str) -> Result<Option<InstanceView>, CallError> {
            Ok(Some(self.0.clone()))
        }
        async fn by_token(&self, _: &str) -> Result<Option<InstanceView>, CallError> {
            Ok(None)
        }
        async fn launch(&self, _: &str, _: &LaunchPlan) -> Result<String, CallError> {
            Err(CallError::NoAnswer(String::new()))
        }
        async fn reboot(&self, _: &str) -> Result<(), CallError> {
            Err(CallError::NoAnswer(String::new()))
        }
        async fn terminate(&self, _: &str) -> Result<(), CallError> {
            Err(CallError::NoAnswer(String::new()))
        }
    }

    fn planned(action: Action, tags: &[(&str, &str)]) -> Result<Option<String>, Reason> {
        let policies = nodemend_core::config::policies(&[nodemend_core::config::Document {
            file: "general.yaml",
            text: include_str!("../rules/policies/general.yaml"),
        }]);
        let instance = InstanceView {
            id: "i-1".into(),
            state: InstanceState::Running,
            tags: tags
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            subnet: "s".into(),
            instance_type: "t".into(),
        };
        let node = NodeView {
            provider_id: "aws:///z/i-1".into(),
            ..NodeView::default()
        };
        let policy = &policies.unwrap()[0];
        plan(&One(instance), &node, policy, (action, None), "c")
            .now_or_never()
            .unwrap()
            .map(|plan| Some(plan.launch?.template.id))
    }

    const OURS: [(&str, &str); 3] = [
        ("c", "owned"),
        ("aws:ec2launchtemplate:id", "lt"),
        ("aws:ec2launchtemplate:version", "1"),
    ];

    #[test]
    fn h44_an_instance_that_something_else_replaces_may_be_restarted_and_no_more() {
        assert_eq!(planned(Action::Replace, &OURS), Ok(Some("lt".into())));
        for owner in OWNERS {
            let tags = [&OURS[..], &[(owner, "x")]].concat();
            let replaced = planned(Action::Replace, &tags);
            assert_eq!(replaced, Err(Reason::OwnedByOther), "{owner}");
            assert_eq!(planned(Action::Reboot, &tags), Ok(None), "{owner}");
        }
    }

    #[test]
    fn an_instance_of_no_or_another_cluster_is_refused() {
        let shared = [&[("c", "shared")], &OURS[1..]].concat();
        for action in [Action::Replace, Action::Reboot] {
            assert_eq!(planned(action, &OURS[1..]), Err(Reason::NotOurInstance));
            assert_eq!(planned(action, &shared), Err(Reason::NotOurInstance));
        }
        assert_eq!(planned(Action::Replace, &OURS[..2]), Err(Reason::NoOwner));
        // What is not launched needs no template, and a cordon no instance.
        assert_eq!(planned(Action::Reboot, &OURS[..2]), Ok(None));
        assert_eq!(planned(Action::Cordon, &[]), Ok(None));
    }
}
