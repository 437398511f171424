//! EC2 over the AWS SDK. One call is one request: repeating is for `exec`, which
//! knows what may be repeated.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::describe_instances::builders::DescribeInstancesFluentBuilder;
use aws_sdk_ec2::types::{
    Filter, Instance, InstanceStateName, InstanceType, LaunchTemplateSpecification, ResourceType,
    Tag, TagSpecification,
};
use nodemend_core::api::LaunchPlan;
use nodemend_core::model::{InstanceState, InstanceView};

use crate::exec::{CallError, Cloud};

/// How long a call takes at most, name resolution and credentials included.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// The tag that tells a person where an instance comes from.
const TOKEN_TAG: &str = "nodemend.dev/client-token";
/// EC2 does not know the instance, or not yet.
const NOT_FOUND: &str = "InvalidInstanceID.NotFound";

/// A client of one account and region.
#[derive(Clone, Debug)]
pub struct Ec2(Client);

impl Ec2 {
    /// Reads region, credentials and endpoint from where every AWS tool finds them:
    /// the `AWS_*` variables, the shared files, the instance's role.
    pub async fn connect() -> Self {
        let config = aws_config::defaults(BehaviorVersion::latest());
        Self::configured(config, DEADLINE).await
    }

    async fn configured(config: ConfigLoader, deadline: Duration) -> Self {
        let deadlines = TimeoutConfig::builder()
            .operation_timeout(deadline)
            .operation_attempt_timeout(deadline)
            .build();
        let config = config
            .retry_config(RetryConfig::disabled())
            .timeout_config(deadlines);
        Self(Client::new(&config.load().await))
    }
}

impl Cloud for Ec2 {
    async fn instance(&self, id: &str) -> Result<Option<InstanceView>, CallError> {
        let request = self.0.describe_instances().instance_ids(id);
        match describe(request).await {
            Ok(found) => Ok(found
                .into_iter()
                .find(|instance| instance.instance_id() == Some(id))
                .map(view)),
            Err(error)
                if matches!(
                    error.code(),
                    Some(NOT_FOUND | "InvalidInstanceID.Malformed")
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(call_error(&error)),
        }
    }

    async fn by_token(&self, token: &str) -> Result<Option<InstanceView>, CallError> {
        let filter = Filter::builder().name("client-token").values(token).build();
        let found = describe(self.0.describe_instances().filters(filter))
            .await
            .map_err(|error| call_error(&error))?;
        // One that still lives, then the newest.
        let best = found.into_iter().max_by_key(|instance| {
            let ending = matches!(
                state(instance),
                InstanceState::ShuttingDown | InstanceState::Terminated
            );
            (!ending, instance.launch_time().copied())
        });
        Ok(best.map(view))
    }

    async fn launch(&self, token: &str, plan: &LaunchPlan) -> Result<String, CallError> {
        let template = LaunchTemplateSpecification::builder()
            .launch_template_id(&plan.template.id)
            .version(&plan.template.version)
            .build();
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::Instance)
            .tags(tag(&plan.cluster_tag, "owned"))
            .tags(tag(TOKEN_TAG, token))
            .build();
        let launched = self
            .0
            .run_instances()
            .client_token(token)
            .min_count(1)
            .max_count(1)
            .launch_template(template)
            .subnet_id(&plan.subnet)
            .instance_type(InstanceType::from(plan.instance_type.as_str()))
            .tag_specifications(tags)
            .send()
            .await
            .map_err(|error| call_error(&error))?;
        launched
            .instances()
            .iter()
            .find_map(|instance| instance.instance_id().map(str::to_owned))
            .ok_or_else(|| CallError::NoAnswer("an answer without an instance".into()))
    }

    async fn reboot(&self, id: &str) -> Result<(), CallError> {
        let request = self.0.reboot_instances().instance_ids(id);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(call_error(&error)),
        }
    }

    async fn terminate(&self, id: &str) -> Result<(), CallError> {
        let request = self.0.terminate_instances().instance_ids(id);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(call_error(&error)),
        }
    }
}

