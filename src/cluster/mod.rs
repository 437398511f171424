//! The Kubernetes API: the only user of kube's client. Every call has a deadline
//! and is tried once; a mutating call of the leader starts only if its lease
//! outlives that deadline.

mod election;
mod events;
#[cfg(test)]
mod fake;
mod follow;
mod groups;
mod person;
mod stored;
mod views;

pub use election::{Election, Lease, Term, elect};
pub use follow::{Followed, follow};
pub use person::LeaseView;
pub use stored::StoredPolicy;
pub use views::node as node_view;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::coordination::v1 as kubernetes;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Config};
use nodemend_core::api::{
    AlertGroup, AlertGroupSpec, FINALIZER, FleetState, NodeHealth, NodeRepair, RepairPause,
    RepairPolicy,
};
use nodemend_core::model::{NodeView, PodView, QUARANTINE_ANNOTATION};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::controller::{Age, Groups as _, Records, TokenReviews};
use crate::exec::{CallError, Cluster, NodePatch};
use crate::telemetry::{CallResult, Notice, System, Telemetry};

/// How long one call may take (DESIGN section 7).
pub const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// Pods and records are listed in pages of this many objects.
const PAGE: u32 = 500;
/// The one `FleetState`.
const FLEET: &str = "fleet";
/// Marks writes of records in the audit log; what touches nodes and pods names its repair instead.
const MANAGER: &str = "nodemend";
/// Where kubelets renew their leases.
const NODE_LEASES: &str = "kube-node-lease";

/// Why the API cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No kubeconfig and no service account, or one that cannot be read.
    #[error("no access to a Kubernetes API")]
    Access(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A connection to the Kubernetes API.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    lease: Lease,
    telemetry: Telemetry,
    groups: groups::Known,
}

