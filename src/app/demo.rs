//! Wiring: the simulated fleet joined to the controller and to the real decoding of
//! query answers, run from start to end in virtual time, without a runtime.

use futures_util::FutureExt as _;
use jiff::Timestamp;
use nodemend_core::api::{
    Action, AtLeast, ConditionLeaf, ConditionStatus, Leaf, Mode, NodeSelector, Phase, Severity,
    Strategy, When,
};
use nodemend_core::config::{Fault, Limits, Policy, Rule};
use nodemend_core::evidence::Input;
use nodemend_core::model::{DO_NOT_REPAIR_ANNOTATION, Reason, Span, VerdictKind};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::Serialize;

use crate::controller::{Controller, Report, Setup};
use crate::prometheus;
use crate::sim::{Kill, World};

/// How far virtual time moves between two passes.
const STEP: Span = Span::seconds(10);
/// How long the fleet is watched.
const LENGTH: Span = Span::minutes(75);
/// More series than the fleet has nodes would be a mistake of the world.
const MAX_SERIES: usize = 1000;

/// What a run came to; the same seed gives the same document, byte for byte.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// How many nodes there are at the end.
    pub nodes: usize,
    /// Every repair.
    pub repairs: Vec<RepairLine>,
    /// Nodes that a guard held.
    pub held: Vec<HeldLine>,
    /// Nodes of policies that only observe.
    pub observed: Vec<ObservedLine>,
    /// What was checked after every step.
    pub invariants: Invariants,
}

/// One repair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RepairLine {
    /// The node.
    pub node: String,
    /// The fault.
    pub fault: String,
    /// Where it is.
    pub phase: Phase,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; null while open.
    pub ended: Option<Timestamp>,
    /// Its trace.
    pub trace_id: String,
}

/// One held node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeldLine {
    /// The node.
    pub node: String,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// One observed node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObservedLine {
    /// The node.
    pub node: String,
    /// What would have been repaired.
    pub fault: String,
}

/// What was checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Invariants {
    /// How many checks.
    pub checked: u64,
    /// Those that failed.
    pub violated: Vec<String>,
}

/// Something worth telling while the fleet runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What, in a sentence.
    pub text: String,
}

/// A fault that the seed placed.
#[derive(Clone, Debug)]
struct Planned {
    node: String,
    alert: &'static str,
    start: Timestamp,
}

/// Runs a fleet of twelve nodes; `kill` strikes the leader once, and another takes over.
/// `tell` hears of every change of a verdict or a phase.
pub fn run(seed: u64, kill: Option<Kill>, tell: impl FnMut(Event)) -> (Summary, World) {
    let start = Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH);
    let world = World::new(start);
    let plan = populate(&world, seed, start);
    world.kill_at(kill);
    let setup = setup();
    let mut controller = Controller::new(world.clone(), world.clone(), setup.clone(), None);
    let mut story = Story {
        seen: std::collections::BTreeMap::new(),
        tell,
    };
    let (mut last, mut now) = (None, start);
    while now <= LENGTH.after(start) {
        for fault in plan.iter().filter(|fault| fault.start <= now) {
            // A replacement does not inherit the fault, so it is set on this very node only.
            if world
                .list_nodes()
                .iter()
                .any(|node| node.name == fault.node && node.created == start)
            {
                world.set_fault(&fault.node, fault.alert, true);
            }
        }
        match controller
            .pass(inputs(&world, &setup), &[], now)
            .now_or_never()
        {
            Some(Ok(report)) => {
                story.hear(&report, now);
                last = Some(report);
            }
            Some(Err(_)) => {}
            // The leader was killed: another one starts from the records alone.
            None => {
                world.kill_at(None);
                controller =
                    Controller::new(world.clone(), world.clone(), setup.clone(), Some(now));
            }
        }
        world.tick(STEP);
        now = STEP.after(now);
    }
    (summarize(seed, &world, last.as_ref()), world)
}

