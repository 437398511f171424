//! The order of starts, and pools whose replacements do not help.

use super::*;

#[test]
fn order_is_by_severity_then_fair_between_pools_then_by_age() {
    let mut fleet = Fleet::new(0, 0);
    fleet.limits.breaker.share = 100;
    fleet.limits.breaker.nodes = 1000;
    fleet.limits.max_in_flight = 5;
    fleet.change = |node| {
        placed(node);
        let number: usize = node.name[1..].parse().unwrap();
        let pool = if number < 6 { "x" } else { "y" };
        node.labels
            .insert("karpenter.sh/nodepool".into(), pool.into());
    };
    // Eight sick: six of pool x, two of y.
    fleet.watch(100, 8, 0, 60);
    assert_eq!(fleet.decide(60).1, ["n000", "n006", "n001", "n007", "n002"]);
    // Pool x had its turns already.
    for number in 0..2 {
        let mut before = repair(&format!("gone{number}"), -1000, Phase::Succeeded);
        before.spec.pool = "x".into();
        fleet.repairs.push(before);
    }
    assert_eq!(fleet.decide(60).1[..3], ["n006", "n007", "n000"]);
}

#[test]
fn h62_a_pool_whose_replacements_fall_sick_is_left_alone_for_longer_and_longer() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| {
        node.labels = [("karpenter.sh/nodepool".to_owned(), "x".to_owned())].into();
    };
    fleet.watch(50, 1, 0, 60);
    assert_eq!(fleet.decide(60).1, ["n000"]);
    // n000 is itself a replacement, and so was what it replaced.
    fleet.repairs = vec![replaced("old", "n000", -900, -300)];
    let (verdicts, admitted, scopes) = fleet.decide(60);
    assert!(admitted.is_empty());
    assert_eq!(held(&verdicts, "n000").0, [Reason::PoolBackoff]);
    assert_eq!(scopes.pools["x"].failures, 1);
    // Cooldown from when it is due.
    assert_eq!(scopes.pools["x"].backoff_until, Some(at(60 + 600)));
    let mut earlier = replaced("older", "old", -2000, -1500);
    fleet.repairs[0].spec.fault_since = at(-1000);
    fleet.repairs.push(earlier.clone());
    let pool = fleet.decide(60).2.pools["x"].clone();
    assert_eq!(
        (pool.failures, pool.backoff_until),
        (2, Some(at(60 + 1200)))
    );
    // One that was well for an hour in between begins anew.
    let status = earlier.status.as_mut().unwrap();
    status.replacement.as_mut().unwrap().instance_id = "i-n040".into();
    status.replacement.as_mut().unwrap().ready_since = Some(at(-3600 - 500));
    fleet.repairs[1] = earlier;
    assert_eq!(fleet.decide(60).2.pools["x"].failures, 1);
    // A replacement that never came is a failure, too.
    let mut never = repair("n030", -100, Phase::Aborted);
    never.spec.pool = "x".into();
    never.status.as_mut().unwrap().reason = Some(GaveUp::ReplacementNotReady);
    fleet.repairs.push(never);
    assert_eq!(fleet.decide(60).2.pools["x"].failures, 2);
}

#[test]
fn h62_a_pool_is_left_alone_from_when_its_replacement_is_due() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = in_pool_x;
    fleet.policies[0].faults[0].for_ = Span::minutes(15);
    let replaced = [replaced("old", "n000", -900, -300)];
    let until = |fleet: &Fleet, second: i64| fleet.decide(second).2.pools["x"].backoff_until;
    // Pending, due, and at the end.
    for (from, second) in [(0, 60), (90, 900), (930, 1470)] {
        fleet.watch(50, 1, from, second);
        fleet.repairs.clear();
        assert_eq!(fleet.decide(second).1.len(), usize::from(second >= 900));
        fleet.repairs = replaced.to_vec();
        assert_eq!(until(&fleet, second), Some(at(900 + 600)), "at {second}");
        assert!(fleet.decide(second).1.is_empty(), "at {second}");
    }
    fleet.see(50, 1, 1500);
    assert_eq!(fleet.decide(1500).1, ["n000"]);
    // Its repair, which starts then, begins no further wait.
    let mut again = repair("n000", 1500, Phase::Draining);
    (again.spec.pool, again.spec.fault_since) = ("x".into(), at(0));
    fleet.repairs.push(again);
    assert_eq!(until(&fleet, 1500), None);
    // Where its policy is gone, that start is what is known.
    fleet.repairs[1].spec.policy = "gone".into();
    fleet.repairs[1].spec.node_uid = "gone".into();
    fleet.see(50, 0, 1530);
    assert_eq!(until(&fleet, 1530), Some(at(1500 + 600)));
}