impl Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// Connects as `KUBECONFIG` or the pod's service account says. Does not wait for an answer.
    pub async fn connect(lease: Lease, telemetry: Telemetry) -> Result<Self, Error> {
        let mut config = Config::infer()
            .await
            .map_err(|error| Error::Access(Box::new(error)))?;
        // It retries for minutes without telling; exec owns retries.
        config.default_retry = false;
        config.connect_timeout = Some(CALL_DEADLINE);
        let client = Client::try_from(config).map_err(|error| Error::Access(Box::new(error)))?;
        Ok(Self {
            client,
            lease,
            telemetry,
            groups: groups::Known::default(),
        })
    }

    /// What keeps the service from working, if anything: an API that does not answer,
    /// absent definitions, missing rights.
    pub async fn check(&self) -> Result<(), String> {
        self.probe::<Node>("nodes").await?;
        self.probe::<RepairPolicy>("repairpolicies.nodemend.dev")
            .await?;
        self.probe::<RepairPause>("repairpauses.nodemend.dev")
            .await?;
        self.probe::<AlertGroup>("alertgroups.nodemend.dev").await?;
        self.probe::<NodeHealth>("nodehealths.nodemend.dev").await?;
        self.probe::<FleetState>("fleetstates.nodemend.dev").await?;
        self.probe::<NodeRepair>("noderepairs.nodemend.dev").await
    }

    /// What the API server's clock says, in whole seconds.
    pub async fn time(&self) -> Result<Timestamp, String> {
        let request = hyper::Request::get("/version");
        let request = request
            .body(kube::client::Body::empty())
            .map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(CALL_DEADLINE, self.client.send(request)).await;
        let answer = answer.map_err(|_| Failure::Timeout.message())?;
        let answer = answer.map_err(|error| plain(&error))?;
        let date = answer.headers().get("date");
        let date = date.and_then(|date| date.to_str().ok());
        let parser = jiff::fmt::rfc2822::DateTimeParser::new();
        let time = date.and_then(|date| parser.parse_timestamp(date).ok());
        time.ok_or_else(|| "the API server's answers have no usable Date".into())
    }

    async fn probe<K>(&self, what: &str) -> Result<(), String>
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api = Api::<K>::all(self.client.clone());
        match self
            .call(api.list_metadata(&ListParams::default().limit(1)))
            .await
        {
            Ok(_) => Ok(()),
            Err(Failure::Status(status)) if status.code == 404 => Err(format!(
                "{what} is not defined in the cluster: kubectl apply -f deploy/crds.yaml"
            )),
            Err(Failure::Status(status)) if matches!(status.code, 401 | 403) => Err(format!(
                "not allowed to list {what}: kubectl apply -f deploy/rbac.yaml ({})",
                status.message
            )),
            Err(failure) => Err(format!("listing {what}: {}", failure.message())),
        }
    }

    /// Answers a policy object with its conditions.
    pub async fn put_policy_status(&self, policy: &StoredPolicy) -> Result<(), CallError> {
        self.leading()?;
        let api = self.api::<StoredPolicy>();
        let name = name_of(policy);
        let done = self
            .call(api.replace_status(&name, &written(), policy))
            .await;
        Ok(done.map(|_| ())?)
    }

    /// Writes an Event. The same notice within an hour is the same Event.
    pub async fn publish(&self, notice: &Notice, now: Timestamp) -> Result<(), CallError> {
        self.leading()?;
        let event = events::event(notice, now);
        let api = Api::<Event>::namespaced(self.client.clone(), events::NAMESPACE);
        match self.call(api.create(&written(), &event)).await {
            Err(Failure::Status(status)) if status.code == 409 => Ok(()),
            done => Ok(done.map(|_| ())?),
        }
    }

    fn api<K: kube::Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    fn leading(&self) -> Result<(), CallError> {
        if self.lease.outlives(CALL_DEADLINE) {
            Ok(())
        } else {
            Err(CallError::NoAnswer("not the leader any more".into()))
        }
    }

    /// One try, with a deadline, counted.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Failure> {
        let result = match tokio::time::timeout(CALL_DEADLINE, call).await {
            Err(_) => Err(Failure::Timeout),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status))) => Err(Failure::Status(status)),
            Ok(Err(error)) => Err(Failure::Other(plain(&error))),
        };
        self.telemetry.external_call(
            System::Kubernetes,
            match &result {
                Ok(_) => CallResult::Ok,
                Err(Failure::Timeout) => CallResult::Timeout,
                Err(Failure::Status(status)) if status.code < 500 => CallResult::Refused,
                Err(_) => CallResult::Failed,
            },
        );
        result
    }

    /// Everything of a kind, consistent: no resourceVersion asks for the newest.
    async fn list<K>(&self, params: ListParams) -> Result<Vec<K>, CallError>
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api = self.api::<K>();
        let mut found = Vec::new();
        let mut params = params.limit(PAGE);
        loop {
            let page = self.call(api.list(&params)).await?;
            found.extend(page.items);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(found);
            }
        }
    }

    /// Creates what was never read, replaces what was.
    async fn put<K>(&self, object: &K) -> Result<K, CallError>
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Serialize,
    {
        let api = self.api::<K>();
        let stored = if object.meta().resource_version.is_none() {
            self.call(api.create(&written(), object)).await
        } else {
            self.call(api.replace(&name_of(object), &written(), object))
                .await
        };
        Ok(stored?)
    }

    /// Deletes it, if it is still what was read. What is gone is deleted.
    async fn delete<K>(&self, object: &K) -> Result<(), CallError>
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        self.leading()?;
        let this = kube::api::DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.meta().uid.clone(),
                resource_version: object.meta().resource_version.clone(),
            }),
            ..kube::api::DeleteParams::default()
        };
        let api = self.api::<K>();
        found(self.call(api.delete(&name_of(object), &this)).await).map(|_| ())
    }
}

/// Why a call did not give what was asked.
#[derive(Debug)]
enum Failure {
    Timeout,
    Status(Box<kube::core::Status>),
    Other(String),
}

impl Failure {
    fn message(&self) -> String {
        match self {
            Self::Timeout => format!("no answer within {} s", CALL_DEADLINE.as_secs()),
            Self::Status(status) => format!("{} ({})", status.message, status.code),
            Self::Other(message) => message.clone(),
        }
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        let message = failure.message();
        match failure {
            // 422 is also what a JSON Patch with a failed test gets.
            Failure::Status(status) if matches!(status.code, 409 | 422) => Self::Conflict(message),
            Failure::Status(status) if status.code == 429 => Self::NotNow(message),
            Failure::Status(status) if (400..500).contains(&status.code) => Self::Refused(message),
            _ => Self::NoAnswer(message),
        }
    }
}

