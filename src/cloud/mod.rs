//! EC2, as `exec` asks for it. Without the feature `ec2` only [`NoCloud`] is left.

#[cfg(feature = "ec2")]
mod ec2;
#[cfg(feature = "ec2")]
mod sigv4;

use nodemend_core::api::LaunchPlan;
use nodemend_core::model::InstanceView;

use crate::exec::{CallError, Cloud};

#[cfg(feature = "ec2")]
pub use ec2::{DEADLINE, Ec2};
#[cfg(feature = "ec2")]
pub use sigv4::Signer;

/// Stands where EC2 would be, and refuses every call.
#[derive(Clone, Copy, Debug)]
pub struct NoCloud;

impl NoCloud {
    /// As `Ec2::connect`, so that a build with the AWS SDK and one without read alike.
    pub fn connect() -> impl Future<Output = Self> {
        std::future::ready(Self)
    }
}

impl Cloud for NoCloud {
    async fn instance(&self, _: &str) -> Result<Option<InstanceView>, CallError> {
        Err(refused())
    }

    async fn by_token(&self, _: &str) -> Result<Option<InstanceView>, CallError> {
        Err(refused())
    }

    async fn launch(&self, _: &str, _: &LaunchPlan) -> Result<String, CallError> {
        Err(refused())
    }

    async fn reboot(&self, _: &str) -> Result<(), CallError> {
        Err(refused())
    }

    async fn terminate(&self, _: &str) -> Result<(), CallError> {
        Err(refused())
    }
}

fn refused() -> CallError {
    CallError::Refused("built without the feature ec2".into())
}
