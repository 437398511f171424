//! What a verdict rests on, as the record of its node keeps it: from this alone
//! `decide::replay` comes to the same verdict again.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, GuardRecord, Mode, Severity};
use crate::model::{Reason, Span, Truth, VerdictKind};

/// What a repair that a person asks for has for its fault; no policy calls one of its own so.
pub const BY_HAND: &str = "ByHand";
/// How many decisions a record keeps.
pub const MAX_DECISIONS: usize = 20;

/// A verdict that was another than the one before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// When it was come to.
    pub at: Timestamp,
    /// The verdict.
    pub verdict: VerdictKind,
    /// The fault that leads, empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fault: String,
    /// Since when it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why nothing is done; sorted, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// What it rests on.
    #[serde(default)]
    pub inputs: Inputs,
}

/// What a verdict rests on. Of guards that count over scopes, and of the cloud's word on a
/// replacement, it has what they said and their numbers, not what they counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Inputs {
    /// The policy that speaks for the node; empty if none does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// Whether it, or one of the same priority, was refused.
    #[serde(default, skip_serializing_if = "is_not")]
    pub refused: bool,
    /// The repair of the node that is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<OpenRepair>,
    /// The policy's faults that are not false, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub faults: Vec<FaultInput>,
    /// What a person asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RepairRequest>,
    /// What guards look at; there if a fault is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
    /// Why no plan could be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unplanned: Option<Reason>,
    /// The guards that count over scopes and held it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub guards: Vec<GuardRecord>,
}

/// A repair that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenRepair {
    /// Its name.
    pub name: String,
    /// Its fault.
    pub fault: String,
    /// Since when that was true.
    pub since: Timestamp,
    /// Whether it only keeps the quarantine on, until the fault is over or another takes over.
    #[serde(default, skip_serializing_if = "is_not")]
    pub at_rest: bool,
}

/// What was known of a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultInput {
    /// Its name.
    pub name: String,
    /// Unknown or true.
    pub truth: Truth,
    /// Since when, by our own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// True this long before it is due.
    #[serde(rename = "for", default)]
    pub for_: Span,
    /// How urgent it is.
    #[serde(default, skip_serializing_if = "is_warning")]
    pub severity: Severity,
    /// Whether a silence holds it.
    #[serde(default, skip_serializing_if = "is_not")]
    pub silenced: bool,
    /// Whether it is unknown for suspended rules alone.
    #[serde(default, skip_serializing_if = "is_not")]
    pub suspended: bool,
    /// Whether it needs the word of the node's Lease, and lacks it.
    #[serde(default, skip_serializing_if = "is_not")]
    pub unsettled: bool,
    /// What is next, if it is true and not all was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// What follows if that does not help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Action>,
    /// The second opinion, where one is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Truth>,
    /// Of the fault that leads, the combination that it is, in JSON; empty if that is long.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048))]
    pub when: String,
    /// What each of its signals, conditions and named faults came to, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub leaves: Vec<Truth>,
}

/// What the guards that look at the node alone look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, none excludes another"
)]
pub struct Standing {
    /// The policy's mode.
    #[serde(default)]
    pub mode: Mode,
    /// Whether another policy of the same priority selects the node.
    #[serde(default, skip_serializing_if = "is_not")]
    pub conflict: bool,
    /// Whether a pause covers the node.
    #[serde(default, skip_serializing_if = "is_not")]
    pub paused: bool,
    /// When the node is old enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mature_at: Option<Timestamp>,
    /// What a person approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Until when a person took it out of nodemend's hands; the end of time if that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opted_out_until: Option<Timestamp>,
    /// Whether its taints say that somebody else takes it away.
    #[serde(default, skip_serializing_if = "is_not")]
    pub taken_by_other: bool,
    /// Whether it is cordoned, and not by nodemend.
    #[serde(default, skip_serializing_if = "is_not")]
    pub cordoned_by_other: bool,
    /// Whether the object is being deleted.
    #[serde(default, skip_serializing_if = "is_not")]
    pub deleting: bool,
    /// Whether Alertmanager, which may know of silences, does not answer.
    #[serde(default, skip_serializing_if = "is_not")]
    pub silences_unknown: bool,
    /// Whether the list of nodes is old or empty.
    #[serde(default, skip_serializing_if = "is_not")]
    pub nodes_stale: bool,
    /// Whether its last repair asks for a person.
    #[serde(default, skip_serializing_if = "is_not")]
    pub needs_human: bool,
    /// Whether a person took its last repair away.
    #[serde(default, skip_serializing_if = "is_not")]
    pub repair_deleted: bool,
    /// Whether nothing is known that could replace it.
    #[serde(default, skip_serializing_if = "is_not")]
    pub no_owner: bool,
    /// Whether a silence covers the node as a whole; of interest if a person asks.
    #[serde(default, skip_serializing_if = "is_not")]
    pub silenced: bool,
}

/// A repair that a person asks for, as the node's annotation has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepairRequest {
    /// The UID of the node that is meant: a reborn node is another.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// When it was asked for.
    pub at: Timestamp,
    /// Until when that holds, a day later at most.
    pub until: Timestamp,
    /// Who asks, as they say.
    #[schemars(length(max = 256))]
    pub by: String,
    /// Why.
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Guards that are not to hold it.
    #[serde(rename = "override", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub overrides: Vec<Reason>,
}

/// A person's approval of one repair, as the node's annotation has it. Another policy, fault or
/// action is another repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approval {
    /// The UID of the node that is meant: a reborn node is another.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The policy that waits.
    #[schemars(length(max = 253))]
    pub policy: String,
    /// The fault.
    #[schemars(length(max = 63))]
    pub fault: String,
    /// What is to be done about it.
    pub action: Action,
    /// When it was approved.
    pub at: Timestamp,
    /// Until when that holds, a day later at most.
    pub until: Timestamp,
    /// Who approves, as they say.
    #[schemars(length(max = 256))]
    pub by: String,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_not(flag: &bool) -> bool {
    !*flag
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_warning(severity: &Severity) -> bool {
    matches!(severity, Severity::Warning)
}

impl FaultInput {
    /// Whether there is something to do about it, as far as it is known. Where a repair rests,
    /// the node is cordoned already.
    pub fn is_open(&self, rests: bool) -> bool {
        self.truth != Truth::True
            || self
                .action
                .is_some_and(|action| !(rests && action == Action::Cordon))
    }
}
