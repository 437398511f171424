//! Verdicts and admissions, situation by situation, on fleets of Ready and `NotReady` nodes.

use super::*;
use crate::api::{
    ConditionLeaf, ConditionStatus, Intent, LaunchPlan, LaunchTemplate, Leaf, NodeRepairSpec,
    NodeRepairStatus, Plan, Step, Strategy, When,
};
use crate::config::Fault;
use crate::evidence::Input;
use crate::model::{Condition, Span};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn node(name: &str, ready: bool) -> NodeView {
    NodeView {
        name: name.into(),
        uid: name.into(),
        provider_id: format!("aws:///z/i-{name}"),
        conditions: vec![Condition {
            type_: "Ready".into(),
            status: if ready { "True" } else { "False" }.into(),
            reason: String::new(),
        }],
        ..NodeView::default()
    }
}

fn policy(name: &str, mode: Mode, priority: i32) -> Policy {
    let unready = ConditionLeaf {
        type_: "Ready".into(),
        statuses: vec![ConditionStatus::False, ConditionStatus::Unknown],
        reasons: vec![],
    };
    let leaf = Leaf {
        condition: Some(unready),
        ..Leaf::default()
    };
    Policy {
        accepted: true,
        mode,
        faults: vec![Fault {
            name: "NotReady".into(),
            severity: Severity::Warning,
            when: When {
                all: vec![leaf],
                ..When::default()
            },
            for_: Span::seconds(60),
            replaces: true,
            confirm: None,
        }],
        strategy: Some(Strategy::EC2),
        ..Policy::refused(name.into(), priority, NodeSelector::default())
    }
}

/// A fleet of so many nodes, whose first so many are `NotReady` since this second.
struct Fleet {
    evidence: Evidence,
    policies: Vec<Policy>,
    limits: Limits,
    repairs: Vec<NodeRepair>,
    starts: Vec<Reservation>,
    pauses: Vec<Pause>,
    change: fn(&mut NodeView),
}

impl Fleet {
    fn new(total: usize, sick: usize) -> Self {
        let mut fleet = Self {
            evidence: Evidence::default(),
            policies: vec![policy("p", Mode::Enforce, 0)],
            limits: Limits::default(),
            repairs: Vec::new(),
            starts: Vec::new(),
            pauses: Vec::new(),
            change: |_| {},
        };
        fleet.see(total, sick, 0);
        fleet
    }

    fn see(&mut self, total: usize, sick: usize, second: i64) {
        let mut nodes: Vec<NodeView> = (0..total)
            .map(|index| node(&format!("n{index:03}"), index >= sick))
            .collect();
        nodes.iter_mut().for_each(self.change);
        self.evidence.fold(Input::Nodes(nodes), at(second));
        self.evidence
            .settle(&Rules::default(), &self.policies, at(second));
    }

    /// Looks every half minute until then, so that clocks run.
    fn watch(&mut self, total: usize, sick: usize, from: i64, to: i64) {
        for second in (from..=to).step_by(30) {
            self.see(total, sick, second);
        }
    }

    fn world<'a>(&'a self, rules: &'a Rules) -> World<'a> {
        World {
            evidence: &self.evidence,
            rules,
            policies: &self.policies,
            limits: &self.limits,
            repairs: &self.repairs,
            reservations: &[],
            starts: &self.starts,
            pauses: &self.pauses,
        }
    }

    fn decide(&self, second: i64) -> (Vec<Verdict>, Vec<String>, Scopes) {
        let rules = Rules::default();
        let world = self.world(&rules);
        let nodes = self.evidence.nodes();
        let mut verdicts: Vec<Verdict> =
            nodes.map(|node| judge(node, &world, at(second))).collect();
        let scopes = survey(&world, at(second));
        let admitted = admit(&mut verdicts, &scopes, &self.limits, at(second));
        (verdicts, admitted, scopes)
    }

    /// The first node's verdict and reasons.
    fn first(&self, second: i64) -> (VerdictKind, Vec<Reason>) {
        let (verdicts, _, _) = self.decide(second);
        (verdicts[0].kind, verdicts[0].reasons.clone())
    }
}

