//! The simulated Prometheus. It knows the queries of the rules it was made for, and
//! answers them from what the machines' exporters show; it refuses any other.

use std::collections::BTreeMap;

use nodemend_core::config::Rule;
use nodemend_core::model::NodeView;
use serde_json::{Value, json};

use super::{Fault, State, World};

/// What a known query asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Query {
    /// The machines on which this shows.
    Broken(Fault),
    /// The machines of which the exporter that shows this has data.
    Present(Fault),
}

/// The queries of the rules whose alerts this world can show, by their text.
pub(super) fn queries(rules: &[Rule]) -> BTreeMap<String, Query> {
    let mut known = BTreeMap::new();
    for rule in rules {
        let Some(fault) = shown_by(&rule.name) else {
            continue;
        };
        known.insert(rule.expr.clone(), Query::Broken(fault));
        if let Some(presence) = &rule.presence {
            known.insert(presence.clone(), Query::Present(fault));
        }
    }
    known
}

fn shown_by(alert: &str) -> Option<Fault> {
    match alert {
        "NodeDiskPressure" => Some(Fault::DiskFull),
        "NodeFilesystemReadOnly" => Some(Fault::DiskReadOnly),
        "NodeFilesystemDeviceError" => Some(Fault::DiskSilent),
        "NodeNetworkErrors" => Some(Fault::NicErrors),
        "NodeNotReady" => Some(Fault::KubeletDown),
        _ => None,
    }
}

impl World {
    /// The body of the answer to an instant query.
    pub fn query(&self, text: &str) -> Vec<u8> {
        let state = self.0.borrow();
        let answer = match state.queries.get(text) {
            Some(query) => state.vector(*query),
            None => json!({
                "status": "error",
                "errorType": "bad_data",
                "error": "the simulated Prometheus knows only the shipped rules",
            }),
        };
        answer.to_string().into_bytes()
    }
}

impl State {
    fn vector(&self, query: Query) -> Value {
        let seconds = self.now.as_second();
        let (fault, value) = match query {
            Query::Broken(fault) => (fault, "1".to_owned()),
            // Presence is asked for its time.
            Query::Present(fault) => (fault, seconds.to_string()),
        };
        let shows = |node: &&NodeView| match query {
            Query::Broken(fault) => self.has(&node.name, fault),
            Query::Present(_) => true,
        };
        let result: Vec<Value> = self
            .nodes
            .values()
            .filter(shows)
            .map(|node| json!({"metric": labels(node, fault), "value": [seconds, value]}))
            .collect();
        json!({"status": "success", "data": {"resultType": "vector", "result": result}})
    }
}

/// The labels of a series of the exporter that shows the fault.
fn labels(node: &NodeView, fault: Fault) -> Value {
    match fault {
        Fault::KubeletDown => json!({"job": "kube-state-metrics", "node": node.name}),
        _ => json!({"job": "node-exporter", "instance": node.name}),
    }
}
