//! What nodemend writes: the alerts it must remember, what it knows of nodes,
//! its reservations, and the journal of each repair.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Approval, Decision, LaunchTemplate, RepairRequest, StatusCondition, Strategy};
use crate::model::{Reason, SignalState, Span, VerdictKind};

/// The finalizer of an open repair.
pub const FINALIZER: &str = "nodemend.dev/repair";

/// How many starts `FleetState` remembers; where there are so many, nothing starts until the
/// oldest counts no longer.
pub const MAX_STARTS: usize = 1000;

/// What must be remembered of the alerts of one sender, receiver and group.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[kube(
    group = "nodemend.dev",
    version = "v1alpha1",
    kind = "AlertGroup",
    shortname = "agrp",
    category = "nodemend",
    derive = "PartialEq",
    printcolumn(name = "Receiver", type_ = "string", json_path = ".spec.receiver"),
    printcolumn(name = "Group", type_ = "string", json_path = ".spec.groupKey"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct AlertGroupSpec {
    /// Who sent it: the authenticated identity.
    pub sender: String,
    /// Alertmanager's receiver.
    pub receiver: String,
    /// Alertmanager's group key.
    pub group_key: String,
    /// Which part of the group this is, by a digest of the fingerprint.
    #[serde(default)]
    #[schemars(range(max = 15))]
    pub bucket: u8,
    /// When a delivery last said that it left alerts out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated_at: Option<Timestamp>,
    /// By fingerprint. Atomic: else the API server would keep who wrote each field of each alert,
    /// which is more than the alerts.
    #[schemars(length(max = 10_000), extend("x-kubernetes-map-type" = "atomic"))]
    pub alerts: BTreeMap<String, StoredAlert>,
}

/// One alert, merged by maxima: any order of deliveries gives the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredAlert {
    /// The alert's name.
    pub name: String,
    /// The labels that can say which node it is about.
    pub labels: BTreeMap<String, String>,
    /// The severity label, empty where there is none.
    #[serde(default)]
    pub severity: String,
    /// The largest start seen.
    pub starts_at: Timestamp,
    /// When it was last received firing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_firing: Option<Timestamp>,
    /// When it was last received resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_resolved: Option<Timestamp>,
    /// The largest end received with a resolve, never after it was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// When the largest end was first received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_received: Option<Timestamp>,
}

/// What nodemend knows of a node that is not plainly healthy.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "nodemend.dev",
    version = "v1alpha1",
    kind = "NodeHealth",
    plural = "nodehealths",
    shortname = "nh",
    category = "nodemend",
    status = "NodeHealthStatus",
    derive = "PartialEq",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.verdict"),
    printcolumn(name = "Fault", type_ = "string", json_path = ".status.fault"),
    printcolumn(name = "Reasons", type_ = "string", json_path = ".status.reasons"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.since"),
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"), validation = Rule::new("self == oldSelf").message("spec is immutable"))]
pub struct NodeHealthSpec {
    /// The node's name.
    pub node_name: String,
    /// The node's UID: a reborn node is another.
    pub node_uid: String,
}

/// The verdict on a node and what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeHealthStatus {
    /// The verdict.
    pub verdict: VerdictKind,
    /// The fault that leads, empty where there is none.
    #[serde(default)]
    pub fault: String,
    /// The policy it is from.
    #[serde(default)]
    pub policy: String,
    /// Why nothing is done.
    #[serde(default)]
    pub reasons: Vec<Reason>,
    /// What those reasons are counted over; their numbers are in `FleetState`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub scopes: Vec<String>,
    /// Since when this verdict stands.
    pub since: Timestamp,
    /// What each signal says, with our own since.
    #[serde(default)]
    pub signals: Vec<SignalRecord>,
    /// Since when each fault is true.
    #[serde(default)]
    pub faults: Vec<FaultRecord>,
    /// The silences that hold the fault, ten at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub silences: Vec<SilenceRecord>,
    /// Since when the node is sick as breakers count, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sick_since: Option<Timestamp>,
    /// When the node last fell sick, be it well again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fell_sick: Option<Timestamp>,
    /// The node's zone; empty where its labels do not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// The node's pool; empty where its labels do not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pool: String,
    /// When the node was first missing, sick as it was; the record stays for the cooldown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Timestamp>,
    /// The trace of the decision.
    #[serde(default)]
    pub trace_id: String,
    /// What a policy that only observes would have acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Episode>,
    /// The last changes of the verdict with what each rests on, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub decisions: Vec<Decision>,
}

/// A fault that a policy in mode Observe would have acted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Episode {
    /// The policy.
    pub policy: String,
    /// The fault.
    pub fault: String,
    /// When it would have been acted on.
    pub due: Timestamp,
    /// Whether the fleet's score has what became of it.
    #[serde(default)]
    pub counted: bool,
}

