//! The alerts of kube-prometheus' current rules as Alertmanager 0.34 sent them, and what the
//! shipped policies make of them.

use std::collections::BTreeSet;

use nodemend_core::config::{self, Document, Policy, Rules};
use nodemend_core::evidence::identity::Unresolved;
use nodemend_core::evidence::silence::Asked;
use nodemend_core::evidence::{Answer, signal_names};
use nodemend_core::model::{Condition, Truth};

use super::*;

/// One delivery in each line. kube-state-metrics' instance is the address of node 18, the
/// worst case; `NodeNetworkTransmitErrs` has the labels of the chart kube-prometheus-stack.
const DELIVERIES: &str = include_str!("../kube-prometheus.jsonl");

macro_rules! shipped {
    ($path:literal) => {
        Document {
            file: $path,
            text: include_str!(concat!("../../../", $path)),
        }
    };
}

const GENERAL: Document<'_> = shipped!("rules/policies/general.yaml");
const KUBE_PROMETHEUS: Document<'_> = shipped!("rules/policies/kube-prometheus/general.yaml");
const RULES: [Document<'_>; 3] = [
    shipped!("rules/node-disk.yaml"),
    shipped!("rules/node-network.yaml"),
    shipped!("rules/node-ready.yaml"),
];
const PARTS: [&str; 3] = ["Disk", "Network", "NotReady"];

/// When they were received, all but the one with a resolved alert.
fn received() -> Timestamp {
    "2026-11-24T21:23:40Z".parse().unwrap()
}

fn policy(document: Document<'_>) -> Policy {
    config::policies(&[document]).unwrap().remove(0)
}

fn rules() -> Rules {
    config::rules(&RULES).unwrap()
}

fn node(number: u8, ready: &str) -> NodeView {
    NodeView {
        name: format!("ip-10-0-1-{number}.eu-central-1.compute.internal"),
        uid: format!("uid-{number}"),
        created: received() - jiff::SignedDuration::from_hours(1),
        addresses: vec![format!("10.0.1.{number}")],
        conditions: vec![Condition {
            type_: "Ready".into(),
            status: ready.into(),
            reason: String::new(),
        }],
        ..NodeView::default()
    }
}

const NODES: [u8; 3] = [17, 18, 19];

/// What is known a while later, with every shipped rule polled and clear.
struct Known {
    evidence: Evidence,
    nodes: Vec<NodeView>,
    now: Timestamp,
}

