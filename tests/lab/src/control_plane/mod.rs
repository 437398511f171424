//! etcd, kube-apiserver, controller manager, scheduler and fake kubelets.

mod base64;
mod kubeconfig;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

use crate::karpenter;
use crate::ports::free_port;
use crate::process::Recipe;
use crate::site::{Site, on_free_ports};

use base64::base64;
pub use kubeconfig::{client_of, kubeconfig_text};

/// Who the lab's own parts are to the API server, each with its own name in the audit log.
const USERS: [(&str, &str); 5] = [
    ("nodemend-lab", "admin"),
    ("kwok", "kwok"),
    ("system:kube-controller-manager", "controller-manager"),
    ("system:kube-scheduler", "scheduler"),
    (karpenter::USER, karpenter::USER),
];

/// What a test may want slower or faster.
#[derive(Debug, Clone)]
pub struct Pace {
    /// How often a fake kubelet reports.
    pub heartbeat: Duration,
    /// After how long without a report a node's Ready turns Unknown.
    pub node_monitor_grace_period: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            node_monitor_grace_period: Duration::from_secs(40),
        }
    }
}

/// Where the running control plane is.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// The CA of its serving certificate, PEM.
    pub ca: String,
    /// Admin's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The audit log, one JSON object per line.
    pub audit_log: PathBuf,
}

impl ControlPlane {
    /// Starts all five and waits until each is ready.
    pub async fn start(site: &Site, pace: &Pace) -> Result<Self> {
        let etcd = on_free_ports(|| start_etcd(site)).await?;
        write_keys_and_tokens(site)?;
        let plane = on_free_ports(|| start_api_server(site, &etcd)).await?;
        // These three need only the API server.
        tokio::try_join!(
            on_free_ports(|| start_controller_manager(site, &plane, pace)),
            on_free_ports(|| start_scheduler(site)),
            on_free_ports(|| start_kwok(site, pace)),
        )?;
        Ok(plane)
    }
}

async fn start_etcd(site: &Site) -> Result<String> {
    let (client, peer) = (free_port()?, free_port()?);
    let url = format!("http://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{peer}");
    let recipe = Recipe::new(
        "etcd",
        site.programs.get("etcd")?,
        format!("{url}/health"),
        [
            "--name=lab".to_owned(),
            format!("--data-dir={}", site.path("etcd")),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=lab={peer}"),
            // Nothing here must survive a crash of the machine.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ],
    );
    site.start(recipe).await?;
    Ok(url)
}

/// The key that signs service account tokens, and a token per user of the lab.
fn write_keys_and_tokens(site: &Site) -> Result<()> {
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let key = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())
        .map_err(|_| anyhow!("no key"))?;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref())
        .map_err(|error| anyhow!("a bad key: {error}"))?;
    let public: PublicKeyX509Der<'_> = pair
        .public_key()
        .as_der()
        .map_err(|_| anyhow!("no public key"))?;
    site.write("pki/sa.key", &pem("PRIVATE KEY", key.as_ref()))?;
    // Its own file: the API server finds no public key in a PKCS#8 private one.
    site.write("pki/sa.pub", &pem("PUBLIC KEY", public.as_ref()))?;
    let tokens = USERS
        .map(|(user, file)| format!("lab-{file},{user},{user},\"system:masters\"\n"))
        .concat();
    site.write("config/tokens.csv", &tokens)?;
    site.write(
        "config/audit-policy.yaml",
        include_str!("audit_policy.yaml"),
    )?;
    Ok(())
}

fn pem(kind: &str, bytes: &[u8]) -> String {
    format!(
        "-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n",
        base64(bytes)
    )
}

