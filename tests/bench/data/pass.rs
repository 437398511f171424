//! Rules, policies, answers of Prometheus, and the leader's pass over them without its I/O.

use jiff::Timestamp;
use nodemend::prometheus::{self, Sample};
use nodemend_core::api::{Mode, NodeRepair};
use nodemend_core::config::{self, Document, Limits, Policy, Rule, Rules};
use nodemend_core::decide::{self, Fallen, Observed, World};
use nodemend_core::evidence::identity::Labels;
use nodemend_core::evidence::{Evidence, Input};
use nodemend_core::model::{NodeView, Span, VerdictKind};

use super::names::NOW;

/// One in this many nodes is sick.
pub const SICK: usize = 100;

/// What a pass decides by.
pub struct Setup {
    /// The polled rules.
    pub rules: Rules,
    /// The policies.
    pub policies: Vec<Policy>,
    /// The limits over all of them.
    pub limits: Limits,
    /// The repairs on record.
    pub repairs: Vec<NodeRepair>,
    /// The nodes that fell sick lately.
    pub fallen: Vec<Fallen>,
}

impl Setup {
    /// Of the texts of rule files and of one policy.
    /// Nothing has to last, so that two passes show all.
    pub fn read(rules: &[&str], policy: &str) -> Self {
        let documents: Vec<Document<'_>> = rules.iter().copied().map(document).collect();
        let rules = config::rules(&documents).expect("the rules are sound");
        let mut policies = config::policies(&[document(policy)]).expect("the policy is sound");
        let rules = rules.iter().map(|rule| Rule {
            for_: Span::default(),
            ..rule.clone()
        });
        let rules = rules.collect();
        for policy in &mut policies {
            policy.mode = Mode::Enforce;
            for fault in &mut policy.faults {
                fault.for_ = Span::default();
            }
        }
        Self {
            rules,
            policies,
            limits: Limits::default(),
            repairs: Vec::new(),
            fallen: Vec::new(),
        }
    }

    /// What the leader does between its inputs and its first write.
    pub fn pass(&self, evidence: &mut Evidence, now: Timestamp) -> Outcome {
        evidence.settle(&self.rules, &self.policies, now);
        let world = World {
            evidence,
            rules: &self.rules,
            policies: &self.policies,
            limits: &self.limits,
            repairs: &self.repairs,
            fallen: &self.fallen,
            starts: &[],
            reserved: &[],
            pauses: &[],
            observed: Observed::default(),
        };
        let mut verdicts = decide::judge_all(&world, now);
        let scopes = decide::survey(&verdicts, &world, now);
        let admitted = decide::admit(&mut verdicts, &scopes, &world, now).admitted;
        let count = |kind| {
            let all = verdicts.iter();
            all.filter(|verdict| verdict.kind == kind).count()
        };
        Outcome {
            healthy: count(VerdictKind::Healthy),
            repairing: count(VerdictKind::Repairing),
            held: count(VerdictKind::Held),
            admitted: admitted.len(),
        }
    }

    /// What it comes to in a storm: in a fleet of so many nodes one in `SICK` is sick.
    pub fn storm(&self, nodes: usize) -> Outcome {
        let repairing = self.repairs.iter().filter(|repair| repair.open()).count();
        Outcome {
            healthy: nodes - nodes / SICK,
            repairing,
            held: nodes / SICK - repairing,
            admitted: 0,
        }
    }
}

/// What a pass came to, so that a benchmark cannot measure nothing unnoticed.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Nodes without a fault.
    pub healthy: usize,
    /// Nodes that are repaired.
    pub repairing: usize,
    /// Nodes whose repair a guard holds.
    pub held: usize,
    /// Repairs that may start.
    pub admitted: usize,
}

const fn document(text: &str) -> Document<'_> {
    Document { file: "", text }
}

/// What Prometheus says to a rule: every node has data, the sick ones fire.
pub fn answer(rule: &Rule, nodes: &[NodeView]) -> Input {
    let sample = |labels: Labels| Sample {
        labels,
        at: 0.0,
        value: 0.0,
    };
    let firing = nodes.iter().step_by(SICK).map(fired).map(sample);
    let present = nodes.iter().map(present).map(sample);
    Input::Rule {
        asked: Timestamp::MAX,
        name: rule.name.clone(),
        answer: prometheus::answer(Ok(firing.collect()), Some(Ok(present.collect()))),
    }
}

fn fired(node: &NodeView) -> Labels {
    labels([("instance", &node.name), ("job", "node-exporter")])
}

/// With all that kube-prometheus puts on a series of the node exporter.
fn present(node: &NodeView) -> Labels {
    labels([
        ("container", "node-exporter"),
        ("device", "/dev/nvme0n1p1"),
        ("endpoint", "https"),
        ("fstype", "xfs"),
        ("instance", &node.name),
        ("job", "node-exporter"),
        ("mountpoint", "/"),
        ("namespace", "monitoring"),
        ("pod", &format!("node-exporter-{}", node.resource_version)),
        ("service", "node-exporter"),
    ])
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    pairs.into_iter().map(owned).collect()
}

/// What is known after one pass, half a minute before the one that is measured.
pub fn warmed(setup: &Setup, nodes: &[NodeView]) -> Evidence {
    let then = Span::seconds(30).before(NOW);
    let mut evidence = Evidence::default();
    evidence.fold(Input::Nodes(nodes.to_vec()), then);
    for rule in setup.rules.iter() {
        evidence.fold(answer(rule, nodes), then);
    }
    assert_eq!(setup.pass(&mut evidence, then), setup.storm(nodes.len()));
    evidence
}
