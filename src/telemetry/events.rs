//! What happens to nodes and repairs: one function per event, for its log line
//! and its metrics together.

use nodemend_core::api::{NodeRepair, NodeRepairStatus, Phase};
use nodemend_core::decide::Verdict;
use nodemend_core::model::VerdictKind;
use tracing::info;

use super::metrics::{Labels, Metrics, label};
use super::spans::{Stage, seconds};
use super::{About, Notice};

/// A verdict is another than before. People hear of a repair that is held.
pub(super) fn verdict_changed(
    verdict: &Verdict,
    before: VerdictKind,
    metrics: &Metrics,
) -> Option<Notice> {
    metrics
        .decisions
        .get_or_create(&label("verdict", verdict.kind))
        .inc();
    let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
    info!(
        node = verdict.node,
        uid = verdict.uid,
        verdict = ?verdict.kind,
        ?before,
        reasons = reasons.join(","),
        fault = verdict.fault,
        policy = &*verdict.policy,
        "verdict changed"
    );
    let silences = verdict.silences.iter();
    let silences = silences.map(|one| format!("silence {} by {}", one.id, one.created_by));
    let why: Vec<String> = reasons.into_iter().chain(silences).collect();
    (verdict.kind == VerdictKind::Held).then(|| Notice {
        about: About::Node {
            name: verdict.node.clone(),
            uid: verdict.uid.clone(),
        },
        reason: "RepairHeld",
        note: format!("{} is not repaired: {}", verdict.fault, why.join(", ")),
        warning: true,
    })
}

/// A repair began.
pub(super) fn repair_started(repair: &NodeRepair, metrics: &Metrics) -> Notice {
    let spec = &repair.spec;
    metrics
        .repairs_started
        .get_or_create(&kind_of(repair))
        .inc();
    info!(
        repair = repair.name(),
        node = spec.node_name,
        uid = spec.node_uid,
        fault = spec.fault,
        policy = spec.policy,
        action = ?spec.plan.action,
        strategy = strategy(repair),
        "repair started"
    );
    Notice {
        about: About::Node {
            name: spec.node_name.clone(),
            uid: spec.node_uid.clone(),
        },
        reason: "RepairStarted",
        note: format!(
            "{} for {} of policy {}: {:?}",
            repair.name(),
            spec.fault,
            spec.policy,
            spec.plan.action
        ),
        warning: false,
    }
}

/// A step, or a wait between steps, is over.
pub(super) fn stage_ended(repair: &NodeRepair, stage: &Stage<'_>, metrics: &Metrics) {
    metrics
        .step_duration
        .get_or_create(&vec![("step", stage.part.to_string())])
        .observe(stage.seconds());
    info!(
        repair = repair.name(),
        node = repair.spec.node_name,
        trace_id = trace_id(repair),
        step = %stage.part,
        attempt = stage.attempt,
        target_id = stage.target,
        detail = stage.detail,
        failures = stage.failures,
        seconds = stage.seconds(),
        "{}",
        if stage.done { "step concluded" } else { "step failed" }
    );
}

/// A repair came to its end.
pub(super) fn repair_ended(
    repair: &NodeRepair,
    status: &NodeRepairStatus,
    metrics: &Metrics,
) -> Notice {
    let outcome = label("outcome", status.phase);
    metrics
        .repairs_finished
        .get_or_create(&[kind_of(repair), outcome.clone()].concat())
        .inc();
    let took = status
        .ended
        .map(|ended| (seconds(repair.spec.quarantine.at, ended), ended));
    if let Some((seconds, ended)) = took {
        let exemplar: Labels = vec![("trace_id", status.trace_id.clone())];
        metrics.repair_duration.get_or_create(&outcome).observe(
            seconds,
            Some(exemplar),
            Some(ended.into()),
        );
    }
    info!(
        repair = repair.name(),
        node = repair.spec.node_name,
        trace_id = status.trace_id,
        phase = ?status.phase,
        reason = status.reason.map(tracing::field::debug),
        message_text = status.message,
        seconds = took.map(|(seconds, _)| seconds),
        "repair ended"
    );
    Notice {
        about: About::Repair {
            name: repair.name().to_owned(),
            uid: repair.metadata.uid.clone().unwrap_or_default(),
        },
        reason: match status.phase {
            Phase::Succeeded => "RepairSucceeded",
            Phase::Aborted => "RepairAborted",
            Phase::Escalated => "RepairEscalated",
            _ => "RepairNeedsHuman",
        },
        note: format!("node {} {}", repair.spec.node_name, status.message),
        warning: status.phase != Phase::Succeeded,
    }
}

/// What is done, and by whom.
fn kind_of(repair: &NodeRepair) -> Labels {
    let action = label("action", repair.spec.plan.action);
    [action, vec![("strategy", strategy(repair))]].concat()
}

/// Who replaces the node, or restarts its machine.
pub(super) fn strategy(repair: &NodeRepair) -> String {
    let strategy = repair.spec.plan.strategy;
    strategy.map_or_else(|| "None".into(), |strategy| format!("{strategy:?}"))
}

/// A repair's trace, empty before its first status.
pub(super) fn trace_id(repair: &NodeRepair) -> &str {
    repair.status.as_ref().map_or("", |status| &status.trace_id)
}
