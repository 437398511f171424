//! Rates, runs at once, and the budgets of policies.

use super::*;

#[test]
fn rates_count_open_closed_and_deleted_repairs() {
    let mut fleet = Fleet::new(100, 4);
    fleet.watch(100, 4, 30, 120);
    fleet.limits.max_in_flight = 9;
    fleet.limits.max_repairs = vec![(3, Span::minutes(60))];
    assert_eq!(fleet.decide(120).1.len(), 3);
    fleet.repairs = vec![repair("gone", 0, Phase::Succeeded)];
    fleet.starts = vec![Reservation {
        repair: "deleted".into(),
        node_uid: "x".into(),
        at: at(0),
    }];
    let (verdicts, starting, _) = fleet.decide(120);
    assert_eq!(starting.len(), 1);
    assert_eq!(verdicts[1].reasons, [Reason::RateLimit]);
    // An hour later both are forgotten.
    fleet.watch(100, 4, 150, 3630);
    assert_eq!(fleet.decide(3630).1.len(), 3);
}

#[test]
fn no_more_run_at_once_than_may() {
    let mut fleet = Fleet::new(100, 4);
    fleet.watch(100, 4, 30, 120);
    fleet.repairs = vec![repair("n003", 0, Phase::Draining)];
    let (verdicts, starting, _) = fleet.decide(120);
    assert_eq!(starting, ["n000"]);
    assert_eq!(verdicts[1].reasons, [Reason::InFlight]);
    assert_eq!(verdicts[3].kind, VerdictKind::Repairing);
}

#[test]
fn a_budget_holds_what_would_exceed_it_and_names_itself() {
    let one_each = Budget {
        max_in_flight: Some(1),
        ..budget("zone", Per::Zone)
    };
    let mut fleet = budgeted(one_each);
    let (verdicts, admitted, _) = fleet.decide(120);
    assert_eq!(admitted, ["n000", "n001"]);
    let expect = (
        vec![Reason::Budget],
        vec!["budget/p/zone/zone/a".to_owned()],
    );
    assert_eq!(held(&verdicts, "n002"), expect);
    // A repair of another policy on one of its nodes counts.
    let mut other = repair("n050", 0, Phase::Draining);
    other.spec.policy = "other".into();
    other.spec.zone = "b".into();
    fleet.repairs.push(other);
    assert_eq!(fleet.decide(120).1, ["n000"]);
    // One that ended does not.
    fleet.repairs[0].status.as_mut().unwrap().phase = Phase::Succeeded;
    assert_eq!(fleet.decide(120).1, ["n000", "n001"]);
}

#[test]
fn h64_a_rate_counts_starts_within_its_window_also_those_whose_record_is_gone() {
    let hourly = Budget {
        max_repairs: Some((2, Span::minutes(60))),
        ..budget("hourly", Per::Cluster)
    };
    let mut fleet = budgeted(hourly);
    assert_eq!(fleet.decide(120).1.len(), 2);
    fleet.repairs.push(repair("n090", -3000, Phase::Succeeded));
    assert_eq!(fleet.decide(120).1.len(), 1);
    fleet.starts.push(Reservation {
        repair: "deleted".into(),
        node_uid: "x".into(),
        at: at(-60),
    });
    let rules = Rules::default();
    let world = fleet.world(&rules);
    let mut verdicts: Vec<Verdict> = fleet
        .evidence
        .nodes()
        .map(|node| judge(node, &world, at(120)))
        .collect();
    let scopes = survey(&verdicts, &world, at(120));
    let admission = admit(&mut verdicts, &scopes, &world, at(120));
    assert!(admission.admitted.is_empty());
    let [guard] = &admission.guards[..] else {
        panic!("one guard: {:?}", admission.guards);
    };
    assert_eq!((guard.limit, guard.current), (2, 2));
    assert_eq!(guard.until, Some(at(600)), "the oldest is an hour old then");
    fleet.watch(100, 4, 150, 600);
    assert_eq!(fleet.decide(600).1.len(), 1);
}

#[test]
fn h83_who_is_down_may_be_repaired_where_too_many_are_one_at_a_time() {
    let tenth = Budget {
        max_unavailable: Some(Amount::Percent(10)),
        ..budget("tenth", Per::Cluster)
    };
    let mut fleet = Fleet::new(0, 0);
    fleet.policies[0].budgets = vec![tenth];
    fleet.watch(10, 2, 0, 120);
    // Two of ten are down, one may be.
    assert_eq!(fleet.decide(120).1, ["n000"]);
    fleet.repairs.push(repair("n000", 100, Phase::Draining));
    let (verdicts, admitted, _) = fleet.decide(120);
    assert!(admitted.is_empty());
    assert_eq!(held(&verdicts, "n001").0, [Reason::Budget]);
    fleet.policies[0].budgets[0].max_unavailable = Some(Amount::Percent(0));
    fleet.repairs.clear();
    assert!(fleet.decide(120).1.is_empty(), "none is none");
}

