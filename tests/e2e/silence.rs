//! Silences that people make with amtool hold, and their end lets go.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use nodemend_core::api::NodeHealthStatus;
use nodemend_core::model::Reason;
use nodemend_lab::Metric;

use super::audit::every_write_was_intended;
use super::site::{Setup, Site};
use super::{READ_ONLY, RECEIVE_ERRORS, lab};

/// Both faults would be repaired, were it not for the mode.
const OBSERVED: &str = r"
apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: observed}
spec:
  nodeSelector: {}
  faults:
  - name: DiskReadOnly
    when: {all: [{signal: NodeFilesystemReadOnly}]}
    for: 1s
    actions: [Replace]
  - name: NicErrors
    when: {all: [{signal: NodeReceiveErrors}]}
    for: 1s
    actions: [Replace]
";

#[test]
fn h84_silences_of_an_alert_and_of_a_polled_rules_node_hold_until_they_end() {
    lab(async {
        let site = Site::start(&Setup {
            policy: OBSERVED,
            polled: READ_ONLY,
            alerting: RECEIVE_ERRORS,
            nodes: 4,
            ..Setup::default()
        })
        .await?;
        let exporter = site.lab.exporter();
        exporter.set("node-0", Metric::FilesystemReadonly, 1.0);
        exporter.set("node-1", Metric::ReceiveErrors, 50.0);
        let disk = since(&site.held("node-0", &[Reason::ObserveMode]).await?)?;
        let nic = since(&site.held("node-1", &[Reason::ObserveMode]).await?)?;

        let of_node = silence(&site, &["node=node-0"])?;
        let of_alert = silence(
            &site,
            &["alertname=NodeReceiveErrors", "instance=~node-1.*"],
        )?;
        let silenced = [Reason::ObserveMode, Reason::Silenced];
        for (node, id) in [("node-0", &of_node), ("node-1", &of_alert)] {
            let status = site.held(node, &silenced).await?;
            let named: Vec<(&str, &str)> = status
                .silences
                .iter()
                .map(|silence| (silence.id.as_str(), silence.created_by.as_str()))
                .collect();
            ensure!(named == [(id.as_str(), "ann")], "{node}: {named:?}");
        }

        for id in [&of_node, &of_alert] {
            amtool(&site, &["silence", "expire", id])?;
        }
        for (node, before) in [("node-0", disk), ("node-1", nic)] {
            let status = site.held(node, &[Reason::ObserveMode]).await?;
            ensure!(status.silences.is_empty(), "{status:?}");
            let after = since(&status)?;
            ensure!(after == before, "{node}: since {after}, not {before}");
        }
        ensure!(site.repairs().await?.is_empty());
        ensure!(every_write_was_intended(&site).await?.is_empty());
        Ok(())
    });
}

/// Since when the leading fault is true.
fn since(status: &NodeHealthStatus) -> Result<Timestamp> {
    let mut faults = status.faults.iter();
    let leading = faults.find(|fault| fault.fault == status.fault);
    Ok(leading.context("the leading fault has no clock")?.since)
}

/// Makes a silence; gives its id.
fn silence(site: &Site, matchers: &[&str]) -> Result<String> {
    let what = [
        "silence",
        "add",
        "--author=ann",
        "--comment=c",
        "--duration=1h",
    ];
    Ok(amtool(site, &[&what, matchers].concat())?.trim().to_owned())
}

fn amtool(site: &Site, arguments: &[&str]) -> Result<String> {
    let done = Command::new(site.lab.program("amtool")?)
        .arg(format!(
            "--alertmanager.url={}",
            site.lab.alertmanager().url
        ))
        .args(arguments)
        .output()
        .context("running amtool")?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "amtool {arguments:?}: {said}");
    Ok(String::from_utf8(done.stdout)?)
}
