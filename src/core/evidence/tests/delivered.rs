//! What Alertmanager delivers: ends, repetitions, what was left out, what is forgotten.

use super::*;

#[test]
fn h76_an_alert_fires_if_last_received_firing_after_its_largest_end() {
    let node = node("a", "True");
    for (firing, ends, now, expect) in [
        (Some(10), None, 10, SignalState::Firing),
        (Some(11), Some(5), 11, SignalState::Firing),
        (Some(10), Some(5), 10, SignalState::Unknown),
        (Some(10), Some(15), 15, SignalState::Unknown),
        (Some(10), Some(16), 16, SignalState::Clear),
        (None, Some(20), 20, SignalState::Clear),
        (Some(10), None, 10 + 900, SignalState::Firing),
        (Some(10), None, 10 + 901, SignalState::Unknown),
        (Some(5), None, 0, SignalState::Firing),
        (Some(6), None, 0, SignalState::Unknown),
        (Some(3600), None, 0, SignalState::Unknown),
    ] {
        assert_eq!(
            alert_state(&alert(0, firing, ends), &node, at(now)),
            Some(expect),
            "{firing:?} {ends:?} {now}"
        );
    }
}

#[test]
fn what_was_said_before_the_node_existed_says_nothing_of_it() {
    let node = NodeView {
        created: at(100),
        ..node("a", "True")
    };
    for (firing, ends) in [
        (Some(50), None),
        (None, Some(50)),
        (Some(20), Some(50)),
        (None, None),
    ] {
        assert_eq!(alert_state(&alert(0, firing, ends), &node, at(100)), None);
    }
    let found = alert_state(&alert(0, Some(100), None), &node, at(100));
    assert_eq!(found, Some(SignalState::Firing));
}

#[test]
fn two_alerts_of_a_name_are_clear_only_together() {
    let clear = alert(0, None, Some(1000));
    let (expired, fires) = (alert(0, Some(50), None), alert(0, Some(1000), None));
    for (alerts, expect) in [
        (vec![clear.clone(), expired.clone()], SignalState::Unknown),
        (vec![clear.clone(), clear.clone()], SignalState::Clear),
        (vec![clear, fires, expired], SignalState::Firing),
    ] {
        let mut evidence = with_nodes("True");
        let alerts = alerts.into_iter().enumerate();
        evidence.fold(
            Input::Alerts {
                object: "o".into(),
                group: AlertGroupSpec {
                    alerts: alerts.map(|(n, alert)| (n.to_string(), alert)).collect(),
                    ..AlertGroupSpec::default()
                },
            },
            at(1000),
        );
        evidence.fold(answer(&[], Some(&["a"])), at(1000));
        let node = evidence.node("a").cloned().unwrap();
        let rules = Rules::from_iter([rule(0)]);
        let signal = evidence.signal(&node, "A", &rules, at(1000));
        assert_eq!(signal.state, expect);
    }
}

#[test]
fn a_resolve_received_last_that_ended_before_the_last_firing_is_a_contradiction() {
    let node = node("a", "True");
    for (resolved, expect) in [
        (10, SignalState::Firing),
        (100, SignalState::Firing),
        (101, SignalState::Unknown),
    ] {
        let alert = StoredAlert {
            last_resolved: Some(at(resolved)),
            ..alert(0, Some(100), Some(5))
        };
        assert_eq!(
            alert_state(&alert, &node, at(100)),
            Some(expect),
            "{resolved}"
        );
    }
}

#[test]
fn h1_any_order_and_repetition_of_deliveries_gives_the_same() {
    let group = |alert: StoredAlert| AlertGroupSpec {
        alerts: BTreeMap::from([("f".into(), alert)]),
        ..AlertGroupSpec::default()
    };
    let deliveries = [
        group(alert(0, Some(1), None)),
        group(StoredAlert {
            last_resolved: Some(at(6)),
            ..alert(0, None, Some(5))
        }),
        group(alert(7, Some(8), None)),
        // A sender that gives one fingerprint to two alerts.
        group(StoredAlert {
            labels: Labels::from([("node".into(), "z".into())]),
            ..alert(7, Some(8), None)
        }),
    ];
    let merged = |order: &[usize]| {
        let mut stored = AlertGroupSpec::default();
        for index in order {
            merge(&mut stored, &deliveries[*index]);
        }
        stored
    };
    for (expect, orders) in [
        (
            merged(&[0, 1, 2]),
            [&[2, 1, 0][..], &[1, 0, 2], &[0, 0, 2, 1, 1], &[2, 0, 1, 2]],
        ),
        (
            merged(&[0, 1, 3]),
            [&[3, 1, 0][..], &[1, 0, 3], &[3, 0, 0, 1], &[0, 3, 1, 3]],
        ),
    ] {
        for order in orders {
            assert_eq!(merged(order), expect, "{order:?}");
        }
    }
    assert!(merge(&mut merged(&[2]), &deliveries[3]));
    assert!(!merge(&mut merged(&[3]), &deliveries[2]));
    // And so does one alert after the other.
    let mut stored = AlertGroupSpec::default();
    for delivered in deliveries[..3].iter().rev() {
        for (fingerprint, alert) in delivered.alerts.clone() {
            merge_one(&mut stored, fingerprint, alert);
        }
    }
    assert_eq!(stored, merged(&[0, 1, 2]));
}

