//! Gathers what a verdict rests on from evidence and records.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    Told, Verdict, World, approval, by_hand, ladder, only_suspended, opted_out_until, unsettled,
    was_deleted,
};
use crate::api::{
    BY_HAND, Decision, FaultInput, GuardRecord, Inputs, MAX_DECISIONS, NodeRepair, OpenRepair,
    Phase, SilenceRecord, Standing,
};
use crate::config::{Confirm, Policy};
use crate::evidence::probe::Opinion;
use crate::model::{NodeView, QUARANTINE_ANNOTATION, Span, Truth, VerdictKind};

/// What is gathered, and what is kept beside it for the record.
#[derive(Default)]
pub(super) struct Gathered {
    pub inputs: Inputs,
    /// Of each fault that is true, the silences that hold it.
    silences: Vec<(String, Vec<SilenceRecord>)>,
}

impl Gathered {
    /// All that counts where a policy was refused.
    pub fn refused(policy: &Policy, node: &NodeView, world: &World<'_>, now: Timestamp) -> Self {
        let inputs = Inputs {
            policy: policy.name.clone(),
            refused: true,
            request: by_hand::request(node, world, now),
            ..Inputs::default()
        };
        Self {
            inputs,
            silences: Vec::new(),
        }
    }

    /// The silences that hold a fault.
    pub fn silences(&mut self, fault: &str) -> Vec<SilenceRecord> {
        let mut all = self.silences.iter_mut();
        let found = all.find(|(name, _)| name == fault);
        found
            .map(|(_, silences)| std::mem::take(silences))
            .unwrap_or_default()
    }
}

/// What the verdict on a node rests on whose policy was accepted; none if it is plainly
/// healthy: then there is nothing to gather.
pub(super) fn gather<'a>(
    node: &NodeView,
    policies: &[&Policy],
    told: impl Iterator<Item = &'a Told<'a>>,
    world: &World<'_>,
    now: Timestamp,
) -> Option<Gathered> {
    let policy = policies[0];
    let open = world.repairs.iter();
    let open = open.filter(|repair| repair.spec.node_uid == node.uid && repair.open());
    let mut gathered = Gathered::default();
    let open = open.max_by_key(|repair| (repair.spec.ordinal, repair.name()));
    if let Some(open) = open {
        gathered.inputs.repair = Some(OpenRepair {
            name: open.name().to_owned(),
            fault: open.spec.fault.clone(),
            since: open.spec.fault_since,
            at_rest: open.at_rest(),
        });
        let silences = super::silences(node, open, world, now);
        gathered.silences.push((open.spec.fault.clone(), silences));
    }
    let free = open.is_none_or(NodeRepair::at_rest);
    if free {
        for told in told.filter(|told| told.truth != Truth::False) {
            gather_fault(&mut gathered, node, told, world, now);
        }
    }
    let inputs = &mut gathered.inputs;
    inputs.request = by_hand::request(node, world, now);
    if inputs.repair.is_none() && inputs.faults.is_empty() && inputs.request.is_none() {
        return None;
    }
    inputs.policy.clone_from(&policy.name);
    let due = |fault: &FaultInput| {
        let since = fault.since.unwrap_or(now).min(now);
        fault.truth == Truth::True && fault.for_.after(since) <= now
    };
    if free && (inputs.request.is_some() || inputs.faults.iter().any(due)) {
        let asked = inputs.request.is_some();
        inputs.standing = Some(standing(node, policies, world, now));
        if asked {
            let silences = world
                .evidence
                .silences(node, policy, BY_HAND, world.rules, now, &[]);
            if let Some(standing) = &mut inputs.standing {
                standing.silenced = !silences.is_empty();
            }
            gathered.silences.push((BY_HAND.into(), silences));
        }
    }
    Some(gathered)
}

