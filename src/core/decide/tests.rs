//! Verdicts and admissions, situation by situation, on fleets of Ready and `NotReady` nodes.

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
    // Also where only one of both finds a fault, whichever, or the other does not know.
    for type_ in ["Ready", "Elsewhere"] {
        for which in [0, 1] {
            check(
                &|fleet| {
                    fleet.policies.push(policy("q", Mode::Enforce, 0));
                    let leaf = &mut fleet.policies[which].faults[0].when.all[0];
                    let condition = leaf.condition.as_mut().unwrap();
                    condition.type_ = type_.into();
                    condition.statuses = vec![ConditionStatus::True];
                },
                &[Reason::PolicyConflict],
            );
        }
    }
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
fn a_node_asks_for_a_person_until_a_later_repair_of_it() {
    let mut fleet = Fleet::new(10, 1);
    fleet.watch(10, 1, 30, 60);
    fleet.repairs = vec![repair("n000", -9000, Phase::NeedsHuman)];
    let asks = (VerdictKind::Held, vec![Reason::NeedsHuman]);
    assert_eq!(fleet.first(60), asks);
    let mut later = repair("n000", -100, Phase::Aborted);
    (later.metadata.name, later.spec.ordinal) = (Some("r-2".into()), 2);
    fleet.repairs.insert(0, later);
    assert_eq!(fleet.first(60), (VerdictKind::Due, vec![]));
    fleet.repairs[0].status.as_mut().unwrap().phase = Phase::NeedsHuman;
    assert_eq!(fleet.first(60), asks);
}

#[test]
fn a_deleted_record_holds_its_node_for_an_hour_however_long_it_is_remembered() {
    let mut fleet = Fleet::new(10, 1);
    fleet.watch(10, 1, 30, 60);
    let deleted = |second: i64| Reservation {
        repair: "deleted".into(),
        node_uid: "n000".into(),
        at: at(second),
    };
    fleet.starts = vec![deleted(60 - 3599)];
    let held = (VerdictKind::Held, vec![Reason::RepairDeleted]);
    assert_eq!(fleet.first(60), held);
    fleet.starts = vec![deleted(60 - 3600)];
    assert_eq!(fleet.first(60), (VerdictKind::Due, vec![]));
    // Its name may be given again, and another repair may begin at the same time.
    fleet.starts = vec![deleted(30)];
    let listed = |name: &str, second: i64| {
        let mut listed = repair("n009", second, Phase::Succeeded);
        listed.metadata.name = Some(name.into());
        listed
    };
    fleet.repairs = vec![listed("deleted", 31), listed("other", 30)];
    assert_eq!(fleet.first(60).1, [Reason::RepairDeleted]);
    fleet.repairs.push(listed("deleted", 30));
    assert_eq!(fleet.first(60).0, VerdictKind::Due);
}

/// A person asks for the repair of a node that is well.
fn asked(node: &mut NodeView) {
    if node.name == "n005" {
        let request = serde_json::json!({
            "uid": node.uid, "at": at(30), "until": at(900), "by": "eve", "reason": "smells",
            "override": ["InFlight", "Budget", "ClusterBreaker"],
        });
        let asks = (REQUEST_ANNOTATION.to_owned(), request.to_string());
        node.annotations = [asks].into();
    }
}

#[test]
fn what_a_person_asks_for_is_due_at_once_where_the_policy_acts() {
    let check = |mode: Mode, second: i64, expect: (VerdictKind, &[Reason])| {
        let mut fleet = Fleet::new(10, 0);
        fleet.policies = vec![policy("p", mode, 0)];
        fleet.change = asked;
        fleet.watch(10, 0, 30, second);
        let (verdicts, admitted, scopes) = fleet.decide(second);
        let verdict = &verdicts[5];
        assert_eq!(
            (verdict.kind, verdict.reasons.as_slice()),
            expect,
            "{mode:?}"
        );
        assert_eq!(admitted.len(), usize::from(expect.0 == VerdictKind::Due));
        // Nobody is sick for it.
        assert_eq!((verdict.sick_since, scopes.cluster().sick), (None, 0));
    };
    check(Mode::Enforce, 30, (VerdictKind::Due, &[]));
    check(Mode::Approve, 30, (VerdictKind::Due, &[]));
    check(
        Mode::Observe,
        30,
        (VerdictKind::Held, &[Reason::ObserveMode]),
    );
    check(Mode::Enforce, 870, (VerdictKind::Due, &[]));
    check(Mode::Enforce, 900, (VerdictKind::Healthy, &[]));
}

#[test]
fn one_request_makes_one_repair() {
    let mut fleet = Fleet::new(10, 0);
    fleet.change = asked;
    fleet.watch(10, 0, 30, 60);
    let mut made = repair("n005", 30, Phase::Aborted);
    made.spec.request = fleet.decide(60).0[5].request().cloned();
    fleet.repairs = vec![made];
    assert_eq!(fleet.decide(60).0[5].kind, VerdictKind::Healthy);
    if let Some(request) = &mut fleet.repairs[0].spec.request {
        request.at = at(29);
    }
    assert_eq!(fleet.decide(60).1, ["n005"]);
}

#[test]
fn nodes_that_people_had_replaced_were_not_sick() {
    let mut fleet = Fleet::new(10, 0);
    fleet.change = asked;
    fleet.watch(10, 0, 30, 60);
    let request = fleet.decide(60).0[5].request().cloned();
    let gone = |number: usize| repair(&format!("gone{number}"), 30, Phase::Succeeded);
    fleet.repairs = (0..3).map(gone).collect();
    let open = |fleet: &Fleet| fleet.decide(60).2.cluster().breaker != BreakerState::Closed;
    assert!(open(&fleet));
    for repair in &mut fleet.repairs {
        repair.spec.request.clone_from(&request);
    }
    assert!(!open(&fleet));
    assert_eq!(fleet.decide(60).2.cluster().nodes, 13);
}

#[test]
fn guards_that_count_hold_a_person_too_unless_told_to_be_ignored() {
    let check = |prepare: &dyn Fn(&mut Fleet), expect: &[Reason]| {
        let mut fleet = Fleet::new(20, 0);
        fleet.change = asked;
        prepare(&mut fleet);
        fleet.watch(20, 5, 30, 120);
        let (verdicts, admitted, _) = fleet.decide(120);
        assert_eq!(verdicts[5].reasons, expect);
        assert_eq!(admitted.contains(&"n005".to_owned()), expect.is_empty());
    };
    // All three are told to be ignored.
    check(
        &|fleet| {
            fleet.limits.max_in_flight = 0;
            fleet.limits.breaker.share = 10;
            fleet.policies[0].budgets = vec![Budget {
                name: "none".into(),
                per: Per::Cluster,
                max_repairs: None,
                max_in_flight: Some(0),
                max_unavailable: None,
            }];
        },
        &[],
    );
    check(
        &|fleet| fleet.limits.max_repairs = vec![(0, Span::minutes(60))],
        &[Reason::RateLimit],
    );
    check(
        &|fleet| {
            let mut needs = [
                repair("n001", 0, Phase::NeedsHuman),
                repair("n002", 0, Phase::NeedsHuman),
            ];
            for repair in &mut needs {
                repair.spec.pool = "x".into();
            }
            fleet.repairs = needs.to_vec();
            fleet.limits.breaker.share = 100;
            fleet.change = |node| {
                asked(node);
                in_pool_x(node);
            };
        },
        &[Reason::PoolStopped],
    );
}

#[test]
fn a_running_repair_goes_on_through_a_storm_that_it_was_told_to_ignore() {
    let mut fleet = Fleet::new(20, 0);
    fleet.limits.breaker.share = 10;
    fleet.change = asked;
    fleet.watch(20, 5, 30, 120);
    let (verdicts, _, scopes) = fleet.decide(120);
    let mut running = repair("n005", 100, Phase::Draining);
    let rules = Rules::default();
    let paused =
        |repair: &NodeRepair| pause_reason(None, repair, &fleet.world(&rules), &scopes, at(120));
    assert_eq!(paused(&running), Some(Reason::ClusterBreaker));
    running.spec.request = verdicts[5].request().cloned();
    assert_eq!(paused(&running), None);
}

#[test]
fn a_node_that_another_policy_finds_sick_stays_in_the_budgets_of_its_own() {
    let mut fleet = Fleet::new(10, 1);
    fleet.policies.push(policy("q", Mode::Enforce, 0));
    let leaf = &mut fleet.policies[0].faults[0].when.all[0];
    leaf.condition.as_mut().unwrap().statuses = vec![ConditionStatus::True];
    fleet.policies[0].budgets = vec![Budget {
        name: "few".into(),
        per: Per::Cluster,
        max_repairs: None,
        max_in_flight: None,
        max_unavailable: Some(Amount::Count(1)),
    }];
    fleet.watch(10, 1, 0, 60);
    let (verdicts, _, scopes) = fleet.decide(60);
    assert_eq!(verdicts[0].reasons, [Reason::PolicyConflict]);
    assert_eq!(*verdicts[0].policy, *"p");
    let tallies: Vec<usize> = scopes.tallies.values().map(|one| one.unavailable).collect();
    assert_eq!(tallies, [1]);
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
        let is_open = matches!(scopes.cluster().breaker, BreakerState::Open { .. });
        assert_eq!((is_open, starting.len()), (open, admitted), "{sick} sick");
        if open {
            assert_eq!(verdicts[0].reasons, [Reason::ClusterBreaker]);
        }
    }
}

