//! What the machine says, situation by situation.

use super::*;
use crate::api::{LaunchTemplate, NodeRepairSpec, Plan, Strategy};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn node(name: &str) -> NodeView {
    NodeView {
        name: name.into(),
        uid: name.into(),
        provider_id: format!("aws:///z/i-{name}"),
        conditions: vec![crate::model::Condition {
            type_: "Ready".into(),
            status: "True".into(),
            reason: String::new(),
        }],
        ..NodeView::default()
    }
}

pub(super) fn instance(id: &str, state: InstanceState) -> InstanceView {
    InstanceView {
        id: id.into(),
        state,
        tags: std::collections::BTreeMap::new(),
        subnet: String::new(),
        instance_type: String::new(),
    }
}

/// A repair in its first second, nothing written yet.
pub(super) fn fresh() -> NodeRepair {
    let launch = LaunchPlan {
        template: LaunchTemplate {
            id: "lt".into(),
            version: "1".into(),
        },
        subnet: "s".into(),
        instance_type: "t".into(),
        cluster_tag: "tag".into(),
    };
    let plan = Plan {
        action: Action::Replace,
        then: None,
        strategy: Some(Strategy::EC2),
        cluster_tag: "tag".into(),
        instance_id: "i-old".into(),
        launch: Some(launch),
        ready_timeout: Span::minutes(15),
        max_attempts: 2,
        drain_timeout: Span::minutes(15),
        max_pod_grace_period: None,
    };
    let spec = NodeRepairSpec {
        node_name: "old".into(),
        node_uid: "old".into(),
        provider_id: "aws:///z/i-old".into(),
        zone: String::new(),
        pool: String::new(),
        ordinal: 1,
        policy: "p".into(),
        fault: "f".into(),
        fault_since: at(0),
        evidence: Vec::new(),
        request: None,
        approval: None,
        plan,
        epoch: 1,
        quarantine: intent("r", Step::Quarantine, 1, "old".into(), 1, at(0)),
    };
    let mut repair = NodeRepair::new("r", spec);
    repair.metadata.uid = Some("uid".into());
    repair
}

/// All is as it should be.
pub(super) fn seen() -> Observed {
    let mut old = node("old");
    old.unschedulable = true;
    let owner = (QUARANTINE_ANNOTATION.to_owned(), "r=false".to_owned());
    old.annotations = [owner].into();
    Observed {
        node: Some(old),
        old: Some(instance("i-old", InstanceState::Running)),
        launched: Some(instance("i-new", InstanceState::Running)),
        replacement: None,
        fault: Truth::True,
        recovered: false,
        abort: false,
        orphaned: false,
        reborn: false,
        superseded: false,
        untried: false,
        current: true,
        paused: None,
    }
}

fn joined() -> Observed {
    Observed {
        replacement: Some(node("new")),
        ..seen()
    }
}

pub(super) fn done(detail: &str, second: i64) -> Change {
    Change::Conclude(Outcome {
        at: at(second),
        done: true,
        detail: detail.into(),
    })
}

/// Writes these changes, one a second.
fn after(changes: Vec<Change>) -> NodeRepair {
    let mut repair = fresh();
    for (second, change) in (1..).zip(changes) {
        apply(&mut repair, change, 1, at(second));
    }
    repair
}

pub(super) fn intend(step: Step, target: &str, phase: Phase) -> Change {
    Change::Intend(step, 1, target.into(), phase)
}

pub(super) fn quarantined() -> Vec<Change> {
    vec![done("", 1), Change::Enter(Phase::Quarantined)]
}

fn launching() -> Vec<Change> {
    let mut changes = quarantined();
    changes.push(intend(Step::Launch, "token", Phase::Launching));
    changes
}

fn launched() -> Vec<Change> {
    let mut changes = launching();
    changes.push(done("i-new", 4));
    changes
}

fn draining() -> Vec<Change> {
    let mut changes = launched();
    changes.push(Change::Joined("new".into()));
    changes.push(intend(Step::Drain, "old", Phase::Draining));
    changes
}

fn drained() -> Vec<Change> {
    let mut changes = draining();
    changes.push(done("", 7));
    changes
}

fn terminating() -> Vec<Change> {
    let mut changes = drained();
    changes.push(intend(Step::Terminate, "i-old", Phase::Terminating));
    changes
}