/// A silence of Alertmanager as `NodeHealth` keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SilenceRecord {
    /// Its id.
    pub id: String,
    /// Who made it, as they said.
    pub created_by: String,
    /// When it ends by itself.
    pub ends_at: Timestamp,
}

/// A signal as `NodeHealth` keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignalRecord {
    /// The signal's name; conditions are written `condition/TYPE`, and fire while one that a
    /// policy names holds.
    pub name: String,
    /// What it says.
    pub state: SignalState,
    /// Since when it fires, by our own clock; there also before its rule's `for` is over
    /// and for a while after it cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When its series was last there, if it fires on without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_firing: Option<Timestamp>,
    /// Since when that clock stands still, because the state is not known; of a rule without
    /// one, since when there is no data of the node, if there was some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Timestamp>,
}

/// A fault's clock as `NodeHealth` keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultRecord {
    /// The policy.
    pub policy: String,
    /// The fault.
    pub fault: String,
    /// Since when it is true, by our own clock.
    pub since: Timestamp,
    /// Since when that clock stands still, because the truth is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Timestamp>,
    /// Since when it is false, if it is: its clock is forgotten once that is so for two minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clearing_since: Option<Timestamp>,
}

/// The leader's one object: epoch, reservations, sources.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[kube(
    group = "nodemend.dev",
    version = "v1alpha1",
    kind = "FleetState",
    plural = "fleetstates",
    shortname = "fleet",
    category = "nodemend",
    derive = "PartialEq",
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".spec.epoch"),
    printcolumn(
        name = "Down",
        type_ = "string",
        json_path = ".spec.sourcesDown[*].source"
    ),
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
pub struct FleetStateSpec {
    /// Raised by each new leader before it acts.
    pub epoch: u64,
    /// Admissions whose `NodeRepair` is not yet known to exist.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub reservations: Vec<Reservation>,
    /// Repairs that started lately, whatever became of their objects: a rate is not freed by
    /// deleting the record of it.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub starts: Vec<Reservation>,
    /// Sources that do not answer.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub sources_down: Vec<SourceDown>,
    /// When Prometheus had nothing to say last, or up to five minutes later: an alert that
    /// ended soon after may have ended for that alone. None if that is long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dark: Option<Timestamp>,
    /// The numbers of each guard that holds a node now, and of each breaker that is not
    /// closed.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub guards: Vec<GuardRecord>,
    /// Rules that fire on most of their nodes, or did a while ago.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub suspended: Vec<String>,
    /// The UIDs of young nodes that were Ready: they do not start any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub joined: Vec<String>,
    /// What became of the faults that policies in mode Observe would have acted on, by
    /// policy and fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub score: Vec<Score>,
    /// What of that is not yet marked as counted in its node's record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub scored: Vec<String>,
    /// What policies in mode Observe would have started: it counts against what they would
    /// start next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub observed: Vec<ObservedStart>,
}

/// A repair that would have started if its policy did more than observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObservedStart {
    /// The node's name.
    pub node_name: String,
    /// The node's UID.
    pub node_uid: String,
    /// The node's zone; empty where its labels did not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// The node's pool; empty where its labels did not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pool: String,
    /// The policy.
    pub policy: String,
    /// The fault.
    pub fault: String,
    /// When it would have started.
    pub at: Timestamp,
    /// Until when at most it would have run.
    pub until: Timestamp,
    /// Whether its fault is over, or its node gone.
    #[serde(default)]
    pub over: bool,
}

/// What became, without a repair, of a fault that a policy would have acted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Score {
    /// The policy.
    pub policy: String,
    /// The fault.
    pub fault: String,
    /// Since when it is counted.
    pub since: Timestamp,
    /// How often it was over by itself.
    pub recovered: u32,
    /// How long that took, all together.
    pub recovery_seconds: u64,
    /// The longest of these times.
    pub longest_recovery_seconds: u64,
    /// How often it was still there an hour after it would have been acted on.
    pub went_on: u32,
    /// How often the node went away before that.
    pub went_away: u32,
}

/// The numbers of a guard that counts over a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardRecord {
    /// Over what it counts: `cluster`, `zone/…`, `pool/…`, `budget/POLICY/NAME…`, `window/POLICY`,
    /// `fleet/starts`; with `observed/` before it, together with what policies that only
    /// observe would have started.
    pub scope: String,
    /// The reason that it gives.
    pub reason: Reason,
    /// How many may be.
    pub limit: u32,
    /// How many are.
    pub current: u32,
    /// When time alone ends it, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// One admission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The `NodeRepair` to come.
    pub repair: String,
    /// The node's UID.
    pub node_uid: String,
    /// When it was admitted.
    pub at: Timestamp,
}

