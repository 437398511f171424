//! Tables of what the evidence says.

use super::alerts::alert_state;
use super::clock::Pace;
use super::identity::Unresolved;
use super::*;
use crate::api::{
    Action, AlertGroupSpec, AtLeast, ConditionLeaf, ConditionStatus, Mode, StoredAlert,
};
use crate::config::{Fault, Rule};
use crate::model::Condition;

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).expect("in range")
}

pub(super) fn node(name: &str, ready: &str) -> NodeView {
    NodeView {
        name: name.into(),
        uid: format!("uid-{name}"),
        created: at(-1000),
        conditions: vec![Condition {
            type_: "Ready".into(),
            status: ready.into(),
            reason: String::new(),
        }],
        ..NodeView::default()
    }
}

pub(super) fn rule(for_: u32) -> Rule {
    Rule {
        name: "R".into(),
        expr: "e".into(),
        for_: Span::seconds(for_),
        keep_firing_for: Span::minutes(15),
        presence: Some("p".into()),
        interval: Span::seconds(30),
        labels: BTreeMap::new(),
    }
}

pub(super) fn policy() -> Policy {
    let when = When {
        any: vec![Leaf {
            signal: Some("R".into()),
            ..Leaf::default()
        }],
        ..When::default()
    };
    Policy {
        name: "p".into(),
        accepted: true,
        mode: Mode::Observe,
        priority: 0,
        selector: crate::api::NodeSelector::default(),
        control_plane: false,
        budgets: Vec::new(),
        windows: Vec::new(),
        faults: vec![Fault {
            name: "f".into(),
            severity: crate::api::Severity::Warning,
            when,
            for_: Span::default(),
            actions: vec![Action::Replace],
            confirm: None,
        }],
        strategy: None,
        launch_template: None,
        ready_timeout: Span::minutes(15),
        max_attempts: 2,
        drain_timeout: Span::minutes(15),
        max_pod_grace_period: None,
    }
}

fn series(names: &[&str]) -> Vec<Labels> {
    names
        .iter()
        .map(|name| Labels::from([("node".into(), (*name).into())]))
        .collect()
}

pub(super) fn answer(firing: &[&str], present: Option<&[&str]>) -> Input {
    Input::Rule {
        asked: Timestamp::MAX,
        name: "R".into(),
        answer: Answer::Series {
            firing: series(firing),
            present: present.map(series),
        },
    }
}

fn state(evidence: &mut Evidence, wait: u32, now: i64) -> SignalState {
    let rules = Rules::from_iter([rule(wait)]);
    evidence.settle(&rules, &[policy()], at(now));
    let node = evidence.node("a").expect("folded").clone();
    evidence.signal(&node, "R", &rules, at(now)).state
}

fn with_nodes(ready: &str) -> Evidence {
    let mut evidence = Evidence::default();
    evidence.fold(
        Input::Nodes(vec![node("a", ready), node("b", "True")]),
        at(0),
    );
    evidence
}

#[test]
fn h14_prometheus_5xx_is_unknown() {
    let mut evidence = with_nodes("True");
    evidence.fold(answer(&["a"], Some(&["a", "b"])), at(0));
    assert_eq!(state(&mut evidence, 0, 0), SignalState::Firing);
    evidence.fold(
        Input::Rule {
            asked: Timestamp::MAX,
            name: "R".into(),
            answer: Answer::Failed("503".into()),
        },
        at(1),
    );
    assert_eq!(state(&mut evidence, 0, 1), SignalState::Unknown);
    assert_eq!(evidence.failing_rules().next(), Some(("R", at(1), "503")));
}

#[test]
fn h16_absence_is_clear_only_where_presence_shows_it() {
    for (ready, present, expect) in [
        ("True", Some(&["a", "b"][..]), SignalState::Clear),
        ("True", Some(&["b"][..]), SignalState::Unknown),
        ("True", Some(&[][..]), SignalState::Unknown),
        ("True", None, SignalState::Unknown),
        ("False", Some(&["a", "b"][..]), SignalState::Clear),
        ("False", Some(&["b"][..]), SignalState::Unknown),
    ] {
        let mut evidence = with_nodes(ready);
        evidence.fold(answer(&[], present), at(0));
        assert_eq!(state(&mut evidence, 0, 0), expect, "{ready} {present:?}");
    }
}

#[test]
fn h78_a_dying_node_keeps_its_last_word_for_a_while() {
    let mut evidence = with_nodes("False");
    evidence.fold(answer(&["a"], Some(&["a", "b"])), at(0));
    evidence.fold(answer(&[], Some(&["b"])), at(30));
    assert_eq!(state(&mut evidence, 0, 30), SignalState::Firing);
    evidence.fold(answer(&[], Some(&[])), at(60));
    assert_eq!(
        state(&mut evidence, 0, 60),
        SignalState::Unknown,
        "the whole source is gone"
    );
    // It is Ready again: its exporter is gone for another reason.
    let nodes = vec![node("a", "True"), node("b", "True")];
    evidence.fold(Input::Nodes(nodes), at(60));
    evidence.fold(answer(&[], Some(&["b"])), at(60));
    assert_eq!(state(&mut evidence, 0, 60), SignalState::Unknown);
    let nodes = vec![node("a", "False"), node("b", "True")];
    evidence.fold(Input::Nodes(nodes), at(60));
    assert_eq!(state(&mut evidence, 0, 60), SignalState::Firing);
    evidence.fold(answer(&[], Some(&["b"])), at(1000));
    assert_eq!(
        state(&mut evidence, 0, 1000),
        SignalState::Unknown,
        "for no longer than keep_firing_for"
    );
}

