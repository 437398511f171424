//! Tables of silences, and of what Alertmanager lists.

use super::*;
use crate::api::{AlertGroupSpec, ConditionLeaf, ConditionStatus};
use crate::evidence::tests::{alert, answer, at, node, policy, rule};
use crate::evidence::{ALERT_TTL, Answer, Input};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(pair).collect()
}

/// Matchers as people write them, one a word: `a=b`, `a!=b`, `a=~b`, `a!~b`.
fn silence(id: &str, matchers: &str) -> Silence {
    let matcher = |text: &str| {
        let at = text.find(['=', '!']).expect("an operator");
        let (name, rest) = text.split_at(at);
        let long = ["!=", "!~", "=~"]
            .iter()
            .any(|operator| rest.starts_with(operator));
        let (operator, value) = rest.split_at(if long { 2 } else { 1 });
        Matcher::new(
            name,
            value,
            operator.ends_with('~'),
            !operator.starts_with('!'),
        )
    };
    Silence {
        id: id.into(),
        created_by: "ann".into(),
        starts_at: at(0),
        ends_at: at(100),
        holds: false,
        matchers: matchers.split_whitespace().map(matcher).collect(),
    }
}

/// What Alertmanager says while Prometheus lives.
fn asked(now: i64, mut alerts: Vec<AskedAlert>, silences: Vec<Silence>) -> Input {
    alerts.push(AskedAlert {
        fingerprint: "w".into(),
        ..listed(&[("alertname", WATCHDOG)], now)
    });
    Input::Asked(Asked {
        at: at(now),
        running_since: at(-10_000),
        receivers: Vec::new(),
        missing: None,
        alerts,
        silences,
    })
}

fn listed(pairs: &[(&str, &str)], updated: i64) -> AskedAlert {
    AskedAlert {
        fingerprint: "f".into(),
        labels: labels(pairs),
        starts_at: at(-500),
        updated_at: at(updated),
    }
}

fn delivered(firing: Option<i64>, resolved: Option<i64>, ends: Option<i64>) -> Input {
    let alert = StoredAlert {
        last_resolved: resolved.map(at),
        ..alert(0, firing, ends)
    };
    Input::Alerts {
        object: "o".into(),
        group: AlertGroupSpec {
            alerts: BTreeMap::from([("f".into(), alert)]),
            ..AlertGroupSpec::default()
        },
    }
}

fn evidence(inputs: Vec<Input>, now: i64) -> Evidence {
    let mut evidence = Evidence::default();
    let nodes = vec![node("a", "False"), node("b", "True")];
    evidence.fold(Input::Nodes(nodes), at(now));
    for input in inputs {
        evidence.fold(input, at(now));
    }
    evidence
}

#[test]
fn matchers_are_alertmanagers() {
    for (matcher, value, expect) in [
        ("a=b", "b", true),
        ("a=b", "bb", false),
        ("a=b", "", false),
        ("a!=b", "b", false),
        ("a!=b", "", true),
        ("a=", "", true),
        ("a!=", "", false),
        ("a=~b|c", "c", true),
        ("a=~b|c", "cc", false),
        ("a=~b", "abc", false),
        ("a=~.*", "", true),
        ("a=~.+", "", false),
        ("a!~b|c", "c", false),
        ("a!~b|c", "", true),
        ("a=~(?i)B", "b", true),
        ("a=~\\d{2}", "12", true),
        // Not understood, or too large: it holds.
        (r"a=~\w{500}", "x", true),
        (r"a!~\w{500}", "x", true),
        ("a=~(?=b)", "x", true),
        ("a!~(", "x", true),
        // What a template will give is not known.
        ("a=b", "{{ $labels.x }}", true),
    ] {
        let found = silence("s", matcher).matches(&labels(&[("a", value)]));
        assert_eq!(found, expect, "{matcher} {value}");
    }
    let both = silence("s", "a=b c=d");
    assert!(both.matches(&labels(&[("a", "b"), ("c", "d"), ("e", "f")])));
    assert!(!both.matches(&labels(&[("a", "b")])));
}

#[test]
fn matchers_are_the_same_if_they_are_written_alike() {
    let all = [
        ("b", false),
        ("c", false),
        ("b", true),
        ("c", true),
        ("(", true),
    ];
    let all = all.map(|(value, regex)| Matcher::new("a", value, regex, true));
    for (one, first) in all.iter().enumerate() {
        for (other, second) in all.iter().enumerate() {
            assert_eq!(first == second, one == other, "{first:?} {second:?}");
        }
    }
}

/// The ids of what holds the fault of node a.
fn held(evidence: &Evidence, policy: &Policy, rules: &Rules, now: i64) -> Vec<String> {
    let node = evidence.node("a").expect("folded");
    let found = evidence.silences(node, policy, "f", rules, at(now), &[]);
    found.into_iter().map(|silence| silence.id).collect()
}

fn check_rule(matchers: &str, expect: bool) {
    check_rule_of(evidence(vec![], 0), matchers, expect);
}

fn check_rule_of(mut evidence: Evidence, matchers: &str, expect: bool) {
    let mut rule = rule(0);
    rule.labels = labels(&[("severity", "critical"), ("team", "{{ $labels.node }}")]);
    let inputs = vec![
        answer(&["a"], Some(&["a"])),
        asked(0, vec![], vec![silence("s", matchers)]),
    ];
    for input in inputs {
        evidence.fold(input, at(0));
    }
    let held = held(&evidence, &policy(), &Rules::from_iter([rule]), 0);
    assert_eq!(!held.is_empty(), expect, "{matchers}");
}

/// Where Prometheus puts `cluster=prod` on what it sends, and a node says otherwise.
fn in_prod() -> Evidence {
    let external = labels(&[("cluster", "prod"), ("severity", "none"), ("pool", "x")]);
    let mut evidence = Evidence::new(vec![], external);
    let mut node = node("a", "False");
    node.labels = labels(&[("pool", "general")]);
    evidence.fold(Input::Nodes(vec![node]), at(0));
    evidence
}