/// However many may be sick, all of them may not; the numbers say so.
#[test]
fn h58_a_cluster_that_is_sick_as_a_whole_is_held_by_numbers_that_show_it() {
    let mut fleet = Fleet::new(2, 0);
    (fleet.limits.breaker.share, fleet.limits.breaker.min_nodes) = (100, 1);
    fleet.watch(2, 0, 30, 400);
    fleet.watch(2, 2, 430, 900);
    // Two more that were repaired away of late count among those of which all may be sick.
    for name in ["gone1", "gone2"] {
        let mut gone = repair(name, 100, Phase::Succeeded);
        if let Some(status) = &mut gone.status {
            status.ended = Some(at(800));
        }
        fleet.repairs.push(gone);
    }
    let (verdicts, _, scopes) = fleet.decide(900);
    assert_eq!(verdicts[0].reasons, [Reason::ClusterBreaker]);
    let census = scopes.cluster();
    assert_eq!((census.nodes, census.sick, census.limit), (4, 2, 1));
}

#[test]
fn h83_after_the_storm_the_dead_are_repaired_one_at_a_time() {
    let mut fleet = Fleet::new(20, 0);
    fleet.limits.breaker.share = 10;
    fleet.watch(20, 5, 30, 900);
    let (_, starting, scopes) = fleet.decide(900);
    assert_eq!(
        (scopes.cluster().breaker, starting.len()),
        (BreakerState::Slow, 1)
    );
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
        let rules = Rules::default();
        let (_, _, scopes) = fleet.decide(second);
        let world = World {
            policies: &[],
            ..fleet.world(&rules)
        };
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

#[test]
fn h58_a_zone_that_loses_its_power_stops_itself_alone() {
    let mut fleet = Fleet::new(0, 0);
    fleet.limits.max_in_flight = 9;
    fleet.limits.breaker.nodes = 100;
    fleet.limits.breaker.share = 30;
    fleet.change = |node| {
        placed(node);
        let zone = node.labels[ZONE_LABEL].clone();
        let number: usize = node.name[1..].parse().unwrap();
        if (zone == "a" && number < 36) || number == 1 {
            node.conditions[0].status = "False".into();
        }
    };
    fleet.watch(100, 0, 0, 120);
    let (verdicts, admitted, scopes) = fleet.decide(120);
    let breaker = |scope: &Scope| scopes.census[scope].breaker;
    let storm = BreakerState::Open { storm_since: at(0) };
    assert_eq!(breaker(&Scope::Zone("a".into())), storm);
    assert_eq!(breaker(&Scope::Zone("b".into())), BreakerState::Closed);
    assert_eq!(breaker(&Scope::Cluster), BreakerState::Closed);
    assert_eq!(admitted, ["n001"]);
    let (reasons, over) = held(&verdicts, "n000");
    assert_eq!(reasons, [Reason::ZoneBreaker]);
    assert_eq!(over, ["zone/a"]);
    // It closes once fewer fell sick within the cooldown, and goes on slowly.
    let census = &scopes.census[&Scope::Zone("a".into())];
    assert_eq!((census.sick, census.limit), (18, 15));
    assert_eq!(census.until, Some(at(600)));
    fleet.watch(100, 0, 150, 630);
    let (_, admitted, scopes) = fleet.decide(630);
    let slow = scopes.census[&Scope::Zone("a".into())].breaker;
    assert_eq!(slow, BreakerState::Slow);
    assert_eq!(admitted, ["n000", "n001"]);
}

#[test]
fn h58_a_running_repair_pauses_for_the_storm_of_its_zone() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = placed;
    fleet.limits.breaker.min_nodes = 2;
    fleet.watch(12, 4, 0, 120);
    let (_, _, scopes) = fleet.decide(120);
    let rules = Rules::default();
    let mut running = repair("n000", 0, Phase::Draining);
    for (zone, expect) in [
        ("a", Some(Reason::ClusterBreaker)),
        ("", Some(Reason::ClusterBreaker)),
    ] {
        running.spec.zone = zone.into();
        let reason = pause_reason(None, &running, &fleet.world(&rules), &scopes, at(120));
        assert_eq!(reason, expect);
    }
    let mut calm = scopes.clone();
    calm.census.get_mut(&Scope::Cluster).unwrap().breaker = BreakerState::Closed;
    for (zone, expect) in [("a", Some(Reason::ZoneBreaker)), ("c", None)] {
        running.spec.zone = zone.into();
        let reason = pause_reason(None, &running, &fleet.world(&rules), &calm, at(120));
        assert_eq!(reason, expect);
    }
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

#[test]
fn a_budget_holds_what_would_exceed_it_and_names_itself() {
    let one_each = Budget {
        max_in_flight: Some(1),
        ..budget("zone", Per::Zone)
    };
    let mut fleet = budgeted(one_each);
    let (verdicts, admitted, _) = fleet.decide(120);
    assert_eq!(admitted, ["n000", "n001"]);
    let expect = (
        vec![Reason::Budget],
        vec!["budget/p/zone/zone/a".to_owned()],
    );
    assert_eq!(held(&verdicts, "n002"), expect);
    // A repair of another policy on one of its nodes counts.
    let mut other = repair("n050", 0, Phase::Draining);
    other.spec.policy = "other".into();
    other.spec.zone = "b".into();
    fleet.repairs.push(other);
    assert_eq!(fleet.decide(120).1, ["n000"]);
    // One that ended does not.
    fleet.repairs[0].status.as_mut().unwrap().phase = Phase::Succeeded;
    assert_eq!(fleet.decide(120).1, ["n000", "n001"]);
}

#[test]
fn h64_a_rate_counts_starts_within_its_window_also_those_whose_record_is_gone() {
    let hourly = Budget {
        max_repairs: Some((2, Span::minutes(60))),
        ..budget("hourly", Per::Cluster)
    };
    let mut fleet = budgeted(hourly);
    assert_eq!(fleet.decide(120).1.len(), 2);
    fleet.repairs.push(repair("n090", -3000, Phase::Succeeded));
    assert_eq!(fleet.decide(120).1.len(), 1);
    fleet.starts.push(Reservation {
        repair: "deleted".into(),
        node_uid: "x".into(),
        at: at(-60),
    });
    let rules = Rules::default();
    let world = fleet.world(&rules);
    let mut verdicts: Vec<Verdict> = fleet
        .evidence
        .nodes()
        .map(|node| judge(node, &world, at(120)))
        .collect();
    let scopes = survey(&verdicts, &world, at(120));
    let admission = admit(&mut verdicts, &scopes, &world, at(120));
    assert!(admission.admitted.is_empty());
    let [guard] = &admission.guards[..] else {
        panic!("one guard: {:?}", admission.guards);
    };
    assert_eq!((guard.limit, guard.current), (2, 2));
    assert_eq!(guard.until, Some(at(600)), "the oldest is an hour old then");
    fleet.watch(100, 4, 150, 600);
    assert_eq!(fleet.decide(600).1.len(), 1);
}

#[test]
fn h83_who_is_down_may_be_repaired_where_too_many_are_one_at_a_time() {
    let tenth = Budget {
        max_unavailable: Some(Amount::Percent(10)),
        ..budget("tenth", Per::Cluster)
    };
    let mut fleet = Fleet::new(0, 0);
    fleet.policies[0].budgets = vec![tenth];
    fleet.watch(10, 2, 0, 120);
    // Two of ten are down, one may be.
    assert_eq!(fleet.decide(120).1, ["n000"]);
    fleet.repairs.push(repair("n000", 100, Phase::Draining));
    let (verdicts, admitted, _) = fleet.decide(120);
    assert!(admitted.is_empty());
    assert_eq!(held(&verdicts, "n001").0, [Reason::Budget]);
    fleet.policies[0].budgets[0].max_unavailable = Some(Amount::Percent(0));
    fleet.repairs.clear();
    assert!(fleet.decide(120).1.is_empty(), "none is none");
}

/// Ten nodes of which n000 has a bad disk and is Ready all the same, where one of them may
/// be unavailable.
fn one_of_ten_may_be_down() -> Fleet {
    let mut fleet = Fleet::new(0, 0);
    let one = Budget {
        max_unavailable: Some(Amount::Count(1)),
        ..budget("one", Per::Cluster)
    };
    fleet.policies[0].budgets = vec![one];
    let wanted = crate::api::ConditionLeaf {
        type_: "Disk".into(),
        statuses: vec![ConditionStatus::True],
        reasons: vec![],
    };
    fleet.policies[0].faults[0].when.all[0].condition = Some(wanted);
    fleet.change = bad_disk;
    fleet.watch(10, 0, 0, 120);
    assert_eq!(fleet.decide(120).1, ["n000"]);
    fleet
}

fn bad_disk(node: &mut NodeView) {
    let status = if node.name == "n000" { "True" } else { "False" };
    node.conditions.push(Condition {
        type_: "Disk".into(),
        status: status.into(),
        reason: String::new(),
    });
}

/// The nodes and the unavailable ones that the only budget counts, and whether n000 starts.
fn counted(fleet: &Fleet, second: i64) -> (usize, usize, bool) {
    let (verdicts, admitted, scopes) = fleet.decide(second);
    let starts = admitted == ["n000"];
    if !starts {
        assert!(admitted.is_empty(), "{admitted:?}");
        assert_eq!(held(&verdicts, "n000").0, [Reason::Budget]);
    }
    let [tally] = &scopes.tallies.values().collect::<Vec<_>>()[..] else {
        panic!("one budget: {:?}", scopes.tallies);
    };
    (tally.nodes, tally.unavailable, starts)
}

#[test]
fn h64_a_node_under_repair_is_unavailable_before_its_cordon_shows() {
    let mut fleet = one_of_ten_may_be_down();
    fleet.repairs = vec![repair("n005", 100, Phase::Quarantined)];
    assert_eq!(counted(&fleet, 120), (10, 1, false));
    fleet.repairs = vec![repair("n005", 100, Phase::Aborted)];
    assert_eq!(counted(&fleet, 120), (10, 0, true));
    // It is sick for its disk, also while nobody can tell.
    let (rules, node) = (Rules::default(), fleet.evidence.node("n000").unwrap());
    let blind = judge(node, &fleet.world(&rules), at(300));
    let found = (blind.kind, blind.sick_since);
    assert_eq!(found, (VerdictKind::Unknown, Some(at(0))));
    // One whose record may yet appear too, but none whose record was deleted.
    fleet.repairs.clear();
    let start = Reservation {
        repair: "r".into(),
        node_uid: "n005".into(),
        at: at(100),
    };
    fleet.starts = vec![start.clone()];
    assert_eq!(counted(&fleet, 120), (10, 0, true));
    (fleet.starts, fleet.reserved) = (vec![], vec![start]);
    assert_eq!(counted(&fleet, 120), (10, 1, false));
    // So is the first of two that would start at once.
    let mut fleet = one_of_ten_may_be_down();
    fleet.change = |node| {
        bad_disk(node);
        if node.name == "n001" {
            node.conditions[1].status = "True".into();
        }
    };
    fleet.watch(10, 0, 150, 300);
    assert_eq!(fleet.decide(300).1, ["n000"]);
    // As of two that would, were they not only observed.
    fleet.policies[0].mode = Mode::Observe;
    fleet.policies[0].ready_timeout = Span::minutes(15);
    assert_eq!(fleet.would_start(300), ["n000"]);
    assert_eq!(fleet.would_start(330), Vec::<String>::new());
}

#[test]
fn h65_a_node_that_is_up_is_not_taken_where_others_are_down() {
    type Change = fn(&mut NodeView);
    fn of_four(node: &NodeView) -> bool {
        ["n006", "n007", "n008", "n009"].contains(&node.name.as_str())
    }
    let by_others: [Change; 4] = [
        // Somebody drains nodes for an upgrade.
        |node| node.unschedulable = of_four(node),
        |node| node.deleting = of_four(node),
        |node| {
            if of_four(node) {
                node.taints.push("karpenter.sh/disrupted".into());
            }
        },
        |node| {
            if of_four(node) {
                node.taints.push("ToBeDeletedByClusterAutoscaler".into());
                (node.unschedulable, node.deleting) = (true, true);
            }
        },
    ];
    for change in by_others {
        let mut fleet = one_of_ten_may_be_down();
        fleet.change = bad_disk;
        let mut nodes: Vec<NodeView> = fleet.evidence.nodes().cloned().collect();
        nodes.iter_mut().for_each(change);
        fleet.evidence.fold(Input::Nodes(nodes), at(150));
        assert_eq!(counted(&fleet, 150), (10, 4, false));
        // Breakers leave those alone that others take away.
        let (_, _, scopes) = fleet.decide(150);
        assert_eq!(scopes.cluster().sick, 1);
        // They are gone, and were never sick.
        fleet.see(6, 0, 180);
        assert_eq!(counted(&fleet, 180), (6, 0, true));
    }
}

#[test]
fn h65_a_node_that_was_lost_without_a_repair_is_unavailable_for_the_cooldown() {
    let mut fleet = one_of_ten_may_be_down();
    fleet.see(9, 0, 150);
    assert_eq!(counted(&fleet, 150), (9, 0, true));
    let lost = Fallen {
        uid: "n009".into(),
        place: Place::default(),
        policy: "p".into(),
        since: at(130),
        sick: true,
        gone: Some(at(140)),
    };
    fleet.fallen = vec![lost];
    assert_eq!(counted(&fleet, 150), (10, 1, false));
    // Its repair counts it once.
    fleet.repairs = vec![repair("n009", 140, Phase::Aborted)];
    assert_eq!(counted(&fleet, 150), (10, 1, false));
    fleet.repairs.clear();
    // Who is back, or was another policy's, does not count.
    fleet.see(10, 0, 180);
    assert_eq!(counted(&fleet, 180), (10, 0, true));
    fleet.see(9, 0, 210);
    fleet.fallen[0].policy = "q".into();
    assert_eq!(counted(&fleet, 210), (9, 0, true));
    fleet.fallen[0].policy = "p".into();
    fleet.watch(9, 0, 240, 740);
    fleet.see(9, 0, 740);
    assert_eq!(counted(&fleet, 740), (10, 1, false));
    fleet.see(9, 0, 741);
    assert_eq!(counted(&fleet, 741), (9, 0, true));
}

#[test]
fn h82_nodes_that_never_were_ready_are_nothing_that_a_budget_could_miss() {
    let mut fleet = one_of_ten_may_be_down();
    fleet.change = |node| {
        bad_disk(node);
        let number: usize = node.name[1..].parse().unwrap();
        if number >= 10 {
            (node.created, node.conditions[0].status) = (at(140), "False".into());
            node.deleting = number == 10;
        }
    };
    fleet.see(40, 0, 150);
    assert_eq!(counted(&fleet, 150), (10, 0, true));
}

#[test]
fn an_admission_whose_record_may_yet_appear_is_in_flight() {
    let zone = Budget {
        max_in_flight: Some(1),
        ..budget("zone", Per::Zone)
    };
    let mut fleet = budgeted(zone);
    assert_eq!(fleet.decide(120).1, ["n000", "n001"]);
    // Of a node in zone a, whatever became of its fault.
    fleet.reserved = vec![Reservation {
        repair: "to-come".into(),
        node_uid: "n050".into(),
        at: at(110),
    }];
    let (verdicts, admitted, scopes) = fleet.decide(120);
    assert_eq!(admitted, ["n001"]);
    assert_eq!(held(&verdicts, "n000").0, [Reason::Budget]);
    assert_eq!(scopes.cluster().in_flight, 1);
    assert_eq!(scopes.starts.len(), 0, "no rate is configured");
    fleet.limits.max_in_flight = 1;
    fleet.limits.max_repairs = vec![(1, Span::minutes(60))];
    let (verdicts, admitted, _) = fleet.decide(120);
    assert!(admitted.is_empty());
    let both = [Reason::InFlight, Reason::RateLimit];
    assert_eq!(held(&verdicts, "n001").0, both);
    fleet.limits = Limits::default();
    // The node is gone: it may have been anywhere.
    fleet.reserved[0].node_uid = "gone".into();
    let (_, admitted, scopes) = fleet.decide(120);
    assert!(admitted.is_empty());
    assert_eq!(scopes.cluster().in_flight, 1);
    // It counts where its node is.
    let mut fleet = Fleet::new(0, 0);
    fleet.change = placed;
    fleet.watch(10, 0, 0, 30);
    fleet.reserved = vec![Reservation {
        repair: "r".into(),
        node_uid: "n001".into(),
        at: at(0),
    }];
    let census = fleet.decide(30).2.census;
    let running = ["a", "b"].map(|zone| census[&Scope::Zone(zone.into())].in_flight);
    assert_eq!(running, [0, 1]);
}

#[test]
fn h64_where_no_more_starts_can_be_remembered_nothing_starts() {
    let mut fleet = Fleet::new(100, 4);
    fleet.limits.max_in_flight = 99;
    fleet.limits.max_repairs = vec![(1_000_000, Span::minutes(60))];
    fleet.policies[0].budgets = vec![Budget {
        max_repairs: Some((1_000_000, Span::minutes(120))),
        ..budget("long", Per::Cluster)
    }];
    fleet.watch(100, 4, 30, 120);
    let start = |number: usize| Reservation {
        repair: format!("deleted-{number}"),
        node_uid: "x".into(),
        at: at(-600),
    };
    fleet.starts = (0..crate::api::MAX_STARTS - 3).map(start).collect();
    assert_eq!(fleet.decide(120).1, ["n000", "n001", "n002"]);
    fleet.starts.push(start(4000));
    fleet.starts.push(start(4001));
    fleet.starts.push(start(4002));
    let rules = Rules::default();
    let mut verdicts = judge_all(&fleet.world(&rules), at(120));
    let scopes = survey(&verdicts, &fleet.world(&rules), at(120));
    let admission = admit(&mut verdicts, &scopes, &fleet.world(&rules), at(120));
    assert!(admission.admitted.is_empty());
    let [guard] = &admission.guards[..] else {
        panic!("one guard: {:?}", admission.guards);
    };
    let found = (
        guard.scope.as_str(),
        guard.reason,
        guard.current,
        guard.until,
    );
    let until = Some(at(-600 + 7200));
    assert_eq!(found, ("fleet/starts", Reason::RateLimit, 1000, until));
}

#[test]
fn starts_are_remembered_for_the_longest_window_of_limits_and_policies() {
    let mut fleet = Fleet::new(1, 0);
    let check = |fleet: &Fleet, minutes: u32| {
        let found = memory(&fleet.limits, &fleet.policies);
        assert_eq!(found, Span::minutes(minutes));
    };
    fleet.limits.max_repairs = vec![(1, Span::minutes(10))];
    // A day at least: a policy may be refused for a while.
    check(&fleet, 24 * 60);
    fleet.limits.max_repairs = vec![(1, Span::minutes(2000)), (1, Span::minutes(10))];
    check(&fleet, 2000);
    fleet.policies[0].budgets = vec![
        budget("other", Per::Zone),
        Budget {
            max_repairs: Some((10, Span::minutes(7 * 24 * 60))),
            ..budget("weekly", Per::Pool)
        },
    ];
    check(&fleet, 7 * 24 * 60);
}

#[test]
fn h61_percentages_round_down_but_not_to_none() {
    for (text, total, expect) in [
        ("10%", 1, 1),
        ("10%", 3, 1),
        ("10%", 19, 1),
        ("10%", 20, 2),
        ("0%", 100, 0),
        ("0", 100, 0),
        ("2", 1, 2),
        ("100%", 7, 7),
    ] {
        let amount: Amount = text.parse().unwrap();
        assert_eq!(amount.of(total), expect, "{text} of {total}");
    }
    for text in ["", "%", "101%", "-1", "1.5", "10 %"] {
        assert!(text.parse::<Amount>().is_err(), "{text}");
    }
}

#[test]
fn h61_the_control_plane_is_repaired_only_if_its_policy_says_so() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| {
        let label = (
            "node-role.kubernetes.io/control-plane".into(),
            String::new(),
        );
        node.labels = [label].into();
    };
    fleet.watch(10, 1, 0, 120);
    assert_eq!(fleet.first(120).0, VerdictKind::Ignored);
    fleet.policies[0].control_plane = true;
    assert_eq!(fleet.first(120).0, VerdictKind::Due);
}

