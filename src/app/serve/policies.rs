//! Policies that are objects: each is checked like a file, and answered in its status.

use std::collections::BTreeMap;

use jiff::Timestamp;
use nodemend_core::api::{ConditionStatus, NodeSelector, RepairPolicyStatus, StatusCondition};
use nodemend_core::config::{self, Policy};
use serde_json::Value;

use super::clock::now;
use crate::app::load;
use crate::cluster::{Kubernetes, StoredPolicy};

/// Objects by name.
type Objects = BTreeMap<String, StoredPolicy>;
/// Why an object is not accepted: one word, and the mistakes.
type Refusal = (&'static str, String);

/// The policies of files and of accepted objects. Each object is answered.
pub(super) async fn accept_all(
    cluster: &Kubernetes,
    objects: &Objects,
    files: &[Policy],
) -> Vec<Policy> {
    let (policies, refused) = judge(objects, files);
    for (name, object) in objects {
        let mut object = object.clone();
        if answer(&mut object, refused.get(name), now())
            && let Err(error) = cluster.put_policy_status(&object).await
        {
            tracing::warn!(%error, "a policy object could not be answered");
        }
    }
    policies
}

/// What is in force, and which objects are refused: each alone, whatever is wrong with it.
fn judge(objects: &Objects, files: &[Policy]) -> (Vec<Policy>, BTreeMap<String, Refusal>) {
    let mut policies = files.to_vec();
    let mut refused = BTreeMap::new();
    for (name, object) in objects {
        match accept(name, object, files) {
            Ok(policy) => policies.push(policy),
            Err((reason, message)) => {
                if reason == INVALID {
                    policies.extend(in_place_of(name, object));
                }
                refused.insert(name.clone(), (reason, message));
            }
        }
    }
    // It stays, so that the nodes concerned are held: whose they are is for people to say.
    for policy in policies.iter().skip(files.len()) {
        if let Some(other) = config::tied_with(policy, &policies) {
            let message = format!(
                "`{}` has priority {} too and selects every node that this selects: give one a \
                 higher priority",
                other.name, other.priority
            );
            refused.insert(policy.name.clone(), ("Tied", message));
        }
    }
    (policies, refused)
}

const INVALID: &str = "Invalid";

/// A policy object under the same checks as a file; a file's name is taken.
fn accept(name: &str, object: &StoredPolicy, files: &[Policy]) -> Result<Policy, Refusal> {
    let lines = |problems: Vec<config::Problem>| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        (INVALID, lines.join("; "))
    };
    let policy = config::stored_policy(name, &object.spec).map_err(lines)?;
    if files.iter().any(|file| file.name == policy.name) {
        return Err(("NameTaken", "a policy file has this name".into()));
    }
    match load::without_cloud(&policy) {
        Some(problem) => Err(lines(vec![problem])),
        None => Ok(policy),
    }
}

/// What keeps the nodes of a refused policy from others; none if it does not say which.
fn in_place_of(name: &str, object: &StoredPolicy) -> Option<Policy> {
    let priority = match &object.spec["priority"] {
        Value::Null => 0,
        given => given.as_i64()?.try_into().ok()?,
    };
    let selector = match &object.spec["nodeSelector"] {
        Value::Null => NodeSelector::default(),
        given => serde_json::from_value(given.clone()).ok()?,
    };
    Some(Policy::refused(name.to_owned(), priority, selector))
}

