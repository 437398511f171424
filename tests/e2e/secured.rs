//! Deliveries by TLS, with the token of Alertmanager's own service account, of which the
//! real API server says whose it is.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use nodemend_core::api::AlertGroup;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use super::site::{NO_RULES, Setup, Site};
use super::{NOT_READY_REPLACES, counter, lab};

/// One that may deliver, and another.
const ACCOUNTS: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: alertmanager, namespace: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: other, namespace: monitoring}
";

/// nodemend's `webhookAuth`.
pub const AUTH: &str = "{tokenReview: {serviceAccounts: [monitoring/alertmanager]}}";

const REFUSED: &str = "nodemend_webhook_requests_total{code=\"401\",reason=\"Unauthorized\"}";

/// A certificate for loopback and its key, of an authority of its own; all in PEM.
pub struct Issued {
    /// The authority.
    pub ca: String,
    cert: String,
    key: String,
}

/// Issues one.
pub fn issue() -> Result<Issued> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let ours = CertificateParams::new(["127.0.0.1".to_owned()])?;
    Ok(Issued {
        ca: authority.pem(),
        cert: ours.signed_by(&key, &authority)?.pem(),
        key: key.serialize_pem(),
    })
}

impl Issued {
    /// Puts it where nodemend reads it.
    pub fn place(&self, home: &Path) -> Result<()> {
        fs::write(home.join("tls.crt"), &self.cert)?;
        fs::write(home.join("tls.key"), &self.key)?;
        Ok(())
    }
}

/// nodemend's `listen.tls` for what was placed there.
pub fn tls(home: &Path) -> String {
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| home.join(name).display().to_string());
    format!("{{certFile: {cert}, keyFile: {key}}}")
}

#[test]
fn h66_the_real_api_reviews_tokens_of_deliveries() {
    lab(async {
        let site = Site::start(&Setup {
            policy: NOT_READY_REPLACES,
            polled: NO_RULES,
            alerting: NO_RULES,
            nodes: 1,
            secured: true,
            ..Setup::default()
        })
        .await?;
        site.lab.apply(ACCOUNTS).await?;
        let token = |account, audiences| {
            let lab = &site.lab;
            async move {
                lab.service_account_token("monitoring", account, audiences)
                    .await
            }
        };
        let good = token("alertmanager", &["nodemend"]).await?;
        fs::write(site.path("token"), &good)?;
        fire(&site, "First").await?;
        let sender = delivered(&site, "First").await?;
        ensure!(
            sender == "system:serviceaccount:monitoring:alertmanager",
            "stored as {sender}"
        );

        let wrong = token("alertmanager", &["elsewhere"]).await?;
        for (what, token) in [
            ("another audience", &wrong),
            ("the API's audience", &token("alertmanager", &[]).await?),
            ("another account", &token("other", &["nodemend"]).await?),
            ("a bent signature", &format!("{good}x")),
        ] {
            let before = counter(&site, REFUSED).await?;
            let (status, said) = post(&site, token, &empty()).await?;
            ensure!(status == 401, "{what}: {status}, {said}");
            let refused = counter(&site, REFUSED).await? - before;
            ensure!(
                (refused - 1.0).abs() < 0.5,
                "{what}: counted {refused} times"
            );
        }
        // Alertmanager with such a token gets no further, and with a good one it does.
        let before = counter(&site, REFUSED).await?;
        fs::write(site.path("token"), &wrong)?;
        fire(&site, "Second").await?;
        site.wait_for("Alertmanager to be refused", || async {
            Ok((counter(&site, REFUSED).await? > before).then_some(()))
        })
        .await?;
        ensure!(sender_of(&site, "Second").await?.is_none(), "it is stored");
        fs::write(site.path("token"), &good)?;
        delivered(&site, "Second").await?;

        h67_certificates_change_under_deliveries(&site).await?;
        h4_alerts_that_are_left_out_are_told(&site, &good).await?;
        what_is_wrong_with_changed_files_is_told(&site).await?;

        // A word of the API counts for a minute; of this token it has not given any.
        let unknown = token("alertmanager", &["nodemend"]).await?;
        site.lab.stop("kube-apiserver")?;
        let (status, said) = post(&site, &unknown, &empty()).await?;
        ensure!(status == 503 && said.contains("Review"), "{status}, {said}");
        site.lab.start_again("kube-apiserver").await
    });
}

