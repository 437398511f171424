//! The simulated exporters: they show what is wrong with their machines at once.

use nodemend_core::config::Confirm;
use nodemend_core::evidence::probe::Reading;
use nodemend_core::model::NodeView;

use super::{Fault, World};
use crate::exec::Probes;

impl Probes for World {
    async fn probe(&self, node: &NodeView, confirm: &Confirm) -> Reading {
        let state = self.0.borrow();
        if state
            .nodes
            .get(&node.name)
            .is_none_or(|now| now.uid != node.uid)
        {
            return Reading::Unreachable("no such machine".into());
        }
        let fault = match confirm.metric.as_str() {
            "node_filesystem_readonly" => Fault::DiskReadOnly,
            "node_filesystem_device_error" => Fault::DiskSilent,
            _ => return Reading::Samples(Vec::new()),
        };
        let broken = state.has(&node.name, fault);
        Reading::Samples(vec![if broken { 1.0 } else { 0.0 }])
    }
}
