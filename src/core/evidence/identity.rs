//! Which node do these labels speak of? One pure function; label text is only
//! ever compared with known nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::CLUSTER_JOBS;
use crate::model::NodeView;

/// The labels of an alert or a series.
pub type Labels = BTreeMap<String, String>;

/// Labels that hold a node's name.
const NAME_LABELS: [&str; 5] = [
    "node",
    "nodename",
    "node_name",
    "kubernetes_node",
    "k8s.node.name",
];

/// Why labels could not be joined to a node. Closed: these are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unresolved {
    /// No label says which node.
    Missing,
    /// No such node.
    Unknown,
    /// More than one node fits.
    Ambiguous,
    /// Two labels name different nodes, or one another cluster.
    Conflicting,
}

/// The labels that `resolve` looks at, for records that keep only these.
pub fn is_identity_label(name: &str) -> bool {
    NAME_LABELS.contains(&name) || ["provider_id", "instance_id", "instance", "job"].contains(&name)
}

/// Whether labels say, by one that all of a Prometheus has, that they are of another one.
pub fn is_elsewhere(labels: &Labels, external: &Labels) -> bool {
    let mut shared = external
        .keys()
        .filter_map(|name| labels.get_key_value(name));
    shared.any(|(name, value)| contradicts(name, value, external))
}

/// Whether a label is one that all of a Prometheus has, with another value. An empty one is not
/// there.
pub fn contradicts(name: &str, value: &str, external: &Labels) -> bool {
    let ours = external.get(name).filter(|_| !value.is_empty());
    ours.is_some_and(|ours| ours != value)
}

/// Every node by each way to speak of it. Two nodes that share one are ambiguous there.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    names: BTreeMap<String, BTreeSet<String>>,
    provider_ids: BTreeMap<String, BTreeSet<String>>,
    instance_ids: BTreeMap<String, BTreeSet<String>>,
    addresses: BTreeMap<String, BTreeSet<String>>,
    cluster_jobs: Vec<String>,
    external: Labels,
}

impl Default for Index {
    fn default() -> Self {
        Self::new(CLUSTER_JOBS.map(str::to_owned).to_vec(), Labels::new())
    }
}

impl Index {
    /// Of no nodes. Of these jobs the `instance` says nothing. What has one of the `external`
    /// labels with another value speaks of another cluster's nodes.
    pub const fn new(cluster_jobs: Vec<String>, external: Labels) -> Self {
        Self {
            names: BTreeMap::new(),
            provider_ids: BTreeMap::new(),
            instance_ids: BTreeMap::new(),
            addresses: BTreeMap::new(),
            cluster_jobs,
            external,
        }
    }

    /// Of these nodes, and with the same jobs and external labels.
    #[must_use]
    pub fn of<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeView>) -> Self {
        let mut index = Self::new(self.cluster_jobs.clone(), self.external.clone());
        for node in nodes {
            let note = |map: &mut BTreeMap<String, BTreeSet<String>>, key: &str| {
                if !key.is_empty() {
                    map.entry(key.to_owned())
                        .or_default()
                        .insert(node.name.clone());
                }
            };
            note(&mut index.names, &node.name);
            note(&mut index.provider_ids, &node.provider_id);
            note(
                &mut index.instance_ids,
                node.instance_id().unwrap_or_default(),
            );
            for address in &node.addresses {
                note(&mut index.addresses, &canonical(address));
            }
        }
        index
    }

    /// The name of the one node that the labels speak of.
    pub fn resolve(&self, labels: &Labels) -> Result<&str, Unresolved> {
        let given = |label: &str| labels.get(label).filter(|value| !value.is_empty());
        if is_elsewhere(labels, &self.external) {
            return Err(Unresolved::Conflicting);
        }
        let named = NAME_LABELS.iter().map(|label| (&self.names, *label));
        let ids = [
            (&self.provider_ids, "provider_id"),
            (&self.instance_ids, "instance_id"),
        ];
        let mut found: Vec<&str> = Vec::new();
        for (map, label) in named.chain(ids) {
            if let Some(value) = given(label) {
                found.push(only(map.get(value).into_iter().flatten())?);
            }
        }
        let speaks_for_others = labels
            .get("job")
            .is_some_and(|job| self.cluster_jobs.contains(job));
        if let Some(value) = given("instance").filter(|_| !speaks_for_others) {
            let host = without_port(value);
            let address = canonical(host);
            let keys = [
                (&self.names, host),
                (&self.names, value),
                (&self.addresses, &address),
            ];
            let matches = keys
                .into_iter()
                .filter_map(|(map, key)| map.get(key))
                .flatten();
            match only(matches) {
                // Beside a name, an instance that is nobody's address is the exporter's own.
                Err(Unresolved::Unknown) if !found.is_empty() => {}
                one => found.push(one?),
            }
        }
        match found.split_first() {
            None => Err(Unresolved::Missing),
            Some((first, others)) if others.iter().all(|other| other == first) => Ok(first),
            Some(_) => Err(Unresolved::Conflicting),
        }
    }
}

