//! The nouns that every other module speaks of: time spans, truth, reasons,
//! verdicts, and the small views that nodes, pods and instances are reduced to.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The annotation that marks a cordon as ours and keeps the state found before it.
pub const QUARANTINE_ANNOTATION: &str = "nodemend.dev/quarantined-by";
/// The annotation by which a person takes a node out of nodemend's hands:
/// `"true"`, or an RFC 3339 time until which it holds.
pub const DO_NOT_REPAIR_ANNOTATION: &str = "nodemend.dev/do-not-repair";
/// The annotation by which a person approves the repair of a node, where its policy waits
/// for that, as `nodemend approve` writes it: of which fault, by which action, until when.
pub const APPROVED_ANNOTATION: &str = "nodemend.dev/approved-until";
/// The annotation by which a person asks for the repair of a node, as `nodemend repair`
/// writes it.
pub const REQUEST_ANNOTATION: &str = "nodemend.dev/repair-requested";
/// Labels that mark a control plane node.
pub const CONTROL_PLANE_LABELS: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];
/// How taints begin by which others say that they take a node away: the cluster
/// autoscaler, Karpenter (old and new), AWS' node termination handler, Medik8s.
pub const OTHER_ACTORS: [&str; 5] = [
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    "aws-node-termination-handler/",
    "medik8s.io/remediation",
];
/// The label that names a node's zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// A span of time, written as Prometheus writes it: `90s`, `10m`, `1h30m`. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(SignedDuration);

impl Span {
    /// A span of whole seconds.
    pub const fn seconds(seconds: u32) -> Self {
        Self(SignedDuration::from_secs(seconds as i64))
    }
    /// A span of whole minutes.
    pub const fn minutes(minutes: u32) -> Self {
        Self(SignedDuration::from_secs(minutes as i64 * 60))
    }
    /// Length in whole seconds.
    pub fn as_seconds(self) -> i64 {
        self.0.as_secs()
    }
    /// The same span as jiff's type, for arithmetic on timestamps.
    pub const fn signed(self) -> SignedDuration {
        self.0
    }
    /// `start + self`, at most the last instant that can be told.
    pub fn after(self, start: Timestamp) -> Timestamp {
        start.checked_add(self.0).unwrap_or(Timestamp::MAX)
    }
    /// `end - self`, at least the first instant that can be told.
    pub fn before(self, end: Timestamp) -> Timestamp {
        end.checked_sub(self.0).unwrap_or(Timestamp::MIN)
    }
}

/// A span of time that could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a duration: write it like 90s, 10m or 1h30m")]
pub struct SpanError(String);

impl FromStr for Span {
    type Err = SpanError;
    fn from_str(text: &str) -> Result<Self, SpanError> {
        let refuse = || SpanError(text.chars().take(40).collect());
        if text == "0" {
            return Ok(Self::default());
        }
        let (mut total, mut rest, mut last) = (0i64, text, i64::MAX);
        if rest.is_empty() {
            return Err(refuse());
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or_else(refuse)?;
            let count: i64 = rest[..digits].parse().map_err(|_| refuse())?;
            rest = &rest[digits..];
            let units = [
                ("ms", 1),
                ("s", 1_000),
                ("m", 60_000),
                ("h", 3_600_000),
                ("d", 86_400_000),
                ("w", 604_800_000),
            ];
            let (unit, length) = units
                .into_iter()
                .find(|(unit, _)| {
                    rest.strip_prefix(unit)
                        .is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphabetic()))
                })
                .ok_or_else(refuse)?;
            if length >= last {
                return Err(refuse());
            }
            last = length;
            rest = &rest[unit.len()..];
            total = count
                .checked_mul(length)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(refuse)?;
        }
        // A century is longer than any setting and keeps all arithmetic in range.
        if total > 3_155_760_000_000 {
            return Err(refuse());
        }
        Ok(Self(SignedDuration::from_millis(total)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, length) in [
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1_000),
            ("ms", 1),
        ] {
            if rest >= length {
                write!(f, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A duration such as 90s, 10m or 1h30m.",
            "minLength": 1,
            "maxLength": 32,
            "pattern": "^(0|([0-9]{1,9}w)?([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?)$",
        })
    }
}

/// Three-valued truth; combinations follow Kleene's strong logic.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Truth {
    /// Known not to hold.
    False,
    /// Not known.
    Unknown,
    /// Known to hold.
    True,
}

