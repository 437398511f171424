//! What Alertmanager posts: one body, or up to three that byte 0xff parts. Whatever they say,
//! their order does not matter, what is not written for its youth ends no alert, and no alert is
//! taken for one of a node that it does not name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use jiff::Timestamp;
use nodemend::alertmanager::{Delivery, Intake, MAX_GROUP, decode};
use nodemend::controller::{Age, Groups};
use nodemend::exec::CallError;
use nodemend_core::api::{AlertGroup, AlertGroupSpec, StoredAlert};
use nodemend_core::config::Rules;
use nodemend_core::evidence::identity::{Labels, is_identity_label};
use nodemend_core::evidence::{Evidence, Input, LATE, last_word, merge};
use nodemend_core::model::{NodeView, SignalState};

const SENDER: &str = "sender";

pub fn target(input: &[u8]) {
    let bodies: Vec<&[u8]> = input.splitn(3, |byte| *byte == 0xff).collect();
    // Each is received by another replica: the second too soon for a firing to be written
    // again, the third not.
    let received = [at(0), at(200), at(400)];
    let deliveries: Vec<Delivery> = bodies
        .iter()
        .zip(received)
        .filter_map(|(body, now)| read(body, now))
        .collect();
    for (index, first) in deliveries.iter().enumerate() {
        for second in &deliveries[index + 1..] {
            for (object, one) in &first.groups {
                if let Some(other) = second.groups.get(object) {
                    check_order(one, other);
                }
            }
        }
    }
    let store = Store::default();
    let mut taken = true;
    for (body, now) in bodies.iter().zip(received) {
        taken &= check_intake(&store, body, now);
    }
    if taken {
        check_ends(&store, &deliveries);
    }
    check_evidence(&store, at(401));
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// What a body says, and that it is sound.
fn read(body: &[u8], now: Timestamp) -> Option<Delivery> {
    let found = decode(body, SENDER, &Labels::new(), now);
    assert_eq!(found, decode(body, SENDER, &Labels::new(), now));
    let delivery = found.ok()?;
    for (object, group) in &delivery.groups {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(object.len() <= 63 && object.chars().all(plain), "{object}");
        let text = serde_json::to_string(group).unwrap();
        assert_eq!(
            serde_json::from_str::<AlertGroupSpec>(&text).unwrap(),
            *group
        );
        let mut twice = group.clone();
        merge(&mut twice, group);
        assert_eq!(twice, *group);
        for alert in group.alerts.values() {
            assert!(alert.labels.keys().all(|name| is_identity_label(name)));
            assert!(alert.ends_at <= Some(now) && !alert.name.is_empty());
            assert!(alert.last_firing.max(alert.last_resolved) == Some(now));
        }
    }
    Some(delivery)
}

fn check_order(one: &AlertGroupSpec, other: &AlertGroupSpec) {
    let (mut forth, mut back) = (one.clone(), other.clone());
    merge(&mut forth, other);
    merge(&mut back, one);
    assert_eq!(forth, back);
}

/// What is stored says of no alert that it ended if all that was received does not, but for
/// an end that was received at once: that one needs no doubt.
fn check_ends(store: &Store, deliveries: &[Delivery]) {
    let mut all: BTreeMap<&String, AlertGroupSpec> = BTreeMap::new();
    for (object, group) in deliveries.iter().flat_map(|delivery| &delivery.groups) {
        merge(all.entry(object).or_default(), group);
    }
    let stored = store.0.lock().unwrap();
    for (object, group) in all {
        for (fingerprint, alert) in &group.alerts {
            let found = &stored[object].spec.alerts[fingerprint];
            let at_once = || {
                let end = found.ends_at.unwrap();
                found.last_resolved <= Some(LATE.after(end))
            };
            let ended = |alert: &StoredAlert| last_word(alert) == SignalState::Clear;
            assert!(!ended(found) || ended(alert) || at_once(), "{found:?}");
        }
    }
}

/// Whether it was taken.
fn check_intake(store: &Store, body: &[u8], now: Timestamp) -> bool {
    let intake = Intake::new(store.clone());
    let deliver = || intake.deliver(body, SENDER, now).now_or_never().unwrap();
    let first = deliver();
    let taken = first.is_ok();
    match first {
        Ok(first) => {
            let second = deliver().unwrap();
            assert!(!second.written, "nothing new was written");
            assert_eq!(second.stored, first.stored);
        }
        Err(error) => assert_eq!(deliver(), Err(error)),
    }
    for group in store.0.lock().unwrap().values() {
        assert!(serde_json::to_vec(&group.spec).unwrap().len() <= MAX_GROUP);
    }
    taken
}

fn check_evidence(store: &Store, now: Timestamp) {
    let nodes = ["ip-10-0-3-17.eu-central-1.compute.internal", "general-3"];
    let nodes = nodes.map(|name| NodeView {
        name: name.into(),
        uid: format!("uid-{name}"),
        created: at(-1000),
        addresses: vec![format!("10.0.3.{}", name.len())],
        provider_id: format!("aws:///a/i-{}", name.len()),
        ..NodeView::default()
    });
    let mut evidence = Evidence::default();
    evidence.fold(Input::Nodes(nodes.to_vec()), now);
    let groups = store.0.lock().unwrap();
    for (object, group) in groups.iter() {
        let (object, group) = (object.clone(), group.spec.clone());
        evidence.fold(Input::Alerts { object, group }, now);
    }
    let alerts = || groups.values().flat_map(|group| group.spec.alerts.values());
    for name in alerts().map(|alert| &alert.name) {
        for node in &nodes {
            let signal = evidence.signal(node, name, &Rules::default(), now);
            let told = |alert: &StoredAlert| {
                alert.name == *name && alert.last_firing.is_some() && names(alert, node)
            };
            assert!(signal.state != SignalState::Firing || alerts().any(told));
        }
    }
}

/// Whether any label could mean this node.
fn names(alert: &StoredAlert, node: &NodeView) -> bool {
    let id = node.provider_id.trim_start_matches("aws:///a/");
    let ways = [node.name.as_str(), node.addresses[0].as_str(), id];
    let mut values = alert.labels.values();
    values.any(|value| ways.iter().any(|way| value.contains(way)))
}

/// A store in memory.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<BTreeMap<String, AlertGroup>>>);

impl Groups for Store {
    async fn group(&self, name: &str, _: Age) -> Result<Option<AlertGroup>, CallError> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }
    async fn put_group(&self, group: AlertGroup) -> Result<(), CallError> {
        let name = group.metadata.name.clone().unwrap();
        self.0.lock().unwrap().insert(name, group);
        Ok(())
    }
    fn others(&self, _: &str, _: &str) -> Option<usize> {
        None
    }
}
