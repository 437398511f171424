//! Faults of the EC2 front, on demand.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What goes wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// It is answered this many milliseconds later.
    Delay(u64),
    /// It is refused and not performed.
    Error {
        /// The HTTP status, as 503.
        status: u16,
        /// EC2's code, as `RequestLimitExceeded`.
        code: String,
    },
    /// It is performed, then the connection drops.
    LoseAnswer,
    /// The connection drops and nothing is performed.
    LoseRequest,
}

impl Fault {
    /// An answer that comes later.
    pub fn delay(by: Duration) -> Self {
        Self::Delay(u64::try_from(by.as_millis()).unwrap_or(u64::MAX))
    }

    /// A refusal with EC2's code.
    pub fn error(status: u16, code: &str) -> Self {
        Self::Error {
            status,
            code: code.to_owned(),
        }
    }
}

/// A fault for the next calls of an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The action, as `RunInstances`.
    pub action: String,
    /// What goes wrong.
    pub fault: Fault,
    /// For how many calls.
    #[serde(default = "once")]
    pub times: u32,
}

fn once() -> u32 {
    1
}

/// The faults to come, the oldest first.
#[derive(Debug, Default)]
pub struct Faults(Mutex<VecDeque<Planned>>);

impl Faults {
    /// Adds one after those already planned.
    pub fn plan(&self, planned: Planned) {
        self.lock().push_back(planned);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// What is still to come.
    pub fn planned(&self) -> Vec<Planned> {
        self.lock().iter().cloned().collect()
    }

    /// The fault for this call, if any.
    pub fn take(&self, action: &str) -> Option<Fault> {
        let mut faults = self.lock();
        let index = faults
            .iter()
            .position(|planned| planned.action == action && planned.times > 0)?;
        faults[index].times -= 1;
        let fault = faults[index].fault.clone();
        faults.retain(|planned| planned.times > 0);
        Some(fault)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Planned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
