//! The lab as a test sees it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::audit::{self, AuditEvent};
use crate::cloud::Cloud;
use crate::control_plane::{ControlPlane, client_of, kubeconfig_text};
use crate::inside::Inside;
use crate::jaeger::Jaeger;
use crate::monitoring::{Alertmanager, Exporter, Monitoring, Prometheus};
use crate::nodes::{self, NodeSpec};
use crate::options::Options;
use crate::site::Site;
use crate::wait::wait_for;
use crate::workloads::{self, Workload};
use crate::{apply, http, karpenter};

/// Written before the audit log is read: what came before it is in the log.
const FENCE: &str = "nodemend-lab-audit-fence";

/// A running lab; everything in it ends when it is dropped.
pub struct Lab {
    plane: ControlPlane,
    admin: Client,
    fences: AtomicU64,
    keep: bool,
    monitoring: Option<Monitoring>,
    cloud: Option<Cloud>,
    jaeger: Option<Jaeger>,
    inside: Inside,
    site: Site,
}

impl Lab {
    /// Starts what the options ask for and waits until all of it is ready.
    pub async fn start(options: Options) -> Result<Self> {
        crate::crypto();
        let site = Site::create(options.directory.as_deref())?;
        let inside = Inside::start()?;
        // Known before the API server writes it; nobody reads it before that.
        let kubeconfig = site.root().join("kubeconfig");
        // All at once: they wait for each other only where they must.
        let (plane, monitoring, cloud, jaeger) = tokio::try_join!(
            ControlPlane::start(&site, &options.pace),
            optional(options.monitoring.as_ref(), |wanted| {
                Monitoring::start(&site, &inside, wanted, kubeconfig.clone())
            }),
            optional(options.cloud.as_ref(), |wanted| Cloud::start(
                &site, &inside, wanted
            )),
            optional(options.tracing.then_some(()), |()| Jaeger::start(&site)),
        )?;
        let admin = client_of(&plane.kubeconfig).await?;
        if let (Some(cloud), Some(wanted)) = (&cloud, &options.cloud) {
            cloud.join_nodes(&inside, wanted, kubeconfig);
        }
        if options.karpenter {
            karpenter::start(&site, &admin).await?;
        }
        let keep =
            options.keep || std::env::var_os("NODEMEND_LAB_KEEP").is_some_and(|value| value != "0");
        Ok(Self {
            plane,
            admin,
            fences: AtomicU64::new(0),
            keep,
            monitoring,
            cloud,
            jaeger,
            inside,
            site,
        })
    }

    /// Prometheus, Alertmanager and the exporter; a panic if the options had none.
    pub fn monitoring(&self) -> &Monitoring {
        self.monitoring
            .as_ref()
            .expect("the test asked for no monitoring")
    }

    /// EC2; a panic if the options had none.
    pub fn ec2(&self) -> &Cloud {
        self.cloud.as_ref().expect("the test asked for no cloud")
    }

    /// Jaeger; a panic if the options had none.
    pub fn jaeger(&self) -> &Jaeger {
        self.jaeger.as_ref().expect("the test asked for no tracing")
    }

    /// What the nodes' exporters say.
    pub fn exporter(&self) -> &Exporter {
        &self.monitoring().exporter
    }

    /// Prometheus.
    pub fn prometheus(&self) -> &Prometheus {
        &self.monitoring().prometheus
    }

    /// Alertmanager, of a cluster the first.
    pub fn alertmanager(&self) -> &Alertmanager {
        &self.alertmanagers()[0]
    }

    /// Every member of Alertmanager's cluster.
    pub fn alertmanagers(&self) -> &[Alertmanager] {
        &self.monitoring().alertmanagers
    }