/// What is stored once these were received, each written only if it is news.
fn taken(deliveries: &[&AlertGroupSpec]) -> (StoredAlert, StoredAlert) {
    let (mut stored, mut all) = (AlertGroupSpec::default(), AlertGroupSpec::default());
    for delivered in deliveries {
        let mut merged = stored.clone();
        if merge(&mut merged, delivered) {
            stored = merged;
        }
        merge(&mut all, delivered);
    }
    (stored.alerts["f"].clone(), all.alerts["f"].clone())
}

#[test]
fn h1_a_late_end_does_not_hide_a_firing_that_was_too_soon_to_be_written() {
    let group = |alert: StoredAlert| AlertGroupSpec {
        alerts: BTreeMap::from([("f".into(), alert)]),
        ..AlertGroupSpec::default()
    };
    let fires = |now| group(alert(0, Some(now), None));
    let ends = |end, now| {
        group(StoredAlert {
            last_resolved: Some(at(now)),
            end_received: Some(at(now)),
            ..alert(0, None, Some(end))
        })
    };
    let (first, again, late) = (fires(10), fires(200), ends(100, 210));
    for order in [
        [&first, &again, &late],
        [&first, &late, &again],
        [&again, &first, &late],
        [&again, &late, &first],
        [&late, &first, &again],
        [&late, &again, &first],
    ] {
        let (stored, all) = taken(&order);
        assert_eq!(last_word(&all), SignalState::Unknown);
        assert_eq!(last_word(&stored), SignalState::Unknown, "{order:?}");
    }
    // The next word counts, and is written.
    let next = fires(220);
    let (stored, _) = taken(&[&first, &late, &next]);
    assert_eq!(last_word(&stored), SignalState::Firing);
    for (end, now, expect) in [
        // As it comes usually: with the next flush of its group.
        (100, 190, SignalState::Clear),
        (100, 191, SignalState::Unknown),
        // What was received after the last word was long ago enough to be written.
        (314, 500, SignalState::Unknown),
        (315, 500, SignalState::Clear),
    ] {
        let (stored, _) = taken(&[&first, &ends(end, now)]);
        assert_eq!(last_word(&stored), expect, "{end} {now}");
    }
    // Told again, by whichever replica, a resolve is as late as it first was.
    let (soon, again) = (ends(100, 150), ends(100, 400));
    for order in [[&first, &soon, &again], [&first, &again, &soon]] {
        let (stored, all) = taken(&order);
        assert_eq!(last_word(&stored), SignalState::Clear, "{order:?}");
        assert_eq!(all.end_received, Some(at(150)), "{order:?}");
    }
    // Another end is another resolve.
    let (stored, _) = taken(&[&first, &soon, &ends(101, 400)]);
    assert_eq!(last_word(&stored), SignalState::Unknown);
}

#[test]
fn h4_an_end_in_a_group_of_which_alerts_were_left_out_is_not_clear() {
    use SignalState::{Clear, Firing, Unknown};
    let ended = StoredAlert {
        last_resolved: Some(at(60)),
        ..alert(0, Some(0), Some(60))
    };
    let of = |receiver: &str, truncated: Option<i64>, alert: Option<&StoredAlert>| AlertGroupSpec {
        sender: "s".into(),
        receiver: receiver.into(),
        truncated_at: truncated.map(at),
        alerts: alert
            .map(|it| ("f".into(), it.clone()))
            .into_iter()
            .collect(),
        ..AlertGroupSpec::default()
    };
    for (what, truncated, elsewhere, asked, now, expect) in [
        ("a whole group", None, None, None, 60, Clear),
        ("its own part", Some(60), None, None, 60, Unknown),
        ("long ago", Some(60), None, None, 60 + 901, Clear),
        ("another part", None, Some(("r", 60)), None, 60, Unknown),
        ("another receiver", None, Some(("q", 60)), None, 60, Clear),
        ("asked before", Some(60), None, Some(50), 60, Unknown),
        ("asked just then", Some(55), None, Some(55), 60, Unknown),
        ("asked between", Some(50), None, Some(55), 60, Clear),
        ("asked since", Some(60), None, Some(61), 61, Clear),
        ("asked long ago", Some(60), None, Some(61), 182, Unknown),
    ] {
        let mut evidence = with_nodes("True");
        let mut put = |object: &str, group| {
            let object = object.to_owned();
            evidence.fold(Input::Alerts { object, group }, at(now));
        };
        put("o", of("r", truncated, Some(&ended)));
        if let Some((receiver, at)) = elsewhere {
            put("p", of(receiver, Some(at), None));
        }
        evidence.fold(answer(&[], Some(&["a"])), at(now));
        if let Some(at) = asked {
            evidence.fold(lists_nothing(at), Timestamp::MAX);
        }
        let rules = Rules::from_iter([rule(0)]);
        let says = |evidence: &Evidence| {
            let node = evidence.node("a").expect("folded");
            evidence.signal(node, "A", &rules, at(now)).state
        };
        assert_eq!(says(&evidence), expect, "{what}");
        let fires = alert(0, Some(now), None);
        let (object, group) = ("o".into(), of("r", truncated, Some(&fires)));
        evidence.fold(Input::Alerts { object, group }, at(now));
        if asked.is_none() {
            assert_eq!(says(&evidence), Firing, "{what}");
        }
    }
}

