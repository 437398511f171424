//! What a lease settles, and when.

use super::*;
use crate::api::{ConditionLeaf, ConditionStatus};
use crate::api::{Leaf, SignalRecord, When};
use crate::config::Rules;
use crate::evidence::Input;
use crate::evidence::tests::{answer, at, node, policy, rule};

fn reads(word: &[(Option<i64>, i64)], now: i64) -> Option<Word> {
    let mut evidence = Evidence::default();
    for (renewed, second) in word {
        let renewed = Ok(renewed.map(at));
        let uid = "u".to_owned();
        evidence.fold(Input::Lease { uid, renewed }, at(*second));
    }
    evidence.lease("u", at(now))
}

#[test]
fn a_lease_is_silent_only_if_it_stood_still_for_its_duration() {
    use Word::{Renewing, Silent};
    let far = -3600;
    for (seen, now, expect) in [
        (&[][..], 0, None),
        // Young by our clock.
        (&[(Some(0), 5)], 5, Some(Renewing)),
        (&[(Some(0), 5)], 35, Some(Renewing)),
        (&[(Some(0), 5)], 36, None),
        // Old, but for how long it stands still is not known.
        (&[(Some(far), 0)], 0, None),
        (
            &[(Some(far), 0), (Some(far), 20), (Some(far), 39)],
            39,
            None,
        ),
        (
            &[(Some(far), 0), (Some(far), 20), (Some(far), 40)],
            40,
            Some(Silent),
        ),
        (&[(None, 0), (None, 20), (None, 40)], 40, Some(Silent)),
        // The reads are too far apart: it may have moved.
        (&[(Some(far), 0), (Some(far), 40)], 40, None),
        // The kubelet's clock is an hour behind, or ahead, and it lives.
        (&[(Some(far), 0), (Some(far + 10), 10)], 10, Some(Renewing)),
        (&[(Some(3600), 0), (Some(3610), 10)], 10, Some(Renewing)),
        // Far ahead, and read once: nothing is known of it.
        (&[(Some(3600), 0)], 0, None),
        // It lived, and then it did not.
        (
            &[
                (Some(far), 0),
                (Some(far + 10), 10),
                (Some(far + 10), 35),
                (Some(far + 10), 50),
            ],
            50,
            Some(Silent),
        ),
        // A word from a time to come is of a clock that went back.
        (&[(Some(0), 5)], 4, None),
    ] {
        assert_eq!(reads(seen, now), expect, "{seen:?} at {now}");
    }
}

#[test]
fn a_lease_that_cannot_be_read_says_nothing_new() {
    let mut evidence = Evidence::default();
    let read = |renewed| Input::Lease {
        uid: "u".into(),
        renewed,
    };
    evidence.fold(read(Ok(Some(at(0)))), at(0));
    evidence.fold(read(Err("no answer".into())), at(20));
    assert_eq!(evidence.lease("u", at(20)), Some(Word::Renewing));
    assert_eq!(evidence.lease("u", at(31)), None, "the answer is too old");
    assert_eq!(evidence.lease_asked("u"), Some(at(20)));
}

fn fleet(size: usize, ready: &str) -> Vec<NodeView> {
    let names = ["a", "b", "c", "d", "e", "f"];
    names[..size].iter().map(|name| node(name, ready)).collect()
}

/// The fault of node a, after its lease was read for a minute.
fn judged(policy: &Policy, rules: &Rules, inputs: &[Input], renews: bool) -> (Truth, bool) {
    let mut evidence = Evidence::default();
    for second in (0..=60).step_by(10) {
        for input in inputs {
            evidence.fold(input.clone(), at(second));
        }
        let (uid, renewed) = (
            "uid-a".into(),
            Ok(Some(at(if renews { second } else { -60 }))),
        );
        evidence.fold(Input::Lease { uid, renewed }, at(second));
        evidence.settle(rules, std::slice::from_ref(policy), at(second));
    }
    let node = evidence.node("a").expect("folded");
    let needed = evidence.needs_lease(node, policy, "f", rules, at(60));
    (evidence.fault(node, policy, "f", rules, at(60)).0, needed)
}

