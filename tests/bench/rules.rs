//! A pass over 100 rules and 10,000 nodes: time, and the peak of memory.

mod data {
    pub mod memory;
    pub mod names;
    pub mod nodes;
    pub mod pass;
}

use std::fmt::Write as _;

use data::memory;
use data::names::NOW;
use data::nodes;
use data::pass::{Setup, answer, warmed};
use divan::{AllocProfiler, Bencher};
use nodemend::prometheus::Waiting;
use nodemend_core::evidence::{Evidence, Input};
use nodemend_core::model::NodeView;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const NODES: usize = 10_000;
const RULES: usize = 100;
/// How often each rule is asked during one long pass.
const ROUNDS: usize = 10;
/// The rules that one fault rests on.
const PER_FAULT: usize = 5;

/// The peak is told first: the measuring holds several copies of everything.
fn main() {
    let setup = setup();
    let nodes = nodes::fleet(NODES, 1);
    println!(
        "peak memory, with the list of {NODES} nodes: {} MiB",
        memory::peak()
    );
    let mut evidence = warmed(&setup, &nodes);
    for rule in setup.rules.iter() {
        evidence.fold(answer(rule, &nodes), NOW);
    }
    assert_eq!(setup.pass(&mut evidence, NOW), setup.storm(NODES));
    println!(
        "… after passes over {RULES} rules, one answer at a time: {} MiB",
        memory::peak()
    );
    let waiting = Waiting::default();
    for round in 1..=ROUNDS {
        for rule in setup.rules.iter() {
            if let Input::Rule {
                name,
                asked,
                answer,
            } = answer(rule, &nodes)
            {
                waiting.put(&name, asked, answer);
            }
        }
        if [1, ROUNDS].contains(&round) {
            println!(
                "… with {round} answers to each waiting for one pass: {} MiB",
                memory::peak()
            );
        }
    }
    let mut taken = 0;
    for input in waiting.take() {
        evidence.fold(input, NOW);
        taken += 1;
    }
    assert_eq!(taken, RULES);
    println!("… and taken in: {} MiB", memory::peak());
    drop(evidence);
    divan::main();
}

/// The answers are taken in, then all is decided.
#[divan::bench(max_time = 30)]
fn answers_and_pass(bencher: Bencher<'_, '_>) {
    let (setup, nodes) = (setup(), nodes::fleet(NODES, 1));
    let evidence = warmed(&setup, &nodes);
    bencher
        .with_inputs(|| (evidence.clone(), answers(&setup, &nodes)))
        .bench_refs(|(evidence, answers)| {
            fold(evidence, answers);
            assert_eq!(setup.pass(evidence, NOW), setup.storm(NODES));
        });
}

/// The share of the answers in that.
#[divan::bench(max_time = 30)]
fn answers_alone(bencher: Bencher<'_, '_>) {
    let (setup, nodes) = (setup(), nodes::fleet(NODES, 1));
    let evidence = warmed(&setup, &nodes);
    bencher
        .with_inputs(|| (evidence.clone(), answers(&setup, &nodes)))
        .bench_refs(|(evidence, answers)| fold(evidence, answers));
}

fn fold(evidence: &mut Evidence, answers: &mut Vec<Input>) {
    for answer in answers.drain(..) {
        evidence.fold(answer, NOW);
    }
}

fn answers(setup: &Setup, nodes: &[NodeView]) -> Vec<Input> {
    let rules = setup.rules.iter();
    rules.map(|rule| answer(rule, nodes)).collect()
}

/// Rules that differ in their names, and a policy that needs every one of them.
fn setup() -> Setup {
    let mut rules = "groups:\n- name: bench\n  rules:\n".to_owned();
    let mut policy = "apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: general}
spec:
  replacement: {strategy: EC2}
  faults:
"
    .to_owned();
    for fault in 0..RULES / PER_FAULT {
        let names = (0..PER_FAULT).map(|part| format!("NodeFault{fault:02}Sign{part}"));
        let mut leaves = Vec::new();
        for name in names {
            let _ = writeln!(
                rules,
                "  - {{alert: {name}, expr: up == 0, keep_firing_for: 15m, annotations: {{nodemend_presence: up}}}}"
            );
            leaves.push(format!("{{signal: {name}}}"));
        }
        let _ = writeln!(
            policy,
            "  - {{name: Fault{fault:02}, actions: [Replace], when: {{any: [{}]}}}}",
            leaves.join(", ")
        );
    }
    Setup::read(&[&rules], &policy)
}
