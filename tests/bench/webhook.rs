//! 5,000 alerts to the webhook until they are durable, beside a bare client that writes
//! the same groups to the same API server, as many at once. Needs the lab.
//!
//! A first delivery creates the objects, the next one has news of every alert.

mod data {
    pub mod names;
    pub mod payload;
}

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::http::{Request, header};
use data::names::NOW;
use data::payload::payload;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use nodemend::alertmanager::{Intake, decode};
use nodemend::cluster::{Kubernetes, Lease};
use nodemend::http::{Auth, Bounds, Limits, Method, WEBHOOK_PATH, serve, webhook};
use nodemend::telemetry::Telemetry;
use nodemend_core::api::AlertGroup;
use nodemend_core::evidence::ALERT_TTL;
use nodemend_core::evidence::identity::Labels;
use nodemend_lab::{Lab, Options};
use tokio::net::TcpListener;
use tokio::time::Instant;

const ALERTS: usize = 5_000;
/// `--rounds N` asks for others.
const ROUNDS: usize = 50;
/// Rounds before those that count.
const WARM_UP: usize = 2;
/// What the webhook may take more.
const BAR: Duration = Duration::from_millis(50);
/// How long the first list of the groups may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// As many writes at once as the intake makes.
const WRITES: usize = 4;
const COLLECTION: &str = "/apis/nodemend.dev/v1alpha1/alertgroups";
const TOKEN: &str = "a-bench-token";
/// Says that this process is the one that measures, and how many rounds.
const INSIDE: &str = "--inside-the-lab";

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1)?.parse().ok()
    };
    if let Some(rounds) = after(INSIDE) {
        return measure(rounds).await;
    }
    let rounds: usize = after("--rounds").unwrap_or(ROUNDS);
    let lab = Lab::start(Options::default()).await?;
    let deploy = nodemend_lab::checkout().join("deploy");
    for manifest in ["namespace", "rbac", "admission", "crds"] {
        lab.apply_path(&deploy.join(format!("{manifest}.yaml")))
            .await?;
    }
    let kubeconfig = lab
        .service_account_kubeconfig("nodemend", "nodemend")
        .await?;
    // The adapter looks for its cluster in the environment, which only a parent can set.
    let status = tokio::process::Command::new(std::env::current_exe()?)
        .args([INSIDE, &rounds.to_string()])
        .env_clear()
        .env("KUBECONFIG", kubeconfig)
        .kill_on_drop(true)
        .status()
        .await?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn measure(rounds: usize) -> Result<ExitCode> {
    let kubeconfig = std::env::var("KUBECONFIG").context("the lab gives KUBECONFIG")?;
    let bare = Bare::new(nodemend_lab::client_of(Path::new(&kubeconfig)).await?);
    let service = Service::start().await?;
    let (mut created, mut updated) = (Pairs::default(), Pairs::default());
    for round in 0..WARM_UP + rounds {
        for (pairs, news) in [(&mut created, false), (&mut updated, true)] {
            let writes = bare.prepare(news).await?;
            // Each goes first as often as the other.
            let pair = if round % 2 == 0 {
                let floor = bare.write(writes).await?;
                (floor, service.deliver(news).await?)
            } else {
                let taken = service.deliver(news).await?;
                (bare.write(writes).await?, taken)
            };
            if round >= WARM_UP {
                pairs.0.push(pair);
            }
        }
        bare.clear().await?;
    }
    let bytes = service.body.len();
    println!("\n{ALERTS} alerts, {bytes} bytes posted, {rounds} rounds; ms, median / p99");
    let [what, floor, taken, more] = ["", "bare client", "webhook", "more, by pairs"];
    println!("{what:16}{floor:>16}{taken:>16}{more:>16}");
    let within = [created.tell("first delivery"), updated.tell("with news")];
    Ok(if within.contains(&false) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// What the bare client took, and the webhook right before or after it.
#[derive(Default)]
struct Pairs(Vec<(Duration, Duration)>);

impl Pairs {
    /// Prints them; whether the webhook is within the bar at the median.
    fn tell(&self, what: &str) -> bool {
        let ms = |took: Duration| took.as_secs_f64() * 1000.0;
        let (floor, _) = self.spread(|floor, _| ms(floor));
        let (taken, _) = self.spread(|_, taken| ms(taken));
        let (more, median) = self.spread(|floor, taken| ms(taken) - ms(floor));
        let within = median <= ms(BAR);
        let verdict = if within { "within" } else { "OVER" };
        println!("{what:16}{floor:>16}{taken:>16}{more:>16}  {verdict} floor + {BAR:?}");
        within
    }

    /// The median and the 99th percentile as text, and the median.
    fn spread(&self, of: impl Fn(Duration, Duration) -> f64) -> (String, f64) {
        let mut all: Vec<f64> = self.0.iter().map(|pair| of(pair.0, pair.1)).collect();
        all.sort_by(f64::total_cmp);
        let at = |percent: usize| all[(all.len() * percent / 100).min(all.len() - 1)];
        (format!("{:.0} / {:.0}", at(50), at(99)), at(50))
    }
}

/// When a delivery is received: one with news comes as soon as a re-send is news.
fn received(news: bool) -> Timestamp {
    if news {
        NOW + ALERT_TTL.signed() / 3
    } else {
        NOW
    }
}

/// The webhook as `nodemend run` has it, on a socket.
struct Service {
    http: reqwest::Client,
    url: String,
    body: Vec<u8>,
    news: Arc<AtomicBool>,
    _token: tempfile::NamedTempFile,
}

impl Service {
    async fn start() -> Result<Self> {
        let token = tempfile::NamedTempFile::new()?;
        std::fs::write(token.path(), TOKEN)?;
        let cluster = Kubernetes::connect(Lease::default(), Telemetry::silent()).await?;
        tokio::spawn(cluster.clone().follow_groups());
        let listed = async {
            while !cluster.knows_groups() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listed).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}{WEBHOOK_PATH}", listener.local_addr()?);
        let news = Arc::new(AtomicBool::new(false));
        let clock = {
            let news = Arc::clone(&news);
            move || Some(received(news.load(Ordering::Relaxed)))
        };
        let limits = Limits {
            max_body: 32 << 20,
            max_requests: 64,
        };
        let auth = Auth::AnyOf(vec![Method::TokenFile(token.path().into())]);
        let router = webhook(Intake::new(cluster), auth, limits, clock, |_, _| ());
        tokio::spawn(serve(
            listener,
            router,
            Bounds::default(),
            std::future::pending(),
        ));
        Ok(Self {
            http: reqwest::Client::builder().no_proxy().build()?,
            url,
            body: payload(ALERTS, "service"),
            news,
            _token: token,
        })
    }

    async fn deliver(&self, news: bool) -> Result<Duration> {
        self.news.store(news, Ordering::Relaxed);
        let request = self.http.post(&self.url).bearer_auth(TOKEN);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let request = request.body(self.body.clone()).build()?;
        let began = Instant::now();
        let answer = self.http.execute(request).await?;
        let took = began.elapsed();
        ensure!(
            answer.status() == 200,
            "the webhook answered {}",
            answer.status()
        );
        Ok(took)
    }
}

/// A client that knows beforehand what to write.
struct Bare {
    client: Client,
    groups: Api<AlertGroup>,
    body: Vec<u8>,
}

impl Bare {
    fn new(client: Client) -> Self {
        Self {
            groups: Api::all(client.clone()),
            client,
            body: payload(ALERTS, "barefoot"),
        }
    }

    /// The requests that store what the webhook would store of the same delivery.
    async fn prepare(&self, news: bool) -> Result<Vec<Request<Vec<u8>>>> {
        let delivery = decode(&self.body, "bench", &Labels::new(), received(news))?;
        let stored = delivery.groups.values().map(|group| group.alerts.len());
        ensure!(stored.sum::<usize>() == ALERTS, "alerts are missing");
        let mut versions = BTreeMap::new();
        if news {
            for group in self.groups.list(&ListParams::default()).await? {
                let metadata = group.metadata;
                versions.insert(metadata.name.unwrap_or_default(), metadata.resource_version);
            }
            ensure!(
                versions.len() == 2 * delivery.groups.len(),
                "{} objects",
                versions.len()
            );
        }
        delivery
            .groups
            .into_iter()
            .map(|(name, spec)| {
                let (method, path) = if news {
                    ("PUT", format!("{COLLECTION}/{name}"))
                } else {
                    ("POST", COLLECTION.to_owned())
                };
                let mut group = AlertGroup::new(&name, spec);
                group.metadata.resource_version = versions.remove(&name).flatten();
                let request = Request::builder()
                    .method(method)
                    .uri(format!("{path}?fieldManager=nodemend"))
                    .header(header::CONTENT_TYPE, "application/json");
                Ok(request.body(serde_json::to_vec(&group)?)?)
            })
            .collect()
    }

    async fn write(&self, requests: Vec<Request<Vec<u8>>>) -> Result<Duration> {
        let began = Instant::now();
        let answers = stream::iter(requests).map(|request| self.client.request_text(request));
        let _: Vec<String> = answers.buffer_unordered(WRITES).try_collect().await?;
        Ok(began.elapsed())
    }

    /// Deletes every group, the webhook's too.
    async fn clear(&self) -> Result<()> {
        let groups = self.groups.list_metadata(&ListParams::default()).await?;
        let deleted = stream::iter(groups).map(|group| async move {
            let name = group.metadata.name.unwrap_or_default();
            self.groups.delete(&name, &DeleteParams::default()).await
        });
        let _: Vec<_> = deleted.buffer_unordered(WRITES).try_collect().await?;
        Ok(())
    }
}
