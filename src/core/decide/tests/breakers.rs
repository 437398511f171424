//! Storms: what opens a breaker, what it counts, how it closes.

use super::*;

#[test]
fn h58_a_storm_opens_the_breaker_and_nothing_starts() {
    for (sick, open, admitted) in [(2, false, 2), (3, true, 0), (20, true, 0)] {
        let mut fleet = Fleet::new(20, 0);
        fleet.limits.breaker.share = 10;
        fleet.watch(20, sick, 30, 120);
        let (verdicts, starting, scopes) = fleet.decide(120);
        let is_open = matches!(scopes.cluster().breaker, BreakerState::Open { .. });
        assert_eq!((is_open, starting.len()), (open, admitted), "{sick} sick");
        if open {
            assert_eq!(verdicts[0].reasons, [Reason::ClusterBreaker]);
        }
    }
}

/// Nothing is due yet, so it holds nobody.
#[test]
fn h58_an_open_breaker_is_told_of_before_it_holds_anybody() {
    let (fleet, rules) = (Fleet::new(100, 40), Rules::default());
    let world = fleet.world(&rules);
    let mut verdicts = judge_all(&world, at(0));
    let scopes = survey(&verdicts, &world, at(0));
    let guards = admit(&mut verdicts, &scopes, &world, at(0)).guards;
    let [guard] = guards.as_slice() else {
        panic!("one breaker: {guards:?}");
    };
    assert_eq!((guard.reason, guard.current), (Reason::ClusterBreaker, 40));
    assert!(verdicts.iter().all(|one| one.kind != VerdictKind::Held));
}

/// However many may be sick, all of them may not; the numbers say so.
#[test]
fn h58_a_cluster_that_is_sick_as_a_whole_is_held_by_numbers_that_show_it() {
    let mut fleet = Fleet::new(2, 0);
    (fleet.limits.breaker.share, fleet.limits.breaker.min_nodes) = (100, 1);
    fleet.watch(2, 0, 30, 400);
    fleet.watch(2, 2, 430, 900);
    // Two more that were repaired away of late count among those of which all may be sick.
    for name in ["gone1", "gone2"] {
        let mut gone = repair(name, 100, Phase::Succeeded);
        if let Some(status) = &mut gone.status {
            status.ended = Some(at(800));
        }
        fleet.repairs.push(gone);
    }
    let (verdicts, _, scopes) = fleet.decide(900);
    assert_eq!(verdicts[0].reasons, [Reason::ClusterBreaker]);
    let census = scopes.cluster();
    assert_eq!((census.nodes, census.sick, census.limit), (4, 2, 1));
}

#[test]
fn h83_after_the_storm_the_dead_are_repaired_one_at_a_time() {
    let mut fleet = Fleet::new(20, 0);
    fleet.limits.breaker.share = 10;
    fleet.watch(20, 5, 30, 900);
    let (_, starting, scopes) = fleet.decide(900);
    assert_eq!(
        (scopes.cluster().breaker, starting.len()),
        (BreakerState::Slow, 1)
    );
}

#[test]
fn a_running_repair_pauses_for_a_storm_and_for_a_person_also_without_node_or_policy() {
    let mut fleet = Fleet::new(20, 0);
    fleet.limits.breaker.share = 10;
    fleet.watch(20, 5, 30, 120);
    let running = repair("n000", 0, Phase::Draining);
    let paused = |fleet: &Fleet, repair: &NodeRepair, second: i64| {
        let rules = Rules::default();
        let (_, _, scopes) = fleet.decide(second);
        let world = World {
            policies: &[],
            ..fleet.world(&rules)
        };
        pause_reason(None, repair, &world, &scopes, at(second))
    };
    assert_eq!(paused(&fleet, &running, 120), Some(Reason::ClusterBreaker));
    let older = repair("n000", -9000, Phase::Draining);
    assert_eq!(paused(&fleet, &older, 120), None);
    fleet.pauses.push(Pause {
        selector: NodeSelector::default(),
        policy: None,
        until: None,
    });
    assert_eq!(paused(&fleet, &older, 120), Some(Reason::Paused));
    fleet.pauses[0].policy = Some("other".into());
    assert_eq!(paused(&fleet, &older, 120), None);
}

