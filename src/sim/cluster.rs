//! The simulated Kubernetes API.

use std::task::Poll;

use jiff::Timestamp;
use nodemend_core::api::{AlertGroupSpec, FleetState, NodeHealth, NodeRepair, Step};
use nodemend_core::model::{NodeView, PodView, QUARANTINE_ANNOTATION};

use super::{Creates, State, Strike, World};
use crate::controller::Records;
use crate::exec::{CallError, Cluster, NodePatch};

/// How many pods of one workload may be away at once.
const MAX_DISRUPTED: usize = 1;

impl World {
    /// Performs a mutating call, unless a strike says otherwise.
    pub(super) async fn mutate<T>(
        &self,
        what: String,
        effect: impl FnOnce(&mut State) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let strike = self.0.borrow_mut().struck();
        match strike {
            Some(Strike::KillBefore(_)) => std::future::pending().await,
            Some(Strike::Late(_)) => self.released().await,
            Some(Strike::Conflict(_)) => return Err(conflict("somebody was faster")),
            Some(Strike::KillAfter(_) | Strike::NoAnswer(_)) | None => {}
        }
        let result = {
            let mut state = self.0.borrow_mut();
            state.calls.push(what);
            effect(&mut state)
        };
        match strike {
            Some(Strike::KillAfter(_) | Strike::Late(_)) => std::future::pending().await,
            Some(Strike::NoAnswer(_)) => Err(CallError::NoAnswer("the answer is lost".into())),
            _ => result,
        }
    }