#[test]
fn windows_hold_what_is_not_critical() {
    let mut fleet = Fleet::new(0, 0);
    let yearly = Window::new("0 0 1 JAN * UTC", Span::minutes(60)).unwrap();
    fleet.policies[0].windows = vec![yearly];
    fleet.watch(10, 1, 0, 120);
    let (verdicts, admitted, _) = fleet.decide(120);
    assert!(admitted.is_empty());
    let expect = (vec![Reason::OutsideWindow], vec!["window/p".to_owned()]);
    assert_eq!(held(&verdicts, "n000"), expect);
    fleet.policies[0].faults[0].severity = Severity::Critical;
    assert_eq!(fleet.decide(120).1, ["n000"]);
    fleet.policies[0].faults[0].severity = Severity::Warning;
    let always = Window::new("* * * * * UTC", Span::minutes(5)).unwrap();
    fleet.policies[0].windows.push(always);
    assert_eq!(fleet.decide(120).1, ["n000"]);
}

#[test]
fn approval_is_waited_for_and_is_of_one_action_and_one_repair() {
    let mut fleet = Fleet::new(0, 0);
    fleet.policies = vec![policy("p", Mode::Approve, 0)];
    fleet.policies[0].faults[0].actions = vec![Action::Reboot, Action::Replace];
    fleet.watch(10, 1, 0, 60);
    let waiting = (VerdictKind::Held, vec![Reason::AwaitingApproval]);
    assert_eq!(fleet.first(60), waiting);
    let approve = |fleet: &mut Fleet, text: &str| {
        let mut nodes: Vec<NodeView> = fleet.evidence.nodes().cloned().collect();
        let note = (APPROVED_ANNOTATION.to_owned(), text.to_owned());
        nodes[0].annotations = [note].into();
        fleet.evidence.fold(Input::Nodes(nodes), at(60));
    };
    let text = |action: &str, fault: &str, second: i64| {
        serde_json::json!({
            "uid": "n000", "policy": "p", "fault": fault, "action": action,
            "at": at(50), "until": at(second), "by": "eve",
        })
        .to_string()
    };
    for (text, approved) in [
        (text("Reboot", "NotReady", 61), true),
        (text("Reboot", "NotReady", 60), false),
        (text("Replace", "NotReady", 61), false),
        (text("Reboot", "Other", 61), false),
        (at(61).to_string(), false),
        ("yes".into(), false),
    ] {
        approve(&mut fleet, &text);
        let is_due = fleet.first(60).0 == VerdictKind::Due;
        assert_eq!(is_due, approved, "{text}");
    }
    // The next rung is another action, and even the same one would be another repair.
    approve(&mut fleet, &text("Reboot", "NotReady", 3600));
    let (verdicts, _, _) = fleet.decide(60);
    let approval = verdicts[0].approval().cloned();
    assert_eq!(approval.as_ref().map(|one| one.by.as_str()), Some("eve"));
    fleet.policies[0].mode = Mode::Enforce;
    assert_eq!(fleet.decide(60).0[0].approval(), None, "nobody asks for it");
    fleet.policies[0].mode = Mode::Approve;
    let mut made = repair("n000", 55, Phase::Aborted);
    made.spec.approval = approval;
    fleet.repairs = vec![made];
    assert_eq!(fleet.first(60), waiting);
    fleet.repairs[0].spec.approval = None;
    assert_eq!(fleet.first(60).0, VerdictKind::Due);
    // That its record is deleted makes it no less used; an earlier one was another's.
    fleet.repairs.clear();
    for (start, is_left) in [(49, true), (50, false), (55, false)] {
        let start = Reservation {
            repair: "deleted".into(),
            node_uid: "n000".into(),
            at: at(start),
        };
        fleet.starts = vec![start];
        let (rules, node) = (Rules::default(), fleet.evidence.node("n000").unwrap());
        let found = approval::approval(node, &fleet.world(&rules), at(60));
        assert_eq!(found.is_some(), is_left, "{:?}", fleet.starts);
    }
    fleet.starts.clear();
    let (rules, node) = (Rules::default(), fleet.evidence.node("n000").unwrap());
    let held = |second| approval::approval(node, &fleet.world(&rules), at(second));
    assert!(held(3599).is_some() && held(3600).is_none());
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

fn confirm() -> Confirm {
    Confirm {
        port: 9100,
        path: "/metrics".into(),
        metric: "m".into(),
        above: 0.0,
        on_unreachable: crate::api::OnUnreachable::Unknown,
    }
}

/// Whom a pass asks, of the first so many that are sick.
fn asked_of(fleet: &Fleet, second: i64) -> Vec<String> {
    let rules = Rules::default();
    let world = fleet.world(&rules);
    let verdicts = judge_all(&world, at(second));
    let scopes = survey(&verdicts, &world, at(second));
    let questions = to_probe(&verdicts, &scopes, &world, at(second));
    questions.into_iter().map(|(uid, _)| uid).collect()
}

#[test]
fn an_unconfirmed_fault_is_asked_about_also_where_another_is_due() {
    use crate::evidence::probe::Reading;

    let mut fleet = Fleet::new(20, 0);
    let mut severe = fleet.policies[0].faults[0].clone();
    (severe.name, severe.severity) = ("Dead".into(), Severity::Critical);
    severe.confirm = Some(confirm());
    fleet.policies[0].faults.push(severe);
    fleet.watch(20, 1, 0, 60);
    let leading = |fleet: &Fleet| fleet.decide(60).0[0].fault.clone();
    assert_eq!(leading(&fleet), "NotReady");
    assert_eq!(fleet.decide(60).1, ["n000"]);
    assert_eq!(asked_of(&fleet, 60), ["n000"]);
    let mut told = |reading: Reading| {
        let probe = Input::Probe {
            uid: "n000".into(),
            confirm: confirm(),
            reading,
        };
        fleet.evidence.fold(probe, at(60));
        assert_eq!(asked_of(&fleet, 60), Vec::<String>::new(), "asked already");
        leading(&fleet)
    };
    assert_eq!(told(Reading::Unreachable(String::new())), "NotReady");
    assert_eq!(told(Reading::Samples(vec![0.0])), "NotReady");
    assert_eq!(told(Reading::Samples(vec![1.0])), "Dead");
    // That another fault could be asked about is no reason to ask anew about this one.
    fleet.policies[0].faults[0].confirm = Some(Confirm {
        port: 9101,
        ..confirm()
    });
    assert_eq!(asked_of(&fleet, 60), Vec::<String>::new());
    // What would not lead is not asked about.
    let mut fleet = Fleet::new(20, 0);
    let mut mild = fleet.policies[0].faults[0].clone();
    mild.name = "Then".into();
    mild.confirm = Some(confirm());
    fleet.policies[0].faults.push(mild);
    fleet.watch(20, 1, 0, 60);
    assert_eq!(asked_of(&fleet, 60), Vec::<String>::new());
}

#[test]
fn exporters_of_observed_nodes_are_asked_after_those_of_others() {
    let mut fleet = half_observed(100, |number| number == 10 || number > 97);
    for policy in &mut fleet.policies {
        policy.faults[0].confirm = Some(confirm());
    }
    let expect = vec![Reason::ObserveMode, Reason::Unconfirmed];
    assert_eq!(held(&fleet.decide(120).0, "n098").0, expect);
    // Two may run: no third is asked.
    assert_eq!(asked_of(&fleet, 120), ["n010", "n098"]);
    assert_eq!(fleet.would_start(120), Vec::<String>::new());
    let probe = Input::Probe {
        uid: "n098".into(),
        confirm: confirm(),
        reading: crate::evidence::probe::Reading::Samples(vec![1.0]),
    };
    fleet.evidence.fold(probe, at(120));
    assert_eq!(fleet.would_start(120), ["n098"]);
}

#[test]
fn young_nodes_and_those_that_others_take_are_left_alone() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| node.created = at(-500);
    fleet.see(10, 0, -60);
    fleet.watch(10, 1, 0, 60);
    assert_eq!(fleet.first(60), (VerdictKind::Held, vec![Reason::TooYoung]));
    fleet.watch(10, 1, 90, 120);
    assert_eq!(fleet.first(120).0, VerdictKind::Due);
    for taint in [
        "ToBeDeletedByClusterAutoscaler",
        "karpenter.sh/disrupted",
        "aws-node-termination-handler/spot-itn",
    ] {
        let mut nodes: Vec<NodeView> = fleet.evidence.nodes().cloned().collect();
        nodes[0].taints = vec![taint.into()];
        fleet.evidence.fold(Input::Nodes(nodes), at(120));
        let expect = (VerdictKind::Held, vec![Reason::OtherActor]);
        assert_eq!(fleet.first(120), expect, "{taint}");
        assert_eq!(fleet.decide(120).2.cluster().sick, 0, "it counts nowhere");
    }
}