#[test]
fn h21_targets_that_are_all_down_make_nobody_sick_whatever_their_leases_say() {
    let rules = Rules::from_iter([rule(0)]);
    let all = ["a", "b", "c", "d", "e"];
    for renews in [true, false] {
        let inputs = [Input::Nodes(fleet(5, "True")), answer(&all, Some(&all))];
        let found = judged(&policy(), &rules, &inputs, renews);
        assert_eq!(found, (Truth::Unknown, false), "renews: {renews}");
    }
}

#[test]
fn h21_a_kubelet_that_renews_contradicts_the_condition_that_it_is_silent() {
    let mut policy = policy();
    let unready = ConditionLeaf {
        type_: "Ready".into(),
        statuses: vec![ConditionStatus::False, ConditionStatus::Unknown],
        reasons: vec![],
    };
    policy.faults[0].when.any[0] = Leaf {
        condition: Some(unready),
        ..Leaf::default()
    };
    let mut negated = policy.clone();
    let ready = ConditionLeaf {
        type_: "Ready".into(),
        statuses: vec![ConditionStatus::True],
        reasons: vec![],
    };
    negated.faults[0].when = When {
        none: vec![Leaf {
            condition: Some(ready),
            ..Leaf::default()
        }],
        ..When::default()
    };
    for renews in [true, false] {
        let inputs = [Input::Nodes(fleet(2, "Unknown"))];
        let found = judged(&negated, &Rules::default(), &inputs, renews);
        let truth = if renews { Truth::Unknown } else { Truth::True };
        assert_eq!(found, (truth, true), "not True, renews: {renews}");
    }
    for (ready, renews, expect) in [
        ("Unknown", true, (Truth::Unknown, true)),
        ("Unknown", false, (Truth::True, true)),
        // Its own word.
        ("False", true, (Truth::True, false)),
        ("True", true, (Truth::False, false)),
    ] {
        let inputs = [Input::Nodes(fleet(2, ready))];
        let found = judged(&policy, &Rules::default(), &inputs, renews);
        assert_eq!(found, expect, "Ready is {ready}, renews: {renews}");
    }
}

#[test]
fn h21_a_signal_says_no_more_than_the_condition_where_nothing_is_heard() {
    let rules = Rules::from_iter([rule(0)]);
    for (ready, renews, expect) in [
        ("Unknown", true, (Truth::Unknown, true)),
        ("Unknown", false, (Truth::True, true)),
        ("False", true, (Truth::True, false)),
        ("True", true, (Truth::True, false)),
    ] {
        let inputs = [
            Input::Nodes(fleet(5, ready)),
            answer(&["a"], Some(&["a", "b", "c", "d", "e"])),
        ];
        let found = judged(&policy(), &rules, &inputs, renews);
        assert_eq!(found, expect, "Ready is {ready}, renews: {renews}");
    }
}

#[test]
fn a_record_says_when_a_series_that_is_held_was_last_there() {
    let rules = Rules::from_iter([rule(0)]);
    let mut evidence = Evidence::default();
    let record = |evidence: &Evidence, now| -> SignalRecord {
        let node = evidence.node("a").expect("folded");
        evidence.signals(node, &policy(), &rules, at(now)).remove(0)
    };
    evidence.fold(Input::Nodes(fleet(2, "False")), at(0));
    evidence.fold(answer(&["a"], Some(&["a", "b"])), at(0));
    evidence.settle(&rules, &[policy()], at(0));
    assert_eq!(record(&evidence, 0).last_firing, None);
    evidence.fold(answer(&[], Some(&["b"])), at(30));
    evidence.settle(&rules, &[policy()], at(30));
    assert_eq!(record(&evidence, 30).last_firing, Some(at(0)));
}
