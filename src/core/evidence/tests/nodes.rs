//! Lists of nodes, their conditions, and which nodes need not be asked.

use super::*;

#[test]
fn an_empty_or_old_list_of_nodes_is_not_fresh() {
    let mut evidence = Evidence::default();
    assert!(!evidence.nodes_fresh(at(0)));
    evidence.fold(Input::Nodes(vec![]), at(0));
    assert!(!evidence.nodes_fresh(at(0)));
    evidence.fold(Input::Nodes(vec![node("a", "True")]), at(0));
    assert!(evidence.nodes_fresh(at(90)) && !evidence.nodes_fresh(at(91)));
}

/// The nodes that need not be asked for their faults.
fn plain(evidence: &Evidence) -> Vec<&str> {
    let nodes = evidence.nodes_by_kind();
    let plain = nodes.filter(|(_, kind)| kind.is_some());
    plain.map(|(node, _)| node.name.as_str()).collect()
}

#[test]
fn nodes_of_which_nothing_is_heard_need_not_be_asked() {
    let (rules, policies) = (Rules::from_iter([rule(60)]), [policy()]);
    let settled = |inputs: Vec<Input>| {
        let mut evidence = with_nodes("True");
        for input in inputs {
            evidence.fold(input, at(0));
        }
        evidence.settle(&rules, &policies, at(0));
        evidence
    };
    let both = Some(&["a", "b"][..]);
    let fires = settled(vec![answer(&["a"], both)]);
    assert_eq!(
        plain(&fires),
        ["b"],
        "also while a rule's `for` is not over"
    );
    assert_eq!(plain(&settled(vec![answer(&[], both)])), ["a", "b"]);
    assert_eq!(plain(&settled(vec![answer(&[], Some(&["b"]))])), ["b"]);
    assert!(plain(&settled(vec![answer(&[], None)])).is_empty());
    assert!(plain(&settled(vec![])).is_empty(), "no answer");
    let mut evidence = settled(vec![answer(&[], both)]);
    let (uid, renewed) = ("uid-b".to_owned(), Ok(None));
    evidence.fold(Input::Lease { uid, renewed }, at(0));
    assert_eq!(plain(&evidence), ["a"]);
    evidence.fold(answer(&[], both), at(1));
    assert!(plain(&evidence).is_empty(), "not settled since");
    let sick = vec![node("a", "False"), node("b", "True")];
    evidence.fold(Input::Nodes(sick), at(1));
    evidence.settle(&rules, &policies, at(1));
    assert_eq!(plain(&evidence), ["b"]);
    // Nor where an alert is asked for that Alertmanager does not list.
    let mut with_alert = policy();
    with_alert.faults[0].when.any.push(Leaf {
        signal: Some("A".into()),
        ..Leaf::default()
    });
    for (asked, expect) in [(true, &["a", "b"][..]), (false, &[])] {
        let mut evidence = with_nodes("True");
        evidence.fold(answer(&[], both), at(0));
        if asked {
            evidence.fold(lists_nothing(0), at(0));
        }
        evidence.settle(&rules, std::slice::from_ref(&with_alert), at(0));
        assert_eq!(plain(&evidence), expect, "{asked}");
    }
}

#[test]
fn conditions_are_told_beside_the_signals() {
    use crate::api::ConditionStatus::{False, True, Unknown};
    use SignalState::{Clear, Firing};

    let condition = |type_: &str, statuses: Vec<crate::api::ConditionStatus>| Leaf {
        condition: Some(crate::api::ConditionLeaf {
            type_: type_.into(),
            statuses,
            reasons: vec![],
        }),
        ..Leaf::default()
    };
    let mut policy = policy();
    policy.faults[0].when.any.extend([
        condition("Ready", vec![False, Unknown]),
        condition("Disk", vec![True]),
    ]);
    let mut alone = policy.faults[0].clone();
    alone.name = "alone".into();
    alone.when.any = vec![condition("Disk", vec![True])];
    policy.faults.push(alone);
    let rules: Rules = [rule(0)].into_iter().collect();
    let mut evidence = Evidence::default();
    let see = |evidence: &mut Evidence, ready: &str, disk: &str, second: i64| {
        let mut node = node("a", ready);
        node.conditions.push(Condition {
            type_: "Disk".into(),
            status: disk.into(),
            reason: String::new(),
        });
        evidence.fold(Input::Nodes(vec![node]), at(second));
        evidence.settle(&rules, std::slice::from_ref(&policy), at(second));
    };
    let told =
        |evidence: &Evidence, second: i64| -> Vec<(String, SignalState, Option<Timestamp>)> {
            let node = evidence.node("a").unwrap();
            let all = evidence.signals(node, &policy, &rules, at(second));
            let all = all
                .into_iter()
                .filter(|one| one.name.starts_with(CONDITION));
            all.map(|one| (one.name, one.state, one.since)).collect()
        };
    let check = |evidence: &Evidence,
                 second,
                 disk: (SignalState, Option<i64>),
                 ready: (SignalState, Option<i64>)| {
        let expect = [("condition/Disk", disk), ("condition/Ready", ready)];
        let expect = expect.map(|(name, (state, since))| (name.to_owned(), state, since.map(at)));
        assert_eq!(told(evidence, second), expect, "at {second}");
    };
    see(&mut evidence, "True", "False", 0);
    check(&evidence, 0, (Clear, None), (Clear, None));
    see(&mut evidence, "False", "False", 30);
    see(&mut evidence, "False", "True", 60);
    check(&evidence, 60, (Firing, Some(60)), (Firing, Some(30)));
    // An old list says nothing.
    let states: Vec<SignalState> = told(&evidence, 400).into_iter().map(|one| one.1).collect();
    assert_eq!(states, [SignalState::Unknown; 2]);
    // A record of them is no signal's.
    let node = evidence.node("a").unwrap();
    let signals = evidence.signals(node, &policy, &rules, at(60));
    let mut next = Evidence::default();
    let restore = Input::Restore {
        uid: "uid-a".into(),
        signals,
        faults: vec![],
        last_seen: at(60),
    };
    next.fold(restore, at(60));
    assert!(!next.watched("uid-a"));
}

