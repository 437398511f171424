//! Verdicts and admissions, situation by situation, on fleets of Ready and `NotReady` nodes.

mod asked;
mod breakers;
mod budgets;
mod faults;
mod numbers;
mod observed;
mod pools;
mod questions;
mod retained;
mod standing;

use super::conclude::conclude;
use super::*;
use crate::api::{
    ConditionLeaf, ConditionStatus, Decision, FaultInput, GaveUp, GuardRecord, Intent, Leaf,
    NodeRepairSpec, NodeRepairStatus, OnUnreachable, OpenRepair, Per, Phase, Plan, Replacement,
    Standing, Step, Strategy, When,
};
use crate::config::{Amount, Budget, Fault, Window};
use crate::evidence::Input;
use crate::evidence::probe::Reading;
use crate::model::{
    APPROVED_ANNOTATION, Condition, QUARANTINE_ANNOTATION, REQUEST_ANNOTATION, Span, ZONE_LABEL,
};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

/// A fault that is true since then, is due a minute later, and has its node replaced.
pub(super) fn fault_input(
    name: &str,
    since: Timestamp,
    severity: Severity,
    confirmed: Option<Truth>,
) -> FaultInput {
    FaultInput {
        name: name.into(),
        truth: Truth::True,
        since: Some(since),
        for_: Span::seconds(60),
        severity,
        silenced: false,
        suspended: false,
        unsettled: false,
        action: Some(Action::Replace),
        then: None,
        confirmed,
        when: String::new(),
        leaves: Vec::new(),
    }
}

