//! What people write: `RepairPolicy` and `RepairPause`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube_derive::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::model::Span;

/// Which nodes to repair, for which faults, how and under which guards.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("!has(self.mode) || self.mode == 'Observe' || (has(self.replacement) && has(self.replacement.strategy)) || !self.faults.exists(f, has(f.actions) && f.actions.exists(a, a != 'Cordon'))").message("to act, name a replacement.strategy"),
    validation = Rule::new("self.faults.exists(f, has(f.actions) && size(f.actions) > 0)").message("give a fault an action"),
    validation = Rule::new("self.faults.all(f, (!has(f.when.all) || f.when.all.all(l, !has(l.fault) || self.faults.exists(o, o.name == l.fault))) && (!has(f.when.any) || f.when.any.all(l, !has(l.fault) || self.faults.exists(o, o.name == l.fault))) && (!has(f.when.none) || f.when.none.all(l, !has(l.fault) || self.faults.exists(o, o.name == l.fault))) && (!has(f.when.atLeast) || f.when.atLeast.of.all(l, !has(l.fault) || self.faults.exists(o, o.name == l.fault))))").message("there is no fault of this name")
)]
#[kube(
    group = "nodemend.dev",
    version = "v1alpha1",
    kind = "RepairPolicy",
    plural = "repairpolicies",
    shortname = "rpol",
    category = "nodemend",
    status = "RepairPolicyStatus",
    derive = "PartialEq",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepairPolicySpec {
    /// What to do when a fault is due. Observe does all but the act.
    #[serde(default)]
    pub mode: Mode,
    /// The highest matching policy wins; a tie holds the nodes concerned.
    #[serde(default)]
    pub priority: i32,
    /// Which nodes; empty selects all.
    #[serde(default)]
    pub node_selector: NodeSelector,
    /// What is worth a repair.
    #[schemars(length(min = 1, max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub faults: Vec<FaultSpec>,
    /// How to replace a node.
    #[serde(default)]
    pub replacement: ReplacementSpec,
    /// How to move the pods away.
    #[serde(default)]
    pub drain: DrainSpec,
    /// Limits over this policy's nodes; every one must allow a start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub budgets: Vec<BudgetSpec>,
    /// When repairs of faults that are not critical may start; none: always. What has
    /// started goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<WindowSpec>,
    /// Whether nodes of the control plane are repaired, too.
    #[serde(default)]
    pub control_plane: bool,
}

/// What a policy does with a due fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Everything but the act.
    #[default]
    Observe,
    /// Waits for a person who approves each repair.
    Approve,
    /// Repairs.
    Enforce,
}

/// A label selector over nodes; all parts must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSelector {
    /// Labels with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Conditions on labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<Requirement>,
}

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)").message("In and NotIn need values, Exists and DoesNotExist take none")
)]
pub struct Requirement {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How to compare.
    pub operator: Operator,
    /// With what; empty for `Exists` and `DoesNotExist`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// One of the values.
    In,
    /// None of the values, or no such label.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

impl NodeSelector {
    /// Whether a node with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let named = self
            .match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value));
        named
            && self.match_expressions.iter().all(|requirement| {
                let found = labels.get(&requirement.key);
                let listed = found.is_some_and(|value| requirement.values.contains(value));
                match requirement.operator {
                    Operator::In => listed,
                    Operator::NotIn => !listed,
                    Operator::Exists => found.is_some(),
                    Operator::DoesNotExist => found.is_none(),
                }
            })
    }
}

/// A named combination of signals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("!has(self.confirm) || (has(self.actions) && size(self.actions) > 0)").message("confirm is for a fault that has an action"),
    validation = Rule::new("(has(self.actions) && size(self.actions) > 0) || !has(self.__for__) || self.__for__ == '0s'").message("for is for a fault that has an action"),
    validation = Rule::new("!has(self.actions) || size(self.actions) < 2 || (size(self.actions) == 2 && self.actions[0] == 'Reboot')").message("only Reboot can be followed by another action")
)]
pub struct FaultSpec {
    /// A name, unique within the policy.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Critical faults are repaired first.
    #[serde(default)]
    pub severity: Severity,
    /// When the fault is true.
    pub when: When,
    /// True this long before it is due. Not of a part: a fault that names another one does
    /// not wait for that one's.
    #[serde(rename = "for", default)]
    pub for_: Span,
    /// What to do, and what next if that does not help; then a person is asked. Each at
    /// most once, and only Reboot can be followed. None makes it a named part of other faults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub actions: Vec<Action>,
    /// A second opinion before acting, from the node's own exporter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<ConfirmSpec>,
}

