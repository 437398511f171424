//! The clients of whom the leader asks, as the settings say.

use nodemend_core::config::{Connection, Credentials};

use super::Error;
use crate::alertmanager::ask;
use crate::fetch::Signer;
use crate::prometheus::{self, Prober};

const PROMETHEUS: &str = "Prometheus";
const ALERTMANAGER: &str = "Alertmanager";

/// The client of Prometheus, if there is any to ask.
pub(super) async fn prometheus(
    connection: &Connection,
) -> Result<Option<prometheus::Client>, Error> {
    if connection.urls.is_empty() {
        return Ok(None);
    }
    let client = prometheus::Client::new(connection, signer(PROMETHEUS, connection).await?);
    let refused = |error| Error::Client(PROMETHEUS, error);
    client.map(Some).map_err(refused)
}

/// The client of Alertmanager, if there is any to ask.
pub(super) async fn alertmanager(
    connection: &Connection,
    receivers: Vec<String>,
) -> Result<Option<ask::Client>, Error> {
    if connection.urls.is_empty() {
        return Ok(None);
    }
    let client = ask::Client::new(
        connection,
        receivers,
        signer(ALERTMANAGER, connection).await?,
    );
    let refused = |error| Error::Client(ALERTMANAGER, error);
    client.map(Some).map_err(refused)
}

/// Who asks the nodes' own exporters.
pub(super) fn exporters(loopback: bool) -> Result<Prober, Error> {
    Prober::new(loopback).map_err(|error| Error::Client("the nodes' exporters", error))
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
    Ok(Some(std::sync::Arc::new(move |method, url, body| {
        let signer = signer.clone();
        let now = super::clock::now();
        Box::pin(async move { signer.sign(&method, &url, &body, now.into()).await })
    })))
}

/// `load` refuses the setting.
#[cfg(not(feature = "ec2"))]
fn aws(_: &str) -> impl Future<Output = Result<Option<Signer>, String>> {
    std::future::ready(Ok(None))
}
