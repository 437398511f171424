//! What a person at the command line does with the API: reads every record, writes pauses
//! and annotations of nodes. Under the person's own rights, and without a lease: nothing
//! of the leader's can be written with this connection.

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::coordination::v1 as kubernetes;
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use nodemend_core::api::{RepairPause, RepairPolicy};
use nodemend_core::model::Span;
use serde_json::{Value, json};

use super::{Error, Kubernetes, Lease, StoredPolicy, election, found, name_of, written};
use crate::exec::CallError;
use crate::telemetry::Telemetry;

impl Kubernetes {
    /// Connects as a person.
    pub async fn connect_as_person() -> Result<Self, Error> {
        Self::connect(Lease::default(), Telemetry::silent()).await
    }

    /// The policy objects, each as far as it can be read.
    pub async fn policies(&self) -> Result<Vec<RepairPolicy>, CallError> {
        let stored: Vec<StoredPolicy> = self.list(ListParams::default()).await?;
        Ok(stored.iter().filter_map(StoredPolicy::read).collect())
    }

    /// The pauses, over or not.
    pub async fn pauses(&self) -> Result<Vec<RepairPause>, CallError> {
        self.list(ListParams::default()).await
    }

    /// Creates a pause.
    pub async fn create_pause(&self, pause: &RepairPause) -> Result<(), CallError> {
        let api = self.api::<RepairPause>();
        Ok(self.call(api.create(&written(), pause)).await.map(|_| ())?)
    }

    /// Deletes a pause, if it is still the one that was read. What is gone is deleted.
    pub async fn delete_pause(&self, pause: &RepairPause) -> Result<(), CallError> {
        let this = DeleteParams {
            preconditions: Some(Preconditions {
                uid: pause.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let api = self.api::<RepairPause>();
        found(self.call(api.delete(&name_of(pause), &this)).await).map(|_| ())
    }

    /// Annotates the node of this name and UID.
    pub async fn annotate(
        &self,
        node: &str,
        uid: &str,
        key: &str,
        value: &str,
    ) -> Result<(), CallError> {
        let api = self.api::<Node>();
        let live = self.call(api.get(node)).await?;
        let version = live.metadata.annotations.is_none();
        let version = live.resource_version().filter(|_| version);
        let body: Patch<()> = Patch::Json(
            serde_json::from_value(annotation(uid, version.as_deref(), key, value))
                .expect("the operations are a JSON Patch"),
        );
        let params = PatchParams {
            field_manager: written().field_manager,
            ..PatchParams::default()
        };
        Ok(self
            .call(api.patch(node, &params, &body))
            .await
            .map(|_| ())?)
    }

    /// Who this is, as the API server sees it.
    pub async fn whoami(&self) -> Result<String, CallError> {
        let api = self.api::<SelfSubjectReview>();
        let (params, question) = (written(), SelfSubjectReview::default());
        let answer = self.call(api.create(&params, &question)).await?;
        let user = answer.status.and_then(|status| status.user_info);
        Ok(user.and_then(|user| user.username).unwrap_or_default())
    }

    /// The Lease of this namespace; none if there is none.
    pub async fn lease(&self, namespace: &str) -> Result<Option<LeaseView>, CallError> {
        let api = Api::<kubernetes::Lease>::namespaced(self.client.clone(), namespace);
        let lease = found(self.call(api.get(election::NAME)).await)?;
        Ok(lease.map(|lease| lease_view(lease.spec.unwrap_or_default())))
    }
}

/// The Lease by which replicas elect their leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// The replica that holds it; empty if it was given back.
    pub holder: String,
    /// When it was last renewed, by that one's clock.
    pub renewed: Option<Timestamp>,
    /// How long it holds after that.
    pub duration: Span,
}

fn lease_view(spec: kubernetes::LeaseSpec) -> LeaseView {
    let seconds = spec.lease_duration_seconds;
    LeaseView {
        holder: spec.holder_identity.unwrap_or_default(),
        renewed: spec.renew_time.map(|time| time.0),
        duration: Span::seconds(election::seconds(seconds)),
    }
}

/// A patch that tests the UID first. On a node without any annotation it tests the version
/// too, and makes a place for them: else it could put off those that somebody just put on.
fn annotation(uid: &str, empty_at: Option<&str>, key: &str, value: &str) -> Value {
    // JSON Pointer writes a slash as ~1.
    let path = key.replace('~', "~0").replace('/', "~1");
    let mut operations = vec![json!({"op": "test", "path": "/metadata/uid", "value": uid})];
    if let Some(version) = empty_at {
        operations
            .push(json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}));
        operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    }
    let path = format!("/metadata/annotations/{path}");
    operations.push(json!({"op": "add", "path": path, "value": value}));
    Value::Array(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_reads_as_the_election_has_it() {
        let read = |spec: Value| lease_view(serde_json::from_value(spec).unwrap());
        let given_back = read(json!({"renewTime": "2026-01-01T00:00:00.000000Z"}));
        assert_eq!(given_back.holder, "");
        assert_eq!(given_back.duration, Span::seconds(15));
        let renewed = given_back.renewed.unwrap();
        assert_eq!(renewed.to_string(), "2026-01-01T00:00:00Z");
        let held = read(json!({"holderIdentity": "a", "leaseDurationSeconds": 30}));
        assert_eq!((held.holder.as_str(), held.renewed), ("a", None));
        assert_eq!(held.duration, Span::seconds(30));
    }

    #[test]
    fn an_annotation_is_put_on_this_very_node_and_takes_no_other_off() {
        assert_eq!(
            annotation("u", None, "nodemend.dev/x", "v"),
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "u"},
                {"op": "add", "path": "/metadata/annotations/nodemend.dev~1x", "value": "v"},
            ])
        );
        assert_eq!(
            annotation("u", Some("7"), "k", "v"),
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "u"},
                {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
                {"op": "add", "path": "/metadata/annotations", "value": {}},
                {"op": "add", "path": "/metadata/annotations/k", "value": "v"},
            ])
        );
    }
}
