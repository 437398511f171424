//! What only the whole shows: leases are read, and what they say counts; decisions go on
//! record.

use futures_util::FutureExt;
use nodemend_core::api::{
    Action, ConditionLeaf, ConditionStatus, Leaf, Mode, NodeSelector, OnUnreachable, Per, Phase,
    Severity, Strategy, When,
};
use nodemend_core::config::{self, Limits, Policy, Rules};
use nodemend_core::decide::{self, Pause, Verdict};
use nodemend_core::evidence::{Answer, Input};
use nodemend_core::model::{
    DO_NOT_REPAIR_ANNOTATION, REQUEST_ANNOTATION, Reason, SignalState, Truth, VerdictKind,
};

use super::*;
use crate::controller::{Controller, Records as _, Report, Setup};
use crate::exec::Cluster as _;

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
    six_under(
        cluster,
        Rules::default(),
        silent_replaces(),
        Limits::default(),
    )
}

/// The same under these rules, this policy and these limits.
fn six_under(cluster: &str, rules: Rules, policy: Policy, limits: Limits) -> (World, Leader) {
    let world = World::new(Timestamp::UNIX_EPOCH, &[]);
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.add_node(name, "z", &[]);
    }
    let leader = lead(&world, cluster, rules, policy, limits);
    (world, leader)
}

fn lead(world: &World, cluster: &str, rules: Rules, policy: Policy, limits: Limits) -> Leader {
    let setup = Setup {
        cluster_tag: format!("kubernetes.io/cluster/{cluster}"),
        rules,
        policies: vec![policy],
        limits,
        cluster_jobs: vec![],
        external_labels: BTreeMap::new(),
    };
    let (cluster, cloud, probes) = (world.clone(), world.clone(), world.clone());
    Controller::new(cluster, cloud, probes, setup, Some(world.now()))
}

/// Another leader of the cluster `sim`, under these limits.
fn relieve(world: &World, limits: Limits) -> Leader {
    lead(world, "sim", Rules::default(), silent_replaces(), limits)
}

/// The pause of every node by every policy.
fn of_everything() -> Pause {
    Pause {
        selector: NodeSelector::default(),
        policy: None,
        until: None,
    }
}

/// The clock of one pass, as `serve` has it: what a pass saw grows old.
struct PassClock<'a> {
    world: &'a World,
    began: Timestamp,
}

impl Clock for PassClock<'_> {
    fn now(&self) -> Timestamp {
        self.world.now()
    }
    fn may_begin(&self) -> bool {
        Span::seconds(10).after(self.began) > self.now()
    }
}

/// One pass, and five seconds. Gives back how long the pass took, in seconds.
fn timed(world: &World, leader: &mut Leader, pauses: &[Pause]) -> (Report, i64) {
    let began = world.now();
    let clock = PassClock { world, began };
    let inputs = vec![Input::Nodes(world.list_nodes())];
    let passed = leader.pass(inputs, pauses, &clock).now_or_never();
    let report = passed.expect("needs no runtime").expect("nothing fails");
    let took = world.now().duration_since(began).as_secs();
    world.tick(Span::seconds(5));
    (report, took)
}

/// The same, however long the pass took.
fn pass(world: &World, leader: &mut Leader, pauses: &[Pause]) -> Report {
    timed(world, leader, pauses).0
}

