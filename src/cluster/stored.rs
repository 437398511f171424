//! A policy object as the API stores it. One that this version cannot read, because another
//! version's definition let it in, must not spoil the list of all.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use nodemend_core::api::{RepairPolicy, RepairPolicyStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A `RepairPolicy` of which only the metadata is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredPolicy {
    #[serde(default = "api_version")]
    api_version: String,
    #[serde(default = "kind")]
    kind: String,
    /// Its name, UID and version.
    pub metadata: ObjectMeta,
    /// What people wrote.
    #[serde(default)]
    pub spec: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    status: Value,
}

fn api_version() -> String {
    RepairPolicy::api_version(&()).into_owned()
}

fn kind() -> String {
    RepairPolicy::kind(&()).into_owned()
}

impl StoredPolicy {
    /// An object of this name that says this.
    pub fn new(name: &str, spec: Value) -> Self {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        Self {
            api_version: api_version(),
            kind: kind(),
            metadata,
            spec,
            status: Value::Null,
        }
    }

    /// As a policy; of one that this version cannot read, no more than whom it selects at what
    /// priority. None if not even that can be read.
    pub fn read(&self) -> Option<RepairPolicy> {
        let whole = serde_json::from_value(self.spec.clone());
        let spec = whole.or_else(|_| {
            let mut part = json!({"faults": []});
            for key in ["priority", "nodeSelector"] {
                if let Some(value) = self.spec.get(key) {
                    part[key] = value.clone();
                }
            }
            serde_json::from_value(part)
        });
        Some(RepairPolicy {
            metadata: self.metadata.clone(),
            spec: spec.ok()?,
            status: Some(self.status()),
        })
    }

    /// What it was answered, as far as that can be read.
    pub fn status(&self) -> RepairPolicyStatus {
        serde_json::from_value(self.status.clone()).unwrap_or_default()
    }

    /// Answers it.
    pub fn set_status(&mut self, status: &RepairPolicyStatus) {
        self.status = serde_json::to_value(status).unwrap_or_default();
    }
}

impl Resource for StoredPolicy {
    type DynamicType = ();
    type Scope = <RepairPolicy as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        RepairPolicy::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        RepairPolicy::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        RepairPolicy::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        RepairPolicy::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_cannot_be_read_still_says_whom_it_selects() {
        let selector = json!({"matchLabels": {"pool": "a"}});
        let fault = json!({"name": "f", "when": {"all": [{"signal": "s"}]}});
        let read = |spec: Value| StoredPolicy::new("p", spec).read();
        let whole = json!({"priority": 3, "nodeSelector": selector, "faults": [fault]});
        let mut later = whole.clone();
        later["mode"] = json!("Dream");
        for (spec, faults) in [(whole, 1), (later, 0)] {
            let policy = read(spec).unwrap();
            assert_eq!(
                (policy.spec.priority, policy.spec.faults.len()),
                (3, faults)
            );
            assert_eq!(policy.spec.node_selector.match_labels["pool"], "a");
        }
        assert_eq!(read(json!({"nodeSelector": "all"})), None);
    }
}