#[test]
fn h84_a_silence_that_asks_for_an_external_label_holds_a_polled_rule() {
    for (matchers, expect, without) in [
        ("alertname=R cluster=prod", true, false),
        ("alertname=R cluster=dev", false, false),
        ("alertname=R cluster!=prod", false, true),
        ("alertname=~.+", true, true),
        // A rule's own label counts before it.
        ("alertname=R severity=none", false, false),
        ("alertname=R severity=critical", true, true),
        // The whole node, which has its own labels before it.
        ("cluster=prod node=a", true, false),
        ("cluster=dev node=a", false, false),
        ("cluster=prod node=b", false, false),
        ("cluster=prod instance=a:9100", true, false),
        ("cluster=prod pool=general", true, false),
        ("cluster=prod namespace=shop", false, false),
    ] {
        check_rule_of(in_prod(), matchers, expect);
        check_rule(matchers, without);
    }
}

#[test]
fn h84_a_silence_holds_a_polled_rule() {
    check_rule("alertname=R", true);
    check_rule("alertname=R node=a", true);
    check_rule("alertname=R node=b", false);
    check_rule("alertname=S node=a", false);
    check_rule("severity=critical", true);
    check_rule("severity=warning", false);
    check_rule("team=a", true);
    check_rule("alertname=R namespace=shop", false);
    // The whole node.
    check_rule("node=a", true);
    check_rule("instance=a:9100", true);
    check_rule("node=~a.*", true);
    check_rule("node=b", false);
}

#[test]
fn h84_a_silence_holds_a_polled_rule_by_the_alert_that_prometheus_makes_of_it() {
    let external = listed(&[("alertname", "R"), ("node", "a"), ("cluster", "prod")], 0);
    for (alerts, expect) in [(vec![external], true), (vec![], false)] {
        let silences = vec![silence("s", "alertname=R cluster=prod")];
        let inputs = vec![answer(&["a"], Some(&["a"])), asked(0, alerts, silences)];
        let held = held(
            &evidence(inputs, 0),
            &policy(),
            &Rules::from_iter([rule(0)]),
            0,
        );
        assert_eq!(!held.is_empty(), expect);
    }
}

#[test]
fn h84_a_silence_holds_a_condition() {
    let mut policy = policy();
    policy.faults[0].when = When {
        all: vec![Leaf {
            condition: Some(ConditionLeaf {
                type_: "Ready".into(),
                statuses: vec![ConditionStatus::False],
                reasons: vec![],
            }),
            ..Leaf::default()
        }],
        ..When::default()
    };
    for (matchers, expect) in [
        ("condition=Ready", true),
        ("condition=Ready node=a", true),
        ("condition=Ready pool=general", true),
        ("condition=DiskPressure", false),
        ("condition=Ready node=b", false),
        ("pool=general", true),
        ("alertname=Ready", true),
        ("alertname=~.+", true),
        ("alertname=DiskPressure", false),
        ("condition=Ready cluster=prod", false),
    ] {
        let mut evidence = evidence(vec![asked(0, vec![], vec![silence("s", matchers)])], 0);
        let mut node = node("a", "False");
        node.labels = labels(&[("pool", "general")]);
        evidence.fold(Input::Nodes(vec![node]), at(0));
        assert_eq!(
            !held(&evidence, &policy, &Rules::default(), 0).is_empty(),
            expect,
            "{matchers}"
        );
    }
    for (matchers, expect) in [
        ("condition=Ready cluster=prod", true),
        ("condition=Ready cluster=prod node=a", true),
        ("condition=Ready cluster=dev", false),
        ("condition=Ready pool=x", false),
    ] {
        let mut evidence = in_prod();
        evidence.fold(asked(0, vec![], vec![silence("s", matchers)]), at(0));
        let held = held(&evidence, &policy, &Rules::default(), 0);
        assert_eq!(!held.is_empty(), expect, "{matchers}");
    }
}

#[test]
fn a_silence_holds_between_its_times_and_only_what_needs_its_signal() {
    let mut policy = policy();
    let inputs = |matchers| {
        let alert = listed(&[("alertname", "A"), ("node", "a")], 0);
        vec![
            answer(&["a"], Some(&["a"])),
            asked(0, vec![alert], vec![silence("s", matchers)]),
        ]
    };
    let known = evidence(inputs("alertname=R"), 0);
    for (now, expect) in [(-1, false), (0, true), (99, true), (100, false)] {
        assert_eq!(
            !held(&known, &policy, &Rules::from_iter([rule(0)]), now).is_empty(),
            expect,
            "{now}"
        );
    }
    // Either of two signals is enough.
    policy.faults[0].when.any.push(Leaf {
        signal: Some("A".into()),
        ..Leaf::default()
    });
    assert!(held(&known, &policy, &Rules::from_iter([rule(0)]), 0).is_empty());
    assert_eq!(
        held(
            &evidence(inputs("alertname=~A|R"), 0),
            &policy,
            &Rules::from_iter([rule(0)]),
            0
        ),
        ["s"]
    );
    // A fault by name needs what that one needs.
    let mut outer = policy.faults[0].clone();
    policy.faults[0].name = "part".into();
    policy.faults[0].when.any.pop();
    outer.when = When {
        all: vec![Leaf {
            fault: Some("part".into()),
            ..Leaf::default()
        }],
        ..When::default()
    };
    policy.faults.push(outer);
    assert_eq!(
        held(&known, &policy, &Rules::from_iter([rule(0)]), 0),
        ["s"]
    );
}