impl Truth {
    /// True only if all are; false as soon as one is.
    pub fn all(values: impl IntoIterator<Item = Self>) -> Self {
        values.into_iter().min().unwrap_or(Self::True)
    }
    /// True as soon as one is; false only if all are.
    pub fn any(values: impl IntoIterator<Item = Self>) -> Self {
        values.into_iter().max().unwrap_or(Self::False)
    }
    /// True if at least `count` are, false if that many cannot be.
    pub fn at_least(count: usize, values: impl IntoIterator<Item = Self>) -> Self {
        let (mut certain, mut possible) = (0, 0);
        for value in values {
            certain += usize::from(value == Self::True);
            possible += usize::from(value != Self::False);
        }
        match (certain >= count, possible >= count) {
            (true, _) => Self::True,
            (false, true) => Self::Unknown,
            (false, false) => Self::False,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl std::ops::Not for Truth {
    type Output = Self;
    fn not(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
            Self::True => Self::False,
        }
    }
}

/// What one source says of one node.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum SignalState {
    /// The source says that it is wrong.
    Firing,
    /// The source says that it is fine.
    Clear,
    /// The source is silent, stale, partial or contradicts itself.
    Unknown,
}

impl From<SignalState> for Truth {
    fn from(state: SignalState) -> Self {
        match state {
            SignalState::Firing => Self::True,
            SignalState::Clear => Self::False,
            SignalState::Unknown => Self::Unknown,
        }
    }
}

/// Why nodemend does not act now. Closed: these are metric labels.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Reason {
    /// A `RepairPause` covers the node.
    Paused,
    /// The policy only observes.
    ObserveMode,
    /// The node carries the opt-out annotation.
    OptedOut,
    /// A silence of Alertmanager covers a signal that the fault needs, or the node.
    Silenced,
    /// Alertmanager did not answer lately, and may know of a silence.
    SilencesUnknown,
    /// Two policies of the same priority claim the node.
    PolicyConflict,
    /// What the fault rests on is not known.
    EvidenceUnknown,
    /// What the fault rests on is not borne out by the node's Lease: its kubelet renews it,
    /// or whether it does is not known yet.
    Contradicted,
    /// The node's own exporter was not asked yet, or said nothing that can be used.
    Unconfirmed,
    /// The node's own exporter says otherwise.
    Refuted,
    /// The watch of nodes is silent.
    NodesStale,
    /// The node is cordoned, and not by nodemend.
    CordonedByOther,
    /// The node object is being deleted.
    NodeDeleting,
    /// As many repairs run as may.
    InFlight,
    /// As many repairs started within the window as may.
    RateLimit,
    /// Too much of the cluster is sick.
    ClusterBreaker,
    /// The node's last repair asks for a person, or every action of the fault was tried.
    NeedsHuman,
    /// Nothing is known that could replace the node.
    NoOwner,
    /// The instance does not carry the cluster's tag.
    NotOurInstance,
    /// Something else replaces the instance when it ends.
    OwnedByOther,
    /// The cloud did not answer.
    CloudUnavailable,
    /// The policy that speaks for the node was refused.
    PolicyRefused,
    /// A person took the node's last repair away.
    RepairDeleted,
    /// The policy waits for a person to approve the repair.
    AwaitingApproval,
    /// The node is younger than `limits.minNodeAge`.
    TooYoung,
    /// Somebody else is at work on the node, as its taints say.
    OtherActor,
    /// The signals it rests on fire on most nodes at once: the rule is suspended.
    RuleSuspended,
    /// Too much of the zone is sick.
    ZoneBreaker,
    /// Too much of the pool is sick.
    PoolBreaker,
    /// A budget of the policy is spent.
    Budget,
    /// No window of the policy is open.
    OutsideWindow,
    /// The pool's replacements did not help.
    PoolBackoff,
    /// Repairs of the pool ask for a person.
    PoolStopped,
}