#[test]
fn h82_nodes_that_never_were_ready_are_left_alone_until_their_grace_ends() {
    for (age, grace, expect) in [
        (10, 15, Some(at(900))),
        // The longer of both counts.
        (20, 15, Some(at(1200))),
        (10, 0, Some(at(600))),
    ] {
        let mut fleet = Fleet::new(0, 0);
        fleet.limits.min_node_age = Span::minutes(age);
        fleet.limits.startup_grace = Span::minutes(grace);
        fleet.change = |node| node.created = at(0);
        let mut due = None;
        for second in (30..1500).step_by(30) {
            fleet.see(10, 1, second);
            match fleet.first(second) {
                (VerdictKind::Due, _) => due = due.or(Some(at(second))),
                found if second > 90 => {
                    assert_eq!(found, (VerdictKind::Held, vec![Reason::TooYoung]));
                }
                _ => {}
            }
        }
        assert_eq!(due, expect, "{age} and {grace} minutes");
    }
}

#[test]
fn h82_nodes_that_never_were_ready_open_no_breaker_and_do_not_dilute_it() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| {
        let number: usize = node.name[1..].parse().unwrap();
        if number >= 20 {
            (node.created, node.conditions[0].status) = (at(0), "False".into());
        }
    };
    fleet.watch(220, 1, 0, 120);
    let (_, admitted, scopes) = fleet.decide(120);
    let census = scopes.cluster();
    assert_eq!((census.nodes, census.sick), (20, 1));
    assert_eq!(admitted, ["n000"]);
    // Past their grace they are sick like any other.
    fleet.watch(220, 1, 150, 930);
    let census = fleet.decide(930).2.cluster().clone();
    assert_eq!((census.nodes, census.sick), (220, 201));
    // One that was Ready is sick at once, however young.
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| node.created = at(-60);
    fleet.see(20, 0, 0);
    fleet.see(20, 3, 30);
    assert_eq!(fleet.decide(30).2.cluster().sick, 3);
}