#[test]
fn a_decision_goes_on_record_when_the_verdict_changes_and_only_then() {
    let (world, mut leader) = six("sim");
    let pause = of_everything();
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

/// A rule that waits a minute, and a policy that replaces what it fires for.
fn polled() -> (Rules, Policy) {
    let rule = config::Rule {
        name: "R".into(),
        expr: "e".into(),
        for_: Span::minutes(1),
        keep_firing_for: Span::default(),
        presence: Some("p".into()),
        interval: Span::seconds(5),
        labels: BTreeMap::new(),
    };
    let mut policy = silent_replaces();
    policy.faults[0].for_ = Span::default();
    policy.faults[0].when.all = vec![Leaf {
        signal: Some("R".into()),
        ..Leaf::default()
    }];
    (Rules::from_iter([rule]), policy)
}

#[test]
fn h19_an_outage_gives_up_no_repair_of_what_fires_on() {
    let (rules, policy) = polled();
    let (world, mut leader) = six_under("sim", rules, policy, Limits::default());
    let series = |names: &[&str]| {
        let labels = |name: &&str| BTreeMap::from([("node".to_owned(), (*name).to_owned())]);
        names.iter().map(labels).collect()
    };
    let says = |firing: &[&str]| Answer::Series {
        firing: series(firing),
        present: Some(series(&["a", "b", "c", "d", "e", "f"])),
    };
    let mut next = |answer: Answer| {
        let rule = Input::Rule {
            name: "R".into(),
            asked: Timestamp::MAX,
            answer,
        };
        let inputs = vec![Input::Nodes(world.list_nodes()), rule];
        let passed = leader.pass(inputs, &[], &world).now_or_never();
        passed.expect("needs no runtime").expect("nothing fails");
        world.tick(Span::seconds(5));
        let repairs = world.list_repairs().into_iter();
        repairs.map(|repair| repair.phase()).collect::<Vec<_>>()
    };
    let mut phases = Vec::new();
    while phases.is_empty() {
        assert!(world.now() < Span::minutes(5).after(Timestamp::UNIX_EPOCH));
        phases = next(says(&["b"]));
    }
    for _ in 0..60 {
        phases = next(Answer::Failed("refused".into()));
    }
    assert!(phases != [Phase::Succeeded], "it is not latched");
    for _ in 0..11 {
        phases = next(says(&["b"]));
        assert!(phases != [Phase::Aborted]);
    }
    // What is over is still given up.
    for _ in 0..60 {
        phases = next(says(&[]));
    }
    assert_eq!(phases, [Phase::Aborted]);
    assert_eq!(world.invariants().1, Vec::<String>::new());
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
fn a_node_that_cannot_be_planned_for_keeps_no_other_from_being_asked() {
    let mut policy = silent_replaces();
    let mut disk = policy.faults[0].clone();
    disk.name = "Disk".into();
    let broken = ConditionLeaf {
        type_: "DiskBroken".into(),
        statuses: vec![ConditionStatus::True],
        reasons: vec![],
    };
    disk.when.all[0].condition = Some(broken);
    disk.confirm = Some(config::Confirm {
        port: 9100,
        path: "/metrics".into(),
        metric: "node_filesystem_readonly".into(),
        above: 0.0,
        on_unreachable: OnUnreachable::Unknown,
    });
    policy.faults.push(disk);
    let limits = Limits {
        max_in_flight: 1,
        ..Limits::default()
    };
    let (world, mut leader) = six_under("sim", Rules::default(), policy, limits);
    for instance in world.0.borrow_mut().instances.values_mut() {
        if instance.node.as_deref() == Some("b") {
            instance.view.tags.clear();
        }
    }
    world.break_machine("b", Fault::KubeletDown);
    for _ in 0..60 {
        pass(&world, &mut leader, &[]);
    }
    assert_eq!(
        reasons(&pass(&world, &mut leader, &[]), "b"),
        [Reason::NotOurInstance]
    );
    world.break_machine("c", Fault::DiskReadOnly);
    world.edit_node("c", |node| {
        node.conditions.push(Condition {
            type_: "DiskBroken".into(),
            status: "True".into(),
            reason: String::new(),
        });
    });
    for _ in 0..60 {
        pass(&world, &mut leader, &[]);
    }
    let started: Vec<String> = world
        .list_repairs()
        .into_iter()
        .map(|one| one.spec.node_name)
        .collect();
    assert_eq!(started, ["c"]);
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
fn that_no_node_has_a_pool_is_told_once() {
    let (world, mut leader) = six("sim");
    let mut told = || pass(&world, &mut leader, &[]).unpooled;
    assert_eq!([told(), told()], [true, false]);
    let pool = "karpenter.sh/nodepool".to_owned();
    let put = |node: &mut NodeView| drop(node.labels.insert(pool, "x".into()));
    world.edit_node("a", put);
    assert!(!told());
    world.edit_node("a", |node| node.labels.clear());
    assert_eq!([told(), told()], [true, false]);
}

fn reasons(report: &Report, node: &str) -> Vec<Reason> {
    let mut verdicts = report.verdicts.iter();
    let found = verdicts.find(|verdict| verdict.node == node);
    found.expect("it is there").reasons.clone()
}

#[test]
fn h64_a_rate_of_a_policy_is_not_freed_by_deleting_the_records() {
    let daily = config::Budget {
        name: "daily".into(),
        per: Per::Cluster,
        max_repairs: Some((1, Span::minutes(24 * 60))),
        max_in_flight: None,
        max_unavailable: None,
    };
    let policy = Policy {
        budgets: vec![daily],
        ..silent_replaces()
    };
    let (world, mut leader) = six_under("sim", Rules::default(), policy, Limits::default());
    world.break_machine("b", Fault::KubeletDown);
    for _ in 0..200 {
        pass(&world, &mut leader, &[]);
    }
    let repairs = world.list_repairs();
    assert_eq!(repairs.len(), 1);
    assert_eq!(repairs[0].phase(), Phase::Succeeded);
    world.forget_repair(repairs[0].name());
    for hours in [2, 20] {
        for _ in 0..hours * 2 {
            world.tick(Span::minutes(30));
            pass(&world, &mut leader, &[]);
        }
        if hours == 2 {
            world.break_machine("c", Fault::KubeletDown);
        }
        let mut last = pass(&world, &mut leader, &[]);
        for _ in 0..120 {
            last = pass(&world, &mut leader, &[]);
        }
        assert_eq!(reasons(&last, "c"), [Reason::Budget], "{hours} h later");
        assert!(world.list_repairs().is_empty());
    }
    for _ in 0..6 {
        world.tick(Span::minutes(30));
        pass(&world, &mut leader, &[]);
    }
    for _ in 0..120 {
        pass(&world, &mut leader, &[]);
    }
    assert_eq!(world.list_repairs().len(), 1, "a day is over");
}

/// Two sick nodes, of which one may be repaired at a time; the creation of the first repair
/// comes to this, and then a person takes its node out of nodemend's hands.
fn created(creates: Creates) -> (World, Leader) {
    let limits = Limits {
        max_in_flight: 1,
        ..Limits::default()
    };
    let (world, mut leader) = six_under("sim", Rules::default(), silent_replaces(), limits);
    world.break_machine("a", Fault::KubeletDown);
    world.break_machine("b", Fault::KubeletDown);
    world.answer_creates(creates);
    let tried = |world: &World| {
        let calls = world.calls();
        calls.iter().any(|call| call.starts_with("create repair a"))
    };
    for _ in 0..120 {
        if tried(&world) {
            break;
        }
        pass(&world, &mut leader, &[]);
    }
    assert!(tried(&world));
    world.answer_creates(Creates::Answered);
    world.annotate("a", DO_NOT_REPAIR_ANNOTATION, "true");
    (world, leader)
}

/// Passes until then; when the repair of b started, if it did.
fn until_b_starts(world: &World, leader: &mut Leader, passes: usize) -> Option<usize> {
    for number in 0..passes {
        pass(world, leader, &[]);
        let repairs = world.list_repairs();
        let running = repairs.iter().filter(|repair| repair.in_flight()).count();
        assert!(running <= 1, "{running} in flight");
        if repairs.iter().any(|repair| repair.spec.node_name == "b") {
            return Some(number);
        }
    }
    None
}

#[test]
fn h64_a_creation_without_an_answer_is_in_flight_until_it_cannot_land_any_more() {
    // It lands after the next list: b waits until that is over.
    let (world, mut leader) = created(Creates::Late);
    let last = pass(&world, &mut leader, &[]);
    assert_eq!(reasons(&last, "b"), [Reason::InFlight]);
    assert_eq!(until_b_starts(&world, &mut leader, 5), None);
    world.land();
    assert!(until_b_starts(&world, &mut leader, 60).is_some());
    assert_eq!(world.list_repairs().len(), 2);
    assert_eq!(world.invariants().1, Vec::<String>::new());

    // It never does, also under the next leader.
    for relay in [false, true] {
        let (world, mut leader) = created(Creates::Late);
        if relay {
            let limits = Limits {
                max_in_flight: 1,
                ..Limits::default()
            };
            leader = relieve(&world, limits);
        }
        let started = until_b_starts(&world, &mut leader, 120);
        // Passes are 5 s apart; the first of them is 5 s after the admission.
        let minute_and_a_half = 17;
        assert!(started >= Some(minute_and_a_half), "{started:?}");
        assert!(relay || started == Some(minute_and_a_half), "{started:?}");
    }

    // It is known that it will not.
    let (world, mut leader) = created(Creates::Refused);
    assert_eq!(until_b_starts(&world, &mut leader, 60), Some(0));
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
    let pause = of_everything();
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
    let mut next = relieve(&world, Limits::default());
    for _ in 0..60 {
        pass(&world, &mut next, std::slice::from_ref(&pause));
    }
    assert_eq!(since(&world), first);
}

/// How often a repair was written, and what it waits for.
fn journalled(world: &World) -> (usize, String) {
    let calls = world.calls().into_iter();
    let writes = calls.filter(|call| call.starts_with("journal")).count();
    let repairs = world.list_repairs();
    let message = repairs.first().map(|repair| repair.message().to_owned());
    (writes, message.unwrap_or_default())
}

#[test]
fn what_a_repair_waits_for_before_its_drain_is_written_once_and_until_it_goes_on() {
    let (world, mut leader) = six("sim");
    world.break_machine("b", Fault::KubeletDown);
    let pause = of_everything();
    let phase = |world: &World| world.list_repairs().first().map(NodeRepair::phase);
    while phase(&world).is_none_or(|phase| phase < Phase::Launching) {
        pass(&world, &mut leader, &[]);
        assert!(world.now() < Span::minutes(10).after(Timestamp::UNIX_EPOCH));
    }
    let mut waits = |blind: bool, expect: &str| {
        // Before, it may wait for its replacement, which is told too.
        let mut told = Vec::new();
        for _ in 0..60 {
            let nodes = if blind {
                Vec::new()
            } else {
                world.list_nodes()
            };
            let pauses = if blind {
                &[][..]
            } else {
                std::slice::from_ref(&pause)
            };
            let passed = leader.pass([Input::Nodes(nodes)], pauses, &world);
            passed
                .now_or_never()
                .expect("no runtime")
                .expect("no failure");
            world.tick(Span::seconds(5));
            told.push(journalled(&world));
        }
        told.dedup();
        let messages: Vec<&str> = told.iter().map(|(_, message)| message.as_str()).collect();
        assert_eq!(messages.last(), Some(&expect), "{told:?}");
        assert!(told.len() <= 4, "one write for each change: {told:?}");
        assert_eq!(phase(&world), Some(Phase::Launching));
    };
    waits(false, "paused: Paused");
    waits(true, "the list of nodes is empty or old");
    waits(false, "paused: Paused");
    while phase(&world) != Some(Phase::Succeeded) {
        pass(&world, &mut leader, &[]);
        let (_, message) = journalled(&world);
        assert!(!message.contains("paused"), "{message}");
        assert!(world.now() < Span::minutes(60).after(Timestamp::UNIX_EPOCH));
    }
    assert_eq!(journalled(&world).1, "");
    assert_eq!(world.invariants().1, Vec::<String>::new());
}

#[test]
fn since_when_a_fault_is_false_is_written_once_until_its_clock_is_forgotten() {
    let (rules, policy) = polled();
    let (world, mut leader) = six_under("sim", rules, policy, Limits::default());
    let pause = of_everything();
    let series = |names: &[&str]| {
        let labels = |name: &&str| BTreeMap::from([("node".to_owned(), (*name).to_owned())]);
        names.iter().map(labels).collect()
    };
    let mut next = |firing: &[&str]| {
        let rule = Input::Rule {
            name: "R".into(),
            asked: Timestamp::MAX,
            answer: Answer::Series {
                firing: series(firing),
                present: Some(series(&["a", "b", "c", "d", "e", "f"])),
            },
        };
        let inputs = vec![Input::Nodes(world.list_nodes()), rule];
        let passed = leader.pass(inputs, std::slice::from_ref(&pause), &world);
        passed
            .now_or_never()
            .expect("no runtime")
            .expect("no failure");
        let at = world.now();
        world.tick(Span::seconds(5));
        let healths = world.healths().now_or_never().expect("answers at once");
        let status = healths.expect("never fails").pop()?.status?;
        let fault = status.faults.into_iter().next();
        Some((at, fault))
    };
    let written = || {
        let calls = world.calls().into_iter();
        calls.filter(|call| call.starts_with("health")).count()
    };
    let mut fault = None;
    for _ in 0..30 {
        fault = next(&["b"]).and_then(|(_, fault)| fault);
    }
    let fires = fault.expect("it fires");
    assert_eq!(fires.clearing_since, None);

    let (false_since, clearing) = next(&[]).expect("it is on record");
    let clearing = clearing.expect("its clock runs");
    assert_eq!(clearing.clearing_since, Some(false_since));
    assert_eq!(clearing.since, fires.since);
    let before = written();
    for _ in 0..10 {
        let (_, fault) = next(&[]).expect("it is on record");
        assert_eq!(fault.as_ref(), Some(&clearing));
    }
    assert_eq!(written(), before, "nothing changed");
    // It comes back sooner: as old as it was, in one write.
    for _ in 0..10 {
        let (_, fault) = next(&["b"]).expect("it is on record");
        assert_eq!(fault.as_ref().map(|fault| fault.since), Some(fires.since));
        assert_eq!(fault.and_then(|fault| fault.clearing_since), None);
    }
    for _ in 0..24 {
        let (_, fault) = next(&[]).expect("it is on record");
        assert!(fault.is_some_and(|fault| fault.clearing_since.is_some()));
    }
    let (_, fault) = next(&[]).expect("it is on record");
    assert_eq!(fault, None);
}

#[test]
fn a_cloud_that_does_not_answer_takes_one_pass_a_minute_and_starts_nothing() {
    let limits = Limits {
        max_in_flight: 6,
        ..Limits::default()
    };
    let breaker = config::Breaker {
        nodes: 6,
        share: 100,
        ..limits.breaker
    };
    let limits = Limits { breaker, ..limits };
    let (world, mut leader) = six_under("sim", Rules::default(), silent_replaces(), limits);
    world.hang_cloud(true);
    for name in ["a", "b", "c"] {
        world.break_machine(name, Fault::KubeletDown);
    }
    let held = |report: &Report| {
        let verdicts = report.verdicts.iter();
        verdicts
            .filter(|one| one.reasons.contains(&Reason::CloudUnavailable))
            .count()
    };
    let mut report = pass(&world, &mut leader, &[]);
    while held(&report) == 0 {
        report = pass(&world, &mut leader, &[]);
        assert!(world.now() < Span::minutes(10).after(Timestamp::UNIX_EPOCH));
    }
    assert_eq!(held(&report), 3, "one that hangs stands for all");
    let passes = (0..24).map(|_| timed(&world, &mut leader, &[]).1);
    let slow: Vec<i64> = passes.filter(|took| *took > 0).collect();
    assert!(
        slow.len() <= 3 && slow.iter().all(|took| *took == 10),
        "{slow:?}"
    );
    assert_eq!(world.list_repairs().len(), 0);
}

#[test]
fn a_repair_that_waits_for_the_cloud_keeps_no_other_from_being_undone() {
    let (world, mut leader) = six("sim");
    let until = |leader: &mut Leader, done: &dyn Fn(&World) -> bool| {
        let end = Span::minutes(20).after(world.now());
        while !done(&world) {
            pass(&world, leader, &[]);
            assert!(world.now() < end, "{:?}", world.list_repairs());
        }
    };
    let phase = |world: &World, node: &str| {
        let repairs = world.list_repairs();
        let mut repairs = repairs.iter().filter(|one| one.spec.node_name == node);
        repairs.next().map(NodeRepair::phase)
    };
    world.break_machine("a", Fault::KubeletDown);
    until(&mut leader, &|world| {
        phase(world, "a") == Some(Phase::Launching)
    });
    world.hang_cloud(true);
    let mut cordons = silent_replaces();
    cordons.faults[0].actions = vec![Action::Cordon];
    leader.adopt(vec![cordons]);
    world.break_machine("b", Fault::KubeletDown);
    let cordoned = |world: &World, name: &str| {
        let mut nodes = world.list_nodes().into_iter();
        nodes.any(|node| node.name == name && node.unschedulable)
    };
    until(&mut leader, &|world| cordoned(world, "b"));
    world.annotate("b", DO_NOT_REPAIR_ANNOTATION, "true");
    until(&mut leader, &|world| !cordoned(world, "b"));
    assert!(cordoned(&world, "a"));
}

#[test]
fn a_policy_that_is_refused_pauses_its_repairs_and_keeps_their_clocks() {
    let (world, mut leader) = six("sim");
    world.break_machine("b", Fault::KubeletDown);
    let repair = |world: &World| world.list_repairs().pop().expect("it was begun");
    while world.list_repairs().is_empty() {
        pass(&world, &mut leader, &[]);
    }
    let since = |leader: &Leader| {
        let policy = silent_replaces();
        let node = leader.evidence().node("b").expect("it is there");
        let rules = Rules::default();
        let fault = leader
            .evidence()
            .fault(node, &policy, "Silent", &rules, world.now());
        fault.1.expect("its clock runs")
    };
    let before = since(&leader);
    let refused = Policy::refused("p".into(), 0, NodeSelector::default());
    leader.adopt(vec![refused]);
    for _ in 0..200 {
        pass(&world, &mut leader, &[]);
    }
    assert_eq!(repair(&world).phase(), Phase::Launching);
    assert_eq!(repair(&world).message(), "paused: PolicyRefused");
    assert_eq!(since(&leader), before);
    leader.adopt(vec![silent_replaces()]);
    while repair(&world).open() {
        pass(&world, &mut leader, &[]);
    }
    assert_eq!(repair(&world).phase(), Phase::Succeeded);
}

#[test]
fn h51_a_repair_that_a_newer_version_wrote_does_not_keep_a_leader_from_leading() {
    let (world, mut leader) = six("sim");
    world.break_machine("b", Fault::KubeletDown);
    while world.list_repairs().is_empty() {
        pass(&world, &mut leader, &[]);
    }
    let mut newer = world.list_repairs().pop().expect("it was begun");
    newer.status.as_mut().expect("it has one").phase = Phase::Unrecognized;
    let written = world.put_repair(&newer).now_or_never();
    let written = written.expect("answers at once").expect("never fails");
    let mut next = relieve(&world, Limits::default());
    for _ in 0..10 {
        pass(&world, &mut next, &[]);
    }
    assert_eq!(world.list_repairs(), [written], "it is left as it is");
}
