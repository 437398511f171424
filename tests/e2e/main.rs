//! nodemend on real components: a Kubernetes control plane, Prometheus,
//! Alertmanager, an EC2 API and Jaeger. It runs with the token of its shipped
//! `ServiceAccount`, never as admin, and the API server's audit log is the judge.

mod audit;
mod chaos;
mod karpenter;
mod outage;
mod person;
mod policies;
mod reboot;
mod rights;
mod secured;
mod silence;
mod site;
mod timeline;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams, Patch, PatchParams};
use nodemend_core::api::{AlertGroup, NodeRepair, Phase, Step};
use nodemend_core::model::{Reason, VerdictKind};
use nodemend_lab::{Fault, Metric, Workload};
use serde_json::json;

use audit::every_write_was_intended;
use site::{NO_RULES, Setup, Site};

/// A read-only file system, asked every second and believed at once.
const READ_ONLY: &str = r#"
groups:
- name: disk
  interval: 1s
  rules:
  - alert: NodeFilesystemReadOnly
    expr: max by (job, instance) (node_filesystem_readonly{job="node-exporter"}) == 1
    annotations:
      nodemend_presence: node_filesystem_readonly{job="node-exporter"}
"#;

/// Told by Prometheus to Alertmanager; nodemend does not poll it.
const RECEIVE_ERRORS: &str = r#"
groups:
- name: network
  interval: 1s
  rules:
  - alert: NodeReceiveErrors
    expr: max by (job, instance) (rate(node_network_receive_errs_total{job="node-exporter"}[10s])) > 1
"#;

const THREE_AGREE: &str = r#"
apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: three}
spec:
  mode: Enforce
  nodeSelector: {}
  faults:
  - name: Failing
    severity: Critical
    when:
      all:
      - signal: NodeReceiveErrors
      - signal: NodeFilesystemReadOnly
      - condition: {type: Ready, statuses: ["False", Unknown]}
    for: 2s
    actions: [Replace]
  replacement: {strategy: EC2, readyTimeout: 2m}
"#;

const READ_ONLY_REPLACES: &str = r"
apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: disk}
spec:
  mode: Enforce
  nodeSelector: {}
  faults:
  - name: DiskReadOnly
    when: {all: [{signal: NodeFilesystemReadOnly}]}
    for: 2s
    actions: [Replace]
  replacement: {strategy: EC2, readyTimeout: 2m}
";

const NOT_READY_REPLACES: &str = r#"
apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: ready}
spec:
  mode: Enforce
  nodeSelector: {}
  faults:
  - name: NotReady
    when: {all: [{condition: {type: Ready, statuses: ["False", Unknown]}}]}
    for: 1s
    actions: [Replace]
  replacement: {strategy: EC2, readyTimeout: 2m}
"#;

fn lab<F: Future<Output = Result<()>>>(test: F) {
    nodemend_lab::crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the lab needs an async runtime");
    // A panic, not an error: the lab keeps its logs for it.
    runtime
        .block_on(test)
        .unwrap_or_else(|error| panic!("{error:#}"));
}

async fn node(site: &Site, name: &str) -> Result<Option<Node>> {
    Ok(Api::<Node>::all(site.lab.admin()).get_opt(name).await?)
}

