//! Server-side apply of any manifests, custom resource definitions first.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::discovery::{Scope, pinned_kind};
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::wait::wait_for;
use crate::yaml::documents;

/// Applies every document of the text (lists are opened), in an order that works:
/// definitions and namespaces before what needs them.
pub async fn apply(client: &Client, text: &str) -> Result<()> {
    let mut objects = Vec::new();
    for document in documents(text)? {
        match document.get("items").and_then(Value::as_array) {
            Some(items) => objects.extend(items.iter().cloned()),
            None => objects.push(document),
        }
    }
    objects.sort_by_key(rank);
    for object in objects {
        apply_one(client, object).await?;
    }
    Ok(())
}

fn rank(object: &Value) -> u8 {
    match object["kind"].as_str() {
        Some("CustomResourceDefinition") => 0,
        Some("Namespace") => 1,
        Some("ServiceAccount") => 2,
        _ => 3,
    }
}

async fn apply_one(client: &Client, object: Value) -> Result<()> {
    let object: DynamicObject =
        serde_json::from_value(object).context("a manifest that is no Kubernetes object")?;
    let types = object
        .types
        .clone()
        .context("a manifest without apiVersion or kind")?;
    let what = format!("{} {}", types.kind, object.name_any());
    let gvk = GroupVersionKind::try_from(&types).context("a bad apiVersion")?;
    // A definition is established a moment before discovery shows its kind.
    let (resource, capabilities) = wait_for(
        &format!("the API to know {what}"),
        Duration::from_secs(15),
        || async { Ok(Some(pinned_kind(client, &gvk).await?)) },
    )
    .await?;
    let api = api_of(client, &object, &resource, &capabilities.scope);
    let name = object
        .metadata
        .name
        .clone()
        .context("a manifest without a name")?;
    let params = PatchParams::apply("nodemend-lab").force();
    api.patch(&name, &params, &Patch::Apply(&object))
        .await
        .with_context(|| format!("applying {what}"))?;
    if is_definition(&types) {
        established(client, &name).await
    } else {
        Ok(())
    }
}

fn api_of(
    client: &Client,
    object: &DynamicObject,
    resource: &ApiResource,
    scope: &Scope,
) -> Api<DynamicObject> {
    match scope {
        Scope::Cluster => Api::all_with(client.clone(), resource),
        Scope::Namespaced => {
            let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
            Api::namespaced_with(client.clone(), namespace, resource)
        }
    }
}

fn is_definition(types: &TypeMeta) -> bool {
    types.kind == "CustomResourceDefinition"
}

async fn established(client: &Client, name: &str) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    wait_for(
        &format!("definition {name} to be established"),
        Duration::from_secs(30),
        || async {
            let definition = api.get(name).await?;
            let conditions = definition
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            Ok(conditions
                .iter()
                .any(|c| c.type_ == "Established" && c.status == "True")
                .then_some(()))
        },
    )
    .await
}