/// The innermost cause says what is wrong; the layers above only repeat it.
pub fn plain(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn written() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.into()),
        ..PostParams::default()
    }
}

fn name_of<K: kube::Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

fn found<T>(result: Result<T, Failure>) -> Result<Option<T>, CallError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Status(status)) if status.code == 404 => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

impl Cluster for Kubernetes {
    async fn node(&self, name: &str) -> Result<Option<NodeView>, CallError> {
        let node = found(self.call(self.api::<Node>().get(name)).await)?;
        Ok(node.map(|node| views::node(&node)))
    }

    async fn renewed(&self, node: &str) -> Result<Option<Timestamp>, CallError> {
        let api = Api::<kubernetes::Lease>::namespaced(self.client.clone(), NODE_LEASES);
        let lease = found(self.call(api.get(node)).await)?;
        let renewed = lease.and_then(|lease| lease.spec?.renew_time);
        Ok(renewed.map(|time| time.0))
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, CallError> {
        let nodes = self.list::<Node>(ListParams::default()).await?;
        Ok(nodes.iter().map(views::node).collect())
    }

    async fn patch_node(&self, patch: &NodePatch) -> Result<(), CallError> {
        self.leading()?;
        let live = self.call(self.api::<Node>().get(&patch.name)).await?;
        let params = PatchParams {
            field_manager: Some(patch.field_manager.clone()),
            ..PatchParams::default()
        };
        let body = node_patch(patch, live.metadata.annotations.is_some());
        let body: Patch<()> = Patch::Json(
            serde_json::from_value(body).expect("the operations below are a JSON Patch"),
        );
        self.leading()?;
        self.call(self.api::<Node>().patch(&patch.name, &params, &body))
            .await?;
        Ok(())
    }

    async fn pods(&self, node: &str) -> Result<Vec<PodView>, CallError> {
        let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let pods = self.list::<Pod>(here).await?;
        Ok(pods.iter().map(views::pod).collect())
    }

    async fn evict(
        &self,
        pod: &PodView,
        grace_seconds: Option<i64>,
        field_manager: &str,
    ) -> Result<(), CallError> {
        self.leading()?;
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace);
        let params = PostParams {
            field_manager: Some(field_manager.to_owned()),
            ..PostParams::default()
        };
        let body = eviction(pod, grace_seconds);
        let answer = self
            .call(api.create_subresource::<Value, Value>("eviction", &pod.name, &params, &body))
            .await;
        match answer {
            Err(Failure::Status(status)) => judge_eviction(&status),
            other => Ok(other.map(|_| ())?),
        }
    }

    async fn put_repair(&self, repair: &NodeRepair) -> Result<NodeRepair, CallError> {
        self.leading()?;
        let api = self.api::<NodeRepair>();
        Ok(self
            .call(api.replace_status(&name_of(repair), &written(), repair))
            .await?)
    }

    async fn finish_repair(&self, repair: &NodeRepair) -> Result<(), CallError> {
        self.leading()?;
        let mut released = repair.clone();
        if let Some(finalizers) = &mut released.metadata.finalizers {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        match self.put(&released).await {
            // It is gone with its last finalizer.
            Err(CallError::Refused(_)) if repair.metadata.deletion_timestamp.is_some() => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// Tests first: the patch is for this very object, as it was read.
fn node_patch(patch: &NodePatch, has_annotations: bool) -> Value {
    // JSON Pointer writes a slash as ~1.
    let annotation = format!(
        "/metadata/annotations/{}",
        QUARANTINE_ANNOTATION.replace('~', "~0").replace('/', "~1")
    );
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": patch.uid}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": patch.resource_version}),
    ];
    match &patch.quarantined_by {
        Some(owner) => {
            if !has_annotations {
                operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
            }
            operations.push(json!({"op": "add", "path": annotation, "value": owner}));
        }
        None => operations.push(json!({"op": "remove", "path": annotation})),
    }
    operations
        .push(json!({"op": "add", "path": "/spec/unschedulable", "value": patch.unschedulable}));
    Value::Array(operations)
}

/// By hand: kube's own type misspells `deleteOptions`, and the preconditions are lost.
fn eviction(pod: &PodView, grace_seconds: Option<i64>) -> Value {
    let mut options = json!({"preconditions": Preconditions {
        uid: Some(pod.uid.clone()),
        resource_version: None,
    }});
    if let Some(seconds) = grace_seconds {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": options,
    })
}

