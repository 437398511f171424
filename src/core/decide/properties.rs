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

/// A node that fell sick before, and may be well again.
#[derive(Clone, Debug)]
struct Memory {
    of: Index,
    ago: u32,
    sick: bool,
}

/// A node that went away sick, without a repair.
#[derive(Clone, Debug)]
struct Loss {
    ago: u32,
    /// Whether the policy `p` spoke for it.
    ours: bool,
    zone: &'static str,
    pool: &'static str,
}

/// A start without a record: a person deleted it, or it may yet appear.
#[derive(Clone, Debug)]
struct Unlisted {
    of: Index,
    gone: bool,
    ago: u32,
    to_come: bool,
}

#[derive(Clone, Debug)]
struct Case {
    machines: Vec<Machine>,
    records: Vec<Record>,
    memories: Vec<Memory>,
    losses: Vec<Loss>,
    unlisted: Vec<Unlisted>,
    budgets: Vec<Budget>,
    mode: Mode,
    limits: Limits,
    paused: Option<&'static str>,
}

fn machine() -> impl Strategy<Value = Machine> {
    let since = || prop_oneof![3 => Just(None), 1 => (0u32..1320).prop_map(Some)];
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

fn memory() -> impl Strategy<Value = Memory> {
    (any::<Index>(), 0u32..3000, any::<bool>()).prop_map(|(of, ago, sick)| Memory { of, ago, sick })
}

fn loss() -> impl Strategy<Value = Loss> {
    let place = (select(vec!["", "a", "b"]), select(vec!["", "x", "y"]));
    (0u32..1200, any::<bool>(), place).prop_map(|(ago, ours, (zone, pool))| Loss {
        ago,
        ours,
        zone,
        pool,
    })
}

fn unlisted() -> impl Strategy<Value = Unlisted> {
    let all = (any::<Index>(), any::<bool>(), 0u32..9000, any::<bool>());
    all.prop_map(|(of, gone, ago, to_come)| Unlisted {
        of,
        gone,
        ago,
        to_come,
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
        (
            vec(record(), 0..6),
            vec(memory(), 0..6),
            vec(loss(), 0..3),
            vec(unlisted(), 0..3),
        ),
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
        .prop_map(|(machines, known, mut budgets, mode, limits, paused)| {
            let (records, memories, losses, unlisted) = known;
            budgets.sort_by(|one, other| one.name.cmp(&other.name));
            budgets.dedup_by(|one, other| one.name == other.name);
            Case {
                machines,
                records,
                memories,
                losses,
                unlisted,
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

/// A case in which a breaker is likely to open; nothing is on record yet.
fn storm_case() -> impl Strategy<Value = Case> {
    case().prop_map(|mut case| {
        for machine in &mut case.machines {
            machine.young = false;
        }
        case.limits.breaker.share = case.limits.breaker.share.min(40);
        case.limits.breaker.min_nodes = case.limits.breaker.min_nodes.min(3);
        case.records.clear();
        case.memories.clear();
        case.losses.clear();
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
    fallen: Vec<Fallen>,
    starts: Vec<Reservation>,
    reserved: Vec<Reservation>,
    pauses: Vec<Pause>,
}

impl Fleet {
    /// Before anything was heard.
    fn deaf(case: &Case) -> Self {
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
        let records = case.records.iter().enumerate();
        let paused = case.paused.map(|zone| Pause {
            selector: NodeSelector {
                match_labels: [(ZONE_LABEL.to_owned(), zone.to_owned())].into(),
                ..NodeSelector::default()
            },
            policy: None,
            until: None,
        });
        let memories = case.memories.iter().map(|one| one.fallen(case));
        let losses = case.losses.iter().enumerate();
        let losses = losses.map(|(nth, loss)| loss.read(nth));
        let mut fallen: Vec<Fallen> = memories.chain(losses).collect();
        // There is one record of each node.
        fallen.sort_by(|one, other| one.uid.cmp(&other.uid));
        fallen.dedup_by(|one, other| one.uid == other.uid);
        Self {
            evidence: Evidence::default(),
            rules: Rules::from_iter([rule()]),
            policies,
            limits: case.limits.clone(),
            repairs: records
                .map(|(nth, record)| record.read(nth, case))
                .collect(),
            fallen,
            starts: case.without_record(false),
            reserved: case.without_record(true),
            pauses: paused.into_iter().collect(),
        }
    }

    /// `blind`: of this node the rule says nothing at the end.
    fn new(case: &Case, backwards: bool, blind: Option<usize>) -> Self {
        let mut fleet = Self::deaf(case);
        if backwards {
            fleet.repairs.reverse();
            fleet.fallen.reverse();
            fleet.starts.reverse();
            fleet.reserved.reverse();
        }
        for second in (0..=NOW).step_by(60) {
            let silent = blind.filter(|_| second > NOW - 120);
            fleet.hear(&case.machines, backwards, silent, second);
        }
        fleet
    }

    /// What the nodes and the rule say at this second; of one node the rule may say nothing.
    fn hear(&mut self, machines: &[Machine], backwards: bool, blind: Option<usize>, second: i64) {
        let nodes = machines.iter().enumerate();
        let mut nodes: Vec<NodeView> = nodes
            .map(|(number, machine)| machine.at(number, second))
            .collect();
        let mut series = (Vec::new(), Vec::new());
        for (number, machine) in machines.iter().enumerate() {
            let labels: crate::evidence::identity::Labels =
                [("node".to_owned(), nodes[number].name.clone())].into();
            if machine.says == Says::Nothing || blind == Some(number) {
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
        self.evidence.fold(Input::Nodes(nodes), at(second));
        let rule = Input::Rule {
            name: "R".to_owned(),
            asked: Timestamp::MAX,
            answer: Answer::Series {
                firing: series.0,
                present: Some(series.1),
            },
        };
        self.evidence.fold(rule, at(second));
        self.evidence
            .settle(&self.rules, &self.policies, at(second));
    }

    /// What the breakers are at this second. The records are kept as the leader keeps them.
    fn look(&mut self, second: i64) -> (Vec<Verdict>, Scopes) {
        let world = self.world();
        let verdicts = judge_all(&world, at(second));
        let scopes = survey(&verdicts, &world, at(second));
        for verdict in &verdicts {
            let mut known = self.fallen.iter_mut();
            let known = known.find(|fallen| fallen.uid == verdict.uid);
            match (verdict.sick_since, known) {
                (Some(since), Some(known)) => {
                    known.since = if known.sick {
                        known.since.min(since)
                    } else {
                        since
                    };
                    known.sick = true;
                }
                (Some(since), None) => self.fallen.push(Fallen {
                    uid: verdict.uid.clone(),
                    place: Place::clone(&verdict.place),
                    policy: verdict.policy.to_string(),
                    since,
                    sick: true,
                    gone: None,
                }),
                (None, Some(known)) => known.sick = false,
                (None, None) => {}
            }
        }
        (verdicts, scopes)
    }

    fn world(&self) -> World<'_> {
        World {
            evidence: &self.evidence,
            rules: &self.rules,
            policies: &self.policies,
            limits: &self.limits,
            repairs: &self.repairs,
            fallen: &self.fallen,
            starts: &self.starts,
            reserved: &self.reserved,
            pauses: &self.pauses,
            observed: Observed {
                starts: &[],
                fallen: &self.fallen,
            },
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

impl Memory {
    fn fallen(&self, case: &Case) -> Fallen {
        let number = self.of.index(case.machines.len());
        let machine = &case.machines[number];
        Fallen {
            uid: format!("n{number:03}"),
            place: Place {
                zone: machine.zone.into(),
                pool: machine.pool.into(),
            },
            policy: String::new(),
            since: at(NOW - i64::from(self.ago)),
            sick: self.sick,
            gone: None,
        }
    }
}

impl Loss {
    fn read(&self, nth: usize) -> Fallen {
        Fallen {
            uid: format!("lost{nth}"),
            place: Place {
                zone: self.zone.into(),
                pool: self.pool.into(),
            },
            policy: if self.ours { "p" } else { "q" }.into(),
            since: at(NOW - 1200),
            sick: true,
            gone: Some(at(NOW - i64::from(self.ago))),
        }
    }
}

/// What the documentation says that a budget counts in a scope.
#[derive(Debug, Default)]
struct Count {
    nodes: usize,
    unavailable: usize,
    in_flight: usize,
    /// How many seconds ago repairs started.
    starts: Vec<u32>,
}

impl Count {
    fn gone(&mut self) {
        self.nodes += 1;
        self.unavailable += 1;
    }

    fn started_within(&self, window: Span) -> usize {
        let starts = self.starts.iter();
        starts
            .filter(|ago| i64::from(**ago) < window.as_seconds())
            .count()
    }
}

impl Case {
    fn without_record(&self, to_come: bool) -> Vec<Reservation> {
        let all = self.unlisted.iter().enumerate();
        all.filter(|(_, one)| one.to_come == to_come)
            .map(|(nth, one)| Reservation {
                repair: format!("unlisted{nth}"),
                node_uid: if one.gone {
                    format!("deleted{nth}")
                } else {
                    format!("n{:03}", one.of.index(self.machines.len()))
                },
                at: at(NOW - i64::from(one.ago)),
            })
            .collect()
    }

    /// Counted from the case alone, for what the policy `p` speaks for; by nothing that
    /// decisions count with.
    fn count(&self, per: Per, of: &Machine) -> Count {
        let here = |zone: &str, pool: &str| match per {
            Per::Cluster => true,
            Per::Zone => zone == of.zone,
            Per::Pool => pool == of.pool,
        };
        let mut count = Count::default();
        // Never Ready, and in its time for that.
        let starts = |one: &Machine| one.young && one.unready.is_some_and(|ago| ago >= 1200);
        let ours = |one: &&Machine| !one.priority && here(one.zone, one.pool);
        for machine in self.machines.iter().filter(ours) {
            if !starts(machine) {
                let taken = machine.cordoned || machine.deleting || machine.tainted;
                count.nodes += 1;
                count.unavailable += usize::from(taken || machine.unready.is_some());
            }
        }
        let cooldown = 600;
        for record in self.records.iter().filter(|one| here(one.zone, one.pool)) {
            let open = record.phase == Phase::Draining;
            count.starts.push(record.started);
            count.in_flight += usize::from(open);
            if record.gone && (open || record.started <= cooldown) {
                count.gone();
            }
        }
        for loss in self.losses.iter().filter(|one| here(one.zone, one.pool)) {
            if loss.ours && loss.ago <= cooldown {
                count.gone();
            }
        }
        for one in &self.unlisted {
            let machine = &self.machines[one.of.index(self.machines.len())];
            if one.gone || (!machine.priority && here(machine.zone, machine.pool)) {
                count.starts.push(one.ago);
                count.in_flight += usize::from(one.to_come);
            }
        }
        count
    }
}

/// `PROPTEST_CASES` says how many; `tests/run properties` tries 20,000.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        max_global_rejects: u32::MAX,
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
        let (limits, new) = (&fleet.limits, started().count());
        let (records, unlisted) = (&case.records, &case.unlisted);
        let running = records.iter().filter(|one| one.phase == Phase::Draining).count()
            + unlisted.iter().filter(|one| one.to_come).count();
        prop_assert!(new == 0 || running + new <= limits.max_in_flight as usize);
        let starts = records.iter().map(|one| one.started).chain(unlisted.iter().map(|one| one.ago));
        let all = Count { starts: starts.collect(), ..Count::default() };
        for (count, window) in &limits.max_repairs {
            prop_assert!(new == 0 || all.started_within(*window) + new <= *count as usize);
        }
        let machine = |verdict: &Verdict| &case.machines[verdict.node[1..].parse::<usize>().unwrap()];
        for (budget, verdict) in case.budgets.iter().flat_map(|one| started().map(move |start| (one, start))) {
            if *verdict.policy != *"p" {
                continue;
            }
            let before = case.count(budget.per, machine(verdict));
            let here = || started().filter(|one| *one.policy == *"p" && match budget.per {
                Per::Cluster => true,
                Per::Zone => machine(one).zone == machine(verdict).zone,
                Per::Pool => machine(one).pool == machine(verdict).pool,
            });
            let new = here().count();
            let most = budget.max_in_flight.map_or(usize::MAX, |most| most as usize);
            prop_assert!(before.in_flight + new <= most, "{budget:?}: {before:?}");
            if let Some((count, window)) = budget.max_repairs {
                let all = before.started_within(window) + new;
                prop_assert!(all <= count as usize, "{budget:?}: {before:?}");
            }
            if let Some(amount) = budget.max_unavailable {
                // Those that started and were up.
                let taken = here().filter(|one| machine(one).unready.is_none()).count();
                let most = amount.of(before.nodes);
                prop_assert!(most > 0, "{budget:?}: {before:?}");
                prop_assert!(taken == 0 || before.unavailable + taken <= most, "{budget:?}: {before:?}");
                let alone = before.in_flight + new == 1;
                prop_assert!(before.unavailable <= most || alone, "{budget:?}: {before:?}");
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
            let policy = fleet.policies.iter().find(|one| one.name == *verdict.policy).unwrap();
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
    fn a_smaller_budget_starts_no_more_in_its_own_scope(
        case in open_case(), budget in budget(), less in 0u32..5, alone in any::<bool>(),
    ) {
        let mut case = case;
        if alone {
            // No limit is shared by scopes: what one has to leave, another might take.
            (case.limits.max_in_flight, case.limits.max_repairs) = (1000, Vec::new());
        }
        let starts = |case: &Case| {
            let (verdicts, _, admission) = Fleet::new(case, false, None).decide();
            let mut starts: BTreeMap<Scope, usize> = BTreeMap::new();
            let started = verdicts.iter().filter(|one| admission.admitted.contains(&one.uid));
            for one in started.filter(|one| *one.policy == *"p") {
                *starts.entry(one.place.counted(budget.per)).or_default() += 1;
            }
            starts
        };
        case.budgets = vec![budget.clone()];
        let larger = starts(&case);
        case.budgets = vec![Budget {
            max_repairs: budget.max_repairs.map(|(count, within)| (count.saturating_sub(less), within)),
            max_in_flight: Some(budget.max_in_flight.unwrap_or(24).saturating_sub(less)),
            max_unavailable: Some(match budget.max_unavailable {
                Some(Amount::Count(count)) => Amount::Count(count.saturating_sub(less)),
                Some(Amount::Percent(share)) => Amount::Percent(share.saturating_sub(10 * less)),
                None => Amount::Percent(100 - 10 * less),
            }),
            ..budget.clone()
        }];
        let smaller = starts(&case);
        prop_assert!(smaller.values().sum::<usize>() <= larger.values().sum::<usize>());
        for (scope, count) in smaller.iter().filter(|_| alone) {
            prop_assert!(Some(count) <= larger.get(scope), "{}", scope);
        }
    }

    #[test]
    fn h83_a_breaker_is_open_until_its_scope_is_well_for_the_cooldown_and_no_longer(
        case in storm_case()
    ) {
        let mut fleet = Fleet::deaf(&case);
        let mut fell: BTreeMap<String, (i64, bool)> = BTreeMap::new();
        let mut opened = BTreeSet::new();
        let mut watch = |fleet: &mut Fleet, second: i64| {
            let (verdicts, scopes) = fleet.look(second);
            for verdict in &verdicts {
                let known = fell.entry(verdict.uid.clone()).or_insert((i64::MIN, false));
                let sick = verdict.sick_since.is_some();
                *known = (if sick && !known.1 { second } else { known.0 }, sick);
            }
            for (scope, census) in scopes.census {
                let of = verdicts.iter().filter(|one| one.counts);
                let of = of.filter(|one| one.place.scopes().any(|own| own == scope));
                let (mut recent, mut sick, mut all) = (0, 0, 0);
                for verdict in of {
                    all += 1;
                    sick += usize::from(verdict.sick_since.is_some());
                    recent += usize::from(fell[&verdict.uid].0 + 600 >= second);
                }
                let share = all * case.limits.breaker.share as usize / 100;
                let most = share.min(case.limits.breaker.nodes as usize);
                let least = case.limits.breaker.min_nodes as usize;
                let limit = most.max(least - 1);
                let whole = scope == Scope::Cluster && sick == all && sick >= least;
                let expect = if whole || recent > limit {
                    "Open"
                } else if sick > limit {
                    "Slow"
                } else {
                    "Closed"
                };
                let found = format!("{:?}", census.breaker);
                assert!(found.starts_with(expect), "{scope} at {second}: {found}, not {expect}");
                if expect == "Open" {
                    opened.insert(scope);
                }
            }
        };
        for second in (0..=NOW).step_by(60) {
            fleet.hear(&case.machines, false, None, second);
            watch(&mut fleet, second);
        }
        let mut cured = case.machines.clone();
        for machine in &mut cured {
            (machine.unready, machine.fires) = (None, None);
        }
        for second in (NOW + 60..=NOW + 720).step_by(60) {
            fleet.hear(&cured, false, None, second);
            watch(&mut fleet, second);
        }
        prop_assume!(!opened.is_empty());
        for (scope, census) in fleet.look(NOW + 720).1.census {
            prop_assert_eq!(census.breaker, BreakerState::Closed, "{}", scope);
        }
    }
}