#[test]
fn h78_a_dying_node_does_not_finish_what_its_rule_still_waited_for() {
    // The last answer that had it came before its `for` was over, or after.
    for (last, expect) in [(119, SignalState::Unknown), (120, SignalState::Firing)] {
        let mut evidence = with_nodes("False");
        let mut look = |firing: &[&str], present: &[&str], now| {
            evidence.fold(answer(firing, Some(present)), at(now));
            state(&mut evidence, 120, now)
        };
        for now in [0, 30, 60, 90, last] {
            look(&["a"], &["a", "b"], now);
        }
        for now in (150..=600).step_by(30) {
            assert_eq!(look(&[], &["b"], now), expect, "{last} at {now}");
        }
        // It is back, and fires: what nobody saw does not count.
        let back = look(&["a"], &["a", "b"], 630);
        assert_eq!(back == SignalState::Firing, last == 120, "{back:?}");
    }
    // It fired once, was seen without, and fires again: that is another time.
    let mut evidence = with_nodes("False");
    let mut look = |firing: &[&str], present: &[&str], now| {
        evidence.fold(answer(firing, Some(present)), at(now));
        state(&mut evidence, 60, now)
    };
    for (firing, now) in [
        (true, 0),
        (true, 60),
        (false, 90),
        (false, 210),
        (true, 240),
    ] {
        look(if firing { &["a"] } else { &[] }, &["a", "b"], now);
    }
    assert_eq!(look(&[], &["b"], 300), SignalState::Unknown);
}

#[test]
fn an_answer_grows_stale() {
    let mut evidence = with_nodes("True");
    evidence.fold(answer(&["a"], Some(&["a"])), at(0));
    assert_eq!(state(&mut evidence, 0, 120), SignalState::Firing);
    assert_eq!(state(&mut evidence, 0, 121), SignalState::Unknown);
}

#[test]
fn a_rule_waits_its_for_and_flapping_does_not_restart_it() {
    let mut evidence = with_nodes("True");
    for (now, firing, expect) in [
        (0, true, SignalState::Clear),
        (30, false, SignalState::Clear),
        (60, true, SignalState::Firing),
        (70, false, SignalState::Clear),
        (200, false, SignalState::Clear),
        (210, true, SignalState::Clear),
    ] {
        evidence.fold(
            answer(if firing { &["a"] } else { &[] }, Some(&["a", "b"])),
            at(now),
        );
        assert_eq!(state(&mut evidence, 60, now), expect, "at {now}");
    }
}

#[test]
fn a_gap_pauses_the_clock() {
    let mut evidence = with_nodes("True");
    let fails = || Input::Rule {
        asked: Timestamp::MAX,
        name: "R".into(),
        answer: Answer::Failed("down".into()),
    };
    for (now, input, expect) in [
        (0, answer(&["a"], Some(&["a"])), SignalState::Clear),
        (40, answer(&["a"], Some(&["a"])), SignalState::Clear),
        (50, fails(), SignalState::Unknown),
        (1000, fails(), SignalState::Unknown),
        // Longer than the rule's `for`: from the start, and until then it may fire all along.
        (1005, answer(&["a"], Some(&["a"])), SignalState::Unknown),
        (1064, answer(&["a"], Some(&["a"])), SignalState::Unknown),
        (1065, answer(&["a"], Some(&["a"])), SignalState::Firing),
    ] {
        evidence.fold(input, at(now));
        assert_eq!(state(&mut evidence, 60, now), expect, "at {now}");
    }
}

/// What the fault of R, and one of the absence of R, come to.
fn faults(evidence: &mut Evidence, wait: u32, now: i64) -> (Truth, Truth, Option<Timestamp>) {
    let rules = Rules::from_iter([rule(wait)]);
    let mut policy = policy();
    let mut absent = policy.faults[0].clone();
    absent.name = "absent".into();
    absent.when = When {
        none: std::mem::take(&mut absent.when.any),
        ..When::default()
    };
    policy.faults.push(absent);
    evidence.fold(
        Input::Nodes(vec![node("a", "True"), node("b", "True")]),
        at(now),
    );
    evidence.settle(&rules, std::slice::from_ref(&policy), at(now));
    let node = evidence.node("a").expect("folded");
    let of = |fault| evidence.fault(node, &policy, fault, &rules, at(now));
    let (truth, since) = of("f");
    (truth, of("absent").0, since)
}

fn failed() -> Input {
    Input::Rule {
        asked: Timestamp::MAX,
        name: "R".into(),
        answer: Answer::Failed("503".into()),
    }
}

/// Folds this every half minute, from and to these times; the faults at the end.
fn during(
    evidence: &mut Evidence,
    input: impl Fn() -> Input,
    wait: u32,
    (from, to): (i64, i64),
) -> (Truth, Truth, Option<Timestamp>) {
    let mut found = None;
    for now in (from..=to).step_by(30) {
        evidence.fold(input(), at(now));
        let truths = faults(evidence, wait, now);
        let recovered = truths.0 == Truth::False && truths.2.is_none();
        assert!(!recovered, "at {now}");
        found = Some(truths);
    }
    found.expect("some time")
}

