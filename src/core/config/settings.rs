//! `nodemend.yaml` to `Settings`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::findings::Findings;
use super::shape::{Shape, schema_of};
use super::yaml::{self, Parsed, Places};
use super::{Breaker, CLUSTER_JOBS, Document, Limits, Problem, Settings, connection, sorted};
use crate::model::Span;

const DEFAULT_MAX_BODY: usize = 32 << 20;

static SHAPE: LazyLock<Shape> = LazyLock::new(Shape::of::<Raw>);

/// The service's own configuration; only `cluster` has no default.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "nodemend.yaml")]
struct Raw {
    /// The cluster's name; its instances carry it in a tag.
    cluster: String,
    /// Addresses and TLS.
    #[serde(default)]
    listen: Listen,
    /// What the webhook takes.
    #[serde(default)]
    webhook: Webhook,
    /// Who may deliver, and who is asked for alerts and silences.
    #[serde(default)]
    alertmanager: Alertmanager,
    /// Who is asked for the rules.
    #[serde(default)]
    prometheus: connection::Raw,
    /// How the nodes' own exporters are asked.
    #[serde(default)]
    probes: Probes,
    /// Patterns of rule files, relative to this file.
    #[serde(default)]
    rules: Vec<String>,
    /// Patterns of policy files, relative to this file.
    #[serde(default)]
    policies: Vec<String>,
    /// Jobs that speak for the whole cluster: their `instance` is their own address.
    #[serde(default)]
    cluster_jobs: Option<Vec<String>>,
    /// The labels that name a node's pool; the first that it has counts.
    #[serde(default)]
    pool_labels: Option<Vec<String>>,
    /// The limits that bind all policies together.
    #[serde(default)]
    limits: RawLimits,
}

/// The JSON Schema of nodemend.yaml, for editors.
pub fn settings_schema() -> Value {
    schema_of::<Raw>()
}

/// A pattern of files, and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The pattern, relative to nodemend.yaml.
    pub text: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
}

/// The files that nodemend.yaml names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Rule files.
    pub rules: Vec<Pattern>,
    /// Policy files.
    pub policies: Vec<Pattern>,
}

