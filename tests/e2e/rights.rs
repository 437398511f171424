//! What the shipped `ServiceAccount` may do and may not, tried on a real API server.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use nodemend_core::api::{NodeRepair, Phase};
use serde_json::json;

use crate::audit::every_write_was_intended;
use crate::site::{NO_RULES, Setup, Site};
use crate::{NOT_READY_REPLACES, lab};

/// verb, group, resource, subresource.
type Right = (&'static str, &'static str, &'static str, &'static str);

const MAY: [Right; 11] = [
    ("watch", "", "nodes", ""),
    ("patch", "", "nodes", ""),
    ("list", "", "pods", ""),
    ("create", "", "pods", "eviction"),
    ("create", "nodemend.dev", "noderepairs", ""),
    ("update", "nodemend.dev", "noderepairs", "status"),
    ("delete", "nodemend.dev", "noderepairs", ""),
    ("update", "nodemend.dev", "alertgroups", ""),
    ("delete", "nodemend.dev", "alertgroups", ""),
    ("create", "authentication.k8s.io", "tokenreviews", ""),
    ("update", "nodemend.dev", "repairpolicies", "status"),
];

const MAY_NOT: [Right; 16] = [
    ("get", "", "secrets", ""),
    ("list", "", "secrets", ""),
    ("delete", "", "pods", ""),
    ("create", "", "pods", ""),
    ("create", "", "pods", "exec"),
    ("delete", "", "nodes", ""),
    ("create", "", "nodes", ""),
    ("patch", "", "nodes", "status"),
    ("get", "", "nodes", "proxy"),
    ("patch", "nodemend.dev", "noderepairs", ""),
    ("list", "policy", "poddisruptionbudgets", ""),
    ("delete", "nodemend.dev", "fleetstates", ""),
    ("create", "nodemend.dev", "repairpolicies", ""),
    (
        "create",
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        "",
    ),
    ("create", "", "serviceaccounts", "token"),
    ("impersonate", "", "users", ""),
];

async fn allowed(client: &Client, (verb, group, resource, subresource): Right) -> Result<bool> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.into()),
                group: Some(group.into()),
                resource: Some(resource.into()),
                subresource: Some(subresource.into()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.context("no status")?.allowed)
}

async fn client(site: &Site, account: &str) -> Result<Client> {
    let file = site
        .lab
        .service_account_kubeconfig("nodemend", account)
        .await?;
    let kubeconfig = kube::config::Kubeconfig::read_from(file)?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

fn code<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> Result<u16> {
    match result {
        Err(kube::Error::Api(status)) => Ok(status.code),
        other => anyhow::bail!("not refused: {other:?}"),
    }
}

#[test]
fn service_account_can_do_its_work_and_no_more() {
    lab(async {
        let site = Site::start(&Setup {
            policy: NOT_READY_REPLACES,
            polled: NO_RULES,
            alerting: NO_RULES,
            nodes: 3,
            ..Setup::default()
        })
        .await?;
        let nodemend = client(&site, "nodemend").await?;
        for right in MAY {
            ensure!(allowed(&nodemend, right).await?, "{right:?} is missing");
        }
        for right in MAY_NOT {
            ensure!(!allowed(&nodemend, right).await?, "{right:?} is too much");
        }
        let lease = Api::<Lease>::namespaced(nodemend.clone(), "kube-node-lease");
        // The lab's kubelets have none; that is told only to those who may know.
        ensure!(code(lease.get("node-1").await)? == 404);
        ensure!(code(lease.list(&ListParams::default()).await)? == 403);
        h72_rights_that_roles_cannot_name_are_refused_too(&nodemend).await?;

        // Its work, with these rights and no others.
        site.lab.set_node_ready("node-1", false).await?;
        let repair = site
            .repair_that("a repair to begin", |repair| !repair.name().is_empty())
            .await?;
        let repairs: Api<NodeRepair> = Api::all(nodemend.clone());
        let dry = DeleteParams {
            dry_run: true,
            ..DeleteParams::default()
        };
        let refused = code(repairs.delete(repair.name(), &dry).await);
        ensure!(refused? == 403, "a journal is deleted that goes on");
        site.repair_that("the repair to succeed", |repair| {
            repair.phase() == Phase::Succeeded
        })
        .await?;
        repairs
            .delete(repair.name(), &dry)
            .await
            .context("what ended stays")?;
        h74_nobody_else_makes_or_bends_a_repair(&site).await?;
        every_write_was_intended(&site).await?;
        Ok(())
    });
}

/// Of a node it may patch the cordon, not what else there is.
async fn h72_rights_that_roles_cannot_name_are_refused_too(nodemend: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(nodemend.clone());
    for patch in [
        json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}),
        json!({"metadata": {"annotations": {"other.example/x": "y"}}}),
        json!({"metadata": {"finalizers": ["nodemend.dev/x"]}}),
        json!({"spec": {"podCIDR": "10.0.0.0/24"}}),
    ] {
        // Dry runs go through admission, and leave no trace to explain away.
        let params = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let refused = code(nodes.patch("node-0", &params, &Patch::Merge(&patch)).await)?;
        ensure!(refused == 403, "{patch} got {refused}");
    }
    Ok(())
}

/// A tenant cannot, and not even who may do everything else.
async fn h74_nobody_else_makes_or_bends_a_repair(site: &Site) -> Result<()> {
    // Its finalizer goes last; a version that is still to change would be refused for that.
    let repair = site
        .repair_that("the repair to be let go", |repair| {
            repair
                .metadata
                .finalizers
                .as_ref()
                .is_none_or(Vec::is_empty)
        })
        .await?;
    let tenant = client(site, "default").await?;
    let mut forged = NodeRepair::new("forged", repair.spec.clone());
    forged.spec.ordinal = 9;
    for client in [tenant, site.lab.admin()] {
        let api: Api<NodeRepair> = Api::all(client);
        let made = api.create(&PostParams::default(), &forged).await;
        ensure!(code(made)? == 403, "a repair was forged");
        let mut bent = repair.clone();
        bent.status.get_or_insert_default().phase = Phase::Pending;
        let name = repair.metadata.name.clone().context("no name")?;
        let bent = api
            .replace_status(&name, &PostParams::default(), &bent)
            .await;
        ensure!(code(bent)? == 403, "a journal was bent");
    }
    let api: Api<NodeRepair> = Api::all(site.lab.admin());
    let name = repair.metadata.name.clone().context("no name")?;
    let moved = Patch::Merge(json!({"spec": {"nodeName": "node-0"}}));
    let moved = api.patch(&name, &PatchParams::default(), &moved).await;
    ensure!(code(moved)? == 422, "a repair was moved to another node");
    ensure!(api.list(&ListParams::default()).await?.items.len() == 1);
    Ok(())
}