#[test]
fn h4_what_a_delivery_left_out_is_not_clear() {
    let node = node("a", "True");
    let mut evidence = with_nodes("True");
    let mut group = AlertGroupSpec {
        truncated_at: Some(at(0)),
        ..AlertGroupSpec::default()
    };
    let fold = |evidence: &mut Evidence, group: &AlertGroupSpec, now| {
        let object = "o".into();
        let group = group.clone();
        evidence.fold(Input::Alerts { object, group }, at(now));
        evidence
            .signal(&node, "A", &Rules::default(), at(now))
            .state
    };
    assert_eq!(fold(&mut evidence, &group, 0), SignalState::Unknown);
    group.alerts.insert("f".into(), alert(0, Some(0), None));
    assert_eq!(fold(&mut evidence, &group, 0), SignalState::Firing);
    // A later delivery that leaves it out says nothing of it.
    let later = AlertGroupSpec {
        truncated_at: Some(at(60)),
        ..AlertGroupSpec::default()
    };
    merge(&mut group, &later);
    assert_eq!(fold(&mut evidence, &group, 60), SignalState::Firing);
    assert_eq!(group.truncated_at, Some(at(60)));
    // The mark goes when every alert of that time has expired, and whole deliveries came.
    forget(&mut group, at(60 + 900));
    assert!(group.truncated_at.is_some());
    forget(&mut group, at(60 + 901));
    assert!(group.truncated_at.is_none());
}

#[test]
fn a_group_is_forgotten_when_nothing_of_it_was_received_for_a_day() {
    let day = 24 * 3600;
    let mut group = AlertGroupSpec::default();
    assert!(is_forgotten(&group, at(0)), "of nothing nothing is left");
    group.alerts.insert("f".into(), alert(0, Some(0), None));
    let resolved = StoredAlert {
        last_resolved: Some(at(100)),
        ..alert(0, None, Some(90))
    };
    group.alerts.insert("e".into(), resolved);
    for (now, expect) in [
        (0, false),
        (day, false),
        (day + 100, false),
        (day + 101, true),
    ] {
        assert_eq!(is_forgotten(&group, at(now)), expect, "{now}");
        let mut evidence = with_nodes("True");
        let (object, group) = ("o".into(), group.clone());
        evidence.fold(Input::Alerts { object, group }, at(0));
        assert_eq!(evidence.forgotten(at(now)).count(), usize::from(expect));
    }
    group.truncated_at = Some(at(day + 101));
    assert!(!is_forgotten(&group, at(day + 101)));
    // Of one that is not, what is that old; and the mark of what a delivery left out once no
    // alert of that time counts.
    for (now, alerts, marked) in [
        (day, &["e", "f"][..], true),
        (day + 1, &["e"], true),
        (day + 101, &[], true),
        (day + 101 + 900, &[], true),
        (day + 101 + 901, &[], false),
    ] {
        let mut left = group.clone();
        forget(&mut left, at(now));
        assert!(left.alerts.keys().eq(alerts), "{now}");
        assert_eq!(left.truncated_at.is_some(), marked, "{now}");
    }
}

