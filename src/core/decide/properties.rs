//! What holds of every decision, whatever the fleet, the policies and the records.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::tests::{assert_replays, at, node, policy, repair};
use super::*;
use crate::api::{Leaf, Per, Phase, When};
use crate::config::{Amount, Budget, Fault, Rule};
use crate::evidence::{Answer, Input};
use crate::model::{Span, ZONE_LABEL};

const POOL_LABEL: &str = "karpenter.sh/nodepool";
/// When it is decided.
const NOW: i64 = 1200;

/// The fault of the rule, and what keeps it from being one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Fires,
    Clear,
    Nothing,
}

#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts of a node")]
struct Machine {
    /// When it stopped being Ready, before `NOW`.
    unready: Option<u32>,
    /// When its rule began to fire.
    fires: Option<u32>,
    says: Says,
    zone: &'static str,
    pool: &'static str,
    cordoned: bool,
    deleting: bool,
    young: bool,
    tainted: bool,
    opted_out: bool,
    priority: bool,
}

#[derive(Clone, Debug)]
struct Record {
    of: Index,
    gone: bool,
    started: u32,
    phase: Phase,
    zone: &'static str,
    pool: &'static str,
}

#[derive(Clone, Debug)]
struct Case {
    machines: Vec<Machine>,
    records: Vec<Record>,
    budgets: Vec<Budget>,
    mode: Mode,
    limits: Limits,
    paused: Option<&'static str>,
}

fn machine() -> impl Strategy<Value = Machine> {
    let since = || prop_oneof![3 => Just(None), 1 => (0u32..1200).prop_map(Some)];
    let says = select(vec![Says::Fires, Says::Clear, Says::Nothing]);
    let rarely = || proptest::bool::weighted(0.05);
    (
        (since(), since(), says),
        (select(vec!["", "a", "b"]), select(vec!["", "x", "y"])),
        (
            rarely(),
            rarely(),
            rarely(),
            rarely(),
            rarely(),
            any::<bool>(),
        ),
    )
        .prop_map(|((unready, fires, says), (zone, pool), marks)| {
            let (cordoned, deleting, young, tainted, opted_out, priority) = marks;
            Machine {
                unready,
                fires,
                says,
                zone,
                pool,
                cordoned,
                deleting,
                young,
                tainted,
                opted_out,
                priority,
            }
        })
}

fn record() -> impl Strategy<Value = Record> {
    let phases = vec![
        Phase::Draining,
        Phase::Succeeded,
        Phase::Aborted,
        Phase::NeedsHuman,
    ];
    (
        any::<Index>(),
        any::<bool>(),
        0u32..9000,
        select(phases),
        select(vec!["", "a", "b"]),
        select(vec!["", "x", "y"]),
    )
        .prop_map(|(of, gone, started, phase, zone, pool)| Record {
            of,
            gone,
            started,
            phase,
            zone,
            pool,
        })
}

fn counting_budget() -> impl Strategy<Value = Budget> {
    let per = select(vec![Per::Cluster, Per::Zone, Per::Pool]);
    let rate = proptest::option::of((0u32..6, 10u32..120));
    (per, rate, proptest::option::of(0u32..5)).prop_map(|(per, rate, in_flight)| Budget {
        name: format!("{per:?}"),
        per,
        max_repairs: rate.map(|(count, minutes)| (count, Span::minutes(minutes))),
        max_in_flight: in_flight,
        max_unavailable: None,
    })
}

