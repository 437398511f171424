//! A lab with nodemend's manifests applied, and nodemend running against it as its
//! own `ServiceAccount`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, ListParams};
use nodemend_core::api::{FleetState, NodeHealth, NodeHealthStatus, NodeRepair};
use nodemend_core::model::{Reason, VerdictKind};
use nodemend_lab::{
    CloudOptions, Forwarded, Forwarder, Lab, MonitoringOptions, Options, free_port, webhook_config,
};
use serde_json::Value;

use crate::secured;

/// How long anything on the lab may take.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// nodemend, as the API server knows it.
pub const USER: &str = "system:serviceaccount:nodemend:nodemend";

/// What a test configures.
#[derive(Debug, Default)]
pub struct Setup<'a> {
    /// The one policy, YAML.
    pub policy: &'a str,
    /// Rules that nodemend polls, a rule file.
    pub polled: &'a str,
    /// Rules of Prometheus itself, which tells Alertmanager.
    pub alerting: &'a str,
    /// How many nodes.
    pub nodes: usize,
    /// Whether nodemend starts before its custom resources are defined.
    pub undefined: bool,
    /// Two replicas behind a Service, and two Alertmanagers that deliver to it.
    pub doubled: bool,
    /// Alerts that Alertmanager has before nodemend starts, as its API takes them.
    pub alerts: &'a [Value],
    /// Deliveries by TLS, with the token of a service account, see [`secured`].
    pub secured: bool,
}

/// The lab, nodemend's files, and nodemend while it runs.
pub struct Site {
    /// The real components.
    pub lab: Lab,
    /// Where nodemend, or its first replica, shows its metrics.
    pub metrics: String,
    service: Option<Forwarder>,
    home: tempfile::TempDir,
    kubeconfig: PathBuf,
    replicas: Vec<Replica>,
}

/// One process of nodemend, running or not.
struct Replica {
    name: String,
    webhook: SocketAddr,
    metrics: SocketAddr,
    config: PathBuf,
    running: Option<Child>,
    started: u32,
}

/// A rule file without rules, for tests that need none.
pub const NO_RULES: &str = "groups: []\n";

impl Site {
    /// Starts the lab, applies the manifests, and starts nodemend.
    pub async fn start(setup: &Setup<'_>) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let files = Files::write(home.path(), setup)?;
        let replicas = (0..=usize::from(setup.doubled))
            .map(|index| Replica::new(home.path(), index))
            .collect::<Result<Vec<_>>>()?;
        let (mut to, mut service) = (replicas[0].webhook, None);
        if setup.doubled {
            let behind = replicas.iter().map(|replica| replica.webhook).collect();
            let forwarder = Forwarder::start(behind).await?;
            (to, service) = (forwarder.address, Some(forwarder));
        }
        let scheme = if setup.secured { "https" } else { "http" };
        let url = format!("{scheme}://{to}/webhook/alertmanager");
        let lab = Lab::start(Options {
            monitoring: Some(MonitoringOptions {
                rule_files: vec![files.alerting.clone()],
                alertmanager_config: Some(webhook_config(&url, &files.token, files.ca.as_deref())),
                alertmanager_peers: usize::from(setup.doubled),
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
        for replica in &replicas {
            fs::write(&replica.config, files.config(replica, &lab))?;
        }
        let kubeconfig = lab
            .service_account_kubeconfig("nodemend", "nodemend")
            .await?;
        for member in lab.alertmanagers() {
            member.post_alerts(setup.alerts).await?;
        }
        let mut site = Self {
            lab,
            metrics: replicas[0].metrics.to_string(),
            service,
            home,
            kubeconfig,
            replicas,
        };
        if setup.undefined {
            site.spawn(0)?;
        } else {
            site.define().await?;
            site.run().await?;
        }
        if setup.doubled {
            site.spawn(1)?;
            site.wait_for("the second replica to listen", || async {
                let alive = site.show(1, "livez").await?.0 == 200;
                Ok(alive.then_some(()))
            })
            .await?;
        }
        Ok(site)
    }

    /// Defines the custom resources.
    pub async fn define(&self) -> Result<()> {
        self.lab.apply_path(&manifest_path("crds")).await
    }

    /// Starts nodemend and waits until it leads.
    pub async fn run(&mut self) -> Result<()> {
        self.spawn(0)?;
        self.wait_for("nodemend to lead", || async {
            let text = self.scrape().await?;
            Ok(text.contains("nodemend_leader 1").then_some(()))
        })
        .await
    }

    /// Starts a replica.
    pub fn spawn(&mut self, index: usize) -> Result<()> {
        let replica = &mut self.replicas[index];
        replica.started += 1;
        let log = File::create(replica.log(self.home.path()))?;
        let child = Command::new(env!("CARGO_BIN_EXE_nodemend"))
            .args(["run", "--config"])
            .arg(&replica.config)
            .env_clear()
            .env("KUBECONFIG", &self.kubeconfig)
            .env("AWS_ENDPOINT_URL_EC2", &self.lab.ec2().url)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "lab")
            .env("AWS_SECRET_ACCESS_KEY", "lab")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.lab.jaeger().otlp_url)
            .env("POD_NAME", &replica.name)
            .env("POD_NAMESPACE", "nodemend")
            .env("RUST_LOG", "info,nodemend=debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting nodemend")?;
        replica.running = Some(child);
        Ok(())
    }

    /// SIGKILL, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.kill_replica(0)
    }

    /// The same to a replica.
    pub fn kill_replica(&mut self, index: usize) -> Result<()> {
        self.replicas[index].kill()
    }

    /// Waits until a replica has taken a delivery since it started.
    pub async fn receiving(&self, index: usize) -> Result<()> {
        let what = format!("{} to take deliveries", self.replicas[index].name);
        self.wait_for(&what, || async {
            let text = self.show(index, "metrics").await?.1;
            let taken = "nodemend_webhook_requests_total{code=\"200\"";
            let some = |line: &str| line.starts_with(taken) && !line.ends_with(" 0");
            Ok(text.lines().any(some).then_some(()))
        })
        .await
    }

    /// Whether a replica leads.
    pub async fn leads(&self, index: usize) -> Result<bool> {
        let text = self.show(index, "metrics").await?.1;
        Ok(text.contains("nodemend_leader 1"))
    }

    /// What became of deliveries to two replicas.
    pub fn forwarded(&self) -> Result<Forwarded> {
        let service = self.service.as_ref();
        Ok(service.context("there is one replica")?.forwarded())
    }

    /// A file of this test's own, beside nodemend's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Where deliveries go.
    pub fn webhook(&self) -> SocketAddr {
        self.replicas[0].webhook
    }

    /// What `/readyz` or `/livez` says: the status and the text.
    pub async fn probe(&self, path: &str) -> Result<(u16, String)> {
        self.show(0, path).await
    }

    /// nodemend's metrics.
    pub async fn scrape(&self) -> Result<String> {
        let (status, text) = self.show(0, "metrics").await?;
        ensure!(status == 200, "{status}: {text}");
        Ok(text)
    }

    async fn show(&self, index: usize, path: &str) -> Result<(u16, String)> {
        let url = format!("http://{}/{path}", self.replicas[index].metrics);
        let answer = self.lab.http()?.get(url).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
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

    /// Waits until the node is held for exactly these reasons.
    pub async fn held(&self, node: &str, reasons: &[Reason]) -> Result<NodeHealthStatus> {
        self.wait_for(&format!("{node} to be held by {reasons:?}"), || async {
            let status = self.health(node).await?.and_then(|health| health.status);
            // What would hold it too, did its policy more than observe, is not asked for.
            let is_shadow = |reason: &Reason| {
                reasons.contains(&Reason::ObserveMode)
                    && matches!(
                        reason,
                        Reason::ClusterBreaker | Reason::ZoneBreaker | Reason::InFlight
                    )
            };
            let held = |status: &NodeHealthStatus| {
                let told = status.reasons.iter().filter(|reason| !is_shadow(reason));
                status.verdict == VerdictKind::Held && told.eq(reasons)
            };
            Ok(status.filter(held))
        })
        .await
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

    fn tail(&self) -> String {
        let mut text = String::new();
        for replica in &self.replicas {
            let log = fs::read_to_string(replica.log(self.home.path())).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(60)..].join("\n");
            text.extend(["the log of ", &replica.name, " ends:\n", &last, "\n"]);
        }
        text
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
        for replica in &mut self.replicas {
            let _ = replica.kill();
        }
    }
}

impl Replica {
    fn new(home: &Path, index: usize) -> Result<Self> {
        let name = format!("nodemend-{index}");
        let address = || anyhow::Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?)));
        Ok(Self {
            webhook: address()?,
            metrics: address()?,
            config: home.join(format!("{name}.yaml")),
            name,
            running: None,
            started: 0,
        })
    }

    fn log(&self, home: &Path) -> PathBuf {
        home.join(format!("{}-{}.log", self.name, self.started))
    }

    fn kill(&mut self) -> Result<()> {
        let running = self.running.take();
        let mut child = running.with_context(|| format!("{} does not run", self.name))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }
}