/// Alertmanager trusts only the authority of the certificate that is there now.
async fn h67_certificates_change_under_deliveries(site: &Site) -> Result<()> {
    let changed =
        |result: &str| format!("nodemend_webhook_certificates_total{{result=\"{result}\"}}");
    let ca = site.path("ca.crt");
    let fresh = issue()?;
    let both = fs::read_to_string(&ca)? + &fresh.ca;
    fs::write(&ca, both)?;
    fresh.place(site.path("").as_path())?;
    fs::write(&ca, &fresh.ca)?;
    fire(site, "Third").await?;
    delivered(site, "Third").await?;
    ensure!(counter(site, &changed("Ok")).await? >= 1.0, "not counted");

    // What cannot be used changes nothing.
    let before = counter(site, &changed("Error")).await?;
    fs::write(site.path("tls.key"), "no key\n")?;
    fire(site, "Fourth").await?;
    delivered(site, "Fourth").await?;
    let after = counter(site, &changed("Error")).await?;
    ensure!(after > before, "a key that is none was not noticed");
    fresh.place(site.path("").as_path())
}

async fn h4_alerts_that_are_left_out_are_told(site: &Site, token: &str) -> Result<()> {
    let alert = json!({
        "status": "firing",
        "labels": {"alertname": "Many", "node": "node-0"},
        "startsAt": "2026-11-24T10:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
    });
    let mut body = empty();
    body["truncatedAlerts"] = json!(7);
    body["alerts"] = json!([alert]);
    let (status, said) = post(site, token, &body).await?;
    ensure!(status == 200, "{status}, {said}");
    told(site, "AlertsLeftOut", "sends to `nodemend`").await
}

/// The last good configuration stays in force, and the replica in service.
async fn what_is_wrong_with_changed_files_is_told(site: &Site) -> Result<()> {
    let policy = site.path("policies/policy.yaml");
    fs::write(
        &policy,
        NOT_READY_REPLACES.replace("mode: Enforce", "mode: Enforced"),
    )?;
    told(site, "ConfigurationRefused", "policy.yaml").await?;
    let remark = "configuration: the last good one is in force";
    let (status, said) = site.probe("readyz").await?;
    ensure!(status == 200 && said.contains(remark), "{status}, {said}");
    fs::write(&policy, NOT_READY_REPLACES)?;
    site.wait_for("the remark to go", || async {
        let (status, said) = site.probe("readyz").await?;
        Ok((status == 200 && !said.contains(remark)).then_some(()))
    })
    .await
}

/// Waits for an Event of this reason that says so.
async fn told(site: &Site, reason: &str, what: &str) -> Result<()> {
    let events = Api::<Event>::namespaced(site.lab.admin(), "default");
    site.wait_for(&format!("the Event {reason}"), || async {
        let events = events.list(&ListParams::default()).await?.items;
        let mut wanted = events
            .iter()
            .filter(|event| event.reason.as_deref() == Some(reason));
        let says = |event: &Event| event.note.as_ref().is_some_and(|note| note.contains(what));
        Ok(wanted.any(says).then_some(()))
    })
    .await
}

async fn fire(site: &Site, name: &str) -> Result<()> {
    let alert = json!({"labels": {"alertname": name, "node": "node-0"}});
    site.lab.alertmanager().post_alerts(&[alert]).await
}

/// Waits until the alert is stored; gives who sent it.
async fn delivered(site: &Site, name: &str) -> Result<String> {
    site.wait_for(&format!("{name} to be stored"), || sender_of(site, name))
        .await
}

async fn sender_of(site: &Site, name: &str) -> Result<Option<String>> {
    let groups = Api::<AlertGroup>::all(site.lab.admin());
    let groups = groups.list(&ListParams::default()).await?.items;
    let holds = |group: &AlertGroup| group.spec.alerts.values().any(|alert| alert.name == name);
    Ok(groups
        .into_iter()
        .find(holds)
        .map(|group| group.spec.sender))
}

/// A delivery about nothing.
fn empty() -> Value {
    json!({"version": "4", "groupKey": "forged", "receiver": "nodemend", "alerts": []})
}

/// Posts as Alertmanager does, with this token; the status and the text.
async fn post(site: &Site, token: &str, body: &Value) -> Result<(u16, String)> {
    let ca = reqwest::Certificate::from_pem(&fs::read(site.path("ca.crt"))?)?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([ca])
        .build()?;
    let url = format!("https://{}/webhook/alertmanager", site.webhook());
    let sent = client.post(url).bearer_auth(token).json(body).send().await;
    let answer = sent.context("posting")?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