#[test]
fn alert_rule_and_condition_lead_to_one_replacement() {
    lab(async {
        let site = Site::start(&Setup {
            policy: THREE_AGREE,
            polled: READ_ONLY,
            alerting: RECEIVE_ERRORS,
            nodes: 4,
            ..Setup::default()
        })
        .await?;
        site.lab
            .prometheus()
            .scrape_nodemend(std::slice::from_ref(&site.metrics))?;
        let before = site.instances().await?;
        let old = node(&site, "node-1")
            .await?
            .context("node-1 is not there")?;
        let exporter = site.lab.exporter();
        exporter.set("node-1", Metric::FilesystemReadonly, 1.0);
        // Another node with one of the three alone stays what it is.
        exporter.set("node-2", Metric::FilesystemReadonly, 1.0);
        site.lab.set_node_ready("node-1", false).await?;
        site.wait_for("Prometheus to see the read-only file systems", || async {
            let query = "sum(node_filesystem_readonly{instance=~\"node-1|node-2\"})";
            let samples = site.lab.prometheus().query(query).await?;
            Ok(samples
                .iter()
                .any(|sample| sample.value >= 2.0)
                .then_some(()))
        })
        .await?;
        let asked = evaluations(&site, "Ok").await?;
        site.wait_for("nodemend to ask some more", || async {
            Ok((evaluations(&site, "Ok").await? >= asked + 4.0).then_some(()))
        })
        .await?;
        ensure!(site.repairs().await?.is_empty(), "two of three were enough");
        exporter.set("node-1", Metric::ReceiveErrors, 50.0);

        let repair = site
            .repair_that("the repair to succeed", |repair| {
                repair.phase() == Phase::Succeeded
            })
            .await?;
        ensure!(repair.spec.node_name == "node-1" && repair.spec.fault == "Failing");
        ensure!(Some(&repair.spec.node_uid) == old.metadata.uid.as_ref());
        let groups = Api::<AlertGroup>::all(site.lab.admin());
        let groups = groups.list(&ListParams::default()).await?.items;
        ensure!(
            groups.iter().any(|group| group
                .spec
                .alerts
                .values()
                .any(|alert| alert.name == "NodeReceiveErrors")),
            "Alertmanager's delivery is on record"
        );

        let after = site.instances().await?;
        let fresh: Vec<&String> = after
            .keys()
            .filter(|id| !before.contains_key(*id))
            .collect();
        ensure!(fresh.len() == 1, "one new instance, not {fresh:?}");
        ensure!(
            !after.contains_key(&repair.spec.plan.instance_id),
            "the old one is still there"
        );
        ensure!(after.len() == before.len(), "{after:?}");
        ensure!(site.lab.ec2().calls_of("TerminateInstances").len() == 1);
        ensure!(node(&site, "node-1").await?.is_none());
        ensure!(site.repairs().await?.len() == 1);

        trace_has_every_step(&site, &repair).await?;
        let writes = every_write_was_intended(&site).await?;
        ensure!(
            writes.iter().any(|write| write.resource == "nodes"),
            "the cordon is in the audit log"
        );
        dashboards_show_it(&site).await
    });
}

/// Jaeger shows the repair, and each of its steps below it.
async fn trace_has_every_step(site: &Site, repair: &NodeRepair) -> Result<()> {
    let status = repair.status.as_ref().context("no status")?;
    let trace = site
        .wait_for("the trace to be whole", || async {
            let trace = site.lab.jaeger().trace(&status.trace_id).await?;
            Ok(trace.filter(|trace| trace.root().is_some()))
        })
        .await?;
    let root = trace.root().context("no root span")?.clone();
    ensure!(
        root.tags.get("k8s.node.name").map(String::as_str) == Some("node-1"),
        "{root:?}"
    );
    for step in [
        "Quarantine",
        "Launch",
        "Join",
        "Drain",
        "Terminate",
        "Verify",
    ] {
        let span = trace
            .span(step)
            .with_context(|| format!("no span {step} in {trace:#?}"))?;
        ensure!(
            span.parent.as_ref() == Some(&root.id),
            "{step} hangs from {:?}",
            span.parent
        );
    }
    Ok(())
}

/// How many evaluations of rules came to this so far.
async fn evaluations(site: &Site, result: &str) -> Result<f64> {
    let series = format!("nodemend_rule_evaluations_total{{result=\"{result}\"}}");
    counter(site, &series).await
}

/// What nodemend counts of this series, written as its metrics write it.
async fn counter(site: &Site, series: &str) -> Result<f64> {
    let text = site.scrape().await?;
    let mut values = text.lines().filter_map(|line| line.strip_prefix(series));
    Ok(values
        .next()
        .map_or(Ok(0.0), |value| value.trim().parse())?)
}

/// Every query of the dashboard gives data.
async fn dashboards_show_it(site: &Site) -> Result<()> {
    let path = nodemend_lab::checkout().join("dashboards/repair-history.json");
    let dashboard: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let mut queries = Vec::new();
    expressions(&dashboard, &mut queries);
    ensure!(queries.len() > 10, "{} queries", queries.len());
    for query in queries {
        let text = query
            .replace("$__rate_interval", "1m")
            .replace("$__interval", "1m")
            .replace("$__range", "1h");
        site.wait_for(&format!("data for {text}"), || async {
            let samples = site.lab.prometheus().query(&text).await?;
            Ok((!samples.is_empty()).then_some(()))
        })
        .await?;
    }
    Ok(())
}

fn expressions(value: &serde_json::Value, into: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    ("expr", serde_json::Value::String(text)) => into.push(text.clone()),
                    _ => expressions(value, into),
                }
            }
        }
        serde_json::Value::Array(values) => {
            for value in values {
                expressions(value, into);
            }
        }
        _ => {}
    }
}