async fn describe(
    request: DescribeInstancesFluentBuilder,
) -> Result<
    Vec<Instance>,
    SdkError<aws_sdk_ec2::operation::describe_instances::DescribeInstancesError, HttpResponse>,
> {
    // A page may be empty and yet not be the last.
    let reservations: Vec<_> = request
        .into_paginator()
        .items()
        .send()
        .collect::<Result<_, _>>()
        .await?;
    Ok(reservations
        .into_iter()
        .flat_map(|reservation| reservation.instances.unwrap_or_default())
        .collect())
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}

fn view(instance: Instance) -> InstanceView {
    let state = state(&instance);
    let tags: BTreeMap<String, String> = instance
        .tags
        .unwrap_or_default()
        .into_iter()
        .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
        .collect();
    InstanceView {
        id: instance.instance_id.unwrap_or_default(),
        state,
        tags,
        subnet: instance.subnet_id.unwrap_or_default(),
        instance_type: instance
            .instance_type
            .map(|name| name.as_str().to_owned())
            .unwrap_or_default(),
    }
}

fn state(instance: &Instance) -> InstanceState {
    match instance.state().and_then(|state| state.name()) {
        Some(InstanceStateName::Pending) => InstanceState::Pending,
        Some(InstanceStateName::Running) => InstanceState::Running,
        Some(InstanceStateName::ShuttingDown) => InstanceState::ShuttingDown,
        Some(InstanceStateName::Terminated) => InstanceState::Terminated,
        _ => InstanceState::Other,
    }
}

fn call_error<E>(error: &SdkError<E, HttpResponse>) -> CallError
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    match error {
        SdkError::ServiceError(said) => classify(
            said.raw().status().as_u16(),
            error.code().unwrap_or("no code"),
            error.message().unwrap_or("no message"),
        ),
        // Nothing was sent, and it would not be the next time.
        SdkError::ConstructionFailure(_) => CallError::Refused(cause(error)),
        _ => CallError::NoAnswer(cause(error)),
    }
}

/// What an error that EC2 answered means for the caller.
fn classify(status: u16, code: &str, message: &str) -> CallError {
    let text = format!("{code}: {message} (HTTP {status})");
    match status {
        // Of an instance that was just made or just ended, this says nothing.
        _ if code == NOT_FOUND => CallError::NoAnswer(text),
        _ if passes(status, code) => CallError::NotNow(text),
        400..=499 => CallError::Refused(text),
        _ => CallError::NoAnswer(text),
    }
}

/// Whether nothing was done, and the same call may succeed later. Some of these
/// come as 500 or 503, so that the status alone does not tell.
fn passes(status: u16, code: &str) -> bool {
    status == 429
        || code.ends_with("LimitExceeded")
        || code.starts_with("Thrott")
        || code.starts_with("Insufficient")
            && ["Capacity", "FreeAddresses"]
                .iter()
                .any(|what| code.contains(what))
        || ["SlowDown", "TooManyRequestsException"].contains(&code)
}

