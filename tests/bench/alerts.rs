//! A delivery of Alertmanager, from its bytes to what it says of each of 10,000 nodes.

mod data {
    pub mod names;
    pub mod nodes;
    pub mod payload;
}

use data::names::NOW;
use data::nodes;
use data::payload::{ALERT, payload};
use divan::{AllocProfiler, Bencher};
use nodemend::alertmanager::{Delivery, decode};
use nodemend_core::config::{Document, Policy, Rules, policies};
use nodemend_core::evidence::identity::Labels;
use nodemend_core::evidence::silence::{Asked, AskedAlert};
use nodemend_core::evidence::{Evidence, Input};
use nodemend_core::model::{Span, Truth};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const NODES: usize = 10_000;
const ALERTS: [usize; 2] = [500, 5_000];

fn main() {
    divan::main();
}

/// The JSON, and what is kept of each alert.
#[divan::bench(args = ALERTS)]
fn parse(bencher: Bencher<'_, '_>, alerts: usize) {
    let body = payload(alerts, "nodemend");
    assert_eq!(stored(&delivery(alerts)), alerts);
    bencher.bench(|| decode(&body, "bench", &Labels::new(), NOW));
}

/// The stored groups are taken in, each alert is joined to its node.
#[divan::bench(args = ALERTS, max_time = 30)]
fn join(bencher: Bencher<'_, '_>, alerts: usize) {
    let evidence = known();
    let delivery = delivery(alerts);
    bencher
        .with_inputs(|| (evidence.clone(), delivery.clone()))
        .bench_refs(|(evidence, delivery)| fold(evidence, std::mem::take(&mut delivery.groups)));
}

/// The next pass: the clocks, then every fault of every node.
#[divan::bench(args = ALERTS, max_time = 30)]
fn pass(bencher: Bencher<'_, '_>, alerts: usize) {
    let mut evidence = known();
    fold(&mut evidence, delivery(alerts).groups);
    measure(bencher, &evidence, alerts);
}

/// The same where Alertmanager, asked, lists the same alerts.
#[divan::bench(args = ALERTS, max_time = 30)]
fn pass_asked(bencher: Bencher<'_, '_>, alerts: usize) {
    let mut evidence = known();
    fold(&mut evidence, delivery(alerts).groups);
    evidence.fold(Input::Asked(asked(alerts)), NOW);
    measure(bencher, &evidence, alerts);
}

fn measure(bencher: Bencher<'_, '_>, evidence: &Evidence, alerts: usize) {
    let policies = [policy()];
    bencher
        .with_inputs(|| evidence.clone())
        .bench_refs(|evidence| {
            evidence.settle(&Rules::default(), &policies, NOW);
            assert_eq!(faulty(evidence, &policies[0]), alerts);
        });
}

fn faulty(evidence: &Evidence, policy: &Policy) -> usize {
    let is =
        |node, name| evidence.fault(node, policy, name, &Rules::default(), NOW).0 == Truth::True;
    let all = evidence.nodes();
    all.map(|node| {
        let faults = policy.faults.iter();
        faults.filter(|fault| is(node, &fault.name)).count()
    })
    .sum()
}

/// Every node, before the delivery.
fn known() -> Evidence {
    let then = Span::seconds(30).before(NOW);
    let mut evidence = Evidence::default();
    evidence.fold(Input::Nodes(nodes::fleet(NODES, 1)), then);
    evidence.settle(&Rules::default(), &[policy()], then);
    evidence
}

/// On alerts that kube-prometheus brings; one of them fires.
fn policy() -> Policy {
    let text = format!(
        "apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {{name: general}}
spec:
  faults:
  - {{name: Disk, actions: [Replace], when: {{any: [{{signal: {ALERT}}}, {{signal: NodeFilesystemAlmostOutOfFiles}}]}}}}
  - {{name: Network, actions: [Replace], when: {{any: [{{signal: NodeNetworkReceiveErrs}}, {{signal: NodeNetworkTransmitErrs}}]}}}}
  - {{name: NotReady, actions: [Replace], when: {{all: [{{signal: KubeNodeNotReady}}]}}}}
  replacement: {{strategy: EC2}}
"
    );
    let read = policies(&[Document {
        file: "",
        text: &text,
    }]);
    read.expect("the policy is sound").remove(0)
}

fn delivery(alerts: usize) -> Delivery {
    let body = payload(alerts, "nodemend");
    decode(&body, "bench", &Labels::new(), NOW).expect("the payload is Alertmanager's")
}

fn stored(delivery: &Delivery) -> usize {
    let groups = delivery.groups.values();
    groups.map(|group| group.alerts.len()).sum()
}

fn fold(
    evidence: &mut Evidence,
    groups: std::collections::BTreeMap<String, nodemend_core::api::AlertGroupSpec>,
) {
    for (object, group) in groups {
        evidence.fold(Input::Alerts { object, group }, NOW);
    }
}

/// The delivery as Alertmanager lists it, by a member that runs for long.
fn asked(alerts: usize) -> Asked {
    let groups = delivery(alerts).groups.into_values();
    let listed = groups.flat_map(|group| group.alerts);
    Asked {
        at: NOW,
        running_since: Span::minutes(60).before(NOW),
        receivers: Vec::new(),
        missing: None,
        alerts: listed
            .map(|(fingerprint, mut alert)| {
                alert.labels.insert("alertname".into(), alert.name);
                AskedAlert {
                    fingerprint,
                    labels: alert.labels,
                    starts_at: alert.starts_at,
                    updated_at: NOW,
                }
            })
            .collect(),
        silences: Vec::new(),
    }
}