#[test]
fn h58_a_zone_that_loses_its_power_stops_itself_alone() {
    let mut fleet = Fleet::new(0, 0);
    fleet.limits.max_in_flight = 9;
    fleet.limits.breaker.nodes = 100;
    fleet.limits.breaker.share = 30;
    fleet.change = |node| {
        placed(node);
        let zone = node.labels[ZONE_LABEL].clone();
        let number: usize = node.name[1..].parse().unwrap();
        if (zone == "a" && number < 36) || number == 1 {
            node.conditions[0].status = "False".into();
        }
    };
    fleet.watch(100, 0, 0, 120);
    let (verdicts, admitted, scopes) = fleet.decide(120);
    let breaker = |scope: &Scope| scopes.census[scope].breaker;
    let storm = BreakerState::Open { storm_since: at(0) };
    assert_eq!(breaker(&Scope::Zone("a".into())), storm);
    assert_eq!(breaker(&Scope::Zone("b".into())), BreakerState::Closed);
    assert_eq!(breaker(&Scope::Cluster), BreakerState::Closed);
    assert_eq!(admitted, ["n001"]);
    let (reasons, over) = held(&verdicts, "n000");
    assert_eq!(reasons, [Reason::ZoneBreaker]);
    assert_eq!(over, ["zone/a"]);
    // It closes once fewer fell sick within the cooldown, and goes on slowly.
    let census = &scopes.census[&Scope::Zone("a".into())];
    assert_eq!((census.sick, census.limit), (18, 15));
    assert_eq!(census.until, Some(at(600)));
    fleet.watch(100, 0, 150, 630);
    let (_, admitted, scopes) = fleet.decide(630);
    let slow = scopes.census[&Scope::Zone("a".into())].breaker;
    assert_eq!(slow, BreakerState::Slow);
    assert_eq!(admitted, ["n000", "n001"]);
}

#[test]
fn h58_a_running_repair_pauses_for_the_storm_of_its_zone() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = placed;
    fleet.limits.breaker.min_nodes = 2;
    fleet.watch(12, 4, 0, 120);
    let (_, _, scopes) = fleet.decide(120);
    let rules = Rules::default();
    let mut running = repair("n000", 0, Phase::Draining);
    for (zone, expect) in [
        ("a", Some(Reason::ClusterBreaker)),
        ("", Some(Reason::ClusterBreaker)),
    ] {
        running.spec.zone = zone.into();
        let reason = pause_reason(None, &running, &fleet.world(&rules), &scopes, at(120));
        assert_eq!(reason, expect);
    }
    let mut calm = scopes.clone();
    calm.census.get_mut(&Scope::Cluster).unwrap().breaker = BreakerState::Closed;
    for (zone, expect) in [("a", Some(Reason::ZoneBreaker)), ("c", None)] {
        running.spec.zone = zone.into();
        let reason = pause_reason(None, &running, &fleet.world(&rules), &calm, at(120));
        assert_eq!(reason, expect);
    }
}

#[test]
fn h82_nodes_that_never_were_ready_open_no_breaker_and_do_not_dilute_it() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| {
        let number: usize = node.name[1..].parse().unwrap();
        if number >= 20 {
            (node.created, node.conditions[0].status) = (at(0), "False".into());
        }
    };
    fleet.watch(220, 1, 0, 120);
    let (_, admitted, scopes) = fleet.decide(120);
    let census = scopes.cluster();
    assert_eq!((census.nodes, census.sick), (20, 1));
    assert_eq!(admitted, ["n000"]);
    // Past their grace they are sick like any other.
    fleet.watch(220, 1, 150, 930);
    let census = fleet.decide(930).2.cluster().clone();
    assert_eq!((census.nodes, census.sick), (220, 201));
    // One that was Ready is sick at once, however young.
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| node.created = at(-60);
    fleet.see(20, 0, 0);
    fleet.see(20, 3, 30);
    assert_eq!(fleet.decide(30).2.cluster().sick, 3);
}

#[test]
fn h82_a_new_leader_knows_who_was_ready_and_who_was_sick() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| node.created = at(-60);
    let joined = vec!["n000".to_owned(), "n001".to_owned()];
    let suspended = Vec::new();
    fleet.evidence.fold(Input::Led { joined, suspended }, at(0));
    let (uid, since) = ("n002".to_owned(), Some(at(-900)));
    fleet.evidence.fold(Input::FellSick { uid, since }, at(0));
    fleet.watch(20, 4, 0, 120);
    let (verdicts, _, scopes) = fleet.decide(120);
    let sick: Vec<bool> = verdicts
        .iter()
        .map(|one| one.sick_since.is_some())
        .collect();
    // The fourth starts still.
    assert_eq!(sick[..5], [true, true, true, false, false]);
    assert_eq!((scopes.cluster().sick, scopes.cluster().nodes), (3, 19));
    assert!(verdicts[2].sick_since < Some(at(-840)));
    let grace = fleet.limits.startup_grace;
    let joined: Vec<&str> = fleet.evidence.joined(grace, at(120)).collect();
    assert_eq!((joined.len(), joined.contains(&"n003")), (19, false));
    assert_eq!(fleet.evidence.joined(grace, at(840)).count(), 0);
}

