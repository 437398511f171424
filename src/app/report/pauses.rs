//! How many nodes a pause covers.

use nodemend_core::api::{RepairPauseSpec, RepairPolicy};

use super::Records;

/// How many nodes a pause covers while it is in force, as far as the records tell; none if
/// that is not known: nodes may not be listed, or its policy is in a file.
pub fn covered(pause: &RepairPauseSpec, records: &Records) -> Option<usize> {
    let name = pause.policy.as_deref();
    let object = |name: &str| records.policies.iter().any(|one| is(one, name));
    if let Some(name) = name.filter(|name| !object(name)) {
        // One in a file is on no record, but what came of it is.
        return (!is_heard_of(name, records)).then_some(0);
    }
    let nodes = records.nodes.as_ref()?.iter();
    let selected = nodes.filter(|node| pause.node_selector.matches(&node.labels));
    let speaks = selected.filter(|node| {
        let policies = records.policies.iter();
        let policies = policies.filter(|one| one.spec.node_selector.matches(&node.labels));
        let highest = policies.clone().map(|one| one.spec.priority).max();
        let mut policies = policies.filter(|one| Some(one.spec.priority) == highest);
        name.is_none_or(|name| policies.any(|one| is(one, name)))
    });
    Some(speaks.count())
}

fn is(policy: &RepairPolicy, name: &str) -> bool {
    policy.metadata.name.as_deref() == Some(name)
}

fn is_heard_of(policy: &str, records: &Records) -> bool {
    let healths = records.healths.iter();
    let mut healths = healths.filter_map(|health| health.status.as_ref());
    let mut repairs = records.repairs.iter();
    let fleet = records.fleet.iter();
    let mut scores = fleet.flat_map(|fleet| &fleet.spec.score);
    healths.any(|status| status.policy == policy)
        || repairs.any(|repair| repair.spec.policy == policy)
        || scores.any(|score| score.policy == policy)
}

/// That number as people read it.
pub fn nodes(count: Option<usize>) -> String {
    match count {
        None => "how many nodes is not known".into(),
        Some(1) => "1 node".into(),
        Some(count) => format!("{count} nodes"),
    }
}