/// A source that does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceDown {
    /// Which.
    pub source: String,
    /// Since when.
    pub since: Timestamp,
    /// What it said last.
    pub message: String,
}

/// The journal of one repair of one node.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "nodemend.dev",
    version = "v1alpha1",
    kind = "NodeRepair",
    shortname = "nr",
    category = "nodemend",
    status = "NodeRepairStatus",
    derive = "PartialEq",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Fault", type_ = "string", json_path = ".spec.fault"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(
        name = "Replacement",
        type_ = "string",
        json_path = ".status.replacement.instanceId"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"), validation = Rule::new("self == oldSelf").message("spec is immutable"))]
pub struct NodeRepairSpec {
    /// The node's name.
    pub node_name: String,
    /// The node's UID.
    pub node_uid: String,
    /// The node's providerID.
    pub provider_id: String,
    /// The node's zone; empty where its labels did not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// The node's pool; empty where its labels did not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pool: String,
    /// Which repair of this node it is, from 1.
    pub ordinal: u32,
    /// The policy.
    pub policy: String,
    /// The fault.
    pub fault: String,
    /// Since when the fault was true.
    pub fault_since: Timestamp,
    /// The signals it rested on.
    pub evidence: Vec<SignalRecord>,
    /// Who asked for it, if a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RepairRequest>,
    /// Who approved it, if its policy waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// All that is left to choose is chosen here.
    pub plan: Plan,
    /// The creator's epoch.
    pub epoch: u64,
    /// The first intent, the quarantine: the API drops status on create.
    pub quarantine: Intent,
}

/// What will be done, with every parameter and deadline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What is done about the fault.
    #[serde(default)]
    pub action: Action,
    /// What is done if that does not help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Action>,
    /// Who makes the new node, or restarts the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// The old instance; empty where none plays a part.
    #[serde(default)]
    pub instance_id: String,
    /// The key of the tag, value `owned`, without which the instance is left alone.
    #[serde(default)]
    pub cluster_tag: String,
    /// What is launched, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<LaunchPlan>,
    /// How long the new node may take to be Ready.
    pub ready_timeout: Span,
    /// How many new nodes are tried.
    pub max_attempts: u32,
    /// How long the drain may take.
    pub drain_timeout: Span,
    /// The longest grace period a pod gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pod_grace_period: Option<Span>,
}

/// What is launched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaunchPlan {
    /// From which template.
    pub template: LaunchTemplate,
    /// Into which subnet; so into which zone.
    pub subnet: String,
    /// Of which type.
    pub instance_type: String,
    /// The key of the tag, value `owned`, that it is given.
    pub cluster_tag: String,
}

/// Committed before an external effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// What is about to be done.
    pub step: Step,
    /// Which try of this step, from 1.
    pub attempt: u32,
    /// When it was committed.
    pub at: Timestamp,
    /// The writer's epoch.
    pub epoch: u64,
    /// Tells the writer its own write from another's.
    pub nonce: String,
    /// What the step acts on: an instance id or a client token.
    #[serde(default)]
    pub target: String,
    /// The node's bootID before a reboot, which another one proves.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
}

/// One external effect.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Step {
    /// Cordon, with what was found before.
    Quarantine,
    /// Start the replacement.
    Launch,
    /// Evict the pods.
    Drain,
    /// Restart the machine.
    Reboot,
    /// End the old instance.
    Terminate,
    /// End a replacement that is not needed or never came.
    ReturnReplacement,
    /// Take off what the quarantine put on.
    Release,
}

impl Step {
    /// Whether a person is needed to undo it.
    pub const fn irreversible(self) -> bool {
        matches!(self, Self::Reboot | Self::Terminate)
    }
}

/// An intent and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The intent.
    pub intent: Intent,
    /// How often it failed so far.
    #[serde(default)]
    pub failures: u32,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Failure>,
    /// When pauses and breakers held it: that does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// What came of it; none while open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// When pauses and breakers held a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Since when it is held, or was last.
    pub since: Timestamp,
    /// When that ended; none while it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// For how many seconds it was held before that, all together.
    #[serde(default)]
    pub seconds_before: u32,
}

impl Held {
    /// For how long it was held, all together.
    pub fn total(&self, now: Timestamp) -> Span {
        let last = self.until.unwrap_or(now).duration_since(self.since);
        let last = u32::try_from(last.as_secs().max(0)).unwrap_or(u32::MAX);
        Span::seconds(self.seconds_before.saturating_add(last))
    }
}

/// A try that failed and may be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// What the other side said.
    pub message: String,
}

/// What came of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// When.
    pub at: Timestamp,
    /// Whether the effect was had.
    pub done: bool,
    /// The instance launched, or what is worth telling.
    #[serde(default)]
    pub detail: String,
}

