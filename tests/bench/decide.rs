//! How a pass over the shipped rules and policy grows with nodes and with policies.

mod data {
    pub mod memory;
    pub mod names;
    pub mod nodes;
    pub mod pass;
}

use data::memory;
use data::names::NOW;
use data::nodes::{self, pool};
use data::pass::{Outcome, Setup, answer, warmed};
use divan::{AllocProfiler, Bencher};
use nodemend_core::config::Policy;
use nodemend_core::evidence::{Evidence, Input};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const NODES: [usize; 2] = [10_000, 100_000];
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
        assert_eq!(setup.pass(&mut evidence, NOW), Outcome::storm(nodes));
        println!(
            "peak memory, {nodes} nodes and their next list: {} MiB",
            memory::peak()
        );
    }
    divan::main();
}

/// The clocks, what the guards count, every verdict, and who may start.
#[divan::bench(args = FLEETS, max_time = 20)]
fn pass(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    let (setup, evidence) = fleet(size);
    bencher
        .with_inputs(|| evidence.clone())
        .bench_refs(|evidence| {
            assert_eq!(setup.pass(evidence, NOW), Outcome::storm(size.0));
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

/// The shipped rules, and the shipped policy once for each pool.
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
    let evidence = warmed(&setup, &nodes::fleet(nodes, pools));
    (setup, evidence)
}

fn of_pool(shipped: &Policy, number: usize) -> Policy {
    let mut policy = shipped.clone();
    policy.name = format!("{}-{number}", shipped.name);
    let label = ("workload".to_owned(), pool(number));
    policy.selector.match_labels = [label].into();
    policy
}
