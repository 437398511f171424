//! The fleet: the shipped rules and policy bound to its pools, and what breaks when.

use std::collections::BTreeMap;

use jiff::Timestamp;
use nodemend_core::api::{Action, Leaf, Mode, NodeSelector, Severity, When};
use nodemend_core::config::{self, Document, Fault as PolicyFault, Limits, Policy, Rules};
use nodemend_core::model::{DO_NOT_REPAIR_ANNOTATION, Span};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::controller::Setup;
use crate::sim::{Fault, HARDWARE_ALERT, World};

macro_rules! shipped {
    ($path:literal) => {
        Document {
            file: $path,
            text: include_str!(concat!("../../../", $path)),
        }
    };
}

const RULES: [Document<'_>; 3] = [
    shipped!("rules/node-disk.yaml"),
    shipped!("rules/node-network.yaml"),
    shipped!("rules/node-ready.yaml"),
];
const POLICY: Document<'_> = shipped!("rules/policies/general.yaml");

/// Nothing is planned for this node: it is for whoever tries the webhook.
pub(super) const SPARE: &str = "general-3";

/// A machine that breaks.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) node: String,
    pub(super) fault: Fault,
    pub(super) start: Timestamp,
}

/// The shipped rules, and the shipped policy for each pool.
pub(super) fn setup() -> Setup {
    let mut general = bound("general", Mode::Enforce);
    // The shipped policy polls all of its signals; this one only a webhook brings.
    general.faults.push(reported_broken());
    Setup {
        cluster_tag: "kubernetes.io/cluster/sim".into(),
        rules: rules(),
        policies: vec![general, bound("batch", Mode::Observe)],
        limits: Limits::default(),
        cluster_jobs: config::CLUSTER_JOBS.map(str::to_owned).to_vec(),
        external_labels: BTreeMap::new(),
    }
}

fn rules() -> Rules {
    config::rules(&RULES).expect("a test loads what is shipped")
}

fn bound(pool: &str, mode: Mode) -> Policy {
    let shipped = config::policies(&[POLICY]).expect("a test loads what is shipped");
    let policy = shipped.into_iter().next().expect("one policy is shipped");
    Policy {
        name: pool.into(),
        mode,
        selector: NodeSelector {
            match_labels: [("workload".to_owned(), pool.to_owned())].into(),
            match_expressions: vec![],
        },
        ..policy
    }
}

fn reported_broken() -> PolicyFault {
    let signal = Leaf {
        signal: Some(HARDWARE_ALERT.into()),
        ..Leaf::default()
    };
    PolicyFault {
        name: "ReportedBroken".into(),
        severity: Severity::Critical,
        when: When {
            all: vec![signal],
            ..When::default()
        },
        for_: Span::minutes(1),
        actions: vec![Action::Replace],
        confirm: None,
    }
}

/// Nine nodes in one pool and three in another; and what breaks, by the seed.
pub(super) fn populate(world: &World, seed: u64, start: Timestamp) -> Vec<Planned> {
    let general = pool(world, "general", 9, 0);
    let batch = pool(world, "batch", 3, 9);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut candidates: Vec<String> = general.into_iter().filter(|name| name != SPARE).collect();
    let failing = pick(&mut candidates, &mut random);
    let reported = pick(&mut candidates, &mut random);
    let unready = pick(&mut candidates, &mut random);
    let opted_out = pick(&mut candidates, &mut random);
    let observed = pick(&mut batch.clone(), &mut random);
    world.annotate(&opted_out, DO_NOT_REPAIR_ANNOTATION, "true");
    let disk = [Fault::DiskReadOnly, Fault::DiskSilent][random.next_u32() as usize % 2];
    // Far enough apart that the breaker does not take them for a storm.
    let events: [(&String, u32, &[Fault]); 5] = [
        (&failing, 2, &[disk, Fault::KubeletDown]),
        (&reported, 18, &[Fault::Hardware]),
        (&unready, 32, &[Fault::KubeletDown]),
        (&opted_out, 48, &[Fault::DiskFull, Fault::NicErrors]),
        (&observed, 62, &[Fault::KubeletDown]),
    ];
    let mut plan = Vec::new();
    for (node, from, faults) in events {
        let start = Span::minutes(from + random.next_u32() % 4).after(start);
        plan.extend(faults.iter().map(|fault| Planned {
            node: node.clone(),
            fault: *fault,
            start,
        }));
    }
    plan
}

/// Adds the nodes of a pool, three pods on each; the zones go on where the last pool ended.
fn pool(world: &World, pool: &str, count: usize, before: usize) -> Vec<String> {
    let names: Vec<String> = (1..=count).map(|n| format!("{pool}-{n}")).collect();
    for (index, name) in names.iter().enumerate() {
        let zone = ["a", "b", "c"][(before + index) % 3];
        world.add_node(name, zone, &[("workload", pool)]);
        for pod in 0..3 {
            world.add_pod(&format!("{name}-pod-{pod}"), name);
        }
    }
    names
}

fn pick(names: &mut Vec<String>, random: &mut ChaCha8Rng) -> String {
    let index = random.next_u32() as usize % names.len();
    names.swap_remove(index)
}