#[test]
fn h19_an_outage_longer_than_a_rules_own_for_is_no_recovery() {
    use Truth::{False, True, Unknown};
    let fires = || answer(&["a"], Some(&["a", "b"]));
    let clear = || answer(&[], Some(&["a", "b"]));
    let mut evidence = with_nodes("True");
    for now in [0, 30] {
        evidence.fold(fires(), at(now));
        assert_eq!(faults(&mut evidence, 60, now), (False, True, None));
    }
    let (truth, absent, _) = during(&mut evidence, fires, 60, (60, 300));
    assert_eq!((truth, absent), (True, False));
    let (truth, absent, _) = during(&mut evidence, failed, 60, (330, 900));
    assert_eq!((truth, absent), (Unknown, Unknown));
    let mut over = evidence.clone();
    let mut again = evidence.clone();
    // It fires on, and its `for` is not over.
    let (truth, absent, _) = during(&mut evidence, fires, 60, (930, 960));
    assert_eq!((truth, absent), (Unknown, Unknown));
    let (truth, absent, _) = during(&mut evidence, fires, 60, (990, 1020));
    assert_eq!((truth, absent), (True, False));
    // A second outage meanwhile.
    during(&mut again, fires, 60, (930, 960));
    during(&mut again, failed, 60, (990, 1200));
    let (truth, absent, _) = during(&mut again, fires, 60, (1230, 1260));
    assert_eq!((truth, absent), (Unknown, Unknown));
    // What is clear is over, and what fires after that is new.
    over.fold(clear(), at(930));
    assert_eq!(faults(&mut over, 60, 930).0, False);
    over.fold(clear(), at(960));
    assert_eq!(faults(&mut over, 60, 960).0, False);
    over.fold(fires(), at(990));
    assert_eq!(faults(&mut over, 60, 990).0, False);
}

#[test]
fn a_signal_that_began_anew_ends_once_it_is_clear() {
    let fires = || answer(&["a"], Some(&["a", "b"]));
    let clear = || answer(&[], Some(&["a", "b"]));
    let mut evidence = with_nodes("True");
    evidence.fold(fires(), at(0));
    faults(&mut evidence, 60, 0);
    during(&mut evidence, failed, 60, (30, 300));
    evidence.fold(fires(), at(330));
    assert_eq!(faults(&mut evidence, 60, 330).0, Truth::Unknown);
    for now in (360..=480).step_by(30) {
        evidence.fold(clear(), at(now));
        assert_eq!(faults(&mut evidence, 60, now).0, Truth::False, "at {now}");
    }
    evidence.fold(fires(), at(510));
    assert_eq!(faults(&mut evidence, 60, 510).0, Truth::False, "it is new");
}

#[test]
fn since_when_a_fault_clears_is_told_while_its_clock_runs() {
    let mut evidence = with_nodes("True");
    let mut clearing = |fires: &[&str], now: i64| {
        evidence.fold(answer(fires, Some(&["a", "b"])), at(now));
        faults(&mut evidence, 0, now);
        let node = evidence.node("a").expect("folded");
        evidence.clearing(node, "p", "f")
    };
    assert_eq!(clearing(&["a"], 0), None);
    assert_eq!(clearing(&[], 30), Some(at(30)));
    assert_eq!(clearing(&[], 120), Some(at(30)));
    assert_eq!(clearing(&["a"], 130), None, "it is true again");
    assert_eq!(clearing(&[], 140), Some(at(140)));
    assert_eq!(clearing(&[], 260), None, "it is forgotten");
}

#[test]
fn h19_what_fired_before_all_replicas_were_down_is_not_clear_while_its_for_runs_anew() {
    for (state_then, gap, expect) in [
        (SignalState::Firing, 61, SignalState::Unknown),
        (SignalState::Unknown, 61, SignalState::Unknown),
        // A leader that ended while the signal was not known, be the gap short.
        (SignalState::Unknown, 30, SignalState::Unknown),
        // It was not over then, and nobody was blind for long.
        (SignalState::Clear, 30, SignalState::Clear),
        (SignalState::Clear, 61, SignalState::Unknown),
    ] {
        let records = [record(state_then, 40, None)];
        let mut evidence = restored(&records, 60, "True", 60 + gap);
        evidence.fold(answer(&["a"], Some(&["a", "b"])), at(60 + gap));
        let found = state(&mut evidence, 60, 60 + gap);
        assert_eq!(found, expect, "{state_then:?} {gap}");
        let records = evidence.signals(
            evidence.node("a").expect("folded"),
            &policy(),
            &Rules::from_iter([rule(60)]),
            at(60 + gap),
        );
        assert_eq!(records[0].state, expect);
        assert!(records[0].since.is_some());
    }
}

#[test]
fn a_rule_that_asks_anew_does_not_read_as_recovery_while_its_for_runs() {
    use Truth::{False, True, Unknown};
    let fires = || answer(&["a"], Some(&["a", "b"]));
    let mut evidence = with_nodes("True");
    for now in [0, 30] {
        evidence.fold(fires(), at(now));
        faults(&mut evidence, 60, now);
    }
    during(&mut evidence, fires, 60, (60, 300));
    evidence.forget_rule("R");
    assert_eq!(faults(&mut evidence, 60, 300).0, Unknown, "not asked yet");
    evidence.forget_fault("p", "f");
    for (now, expect) in [(305, Unknown), (335, Unknown), (364, Unknown), (366, True)] {
        evidence.fold(fires(), at(now));
        let (truth, absent, _) = faults(&mut evidence, 60, now);
        assert_eq!((truth, absent), (expect, !expect), "at {now}");
    }
    evidence.forget_rule("R");
    evidence.fold(answer(&[], Some(&["a", "b"])), at(370));
    assert_eq!(faults(&mut evidence, 60, 370).0, False, "it is clear");
}

#[test]
fn h55_a_wall_clock_that_went_back_is_no_recovery() {
    let mut evidence = with_nodes("True");
    for now in (3000..=3120).step_by(30) {
        evidence.fold(answer(&["a"], Some(&["a", "b"])), at(now));
        faults(&mut evidence, 60, now);
    }
    assert_eq!(faults(&mut evidence, 60, 3120).0, Truth::True);
    evidence.fold(answer(&["a"], Some(&["a", "b"])), at(100));
    assert_eq!(faults(&mut evidence, 60, 100).0, Truth::Unknown);
}

fn ticked(ticks: &[(Truth, i64)]) -> Clock {
    let mut clock = Clock::start(at(0));
    for (truth, now) in ticks {
        let (wait, resume) = (Span::minutes(10), RESUME);
        clock.tick(*truth, Pace { wait, resume }, at(*now));
    }
    clock
}

