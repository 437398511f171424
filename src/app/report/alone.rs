//! Why a node is left alone whatever is wrong with it, as far as policy objects tell.

use std::fmt;

use nodemend_core::api::{ConditionStatus, RepairPolicy, StatusCondition};
use nodemend_core::model::NodeView;
use serde::Serialize;

/// Why a node is left alone. Policies in files are not seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "why", rename_all_fields = "camelCase")]
pub enum LeftAlone {
    /// No object selects it.
    NoPolicy,
    /// The object that speaks for it is refused.
    PolicyRefused {
        /// The object.
        policy: String,
        /// What is wrong with it.
        mistakes: String,
    },
    /// nodemend did not say yet whether it accepts the object that speaks for it.
    PolicyNotAccepted {
        /// The object.
        policy: String,
    },
    /// It is of the control plane, and the object that speaks for it leaves that alone.
    ControlPlane {
        /// The object.
        policy: String,
    },
}

/// Why this node is left alone, if these policies tell.
pub(super) fn left_alone(node: &NodeView, policies: &[RepairPolicy]) -> Option<LeftAlone> {
    let selects = |one: &&RepairPolicy| one.spec.node_selector.matches(&node.labels);
    // One whose name a file has speaks for nobody. Of one priority, a refused one holds all.
    let rank = |one: &&RepairPolicy| {
        let refused = refused(one);
        let named = refused.is_none_or(|condition| condition.reason != "NameTaken");
        (named, one.spec.priority, refused.is_some())
    };
    let Some(speaks) = policies.iter().filter(selects).max_by_key(rank) else {
        return Some(LeftAlone::NoPolicy);
    };
    let policy = speaks.metadata.name.clone().unwrap_or_default();
    if let Some(condition) = refused(speaks) {
        let mistakes = condition.message.clone();
        return Some(LeftAlone::PolicyRefused { policy, mistakes });
    }
    if accepted(speaks).is_none() {
        return Some(LeftAlone::PolicyNotAccepted { policy });
    }
    let opted_in = speaks.spec.control_plane || !node.control_plane();
    (!opted_in).then_some(LeftAlone::ControlPlane { policy })
}

fn refused(policy: &RepairPolicy) -> Option<&StatusCondition> {
    accepted(policy).filter(|condition| condition.status == ConditionStatus::False)
}

fn accepted(policy: &RepairPolicy) -> Option<&StatusCondition> {
    let mut conditions = policy.status.as_ref()?.conditions.iter();
    conditions.find(|condition| condition.type_ == "Accepted")
}

impl fmt::Display for LeftAlone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => f.write_str(
                "no RepairPolicy object selects it; policies from files are not seen from here",
            ),
            Self::PolicyRefused { policy, mistakes } => {
                write!(
                    f,
                    "RepairPolicy {policy} selects it and is refused: {mistakes}"
                )
            }
            Self::PolicyNotAccepted { policy } => {
                write!(
                    f,
                    "RepairPolicy {policy} selects it and is not accepted yet"
                )
            }
            Self::ControlPlane { policy } => write!(
                f,
                "it is of the control plane, which RepairPolicy {policy} leaves alone \
                 (controlPlane: true opts it in)"
            ),
        }
    }
}