#[test]
fn h12_a_silenced_alert_is_still_confirmed_by_asking() {
    let mut policy = policy();
    policy.faults[0].when.any[0].signal = Some("A".into());
    // Alertmanager delivers nothing of what is silenced.
    let late = ALERT_TTL.as_seconds() + 600;
    let alert = listed(
        &[("alertname", "A"), ("node", "a"), ("zone", "x")],
        late - 30,
    );
    let mut silence = silence("s", "zone=x");
    silence.ends_at = at(late + 100);
    let inputs = vec![
        delivered(Some(0), None, None),
        asked(late, vec![alert], vec![silence]),
    ];
    let evidence = evidence(inputs, late);
    let node = evidence.node("a").expect("folded");
    assert_eq!(
        evidence
            .signal(node, "A", &Rules::default(), at(late))
            .state,
        SignalState::Firing
    );
    assert_eq!(held(&evidence, &policy, &Rules::default(), late), ["s"]);
}

#[test]
fn of_a_delivered_alert_any_value_of_a_label_that_was_not_kept_is_possible() {
    let mut policy = policy();
    policy.faults[0].when.any[0].signal = Some("A".into());
    for (matchers, expect) in [
        ("alertname=A", true),
        ("alertname=A cluster=prod", true),
        ("alertname=A severity=critical", false),
        ("alertname=B cluster=prod", false),
        ("alertname=A node=b", false),
        ("alertname=A instance=x", false),
    ] {
        let inputs = vec![
            asked(0, vec![], vec![silence("s", matchers)]),
            delivered(Some(1), None, None),
        ];
        let held = held(&evidence(inputs, 1), &policy, &Rules::default(), 1);
        assert_eq!(!held.is_empty(), expect, "{matchers}");
    }
}

#[test]
fn of_a_delivered_alert_that_is_listed_every_label_is_known() {
    let mut policy = policy();
    policy.faults[0].when.any[0].signal = Some("A".into());
    for (matchers, expect) in [("alertname=A", true), ("alertname=A cluster=prod", false)] {
        let alert = listed(&[("alertname", "A"), ("node", "a")], 1);
        let inputs = vec![
            asked(1, vec![alert], vec![silence("s", matchers)]),
            delivered(Some(1), None, None),
        ];
        let held = held(&evidence(inputs, 1), &policy, &Rules::default(), 1);
        assert_eq!(!held.is_empty(), expect, "{matchers}");
    }
}

#[test]
fn a_silence_that_begins_later_is_kept_too_while_a_member_does_not_answer() {
    let mut later = silence("s", "node=a");
    later.starts_at = at(80);
    let Input::Asked(answer) = asked(60, vec![], vec![]) else {
        panic!("it is asked");
    };
    let partial = Input::Asked(Asked {
        missing: Some("m2: refused".into()),
        ..answer
    });
    let inputs = vec![answer_fires(), asked(0, vec![], vec![later]), partial];
    let evidence = evidence(inputs, 60);
    let held = |now| held(&evidence, &policy(), &Rules::from_iter([rule(0)]), now);
    assert_eq!(held(90), ["s"]);
    assert_eq!(held(79), Vec::<String>::new());
}

#[test]
fn of_a_node_that_is_not_in_the_list_no_alert_is_clear() {
    let evidence = evidence(vec![asked(0, vec![], vec![])], 0);
    for (name, expect) in [("a", SignalState::Clear), ("z", SignalState::Unknown)] {
        let node = node(name, "True");
        let found = evidence.signal(&node, "A", &Rules::default(), at(0));
        assert_eq!(found.state, expect, "{name}");
    }
}

#[test]
fn an_earlier_leaders_silences_hold_while_alertmanager_fails() {
    let restored = || Input::Silenced {
        uid: "uid-a".into(),
        silences: vec![silence("old", "a=b").record()],
    };
    let failed = || Input::AskFailed("503".into());
    let firing = || answer(&["a"], Some(&["a"]));
    let check = |inputs: Vec<Input>, now: i64, expect: &[&str]| {
        let held = held(
            &evidence(inputs, now),
            &policy(),
            &Rules::from_iter([rule(0)]),
            now,
        );
        assert_eq!(held, expect);
    };
    check(vec![restored(), failed(), firing()], 0, &["old"]);
    check(vec![restored(), failed(), firing()], 100, &[]);
    check(
        vec![restored(), asked(0, vec![], vec![]), failed(), firing()],
        0,
        &[],
    );
    // Nobody asks any more.
    check(vec![restored(), firing()], 0, &[]);
    let failing = evidence(vec![failed(), Input::AskFailed("502".into())], 7);
    assert_eq!(failing.asking_failed(), Some((at(7), "502")));
}

fn check_state(inputs: Vec<Input>, now: i64, expect: SignalState) {
    let what = format!("{inputs:?} {now}");
    let evidence = evidence(inputs, now);
    let node = evidence.node("a").expect("folded");
    assert_eq!(
        evidence.signal(node, "A", &Rules::default(), at(now)).state,
        expect,
        "{what}"
    );
}

