//! The process in the background: all parts, six nodes with something on them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nodemend_lab::{CloudOptions, Lab, MonitoringOptions, Options, Workload};
use tokio::signal::unix::{SignalKind, signal};

use super::configuration::{self, Written};
use super::{guide, home};

/// Runs until it is told to end.
pub fn serve() -> Result<()> {
    tokio::runtime::Runtime::new()
        .context("starting a runtime")?
        .block_on(run())
}

async fn run() -> Result<()> {
    // First of all, so that no early signal ends it without ending the components.
    let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
    let lab = tokio::select! {
        lab = start() => lab?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    fs::remove_file(guide()?).context("removing the guide")?;
    drop(lab);
    Ok(())
}

async fn start() -> Result<Lab> {
    let home = home()?;
    let written = configuration::write(&home)?;
    let lab = Lab::start(Options {
        monitoring: Some(MonitoringOptions {
            rule_files: vec![home.join("rules/*.yaml")],
            alertmanager_config: Some(written.alertmanager.clone()),
            ..MonitoringOptions::default()
        }),
        cloud: Some(CloudOptions::default()),
        tracing: true,
        directory: Some(home.clone()),
        ..Options::default()
    })
    .await?;
    lab.prometheus()
        .scrape_nodemend(std::slice::from_ref(&written.metrics))?;
    lab.add_nodes(6).await?;
    let web = Workload {
        name: "web".to_owned(),
        replicas: 6,
        min_available: Some(5),
        spread: true,
        ..Workload::default()
    };
    lab.add_workload(&web).await?;
    for manifest in ["namespace", "crds", "rbac", "admission"] {
        let path = nodemend_lab::checkout().join(format!("deploy/{manifest}.yaml"));
        lab.apply_path(&path).await?;
    }
    let account = lab
        .service_account_kubeconfig("nodemend", "nodemend")
        .await?;
    configuration::finish(&home, &lab)?;
    let draft = home.join("guide.draft");
    fs::write(&draft, text(&lab, &written, &account)?).context("writing the guide")?;
    fs::rename(&draft, guide()?).context("placing the guide")?;
    Ok(lab)
}

fn text(lab: &Lab, written: &Written, account: &Path) -> Result<String> {
    let (kubeconfig, exporter) = (lab.kubeconfig().display(), &lab.monitoring().exporter_url);
    Ok(format!(
        "The lab is up: 6 nodes with EC2 instances in 3 zones, a Deployment `web` with a disruption budget.

  export KUBECONFIG={kubeconfig}
  {kubectl} get nodes,pods -o wide

  Prometheus    {prometheus}
  Alertmanager  {alertmanager}
  Jaeger        {jaeger}
  EC2           {ec2}  (calls: /lab/calls, faults: /lab/faults)
  Exporter      {exporter}
  audit log     {audit}
  logs          {logs}

Run nodemend against it:

  {environment} \\
  cargo run -q -- run --log human --config {config}

Break something, and watch what comes of it:

  {kubectl} --kubeconfig {kubeconfig} label node node-1 {not_ready}=true
  {kubectl} --kubeconfig {kubeconfig} get noderepairs --watch
  curl -X PUT {exporter}/nodes/node-2/node_filesystem_readonly -d 1
  curl {ec2}/lab/faults -H 'content-type: application/json' \\
    -d '{{\"action\": \"RunInstances\", \"fault\": {{\"error\": {{\"status\": 503, \"code\": \"RequestLimitExceeded\"}}}}, \"times\": 2}}'

End it: tests/lab/down
",
        kubectl = lab.program("kubectl")?.display(),
        prometheus = lab.prometheus().url,
        alertmanager = lab.alertmanager().url,
        jaeger = lab.jaeger().url,
        ec2 = lab.ec2().url,
        audit = lab.control_plane().audit_log.display(),
        logs = lab.directory().join("logs").display(),
        environment = configuration::environment(lab, account),
        config = written.config.display(),
        not_ready = nodemend_lab::NOT_READY,
    ))
}