#[test]
fn a_clock_runs_only_while_the_truth_is_known_again() {
    use Truth::{False, True, Unknown};
    for (ticks, since, running) in [
        (&[(True, 0), (True, 60)][..], Some(0), true),
        // Looked at after 90 s at the latest, else nobody knows what was in between.
        (&[(True, 0), (True, 90)], Some(0), true),
        (&[(True, 0), (True, 91)], Some(91), false),
        // A gap as long as the fault must last is not longer.
        (&[(True, 0), (Unknown, 80), (True, 600)], Some(600), false),
        (
            &[(True, 0), (Unknown, 80), (False, 600), (True, 601)],
            Some(600),
            true,
        ),
        // A gap of 60 s, and then 30 s of the same word: 90 s do not count.
        (&[(True, 0), (Unknown, 60), (True, 120)], Some(120), false),
        (
            &[(True, 0), (Unknown, 60), (True, 120), (True, 149)],
            Some(149),
            false,
        ),
        (
            &[(True, 0), (Unknown, 60), (True, 120), (True, 150)],
            Some(150),
            true,
        ),
        (
            &[(True, 0), (True, 60), (Unknown, 61), (True, 62), (True, 92)],
            Some(32),
            true,
        ),
        // A gap that is longer than the fault must last: from the start.
        (
            &[
                (True, 0),
                (Unknown, 60),
                (Unknown, 140),
                (Unknown, 700),
                (True, 701),
            ],
            Some(701),
            true,
        ),
        // Known to be clear: nothing is left to resume, but the gap does not count.
        (
            &[(True, 0), (Unknown, 60), (False, 70), (True, 80)],
            Some(70),
            true,
        ),
        (&[(True, 0), (False, 95), (True, 100)], Some(95), true),
        // After a long gap it is clear, so what comes then is new.
        (
            &[(True, 0), (True, 60), (False, 3600), (True, 3650)],
            Some(3650),
            true,
        ),
        (
            &[
                (True, 0),
                (Unknown, 80),
                (Unknown, 160),
                (False, 800),
                (True, 801),
            ],
            Some(801),
            true,
        ),
        // Blindness is not clear: it takes two minutes of clear in one piece.
        (
            &[
                (True, 0),
                (False, 60),
                (Unknown, 70),
                (False, 150),
                (False, 240),
            ],
            Some(90),
            true,
        ),
    ] {
        let clock = ticked(ticks);
        assert_eq!(
            (clock.since, clock.gap.is_none()),
            (since.map(at), running),
            "{ticks:?}"
        );
    }
}

#[test]
fn h55_a_wall_clock_that_goes_back_by_more_than_clocks_differ_proves_no_youth() {
    for (second, expect) in [(5, false), (4, true)] {
        let clock = ticked(&[(Truth::True, 10), (Truth::True, second)]);
        assert_eq!(clock.restarted, expect, "back to {second}");
    }
}

#[test]
fn h55_a_wall_clock_that_jumps_never_makes_a_fault_older() {
    use Truth::{True, Unknown};
    let age = |ticks: &[(Truth, i64)]| {
        let clock = ticked(ticks);
        let now = at(ticks[ticks.len() - 1].1);
        clock.since.map(|since| now.duration_since(since).as_secs())
    };
    // An hour ahead in one step is an hour in which nobody looked.
    assert_eq!(age(&[(True, 0), (True, 30), (True, 3630)]), Some(0));
    assert_eq!(age(&[(True, 0), (True, 30), (Unknown, 3630)]), Some(30));
    // Back again: never older than it was.
    assert!(age(&[(True, 0), (True, 30), (True, -3600)]) <= Some(30));
    assert!(age(&[(True, 0), (True, 30), (Unknown, 3630), (Unknown, 30)]) <= Some(30));
}

#[test]
fn h19_a_prometheus_that_starts_empty_is_no_recovery_and_keeps_our_clock() {
    let mut evidence = with_nodes("True");
    let clock = |evidence: &Evidence| evidence.clocks["uid-a"].signals["R"].since;
    let fires = || answer(&["a"], Some(&["a", "b"]));
    // Nothing fires, and nothing is there that could.
    let empty = || answer(&[], Some(&[]));
    for (now, input, expect) in [
        (0, fires(), SignalState::Clear),
        (60, fires(), SignalState::Clear),
        (70, empty(), SignalState::Unknown),
        (100, empty(), SignalState::Unknown),
        (130, fires(), SignalState::Clear),
        (160, fires(), SignalState::Clear),
    ] {
        evidence.fold(input, at(now));
        assert_eq!(state(&mut evidence, 300, now), expect, "at {now}");
        assert!(clock(&evidence).is_some(), "the clock is kept at {now}");
    }
    // A minute before the gap counts, the gap and the half minute after it do not.
    assert_eq!(clock(&evidence), Some(at(160 - 60)));
}

#[test]
fn h56_what_an_alert_says_of_its_start_makes_it_neither_younger_nor_older() {
    for starts in [-1_000_000, 0, 1_000_000] {
        let alert = alert(starts, Some(100), None);
        let found = alert_state(&alert, &node("a", "True"), at(100));
        assert_eq!(found, Some(SignalState::Firing), "{starts}");
        let mut evidence = with_nodes("True");
        let group = AlertGroupSpec {
            alerts: [("f".to_owned(), alert)].into(),
            ..AlertGroupSpec::default()
        };
        let object = "o".to_owned();
        evidence.fold(Input::Alerts { object, group }, at(100));
        let mut policy = policy();
        policy.faults[0].when.any[0].signal = Some("A".into());
        evidence.settle(&Rules::default(), &[policy], at(100));
        let node = evidence.node("a").cloned().unwrap();
        assert_eq!(
            evidence
                .signal(&node, "A", &Rules::default(), at(100))
                .since,
            Some(at(100))
        );
    }
}