/// What it came to, in one word.
pub(super) fn word(next: &Next) -> String {
    match next {
        Next::Write(Change::GiveUp(reason, _)) => format!("{reason:?}"),
        Next::Write(Change::Intend(step, ..)) => format!("intend {step:?}"),
        Next::Write(Change::Enter(phase)) => format!("enter {phase:?}"),
        Next::Write(Change::Conclude(outcome)) => format!("conclude {}", outcome.done),
        Next::Write(change) => format!("{change:?}"),
        Next::Act(command) => format!("{command:?}")
            .split(['(', ' '])
            .next()
            .unwrap_or_default()
            .into(),
        Next::Wait(..) => "wait".into(),
        Next::Finished => "finished".into(),
    }
}

fn check(changes: Vec<Change>, observed: &Observed, second: i64, expect: &str) {
    let repair = after(changes);
    let found = word(&next(&repair, observed, at(second)));
    assert_eq!(
        found,
        expect,
        "{:?} at {second}: {observed:#?}",
        repair.phase()
    );
}

#[test]
fn a_repair_goes_its_way() {
    check(vec![], &seen(), 10, "Cordon");
    check(quarantined(), &seen(), 10, "intend Launch");
    check(launching(), &seen(), 10, "Launch");
    check(launched(), &seen(), 10, "wait");
    check(launched(), &joined(), 10, "Joined(\"new\")");
    check(draining(), &joined(), 10, "Drain");
    check(drained(), &joined(), 10, "intend Terminate");
    check(terminating(), &joined(), 10, "Terminate");
    let gone = Observed {
        old: Some(instance("i-old", InstanceState::Terminated)),
        ..joined()
    };
    check(terminating(), &gone, 10, "conclude true");
}

#[test]
fn h79_from_the_drain_on_the_fault_is_latched() {
    let recovered = Observed {
        recovered: true,
        fault: Truth::False,
        ..joined()
    };
    check(vec![], &recovered, 10, "Recovered");
    check(quarantined(), &recovered, 10, "Recovered");
    check(draining(), &recovered, 10, "Drain");
    check(drained(), &recovered, 10, "intend Terminate");
}

#[test]
fn unknown_evidence_or_a_pause_holds_every_disruptive_step_before_the_latch() {
    for observed in [
        Observed {
            fault: Truth::Unknown,
            ..joined()
        },
        Observed {
            paused: Some(Reason::Paused),
            ..joined()
        },
    ] {
        check(vec![], &observed, 10, "wait");
        check(quarantined(), &observed, 10, "wait");
        let mut ready = launched();
        ready.push(Change::Joined("new".into()));
        check(ready, &observed, 10, "wait");
    }
}

#[test]
fn a_pause_holds_the_drain_and_the_end_but_not_the_recovery() {
    let paused = Observed {
        paused: Some(Reason::ClusterBreaker),
        ..joined()
    };
    for mut changes in [draining(), drained()] {
        check(changes.clone(), &paused, 10, "Hold(ClusterBreaker)");
        changes.push(Change::Hold(Reason::ClusterBreaker));
        check(changes.clone(), &paused, 10, "wait");
        check(changes, &joined(), 10, "Resume");
    }
    check(terminating(), &paused, 10, "wait");
    let mut giving_up = launched();
    giving_up.push(Change::GiveUp(GaveUp::Recovered, String::new()));
    check(giving_up, &paused, 10, "intend ReturnReplacement");
}

#[test]
fn a_drain_that_is_held_does_not_run_out_of_time() {
    let paused = Observed {
        paused: Some(Reason::Paused),
        ..joined()
    };
    // Seen in the very second in which its time would be over.
    check(draining(), &paused, 6 + 900, "Hold(Paused)");
    check(draining(), &joined(), 6 + 900, "DrainTimeout");
    let mut repair = after(draining());
    for (change, second) in [
        (Change::Hold(Reason::Paused), 10),
        (Change::Resume, 7210),
        (Change::Hold(Reason::Paused), 7300),
    ] {
        let found = |observed: &Observed| word(&next(&repair, observed, at(second)));
        let expect = format!("{change:?}");
        let observed = if change == Change::Resume {
            assert_eq!(found(&paused), "wait");
            joined()
        } else {
            assert_eq!(found(&joined()), "Drain");
            paused.clone()
        };
        assert_eq!(found(&observed), expect);
        apply(&mut repair, change, 1, at(second));
    }
    // As a new leader reads it.
    let text = serde_json::to_string(&repair).unwrap();
    let mut repair: NodeRepair = serde_json::from_str(&text).unwrap();
    apply(&mut repair, Change::Resume, 2, at(7400));
    let over = 6 + 900 + 7200 + 100;
    for (second, expect) in [(over - 1, "Drain"), (over, "DrainTimeout")] {
        assert_eq!(word(&next(&repair, &joined(), at(second))), expect);
    }
}

