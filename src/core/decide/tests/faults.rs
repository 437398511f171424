//! What the faults of one node come to, and that records of it replay.

use super::*;

fn told(name: &str, truth: Truth, since: Option<i64>, severity: Severity) -> FaultInput {
    FaultInput {
        truth,
        since: since.map(at),
        ..fault_input(name, at(0), severity, None)
    }
}

/// What faults come to at 100 under a policy that acts, beside this repair.
fn concluded(faults: Vec<FaultInput>, open: Option<OpenRepair>) -> Conclusion {
    conclude(&gathered(faults, open), at(100))
}

fn gathered(faults: Vec<FaultInput>, open: Option<OpenRepair>) -> Inputs {
    Inputs {
        policy: "p".into(),
        standing: Some(Standing {
            mode: Mode::Enforce,
            ..Standing::default()
        }),
        repair: open,
        faults,
        ..Inputs::default()
    }
}

#[test]
fn of_the_faults_of_a_node_the_due_the_severe_and_the_old_one_leads() {
    use Severity::{Critical, Warning};
    let is =
        |name: &str, since: i64, severity: Severity| told(name, Truth::True, Some(since), severity);
    let (due, pending) = (VerdictKind::Due, VerdictKind::Pending);
    for (one, other, kind, name, since) in [
        (is("a", 41, Critical), is("b", 40, Warning), due, "b", 40),
        (is("a", 0, Warning), is("b", 30, Critical), due, "b", 30),
        (is("a", 30, Warning), is("b", 0, Warning), due, "b", 0),
        (is("b", 0, Warning), is("a", 0, Warning), due, "a", 0),
        (is("a", 90, Warning), is("b", 80, Warning), pending, "b", 80),
        // From a time to come.
        (
            is("a", 200, Critical),
            is("b", 90, Warning),
            pending,
            "a",
            100,
        ),
    ] {
        let found = concluded(vec![one, other], None);
        assert_eq!((found.kind, found.fault.as_str()), (kind, name));
        assert_eq!(found.since, Some(at(since)), "{name}");
        assert_eq!(found.action.is_some(), kind == due);
    }
}

#[test]
fn a_fault_that_is_not_known_any_more_leads_those_that_never_were() {
    let unknown =
        |name: &str, since: Option<i64>| told(name, Truth::Unknown, since, Severity::Warning);
    let unsettled = |since: Option<i64>| FaultInput {
        unsettled: true,
        ..unknown("a", since)
    };
    let suspended = FaultInput {
        suspended: true,
        ..unknown("a", None)
    };
    let (never, before) = (unknown("b", None), unknown("b", Some(10)));
    let unsure = Reason::EvidenceUnknown;
    for (first, second, name, since, reason) in [
        (unknown("a", None), never.clone(), "a", None, unsure),
        (unknown("a", None), before, "b", Some(10), unsure),
        (unsettled(None), never.clone(), "a", None, unsure),
        (
            unsettled(Some(5)),
            never.clone(),
            "a",
            Some(5),
            Reason::Contradicted,
        ),
        (suspended, never, "a", None, Reason::RuleSuspended),
    ] {
        let found = concluded(vec![first, second], None);
        assert_eq!(found.kind, VerdictKind::Unknown);
        assert_eq!((found.fault.as_str(), found.since), (name, since.map(at)));
        assert_eq!(found.reasons, [reason], "{name} since {since:?}");
    }
}

#[test]
fn a_repair_that_rests_lets_the_next_action_go_on() {
    let open = |at_rest: bool| {
        Some(OpenRepair {
            name: "r".into(),
            fault: "Old".into(),
            since: at(-500),
            at_rest,
        })
    };
    let does = |action: Option<Action>| {
        let mut fault = told("a", Truth::True, Some(0), Severity::Warning);
        fault.action = action;
        vec![fault]
    };
    let (repairing, due) = (VerdictKind::Repairing, VerdictKind::Due);
    for (repair, action, kind, fault, reasons) in [
        (
            open(false),
            Some(Action::Replace),
            repairing,
            "Old",
            &[][..],
        ),
        (open(true), Some(Action::Replace), due, "a", &[]),
        // A cordon is on already, and nothing is left to do.
        (open(true), Some(Action::Cordon), repairing, "Old", &[]),
        (open(true), None, repairing, "Old", &[]),
        (None, Some(Action::Cordon), due, "a", &[]),
        (None, None, VerdictKind::Held, "a", &[Reason::NeedsHuman]),
    ] {
        let found = concluded(does(action), repair.clone());
        let what = format!("{repair:?} {action:?}");
        assert_eq!((found.kind, found.fault.as_str()), (kind, fault), "{what}");
        assert_eq!(found.reasons, reasons, "{what}");
        let since = if fault == "Old" { -500 } else { 0 };
        assert_eq!(found.since, Some(at(since)), "{what}");
    }
    // What can be done goes before what was tried in vain; what a person asks for before
    // both, once no repair runs, for as long as it holds.
    let mut severe = told("b", Truth::True, Some(0), Severity::Critical);
    severe.action = None;
    let faults = [does(Some(Action::Replace)), vec![severe.clone()]].concat();
    let found = concluded(faults.clone(), None);
    assert_eq!((found.kind, found.fault.as_str()), (due, "a"));
    for (repair, until, kind, fault) in [
        (None, 101, due, BY_HAND),
        (None, 100, due, "a"),
        (open(true), 101, due, BY_HAND),
        (open(false), 101, repairing, "Old"),
    ] {
        let mut inputs = gathered(faults.clone(), repair.clone());
        inputs.request = Some(RepairRequest {
            uid: "n".into(),
            at: at(0),
            until: at(until),
            by: "eve".into(),
            reason: "smells".into(),
            overrides: vec![],
        });
        let found = conclude(&inputs, at(100));
        let what = (found.kind, found.fault.as_str());
        assert_eq!(what, (kind, fault), "{repair:?} until {until}");
    }
}

