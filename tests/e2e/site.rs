//! A lab with nodemend's manifests applied, and nodemend running against it as its
//! own `ServiceAccount`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, ListParams};
use nodemend_core::api::{FleetState, NodeHealth, NodeRepair};
use nodemend_lab::{CloudOptions, Lab, MonitoringOptions, Options, free_port, webhook_config};

/// How long anything on the lab may take.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// nodemend, as the API server knows it.
pub const USER: &str = "system:serviceaccount:nodemend:nodemend";

/// What a test configures.
#[derive(Debug, Default)]
pub struct Setup {
    /// The one policy, YAML.
    pub policy: &'static str,
    /// Rules that nodemend polls, a rule file.
    pub polled: &'static str,
    /// Rules of Prometheus itself, which tells Alertmanager.
    pub alerting: &'static str,
    /// How many nodes.
    pub nodes: usize,
    /// Whether nodemend starts before its custom resources are defined.
    pub undefined: bool,
}

/// The lab, nodemend's files, and nodemend while it runs.
pub struct Site {
    /// The real components.
    pub lab: Lab,
    /// Where nodemend shows its metrics.
    pub metrics: String,
    home: tempfile::TempDir,
    kubeconfig: PathBuf,
    running: Option<Child>,
    started: u32,
}

/// A rule file without rules, for tests that need none.
pub const NO_RULES: &str = "groups: []\n";

