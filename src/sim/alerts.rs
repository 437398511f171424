//! The simulated store of alert groups. Replicas that receive alerts share it, so it is
//! apart from the leader's world and crosses threads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nodemend_core::api::{AlertGroup, AlertGroupSpec};

use crate::controller::{Age, Groups};
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
    async fn group(&self, name: &str, _: Age) -> Result<Option<AlertGroup>, CallError> {
        Ok(self.lock().get(name).cloned())
    }

    async fn put_group(&self, mut group: AlertGroup) -> Result<(), CallError> {
        let mut groups = self.lock();
        let name = group.metadata.name.clone().unwrap_or_default();
        let version = |group: &AlertGroup| group.metadata.resource_version.clone();
        let stored = groups.get(&name).and_then(version);
        if stored != version(&group) {
            return Err(CallError::Conflict("the group changed".into()));
        }
        let next = stored
            .and_then(|stored| stored.parse::<u64>().ok())
            .unwrap_or(0)
            + 1;
        group.metadata.resource_version = Some(next.to_string());
        groups.insert(name, group);
        Ok(())
    }

    /// Nobody fills a simulated store.
    fn others(&self, _: &str, _: &str) -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{Controller, Setup};
    use crate::sim::World;
    use futures_util::FutureExt;
    use jiff::Timestamp;
    use nodemend_core::api::StoredAlert;
    use nodemend_core::config::Limits;
    use nodemend_core::evidence::{FORGET_AFTER, Input};

    fn group(received: Timestamp) -> AlertGroup {
        let alert = StoredAlert {
            name: "A".into(),
            labels: BTreeMap::new(),
            severity: String::new(),
            starts_at: received,
            last_firing: Some(received),
            last_resolved: None,
            ends_at: None,
            end_received: None,
        };
        let spec = AlertGroupSpec {
            alerts: BTreeMap::from([("f".into(), alert)]),
            ..AlertGroupSpec::default()
        };
        AlertGroup::new("g", spec)
    }

    /// The leader knows the group of `known`, stored is what was received last.
    fn collected(known: Timestamp, stored: Timestamp, now: Timestamp) -> bool {
        let world = World::new(now, &[]);
        let alerts = world.alerts();
        alerts
            .put_group(group(stored))
            .now_or_never()
            .unwrap()
            .unwrap();
        let setup = Setup {
            cluster_tag: String::new(),
            rules: nodemend_core::config::Rules::default(),
            policies: vec![],
            limits: Limits::default(),
            cluster_jobs: Vec::new(),
            external_labels: BTreeMap::new(),
        };
        let mut controller =
            Controller::new(world.clone(), world.clone(), world.clone(), setup, None);
        let input = Input::Alerts {
            object: "g".into(),
            group: group(known).spec,
        };
        let passed = controller.pass(vec![input], &[], &world).now_or_never();
        passed.expect("needs no runtime").expect("nothing fails");
        alerts.list().is_empty()
    }

    #[test]
    fn a_forgotten_group_is_collected_unless_a_delivery_was_faster() {
        let old = Timestamp::UNIX_EPOCH;
        let now = FORGET_AFTER.after(old);
        let later = nodemend_core::model::Span::seconds(1).after(now);
        assert!(!collected(old, old, now), "not yet");
        assert!(collected(old, old, later));
        assert!(
            !collected(old, later, later),
            "the leader has not seen it yet"
        );
    }
}