/// Ten nodes of which n000 has a bad disk and is Ready all the same, where one of them may
/// be unavailable.
fn one_of_ten_may_be_down() -> Fleet {
    let mut fleet = Fleet::new(0, 0);
    let one = Budget {
        max_unavailable: Some(Amount::Count(1)),
        ..budget("one", Per::Cluster)
    };
    fleet.policies[0].budgets = vec![one];
    let wanted = crate::api::ConditionLeaf {
        type_: "Disk".into(),
        statuses: vec![ConditionStatus::True],
        reasons: vec![],
    };
    fleet.policies[0].faults[0].when.all[0].condition = Some(wanted);
    fleet.change = bad_disk;
    fleet.watch(10, 0, 0, 120);
    assert_eq!(fleet.decide(120).1, ["n000"]);
    fleet
}

fn bad_disk(node: &mut NodeView) {
    let status = if node.name == "n000" { "True" } else { "False" };
    node.conditions.push(Condition {
        type_: "Disk".into(),
        status: status.into(),
        reason: String::new(),
    });
}

/// The nodes and the unavailable ones that the only budget counts, and whether n000 starts.
fn counted(fleet: &Fleet, second: i64) -> (usize, usize, bool) {
    let (verdicts, admitted, scopes) = fleet.decide(second);
    let starts = admitted == ["n000"];
    if !starts {
        assert!(admitted.is_empty(), "{admitted:?}");
        assert_eq!(held(&verdicts, "n000").0, [Reason::Budget]);
    }
    let [tally] = &scopes.tallies.values().collect::<Vec<_>>()[..] else {
        panic!("one budget: {:?}", scopes.tallies);
    };
    (tally.nodes, tally.unavailable, starts)
}

#[test]
fn h64_a_node_under_repair_is_unavailable_before_its_cordon_shows() {
    let mut fleet = one_of_ten_may_be_down();
    fleet.repairs = vec![repair("n005", 100, Phase::Quarantined)];
    assert_eq!(counted(&fleet, 120), (10, 1, false));
    fleet.repairs = vec![repair("n005", 100, Phase::Aborted)];
    assert_eq!(counted(&fleet, 120), (10, 0, true));
    // It is sick for its disk, also while nobody can tell.
    let (rules, node) = (Rules::default(), fleet.evidence.node("n000").unwrap());
    let blind = judge(node, &fleet.world(&rules), at(300));
    let found = (blind.kind, blind.sick_since);
    assert_eq!(found, (VerdictKind::Unknown, Some(at(0))));
    // One whose record may yet appear too, but none whose record was deleted.
    fleet.repairs.clear();
    let start = Reservation {
        repair: "r".into(),
        node_uid: "n005".into(),
        at: at(100),
    };
    fleet.starts = vec![start.clone()];
    assert_eq!(counted(&fleet, 120), (10, 0, true));
    (fleet.starts, fleet.reserved) = (vec![], vec![start]);
    assert_eq!(counted(&fleet, 120), (10, 1, false));
    // So is the first of two that would start at once.
    let mut fleet = one_of_ten_may_be_down();
    fleet.change = |node| {
        bad_disk(node);
        if node.name == "n001" {
            node.conditions[1].status = "True".into();
        }
    };
    fleet.watch(10, 0, 150, 300);
    assert_eq!(fleet.decide(300).1, ["n000"]);
    // As of two that would, were they not only observed.
    fleet.policies[0].mode = Mode::Observe;
    fleet.policies[0].ready_timeout = Span::minutes(15);
    assert_eq!(fleet.would_start(300), ["n000"]);
    assert_eq!(fleet.would_start(330), Vec::<String>::new());
}

