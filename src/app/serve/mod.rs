//! `nodemend run`: the webhook on every replica, and on the leader the loop of
//! inputs and passes.

mod clock;
mod connect;
mod leased;
mod listen;
mod policies;
mod sources;
mod standby;
mod term;

use std::path::Path;
use std::time::Duration;

use nodemend_core::config;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::clock::wall;
use self::clock::{Dial, now};
use self::leased::Leased;
use self::listen::{Service, listen};
use self::standby::{watch_api, watch_files};
use self::term::Leader;
use super::load::{self, Loaded};
use super::reload::Reload;
#[cfg(feature = "ec2")]
use crate::cloud::Ec2;
#[cfg(not(feature = "ec2"))]
use crate::cloud::NoCloud as Ec2;
use crate::cluster::{Election, Kubernetes, Lease, elect};
use crate::fetch;
use crate::http::{self, Readiness};
use crate::telemetry::Telemetry;

/// How long the API must answer in vain before it is asked again.
const RETRY: Duration = Duration::from_secs(2);
/// How long spans may take to go out at the end.
const FLUSH: Duration = Duration::from_secs(5);

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
    /// Only a new process reads the machine's clock again.
    #[error("the machine's clock was set, or stood still, while this ran: it has to start anew")]
    ClockSet,
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
    let (ending, stop) = stop_on_signals()?;
    let (dial, clock) = watch::channel(Dial::Unknown);
    let readiness = Readiness::declare(&["kubernetes", "clock", "lease"]);
    let lease = Lease::default();
    let cluster = Kubernetes::connect(lease.clone(), telemetry.clone()).await?;
    let mut tasks = JoinSet::new();
    let service = Service {
        cluster: &cluster,
        clock: &clock,
        readiness: &readiness,
        telemetry,
        stop: &stop,
    };
    listen(settings, &service, &mut tasks).await?;
    let (terms, term) = watch::channel(None);
    let mut background = JoinSet::new();
    background.spawn(cluster.clone().follow_groups());
    let watching = watch_api(cluster.clone(), readiness.clone(), dial);
    background.spawn(async move {
        watching.await;
        ending.send_replace(true);
    });
    background.spawn(watch_files(reload, current, &readiness, telemetry)?);
    let election = Election {
        namespace: variable("POD_NAMESPACE").unwrap_or_else(|| "nodemend".into()),
        holder: holder(),
    };
    let (quiet, at_rest) = watch::channel(false);
    let heard = move |state| readiness.set("lease", state);
    let mut known = clock.clone();
    let right = clock.clone();
    let may_lead = move || *right.borrow() == Dial::Right;
    let electing = elect(cluster.clone(), election, terms, may_lead, heard, at_rest);
    let elected = tokio::spawn(async move {
        // Else the first look at the Lease would be in vain, and the next is seconds away.
        tokio::select! {
            biased;
            _ = known.wait_for(|dial| *dial != Dial::Unknown) => {}
            () = tokio::time::sleep(RETRY) => {}
        }
        electing.await;
    });
    let cloud = Leased {
        cloud: Ec2::connect().await,
        lease,
        telemetry: telemetry.clone(),
    };
    let leader = Leader {
        cluster,
        cloud,
        prometheus: connect::prometheus(&settings.prometheus)
            .await?
            .map(|client| client.within(settings.external_labels.clone())),
        alertmanager: connect::alertmanager(&settings.alertmanager, settings.receivers.clone())
            .await?,
        prober: connect::exporters(settings.probe_loopback)?,
        telemetry: telemetry.clone(),
        files,
    };
    leader.run(term, stop).await;
    // The lease goes back only after the last pass has ended.
    quiet.send_replace(true);
    let _ = elected.await;
    while tasks.join_next().await.is_some() {}
    if *clock.borrow() == Dial::Set {
        return Err(Error::ClockSet);
    }
    tracing::info!("stopped");
    Ok(())
}

fn stop_on_signals() -> Result<(watch::Sender<bool>, watch::Receiver<bool>), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| Error::System("no signals", error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let (sender, stop) = watch::channel(false);
    let ending = sender.clone();
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
    Ok((ending, stop))
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