#[test]
fn a_pause_after_the_drain_leaves_the_replacement_its_time() {
    let mut repair = after(drained());
    apply(&mut repair, Change::Hold(Reason::Paused), 1, at(10));
    apply(&mut repair, Change::Resume, 1, at(7210));
    for (second, expect) in [(7210 + 899, "wait"), (7210 + 900, "ReplacementNotReady")] {
        assert_eq!(word(&next(&repair, &seen(), at(second))), expect);
    }
}

#[test]
fn a_replacement_that_was_ready_is_never_returned() {
    let mut changes = launched();
    changes.push(Change::Joined("new".into()));
    // A blip long after the ready timeout, and one in the list of nodes.
    check(changes.clone(), &seen(), 100_000, "wait");
    changes.push(Change::GiveUp(GaveUp::AbortRequested, String::new()));
    check(changes, &joined(), 100, "intend Release");
    let mut aborted = draining();
    aborted.push(Change::GiveUp(GaveUp::AbortRequested, String::new()));
    check(aborted, &joined(), 100, "intend Release");
}

#[test]
fn h45_a_replacement_that_never_joins_is_returned_by_a_young_list_only() {
    check(launched(), &seen(), 100_000, "intend ReturnReplacement");
    let stale = Observed {
        current: false,
        ..seen()
    };
    check(launched(), &stale, 100_000, "wait");
    let sick = Observed {
        replacement: Some(NodeView {
            conditions: Vec::new(),
            ..node("new")
        }),
        ..seen()
    };
    check(drained(), &sick, 10, "wait");
    check(drained(), &sick, 100_000, "ReplacementNotReady");
}

#[test]
fn h35_a_node_that_goes_or_comes_back_as_another_stops_the_repair() {
    let gone = Observed {
        node: None,
        ..joined()
    };
    check(vec![], &gone, 10, "NodeGone");
    check(quarantined(), &gone, 10, "NodeGone");
    check(draining(), &gone, 10, "conclude true");
    check(drained(), &gone, 10, "intend Terminate");
    let reborn = Observed {
        reborn: true,
        ..gone
    };
    check(draining(), &reborn, 10, "NodeReborn");
    check(drained(), &reborn, 10, "NodeReborn");
    check(terminating(), &reborn, 10, "NodeReborn");
}

#[test]
fn a_cordon_that_somebody_took_off_stops_the_repair() {
    let mut lifted = joined();
    if let Some(node) = &mut lifted.node {
        node.unschedulable = false;
    }
    check(draining(), &lifted, 10, "QuarantineLifted");
    check(drained(), &lifted, 10, "QuarantineLifted");
    check(terminating(), &lifted, 10, "QuarantineLifted");
}

#[test]
fn a_launch_that_is_not_wanted_any_more_is_settled_before_it_is_given_up() {
    let unwanted = Observed {
        orphaned: true,
        ..seen()
    };
    check(launching(), &unwanted, 10, "wait");
    check(launching(), &unwanted, 3 + 301, "Settle");
    // Nor does one go on for ever.
    check(launching(), &seen(), 3 + 901, "Settle");
    let mut nothing = launching();
    nothing.push(Change::Conclude(Outcome {
        at: at(4),
        done: false,
        detail: String::new(),
    }));
    check(nothing.clone(), &unwanted, 10, "PolicyGone");
    check(nothing, &seen(), 10, "intend Launch");
}

#[test]
fn h40_only_an_observed_end_is_an_end() {
    let unknown = Observed {
        old: None,
        ..joined()
    };
    check(terminating(), &unknown, 10, "wait");
    check(terminating(), &unknown, 100_000, "NotVerified");
    let stopping = Observed {
        old: Some(instance("i-old", InstanceState::ShuttingDown)),
        ..joined()
    };
    check(terminating(), &stopping, 100_000, "wait");
}

#[test]
fn what_asks_for_a_person_keeps_its_quarantine() {
    let mut changes = draining();
    changes.push(Change::GiveUp(GaveUp::DrainTimeout, String::new()));
    check(changes, &joined(), 10, "enter NeedsHuman");
}