fn populate(world: &World, seed: u64, start: Timestamp) -> Vec<Planned> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (general, batch): (Vec<String>, Vec<String>) = (
        (1..=9).map(|n| format!("general-{n}")).collect(),
        (1..=3).map(|n| format!("batch-{n}")).collect(),
    );
    for (index, name) in general.iter().chain(&batch).enumerate() {
        let pool = if index < general.len() {
            "general"
        } else {
            "batch"
        };
        world.add_node(name, ["a", "b", "c"][index % 3], &[("workload", pool)]);
        for pod in 0..3 {
            world.add_pod(&format!("{name}-pod-{pod}"), name);
        }
    }
    let first = (random.next_u32() % 9) as usize;
    let second = (first + 1 + (random.next_u32() % 4) as usize) % 9;
    let third = (first + 5 + (random.next_u32() % 4) as usize) % 9;
    let minute = |from: u32, random: &mut ChaCha8Rng| {
        Span::minutes(from + random.next_u32() % 4).after(start)
    };
    world.annotate(&general[third], DO_NOT_REPAIR_ANNOTATION, "true");
    let mut plan = Vec::new();
    let times = [
        minute(2, &mut random),
        minute(20, &mut random),
        minute(36, &mut random),
        minute(45, &mut random),
    ];
    for (node, time) in [(&general[first], times[0]), (&general[third], times[2])] {
        plan.push(Planned {
            node: node.clone(),
            alert: DISK,
            start: time,
        });
        plan.push(Planned {
            node: node.clone(),
            alert: "NotReady",
            start: time,
        });
    }
    plan.push(Planned {
        node: general[second].clone(),
        alert: "NotReady",
        start: times[1],
    });
    plan.push(Planned {
        node: batch[(random.next_u32() % 3) as usize].clone(),
        alert: "NotReady",
        start: times[3],
    });
    plan
}

const DISK: &str = "NodeFilesystemReadOnly";

fn setup() -> Setup {
    let rule = Rule {
        name: DISK.into(),
        expr: String::new(),
        for_: Span::minutes(1),
        keep_firing_for: Span::minutes(15),
        presence: Some(String::new()),
        interval: Span::seconds(30),
    };
    Setup {
        cluster_tag: "kubernetes.io/cluster/sim".into(),
        rules: vec![rule],
        policies: vec![
            policy("general", Mode::Enforce),
            policy("batch", Mode::Observe),
        ],
        limits: Limits::default(),
    }
}

fn policy(name: &str, mode: Mode) -> Policy {
    let signal = Leaf {
        signal: Some(DISK.into()),
        ..Leaf::default()
    };
    let unready = || Leaf {
        condition: Some(ConditionLeaf {
            type_: "Ready".into(),
            statuses: vec![ConditionStatus::False, ConditionStatus::Unknown],
            reasons: vec![],
        }),
        ..Leaf::default()
    };
    let both = When {
        at_least: Some(AtLeast {
            count: 2,
            of: vec![signal, unready()],
        }),
        ..When::default()
    };
    let alone = When {
        all: vec![unready()],
        ..When::default()
    };
    let fault = |name: &str, severity, when, minutes| Fault {
        name: name.into(),
        severity,
        when,
        for_: Span::minutes(minutes),
        replaces: [Action::Replace].contains(&Action::Replace),
    };
    Policy {
        name: name.into(),
        mode,
        priority: 0,
        selector: NodeSelector {
            match_labels: [("workload".to_owned(), name.to_owned())].into(),
            match_expressions: vec![],
        },
        faults: vec![
            fault("DiskFailing", Severity::Critical, both, 2),
            fault("NotReadyTooLong", Severity::Warning, alone, 10),
        ],
        strategy: Some(Strategy::EC2),
        launch_template: None,
        ready_timeout: Span::minutes(15),
        max_attempts: 2,
        drain_timeout: Span::minutes(15),
        max_pod_grace_period: None,
    }
}