fn budget() -> impl Strategy<Value = Budget> {
    let amount = prop_oneof![
        (0u32..8).prop_map(Amount::Count),
        (0u32..=100).prop_map(Amount::Percent),
    ];
    (counting_budget(), proptest::option::of(amount)).prop_map(|(budget, amount)| Budget {
        max_unavailable: amount,
        ..budget
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let rate = vec((1u32..8, 10u32..120), 0..2);
    let breaker = (10u32..=100, 1u32..30, 1u32..6);
    (1u32..8, rate, breaker).prop_map(|(max_in_flight, rate, (share, nodes, min_nodes))| Limits {
        max_in_flight,
        max_repairs: rate
            .into_iter()
            .map(|(count, minutes)| (count, Span::minutes(minutes)))
            .collect(),
        breaker: crate::config::Breaker {
            share,
            nodes,
            min_nodes,
            cooldown: Span::minutes(10),
        },
        ..Limits::default()
    })
}

fn case() -> impl Strategy<Value = Case> {
    (
        vec(machine(), 1..24),
        vec(record(), 0..6),
        vec(budget(), 0..3),
        select(vec![
            Mode::Enforce,
            Mode::Enforce,
            Mode::Enforce,
            Mode::Observe,
        ]),
        limits(),
        select(vec![None, None, Some("a"), Some("")]),
    )
        .prop_map(|(machines, records, mut budgets, mode, limits, paused)| {
            budgets.sort_by(|one, other| one.name.cmp(&other.name));
            budgets.dedup_by(|one, other| one.name == other.name);
            Case {
                machines,
                records,
                budgets,
                mode,
                limits,
                paused,
            }
        })
}

/// A case in which something is likely to start.
fn open_case() -> impl Strategy<Value = Case> {
    case().prop_map(|mut case| {
        case.limits.breaker.share = 100;
        case.limits.breaker.min_nodes = 50;
        (case.mode, case.paused) = (Mode::Enforce, None);
        case
    })
}

fn rule() -> Rule {
    Rule {
        name: "R".into(),
        expr: "e".into(),
        for_: Span::default(),
        keep_firing_for: Span::default(),
        presence: Some("p".into()),
        interval: Span::seconds(30),
        labels: BTreeMap::new(),
    }
}

/// All that a decision is made of.
struct Fleet {
    evidence: Evidence,
    rules: Rules,
    policies: Vec<Policy>,
    limits: Limits,
    repairs: Vec<NodeRepair>,
    pauses: Vec<Pause>,
}

impl Fleet {
    /// `blind`: of this node the rule says nothing at the end.
    fn new(case: &Case, backwards: bool, blind: Option<usize>) -> Self {
        let mut policies = vec![policy("p", case.mode, 0), policy("q", Mode::Enforce, 1)];
        let signal = Leaf {
            signal: Some("R".into()),
            ..Leaf::default()
        };
        let reported = Fault {
            name: "Reported".into(),
            severity: Severity::Critical,
            when: When {
                all: vec![signal],
                ..When::default()
            },
            for_: Span::seconds(60),
            actions: vec![Action::Replace],
            confirm: None,
        };
        for policy in &mut policies {
            policy.faults.push(reported.clone());
        }
        policies[0].budgets.clone_from(&case.budgets);
        policies[1].selector.match_labels = [("q".to_owned(), "yes".to_owned())].into();
        let mut fleet = Self {
            evidence: Evidence::default(),
            rules: Rules::from_iter([rule()]),
            policies,
            limits: case.limits.clone(),
            repairs: case
                .records
                .iter()
                .enumerate()
                .map(|(nth, record)| record.read(nth, case))
                .collect(),
            pauses: case
                .paused
                .map(|zone| Pause {
                    selector: NodeSelector {
                        match_labels: [(ZONE_LABEL.to_owned(), zone.to_owned())].into(),
                        ..NodeSelector::default()
                    },
                    policy: None,
                    until: None,
                })
                .into_iter()
                .collect(),
        };
        if backwards {
            fleet.repairs.reverse();
        }
        for second in (0..=NOW).step_by(60) {
            let mut nodes: Vec<NodeView> = case
                .machines
                .iter()
                .enumerate()
                .map(|(number, machine)| machine.at(number, second))
                .collect();
            let mut series = (Vec::new(), Vec::new());
            for (number, machine) in case.machines.iter().enumerate() {
                let labels: crate::evidence::identity::Labels =
                    [("node".to_owned(), nodes[number].name.clone())].into();
                let silent =
                    machine.says == Says::Nothing || (blind == Some(number) && second > NOW - 120);
                if silent {
                    continue;
                }
                series.1.push(labels.clone());
                let fires = machine
                    .fires
                    .is_some_and(|ago| second >= NOW - i64::from(ago));
                if machine.says == Says::Fires && fires {
                    series.0.push(labels);
                }
            }
            if backwards {
                nodes.reverse();
                series.0.reverse();
                series.1.reverse();
            }
            fleet.evidence.fold(Input::Nodes(nodes), at(second));
            let answer = Answer::Series {
                firing: series.0,
                present: Some(series.1),
            };
            let name = "R".to_owned();
            fleet.evidence.fold(
                Input::Rule {
                    name,
                    asked: Timestamp::MAX,
                    answer,
                },
                at(second),
            );
            fleet
                .evidence
                .settle(&fleet.rules, &fleet.policies, at(second));
        }
        fleet
    }

    fn world(&self) -> World<'_> {
        World {
            evidence: &self.evidence,
            rules: &self.rules,
            policies: &self.policies,
            limits: &self.limits,
            repairs: &self.repairs,
            fallen: &[],
            starts: &[],
            pauses: &self.pauses,
            observed: Observed::default(),
        }
    }

    fn judged(&self) -> Vec<Verdict> {
        let world = self.world();
        let verdicts = judge_all(&world, at(NOW));
        let nodes = self.evidence.nodes();
        let each: Vec<Verdict> = nodes.map(|node| judge(node, &world, at(NOW))).collect();
        assert_eq!(verdicts, each, "also of those that were not asked");
        verdicts
    }

    fn decide(&self) -> (Vec<Verdict>, Scopes, Admission) {
        let mut verdicts = self.judged();
        let scopes = survey(&verdicts, &self.world(), at(NOW));
        let admission = admit(&mut verdicts, &scopes, &self.world(), at(NOW));
        (verdicts, scopes, admission)
    }
}

impl Machine {
    fn at(&self, number: usize, second: i64) -> NodeView {
        let since = self.unready.map(|ago| NOW - i64::from(ago));
        let ready = since.is_none_or(|since| second < since);
        let mut node = node(&format!("n{number:03}"), ready);
        if self.young {
            node.created = at(NOW - 300);
        }
        for (label, value) in [
            (ZONE_LABEL, self.zone),
            (POOL_LABEL, self.pool),
            ("q", if self.priority { "yes" } else { "" }),
        ] {
            if !value.is_empty() {
                node.labels.insert(label.to_owned(), value.to_owned());
            }
        }
        (node.unschedulable, node.deleting) = (self.cordoned, self.deleting);
        if self.tainted {
            node.taints.push("ToBeDeletedByClusterAutoscaler".into());
        }
        if self.opted_out {
            let mark = (DO_NOT_REPAIR_ANNOTATION.to_owned(), "true".to_owned());
            node.annotations.extend([mark]);
        }
        node
    }
}

impl Record {
    fn read(&self, nth: usize, case: &Case) -> NodeRepair {
        let of = self.of.index(case.machines.len());
        let name = if self.gone {
            format!("gone{nth}")
        } else {
            format!("n{of:03}")
        };
        let mut repair = repair(&name, NOW - i64::from(self.started), self.phase);
        repair.metadata.name = Some(format!("r{nth}"));
        (repair.spec.zone, repair.spec.pool) = (self.zone.into(), self.pool.into());
        repair
    }
}

/// `PROPTEST_CASES` says how many; `tests/run properties` tries 20,000.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn decisions_do_not_depend_on_the_order_of_what_is_told(case in case()) {
        let (one, other) = (Fleet::new(&case, false, None), Fleet::new(&case, true, None));
        prop_assert_eq!(one.decide(), other.decide());
    }

    #[test]
    fn h64_no_limit_is_exceeded(case in case()) {
        let fleet = Fleet::new(&case, false, None);
        let (verdicts, scopes, admission) = fleet.decide();
        let started = || verdicts.iter().filter(|one| admission.admitted.contains(&one.uid));
        let limits = &fleet.limits;
        let running = scopes.cluster().in_flight + started().count();
        prop_assert!(started().count() == 0 || running <= limits.max_in_flight as usize);
        let within = |starts: &[Timestamp], within: Span| {
            starts.iter().filter(|start| within.after(**start) > at(NOW)).count()
        };
        for (count, window) in &limits.max_repairs {
            let all = within(&scopes.starts, *window) + started().count();
            prop_assert!(started().count() == 0 || all <= *count as usize);
        }
        for ((name, budget, scope), before) in &scopes.tallies {
            let policy = fleet.policies.iter().find(|policy| policy.name == *name).unwrap();
            let budget = policy.budgets.iter().find(|one| one.name == *budget).unwrap();
            let here = || started()
                .filter(|one| one.policy == *name && one.place.counted(budget.per) == *scope);
            let new = here().count();
            if new == 0 {
                continue;
            }
            let most = budget.max_in_flight.map_or(usize::MAX, |most| most as usize);
            prop_assert!(before.in_flight + new <= most);
            if let Some((count, window)) = budget.max_repairs {
                prop_assert!(within(&before.starts, window) + new <= count as usize);
            }
            if let Some(amount) = budget.max_unavailable {
                let (most, taken) = (amount.of(before.nodes), here().filter(|one| one.available).count());
                prop_assert!(most > 0);
                prop_assert!(taken == 0 || before.unavailable + taken <= most);
                prop_assert!(before.unavailable <= most || before.in_flight + new == 1);
            }
        }
        for (scope, census) in &scopes.census {
            let new = started().filter(|one| one.place.scopes().any(|own| own == *scope)).count();
            let alone = census.breaker == BreakerState::Closed || census.in_flight + new <= 1;
            prop_assert!(new == 0 || alone, "{scope} is {:?}", census.breaker);
        }
    }

    #[test]
    fn what_is_only_observed_would_start_as_if_it_were_enforced(case in case()) {
        let mut fleet = Fleet::new(&case, false, None);
        let mut modes = |mode| {
            fleet.policies.iter_mut().for_each(|policy| policy.mode = mode);
            let (mut verdicts, _, admission) = fleet.decide();
            let found = shadow(&mut verdicts, &fleet.world(), at(NOW));
            let starts = found.starts.into_iter().map(|start| start.node_uid);
            (admission.admitted, starts.collect::<Vec<String>>(), verdicts)
        };
        let (enforced, none, acting) = modes(Mode::Enforce);
        prop_assert!(none.is_empty());
        let (none, observed, observing) = modes(Mode::Observe);
        prop_assert!(none.is_empty());
        prop_assert_eq!(enforced, observed);
        // And what would have held the others is told.
        for (one, other) in acting.iter().zip(&observing) {
            if one.kind == VerdictKind::Held {
                let told = other.reasons.iter().filter(|reason| **reason != Reason::ObserveMode);
                prop_assert_eq!(&one.reasons, &told.copied().collect::<Vec<Reason>>());
            }
        }
    }

    #[test]
    fn a_node_of_which_less_is_known_does_not_become_due(case in case(), of in any::<Index>()) {
        let number = of.index(case.machines.len());
        let (seeing, blind) = (Fleet::new(&case, false, None), Fleet::new(&case, false, Some(number)));
        let is_due = |fleet: &Fleet| fleet.judged()[number].kind == VerdictKind::Due;
        prop_assert!(is_due(&seeing) || !is_due(&blind));
    }

    #[test]
    fn every_start_has_a_fault_that_is_true_and_every_hold_a_reason(case in case()) {
        let fleet = Fleet::new(&case, false, None);
        let (verdicts, _, admission) = fleet.decide();
        for verdict in &verdicts {
            let node = fleet.evidence.node(&verdict.node).unwrap();
            let started = admission.admitted.contains(&verdict.uid);
            prop_assert_eq!(started, verdict.kind == VerdictKind::Due);
            prop_assert_eq!(verdict.kind == VerdictKind::Held, !verdict.reasons.is_empty()
                && !matches!(verdict.kind, VerdictKind::Unknown | VerdictKind::Ignored));
            if !started {
                continue;
            }
            let policy = fleet.policies.iter().find(|one| one.name == verdict.policy).unwrap();
            let fault = policy.faults.iter().find(|fault| fault.name == verdict.fault).unwrap();
            let (truth, since) = fleet.evidence.fault(node, policy, &fault.name, &fleet.rules, at(NOW));
            prop_assert_eq!(truth, Truth::True);
            prop_assert!(fault.for_.after(since.unwrap()) <= at(NOW));
            prop_assert!(policy.mode == Mode::Enforce && !opted_out(node, at(NOW)));
            prop_assert!(verdict.action.is_some_and(|(action, _)| fault.actions.contains(&action)));
            let repairing = fleet.repairs.iter().any(|repair| repair.open() && repair.spec.node_uid == verdict.uid);
            prop_assert!(!repairing && !node.deleting && !node.taken_by_other() && !node.unschedulable);
            let paused = fleet.pauses.iter().any(|pause| pause.selector.matches(&node.labels));
            prop_assert!(!paused);
        }
    }

    #[test]
    fn every_verdict_comes_out_of_its_record_again(case in case()) {
        let fleet = Fleet::new(&case, false, None);
        let (verdicts, _, admission) = fleet.decide();
        assert_replays(&verdicts, &admission.guards, at(NOW));
    }

    #[test]
    fn a_smaller_budget_starts_no_more(case in open_case(), budget in counting_budget(), less in 0u32..5) {
        let mut case = case;
        case.budgets = vec![budget.clone()];
        let larger = Fleet::new(&case, false, None);
        let smaller = Budget {
            max_repairs: budget.max_repairs.map(|(count, within)| (count.saturating_sub(less), within)),
            max_in_flight: Some(budget.max_in_flight.unwrap_or(5).saturating_sub(less)),
            ..budget.clone()
        };
        case.budgets = vec![smaller];
        let smaller = Fleet::new(&case, false, None);
        // Zone by zone it may: what one zone has to leave, another may take.
        let starts = |fleet: &Fleet| {
            let (verdicts, _, admission) = fleet.decide();
            let started = verdicts.iter().filter(|one| admission.admitted.contains(&one.uid));
            started.filter(|one| one.policy == "p").count()
        };
        prop_assert!(starts(&smaller) <= starts(&larger));
    }

    #[test]
    fn a_breaker_closes_once_its_scope_is_well_for_the_cooldown(case in case()) {
        let mut case = case;
        for machine in &mut case.machines {
            (machine.unready, machine.says, machine.young) = (None, Says::Clear, false);
        }
        for record in &mut case.records {
            record.started = record.started.max(601);
            if record.phase == Phase::Draining {
                record.phase = Phase::Succeeded;
            }
        }
        let (_, scopes, _) = Fleet::new(&case, false, None).decide();
        for (scope, census) in scopes.census {
            prop_assert_eq!(census.breaker, BreakerState::Closed, "{}", scope);
        }
    }
}
