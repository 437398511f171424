//! The real Alertmanager, alone or as a cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http;
use crate::ports::free_port;
use crate::process::Recipe;
use crate::site::Site;
use crate::wait::wait_for;

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

/// A configuration that posts to a webhook with the token of a file, fast enough for a
/// test to wait; one with TLS if there is an authority to trust.
pub fn webhook_config(url: &str, bearer_token_file: &Path, ca_file: Option<&Path>) -> String {
    let mut http = json!({
        "authorization": {"type": "Bearer", "credentials_file": bearer_token_file},
        "follow_redirects": false,
    });
    if let Some(file) = ca_file {
        http["tls_config"] = json!({"ca_file": file});
    }
    let webhook = json!({"url": url, "send_resolved": true, "http_config": http});
    let config = json!({
        "route": {
            "receiver": "nodemend", "group_by": ["alertname"],
            "group_wait": "1s", "group_interval": "2s", "repeat_interval": "10s",
        },
        "receivers": [{"name": "nodemend", "webhook_configs": [webhook]}],
    });
    // JSON is YAML.
    format!("{config:#}\n")
}

impl Alertmanager {
    /// Starts so many; more than one gossip with each other.
    pub(super) async fn start(
        site: &Site,
        config: Option<&str>,
        members: usize,
    ) -> Result<Vec<Self>> {
        let gossip: Vec<u16> = if members > 1 {
            (0..members).map(|_| free_port()).collect::<Result<_>>()?
        } else {
            Vec::new()
        };
        let config = config.unwrap_or(SILENT);
        let starts = (0..members).map(|index| Self::start_one(site, config, index, &gossip));
        let started: Vec<Self> = try_join_all(starts).await?;
        for member in started.iter().filter(|_| members > 1) {
            member.settled(members).await?;
        }
        Ok(started)
    }

    async fn start_one(site: &Site, config: &str, index: usize, gossip: &[u16]) -> Result<Self> {
        let name = match index {
            0 => "alertmanager".to_owned(),
            _ => format!("alertmanager-{index}"),
        };
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let config = site.write(&format!("config/{name}.yaml"), config)?;
        let mut arguments = vec![
            format!("--config.file={}", config.display()),
            format!("--storage.path={}", site.path(&name)),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        // Alone it does not gossip.
        let own = gossip.get(index).map(|port| format!("127.0.0.1:{port}"));
        arguments.push(format!(
            "--cluster.listen-address={}",
            own.unwrap_or_default()
        ));
        let others = gossip.iter().enumerate().filter(|(of, _)| *of != index);
        arguments.extend(others.map(|(_, port)| format!("--cluster.peer=127.0.0.1:{port}")));
        if !gossip.is_empty() {
            arguments.push("--cluster.reconnect-interval=1s".to_owned());
            // How long each leaves a notification to the one before it.
            arguments.push("--cluster.peer-timeout=2s".to_owned());
        }
        let recipe = Recipe::new(
            &name,
            site.programs.get("alertmanager")?,
            format!("{url}/-/ready"),
            arguments,
        );
        site.start(recipe).await?;
        Ok(Self {
            url,
            config,
            http: http::client()?,
        })
    }

    /// Waits until it knows of all members, and notifies.
    async fn settled(&self, members: usize) -> Result<()> {
        let what = format!("{members} Alertmanagers to find each other");
        wait_for(&what, Duration::from_mins(1), || async {
            let url = format!("{}/api/v2/status", self.url);
            let status: Value = self.http.get(url).send().await?.json().await?;
            let cluster = &status["cluster"];
            let peers = cluster["peers"].as_array().map_or(0, Vec::len);
            Ok((peers == members && cluster["status"] == "ready").then_some(()))
        })
        .await
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
        self.post_alerts(&[json!({"labels": labels})]).await
    }

    /// Posts alerts as Prometheus does: each with `labels`, and `startsAt` and `endsAt` if
    /// it has any.
    pub async fn post_alerts(&self, alerts: &[Value]) -> Result<()> {
        let answer = self
            .http
            .post(format!("{}/api/v2/alerts", self.url))
            .json(alerts)
            .send()
            .await?;
        answer.error_for_status()?;
        Ok(())
    }

    /// One of its own metrics, all series of it together.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let answer = self
            .http
            .get(format!("{}/metrics", self.url))
            .send()
            .await?;
        let text = answer.error_for_status()?.text().await?;
        let of = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let value = rest.starts_with(['{', ' ']).then(|| rest.rsplit_once(' '));
            value??.1.parse::<f64>().ok()
        };
        Ok(text.lines().filter_map(of).sum())
    }
}
