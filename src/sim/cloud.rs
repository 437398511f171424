//! The simulated EC2: client tokens are remembered, and an end takes time.

use nodemend_core::api::LaunchPlan;
use nodemend_core::model::{InstanceState, InstanceView, Span};

use super::{Instance, Restart, World, ready};
use crate::exec::{CallError, Cloud};

/// How long a machine takes to restart.
const RESTART: Span = Span::seconds(90);

impl Cloud for World {
    async fn instance(&self, id: &str) -> Result<Option<InstanceView>, CallError> {
        self.wait_for_cloud()?;
        Ok(self
            .0
            .borrow()
            .instances
            .get(id)
            .map(|instance| instance.view.clone()))
    }

    async fn by_token(&self, token: &str) -> Result<Option<InstanceView>, CallError> {
        self.wait_for_cloud()?;
        let state = self.0.borrow();
        Ok(state
            .tokens
            .get(token)
            .and_then(|id| state.instances.get(id))
            .map(|instance| instance.view.clone()))
    }

    async fn launch(&self, token: &str, plan: &LaunchPlan) -> Result<String, CallError> {
        self.wait_for_cloud()?;
        self.mutate(format!("launch {token}"), |state| {
            if let Some(id) = state.tokens.get(token) {
                return Ok(id.clone());
            }
            state.expect_launch(token);
            let id = format!("i-{:017x}", state.instances.len() + 1);
            let tags = [
                (plan.cluster_tag.clone(), "owned".to_owned()),
                ("aws:ec2launchtemplate:id".into(), plan.template.id.clone()),
                (
                    "aws:ec2launchtemplate:version".into(),
                    plan.template.version.clone(),
                ),
            ];
            let view = InstanceView {
                id: id.clone(),
                state: InstanceState::Pending,
                tags: tags.into_iter().collect(),
                subnet: plan.subnet.clone(),
                instance_type: plan.instance_type.clone(),
            };
            state.instances.insert(
                id.clone(),
                Instance {
                    view,
                    changed: state.now,
                    node: None,
                },
            );
            state.tokens.insert(token.to_owned(), id.clone());
            Ok(id)
        })
        .await
    }

    async fn reboot(&self, id: &str) -> Result<(), CallError> {
        self.wait_for_cloud()?;
        self.mutate(format!("reboot {id}"), |state| {
            state.expect_reboot(id);
            let instance = state.instances.get(id);
            let running = instance.filter(|instance| instance.view.state == InstanceState::Running);
            let Some(name) = running.and_then(|instance| instance.node.clone()) else {
                return Err(CallError::Refused("not running".into()));
            };
            let (back, version) = (RESTART.after(state.now), state.bump());
            if let Some(node) = state.nodes.get_mut(&name)
                && !state.restarting.contains_key(&name)
            {
                let conditions = std::mem::replace(&mut node.conditions, ready("Unknown"));
                node.resource_version = version;
                let silent = state.silent.insert(name.clone(), state.now);
                let restart = Restart {
                    back,
                    conditions,
                    silent,
                };
                state.restarting.insert(name, restart);
            }
            Ok(())
        })
        .await
    }

    async fn terminate(&self, id: &str) -> Result<(), CallError> {
        self.wait_for_cloud()?;
        self.mutate(format!("terminate {id}"), |state| {
            let found = state.instances.get(id);
            let found = found.ok_or_else(|| CallError::NoAnswer("unknown instance".into()))?;
            let ends = [InstanceState::ShuttingDown, InstanceState::Terminated];
            if ends.contains(&found.view.state) {
                return Ok(());
            }
            state.expect_termination(id);
            let now = state.now;
            if let Some(instance) = state.instances.get_mut(id) {
                instance.view.state = InstanceState::ShuttingDown;
                instance.changed = now;
            }
            Ok(())
        })
        .await
    }
}
