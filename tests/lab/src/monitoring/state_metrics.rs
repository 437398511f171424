//! What kube-state-metrics would say of the nodes, read from the API at each scrape.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Node;

/// The text for these nodes.
pub fn text(nodes: &[Node]) -> String {
    let mut text = String::new();
    for family in [
        "kube_node_info",
        "kube_node_created",
        "kube_node_spec_unschedulable",
        "kube_node_spec_taint",
        "kube_node_status_condition",
    ] {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "# TYPE {family} gauge");
        for node in nodes {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            match family {
                "kube_node_info" => info(&mut text, name, node),
                "kube_node_created" => created(&mut text, name, node),
                "kube_node_spec_unschedulable" => {
                    let cordoned = node
                        .spec
                        .as_ref()
                        .and_then(|spec| spec.unschedulable)
                        .unwrap_or(false);
                    let _ = writeln!(text, "{family}{{node=\"{name}\"}} {}", u8::from(cordoned));
                }
                "kube_node_spec_taint" => taints(&mut text, name, node),
                _ => conditions(&mut text, name, node),
            }
        }
    }
    text
}

fn info(text: &mut String, name: &str, node: &Node) {
    let provider = node
        .spec
        .as_ref()
        .and_then(|spec| spec.provider_id.as_deref())
        .unwrap_or_default();
    let address = node
        .status
        .as_ref()
        .and_then(|status| status.addresses.as_ref())
        .and_then(|addresses| {
            addresses
                .iter()
                .find(|address| address.type_ == "InternalIP")
        })
        .map_or("", |address| address.address.as_str());
    let _ = writeln!(
        text,
        "kube_node_info{{node=\"{name}\",kubelet_version=\"lab\",provider_id=\"{provider}\",internal_ip=\"{address}\"}} 1"
    );
}

fn created(text: &mut String, name: &str, node: &Node) {
    if let Some(time) = &node.metadata.creation_timestamp {
        let _ = writeln!(
            text,
            "kube_node_created{{node=\"{name}\"}} {}",
            time.0.as_second()
        );
    }
}

fn taints(text: &mut String, name: &str, node: &Node) {
    for taint in node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten())
    {
        let value = taint.value.as_deref().unwrap_or_default();
        let _ = writeln!(
            text,
            "kube_node_spec_taint{{node=\"{name}\",key=\"{}\",value=\"{value}\",effect=\"{}\"}} 1",
            taint.key, taint.effect
        );
    }
}

/// All three statuses of each condition, the true one as 1.
fn conditions(text: &mut String, name: &str, node: &Node) {
    for condition in node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
    {
        for status in ["true", "false", "unknown"] {
            let holds = condition.status.eq_ignore_ascii_case(status);
            let _ = writeln!(
                text,
                "kube_node_status_condition{{node=\"{name}\",condition=\"{}\",status=\"{status}\"}} {}",
                condition.type_,
                u8::from(holds)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_condition_gives_three_lines_with_one_set() {
        let node = serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
        }))
        .unwrap();
        let text = super::text(&[node]);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("kube_node_status_condition{"))
            .collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[2].contains("status=\"unknown\"") && lines[2].ends_with(" 1"));
        assert!(lines[0].ends_with(" 0"));
    }
}
