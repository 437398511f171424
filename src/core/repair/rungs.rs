//! The rungs below a replacement: a cordon that stays until the fault is over, and a
//! reboot, which is proven by another bootID and helps only if the fault goes. One that
//! does not help keeps its quarantine on until the next rung takes over.

use jiff::Timestamp;

use super::{
    Change, Command, Next, Observed, PATIENCE, POLL, concluded, disturbed, drained, give_up,
    release,
};
use crate::api::{GaveUp, Intent, NodeRepair, Outcome, Phase, Step};
use crate::model::{NodeView, Span, Truth};

/// How long a request to restart that had no answer may still take effect. Only then is
/// there another one: a second restart of a machine that boots is one too many.
const SETTLES: Span = Span::minutes(5);
/// How often a restart is asked for.
const ATTEMPTS: u32 = 3;
/// How long it may stay unknown whether a fault is gone.
const UNKNOWN: Span = Span::minutes(60);

/// A cordon is all there is to do; it is taken off once the fault is over.
pub(super) fn cordoned(repair: &NodeRepair, observed: &Observed, now: Timestamp) -> Next {
    let released = repair.last(Step::Release).is_some();
    if released {
        return Next::Write(Change::Enter(Phase::Succeeded));
    }
    if observed.superseded {
        return Next::Write(Change::Enter(Phase::Escalated));
    }
    match observed.unwanted() {
        Some((GaveUp::Recovered, _)) => release(repair),
        Some((reason, why)) => give_up(reason, why),
        None => disturbed(repair, observed).unwrap_or_else(|| {
            Next::Wait(
                POLL.after(now),
                "cordoned for as long as the fault lasts".into(),
            )
        }),
    }
}

/// The point of no return. The pods are gone, and nothing holds.
pub(super) fn reboot(repair: &NodeRepair, observed: &Observed, now: Timestamp) -> Next {
    if let Some(disturbed) = disturbed(repair, observed) {
        return disturbed;
    }
    let Some(node) = &observed.node else {
        return give_up(GaveUp::NodeGone, "the node is gone");
    };
    intend(repair, node, 1, now)
}

fn intend(repair: &NodeRepair, node: &NodeView, attempt: u32, now: Timestamp) -> Next {
    if node.boot_id.is_empty() {
        let since = drained(repair).unwrap_or(now);
        if PATIENCE.after(since) <= now {
            return give_up(GaveUp::NotVerified, "the node does not tell its bootID");
        }
        return Next::Wait(
            POLL.after(now),
            "the node does not tell its bootID, which would prove a restart".into(),
        );
    }
    Next::Write(Change::IntendReboot(attempt, node.boot_id.clone()))
}

/// An open intent. One request for each, right after it was committed: what became of one
/// without an answer shows in the bootID, or it had no effect.
pub(super) fn pursue_reboot(
    intent: &Intent,
    observed: &Observed,
    now: Timestamp,
    conclude: impl Fn(bool, &str) -> Next,
) -> Next {
    if let Some(node) = &observed.node
        && rebooted(intent, node)
    {
        return conclude(true, "it booted anew");
    }
    if observed.untried {
        return Next::Act(Command::Reboot(intent.target.clone()));
    }
    let certain = SETTLES.after(intent.at);
    if certain > now {
        return Next::Wait(
            POLL.after(now).min(certain),
            "it is not known yet whether the machine was asked to restart".into(),
        );
    }
    conclude(false, "the machine did not restart")
}

fn rebooted(intent: &Intent, node: &NodeView) -> bool {
    !node.boot_id.is_empty() && node.boot_id != intent.boot_id
}

