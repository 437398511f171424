//! How a pass over the shipped rules and policy grows with nodes and with policies.

mod data {
    pub mod memory;
    pub mod names;
    pub mod nodes;
    pub mod pass;
    pub mod records;
}

use data::memory;
use data::names::NOW;
use data::nodes::{self, pool};
use data::pass::{SICK, Setup, answer, warmed};
use data::records;
use divan::{AllocProfiler, Bencher};
use nodemend_core::config::Policy;
use nodemend_core::evidence::{Evidence, Input};
use nodemend_core::model::NodeView;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const NODES: [usize; 2] = [10_000, 100_000];
/// Repairs under way.
const REPAIRED: usize = 8;
/// Repairs on record that ended.
const ENDED: usize = 200;
/// By nodes and policies.
const FLEETS: [(usize, usize); 6] = [
    (NODES[0], 1),
    (NODES[0], 5),
    (NODES[0], 20),
    (NODES[1], 1),
    (NODES[1], 5),
    (NODES[1], 20),
];

/// The peak is told first: the measuring holds several copies of everything.
fn main() {
    for nodes in NODES {
        let (setup, mut evidence) = fleet((nodes, 1));
        evidence.fold(Input::Nodes(nodes::fleet(nodes, 1)), NOW);
        assert_eq!(setup.pass(&mut evidence, NOW), setup.storm(nodes));
        println!(
            "peak memory, {nodes} nodes and their next list: {} MiB",
            memory::peak()
        );
    }
    divan::main();
}

/// The clocks, every verdict, what the guards count, and who may start.
#[divan::bench(args = FLEETS, max_time = 20)]
fn pass(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    let (setup, evidence) = fleet(size);
    bencher
        .with_inputs(|| evidence.clone())
        .bench_refs(|evidence| {
            assert_eq!(setup.pass(evidence, NOW), setup.storm(size.0));
        });
}

/// A new list of all nodes, as each change of a node brings it.
#[divan::bench(args = NODES, max_time = 20)]
fn list(bencher: Bencher<'_, '_>, nodes: usize) {
    let list = nodes::fleet(nodes, 1);
    let (_, evidence) = fleet((nodes, 1));
    bencher
        .with_inputs(|| (evidence.clone(), list.clone()))
        .bench_refs(|(evidence, list)| {
            evidence.fold(Input::Nodes(std::mem::take(list)), NOW);
        });
}

/// An answer to one rule.
#[divan::bench(args = NODES, max_time = 20)]
fn answered(bencher: Bencher<'_, '_>, nodes: usize) {
    let list = nodes::fleet(nodes, 1);
    let (setup, evidence) = fleet((nodes, 1));
    bencher
        .with_inputs(|| (evidence.clone(), Some(answer(&setup.rules[0], &list))))
        .bench_refs(|(evidence, answer)| {
            let answer = answer.take().expect("each input is used once");
            evidence.fold(answer, NOW);
        });
}

/// The shipped rules, and the shipped policy once for each pool. Of the sick nodes a few are
/// repaired already, and all are on record, beside repairs that ended and nodes that are well
/// again.
fn fleet((nodes, pools): (usize, usize)) -> (Setup, Evidence) {
    let mut setup = Setup::read(
        &[
            include_str!("../../rules/node-disk.yaml"),
            include_str!("../../rules/node-network.yaml"),
            include_str!("../../rules/node-ready.yaml"),
        ],
        include_str!("../../rules/policies/general.yaml"),
    );
    let shipped = setup.policies.remove(0);
    setup.policies = (0..pools).map(|number| of_pool(&shipped, number)).collect();
    let fleet = nodes::fleet(nodes, pools);
    let sick = || fleet.iter().step_by(SICK);
    let draining: Vec<&NodeView> = sick().take(REPAIRED).collect();
    let well = fleet.iter().skip(1).step_by(SICK).take(REPAIRED);
    setup.repairs = records::repairs(&draining, ENDED, &setup.policies[0].name, "NodeFailing");
    let fallen = sick().map(|node| records::fallen(node, true));
    let fallen = fallen.chain(well.map(|node| records::fallen(node, false)));
    setup.fallen = fallen.collect();
    let evidence = warmed(&setup, &fleet);
    (setup, evidence)
}

fn of_pool(shipped: &Policy, number: usize) -> Policy {
    let mut policy = shipped.clone();
    policy.name = format!("{}-{number}", shipped.name);
    let label = ("workload".to_owned(), pool(number));
    policy.selector.match_labels = [label].into();
    policy
}