#[test]
fn what_is_listed_fires_and_what_is_not_is_clear() {
    use SignalState::{Clear, Firing, Unknown};
    let about_a = || listed(&[("alertname", "A"), ("node", "a")], 100);
    let empty = || asked(100, vec![], vec![]);
    let full = || asked(100, vec![about_a()], vec![]);
    // Never delivered.
    check_state(vec![full()], 100, Firing);
    check_state(vec![empty()], 100, Clear);
    check_state(vec![empty()], 221, Unknown);
    check_state(vec![full()], 221, Firing);
    check_state(vec![full()], 100 + 901, Unknown);
    // Delivered, and confirmed or not.
    check_state(vec![delivered(Some(100), None, None), empty()], 100, Clear);
    check_state(vec![delivered(Some(0), None, None), full()], 100, Firing);
    check_state(vec![delivered(Some(0), None, None), empty()], 100, Clear);
    check_state(vec![delivered(Some(0), None, None), empty()], 221, Unknown);
    check_state(vec![delivered(Some(101), None, None), empty()], 101, Firing);
    // The clocks could not tell; now it is settled.
    check_state(vec![delivered(Some(63), None, Some(60))], 100, Unknown);
    check_state(
        vec![delivered(Some(63), None, Some(60)), full()],
        100,
        Firing,
    );
    check_state(
        vec![delivered(Some(63), None, Some(60)), empty()],
        100,
        Clear,
    );
    // The later word counts.
    check_state(
        vec![delivered(Some(0), Some(106), Some(105)), full()],
        106,
        Clear,
    );
    check_state(
        vec![delivered(Some(0), Some(99), Some(98)), full()],
        100,
        Firing,
    );
    // Another name, another node, and what was said of a machine of the same name before.
    let other = listed(&[("alertname", "B"), ("node", "a")], 100);
    check_state(vec![asked(100, vec![other], vec![])], 100, Clear);
    let other = listed(&[("alertname", "A"), ("node", "b")], 100);
    check_state(vec![asked(100, vec![other], vec![])], 100, Clear);
    let before = listed(&[("alertname", "A"), ("node", "a")], -1001);
    check_state(vec![asked(100, vec![before], vec![])], 100, Unknown);
    // As if never asked.
    let failed = Input::AskFailed("x".into());
    check_state(vec![delivered(Some(0), None, None), failed], 100, Firing);
}

#[test]
fn h71_one_senders_end_does_not_hide_a_listed_alert_that_another_says_fires() {
    use SignalState::{Clear, Firing};
    let says = |sender: &str, receiver: &str, alert: StoredAlert| Input::Alerts {
        object: format!("{sender}-{receiver}"),
        group: AlertGroupSpec {
            sender: sender.into(),
            receiver: receiver.into(),
            alerts: BTreeMap::from([("f".into(), alert)]),
            ..AlertGroupSpec::default()
        },
    };
    let fires = |now| alert(0, Some(now), None);
    let ends = |now| StoredAlert {
        last_resolved: Some(at(now)),
        ..alert(0, None, Some(now))
    };
    let list = |now| {
        let about_a = listed(&[("alertname", "A"), ("node", "a")], now);
        asked(now, vec![about_a], vec![])
    };
    for (what, inputs, expect) in [
        (
            "another said so before the list",
            vec![
                says("am", "r", fires(90)),
                list(100),
                says("x", "r", ends(110)),
            ],
            Firing,
        ),
        (
            "another says so since",
            vec![
                list(100),
                says("am", "r", fires(105)),
                says("x", "r", ends(110)),
            ],
            Firing,
        ),
        (
            "another said so so long ago that it counts no more alone",
            vec![
                says("am", "r", fires(-900)),
                list(100),
                says("x", "r", ends(110)),
            ],
            Firing,
        ),
        (
            "the sender itself says that it ended",
            vec![
                list(100),
                says(
                    "am",
                    "r",
                    StoredAlert {
                        last_firing: Some(at(90)),
                        ..ends(110)
                    },
                ),
                says("x", "r", ends(110)),
            ],
            Clear,
        ),
        (
            "the sender itself, of another of its receivers",
            vec![
                says("am", "q", fires(90)),
                list(100),
                says("am", "r", ends(110)),
            ],
            Clear,
        ),
        (
            "Alertmanager, asked since, does not list it",
            vec![
                says("am", "r", fires(90)),
                says("x", "r", ends(110)),
                asked(120, vec![], vec![]),
            ],
            Clear,
        ),
    ] {
        let evidence = evidence(inputs, 120);
        let node = evidence.node("a").expect("folded");
        let found = evidence.signal(node, "A", &Rules::default(), at(120)).state;
        assert_eq!(found, expect, "{what}");
    }
}

#[test]
fn silences_are_not_known_while_an_answer_is_long_in_coming() {
    let known = |inputs: Vec<Input>, now| evidence(inputs, now).silences_unknown(at(now));
    let answered = || vec![asked(0, vec![], vec![])];
    assert!(!known(answered(), 120));
    assert!(known(answered(), 121), "nobody said that it failed");
    assert!(!known(vec![], 121), "nobody asks");
}

#[test]
fn what_is_listed_is_joined_to_nodes_that_come_later() {
    let alerts = vec![listed(&[("alertname", "A"), ("node", "c")], 0)];
    let mut evidence = evidence(vec![asked(0, alerts, vec![])], 0);
    let late = node("c", "True");
    evidence.fold(Input::Nodes(vec![late.clone()]), at(0));
    let found = evidence.signal(&late, "A", &Rules::default(), at(0)).state;
    assert_eq!(found, SignalState::Firing);
}

#[test]
fn a_member_that_just_started_proves_no_absence() {
    let young = |alerts| {
        Input::Asked(Asked {
            at: at(100),
            running_since: at(-199),
            receivers: Vec::new(),
            missing: None,
            alerts,
            silences: vec![],
        })
    };
    check_state(vec![young(vec![])], 100, SignalState::Unknown);
    check_state(
        vec![delivered(Some(0), None, None), young(vec![])],
        100,
        SignalState::Unknown,
    );
    let alert = listed(&[("alertname", "A"), ("node", "a")], 50);
    check_state(vec![young(vec![alert])], 100, SignalState::Firing);
    // What was told to end did, if Prometheus lives.
    let ended = || delivered(Some(0), Some(50), Some(50));
    let watchdog = listed(&[("alertname", WATCHDOG)], 100);
    check_state(
        vec![ended(), young(vec![watchdog])],
        100,
        SignalState::Clear,
    );
    check_state(vec![ended(), young(vec![])], 100, SignalState::Unknown);
}

#[test]
fn h77_a_listed_alert_does_not_expire_with_its_deliveries() {
    let late = 5 * ALERT_TTL.as_seconds();
    let alert = listed(&[("alertname", "A"), ("node", "a")], late - 60);
    let inputs = vec![
        delivered(Some(0), None, None),
        asked(late, vec![alert], vec![]),
    ];
    check_state(inputs, late, SignalState::Firing);
    check_state(
        vec![delivered(Some(0), None, None)],
        late,
        SignalState::Unknown,
    );
}