impl Reason {
    /// Every reason, for metrics that show zeros.
    pub const ALL: [Self; 33] = [
        Self::Paused,
        Self::ObserveMode,
        Self::OptedOut,
        Self::Silenced,
        Self::SilencesUnknown,
        Self::PolicyConflict,
        Self::EvidenceUnknown,
        Self::Contradicted,
        Self::Unconfirmed,
        Self::Refuted,
        Self::NodesStale,
        Self::CordonedByOther,
        Self::NodeDeleting,
        Self::InFlight,
        Self::RateLimit,
        Self::ClusterBreaker,
        Self::NeedsHuman,
        Self::NoOwner,
        Self::NotOurInstance,
        Self::OwnedByOther,
        Self::CloudUnavailable,
        Self::PolicyRefused,
        Self::RepairDeleted,
        Self::AwaitingApproval,
        Self::TooYoung,
        Self::OtherActor,
        Self::RuleSuspended,
        Self::ZoneBreaker,
        Self::PoolBreaker,
        Self::Budget,
        Self::OutsideWindow,
        Self::PoolBackoff,
        Self::PoolStopped,
    ];
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the core says of one node now. Closed: these are metric labels.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum VerdictKind {
    /// No fault.
    Healthy,
    /// No policy, or a control plane node.
    Ignored,
    /// A fault's value is unknown and none is true.
    Unknown,
    /// A fault is true, but not for long enough.
    Pending,
    /// Would be due, but a guard says no.
    Held,
    /// To be repaired.
    Due,
    /// A repair is open.
    Repairing,
}

impl VerdictKind {
    /// Every kind, for metrics that show zeros.
    pub const ALL: [Self; 7] = [
        Self::Healthy,
        Self::Ignored,
        Self::Unknown,
        Self::Pending,
        Self::Held,
        Self::Due,
        Self::Repairing,
    ];
}

/// A node's condition, reduced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Condition {
    /// `Ready`, `DiskPressure` …
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word, empty where there is none.
    #[serde(default)]
    pub reason: String,
}

/// A node, reduced to what decisions need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// The object's name.
    pub name: String,
    /// The object's UID.
    pub uid: String,
    /// The object's resourceVersion.
    pub resource_version: String,
    /// Such as `aws:///eu-central-1a/i-0123`; empty where unset.
    pub provider_id: String,
    /// When the object was created.
    pub created: Timestamp,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// The annotations under `nodemend.dev/`.
    pub annotations: BTreeMap<String, String>,
    /// Addresses of every type, as text.
    pub addresses: Vec<String>,
    /// The IP addresses among them, those inside the cluster's network first.
    pub ips: Vec<std::net::IpAddr>,
    /// The keys of its taints.
    pub taints: Vec<String>,
    /// All conditions.
    pub conditions: Vec<Condition>,
    /// Whether `spec.unschedulable` is set.
    pub unschedulable: bool,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// What its kernel drew when it booted: another one proves a reboot. Empty if unset.
    pub boot_id: String,
}

impl NodeView {
    /// The status of a condition.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == type_)
    }
    /// Whether the node says that it is Ready.
    pub fn ready(&self) -> bool {
        self.condition("Ready").is_some_and(|c| c.status == "True")
    }
    /// Whether somebody else takes the node away, or is about to.
    pub fn taken_by_other(&self) -> bool {
        let mut taints = self.taints.iter();
        taints.any(|taint| OTHER_ACTORS.iter().any(|actor| taint.starts_with(actor)))
    }
    /// The zone and the pool that its labels name, by the first of these labels for pools that
    /// it has; empty where none says.
    pub fn zone_and_pool(&self, pool_labels: &[String]) -> (&str, &str) {
        // One walk: for as few labels as a node has, faster than looking for each name.
        let (mut zone, mut pool) = ("", (usize::MAX, ""));
        for (name, value) in &self.labels {
            if name == ZONE_LABEL {
                zone = value;
            }
            if let Some(rank) = pool_labels.iter().position(|known| known == name) {
                pool = pool.min((rank, value));
            }
        }
        (zone, pool.1)
    }

    /// Whether the node runs the control plane.
    pub fn control_plane(&self) -> bool {
        let mut labels = self.labels.keys();
        labels.any(|label| CONTROL_PLANE_LABELS.contains(&label.as_str()))
    }
    /// The instance id at the end of an AWS providerID.
    pub fn instance_id(&self) -> Option<&str> {
        instance_id(&self.provider_id)
    }
}

/// The instance id at the end of an AWS providerID.
pub fn instance_id(provider_id: &str) -> Option<&str> {
    let id = provider_id.strip_prefix("aws://")?.rsplit('/').next()?;
    (id.starts_with("i-") && id.len() > 2).then_some(id)
}

