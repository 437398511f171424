//! What would have been, had policies that only observe acted.

use super::*;

#[test]
fn h58_a_storm_that_is_only_observed_would_have_started_nothing() {
    let mut fleet = half_observed(100, |number| number >= 70);
    assert_eq!(fleet.would_start(120), Vec::<String>::new());
    let (verdicts, _, _) = fleet.decide(120);
    let expect = (
        vec![Reason::ObserveMode, Reason::ClusterBreaker],
        vec!["observed/cluster".to_owned()],
    );
    assert_eq!(held(&verdicts, "n070"), expect);
}

#[test]
fn what_is_observed_takes_its_limits_from_what_starts_and_nothing_back() {
    // Two may run: one real, and one that would.
    let mut fleet = half_observed(100, |number| number == 10 || number > 96);
    assert_eq!(fleet.would_start(120), ["n097"]);
    let (verdicts, admitted, _) = fleet.decide(120);
    assert_eq!(admitted, ["n010"]);
    let expect = vec![Reason::ObserveMode, Reason::InFlight];
    assert_eq!(held(&verdicts, "n098").0, expect);
    // It holds its place among its like, is started once, and is in nobody else's way.
    fleet.repairs = vec![repair("n010", 120, Phase::Draining)];
    assert_eq!(fleet.would_start(150), Vec::<String>::new());
    assert_eq!(held(&fleet.decide(150).0, "n097").0, [Reason::ObserveMode]);
    fleet.sick_by_number(
        100,
        |number| number == 10 || number == 11 || number > 96,
        150,
        300,
    );
    assert_eq!(fleet.decide(300).1, ["n011"]);
    // Who is well again makes room.
    fleet.repairs.clear();
    fleet.sick_by_number(100, |number| number > 97, 330, 480);
    assert_eq!(fleet.would_start(480), ["n098", "n099"]);
}

#[test]
fn what_would_have_started_counts_in_rates_also_when_it_is_over() {
    let mut fleet = half_observed(100, |number| number > 96);
    fleet.limits.max_repairs = vec![(3, Span::minutes(60))];
    fleet.policies[1].budgets = vec![Budget {
        max_repairs: Some((2, Span::minutes(30))),
        ..budget("half", Per::Cluster)
    }];
    assert_eq!(fleet.would_start(120), ["n097", "n098"]);
    fleet.sick_by_number(100, |number| number == 99, 150, 600);
    assert_eq!(fleet.would_start(600), Vec::<String>::new());
    let (verdicts, _, _) = fleet.decide(600);
    let expect = vec![Reason::ObserveMode, Reason::Budget];
    assert_eq!(held(&verdicts, "n099").0, expect);
    fleet.sick_by_number(100, |number| number > 98, 630, 1920);
    assert_eq!(fleet.would_start(1920), ["n099"]);
    // Then the service's own limit holds.
    fleet.sick_by_number(100, |number| number == 98, 1950, 2400);
    assert_eq!(fleet.would_start(2400), Vec::<String>::new());
    let (mut verdicts, _, _) = fleet.decide(2400);
    verdicts.retain(|verdict| verdict.node == "n098");
    assert!(
        verdicts[0].reasons.contains(&Reason::RateLimit),
        "{verdicts:?}"
    );
    // It would have run for as long as a replacement and a drain may take.
    fleet.observed.truncate(1);
    let until = fleet.observed[0].until;
    assert_eq!(until, at(120 + 1800));
}

