//! How a server is asked: addresses, credentials, TLS, headers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::findings::Findings;
use super::yaml::join;
use super::{Connection, Credentials};
use crate::model::Span;

/// Headers that say how the body is framed, or who asks: others set these.
const RESERVED: [&str; 11] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(default)]
    pub(super) urls: Vec<String>,
    #[serde(default)]
    pub(super) timeout: Option<Span>,
    #[serde(default)]
    pub(super) auth: Option<RawAuth>,
    #[serde(default)]
    pub(super) tls: RawTls,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) sigv4: Option<RawSigV4>,
    /// The labels that Prometheus puts on what it sends to Alertmanager, its `external_labels`,
    /// if no label of that name is there: for silences to match rules that are polled, and
    /// conditions. Without them a silence that asks for one of them matches neither. What has
    /// one with another value is of another cluster, and speaks of none of our nodes.
    #[serde(default)]
    pub(super) external_labels: BTreeMap<String, String>,
}

impl Raw {
    /// Whether it says anything but whom to ask.
    fn says_how(&self) -> bool {
        let RawTls {
            ca_file,
            cert_file,
            key_file,
        } = &self.tls;
        self.auth.is_some()
            || self.sigv4.is_some()
            || self.timeout.is_some()
            || !self.headers.is_empty()
            || ca_file.is_some()
            || cert_file.is_some()
            || key_file.is_some()
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawAuth {
    #[serde(default)]
    #[schemars(length(min = 1))]
    bearer_token_file: Option<String>,
    #[serde(default)]
    basic: Option<RawBasic>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawBasic {
    #[schemars(length(min = 1))]
    username: String,
    #[schemars(length(min = 1))]
    password_file: String,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(
    clippy::struct_field_names,
    reason = "the names that people know from Prometheus"
)]
pub(super) struct RawTls {
    #[serde(default)]
    #[schemars(length(min = 1))]
    ca_file: Option<String>,
    #[serde(default)]
    #[schemars(length(min = 1))]
    cert_file: Option<String>,
    #[serde(default)]
    #[schemars(length(min = 1))]
    key_file: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawSigV4 {
    #[schemars(length(min = 1, max = 64))]
    region: String,
}

/// Checks the connection at `at`.
pub(super) fn read(raw: Raw, at: &str, findings: &mut Findings<'_>) -> Connection {
    for (index, url) in raw.urls.iter().enumerate() {
        if let Some((message, hint)) = wrong_url(url) {
            findings.add(&format!("{at}/urls/{index}"), message, hint);
        }
    }
    let asks_nobody = raw.urls.is_empty() && findings.is_free(&format!("{at}/urls"));
    if asks_nobody && raw.says_how() {
        let hint = "give urls: without them it is not asked";
        findings.add_at_key(at, "says how to ask, but not whom", hint);
    }
    if raw.timeout == Some(Span::default()) {
        let hint = "leave it out for the default of 10s";
        findings.add(&format!("{at}/timeout"), "must be longer than 0s", hint);
    }
    if raw.tls.cert_file.is_some() != raw.tls.key_file.is_some() {
        let hint = "give both certFile and keyFile, or neither";
        findings.add_at_key(&format!("{at}/tls"), "is half a client certificate", hint);
    }
    Connection {
        urls: raw.urls,
        timeout: raw.timeout.unwrap_or(Span::seconds(10)),
        credentials: credentials(raw.auth, raw.sigv4, at, findings),
        ca_file: raw.tls.ca_file,
        identity: raw.tls.cert_file.zip(raw.tls.key_file),
        headers: headers(raw.headers, &format!("{at}/headers"), findings),
    }
}

fn credentials(
    auth: Option<RawAuth>,
    sigv4: Option<RawSigV4>,
    at: &str,
    findings: &mut Findings<'_>,
) -> Credentials {
    if auth.is_some() && sigv4.is_some() {
        let message = "there is `auth` already";
        findings.add_at_key(
            &format!("{at}/sigv4"),
            message,
            "one of them signs a request",
        );
    }
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match (auth, sigv4) {
        (None, None) => Credentials::None,
        (None, Some(RawSigV4 { region })) => {
            if !region.chars().all(known) {
                let message = format!("`{region}` is not a region");
                findings.add(
                    &format!("{at}/sigv4/region"),
                    message,
                    "such as eu-central-1",
                );
            }
            Credentials::SigV4 { region }
        }
        (Some(auth), _) => match (auth.bearer_token_file, auth.basic) {
            (Some(file), None) => Credentials::BearerFile(file),
            (None, Some(basic)) => {
                if basic
                    .username
                    .contains(|c: char| c == ':' || c.is_control())
                {
                    let message = "has a colon or a control character";
                    let hint = "such a name cannot be sent";
                    findings.add(&format!("{at}/auth/basic/username"), message, hint);
                }
                Credentials::Basic {
                    username: basic.username,
                    password_file: basic.password_file,
                }
            }
            _ => {
                let hint = "give exactly one of bearerTokenFile, basic";
                if findings.is_free(&format!("{at}/auth")) {
                    findings.add_at_key(&format!("{at}/auth"), "is not one thing", hint);
                }
                Credentials::None
            }
        },
    }
}

/// Never shows a value: it may be a secret.
fn headers(
    raw: BTreeMap<String, String>,
    at: &str,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (name, value) in raw {
        let pointer = join(at, &name);
        let lower = name.to_ascii_lowercase();
        if let Some((message, hint)) = wrong_header(&lower) {
            findings.add_at_key(&pointer, format!("header `{name}` {message}"), hint);
        }
        let plain = |c: char| matches!(c, ' '..='~' | '\t');
        if value.is_empty() || value.trim() != value || !value.chars().all(plain) {
            let hint = "printable ASCII without space at the ends";
            findings.add(&pointer, "is not a header's value", hint);
        }
        if headers.insert(lower, value).is_some() {
            let message = format!("header `{name}` is there twice");
            findings.add_at_key(&pointer, message, "leave one of them out");
        }
    }
    headers
}

fn wrong_header(name: &str) -> Option<(&'static str, &'static str)> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        return Some(("is not a header's name", "such as X-Scope-OrgID"));
    }
    if ["authorization", "proxy-authorization"].contains(&name) || name.starts_with("x-amz-") {
        return Some(("is set by auth", "use `auth` or `sigv4`"));
    }
    RESERVED
        .contains(&name)
        .then_some(("is set by the client", "leave it out"))
}

/// Never shows the URL: it may hold a password.
fn wrong_url(url: &str) -> Option<(&'static str, &'static str)> {
    let example = "such as http://prometheus:9090";
    let Some(rest) = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
    else {
        return Some(("is not an http or https URL", example));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    if authority.contains('@') {
        return Some(("holds credentials", "use `auth`"));
    }
    if host.is_empty() || url.contains(char::is_whitespace) {
        return Some(("is not a URL", example));
    }
    rest.contains(['?', '#'])
        .then_some(("has a query or a fragment", "give the base URL only"))
}
