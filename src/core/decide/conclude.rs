//! From what was gathered of a node to the verdict on it, and, by what its record kept, to
//! the same verdict again.
//!
//! Replayed is all that looks at the node alone: faults, standing, doubts, a person's
//! request. Guards that count over scopes, and the cloud, depend on the fleet: of them the
//! record has what they said with their numbers, and a replay checks that the numbers say so.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::Timestamp;

use super::approval::covers;
use super::by_hand::holds;
use crate::api::{
    Action, BY_HAND, Decision, FaultInput, GuardRecord, Inputs, Mode, RepairRequest, Severity,
    Standing, When,
};
use crate::evidence::combined;
use crate::model::{Reason, Truth, VerdictKind};

/// What inputs come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// The verdict.
    pub kind: VerdictKind,
    /// Why nothing is done; sorted, each once.
    pub reasons: Vec<Reason>,
    /// The leading fault.
    pub fault: String,
    /// How urgent it is.
    pub severity: Severity,
    /// What is to be done about it, and what if that does not help; of due nodes.
    pub action: Option<(Action, Option<Action>)>,
    /// Since when it is true.
    pub since: Option<Timestamp>,
}

/// Comes to the verdict of a record again.
pub fn replay(decision: &Decision) -> Conclusion {
    let mut found = conclude(&decision.inputs, decision.at);
    let observed = found.kind == VerdictKind::Held && found.reasons == [Reason::ObserveMode];
    if found.kind == VerdictKind::Due || observed {
        let guards = decision.inputs.guards.iter();
        let held = guards.filter(|guard| says_no(guard, decision.at));
        let held = held.map(|guard| guard.reason);
        let known = found.reasons.iter().copied();
        let reasons = known.chain(held).chain(decision.inputs.unplanned);
        let reasons: BTreeSet<Reason> = reasons.collect();
        found.reasons = reasons.into_iter().collect();
        if !found.reasons.is_empty() {
            found.kind = VerdictKind::Held;
        }
    }
    found
}

/// Whether a replay comes to what is on record.
pub fn replays(decision: &Decision) -> bool {
    let found = replay(decision);
    (found.kind, &found.fault, found.since, &found.reasons)
        == (
            decision.verdict,
            &decision.fault,
            decision.since,
            &decision.reasons,
        )
        && decision.inputs.faults.iter().all(combines)
}

/// Whether a fault is no truer than what it is a combination of; where that is not kept, or
/// cannot be read, nothing is checked. A lease, or a gap, can make less of it.
fn combines(fault: &FaultInput) -> bool {
    let when = serde_json::from_str::<When>(&fault.when).ok();
    let combined = when.and_then(|when| combined(&when, &fault.leaves));
    combined.is_none_or(|combined| match fault.truth {
        Truth::True => combined == Truth::True,
        Truth::Unknown => combined != Truth::False,
        Truth::False => true,
    })
}

/// Whether the numbers of a guard hold a node: it is spent, and not over yet.
fn says_no(guard: &GuardRecord, at: Timestamp) -> bool {
    guard.current >= guard.limit && guard.until.is_none_or(|until| until >= at)
}

