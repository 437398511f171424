//! What only the whole shows: leases are read, and what they say counts.

use futures_util::FutureExt;
use nodemend_core::api::{
    Action, ConditionLeaf, ConditionStatus, Leaf, Mode, NodeSelector, Phase, Severity, Strategy,
    When,
};
use nodemend_core::config::{self, Limits, Policy, Rules};
use nodemend_core::decide::Verdict;
use nodemend_core::evidence::Input;
use nodemend_core::model::{Reason, VerdictKind};

use super::*;
use crate::controller::{Controller, Setup};

/// Replaces a node of which nothing is heard for a minute.
fn silent_replaces() -> Policy {
    let silent = ConditionLeaf {
        type_: "Ready".into(),
        statuses: vec![ConditionStatus::Unknown],
        reasons: vec![],
    };
    let leaf = Leaf {
        condition: Some(silent),
        ..Leaf::default()
    };
    Policy {
        accepted: true,
        mode: Mode::Enforce,
        faults: vec![config::Fault {
            name: "Silent".into(),
            severity: Severity::Warning,
            when: When {
                all: vec![leaf],
                ..When::default()
            },
            for_: Span::minutes(1),
            actions: vec![Action::Replace],
            confirm: None,
        }],
        strategy: Some(Strategy::EC2),
        ready_timeout: Span::minutes(15),
        max_attempts: 2,
        drain_timeout: Span::minutes(15),
        ..Policy::refused("p".into(), 0, NodeSelector::default())
    }
}

#[test]
fn h21_only_the_node_whose_lease_stands_still_is_replaced() {
    let world = World::new(Timestamp::UNIX_EPOCH, &[]);
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.add_node(name, "z", &[]);
    }
    let setup = Setup {
        cluster_tag: "kubernetes.io/cluster/sim".into(),
        rules: Rules::default(),
        policies: vec![silent_replaces()],
        limits: Limits::default(),
        cluster_jobs: vec![],
    };
    let mut leader = Controller::new(world.clone(), world.clone(), world.clone(), setup, None);
    world.lose_sight("a");
    world.break_machine("b", Fault::KubeletDown);
    let mut verdicts = Vec::new();
    for _ in 0..120 {
        let inputs = vec![Input::Nodes(world.list_nodes())];
        let passed = leader.pass(inputs, &[], &world).now_or_never();
        verdicts = passed
            .expect("needs no runtime")
            .expect("nothing fails")
            .verdicts;
        world.tick(Span::seconds(5));
    }
    let ended: Vec<(String, Phase)> = world
        .list_repairs()
        .into_iter()
        .map(|repair| (repair.spec.node_name.clone(), repair.phase()))
        .collect();
    assert_eq!(ended, [("b".to_owned(), Phase::Succeeded)]);
    let of_a = |verdict: &&Verdict| verdict.node == "a";
    let of_a = verdicts.iter().find(of_a).expect("it is there");
    assert_eq!(
        (of_a.kind, of_a.reasons.as_slice()),
        (VerdictKind::Unknown, &[Reason::Contradicted][..])
    );
    assert_eq!(world.invariants().1, Vec::<String>::new());
}