#[test]
fn h13_replicas_that_tell_of_one_alert_are_one_signal() {
    let replica = |name: &str, fingerprint: &str| AskedAlert {
        fingerprint: fingerprint.into(),
        ..listed(&[("alertname", "A"), ("node", "a"), ("replica", name)], 0)
    };
    let mut policy = policy();
    policy.faults[0].when = When {
        at_least: Some(crate::api::AtLeast {
            count: 2,
            of: ["A", "R"]
                .map(|name| Leaf {
                    signal: Some(name.into()),
                    ..Leaf::default()
                })
                .to_vec(),
        }),
        ..When::default()
    };
    let both = vec![replica("0", "f"), replica("1", "e")];
    let inputs = vec![answer(&[], Some(&["a"])), asked(0, both, vec![])];
    let mut evidence = evidence(inputs, 0);
    evidence.settle(&Rules::from_iter([rule(0)]), &[policy.clone()], at(0));
    let node = evidence.node("a").expect("folded").clone();
    assert_eq!(
        evidence
            .fault(&node, &policy, "f", &Rules::from_iter([rule(0)]), at(0))
            .0,
        Truth::False
    );
    // One of them ends; the other still tells.
    evidence.fold(asked(60, vec![replica("1", "e")], vec![]), at(60));
    evidence.settle(&Rules::from_iter([rule(0)]), &[policy], at(60));
    let signal = evidence.signal(&node, "A", &Rules::default(), at(60));
    assert_eq!(
        (signal.state, signal.since),
        (SignalState::Firing, Some(at(0)))
    );
}

#[test]
fn h55_what_alertmanager_says_of_a_silence_counts_where_its_clock_is_not_ours() {
    let told = |holds| {
        let mut silence = silence("s", "alertname=R");
        silence.holds = holds;
        asked(3600, vec![], vec![silence])
    };
    let held = |inputs: Vec<Input>, now| {
        let evidence = evidence(inputs, now);
        let node = evidence.node("a").expect("folded");
        let rules = Rules::from_iter([rule(0)]);
        let found = evidence.silences(node, &policy(), "f", &rules, at(now), &[]);
        !found.is_empty()
    };
    let fires = || answer(&["a"], Some(&["a"]));
    // By our clock it ended at 100.
    assert!(held(vec![fires(), told(true)], 3610));
    assert!(!held(vec![fires(), told(false)], 3610));
    assert!(!held(vec![fires(), told(true), told(false)], 3610));
    // One that holds by both ends by ours, whatever was said a minute ago.
    let mut silence = silence("s", "alertname=R");
    silence.holds = true;
    let both = || asked(90, vec![], vec![silence.clone()]);
    assert!(held(vec![fires(), both()], 99));
    assert!(!held(vec![fires(), both()], 101));
    // While a member does not answer, nobody knows that it ended.
    let Input::Asked(answer) = asked(3660, vec![], vec![]) else {
        unreachable!()
    };
    let partial = Input::Asked(Asked {
        missing: Some("one".into()),
        ..answer
    });
    assert!(held(vec![fires(), told(true), partial], 3670));
}

#[test]
fn silences_in_a_record_are_few_and_short() {
    let silences = (0..30).map(|number| Silence {
        created_by: "x".repeat(5000),
        ..silence(&format!("{number:02}"), "alertname=R")
    });
    let inputs = vec![
        answer(&["a"], Some(&["a"])),
        asked(0, vec![], silences.collect()),
    ];
    let evidence = evidence(inputs, 0);
    let node = evidence.node("a").expect("folded");
    let found = evidence.silences(
        node,
        &policy(),
        "f",
        &Rules::from_iter([rule(0)]),
        at(0),
        &[],
    );
    assert_eq!(found.len(), MAX_SILENCES);
    assert!(
        found
            .iter()
            .all(|silence| silence.created_by.len() == MAX_TEXT)
    );
}

#[test]
fn silences_are_kept_until_every_member_that_is_long_there_says_otherwise() {
    let told = |now: i64, running: i64, missing: Option<&str>, ids: &[&str]| {
        Input::Asked(Asked {
            at: at(now),
            running_since: at(running),
            receivers: Vec::new(),
            missing: missing.map(str::to_owned),
            alerts: vec![],
            silences: ids.iter().map(|id| silence(id, "node=a")).collect(),
        })
    };
    let first = || told(0, -10_000, None, &["s"]);
    for (second, expect) in [
        (told(60, -10_000, None, &[]), &[][..]),
        // A member that just started, and one that does not answer.
        (told(60, 50, None, &[]), &["s"]),
        (told(60, -10_000, Some("refused"), &["t"]), &["s", "t"]),
    ] {
        let inputs = vec![answer(&["a"], Some(&["a", "b"])), first(), second];
        let evidence = evidence(inputs, 60);
        let rules = Rules::from_iter([rule(0)]);
        assert_eq!(held(&evidence, &policy(), &rules, 60), expect);
        // They all end at 100.
        assert_eq!(
            held(&evidence, &policy(), &rules, 100),
            Vec::<String>::new()
        );
    }
}

#[test]
fn a_member_that_does_not_answer_proves_no_absence_and_is_told() {
    let with = |missing: Option<&str>| {
        let Input::Asked(asked) = asked(0, vec![], vec![]) else {
            panic!("it is asked");
        };
        let missing = missing.map(str::to_owned);
        Input::Asked(Asked { missing, ..asked })
    };
    check_state(vec![with(None)], 0, SignalState::Clear);
    check_state(vec![with(Some("m2: refused"))], 0, SignalState::Unknown);
    let known = evidence(vec![with(Some("m2: refused"))], 0);
    assert_eq!(known.asking_failed(), Some((at(0), "m2: refused")));
    assert!(!known.silences_unknown(at(120)));
    assert!(
        known.silences_unknown(at(121)),
        "an old answer knows no new silence"
    );
    let failed = evidence(vec![Input::AskFailed("refused".into())], 0);
    assert!(failed.silences_unknown(at(0)));
}

