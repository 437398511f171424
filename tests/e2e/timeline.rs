//! What became of a workload and its nodes while some were replaced, from the audit log
//! alone: who was taken out, who came, and how many pods were down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use nodemend_lab::AuditEvent;

/// The kubelets, as the API server knows them.
const KUBELETS: &str = "kwok";
const WRITES: [&str; 4] = ["create", "update", "patch", "delete"];
/// Seconds after which a row is written, if anything changed since the row before.
const ROWS: [i64; 20] = [
    1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 75, 90, 120,
];

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A node was cordoned, or its claim deleted, by the one who repairs.
    Taken,
    /// A node that came later is Ready.
    Joined,
    /// A node that was taken is gone.
    Gone,
    /// The eviction API took a pod.
    Evicted,
    /// The eviction API did not, for a disruption budget.
    Refused,
    /// A pod was deleted past the eviction API.
    Deleted,
    /// A pod is down: evicted, deleted, said to be not ready, or its node is gone.
    Down,
    /// A pod is Ready.
    Up,
}

/// All that happened from a time on, in order.
#[derive(Debug)]
pub struct Timeline {
    zero: Timestamp,
    /// When, what, and to which node or pod.
    pub happened: Vec<(Timestamp, What, String)>,
    /// On which node each pod is or was.
    pub nodes: BTreeMap<String, String>,
    down_before: i64,
}

impl Timeline {
    /// Reads it off the log. So many pods are wanted; `taken` gives the node that a
    /// request takes out.
    pub fn read(
        events: &[AuditEvent],
        zero: Timestamp,
        wanted: usize,
        taken: impl Fn(&AuditEvent) -> Option<String>,
    ) -> Result<Self> {
        let mut reader = Reader::default();
        let mut events: Vec<&AuditEvent> = events
            .iter()
            .filter(|event| (200..300).contains(&event.code) || event.code == 429)
            .filter(|event| !event.dry_run && WRITES.contains(&event.verb.as_str()))
            .collect();
        // Timestamps of one width: their order is that of time.
        events.sort_by(|one, other| one.answered.cmp(&other.answered));
        for event in events {
            let at: Timestamp = event.answered.parse()?;
            if event.code != 429
                && let Some(node) = taken(event)
                && reader.taken.insert(node.clone())
            {
                reader.happened.push((at, What::Taken, node));
            }
            match event.resource.as_str() {
                "pods" => reader.pod(event, at)?,
                "nodes" => reader.node(event, at, zero)?,
                _ => {}
            }
        }
        reader.happened.sort_by_key(|(at, ..)| *at);
        let before = reader.happened.iter().filter(|(at, ..)| *at < zero);
        let down_before = before.map(|(_, what, _)| down(*what)).sum::<i64>();
        let down_before = i64::try_from(wanted)? + down_before;
        reader.happened.retain(|(at, ..)| *at >= zero);
        Ok(Self {
            zero,
            happened: reader.happened,
            nodes: reader.bound,
            down_before,
        })
    }

    /// How often something happened.
    pub fn count(&self, what: What) -> usize {
        let all = self.happened.iter();
        all.filter(|(_, this, _)| *this == what).count()
    }

    /// When something first happened to a node or pod.
    pub fn when(&self, what: What, name: &str) -> Result<Timestamp> {
        let mut all = self.happened.iter();
        all.find(|(_, this, that)| *this == what && that == name)
            .map(|(at, ..)| *at)
            .with_context(|| format!("{name}: never {what:?}"))
    }

    /// How long after the start something happened for the last time.
    pub fn last(&self, what: What) -> Option<SignedDuration> {
        let mut all = self.happened.iter().rev();
        let (at, ..) = all.find(|(_, this, _)| *this == what)?;
        Some(at.duration_since(self.zero))
    }

    /// The most nodes that were taken and not gone at a time.
    pub fn most_taken(&self) -> i64 {
        let step = |what| i64::from(what == What::Taken) - i64::from(what == What::Gone);
        self.most(0, step, self.zero, Timestamp::MAX)
    }

    /// The most pods that were down at a time.
    pub fn most_down(&self) -> i64 {
        self.most(self.down_before, down, self.zero, Timestamp::MAX)
    }

    fn most(&self, before: i64, step: impl Fn(What) -> i64, from: Timestamp, to: Timestamp) -> i64 {
        let (mut now, mut most) = (before, 0);
        for (at, what, _) in self.happened.iter().take_while(|(at, ..)| *at < to) {
            if *at >= from {
                most = most.max(now);
            }
            now += step(*what);
        }
        most.max(now)
    }

    /// As a table of Markdown: totals, and the most pods down since the row before.
    pub fn table(&self, taken: &str) -> String {
        let mut text = format!(
            "| until | {taken} | evicted (refused) | pods deleted | most pods down | new nodes Ready | old nodes gone |\n\
             | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        );
        let mut shown = 0;
        let mut from = self.zero;
        for second in ROWS {
            let to = self.zero + SignedDuration::from_secs(second);
            let until = self.happened.iter().filter(|(at, ..)| *at < to);
            let until: Vec<What> = until.map(|(_, what, _)| *what).collect();
            if until.len() == shown {
                continue;
            }
            shown = until.len();
            let count = |what| until.iter().filter(|this| **this == what).count();
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {second} s | {} | {} ({}) | {} | {} | {} | {} |",
                count(What::Taken),
                count(What::Evicted),
                count(What::Refused),
                count(What::Deleted),
                self.most(self.down_before, down, from, to),
                count(What::Joined),
                count(What::Gone),
            );
            from = to;
        }
        text
    }
}

