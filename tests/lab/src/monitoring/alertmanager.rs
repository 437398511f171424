//! The real Alertmanager.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http;
use crate::ports::free_port;
use crate::process::Recipe;
use crate::site::Site;

/// Tells nobody.
const SILENT: &str = "route: {receiver: nobody}\nreceivers:\n- name: nobody\n";

/// A running Alertmanager.
#[derive(Debug, Clone)]
pub struct Alertmanager {
    /// Where it listens.
    pub url: String,
    config: PathBuf,
    http: reqwest::Client,
}

/// An alert as Alertmanager holds it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertmanagerAlert {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its fingerprint.
    pub fingerprint: String,
    /// When it started.
    pub starts_at: String,
    /// State, silences and inhibitions, as they come.
    pub status: Value,
}

/// A configuration that posts to a webhook, fast enough for a test to wait.
pub fn webhook_config(url: &str, bearer_token_file: Option<&Path>) -> String {
    let mut webhook = json!({"url": url, "send_resolved": true});
    if let Some(file) = bearer_token_file {
        webhook["http_config"] = json!({"authorization": {"type": "Bearer", "credentials_file": file}, "follow_redirects": false});
    }
    let config = json!({
        "route": {
            "receiver": "nodemend", "group_by": ["alertname", "node"],
            "group_wait": "1s", "group_interval": "2s", "repeat_interval": "10s",
        },
        "receivers": [{"name": "nodemend", "webhook_configs": [webhook]}],
    });
    // JSON is YAML.
    format!("{config:#}\n")
}

impl Alertmanager {
    pub(super) async fn start(site: &Site, config: Option<&str>) -> Result<Self> {
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let config = site.write("config/alertmanager.yaml", config.unwrap_or(SILENT))?;
        let recipe = Recipe::new(
            "alertmanager",
            site.programs.get("alertmanager")?,
            format!("{url}/-/ready"),
            [
                format!("--config.file={}", config.display()),
                format!("--storage.path={}", site.path("alertmanager")),
                format!("--web.listen-address=127.0.0.1:{port}"),
                // No gossip: there is one.
                "--cluster.listen-address=".to_owned(),
            ],
        );
        site.start(recipe).await?;
        Ok(Self {
            url,
            config,
            http: http::client()?,
        })
    }

    /// Gives it another configuration.
    pub async fn reload(&self, config: &str) -> Result<()> {
        std::fs::write(&self.config, config).context("writing Alertmanager's configuration")?;
        let answer = self
            .http
            .post(format!("{}/-/reload", self.url))
            .send()
            .await?;
        if !answer.status().is_success() {
            bail!(
                "Alertmanager refuses the configuration: {}",
                answer.text().await?
            );
        }
        Ok(())
    }

    /// The alerts it holds.
    pub async fn alerts(&self) -> Result<Vec<AlertmanagerAlert>> {
        let answer = self
            .http
            .get(format!("{}/api/v2/alerts", self.url))
            .send()
            .await?;
        answer
            .error_for_status()?
            .json()
            .await
            .context("reading Alertmanager's alerts")
    }

    /// Posts an alert as a sender of alerts would; it fires until it expires.
    pub async fn post_alert(&self, labels: &BTreeMap<String, String>) -> Result<()> {
        let answer = self
            .http
            .post(format!("{}/api/v2/alerts", self.url))
            .json(&json!([{"labels": labels}]))
            .send()
            .await?;
        answer.error_for_status()?;
        Ok(())
    }
}