    /// Admin's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.plane.kubeconfig
    }

    /// Where a person finds each part.
    pub fn addresses(&self) -> Vec<(&'static str, String)> {
        let mut found = vec![
            ("KUBECONFIG", self.kubeconfig().display().to_string()),
            ("logs", self.site.logs().display().to_string()),
        ];
        if let Some(monitoring) = &self.monitoring {
            found.push(("Prometheus", monitoring.prometheus.url.clone()));
            let members = monitoring.alertmanagers.iter();
            found.extend(members.map(|member| ("Alertmanager", member.url.clone())));
            found.push(("exporter", monitoring.exporter_url.clone()));
        }
        found.extend(self.cloud.iter().map(|cloud| ("EC2", cloud.url.clone())));
        found.extend(
            self.jaeger
                .iter()
                .map(|jaeger| ("Jaeger", jaeger.url.clone())),
        );
        found
    }

    /// The lab's directory: logs, configurations, the audit log.
    pub fn directory(&self) -> &Path {
        self.site.root()
    }

    /// The API server and where its files are.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// The path of a program of the lab, as `amtool`.
    pub fn program(&self, name: &str) -> Result<&Path> {
        self.site.programs.get(name)
    }

    /// A client with admin's rights, without retries of its own.
    pub fn admin(&self) -> Client {
        self.admin.clone()
    }

    /// A kubeconfig with a fresh token of this service account, good for a day.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.service_account_token(namespace, name, &[]).await?;
        let text = kubeconfig_text(&self.plane.url, &self.plane.ca, &token);
        self.site
            .write(&format!("config/{namespace}.{name}.kubeconfig"), &text)
    }

    /// A fresh token of this service account for these audiences, the API server's own if
    /// there are none, good for a day.
    pub async fn service_account_token(
        &self,
        namespace: &str,
        name: &str,
        audiences: &[&str],
    ) -> Result<String> {
        let api: Api<ServiceAccount> = Api::namespaced(self.admin(), namespace);
        let spec = TokenRequestSpec {
            audiences: Some(
                audiences
                    .iter()
                    .map(|&audience| audience.to_owned())
                    .collect(),
            ),
            expiration_seconds: Some(86_400),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec: Some(spec),
            ..TokenRequest::default()
        };
        let answer = api
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("asking for a token of {namespace}/{name}"))?;
        let token = answer.status.and_then(|status| status.token);
        token.context("an answer without a token")
    }

    /// Applies YAML or JSON documents, server-side, definitions first.
    pub async fn apply(&self, text: &str) -> Result<()> {
        apply::apply(&self.admin, text).await
    }

    /// Applies a file, or every `.yaml`, `.yml` and `.json` directly in a directory.
    pub async fn apply_path(&self, path: &Path) -> Result<()> {
        let mut text = String::new();
        for file in manifests(path)? {
            let part = std::fs::read_to_string(&file)
                .with_context(|| format!("reading {}", file.display()))?;
            text.push_str(&part);
            text.push_str("\n---\n");
        }
        self.apply(&text).await
    }

    /// Makes `count` nodes, `node-0` on, spread over the zones, and waits until they are
    /// ready. With a cloud each has an instance.
    pub async fn add_nodes(&self, count: usize) -> Result<Vec<NodeSpec>> {
        self.add_node_specs(NodeSpec::many(count)).await
    }

    /// Makes these nodes and waits until they are ready. With a cloud each has an
    /// instance, whose id is in the specs that come back.
    pub async fn add_node_specs(&self, mut specs: Vec<NodeSpec>) -> Result<Vec<NodeSpec>> {
        if let Some(cloud) = &self.cloud {
            for spec in &mut specs {
                spec.instance = cloud.run_instance(spec).await?;
            }
        } else {
            nodes::create(&self.admin, &specs).await?;
        }
        nodes::await_ready(&self.admin, &specs).await?;
        Ok(specs)
    }

    /// Turns a node's Ready to True or False and waits until the API shows it.
    pub async fn set_node_ready(&self, name: &str, ready: bool) -> Result<()> {
        nodes::set_ready(&self.admin, name, ready).await
    }

    /// Sets another condition of a node, as `DiskPressure` or one of the test's own.
    pub async fn set_node_condition(
        &self,
        name: &str,
        kind: &str,
        status: &str,
        reason: &str,
    ) -> Result<()> {
        nodes::set_condition(&self.admin, name, kind, status, reason).await
    }

    /// Makes a Deployment, with a disruption budget if asked, and waits for its pods.
    pub async fn add_workload(&self, workload: &Workload) -> Result<()> {
        workloads::add(&self.admin, workload).await
    }

    /// The pods on a node that are not being deleted.
    pub async fn pods_on(&self, node: &str) -> Result<Vec<Pod>> {
        workloads::pods_on(&self.admin, node).await
    }

    /// Every request answered before this call that the audit policy records.
    pub async fn audit(&self) -> Result<Vec<AuditEvent>> {
        let number = self.fences.fetch_add(1, Ordering::Relaxed).to_string();
        let api: Api<Lease> = Api::namespaced(self.admin(), "kube-system");
        let fence = format!("{FENCE}-{number}");
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": fence}});
        let params = PatchParams::apply("nodemend-lab").force();
        api.patch(&fence, &params, &Patch::Apply(&lease))
            .await
            .context("writing the fence")?;
        let is_fence = |event: &AuditEvent| {
            event
                .name
                .as_deref()
                .is_some_and(|name| name.starts_with(FENCE))
        };
        wait_for(
            "the audit log to catch up",
            Duration::from_secs(10),
            || async {
                let events = audit::read(&self.plane.audit_log)?;
                Ok(events
                    .iter()
                    .any(|event| event.name.as_deref() == Some(&fence))
                    .then_some(events))
            },
        )
        .await
        .map(|events| {
            events
                .into_iter()
                .filter(|event| !is_fence(event))
                .collect()
        })
    }

    /// Kills a component (SIGKILL) and waits for its end.
    pub fn stop(&self, component: &str) -> Result<()> {
        self.site.with(component, crate::process::Process::kill)
    }

    /// Sends a signal by name; `STOP` of `kwok` makes all kubelets dead, `CONT` heals.
    pub fn signal(&self, component: &str, signal: &str) -> Result<()> {
        self.site.with(component, |process| process.signal(signal))
    }

    /// The end of a component's log.
    pub fn log_tail(&self, component: &str) -> Result<String> {
        self.site.with(component, |process| Ok(process.tail()))
    }

    /// The components that run, with their process ids.
    pub fn running(&self) -> Vec<(String, u32)> {
        self.site.running()
    }

    /// Starts a stopped component again, on the same port with the same data, and
    /// waits until it is ready.
    pub async fn start_again(&self, component: &str) -> Result<()> {
        self.site
            .with(component, crate::process::Process::start_again)?;
        self.site.ready(component).await
    }

    /// Polls until the closure gives `Some`, at most for `deadline`.
    pub async fn wait_for<T, F, Fut>(
        &self,
        what: &str,
        deadline: Duration,
        condition: F,
    ) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<Option<T>>>,
    {
        wait_for(what, deadline, condition).await
    }

    /// Starts a stopped component again on the same port, without the data it had.
    pub async fn start_empty(&self, component: &str) -> Result<()> {
        let running = self.site.with(component, |process| Ok(process.pid()))?;
        ensure!(running.is_none(), "{component} is running");
        let data = self.site.root().join(component);
        std::fs::remove_dir_all(&data)
            .with_context(|| format!("removing the data in {}", data.display()))?;
        self.start_again(component).await
    }

    /// A client for plain HTTP on loopback.
    pub fn http(&self) -> Result<reqwest::Client> {
        http::client()
    }
}

/// Starts a part if it is wanted.
async fn optional<W, T, F, Fut>(wanted: Option<W>, start: F) -> Result<Option<T>>
where
    F: FnOnce(W) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    match wanted {
        Some(wanted) => start(wanted).await.map(Some),
        None => Ok(None),
    }
}

fn manifests(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("listing {}", path.display()))? {
        let file = entry.context("listing a directory")?.path();
        if file
            .extension()
            .is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json")
        {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.keep {
            eprintln!(
                "lab kept up for a look (end it: Ctrl-C, or kill {}):",
                std::process::id()
            );
            for (what, where_) in self.addresses() {
                eprintln!("  {what:13} {where_}");
            }
            loop {
                thread::park();
            }
        }
        // First those who would complain that the others are gone.
        self.inside.stop();
        self.site.kill_all();
        if thread::panicking() {
            self.site.keep_logs();
        }
    }
}