/// A budget that says no is told from an API server that is busy: only the budget names its cause.
fn judge_eviction(status: &kube::core::Status) -> Result<(), CallError> {
    let budget = status.details.as_ref().is_some_and(|details| {
        details
            .causes
            .iter()
            .any(|cause| cause.reason == "DisruptionBudget")
    });
    match status.code {
        404 => Ok(()),
        429 if !budget => Err(CallError::NoAnswer("the API server is busy".into())),
        429 => {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            let said: Vec<&str> = causes.map(|cause| cause.message.as_str()).collect();
            Err(CallError::NotNow(said.join("; ")))
        }
        _ => Err(Failure::Status(Box::new(status.clone())).into()),
    }
}

impl Records for Kubernetes {
    async fn repairs(&self) -> Result<Vec<NodeRepair>, CallError> {
        self.list(ListParams::default()).await
    }

    async fn create_repair(&self, repair: &NodeRepair) -> Result<(), CallError> {
        self.leading()?;
        self.put(repair).await.map(|_| ())
    }

    async fn fleet(&self) -> Result<Option<FleetState>, CallError> {
        found(self.call(self.api::<FleetState>().get(FLEET)).await)
    }

    async fn put_fleet(&self, fleet: &FleetState) -> Result<FleetState, CallError> {
        self.leading()?;
        self.put(fleet).await
    }

    async fn healths(&self) -> Result<Vec<NodeHealth>, CallError> {
        self.list(ListParams::default()).await
    }

    async fn put_health(&self, health: &NodeHealth) -> Result<NodeHealth, CallError> {
        self.leading()?;
        let mut stored = health.clone();
        if health.metadata.resource_version.is_none() {
            // The API drops the status of a new object.
            stored.metadata = self.put(health).await?.metadata;
            self.leading()?;
        }
        let api = self.api::<NodeHealth>();
        Ok(self
            .call(api.replace_status(&name_of(&stored), &written(), &stored))
            .await?)
    }

    async fn delete_health(&self, health: &NodeHealth) -> Result<(), CallError> {
        self.delete(health).await
    }

    async fn collect_group(
        &self,
        name: &str,
        past: impl Fn(&AlertGroupSpec) -> bool,
    ) -> Result<(), CallError> {
        match self.group(name, Age::Newest).await? {
            Some(group) if past(&group.spec) => self.delete(&group).await,
            _ => Ok(()),
        }
    }

    async fn forget_repair(&self, repair: &NodeRepair) -> Result<(), CallError> {
        self.delete(repair).await
    }
}

impl TokenReviews for Kubernetes {
    fn review<'a>(
        &'a self,
        token: &'a str,
        audience: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Option<String>, CallError>> + Send + 'a>> {
        let question = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![audience.to_owned()]),
            },
            ..TokenReview::default()
        };
        Box::pin(async move {
            let api = self.api::<TokenReview>();
            let answer = self.call(api.create(&written(), &question)).await?;
            Ok(answer.status.and_then(|status| user(status, audience)))
        })
    }
}

