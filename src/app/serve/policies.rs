//! Policies that are objects: each is checked like a file, and answered in its status.

use std::collections::BTreeMap;

use jiff::Timestamp;
use nodemend_core::api::{ConditionStatus, RepairPolicy, RepairPolicyStatus, StatusCondition};
use nodemend_core::config::{self, Policy};

use super::clock::now;
use crate::app::load;
use crate::cluster::Kubernetes;

/// The policies of files and of accepted objects. Each object is answered.
pub(super) async fn accept_all(
    cluster: &Kubernetes,
    objects: &BTreeMap<String, RepairPolicy>,
    files: &[Policy],
) -> Vec<Policy> {
    let mut policies = files.to_vec();
    for mut object in objects.values().cloned() {
        let read = accept(&object, files);
        if let Err(("Invalid", _)) = read {
            policies.push(Policy::refused(
                object.metadata.name.clone().unwrap_or_default(),
                object.spec.priority,
                object.spec.node_selector.clone(),
            ));
        }
        if answer(&mut object, read.as_ref().err(), now())
            && let Err(error) = cluster.put_policy_status(&object).await
        {
            tracing::warn!(%error, "a policy object could not be answered");
        }
        policies.extend(read);
    }
    policies
}

/// A policy object under the same checks as a file; a file's name is taken.
fn accept(object: &RepairPolicy, files: &[Policy]) -> Result<Policy, (&'static str, String)> {
    let lines = |problems: Vec<config::Problem>| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        ("Invalid", lines.join("; "))
    };
    let policy = config::policy(object).map_err(lines)?;
    if files.iter().any(|file| file.name == policy.name) {
        return Err(("NameTaken", "a policy file has this name".into()));
    }
    match load::without_cloud(&policy) {
        Some(problem) => Err(lines(vec![problem])),
        None => Ok(policy),
    }
}

/// Sets the condition `Accepted`; whether that changed anything.
fn answer(
    object: &mut RepairPolicy,
    refused: Option<&(&'static str, String)>,
    now: Timestamp,
) -> bool {
    let (status, reason, message) = match refused {
        None => (ConditionStatus::True, "Valid", String::new()),
        Some((reason, message)) => (ConditionStatus::False, *reason, message.clone()),
    };
    let conditions = object.status.as_ref().map(|status| &status.conditions);
    let known = conditions
        .into_iter()
        .flatten()
        .find(|known| known.type_ == "Accepted");
    if known.is_some_and(|known| {
        (known.status, known.reason.as_str(), &known.message) == (status, reason, &message)
    }) {
        return false;
    }
    let since = known
        .filter(|known| known.status == status)
        .map_or(now, |known| known.last_transition_time);
    object.status = Some(RepairPolicyStatus {
        conditions: vec![StatusCondition {
            type_: "Accepted".into(),
            status,
            reason: reason.into(),
            message,
            last_transition_time: since,
        }],
    });
    true
}
