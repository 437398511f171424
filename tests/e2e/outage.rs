//! Prometheus goes away, comes back empty, or sees its targets no more: nobody gets well
//! or due by that, and clocks stand still.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use nodemend_core::api::{FaultRecord, NodeHealth, NodeHealthStatus, Phase};
use nodemend_core::model::{DO_NOT_REPAIR_ANNOTATION, Reason, Span, VerdictKind};
use nodemend_lab::Metric;
use serde_json::json;
use tokio::task::JoinHandle;

use super::audit::every_write_was_intended;
use super::site::{NO_RULES, Setup, Site};
use super::{RECEIVE_ERRORS, evaluations, lab};

/// Two rules, so that one node can be sick for long and another be due. What they wait for
/// themselves is shorter than any of the outages.
const POLLED: &str = r#"
groups:
- name: disk
  interval: 1s
  rules:
  - alert: NodeFilesystemReadOnly
    expr: max by (job, instance) (node_filesystem_readonly{job="node-exporter"}) == 1
    for: 5s
    annotations:
      nodemend_presence: node_filesystem_readonly{job="node-exporter"}
  - alert: NodeFilesystemDeviceError
    expr: max by (job, instance) (node_filesystem_device_error{job="node-exporter"}) == 1
    for: 5s
    annotations:
      nodemend_presence: node_filesystem_device_error{job="node-exporter"}
"#;

/// `Slow` is longer than any of the outages, and shorter than all of them together: a
/// clock that ran on meanwhile would make it due. `Quick` is shorter than each.
const POLICY: &str = r"
apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: disk}
spec:
  mode: Enforce
  nodeSelector: {}
  faults:
  - name: Slow
    when: {all: [{signal: NodeFilesystemReadOnly}]}
    for: 2m
    actions: [Replace]
  - name: Quick
    when: {all: [{signal: NodeFilesystemDeviceError}]}
    for: 3s
    actions: [Replace]
  replacement: {strategy: EC2, readyTimeout: 2m}
";

/// `Slow` is true of this one, and pending.
const PENDING: &str = "node-1";
/// `Quick` is true of this one, which a person took out of nodemend's hands.
const HELD: &str = "node-2";
const NODES: [&str; 4] = ["node-0", PENDING, HELD, "node-3"];

/// Questions of one second each that an outage lasts, and that a clock runs before.
const LONG: f64 = 15.0;
/// A pass is made at least every five seconds: so exact is what clocks are compared by.
const SLACK: Span = Span::seconds(8);

#[test]
fn h19_outages_of_prometheus_make_nobody_well_or_due() {
    lab(async {
        let site = Site::start(&Setup {
            policy: POLICY,
            polled: POLLED,
            alerting: NO_RULES,
            nodes: NODES.len(),
            ..Setup::default()
        })
        .await?;
        let told = Told::listen(&site).await?;
        opt_out(&site, "true").await?;
        let exporter = site.lab.exporter();
        exporter.set(PENDING, Metric::FilesystemReadonly, 1.0);
        exporter.set(HELD, Metric::FilesystemDeviceError, 1.0);
        let verdict = told.verdict(&site, PENDING, VerdictKind::Pending).await?;
        ensure!(verdict.fault == "Slow", "{verdict:?}");
        let verdict = told.verdict(&site, HELD, VerdictKind::Held).await?;
        ensure!(verdict.reasons == [Reason::OptedOut], "{verdict:?}");
        questions(&site, "Ok").await?;
        let cut_off = |nodes: &[&str], cut: bool| {
            for node in nodes {
                exporter.set_down(node, cut);
            }
        };

        site.lab.stop("prometheus")?;
        let blind = told.blind(&site, &[PENDING, HELD]).await?;
        let down = site.fleet().await?.spec.sources_down;
        for rule in ["NodeFilesystemReadOnly", "NodeFilesystemDeviceError"] {
            let named = |source: &str, said: &str| source.contains(rule) && !said.is_empty();
            let told = down.iter().any(|down| named(&down.source, &down.message));
            ensure!(told, "{down:?}");
        }
        questions(&site, "Error").await?;
        let metrics = site.scrape().await?;
        let source = "nodemend_source_up{source=\"Prometheus\"} 0";
        ensure!(metrics.contains(source), "{metrics}");
        site.lab.start_again("prometheus").await?;
        blind.over(&site, &told).await.context("killed")?;

        // Its answers are whole and empty, as long as it finds nobody to scrape.
        site.lab.stop("prometheus")?;
        let blind = told.blind(&site, &[PENDING, HELD]).await?;
        cut_off(&NODES, true);
        site.lab.start_empty("prometheus").await?;
        let series = site
            .lab
            .prometheus()
            .query("node_filesystem_readonly")
            .await;
        ensure!(series?.is_empty(), "Prometheus is not empty");
        questions(&site, "Ok").await?;
        cut_off(&NODES, false);
        blind.over(&site, &told).await.context("restarted empty")?;

        cut_off(&NODES, true);
        let blind = told.blind(&site, &[PENDING, HELD]).await?;
        questions(&site, "Ok").await?;
        cut_off(&NODES, false);
        blind.over(&site, &told).await.context("cut off from all")?;

        // And from a sick and a healthy one, while the others go on as before.
        let before = told.of(HELD);
        cut_off(&NODES[..2], true);
        let blind = told.blind(&site, &[PENDING]).await?;
        questions(&site, "Ok").await?;
        cut_off(&NODES[..2], false);
        blind.over(&site, &told).await.context("cut off from two")?;
        ensure!(told.of(HELD) == before, "the others were not cut off");

        told.judge()?;
        ensure!(site.repairs().await?.is_empty(), "a repair started");
        let writes = every_write_was_intended(&site).await?;
        ensure!(writes.is_empty(), "nothing was to be touched: {writes:?}");

        // Nothing but the person's word held it.
        opt_out(&site, "false").await?;
        let done = |phase| phase == Phase::Succeeded;
        let repair = site
            .repair_that("the repair to succeed", |repair| done(repair.phase()))
            .await?;
        ensure!(repair.spec.node_name == HELD && repair.spec.fault == "Quick");
        every_write_was_intended(&site).await?;
        Ok(())
    });
}