/// The machine restarts, or has to be asked again.
pub(super) fn rebooting(repair: &NodeRepair, observed: &Observed, now: Timestamp) -> Next {
    if let Some(reborn) = disturbed(repair, observed).filter(|_| observed.reborn) {
        return reborn;
    }
    let Some(asked) = repair.last(Step::Reboot) else {
        return give_up(GaveUp::NotVerified, "no restart is on record");
    };
    let Some(Outcome { at, done, detail }) = &asked.outcome else {
        return Next::Wait(POLL.after(now), String::new());
    };
    if !*done {
        let attempt = asked.intent.attempt + 1;
        let again = super::backoff(attempt + 3).after(*at);
        return match &observed.node {
            _ if attempt > ATTEMPTS => give_up(GaveUp::NotVerified, detail),
            None => give_up(GaveUp::NodeGone, "the node is gone"),
            Some(_) if again > now => Next::Wait(again, detail.clone()),
            // Whoever holds it, holds it also before another try.
            Some(node) => super::gate(observed, now, true)
                .or_else(|| disturbed(repair, observed))
                .unwrap_or_else(|| intend(repair, node, attempt, now)),
        };
    }
    let node = observed.node.as_ref();
    if node.is_some_and(|node| rebooted(&asked.intent, node) && node.ready()) {
        return Next::Write(Change::Enter(Phase::Verifying));
    }
    if PATIENCE.after(*at) <= now {
        return give_up(
            GaveUp::NotVerified,
            "the machine did not come back as a Ready node with another bootID",
        );
    }
    Next::Wait(POLL.after(now), "the machine restarts".into())
}

/// It is back. The restart helped if the fault goes, too; then pods may come again.
pub(super) fn verify(repair: &NodeRepair, observed: &Observed, now: Timestamp) -> Next {
    if repair.last(Step::Release).is_some() {
        return Next::Write(Change::Enter(Phase::Succeeded));
    }
    if let Some(disturbed) = disturbed(repair, observed) {
        return disturbed;
    }
    let Some(node) = &observed.node else {
        return give_up(GaveUp::NodeGone, "the node is gone");
    };
    // Who takes the repair or its policy away does not want the cordon to stay.
    let over = observed.recovered || observed.orphaned || observed.abort;
    if over && node.ready() {
        return release(repair);
    }
    let since = concluded(repair, Step::Reboot).unwrap_or(now);
    let patience = match observed.fault {
        // What is not known, is not known to be still there.
        Truth::Unknown => UNKNOWN,
        Truth::True | Truth::False => PATIENCE,
    };
    if patience.after(since) <= now {
        return give_up(
            GaveUp::NotCured,
            "the machine restarted, the fault is still there",
        );
    }
    Next::Wait(
        POLL.after(now),
        "the machine restarted, the fault is still there or not known".into(),
    )
}

