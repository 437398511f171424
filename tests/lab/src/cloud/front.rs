//! The lab's EC2 front: what moto does not do.
//!
//! It remembers client tokens as EC2 does, records every call, and takes faults.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use axum::http::StatusCode;
use serde::Serialize;

use super::faults::{Fault, Faults};
use super::query::{self, Answer, Params};
use super::xml::Element;

/// Where calls are performed: moto, or a test's own.
pub trait Upstream: Send + Sync + 'static {
    /// Performs a call; `authorization` tells moto the region.
    fn perform(
        &self,
        authorization: Option<&str>,
        params: &Params,
    ) -> impl Future<Output = Result<Answer>> + Send;
}

/// A call that nodemend made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// As `RunInstances`.
    pub action: String,
    /// All its parameters.
    pub params: Params,
    /// When it came, RFC 3339.
    pub time: String,
    /// The answer's HTTP status; none while it is under way.
    pub status: Option<u16>,
    /// The code of an error.
    pub error: Option<String>,
    /// The fault that it met.
    pub fault: Option<Fault>,
    /// Answered from the memory of its client token.
    pub repeated: bool,
}

impl Call {
    /// Its `ClientToken`.
    pub fn client_token(&self) -> Option<&str> {
        self.params.get("ClientToken").map(String::as_str)
    }
}

/// What the client gets: an answer, or a dropped connection.
pub type Reply = Option<Answer>;

struct Remembered {
    params: Params,
    answer: Answer,
    instances: Vec<String>,
}

/// The front before an upstream.
pub struct Front<U> {
    upstream: U,
    /// The faults to come.
    pub faults: Faults,
    calls: Mutex<Vec<Call>>,
    // Held while a launch runs: a second one with its token must wait for the first's answer.
    tokens: tokio::sync::Mutex<BTreeMap<String, Remembered>>,
}

impl<U: Upstream> Front<U> {
    /// A front that has seen nothing.
    pub fn new(upstream: U) -> Self {
        Self {
            upstream,
            faults: Faults::default(),
            calls: Mutex::default(),
            tokens: tokio::sync::Mutex::default(),
        }
    }

    /// The calls so far, in the order of their coming.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// Forgets the calls, but no client token.
    pub fn clear_calls(&self) {
        self.lock().clear();
    }

    /// Takes one call. To be spawned: what is performed must be remembered, even
    /// if the client goes away meanwhile.
    pub async fn take(self: Arc<Self>, authorization: Option<String>, params: Params) -> Reply {
        let action = params.get("Action").cloned().unwrap_or_default();
        let fault = self.faults.take(&action);
        let number = self.record(&action, &params, fault.clone());
        let (answer, repeated) = match &fault {
            Some(Fault::LoseRequest) => return None,
            Some(Fault::Error { status, code }) => {
                let status =
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (
                    query::error(status, code, "a fault that the test asked for"),
                    false,
                )
            }
            _ => {
                self.perform(&action, authorization.as_deref(), params)
                    .await
            }
        };
        if let Some(Fault::Delay(milliseconds)) = &fault {
            tokio::time::sleep(Duration::from_millis(*milliseconds)).await;
        }
        self.settle(number, &answer, repeated);
        (fault != Some(Fault::LoseAnswer)).then_some(answer)
    }

    async fn perform(
        &self,
        action: &str,
        authorization: Option<&str>,
        params: Params,
    ) -> (Answer, bool) {
        match action {
            "RunInstances" if params.contains_key("ClientToken") => {
                self.launch(authorization, params).await
            }
            "DescribeInstances" => (self.describe(authorization, params).await, false),
            _ => (self.forward(authorization, &params).await, false),
        }
    }

    /// The same token and parameters give the first answer again; other parameters are refused.
    async fn launch(&self, authorization: Option<&str>, params: Params) -> (Answer, bool) {
        let token = params.get("ClientToken").cloned().unwrap_or_default();
        let mut tokens = self.tokens.lock().await;
        if let Some(known) = tokens.get(&token) {
            if known.params == params {
                return (known.answer.clone(), true);
            }
            let message = "The client token was used before, with other parameters.";
            return (
                query::error(
                    StatusCode::BAD_REQUEST,
                    "IdempotentParameterMismatch",
                    message,
                ),
                false,
            );
        }
        let answer = self.forward(authorization, &params).await;
        if answer.status.is_success() {
            let instances = instance_ids(&answer.body);
            tokens.insert(
                token,
                Remembered {
                    params,
                    answer: answer.clone(),
                    instances,
                },
            );
        }
        (answer, false)
    }

    /// moto fails on the filter `client-token`: it becomes one on the instances we remember.
    async fn describe(&self, authorization: Option<&str>, mut params: Params) -> Answer {
        if let Some((number, wanted)) = query::filter(&params, "client-token") {
            let tokens = self.tokens.lock().await;
            let instances: Vec<String> = wanted
                .iter()
                .filter_map(|token| tokens.get(token))
                .flat_map(|known| known.instances.clone())
                .collect();
            drop(tokens);
            if instances.is_empty() {
                return query::no_instances();
            }
            query::replace_filter(&mut params, &number, "instance-id", &instances);
        }
        self.forward(authorization, &params).await
    }