#[test]
fn a_repair_made_again_under_the_same_name_has_tokens_of_its_own() {
    let token = |uid: &str| {
        let mut repair = after(quarantined());
        repair.metadata.uid = Some(uid.into());
        match next(&repair, &seen(), at(10)) {
            Next::Write(Change::Intend(_, _, token, _)) => token,
            other => panic!("{other:?}"),
        }
    };
    assert_ne!(token("one"), token("two"));
    assert_eq!(token("one"), token("one"));
}

/// What is waited for, as it would go on record.
fn noted(changes: Vec<Change>, observed: &Observed) -> Option<String> {
    let repair = after(changes);
    let Next::Wait(_, message) = next(&repair, observed, at(10)) else {
        panic!("it goes on: {:?}", next(&repair, observed, at(10)));
    };
    note(&repair, message).map(|change| match change {
        Change::Note(message) => message,
        other => panic!("{other:?}"),
    })
}

#[test]
fn what_is_waited_for_goes_on_record_once_and_until_it_goes_on() {
    let paused = Observed {
        paused: Some(Reason::ClusterBreaker),
        ..joined()
    };
    let unknown = Observed {
        fault: Truth::Unknown,
        ..joined()
    };
    let blind = Observed {
        current: false,
        ..unknown.clone()
    };
    let cleared = Observed {
        fault: Truth::False,
        ..joined()
    };
    let ready = || {
        let mut changes = launched();
        changes.push(Change::Joined("new".into()));
        changes
    };
    for changes in [Vec::new(), quarantined(), ready()] {
        for (observed, expect) in [
            (&paused, "paused: ClusterBreaker"),
            (&unknown, "it is not known now whether the fault is true"),
            (&blind, "the list of nodes is empty or old"),
            (&cleared, "the fault is not true now"),
        ] {
            let mut changes = changes.clone();
            assert_eq!(noted(changes.clone(), observed).as_deref(), Some(expect));
            changes.push(Change::Note(expect.into()));
            assert_eq!(noted(changes.clone(), observed), None);
            // It replaces another, and neither waits for it nor is mistaken for it.
            let other = if expect.starts_with("paused") {
                &unknown
            } else {
                &paused
            };
            assert!(noted(changes, other).is_some_and(|message| message != expect));
        }
    }
    let note = || Change::Note("paused: ClusterBreaker".into());
    for goes_on in [
        intend(Step::Launch, "token", Phase::Launching),
        Change::IntendReboot(1, "boot".into()),
        Change::Joined("new".into()),
        Change::Enter(Phase::Succeeded),
    ] {
        let mut changes = ready();
        changes.extend([note(), goes_on.clone()]);
        let repair = after(changes);
        assert_eq!(repair.message(), "", "{goes_on:?}");
        let status = repair.status.unwrap();
        let ends = status.conditions.iter();
        assert!(ends.clone().all(|end| end.message.is_empty()), "{status:?}");
    }
    // A wait changes nothing of what is done next.
    for changes in [Vec::new(), quarantined(), ready()] {
        let mut noted = changes.clone();
        noted.push(note());
        let (plain, noted) = (after(changes), after(noted));
        let then = |repair: &NodeRepair| next(repair, &joined(), at(10));
        assert_eq!(then(&plain), then(&noted));
        assert_eq!(open_entry(&plain), open_entry(&noted));
    }
}

#[test]
fn why_a_repair_is_given_up_and_what_a_newer_version_wrote_stay() {
    let mut changes = launched();
    changes.push(Change::GiveUp(GaveUp::NotCured, "still there".into()));
    let mut repair = after(changes);
    assert_eq!(note(&repair, "waits".into()), None);
    apply(&mut repair, Change::Enter(Phase::Escalated), 1, at(9));
    assert_eq!(repair.message(), "still there");
    assert_eq!(repair.status.unwrap().conditions[0].message, "still there");

    // Also while what was begun is undone.
    let mut changes = launched();
    changes.extend([
        Change::GiveUp(GaveUp::Recovered, "it is well".into()),
        intend(Step::Release, "n", Phase::Launching),
        Change::Fail("no answer".into()),
        done("", 9),
        Change::Enter(Phase::Aborted),
    ]);
    let status = after(changes).status.unwrap();
    assert_eq!(status.message, "it is well");
    assert_eq!(status.conditions[0].message, "it is well");

    let mut newer = after(launched());
    newer.status.as_mut().unwrap().phase = Phase::Unrecognized;
    let Next::Wait(_, message) = next(&newer, &seen(), at(10)) else {
        panic!("it is left alone");
    };
    assert_eq!(note(&newer, message), None);
}