#[test]
fn h65_a_node_that_is_up_is_not_taken_where_others_are_down() {
    type Change = fn(&mut NodeView);
    fn of_four(node: &NodeView) -> bool {
        ["n006", "n007", "n008", "n009"].contains(&node.name.as_str())
    }
    let by_others: [Change; 4] = [
        // Somebody drains nodes for an upgrade.
        |node| node.unschedulable = of_four(node),
        |node| node.deleting = of_four(node),
        |node| {
            if of_four(node) {
                node.taints.push("karpenter.sh/disrupted".into());
            }
        },
        |node| {
            if of_four(node) {
                node.taints.push("ToBeDeletedByClusterAutoscaler".into());
                (node.unschedulable, node.deleting) = (true, true);
            }
        },
    ];
    for change in by_others {
        let mut fleet = one_of_ten_may_be_down();
        fleet.change = bad_disk;
        let mut nodes: Vec<NodeView> = fleet.evidence.nodes().cloned().collect();
        nodes.iter_mut().for_each(change);
        fleet.evidence.fold(Input::Nodes(nodes), at(150));
        assert_eq!(counted(&fleet, 150), (10, 4, false));
        // Breakers leave those alone that others take away.
        let (_, _, scopes) = fleet.decide(150);
        assert_eq!(scopes.cluster().sick, 1);
        // They are gone, and were never sick.
        fleet.see(6, 0, 180);
        assert_eq!(counted(&fleet, 180), (6, 0, true));
    }
}

#[test]
fn h65_a_node_that_was_lost_without_a_repair_is_unavailable_for_the_cooldown() {
    let mut fleet = one_of_ten_may_be_down();
    fleet.see(9, 0, 150);
    assert_eq!(counted(&fleet, 150), (9, 0, true));
    let lost = Fallen {
        uid: "n009".into(),
        place: Place::default(),
        policy: "p".into(),
        since: at(130),
        sick: true,
        gone: Some(at(140)),
    };
    fleet.fallen = vec![lost];
    assert_eq!(counted(&fleet, 150), (10, 1, false));
    // Its repair counts it once.
    fleet.repairs = vec![repair("n009", 140, Phase::Aborted)];
    assert_eq!(counted(&fleet, 150), (10, 1, false));
    fleet.repairs.clear();
    // Who is back, or was another policy's, does not count.
    fleet.see(10, 0, 180);
    assert_eq!(counted(&fleet, 180), (10, 0, true));
    fleet.see(9, 0, 210);
    fleet.fallen[0].policy = "q".into();
    assert_eq!(counted(&fleet, 210), (9, 0, true));
    fleet.fallen[0].policy = "p".into();
    fleet.watch(9, 0, 240, 740);
    fleet.see(9, 0, 740);
    assert_eq!(counted(&fleet, 740), (10, 1, false));
    fleet.see(9, 0, 741);
    assert_eq!(counted(&fleet, 741), (9, 0, true));
}

#[test]
fn h82_nodes_that_never_were_ready_are_nothing_that_a_budget_could_miss() {
    let mut fleet = one_of_ten_may_be_down();
    fleet.change = |node| {
        bad_disk(node);
        let number: usize = node.name[1..].parse().unwrap();
        if number >= 10 {
            (node.created, node.conditions[0].status) = (at(140), "False".into());
            node.deleting = number == 10;
        }
    };
    fleet.see(40, 0, 150);
    assert_eq!(counted(&fleet, 150), (10, 0, true));
}

#[test]
fn an_admission_whose_record_may_yet_appear_is_in_flight() {
    let zone = Budget {
        max_in_flight: Some(1),
        ..budget("zone", Per::Zone)
    };
    let mut fleet = budgeted(zone);
    assert_eq!(fleet.decide(120).1, ["n000", "n001"]);
    // Of a node in zone a, whatever became of its fault.
    fleet.reserved = vec![Reservation {
        repair: "to-come".into(),
        node_uid: "n050".into(),
        at: at(110),
    }];
    let (verdicts, admitted, scopes) = fleet.decide(120);
    assert_eq!(admitted, ["n001"]);
    assert_eq!(held(&verdicts, "n000").0, [Reason::Budget]);
    assert_eq!(scopes.cluster().in_flight, 1);
    assert_eq!(scopes.starts.len(), 0, "no rate is configured");
    fleet.limits.max_in_flight = 1;
    fleet.limits.max_repairs = vec![(1, Span::minutes(60))];
    let (verdicts, admitted, _) = fleet.decide(120);
    assert!(admitted.is_empty());
    let both = [Reason::InFlight, Reason::RateLimit];
    assert_eq!(held(&verdicts, "n001").0, both);
    fleet.limits = Limits::default();
    // The node is gone: it may have been anywhere.
    fleet.reserved[0].node_uid = "gone".into();
    let (_, admitted, scopes) = fleet.decide(120);
    assert!(admitted.is_empty());
    assert_eq!(scopes.cluster().in_flight, 1);
    // It counts where its node is.
    let mut fleet = Fleet::new(0, 0);
    fleet.change = placed;
    fleet.watch(10, 0, 0, 30);
    fleet.reserved = vec![Reservation {
        repair: "r".into(),
        node_uid: "n001".into(),
        at: at(0),
    }];
    let census = fleet.decide(30).2.census;
    let running = ["a", "b"].map(|zone| census[&Scope::Zone(zone.into())].in_flight);
    assert_eq!(running, [0, 1]);
}