#[test]
fn h82_a_new_leader_knows_who_was_ready_and_who_was_sick() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| node.created = at(-60);
    let joined = vec!["n000".to_owned(), "n001".to_owned()];
    let suspended = Vec::new();
    fleet.evidence.fold(Input::Led { joined, suspended }, at(0));
    let (uid, since) = ("n002".to_owned(), Some(at(-900)));
    fleet.evidence.fold(Input::FellSick { uid, since }, at(0));
    fleet.watch(20, 4, 0, 120);
    let (verdicts, _, scopes) = fleet.decide(120);
    let sick: Vec<bool> = verdicts
        .iter()
        .map(|one| one.sick_since.is_some())
        .collect();
    // The fourth starts still.
    assert_eq!(sick[..5], [true, true, true, false, false]);
    assert_eq!((scopes.cluster().sick, scopes.cluster().nodes), (3, 19));
    assert!(verdicts[2].sick_since < Some(at(-840)));
    let grace = fleet.limits.startup_grace;
    let joined: Vec<&str> = fleet.evidence.joined(grace, at(120)).collect();
    assert_eq!((joined.len(), joined.contains(&"n003")), (19, false));
    assert_eq!(fleet.evidence.joined(grace, at(840)).count(), 0);
}

#[test]
fn h82_a_fleet_that_shrinks_takes_its_limit_along() {
    let mut fleet = Fleet::new(0, 0);
    fleet.limits.breaker.nodes = 1000;
    fleet.see(1000, 0, 0);
    assert_eq!(fleet.decide(0).2.cluster().limit, 200);
    fleet.see(100, 0, 30);
    assert_eq!(fleet.decide(30).2.cluster().limit, 20);
}

#[test]
fn nodes_that_were_lost_while_sick_are_remembered_for_the_cooldown() {
    let mut fleet = Fleet::new(0, 0);
    fleet.watch(20, 1, 0, 120);
    assert_eq!(fleet.decide(120).1.len(), 1);
    let lost = |number: usize| Fallen {
        uid: format!("lost-{number}"),
        place: Place::default(),
        policy: "p".into(),
        since: at(60),
        sick: true,
        gone: Some(at(90)),
    };
    fleet.fallen = (0..4).map(lost).collect();
    let (_, admitted, scopes) = fleet.decide(120);
    assert_eq!((scopes.cluster().nodes, scopes.cluster().recent), (24, 5));
    assert!(admitted.is_empty());
    fleet.watch(20, 1, 150, 720);
    assert_eq!(fleet.decide(720).1.len(), 1);
}

#[test]
fn h59_nodes_that_recovered_still_fell_sick_within_the_cooldown() {
    let mut fleet = Fleet::new(0, 0);
    fleet.watch(20, 1, 0, 120);
    let recovered = |number: usize| Fallen {
        uid: format!("n{number:03}"),
        place: Place::default(),
        policy: "p".into(),
        since: at(60),
        sick: false,
        gone: None,
    };
    // Of twenty nodes four may be sick; n000 still is, and counts once.
    fleet.fallen = (0..4).map(recovered).collect();
    assert_eq!(fleet.decide(120).1.len(), 1);
    fleet.fallen.push(recovered(4));
    let (_, admitted, scopes) = fleet.decide(120);
    assert_eq!((scopes.cluster().sick, scopes.cluster().recent), (1, 5));
    assert!(admitted.is_empty());
    assert_eq!(scopes.cluster().until, Some(at(600)));
    fleet.watch(20, 1, 150, 690);
    assert_eq!(fleet.decide(690).1.len(), 1);
}

impl Fleet {
    /// What is heard at this second of so many nodes, of which those are down.
    fn hear(&mut self, total: usize, second: i64, down: impl Fn(usize) -> bool) {
        let nodes = (0..total).map(|index| node(&format!("n{index:03}"), !down(index)));
        self.evidence
            .fold(Input::Nodes(nodes.collect()), at(second));
        self.evidence
            .settle(&Rules::default(), &self.policies, at(second));
    }
}

#[test]
fn h58_a_cluster_that_is_wholly_dead_stays_held_however_long() {
    // Also who was down long before the others.
    for others in [0, 600] {
        let mut fleet = Fleet::new(0, 0);
        for second in (0..=3600).step_by(60) {
            fleet.hear(20, second, |index| index == 0 || second >= others);
            if second < others + 60 {
                continue;
            }
            let (verdicts, admitted, scopes) = fleet.decide(second);
            assert_eq!(admitted, Vec::<String>::new(), "at {second}");
            assert_eq!(verdicts[0].reasons, [Reason::ClusterBreaker]);
            let running = repair("n000", 0, Phase::Draining);
            let rules = Rules::default();
            let world = fleet.world(&rules);
            let paused = pause_reason(None, &running, &world, &scopes, at(second));
            assert_eq!(paused, Some(Reason::ClusterBreaker), "at {second}");
        }
    }
}