#[test]
fn h84_what_an_earlier_leader_knew_holds_until_all_members_answered() {
    let record = |id: &str| SilenceRecord {
        id: id.into(),
        created_by: "ann".into(),
        ends_at: at(1000),
    };
    let restored = || Input::Silenced {
        uid: "uid-a".into(),
        silences: vec![record("s"), record("t")],
    };
    let Input::Asked(answer) = asked(10, vec![], vec![silence("t", "alertname=Other")]) else {
        unreachable!()
    };
    let told = |missing: bool, young: bool| {
        Input::Asked(Asked {
            missing: missing.then(|| "m2".to_owned()),
            running_since: if young { at(0) } else { at(-10_000) },
            ..answer.clone()
        })
    };
    for (missing, young, expect) in [
        (true, false, &["s"][..]),
        (false, true, &["s"]),
        (false, false, &[]),
    ] {
        let inputs = vec![answer_fires(), restored(), told(missing, young)];
        let evidence = evidence(inputs, 20);
        let node = evidence.node("a").expect("folded");
        let rules = Rules::from_iter([rule(0)]);
        let found = evidence.silences(node, &policy(), "f", &rules, at(20), &[]);
        let ids: Vec<&str> = found.iter().map(|silence| silence.id.as_str()).collect();
        assert_eq!(ids, expect, "missing: {missing}, young: {young}");
    }
}

/// What a signal said of node a when a repair began.
fn began(name: &str, state: SignalState) -> SignalRecord {
    SignalRecord {
        name: name.into(),
        state,
        since: Some(at(0)),
        last_firing: None,
        paused: None,
    }
}

#[test]
fn h84_a_silence_holds_a_polled_rule_that_this_leader_never_saw_the_series_of() {
    let mut rule = rule(0);
    rule.labels = labels(&[("severity", "critical")]);
    let rules = Rules::from_iter([rule]);
    for (matchers, expect, seen) in [
        ("alertname=R", true, true),
        ("alertname=R node=a", true, true),
        ("alertname=R node=b", false, false),
        ("alertname=S node=a", false, false),
        ("alertname=R severity=warning", false, false),
        // It may have had any other label.
        ("severity=critical zone=x", true, false),
        ("alertname=R instance=x:9100", true, false),
    ] {
        let restored = Input::Restore {
            uid: "uid-a".into(),
            signals: vec![began("R", SignalState::Firing)],
            faults: Vec::new(),
            last_seen: at(10),
        };
        let inputs = vec![
            restored,
            answer(&[], Some(&["b"])),
            asked(20, vec![], vec![silence("s", matchers)]),
        ];
        let mut known = evidence(inputs, 20);
        let node = known.node("a").expect("folded");
        let signal = known.signal(node, "R", &rules, at(20));
        assert_eq!(signal.state, SignalState::Firing);
        let ids = held(&known, &policy(), &rules, 20);
        assert_eq!(!ids.is_empty(), expect, "{matchers}");
        known.fold(answer_fires(), at(30));
        let ids = held(&known, &policy(), &rules, 30);
        assert_eq!(!ids.is_empty(), seen, "{matchers}");
    }
}

/// Whether a silence holds a repair of node a for this combination of signals.
fn holds_repair(known: &Evidence, when: When, before: &[SignalRecord], now: i64) -> bool {
    let mut policy = policy();
    policy.faults[0].when = when;
    let node = known.node("a").expect("folded");
    let rules = Rules::from_iter([rule(0)]);
    let found = known.silences(node, &policy, "f", &rules, at(now), before);
    !found.is_empty()
}

fn signals(names: &[&str]) -> Vec<Leaf> {
    let leaf = |name: &&str| Leaf {
        signal: Some((*name).to_owned()),
        ..Leaf::default()
    };
    names.iter().map(leaf).collect()
}

fn any(names: &[&str]) -> When {
    When {
        any: signals(names),
        ..When::default()
    }
}

/// Alertmanager lists A about node a, and a minute later no more.
fn listed_and_ended(matchers: &str) -> Evidence {
    let mut policy = policy();
    policy.faults[0].when = any(&["A"]);
    let alert = listed(&[("alertname", "A"), ("node", "a"), ("zone", "x")], 0);
    let mut known = evidence(vec![asked(0, vec![alert], vec![])], 0);
    known.settle(&Rules::default(), &[policy], at(0));
    known.fold(asked(60, vec![], vec![silence("s", matchers)]), at(60));
    known
}

#[test]
fn h12_a_silence_holds_an_open_repair_after_the_listed_alert_ended() {
    let fired = [began("A", SignalState::Firing)];
    for (matchers, expect) in [
        ("alertname=A node=a", true),
        ("alertname=A zone=x", true),
        ("zone=x", true),
        ("alertname=A zone=y", false),
        ("alertname=A node=b", false),
        ("namespace=shop", false),
    ] {
        let known = listed_and_ended(matchers);
        assert_eq!(
            holds_repair(&known, any(&["A"]), &fired, 60),
            expect,
            "{matchers}"
        );
        // Nothing but a repair that began with it.
        for before in [&[][..], &[began("A", SignalState::Clear)]] {
            assert!(!holds_repair(&known, any(&["A"]), before, 60), "{matchers}");
        }
    }
}