fn down(what: What) -> i64 {
    i64::from(what == What::Down) - i64::from(what == What::Up)
}

/// The state while the log is read.
#[derive(Default)]
struct Reader {
    happened: Vec<(Timestamp, What, String)>,
    bound: BTreeMap<String, String>,
    up: BTreeSet<String>,
    ended: BTreeSet<String>,
    taken: BTreeSet<String>,
    /// Nodes that came after the start, and are not Ready yet.
    coming: BTreeSet<String>,
}

impl Reader {
    fn pod(&mut self, event: &AuditEvent, at: Timestamp) -> Result<()> {
        let Some(name) = event.name.clone() else {
            return Ok(());
        };
        let kubelet = event.user == KUBELETS;
        match (event.verb.as_str(), event.subresource.as_deref()) {
            ("create", Some("binding")) => {
                let node = event.request.as_ref();
                let node = node.and_then(|request| request["target"]["name"].as_str());
                let node = node.context("a binding without a node")?;
                self.bound.insert(name, node.to_owned());
            }
            ("create", Some("eviction")) if event.code == 429 => {
                self.happened.push((at, What::Refused, name));
            }
            ("create", Some("eviction")) if !self.ended.contains(&name) => {
                self.happened.push((at, What::Evicted, name.clone()));
                self.end(at, name);
            }
            // What the kubelet deletes is over already.
            ("delete", None) if !kubelet && !self.ended.contains(&name) => {
                self.happened.push((at, What::Deleted, name.clone()));
                self.end(at, name);
            }
            // A kubelet writes this for no other reason, as its stages say.
            ("patch", Some("status")) if kubelet && !self.ended.contains(&name) => {
                // It may have been seen before it was answered.
                let at = event.received.parse()?;
                if self.up.insert(name.clone()) {
                    self.happened.push((at, What::Up, name));
                }
            }
            ("update" | "patch", Some("status")) if !kubelet && !ready(event) => {
                self.fall(at, name);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, at: Timestamp, name: String) {
        self.ended.insert(name.clone());
        self.fall(at, name);
    }

    fn fall(&mut self, at: Timestamp, name: String) {
        if self.up.remove(&name) {
            self.happened.push((at, What::Down, name));
        }
    }

    fn node(&mut self, event: &AuditEvent, at: Timestamp, zero: Timestamp) -> Result<()> {
        let response = event.response.as_ref();
        let meta = response.map(|response| &response["metadata"]);
        if event.verb == "create" {
            let name = meta.and_then(|meta| meta["name"].as_str());
            let name = name.context("a created node without a name")?;
            if at >= zero {
                self.coming.insert(name.to_owned());
            }
            return Ok(());
        }
        let name = event.name.clone().context("a node without a name")?;
        // The first that a kubelet says is that it is Ready, as its stages say.
        if event.user == KUBELETS && event.subresource.as_deref() == Some("status") {
            if self.coming.remove(&name) {
                self.happened.push((at, What::Joined, name));
            }
            return Ok(());
        }
        let deleting = meta.is_some_and(|meta| meta["deletionTimestamp"].is_string());
        let kept = meta.is_some_and(|meta| {
            let finalizers = meta["finalizers"].as_array();
            finalizers.is_some_and(|finalizers| !finalizers.is_empty())
        });
        let over = (deleting || event.verb == "delete") && !kept;
        if over && self.taken.contains(&name) && !self.is_gone(&name) {
            self.happened.push((at, What::Gone, name.clone()));
            let on_it = self.bound.iter().filter(|(_, node)| **node == name);
            let lost: Vec<String> = on_it.map(|(pod, _)| pod.clone()).collect();
            for pod in lost {
                self.fall(at, pod);
            }
        }
        Ok(())
    }

    fn is_gone(&self, name: &str) -> bool {
        let mut all = self.happened.iter();
        all.any(|(_, what, node)| *what == What::Gone && node == name)
    }
}

/// Whether the pod that a write left behind is Ready.
fn ready(event: &AuditEvent) -> bool {
    let conditions = event
        .response
        .as_ref()
        .map(|pod| &pod["status"]["conditions"]);
    let mut conditions = conditions
        .and_then(|all| all.as_array())
        .into_iter()
        .flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// When this user first wrote to one of these nodes; each was written to.
pub fn written(
    events: &[AuditEvent],
    user: &str,
    subresource: &str,
    nodes: &[String],
) -> Result<Timestamp> {
    let mut first = Timestamp::MAX;
    for node in nodes {
        let mut of_it = events.iter().filter(|event| {
            event.user == user
                && (event.verb.as_str(), event.resource.as_str()) == ("patch", "nodes")
                && event.subresource.as_deref() == Some(subresource)
                && event.name.as_ref() == Some(node)
        });
        let write = of_it
            .next()
            .with_context(|| format!("{node} was not written to"))?;
        // Before it was answered, others may have seen it.
        first = first.min(write.received.parse()?);
    }
    ensure!(first < Timestamp::MAX, "no nodes");
    Ok(first)
}