#[test]
fn refusal_leaves_a_record_and_a_trace() {
    lab(async {
        let site = Site::start(&Setup {
            policy: NOT_READY_REPLACES,
            polled: NO_RULES,
            alerting: NO_RULES,
            nodes: 3,
            ..Setup::default()
        })
        .await?;
        let api = Api::<Node>::all(site.lab.admin());
        let note = json!({"metadata": {"annotations": {"nodemend.dev/do-not-repair": "true"}}});
        api.patch("node-0", &PatchParams::default(), &Patch::Merge(note))
            .await?;
        site.lab.set_node_ready("node-0", false).await?;
        let health = site
            .wait_for("node-0 to be held", || async {
                let health = site.health("node-0").await?;
                let held = |status: &nodemend_core::api::NodeHealthStatus| {
                    status.verdict == VerdictKind::Held && status.reasons == [Reason::OptedOut]
                };
                Ok(health.filter(|health| health.status.as_ref().is_some_and(held)))
            })
            .await?;
        let status = health.status.context("no status")?;
        ensure!((status.fault.as_str(), status.policy.as_str()) == ("NotReady", "ready"));
        let trace = site
            .wait_for("the refusal's trace", || async {
                site.lab.jaeger().trace(&status.trace_id).await
            })
            .await?;
        let root = trace.root().context("no root span")?;
        ensure!(
            root.tags.get("k8s.node.name").map(String::as_str) == Some("node-0"),
            "{root:?}"
        );
        ensure!(
            root.tags.get("nodemend.verdict").map(String::as_str) == Some("Held"),
            "{root:?}"
        );
        ensure!(
            root.tags
                .get("nodemend.reasons")
                .is_some_and(|reasons| reasons.contains("OptedOut")),
            "{root:?}"
        );
        let metrics = site.scrape().await?;
        ensure!(
            metrics.contains("nodemend_held_nodes{reason=\"OptedOut\"} 1"),
            "{metrics}"
        );
        ensure!(site.repairs().await?.is_empty());
        ensure!(
            every_write_was_intended(&site).await?.is_empty(),
            "nothing was touched"
        );
        Ok(())
    });
}

#[test]
fn drain_waits_for_the_disruption_budget() {
    lab(async {
        let site = Site::start(&Setup {
            policy: READ_ONLY_REPLACES,
            polled: READ_ONLY,
            alerting: NO_RULES,
            nodes: 3,
            ..Setup::default()
        })
        .await?;
        let workload = Workload {
            name: "web".into(),
            replicas: 3,
            node_selector: BTreeMap::new(),
            min_available: Some(3),
            spread: true,
        };
        site.lab.add_workload(&workload).await?;
        ensure!(
            !site.lab.pods_on("node-0").await?.is_empty(),
            "a pod to drain"
        );
        site.lab
            .exporter()
            .set("node-0", Metric::FilesystemReadonly, 1.0);
        let waiting = site
            .repair_that("the drain to wait", |repair| {
                repair.phase() == Phase::Draining && repair.message().contains("web")
            })
            .await?;
        ensure!(waiting.last(Step::Terminate).is_none());
        ensure!(
            !site.lab.pods_on("node-0").await?.is_empty(),
            "the pod is still there"
        );
        ensure!(site.lab.ec2().calls_of("TerminateInstances").is_empty());

        let budgets = Api::<PodDisruptionBudget>::namespaced(site.lab.admin(), "default");
        let relaxed = Patch::Merge(json!({"spec": {"minAvailable": 2}}));
        budgets
            .patch("web", &PatchParams::default(), &relaxed)
            .await?;
        site.repair_that("the repair to succeed", |repair| {
            repair.phase() == Phase::Succeeded
        })
        .await?;
        let writes = every_write_was_intended(&site).await?;
        let evictions: Vec<u16> = writes
            .iter()
            .filter(|write| write.subresource.as_deref() == Some("eviction"))
            .map(|write| write.code)
            .collect();
        ensure!(
            evictions.contains(&429),
            "the budget said no: {evictions:?}"
        );
        ensure!(evictions.contains(&201), "then it said yes: {evictions:?}");
        Ok(())
    });
}

