//! A cloud that only the leader changes.

use nodemend_core::api::LaunchPlan;
use nodemend_core::model::InstanceView;

use crate::cluster::{CALL_DEADLINE, Lease};
use crate::exec::{CallError, Cloud};
use crate::telemetry::{CallResult, System, Telemetry};

/// A cloud whose mutating calls start only within the lease, and end with their deadline.
#[derive(Debug)]
pub(super) struct Leased<K> {
    pub(super) cloud: K,
    pub(super) lease: Lease,
    pub(super) telemetry: Telemetry,
}

impl<K> Leased<K> {
    async fn mutate<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        if !self.lease.outlives(CALL_DEADLINE) {
            return Err(CallError::NoAnswer("not the leader any more".into()));
        }
        let result = tokio::time::timeout(CALL_DEADLINE, call).await;
        self.count(result.unwrap_or_else(|_| {
            let message = format!("no answer within {} s", CALL_DEADLINE.as_secs());
            Err(CallError::NoAnswer(message))
        }))
    }

    fn count<T>(&self, result: Result<T, CallError>) -> Result<T, CallError> {
        self.telemetry.external_call(
            System::EC2,
            match &result {
                Ok(_) => CallResult::Ok,
                Err(CallError::NoAnswer(_)) => CallResult::Timeout,
                Err(_) => CallResult::Refused,
            },
        );
        result
    }
}

impl<K: Cloud> Cloud for &Leased<K> {
    async fn instance(&self, id: &str) -> Result<Option<InstanceView>, CallError> {
        self.count(self.cloud.instance(id).await)
    }
    async fn by_token(&self, token: &str) -> Result<Option<InstanceView>, CallError> {
        self.count(self.cloud.by_token(token).await)
    }
    async fn launch(&self, token: &str, plan: &LaunchPlan) -> Result<String, CallError> {
        self.mutate(self.cloud.launch(token, plan)).await
    }
    async fn reboot(&self, id: &str) -> Result<(), CallError> {
        self.mutate(self.cloud.reboot(id)).await
    }
    async fn terminate(&self, id: &str) -> Result<(), CallError> {
        self.mutate(self.cloud.terminate(id)).await
    }
}