/// The verdict before the guards that count over scopes. Pure: equal inputs, equal verdict.
pub(super) fn conclude(inputs: &Inputs, now: Timestamp) -> Conclusion {
    let mut found = Conclusion {
        kind: VerdictKind::Ignored,
        reasons: Vec::new(),
        fault: String::new(),
        severity: Severity::Warning,
        action: None,
        since: None,
    };
    if inputs.policy.is_empty() {
        return found;
    }
    if inputs.refused {
        found.reasons = vec![Reason::PolicyRefused];
        return found;
    }
    found.kind = VerdictKind::Healthy;
    let open = inputs.repair.as_ref();
    let rests = open.is_some_and(|open| open.at_rest);
    let free = open.is_none() || rests;
    let faults = inputs.faults.iter().filter(|_| free);
    // What can be done goes before what has been tried in vain.
    let left = faults.clone().filter(|fault| fault.is_open(rests));
    let mut leading = lead(&mut found, left, now);
    let request = inputs.request.as_ref();
    let request = request.filter(|request| free && holds(request, now));
    if let Some(request) = request {
        ask(&mut found, request, now);
    }
    if let Some(open) = open.filter(|_| found.kind != VerdictKind::Due) {
        found.kind = VerdictKind::Repairing;
        found.reasons.clear();
        found.fault.clone_from(&open.fault);
        found.severity = Severity::Warning;
        found.since = Some(open.since);
        return found;
    }
    if found.kind != VerdictKind::Due && faults.clone().any(|fault| !fault.is_open(false)) {
        leading = lead(&mut found, faults, now);
    }
    if found.kind == VerdictKind::Due {
        let leading = leading.filter(|_| request.is_none());
        found.action = match leading {
            Some(fault) => fault.action.map(|action| (action, fault.then)),
            None => Some((Action::Replace, None)),
        };
        found.reasons = match &inputs.standing {
            Some(standing) => guard(standing, &inputs.policy, leading, request, now),
            None => Vec::new(),
        };
        // Of what is only observed it is asked too whether it would have been acted on.
        if found.reasons.is_empty() || found.reasons == [Reason::ObserveMode] {
            found.reasons.extend(leading.and_then(doubt));
        }
        if !found.reasons.is_empty() {
            found.kind = VerdictKind::Held;
        }
    }
    found
}

/// Finds the leading fault: a due one before a pending one, one that neither a silence nor
/// the second opinion holds before one that is held, the severe and the old first.
fn lead<'a>(
    found: &mut Conclusion,
    faults: impl Iterator<Item = &'a FaultInput> + Clone,
    now: Timestamp,
) -> Option<&'a FaultInput> {
    found.kind = VerdictKind::Healthy;
    let unknown = faults.clone().filter(|one| one.truth == Truth::Unknown);
    for fault in unknown {
        // A fault that was true, and is no longer known, holds: it is not healthy.
        if found.kind == VerdictKind::Healthy {
            found.kind = VerdictKind::Unknown;
            found.reasons = vec![Reason::EvidenceUnknown];
            found.fault.clone_from(&fault.name);
        }
        if let Some(since) = fault.since {
            found.fault.clone_from(&fault.name);
            found.since = Some(since);
        }
        if found.fault == fault.name {
            if fault.since.is_some() && fault.unsettled {
                found.reasons = vec![Reason::Contradicted];
            } else if fault.suspended {
                found.reasons = vec![Reason::RuleSuspended];
            }
        }
    }
    let truths = faults.filter(|fault| fault.truth == Truth::True);
    let ranked = truths.map(|fault| {
        let since = fault.since.unwrap_or(now).min(now);
        let due = fault.for_.after(since) <= now;
        let held = fault.silenced || (due && doubt(fault).is_some());
        let severity = Reverse(fault.severity);
        ((!due, held, severity, since, &fault.name), fault)
    });
    let ((pending, _, _, since, _), fault) = ranked.min_by(|one, other| one.0.cmp(&other.0))?;
    found.kind = if pending {
        VerdictKind::Pending
    } else {
        VerdictKind::Due
    };
    found.reasons.clear();
    found.fault.clone_from(&fault.name);
    found.severity = fault.severity;
    found.since = Some(since);
    Some(fault)
}

/// A person's request leads. It is as urgent, and as old, as what is due anyway: it must not
/// be in the way of that.
fn ask(found: &mut Conclusion, request: &RepairRequest, now: Timestamp) {
    let due = found.kind == VerdictKind::Due;
    let known = found.since.filter(|_| due).unwrap_or(request.at);
    // The clock of who asks may be ahead.
    found.since = Some(known.min(request.at).min(now));
    if !due {
        found.severity = Severity::Warning;
    }
    found.kind = VerdictKind::Due;
    BY_HAND.clone_into(&mut found.fault);
    found.reasons.clear();
}