/// A pod, reduced to what a drain needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts of the pod, none excludes another"
)]
pub struct PodView {
    /// Namespace and name.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object's UID.
    pub uid: String,
    /// The kind of the controlling owner, empty for a bare pod.
    pub owner_kind: String,
    /// Whether a kubelet made it from a file.
    pub mirror: bool,
    /// Whether it has run to its end.
    pub finished: bool,
    /// When it should be gone, if it is being deleted.
    pub gone_by: Option<Timestamp>,
    /// Whether it keeps data on the node (an emptyDir that is not memory, a hostPath).
    pub local_data: bool,
    /// Whether it tolerates unschedulable nodes, so would come right back.
    pub tolerates_unschedulable: bool,
    /// Whether it asks to be left alone (`do-not-disrupt`, `safe-to-evict: false`).
    pub do_not_disrupt: bool,
    /// Its termination grace period in seconds.
    pub grace_seconds: i64,
}

/// What EC2 says of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceView {
    /// `i-…`.
    pub id: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its subnet.
    pub subnet: String,
    /// Its type.
    pub instance_type: String,
}

/// The life of an instance. What EC2 may add later is `Other`: neither running nor gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// Being launched.
    Pending,
    /// Running.
    Running,
    /// On its way out.
    ShuttingDown,
    /// Gone; the only proof of it.
    Terminated,
    /// Stopped, stopping, or unknown to us.
    Other,
}