#[test]
fn a_replacement_is_known_by_its_instance() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = in_pool_x;
    fleet.watch(50, 1, 0, 60);
    let failures = |fleet: &Fleet| fleet.decide(60).2.pools["x"].failures;
    fleet.repairs = vec![replaced("old", "n000", -900, -300)];
    assert_eq!(failures(&fleet), 1);
    // The name of an earlier node, which somebody gives again to new ones.
    let mut former = repair("n000", -8000, Phase::Succeeded);
    (former.metadata.name, former.spec.pool) = (Some("former".into()), "x".into());
    former.spec.node_uid = "former".into();
    former.spec.plan.instance_id = "i-former".into();
    fleet.repairs.push(former);
    assert_eq!(failures(&fleet), 1);
    // Another machine of the name of the replacement.
    let status = fleet.repairs[0].status.as_mut().unwrap();
    status.replacement.as_mut().unwrap().instance_id = "i-another".into();
    assert_eq!(failures(&fleet), 0);
}

#[test]
fn a_replacement_that_is_sick_from_before_it_was_counted_ready_failed_too() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = in_pool_x;
    fleet.watch(50, 1, 0, 60);
    // It was Ready for so short that its fault's clock runs on.
    fleet.repairs = vec![replaced("old", "n000", -900, 30)];
    let pool = fleet.decide(60).2.pools["x"].clone();
    assert_eq!((pool.failures, pool.backoff_until), (1, Some(at(60 + 600))));
}

#[test]
fn what_a_person_asks_for_is_no_failure_of_the_replacement() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = in_pool_x;
    fleet.watch(50, 1, 0, 60);
    let mut again = repair("n040", 0, Phase::Draining);
    again.spec.pool = "x".into();
    fleet.repairs = vec![replaced("old", "n040", -900, -300), again];
    let failures = |fleet: &Fleet| fleet.decide(60).2.pools["x"].failures;
    assert_eq!(failures(&fleet), 1);
    fleet.repairs[1].spec.request = Some(crate::api::RepairRequest {
        uid: "n040".into(),
        at: at(0),
        until: at(900),
        by: "eve".into(),
        reason: "smells".into(),
        overrides: vec![],
    });
    assert_eq!(failures(&fleet), 0);
    assert_eq!(fleet.decide(60).1, ["n000"]);
}

#[test]
fn nodes_without_a_pool_are_no_pool() {
    let mut fleet = Fleet::new(0, 0);
    fleet.watch(50, 1, 0, 60);
    let asks = |node: &str| repair(node, -4000, Phase::NeedsHuman);
    let mut sick_again = replaced("old", "n000", -900, -300);
    sick_again.spec.pool = String::new();
    fleet.repairs = vec![asks("n010"), asks("n011"), sick_again];
    assert_eq!(fleet.decide(60).1, ["n000"]);
    for repair in &mut fleet.repairs {
        repair.spec.pool = "x".into();
    }
    fleet.change = in_pool_x;
    fleet.see(50, 1, 60);
    assert!(fleet.decide(60).1.is_empty());
}

#[test]
fn two_nodes_that_ask_for_a_person_stop_their_pool() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = quarantined_in_pool_x;
    fleet.watch(50, 1, 0, 60);
    let asks = |node: &str| {
        let mut asks = repair(node, -4000, Phase::NeedsHuman);
        asks.spec.pool = "x".into();
        asks
    };
    fleet.repairs = vec![asks("n010"), asks("gone")];
    assert_eq!(fleet.decide(60).1.len(), 1);
    fleet.repairs.push(asks("n011"));
    // How often others were repaired matters not.
    let mut often = repair("n012", -9000, Phase::Succeeded);
    (often.spec.pool, often.spec.ordinal) = ("x".into(), 3);
    fleet.repairs.push(often);
    let (verdicts, admitted, _) = fleet.decide(60);
    assert!(admitted.is_empty());
    assert_eq!(held(&verdicts, "n000").0, [Reason::PoolStopped]);
    // A later try of the same node speaks for it.
    let mut again = repair("n011", -100, Phase::Succeeded);
    (again.spec.pool, again.spec.ordinal) = ("x".into(), 2);
    again.metadata.name = Some("r-n011-2".into());
    fleet.repairs.push(again);
    assert_eq!(fleet.decide(60).1.len(), 1);
}

#[test]
fn a_pool_goes_on_once_people_mended_its_nodes() {
    let asks = |node: &str| {
        let mut asks = repair(node, -4000, Phase::NeedsHuman);
        asks.spec.pool = "x".into();
        asks
    };
    let check = |change: fn(&mut NodeView), expect: bool, what: &str| {
        let mut fleet = Fleet::new(0, 0);
        fleet.change = quarantined_in_pool_x;
        fleet.watch(50, 1, 0, 60);
        fleet.repairs = vec![asks("n010"), asks("n011")];
        assert!(fleet.decide(60).1.is_empty(), "{what}");
        fleet.change = change;
        fleet.see(50, 1, 70);
        assert_eq!(fleet.decide(70).1 == ["n000"], expect, "{what}");
    };
    check(in_pool_x, true, "Ready and no longer cordoned");
    check(quarantined_in_pool_x, false, "still cordoned");
    let without_kubelet: fn(&mut NodeView) = |node| {
        in_pool_x(node);
        if node.name == "n010" || node.name == "n011" {
            node.conditions[0].status = "Unknown".into();
        }
    };
    check(without_kubelet, false, "not Ready");
    let sick: fn(&mut NodeView) = |node| {
        in_pool_x(node);
        let disk = Condition {
            type_: "DiskPressure".into(),
            status: "True".into(),
            reason: String::new(),
        };
        if node.name == "n010" || node.name == "n011" {
            node.conditions.push(disk);
        }
    };
    let mut fleet = Fleet::new(0, 0);
    let mut disk = fleet.policies[0].faults[0].clone();
    disk.name = "Disk".into();
    let leaf = disk.when.all[0].condition.as_mut().unwrap();
    (leaf.type_, leaf.statuses) = ("DiskPressure".into(), vec![ConditionStatus::True]);
    fleet.policies[0].faults.push(disk);
    fleet.change = sick;
    fleet.watch(50, 1, 0, 60);
    fleet.repairs = vec![asks("n010"), asks("n011")];
    assert!(
        fleet.decide(60).1.is_empty(),
        "Ready, and sick all the same"
    );
}