fn inputs(world: &World, setup: &Setup) -> Vec<Input> {
    let mut inputs = vec![Input::Nodes(world.list_nodes())];
    for rule in &setup.rules {
        let ask = |fault| prometheus::decode(&world.answer(fault), MAX_SERIES);
        let answer = prometheus::answer(ask(Some(rule.name.as_str())), Some(ask(None)));
        inputs.push(Input::Rule {
            name: rule.name.clone(),
            answer,
        });
    }
    inputs
}

/// Tells what changed between two passes.
struct Story<F> {
    seen: std::collections::BTreeMap<String, String>,
    tell: F,
}

impl<F: FnMut(Event)> Story<F> {
    fn hear(&mut self, report: &Report, at: Timestamp) {
        for verdict in report
            .verdicts
            .iter()
            .filter(|verdict| verdict.kind != VerdictKind::Ignored)
        {
            let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
            let fault = if verdict.fault.is_empty() {
                String::new()
            } else {
                format!(" {}", verdict.fault)
            };
            let why = if reasons.is_empty() {
                String::new()
            } else {
                format!(" ({})", reasons.join(", "))
            };
            self.say(
                &verdict.node,
                &format!("{:?}{fault}{why}", verdict.kind),
                at,
                "Healthy",
            );
        }
        for repair in &report.repairs {
            let name = repair.metadata.name.clone().unwrap_or_default();
            self.say(
                &format!("repair {name}"),
                &format!("{:?}", repair.phase()),
                at,
                "",
            );
        }
    }

    fn say(&mut self, who: &str, what: &str, at: Timestamp, usual: &str) {
        let before = self.seen.insert(who.to_owned(), what.to_owned());
        if before.as_deref().unwrap_or(usual) != what {
            (self.tell)(Event {
                at,
                text: format!("{who}: {what}"),
            });
        }
    }
}

fn summarize(seed: u64, world: &World, last: Option<&Report>) -> Summary {
    let repairs = world.list_repairs().into_iter().map(|repair| {
        let status = repair.status.clone().unwrap_or_default();
        RepairLine {
            node: repair.spec.node_name,
            fault: repair.spec.fault,
            phase: status.phase,
            started: repair.spec.quarantine.at,
            ended: status.ended,
            trace_id: status.trace_id,
        }
    });
    let mut repairs: Vec<RepairLine> = repairs.collect();
    repairs.sort_by(|one, other| (one.started, &one.node).cmp(&(other.started, &other.node)));
    let verdicts = || {
        last.into_iter()
            .flat_map(|report| &report.verdicts)
            .filter(|verdict| verdict.kind == VerdictKind::Held)
    };
    let observing = |reasons: &[Reason]| reasons.contains(&Reason::ObserveMode);
    let (checked, violated) = world.invariants();
    Summary {
        seed,
        nodes: world.list_nodes().len(),
        repairs,
        held: verdicts()
            .filter(|verdict| !observing(&verdict.reasons))
            .map(|verdict| HeldLine {
                node: verdict.node.clone(),
                reasons: verdict.reasons.clone(),
            })
            .collect(),
        observed: verdicts()
            .filter(|verdict| observing(&verdict.reasons))
            .map(|verdict| ObservedLine {
                node: verdict.node.clone(),
                fault: verdict.fault.clone(),
            })
            .collect(),
        invariants: Invariants { checked, violated },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

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
            let (summary, _) = run(seed, None, |_| {});
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
        let document = || serde_json::to_string(&run(7, None, |_| {}).0).unwrap();
        assert_eq!(document(), document());
    }

    #[test]
    fn h48_killed_before_and_after_every_call_ends_the_same() {
        let (reference, world) = run(1, None, |_| {});
        let (calls, expected) = (world.calls().len(), effects(&world));
        let mut cases = 0;
        for index in 0..calls {
            for kill in [Kill::Before(index), Kill::After(index)] {
                let (summary, after) = run(1, Some(kill), |_| {});
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
}