/// How urgent a fault is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Severity {
    /// Waits its turn.
    #[default]
    Warning,
    /// Goes first.
    Critical,
}

/// The four parts are `ANDed`; at least one is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(crates(kube_core = "::kube_core"), validation = Rule::new("has(self.all) || has(self.any) || has(self.none) || has(self.atLeast)").message("give at least one of all, any, none, atLeast"))]
pub struct When {
    /// All of these hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub all: Vec<Leaf>,
    /// One of these holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub any: Vec<Leaf>,
    /// None of these holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub none: Vec<Leaf>,
    /// So many of these hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<AtLeast>,
}

/// So many of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("self.count <= size(self.of)").message("count is more than there are in of")
)]
pub struct AtLeast {
    /// How many must hold.
    #[schemars(range(min = 1, max = 16))]
    pub count: u32,
    /// Of these.
    #[schemars(length(min = 1, max = 16))]
    pub of: Vec<Leaf>,
}

/// A signal, a node condition, or another fault of the same policy: exactly one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(crates(kube_core = "::kube_core"), validation = Rule::new("(has(self.signal) ? 1 : 0) + (has(self.condition) ? 1 : 0) + (has(self.fault) ? 1 : 0) == 1").message("give exactly one of signal, condition, fault"))]
pub struct Leaf {
    /// An alert's name, from the webhook or from a polled rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub signal: Option<String>,
    /// A condition of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<ConditionLeaf>,
    /// Another fault of this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub fault: Option<String>,
}

/// A node condition with one of the statuses and, if given, one of the reasons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConditionLeaf {
    /// The condition's type, such as Ready.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// The statuses that count as wrong.
    #[schemars(length(min = 1, max = 3))]
    pub statuses: Vec<ConditionStatus>,
    /// The reasons that count; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub reasons: Vec<String>,
}

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known.
    Unknown,
}

impl ConditionStatus {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What to do about a fault.
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
pub enum Action {
    /// A new node for the old one.
    #[default]
    Replace,
    /// Drain the node and restart its machine.
    Reboot,
    /// Only keep new pods away, until the fault is over.
    Cordon,
}

/// A threshold on the node's own exporter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("!has(self.path) || self.path.matches('^/[!-\\\"$-~]*$')").message("path is not the path of a URL"),
    validation = Rule::new("self.metric.matches('^[a-zA-Z_][a-zA-Z0-9_]*$')").message("metric is not a metric's name"),
    validation = Rule::new("self.above.matches('^[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?$')").message("above is not a number")
)]
pub struct ConfirmSpec {
    /// The exporter's port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u32,
    /// The path of its metrics (`/metrics`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// The metric's name.
    #[schemars(length(max = 256))]
    pub metric: String,
    /// Confirmed if a sample is above this number, refuted if none is; unknown without a
    /// sample. Written in quotes.
    #[schemars(length(max = 32))]
    pub above: String,
    /// What an unreachable exporter means (Unknown).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unreachable: Option<OnUnreachable>,
}

/// What an unreachable exporter means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnUnreachable {
    /// The fault is real.
    Confirm,
    /// The fault is not real.
    Refute,
    /// Nothing.
    Unknown,
}

/// How to replace a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("!has(self.readyTimeout) || self.readyTimeout.matches('[1-9]')").message("readyTimeout must be longer than 0s")
)]
pub struct ReplacementSpec {
    /// Who makes the new node. Only EC2 is supported yet, and must be named to enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// What comes first. Only `LaunchFirst` is supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// How long a new node may take to be Ready (15m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_timeout: Option<Span>,
    /// How many new nodes to try (2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub max_attempts: Option<u32>,
    /// What becomes of a replacement that is no longer needed. Only Return is supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_recovered: Option<OnRecovered>,
    /// Where the EC2 strategy launches from; by default, from what the old instance was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ec2: Option<Ec2Spec>,
}

/// Who makes the new node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    /// Find the owner. Not supported yet.
    Auto,
    /// Karpenter's `NodeClaim`. Not supported yet.
    Karpenter,
    /// The Auto Scaling group. Not supported yet.
    AutoScalingGroup,
    /// Cluster API's Machine. Not supported yet.
    ClusterAPI,
    /// A new instance from a launch template.
    EC2,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Order {
    /// The replacement is Ready before anything is evicted.
    LaunchFirst,
    /// The old one goes first. Not supported yet.
    TerminateFirst,
}