#[test]
fn what_would_have_started_counts_for_as_long_as_a_repair_would() {
    type Change = fn(&mut Fleet);
    let of = |number: usize| number > 97;
    let mut fleet = half_observed(100, of);
    fleet.limits.max_in_flight = 1;
    assert_eq!(fleet.would_start(120), ["n098"]);
    let first = fleet.observed.clone();
    // It runs for half an hour at most.
    fleet.sick_by_number(100, of, 150, 1920);
    for (second, expect) in [(1919, &[][..]), (1920, &["n099"])] {
        fleet.observed.clone_from(&first);
        assert_eq!(fleet.would_start(second), expect, "at {second}");
    }
    // An hour after its start it is forgotten, if it is over. It is over if its node is well,
    // or gone, or under another policy; none of that is known from an old list of nodes.
    let over: [Change; 3] = [
        |fleet| fleet.sick_by_number(100, |_| false, 3700, 3700),
        |fleet| fleet.sick_by_number(98, |_| false, 3700, 3700),
        |fleet| {
            fleet.policies[1].mode = Mode::Enforce;
            fleet.sick_by_number(100, |number| number > 97, 3700, 3700);
        },
    ];
    for (nth, change) in over.into_iter().enumerate() {
        for (second, expect) in [(3719, 1), (3720, 0)] {
            let mut fleet = half_observed(100, of);
            fleet.observed.clone_from(&first);
            change(&mut fleet);
            fleet.would_start(second);
            let found = fleet.observed.iter();
            let found = found.filter(|start| start.node_uid == "n098" && start.at == at(120));
            assert_eq!(found.count(), expect, "{nth} at {second}");
        }
    }
    let mut fleet = half_observed(100, of);
    fleet.sick_by_number(100, |_| false, 150, 150);
    fleet.observed = first;
    fleet.would_start(4000);
    assert!(!fleet.observed[0].over);
    // A cordon is no work.
    let mut fleet = half_observed(100, of);
    fleet.limits.max_in_flight = 1;
    fleet.policies[1].faults[0].actions = vec![Action::Cordon];
    assert_eq!(fleet.would_start(120), ["n098"]);
    fleet.sick_by_number(100, of, 150, 150);
    assert_eq!(fleet.would_start(150), ["n099"]);
}

#[test]
fn observed_faults_make_a_node_sick_where_it_is_asked_what_would_be() {
    let mut fleet = Fleet::new(20, 0);
    let wanted = ConditionLeaf {
        type_: "Disk".into(),
        statuses: vec![ConditionStatus::True],
        reasons: vec![],
    };
    fleet.policies = vec![policy("p", Mode::Observe, 0)];
    fleet.policies[0].faults[0].when.all[0].condition = Some(wanted);
    fleet.change = |node| {
        let number: usize = node.name[1..].parse().unwrap();
        let status = if number < 5 { "True" } else { "False" };
        node.conditions.push(Condition {
            type_: "Disk".into(),
            status: status.into(),
            reason: String::new(),
        });
    };
    fleet.watch(20, 0, 0, 120);
    // All of them are Ready: nothing that acts is held for them.
    let (verdicts, _, scopes) = fleet.decide(120);
    assert_eq!(scopes.cluster().breaker, BreakerState::Closed);
    assert_eq!(
        held(&verdicts, "n000").0,
        [Reason::ObserveMode, Reason::ClusterBreaker]
    );
    fleet.limits.breaker.share = 50;
    assert_eq!(fleet.would_start(120), ["n000", "n001"]);
    // Those that were so lately count too.
    let recovered = |number: usize| Fallen {
        uid: format!("n{number:03}"),
        place: Place::default(),
        policy: String::new(),
        since: at(60),
        sick: false,
        gone: None,
    };
    fleet.observed.clear();
    fleet.observed_fallen = (6..12).map(recovered).collect();
    assert_eq!(fleet.would_start(120), Vec::<String>::new());
}

#[test]
fn observed_nodes_that_nothing_can_replace_would_not_have_been_acted_on() {
    let mut fleet = Fleet::new(0, 0);
    fleet.policies = vec![policy("p", Mode::Observe, 0)];
    fleet.change = |node| node.provider_id = "kind://x".into();
    fleet.watch(10, 1, 0, 60);
    let expect = (
        VerdictKind::Held,
        vec![Reason::ObserveMode, Reason::NoOwner],
    );
    assert_eq!(fleet.first(60), expect);
    assert!(fleet.would_start(60).is_empty());
}