#[test]
fn h62_a_replacement_that_falls_sick_within_an_hour_is_a_failure() {
    for (ready, failures) in [(0, 1), (-3599, 1), (-3600, 0)] {
        let mut fleet = Fleet::new(50, 1);
        fleet.repairs = vec![replaced("old", "n000", -9000, ready)];
        let scopes = fleet.decide(60).2;
        assert_eq!(scopes.pools["x"].failures, failures, "Ready at {ready}");
    }
    // One that was well for an hour ends what failed before it.
    for (ready, failures) in [(-3539, 1), (-3540, 0)] {
        let mut fleet = Fleet::new(50, 0);
        let mut never = repair("n030", -9000, Phase::Aborted);
        never.spec.pool = "x".into();
        never.status.as_mut().unwrap().reason = Some(GaveUp::ReplacementNotReady);
        fleet.repairs = vec![never, replaced("old", "n040", -9000, ready)];
        let scopes = fleet.decide(60).2;
        assert_eq!(scopes.pools["x"].failures, failures, "Ready at {ready}");
    }
    // Turns count for an hour.
    for (started, turns) in [(-3540, 0), (-3539, 1)] {
        let mut fleet = Fleet::new(50, 0);
        fleet.repairs = vec![replaced("old", "n040", started, started)];
        let scopes = fleet.decide(60).2;
        assert_eq!(scopes.pools["x"].started, turns, "started at {started}");
    }
}

#[test]
fn a_pool_whose_replacements_did_not_help_comes_after_others() {
    let mut fleet = Fleet::new(0, 0);
    fleet.limits.breaker.share = 100;
    fleet.limits.max_in_flight = 4;
    fleet.change = |node| {
        let number: usize = node.name[1..].parse().unwrap();
        let pool = if number < 6 { "x" } else { "y" };
        node.labels = [("karpenter.sh/nodepool".to_owned(), pool.to_owned())].into();
    };
    fleet.watch(100, 8, 0, 60);
    let mut failed = repair("gone", -5000, Phase::Aborted);
    failed.spec.pool = "x".into();
    failed.status.as_mut().unwrap().reason = Some(GaveUp::ReplacementNotReady);
    fleet.repairs = vec![failed];
    assert_eq!(fleet.decide(60).1, ["n006", "n007", "n000", "n001"]);
}

#[test]
fn the_first_pool_label_that_a_node_has_names_its_pool() {
    let limits = Limits {
        pool_labels: vec!["first".into(), "second".into()],
        ..Limits::default()
    };
    for (labels, zone, pool, scopes) in [
        (&[][..], "", "", &["cluster"][..]),
        (&["second"], "", "second", &["cluster", "pool/second"]),
        (
            &["second", "first"],
            "",
            "first",
            &["cluster", "pool/first"],
        ),
        (
            &[ZONE_LABEL, "x"],
            ZONE_LABEL,
            "",
            &["cluster", "zone/topology.kubernetes.io/zone"],
        ),
    ] {
        let mut node = node("n", true);
        let same = |label: &&str| ((*label).to_owned(), (*label).to_owned());
        node.labels = labels.iter().map(same).collect();
        let place = Place::of(&node, &limits.pool_labels);
        assert_eq!((place.zone.as_str(), place.pool.as_str()), (zone, pool));
        let found: Vec<String> = place.scopes().map(|scope| scope.to_string()).collect();
        assert_eq!(found, scopes);
    }
}

#[test]
fn pools_are_named_by_the_labels_that_are_configured() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| {
        let labels = [("karpenter.sh/nodepool", "x"), ("rack", &node.name)];
        node.labels = labels.map(|(key, value)| (key.into(), value.into())).into();
    };
    fleet.see(2, 0, 0);
    let pools = |fleet: &Fleet| -> Vec<String> {
        let verdicts = fleet.decide(0).0;
        verdicts.iter().map(|one| one.place.pool.clone()).collect()
    };
    assert_eq!(pools(&fleet), ["x", "x"]);
    fleet.evidence.name_pools_by(&["rack".to_owned()]);
    assert_eq!(pools(&fleet), ["n000", "n001"], "also before the next pass");
    fleet.see(2, 0, 0);
    assert_eq!(pools(&fleet), ["n000", "n001"]);
}