/// The first `length` hexadecimal digits (at most 64) of the SHA-256 of `parts`,
/// each preceded by its length, so that no two lists of parts read alike.
pub fn digest(parts: &[&str], length: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digits = hash.finalize().into_iter();
    let digits = digits.flat_map(|byte| [byte >> 4, byte & 15]);
    let text = digits.take(length);
    text.map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_are_read_and_refused() {
        for (text, seconds) in [
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5400),
            ("0", 0),
            ("1d", 86400),
            ("1w", 604_800),
            ("1500ms", 1),
            // A century, the longest that there is.
            ("36525d", 3_155_760_000),
        ] {
            assert_eq!(
                text.parse::<Span>().map(Span::as_seconds),
                Ok(seconds),
                "{text}"
            );
        }
        for text in [
            "",
            "10",
            "m",
            "-5m",
            "5 m",
            "1m1h",
            "1m1m",
            "5x",
            "99999999999999999999s",
            "999999w",
            "36525d1ms",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        let long = "5 minutes and a little more than forty characters";
        let told = long.parse::<Span>().unwrap_err().to_string();
        assert!(told.contains("`5 minutes and") && !told.contains("characters"));
    }

    #[test]
    fn spans_are_written_largest_unit_first() {
        for (seconds, expect) in [
            (0, "0s"),
            (90, "1m30s"),
            (3600, "1h"),
            (90_061, "1d1h1m1s"),
            (604_800, "7d"),
        ] {
            let span = Span::seconds(seconds);
            assert_eq!(span.to_string(), expect);
            assert_eq!(serde_json::to_string(&span).unwrap(), format!("{expect:?}"));
            assert_eq!(
                serde_json::from_str::<Span>(&format!("{expect:?}")).unwrap(),
                span
            );
        }
        assert_eq!("1500ms".parse::<Span>().unwrap().to_string(), "1s500ms");
        assert_eq!(Span::minutes(2), Span::seconds(120));
    }

    #[test]
    fn times_are_moved_by_a_span_as_far_as_times_go() {
        let (now, hour) = (Timestamp::UNIX_EPOCH, Span::minutes(60));
        assert_eq!(hour.after(now).as_second(), 3600);
        assert_eq!(hour.before(now).as_second(), -3600);
        assert_eq!(hour.after(Timestamp::MAX), Timestamp::MAX);
        assert_eq!(hour.before(Timestamp::MIN), Timestamp::MIN);
    }

    /// Editors and the API server refuse what is no span.
    #[test]
    fn the_schema_of_a_span_is_a_text_with_its_pattern() {
        let schema = schemars::schema_for!(Option<Span>);
        let schema = serde_json::to_value(&schema).unwrap();
        let valid = jsonschema::validator_for(&schema).unwrap();
        for (text, expect) in [
            ("0", true),
            ("1h30m", true),
            ("1500ms", true),
            ("5x", false),
            ("", false),
        ] {
            assert_eq!(valid.is_valid(&serde_json::json!(text)), expect, "{text}");
        }
        assert!(!valid.is_valid(&serde_json::json!(5)));
        // Written where it is used, not as a definition of its own.
        assert!(schema.get("$defs").is_none(), "{schema}");
    }

    #[test]
    fn truths_are_combined_by_kleene() {
        use Truth::{False, True, Unknown};
        for (values, all, any, at_least_two) in [
            (&[][..], True, False, False),
            (&[True], True, True, False),
            (&[True, Unknown], Unknown, True, Unknown),
            (&[True, False], False, True, False),
            (&[Unknown, False], False, Unknown, False),
            (&[Unknown, Unknown], Unknown, Unknown, Unknown),
            (&[True, True, False], False, True, True),
            (&[True, Unknown, Unknown], Unknown, True, Unknown),
        ] {
            let each = || values.iter().copied();
            let found = (
                Truth::all(each()),
                Truth::any(each()),
                Truth::at_least(2, each()),
            );
            assert_eq!(found, (all, any, at_least_two), "{values:?}");
        }
        assert_eq!([!False, !Unknown, !True], [True, Unknown, False]);
    }

    #[test]
    fn a_node_is_ready_if_its_condition_says_true() {
        let with = |type_: &str, status: &str| NodeView {
            conditions: vec![Condition {
                type_: type_.into(),
                status: status.into(),
                reason: String::new(),
            }],
            ..NodeView::default()
        };
        for (type_, status, expect) in [
            ("Ready", "True", true),
            ("Ready", "False", false),
            ("Ready", "Unknown", false),
            ("DiskPressure", "True", false),
        ] {
            assert_eq!(with(type_, status).ready(), expect, "{type_}={status}");
        }
        assert!(!NodeView::default().ready());
    }

    #[test]
    fn taints_of_others_and_labels_of_the_control_plane_are_known() {
        let tainted = |taint: &str| NodeView {
            taints: vec!["first".into(), taint.into()],
            ..NodeView::default()
        };
        assert!(tainted("karpenter.sh/disrupted").taken_by_other());
        assert!(tainted("aws-node-termination-handler/spot-itn").taken_by_other());
        assert!(!tainted("node.kubernetes.io/not-ready").taken_by_other());
        let labelled = |label: &str| NodeView {
            labels: [("a".into(), String::new()), (label.into(), String::new())].into(),
            ..NodeView::default()
        };
        for label in CONTROL_PLANE_LABELS {
            assert!(labelled(label).control_plane(), "{label}");
        }
        assert!(!labelled("node-role.kubernetes.io/worker").control_plane());
    }

    proptest! {
        #[test]
        fn a_span_reads_what_it_wrote(seconds in 0u32..100_000_000) {
            let span = Span::seconds(seconds);
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn knowing_more_never_turns_true_into_false(count in 0usize..5, values in proptest::collection::vec(0..3u8, 0..5), fill in any::<bool>()) {
            let read = |v: &u8| [Truth::False, Truth::Unknown, Truth::True][usize::from(*v)];
            let known = |v: &u8| match read(v) { Truth::Unknown if fill => Truth::True, Truth::Unknown => Truth::False, t => t };
            for combine in [
                (|values: Vec<Truth>| Truth::all(values)) as fn(Vec<Truth>) -> Truth,
                |values| Truth::any(values),
            ] {
                let before = combine(values.iter().map(read).collect());
                let after = combine(values.iter().map(known).collect());
                prop_assert!(before == Truth::Unknown || before == after);
            }
            let before = Truth::at_least(count, values.iter().map(read));
            let after = Truth::at_least(count, values.iter().map(known));
            prop_assert!(before == Truth::Unknown || before == after);
        }
    }

    #[test]
    fn instance_ids_come_from_aws_provider_ids_only() {
        let id = |text: &str| {
            NodeView {
                provider_id: text.into(),
                ..NodeView::default()
            }
            .instance_id()
            .map(str::to_owned)
        };
        assert_eq!(id("aws:///eu-central-1a/i-0abc").as_deref(), Some("i-0abc"));
        assert_eq!(id("gce://p/z/i-0abc"), None);
        assert_eq!(id("aws:///eu-central-1a/"), None);
        assert_eq!(id("aws:///eu-central-1a/i-"), None);
        assert_eq!(id("aws:///eu-central-1a/fargate-ip-10-0-0-1"), None);
        assert_eq!(id(""), None);
    }

    #[test]
    fn reasons_are_written_as_metrics_label_them() {
        assert_eq!(Reason::CordonedByOther.to_string(), "CordonedByOther");
    }

    #[test]
    fn digests_keep_parts_apart() {
        assert_ne!(digest(&["ab", "c"], 16), digest(&["a", "bc"], 16));
        assert_eq!(digest(&["a"], 10).len(), 10);
        // As any SHA-256 has it: names that were given stay the same.
        let expect = "601d5476e2ccfe2c87a2bba7a322659734a05749d5b5aa781f513e4912db0d5f";
        assert_eq!(digest(&["ab", "c"], 64), expect);
    }
}