impl Site {
    /// Starts the lab, applies the manifests, and starts nodemend.
    pub async fn start(setup: &Setup) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let (webhook, metrics) = (free_port()?, free_port()?);
        let files = Files::write(home.path(), setup)?;
        let url = format!("http://127.0.0.1:{webhook}/webhook/alertmanager");
        let lab = Lab::start(Options {
            monitoring: Some(MonitoringOptions {
                rule_files: vec![files.alerting],
                alertmanager_config: Some(webhook_config(&url, Some(&files.token))),
            }),
            cloud: Some(CloudOptions::default()),
            tracing: true,
            ..Options::default()
        })
        .await?;
        for manifest in ["namespace", "rbac", "admission"] {
            lab.apply_path(&manifest_path(manifest)).await?;
        }
        lab.add_nodes(setup.nodes).await?;
        let config = format!(
            "cluster: lab\n\
             listen: {{webhook: \"127.0.0.1:{webhook}\", metrics: \"127.0.0.1:{metrics}\"}}\n\
             alertmanager: {{urls: [\"{}\"], webhookAuth: {{bearerTokenFile: {}}}}}\n\
             prometheus: {{urls: [\"{}\"], timeout: 2s}}\n\
             rules: [rules/*.yaml]\npolicies: [policies/*.yaml]\n",
            lab.alertmanager().url,
            files.token.display(),
            lab.prometheus().url,
        );
        fs::write(home.path().join("nodemend.yaml"), config)?;
        let kubeconfig = lab
            .service_account_kubeconfig("nodemend", "nodemend")
            .await?;
        let mut site = Self {
            lab,
            metrics: format!("127.0.0.1:{metrics}"),
            home,
            kubeconfig,
            running: None,
            started: 0,
        };
        if setup.undefined {
            site.spawn()?;
        } else {
            site.define().await?;
            site.run().await?;
        }
        Ok(site)
    }

    /// Defines the custom resources.
    pub async fn define(&self) -> Result<()> {
        self.lab.apply_path(&manifest_path("crds")).await
    }

    /// Starts nodemend and waits until it leads.
    pub async fn run(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_for("nodemend to lead", || async {
            let text = self.scrape().await?;
            Ok(text.contains("nodemend_leader 1").then_some(()))
        })
        .await
    }

    fn spawn(&mut self) -> Result<()> {
        self.started += 1;
        let log = File::create(self.log())?;
        let child = Command::new(env!("CARGO_BIN_EXE_nodemend"))
            .args(["run", "--config"])
            .arg(self.home.path().join("nodemend.yaml"))
            .env_clear()
            .env("KUBECONFIG", &self.kubeconfig)
            .env("AWS_ENDPOINT_URL_EC2", &self.lab.ec2().url)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "lab")
            .env("AWS_SECRET_ACCESS_KEY", "lab")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.lab.jaeger().otlp_url)
            .env("POD_NAME", "nodemend-0")
            .env("POD_NAMESPACE", "nodemend")
            .env("RUST_LOG", "info,nodemend=debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting nodemend")?;
        self.running = Some(child);
        Ok(())
    }

    /// SIGKILL, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.running.take().context("nodemend does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// What `/readyz` or `/livez` says: the status and the text.
    pub async fn probe(&self, path: &str) -> Result<(u16, String)> {
        let url = format!("http://{}/{path}", self.metrics);
        let answer = self.lab.http()?.get(url).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// nodemend's metrics.
    pub async fn scrape(&self) -> Result<String> {
        let url = format!("http://{}/metrics", self.metrics);
        let answer = self.lab.http()?.get(url).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// Waits until the closure gives `Some`; nodemend's log is in the error.
    pub async fn wait_for<T, F, Fut>(&self, what: &str, condition: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<Option<T>>>,
    {
        let found = self.lab.wait_for(what, DEADLINE, condition).await;
        found.map_err(|error| error.context(self.tail()))
    }

    /// Every repair.
    pub async fn repairs(&self) -> Result<Vec<NodeRepair>> {
        let api: Api<NodeRepair> = Api::all(self.lab.admin());
        Ok(api.list(&ListParams::default()).await?.items)
    }

    /// The record of a node.
    pub async fn health(&self, node: &str) -> Result<Option<NodeHealth>> {
        let api: Api<NodeHealth> = Api::all(self.lab.admin());
        let healths = api.list(&ListParams::default()).await?.items;
        Ok(healths
            .into_iter()
            .find(|health| health.spec.node_name == node))
    }

    /// The leader's object.
    pub async fn fleet(&self) -> Result<FleetState> {
        let api: Api<FleetState> = Api::all(self.lab.admin());
        Ok(api.get("fleet").await?)
    }

    /// Waits until the only repair satisfies this.
    pub async fn repair_that(
        &self,
        what: &str,
        is: impl Fn(&NodeRepair) -> bool,
    ) -> Result<NodeRepair> {
        let is = &is;
        self.wait_for(what, || async move {
            let repairs = self.repairs().await?;
            ensure!(repairs.len() <= 1, "{} repairs", repairs.len());
            let found = repairs.into_iter().next();
            match found {
                Some(repair) if is(&repair) => Ok(Some(repair)),
                Some(repair) => anyhow::bail!("it is {:#?}", repair.status),
                None => Ok(None),
            }
        })
        .await
    }

    /// Instances that are not terminated, by id, with their state.
    pub async fn instances(&self) -> Result<BTreeMap<String, String>> {
        let instances = self.lab.ec2().instances().await?;
        Ok(instances
            .into_iter()
            .filter(|instance| instance.state != "terminated")
            .map(|instance| (instance.id, instance.state))
            .collect())
    }

    fn log(&self) -> PathBuf {
        self.home
            .path()
            .join(format!("nodemend-{}.log", self.started))
    }

    fn tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(60)..].join("\n");
        format!("nodemend's log ends:\n{last}")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
        let _ = self.kill();
    }
}

fn manifest_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("deploy/{name}.yaml"))
}

struct Files {
    token: PathBuf,
    alerting: PathBuf,
}

impl Files {
    fn write(home: &Path, setup: &Setup) -> Result<Self> {
        let token = home.join("token");
        let alerting = home.join("alerting.yaml");
        fs::create_dir(home.join("rules"))?;
        fs::create_dir(home.join("policies"))?;
        fs::write(&token, "an-e2e-token\n")?;
        fs::write(&alerting, setup.alerting)?;
        fs::write(home.join("rules/polled.yaml"), setup.polled)?;
        fs::write(home.join("policies/policy.yaml"), setup.policy)?;
        Ok(Self { token, alerting })
    }
}