/// The files that nodemend.yaml names, whatever else is wrong in it.
pub fn named(document: &Document<'_>) -> Named {
    let parsed = yaml::parse(document).unwrap_or_default();
    let Some(first) = parsed.first() else {
        return Named::default();
    };
    let patterns = |field: &str| {
        let listed = first.value[field].as_array().into_iter().flatten();
        let texts = listed.enumerate().filter_map(|(index, pattern)| {
            let (line, column) = first.places.value(&format!("/{field}/{index}"));
            let text = pattern.as_str()?.to_owned();
            Some(Pattern { text, line, column })
        });
        texts.collect()
    };
    Named {
        rules: patterns("rules"),
        policies: patterns("policies"),
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Listen {
    #[serde(default)]
    webhook: Option<String>,
    #[serde(default)]
    metrics: Option<String>,
    #[serde(default)]
    tls: Option<TlsFiles>,
    #[serde(default)]
    page: Option<Value>,
}

/// The certificate that the webhook shows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// The file of its chain, in PEM, its own first.
    #[schemars(length(min = 1))]
    pub cert_file: String,
    /// The file of its private key, in PEM.
    #[schemars(length(min = 1))]
    pub key_file: String,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Webhook {
    #[serde(default)]
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    max_body_bytes: Option<usize>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Alertmanager {
    #[serde(default)]
    webhook_auth: Option<WebhookAuth>,
    #[serde(default)]
    receivers: Vec<String>,
    // The same as in a `connection::Raw`: what serde flattens, it cannot check for strangers.
    #[serde(default)]
    urls: Vec<String>,
    #[serde(default)]
    timeout: Option<Span>,
    #[serde(default)]
    auth: Option<connection::RawAuth>,
    #[serde(default)]
    tls: connection::RawTls,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    sigv4: Option<connection::RawSigV4>,
}

impl Alertmanager {
    fn into_connection(self) -> connection::Raw {
        connection::Raw {
            urls: self.urls,
            timeout: self.timeout,
            auth: self.auth,
            tls: self.tls,
            headers: self.headers,
            sigv4: self.sigv4,
            ..connection::Raw::default()
        }
    }
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Probes {
    #[serde(default)]
    allow_loopback: bool,
}

/// Who may deliver to the webhook: whoever one of these accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookAuth {
    /// Anyone, on any address; excludes the others.
    #[serde(default)]
    pub anonymous: bool,
    /// Who has the token of this file.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub bearer_token_file: Option<String>,
    /// Who has a name and a password.
    #[serde(default)]
    pub basic: Option<Basic>,
    /// Service accounts of this cluster.
    #[serde(default)]
    pub token_review: Option<TokenReview>,
    /// Who shows a certificate.
    #[serde(default)]
    pub client_certificate: Option<ClientCertificate>,
}

impl WebhookAuth {
    /// Whether it asks for anything at all.
    pub const fn guards(&self) -> bool {
        self.bearer_token_file.is_some()
            || self.basic.is_some()
            || self.token_review.is_some()
            || self.client_certificate.is_some()
    }
}

/// HTTP basic authentication.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Basic {
    /// The name, without a colon.
    #[schemars(length(min = 1))]
    pub username: String,
    /// The file of the password.
    #[schemars(length(min = 1))]
    pub password_file: String,
}

/// Tokens that the Kubernetes API knows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenReview {
    /// Whom the tokens must be for.
    #[serde(default = "audience")]
    #[schemars(length(min = 1))]
    pub audience: String,
    /// Whose tokens they may be, `namespace/name`: any pod can get a token for any audience.
    #[schemars(length(min = 1))]
    pub service_accounts: Vec<String>,
}

fn audience() -> String {
    "nodemend".to_owned()
}

/// Mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCertificate {
    /// The file of the authorities, in PEM.
    #[schemars(length(min = 1))]
    pub ca_file: String,
    /// DNS names or URIs; the certificate must have one of them, letter by letter.
    #[schemars(length(min = 1))]
    pub subject_alt_names: Vec<String>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawLimits {
    #[serde(default)]
    #[schemars(range(min = 1))]
    max_in_flight: Option<u32>,
    #[serde(default)]
    max_repairs: Option<Vec<MaxRepairs>>,
    #[serde(default)]
    breaker: RawBreaker,
    #[serde(default)]
    min_node_age: Option<Span>,
    #[serde(default)]
    startup_grace: Option<Span>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MaxRepairs {
    #[schemars(range(min = 1))]
    count: u32,
    within: Span,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawBreaker {
    #[serde(default)]
    share: Option<String>,
    #[serde(default)]
    #[schemars(range(min = 1))]
    nodes: Option<u32>,
    #[serde(default)]
    #[schemars(range(min = 1))]
    min_nodes: Option<u32>,
    #[serde(default)]
    cooldown: Option<Span>,
}

/// The service's own configuration: one document.
pub fn settings(document: &Document<'_>) -> Result<Settings, Vec<Problem>> {
    let mut parsed = yaml::parse(document)?;
    // An empty file still has to say its cluster.
    let first = if parsed.is_empty() {
        Parsed {
            value: json!({}),
            places: Places::default(),
        }
    } else {
        parsed.remove(0)
    };
    let mut findings = Findings::new(document.file, &first.places);
    let settings = SHAPE
        .read::<Raw>(&first.value, &mut findings)
        .map(|raw| read(raw, &mut findings));
    let mut problems = findings.into_problems();
    for second in &parsed {
        let mut findings = Findings::new(document.file, &second.places);
        findings.add("", "is a second document", "write one only");
        problems.extend(findings.into_problems());
    }
    Ok(sorted(settings, problems)?.expect("without a problem there are settings"))
}

fn read(mut raw: Raw, findings: &mut Findings<'_>) -> Settings {
    if raw.cluster.trim().is_empty() {
        findings.add(
            "/cluster",
            "is empty",
            "name the cluster: its instances carry it in a tag",
        );
    }
    if raw.listen.page.is_some() {
        findings.not_supported("/listen/page", "listen.page", "leave it out");
    }
    let webhook_auth = raw.alertmanager.webhook_auth.take().unwrap_or_default();
    let webhook_tls = raw.listen.tls;
    let guarded = webhook_auth.guards();
    let default_webhook = SocketAddr::from(if guarded {
        ([0, 0, 0, 0], 9095)
    } else {
        ([127, 0, 0, 1], 9095)
    });
    let listen_webhook = address(
        raw.listen.webhook.as_deref(),
        default_webhook,
        "/listen/webhook",
        findings,
    );
    if !listen_webhook.ip().is_loopback()
        && !guarded
        && !webhook_auth.anonymous
        && findings.is_free("/alertmanager/webhookAuth")
    {
        let hint = "give alertmanager.webhookAuth, or listen on 127.0.0.1";
        findings.add("/listen/webhook", "the webhook is open to anyone", hint);
    }
    check_auth(&webhook_auth, webhook_tls.is_some(), findings);
    let receivers = std::mem::take(&mut raw.alertmanager.receivers);
    let alertmanager = raw.alertmanager.into_connection();
    let alertmanager = connection::read(alertmanager, "/alertmanager", findings);
    if !receivers.is_empty()
        && alertmanager.urls.is_empty()
        && findings.is_free("/alertmanager/urls")
    {
        let message = "says whose alerts count, but nobody is asked for them";
        let hint = "give alertmanager.urls; deliveries to the webhook count without it";
        findings.add_at_key("/alertmanager/receivers", message, hint);
    }
    let external_labels = std::mem::take(&mut raw.prometheus.external_labels);
    check_labels(&external_labels, "/prometheus/externalLabels", findings);
    let prometheus = connection::read(raw.prometheus, "/prometheus", findings);
    if !raw.rules.is_empty() && prometheus.urls.is_empty() && findings.is_free("/prometheus/urls") {
        let message = "there is no Prometheus to ask";
        findings.add_at_key("/rules", message, "give prometheus.urls");
    }
    let default_metrics = SocketAddr::from(([0, 0, 0, 0], 9096));
    Settings {
        cluster: raw.cluster,
        listen_webhook,
        listen_metrics: address(
            raw.listen.metrics.as_deref(),
            default_metrics,
            "/listen/metrics",
            findings,
        ),
        webhook_auth,
        webhook_tls,
        max_body: raw.webhook.max_body_bytes.unwrap_or(DEFAULT_MAX_BODY),
        alertmanager,
        receivers,
        prometheus,
        external_labels,
        probe_loopback: raw.probes.allow_loopback,
        rules: raw.rules,
        policies: raw.policies,
        cluster_jobs: raw
            .cluster_jobs
            .unwrap_or_else(|| CLUSTER_JOBS.map(str::to_owned).to_vec()),
        limits: limits(raw.limits, raw.pool_labels, findings),
    }
}

fn address(
    text: Option<&str>,
    default: SocketAddr,
    pointer: &str,
    findings: &mut Findings<'_>,
) -> SocketAddr {
    let Some(text) = text else { return default };
    text.parse().unwrap_or_else(|_| {
        let hint = format!("write an IP address and a port, such as {default}");
        findings.add(pointer, format!("`{text}` is not an address"), &hint);
        default
    })
}

fn check_labels(labels: &BTreeMap<String, String>, at: &str, findings: &mut Findings<'_>) {
    for (name, value) in labels {
        let pointer = yaml::join(at, name);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let named = name.chars().all(plain) && !name.is_empty();
        if !named || name.starts_with(|c: char| c.is_ascii_digit()) {
            let hint = "letters, digits and _, such as cluster";
            findings.add_at_key(&pointer, format!("`{name}` is not a label's name"), hint);
        }
        if name == "alertname" {
            let hint = "leave it out: each alert has its own";
            findings.add_at_key(&pointer, "says which alert it is", hint);
        }
        if value.is_empty() {
            let hint = "leave it out: an empty label is none";
            findings.add(&pointer, "is empty", hint);
        }
    }
}

fn check_auth(auth: &WebhookAuth, tls: bool, findings: &mut Findings<'_>) {
    const AUTH: &str = "/alertmanager/webhookAuth";
    if auth.anonymous && auth.guards() {
        let hint = "leave one of them out";
        findings.add(
            &format!("{AUTH}/anonymous"),
            "asks for nothing, the others do",
            hint,
        );
    }
    if auth
        .basic
        .as_ref()
        .is_some_and(|basic| basic.username.contains(':'))
    {
        let message = "a username holds no colon";
        let hint = "give it another name, there and at the sender";
        findings.add(&format!("{AUTH}/basic/username"), message, hint);
    }
    let accounts = auth
        .token_review
        .iter()
        .flat_map(|review| &review.service_accounts);
    for (index, account) in accounts.enumerate() {
        let parts: Vec<&str> = account.split('/').collect();
        if parts.len() != 2 || parts.iter().any(|part| part.is_empty()) {
            findings.add(
                &format!("{AUTH}/tokenReview/serviceAccounts/{index}"),
                format!("`{account}` is not a service account"),
                "write namespace/name",
            );
        }
    }
    if auth.client_certificate.is_some() && !tls && findings.is_free("/listen/tls") {
        findings.add_at_key(
            &format!("{AUTH}/clientCertificate"),
            "there are no client certificates without TLS",
            "give listen.tls",
        );
    }
}

pub(super) fn limits(
    raw: RawLimits,
    pool_labels: Option<Vec<String>>,
    findings: &mut Findings<'_>,
) -> Limits {
    let default = Limits::default();
    let windows = raw.max_repairs.as_deref().unwrap_or_default();
    for (index, window) in windows.iter().enumerate() {
        not_zero(
            Some(window.within),
            &format!("/limits/maxRepairs/{index}/within"),
            findings,
        );
    }
    not_zero(raw.breaker.cooldown, "/limits/breaker/cooldown", findings);
    Limits {
        max_in_flight: raw.max_in_flight.unwrap_or(default.max_in_flight),
        max_repairs: raw.max_repairs.map_or(default.max_repairs, |windows| {
            windows
                .into_iter()
                .map(|window| (window.count, window.within))
                .collect()
        }),
        breaker: Breaker {
            share: share(
                raw.breaker.share.as_deref(),
                default.breaker.share,
                findings,
            ),
            nodes: raw.breaker.nodes.unwrap_or(default.breaker.nodes),
            min_nodes: raw.breaker.min_nodes.unwrap_or(default.breaker.min_nodes),
            cooldown: raw.breaker.cooldown.unwrap_or(default.breaker.cooldown),
        },
        min_node_age: raw.min_node_age.unwrap_or(default.min_node_age),
        startup_grace: raw.startup_grace.unwrap_or(default.startup_grace),
        pool_labels: pool_labels.unwrap_or(default.pool_labels),
    }
}

fn share(text: Option<&str>, default: u32, findings: &mut Findings<'_>) -> u32 {
    let Some(text) = text else { return default };
    let percent = text
        .strip_suffix('%')
        .and_then(|number| number.parse().ok());
    percent
        .filter(|percent| (1..=100).contains(percent))
        .unwrap_or_else(|| {
            findings.add(
                "/limits/breaker/share",
                format!("`{text}` is not a percentage"),
                "write 1% to 100%",
            );
            default
        })
}

fn not_zero(span: Option<Span>, pointer: &str, findings: &mut Findings<'_>) {
    if span == Some(Span::default()) {
        findings.add(pointer, "must be longer than 0s", "such as 10m or 1h");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let file = "nodemend.yaml";
        let problems = settings(&Document { file, text }).err().unwrap_or_default();
        let line = |problem: Problem| format!("{}: {}", problem.line, problem.message);
        problems.into_iter().map(line).collect()
    }

    #[test]
    fn nothing_that_says_how_to_ask_is_ignored_where_nobody_is_asked() {
        for who in ["prometheus", "alertmanager"] {
            for how in [
                "timeout: 5s",
                "tls: {caFile: /ca}",
                "tls: {certFile: /c, keyFile: /k}",
                "headers: {X-A: x}",
                "auth: {bearerTokenFile: /t}",
                "sigv4: {region: eu-central-1}",
            ] {
                let without = format!("cluster: a\n{who}: {{{how}}}\n");
                let expect = ["2: says how to ask, but not whom"];
                assert_eq!(found(&without), expect, "{without}");
                let with = format!("cluster: a\n{who}: {{urls: ['http://a'], {how}}}\n");
                assert_eq!(found(&with), Vec::<String>::new(), "{with}");
            }
            let nothing = format!("cluster: a\n{who}: {{urls: [], tls: {{}}, headers: {{}}}}\n");
            assert_eq!(found(&nothing), Vec::<String>::new(), "{nothing}");
        }
        let receivers = "cluster: a\nalertmanager:\n  receivers: [nodemend]\n";
        let expect = ["3: says whose alerts count, but nobody is asked for them"];
        assert_eq!(found(receivers), expect);
        let asked = format!("{receivers}  urls: ['http://a']\n");
        assert_eq!(found(&asked), Vec::<String>::new());
    }
}
