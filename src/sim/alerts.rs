//! The simulated store of alert groups. Replicas that receive alerts share it, so it is
//! apart from the leader's world and crosses threads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nodemend_core::api::{AlertGroup, AlertGroupSpec};

use crate::controller::Groups;
use crate::exec::CallError;

/// A handle on the groups, by object name.
#[derive(Clone, Debug, Default)]
pub struct Alerts(Arc<Mutex<BTreeMap<String, AlertGroup>>>);

impl Alerts {
    /// All groups.
    pub fn list(&self) -> Vec<AlertGroup> {
        self.lock().values().cloned().collect()
    }

    /// Drops the group of this name if it is past.
    pub(super) fn collect(&self, name: &str, past: impl Fn(&AlertGroupSpec) -> bool) {
        let mut groups = self.lock();
        if groups.get(name).is_some_and(|group| past(&group.spec)) {
            groups.remove(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, AlertGroup>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Groups for Alerts {
    async fn group(&self, name: &str) -> Result<Option<AlertGroup>, CallError> {
        Ok(self.lock().get(name).cloned())
    }

    async fn put_group(&self, group: &AlertGroup) -> Result<(), CallError> {
        let mut groups = self.lock();
        let name = group.metadata.name.clone().unwrap_or_default();
        let version = |group: &AlertGroup| group.metadata.resource_version.clone();
        let stored = groups.get(&name).and_then(version);
        if stored != version(group) {
            return Err(CallError::Conflict("the group changed".into()));
        }
        let next = stored
            .and_then(|stored| stored.parse::<u64>().ok())
            .unwrap_or(0)
            + 1;
        let mut group = group.clone();
        group.metadata.resource_version = Some(next.to_string());
        groups.insert(name, group);
        Ok(())
    }
}
