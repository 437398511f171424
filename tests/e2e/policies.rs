//! Policies as objects: the API refuses what their definition can refuse, nodemend answers
//! the rest.

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use nodemend_core::api::{ConditionStatus, RepairPolicy};
use serde_json::{Value, json};

use crate::lab;
use crate::site::{NO_RULES, Setup, Site};

/// The policy file, of no node that there is.
const ELSEWHERE: &str = r"
apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: elsewhere}
spec:
  nodeSelector: {matchLabels: {pool: elsewhere}}
  faults:
  - {name: f, when: {all: [{signal: s}]}, actions: [Replace]}
";

/// A field of an otherwise sound policy, and part of what the API says of its value.
fn refused() -> Vec<(&'static str, Value, &'static str)> {
    let fault = |field: &str, value: Value| {
        let mut fault =
            json!({"name": "f", "when": {"all": [{"signal": "s"}]}, "actions": ["Replace"]});
        fault[field] = value;
        json!([fault])
    };
    let confirm = |field: &str, value: &str| {
        let mut confirm = json!({"port": 9100, "metric": "m", "above": "0"});
        confirm[field] = json!(value);
        fault("confirm", confirm)
    };
    let budget = |budget: &Value| {
        let mut named = json!({"name": "b"});
        for (field, value) in budget.as_object().into_iter().flatten() {
            named[field] = value.clone();
        }
        json!([named])
    };
    let window =
        |schedule: &str, duration: &str| json!([{"schedule": schedule, "duration": duration}]);
    let selector = |requirement: Value| json!({"matchExpressions": [requirement]});
    vec![
        ("mode", json!("Enforce"), "name a replacement.strategy"),
        ("faults", json!([]), "should have at least 1 items"),
        (
            "faults",
            fault("actions", json!([])),
            "give a fault an action",
        ),
        (
            "faults",
            fault("actions", json!(["Cordon", "Reboot"])),
            "only Reboot can be followed",
        ),
        (
            "faults",
            fault("when", json!({})),
            "give at least one of all",
        ),
        (
            "faults",
            fault("when", json!({"none": [{"fault": "other"}]})),
            "no fault of this name",
        ),
        (
            "faults",
            fault(
                "when",
                json!({"atLeast": {"count": 2, "of": [{"signal": "s"}]}}),
            ),
            "count is more than",
        ),
        ("faults", fault("for", json!("")), "at least 1 chars"),
        ("faults", fault("for", json!("9999999999h")), "should match"),
        ("faults", confirm("metric", "m{}"), "not a metric's name"),
        ("faults", confirm("path", "metrics"), "not the path"),
        ("faults", confirm("above", "much"), "not a number"),
        ("budgets", budget(&json!({})), "limits nothing"),
        ("budgets", budget(&json!({"maxRepairs": 1})), "give both"),
        (
            "budgets",
            budget(&json!({"maxRepairs": 1, "within": "0s"})),
            "longer than 0s",
        ),
        (
            "budgets",
            budget(&json!({"maxUnavailable": "101%"})),
            "should match",
        ),
        (
            "budgets",
            budget(&json!({"maxUnavailable": -1})),
            "greater than or equal to 0",
        ),
        (
            "budgets",
            json!([{"name": "b", "maxInFlight": 1}, {"name": "b", "maxInFlight": 2}]),
            "Duplicate value",
        ),
        ("windows", window("@daily", "1h"), "five fields"),
        ("windows", window("0 2 * * *", "0s"), "longer than 0s"),
        ("drain", json!({"timeout": "0s"}), "longer than 0s"),
        ("drain", json!({"maxPodGracePeriod": "500ms"}), "below 1s"),
        (
            "replacement",
            json!({"readyTimeout": "0"}),
            "longer than 0s",
        ),
        (
            "nodeSelector",
            selector(json!({"key": "a", "operator": "In"})),
            "need values",
        ),
        (
            "nodeSelector",
            selector(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
            "take none",
        ),
    ]
}

fn policy(name: &str, field: &str, value: Value) -> DynamicObject {
    let mut spec = json!({
        "nodeSelector": {"matchLabels": {"pool": "objects"}},
        "faults": [{"name": "f", "when": {"all": [{"signal": "s"}]}, "actions": ["Replace"]}],
    });
    spec[field] = value;
    let resource = ApiResource::erase::<RepairPolicy>(&());
    DynamicObject::new(name, &resource).data(json!({"spec": spec}))
}

#[test]
fn a_policy_object_is_refused_by_the_api_or_answered_alone() {
    lab(async {
        let site = Site::start(&Setup {
            policy: ELSEWHERE,
            polled: NO_RULES,
            alerting: NO_RULES,
            ..Setup::default()
        })
        .await?;
        let resource = ApiResource::erase::<RepairPolicy>(&());
        let api: Api<DynamicObject> = Api::all_with(site.lab.admin(), &resource);
        let create = PostParams::default();
        for (field, value, said) in refused() {
            let object = policy("bad", field, value.clone());
            match api.create(&create, &object).await {
                Err(kube::Error::Api(status)) => ensure!(
                    status.code == 422 && status.message.contains(said),
                    "{field} {value}: {}",
                    status.message
                ),
                other => anyhow::bail!("{field} {value} is not refused: {other:?}"),
            }
        }
        let mut mars = policy("mars", "priority", json!(2));
        mars.data["spec"]["windows"] =
            json!([{"schedule": "0 2 * * *", "timeZone": "Mars/Base", "duration": "1h"}]);
        let inside = json!({"matchLabels": {"pool": "objects", "zone": "a"}});
        let unquoted = json!([{"name": "b", "maxUnavailable": 1}]);
        for object in [
            policy("good", "budgets", unquoted),
            policy("higher", "priority", json!(1)),
            policy("tied", "nodeSelector", inside),
            mars,
        ] {
            api.create(&create, &object).await?;
        }
        for (name, status, reason) in [
            ("good", ConditionStatus::True, "Valid"),
            ("higher", ConditionStatus::True, "Valid"),
            ("mars", ConditionStatus::False, "Invalid"),
            ("tied", ConditionStatus::False, "Tied"),
        ] {
            answered(&site, name, status, reason).await?;
        }
        Ok(())
    });
}

async fn answered(site: &Site, name: &str, status: ConditionStatus, reason: &str) -> Result<()> {
    let api: Api<RepairPolicy> = Api::all(site.lab.admin());
    site.wait_for(&format!("{name} to be {reason}"), || async {
        let object = api.get(name).await?;
        let conditions = object.status.context("no answer")?.conditions;
        let told = conditions.iter().find(|one| one.type_ == "Accepted");
        Ok(told
            .filter(|one| one.status == status && one.reason == reason)
            .map(|_| ()))
    })
    .await
}
