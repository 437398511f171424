//! Opens the sockets of every replica: the webhook, and the page of metrics and probes.

use std::sync::Arc;

use nodemend_core::config::Settings;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::clock::{Dial, now};
use super::{Error, stopped};
use crate::alertmanager::Intake;
use crate::app::load;
use crate::cluster::Kubernetes;
use crate::http::{self, Auth, Bounds, Limits, Method, Readiness, Refusal, Reviews, Socket, Tls};
use crate::telemetry::Telemetry;

/// Webhook deliveries at once.
const MAX_DELIVERIES: usize = 64;

/// What the sockets need of the service.
pub(super) struct Service<'a> {
    pub(super) cluster: &'a Kubernetes,
    pub(super) clock: &'a watch::Receiver<Dial>,
    pub(super) readiness: &'a Readiness,
    pub(super) telemetry: &'a Telemetry,
    pub(super) stop: &'a watch::Receiver<bool>,
}

/// Opens the webhook, and the page of metrics and probes.
pub(super) async fn listen(
    settings: &Settings,
    service: &Service<'_>,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    let &Service {
        cluster,
        readiness,
        telemetry,
        stop,
        ..
    } = service;
    let auth = auth(settings, cluster);
    let clock = service.clock.clone();
    // A time of receipt that is ahead would hide all that comes later: no delivery is taken
    // by a clock that is not known to be right.
    let received = move || (*clock.borrow() == Dial::Right).then(now);
    let limits = Limits {
        max_body: settings.max_body,
        max_requests: MAX_DELIVERIES,
    };
    let counted = telemetry.clone();
    let webhook = http::webhook(
        Intake::new(cluster.clone()).within(settings.external_labels.clone()),
        auth,
        limits,
        received,
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
