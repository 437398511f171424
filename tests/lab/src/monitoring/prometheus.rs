//! The real Prometheus.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Alertmanager;
use crate::http;
use crate::ports::free_port;
use crate::process::Recipe;
use crate::site::Site;

/// A running Prometheus.
#[derive(Debug, Clone)]
pub struct Prometheus {
    /// Where it listens.
    pub url: String,
    config: PathBuf,
    targets: PathBuf,
    http: reqwest::Client,
}

/// One series of an instant query's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// An alert as Prometheus sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct PrometheusAlert {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// `pending` or `firing`.
    pub state: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    result_type: String,
    result: Value,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

#[derive(Deserialize)]
struct Alerts {
    alerts: Vec<PrometheusAlert>,
}

impl Prometheus {
    pub(super) async fn start(
        site: &Site,
        exporter: &str,
        alertmanagers: &[Alertmanager],
        rule_files: &[PathBuf],
    ) -> Result<Self> {
        let port = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        let targets = site.write("config/nodemend-targets.json", "[]")?;
        let config = config_text(exporter, alertmanagers, rule_files, &targets)?;
        let config = site.write("config/prometheus.yaml", &config)?;
        let recipe = Recipe::new(
            "prometheus",
            site.programs.get("prometheus")?,
            format!("{url}/-/ready"),
            [
                format!("--config.file={}", config.display()),
                format!("--storage.tsdb.path={}", site.path("prometheus")),
                format!("--web.listen-address=127.0.0.1:{port}"),
                "--web.enable-lifecycle".to_owned(),
                "--enable-feature=exemplar-storage".to_owned(),
            ],
        );
        site.start(recipe).await?;
        Ok(Self {
            url,
            config,
            targets,
            http: http::client()?,
        })
    }

    /// An instant query; a scalar comes as one sample without labels.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        let answer: Vector = self.get("query", &[("query", expression)]).await?;
        if answer.result_type == "scalar" {
            let (_, value): (f64, String) =
                serde_json::from_value(answer.result).context("a bad scalar")?;
            return Ok(vec![Sample {
                labels: BTreeMap::new(),
                value: number(&value)?,
            }]);
        }
        let series: Vec<Series> =
            serde_json::from_value(answer.result).context("no instant vector")?;
        series
            .into_iter()
            .map(|one| {
                Ok(Sample {
                    labels: one.metric,
                    value: number(&one.value.1)?,
                })
            })
            .collect()
    }

    /// The alerts that are pending or firing.
    pub async fn alerts(&self) -> Result<Vec<PrometheusAlert>> {
        let answer: Alerts = self.get("alerts", &[]).await?;
        Ok(answer.alerts)
    }

    /// Has it scrape these addresses (`HOST:PORT`) as job `nodemend`, from now on.
    pub fn scrape_nodemend(&self, addresses: &[String]) -> Result<()> {
        let text = json!([{"targets": addresses}]).to_string();
        // Renamed into place: Prometheus may read at any moment.
        let draft = self.targets.with_extension("draft");
        std::fs::write(&draft, text).context("writing the targets")?;
        std::fs::rename(&draft, &self.targets).context("placing the targets")
    }

    /// Loads other rule files in place of the present ones.
    pub async fn set_rule_files(&self, rule_files: &[PathBuf]) -> Result<()> {
        let text =
            std::fs::read_to_string(&self.config).context("reading Prometheus' configuration")?;
        let kept: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("rule_files:"))
            .collect();
        let text = rule_files_line(rule_files)? + &kept.join("\n");
        std::fs::write(&self.config, text + "\n").context("writing the configuration")?;
        let answer = self
            .http
            .post(format!("{}/-/reload", self.url))
            .send()
            .await?;
        if !answer.status().is_success() {
            bail!(
                "Prometheus refuses the configuration: {}",
                answer.text().await?
            );
        }
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T> {
        let url = format!("{}/api/v1/{path}", self.url);
        let answer: Answer<T> = self.http.get(url).query(query).send().await?.json().await?;
        if answer.status != "success" {
            bail!("Prometheus: {}", answer.error);
        }
        answer.data.context("an answer without data")
    }
}

fn number(text: &str) -> Result<f64> {
    text.parse()
        .with_context(|| format!("a bad sample value {text}"))
}

fn rule_files_line(rule_files: &[PathBuf]) -> Result<String> {
    // From here on relative paths would be relative to the configuration.
    let absolute: Vec<PathBuf> = rule_files
        .iter()
        .map(std::path::absolute)
        .collect::<Result<_, _>>()
        .context("resolving the rule files")?;
    Ok(format!("rule_files: {}\n", json!(absolute)))
}

fn config_text(
    exporter: &str,
    alertmanagers: &[Alertmanager],
    rule_files: &[PathBuf],
    targets: &std::path::Path,
) -> Result<String> {
    let host = |url: &str| url.trim_start_matches("http://").to_owned();
    let told: Vec<String> = alertmanagers.iter().map(|one| host(&one.url)).collect();
    Ok(format!(
        "{rules}\
         global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s, external_labels: {{cluster: lab}}}}\n\
         alerting:\n\
         \x20 alertmanagers:\n\
         \x20 - static_configs: [{{targets: {alertmanagers}}}]\n\
         scrape_configs:\n\
         - job_name: node-exporter\n\
         \x20 http_sd_configs: [{{url: \"{exporter}/targets\", refresh_interval: 1s}}]\n\
         - job_name: kube-state-metrics\n\
         \x20 honor_labels: true\n\
         \x20 metrics_path: /metrics/kube-state-metrics\n\
         \x20 static_configs: [{{targets: [\"{exporter_host}\"]}}]\n\
         - job_name: nodemend\n\
         \x20 file_sd_configs: [{{files: [{targets}], refresh_interval: 1s}}]\n",
        rules = rule_files_line(rule_files)?,
        alertmanagers = json!(told),
        exporter_host = host(exporter),
        targets = json!(targets),
    ))
}