#[test]
fn h82_a_fleet_that_shrinks_takes_its_limit_along() {
    let mut fleet = Fleet::new(0, 0);
    fleet.limits.breaker.nodes = 1000;
    fleet.see(1000, 0, 0);
    assert_eq!(fleet.decide(0).2.cluster().limit, 200);
    fleet.see(100, 0, 30);
    assert_eq!(fleet.decide(30).2.cluster().limit, 20);
}

#[test]
fn nodes_that_were_lost_while_sick_are_remembered_for_the_cooldown() {
    let mut fleet = Fleet::new(0, 0);
    fleet.watch(20, 1, 0, 120);
    assert_eq!(fleet.decide(120).1.len(), 1);
    let lost = |number: usize| Fallen {
        uid: format!("lost-{number}"),
        place: Place::default(),
        policy: "p".into(),
        since: at(60),
        sick: true,
        gone: Some(at(90)),
    };
    fleet.fallen = (0..4).map(lost).collect();
    let (_, admitted, scopes) = fleet.decide(120);
    assert_eq!((scopes.cluster().nodes, scopes.cluster().recent), (24, 5));
    assert!(admitted.is_empty());
    fleet.watch(20, 1, 150, 720);
    assert_eq!(fleet.decide(720).1.len(), 1);
}

#[test]
fn h59_nodes_that_recovered_still_fell_sick_within_the_cooldown() {
    let mut fleet = Fleet::new(0, 0);
    fleet.watch(20, 1, 0, 120);
    let recovered = |number: usize| Fallen {
        uid: format!("n{number:03}"),
        place: Place::default(),
        policy: "p".into(),
        since: at(60),
        sick: false,
        gone: None,
    };
    // Of twenty nodes four may be sick; n000 still is, and counts once.
    fleet.fallen = (0..4).map(recovered).collect();
    assert_eq!(fleet.decide(120).1.len(), 1);
    fleet.fallen.push(recovered(4));
    let (_, admitted, scopes) = fleet.decide(120);
    assert_eq!((scopes.cluster().sick, scopes.cluster().recent), (1, 5));
    assert!(admitted.is_empty());
    assert_eq!(scopes.cluster().until, Some(at(600)));
    fleet.watch(20, 1, 150, 690);
    assert_eq!(fleet.decide(690).1.len(), 1);
}

impl Fleet {
    /// What is heard at this second of so many nodes, of which those are down.
    fn hear(&mut self, total: usize, second: i64, down: impl Fn(usize) -> bool) {
        let nodes = (0..total).map(|index| node(&format!("n{index:03}"), !down(index)));
        self.evidence
            .fold(Input::Nodes(nodes.collect()), at(second));
        self.evidence
            .settle(&Rules::default(), &self.policies, at(second));
    }
}

#[test]
fn h58_a_cluster_that_is_wholly_dead_stays_held_however_long() {
    // Also who was down long before the others.
    for others in [0, 600] {
        let mut fleet = Fleet::new(0, 0);
        for second in (0..=3600).step_by(60) {
            fleet.hear(20, second, |index| index == 0 || second >= others);
            if second < others + 60 {
                continue;
            }
            let (verdicts, admitted, scopes) = fleet.decide(second);
            assert_eq!(admitted, Vec::<String>::new(), "at {second}");
            assert_eq!(verdicts[0].reasons, [Reason::ClusterBreaker]);
            let running = repair("n000", 0, Phase::Draining);
            let rules = Rules::default();
            let world = fleet.world(&rules);
            let paused = pause_reason(None, &running, &world, &scopes, at(second));
            assert_eq!(paused, Some(Reason::ClusterBreaker), "at {second}");
        }
    }
}