#[test]
fn alerts_are_joined_to_nodes_that_come_later_and_parted_from_those_that_go() {
    let rules = Rules::default();
    let named = StoredAlert {
        name: "A".into(),
        ..alert(0, Some(0), None)
    };
    let group = AlertGroupSpec {
        alerts: [("f".to_owned(), named)].into(),
        ..AlertGroupSpec::default()
    };
    let mut evidence = Evidence::default();
    let object = || "o".to_owned();
    let says =
        |evidence: &Evidence, node: &NodeView| evidence.signal(node, "A", &rules, at(0)).state;
    evidence.fold(
        Input::Alerts {
            object: object(),
            group,
        },
        at(0),
    );
    let (here, elsewhere) = (node("a", "True"), node("b", "True"));
    assert_eq!(
        says(&evidence, &here),
        SignalState::Unknown,
        "no such node yet"
    );
    evidence.fold(Input::Nodes(vec![here.clone(), elsewhere.clone()]), at(0));
    assert_eq!(says(&evidence, &here), SignalState::Firing);
    evidence.fold(Input::Nodes(vec![elsewhere]), at(0));
    assert_eq!(says(&evidence, &here), SignalState::Unknown, "it is gone");
    evidence.fold(Input::Nodes(vec![here.clone()]), at(0));
    evidence.fold(Input::AlertsGone { object: object() }, at(0));
    assert_eq!(says(&evidence, &here), SignalState::Unknown);
    assert_eq!(evidence.alerts.nodes("A").next(), None);
}

#[test]
fn what_was_delivered_is_not_known_while_nothing_is_heard_of_it() {
    let node = node("a", "True");
    let mut evidence = with_nodes("True");
    let mut group = AlertGroupSpec::default();
    group.alerts.insert("f".into(), alert(0, Some(0), None));
    let object = "o".into();
    evidence.fold(Input::Alerts { object, group }, at(0));
    for (heard, expect) in [
        (true, SignalState::Firing),
        (false, SignalState::Unknown),
        (true, SignalState::Firing),
    ] {
        evidence.fold(Input::AlertsHeard(heard), at(0));
        let signal = evidence.signal(&node, "A", &Rules::default(), at(0));
        assert_eq!(signal.state, expect, "heard: {heard}");
    }
}

#[test]
fn a_full_group_loses_what_ended_long_ago_alone() {
    let ended = |at_second: i64| StoredAlert {
        last_resolved: Some(at(at_second)),
        ..alert(0, Some(at_second - 60), Some(at_second))
    };
    let mut group = AlertGroupSpec::default();
    for (fingerprint, alert) in [
        ("old", ended(100)),
        ("young", ended(1000)),
        ("fires", alert(0, Some(100), None)),
    ] {
        group.alerts.insert(fingerprint.into(), alert);
    }
    forget_ended(&mut group, at(1001));
    let left: Vec<&str> = group.alerts.keys().map(String::as_str).collect();
    assert_eq!(left, ["fires", "young"]);
}

#[test]
fn labels_that_speak_of_no_node_are_counted_by_source_and_why() {
    let mut evidence = with_nodes("True");
    evidence.fold(answer(&["a", "gone", "away"], Some(&["a"])), at(0));
    let stray = StoredAlert {
        labels: Labels::new(),
        ..alert(0, Some(0), None)
    };
    evidence.fold(says(stray), at(0));
    let found: Vec<_> = evidence.unresolved().iter().collect();
    let expect = [
        (&("Alertmanager", Unresolved::Missing), &1),
        (&("Prometheus", Unresolved::Unknown), &2),
    ];
    assert_eq!(found, expect);
}

#[test]
fn h1_a_delivery_that_says_nothing_new_is_written_every_five_minutes_at_most() {
    let group = |alert: StoredAlert| AlertGroupSpec {
        alerts: BTreeMap::from([("f".into(), alert)]),
        ..AlertGroupSpec::default()
    };
    let stored = || group(alert(0, Some(0), None));
    for (what, delivered, expect) in [
        ("the same", alert(0, Some(0), None), false),
        ("a re-send", alert(0, Some(299), None), false),
        ("a late re-send", alert(0, Some(300), None), true),
        ("an end", alert(0, None, Some(10)), true),
        ("a later start", alert(1, Some(0), None), true),
        ("an earlier start", alert(-1, Some(0), None), false),
    ] {
        let mut kept = stored();
        assert_eq!(
            merge(&mut kept, &group(delivered.clone())),
            expect,
            "{what}"
        );
        let kept = &kept.alerts["f"];
        assert_eq!(kept.last_firing, delivered.last_firing.max(Some(at(0))));
        assert_eq!(kept.ends_at, delivered.ends_at, "{what}");
    }
    let more = AlertGroupSpec {
        alerts: BTreeMap::from([("g".into(), alert(0, Some(0), None))]),
        ..AlertGroupSpec::default()
    };
    let mut kept = stored();
    assert!(merge(&mut kept, &more));
    assert_eq!(kept.alerts.len(), 2);
    // That a delivery was truncated is news likewise.
    let truncated = |second: i64| AlertGroupSpec {
        truncated_at: Some(at(second)),
        ..AlertGroupSpec::default()
    };
    assert!(merge(&mut kept, &truncated(0)));
    for (second, expect) in [(0, false), (299, false), (300, true)] {
        let found = merge(&mut kept.clone(), &truncated(second));
        assert_eq!(found, expect, "at {second}");
    }
}