/// The innermost cause: the layers above it only say that there was an error.
fn cause(error: &dyn StdError) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_config::Region;
    use aws_sdk_ec2::config::Credentials;
    use nodemend_core::api::LaunchTemplate;
    use nodemend_lab::{Double, Reply};

    fn check(status: u16, code: &str, expect: fn(String) -> CallError) {
        let text = format!("{code}: why (HTTP {status})");
        assert_eq!(classify(status, code, "why"), expect(text));
    }

    #[test]
    fn h38_other_parameters_under_the_same_token_are_refused() {
        check(400, "IdempotentParameterMismatch", CallError::Refused);
    }

    #[test]
    fn h41_what_has_no_room_now_may_have_later() {
        for code in [
            "InsufficientInstanceCapacity",
            "InsufficientHostCapacity",
            "InsufficientFreeAddressesInSubnet",
            "InstanceLimitExceeded",
            "VcpuLimitExceeded",
        ] {
            check(400, code, CallError::NotNow);
            check(500, code, CallError::NotNow);
        }
    }

    #[test]
    fn h42_throttling_is_not_now() {
        for code in ["RequestLimitExceeded", "Throttling", "ThrottlingException"] {
            check(503, code, CallError::NotNow);
        }
        check(429, "", CallError::NotNow);
    }

    #[test]
    fn h43_what_is_not_authorized_is_refused() {
        for code in ["UnauthorizedOperation", "ExpiredToken", "AuthFailure", ""] {
            check(403, code, CallError::Refused);
        }
    }

    #[test]
    fn what_says_nothing_of_the_effect_is_no_answer() {
        for (status, code) in [
            (500, "InternalError"),
            (503, "Unavailable"),
            (502, ""),
            (200, ""),
            (302, ""),
            (400, NOT_FOUND),
        ] {
            check(status, code, CallError::NoAnswer);
        }
        check(400, "InvalidSubnetID.NotFound", CallError::Refused);
    }

    async fn ec2(url: &str, deadline: Duration) -> Ec2 {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .endpoint_url(url)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"));
        Ec2::configured(config, deadline).await
    }

    async fn answering(status: u16, body: impl Into<String>) -> (Double, Ec2) {
        let reply = Reply::Answer(status, body.into());
        let double = Double::start(move |_| reply.clone()).await.unwrap();
        let ec2 = ec2(&double.url, DEADLINE).await;
        (double, ec2)
    }

    fn described(instances: &[(&str, &str, &str)]) -> String {
        let items: Vec<String> = instances
            .iter()
            .map(|(id, state, launched)| {
                format!(
                    "<item><instancesSet><item><instanceId>{id}</instanceId>\
                     <instanceState><name>{state}</name></instanceState>\
                     <instanceType>m7.odd</instanceType><subnetId>subnet-1</subnetId>\
                     <launchTime>{launched}</launchTime>\
                     <tagSet><item><key>k</key><value>v</value></item></tagSet>\
                     </item></instancesSet></item>"
                )
            })
            .collect();
        let items = items.concat();
        format!(
            "<DescribeInstancesResponse><reservationSet>{items}</reservationSet>\
             </DescribeInstancesResponse>"
        )
    }

    fn failure(code: &str) -> String {
        format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>why</Message></Error></Errors>\
             <RequestID>r</RequestID></Response>"
        )
    }

    #[tokio::test]
    async fn launches_one_instance_as_planned() {
        let (double, ec2) = answering(
            200,
            "<RunInstancesResponse><instancesSet><item><instanceId>i-1</instanceId></item>\
             </instancesSet></RunInstancesResponse>",
        )
        .await;
        let plan = LaunchPlan {
            template: LaunchTemplate {
                id: "lt-1".into(),
                version: "7".into(),
            },
            subnet: "subnet-1".into(),
            instance_type: "m7.odd".into(),
            cluster_tag: "kubernetes.io/cluster/a".into(),
        };
        assert_eq!(ec2.launch("token-1", &plan).await, Ok("i-1".into()));
        let sent = double.sent();
        assert_eq!(sent.len(), 1);
        let mut fields: Vec<&str> = sent[0].body.split('&').collect();
        fields.retain(|field| !field.starts_with("Version="));
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "Action=RunInstances",
                "ClientToken=token-1",
                "InstanceType=m7.odd",
                "LaunchTemplate.LaunchTemplateId=lt-1",
                "LaunchTemplate.Version=7",
                "MaxCount=1",
                "MinCount=1",
                "SubnetId=subnet-1",
                "TagSpecification.1.ResourceType=instance",
                "TagSpecification.1.Tag.1.Key=kubernetes.io%2Fcluster%2Fa",
                "TagSpecification.1.Tag.1.Value=owned",
                "TagSpecification.1.Tag.2.Key=nodemend.dev%2Fclient-token",
                "TagSpecification.1.Tag.2.Value=token-1",
            ]
        );
    }

    #[tokio::test]
    async fn reads_an_instance() {
        let (double, ec2) = answering(
            200,
            described(&[("i-1", "running", "2026-01-01T00:00:00Z")]),
        )
        .await;
        let expect = InstanceView {
            id: "i-1".into(),
            state: InstanceState::Running,
            tags: [("k".to_owned(), "v".to_owned())].into(),
            subnet: "subnet-1".into(),
            instance_type: "m7.odd".into(),
        };
        assert_eq!(ec2.instance("i-1").await, Ok(Some(expect)));
        assert!(double.sent()[0].body.contains("InstanceId.1=i-1"));
    }

    #[tokio::test]
    async fn an_unknown_instance_is_none_and_a_new_state_is_other() {
        for code in [NOT_FOUND, "InvalidInstanceID.Malformed"] {
            let (_double, ec2) = answering(400, failure(code)).await;
            assert_eq!(ec2.instance("i-1").await, Ok(None));
        }
        let (_double, ec2) = answering(200, described(&[("i-1", "paused", "")])).await;
        let found = ec2.instance("i-1").await;
        assert!(
            matches!(found, Err(CallError::NoAnswer(_))),
            "no such time: {found:?}"
        );
        let (_double, ec2) =
            answering(200, described(&[("i-1", "paused", "2026-01-01T00:00:00Z")])).await;
        let found = ec2.instance("i-1").await.unwrap().unwrap();
        assert_eq!(found.state, InstanceState::Other);
    }

    #[tokio::test]
    async fn a_token_finds_the_newest_that_lives() {
        let (double, ec2) = answering(
            200,
            described(&[
                ("i-1", "running", "2026-01-01T00:00:00Z"),
                ("i-2", "pending", "2026-01-02T00:00:00Z"),
                ("i-3", "terminated", "2026-01-03T00:00:00Z"),
            ]),
        )
        .await;
        let found = ec2.by_token("token-1").await.unwrap().unwrap();
        assert_eq!(found.id, "i-2");
        let body = &double.sent()[0].body;
        assert!(
            body.contains("Filter.1.Name=client-token")
                && body.contains("Filter.1.Value.1=token-1"),
            "{body}"
        );
        let (_double, ec2) = answering(200, described(&[])).await;
        assert_eq!(ec2.by_token("token-1").await, Ok(None));
    }

    #[tokio::test]
    async fn terminates_one_instance_with_one_request() {
        let (double, ec2) = answering(
            200,
            "<TerminateInstancesResponse></TerminateInstancesResponse>",
        )
        .await;
        assert_eq!(ec2.terminate("i-1").await, Ok(()));
        assert!(double.sent()[0].body.contains("InstanceId.1=i-1"));
        let (double, ec2) = answering(503, failure("RequestLimitExceeded")).await;
        let text = "RequestLimitExceeded: why (HTTP 503)".to_owned();
        assert_eq!(ec2.terminate("i-1").await, Err(CallError::NotNow(text)));
        assert_eq!(double.sent().len(), 1, "the SDK does not retry");
    }

    #[tokio::test]
    async fn restarts_one_instance_with_one_request() {
        let answer = "<RebootInstancesResponse><return>true</return></RebootInstancesResponse>";
        let (double, ec2) = answering(200, answer).await;
        assert_eq!(ec2.reboot("i-1").await, Ok(()));
        let body = &double.sent()[0].body;
        assert!(
            body.contains("Action=RebootInstances")
                && body.split('&').any(|it| it == "InstanceId.1=i-1"),
            "{body}"
        );
        let (double, ec2) = answering(500, failure("InternalError")).await;
        let found = ec2.reboot("i-1").await;
        assert!(matches!(found, Err(CallError::NoAnswer(_))), "{found:?}");
        assert_eq!(double.sent().len(), 1, "the SDK does not retry");
    }

    #[tokio::test]
    async fn silence_refusal_and_nonsense_are_no_answer() {
        let double = Double::start(|_| Reply::Hang).await.unwrap();
        let silent = ec2(&double.url, Duration::from_millis(100)).await;
        let closed = ec2("http://127.0.0.1:1", DEADLINE).await;
        let (_double, page) = answering(200, "<html>").await;
        for client in [silent, closed, page] {
            let found = client.terminate("i-1").await;
            assert!(matches!(found, Err(CallError::NoAnswer(_))), "{found:?}");
            let found = client.instance("i-1").await;
            assert!(matches!(found, Err(CallError::NoAnswer(_))), "{found:?}");
        }
    }
}