#[test]
fn the_labels_of_a_listed_alert_go_with_the_node_and_after_a_day() {
    let mut known = listed_and_ended("zone=x");
    let day = FORGET_AFTER.as_seconds();
    for (now, kept) in [(120, 1), (day, 1), (day + 1, 0)] {
        known.fold(asked(now, vec![], vec![]), at(now));
        assert_eq!(known.alertmanager.last.len(), kept, "{now}");
    }
    let mut known = listed_and_ended("zone=x");
    known.fold(Input::Nodes(vec![node("b", "True")]), at(70));
    known.fold(asked(120, vec![], vec![]), at(120));
    assert!(known.alertmanager.last.is_empty());
    // Of what no policy asks none are kept.
    let alert = || listed(&[("alertname", "B"), ("node", "a")], 0);
    let inputs = vec![asked(0, vec![alert()], vec![]), asked(60, vec![], vec![])];
    assert!(evidence(inputs, 60).alertmanager.last.is_empty());
}

#[test]
fn h12_a_silence_holds_an_open_repair_after_the_delivered_alert_ended() {
    let ended = || delivered(Some(0), Some(30), Some(20));
    let late = ALERT_TTL.as_seconds();
    for (matchers, since, expect) in [
        ("alertname=A node=a", 0, true),
        ("alertname=A zone=x", 0, true),
        ("alertname=A node=b", 0, false),
        // Which job it was of would be known.
        ("alertname=A job=x", late + 20, false),
        // It was long over when the repair began; what fired then is forgotten.
        ("alertname=A job=x", late + 21, true),
    ] {
        let told = asked(60, vec![], vec![silence("s", matchers)]);
        let known = evidence(vec![ended(), told], 60);
        let mut fired = began("A", SignalState::Firing);
        fired.since = Some(at(since));
        let found = holds_repair(&known, any(&["A"]), &[fired], 60);
        assert_eq!(found, expect, "{matchers} {since}");
        assert!(!holds_repair(&known, any(&["A"]), &[], 60));
    }
}

#[test]
fn h12_a_silence_holds_an_open_repair_whose_alert_an_earlier_leader_knew() {
    for (name, matchers, expect) in [
        ("A", "alertname=A node=a", true),
        ("A", "alertname=A zone=x", true),
        ("A", "alertname=A node=b", false),
        ("A", "alertname=B", false),
        ("R", "alertname=R node=a", true),
        ("R", "alertname=S", false),
    ] {
        let told = asked(60, vec![], vec![silence("s", matchers)]);
        let known = evidence(vec![answer(&[], Some(&["a", "b"])), told], 60);
        let fired = [began(name, SignalState::Firing)];
        let found = holds_repair(&known, any(&[name]), &fired, 60);
        assert_eq!(found, expect, "{name} {matchers}");
    }
}

#[test]
fn h12_a_silence_of_what_ended_holds_no_repair_that_began_without_need_of_it() {
    let fired = SignalState::Firing;
    let all = |names| When {
        all: signals(names),
        ..When::default()
    };
    for (when, b, expect) in [
        (any(&["A", "B"]), fired, false),
        (any(&["A", "B"]), SignalState::Clear, true),
        (all(&["A", "B"]), fired, true),
    ] {
        let known = listed_and_ended("alertname=A");
        let before = [began("A", fired), began("B", b)];
        let found = holds_repair(&known, when, &before, 60);
        assert_eq!(found, expect, "{b:?}");
    }
}

#[test]
fn a_silence_of_an_alert_that_ended_holds_none_that_fires_on() {
    let alert = |fingerprint: &str, zone| AskedAlert {
        fingerprint: fingerprint.into(),
        ..listed(&[("alertname", "A"), ("node", "a"), ("zone", zone)], 0)
    };
    let mut policy = policy();
    policy.faults[0].when = any(&["A"]);
    let both = vec![alert("f", "x"), alert("g", "y")];
    let mut known = evidence(vec![asked(0, both, vec![])], 0);
    known.settle(&Rules::default(), &[policy], at(0));
    let told = asked(60, vec![alert("g", "y")], vec![silence("s", "zone=x")]);
    known.fold(told, at(60));
    let fired = [began("A", SignalState::Firing)];
    assert!(!holds_repair(&known, any(&["A"]), &fired, 60));
}

fn answer_fires() -> Input {
    answer(&["a"], Some(&["a"]))
}

#[test]
fn a_silence_of_a_node_by_name_holds_rules_whose_series_say_it_otherwise() {
    let labels: Labels = [("instance".to_owned(), "a:9100".to_owned())].into();
    let answer = Answer::Series {
        firing: vec![labels.clone()],
        present: Some(vec![labels]),
    };
    let name = "R".to_owned();
    let told = asked(0, vec![], vec![silence("s", "alertname=R node=a")]);
    let evidence = evidence(
        vec![
            Input::Rule {
                name,
                asked: Timestamp::MAX,
                answer,
            },
            told,
        ],
        0,
    );
    let node = evidence.node("a").expect("folded");
    let found = evidence.silences(
        node,
        &policy(),
        "f",
        &Rules::from_iter([rule(0)]),
        at(0),
        &[],
    );
    assert_eq!(found.len(), 1);
}

#[test]
fn a_listed_alert_that_was_not_delivered_disagrees_with_a_poll_too() {
    let rules = Rules::from_iter([rule(0)]);
    let mut evidence = Evidence::default();
    for (now, expect) in [
        (0, SignalState::Clear),
        (60, SignalState::Clear),
        (61, SignalState::Unknown),
    ] {
        evidence.fold(Input::Nodes(vec![node("a", "True")]), at(now));
        evidence.fold(answer(&[], Some(&["a"])), at(now));
        let fires = listed(&[("alertname", "R"), ("node", "a")], now);
        evidence.fold(asked(now, vec![fires], vec![]), at(now));
        evidence.settle(&rules, &[policy()], at(now));
        let node = evidence.node("a").expect("folded");
        let found = evidence.signal(node, "R", &rules, at(now)).state;
        assert_eq!(found, expect, "at {now}");
    }
}