/// The guards that look at the node alone.
fn guard(
    standing: &Standing,
    policy: &str,
    leading: Option<&FaultInput>,
    request: Option<&RepairRequest>,
    now: Timestamp,
) -> Vec<Reason> {
    let to_come = |at: Option<Timestamp>| at.is_some_and(|at| at > now);
    let silenced = leading.map_or(standing.silenced, |fault| fault.silenced);
    let unsettled = leading.is_some_and(|fault| fault.unsettled);
    let tried = leading.is_some_and(|fault| fault.action.is_none());
    let cordons = leading.is_some_and(|fault| fault.action == Some(Action::Cordon));
    let next = leading.and_then(|fault| Some((policy, &*fault.name, fault.action?)));
    let approval = standing.approval.as_ref().zip(next);
    let approved = approval.is_some_and(|(approval, next)| covers(approval, next, now));
    let approved = request.is_some() || approved;
    let all = [
        (standing.conflict, Reason::PolicyConflict),
        (standing.paused, Reason::Paused),
        (standing.mode == Mode::Observe, Reason::ObserveMode),
        (
            standing.mode == Mode::Approve && !approved,
            Reason::AwaitingApproval,
        ),
        (to_come(standing.mature_at), Reason::TooYoung),
        (standing.taken_by_other, Reason::OtherActor),
        (to_come(standing.opted_out_until), Reason::OptedOut),
        (standing.silences_unknown, Reason::SilencesUnknown),
        (standing.nodes_stale, Reason::NodesStale),
        (standing.deleting, Reason::NodeDeleting),
        (standing.cordoned_by_other, Reason::CordonedByOther),
        (standing.needs_human || tried, Reason::NeedsHuman),
        (standing.repair_deleted, Reason::RepairDeleted),
        (standing.no_owner && !cordons, Reason::NoOwner),
        (silenced, Reason::Silenced),
        (unsettled, Reason::Contradicted),
    ];
    let ignored = |reason| request.is_some_and(|request| request.overrides.contains(&reason));
    let holding = all.into_iter().filter(|(holds, _)| *holds);
    let holding = holding.map(|(_, reason)| reason);
    let reasons: BTreeSet<Reason> = holding.filter(|reason| !ignored(*reason)).collect();
    reasons.into_iter().collect()
}

/// Why a fault that needs a second opinion is not confirmed.
fn doubt(fault: &FaultInput) -> Option<Reason> {
    match fault.confirmed? {
        Truth::True => None,
        Truth::False => Some(Reason::Refuted),
        Truth::Unknown => Some(Reason::Unconfirmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::tests::{at, fault_input};

    fn fault(name: &str, severity: Severity, confirmed: Option<Truth>) -> FaultInput {
        fault_input(name, at(0), severity, confirmed)
    }

    #[test]
    fn what_its_exporter_does_not_confirm_hides_no_other_fault() {
        use Severity::{Critical, Warning};
        use Truth::{False, True, Unknown};
        use VerdictKind::{Due, Held, Pending};
        let check = |first: FaultInput, second: FaultInput, now: i64, expect: &str, kind| {
            let inputs = Inputs {
                policy: "p".into(),
                faults: vec![first, second],
                standing: Some(Standing {
                    mode: Mode::Enforce,
                    ..Standing::default()
                }),
                ..Inputs::default()
            };
            let found = conclude(&inputs, at(now));
            let what = (found.fault.as_str(), found.kind);
            assert_eq!(what, (expect, kind), "{inputs:#?}");
        };
        let plain = || fault("B", Warning, None);
        for doubt in [False, Unknown] {
            let critical = || fault("A", Critical, Some(doubt));
            check(critical(), plain(), 60, "B", Due);
            // Nothing better: it leads, and is held.
            check(critical(), fault("B", Warning, Some(doubt)), 60, "A", Held);
            let mut silenced = plain();
            silenced.silenced = true;
            check(critical(), silenced, 60, "A", Held);
            // One that is not due hides none either, and none is asked of.
            check(critical(), plain(), 59, "A", Pending);
            let mut later = plain();
            later.since = Some(at(1));
            check(critical(), later, 60, "A", Held);
        }
        check(fault("A", Critical, Some(True)), plain(), 60, "A", Due);
    }
}