impl Known {
    fn of(ready: &str, is_asked: bool, alerts: impl Fn(&str) -> bool) -> Self {
        let now = received() + jiff::SignedDuration::from_secs(60);
        let nodes: Vec<NodeView> = NODES.iter().map(|number| node(*number, ready)).collect();
        let mut evidence = Evidence::default();
        evidence.fold(Input::Nodes(nodes.clone()), now);
        for rule in rules().iter() {
            let present = nodes
                .iter()
                .map(|node| [("node".into(), node.name.clone())].into());
            let answer = Answer::Series {
                firing: vec![],
                present: Some(present.collect()),
            };
            evidence.fold(
                Input::Rule {
                    asked: Timestamp::MAX,
                    name: rule.name.clone(),
                    answer,
                },
                now,
            );
        }
        if is_asked {
            let asked = Asked {
                at: received() - jiff::SignedDuration::from_secs(10),
                running_since: node(17, ready).created,
                receivers: Vec::new(),
                missing: None,
                alerts: vec![],
                silences: vec![],
            };
            evidence.fold(Input::Asked(asked), now);
        }
        let store = Memory::default();
        for body in DELIVERIES.lines().filter(|body| alerts(name(body))) {
            let has_end = body.contains(r#""status":"resolved""#);
            let later = jiff::SignedDuration::from_secs(if has_end { 30 } else { 0 });
            assert_eq!(
                deliver(&store, body, received() + later).unwrap().skipped,
                0
            );
        }
        for group in store.all() {
            let (object, group) = (group.metadata.name.unwrap(), group.spec);
            evidence.fold(Input::Alerts { object, group }, now);
        }
        Self {
            evidence,
            nodes,
            now,
        }
    }

    fn truths(&self, document: Document<'_>, fault: &str) -> Vec<Truth> {
        let (policy, rules) = (policy(document), rules());
        let truth = |node| {
            self.evidence
                .fault(node, &policy, fault, &rules, self.now)
                .0
        };
        self.nodes.iter().map(truth).collect()
    }

    fn firing(&self, alert: &str) -> Vec<u8> {
        let state = |node| {
            self.evidence
                .signal(node, alert, &Rules::default(), self.now)
                .state
        };
        let firing = |number: &&u8| {
            let mut nodes = self.nodes.iter();
            let found = nodes.find(|node| node.uid == format!("uid-{number}"));
            state(found.unwrap()) == SignalState::Firing
        };
        NODES.iter().filter(firing).copied().collect()
    }
}

/// Deliveries are grouped by the alert's name.
fn name(body: &str) -> &str {
    let (_, rest) = body.split_once(r#""groupLabels":{"alertname":""#).unwrap();
    rest.split('"').next().unwrap()
}

/// Where each is true, by what `of` says of a node.
fn truths(of: impl Fn(u8) -> bool) -> Vec<Truth> {
    let truth = |number| {
        if of(number) {
            Truth::True
        } else {
            Truth::False
        }
    };
    NODES.into_iter().map(truth).collect()
}

#[test]
fn each_alert_is_of_its_node_and_counts_as_its_kind() {
    let table: [(&str, &[u8], &str); 21] = [
        ("KubeNodeNotReady", &[17], "NotReady"),
        ("KubeNodeUnreachable", &[17], "NotReady"),
        ("NodeFilesystemAlmostOutOfSpace", &[17, 18], "Disk"),
        ("NodeFilesystemAlmostOutOfFiles", &[17], "Disk"),
        ("NodeRAIDDegraded", &[18], "Disk"),
        // Node 18's is resolved.
        ("NodeNetworkReceiveErrs", &[17], "Network"),
        ("NodeNetworkTransmitErrs", &[19], "Network"),
        ("NodeNetworkInterfaceFlapping", &[18], "Network"),
        // Understood, but no policy rests on them.
        ("KubeNodeReadinessFlapping", &[19], ""),
        ("KubeNodePressure", &[18], ""),
        ("KubeNodeEviction", &[18], ""),
        ("KubeletPlegDurationHigh", &[19], ""),
        ("NodeFilesystemSpaceFillingUp", &[19], ""),
        ("NodeRAIDDiskFailure", &[19], ""),
        ("NodeBondingDegraded", &[17], ""),
        ("NodeDiskIOSaturation", &[17], ""),
        ("NodeFileDescriptorLimit", &[18], ""),
        ("NodeSystemdServiceFailed", &[17], ""),
        ("NodeClockNotSynchronising", &[19], ""),
        ("KubeletDown", &[], ""),
        ("Absent", &[], ""),
    ];
    let known: BTreeSet<&str> = table.iter().map(|(alert, ..)| *alert).collect();
    let sent: BTreeSet<&str> = DELIVERIES.lines().map(name).collect();
    assert!(sent.is_subset(&known), "{sent:?}");
    for (alert, nodes, kind) in table {
        let known = Known::of("True", true, |name| name == alert);
        assert_eq!(known.firing(alert), nodes, "{alert}");
        for part in PARTS {
            let expect = truths(|number| part == kind && nodes.contains(&number));
            assert_eq!(
                known.truths(KUBE_PROMETHEUS, part),
                expect,
                "{alert}: {part}"
            );
        }
        let unready = known.truths(KUBE_PROMETHEUS, "NotReady");
        assert_eq!(known.truths(KUBE_PROMETHEUS, "NotReadyTooLong"), unready);
        let failing = known.truths(KUBE_PROMETHEUS, "NodeFailing");
        assert_eq!(failing, truths(|_| false), "{alert} alone");
    }
}

#[test]
fn several_tools_that_tell_of_one_kind_count_once() {
    let disk = |name: &str| name.starts_with("NodeFilesystem") || name.starts_with("NodeRAID");
    let failing = |alerts: &dyn Fn(&str) -> bool| {
        Known::of("True", true, alerts).truths(KUBE_PROMETHEUS, "NodeFailing")
    };
    assert_eq!(failing(&disk), truths(|_| false));
    // Of node 19 there is only the network.
    assert_eq!(failing(&|_| true), truths(|number| number != 19));
}

#[test]
fn h10_an_alert_of_a_whole_job_is_of_no_node() {
    let known = Known::of("True", true, |name| name == "KubeletDown");
    let missing = known.evidence.unresolved();
    assert_eq!(
        missing.get(&("Alertmanager", Unresolved::Missing)),
        Some(&1)
    );
}

#[test]
fn without_alertmanager_the_general_policy_knows_all_and_the_other_only_what_is_true() {
    let known = Known::of("True", false, |_| false);
    for fault in ["NodeFailing", "NotReadyTooLong"] {
        assert_eq!(known.truths(GENERAL, fault), truths(|_| false), "{fault}");
        let unknown = known.truths(KUBE_PROMETHEUS, fault);
        assert_eq!(unknown, [Truth::Unknown; 3], "{fault}");
    }
    let known = Known::of("False", false, |_| false);
    let found = known.truths(KUBE_PROMETHEUS, "NotReadyTooLong");
    assert_eq!(found, truths(|_| true));
}

#[test]
fn the_two_shipped_policies_differ_by_further_views_alone() {
    let (general, other) = (policy(GENERAL), policy(KUBE_PROMETHEUS));
    assert!(signal_names(&general).is_subset(&signal_names(&other)));
    let acting = |policy: &Policy| -> Vec<_> {
        let faults = policy
            .faults
            .iter()
            .filter(|fault| !fault.actions.is_empty());
        faults
            .map(|fault| (fault.name.clone(), fault.severity, fault.for_))
            .collect()
    };
    assert_eq!(acting(&general), acting(&other));
    let faults = general.faults.clone();
    assert_eq!(Policy { faults, ..other }, general);
    let both = config::policies(&[GENERAL, KUBE_PROMETHEUS]).unwrap_err();
    assert!(both[0].message.contains("exists already"), "{both:?}");
}

#[test]
fn the_shipped_receiver_takes_every_alert_that_a_shipped_policy_names() {
    let receiver = include_str!("../../../deploy/alertmanager-receiver.yaml");
    let (_, rest) = receiver.split_once("alertname =~ \"").unwrap();
    let taken: BTreeSet<&str> = rest.split('"').next().unwrap().split('|').collect();
    let named = [policy(GENERAL), policy(KUBE_PROMETHEUS)].map(|policy| signal_names(&policy));
    let named: BTreeSet<&str> = named.iter().flatten().map(String::as_str).collect();
    assert_eq!(taken, named);
}
