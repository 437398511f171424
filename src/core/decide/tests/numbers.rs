//! The numbers that guards give for what they hold.

use super::*;

/// The numbers of the guard that holds the first of four sick nodes of a hundred.
fn numbers(prepare: &dyn Fn(&mut Fleet), reason: Reason) -> (String, u32, u32, Option<Timestamp>) {
    let mut fleet = Fleet::new(0, 0);
    fleet.limits.max_in_flight = 9;
    prepare(&mut fleet);
    fleet.watch(100, 4, 0, 120);
    let rules = Rules::default();
    let world = fleet.world(&rules);
    let mut verdicts = judge_all(&world, at(120));
    let scopes = survey(&verdicts, &world, at(120));
    let guards = admit(&mut verdicts, &scopes, &world, at(120)).guards;
    let [guard] = &guards[..] else {
        panic!("one guard: {guards:?}");
    };
    assert_eq!(guard.reason, reason);
    (guard.scope.clone(), guard.limit, guard.current, guard.until)
}

#[test]
fn what_holds_is_told_with_its_numbers() {
    let pooled: fn(&mut NodeView) = |node| {
        node.labels = [("karpenter.sh/nodepool".to_owned(), "x".to_owned())].into();
    };
    let found = numbers(&|fleet| fleet.limits.max_in_flight = 2, Reason::InFlight);
    assert_eq!(found, ("cluster".into(), 2, 2, None));
    let found = numbers(
        &|fleet| {
            fleet.limits.max_repairs = vec![(1, Span::minutes(60))];
            fleet.repairs = vec![
                repair("gone1", -600, Phase::Succeeded),
                repair("gone2", -60, Phase::Succeeded),
            ];
        },
        Reason::RateLimit,
    );
    // One more may start once only the later of both counts no more.
    assert_eq!(found, ("cluster".into(), 1, 2, Some(at(3600 - 60))));
    // What starts now is later than what started before.
    let found = numbers(
        &|fleet| {
            fleet.limits.max_repairs = vec![(2, Span::minutes(60))];
            fleet.repairs = vec![repair("gone", -600, Phase::Succeeded)];
        },
        Reason::RateLimit,
    );
    assert_eq!(found, ("cluster".into(), 2, 2, Some(at(3600 - 600))));
    // Of several windows that are spent, what holds longest, in whatever order.
    let hour = (1, Span::minutes(60));
    let day = (1, Span::minutes(24 * 60));
    for windows in [[hour, day], [day, hour]] {
        let found = numbers(
            &|fleet| {
                fleet.limits.max_repairs = windows.to_vec();
                fleet.repairs = vec![repair("gone", -600, Phase::Succeeded)];
            },
            Reason::RateLimit,
        );
        assert_eq!(found, ("cluster".into(), 1, 1, Some(at(86_400 - 600))));
    }
    // One that lets nothing start holds longer still.
    for windows in [[(0, Span::minutes(60)), day], [day, (0, Span::minutes(60))]] {
        let found = numbers(
            &|fleet| {
                fleet.limits.max_repairs = windows.to_vec();
                fleet.repairs = vec![repair("gone", -600, Phase::Succeeded)];
            },
            Reason::RateLimit,
        );
        assert_eq!(found, ("cluster".into(), 0, 1, None));
    }
    let found = numbers(
        &|fleet| {
            fleet.change = quarantined_in_pool_x;
            let asks = |node: &str| {
                let mut asks = repair(node, -4000, Phase::NeedsHuman);
                asks.spec.pool = "x".into();
                asks
            };
            fleet.repairs = vec![asks("n010"), asks("n011")];
        },
        Reason::PoolStopped,
    );
    assert_eq!(found, ("pool/x".into(), 1, 2, None));
    let found = numbers(
        &|fleet| {
            fleet.change = pooled;
            fleet.repairs = vec![replaced("old", "n000", -900, -300)];
        },
        Reason::PoolBackoff,
    );
    assert_eq!(found, ("pool/x".into(), 0, 1, Some(at(60 + 600))));
    let found = numbers(
        &|fleet| {
            let yearly = Window::new("0 0 1 JAN * UTC", Span::minutes(60)).unwrap();
            fleet.policies[0].windows = vec![yearly];
        },
        Reason::OutsideWindow,
    );
    let opens = "1971-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(found, ("window/p".into(), 0, 0, Some(opens)));
}
