//! Requests for a repair, by hand.

use super::*;

/// A person asks for the repair of a node that is well.
fn asked(node: &mut NodeView) {
    if node.name == "n005" {
        let request = serde_json::json!({
            "uid": node.uid, "at": at(30), "until": at(900), "by": "eve", "reason": "smells",
            "override": ["InFlight", "Budget", "ClusterBreaker"],
        });
        let asks = (REQUEST_ANNOTATION.to_owned(), request.to_string());
        node.annotations = [asks].into();
    }
}

#[test]
fn what_a_person_asks_for_is_due_at_once_where_the_policy_acts() {
    let check = |mode: Mode, second: i64, expect: (VerdictKind, &[Reason])| {
        let mut fleet = Fleet::new(10, 0);
        fleet.policies = vec![policy("p", mode, 0)];
        fleet.change = asked;
        fleet.watch(10, 0, 30, second);
        let (verdicts, admitted, scopes) = fleet.decide(second);
        let verdict = &verdicts[5];
        assert_eq!(
            (verdict.kind, verdict.reasons.as_slice()),
            expect,
            "{mode:?}"
        );
        assert_eq!(admitted.len(), usize::from(expect.0 == VerdictKind::Due));
        // Nobody is sick for it.
        assert_eq!((verdict.sick_since, scopes.cluster().sick), (None, 0));
    };
    check(Mode::Enforce, 30, (VerdictKind::Due, &[]));
    check(Mode::Approve, 30, (VerdictKind::Due, &[]));
    check(
        Mode::Observe,
        30,
        (VerdictKind::Held, &[Reason::ObserveMode]),
    );
    check(Mode::Enforce, 870, (VerdictKind::Due, &[]));
    check(Mode::Enforce, 900, (VerdictKind::Healthy, &[]));
}

#[test]
fn one_request_makes_one_repair() {
    let mut fleet = Fleet::new(10, 0);
    fleet.change = asked;
    fleet.watch(10, 0, 30, 60);
    let mut made = repair("n005", 30, Phase::Aborted);
    made.spec.request = fleet.decide(60).0[5].request().cloned();
    fleet.repairs = vec![made];
    assert_eq!(fleet.decide(60).0[5].kind, VerdictKind::Healthy);
    if let Some(request) = &mut fleet.repairs[0].spec.request {
        request.at = at(29);
    }
    assert_eq!(fleet.decide(60).1, ["n005"]);
}

#[test]
fn nodes_that_people_had_replaced_were_not_sick() {
    let mut fleet = Fleet::new(10, 0);
    fleet.change = asked;
    fleet.watch(10, 0, 30, 60);
    let request = fleet.decide(60).0[5].request().cloned();
    let gone = |number: usize| repair(&format!("gone{number}"), 30, Phase::Succeeded);
    fleet.repairs = (0..3).map(gone).collect();
    let open = |fleet: &Fleet| fleet.decide(60).2.cluster().breaker != BreakerState::Closed;
    assert!(open(&fleet));
    for repair in &mut fleet.repairs {
        repair.spec.request.clone_from(&request);
    }
    assert!(!open(&fleet));
    assert_eq!(fleet.decide(60).2.cluster().nodes, 13);
}

#[test]
fn guards_that_count_hold_a_person_too_unless_told_to_be_ignored() {
    let check = |prepare: &dyn Fn(&mut Fleet), expect: &[Reason]| {
        let mut fleet = Fleet::new(20, 0);
        fleet.change = asked;
        prepare(&mut fleet);
        fleet.watch(20, 5, 30, 120);
        let (verdicts, admitted, _) = fleet.decide(120);
        assert_eq!(verdicts[5].reasons, expect);
        assert_eq!(admitted.contains(&"n005".to_owned()), expect.is_empty());
    };
    // All three are told to be ignored.
    check(
        &|fleet| {
            fleet.limits.max_in_flight = 0;
            fleet.limits.breaker.share = 10;
            fleet.policies[0].budgets = vec![Budget {
                name: "none".into(),
                per: Per::Cluster,
                max_repairs: None,
                max_in_flight: Some(0),
                max_unavailable: None,
            }];
        },
        &[],
    );
    check(
        &|fleet| fleet.limits.max_repairs = vec![(0, Span::minutes(60))],
        &[Reason::RateLimit],
    );
    check(
        &|fleet| {
            let mut needs = [
                repair("n001", 0, Phase::NeedsHuman),
                repair("n002", 0, Phase::NeedsHuman),
            ];
            for repair in &mut needs {
                repair.spec.pool = "x".into();
            }
            fleet.repairs = needs.to_vec();
            fleet.limits.breaker.share = 100;
            fleet.change = |node| {
                asked(node);
                in_pool_x(node);
            };
        },
        &[Reason::PoolStopped],
    );
}

#[test]
fn a_running_repair_goes_on_through_a_storm_that_it_was_told_to_ignore() {
    let mut fleet = Fleet::new(20, 0);
    fleet.limits.breaker.share = 10;
    fleet.change = asked;
    fleet.watch(20, 5, 30, 120);
    let (verdicts, _, scopes) = fleet.decide(120);
    let mut running = repair("n005", 100, Phase::Draining);
    let rules = Rules::default();
    let paused =
        |repair: &NodeRepair| pause_reason(None, repair, &fleet.world(&rules), &scopes, at(120));
    assert_eq!(paused(&running), Some(Reason::ClusterBreaker));
    running.spec.request = verdicts[5].request().cloned();
    assert_eq!(paused(&running), None);
}

#[test]
fn what_a_person_asks_for_is_on_record_also_where_no_policy_acts() {
    let mut fleet = Fleet::new(10, 0);
    fleet.change = asked;
    fleet.policies.clear();
    fleet.watch(10, 0, 30, 60);
    let (verdicts, _, _) = fleet.decide(60);
    assert_eq!(verdicts[5].kind, VerdictKind::Ignored);
    assert!(verdicts[5].request().is_some());
    assert!(verdicts[4].inputs.is_none());
    let refused = Policy::refused("bad".into(), 0, NodeSelector::default());
    fleet.policies = vec![refused];
    fleet.watch(10, 0, 90, 120);
    let (verdicts, _, _) = fleet.decide(120);
    assert_eq!(held(&verdicts, "n005").0, [Reason::PolicyRefused]);
    assert!(verdicts[5].request().is_some() && verdicts[4].request().is_none());
    assert_eq!(verdicts[4].inputs.as_ref().unwrap().policy, "bad");
}
