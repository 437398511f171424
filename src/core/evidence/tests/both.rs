//! A name that is delivered and polled, and faults made of several signals.

use super::*;

#[test]
fn an_alert_and_a_poll_of_one_name_that_disagree_for_two_intervals_are_unknown() {
    use SignalState::{Clear, Firing, Unknown};
    let fires = || answer(&["a"], Some(&["a", "b"]));
    let clear = || answer(&[], Some(&["a", "b"]));
    let firing = || alert(0, Some(1), None);
    let resolved = |end: i64| StoredAlert {
        last_resolved: Some(at(end)),
        ..alert(0, Some(1), Some(end))
    };
    for (name, poll, alert, expect) in [
        ("both fire", fires(), firing(), [Firing, Firing, Firing]),
        (
            "it was resolved while it fires",
            fires(),
            resolved(31),
            [Firing, Firing, Unknown],
        ),
        (
            "it was resolved before it fired",
            fires(),
            alert(0, None, Some(-10)),
            [Firing, Firing, Firing],
        ),
        (
            "it was resolved just as it fired",
            fires(),
            alert(0, None, Some(0)),
            [Firing, Firing, Firing],
        ),
        (
            "it fires while all is clear",
            clear(),
            firing(),
            [Clear, Clear, Unknown],
        ),
        (
            "both are clear",
            clear(),
            resolved(31),
            [Clear, Clear, Clear],
        ),
    ] {
        let mut evidence = with_nodes("True");
        for now in [0, 30] {
            evidence.fold(poll.clone(), at(now));
            state(&mut evidence, 0, now);
        }
        evidence.fold(says(alert), at(31));
        let found = [31, 91, 92].map(|now| {
            evidence.fold(
                Input::Nodes(vec![node("a", "True"), node("b", "True")]),
                at(now),
            );
            evidence.fold(poll.clone(), at(now));
            state(&mut evidence, 0, now)
        });
        assert_eq!(found, expect, "{name}");
        // Agreement ends it at once.
        evidence.fold(Input::AlertsGone { object: "o".into() }, at(93));
        assert_eq!(state(&mut evidence, 0, 93), expect[0], "{name}");
    }
}

#[test]
fn an_alert_that_outlives_its_series_by_keep_firing_for_is_no_disagreement() {
    let mut evidence = with_nodes("True");
    let clear = || answer(&[], Some(&["a", "b"]));
    evidence.fold(answer(&["a"], Some(&["a", "b"])), at(0));
    state(&mut evidence, 0, 0);
    // `keep_firing_for` is over at 900; the first look that sees it is at 930.
    for now in (30..=990).step_by(30) {
        evidence.fold(
            Input::Nodes(vec![node("a", "True"), node("b", "True")]),
            at(now),
        );
        evidence.fold(says(alert(0, Some(now), None)), at(now));
        evidence.fold(clear(), at(now));
        assert_eq!(state(&mut evidence, 0, now), SignalState::Clear, "at {now}");
    }
    evidence.fold(
        Input::Nodes(vec![node("a", "True"), node("b", "True")]),
        at(991),
    );
    evidence.fold(clear(), at(991));
    assert_eq!(state(&mut evidence, 0, 991), SignalState::Unknown);
}

#[test]
fn the_parts_of_a_combination_must_all_hold() {
    use Truth::{False, True, Unknown};
    let is = |type_: &str| condition(type_, &[ConditionStatus::True], &[]);
    let both = || vec![is("A"), is("B")];
    let (mut all, mut any) = (When::default(), When::default());
    (all.all, any.any) = (both(), both());
    let none = When {
        none: both(),
        ..When::default()
    };
    let two_of_three = When {
        at_least: Some(AtLeast {
            count: 2,
            of: vec![is("A"), is("B"), is("C")],
        }),
        ..When::default()
    };
    let mixed = When {
        all: vec![is("A")],
        none: vec![is("B")],
        ..When::default()
    };
    for (a, b, c, expect) in [
        ("True", "True", "True", [True, True, False, True, False]),
        ("True", "False", "False", [False, True, False, False, True]),
        ("False", "False", "True", [False, False, True, False, False]),
    ] {
        let conditions = [("A", a, ""), ("B", b, ""), ("C", c, "")];
        let found = [&all, &any, &none, &two_of_three, &mixed]
            .map(|when| of_conditions(&conditions, when.clone()));
        assert_eq!(found, expect, "{a} {b} {c}");
        let empty = of_conditions(&conditions, When::default());
        assert_eq!(empty, Unknown, "an empty one says nothing");
    }
    // From what each of its parts came to.
    for (truths, expect) in [
        (&[True, False, True][..], Some(True)),
        (&[False, True, True], Some(True)),
        (&[True, False, False], Some(False)),
        (&[Unknown, False, True], Some(Unknown)),
        (&[True, True], None),
        (&[True, True, True, True], None),
    ] {
        assert_eq!(combined(&two_of_three, truths), expect, "{truths:?}");
    }
}

#[test]
fn a_fault_that_is_named_by_another_is_judged_with_it() {
    let is = |type_: &str| condition(type_, &[ConditionStatus::True], &[]);
    let mut policy = policy();
    policy.faults[0].when = When {
        all: vec![
            Leaf {
                fault: Some("part".into()),
                ..Leaf::default()
            },
            is("A"),
        ],
        ..When::default()
    };
    let mut part = policy.faults[0].clone();
    part.name = "part".into();
    part.when = When {
        any: vec![is("B"), is("C")],
        ..When::default()
    };
    policy.faults.push(part);
    for (conditions, expect) in [
        (["True", "True", "False"], Truth::True),
        (["True", "False", "False"], Truth::False),
        (["False", "True", "True"], Truth::False),
    ] {
        let [a, b, c] = conditions;
        let mut evidence = Evidence::default();
        let mut node = node("a", "True");
        for (type_, status) in [("A", a), ("B", b), ("C", c)] {
            node.conditions.push(Condition {
                type_: type_.into(),
                status: status.into(),
                reason: String::new(),
            });
        }
        evidence.fold(Input::Nodes(vec![node.clone()]), at(0));
        let found = evidence
            .fault(&node, &policy, "f", &Rules::default(), at(0))
            .0;
        assert_eq!(found, expect, "{conditions:?}");
    }
}