/// Whose token it is. An API server that knows nothing of audiences answers with none: its
/// word on the token does not count.
fn user(status: TokenReviewStatus, audience: &str) -> Option<String> {
    let ours = status
        .audiences
        .is_some_and(|audiences| audiences.iter().any(|known| known == audience));
    let user = status.user?.username.filter(|name| !name.is_empty())?;
    (status.authenticated == Some(true) && ours).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h66_a_token_counts_only_if_it_is_valid_and_for_us() {
        let check = |answer: Value, expect: Option<&str>| {
            let status = serde_json::from_value(answer.clone()).unwrap();
            assert_eq!(user(status, "nodemend").as_deref(), expect, "{answer}");
        };
        let am = json!({"username": "system:serviceaccount:monitoring:am"});
        check(
            json!({"authenticated": true, "audiences": ["x", "nodemend"], "user": am}),
            Some("system:serviceaccount:monitoring:am"),
        );
        check(json!({}), None);
        check(
            json!({"authenticated": false, "error": "token has expired"}),
            None,
        );
        check(
            json!({"authenticated": false, "audiences": ["nodemend"], "user": am}),
            None,
        );
        check(json!({"audiences": ["nodemend"], "user": am}), None);
        check(json!({"authenticated": true, "user": am}), None);
        check(
            json!({"authenticated": true, "audiences": [], "user": am}),
            None,
        );
        check(
            json!({"authenticated": true, "audiences": ["https://kubernetes"], "user": am}),
            None,
        );
        let audiences = json!(["nodemend"]);
        check(json!({"authenticated": true, "audiences": audiences}), None);
        check(
            json!({"authenticated": true, "audiences": audiences, "user": {"username": ""}}),
            None,
        );
    }

    fn patch() -> NodePatch {
        NodePatch {
            name: "a".into(),
            uid: "u".into(),
            resource_version: "7".into(),
            unschedulable: true,
            quarantined_by: Some("r=false".into()),
            field_manager: String::new(),
        }
    }

    #[test]
    fn h23_a_node_patch_tests_uid_and_version_before_anything_else() {
        let body = node_patch(&patch(), true);
        assert_eq!(
            body[0],
            json!({"op": "test", "path": "/metadata/uid", "value": "u"})
        );
        assert_eq!(
            body[1],
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"})
        );
        assert_eq!(
            body[2]["path"],
            "/metadata/annotations/nodemend.dev~1quarantined-by"
        );
        assert_eq!(
            body[3],
            json!({"op": "add", "path": "/spec/unschedulable", "value": true})
        );
    }

    #[test]
    fn a_node_without_annotations_gets_a_place_for_them() {
        let body = node_patch(&patch(), false);
        assert_eq!(
            body[2],
            json!({"op": "add", "path": "/metadata/annotations", "value": {}})
        );
    }

    #[test]
    fn h29_an_eviction_carries_the_pods_uid_where_the_api_reads_it() {
        let pod = views::pod(&Pod {
            metadata: kube::api::ObjectMeta {
                name: Some("p".into()),
                namespace: Some("n".into()),
                uid: Some("u".into()),
                ..kube::api::ObjectMeta::default()
            },
            ..Pod::default()
        });
        let body = eviction(&pod, Some(30));
        assert_eq!(body["deleteOptions"]["preconditions"], json!({"uid": "u"}));
        assert_eq!(body["deleteOptions"]["gracePeriodSeconds"], 30);
        assert_eq!(
            eviction(&pod, None)["deleteOptions"].get("gracePeriodSeconds"),
            None
        );
    }

    fn status(code: u16, cause: &str) -> kube::core::Status {
        serde_json::from_value(
            json!({"status": "Failure", "code": code, "message": "no", "reason": "x",
            "details": {"causes": [{"reason": cause, "message": "budget web needs 2"}]}}),
        )
        .unwrap()
    }

    #[test]
    fn h27_a_budget_is_told_from_a_busy_server() {
        assert_eq!(
            judge_eviction(&status(429, "DisruptionBudget")),
            Err(CallError::NotNow("budget web needs 2".into()))
        );
        assert!(matches!(
            judge_eviction(&status(429, "")),
            Err(CallError::NoAnswer(_))
        ));
    }

    #[test]
    fn evictions_are_judged_by_their_code() {
        assert_eq!(judge_eviction(&status(404, "")), Ok(()));
        assert!(matches!(
            judge_eviction(&status(409, "")),
            Err(CallError::Conflict(_))
        ));
        assert!(matches!(
            judge_eviction(&status(403, "")),
            Err(CallError::Refused(_))
        ));
        assert!(matches!(
            judge_eviction(&status(500, "")),
            Err(CallError::NoAnswer(_))
        ));
    }
}
