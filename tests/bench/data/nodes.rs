//! A fleet of EC2 nodes as `cluster` reduces them, each made from its number alone.

use nodemend_core::model::{Condition, NodeView, Span};

use super::names::{NOW, address, name};

/// So many nodes, spread evenly over so many pools.
pub fn fleet(count: usize, pools: usize) -> Vec<NodeView> {
    (0..count).map(|number| node(number, pools)).collect()
}

fn node(number: usize, pools: usize) -> NodeView {
    let name = name(number);
    let [a, b, c] = address(number);
    let zone = ["eu-central-1a", "eu-central-1b", "eu-central-1c"][number % 3];
    let address = format!("10.{a}.{b}.{c}");
    let labels = [
        ("beta.kubernetes.io/arch", "amd64"),
        ("beta.kubernetes.io/os", "linux"),
        ("eks.amazonaws.com/capacityType", "ON_DEMAND"),
        ("failure-domain.beta.kubernetes.io/region", "eu-central-1"),
        ("failure-domain.beta.kubernetes.io/zone", zone),
        ("kubernetes.io/arch", "amd64"),
        ("kubernetes.io/hostname", &name),
        ("kubernetes.io/os", "linux"),
        ("node.kubernetes.io/instance-type", "m7i.2xlarge"),
        ("topology.kubernetes.io/region", "eu-central-1"),
        ("topology.kubernetes.io/zone", zone),
        ("workload", &pool(number % pools)),
    ];
    let conditions = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ];
    NodeView {
        uid: format!("{number:08x}-5b1c-4e0f-9a57-3d2f6c8e{number:04x}"),
        resource_version: number.to_string(),
        provider_id: format!("aws:///{zone}/i-{number:017x}"),
        created: Span::minutes(30 * 24 * 60).before(NOW),
        labels: labels.map(|(key, value)| (key.into(), value.into())).into(),
        addresses: vec![address.clone(), name.clone()],
        ips: address.parse().into_iter().collect(),
        conditions: conditions
            .map(|(type_, status, reason)| Condition {
                type_: type_.into(),
                status: status.into(),
                reason: reason.into(),
            })
            .into(),
        name,
        ..NodeView::default()
    }
}

/// The value of the label `workload` in a pool.
pub fn pool(number: usize) -> String {
    format!("pool-{number}")
}