pub(super) fn alert(starts: i64, firing: Option<i64>, ends: Option<i64>) -> StoredAlert {
    StoredAlert {
        name: "A".into(),
        labels: Labels::from([("node".into(), "a".into())]),
        severity: String::new(),
        starts_at: at(starts),
        last_firing: firing.map(at),
        last_resolved: None,
        ends_at: ends.map(at),
        end_received: None,
    }
}

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

/// All of Alertmanager lists nothing.
fn lists_nothing(now: i64) -> Input {
    Input::Asked(silence::Asked {
        at: at(now),
        running_since: at(-1000),
        receivers: Vec::new(),
        missing: None,
        alerts: vec![],
        silences: vec![],
    })
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
fn an_empty_or_old_list_of_nodes_is_not_fresh() {
    let mut evidence = Evidence::default();
    assert!(!evidence.nodes_fresh(at(0)));
    evidence.fold(Input::Nodes(vec![]), at(0));
    assert!(!evidence.nodes_fresh(at(0)));
    evidence.fold(Input::Nodes(vec![node("a", "True")]), at(0));
    assert!(evidence.nodes_fresh(at(90)) && !evidence.nodes_fresh(at(91)));
}

#[test]
fn a_rule_that_breaks_is_named_alone_until_it_is_mended() {
    let other = Rule {
        name: "S".into(),
        ..rule(0)
    };
    let rules = Rules::from_iter([rule(0), other]);
    let says = |name: &str, answer: &Answer| Input::Rule {
        asked: Timestamp::MAX,
        name: name.into(),
        answer: answer.clone(),
    };
    let fires = Answer::Series {
        firing: series(&["a"]),
        present: Some(series(&["a", "b"])),
    };
    let broken = Answer::Failed("422".into());
    let mut evidence = with_nodes("True");
    let node = node("a", "True");
    for (second, answer, state, failing) in [
        (0, &fires, SignalState::Firing, None),
        (
            30,
            &broken,
            SignalState::Unknown,
            Some(("R", at(30), "422")),
        ),
        (
            60,
            &broken,
            SignalState::Unknown,
            Some(("R", at(30), "422")),
        ),
        (90, &fires, SignalState::Firing, None),
    ] {
        evidence.fold(says("R", answer), at(second));
        evidence.fold(says("S", &fires), at(second));
        evidence.settle(&rules, &[policy()], at(second));
        let of = |name| evidence.signal(&node, name, &rules, at(second)).state;
        assert_eq!((of("R"), of("S")), (state, SignalState::Firing));
        assert_eq!(evidence.failing_rules().next(), failing);
    }
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
fn what_is_asked_anew_is_forgotten_and_nothing_else() {
    let mut evidence = with_nodes("True");
    let (rules, policies) = (Rules::from_iter([rule(0)]), [policy()]);
    evidence.fold(answer(&["a"], Some(&["a", "b"])), at(0));
    evidence.settle(&rules, &policies, at(0));
    evidence.forget_fault("r", "f");
    let before = evidence.clone();
    evidence.forget_rule("S");
    evidence.forget_fault("p", "g");
    evidence.forget_fault("q", "f");
    assert_eq!(evidence, before);
    evidence.forget_fault("p", "f");
    let node = node("a", "True");
    let fault = |evidence: &Evidence| evidence.fault(&node, &policies[0], "f", &rules, at(10));
    assert_eq!(fault(&evidence), (Truth::True, None));
    evidence.forget_rule("R");
    assert_eq!(fault(&evidence), (Truth::Unknown, None));
    evidence.fold(
        Input::Rule {
            asked: Timestamp::MAX,
            name: "R".into(),
            answer: Answer::Failed("503".into()),
        },
        at(20),
    );
    evidence.forget_rule("R");
    assert_eq!(evidence.failing_rules().next(), None);
}

/// What a new leader makes of the records of one that looked until then.
fn restored(records: &[SignalRecord], last_seen: i64, ready: &str, now: i64) -> Evidence {
    let mut evidence = Evidence::default();
    let restore = Input::Restore {
        uid: "uid-a".into(),
        signals: records.to_vec(),
        faults: vec![],
        last_seen: at(last_seen),
    };
    evidence.fold(restore, at(now));
    let nodes = vec![node("a", ready), node("b", "True")];
    evidence.fold(Input::Nodes(nodes), at(now));
    evidence
}

fn record(state: SignalState, since: i64, last_firing: Option<i64>) -> SignalRecord {
    SignalRecord {
        name: "R".into(),
        state,
        since: Some(at(since)),
        last_firing: last_firing.map(at),
        paused: None,
    }
}

#[test]
fn a_rules_own_for_goes_on_under_a_new_leader_without_the_gap() {
    let mut before = with_nodes("True");
    before.fold(answer(&["a"], Some(&["a", "b"])), at(0));
    assert_eq!(state(&mut before, 120, 0), SignalState::Clear);
    before.fold(answer(&["a"], Some(&["a", "b"])), at(60));
    assert_eq!(state(&mut before, 120, 60), SignalState::Clear);
    assert!(before.watched("uid-a") && !before.watched("uid-b"));
    let rules = Rules::from_iter([rule(120)]);
    let records = before.signals(before.node("a").unwrap(), &policy(), &rules, at(60));
    assert_eq!(records, [record(SignalState::Clear, 0, None)]);

    let mut evidence = restored(&records, 60, "True", 90);
    // A minute counted; 30 s nobody looked, and 30 s are one word alone.
    for (now, expect) in [
        (90, SignalState::Clear),
        (120, SignalState::Clear),
        (179, SignalState::Clear),
        (180, SignalState::Firing),
    ] {
        evidence.fold(answer(&["a"], Some(&["a", "b"])), at(now));
        assert_eq!(state(&mut evidence, 120, now), expect, "at {now}");
    }
}

#[test]
fn h78_a_dying_nodes_last_word_holds_under_a_new_leader() {
    // Seen last by a leader that looked until 60, or vanished for it already at 10.
    for (last_firing, holds_until) in [(None, 60 + 900), (Some(10), 10 + 900)] {
        for (now, expect) in [
            (holds_until, SignalState::Firing),
            (holds_until + 1, SignalState::Unknown),
        ] {
            let records = [record(SignalState::Firing, 0, last_firing)];
            let mut evidence = restored(&records, 60, "False", now);
            evidence.fold(answer(&[], Some(&["b"])), at(now));
            let found = state(&mut evidence, 0, now);
            assert_eq!(found, expect, "{last_firing:?} at {now}");
        }
    }
    let mut evidence = restored(&[record(SignalState::Clear, 0, None)], 60, "False", 70);
    evidence.fold(answer(&[], Some(&["b"])), at(70));
    assert_eq!(state(&mut evidence, 0, 70), SignalState::Unknown);
}

#[test]
fn h78_what_was_seen_clear_does_not_fire_again_by_vanishing() {
    let mut evidence = with_nodes("False");
    evidence.fold(answer(&["a"], Some(&["a", "b"])), at(0));
    evidence.fold(answer(&[], Some(&["a", "b"])), at(30));
    evidence.fold(answer(&[], Some(&["b"])), at(60));
    assert_eq!(state(&mut evidence, 0, 60), SignalState::Unknown);
}

#[test]
fn marks_follow_their_nodes_and_not_those_that_come_in_their_place() {
    let mut evidence = with_nodes("True");
    evidence.fold(answer(&["a"], Some(&["a", "b"])), at(0));
    let rules = Rules::from_iter([rule(0)]);
    let of = |evidence: &Evidence, name: &str| {
        let node = evidence.node(name).expect("folded");
        evidence.signal(node, "R", &rules, at(10)).state
    };
    let reborn = NodeView {
        uid: "another".into(),
        ..node("a", "True")
    };
    let nodes = |first: NodeView| vec![node("0", "True"), first, node("b", "True")];
    evidence.fold(Input::Nodes(nodes(node("a", "True"))), at(10));
    let states = ["0", "a", "b"].map(|name| of(&evidence, name));
    let (clear, unknown) = (SignalState::Clear, SignalState::Unknown);
    assert_eq!(states, [unknown, SignalState::Firing, clear]);
    evidence.fold(Input::Nodes(nodes(reborn)), at(10));
    assert_eq!(
        ["0", "a", "b"].map(|name| of(&evidence, name)),
        [unknown, unknown, clear]
    );
}

fn says(alert: StoredAlert) -> Input {
    let alert = StoredAlert {
        name: "R".into(),
        ..alert
    };
    Input::Alerts {
        object: "o".into(),
        group: AlertGroupSpec {
            alerts: [("f".to_owned(), alert)].into(),
            ..AlertGroupSpec::default()
        },
    }
}

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
fn one_word_after_a_gap_is_not_enough_for_a_fault() {
    let (rules, mut slow) = (Rules::from_iter([rule(0)]), policy());
    slow.faults[0].for_ = Span::minutes(10);
    let mut evidence = with_nodes("True");
    let failed = || Input::Rule {
        asked: Timestamp::MAX,
        name: "R".into(),
        answer: Answer::Failed("503".into()),
    };
    let fires = || answer(&["a"], Some(&["a", "b"]));
    for (now, input, expect) in [
        (0, fires(), Truth::True),
        (30, failed(), Truth::Unknown),
        (60, fires(), Truth::Unknown),
        (89, fires(), Truth::Unknown),
        (90, fires(), Truth::True),
    ] {
        evidence.fold(input, at(now));
        evidence.settle(&rules, std::slice::from_ref(&slow), at(now));
        let node = evidence.node("a").expect("folded");
        let (truth, since) = evidence.fault(node, &slow, "f", &rules, at(now));
        assert_eq!(truth, expect, "at {now}");
        assert!(since.is_some(), "at {now}");
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
fn nothing_is_kept_of_nodes_that_are_gone_or_well() {
    let (rules, policies) = (Rules::from_iter([rule(0)]), [policy()]);
    let mut evidence = with_nodes("False");
    evidence.fold(answer(&["a", "b"], Some(&["a", "b"])), at(0));
    evidence.settle(&rules, &policies, at(0));
    assert_eq!(evidence.clocks.len(), 2);
    evidence.fold(Input::Nodes(vec![node("b", "True")]), at(30));
    evidence.settle(&rules, &policies, at(30));
    assert_eq!(evidence.clocks.len(), 1);
    for now in [60, 120, 180] {
        evidence.fold(Input::Nodes(vec![node("b", "True")]), at(now));
        evidence.fold(answer(&[], Some(&["b"])), at(now));
        evidence.settle(&rules, &policies, at(now));
    }
    assert!(evidence.clocks.is_empty(), "{:?}", evidence.clocks);
}

#[test]
fn what_fires_without_a_fresh_sample_is_not_known() {
    for (ready, present, expect) in [
        ("True", &["a", "b"][..], SignalState::Firing),
        ("True", &["b"], SignalState::Unknown),
        ("False", &["b"], SignalState::Unknown),
        ("True", &[], SignalState::Unknown),
    ] {
        let mut evidence = with_nodes(ready);
        evidence.fold(answer(&["a"], Some(present)), at(0));
        assert_eq!(state(&mut evidence, 0, 0), expect, "{ready} {present:?}");
    }
    let mut evidence = with_nodes("True");
    evidence.fold(answer(&["a"], None), at(0));
    let found = state(&mut evidence, 0, 0);
    assert_eq!(found, SignalState::Firing, "nothing says what is fresh");
}

#[test]
fn after_a_gap_a_slow_rule_must_be_evaluated_twice_too() {
    let slow = Rule {
        interval: Span::seconds(60),
        ..rule(0)
    };
    let (rules, mut policy) = (Rules::from_iter([slow]), policy());
    policy.faults[0].for_ = Span::minutes(10);
    let mut evidence = with_nodes("True");
    let failed = Input::Rule {
        asked: Timestamp::MAX,
        name: "R".into(),
        answer: Answer::Failed("503".into()),
    };
    let fires = || answer(&["a"], Some(&["a", "b"]));
    for (now, input, expect) in [
        (0, Some(fires()), Truth::True),
        (60, Some(failed), Truth::Unknown),
        (120, Some(fires()), Truth::Unknown),
        (150, None, Truth::Unknown),
        (180, Some(fires()), Truth::True),
    ] {
        if let Some(input) = input {
            evidence.fold(input, at(now));
        }
        evidence.settle(&rules, std::slice::from_ref(&policy), at(now));
        let node = evidence.node("a").expect("folded");
        let found = evidence.fault(node, &policy, "f", &rules, at(now)).0;
        assert_eq!(found, expect, "at {now}");
    }
}

/// The alert A of node a, and what is polled beside it.
fn beside(alert: StoredAlert, polled: Input, evidence: &mut Evidence, now: i64) -> SignalState {
    let rules = Rules::from_iter([rule(0)]);
    let mut both = policy();
    both.faults[0].when.any.push(Leaf {
        signal: Some("A".into()),
        ..Leaf::default()
    });
    let group = AlertGroupSpec {
        alerts: [("f".to_owned(), alert)].into(),
        ..AlertGroupSpec::default()
    };
    let nodes = vec![node("a", "True"), node("b", "True")];
    evidence.fold(Input::Nodes(nodes), at(now));
    evidence.fold(
        Input::Alerts {
            object: "o".into(),
            group,
        },
        at(now),
    );
    evidence.fold(polled, at(now));
    evidence.settle(&rules, &[both], at(now));
    let node = evidence.node("a").expect("folded");
    evidence.signal(node, "A", &rules, at(now)).state
}

#[test]
fn h19_an_alert_that_ends_while_prometheus_is_dark_is_no_recovery() {
    let failed = || Input::Rule {
        asked: Timestamp::MAX,
        name: "R".into(),
        answer: Answer::Failed("refused".into()),
    };
    let sees = || answer(&[], Some(&["a", "b"]));
    let empty = || answer(&[], Some(&[]));
    let fires = |now| alert(0, Some(now), None);
    let ended = |now| alert(0, Some(0), Some(now));
    for dark in [failed(), empty()] {
        let mut evidence = Evidence::default();
        let mut look = |alert, polled, now| beside(alert, polled, &mut evidence, now);
        assert_eq!(look(fires(0), sees(), 0), SignalState::Firing);
        assert_eq!(look(fires(30), dark.clone(), 30), SignalState::Firing);
        // Alertmanager heard nothing any more, and lets it end.
        assert_eq!(look(ended(60), dark, 60), SignalState::Unknown);
        // Prometheus is back, and its rules may still wait for their `for`.
        assert_eq!(look(ended(60), sees(), 90), SignalState::Unknown);
        for now in (120..=960).step_by(60) {
            assert_eq!(
                look(ended(60), sees(), now),
                SignalState::Unknown,
                "at {now}"
            );
        }
        assert_eq!(look(ended(60), sees(), 961), SignalState::Clear);
    }
    // While it sees, an end is an end.
    let mut evidence = Evidence::default();
    let mut look = |alert, polled, now| beside(alert, polled, &mut evidence, now);
    assert_eq!(look(fires(0), sees(), 0), SignalState::Firing);
    assert_eq!(look(ended(60), sees(), 60), SignalState::Clear);
}

#[test]
fn a_new_leader_that_was_not_answered_yet_does_not_call_prometheus_dark() {
    use SignalState::{Clear, Firing, Unknown};
    let sees = || answer(&[], Some(&["a", "b"]));
    let fires = |now| alert(0, Some(now), None);
    let ended = |now| StoredAlert {
        last_resolved: Some(at(now)),
        ..alert(0, Some(0), Some(now))
    };
    for (polled, expect) in [(sees(), Clear), (failed(), Unknown)] {
        let mut evidence = with_nodes("True");
        // Alertmanager answered, and nobody else.
        evidence.fold(lists_nothing(-5), at(0));
        assert_eq!(
            beside(fires(0), lists_nothing(-5), &mut evidence, 0),
            Firing
        );
        assert_eq!(
            beside(ended(6), lists_nothing(-5), &mut evidence, 6),
            Unknown
        );
        beside(ended(6), polled, &mut evidence, 10);
        assert_eq!(beside(ended(6), sees(), &mut evidence, 20), expect);
    }
}

#[test]
fn h19_a_new_leader_knows_that_prometheus_was_dark_a_while_ago() {
    use SignalState::{Clear, Firing, Unknown};
    let sees = || answer(&[], Some(&["a", "b"]));
    let (fires, ended) = (alert(0, Some(0), None), alert(0, Some(0), Some(360)));
    let mut before = with_nodes("True");
    beside(fires.clone(), failed(), &mut before, 0);
    let mut known = None;
    for (now, expect) in [(0, 300), (60, 300), (300, 300), (301, 601)] {
        beside(fires.clone(), failed(), &mut before, now);
        known = before.dark(known, at(now));
        assert_eq!(known, Some(at(expect)), "{now}");
    }
    assert_eq!(before.dark(Some(at(9000)), at(301)), Some(at(601)));
    beside(fires.clone(), sees(), &mut before, 330);
    assert_eq!(before.dark(known, at(301 + 900)), known);
    assert_eq!(before.dark(known, at(301 + 901)), None);
    for (known, expect) in [(known, Unknown), (None, Clear)] {
        let mut evidence = Evidence::default();
        if let Some(dark) = known {
            evidence.fold(Input::Dark(dark), at(340));
        }
        assert_eq!(beside(fires.clone(), sees(), &mut evidence, 350), Firing);
        assert_eq!(beside(ended.clone(), sees(), &mut evidence, 360), expect);
    }
}

#[test]
fn an_answer_is_as_old_as_its_question() {
    let state = answered_at_100(0);
    assert_eq!(state(120), SignalState::Firing);
    assert_eq!(state(121), SignalState::Unknown);
}

/// What a rule that fires says at a time, once it was asked at this one and heard at 100.
fn answered_at_100(asked: i64) -> impl Fn(i64) -> SignalState {
    let mut evidence = with_nodes("True");
    let Input::Rule { name, answer, .. } = answer(&["a"], Some(&["a", "b"])) else {
        panic!("a rule's");
    };
    let asked = at(asked);
    evidence.fold(
        Input::Rule {
            name,
            asked,
            answer,
        },
        at(100),
    );
    let rules = Rules::from_iter([rule(0)]);
    move |now| {
        let node = evidence.node("a").expect("folded");
        evidence.signal(node, "R", &rules, at(now)).state
    }
}

#[test]
fn times_of_receipt_from_the_future_are_taken_for_a_moment_ago() {
    let ahead = 365 * 24 * 3600;
    let group = |alert| AlertGroupSpec {
        alerts: BTreeMap::from([("f".to_owned(), alert)]),
        ..AlertGroupSpec::default()
    };
    let mut stored = group(alert(0, Some(ahead), Some(ahead)));
    stored.truncated_at = Some(at(ahead));
    assert!(correct(&mut stored, at(100)));
    let mut expect = group(alert(0, Some(99), Some(99)));
    expect.truncated_at = Some(at(99));
    assert_eq!(stored, expect);
    assert!(!correct(&mut stored, at(100)), "nothing is left to correct");
    // The next word counts again.
    assert!(merge(&mut stored, &group(alert(0, Some(500), None))));
    assert_eq!(last_word(&stored.alerts["f"]), SignalState::Firing);
    let near = group(alert(0, Some(105), None));
    assert!(
        !correct(&mut near.clone(), at(100)),
        "replicas differ a little"
    );
}

#[test]
fn clocks_of_which_nobody_asks_any_more_are_forgotten() {
    let rules = Rules::from_iter([rule(0)]);
    let mut evidence = with_nodes("True");
    let fires = || answer(&["a"], Some(&["a", "b"]));
    evidence.fold(fires(), at(0));
    evidence.settle(&rules, &[policy()], at(0));
    assert!(evidence.watched("uid-a"));
    let mut elsewhere = policy();
    let label = ("pool".to_owned(), "x".to_owned());
    elsewhere.selector.match_labels = [label].into();
    evidence.settle(&rules, &[elsewhere], at(30));
    assert!(!evidence.watched("uid-a"));
    evidence.settle(&rules, &[policy()], at(60));
    let node = evidence.node("a").expect("folded");
    let since = evidence.fault(node, &policy(), "f", &rules, at(60)).1;
    assert_eq!(since, Some(at(60)), "it begins anew");
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

/// The fault of node a, whose conditions are these.
fn of_conditions(conditions: &[(&str, &str, &str)], when: When) -> Truth {
    let mut policy = policy();
    policy.faults[0].when = when;
    let condition = |(type_, status, reason): &(&str, &str, &str)| Condition {
        type_: (*type_).into(),
        status: (*status).into(),
        reason: (*reason).into(),
    };
    let mut evidence = Evidence::default();
    let node = NodeView {
        conditions: conditions.iter().map(condition).collect(),
        ..node("a", "True")
    };
    evidence.fold(Input::Nodes(vec![node]), at(0));
    let node = evidence.node("a").expect("folded");
    evidence
        .fault(node, &policy, "f", &Rules::default(), at(0))
        .0
}

fn condition(type_: &str, statuses: &[ConditionStatus], reasons: &[&str]) -> Leaf {
    Leaf {
        condition: Some(ConditionLeaf {
            type_: type_.into(),
            statuses: statuses.to_vec(),
            reasons: reasons.iter().map(ToString::to_string).collect(),
        }),
        ..Leaf::default()
    }
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
fn a_node_is_watched_while_a_fault_of_it_has_a_clock() {
    let mut policy = policy();
    policy.faults[0].when = When {
        all: vec![condition("Ready", &[ConditionStatus::False], &[])],
        ..When::default()
    };
    let mut evidence = with_nodes("False");
    evidence.settle(&Rules::default(), &[policy], at(0));
    assert!(evidence.watched("uid-a") && !evidence.watched("uid-b"));
    evidence.forget_fault("p", "f");
    assert!(!evidence.watched("uid-a"));
}

#[test]
fn what_was_not_asked_yet_is_not_dark() {
    let sees = || answer(&[], Some(&["a", "b"]));
    let mut evidence = with_nodes("True");
    evidence.settle(&Rules::from_iter([rule(0)]), &[policy()], at(0));
    let mut look = |alert, now| beside(alert, sees(), &mut evidence, now);
    assert_eq!(look(alert(0, Some(30), None), 30), SignalState::Firing);
    assert_eq!(look(alert(0, Some(30), Some(60)), 60), SignalState::Clear);
}
