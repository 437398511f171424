//! What Prometheus answers: absence, silence, outages, rules that break.

use super::*;

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

/// The alert A of node a, and what is polled beside it.
fn beside(alert: StoredAlert, polled: Input, evidence: &mut Evidence, now: i64) -> SignalState {
    let rules = Rules::from_iter([rule(0)]);
    beside_rules(&rules, alert, [polled], evidence, now)
}

/// What a policy asks that rests on R and A.
fn of_both() -> Policy {
    let mut both = policy();
    both.faults[0].when.any.push(Leaf {
        signal: Some("A".into()),
        ..Leaf::default()
    });
    both
}

fn beside_rules(
    rules: &Rules,
    alert: StoredAlert,
    polled: impl IntoIterator<Item = Input>,
    evidence: &mut Evidence,
    now: i64,
) -> SignalState {
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
    for polled in polled {
        evidence.fold(polled, at(now));
    }
    evidence.settle(rules, &[of_both()], at(now));
    let node = evidence.node("a").expect("folded");
    evidence.signal(node, "A", rules, at(now)).state
}

/// What S, which has always data of both nodes, answers beside R.
fn with_s(of_r: Input) -> [Input; 2] {
    let Input::Rule { asked, answer, .. } = answer(&[], Some(&["a", "b"])) else {
        panic!("a rule's");
    };
    let name = "S".to_owned();
    let of_s = Input::Rule {
        name,
        asked,
        answer,
    };
    [of_r, of_s]
}

fn r_and_s() -> Rules {
    let other = Rule {
        name: "S".into(),
        ..rule(0)
    };
    Rules::from_iter([rule(0), other])
}

#[test]
fn h19_an_alert_that_ends_while_the_targets_of_its_node_are_cut_off_is_no_recovery() {
    use SignalState::{Clear, Firing, Unknown};
    let rules = r_and_s();
    let sees = |nodes: &[&str]| with_s(answer(&[], Some(nodes)));
    let both = || sees(&["a", "b"]);
    let fires = |now| alert(0, Some(now), None);
    let ended = || alert(0, Some(0), Some(60));
    for cut_off in [&["b"][..], &[]] {
        let mut evidence = Evidence::default();
        let mut look = |alert, polled, now| beside_rules(&rules, alert, polled, &mut evidence, now);
        assert_eq!(look(fires(0), both(), 0), Firing);
        assert_eq!(look(fires(30), sees(cut_off), 30), Firing);
        assert_eq!(look(ended(), sees(cut_off), 60), Unknown);
        // That R has no answer any more proves nothing.
        assert_eq!(look(ended(), with_s(failed()), 90), Unknown);
        assert_eq!(look(ended(), sees(cut_off), 120), Unknown);
        // Alerts on what is seen again may wait for their `for`.
        for now in (150..=120 + 900).step_by(30) {
            assert_eq!(look(ended(), both(), now), Unknown, "at {now}");
        }
        assert_eq!(look(ended(), both(), 120 + 901), Clear);
    }
    // Who stays away for a day is not waited for.
    let mut evidence = Evidence::default();
    let mut look = |alert, polled, now| beside_rules(&rules, alert, polled, &mut evidence, now);
    let day = 24 * 60 * 60;
    assert_eq!(look(fires(0), both(), 0), Firing);
    for (now, expect) in [(30, Unknown), (30 + day, Unknown), (31 + day, Clear)] {
        assert_eq!(look(ended(), sees(&["b"]), now), expect, "at {now}");
    }
}

#[test]
fn a_rule_that_never_saw_a_node_does_not_keep_its_alerts_from_ending() {
    use SignalState::{Clear, Firing};
    let rules = r_and_s();
    let fires = || alert(0, Some(0), None);
    let ended = || alert(0, Some(0), Some(60));
    let other = || with_s(answer(&[], Some(&["b"])));
    let mut evidence = Evidence::default();
    let mut look = |alert, polled, now| beside_rules(&rules, alert, polled, &mut evidence, now);
    assert_eq!(look(fires(), other(), 0), Firing);
    assert_eq!(look(ended(), other(), 60), Clear);
    // Nor does one that lost it, of an alert that never fired.
    let mut evidence = Evidence::default();
    let mut look = |alert, polled, now| beside_rules(&rules, alert, polled, &mut evidence, now);
    assert_eq!(
        look(ended(), with_s(answer(&[], Some(&["a", "b"]))), 60),
        Clear
    );
    assert_eq!(look(ended(), other(), 90), Clear);
}

#[test]
fn h19_that_a_node_was_cut_off_outlives_the_leader_and_other_nodes() {
    use SignalState::{Clear, Firing, Unknown};
    let rules = r_and_s();
    let sees = |nodes: &[&str]| with_s(answer(&[], Some(nodes)));
    let fires = || alert(0, Some(0), None);
    let ended = || alert(0, Some(0), Some(60));
    // What the next leader finds at 60, if the last answers of this one had data of these.
    for (first, then, expect) in [
        (&["a", "b"][..], &["b"][..], Unknown),
        (&["a", "b"], &["a", "b"], Unknown),
        (&["b"], &["b"], Clear),
    ] {
        let mut evidence = Evidence::default();
        for (polled, now) in [(first, 0), (then, 30)] {
            let found = beside_rules(&rules, fires(), sees(polled), &mut evidence, now);
            assert_eq!(found, Firing, "at {now}");
        }
        let node_a = evidence.node("a").expect("folded");
        let signals = evidence.signals(node_a, &of_both(), &rules, at(30));
        let lost = signals.iter().find(|of| of.name == "R").expect("asked for");
        let expected = (first != then).then(|| at(30));
        assert_eq!(lost.paused, expected, "{first:?} {then:?}");

        let mut next = restored(&signals, 30, "True", 50);
        let found = beside_rules(&rules, ended(), with_s(failed()), &mut next, 55);
        assert_eq!(found, expect, "not answered: {first:?} {then:?}");
        let found = beside_rules(&rules, ended(), sees(&["b"]), &mut next, 60);
        assert_eq!(found, expect, "{first:?} {then:?}");
        let nodes = ["0", "a", "b"].map(|name| node(name, "True"));
        next.fold(Input::Nodes(nodes.to_vec()), at(60));
        let node_a = next.node("a").expect("folded");
        let found = next.signal(node_a, "A", &rules, at(60)).state;
        assert_eq!(found, expect, "beside another: {first:?} {then:?}");
    }
}

#[test]
fn h19_an_alert_that_ends_while_prometheus_is_dark_is_no_recovery() {
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

#[test]
fn what_was_not_asked_yet_is_not_dark() {
    let sees = || answer(&[], Some(&["a", "b"]));
    let mut evidence = with_nodes("True");
    evidence.settle(&Rules::from_iter([rule(0)]), &[policy()], at(0));
    let mut look = |alert, now| beside(alert, sees(), &mut evidence, now);
    assert_eq!(look(alert(0, Some(30), None), 30), SignalState::Firing);
    assert_eq!(look(alert(0, Some(30), Some(60)), 60), SignalState::Clear);
}