#[test]
fn h64_where_no_more_starts_can_be_remembered_nothing_starts() {
    let mut fleet = Fleet::new(100, 4);
    fleet.limits.max_in_flight = 99;
    fleet.limits.max_repairs = vec![(1_000_000, Span::minutes(60))];
    fleet.policies[0].budgets = vec![Budget {
        max_repairs: Some((1_000_000, Span::minutes(120))),
        ..budget("long", Per::Cluster)
    }];
    fleet.watch(100, 4, 30, 120);
    let start = |number: usize| Reservation {
        repair: format!("deleted-{number}"),
        node_uid: "x".into(),
        at: at(-600),
    };
    fleet.starts = (0..crate::api::MAX_STARTS - 3).map(start).collect();
    assert_eq!(fleet.decide(120).1, ["n000", "n001", "n002"]);
    fleet.starts.push(start(4000));
    fleet.starts.push(start(4001));
    fleet.starts.push(start(4002));
    let rules = Rules::default();
    let mut verdicts = judge_all(&fleet.world(&rules), at(120));
    let scopes = survey(&verdicts, &fleet.world(&rules), at(120));
    let admission = admit(&mut verdicts, &scopes, &fleet.world(&rules), at(120));
    assert!(admission.admitted.is_empty());
    let [guard] = &admission.guards[..] else {
        panic!("one guard: {:?}", admission.guards);
    };
    let found = (
        guard.scope.as_str(),
        guard.reason,
        guard.current,
        guard.until,
    );
    let until = Some(at(-600 + 7200));
    assert_eq!(found, ("fleet/starts", Reason::RateLimit, 1000, until));
}

#[test]
fn starts_are_remembered_for_the_longest_window_of_limits_and_policies() {
    let mut fleet = Fleet::new(1, 0);
    let check = |fleet: &Fleet, minutes: u32| {
        let found = memory(&fleet.limits, &fleet.policies);
        assert_eq!(found, Span::minutes(minutes));
    };
    fleet.limits.max_repairs = vec![(1, Span::minutes(10))];
    // A day at least: a policy may be refused for a while.
    check(&fleet, 24 * 60);
    fleet.limits.max_repairs = vec![(1, Span::minutes(2000)), (1, Span::minutes(10))];
    check(&fleet, 2000);
    fleet.policies[0].budgets = vec![
        budget("other", Per::Zone),
        Budget {
            max_repairs: Some((10, Span::minutes(7 * 24 * 60))),
            ..budget("weekly", Per::Pool)
        },
    ];
    check(&fleet, 7 * 24 * 60);
}

#[test]
fn h61_percentages_round_down_but_not_to_none() {
    for (text, total, expect) in [
        ("10%", 1, 1),
        ("10%", 3, 1),
        ("10%", 19, 1),
        ("10%", 20, 2),
        ("0%", 100, 0),
        ("0", 100, 0),
        ("2", 1, 2),
        ("100%", 7, 7),
    ] {
        let amount: Amount = text.parse().unwrap();
        assert_eq!(amount.of(total), expect, "{text} of {total}");
    }
    for text in ["", "%", "101%", "-1", "1.5", "10 %"] {
        assert!(text.parse::<Amount>().is_err(), "{text}");
    }
}

#[test]
fn a_budget_counts_who_was_repaired_away_lately_or_still_is_as_one_that_is_down() {
    let mut fleet = Fleet::new(20, 0);
    let down = Budget {
        max_unavailable: Some(Amount::Count(5)),
        ..budget("down", Per::Cluster)
    };
    fleet.policies[0].budgets = vec![down];
    let mut again = repair("gone", 10, Phase::Succeeded);
    again.metadata.name = Some("r-gone-2".into());
    again.spec.ordinal = 2;
    fleet.repairs = vec![
        repair("gone", 10, Phase::Succeeded),
        again,
        repair("going", 10, Phase::Verifying),
        repair("n003", 10, Phase::Draining),
    ];
    let key = ("p".to_owned(), "down".to_owned(), Scope::Cluster);
    for (second, nodes, unavailable) in [(600, 22, 3), (610, 22, 3), (611, 21, 2)] {
        fleet.see(20, 0, second);
        let scopes = fleet.decide(second).2;
        let tally = &scopes.tallies[&key];
        let found = (tally.nodes, tally.unavailable, tally.in_flight);
        assert_eq!(found, (nodes, unavailable, 2), "at {second}");
    }
}
