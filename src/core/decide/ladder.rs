//! Which action of a fault is next on a node, from the records of its repairs alone.
//!
//! The first that was not tried. A reboot was tried if one was asked for, whatever the fault
//! that it was for, unless the fault of now began an hour or more after that repair ended: a
//! node that was well for so long begins at the first action again. A cordon and a
//! replacement are the last of their ladder, and are never used up: a cordon holds while the
//! fault lasts, a replacement ends the node or asks for a person.

use jiff::Timestamp;

use crate::api::{Action, NodeRepair, Step};
use crate::config::Fault;
use crate::model::Span;

/// A node that was well for this long begins at the first action again.
const WELL: Span = Span::minutes(60);

/// The next action for a fault that is true since then; none if all were tried.
pub(super) fn next(
    fault: &Fault,
    uid: &str,
    since: Timestamp,
    repairs: &[NodeRepair],
) -> Option<Action> {
    let tried = |action: Action| {
        let of =
            |repair: &&NodeRepair| repair.spec.node_uid == uid && repair.spec.plan.action == action;
        repairs.iter().filter(of).any(|one| counts(one, since))
    };
    let mut actions = fault.actions.iter().copied();
    actions.find(|action| !tried(*action))
}

fn counts(repair: &NodeRepair, since: Timestamp) -> bool {
    let status = repair.status.as_ref();
    let reason = status.and_then(|status| status.reason);
    let asked = repair.last(Step::Reboot).is_some();
    let ended = status.and_then(|status| status.ended);
    (asked || repair.at_rest() && reason.is_some())
        && ended.is_none_or(|ended| WELL.after(ended) > since)
}

/// What follows an action in the ladder of its fault.
pub(super) fn after(fault: &Fault, action: Action) -> Option<Action> {
    let mut actions = fault.actions.iter().copied();
    actions.find(|one| *one == action)?;
    actions.next()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, policy, repair};
    use super::*;
    use crate::api::{Entry, GaveUp, Intent, Mode, Outcome, Phase};

    const LADDER: [Action; 2] = [Action::Reboot, Action::Replace];

    fn check(actions: &[Action], records: &[NodeRepair], since: i64, expect: Option<Action>) {
        let mut fault = policy("p", Mode::Enforce, 0).faults.remove(0);
        fault.actions = actions.to_vec();
        let found = next(&fault, "n", at(since), records);
        assert_eq!(found, expect, "{actions:?} since {since}: {records:#?}");
    }

    /// A repair by reboot that began at 0 and ended at 1000; with or without the request.
    fn rebooted(phase: Phase, asked: bool) -> NodeRepair {
        let mut record = repair("n", 0, phase);
        record.spec.plan.action = Action::Reboot;
        record.spec.plan.then = Some(Action::Replace);
        let status = record.status.as_mut().unwrap();
        if asked {
            status.journal.push(Entry {
                intent: Intent {
                    step: Step::Reboot,
                    at: at(500),
                    ..record.spec.quarantine.clone()
                },
                failures: 0,
                last_failure: None,
                held: None,
                outcome: None,
            });
        }
        (status.phase, status.ended) = (phase, phase.terminal().then(|| at(1000)));
        record
    }

    #[test]
    fn each_action_follows_the_ones_that_were_tried() {
        check(&LADDER, &[], 0, Some(Action::Reboot));
        check(&[Action::Cordon], &[], 0, Some(Action::Cordon));
        for phase in [Phase::Succeeded, Phase::Escalated] {
            let record = [rebooted(phase, true)];
            check(&LADDER, &record, 1200, Some(Action::Replace));
            check(
                &[Action::Reboot, Action::Cordon],
                &record,
                0,
                Some(Action::Cordon),
            );
            check(&[Action::Reboot], &record, 1200, None);
        }
        // Given up before the request, or of another node.
        check(
            &LADDER,
            &[rebooted(Phase::Aborted, false)],
            1200,
            Some(Action::Reboot),
        );
        let mut recovered = rebooted(Phase::Aborted, false);
        recovered.status.as_mut().unwrap().reason = Some(GaveUp::Recovered);
        check(&LADDER, &[recovered], 1200, Some(Action::Reboot));
        let mut other = rebooted(Phase::Succeeded, true);
        other.spec.node_uid = "o".into();
        check(&LADDER, &[other], 1200, Some(Action::Reboot));
    }

    #[test]
    fn what_follows_an_action_is_the_next_of_its_ladder() {
        let mut fault = policy("p", Mode::Enforce, 0).faults.remove(0);
        fault.actions = LADDER.to_vec();
        let found = [Action::Reboot, Action::Replace, Action::Cordon].map(|of| after(&fault, of));
        assert_eq!(found, [Some(Action::Replace), None, None]);
    }

    #[test]
    fn a_node_that_was_well_for_an_hour_begins_at_the_first_action() {
        let record = [rebooted(Phase::Succeeded, true)];
        check(&LADDER, &record, 1000 + 3599, Some(Action::Replace));
        check(&LADDER, &record, 1000 + 3600, Some(Action::Reboot));
        // One that still rests was tried, however long ago.
        let mut rests = rebooted(Phase::Rebooting, true);
        check(&LADDER, &[rests.clone()], 100_000, Some(Action::Replace));
        let status = rests.status.as_mut().unwrap();
        status.reason = Some(GaveUp::NotVerified);
        status.journal.last_mut().unwrap().outcome = Some(Outcome {
            at: at(1500),
            done: false,
            detail: String::new(),
        });
        assert!(rests.at_rest());
        check(&LADDER, &[rests], 100_000, Some(Action::Replace));
    }

    #[test]
    fn cordons_and_replacements_are_not_used_up() {
        for action in [Action::Cordon, Action::Replace] {
            let mut record = repair("n", 0, Phase::Aborted);
            record.spec.plan.action = action;
            check(&[action], &[record], 10, Some(action));
        }
    }
}
