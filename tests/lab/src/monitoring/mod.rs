//! Prometheus, Alertmanager, and what they see of the fake nodes.

mod alertmanager;
mod exporter;
mod prometheus;
mod scraped;
mod state_metrics;

use std::path::PathBuf;

use anyhow::Result;

use crate::inside::Inside;
use crate::site::{Site, on_free_ports};

pub use alertmanager::{Alertmanager, AlertmanagerAlert, webhook_config};
pub use exporter::{Exporter, Metric};
pub use prometheus::{Prometheus, PrometheusAlert, Sample};

/// How to start the monitoring.
#[derive(Debug, Clone, Default)]
pub struct MonitoringOptions {
    /// Rule files for Prometheus; globs are allowed.
    pub rule_files: Vec<PathBuf>,
    /// Alertmanager's configuration; one that tells nobody by default.
    pub alertmanager_config: Option<String>,
    /// How many Alertmanagers there are in one cluster, beside the first.
    pub alertmanager_peers: usize,
}

/// The running monitoring.
#[derive(Debug)]
pub struct Monitoring {
    /// What the nodes' exporters say.
    pub exporter: Exporter,
    /// Where the exporter listens.
    pub exporter_url: String,
    /// Prometheus.
    pub prometheus: Prometheus,
    /// Alertmanager: the members of its cluster, or the only one.
    pub alertmanagers: Vec<Alertmanager>,
}

impl Monitoring {
    /// Starts all of it.
    pub async fn start(
        site: &Site,
        inside: &Inside,
        options: &MonitoringOptions,
        kubeconfig: PathBuf,
    ) -> Result<Self> {
        let exporter = Exporter::default();
        let exporter_url = inside.serve(scraped::router(exporter.clone(), kubeconfig))?;
        let config = options.alertmanager_config.as_deref();
        let members = 1 + options.alertmanager_peers;
        let alertmanagers = on_free_ports(|| Alertmanager::start(site, config, members)).await?;
        let prometheus = on_free_ports(|| {
            Prometheus::start(site, &exporter_url, &alertmanagers, &options.rule_files)
        })
        .await?;
        Ok(Self {
            exporter,
            exporter_url,
            prometheus,
            alertmanagers,
        })
    }
}
