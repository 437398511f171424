//! A machine is restarted through EC2, and its node comes back with another bootID.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use nodemend_core::api::{Phase, Step};
use nodemend_lab::Fault;
use serde_json::json;

use super::audit::every_write_was_intended;
use super::site::{NO_RULES, Setup, Site};
use super::{NOT_READY_REPLACES, lab, node};

/// The machine of a node boots.
async fn boot(site: &Site, name: &str, boot_id: &str) -> Result<()> {
    let status = json!({"status": {"nodeInfo": {"bootID": boot_id}}});
    let nodes = Api::<Node>::all(site.lab.admin());
    let patch = Patch::Strategic(&status);
    nodes
        .patch_status(name, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

#[test]
fn a_restart_whose_answer_is_lost_is_proven_by_the_boot_id_and_asked_for_once() {
    lab(async {
        let restarts = NOT_READY_REPLACES.replace("[Replace]", "[Reboot, Replace]");
        let site = Site::start(&Setup {
            policy: &restarts,
            polled: NO_RULES,
            alerting: NO_RULES,
            nodes: 3,
            ..Setup::default()
        })
        .await?;
        let before = site.instances().await?;
        boot(&site, "node-1", "first").await?;
        site.lab
            .ec2()
            .fault("RebootInstances", 1, Fault::LoseAnswer);
        site.lab.set_node_ready("node-1", false).await?;
        site.wait_for("the machine to be restarted", || async {
            Ok((!site.lab.ec2().calls_of("RebootInstances").is_empty()).then_some(()))
        })
        .await?;
        boot(&site, "node-1", "second").await?;
        site.lab.set_node_ready("node-1", true).await?;
        site.repair_that("the restart to be seen", |repair| {
            repair.phase() == Phase::Verifying
        })
        .await?;
        // The fault is over once it was clear for two minutes.
        let done = site
            .lab
            .wait_for("the repair to succeed", Duration::from_mins(4), || async {
                let repairs = site.repairs().await?;
                let ended = |phase| phase == Phase::Succeeded;
                Ok(repairs.into_iter().find(|repair| ended(repair.phase())))
            })
            .await?;
        let asked = done.last(Step::Reboot).context("no restart on record")?;
        ensure!(
            asked.intent.boot_id == "first" && asked.failures == 1,
            "{asked:?}"
        );
        let calls = site.lab.ec2().calls_of("RebootInstances");
        ensure!(calls.len() == 1, "asked once: {calls:?}");
        ensure!(calls[0].params["InstanceId.1"] == done.spec.plan.instance_id);
        let spec = node(&site, "node-1").await?.context("no node-1")?.spec;
        ensure!(spec.and_then(|spec| spec.unschedulable) != Some(true));
        ensure!(site.instances().await? == before, "nothing was replaced");
        every_write_was_intended(&site).await?;
        Ok(())
    });
}
