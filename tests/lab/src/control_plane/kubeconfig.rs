//! Kubeconfigs, and clients made from them.

use std::path::Path;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use super::base64::base64;

/// A kubeconfig (JSON is YAML) for one token.
pub fn kubeconfig_text(url: &str, ca: &str, token: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": url, "certificate-authority-data": base64(ca.as_bytes())}}],
        "users": [{"name": "lab", "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    });
    format!("{config:#}\n")
}

/// A client configuration that hides nothing: no retries of its own.
pub async fn config_of(kubeconfig: &Path) -> Result<Config> {
    let read = Kubeconfig::read_from(kubeconfig).context("reading the kubeconfig")?;
    let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .context("making a client configuration")?;
    config.default_retry = false;
    // Never a proxy of the machine's: all is on loopback.
    config.proxy_url = None;
    Ok(config)
}

/// A client of this kubeconfig; it belongs to the runtime it is made on.
pub async fn client_of(kubeconfig: &Path) -> Result<Client> {
    crate::crypto();
    Client::try_from(config_of(kubeconfig).await?).context("making a client")
}