#[test]
fn only_ready_has_the_clock_of_readiness() {
    let mut policy = policy();
    policy.faults[0].when.any = vec![
        condition("Ready", &[ConditionStatus::False], &[]),
        condition("Net", &[ConditionStatus::True], &[]),
    ];
    let mut down = node("a", "False");
    down.conditions.push(Condition {
        type_: "Net".into(),
        status: "True".into(),
        reason: String::new(),
    });
    let mut evidence = Evidence::default();
    evidence.fold(Input::Nodes(vec![down]), at(0));
    let rules = Rules::default();
    evidence.settle(&rules, std::slice::from_ref(&policy), at(0));
    let node = evidence.node("a").expect("folded");
    let told = evidence.signals(node, &policy, &rules, at(0));
    let told: Vec<_> = told.iter().map(|one| (&*one.name, one.since)).collect();
    let expect = [("condition/Net", None), ("condition/Ready", Some(at(0)))];
    assert_eq!(told, expect);
}

#[test]
fn a_condition_needs_one_of_its_statuses_and_one_of_its_reasons_if_it_has_any() {
    use ConditionStatus as Status;
    let failing = [("Disk", "True", "Dying")];
    for (statuses, reasons, expect) in [
        (&[Status::True][..], &[][..], Truth::True),
        (&[Status::True], &["Dying"], Truth::True),
        (&[Status::True], &["Full", "Dying"], Truth::True),
        (&[Status::True], &["Full"], Truth::False),
        (&[Status::False], &["Dying"], Truth::False),
        (&[Status::False, Status::Unknown], &[], Truth::False),
        (&[Status::False, Status::True], &[], Truth::True),
    ] {
        let when = When {
            all: vec![condition("Disk", statuses, reasons)],
            ..When::default()
        };
        assert_eq!(
            of_conditions(&failing, when),
            expect,
            "{statuses:?} {reasons:?}"
        );
    }
    let other = When {
        all: vec![condition("Disk", &[Status::True], &[])],
        ..When::default()
    };
    assert_eq!(of_conditions(&[], other), Truth::Unknown, "nobody set it");
}

#[test]
fn a_list_of_nodes_from_a_time_to_come_is_not_fresh() {
    let evidence = with_nodes("True");
    assert!(evidence.nodes_fresh(at(-5)) && !evidence.nodes_fresh(at(-6)));
    // An answer likewise.
    let state = answered_at_100(100);
    assert_eq!(state(95), SignalState::Firing);
    assert_eq!(state(94), SignalState::Unknown);
}

#[test]
fn a_node_that_never_was_ready_is_starting_for_its_grace() {
    let fresh = NodeView {
        created: at(0),
        ..node("a", "False")
    };
    let mut evidence = Evidence::default();
    evidence.fold(Input::Nodes(vec![fresh.clone()]), at(0));
    let grace = Span::minutes(10);
    let starting = |evidence: &Evidence, now: i64| evidence.is_starting(&fresh, grace, at(now));
    assert!(starting(&evidence, 599) && !starting(&evidence, 600));
    let ready = NodeView {
        conditions: node("a", "True").conditions,
        ..fresh.clone()
    };
    evidence.fold(Input::Nodes(vec![ready]), at(60));
    evidence.fold(Input::Nodes(vec![fresh.clone()]), at(90));
    assert!(!starting(&evidence, 90), "it was Ready once");
    // Also when others come and go.
    let others = vec![node("0", "False"), fresh.clone(), node("b", "False")];
    evidence.fold(Input::Nodes(others), at(120));
    assert!(!starting(&evidence, 120));
    let new = NodeView {
        created: at(0),
        ..node("0", "False")
    };
    assert!(evidence.is_starting(&new, grace, at(120)));
}

#[test]
fn a_fleet_with_many_sets_of_conditions_is_judged_all_the_same() {
    let (rules, policies) = (Rules::from_iter([rule(60)]), [policy()]);
    let names: Vec<String> = (0..40).map(|number| format!("n{number:02}")).collect();
    let with_its_own = |name: &String| {
        let mut node = node(name, "True");
        node.conditions.push(Condition {
            type_: format!("Of{name}"),
            status: "True".into(),
            reason: String::new(),
        });
        node
    };
    let mut evidence = Evidence::default();
    evidence.fold(
        Input::Nodes(names.iter().map(with_its_own).collect()),
        at(0),
    );
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    evidence.fold(answer(&[], Some(&all)), at(0));
    evidence.settle(&rules, &policies, at(0));
    assert_eq!(plain(&evidence), all);
    for node in evidence.nodes() {
        let found = evidence.fault(node, &policies[0], "f", &rules, at(0));
        assert_eq!(found, (Truth::False, None));
    }
    assert_eq!(evidence.by_name().len(), 40);
}

#[test]
fn who_was_not_ready_for_an_hour_still_was_after_a_gap_of_two() {
    let mut evidence = Evidence::default();
    let mut look = |now: i64| {
        let nodes = vec![node("a", "False")];
        evidence.fold(Input::Nodes(nodes), at(now));
        evidence.settle(&Rules::default(), &[], at(now));
        evidence.unready_since("uid-a")
    };
    for now in (0..=3600).step_by(60) {
        assert_eq!(look(now), Some(at(0)));
    }
    assert_eq!(look(3 * 3600), Some(at(2 * 3600)), "the gap does not count");
}
