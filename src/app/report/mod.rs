//! What people read of the cluster's records: why a node is not repaired, how the fleet is,
//! what was repaired. Pure: from records to a report, which is told as text or as JSON.

mod alone;
mod explain;
mod lead;
mod pauses;
mod status;
#[cfg(test)]
mod tests;

pub use alone::LeftAlone;
pub use explain::{Explanation, Hold, explain, hold_by_hand, next_action};
pub use lead::{Lead, Leader, NoLeader};
pub use pauses::{covered, nodes};
pub use status::{Status, status};

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use nodemend_core::api::{
    FleetState, GaveUp, NodeHealth, NodeRepair, Phase, RepairPause, RepairPolicy,
};
use nodemend_core::decide::by_hand::overridable;
use nodemend_core::model::{NodeView, Reason, Span};
use serde::Serialize;

/// What is on record.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Of nodes that are not plainly healthy.
    pub healths: Vec<NodeHealth>,
    /// Of the fleet as a whole.
    pub fleet: Option<FleetState>,
    /// Of repairs.
    pub repairs: Vec<NodeRepair>,
    /// Policy objects; policies in files are on no record.
    pub policies: Vec<RepairPolicy>,
    /// Pauses.
    pub pauses: Vec<RepairPause>,
    /// The nodes that are there, if they may be listed.
    pub nodes: Option<Vec<NodeView>>,
    /// Who leads.
    pub lead: Lead,
}

/// One repair in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepairLine {
    /// Its name.
    pub name: String,
    /// The node.
    pub node: String,
    /// The policy.
    pub policy: String,
    /// The fault.
    pub fault: String,
    /// Where it is.
    pub phase: Phase,
    /// Why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<GaveUp>,
    /// What is waited for, or how it ended.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it started.
    pub started: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The new node, or its instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// Who asked for it and why, if a person did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<Requested>,
    /// Who approved it, if its policy waits for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved: Option<String>,
}

/// A person's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requested {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Repairs, the newest first; of one node, if it is named.
pub fn history(repairs: &[NodeRepair], node: Option<&str>, most: usize) -> Vec<RepairLine> {
    let wanted = |repair: &&NodeRepair| node.is_none_or(|name| repair.spec.node_name == name);
    let mut lines: Vec<RepairLine> = repairs.iter().filter(wanted).map(line).collect();
    lines.sort_by(|one, other| (other.started, &one.name).cmp(&(one.started, &other.name)));
    lines.truncate(most);
    lines
}

fn line(repair: &NodeRepair) -> RepairLine {
    let status = repair.status.as_ref();
    let replacement = status.and_then(|status| status.replacement.as_ref());
    let requested = repair.spec.request.as_ref().map(|request| Requested {
        by: request.by.clone(),
        reason: request.reason.clone(),
    });
    RepairLine {
        name: repair.name().to_owned(),
        node: repair.spec.node_name.clone(),
        policy: repair.spec.policy.clone(),
        fault: repair.spec.fault.clone(),
        phase: repair.phase(),
        reason: status.and_then(|status| status.reason),
        message: repair.message().to_owned(),
        started: repair.spec.quarantine.at,
        ended: status.and_then(|status| status.ended),
        replacement: replacement.map(|new| {
            let name = Some(&new.node_name).filter(|name| !name.is_empty());
            name.unwrap_or(&new.instance_id).clone()
        }),
        requested,
        approved: repair.spec.approval.as_ref().map(|one| one.by.clone()),
    }
}

/// Lines of text; what others wrote in them cannot steer a terminal.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    fn line(&mut self, args: fmt::Arguments<'_>) {
        let line = args.to_string();
        let shown = line.trim_end().chars();
        let shown = shown.map(|c| if c.is_control() { '\u{fffd}' } else { c });
        self.0.extend(shown);
        self.0.push('\n');
    }

    /// A heading with an empty line before it.
    fn heading(&mut self, text: &str) {
        self.0.push('\n');
        self.line(format_args!("{text}"));
    }

    /// Rows under each other, each column as wide as its widest cell.
    fn table(&mut self, rows: &[Vec<String>]) {
        let mut widths: Vec<usize> = Vec::new();
        for row in rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in rows {
            let mut text = String::new();
            for (cell, width) in row.iter().zip(widths.iter().copied()) {
                let _ = write!(text, "  {cell:<width$}");
            }
            self.line(format_args!("{text}"));
        }
    }
}

/// Repairs as a person reads them.
pub fn history_text(lines: &[RepairLine], now: Timestamp) -> String {
    let mut text = Text::default();
    if lines.is_empty() {
        text.line(format_args!("no repair is on record"));
    }
    text.repairs(lines, now);
    text.0
}

impl Text {
    fn repairs(&mut self, lines: &[RepairLine], now: Timestamp) {
        let rows: Vec<Vec<String>> = lines.iter().map(|line| repair_cells(line, now)).collect();
        self.table(&rows);
    }
}