#[test]
fn killed_after_launch_resumes_without_a_second_instance() {
    lab(async {
        let mut site = Site::start(&Setup {
            policy: READ_ONLY_REPLACES,
            polled: READ_ONLY,
            alerting: NO_RULES,
            nodes: 3,
            ..Setup::default()
        })
        .await?;
        let before = site.instances().await?;
        // EC2 launches, and answers only after nodemend is gone.
        site.lab
            .ec2()
            .fault("RunInstances", 1, Fault::delay(Duration::from_secs(4)));
        site.lab
            .exporter()
            .set("node-2", Metric::FilesystemReadonly, 1.0);
        site.wait_for("an instance to be launched", || async {
            Ok((site.instances().await?.len() > before.len()).then_some(()))
        })
        .await?;
        site.kill()?;
        let open = site
            .repair_that("the launch to be open", |repair| {
                repair
                    .last(Step::Launch)
                    .is_some_and(|entry| entry.outcome.is_none())
            })
            .await?;
        site.run().await?;
        let done = site
            .repair_that("the repair to succeed", |repair| {
                repair.phase() == Phase::Succeeded
            })
            .await?;
        ensure!(open.metadata.uid == done.metadata.uid, "the same repair");
        ensure!(
            site.lab.ec2().calls_of("RunInstances").len() == 1,
            "launched once"
        );
        ensure!(
            site.lab.ec2().calls_of("TerminateInstances").len() == 1,
            "terminated once"
        );
        ensure!(site.instances().await?.len() == before.len());
        let epochs: Vec<u64> = done
            .journal()
            .iter()
            .map(|entry| entry.intent.epoch)
            .collect();
        ensure!(
            epochs.first() < epochs.last(),
            "a new leader took over: {epochs:?}"
        );
        every_write_was_intended(&site).await?;
        Ok(())
    });
}

#[test]
fn h36_ec2_that_refuses_and_loses_answers_launches_once() {
    lab(async {
        let site = Site::start(&Setup {
            policy: READ_ONLY_REPLACES,
            polled: READ_ONLY,
            alerting: NO_RULES,
            nodes: 3,
            ..Setup::default()
        })
        .await?;
        let before = site.instances().await?;
        let ec2 = site.lab.ec2();
        ec2.fault("RunInstances", 1, Fault::error(503, "RequestLimitExceeded"));
        ec2.fault("RunInstances", 1, Fault::LoseAnswer);
        ec2.fault("TerminateInstances", 1, Fault::LoseAnswer);
        site.lab
            .exporter()
            .set("node-0", Metric::FilesystemReadonly, 1.0);
        let repair = site
            .repair_that("the repair to succeed", |repair| {
                repair.phase() == Phase::Succeeded
            })
            .await?;
        let launch = repair.last(Step::Launch).context("no launch")?;
        ensure!(
            launch.failures == 2 && launch.intent.attempt == 1,
            "{launch:?}"
        );
        let said = launch.last_failure.as_ref().context("no failure")?;
        ensure!(!said.message.is_empty());
        ensure!(site.instances().await?.len() == before.len(), "one for one");
        let launched: Vec<_> = ec2
            .instances()
            .await?
            .into_iter()
            .filter(|instance| !before.contains_key(&instance.id))
            .collect();
        ensure!(launched.len() == 1, "{launched:?}");
        every_write_was_intended(&site).await?;
        Ok(())
    });
}

#[test]
fn h33_without_definitions_or_api_it_is_not_ready_and_keeps_trying() {
    lab(async {
        let site = Site::start(&Setup {
            policy: NOT_READY_REPLACES,
            polled: NO_RULES,
            alerting: NO_RULES,
            nodes: 1,
            undefined: true,
            ..Setup::default()
        })
        .await?;
        let says = |code: u16, part: &'static str| {
            let site = &site;
            move || async move {
                let (found, text) = site.probe("readyz").await?;
                ensure!(found == code && text.contains(part), "{found}: {text}");
                Ok(Some(()))
            }
        };
        let missing = "kubectl apply -f deploy/crds.yaml";
        site.wait_for("the missing definitions to be told", says(503, missing))
            .await?;
        ensure!(site.probe("livez").await?.0 == 200);
        site.define().await?;
        site.wait_for("nodemend to be ready", says(200, "")).await?;
        site.lab.stop("kube-apiserver")?;
        site.wait_for("the missing API to be told", says(503, "nodes"))
            .await?;
        ensure!(
            site.probe("livez").await?.0 == 200,
            "a restart would not help"
        );
        site.lab.start_again("kube-apiserver").await?;
        site.wait_for("nodemend to be ready again", says(200, ""))
            .await
    });
}