fn gather_fault(
    gathered: &mut Gathered,
    node: &NodeView,
    told: &Told<'_>,
    world: &World<'_>,
    now: Timestamp,
) {
    let (policy, fault) = (told.policy, told.fault);
    let holding = match told.truth {
        Truth::True => world
            .evidence
            .silences(node, policy, &fault.name, world.rules, now, &[]),
        _ => Vec::new(),
    };
    gathered.inputs.faults.push(FaultInput {
        name: fault.name.clone(),
        truth: told.truth,
        since: told.since,
        for_: fault.for_,
        severity: fault.severity,
        silenced: !holding.is_empty(),
        suspended: told.truth == Truth::Unknown && only_suspended(node, told, world, now),
        unsettled: unsettled(node, policy, &fault.name, world, now),
        action: told.rung,
        then: told.rung.and_then(|action| ladder::after(fault, action)),
        confirmed: fault
            .confirm
            .as_ref()
            .map(|confirm| opinion(node, confirm, world, now)),
        when: String::new(),
        leaves: Vec::new(),
    });
    gathered.silences.push((fault.name.clone(), holding));
}

fn opinion(node: &NodeView, confirm: &Confirm, world: &World<'_>, now: Timestamp) -> Truth {
    match world.evidence.opinion(&node.uid, confirm, now) {
        Some(Opinion::Confirmed) => Truth::True,
        Some(Opinion::Refuted) => Truth::False,
        Some(Opinion::Unknown) | None => Truth::Unknown,
    }
}

/// What the guards look at that look at the node alone.
fn standing(node: &NodeView, policies: &[&Policy], world: &World<'_>, now: Timestamp) -> Standing {
    let policy = policies[0];
    let mut pauses = world.pauses.iter();
    let mine = |repair: &&NodeRepair| repair.spec.node_uid == node.uid;
    let repairs = world.repairs.iter().filter(mine);
    let last = repairs.max_by_key(|repair| (repair.spec.ordinal, repair.name()));
    let limits = world.limits;
    let starting = world.evidence.is_starting(node, limits.startup_grace, now);
    let grace = if starting {
        limits.startup_grace
    } else {
        Span::default()
    };
    let mature_at = limits.min_node_age.max(grace).after(node.created);
    Standing {
        mode: policy.mode,
        conflict: policies.len() > 1,
        paused: pauses.any(|pause| pause.covers(Some(node), &policy.name, now)),
        mature_at: (mature_at > now).then_some(mature_at),
        approval: approval::approval(node, world, now),
        opted_out_until: opted_out_until(node),
        taken_by_other: node.taken_by_other(),
        cordoned_by_other: node.unschedulable
            && !node.annotations.contains_key(QUARANTINE_ANNOTATION),
        deleting: node.deleting,
        silences_unknown: world.evidence.silences_unknown(now),
        nodes_stale: !world.evidence.nodes_fresh(now),
        needs_human: last.is_some_and(|repair| repair.phase() == Phase::NeedsHuman),
        repair_deleted: was_deleted(world, &node.uid, |at| super::DELETED_HOLDS.after(at) > now),
        no_owner: node.instance_id().is_none(),
        silenced: false,
    }
}

/// A verdict as its node's record keeps it, with those of the guards that held it.
pub fn decision(verdict: &Verdict, guards: &[GuardRecord], now: Timestamp) -> Decision {
    let mut inputs = match &verdict.inputs {
        Some(inputs) => Inputs::clone(inputs),
        None => Inputs {
            policy: verdict.policy.to_string(),
            ..Inputs::default()
        },
    };
    if verdict.kind == VerdictKind::Held {
        let held = |guard: &&GuardRecord| {
            verdict.scopes.contains(&guard.scope) && verdict.reasons.contains(&guard.reason)
        };
        inputs.guards = guards.iter().filter(held).cloned().collect();
    }
    Decision {
        at: now,
        verdict: verdict.kind,
        fault: verdict.fault.clone(),
        since: verdict.since,
        reasons: verdict.reasons.clone(),
        inputs,
    }
}

/// The longest text of a combination that is kept, in bytes.
const MAX_WHEN: usize = 2048;