fn manifest_path(name: &str) -> PathBuf {
    nodemend_lab::checkout().join(format!("deploy/{name}.yaml"))
}

struct Files {
    token: PathBuf,
    alerting: PathBuf,
    /// Whom Alertmanager trusts, where deliveries go by TLS.
    ca: Option<PathBuf>,
}

impl Files {
    fn write(home: &Path, setup: &Setup<'_>) -> Result<Self> {
        let token = home.join("token");
        let alerting = home.join("alerting.yaml");
        fs::create_dir(home.join("rules"))?;
        fs::create_dir(home.join("policies"))?;
        fs::write(&token, "an-e2e-token\n")?;
        fs::write(&alerting, setup.alerting)?;
        fs::write(home.join("rules/polled.yaml"), setup.polled)?;
        fs::write(home.join("policies/policy.yaml"), setup.policy)?;
        let ca = if setup.secured {
            let issued = secured::issue()?;
            fs::write(home.join("ca.crt"), &issued.ca)?;
            issued.place(home)?;
            Some(home.join("ca.crt"))
        } else {
            None
        };
        Ok(Self {
            token,
            alerting,
            ca,
        })
    }

    /// nodemend's configuration.
    fn config(&self, replica: &Replica, lab: &Lab) -> String {
        let (tls, auth) = match self.ca.as_deref().and_then(Path::parent) {
            Some(home) => (
                format!(", tls: {}", secured::tls(home)),
                secured::AUTH.to_owned(),
            ),
            None => (
                String::new(),
                format!("{{bearerTokenFile: {}}}", self.token.display()),
            ),
        };
        let asked: Vec<&str> = lab
            .alertmanagers()
            .iter()
            .map(|member| member.url.as_str())
            .collect();
        format!(
            "cluster: lab\n\
             listen: {{webhook: \"{webhook}\", metrics: \"{metrics}\"{tls}}}\n\
             alertmanager: {{urls: {asked:?}, webhookAuth: {auth}}}\n\
             prometheus: {{urls: [\"{prometheus}\"], timeout: 2s}}\n\
             rules: [rules/*.yaml]\npolicies: [policies/*.yaml]\n\
             limits: {{minNodeAge: 0s}}\n",
            webhook = replica.webhook,
            metrics = replica.metrics,
            prometheus = lab.prometheus().url,
        )
    }
}