fn repair_cells(line: &RepairLine, now: Timestamp) -> Vec<String> {
    let took = match line.ended {
        Some(ended) => format!(
            "{} (took {})",
            time(line.started),
            lasted(line.started, ended)
        ),
        None => since(line.started, now),
    };
    let mut end = match line.reason {
        Some(reason) => format!("{:?} {reason:?}", line.phase),
        None => format!("{:?}", line.phase),
    };
    if !line.message.is_empty() {
        let _ = write!(end, ": {}", line.message);
    }
    if let Some(new) = &line.replacement {
        let _ = write!(end, ", replaced by {new}");
    }
    if let Some(asked) = &line.requested {
        let _ = write!(end, ", asked for by {}: {}", asked.by, asked.reason);
    }
    if let Some(by) = &line.approved {
        let _ = write!(end, ", approved by {by}");
    }
    let name = line.name.clone();
    vec![took, line.node.clone(), line.fault.clone(), name, end]
}

/// A time in UTC, to the second.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// How long it is from one time to the other; from an hour on, to the minute.
fn lasted(from: Timestamp, to: Timestamp) -> Span {
    let seconds = to.duration_since(from).as_secs().max(0);
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    Span::seconds(if seconds >= 3600 {
        seconds - seconds % 60
    } else {
        seconds
    })
}

/// `2026-01-01T00:00:00Z (4m)`
fn since(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", time(at), lasted(at, now))
}

/// What would have to change for a reason to hold no longer, to be read after its name.
fn remedy(reason: Reason) -> &'static str {
    match reason {
        Reason::Paused => "the pause ends, or `nodemend resume`",
        Reason::ObserveMode => "the policy's mode becomes Enforce or Approve",
        Reason::OptedOut => "the annotation nodemend.dev/do-not-repair is taken off, or ends",
        Reason::Silenced => "the silence ends in Alertmanager",
        Reason::SilencesUnknown => "Alertmanager answers again",
        Reason::PolicyConflict => "one of the policies of this priority selects the node no more",
        Reason::EvidenceUnknown => "the sources of the fault's signals are heard again",
        Reason::Contradicted => "the node's kubelet stops renewing its Lease, or is Ready again",
        Reason::Unconfirmed => "the node's own exporter answers the policy's `confirm`",
        Reason::Refuted => "the node's own exporter confirms the fault",
        Reason::NodesStale => "the API server gives a list of nodes",
        Reason::CordonedByOther => "whoever cordoned the node uncordons it",
        Reason::NodeDeleting => "nothing: the node object is being deleted",
        Reason::InFlight => "a repair that runs ends",
        Reason::RateLimit => "an earlier start is old enough",
        Reason::ClusterBreaker => {
            "fewer nodes of the cluster are sick or fell sick lately; while one at a time may be repaired, that the one that runs ends"
        }
        Reason::ZoneBreaker => {
            "fewer nodes of the zone are sick or fell sick lately; while one at a time may be repaired, that the one that runs ends"
        }
        Reason::PoolBreaker => {
            "fewer nodes of the pool are sick or fell sick lately; while one at a time may be repaired, that the one that runs ends"
        }
        Reason::NeedsHuman => {
            "a person mends it, or has it tried again by `nodemend repair --override NeedsHuman`: the last repair gave up, or all actions were tried"
        }
        Reason::NoOwner => "the node has a providerID of an instance that can be replaced",
        Reason::NotOurInstance => "the instance carries the cluster's tag",
        Reason::OwnedByOther => "nothing else replaces the instance when it ends",
        Reason::CloudUnavailable => "the cloud answers again",
        Reason::PolicyRefused => "the policy's mistakes are mended: `kubectl get rpol -o yaml`",
        Reason::RepairDeleted => {
            "an hour passes since the repair began that a person took away, or `nodemend repair --override RepairDeleted`"
        }
        Reason::AwaitingApproval => "`nodemend approve` of this node, for this fault and action",
        Reason::TooYoung => {
            "the node is older than limits.minNodeAge, and was Ready once or is older than limits.startupGrace"
        }
        Reason::OtherActor => "whoever takes the node away takes its taint off",
        Reason::RuleSuspended => "the rule fires on no more than half of its nodes for a while",
        Reason::Budget => "the policy's budget has room again",
        Reason::OutsideWindow => "a window of the policy opens",
        Reason::PoolBackoff => "the pool was left alone for long enough",
        Reason::PoolStopped => {
            "fewer nodes of the pool ask for a person: one counts no more once it is Ready, uncordoned and without a fault, or gone, or is tried again by `nodemend repair --override NeedsHuman`"
        }
    }
}

/// The overrides that would ignore these holds, as the command line has them.
fn overrides(reasons: &[Reason]) -> String {
    let can = reasons.iter().filter(|reason| overridable(**reason));
    can.fold(String::new(), |flags, reason| {
        flags + " --override " + &reason.to_string()
    })
}