async fn opt_out(site: &Site, value: &str) -> Result<()> {
    let note = json!({"metadata": {"annotations": {DO_NOT_REPAIR_ANNOTATION: value}}});
    let api = Api::<Node>::all(site.lab.admin());
    api.patch(HELD, &PatchParams::default(), &Patch::Merge(note))
        .await?;
    Ok(())
}

/// Waits until nodemend has asked for both rules some more times, with this result.
async fn questions(site: &Site, result: &str) -> Result<()> {
    let asked = evaluations(site, result).await?;
    site.wait_for(&format!("more questions, {result}"), || async {
        Ok((evaluations(site, result).await? >= asked + 2.0 * LONG).then_some(()))
    })
    .await
}

type Words = Vec<(String, Option<NodeHealthStatus>)>;

/// What nodemend wrote of nodes, every word of it, in order; none for a deletion.
struct Told {
    words: Arc<Mutex<Words>>,
    listening: JoinHandle<Result<()>>,
}

/// The nodes that an outage concerns, with the clock of the fault as it stopped.
struct Blind(Vec<(String, FaultRecord)>);

impl Told {
    async fn listen(site: &Site) -> Result<Self> {
        let api: Api<NodeHealth> = Api::all(site.lab.admin());
        let list = api.list(&ListParams::default()).await?;
        ensure!(list.items.is_empty(), "nobody is sick yet: {list:?}");
        let version = list.metadata.resource_version.context("no version")?;
        let words = Arc::default();
        let listening = tokio::spawn(listen(api, version, Arc::clone(&words)));
        Ok(Self { words, listening })
    }

    fn words(&self) -> MutexGuard<'_, Vec<(String, Option<NodeHealthStatus>)>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that was said of a node.
    fn of(&self, node: &str) -> Vec<Option<NodeHealthStatus>> {
        let words = self.words();
        let about = words.iter().filter(|(name, _)| name == node);
        about.map(|(_, word)| word.clone()).collect()
    }

    /// Waits until this is the verdict.
    async fn verdict(
        &self,
        site: &Site,
        node: &str,
        wanted: VerdictKind,
    ) -> Result<NodeHealthStatus> {
        site.wait_for(&format!("{node} to be {wanted:?}"), || async {
            ensure!(!self.listening.is_finished(), "the watch ended");
            let last = self.of(node).pop().flatten();
            Ok(last.filter(|status| status.verdict == wanted))
        })
        .await
    }

    /// Waits until nothing is known of these.
    async fn blind(&self, site: &Site, nodes: &[&str]) -> Result<Blind> {
        let mut stopped = Vec::new();
        for node in nodes {
            let status = self.verdict(site, node, VerdictKind::Unknown).await?;
            let why = &status.reasons;
            ensure!(*why == [Reason::EvidenceUnknown], "{node}: {why:?}");
            stopped.push(((*node).to_owned(), clock(&status)?));
        }
        Ok(Blind(stopped))
    }

