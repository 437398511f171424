//! What every replica watches, whoever leads: whether the Kubernetes API answers, and
//! whether the files are what is in force.

use std::time::Duration;

use tokio::sync::watch;

use super::clock::{self, Dial, Moments, now};
use super::{Error, RETRY};
use crate::app::reload::{self, Current, Reload};
use crate::cluster::Kubernetes;
use crate::http::Readiness;
use crate::telemetry::Telemetry;

/// How often readiness asks the API.
const CHECK: Duration = Duration::from_secs(15);

/// Says whether the API can be used, and whether our clock is its clock, until the machine's
/// clock was set.
pub(super) async fn watch_api(
    cluster: Kubernetes,
    readiness: Readiness,
    dial: watch::Sender<Dial>,
) {
    let mut last = None;
    while *dial.borrow() != Dial::Set {
        let state = cluster.check().await;
        compare_clocks(&cluster, &readiness, &dial).await;
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

/// While the API does not answer, what was found last holds.
async fn compare_clocks(cluster: &Kubernetes, readiness: &Readiness, dial: &watch::Sender<Dial>) {
    let asked = Moments::read();
    let server = match cluster.time().await {
        Ok(server) => server,
        Err(problem) => {
            if *dial.borrow() == Dial::Unknown {
                readiness.set("clock", Err(format!("not compared yet: {problem}")));
            }
            return;
        }
    };
    let found = clock::compare(asked, server, Moments::read());
    let news = dial.send_if_modified(|known| {
        let news = *known != found;
        *known = found.clone();
        news
    });
    let state = match found {
        Dial::Wrong(problem) => Err(problem),
        _ => Ok(()),
    };
    if let (true, Err(problem)) = (news, &state) {
        tracing::error!(problem, "nothing is taken and nothing done");
    }
    readiness.set("clock", state);
}

/// Reads the files again whenever they change, or at SIGHUP, and says so.
pub(super) fn watch_files(
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
