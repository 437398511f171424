//! Nodes and pods reduced to what decisions and drains need.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, NodeAddress, Pod, Toleration};
use nodemend_core::model::{Condition, NodeView, PodView};

/// Made by a kubelet from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotations and values by which a pod asks to be left alone.
const DO_NOT_DISRUPT: [(&str, &str); 2] = [
    ("karpenter.sh/do-not-disrupt", "true"),
    ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
];
/// What a cordon puts on a node.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Kubernetes' own default grace period in seconds.
const DEFAULT_GRACE: i64 = 30;

/// The view of a node; only our own annotations are kept.
pub fn node(node: &Node) -> NodeView {
    let metadata = &node.metadata;
    let spec = node.spec.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let ours = |annotations: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        annotations
            .iter()
            .filter(|(key, _)| key.starts_with("nodemend.dev/"))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    NodeView {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        provider_id: spec.provider_id.unwrap_or_default(),
        created: metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0)
            .unwrap_or_default(),
        labels: metadata.labels.clone().unwrap_or_default(),
        annotations: metadata.annotations.as_ref().map(ours).unwrap_or_default(),
        ips: ips(status.addresses.as_deref().unwrap_or_default()),
        addresses: status
            .addresses
            .unwrap_or_default()
            .into_iter()
            .map(|address| address.address)
            .collect(),
        taints: spec
            .taints
            .unwrap_or_default()
            .into_iter()
            .map(|taint| taint.key)
            .collect(),
        conditions: status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .map(|condition| Condition {
                type_: condition.type_,
                status: condition.status,
                reason: condition.reason.unwrap_or_default(),
            })
            .collect(),
        unschedulable: spec.unschedulable.unwrap_or(false),
        deleting: metadata.deletion_timestamp.is_some(),
        boot_id: status
            .node_info
            .map(|info| info.boot_id)
            .unwrap_or_default(),
    }
}

fn ips(addresses: &[NodeAddress]) -> Vec<IpAddr> {
    ["InternalIP", "ExternalIP"]
        .into_iter()
        .flat_map(|type_| addresses.iter().filter(move |one| one.type_ == type_))
        .filter_map(|one| one.address.parse().ok())
        .collect()
}

/// The view of a pod.
pub(super) fn pod(pod: &Pod) -> PodView {
    let metadata = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let annotation = |key: &str| {
        metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(key))
            .map(String::as_str)
    };
    let owner = metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let local = |volume: &k8s_openapi::api::core::v1::Volume| {
        volume.host_path.is_some()
            || volume
                .empty_dir
                .as_ref()
                .is_some_and(|empty| empty.medium.as_deref() != Some("Memory"))
    };
    PodView {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        owner_kind: owner.map(|owner| owner.kind.clone()).unwrap_or_default(),
        mirror: annotation(MIRROR).is_some(),
        finished: matches!(phase, Some("Succeeded" | "Failed")),
        gone_by: metadata.deletion_timestamp.as_ref().map(|time| time.0),
        local_data: spec.volumes.iter().flatten().any(local),
        tolerates_unschedulable: spec.tolerations.iter().flatten().any(tolerates),
        do_not_disrupt: DO_NOT_DISRUPT
            .iter()
            .any(|(key, value)| annotation(key) == Some(value)),
        grace_seconds: spec
            .termination_grace_period_seconds
            .unwrap_or(DEFAULT_GRACE),
    }
}

/// Whether a pod with this toleration would come right back to a cordoned node.
fn tolerates(toleration: &Toleration) -> bool {
    let effect = matches!(toleration.effect.as_deref(), None | Some("" | "NoSchedule"));
    let key = match toleration.key.as_deref() {
        None | Some("") => toleration.operator.as_deref() == Some("Exists"),
        Some(key) => key == UNSCHEDULABLE,
    };
    effect && key
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(mut value: Value) -> PodView {
        value["metadata"]["name"] = json!("p");
        if value.get("spec").is_some() {
            value["spec"]["containers"] = json!([]);
        }
        pod(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn h31_what_must_not_be_evicted_is_seen() {
        let plain = read(json!({"metadata": {"ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]}}));
        assert_eq!(plain.owner_kind, "ReplicaSet");
        assert!(!plain.mirror && !plain.local_data && !plain.finished);
        assert_eq!(plain.grace_seconds, 30);
        assert!(read(json!({"metadata": {"annotations": {MIRROR: "x"}}})).mirror);
        assert!(read(json!({"metadata": {}})).owner_kind.is_empty());
        assert!(read(json!({"metadata": {}, "status": {"phase": "Failed"}})).finished);
        let volume =
            |volume: Value| read(json!({"metadata": {}, "spec": {"volumes": [volume]}})).local_data;
        assert!(volume(json!({"name": "v", "emptyDir": {}})));
        assert!(volume(json!({"name": "v", "hostPath": {"path": "/"}})));
        assert!(!volume(
            json!({"name": "v", "emptyDir": {"medium": "Memory"}})
        ));
        assert!(!volume(json!({"name": "v", "configMap": {"name": "c"}})));
    }

    #[test]
    fn h86_pods_that_would_come_back_are_seen() {
        let with = |toleration: Value| {
            read(json!({"metadata": {}, "spec": {"tolerations": [toleration]}}))
                .tolerates_unschedulable
        };
        assert!(with(json!({"key": UNSCHEDULABLE, "operator": "Exists"})));
        assert!(with(json!({"operator": "Exists"})));
        assert!(with(
            json!({"key": UNSCHEDULABLE, "operator": "Exists", "effect": "NoSchedule"})
        ));
        assert!(!with(
            json!({"key": UNSCHEDULABLE, "operator": "Exists", "effect": "NoExecute"})
        ));
        assert!(!with(json!({"key": "other", "operator": "Exists"})));
    }

    #[test]
    fn pods_that_ask_to_be_left_alone_are_seen() {
        for (key, value) in DO_NOT_DISRUPT {
            assert!(read(json!({"metadata": {"annotations": {key: value}}})).do_not_disrupt);
        }
        assert!(
            !read(json!({"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "false"}}}))
                .do_not_disrupt
        );
    }

    #[test]
    fn a_node_keeps_what_decisions_need() {
        let view = node(
            &serde_json::from_value(json!({
                "metadata": {"name": "a", "uid": "u", "resourceVersion": "3", "labels": {"l": "1"},
                    "annotations": {"nodemend.dev/do-not-repair": "true", "other": "x"},
                    "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"providerID": "aws:///z/i-1", "unschedulable": true},
                "status": {"addresses": [{"type": "Hostname", "address": "10.9.9.9"},
                        {"type": "ExternalIP", "address": "192.0.2.1"},
                        {"type": "InternalIP", "address": "10.0.0.1"},
                        {"type": "InternalIP", "address": "a.example"}],
                    "nodeInfo": {"architecture": "", "bootID": "b", "containerRuntimeVersion": "", "kernelVersion": "",
                        "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                        "systemUUID": ""},
                    "conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}
            }))
            .unwrap(),
        );
        assert_eq!(view.annotations.len(), 1);
        assert_eq!(view.instance_id(), Some("i-1"));
        assert_eq!(view.boot_id, "b");
        assert!(view.unschedulable && !view.ready() && !view.deleting);
        assert_eq!(view.addresses.len(), 4);
        let ips: Vec<String> = view.ips.iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["10.0.0.1", "192.0.2.1"]);
        assert_eq!(view.created.to_string(), "2026-01-01T00:00:00Z");
    }
}