#[test]
fn a_resolve_that_came_late_ends_nothing_that_was_told_after_it() {
    let list = |updated| {
        asked(
            30,
            vec![listed(&[("alertname", "A"), ("node", "a")], updated)],
            vec![],
        )
    };
    // Both arrive after the list: the end of before it was told of, and a new one.
    let resolve = |end| delivered(Some(0), Some(40), Some(end));
    check_state(vec![list(25), resolve(10)], 40, SignalState::Firing);
    check_state(vec![list(25), resolve(25)], 40, SignalState::Clear);
    check_state(vec![list(25), resolve(35)], 40, SignalState::Clear);
}

#[test]
fn a_silence_of_what_lacks_a_label_does_not_mean_nodes() {
    check_rule("severity!=critical", false);
    check_rule("severity!=warning", true);
}

/// What a delivered alert says after its end, where no rule with a presence is polled; the
/// alert that always fires was told at `watchdog`.
#[track_caller]
fn check_end(watchdog: Option<i64>, expect: SignalState) {
    let told = |told| AskedAlert {
        fingerprint: "w".into(),
        ..listed(&[("alertname", WATCHDOG)], told)
    };
    let asked = Input::Asked(Asked {
        at: at(300),
        running_since: at(-10_000),
        receivers: Vec::new(),
        missing: None,
        alerts: watchdog.map(told).into_iter().collect(),
        silences: vec![],
    });
    let ended = delivered(Some(0), Some(270), Some(270));
    check_state(vec![ended, asked], 300, expect);
}

#[test]
fn h19_where_nothing_is_polled_the_watchdog_says_that_an_end_is_an_end() {
    check_end(Some(300), SignalState::Clear);
    // Every two minutes, where Prometheus evaluates every minute, and by another clock.
    check_end(Some(175), SignalState::Clear);
    check_end(Some(150), SignalState::Clear);
    // It is still listed, as all that Prometheus sent lately is.
    check_end(Some(149), SignalState::Unknown);
    check_end(None, SignalState::Unknown);
}

#[test]
fn h71_a_watchdog_of_another_cluster_says_nothing_of_our_prometheus() {
    let external = labels(&[("cluster", "ours")]);
    for (of, expect) in [
        ("ours", SignalState::Clear),
        ("theirs", SignalState::Unknown),
    ] {
        let mut evidence = Evidence::new(Vec::new(), external.clone());
        evidence.fold(Input::Nodes(vec![node("a", "True")]), at(300));
        evidence.fold(delivered(Some(0), Some(270), Some(270)), at(300));
        let watchdog = listed(&[("alertname", WATCHDOG), ("cluster", of)], 300);
        let asked = Input::Asked(Asked {
            at: at(300),
            running_since: at(-10_000),
            receivers: Vec::new(),
            missing: None,
            alerts: vec![watchdog],
            silences: vec![],
        });
        evidence.fold(asked, at(300));
        let node = evidence.node("a").expect("folded");
        let found = evidence.signal(node, "A", &Rules::default(), at(300));
        assert_eq!(found.state, expect, "{of}");
    }
}

#[test]
fn h19_alerts_do_not_end_where_prometheus_sees_and_does_not_reach_alertmanager() {
    use SignalState::{Clear, Firing, Unknown};
    let rules = Rules::from_iter([rule(0)]);
    let mut about_alert = policy();
    about_alert.faults[0].when.any[0].signal = Some("A".into());
    let mut evidence = evidence(vec![], 0);
    let mut look = |alerts: Vec<AskedAlert>, now| {
        evidence.fold(answer(&[], Some(&["a", "b"])), at(now));
        let asked = Asked {
            at: at(now),
            running_since: at(-10_000),
            receivers: Vec::new(),
            missing: None,
            alerts,
            silences: vec![],
        };
        evidence.fold(Input::Asked(asked), at(now));
        evidence.fold(Input::Nodes(vec![node("a", "True")]), at(now));
        evidence.settle(&rules, std::slice::from_ref(&about_alert), at(now));
        let node = evidence.node("a").expect("folded");
        evidence.signal(node, "A", &rules, at(now)).state
    };
    let watchdog = |told| AskedAlert {
        fingerprint: "w".into(),
        ..listed(&[("alertname", WATCHDOG)], told)
    };
    let fires = |told| listed(&[("alertname", "A"), ("node", "a")], told);
    // Who has no such alert does not miss it.
    assert_eq!(look(vec![], 0), Clear);
    assert_eq!(look(vec![watchdog(60), fires(60)], 60), Firing);
    // Told of neither any more: it lists them until they end.
    assert_eq!(look(vec![watchdog(60), fires(60)], 240), Firing);
    for now in (300..=600).step_by(60) {
        assert_eq!(look(vec![], now), Unknown, "at {now}");
    }
    // It reaches it again; rules may have waited anew.
    for now in (660..=1500).step_by(60) {
        assert_eq!(look(vec![watchdog(now)], now), Unknown, "at {now}");
    }
    assert_eq!(look(vec![watchdog(1560)], 1560), Clear);
}

#[test]
fn h71_a_list_of_some_receivers_ends_no_alert_that_another_was_told_of() {
    let told = |receiver: &str| Input::Alerts {
        object: "o".into(),
        group: AlertGroupSpec {
            receiver: receiver.into(),
            alerts: BTreeMap::from([("f".into(), alert(0, Some(50), None))]),
            ..AlertGroupSpec::default()
        },
    };
    let list = |receivers: &[&str]| {
        let Input::Asked(asked) = asked(100, vec![], vec![]) else {
            panic!("it answers");
        };
        let receivers = receivers.iter().map(|&name| name.to_owned()).collect();
        Input::Asked(Asked { receivers, ..asked })
    };
    for (receivers, expect) in [
        (&[][..], SignalState::Clear),
        (&["other", "r"], SignalState::Clear),
        (&["other"], SignalState::Firing),
    ] {
        check_state(vec![told("r"), list(receivers)], 100, expect);
    }
}
