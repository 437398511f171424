//! What a run came to, as one document.

use jiff::Timestamp;
use nodemend_core::api::Phase;
use nodemend_core::model::{Reason, VerdictKind};
use serde::Serialize;

use crate::controller::Report;
use crate::sim::World;

/// What a run came to; the same seed gives the same document, byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// How many nodes there are at the end.
    pub nodes: usize,
    /// Every repair.
    pub repairs: Vec<RepairLine>,
    /// Nodes that a guard held.
    pub held: Vec<HeldLine>,
    /// Nodes of policies that only observe.
    pub observed: Vec<ObservedLine>,
    /// What was checked after every step.
    pub invariants: Invariants,
}

/// One repair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RepairLine {
    /// The node.
    pub node: String,
    /// The fault.
    pub fault: String,
    /// Where it is.
    pub phase: Phase,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; null while open.
    pub ended: Option<Timestamp>,
    /// Its trace.
    pub trace_id: String,
}

/// One held node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeldLine {
    /// The node.
    pub node: String,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// One observed node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObservedLine {
    /// The node.
    pub node: String,
    /// What would have been repaired.
    pub fault: String,
}

/// What was checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Invariants {
    /// How many checks.
    pub checked: u64,
    /// Those that failed.
    pub violated: Vec<String>,
}

/// Sums up a world and the last pass over it.
pub(in crate::app) fn summarize(seed: u64, world: &World, last: Option<&Report>) -> Summary {
    let repairs = world.list_repairs().into_iter().map(|repair| {
        let status = repair.status.clone().unwrap_or_default();
        RepairLine {
            node: repair.spec.node_name,
            fault: repair.spec.fault,
            phase: status.phase,
            started: repair.spec.quarantine.at,
            ended: status.ended,
            trace_id: status.trace_id,
        }
    });
    let mut repairs: Vec<RepairLine> = repairs.collect();
    repairs.sort_by(|one, other| (one.started, &one.node).cmp(&(other.started, &other.node)));
    let verdicts = || {
        last.into_iter()
            .flat_map(|report| &report.verdicts)
            .filter(|verdict| verdict.kind == VerdictKind::Held)
    };
    let observing = |reasons: &[Reason]| reasons.contains(&Reason::ObserveMode);
    let (checked, violated) = world.invariants();
    Summary {
        seed,
        nodes: world.list_nodes().len(),
        repairs,
        held: verdicts()
            .filter(|verdict| !observing(&verdict.reasons))
            .map(|verdict| HeldLine {
                node: verdict.node.clone(),
                reasons: verdict.reasons.clone(),
            })
            .collect(),
        observed: verdicts()
            .filter(|verdict| observing(&verdict.reasons))
            .map(|verdict| ObservedLine {
                node: verdict.node.clone(),
                fault: verdict.fault.clone(),
            })
            .collect(),
        invariants: Invariants { checked, violated },
    }
}