fn repair(node: &str, started: i64, phase: Phase) -> NodeRepair {
    let plan = Plan {
        strategy: Strategy::EC2,
        instance_id: format!("i-{node}"),
        launch: LaunchPlan {
            template: LaunchTemplate {
                id: "lt".into(),
                version: "1".into(),
            },
            subnet: String::new(),
            instance_type: String::new(),
            cluster_tag: String::new(),
        },
        ready_timeout: Span::minutes(15),
        max_attempts: 2,
        drain_timeout: Span::minutes(15),
        max_pod_grace_period: None,
    };
    let spec = NodeRepairSpec {
        node_name: node.into(),
        node_uid: node.into(),
        provider_id: String::new(),
        ordinal: 1,
        policy: "p".into(),
        fault: "NotReady".into(),
        fault_since: at(started),
        evidence: Vec::new(),
        plan,
        epoch: 1,
        quarantine: Intent {
            step: Step::Quarantine,
            attempt: 1,
            at: at(started),
            epoch: 1,
            nonce: String::new(),
            target: node.into(),
        },
    };
    let mut repair = NodeRepair::new(&format!("r-{node}"), spec);
    repair.status = Some(NodeRepairStatus {
        phase,
        ended: phase.terminal().then(|| at(started)),
        ..NodeRepairStatus::default()
    });
    repair
}

#[test]
fn a_fault_is_pending_for_its_time_and_then_due() {
    let mut fleet = Fleet::new(10, 1);
    fleet.watch(10, 1, 30, 60);
    assert_eq!(fleet.first(59).0, VerdictKind::Pending);
    assert_eq!(fleet.first(60), (VerdictKind::Due, vec![]));
    assert_eq!(fleet.decide(60).1, ["n000"]);
    assert_eq!(fleet.decide(60).0[1].kind, VerdictKind::Healthy);
}

/// Each guard alone, on a node that would be due.
#[test]
fn each_standing_guard_holds_with_its_reason() {
    let pause = |policy: Option<&str>, until: Option<i64>| Pause {
        selector: NodeSelector::default(),
        policy: policy.map(str::to_owned),
        until: until.map(at),
    };
    let check = |prepare: &dyn Fn(&mut Fleet), expect: &[Reason]| {
        let mut fleet = Fleet::new(10, 1);
        prepare(&mut fleet);
        fleet.watch(10, 1, 0, 60);
        let (kind, reasons) = fleet.first(60);
        assert_eq!(reasons, expect);
        let held = if expect.is_empty() {
            VerdictKind::Due
        } else {
            VerdictKind::Held
        };
        assert_eq!(kind, held);
    };
    check(&|_| {}, &[]);
    check(
        &|fleet| fleet.pauses = vec![pause(None, None)],
        &[Reason::Paused],
    );
    check(
        &|fleet| fleet.pauses = vec![pause(Some("p"), Some(61))],
        &[Reason::Paused],
    );
    check(
        &|fleet| fleet.pauses = vec![pause(Some("other"), None)],
        &[],
    );
    check(&|fleet| fleet.pauses = vec![pause(None, Some(60))], &[]);
    check(
        &|fleet| fleet.policies = vec![policy("p", Mode::Observe, 0)],
        &[Reason::ObserveMode],
    );
    check(
        &|fleet| fleet.policies.push(policy("q", Mode::Enforce, 0)),
        &[Reason::PolicyConflict],
    );
    check(
        &|fleet| fleet.policies.push(policy("q", Mode::Enforce, -1)),
        &[],
    );
    check(
        &|fleet| fleet.repairs = vec![repair("n000", -9000, Phase::NeedsHuman)],
        &[Reason::NeedsHuman],
    );
    check(
        &|fleet| {
            fleet.starts = vec![Reservation {
                repair: "deleted".into(),
                node_uid: "n000".into(),
                at: at(0),
            }];
        },
        &[Reason::RepairDeleted],
    );
    check(
        &|fleet| fleet.change = |node| node.unschedulable = true,
        &[Reason::CordonedByOther],
    );
    check(
        &|fleet| fleet.change = |node| node.deleting = true,
        &[Reason::NodeDeleting],
    );
    check(
        &|fleet| fleet.change = |node| node.provider_id = "gce://x".into(),
        &[Reason::NoOwner],
    );
    check(
        &|fleet| {
            fleet.change = |node| {
                let note = (DO_NOT_REPAIR_ANNOTATION.to_owned(), "true".to_owned());
                node.annotations = [note].into();
            };
        },
        &[Reason::OptedOut],
    );
}

#[test]
fn a_refused_policy_keeps_its_nodes_from_weaker_ones() {
    let mut fleet = Fleet::new(10, 1);
    fleet
        .policies
        .push(Policy::refused("bad".into(), 5, NodeSelector::default()));
    fleet.watch(10, 1, 30, 60);
    assert_eq!(
        fleet.first(60),
        (VerdictKind::Ignored, vec![Reason::PolicyRefused])
    );
}

#[test]
fn an_old_list_of_nodes_makes_nobody_due() {
    let mut fleet = Fleet::new(10, 1);
    fleet.watch(10, 1, 30, 60);
    fleet
        .evidence
        .settle(&Rules::default(), &fleet.policies, at(200));
    assert_eq!(fleet.first(200).0, VerdictKind::Unknown);
    assert!(fleet.decide(200).1.is_empty());
}