/// Where a repair is. What a newer version wrote is `Unrecognized`, and is left alone.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Phase {
    /// Admitted.
    #[default]
    Pending,
    /// Cordoned.
    Quarantined,
    /// The replacement is on its way.
    Launching,
    /// The pods move.
    Draining,
    /// The machine restarts.
    Rebooting,
    /// The old instance goes.
    Terminating,
    /// The end state is looked at.
    Verifying,
    /// Done.
    Succeeded,
    /// Given up because it was no longer needed or wanted.
    Aborted,
    /// Given up; a person must look.
    NeedsHuman,
    /// It did not help, and a further repair of the node took over.
    Escalated,
    /// Written by a newer version.
    #[serde(other)]
    #[schemars(skip)]
    Unrecognized,
}

impl Phase {
    /// The phases of an open repair, for metrics that show zeros.
    pub const OPEN: [Self; 7] = [
        Self::Pending,
        Self::Quarantined,
        Self::Launching,
        Self::Draining,
        Self::Rebooting,
        Self::Terminating,
        Self::Verifying,
    ];
    /// Whether nothing will change any more.
    pub const fn terminal(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Aborted | Self::NeedsHuman | Self::Escalated
        )
    }
}

/// Why a repair was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GaveUp {
    /// The fault went away by itself.
    Recovered,
    /// A person, or the opt-out annotation, said so.
    AbortRequested,
    /// The node object went away before its drain began.
    NodeGone,
    /// The old machine joined again as another node object.
    NodeReborn,
    /// Somebody took the cordon off.
    QuarantineLifted,
    /// The policy or the fault is no longer configured.
    PolicyGone,
    /// No replacement became Ready.
    ReplacementNotReady,
    /// The disruption budgets did not allow the drain in time.
    DrainTimeout,
    /// A pod keeps data on the node or has no owner.
    LocalData,
    /// The instance is not this cluster's.
    NotOurInstance,
    /// The cloud refused for good.
    Refused,
    /// The end state did not come.
    NotVerified,
    /// The fault is still there.
    NotCured,
}

impl GaveUp {
    /// Whether the next action of the ladder may help.
    pub const fn escalates(self) -> bool {
        matches!(self, Self::NotVerified | Self::NotCured)
    }
}

/// The journal's second half.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRepairStatus {
    /// The acting leader's epoch.
    pub epoch: u64,
    /// The summary.
    pub phase: Phase,
    /// Why it was given up, or is being given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<GaveUp>,
    /// In plain words.
    #[serde(default)]
    pub message: String,
    /// Every intent with its outcome, in order.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub journal: Vec<Entry>,
    /// The new node, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Replacement>,
    /// Where the old node stood when it was cordoned.
    #[serde(default)]
    pub was_unschedulable: bool,
    /// `Succeeded`.
    #[serde(default)]
    pub conditions: Vec<StatusCondition>,
    /// The trace.
    #[serde(default)]
    pub trace_id: String,
    /// When it became terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
}

/// The new node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// The instance.
    pub instance_id: String,
    /// The node's name, once it joined.
    #[serde(default)]
    pub node_name: String,
    /// Since when it is Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<Timestamp>,
}

impl NodeRepair {
    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
    /// The journal, empty before the first status write.
    pub fn journal(&self) -> &[Entry] {
        self.status.as_ref().map_or(&[], |status| &status.journal)
    }
    /// The phase.
    pub fn phase(&self) -> Phase {
        self.status
            .as_ref()
            .map_or(Phase::Pending, |status| status.phase)
    }
    /// What is waited for, or why it ended.
    pub fn message(&self) -> &str {
        self.status
            .as_ref()
            .map_or("", |status| status.message.as_str())
    }
    /// Whether work is left.
    pub fn open(&self) -> bool {
        !self.phase().terminal()
    }
    /// Whether it has done what it could, and keeps the quarantine on until the fault is
    /// over or a further repair takes over.
    pub fn at_rest(&self) -> bool {
        let Some(status) = self.status.as_ref().filter(|_| self.open()) else {
            return false;
        };
        let done = status.journal.last().is_some_and(|last| {
            last.outcome.is_some() && !matches!(last.intent.step, Step::Release)
        });
        let plan = &self.spec.plan;
        done && match plan.action {
            Action::Cordon => status.phase == Phase::Quarantined && status.reason.is_none(),
            Action::Reboot => plan.then.is_some() && status.reason.is_some_and(GaveUp::escalates),
            Action::Replace => false,
        }
    }
    /// Whether it counts as under way.
    pub fn in_flight(&self) -> bool {
        self.open() && !self.at_rest()
    }
    /// The latest entry of a step.
    pub fn last(&self, step: Step) -> Option<&Entry> {
        self.journal()
            .iter()
            .rev()
            .find(|entry| entry.intent.step == step)
    }
}
