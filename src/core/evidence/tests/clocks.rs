//! Since when: gaps, flapping, clocks that go back, what a next leader knows.

use super::*;

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