#[test]
fn h58_a_storm_opens_the_breaker_and_nothing_starts() {
    for (sick, open, admitted) in [(2, false, 2), (3, true, 0), (20, true, 0)] {
        let mut fleet = Fleet::new(20, 0);
        fleet.limits.breaker.share = 10;
        fleet.watch(20, sick, 30, 120);
        let (verdicts, starting, scopes) = fleet.decide(120);
        let is_open = matches!(scopes.breaker, BreakerState::Open { .. });
        assert_eq!((is_open, starting.len()), (open, admitted), "{sick} sick");
        if open {
            assert_eq!(verdicts[0].reasons, [Reason::ClusterBreaker]);
        }
    }
}

#[test]
fn h83_after_the_storm_the_dead_are_repaired_one_at_a_time() {
    let mut fleet = Fleet::new(20, 0);
    fleet.limits.breaker.share = 10;
    fleet.watch(20, 5, 30, 900);
    let (_, starting, scopes) = fleet.decide(900);
    assert_eq!((scopes.breaker, starting.len()), (BreakerState::Slow, 1));
}

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
fn a_running_repair_pauses_for_a_storm_and_for_a_person_also_without_node_or_policy() {
    let mut fleet = Fleet::new(20, 0);
    fleet.limits.breaker.share = 10;
    fleet.watch(20, 5, 30, 120);
    let running = repair("n000", 0, Phase::Draining);
    let paused = |fleet: &Fleet, repair: &NodeRepair, second: i64| {
        let world = World {
            evidence: &fleet.evidence,
            rules: &Rules::default(),
            policies: &[],
            limits: &fleet.limits,
            repairs: &[],
            reservations: &[],
            starts: &[],
            pauses: &fleet.pauses,
        };
        let world_with = World {
            policies: &fleet.policies,
            ..world
        };
        let scopes = survey(&world_with, at(second));
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

/// Whose leases are to be read.
fn to_be_read(fleet: &Fleet, second: i64) -> Vec<String> {
    let (verdicts, _, _) = fleet.decide(second);
    let nodes = to_read(&verdicts, &fleet.world(&Rules::default()), at(second));
    nodes.into_iter().map(|node| node.name).collect()
}

#[test]
fn h21_a_node_of_which_nothing_is_heard_waits_for_the_word_of_its_lease() {
    for read in [true, false] {
        let mut fleet = Fleet::new(10, 0);
        fleet.change = |node| {
            if node.name == "n000" {
                node.conditions[0].status = "Unknown".into();
            }
        };
        for second in (0..60).step_by(10) {
            fleet.see(10, 0, second);
            assert_eq!(to_be_read(&fleet, second), ["n000"], "at {second}");
            if read {
                let (uid, renewed) = ("n000".into(), Ok(None));
                let lease = Input::Lease { uid, renewed };
                fleet.evidence.fold(lease, at(second));
                assert_eq!(to_be_read(&fleet, second + 9), Vec::<String>::new());
            }
        }
        fleet.see(10, 0, 60);
        let expect = if read {
            (VerdictKind::Due, vec![])
        } else {
            (VerdictKind::Held, vec![Reason::Contradicted])
        };
        // Admission would start it.
        let (verdicts, admitted, _) = fleet.decide(60);
        assert_eq!((verdicts[0].kind, verdicts[0].reasons.clone()), expect);
        assert_eq!(admitted.len(), usize::from(read));
    }
}

#[test]
fn a_new_leader_that_alertmanager_does_not_answer_starts_nothing() {
    let mut fleet = Fleet::new(10, 1);
    fleet.watch(10, 1, 0, 60);
    fleet
        .evidence
        .fold(Input::AskFailed("refused".into()), at(60));
    let expect = (VerdictKind::Held, vec![Reason::SilencesUnknown]);
    assert_eq!(fleet.first(60), expect);
}

#[test]
fn leases_that_are_begun_to_be_read_go_on_before_others() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| node.conditions[0].status = "Unknown".into();
    let mut settled = 0;
    for second in (0..=60).step_by(5) {
        fleet.see(200, 0, second);
        for name in to_be_read(&fleet, second) {
            let renewed = Ok(Some(at(-3600)));
            fleet
                .evidence
                .fold(Input::Lease { uid: name, renewed }, at(second));
        }
        let silent =
            |node: &&NodeView| fleet.evidence.lease(&node.uid, at(second)) == Some(Word::Silent);
        settled = fleet.evidence.nodes().filter(silent).count();
    }
    assert!(settled >= LEASES_AT_ONCE, "{settled} of 200");
}
