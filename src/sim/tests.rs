//! What only the whole shows: leases are read, and what they say counts; decisions go on
//! record.

use futures_util::FutureExt;
use nodemend_core::api::{
    Action, ConditionLeaf, ConditionStatus, Leaf, Mode, NodeSelector, Phase, Severity, Strategy,
    When,
};
use nodemend_core::config::{self, Limits, Policy, Rules};
use nodemend_core::decide::{self, Pause, Verdict};
use nodemend_core::evidence::Input;
use nodemend_core::model::{REQUEST_ANNOTATION, Reason, SignalState, Truth, VerdictKind};

use super::*;
use crate::controller::{Controller, Records as _, Report, Setup};

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

type Leader = Controller<World, World, World>;

/// Six nodes whose instances are of the cluster `sim`, and who leads this cluster.
fn six(cluster: &str) -> (World, Leader) {
    let world = World::new(Timestamp::UNIX_EPOCH, &[]);
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.add_node(name, "z", &[]);
    }
    let setup = Setup {
        cluster_tag: format!("kubernetes.io/cluster/{cluster}"),
        rules: Rules::default(),
        policies: vec![silent_replaces()],
        limits: Limits::default(),
        cluster_jobs: vec![],
    };
    let leader = Controller::new(world.clone(), world.clone(), world.clone(), setup, None);
    (world, leader)
}

/// One pass, and five seconds.
fn pass(world: &World, leader: &mut Leader, pauses: &[Pause]) -> Report {
    let inputs = vec![Input::Nodes(world.list_nodes())];
    let passed = leader.pass(inputs, pauses, world).now_or_never();
    world.tick(Span::seconds(5));
    passed.expect("needs no runtime").expect("nothing fails")
}

#[test]
fn a_decision_goes_on_record_when_the_verdict_changes_and_only_then() {
    let (world, mut leader) = six("sim");
    let pause = Pause {
        selector: NodeSelector::default(),
        policy: None,
        until: None,
    };
    world.break_machine("b", Fault::KubeletDown);
    let mut passes = |count: usize| {
        for _ in 0..count {
            pass(&world, &mut leader, std::slice::from_ref(&pause));
        }
        let healths = world.healths().now_or_never().expect("answers at once");
        let healths = healths.expect("never fails");
        assert_eq!(healths.len(), 1);
        healths[0].status.clone().expect("it was judged")
    };
    let status = passes(60);
    let verdicts: Vec<_> = status
        .decisions
        .iter()
        .map(|one| (one.verdict, one.reasons.clone()))
        .collect();
    assert!(verdicts.contains(&(VerdictKind::Pending, vec![])));
    let held = (VerdictKind::Held, vec![Reason::Paused]);
    assert_eq!(verdicts.last(), Some(&held));
    assert!(verdicts.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(status.decisions.iter().all(decide::replays));
    // What leads says what it is a combination of; what that came to must say the same.
    let mut last = status.decisions.last().cloned().expect("it was decided on");
    let leads = &mut last.inputs.faults[0];
    assert!(leads.when.contains("Ready") && leads.leaves == [Truth::True]);
    leads.leaves = vec![Truth::False];
    assert!(!decide::replays(&last));
    let written = |world: &World| {
        let calls = world.calls().into_iter();
        calls.filter(|call| call.starts_with("health")).count()
    };
    let before = written(&world);
    assert_eq!(passes(60), status);
    assert_eq!(written(&world), before, "nothing changed");
}

#[test]
fn what_the_cloud_said_is_on_record() {
    let (world, mut leader) = six("another");
    world.break_machine("b", Fault::KubeletDown);
    for _ in 0..60 {
        pass(&world, &mut leader, &[]);
    }
    let healths = world.healths().now_or_never().expect("answers at once");
    let healths = healths.expect("never fails");
    let status = healths[0].status.as_ref().expect("it was judged");
    let last = status.decisions.last().expect("it was decided on");
    assert_eq!(last.reasons, [Reason::NotOurInstance]);
    assert_eq!(last.inputs.unplanned, Some(Reason::NotOurInstance));
    assert_eq!(world.invariants().1, Vec::<String>::new());
}

#[test]
fn a_request_that_does_not_count_is_told_once() {
    let (world, mut leader) = six("sim");
    let mut told = |text: &str| {
        world.annotate("c", REQUEST_ANNOTATION, text);
        let mut all = Vec::new();
        for _ in 0..3 {
            all.extend(pass(&world, &mut leader, &[]).unusable);
        }
        let all = all.into_iter().map(|(node, why)| (node.name, why));
        all.collect::<Vec<_>>()
    };
    let first = told("please");
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(first[0].0 == "c" && first[0].1.contains("cannot be read"));
    assert_eq!(told("please"), []);
    assert_eq!(told(&"x".repeat(3000)).len(), 1);
    assert!(world.list_repairs().is_empty());
}

#[test]
fn h21_only_the_node_whose_lease_stands_still_is_replaced() {
    let (world, mut leader) = six("sim");
    world.lose_sight("a");
    world.break_machine("b", Fault::KubeletDown);
    let mut verdicts = Vec::new();
    for _ in 0..120 {
        verdicts = pass(&world, &mut leader, &[]).verdicts;
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

#[test]
fn since_when_a_condition_holds_is_known_to_the_next_leader_too() {
    let (world, mut leader) = six("sim");
    world.break_machine("b", Fault::KubeletDown);
    let pause = Pause {
        selector: NodeSelector::default(),
        policy: None,
        until: None,
    };
    let since = |world: &World| {
        let healths = world.healths().now_or_never().expect("answers at once");
        let healths = healths.expect("never fails");
        let status = healths[0].status.clone().expect("it was judged");
        let mut signals = status.signals.into_iter();
        let ready = signals.find(|one| one.name == "condition/Ready");
        let ready = ready.expect("the policy names it");
        assert_eq!(ready.state, SignalState::Firing);
        ready.since.expect("it holds")
    };
    for _ in 0..60 {
        pass(&world, &mut leader, std::slice::from_ref(&pause));
    }
    let first = since(&world);
    let setup = Setup {
        cluster_tag: "kubernetes.io/cluster/sim".into(),
        rules: Rules::default(),
        policies: vec![silent_replaces()],
        limits: Limits::default(),
        cluster_jobs: vec![],
    };
    let seen = Some(world.now());
    let (cluster, cloud, probes) = (world.clone(), world.clone(), world.clone());
    let mut next = Controller::new(cluster, cloud, probes, setup, seen);
    for _ in 0..60 {
        pass(&world, &mut next, std::slice::from_ref(&pause));
    }
    assert_eq!(since(&world), first);
}