    async fn forward(&self, authorization: Option<&str>, params: &Params) -> Answer {
        match self.upstream.perform(authorization, params).await {
            Ok(answer) => answer,
            Err(error) => query::error(
                StatusCode::BAD_GATEWAY,
                "InternalError",
                &format!("moto: {error:#}"),
            ),
        }
    }

    fn record(&self, action: &str, params: &Params, fault: Option<Fault>) -> usize {
        let mut calls = self.lock();
        calls.push(Call {
            action: action.to_owned(),
            params: params.clone(),
            time: jiff::Timestamp::now().to_string(),
            status: None,
            error: None,
            fault,
            repeated: false,
        });
        calls.len() - 1
    }

    fn settle(&self, number: usize, answer: &Answer, repeated: bool) {
        let mut calls = self.lock();
        // Gone if the test cleared them meanwhile.
        if let Some(call) = calls.get_mut(number) {
            call.status = Some(answer.status.as_u16());
            call.repeated = repeated;
            if !answer.status.is_success() {
                let document = Element::parse(&answer.body);
                let root = document.root().cloned().unwrap_or_default();
                call.error = Some(root.at(&["Errors", "Error", "Code"]).to_owned());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn instance_ids(body: &str) -> Vec<String> {
    let document = Element::parse(body);
    let Some(root) = document.root() else {
        return Vec::new();
    };
    root.items("instancesSet")
        .map(|item| item.at(&["instanceId"]).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Makes an instance per launch, and shows which filter arrived.
    #[derive(Default)]
    struct Fake(AtomicU32);

    impl Upstream for Fake {
        async fn perform(&self, _: Option<&str>, params: &Params) -> Result<Answer> {
            let body = if params["Action"] == "RunInstances" {
                let number = self.0.fetch_add(1, Ordering::Relaxed);
                format!(
                    "<R><instancesSet><item><instanceId>i-{number}</instanceId></item></instancesSet></R>"
                )
            } else {
                query::encode(params)
            };
            Ok(Answer {
                status: StatusCode::OK,
                body,
            })
        }
    }

    fn front() -> Arc<Front<Fake>> {
        Arc::new(Front::new(Fake::default()))
    }

    fn launch(token: &str, kind: &str) -> Params {
        [
            ("Action", "RunInstances"),
            ("ClientToken", token),
            ("InstanceType", kind),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    fn lookup(token: &str) -> Params {
        [
            ("Action", "DescribeInstances"),
            ("Filter.1.Name", "client-token"),
            ("Filter.1.Value.1", token),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    #[tokio::test]
    async fn same_token_and_parameters_give_the_same_instance() {
        let front = front();
        let first = front.clone().take(None, launch("t", "m5.large")).await;
        assert_eq!(
            front.clone().take(None, launch("t", "m5.large")).await,
            first
        );
        assert_ne!(
            front.clone().take(None, launch("u", "m5.large")).await,
            first
        );
        let repeated: Vec<bool> = front.calls().iter().map(|call| call.repeated).collect();
        assert_eq!(repeated, [false, true, false]);
    }

    #[tokio::test]
    async fn same_token_with_other_parameters_is_refused() {
        let front = front();
        front.clone().take(None, launch("t", "m5.large")).await;
        let reply = front
            .clone()
            .take(None, launch("t", "m5.xlarge"))
            .await
            .unwrap();
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        assert_eq!(
            front.calls()[1].error.as_deref(),
            Some("IdempotentParameterMismatch")
        );
        assert_eq!(front.upstream.0.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn two_launches_at_once_with_one_token_are_one() {
        let front = front();
        let (one, two) = tokio::join!(
            front.clone().take(None, launch("t", "a")),
            front.clone().take(None, launch("t", "a"))
        );
        assert_eq!(one, two);
        assert_eq!(front.upstream.0.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_lost_answer_was_performed_and_is_found_by_its_token() {
        let front = front();
        front.faults.plan(super::super::Planned {
            action: "RunInstances".into(),
            fault: Fault::LoseAnswer,
            times: 1,
        });
        assert_eq!(front.clone().take(None, launch("t", "a")).await, None);
        let found = front.clone().take(None, lookup("t")).await.unwrap();
        let sent = query::parse(&found.body).unwrap();
        assert_eq!(
            (
                sent["Filter.1.Name"].as_str(),
                sent["Filter.1.Value.1"].as_str()
            ),
            ("instance-id", "i-0")
        );
        assert_eq!(
            front.clone().take(None, lookup("other")).await,
            Some(query::no_instances())
        );
        assert!(
            front
                .clone()
                .take(None, launch("t", "a"))
                .await
                .unwrap()
                .body
                .contains("i-0")
        );
    }

    #[tokio::test]
    async fn a_refused_launch_leaves_its_token_free() {
        let front = front();
        let fault = Fault::error(503, "RequestLimitExceeded");
        front.faults.plan(super::super::Planned {
            action: "RunInstances".into(),
            fault,
            times: 2,
        });
        for _ in 0..2 {
            let reply = front.clone().take(None, launch("t", "a")).await.unwrap();
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        }
        assert!(
            front
                .clone()
                .take(None, launch("t", "b"))
                .await
                .unwrap()
                .status
                .is_success()
        );
        assert!(front.faults.planned().is_empty());
    }
}