/// Of 200 nodes, of which 20 may be sick, three fall every minute.
#[test]
fn h58_a_storm_that_rolls_on_began_with_its_first_node() {
    let fell = |index: usize| match index {
        // Down since long before.
        199 => -7200,
        _ => 20 * i64::try_from(index).unwrap(),
    };
    let mut fleet = Fleet::new(0, 0);
    for second in (-7200..=2400).step_by(60) {
        fleet.hear(200, second, |index| fell(index) <= second);
        let (_, admitted, scopes) = fleet.decide(second);
        if second < 600 {
            continue;
        }
        let storm = BreakerState::Open { storm_since: at(0) };
        assert_eq!(scopes.cluster().breaker, storm, "at {second}");
        assert_eq!(admitted, ["n199"], "at {second}");
    }
}

/// Those who fell early in the storm are well again, or gone.
#[test]
fn h58_a_storm_that_rolls_on_began_with_its_first_node_whatever_became_of_it() {
    let fallen = |number: usize, gone: Option<Timestamp>| Fallen {
        uid: format!("{}{number:03}", if gone.is_some() { "gone" } else { "n" }),
        place: Place::default(),
        policy: String::new(),
        since: at(20 * i64::try_from(number).unwrap()),
        sick: gone.is_some(),
        gone,
    };
    let mut fleet = Fleet::new(0, 0);
    let sick = |index: usize| index == 0 || (90..120).contains(&index);
    for second in (0..=2400).step_by(60) {
        let fell = |index: usize| 20 * i64::try_from(index).unwrap();
        fleet.hear(200, second, |index| sick(index) && fell(index) <= second);
    }
    let since = |fleet: &Fleet| match fleet.decide(2400).2.cluster().breaker {
        BreakerState::Open { storm_since } => Some(storm_since),
        _ => None,
    };
    // Nothing is known of them: it began with those that are.
    assert_eq!(since(&fleet), Some(at(1800)));
    fleet.fallen = (1..45).map(|number| fallen(number, None)).collect();
    let gone = (45..90).map(|number| fallen(number, Some(at(1000))));
    fleet.fallen.extend(gone);
    assert_eq!(since(&fleet), Some(at(0)));
    assert_eq!(fleet.decide(2400).1, Vec::<String>::new());
    // It counted for as long as it fell, and it does not keep the breaker open.
    assert_eq!(fleet.decide(2400).2.cluster().recent, 30);
}

/// Nobody knows since when a node is sick while its source is down; its record does.
#[test]
fn h83_a_breaker_does_not_stay_open_on_nodes_that_went_blind() {
    let mut fleet = Fleet::new(0, 0);
    let rules = Rules::default();
    let mut sick: Vec<Verdict> = Vec::new();
    fleet.hear(40, 600, |_| false);
    for node in fleet.evidence.nodes() {
        let mut verdict = judge(node, &fleet.world(&rules), at(600));
        verdict.sick_since = (sick.len() < 9).then(|| at(360));
        sick.push(verdict);
    }
    let known = |number: usize| Fallen {
        uid: format!("n{number:03}"),
        place: Place::default(),
        policy: String::new(),
        since: at(-3600),
        sick: true,
        gone: None,
    };
    let breaker = |fleet: &Fleet| {
        let scopes = survey(&sick, &fleet.world(&rules), at(600));
        (scopes.cluster().breaker, scopes.cluster().recent)
    };
    let storm = BreakerState::Open {
        storm_since: at(360),
    };
    assert_eq!(breaker(&fleet), (storm, 9));
    fleet.fallen = (0..9).map(known).collect();
    assert_eq!(breaker(&fleet), (BreakerState::Slow, 0));
    // A record of an earlier time, after which it was well, says nothing of this one.
    for fallen in &mut fleet.fallen {
        fallen.sick = false;
    }
    assert_eq!(breaker(&fleet), (storm, 9));
}

#[test]
fn the_limit_of_a_breaker_is_a_share_or_a_number_and_leaves_room_for_a_few() {
    for (nodes, expect) in [(5, 2), (14, 2), (15, 3), (99, 19), (100, 20), (150, 20)] {
        let limit = Fleet::new(nodes, 0).decide(0).2.cluster().limit;
        assert_eq!(limit, expect, "of {nodes} nodes");
    }
    // None of none is not all of them.
    let mut none = Fleet::new(0, 0);
    none.limits.breaker.min_nodes = 0;
    let breaker = none.decide(0).2.cluster().breaker;
    assert_eq!(breaker, BreakerState::Closed);
}