fn only<'a>(matches: impl Iterator<Item = &'a String>) -> Result<&'a str, Unresolved> {
    let distinct: BTreeSet<&String> = matches.collect();
    match distinct.len() {
        0 => Err(Unresolved::Unknown),
        1 => distinct
            .first()
            .map(|name| name.as_str())
            .ok_or(Unresolved::Unknown),
        _ => Err(Unresolved::Ambiguous),
    }
}

/// The one node that the labels speak of; for many labels make the index once.
pub fn resolve<'a>(labels: &Labels, nodes: &[&'a NodeView]) -> Result<&'a NodeView, Unresolved> {
    let index = Index::default().of(nodes.iter().copied());
    let name = index.resolve(labels)?;
    let mut nodes = nodes.iter().copied();
    nodes
        .find(|node| node.name == name)
        .ok_or(Unresolved::Unknown)
}

/// An address as it is compared: of the many ways to write an IPv6 address one, an IPv4
/// address that is written as one as itself, a DNS name without regard to case.
fn canonical(address: &str) -> String {
    let alone = address.split_once('%').map_or(address, |(alone, _)| alone);
    match alone.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().to_string(),
        Err(_) => address.to_ascii_lowercase(),
    }
}

fn without_port(instance: &str) -> &str {
    if let Some(rest) = instance.strip_prefix('[') {
        return rest.split_once(']').map_or(instance, |(host, _)| host);
    }
    match instance.split_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => instance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(labels: &[(&str, &str)], expect: Result<&str, Unresolved>) {
        let node = |name: &str, id: &str, address: &str| NodeView {
            name: name.into(),
            uid: format!("uid-{name}"),
            provider_id: format!("aws:///a/{id}"),
            addresses: vec![address.into()],
            ..NodeView::default()
        };
        let nodes = [
            node("n1", "i-1", "10.0.0.1"),
            node("n2", "i-2", "10.0.0.2"),
            node("n3", "i-3", "10.0.0.2"),
            node("n6", "i-6", "fd00::6"),
            node("n7", "i-7", "FD00:0:0::7"),
            node("n8", "i-8", "ip-10-0-0-8.Internal"),
        ];
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        let refs: Vec<&NodeView> = nodes.iter().collect();
        assert_eq!(
            resolve(&labels, &refs).map(|node| node.name.as_str()),
            expect,
            "{labels:?}"
        );
    }

    #[test]
    fn h10_labels_that_disagree_or_match_none_or_two_are_unresolved() {
        check(&[("node", "n1")], Ok("n1"));
        check(&[("instance", "n1")], Ok("n1"));
        check(&[("instance", "n1:9100")], Ok("n1"));
        check(&[("instance", "10.0.0.1:9100")], Ok("n1"));
        check(&[("instance", "[fd00::6]:9100")], Ok("n6"));
        check(&[("instance", "fd00::6")], Ok("n6"));
        check(&[("instance", "[fd00:0::0006]:9100")], Ok("n6"));
        check(&[("instance", "[fd00::7]:9100")], Ok("n7"));
        check(&[("instance", "[fd00::7%eth0]:9100")], Ok("n7"));
        check(&[("instance", "[::ffff:10.0.0.1]:9100")], Ok("n1"));
        check(&[("instance", "IP-10-0-0-8.internal:9100")], Ok("n8"));
        check(&[("instance", "10.0.0.1:http")], Err(Unresolved::Unknown));
        check(&[("instance", "010.0.0.1:9100")], Err(Unresolved::Unknown));
        check(
            &[("instance", "http://10.0.0.1/probe")],
            Err(Unresolved::Unknown),
        );
        // A pod's address, or one that was a node's.
        check(&[("pod_ip", "10.0.0.1")], Err(Unresolved::Missing));
        check(&[("provider_id", "aws:///a/i-2")], Ok("n2"));
        check(&[("instance_id", "i-2")], Ok("n2"));
        check(&[("node", "n1"), ("instance", "10.9.9.9:8080")], Ok("n1"));
        check(
            &[
                ("node", "n1"),
                ("instance", "10.0.0.2:9100"),
                ("job", "kube-state-metrics"),
            ],
            Ok("n1"),
        );
        check(&[("instance", "10.0.0.2:9100")], Err(Unresolved::Ambiguous));
        check(
            &[("node", "n1"), ("instance", "n2:9100")],
            Err(Unresolved::Conflicting),
        );
        check(
            &[("node", "n1"), ("instance_id", "i-2")],
            Err(Unresolved::Conflicting),
        );
        check(&[("node", "gone")], Err(Unresolved::Unknown));
        check(
            &[("node", "n1"), ("nodename", "gone")],
            Err(Unresolved::Unknown),
        );
        check(&[("instance", "10.7.7.7:9100")], Err(Unresolved::Unknown));
        check(
            &[("instance", "10.0.0.1:8080"), ("job", "kube-state-metrics")],
            Err(Unresolved::Missing),
        );
        check(&[("job", "x")], Err(Unresolved::Missing));
        check(&[("node", "")], Err(Unresolved::Missing));
    }

    #[test]
    fn records_keep_the_labels_that_say_which_node() {
        for (label, expect) in [
            ("node", true),
            ("k8s.node.name", true),
            ("instance", true),
            ("provider_id", true),
            ("job", true),
            ("severity", false),
            ("pod", false),
        ] {
            assert_eq!(is_identity_label(label), expect, "{label}");
        }
    }

    #[test]
    fn h10_labels_of_another_cluster_speak_of_none_of_our_nodes() {
        let node = NodeView {
            name: "n1".into(),
            ..NodeView::default()
        };
        let pairs = |pairs: &[(&str, &str)]| -> Labels {
            let pairs = pairs.iter();
            pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
        };
        let external = pairs(&[("cluster", "ours"), ("region", "eu")]);
        let index = Index::new(Vec::new(), external).of([&node]);
        for (labels, expect) in [
            (&[][..], Ok("n1")),
            (&[("cluster", "ours")], Ok("n1")),
            (&[("cluster", "ours"), ("region", "eu")], Ok("n1")),
            (&[("cluster", "")], Ok("n1")),
            (&[("cluster", "theirs")], Err(Unresolved::Conflicting)),
            (&[("cluster", "Ours")], Err(Unresolved::Conflicting)),
            (
                &[("cluster", "ours"), ("region", "us")],
                Err(Unresolved::Conflicting),
            ),
        ] {
            let mut labels = pairs(labels);
            labels.insert("node".into(), "n1".into());
            assert_eq!(index.resolve(&labels), expect, "{labels:?}");
        }
    }

    #[test]
    fn h10_which_jobs_speak_for_others_is_configured() {
        let node = NodeView {
            name: "n1".into(),
            ..NodeView::default()
        };
        for (jobs, expect) in [
            (&["ksm"][..], Err(Unresolved::Missing)),
            (&["kube-state-metrics"], Ok("n1")),
            (&[], Ok("n1")),
        ] {
            let jobs = jobs.iter().map(ToString::to_string).collect();
            let labels = [("instance", "n1:80"), ("job", "ksm")];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let index = Index::new(jobs, Labels::new()).of([&node]);
            assert_eq!(index.resolve(&labels.into()), expect);
        }
    }
}