    /// Nobody was said to be well or due, and of the healthy nothing was said.
    fn judge(&self) -> Result<()> {
        let words = self.words();
        let mut sick = BTreeSet::new();
        for (node, word) in words.iter() {
            let status = word.as_ref().with_context(|| format!("{node} forgotten"))?;
            // Until its rule's own `for` is over for the first time, a node is well; until its
            // first scrape, nothing is known of it.
            let ill = [PENDING, HELD].contains(&node.as_str());
            let begins = [VerdictKind::Healthy, VerdictKind::Unknown].contains(&status.verdict);
            if ill && begins && status.faults.is_empty() && !sick.contains(node) {
                continue;
            }
            sick.insert(node);
            let fine = match node.as_str() {
                PENDING => [VerdictKind::Pending, VerdictKind::Unknown].contains(&status.verdict),
                HELD => [
                    VerdictKind::Pending,
                    VerdictKind::Held,
                    VerdictKind::Unknown,
                ]
                .contains(&status.verdict),
                _ => false,
            };
            ensure!(fine, "{node}: {status:?}");
        }
        Ok(())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(api: Api<NodeHealth>, mut version: String, words: Arc<Mutex<Words>>) -> Result<()> {
    loop {
        let events = api.watch(&WatchParams::default(), &version).await?;
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.try_next().await? {
            let (health, gone) = match event {
                WatchEvent::Added(health) | WatchEvent::Modified(health) => (health, false),
                WatchEvent::Deleted(health) => (health, true),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => anyhow::bail!("{status:?}"),
            };
            version = health.metadata.resource_version.context("no version")?;
            // It is created without its status, which follows.
            if gone || health.status.is_some() {
                let word = health.status.filter(|_| !gone);
                let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
                words.push((health.spec.node_name, word));
            }
        }
    }
}

impl Blind {
    /// Waits until the verdicts are what they were. A clock goes on where it stopped if
    /// the gap was shorter than its fault's `for`, and else starts anew.
    async fn over(self, site: &Site, told: &Told) -> Result<()> {
        for (node, stopped) in self.0 {
            let paused = stopped.paused.context("the clock did not stop")?;
            if node == HELD {
                let status = told.verdict(site, &node, VerdictKind::Held).await?;
                let clock = clock(&status)?;
                ensure!(clock.since > paused, "{clock:?} goes on from {stopped:?}");
                continue;
            }
            let status = told.verdict(site, &node, VerdictKind::Pending).await?;
            told.judge()?;
            let clock = clock(&status)?;
            ensure!(clock.paused.is_none(), "{clock:?} stands still");
            // Its age when it stopped, and when it went on.
            let before = paused.duration_since(stopped.since);
            let after = status.since.duration_since(clock.since);
            let slack = SLACK.signed();
            ensure!(before > slack, "too young to tell: {stopped:?}");
            ensure!(
                (after - before).abs() <= slack,
                "{before} old when it stopped ({stopped:?}), {after} when it went on ({clock:?}, {})",
                status.since
            );
        }
        Ok(())
    }
}

/// The clock of the leading fault.
fn clock(status: &NodeHealthStatus) -> Result<FaultRecord> {
    let mut faults = status.faults.iter();
    let leading = faults.find(|fault| fault.fault == status.fault);
    leading.context("the leading fault has no clock").cloned()
}

/// Only a webhook brings this one.
const ALERTED: &str = r"
apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: nic}
spec:
  mode: Enforce
  nodeSelector: {}
  faults:
  - {name: Nic, when: {all: [{signal: NodeReceiveErrors}]}, for: 5m, actions: [Replace]}
  replacement: {strategy: EC2}
";

#[test]
fn h19_an_alert_that_ends_with_its_targets_is_no_recovery() {
    lab(async {
        let site = Site::start(&Setup {
            policy: ALERTED,
            polled: POLLED,
            alerting: RECEIVE_ERRORS,
            nodes: NODES.len(),
            ..Setup::default()
        })
        .await?;
        let told = Told::listen(&site).await?;
        let exporter = site.lab.exporter();
        exporter.set(PENDING, Metric::ReceiveErrors, 50.0);
        told.verdict(&site, PENDING, VerdictKind::Pending).await?;
        for node in NODES {
            exporter.set_down(node, true);
        }
        // Prometheus resolves the alert as soon as the series are gone.
        site.wait_for("Alertmanager to list nothing", || async {
            Ok(site
                .lab
                .alertmanager()
                .alerts()
                .await?
                .is_empty()
                .then_some(()))
        })
        .await?;
        let left = told.verdict(&site, PENDING, VerdictKind::Unknown).await?;
        ensure!(left.reasons == [Reason::EvidenceUnknown], "{left:?}");
        // A delivery of the resolve, and some passes.
        questions(&site, "Ok").await?;
        let words = told.of(PENDING);
        let well = words
            .iter()
            .flatten()
            .find(|status| ![VerdictKind::Pending, VerdictKind::Unknown].contains(&status.verdict));
        ensure!(well.is_none(), "{well:?}");
        ensure!(site.repairs().await?.is_empty());
        Ok(())
    });
}