/// Of 200 nodes, of which 20 may be sick, three fall every minute.
#[test]
fn h58_a_storm_that_rolls_on_began_with_its_first_node() {
    let fell = |index: usize| match index {
        // Down since long before.
        199 => -7200,
        _ => 20 * i64::try_from(index).unwrap(),
    };
    let mut fleet = Fleet::new(0, 0);
    for second in (-7200..=2400).step_by(60) {
        fleet.hear(200, second, |index| fell(index) <= second);
        let (_, admitted, scopes) = fleet.decide(second);
        if second < 600 {
            continue;
        }
        let storm = BreakerState::Open { storm_since: at(0) };
        assert_eq!(scopes.cluster().breaker, storm, "at {second}");
        assert_eq!(admitted, ["n199"], "at {second}");
    }
}

/// Those who fell early in the storm are well again, or gone.
#[test]
fn h58_a_storm_that_rolls_on_began_with_its_first_node_whatever_became_of_it() {
    let fallen = |number: usize, gone: Option<Timestamp>| Fallen {
        uid: format!("{}{number:03}", if gone.is_some() { "gone" } else { "n" }),
        place: Place::default(),
        policy: String::new(),
        since: at(20 * i64::try_from(number).unwrap()),
        sick: gone.is_some(),
        gone,
    };
    let mut fleet = Fleet::new(0, 0);
    let sick = |index: usize| index == 0 || (90..120).contains(&index);
    for second in (0..=2400).step_by(60) {
        let fell = |index: usize| 20 * i64::try_from(index).unwrap();
        fleet.hear(200, second, |index| sick(index) && fell(index) <= second);
    }
    let since = |fleet: &Fleet| match fleet.decide(2400).2.cluster().breaker {
        BreakerState::Open { storm_since } => Some(storm_since),
        _ => None,
    };
    // Nothing is known of them: it began with those that are.
    assert_eq!(since(&fleet), Some(at(1800)));
    fleet.fallen = (1..45).map(|number| fallen(number, None)).collect();
    let gone = (45..90).map(|number| fallen(number, Some(at(1000))));
    fleet.fallen.extend(gone);
    assert_eq!(since(&fleet), Some(at(0)));
    assert_eq!(fleet.decide(2400).1, Vec::<String>::new());
    // It counted for as long as it fell, and it does not keep the breaker open.
    assert_eq!(fleet.decide(2400).2.cluster().recent, 30);
}

/// Nobody knows since when a node is sick while its source is down; its record does.
#[test]
fn h83_a_breaker_does_not_stay_open_on_nodes_that_went_blind() {
    let mut fleet = Fleet::new(0, 0);
    let rules = Rules::default();
    let mut sick: Vec<Verdict> = Vec::new();
    fleet.hear(40, 600, |_| false);
    for node in fleet.evidence.nodes() {
        let mut verdict = judge(node, &fleet.world(&rules), at(600));
        verdict.sick_since = (sick.len() < 9).then(|| at(360));
        sick.push(verdict);
    }
    let known = |number: usize| Fallen {
        uid: format!("n{number:03}"),
        place: Place::default(),
        policy: String::new(),
        since: at(-3600),
        sick: true,
        gone: None,
    };
    let breaker = |fleet: &Fleet| {
        let scopes = survey(&sick, &fleet.world(&rules), at(600));
        (scopes.cluster().breaker, scopes.cluster().recent)
    };
    let storm = BreakerState::Open {
        storm_since: at(360),
    };
    assert_eq!(breaker(&fleet), (storm, 9));
    fleet.fallen = (0..9).map(known).collect();
    assert_eq!(breaker(&fleet), (BreakerState::Slow, 0));
    // A record of an earlier time, after which it was well, says nothing of this one.
    for fallen in &mut fleet.fallen {
        fallen.sick = false;
    }
    assert_eq!(breaker(&fleet), (storm, 9));
}

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

fn in_pool_x(node: &mut NodeView) {
    node.labels = [("karpenter.sh/nodepool".to_owned(), "x".to_owned())].into();
}

/// Two of the pool are cordoned still.
fn quarantined_in_pool_x(node: &mut NodeView) {
    in_pool_x(node);
    node.unschedulable = ["n010", "n011"].contains(&node.name.as_str());
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
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| node.conditions[0].status = "Unknown".into();
    fleet.see(200, 0, 0);
    let begun: Vec<String> = (150..182).map(|number| format!("n{number}")).collect();
    for uid in begun.clone() {
        let lease = Input::Lease {
            uid,
            renewed: Ok(None),
        };
        fleet.evidence.fold(lease, at(0));
    }
    fleet.see(200, 0, 10);
    assert_eq!(to_be_read(&fleet, 10), begun);
}

#[test]
fn an_opt_out_holds_until_its_time_and_for_ever_if_that_cannot_be_read() {
    for (text, expect) in [
        ("true", true),
        ("soon", true),
        ("false", false),
        ("", false),
        ("1970-01-12T13:47:41Z", true),
        ("1970-01-12T13:47:40Z", false),
    ] {
        let mut node = node("n", true);
        node.annotations = [(DO_NOT_REPAIR_ANNOTATION.to_owned(), text.to_owned())].into();
        // 1,000,060 seconds after 1970 began.
        assert_eq!(opted_out(&node, at(60)), expect, "{text}");
    }
    assert!(!opted_out(&node("n", true), at(60)));
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| {
        let until = if node.name == "n000" { 60 } else { 61 };
        let note = (DO_NOT_REPAIR_ANNOTATION.to_owned(), at(until).to_string());
        node.annotations = [note].into();
    };
    fleet.watch(20, 2, 0, 60);
    let (verdicts, admitted, _) = fleet.decide(60);
    assert_eq!(admitted, ["n000"]);
    assert_eq!(held(&verdicts, "n001").0, [Reason::OptedOut]);
}

/// Which nodes are asked for a second opinion.
fn to_be_probed(fleet: &Fleet, second: i64) -> Vec<String> {
    let (verdicts, _, scopes) = fleet.decide(second);
    let rules = Rules::default();
    let asked = to_probe(&verdicts, &scopes, &fleet.world(&rules), at(second));
    asked.into_iter().map(|(uid, _)| uid).collect()
}

#[test]
fn who_would_start_if_its_exporter_confirmed_is_asked_once_a_minute() {
    let confirm = Confirm {
        port: 9100,
        path: "/metrics".into(),
        metric: "m".into(),
        above: 0.0,
        on_unreachable: OnUnreachable::Unknown,
    };
    let mut fleet = Fleet::new(100, 4);
    fleet.watch(100, 4, 30, 60);
    assert!(to_be_probed(&fleet, 60).is_empty(), "nobody wants to know");
    fleet.policies[0].faults[0].confirm = Some(confirm.clone());
    assert!(to_be_probed(&fleet, 59).is_empty(), "none is due");
    let unconfirmed = (VerdictKind::Held, vec![Reason::Unconfirmed]);
    assert_eq!(fleet.first(60), unconfirmed);
    // Two may run at once.
    assert_eq!(to_be_probed(&fleet, 60), ["n000", "n001"]);
    let says = |fleet: &mut Fleet, node: &str, reading: Reading| {
        let input = Input::Probe {
            uid: node.into(),
            confirm: confirm.clone(),
            reading,
        };
        fleet.evidence.fold(input, at(60));
    };
    says(&mut fleet, "n000", Reading::Samples(vec![1.0]));
    assert_eq!(fleet.decide(60).1, ["n000"]);
    assert_eq!(to_be_probed(&fleet, 60), ["n001"]);
    says(&mut fleet, "n001", Reading::Samples(vec![0.0]));
    assert_eq!(held(&fleet.decide(60).0, "n001").0, [Reason::Refuted]);
    assert_eq!(to_be_probed(&fleet, 60), ["n002"]);
    says(&mut fleet, "n002", Reading::Unusable("bent".into()));
    assert_eq!(held(&fleet.decide(60).0, "n002").0, [Reason::Unconfirmed]);
    assert_eq!(to_be_probed(&fleet, 120), ["n003"]);
    assert_eq!(to_be_probed(&fleet, 121), ["n000", "n001"]);
    // What else holds a node spares it the question.
    fleet.pauses = vec![Pause {
        selector: NodeSelector::default(),
        policy: None,
        until: None,
    }];
    assert!(to_be_probed(&fleet, 121).is_empty());
}

#[test]
fn few_are_asked_in_one_pass() {
    let mut fleet = Fleet::new(100, 6);
    fleet.limits.max_in_flight = 9;
    fleet.policies[0].faults[0].confirm = Some(Confirm {
        port: 9100,
        path: "/metrics".into(),
        metric: "m".into(),
        above: 0.0,
        on_unreachable: OnUnreachable::Unknown,
    });
    fleet.watch(100, 6, 30, 60);
    let asked = to_be_probed(&fleet, 60);
    assert_eq!(asked, ["n000", "n001", "n002", "n003"]);
}