pub(super) fn node(name: &str, ready: bool) -> NodeView {
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

pub(super) fn policy(name: &str, mode: Mode, priority: i32) -> Policy {
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
            actions: vec![Action::Replace],
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
    fallen: Vec<Fallen>,
    starts: Vec<Reservation>,
    reserved: Vec<Reservation>,
    pauses: Vec<Pause>,
    observed: Vec<ObservedStart>,
    observed_fallen: Vec<Fallen>,
    change: fn(&mut NodeView),
}

impl Fleet {
    fn new(total: usize, sick: usize) -> Self {
        let mut fleet = Self {
            evidence: Evidence::default(),
            policies: vec![policy("p", Mode::Enforce, 0)],
            limits: Limits::default(),
            repairs: Vec::new(),
            fallen: Vec::new(),
            starts: Vec::new(),
            reserved: Vec::new(),
            pauses: Vec::new(),
            observed: Vec::new(),
            observed_fallen: Vec::new(),
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
            fallen: &self.fallen,
            starts: &self.starts,
            reserved: &self.reserved,
            pauses: &self.pauses,
            observed: Observed {
                starts: &self.observed,
                fallen: &self.observed_fallen,
            },
        }
    }

    fn decide(&self, second: i64) -> (Vec<Verdict>, Vec<String>, Scopes) {
        let rules = Rules::default();
        let world = self.world(&rules);
        let mut verdicts = judge_all(&world, at(second));
        let nodes = self.evidence.nodes();
        let each: Vec<Verdict> = nodes.map(|node| judge(node, &world, at(second))).collect();
        assert_eq!(verdicts, each, "also of those that were not asked");
        let scopes = survey(&verdicts, &world, at(second));
        let admission = admit(&mut verdicts, &scopes, &world, at(second));
        let before = verdicts.clone();
        let shadow = shadow(&mut verdicts, &world, at(second));
        for (before, after) in before.iter().zip(&verdicts) {
            assert!(before == after || before.reasons == [Reason::ObserveMode]);
        }
        let guards = [admission.guards, shadow.guards].concat();
        assert_replays(&verdicts, &guards, at(second));
        (verdicts, admission.admitted, scopes)
    }

    /// What a pass remembers of what would have started by then, and which nodes that adds.
    fn would_start(&mut self, second: i64) -> Vec<String> {
        let rules = Rules::default();
        let world = self.world(&rules);
        let mut verdicts = judge_all(&world, at(second));
        let scopes = survey(&verdicts, &world, at(second));
        admit(&mut verdicts, &scopes, &world, at(second));
        let found = shadow(&mut verdicts, &world, at(second)).starts;
        let known = |start: &&ObservedStart| start.at == at(second);
        let new = found.iter().filter(known);
        let new = new.map(|start| start.node_uid.clone()).collect();
        self.observed = found;
        new
    }

    /// The first node's verdict and reasons.
    fn first(&self, second: i64) -> (VerdictKind, Vec<Reason>) {
        let (verdicts, _, _) = self.decide(second);
        (verdicts[0].kind, verdicts[0].reasons.clone())
    }
}

pub(super) fn repair(node: &str, started: i64, phase: Phase) -> NodeRepair {
    let plan = Plan {
        action: Action::Replace,
        then: None,
        strategy: Some(Strategy::EC2),
        cluster_tag: "tag".into(),
        instance_id: format!("i-{node}"),
        launch: None,
        ready_timeout: Span::minutes(15),
        max_attempts: 2,
        drain_timeout: Span::minutes(15),
        max_pod_grace_period: None,
    };
    let spec = NodeRepairSpec {
        node_name: node.into(),
        node_uid: node.into(),
        provider_id: String::new(),
        zone: String::new(),
        pool: String::new(),
        ordinal: 1,
        policy: "p".into(),
        fault: "NotReady".into(),
        fault_since: at(started),
        evidence: Vec::new(),
        request: None,
        approval: None,
        plan,
        epoch: 1,
        quarantine: Intent {
            step: Step::Quarantine,
            attempt: 1,
            at: at(started),
            epoch: 1,
            nonce: String::new(),
            target: node.into(),
            boot_id: String::new(),
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

/// Every verdict comes out of its record again, as the API server would give it back.
pub(super) fn assert_replays(verdicts: &[Verdict], guards: &[GuardRecord], now: Timestamp) {
    for verdict in verdicts {
        let text = serde_json::to_string(&decision(verdict, guards, now)).unwrap();
        let kept: Decision = serde_json::from_str(&text).unwrap();
        let found = replay(&kept);
        assert!(replays(&kept), "{text} came to {found:?}");
        let (kind, since) = (verdict.kind, verdict.since);
        assert_eq!((found.kind, found.since), (kind, since), "{text}");
        assert_eq!(
            (&found.fault, &found.reasons),
            (&verdict.fault, &verdict.reasons)
        );
        let mut scopes: Vec<String> = kept
            .inputs
            .guards
            .iter()
            .map(|guard| guard.scope.clone())
            .collect();
        scopes.sort();
        scopes.dedup();
        assert_eq!(scopes, verdict.scopes, "{text}");
    }
}

#[test]
fn a_fault_is_pending_for_its_time_and_then_due() {
    let mut fleet = Fleet::new(10, 1);
    fleet.watch(10, 1, 30, 60);
    assert_eq!(fleet.first(59).0, VerdictKind::Pending);
    let standing = |second| {
        let (verdicts, _, _) = fleet.decide(second);
        verdicts[0].inputs.as_ref().unwrap().standing.clone()
    };
    assert!(standing(59).is_none(), "asked for once it matters");
    assert_eq!(standing(60).unwrap().mode, Mode::Enforce);
    assert_eq!(fleet.first(60), (VerdictKind::Due, vec![]));
    assert_eq!(fleet.decide(60).1, ["n000"]);
    assert_eq!(fleet.decide(60).0[1].kind, VerdictKind::Healthy);
}

/// Puts the nodes into two zones and three pools by their numbers.
fn placed(node: &mut NodeView) {
    let number: usize = node.name[1..].parse().unwrap();
    let zone = ["a", "b"][number % 2];
    let pool = ["x", "y", "z"][number % 3];
    node.labels = [
        (ZONE_LABEL.to_owned(), zone.to_owned()),
        ("karpenter.sh/nodepool".to_owned(), pool.to_owned()),
    ]
    .into();
}

fn held(verdicts: &[Verdict], name: &str) -> (Vec<Reason>, Vec<String>) {
    let found = verdicts.iter().find(|verdict| verdict.node == name);
    let found = found.unwrap();
    (found.reasons.clone(), found.scopes.clone())
}

fn budget(name: &str, per: Per) -> Budget {
    Budget {
        name: name.into(),
        per,
        max_repairs: None,
        max_in_flight: None,
        max_unavailable: None,
    }
}

/// A hundred nodes of which four are sick, under this budget and few other limits.
fn budgeted(budget: Budget) -> Fleet {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = placed;
    fleet.limits.max_in_flight = 99;
    fleet.limits.max_repairs = Vec::new();
    fleet.policies[0].budgets = vec![budget];
    fleet.watch(100, 4, 0, 120);
    fleet
}

/// Nodes with a number from 50 on are of a policy that only observes.
fn half_observed(total: usize, sick: fn(usize) -> bool) -> Fleet {
    let mut fleet = Fleet::new(0, 0);
    let mut observing = policy("o", Mode::Observe, 1);
    let look = ("look".to_owned(), "yes".to_owned());
    observing.selector.match_labels = [look].into();
    (observing.ready_timeout, observing.drain_timeout) = (Span::minutes(15), Span::minutes(15));
    fleet.policies.push(observing);
    fleet.change = |node| {
        let number: usize = node.name[1..].parse().unwrap();
        if number >= 50 {
            node.labels = [("look".to_owned(), "yes".to_owned())].into();
        }
    };
    fleet.sick_by_number(total, sick, 0, 120);
    fleet
}

impl Fleet {
    /// Looks every half minute; these are not Ready.
    fn sick_by_number(&mut self, total: usize, sick: fn(usize) -> bool, from: i64, to: i64) {
        for second in (from..=to).step_by(30) {
            let nodes = (0..total).map(|number| {
                let mut node = node(&format!("n{number:03}"), !sick(number));
                (self.change)(&mut node);
                node
            });
            let nodes = nodes.collect();
            self.evidence.fold(Input::Nodes(nodes), at(second));
            self.evidence
                .settle(&Rules::default(), &self.policies, at(second));
        }
    }
}

/// A repair whose replacement was Ready at this time.
fn replaced(node: &str, by: &str, started: i64, ready: i64) -> NodeRepair {
    let mut repair = repair(node, started, Phase::Succeeded);
    repair.spec.pool = "x".into();
    let status = repair.status.as_mut().unwrap();
    status.ended = Some(at(ready));
    status.replacement = Some(Replacement {
        instance_id: format!("i-{by}"),
        node_name: by.into(),
        ready_since: Some(at(ready)),
    });
    repair
}

fn in_pool_x(node: &mut NodeView) {
    node.labels = [("karpenter.sh/nodepool".to_owned(), "x".to_owned())].into();
}

/// Two of the pool are cordoned still.
fn quarantined_in_pool_x(node: &mut NodeView) {
    in_pool_x(node);
    node.unschedulable = ["n010", "n011"].contains(&node.name.as_str());
}

#[test]
fn nodes_that_are_judged_alike_differ_in_nothing_that_a_verdict_says() {
    type Change<'a> = &'a dyn Fn(&mut [NodeView]);
    let labels = |label: &str, value: &str| [(label.to_owned(), value.to_owned())].into();
    let asks = |node: &mut NodeView, uid: &str| {
        let request = serde_json::json!({
            "uid": uid, "at": at(0), "until": at(900), "by": "eve", "reason": "smells",
        });
        let asks = (REQUEST_ANNOTATION.to_owned(), request.to_string());
        node.annotations = [asks].into();
    };
    // Of three nodes, what the one in the middle differs in.
    let changes: [Change<'_>; 9] = [
        &|nodes| nodes[1].labels = labels(ZONE_LABEL, "b"),
        &|nodes| nodes[1].labels = labels("karpenter.sh/nodepool", "b"),
        &|nodes| nodes[1].labels = labels("node-role.kubernetes.io/control-plane", ""),
        &|nodes| nodes[1].labels = labels("of", "q"),
        &|nodes| nodes[1].unschedulable = true,
        &|nodes| nodes[1].deleting = true,
        &|nodes| nodes[1].conditions[0].status = "False".into(),
        &|nodes| asks(&mut nodes[1], "b"),
        &|nodes| {
            for node in nodes {
                asks(node, "b");
            }
        },
    ];
    for (nth, change) in changes.into_iter().enumerate() {
        let mut fleet = Fleet::new(0, 0);
        let mut nodes = ["a", "b", "c"].map(|name| node(name, true));
        change(&mut nodes);
        fleet.evidence.fold(Input::Nodes(nodes.into()), at(0));
        let settle = |fleet: &mut Fleet| {
            let rules = Rules::default();
            fleet.evidence.settle(&rules, &fleet.policies, at(0));
        };
        settle(&mut fleet);
        let mut other = policy("q", Mode::Enforce, 1);
        other.selector.match_labels = labels("of", "q");
        fleet.policies.push(other);
        settle(&mut fleet);
        let verdicts = fleet.decide(0).0;
        let [first, second, third] = [0, 1, 2].map(|of: usize| Verdict {
            node: String::new(),
            uid: String::new(),
            ..verdicts[of].clone()
        });
        assert_eq!(first, third, "{nth}");
        assert_ne!(first, second, "{nth}");
    }
}

#[test]
fn nodes_that_are_alike_are_each_told_of_their_own_repair() {
    let mut fleet = Fleet::new(4, 0);
    let repairs = ["n001", "n002"].map(|node| repair(node, 0, Phase::Draining));
    fleet.repairs = repairs.into();
    let verdicts = fleet.decide(0).0;
    let repairs = verdicts.iter().map(|verdict| {
        let open = verdict.inputs.as_ref()?.repair.as_ref()?;
        Some(open.name.as_str())
    });
    let repairs: Vec<Option<&str>> = repairs.collect();
    assert_eq!(repairs, [None, Some("r-n001"), Some("r-n002"), None]);
}
