//! What is on record of a fleet some of whose nodes are sick.

use nodemend_core::api::{
    Action, Intent, NodeRepair, NodeRepairSpec, NodeRepairStatus, Phase, Plan, Step, Strategy,
};
use nodemend_core::decide::{Fallen, Place};
use nodemend_core::model::{NodeView, Span};

use super::names::NOW;

/// Repairs of one day: of these nodes, which are being drained, and of others that are gone.
pub fn repairs(draining: &[&NodeView], gone: usize, policy: &str, fault: &str) -> Vec<NodeRepair> {
    let draining = draining.iter();
    let draining = draining.map(|node| (node.name.clone(), node.uid.clone(), Phase::Draining));
    let gone = (0..gone).map(|number| {
        let name = format!("gone-{number}");
        (name.clone(), name, Phase::Succeeded)
    });
    let repairs = draining
        .chain(gone)
        .enumerate()
        .map(|(nth, (name, uid, phase))| {
            let minutes = u32::try_from(nth).expect("few");
            let at = Span::minutes(minutes).before(NOW);
            let spec = NodeRepairSpec {
                node_name: name.clone(),
                node_uid: uid,
                provider_id: String::new(),
                zone: "eu-central-1a".into(),
                pool: String::new(),
                ordinal: 1,
                policy: policy.into(),
                fault: fault.into(),
                fault_since: at,
                evidence: Vec::new(),
                request: None,
                approval: None,
                plan: Plan {
                    action: Action::Replace,
                    then: None,
                    strategy: Some(Strategy::EC2),
                    cluster_tag: "tag".into(),
                    instance_id: "i-0".into(),
                    launch: None,
                    ready_timeout: Span::minutes(15),
                    max_attempts: 2,
                    drain_timeout: Span::minutes(15),
                    max_pod_grace_period: None,
                },
                epoch: 1,
                quarantine: Intent {
                    step: Step::Quarantine,
                    attempt: 1,
                    at,
                    epoch: 1,
                    nonce: String::new(),
                    target: name.clone(),
                    boot_id: String::new(),
                },
            };
            let mut repair = NodeRepair::new(&format!("{name}-1"), spec);
            repair.status = Some(NodeRepairStatus {
                phase,
                ended: phase.terminal().then_some(at),
                ..NodeRepairStatus::default()
            });
            repair
        });
    repairs.collect()
}

/// That a node fell sick a minute ago, whether or not it still is.
pub fn fallen(node: &NodeView, sick: bool) -> Fallen {
    Fallen {
        uid: node.uid.clone(),
        place: Place::default(),
        policy: String::new(),
        since: Span::minutes(1).before(NOW),
        sick,
        gone: None,
    }
}