/// What becomes of a replacement that is no longer needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnRecovered {
    /// It is given back.
    Return,
    /// It stays. Not supported yet.
    Keep,
}

/// Where the EC2 strategy launches from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ec2Spec {
    /// The launch template.
    pub launch_template: LaunchTemplate,
}

/// A launch template and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LaunchTemplate {
    /// `lt-…`.
    #[schemars(regex(pattern = "^lt-[0-9a-f]+$"))]
    pub id: String,
    /// A number: `$Latest` may change between two tries.
    #[schemars(regex(pattern = "^[0-9]+$"))]
    pub version: String,
}

/// How to move the pods away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("!has(self.timeout) || self.timeout.matches('[1-9]')").message("timeout must be longer than 0s"),
    validation = Rule::new("!has(self.maxPodGracePeriod) || self.maxPodGracePeriod.matches('[1-9][0-9]*([wdhs]|m([^s]|$))|[1-9][0-9]{3,}ms')").message("maxPodGracePeriod is below 1s")
)]
pub struct DrainSpec {
    /// How long the drain may take (15m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// What then. Only Hold is supported yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<OnTimeout>,
    /// The longest grace period a pod gets; unset: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pod_grace_period: Option<Span>,
}

/// What to do when a drain takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnTimeout {
    /// Ask for a person.
    Hold,
    /// Terminate with the pods in place. Not supported yet.
    Force,
}

/// A limit over the policy's nodes. It counts every repair of them, whatever its policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.maxRepairs) == has(self.within)").message("give both maxRepairs and within, or neither"),
    validation = Rule::new("has(self.maxRepairs) || has(self.within) || has(self.maxInFlight) || has(self.maxUnavailable)").message("it limits nothing: give maxRepairs and within, maxInFlight or maxUnavailable"),
    validation = Rule::new("!has(self.within) || self.within.matches('[1-9]')").message("within must be longer than 0s")
)]
pub struct BudgetSpec {
    /// A name that a hold shows, unique within the policy.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Over what it counts (Cluster).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Per>,
    /// Starts within `within`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub max_repairs: Option<u32>,
    /// The rolling window of `maxRepairs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
    /// Repairs at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub max_in_flight: Option<u32>,
    /// Nodes not available at once, a number or a percentage; a percentage rounds down, but
    /// to no less than one unless it is 0%. A node that is down already may be repaired also
    /// where this is exceeded, one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "amount")]
    pub max_unavailable: Option<IntOrString>,
}

/// What the API takes for an amount.
fn amount(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 0,
        "maximum": 999_999_999,
        "pattern": "^([0-9]{1,9}|(100|[0-9]{1,2})%)$",
    })
}

/// Over what a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Per {
    /// All nodes.
    Cluster,
    /// Each zone.
    Zone,
    /// Each pool.
    Pool,
}

/// When repairs may start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("self.schedule.matches('^ *[^ ]+( +[^ ]+){4} *$')").message("schedule is not five fields of cron"),
    validation = Rule::new("self.duration.matches('[1-9]')").message("duration must be longer than 0s")
)]
pub struct WindowSpec {
    /// When it opens: a cron expression of five fields.
    #[schemars(length(max = 256))]
    pub schedule: String,
    /// An IANA time zone (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub time_zone: Option<String>,
    /// How long the window stays open.
    pub duration: Span,
}

/// What nodemend says of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepairPolicyStatus {
    /// `Accepted`, with the mistakes as its message.
    #[serde(default)]
    pub conditions: Vec<StatusCondition>,
}

/// A condition of one of our objects, as `kubectl wait` reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusCondition {
    /// Its name.
    #[serde(rename = "type")]
    pub type_: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Timestamp,
}

/// The kill switch: no new repair starts on the nodes it covers.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[kube(
    group = "nodemend.dev",
    version = "v1alpha1",
    kind = "RepairPause",
    shortname = "rpause",
    category = "nodemend",
    derive = "PartialEq",
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(name = "Until", type_ = "date", json_path = ".spec.until"),
    crates(kube_core = "::kube_core")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepairPauseSpec {
    /// Which nodes; empty: all.
    #[serde(default)]
    pub node_selector: NodeSelector,
    /// Only nodes of this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Why, for those who find it.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// When it ends by itself; unset: when it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}
