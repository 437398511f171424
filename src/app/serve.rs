//! `nodemend run`: the webhook on every replica, and on the leader the loop of
//! inputs and passes.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nodemend_core::api::{
    AlertGroup, AlertGroupSpec, ConditionStatus, LaunchPlan, NodeSelector, RepairPause,
    RepairPolicy, RepairPolicyStatus, StatusCondition,
};
use nodemend_core::config::{self, Connection, Credentials, Policy, Rule, Settings};
use nodemend_core::decide::Pause;
use nodemend_core::evidence::{Answer, Input};
use nodemend_core::model::{InstanceView, NodeView};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::load::{self, Loaded};
use super::reload::{self, Current, Reload};
use crate::alertmanager::{Intake, ask};
#[cfg(feature = "ec2")]
use crate::cloud::Ec2;
#[cfg(not(feature = "ec2"))]
use crate::cloud::NoCloud as Ec2;
use crate::cluster::{
    CALL_DEADLINE, Election, Followed, Kubernetes, Lease, Term, elect, follow, node_view,
};
use crate::controller::{self, Controller, Setup};
use crate::exec::{CallError, Clock, Cloud};
use crate::fetch::{self, Signer};
use crate::http::{self, Auth, Bounds, Limits, Method, Readiness, Refusal, Reviews, Socket, Tls};
use crate::prometheus::{self, Prober};
use crate::telemetry::{About, CallResult, Notice, Pass, Source, System, Telemetry};

/// A pass is made at least this often.
const IDLE: Duration = Duration::from_secs(5);
/// Changes within this time make one pass.
const COALESCE: Duration = Duration::from_millis(100);
/// How long the API must answer in vain before it is asked again.
const RETRY: Duration = Duration::from_secs(2);
/// How often readiness asks the API.
const CHECK: Duration = Duration::from_secs(15);
/// How long spans may take to go out at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// Events written after one pass, at most.
const MAX_NOTICES: usize = 20;
/// What a pass saw at its start is too old to begin something on after this.
const PASS: Duration = Duration::from_secs(10);
/// A watch that gave no sign of life for this long is unknown, not quiet.
const SILENCE: Duration = Duration::from_secs(90);
const PROMETHEUS: &str = "Prometheus";
const ALERTMANAGER: &str = "Alertmanager";

/// Webhook deliveries at once.
const MAX_DELIVERIES: usize = 64;