/// What a repair does that did not help: it keeps pods away until the next rung takes over.
/// None for one that is not at rest.
pub(super) fn rest(repair: &NodeRepair, observed: &Observed, now: Timestamp) -> Option<Next> {
    if !repair.at_rest() {
        return None;
    }
    Some(if observed.superseded {
        Next::Write(Change::Enter(Phase::Escalated))
    } else if let Some((reason, why)) = observed.unwanted() {
        give_up(reason, why)
    } else {
        disturbed(repair, observed)
            .unwrap_or_else(|| Next::Wait(POLL.after(now), "waits for the next action".into()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, done, fresh, instance, intend, quarantined, seen, word};
    use super::super::{WAS_UNSCHEDULABLE, apply, next};
    use super::*;
    use crate::api::Action;
    use crate::model::{InstanceState, Reason};

    /// A repair by this action after these changes, one a second.
    fn after(action: Action, then: Option<Action>, changes: Vec<Change>) -> NodeRepair {
        let mut repair = fresh();
        (repair.spec.plan.action, repair.spec.plan.then) = (action, then);
        for (second, change) in (1..).zip(changes) {
            apply(&mut repair, change, 1, at(second));
        }
        repair
    }

    fn check_on(repair: &NodeRepair, observed: &Observed, second: i64, expect: &str) {
        let found = word(&next(repair, observed, at(second)));
        assert_eq!(
            found,
            expect,
            "{:?} at {second}: {observed:#?}",
            repair.phase()
        );
    }

    /// Of a reboot that a replacement would follow.
    fn check(changes: Vec<Change>, observed: &Observed, second: i64, expect: &str) {
        let repair = after(Action::Reboot, Some(Action::Replace), changes);
        check_on(&repair, observed, second, expect);
    }

    fn check_cordon(changes: Vec<Change>, observed: &Observed, expect: &str) {
        check_on(&after(Action::Cordon, None, changes), observed, 10, expect);
    }

    /// All is as it should be, and the machine booted as this.
    fn booted(boot_id: &str) -> Observed {
        let mut observed = seen();
        if let Some(node) = &mut observed.node {
            node.boot_id = boot_id.into();
        }
        observed
    }

    fn recovered() -> Observed {
        Observed {
            fault: Truth::False,
            recovered: true,
            ..booted("new")
        }
    }

    fn drained() -> Vec<Change> {
        let mut changes = quarantined();
        changes.push(intend(Step::Drain, "old", Phase::Draining));
        changes.push(done("", 4));
        changes
    }

    fn asked() -> Vec<Change> {
        let mut changes = drained();
        changes.push(Change::IntendReboot(1, "old".into()));
        changes
    }

    fn restarted() -> Vec<Change> {
        let mut changes = asked();
        changes.push(done("", 6));
        changes
    }

    fn verifying() -> Vec<Change> {
        let mut changes = restarted();
        changes.push(Change::Enter(Phase::Verifying));
        changes
    }

    fn in_vain() -> Vec<Change> {
        let mut changes = verifying();
        changes.push(Change::GiveUp(GaveUp::NotCured, String::new()));
        changes
    }

    #[test]
    fn a_reboot_goes_its_way() {
        check(vec![], &booted("old"), 10, "Cordon");
        check(quarantined(), &booted("old"), 10, "intend Drain");
        check(drained(), &booted("old"), 10, "IntendReboot(1, \"old\")");
        let untried = Observed {
            untried: true,
            ..booted("old")
        };
        check(asked(), &untried, 10, "Reboot");
        check(restarted(), &booted("old"), 10, "wait");
        check(restarted(), &booted("new"), 10, "enter Verifying");
        check(verifying(), &booted("new"), 10, "wait");
        check(verifying(), &recovered(), 10, "intend Release");
        let mut released = verifying();
        released.push(intend(Step::Release, "old", Phase::Verifying));
        released.push(done("", 9));
        check(released, &recovered(), 10, "enter Succeeded");
    }

    #[test]
    fn a_restart_that_had_no_answer_shows_in_the_boot_id_or_is_asked_for_once_more() {
        // Whether it was asked for is not known: another leader wrote the intent.
        check(asked(), &booted("old"), 10, "wait");
        check(asked(), &booted("old"), 5 + 299, "wait");
        check(asked(), &booted("new"), 10, "conclude true");
        check(asked(), &booted("old"), 5 + 300, "conclude false");
        let nothing = |attempt, second| {
            let mut changes = drained();
            changes.push(Change::IntendReboot(attempt, "old".into()));
            changes.push(Change::Conclude(Outcome {
                at: at(second),
                done: false,
                detail: String::new(),
            }));
            changes
        };
        check(nothing(1, 310), &booted("old"), 320, "wait");
        check(
            nothing(1, 310),
            &booted("old"),
            400,
            "IntendReboot(2, \"old\")",
        );
        let paused = Observed {
            paused: Some(Reason::ClusterBreaker),
            ..booted("old")
        };
        check(nothing(1, 310), &paused, 400, "wait");
        check(nothing(3, 310), &booted("old"), 400, "NotVerified");
    }

    #[test]
    fn a_machine_that_does_not_come_back_or_does_not_tell_its_boot_is_not_verified() {
        check(restarted(), &booted("old"), 6 + 900, "NotVerified");
        let mut unready = booted("new");
        if let Some(node) = &mut unready.node {
            node.conditions.clear();
        }
        check(restarted(), &unready, 10, "wait");
        check(restarted(), &unready, 6 + 900, "NotVerified");
        check(drained(), &booted(""), 10, "wait");
        check(drained(), &booted(""), 4 + 900, "NotVerified");
        check(restarted(), &booted(""), 10, "wait");
    }

    #[test]
    fn a_pause_or_a_lifted_cordon_stops_the_restart_before_its_intent() {
        let paused = Observed {
            paused: Some(Reason::Silenced),
            ..booted("old")
        };
        check(drained(), &paused, 10, "Hold(Silenced)");
        let mut held = drained();
        held.push(Change::Hold(Reason::Silenced));
        check(held, &paused, 10, "wait");
        let mut lifted = booted("old");
        if let Some(node) = &mut lifted.node {
            node.unschedulable = false;
        }
        check(quarantined(), &lifted, 10, "QuarantineLifted");
        check(drained(), &lifted, 10, "QuarantineLifted");
        check(verifying(), &lifted, 10, "QuarantineLifted");
        let reborn = Observed {
            reborn: true,
            ..booted("new")
        };
        for changes in [drained(), restarted(), verifying()] {
            check(changes, &reborn, 10, "NodeReborn");
        }
    }

    #[test]
    fn a_restart_helped_only_if_the_fault_goes() {
        check(verifying(), &booted("new"), 6 + 899, "wait");
        check(verifying(), &booted("new"), 6 + 900, "NotCured");
        let unknown = Observed {
            fault: Truth::Unknown,
            ..booted("new")
        };
        check(verifying(), &unknown, 6 + 3599, "wait");
        check(verifying(), &unknown, 6 + 3600, "NotCured");
    }

    #[test]
    fn what_did_not_help_rests_until_the_next_action_and_else_asks_for_a_person() {
        let superseded = Observed {
            superseded: true,
            ..booted("new")
        };
        check(in_vain(), &booted("new"), 10, "wait");
        check(in_vain(), &superseded, 10, "enter Escalated");
        check(in_vain(), &recovered(), 10, "Recovered");
        let last = after(Action::Reboot, None, in_vain());
        assert!(!last.at_rest());
        check_on(&last, &booted("new"), 10, "enter NeedsHuman");
        // No action helps against a budget that does not allow the drain.
        let mut stuck = drained();
        stuck.push(Change::GiveUp(GaveUp::DrainTimeout, String::new()));
        check(stuck, &booted("old"), 10, "enter NeedsHuman");
    }

    #[test]
    fn a_cordon_lasts_as_long_as_the_fault_or_until_another_repair_takes_over() {
        let cordoned = || {
            let mut changes = vec![done(WAS_UNSCHEDULABLE, 1)];
            changes.push(Change::Enter(Phase::Quarantined));
            changes
        };
        check_cordon(vec![], &booted("old"), "Cordon");
        check_cordon(cordoned(), &booted("old"), "wait");
        assert!(!after(Action::Cordon, None, vec![]).at_rest());
        assert!(after(Action::Cordon, None, cordoned()).at_rest());
        check_cordon(cordoned(), &recovered(), "intend Release");
        let mut released = cordoned();
        released.push(intend(Step::Release, "old", Phase::Quarantined));
        assert!(!after(Action::Cordon, None, released.clone()).at_rest());
        released.push(done("", 9));
        check_cordon(released, &recovered(), "enter Succeeded");
        let superseded = Observed {
            superseded: true,
            ..recovered()
        };
        check_cordon(cordoned(), &superseded, "enter Escalated");
        let abort = Observed {
            abort: true,
            ..booted("old")
        };
        check_cordon(cordoned(), &abort, "AbortRequested");
        let mut lifted = booted("old");
        if let Some(node) = &mut lifted.node {
            node.unschedulable = false;
        }
        check_cordon(cordoned(), &lifted, "QuarantineLifted");
        let gone = Observed {
            node: None,
            old: Some(instance("i-old", InstanceState::Terminated)),
            ..booted("old")
        };
        check_cordon(cordoned(), &gone, "NodeGone");
    }
}