    async fn released(&self) {
        std::future::poll_fn(|_| {
            if self.0.borrow().released {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    #[allow(
        clippy::unnecessary_wraps,
        reason = "it answers for calls that can fail in the real API"
    )]
    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, CallError> {
        self.0.borrow_mut().reads += 1;
        Ok(read(&self.0.borrow()))
    }
}

impl State {
    /// Takes the strike that is meant for the call about to be made.
    fn struck(&mut self) -> Option<Strike> {
        let next = self.calls.len();
        self.strike.take_if(|strike| match *strike {
            Strike::KillBefore(index)
            | Strike::KillAfter(index)
            | Strike::Late(index)
            | Strike::Conflict(index)
            | Strike::NoAnswer(index) => index == next,
        })
    }
}

fn conflict(what: &str) -> CallError {
    CallError::Conflict(what.to_owned())
}

fn name_of(metadata: &kube_meta::ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as kube_meta;

impl Cluster for World {
    async fn node(&self, name: &str) -> Result<Option<NodeView>, CallError> {
        self.read(|state| state.nodes.get(name).cloned())
    }

    async fn renewed(&self, node: &str) -> Result<Option<Timestamp>, CallError> {
        self.read(|state| state.renewed(node))
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, CallError> {
        self.read(|state| state.nodes.values().cloned().collect())
    }

    async fn patch_node(&self, patch: &NodePatch) -> Result<(), CallError> {
        self.mutate(
            format!(
                "patch node {} unschedulable={}",
                patch.name, patch.unschedulable
            ),
            |state| {
                let step = if patch.quarantined_by.is_some() {
                    Step::Quarantine
                } else {
                    Step::Release
                };
                let version = state.bump();
                let mut node = state
                    .nodes
                    .get(&patch.name)
                    .cloned()
                    .ok_or_else(|| conflict("no such node"))?;
                if node.uid != patch.uid || node.resource_version != patch.resource_version {
                    return Err(conflict("the node changed"));
                }
                state.expect_intent(&patch.field_manager, step);
                node.unschedulable = patch.unschedulable;
                match &patch.quarantined_by {
                    Some(value) => node
                        .annotations
                        .insert(QUARANTINE_ANNOTATION.to_owned(), value.clone()),
                    None => node.annotations.remove(QUARANTINE_ANNOTATION),
                };
                node.resource_version = version;
                state.nodes.insert(patch.name.clone(), node);
                Ok(())
            },
        )
        .await
    }

    async fn pods(&self, node: &str) -> Result<Vec<PodView>, CallError> {
        self.read(|state| {
            state
                .pods
                .values()
                .chain(&state.left)
                .filter(|(on, _)| on == node)
                .map(|(_, pod)| pod.clone())
                .collect()
        })
    }

    async fn evict(
        &self,
        pod: &PodView,
        _: Option<i64>,
        field_manager: &str,
    ) -> Result<(), CallError> {
        // A budget that says no changes nothing, so it is no mutating call.
        let disrupted = self
            .0
            .borrow()
            .pods
            .values()
            .filter(|(_, pod)| pod.gone_by.is_some())
            .count();
        if disrupted >= MAX_DISRUPTED {
            return Err(CallError::NotNow("disruption budget".into()));
        }
        self.mutate(format!("evict {}", pod.name), |state| {
            let found = state.pods.get(&pod.name);
            let (_, found) = found.ok_or_else(|| conflict("no such pod"))?;
            if found.uid != pod.uid {
                return Err(conflict("another pod"));
            }
            state.expect_intent(field_manager, Step::Drain);
            let now = state.now;
            if let Some((_, found)) = state.pods.get_mut(&pod.name) {
                found.gone_by = Some(now);
            }
            Ok(())
        })
        .await
    }

    async fn put_repair(&self, repair: &NodeRepair) -> Result<NodeRepair, CallError> {
        let name = name_of(&repair.metadata);
        let what = match repair.journal().last() {
            Some(entry) => format!(
                "journal {name} {:?} {}",
                entry.intent.step,
                if entry.outcome.is_some() {
                    "outcome"
                } else {
                    "intent"
                }
            ),
            None => format!("journal {name}"),
        };
        self.mutate(what, |state| {
            let version = state.bump();
            let stored = state
                .repairs
                .get(&name)
                .ok_or_else(|| conflict("no such repair"))?;
            if stored.metadata.resource_version != repair.metadata.resource_version {
                return Err(conflict("the repair changed"));
            }
            let mut next = stored.clone();
            next.status.clone_from(&repair.status);
            next.metadata.resource_version = Some(version);
            state.check_journal(&next);
            state.repairs.insert(name.clone(), next.clone());
            Ok(next)
        })
        .await
    }

    async fn finish_repair(&self, repair: &NodeRepair) -> Result<(), CallError> {
        let name = name_of(&repair.metadata);
        self.mutate(format!("finish {name}"), |state| {
            let version = state.bump();
            if let Some(stored) = state.repairs.get_mut(&name) {
                stored.metadata.finalizers = None;
                stored.metadata.resource_version = Some(version);
            }
            Ok(())
        })
        .await
    }
}

impl Records for World {
    async fn repairs(&self) -> Result<Vec<NodeRepair>, CallError> {
        self.read(|state| state.repairs.values().cloned().collect())
    }

    async fn create_repair(&self, repair: &NodeRepair) -> Result<(), CallError> {
        let name = name_of(&repair.metadata);
        self.mutate(format!("create repair {name}"), |state| {
            let version = state.bump();
            if state.repairs.contains_key(&name) {
                return Err(conflict("it exists"));
            }
            if state.creates == Creates::Refused {
                return Err(CallError::Refused("no repair is wanted".into()));
            }
            let mut created = repair.clone();
            created.status = None;
            let again = format!("create repair {name}");
            let nth = state.calls.iter().filter(|call| **call == again).count();
            created.metadata.uid = Some(format!("{name}/{nth}"));
            created.metadata.resource_version = Some(version);
            if state.creates == Creates::Late {
                state.late.push(created);
                return Err(CallError::NoAnswer("nothing was heard".into()));
            }
            state.repairs.insert(name.clone(), created);
            state.check();
            Ok(())
        })
        .await
    }

    async fn fleet(&self) -> Result<Option<FleetState>, CallError> {
        self.read(|state| state.fleet.clone())
    }

    async fn put_fleet(&self, fleet: &FleetState) -> Result<FleetState, CallError> {
        self.mutate(
            format!("fleet reservations={}", fleet.spec.reservations.len()),
            |state| {
                let version = state.bump();
                let stored = state
                    .fleet
                    .as_ref()
                    .and_then(|stored| stored.metadata.resource_version.clone());
                if stored != fleet.metadata.resource_version {
                    return Err(conflict("the fleet changed"));
                }
                let mut next = fleet.clone();
                next.metadata.resource_version = Some(version);
                state.fleet = Some(next.clone());
                Ok(next)
            },
        )
        .await
    }

    async fn healths(&self) -> Result<Vec<NodeHealth>, CallError> {
        self.read(|state| state.healths.values().cloned().collect())
    }

    async fn put_health(&self, health: &NodeHealth) -> Result<NodeHealth, CallError> {
        let name = name_of(&health.metadata);
        self.mutate(format!("health {name}"), |state| {
            let version = state.bump();
            let stored = state
                .healths
                .get(&name)
                .and_then(|stored| stored.metadata.resource_version.clone());
            if stored != health.metadata.resource_version {
                return Err(conflict("the record changed"));
            }
            let mut next = health.clone();
            next.metadata.resource_version = Some(version);
            state.check_decision(&next);
            state.healths.insert(name.clone(), next.clone());
            Ok(next)
        })
        .await
    }

    async fn forget_repair(&self, repair: &NodeRepair) -> Result<(), CallError> {
        let name = repair.name().to_owned();
        self.mutate(format!("forget {name}"), |state| {
            state.repairs.remove(&name);
            Ok(())
        })
        .await
    }

    async fn delete_health(&self, health: &NodeHealth) -> Result<(), CallError> {
        let name = name_of(&health.metadata);
        self.mutate(format!("forget {name}"), |state| {
            state.healths.remove(&name);
            Ok(())
        })
        .await
    }

    async fn collect_group(
        &self,
        name: &str,
        past: impl Fn(&AlertGroupSpec) -> bool,
    ) -> Result<(), CallError> {
        let alerts = self.0.borrow().alerts.clone();
        self.mutate(format!("collect {name}"), |_| {
            alerts.collect(name, past);
            Ok(())
        })
        .await
    }
}