/// Why the service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// An address that cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    /// The operating system.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
    /// The webhook's certificates.
    #[error("the webhook's certificates cannot be used")]
    Tls(#[source] http::TlsError),
    /// The Kubernetes API.
    #[error(transparent)]
    Kubernetes(#[from] crate::cluster::Error),
    /// A client of Prometheus, Alertmanager or the nodes' exporters.
    #[error("the client of {0} cannot be made")]
    Client(&'static str, #[source] fetch::Error),
    /// The signatures of requests to AWS.
    #[error("requests to {0} cannot be signed: {1}")]
    Signer(&'static str, String),
    /// Traces.
    #[error("the exporter of traces cannot be made")]
    Telemetry(#[source] crate::telemetry::Error),
}

/// Runs until SIGTERM or SIGINT.
pub fn run(config: &Path) -> Result<(), Error> {
    let loaded = load::load(config)?;
    // reqwest and kube each bring TLS; both must use the same provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let telemetry =
        Telemetry::from_environment(env!("CARGO_PKG_VERSION"), &loaded.settings.cluster)
            .map_err(Error::Telemetry)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::System("no async runtime", error))?;
    let served = runtime.block_on(serve(config, loaded, &telemetry));
    // A call that hangs must not hold up the end; each is harmless when cut.
    runtime.shutdown_timeout(Duration::from_secs(1));
    telemetry.flush(FLUSH);
    served
}

async fn serve(config: &Path, loaded: Loaded, telemetry: &Telemetry) -> Result<(), Error> {
    for signal in config::check_signals(&loaded.policies, &loaded.rules) {
        tracing::info!(
            signal,
            "no rule provides this signal: only a webhook can bring it"
        );
    }
    let reload = Reload::new(config, loaded);
    let (current, files) = watch::channel(reload.current());
    let loaded = reload.current().loaded;
    let settings = &loaded.settings;
    let stop = stop_on_signals()?;
    let readiness = Readiness::declare(&["kubernetes", "lease"]);
    let lease = Lease::default();
    let cluster = Kubernetes::connect(lease.clone(), telemetry.clone()).await?;
    let mut tasks = JoinSet::new();
    listen(settings, &cluster, &readiness, telemetry, &stop, &mut tasks).await?;
    let (terms, term) = watch::channel(None);
    let mut background = JoinSet::new();
    background.spawn(watch_api(cluster.clone(), readiness.clone()));
    background.spawn(watch_files(reload, current, &readiness, telemetry)?);
    let election = Election {
        namespace: variable("POD_NAMESPACE").unwrap_or_else(|| "nodemend".into()),
        holder: holder(),
    };
    let (quiet, at_rest) = watch::channel(false);
    let heard = move |state| readiness.set("lease", state);
    let elected = tokio::spawn(elect(cluster.clone(), election, terms, heard, at_rest));
    let cloud = Leased {
        cloud: Ec2::connect().await,
        lease,
        telemetry: telemetry.clone(),
    };
    let prometheus = connect_prometheus(&settings.prometheus).await?;
    let alertmanager = connect_alertmanager(&settings.alertmanager).await?;
    let leader = Leader {
        cluster,
        cloud,
        prometheus,
        alertmanager,
        prober: Prober::new(settings.probe_loopback)
            .map_err(|error| Error::Client("the nodes' exporters", error))?,
        telemetry: telemetry.clone(),
        files,
    };
    leader.run(term, stop).await;
    // The lease goes back only after the last pass has ended.
    quiet.send_replace(true);
    let _ = elected.await;
    while tasks.join_next().await.is_some() {}
    tracing::info!("stopped");
    Ok(())
}

/// The client of Prometheus, if there is any to ask.
async fn connect_prometheus(connection: &Connection) -> Result<Option<prometheus::Client>, Error> {
    if connection.urls.is_empty() {
        return Ok(None);
    }
    let client = prometheus::Client::new(connection, signer(PROMETHEUS, connection).await?);
    let refused = |error| Error::Client(PROMETHEUS, error);
    client.map(Some).map_err(refused)
}

/// The client of Alertmanager, if there is any to ask.
async fn connect_alertmanager(connection: &Connection) -> Result<Option<ask::Client>, Error> {
    if connection.urls.is_empty() {
        return Ok(None);
    }
    let client = ask::Client::new(connection, signer(ALERTMANAGER, connection).await?);
    let refused = |error| Error::Client(ALERTMANAGER, error);
    client.map(Some).map_err(refused)
}

async fn signer(whose: &'static str, connection: &Connection) -> Result<Option<Signer>, Error> {
    let Credentials::SigV4 { region } = &connection.credentials else {
        return Ok(None);
    };
    let signer = aws(region).await;
    signer.map_err(|error| Error::Signer(whose, error))
}

#[cfg(feature = "ec2")]
async fn aws(region: &str) -> Result<Option<Signer>, String> {
    let signer = crate::cloud::Signer::connect(region).await?;
    Ok(Some(Arc::new(move |method, url, body| {
        let signer = signer.clone();
        Box::pin(async move { signer.sign(&method, &url, &body, now().into()).await })
    })))
}

/// `load` refuses the setting.
#[cfg(not(feature = "ec2"))]
fn aws(_: &str) -> impl Future<Output = Result<Option<Signer>, String>> {
    std::future::ready(Ok(None))
}

/// Opens the webhook, and the page of metrics and probes.
async fn listen(
    settings: &Settings,
    cluster: &Kubernetes,
    readiness: &Readiness,
    telemetry: &Telemetry,
    stop: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    let auth = auth(settings, cluster);
    let limits = Limits {
        max_body: settings.max_body,
        max_requests: MAX_DELIVERIES,
    };
    let counted = telemetry.clone();
    let webhook = http::webhook(
        Intake::new(cluster.clone()),
        auth,
        limits,
        now,
        move |done, cause| match done {
            Ok(delivered) => {
                let (stored, skipped) = (delivered.stored as u64, delivered.skipped as u64);
                counted.webhook(200, "Ok", stored, skipped);
                if let Some(cause) = cause.filter(|_| delivered.written) {
                    counted.delivery(&cause, stored, now());
                }
            }
            Err(refusal) => refused(&counted, refusal),
        },
    );
    let shown = telemetry.clone();
    let service = http::service(readiness.clone(), move || shown.encode());
    let told = telemetry.clone();
    let heard = move |usable| told.certificates_changed(usable);
    let tls = load::tls_files(settings)
        .map(|files| Tls::open(files, heard))
        .transpose()
        .map_err(Error::Tls)?;
    for (what, address, router, tls) in [
        ("webhook", settings.listen_webhook, webhook, tls),
        ("metrics", settings.listen_metrics, service, None),
    ] {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| Error::Listen(address, error))?;
        tracing::info!(%address, what, tls = tls.is_some(), "listening");
        let counted = (what == "webhook").then(|| telemetry.clone());
        let cut = move |refusal| {
            if let Some(telemetry) = &counted {
                refused(telemetry, refusal);
            }
        };
        let socket = Socket::new(listener, tls, cut);
        let stopped = stopped(stop.clone());
        tasks.spawn(http::serve(socket, router, Bounds::default(), stopped));
    }
    Ok(())
}

fn refused(telemetry: &Telemetry, refusal: Refusal) {
    telemetry.webhook(refusal.status().as_u16(), refusal.label(), 0, 0);
}

/// The ways to authenticate, the cheapest first: the API is asked only of a token that
/// nothing else knows.
fn auth(settings: &Settings, cluster: &Kubernetes) -> Auth {
    let wanted = settings.webhook_auth.clone();
    if !wanted.guards() {
        tracing::warn!(
            address = %settings.listen_webhook,
            "the webhook asks for no authentication: whoever reaches it can deliver alerts"
        );
        return Auth::Anonymous;
    }
    let certificate = wanted.client_certificate;
    let certificate = certificate.map(|wanted| Method::Certificate(wanted.subject_alt_names));
    let token = wanted.bearer_token_file;
    let token = token.map(|file| Method::TokenFile(file.into()));
    let basic = wanted.basic;
    let basic = basic.map(|basic| Method::Basic(basic.username, basic.password_file.into()));
    let review = wanted.token_review.map(|review| {
        let api = Arc::new(cluster.clone());
        Method::Review(Reviews::new(api, review.audience, &review.service_accounts))
    });
    let methods = [certificate, token, basic, review];
    Auth::AnyOf(methods.into_iter().flatten().collect())
}

/// Says whether the API can be used, for ever.
async fn watch_api(cluster: Kubernetes, readiness: Readiness) {
    let mut last = None;
    loop {
        let state = cluster.check().await;
        if last.as_ref() != Some(&state) {
            match &state {
                Ok(()) => tracing::info!("the Kubernetes API answers"),
                Err(problem) => tracing::warn!(problem, "not ready, trying again"),
            }
        }
        readiness.set("kubernetes", state.clone());
        tokio::time::sleep(if state.is_ok() { CHECK } else { RETRY }).await;
        last = Some(state);
    }
}

/// Reads the files again whenever they change, or at SIGHUP, and says so.
fn watch_files(
    reload: Reload,
    current: watch::Sender<Current>,
    readiness: &Readiness,
    telemetry: &Telemetry,
) -> Result<impl Future<Output = ()> + use<>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let hangup =
        signal(SignalKind::hangup()).map_err(|error| Error::System("no signals", error))?;
    let (readiness, telemetry) = (readiness.clone(), telemetry.clone());
    telemetry.configuration(true, now());
    Ok(reload::follow(reload, hangup, current, move |current| {
        let state = current.mistakes.as_ref().map_or(Ok(()), |mistakes| {
            Err(format!("the last good one is in force\n{mistakes}"))
        });
        telemetry.configuration(state.is_ok(), now());
        readiness.remark("configuration", state);
    }))
}

type Leading<'a> = Controller<Kubernetes, &'a Leased<Ec2>, Prober>;

struct Leader {
    cluster: Kubernetes,
    cloud: Leased<Ec2>,
    prometheus: Option<prometheus::Client>,
    alertmanager: Option<ask::Client>,
    prober: Prober,
    telemetry: Telemetry,
    files: watch::Receiver<Current>,
}

impl Leader {
    async fn run(&self, mut term: watch::Receiver<Option<Term>>, stop: watch::Receiver<bool>) {
        loop {
            let elected = tokio::select! {
                biased;
                () = stopped(stop.clone()) => return,
                elected = term.wait_for(Option::is_some) => elected.map(|term| term.clone()),
            };
            let Ok(Some(elected)) = elected else { return };
            let over = async {
                let mut term = term.clone();
                let _ = term.wait_for(|now| now.as_ref() != Some(&elected)).await;
            };
            tokio::select! {
                biased;
                () = over => {}
                () = self.lead(&elected, &stop) => {}
            }
            self.telemetry.stepped_down();
            if *stop.borrow() {
                return;
            }
        }
    }

    /// One term: sources run, passes follow each other.
    async fn lead(&self, term: &Term, stop: &watch::Receiver<bool>) {
        tokio::time::sleep_until(term.act_from.into()).await;
        let mut files = self.files.clone();
        let current = files.borrow_and_update().clone();
        self.tell(&current).await;
        let loaded = &current.loaded;
        let mut sources = Sources::start(self, Arc::clone(loaded));
        // A pass before the first lists would not know of pauses, policies, alerts or nodes,
        // one before Alertmanager answered or failed would decide without the silences.
        while !*stop.borrow() && (!sources.heard() || !sources.asked()) {
            tokio::select! {
                biased;
                () = stopped(stop.clone()) => {}
                () = sources.wake.notified() => {}
            }
        }
        let setup = Setup {
            cluster_tag: format!("kubernetes.io/cluster/{}", loaded.settings.cluster),
            rules: loaded.rules.clone(),
            policies: loaded.policies.clone(),
            limits: loaded.settings.limits.clone(),
        };
        let mut controller = Controller::new(
            self.cluster.clone(),
            &self.cloud,
            self.prober.clone(),
            setup,
            term.last_renewal,
        );
        while !*stop.borrow() {
            if files.has_changed().unwrap_or(false) {
                let current = files.borrow_and_update().clone();
                self.tell(&current).await;
                self.reload(&mut controller, &mut sources, current.loaded)
                    .await;
            }
            let wait = self.pass(&mut controller, &mut sources, stop).await;
            tokio::select! {
                biased;
                () = stopped(stop.clone()) => {}
                () = sources.wake.notified() => tokio::time::sleep(COALESCE).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes a good set that differs from what is in force.
    async fn reload(
        &self,
        controller: &mut Leading<'_>,
        sources: &mut Sources,
        loaded: Arc<Loaded>,
    ) {
        if Arc::ptr_eq(&loaded, &sources.loaded) {
            return;
        }
        controller.adopt_rules(loaded.rules.clone(), loaded.settings.limits.clone());
        sources.loaded = loaded;
        sources.poll(self);
        controller.adopt(self.accept(sources).await);
    }

    /// Says on the fleet's object that the files are not what is in force.
    async fn tell(&self, current: &Current) {
        let Some(mistakes) = &current.mistakes else {
            return;
        };
        let notice = Notice {
            about: About::Fleet,
            reason: "ConfigurationRefused",
            note: format!("the last good configuration is in force: {mistakes}"),
            warning: true,
        };
        if let Err(error) = self.cluster.publish(&notice, now()).await {
            tracing::warn!(%error, "an Event could not be written");
        }
    }

    /// One pass. Gives back how long to rest if nothing happens.
    async fn pass(
        &self,
        controller: &mut Leading<'_>,
        sources: &mut Sources,
        stop: &watch::Receiver<bool>,
    ) -> Duration {
        let clock = PassClock {
            began: instant(),
            stop,
        };
        if let Some(objects) = sources.policies.news() {
            sources.objects = objects;
            controller.adopt(self.accept(sources).await);
        }
        if let Some(pauses) = sources.pauses.news() {
            sources.paused = pauses.into_values().map(pause).collect();
        }
        let inputs = sources.inputs();
        let pauses = sources.pauses();
        let passed = Box::pin(controller.pass(inputs, &pauses, &clock)).await;
        let report = match passed {
            Ok(report) => report,
            Err(error) => {
                let cause = match &error {
                    controller::Error::Call(cause) => cause.to_string(),
                    controller::Error::Deposed => String::new(),
                };
                tracing::warn!(%error, cause, "a pass ended early, trying again");
                return RETRY;
            }
        };
        let now = report.now;
        if let Some(error) = &report.unwritten {
            tracing::warn!(%error, "a record could not be written, trying again");
        }
        for (repair, error) in &report.stuck {
            tracing::warn!(repair, %error, "a repair cannot go on now");
        }
        self.telemetry
            .source_up(Source::Kubernetes, controller.evidence().nodes_fresh(now));
        let notices = self.telemetry.pass(&Pass {
            now,
            epoch: controller.epoch().unwrap_or(0),
            verdicts: &report.verdicts,
            healths: &report.healths,
            repairs: &report.repairs,
            unresolved: controller.evidence().unresolved(),
            duration_seconds: Some(clock.began.elapsed().as_secs_f64()),
        });
        // In a storm the log has the rest.
        for notice in notices.iter().take(MAX_NOTICES) {
            if let Err(error) = self.cluster.publish(notice, now).await {
                tracing::warn!(%error, "an Event could not be written");
                break;
            }
        }
        let wake = report.wake.map(|at| at.duration_since(now));
        wake.and_then(|wait| Duration::try_from(wait).ok())
            .map_or(IDLE, |wait| wait.clamp(COALESCE, IDLE))
    }

    /// The policies of files and of accepted objects. Each object is answered.
    async fn accept(&self, sources: &Sources) -> Vec<Policy> {
        let files = &sources.loaded.policies;
        let mut policies = files.clone();
        for mut object in sources.objects.values().cloned() {
            let read = accept(&object, files);
            if let Err(("Invalid", _)) = read {
                policies.push(Policy::refused(
                    object.metadata.name.clone().unwrap_or_default(),
                    object.spec.priority,
                    object.spec.node_selector.clone(),
                ));
            }
            if answer(&mut object, read.as_ref().err(), now())
                && let Err(error) = self.cluster.put_policy_status(&object).await
            {
                tracing::warn!(%error, "a policy object could not be answered");
            }
            policies.extend(read);
        }
        policies
    }
}

/// A policy object under the same checks as a file; a file's name is taken.
fn accept(object: &RepairPolicy, files: &[Policy]) -> Result<Policy, (&'static str, String)> {
    let lines = |problems: Vec<config::Problem>| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        ("Invalid", lines.join("; "))
    };
    let policy = config::policy(object).map_err(lines)?;
    if files.iter().any(|file| file.name == policy.name) {
        return Err(("NameTaken", "a policy file has this name".into()));
    }
    match load::without_cloud(&policy) {
        Some(problem) => Err(lines(vec![problem])),
        None => Ok(policy),
    }
}

/// Sets the condition `Accepted`; whether that changed anything.
fn answer(
    object: &mut RepairPolicy,
    refused: Option<&(&'static str, String)>,
    now: Timestamp,
) -> bool {
    let (status, reason, message) = match refused {
        None => (ConditionStatus::True, "Valid", String::new()),
        Some((reason, message)) => (ConditionStatus::False, *reason, message.clone()),
    };
    let conditions = object.status.as_ref().map(|status| &status.conditions);
    let known = conditions
        .into_iter()
        .flatten()
        .find(|known| known.type_ == "Accepted");
    if known.is_some_and(|known| {
        (known.status, known.reason.as_str(), &known.message) == (status, reason, &message)
    }) {
        return false;
    }
    let since = known
        .filter(|known| known.status == status)
        .map_or(now, |known| known.last_transition_time);
    object.status = Some(RepairPolicyStatus {
        conditions: vec![StatusCondition {
            type_: "Accepted".into(),
            status,
            reason: reason.into(),
            message,
            last_transition_time: since,
        }],
    });
    true
}

/// A node as it is followed: heartbeats change nothing of it, and patches read it live.
fn followed_node(node: &k8s_openapi::api::core::v1::Node) -> NodeView {
    NodeView {
        resource_version: String::new(),
        ..node_view(node)
    }
}

fn pause(object: RepairPause) -> Pause {
    Pause {
        selector: object.spec.node_selector,
        policy: object.spec.policy,
        until: object.spec.until,
    }
}

/// What a leader listens to; it ends with the term.
struct Sources {
    wake: Arc<Notify>,
    nodes: Followed<NodeView>,
    groups: Followed<AlertGroupSpec>,
    policies: Followed<RepairPolicy>,
    pauses: Followed<RepairPause>,
    paused: Vec<Pause>,
    /// The policy objects as they were last seen.
    objects: BTreeMap<String, RepairPolicy>,
    loaded: Arc<Loaded>,
    polling: Option<AbortHandle>,
    answers: mpsc::UnboundedReceiver<Input>,
    /// What Alertmanager says, whatever rules are in force.
    heard: Option<mpsc::UnboundedReceiver<Input>>,
    /// Whether Alertmanager, if there is one, answered or failed.
    asked: Arc<AtomicBool>,
    known: BTreeMap<String, AlertGroupSpec>,
    /// They end when this is dropped.
    tasks: JoinSet<()>,
}

impl Sources {
    fn start(leader: &Leader, loaded: Arc<Loaded>) -> Self {
        let wake = Arc::new(Notify::new());
        let mut sources = Self {
            wake: Arc::clone(&wake),
            nodes: Followed::default(),
            groups: Followed::default(),
            policies: Followed::default(),
            pauses: Followed::default(),
            paused: Vec::new(),
            objects: BTreeMap::new(),
            loaded,
            polling: None,
            answers: mpsc::unbounded_channel().1,
            heard: None,
            asked: Arc::new(AtomicBool::new(leader.alertmanager.is_none())),
            known: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        let cluster = || leader.cluster.clone();
        let (nodes, groups) = (sources.nodes.clone(), sources.groups.clone());
        let (policies, pauses) = (sources.policies.clone(), sources.pauses.clone());
        let tasks = &mut sources.tasks;
        tasks.spawn(follow(cluster(), followed_node, nodes, Arc::clone(&wake)));
        tasks.spawn(follow(
            cluster(),
            |group: &AlertGroup| group.spec.clone(),
            groups,
            Arc::clone(&wake),
        ));
        tasks.spawn(follow(
            cluster(),
            RepairPolicy::clone,
            policies,
            Arc::clone(&wake),
        ));
        tasks.spawn(follow(
            cluster(),
            RepairPause::clone,
            pauses,
            Arc::clone(&wake),
        ));
        if let Some(client) = leader.alertmanager.clone() {
            let (telemetry, asked) = (leader.telemetry.clone(), Arc::clone(&sources.asked));
            let (sender, heard_from) = mpsc::unbounded_channel();
            sources.heard = Some(heard_from);
            let wake = Arc::clone(&wake);
            let heard = move |input: Input| {
                let ok = matches!(input, Input::Asked(_));
                telemetry.source_up(Source::Alertmanager, ok);
                // The receiver goes first only when the term is over.
                let _ = sender.send(input);
                asked.store(true, Ordering::Relaxed);
                wake.notify_one();
            };
            tasks.spawn(ask::poll(client, now, heard));
        }
        sources.poll(leader);
        sources
    }

    /// Polls the rules that are in force, and no others; an answer that is still under
    /// way to an earlier question is not heard.
    fn poll(&mut self, leader: &Leader) {
        if let Some(polling) = self.polling.take() {
            polling.abort();
        }
        let (sender, answers) = mpsc::unbounded_channel();
        self.answers = answers;
        let Some(client) = leader.prometheus.clone() else {
            return;
        };
        let (telemetry, wake) = (leader.telemetry.clone(), Arc::clone(&self.wake));
        let heard = move |rule: &Rule, answer: Answer, took: Duration| {
            let ok = matches!(answer, Answer::Series { .. });
            telemetry.rule_evaluated(took.as_secs_f64(), ok);
            telemetry.source_up(Source::Prometheus, ok);
            let name = rule.name.clone();
            // The receiver goes first only when the term is over, or the rules change.
            let _ = sender.send(Input::Rule { name, answer });
            wake.notify_one();
        };
        let rules = self.loaded.rules.clone();
        let polling = self.tasks.spawn(prometheus::poll(client, rules, heard));
        self.polling = Some(polling);
    }

    /// Whether every list was read, and not too long ago.
    fn heard(&self) -> bool {
        self.nodes.heard_within(SILENCE) && self.groups.heard_within(SILENCE) && self.steered()
    }

    /// Whether what people wrote is known.
    fn steered(&self) -> bool {
        self.policies.heard_within(SILENCE) && self.pauses.heard_within(SILENCE)
    }

    /// The pauses. A kill switch that cannot be read is on.
    fn pauses(&self) -> Vec<Pause> {
        let everything = Pause {
            selector: NodeSelector::default(),
            policy: None,
            until: None,
        };
        let unknown = (!self.steered()).then_some(everything);
        self.paused.iter().cloned().chain(unknown).collect()
    }

    /// Whether Alertmanager, if there is one, answered or failed.
    fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// What happened since the last pass.
    fn inputs(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        if let Some(nodes) = self.nodes.news() {
            inputs.push(Input::Nodes(nodes.into_values().collect()));
        }
        if let Some(groups) = self.groups.news() {
            inputs.extend(
                self.known
                    .keys()
                    .filter(|object| !groups.contains_key(*object))
                    .map(|object| Input::AlertsGone {
                        object: object.clone(),
                    }),
            );
            inputs.extend(
                groups
                    .iter()
                    .filter(|(object, group)| self.known.get(*object) != Some(group))
                    .map(|(object, group)| Input::Alerts {
                        object: object.clone(),
                        group: group.clone(),
                    }),
            );
            self.known = groups;
        }
        for source in self.heard.iter_mut().chain([&mut self.answers]) {
            while let Ok(answer) = source.try_recv() {
                inputs.push(answer);
            }
        }
        inputs
    }
}

/// The clock of one pass.
struct PassClock<'a> {
    began: Instant,
    stop: &'a watch::Receiver<bool>,
}

impl Clock for PassClock<'_> {
    fn now(&self) -> Timestamp {
        now()
    }
    fn may_begin(&self) -> bool {
        self.began.elapsed() < PASS && !*self.stop.borrow()
    }
}

/// A cloud whose mutating calls start only within the lease, and end with their deadline.
#[derive(Debug)]
struct Leased<K> {
    cloud: K,
    lease: Lease,
    telemetry: Telemetry,
}

impl<K> Leased<K> {
    async fn mutate<T>(
        &self,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        if !self.lease.outlives(CALL_DEADLINE) {
            return Err(CallError::NoAnswer("not the leader any more".into()));
        }
        let result = tokio::time::timeout(CALL_DEADLINE, call).await;
        self.count(result.unwrap_or_else(|_| {
            let message = format!("no answer within {} s", CALL_DEADLINE.as_secs());
            Err(CallError::NoAnswer(message))
        }))
    }

    fn count<T>(&self, result: Result<T, CallError>) -> Result<T, CallError> {
        self.telemetry.external_call(
            System::EC2,
            match &result {
                Ok(_) => CallResult::Ok,
                Err(CallError::NoAnswer(_)) => CallResult::Timeout,
                Err(_) => CallResult::Refused,
            },
        );
        result
    }
}

impl<K: Cloud> Cloud for &Leased<K> {
    async fn instance(&self, id: &str) -> Result<Option<InstanceView>, CallError> {
        self.count(self.cloud.instance(id).await)
    }
    async fn by_token(&self, token: &str) -> Result<Option<InstanceView>, CallError> {
        self.count(self.cloud.by_token(token).await)
    }
    async fn launch(&self, token: &str, plan: &LaunchPlan) -> Result<String, CallError> {
        self.mutate(self.cloud.launch(token, plan)).await
    }
    async fn terminate(&self, id: &str) -> Result<(), CallError> {
        self.mutate(self.cloud.terminate(id)).await
    }
}

fn stop_on_signals() -> Result<watch::Receiver<bool>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| Error::System("no signals", error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let (sender, stop) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        sender.send_replace(true);
        // The sender lives on: its end would read like a change.
        std::future::pending::<()>().await;
    });
    Ok(stop)
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Names this process: a pod that starts again must not take its old lease for its own.
fn holder() -> String {
    let pod = variable("POD_NAME").unwrap_or_else(|| "nodemend".into());
    let this = [std::process::id().to_string(), now().to_string()];
    let this = nodemend_core::model::digest(&[&pod, &this[0], &this[1]], 8);
    format!("{pod}_{this}")
}

/// The service's one clock: the wall's at the start, and from then on a monotonic one.
/// A wall clock that jumps makes no fault older and no window shorter.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
fn now() -> Timestamp {
    static START: OnceLock<(Timestamp, Instant)> = OnceLock::new();
    let (wall, began) = START.get_or_init(|| (Timestamp::now(), instant()));
    wall.checked_add(began.elapsed()).unwrap_or(*wall)
}

#[expect(clippy::disallowed_methods, reason = "measures how long a pass takes")]
fn instant() -> Instant {
    Instant::now()
}