/// Adds to a decision what the fault that leads is a combination of, and what each part of
/// that came to.
pub fn detail(decision: &mut Decision, node: &NodeView, world: &World<'_>) {
    let Some(policy) = world.policy(&decision.inputs.policy) else {
        return;
    };
    let mut faults = decision.inputs.faults.iter_mut();
    let leads = faults.find(|fault| fault.name == decision.fault);
    let Some((fault, when)) = leads.and_then(|fault| {
        let when = policy.when(&fault.name)?;
        Some((fault, when))
    }) else {
        return;
    };
    let text = serde_json::to_string(when).ok();
    if let Some(text) = text.filter(|text| text.len() <= MAX_WHEN) {
        fault.when = text;
        let (evidence, rules) = (world.evidence, world.rules);
        fault.leaves = evidence.leaves(node, policy, when, rules, decision.at);
    }
}

/// The longest that the decisions of one record are, in bytes of JSON.
const MAX_BYTES: usize = 64 * 1024;

/// Adds a decision to those on record, of which the oldest go.
pub fn remember(decisions: &mut Vec<Decision>, new: Decision) {
    decisions.push(new);
    let size = |one: &Decision| serde_json::to_vec(one).map_or(0, |text| text.len());
    let mut room = MAX_BYTES;
    let fits = |one: &&Decision| {
        let rest = room.checked_sub(size(one));
        room = rest.unwrap_or(0);
        rest.is_some()
    };
    let kept = decisions.iter().rev().take(MAX_DECISIONS).take_while(fits);
    let kept = kept.count().max(1);
    decisions.drain(..decisions.len() - kept);
}

/// Holds a due verdict since no plan could be made.
pub fn unplanned(verdict: &mut Verdict, reason: crate::model::Reason) {
    verdict.kind = VerdictKind::Held;
    verdict.reasons = vec![reason];
    if let Some(inputs) = &mut verdict.inputs {
        Arc::make_mut(inputs).unplanned = Some(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Action, Severity};
    use crate::decide::tests::at;
    use crate::model::{Reason, Span};

    fn decision(faults: usize, guards: usize) -> Decision {
        let fault = |number| FaultInput {
            name: format!("{number:063}"),
            truth: Truth::Unknown,
            since: Some(at(0)),
            for_: Span::minutes(10),
            severity: Severity::Critical,
            silenced: true,
            suspended: true,
            unsettled: true,
            action: Some(Action::Reboot),
            then: Some(Action::Replace),
            confirmed: Some(Truth::Unknown),
            when: if number == 1 {
                "x".repeat(300)
            } else {
                String::new()
            },
            leaves: vec![Truth::Unknown; if number == 1 { 6 } else { 0 }],
        };
        let guard = |number| GuardRecord {
            scope: format!("budget/general/{number:063}/pool/general"),
            reason: Reason::Budget,
            limit: 10,
            current: 10,
            until: Some(at(600)),
        };
        Decision {
            at: at(0),
            verdict: VerdictKind::Held,
            fault: format!("{:063}", 1),
            since: Some(at(0)),
            reasons: vec![Reason::Budget],
            inputs: Inputs {
                policy: "general".into(),
                faults: (0..faults).map(fault).collect(),
                standing: Some(Standing::default()),
                guards: (0..guards).map(guard).collect(),
                ..Inputs::default()
            },
        }
    }

    #[test]
    fn records_stay_small_and_keep_the_newest() {
        // A usual hold, and the largest that there can be.
        for (faults, guards, most, count) in [(2, 3, 1800, 20), (32, 21, 16_500, 4)] {
            let size = |one: &Decision| serde_json::to_string(one).unwrap().len();
            assert!(
                size(&decision(faults, guards)) <= most,
                "{}",
                size(&decision(faults, guards))
            );
            let mut kept = Vec::new();
            for second in 0..30 {
                let at = at(second);
                remember(
                    &mut kept,
                    Decision {
                        at,
                        ..decision(faults, guards)
                    },
                );
            }
            assert!(
                kept.len() >= count && kept.len() <= MAX_DECISIONS,
                "{}",
                kept.len()
            );
            assert!(kept.iter().map(size).sum::<usize>() <= MAX_BYTES);
            assert_eq!(kept.last().unwrap().at, at(29));
        }
    }
}