#[test]
fn the_limit_of_a_breaker_is_a_share_or_a_number_and_leaves_room_for_a_few() {
    for (nodes, expect) in [(5, 2), (14, 2), (15, 3), (99, 19), (100, 20), (150, 20)] {
        let limit = Fleet::new(nodes, 0).decide(0).2.cluster().limit;
        assert_eq!(limit, expect, "of {nodes} nodes");
    }
    // None of none is not all of them.
    let mut none = Fleet::new(0, 0);
    none.limits.breaker.min_nodes = 0;
    let breaker = none.decide(0).2.cluster().breaker;
    assert_eq!(breaker, BreakerState::Closed);
}

#[test]
fn h58_a_fault_that_is_older_than_the_storm_is_repaired_alone() {
    // Until the cooldown after it fell sick, n000 is of the storm itself.
    for (storm, since, expect) in [
        (600, 0, &[][..]),
        (601, 601, &["n000"]),
        (900, 900, &["n000"]),
    ] {
        let mut fleet = Fleet::new(40, 1);
        fleet.watch(40, 1, 30, storm - 30);
        fleet.watch(40, 12, storm, storm + 90);
        let now = storm + 90;
        let (verdicts, admitted, scopes) = fleet.decide(now);
        let storm_since = at(since);
        let open = BreakerState::Open { storm_since };
        assert_eq!(scopes.cluster().breaker, open);
        assert_eq!(admitted, expect, "a storm since {storm}");
        assert_eq!(held(&verdicts, "n001").0, [Reason::ClusterBreaker]);
        fleet.repairs = vec![repair("n001", storm, Phase::Draining)];
        assert!(fleet.decide(now).1.is_empty(), "one at a time");
    }
}

#[test]
fn h58_a_running_repair_goes_on_if_its_fault_is_older_than_the_storm() {
    let mut fleet = Fleet::new(20, 0);
    fleet.limits.breaker.share = 10;
    fleet.watch(20, 5, 30, 120);
    let (_, _, scopes) = fleet.decide(120);
    let rules = Rules::default();
    for (since, expect) in [(-570, None), (-569, Some(Reason::ClusterBreaker))] {
        let running = repair("n000", since, Phase::Draining);
        let found = pause_reason(None, &running, &fleet.world(&rules), &scopes, at(120));
        assert_eq!(found, expect, "a fault since {since}");
    }
}

#[test]
fn h83_where_too_many_are_down_the_next_waits_for_the_repair_that_runs() {
    let mut fleet = Fleet::new(20, 0);
    fleet.limits.breaker.share = 10;
    fleet.watch(20, 5, 30, 900);
    fleet.repairs = vec![repair("n004", 890, Phase::Draining)];
    let (verdicts, admitted, scopes) = fleet.decide(900);
    assert_eq!(scopes.cluster().breaker, BreakerState::Slow);
    assert!(admitted.is_empty());
    assert_eq!(held(&verdicts, "n000").0, [Reason::ClusterBreaker]);
    // Not how many are sick, but how many run.
    let rules = Rules::default();
    let world = fleet.world(&rules);
    let guards = admit(&mut judge_all(&world, at(900)), &scopes, &world, at(900)).guards;
    let of_cluster = guards.iter().find(|guard| guard.scope == "cluster");
    let numbers = of_cluster.map(|guard| (guard.limit, guard.current, guard.until));
    assert_eq!(numbers, Some((1, 1, None)));
}

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

#[test]
fn what_was_lost_or_repaired_away_or_fell_sick_counts_for_the_cooldown() {
    let mut fleet = Fleet::new(20, 0);
    let fallen = |uid: &str, gone: Option<i64>| Fallen {
        uid: uid.into(),
        place: Place::default(),
        policy: "p".into(),
        since: at(0),
        sick: gone.is_some(),
        gone: gone.map(at),
    };
    fleet.fallen = vec![fallen("n003", None), fallen("lost", Some(30))];
    fleet.repairs = vec![repair("gone", 10, Phase::Succeeded)];
    for (second, nodes, recent) in [
        (600, 22, 3),
        (601, 22, 1),
        (610, 22, 1),
        (611, 21, 0),
        (630, 21, 0),
        (631, 20, 0),
    ] {
        fleet.see(20, 0, second);
        let scopes = fleet.decide(second).2;
        let census = scopes.cluster();
        assert_eq!(
            (census.nodes, census.recent),
            (nodes, recent),
            "at {second}"
        );
    }
}

