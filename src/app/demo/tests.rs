//! Whole histories: many seeds, and one killed at every call.

use std::collections::BTreeMap;

use nodemend_core::api::Phase;

use super::*;
use crate::sim::Kill;

/// Coarser than what people see: hundreds of whole histories are run.
const COARSE: Span = Span::seconds(30);

fn run_killed(seed: u64, step: Span, kill: Option<Kill>) -> (Summary, World) {
    let mut demo = Demo::new(seed, step, |_| Ok(()));
    demo.world.kill_at(kill);
    while !demo.over() {
        demo.step().unwrap();
    }
    (demo.summary(), demo.world)
}

type End = (
    usize,
    Vec<(String, Phase)>,
    Vec<HeldLine>,
    Vec<ObservedLine>,
);

/// The effects on nodes, pods and instances, counted per object; records are means, not ends.
fn effects(world: &World) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in world.calls() {
        if ["launch", "terminate", "evict", "create repair"]
            .iter()
            .any(|kind| call.starts_with(kind))
        {
            *counts.entry(call).or_default() += 1;
        }
    }
    counts
}

fn end(summary: &Summary) -> End {
    (
        summary.nodes,
        summary
            .repairs
            .iter()
            .map(|repair| (repair.node.clone(), repair.phase))
            .collect(),
        summary.held.clone(),
        summary.observed.clone(),
    )
}

#[test]
fn every_seed_repairs_holds_and_observes() {
    for seed in 1..=20 {
        let (summary, _) = run_killed(seed, STEP, None);
        assert!(
            summary
                .repairs
                .iter()
                .any(|repair| repair.phase == Phase::Succeeded),
            "{summary:?}"
        );
        assert!(
            summary
                .repairs
                .iter()
                .all(|repair| repair.phase == Phase::Succeeded),
            "{summary:?}"
        );
        assert!(
            !summary.held.is_empty() && !summary.observed.is_empty(),
            "{summary:?}"
        );
        assert_eq!(summary.invariants.violated, Vec::<String>::new());
    }
}

#[test]
fn one_seed_gives_one_history() {
    let document = || serde_json::to_string(&run_killed(7, STEP, None).0).unwrap();
    assert_eq!(document(), document());
}

#[test]
fn h48_killed_before_and_after_every_call_ends_the_same() {
    let (reference, world) = run_killed(1, COARSE, None);
    let (calls, expected) = (world.calls().len(), effects(&world));
    let mut cases = 0;
    for index in 0..calls {
        for kill in [Kill::Before(index), Kill::After(index)] {
            let (summary, after) = run_killed(1, COARSE, Some(kill));
            let what = &world.calls()[index];
            assert_eq!(
                summary.invariants.violated,
                Vec::<String>::new(),
                "{kill:?} at {what}"
            );
            assert_eq!(end(&summary), end(&reference), "{kill:?} at {what}");
            assert_eq!(effects(&after), expected, "{kill:?} at {what}");
            cases += 1;
        }
    }
    println!("killed before and after each of {calls} calls: {cases} cases");
    assert!(cases > 100);
}