#[test]
fn h58_a_fault_that_is_older_than_the_storm_is_repaired_alone() {
    // Until the cooldown after it fell sick, n000 is of the storm itself.
    for (storm, since, expect) in [
        (600, 0, &[][..]),
        (601, 601, &["n000"]),
        (900, 900, &["n000"]),
    ] {
        let mut fleet = Fleet::new(40, 1);
        fleet.watch(40, 1, 30, storm - 30);
        fleet.watch(40, 12, storm, storm + 90);
        let now = storm + 90;
        let (verdicts, admitted, scopes) = fleet.decide(now);
        let storm_since = at(since);
        let open = BreakerState::Open { storm_since };
        assert_eq!(scopes.cluster().breaker, open);
        assert_eq!(admitted, expect, "a storm since {storm}");
        assert_eq!(held(&verdicts, "n001").0, [Reason::ClusterBreaker]);
        fleet.repairs = vec![repair("n001", storm, Phase::Draining)];
        assert!(fleet.decide(now).1.is_empty(), "one at a time");
    }
}

#[test]
fn h58_a_running_repair_goes_on_if_its_fault_is_older_than_the_storm() {
    let mut fleet = Fleet::new(20, 0);
    fleet.limits.breaker.share = 10;
    fleet.watch(20, 5, 30, 120);
    let (_, _, scopes) = fleet.decide(120);
    let rules = Rules::default();
    for (since, expect) in [(-570, None), (-569, Some(Reason::ClusterBreaker))] {
        let running = repair("n000", since, Phase::Draining);
        let found = pause_reason(None, &running, &fleet.world(&rules), &scopes, at(120));
        assert_eq!(found, expect, "a fault since {since}");
    }
}

#[test]
fn h83_where_too_many_are_down_the_next_waits_for_the_repair_that_runs() {
    let mut fleet = Fleet::new(20, 0);
    fleet.limits.breaker.share = 10;
    fleet.watch(20, 5, 30, 900);
    fleet.repairs = vec![repair("n004", 890, Phase::Draining)];
    let (verdicts, admitted, scopes) = fleet.decide(900);
    assert_eq!(scopes.cluster().breaker, BreakerState::Slow);
    assert!(admitted.is_empty());
    assert_eq!(held(&verdicts, "n000").0, [Reason::ClusterBreaker]);
    // Not how many are sick, but how many run.
    let rules = Rules::default();
    let world = fleet.world(&rules);
    let guards = admit(&mut judge_all(&world, at(900)), &scopes, &world, at(900)).guards;
    let of_cluster = guards.iter().find(|guard| guard.scope == "cluster");
    let numbers = of_cluster.map(|guard| (guard.limit, guard.current, guard.until));
    assert_eq!(numbers, Some((1, 1, None)));
}

#[test]
fn what_was_lost_or_repaired_away_or_fell_sick_counts_for_the_cooldown() {
    let mut fleet = Fleet::new(20, 0);
    let fallen = |uid: &str, gone: Option<i64>| Fallen {
        uid: uid.into(),
        place: Place::default(),
        policy: "p".into(),
        since: at(0),
        sick: gone.is_some(),
        gone: gone.map(at),
    };
    fleet.fallen = vec![fallen("n003", None), fallen("lost", Some(30))];
    fleet.repairs = vec![repair("gone", 10, Phase::Succeeded)];
    for (second, nodes, recent) in [
        (600, 22, 3),
        (601, 22, 1),
        (610, 22, 1),
        (611, 21, 0),
        (630, 21, 0),
        (631, 20, 0),
    ] {
        fleet.see(20, 0, second);
        let scopes = fleet.decide(second).2;
        let census = scopes.cluster();
        assert_eq!(
            (census.nodes, census.recent),
            (nodes, recent),
            "at {second}"
        );
    }
}

#[test]
fn faults_that_a_policy_only_observes_make_nobody_sick() {
    for (mode, expect) in [(Mode::Observe, 0), (Mode::Approve, 1), (Mode::Enforce, 1)] {
        let mut fleet = Fleet::new(0, 0);
        fleet.policies = vec![policy("p", mode, 0)];
        fleet.policies[0].faults[0].when.all[0].condition = Some(ConditionLeaf {
            type_: "Disk".into(),
            statuses: vec![ConditionStatus::True],
            reasons: vec![],
        });
        fleet.change = |node| {
            let failing = if node.name == "n000" { "True" } else { "False" };
            node.conditions.push(Condition {
                type_: "Disk".into(),
                status: failing.into(),
                reason: String::new(),
            });
        };
        fleet.watch(10, 0, 0, 30);
        assert_eq!(fleet.decide(30).2.cluster().sick, expect, "{mode:?}");
    }
}