async fn start_api_server(site: &Site, etcd: &str) -> Result<ControlPlane> {
    let port = free_port()?;
    let url = format!("https://127.0.0.1:{port}");
    let audit_log = site.root().join("audit.jsonl");
    let recipe = Recipe::new(
        "kube-apiserver",
        site.programs.get("kube-apiserver")?,
        format!("{url}/readyz"),
        [
            format!("--etcd-servers={etcd}"),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            // The loopback address is no valid endpoint of the kubernetes service; nobody needs it.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--cert-dir={}", site.path("pki/api")),
            format!("--token-auth-file={}", site.path("config/tokens.csv")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--service-account-issuer=https://nodemend-lab".to_owned(),
            format!("--service-account-key-file={}", site.path("pki/sa.pub")),
            format!(
                "--service-account-signing-key-file={}",
                site.path("pki/sa.key")
            ),
            // It would refuse pods until the service account's secrets are there.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            format!(
                "--audit-policy-file={}",
                site.path("config/audit-policy.yaml")
            ),
            format!("--audit-log-path={}", audit_log.display()),
            // Every event is in the file before the next request is served.
            "--audit-log-mode=blocking".to_owned(),
            // Never rotated: readers follow one file.
            "--audit-log-maxsize=100000".to_owned(),
        ],
    );
    site.start(recipe).await?;
    let ca = ca_of(Path::new(&site.path("pki/api/apiserver.crt")))?;
    for (_, file) in USERS {
        write_kubeconfig(
            site,
            file,
            &kubeconfig_text(&url, &ca, &format!("lab-{file}")),
        )?;
    }
    Ok(ControlPlane {
        url,
        ca,
        kubeconfig: site.root().join("kubeconfig"),
        audit_log,
    })
}

fn write_kubeconfig(site: &Site, file: &str, text: &str) -> Result<()> {
    if file == "admin" {
        site.write("kubeconfig", text)?;
    }
    site.write(&format!("config/{file}.kubeconfig"), text)?;
    Ok(())
}

/// The API server signs its own certificate and puts the CA after it.
fn ca_of(certificate: &Path) -> Result<String> {
    let text = fs::read_to_string(certificate).context("reading the API server's certificate")?;
    let start = text
        .rfind("-----BEGIN CERTIFICATE-----")
        .context("no certificate in the file")?;
    Ok(text[start..].to_owned())
}

async fn start_controller_manager(site: &Site, plane: &ControlPlane, pace: &Pace) -> Result<()> {
    let port = free_port()?;
    let ca = site.write("pki/ca.crt", &plane.ca)?;
    let recipe = Recipe::new(
        "kube-controller-manager",
        site.programs.get("kube-controller-manager")?,
        format!("https://127.0.0.1:{port}/healthz"),
        [
            format!(
                "--kubeconfig={}",
                site.path("config/controller-manager.kubeconfig")
            ),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", site.path("pki/controller-manager")),
            format!("--root-ca-file={}", ca.display()),
            format!(
                "--service-account-private-key-file={}",
                site.path("pki/sa.key")
            ),
            "--leader-elect=false".to_owned(),
            format!(
                "--node-monitor-grace-period={}ms",
                pace.node_monitor_grace_period.as_millis()
            ),
            "--node-monitor-period=1s".to_owned(),
            // With the default of 20 a thousand nodes keep their not-ready taint for minutes.
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
        ],
    );
    site.start(recipe).await
}

async fn start_scheduler(site: &Site) -> Result<()> {
    let port = free_port()?;
    let config = site.write(
        "config/scheduler.yaml",
        &format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
             leaderElection: {{leaderElect: false}}\n\
             clientConnection: {{kubeconfig: {}, qps: 500, burst: 1000}}\n",
            site.path("config/scheduler.kubeconfig")
        ),
    )?;
    let recipe = Recipe::new(
        "kube-scheduler",
        site.programs.get("kube-scheduler")?,
        format!("https://127.0.0.1:{port}/healthz"),
        [
            format!("--config={}", config.display()),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", site.path("pki/scheduler")),
        ],
    );
    site.start(recipe).await
}

async fn start_kwok(site: &Site, pace: &Pace) -> Result<()> {
    let port = free_port()?;
    let every = pace.heartbeat.as_millis();
    let stages = include_str!("stages.yaml")
        .replace("JITTER_MS", &(every * 6 / 5).to_string())
        .replace("HEARTBEAT_MS", &every.to_string());
    let stages = site.write("config/stages.yaml", &stages)?;
    let recipe = Recipe::new(
        "kwok",
        site.programs.get("kwok")?,
        format!("http://127.0.0.1:{port}/healthz"),
        [
            format!("--kubeconfig={}", site.path("config/kwok.kubeconfig")),
            format!("--config={}", stages.display()),
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake".to_owned(),
            "--enable-crds=".to_owned(),
            // Leases would keep a node alive that its stage made not ready.
            "--node-lease-duration-seconds=0".to_owned(),
            format!("--server-address=127.0.0.1:{port}"),
        ],
    );
    site.start(recipe).await
}