#[test]
fn a_budget_counts_who_was_repaired_away_lately_or_still_is_as_one_that_is_down() {
    let mut fleet = Fleet::new(20, 0);
    let down = Budget {
        max_unavailable: Some(Amount::Count(5)),
        ..budget("down", Per::Cluster)
    };
    fleet.policies[0].budgets = vec![down];
    let mut again = repair("gone", 10, Phase::Succeeded);
    again.metadata.name = Some("r-gone-2".into());
    again.spec.ordinal = 2;
    fleet.repairs = vec![
        repair("gone", 10, Phase::Succeeded),
        again,
        repair("going", 10, Phase::Verifying),
        repair("n003", 10, Phase::Draining),
    ];
    let key = ("p".to_owned(), "down".to_owned(), Scope::Cluster);
    for (second, nodes, unavailable) in [(600, 22, 3), (610, 22, 3), (611, 21, 2)] {
        fleet.see(20, 0, second);
        let scopes = fleet.decide(second).2;
        let tally = &scopes.tallies[&key];
        let found = (tally.nodes, tally.unavailable, tally.in_flight);
        assert_eq!(found, (nodes, unavailable, 2), "at {second}");
    }
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
fn what_a_person_asks_for_is_on_record_also_where_no_policy_acts() {
    let mut fleet = Fleet::new(10, 0);
    fleet.change = asked;
    fleet.policies.clear();
    fleet.watch(10, 0, 30, 60);
    let (verdicts, _, _) = fleet.decide(60);
    assert_eq!(verdicts[5].kind, VerdictKind::Ignored);
    assert!(verdicts[5].request().is_some());
    assert!(verdicts[4].inputs.is_none());
    let refused = Policy::refused("bad".into(), 0, NodeSelector::default());
    fleet.policies = vec![refused];
    fleet.watch(10, 0, 90, 120);
    let (verdicts, _, _) = fleet.decide(120);
    assert_eq!(held(&verdicts, "n005").0, [Reason::PolicyRefused]);
    assert!(verdicts[5].request().is_some() && verdicts[4].request().is_none());
    assert_eq!(verdicts[4].inputs.as_ref().unwrap().policy, "bad");
}

#[test]
fn faults_that_a_policy_only_observes_make_nobody_sick() {
    for (mode, expect) in [(Mode::Observe, 0), (Mode::Approve, 1), (Mode::Enforce, 1)] {
        let mut fleet = Fleet::new(0, 0);
        fleet.policies = vec![policy("p", mode, 0)];
        fleet.policies[0].faults[0].when.all[0].condition = Some(ConditionLeaf {
            type_: "Disk".into(),
            statuses: vec![ConditionStatus::True],
            reasons: vec![],
        });
        fleet.change = |node| {
            let failing = if node.name == "n000" { "True" } else { "False" };
            node.conditions.push(Condition {
                type_: "Disk".into(),
                status: failing.into(),
                reason: String::new(),
            });
        };
        fleet.watch(10, 0, 0, 30);
        assert_eq!(fleet.decide(30).2.cluster().sick, expect, "{mode:?}");
    }
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

fn told(name: &str, truth: Truth, since: Option<i64>, severity: Severity) -> FaultInput {
    FaultInput {
        truth,
        since: since.map(at),
        ..fault_input(name, at(0), severity, None)
    }
}

/// What faults come to at 100 under a policy that acts, beside this repair.
fn concluded(faults: Vec<FaultInput>, open: Option<OpenRepair>) -> Conclusion {
    conclude(&gathered(faults, open), at(100))
}

fn gathered(faults: Vec<FaultInput>, open: Option<OpenRepair>) -> Inputs {
    Inputs {
        policy: "p".into(),
        standing: Some(Standing {
            mode: Mode::Enforce,
            ..Standing::default()
        }),
        repair: open,
        faults,
        ..Inputs::default()
    }
}

#[test]
fn of_the_faults_of_a_node_the_due_the_severe_and_the_old_one_leads() {
    use Severity::{Critical, Warning};
    let is =
        |name: &str, since: i64, severity: Severity| told(name, Truth::True, Some(since), severity);
    let (due, pending) = (VerdictKind::Due, VerdictKind::Pending);
    for (one, other, kind, name, since) in [
        (is("a", 41, Critical), is("b", 40, Warning), due, "b", 40),
        (is("a", 0, Warning), is("b", 30, Critical), due, "b", 30),
        (is("a", 30, Warning), is("b", 0, Warning), due, "b", 0),
        (is("b", 0, Warning), is("a", 0, Warning), due, "a", 0),
        (is("a", 90, Warning), is("b", 80, Warning), pending, "b", 80),
        // From a time to come.
        (
            is("a", 200, Critical),
            is("b", 90, Warning),
            pending,
            "a",
            100,
        ),
    ] {
        let found = concluded(vec![one, other], None);
        assert_eq!((found.kind, found.fault.as_str()), (kind, name));
        assert_eq!(found.since, Some(at(since)), "{name}");
        assert_eq!(found.action.is_some(), kind == due);
    }
}

#[test]
fn a_fault_that_is_not_known_any_more_leads_those_that_never_were() {
    let unknown =
        |name: &str, since: Option<i64>| told(name, Truth::Unknown, since, Severity::Warning);
    let unsettled = |since: Option<i64>| FaultInput {
        unsettled: true,
        ..unknown("a", since)
    };
    let suspended = FaultInput {
        suspended: true,
        ..unknown("a", None)
    };
    let (never, before) = (unknown("b", None), unknown("b", Some(10)));
    let unsure = Reason::EvidenceUnknown;
    for (first, second, name, since, reason) in [
        (unknown("a", None), never.clone(), "a", None, unsure),
        (unknown("a", None), before, "b", Some(10), unsure),
        (unsettled(None), never.clone(), "a", None, unsure),
        (
            unsettled(Some(5)),
            never.clone(),
            "a",
            Some(5),
            Reason::Contradicted,
        ),
        (suspended, never, "a", None, Reason::RuleSuspended),
    ] {
        let found = concluded(vec![first, second], None);
        assert_eq!(found.kind, VerdictKind::Unknown);
        assert_eq!((found.fault.as_str(), found.since), (name, since.map(at)));
        assert_eq!(found.reasons, [reason], "{name} since {since:?}");
    }
}

#[test]
fn a_repair_that_rests_lets_the_next_action_go_on() {
    let open = |at_rest: bool| {
        Some(OpenRepair {
            name: "r".into(),
            fault: "Old".into(),
            since: at(-500),
            at_rest,
        })
    };
    let does = |action: Option<Action>| {
        let mut fault = told("a", Truth::True, Some(0), Severity::Warning);
        fault.action = action;
        vec![fault]
    };
    let (repairing, due) = (VerdictKind::Repairing, VerdictKind::Due);
    for (repair, action, kind, fault, reasons) in [
        (
            open(false),
            Some(Action::Replace),
            repairing,
            "Old",
            &[][..],
        ),
        (open(true), Some(Action::Replace), due, "a", &[]),
        // A cordon is on already, and nothing is left to do.
        (open(true), Some(Action::Cordon), repairing, "Old", &[]),
        (open(true), None, repairing, "Old", &[]),
        (None, Some(Action::Cordon), due, "a", &[]),
        (None, None, VerdictKind::Held, "a", &[Reason::NeedsHuman]),
    ] {
        let found = concluded(does(action), repair.clone());
        let what = format!("{repair:?} {action:?}");
        assert_eq!((found.kind, found.fault.as_str()), (kind, fault), "{what}");
        assert_eq!(found.reasons, reasons, "{what}");
        let since = if fault == "Old" { -500 } else { 0 };
        assert_eq!(found.since, Some(at(since)), "{what}");
    }
    // What can be done goes before what was tried in vain; what a person asks for before
    // both, once no repair runs, for as long as it holds.
    let mut severe = told("b", Truth::True, Some(0), Severity::Critical);
    severe.action = None;
    let faults = [does(Some(Action::Replace)), vec![severe.clone()]].concat();
    let found = concluded(faults.clone(), None);
    assert_eq!((found.kind, found.fault.as_str()), (due, "a"));
    for (repair, until, kind, fault) in [
        (None, 101, due, BY_HAND),
        (None, 100, due, "a"),
        (open(true), 101, due, BY_HAND),
        (open(false), 101, repairing, "Old"),
    ] {
        let mut inputs = gathered(faults.clone(), repair.clone());
        inputs.request = Some(RepairRequest {
            uid: "n".into(),
            at: at(0),
            until: at(until),
            by: "eve".into(),
            reason: "smells".into(),
            overrides: vec![],
        });
        let found = conclude(&inputs, at(100));
        let what = (found.kind, found.fault.as_str());
        assert_eq!(what, (kind, fault), "{repair:?} until {until}");
    }
}

#[test]
fn a_record_that_says_otherwise_than_its_inputs_does_not_replay() {
    let mut fleet = Fleet::new(10, 1);
    fleet.watch(10, 1, 30, 60);
    let (verdicts, _, _) = fleet.decide(60);
    let kept = decision(&verdicts[0], &[], at(60));
    assert!(replays(&kept));
    let changed = |change: &dyn Fn(&mut Decision)| {
        let mut kept = kept.clone();
        change(&mut kept);
        replays(&kept)
    };
    // With the leading fault what it is a combination of, and what that came to.
    let detailed = |fleet: &Fleet| {
        let mut kept = kept.clone();
        let node = fleet.evidence.node("n000").unwrap();
        detail(&mut kept, node, &fleet.world(&Rules::default()));
        kept
    };
    let told = detailed(&fleet);
    let fault = &told.inputs.faults[0];
    let when: When = serde_json::from_str(&fault.when).unwrap();
    assert_eq!(when, fleet.policies[0].faults[0].when);
    assert_eq!(fault.leaves, [Truth::True]);
    assert!(replays(&told));
    for leaf in [Truth::False, Truth::Unknown] {
        let mut told = told.clone();
        told.inputs.faults[0].leaves = vec![leaf];
        assert!(!replays(&told), "{leaf:?}");
    }
    // Guards of the fleet are not asked where one of the node holds.
    let mut paused = kept.clone();
    paused.verdict = VerdictKind::Held;
    paused.reasons = vec![Reason::Paused];
    paused.inputs.standing.as_mut().unwrap().paused = true;
    paused.inputs.guards = vec![GuardRecord {
        scope: "cluster".into(),
        reason: Reason::InFlight,
        limit: 1,
        current: 1,
        until: None,
    }];
    assert!(replays(&paused));
    // What is due and has no plan is held, and its record says why.
    let mut stuck = verdicts[0].clone();
    unplanned(&mut stuck, Reason::OwnedByOther);
    let found = (stuck.kind, stuck.reasons.as_slice());
    assert_eq!(found, (VerdictKind::Held, &[Reason::OwnedByOther][..]));
    assert_replays(&[stuck], &[], at(60));
    // What is not known is not false.
    let (rules, node) = (Rules::default(), fleet.evidence.node("n000").unwrap());
    let verdict = judge(node, &fleet.world(&rules), at(200));
    let mut told = decision(&verdict, &[], at(200));
    detail(&mut told, node, &fleet.world(&rules));
    assert_eq!(told.verdict, VerdictKind::Unknown);
    assert_eq!(told.reasons, [Reason::EvidenceUnknown]);
    assert_eq!(verdict.sick_since, Some(at(0)));
    for (leaf, expect) in [
        (Truth::Unknown, true),
        (Truth::True, true),
        (Truth::False, false),
    ] {
        told.inputs.faults[0].leaves = vec![leaf];
        assert_eq!(replays(&told), expect, "{leaf:?}");
    }
    let leaves = &mut fleet.policies[0].faults[0].when.all;
    *leaves = vec![leaves[0].clone(); 40];
    assert!(
        detailed(&fleet).inputs.faults[0].when.is_empty(),
        "too long"
    );
    assert!(!changed(&|it| it.verdict = VerdictKind::Pending));
    assert!(!changed(&|it| it.fault = "Other".into()));
    assert!(!changed(&|it| it.since = Some(at(1))));
    assert!(!changed(&|it| it.reasons = vec![Reason::Paused]));
    // A guard holds if its numbers say so, until its time.
    let held = |current: u32, until: Option<i64>| {
        changed(&|it| {
            (it.verdict, it.reasons) = (VerdictKind::Held, vec![Reason::Budget]);
            it.inputs.guards = vec![GuardRecord {
                scope: "budget/p/b".into(),
                reason: Reason::Budget,
                limit: 2,
                current,
                until: until.map(at),
            }];
        })
    };
    assert!(held(2, None) && held(3, None) && held(2, Some(60)));
    assert!(!held(1, None) && !held(2, Some(59)));
}

#[test]
fn a_cordon_of_ours_holds_nothing_and_an_owner_matters_only_to_what_replaces() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| {
        node.unschedulable = true;
        let ours = (QUARANTINE_ANNOTATION.to_owned(), "r".to_owned());
        node.annotations = [ours].into();
    };
    fleet.watch(10, 1, 0, 60);
    assert_eq!(fleet.first(60), (VerdictKind::Due, vec![]));
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| node.provider_id = "gce://x".into();
    fleet.watch(10, 1, 0, 60);
    assert_eq!(fleet.first(60).1, [Reason::NoOwner]);
    fleet.policies[0].faults[0].actions = vec![Action::Cordon];
    assert_eq!(fleet.first(60), (VerdictKind::Due, vec![]));
}

#[test]
fn a_node_that_its_owner_deletes_counts_nowhere_and_is_not_available() {
    let mut fleet = Fleet::new(0, 0);
    fleet.change = |node| {
        node.deleting = node.name == "n000" || node.name == "n001";
        node.unschedulable = node.name == "n002";
    };
    // n000 is down besides.
    fleet.watch(10, 1, 0, 60);
    let (verdicts, _, scopes) = fleet.decide(60);
    assert_eq!((scopes.cluster().nodes, scopes.cluster().sick), (8, 0));
    let available: Vec<bool> = verdicts.iter().map(|one| one.available).collect();
    assert_eq!(available[..4], [false, false, false, true]);
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