/// Sets the condition `Accepted`; whether that changed anything.
fn answer(object: &mut StoredPolicy, refused: Option<&Refusal>, now: Timestamp) -> bool {
    let (status, reason, message) = match refused {
        None => (ConditionStatus::True, "Valid", String::new()),
        Some((reason, message)) => (ConditionStatus::False, *reason, message.clone()),
    };
    let conditions = object.status().conditions;
    let known = conditions.iter().find(|known| known.type_ == "Accepted");
    if known.is_some_and(|known| {
        (known.status, known.reason.as_str(), &known.message) == (status, reason, &message)
    }) {
        return false;
    }
    let since = known
        .filter(|known| known.status == status)
        .map_or(now, |known| known.last_transition_time);
    object.set_status(&RepairPolicyStatus {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, spec: Value) -> (String, StoredPolicy) {
        (name.to_owned(), StoredPolicy::new(name, spec))
    }

    /// A sound one for the nodes of a pool.
    fn of_pool(pool: &str, priority: i32) -> Value {
        json!({
            "priority": priority,
            "nodeSelector": {"matchLabels": {"pool": pool}},
            "faults": [{"name": "f", "when": {"all": [{"signal": "s"}]}, "actions": ["Replace"]}],
        })
    }

    fn changed(mut spec: Value, field: &str, value: Value) -> Value {
        spec[field] = value;
        spec
    }

    #[test]
    fn h88_a_bad_or_tied_policy_object_is_refused_alone() {
        let file = config::stored_policy("file", &of_pool("file", 0)).unwrap();
        let objects = Objects::from([
            object("good", of_pool("good", 0)),
            object("empty", changed(of_pool("empty", 7), "faults", json!([]))),
            // What another version's definition may have let in.
            object(
                "later",
                changed(of_pool("later", 8), "mode", json!("Dream")),
            ),
            object(
                "lost",
                changed(of_pool("lost", 0), "nodeSelector", json!("all")),
            ),
            object(
                "number",
                changed(of_pool("number", 0), "priority", json!("high")),
            ),
            object("nothing", Value::Null),
            object("file", of_pool("other", 0)),
            object("twin-a", of_pool("twin", 0)),
            object("twin-b", of_pool("twin", 0)),
            object(
                "inside",
                changed(of_pool("file", 0), "mode", json!("Observe")),
            ),
            object("above", of_pool("file", 1)),
        ]);
        let (policies, refused) = judge(&objects, std::slice::from_ref(&file));
        let reasons: Vec<(&str, &str)> = refused
            .iter()
            .map(|(name, (reason, _))| (name.as_str(), *reason))
            .collect();
        let expect = [
            ("empty", "Invalid"),
            ("file", "NameTaken"),
            ("inside", "Tied"),
            ("later", "Invalid"),
            ("lost", "Invalid"),
            ("nothing", "Invalid"),
            ("number", "Invalid"),
            ("twin-a", "Tied"),
            ("twin-b", "Tied"),
        ];
        assert_eq!(reasons, expect);
        let in_force: Vec<(&str, bool, i32)> = policies
            .iter()
            .map(|policy| (policy.name.as_str(), policy.accepted, policy.priority))
            .collect();
        let expect = [
            ("file", true, 0),
            ("above", true, 1),
            // Their nodes are kept from others.
            ("empty", false, 7),
            ("good", true, 0),
            ("inside", true, 0),
            ("later", false, 8),
            ("nothing", false, 0),
            ("twin-a", true, 0),
            ("twin-b", true, 0),
        ];
        assert_eq!(in_force, expect);
        assert!(
            refused["later"]
                .1
                .contains("spec.mode: `Dream` is not known here")
        );
        assert!(
            refused["twin-a"]
                .1
                .starts_with("`twin-b` has priority 0 too")
        );
    }

    #[test]
    fn an_answer_is_written_when_it_changes() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (_, mut object) = object("a", Value::Null);
        let refusal = ("Invalid", "is nothing".to_owned());
        let condition = |object: &StoredPolicy| object.status().conditions.remove(0);
        assert!(answer(&mut object, Some(&refusal), at(1)));
        assert!(!answer(&mut object, Some(&refusal), at(2)));
        let other = ("Invalid", "is less".to_owned());
        assert!(answer(&mut object, Some(&other), at(3)));
        let told = condition(&object);
        assert_eq!(
            (told.status, told.last_transition_time),
            (ConditionStatus::False, at(1))
        );
        assert!(answer(&mut object, None, at(4)));
        let told = condition(&object);
        assert_eq!(
            (told.status, told.last_transition_time),
            (ConditionStatus::True, at(4))
        );
    }
}