#[test]
fn a_record_that_says_otherwise_than_its_inputs_does_not_replay() {
    let mut fleet = Fleet::new(10, 1);
    fleet.watch(10, 1, 30, 60);
    let (verdicts, _, _) = fleet.decide(60);
    let kept = decision(&verdicts[0], &[], at(60));
    assert!(replays(&kept));
    let changed = |change: &dyn Fn(&mut Decision)| {
        let mut kept = kept.clone();
        change(&mut kept);
        replays(&kept)
    };
    // With the leading fault what it is a combination of, and what that came to.
    let detailed = |fleet: &Fleet| {
        let mut kept = kept.clone();
        let node = fleet.evidence.node("n000").unwrap();
        detail(&mut kept, node, &fleet.world(&Rules::default()));
        kept
    };
    let told = detailed(&fleet);
    let fault = &told.inputs.faults[0];
    let when: When = serde_json::from_str(&fault.when).unwrap();
    assert_eq!(when, fleet.policies[0].faults[0].when);
    assert_eq!(fault.leaves, [Truth::True]);
    assert!(replays(&told));
    for leaf in [Truth::False, Truth::Unknown] {
        let mut told = told.clone();
        told.inputs.faults[0].leaves = vec![leaf];
        assert!(!replays(&told), "{leaf:?}");
    }
    // Guards of the fleet are not asked where one of the node holds.
    let mut paused = kept.clone();
    paused.verdict = VerdictKind::Held;
    paused.reasons = vec![Reason::Paused];
    paused.inputs.standing.as_mut().unwrap().paused = true;
    paused.inputs.guards = vec![GuardRecord {
        scope: "cluster".into(),
        reason: Reason::InFlight,
        limit: 1,
        current: 1,
        until: None,
    }];
    assert!(replays(&paused));
    // What is due and has no plan is held, and its record says why.
    let mut stuck = verdicts[0].clone();
    unplanned(&mut stuck, Reason::OwnedByOther);
    let found = (stuck.kind, stuck.reasons.as_slice());
    assert_eq!(found, (VerdictKind::Held, &[Reason::OwnedByOther][..]));
    assert_replays(&[stuck], &[], at(60));
    // What is not known is not false.
    let (rules, node) = (Rules::default(), fleet.evidence.node("n000").unwrap());
    let verdict = judge(node, &fleet.world(&rules), at(200));
    let mut told = decision(&verdict, &[], at(200));
    detail(&mut told, node, &fleet.world(&rules));
    assert_eq!(told.verdict, VerdictKind::Unknown);
    assert_eq!(told.reasons, [Reason::EvidenceUnknown]);
    assert_eq!(verdict.sick_since, Some(at(0)));
    for (leaf, expect) in [
        (Truth::Unknown, true),
        (Truth::True, true),
        (Truth::False, false),
    ] {
        told.inputs.faults[0].leaves = vec![leaf];
        assert_eq!(replays(&told), expect, "{leaf:?}");
    }
    let leaves = &mut fleet.policies[0].faults[0].when.all;
    *leaves = vec![leaves[0].clone(); 40];
    assert!(
        detailed(&fleet).inputs.faults[0].when.is_empty(),
        "too long"
    );
    assert!(!changed(&|it| it.verdict = VerdictKind::Pending));
    assert!(!changed(&|it| it.fault = "Other".into()));
    assert!(!changed(&|it| it.since = Some(at(1))));
    assert!(!changed(&|it| it.reasons = vec![Reason::Paused]));
    // A guard holds if its numbers say so, until its time.
    let held = |current: u32, until: Option<i64>| {
        changed(&|it| {
            (it.verdict, it.reasons) = (VerdictKind::Held, vec![Reason::Budget]);
            it.inputs.guards = vec![GuardRecord {
                scope: "budget/p/b".into(),
                reason: Reason::Budget,
                limit: 2,
                current,
                until: until.map(at),
            }];
        })
    };
    assert!(held(2, None) && held(3, None) && held(2, Some(60)));
    assert!(!held(1, None) && !held(2, Some(59)));
}
