//! A delivery as Alertmanager makes it of kube-prometheus' alerts.

use serde_json::{Value, json};

use super::names;

/// The name of the alerts.
pub const ALERT: &str = "NodeFilesystemAlmostOutOfSpace";

/// One delivery, grouped by name as the shipped receiver does it: this many nodes have
/// an alert each.
pub fn payload(alerts: usize, receiver: &str) -> Vec<u8> {
    let group = json!({"alertname": ALERT});
    let delivery = json!({
        "receiver": receiver,
        "status": "firing",
        "alerts": (0..alerts).map(alert).collect::<Vec<Value>>(),
        "groupLabels": group,
        "commonLabels": group,
        "commonAnnotations": {},
        "externalURL": "http://alertmanager-main.monitoring:9093",
        "version": "4",
        "groupKey": format!("{{}}:{{alertname=\"{ALERT}\"}}"),
        "truncatedAlerts": 0,
    });
    delivery.to_string().into_bytes()
}

fn alert(number: usize) -> Value {
    let node = names::name(number);
    json!({
        "status": "firing",
        "labels": {
            "alertname": ALERT,
            "container": "kube-rbac-proxy",
            "device": "/dev/nvme0n1p1",
            "endpoint": "https",
            "fstype": "xfs",
            "instance": node,
            "job": "node-exporter",
            "mountpoint": "/",
            "namespace": "monitoring",
            "pod": format!("node-exporter-{number:05x}"),
            "prometheus": "monitoring/k8s",
            "service": "node-exporter",
            "severity": "warning",
        },
        "annotations": {
            "description": format!("Filesystem on /dev/nvme0n1p1, mounted on /, at {node} has only 4.21% available space left."),
            "runbook_url": "https://runbooks.prometheus-operator.dev/runbooks/node/nodefilesystemalmostoutofspace",
            "summary": "Filesystem has less than 5% space left.",
        },
        "startsAt": "2027-01-15T07:30:00.5Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "https://prometheus.example.com/graph?g0.expr=node_filesystem_avail_bytes&g0.tab=1",
        "fingerprint": format!("{:016x}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    })
}
