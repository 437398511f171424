//! Which repairs that ended are forgotten.

use super::*;

const DAY: i64 = 24 * 3600;

/// The names of those that are.
fn forgotten(fleet: &Fleet) -> Vec<String> {
    let rules = Rules::default();
    let world = fleet.world(&rules);
    let found = forgettable(&world, at(0));
    found.map(|repair| repair.name().to_owned()).collect()
}

/// A repair of a node that is gone, which ended so many days ago.
fn ended(node: &str, days: i64) -> NodeRepair {
    repair(node, -days * DAY, Phase::Succeeded)
}

#[test]
fn h33_repairs_that_ended_a_season_ago_are_forgotten_oldest_first() {
    let mut fleet = Fleet::new(3, 0);
    let mut open = ended("open", 100);
    open.status.as_mut().unwrap().phase = Phase::Draining;
    fleet.repairs = vec![
        ended("old", 91),
        open,
        ended("older", 95),
        ended("late", 89),
    ];
    assert_eq!(forgotten(&fleet), ["r-older", "r-old"]);
    // Who is gone is not known.
    fleet.evidence = Evidence::default();
    assert_eq!(forgotten(&fleet), [""; 0]);
}

#[test]
fn h33_of_a_node_that_is_there_what_was_tried_last_is_kept() {
    let mut fleet = Fleet::new(3, 0);
    let tried = |ordinal: u32| {
        let mut one = ended("n000", i64::from(200 - ordinal));
        one.spec.ordinal = ordinal;
        one.metadata.name = Some(format!("r{ordinal}"));
        one
    };
    fleet.repairs = (1..=12).map(tried).collect();
    assert_eq!(forgotten(&fleet), ["r1", "r2"]);
}

#[test]
fn h33_of_too_many_repairs_those_are_forgotten_that_nothing_counts() {
    let mut fleet = Fleet::new(3, 0);
    let of = |number: i64| {
        let mut one = ended(&format!("gone{number}"), 3);
        one.status.as_mut().unwrap().ended = Some(at(-3 * DAY + number));
        one
    };
    fleet.repairs = (0..1002).map(of).collect();
    assert_eq!(forgotten(&fleet), ["r-gone0", "r-gone1"]);
    // A rate counts them still, or did until a day ago at most.
    for hours in [72, 60, 48] {
        fleet.limits.max_repairs = vec![(5000, Span::minutes(hours * 60))];
        assert_eq!(forgotten(&fleet), [""; 0], "{hours} h");
    }
    fleet.limits.max_repairs = vec![(5000, Span::minutes(47 * 60))];
    assert_eq!(forgotten(&fleet), ["r-gone0", "r-gone1"]);
}
