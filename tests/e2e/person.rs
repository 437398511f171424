//! What people ask and say with the shipped commands, under the shipped rights of an operator.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use nodemend_core::decide;
use nodemend_core::model::Reason;
use serde_json::Value;

use crate::audit::every_write_was_intended;
use crate::site::{NO_RULES, Setup, Site};
use crate::{NOT_READY_REPLACES, lab};

/// Somebody with the role that is shipped for those who run the cluster's nodes.
const OPERATOR: &str = r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: sre, namespace: nodemend}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: sre}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: nodemend-operator}
subjects:
- {kind: ServiceAccount, name: sre, namespace: nodemend}
";

struct Person(PathBuf);

impl Person {
    /// Runs a command; on another thread, as it may wait for nodemend.
    async fn run(&self, args: &[&str], expect: i32) -> Result<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodemend"));
        command.args(args).env_clear().env("KUBECONFIG", &self.0);
        command.stdin(Stdio::null());
        let output: Output = tokio::task::spawn_blocking(move || command.output()).await??;
        let (out, err) = (
            String::from_utf8(output.stdout)?,
            String::from_utf8(output.stderr)?,
        );
        let code = output.status.code();
        ensure!(code == Some(expect), "{args:?}: {code:?}\n{out}{err}");
        Ok(out + &err)
    }
}

#[test]
fn people_pause_explain_approve_and_ask() {
    lab(async {
        let budget = "  budgets: [{name: two, maxRepairs: 2, within: 1h}]\n";
        let approved_only = NOT_READY_REPLACES.replace("mode: Enforce", "mode: Approve") + budget;
        let site = Site::start(&Setup {
            policy: &approved_only,
            polled: NO_RULES,
            alerting: NO_RULES,
            nodes: 5,
            ..Setup::default()
        })
        .await?;
        site.lab.apply(OPERATOR).await?;
        let sre = Person(
            site.lab
                .service_account_kubeconfig("nodemend", "sre")
                .await?,
        );

        // One that covers nothing is a mistake, and is not made.
        for wrong in [["--selector", "workload=generall"], ["--policy", "raedy"]] {
            let args = [&["pause", "--reason", "maintenance"], &wrong[..]].concat();
            let told = sre.run(&args, 1).await?;
            ensure!(told.contains("covers no node"), "{told}");
        }
        let args = ["pause", "--reason", "maintenance", "--for", "1h"];
        let told = sre.run(&args, 0).await?;
        ensure!(told.contains(" (5 nodes) holds until "), "{told}");
        site.lab.set_node_ready("node-1", false).await?;
        site.held("node-1", &[Reason::Paused, Reason::AwaitingApproval])
            .await?;
        let told = sre.run(&["explain", "node-1"], 0).await?;
        ensure!(
            told.starts_with("node-1 is Held: Paused, AwaitingApproval\n"),
            "{told}"
        );
        ensure!(
            told.contains(": maintenance)") && told.contains("NotReady"),
            "{told}"
        );
        let told = sre.run(&["explain", "node-2"], 0).await?;
        ensure!(told.starts_with("node-2 is on no record"), "{told}");
        let told = sre.run(&["explain", "nobody"], 2).await?;
        ensure!(told.contains("no node `nobody`"), "{told}");
        let told = sre.run(&["status", "-o", "json"], 0).await?;
        let status: Value = serde_json::from_str(&told)?;
        ensure!(status["pauses"][0]["reason"] == "maintenance", "{told}");
        ensure!(
            status["verdicts"]["Held"] == 1 && status["epoch"] == 1,
            "{told}"
        );

        let holder = status["leader"]["holder"].as_str().unwrap_or_default();
        ensure!(holder.starts_with("nodemend-0_"), "{told}");

        // A request is held by what holds all, and says so.
        let told = sre
            .run(&["repair", "node-3", "--reason", "smells"], 1)
            .await?;
        ensure!(told.contains("no --override ignores that"), "{told}");
        sre.run(&["resume", "--all"], 0).await?;
        let repair = site.repair_that("the request to start", |_| true).await?;
        let request = repair.spec.request.context("nobody asked")?;
        ensure!(repair.spec.node_name == "node-3" && request.reason == "smells");
        ensure!(
            request.by == "system:serviceaccount:nodemend:sre",
            "{}",
            request.by
        );

        let told = sre.run(&["approve", "node-2"], 1).await?;
        ensure!(told.contains("does not wait for approval"), "{told}");
        let status = site.held("node-1", &[Reason::AwaitingApproval]).await?;
        let decisions = status.decisions;
        ensure!(decisions.len() > 1 && decisions.iter().all(decide::replays));
        sre.run(&["approve", "node-1"], 0).await?;
        site.wait_for("the approved repair to start", || async {
            let mut repairs = site.repairs().await?.into_iter();
            Ok(repairs.find(|repair| repair.spec.node_name == "node-1"))
        })
        .await?;

        // Two started, as many as may; that may be ignored, and so may that both still run.
        let told = sre
            .run(&["repair", "node-4", "--reason", "noisy"], 1)
            .await?;
        ensure!(told.contains("budget/ready/two: 2, 2 allowed"), "{told}");
        ensure!(told.contains(" --override Budget"), "{told}");
        let guards = ["--override", "Budget", "--override", "InFlight"];
        let args = [&["repair", "node-4", "--reason", "noisy"], &guards[..]].concat();
        let name = sre.run(&args, 0).await?;
        ensure!(name.starts_with("node-4-"), "{name}");
        let told = sre.run(&["history"], 0).await?;
        ensure!(
            told.lines().count() == 3 && told.contains("noisy"),
            "{told}"
        );
        every_write_was_intended(&site).await.map(|_| ())
    });
}
