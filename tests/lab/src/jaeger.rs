//! The real Jaeger: takes traces by OTLP over HTTP, and gives them back.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::http;
use crate::ports::free_port;
use crate::process::Recipe;
use crate::site::Site;

/// The flags of ports that must be free; only the first two are used.
const PORTS: [&str; 12] = [
    "collector.otlp.http.host-port",
    "query.http-server.host-port",
    "admin.http.host-port",
    "collector.otlp.grpc.host-port",
    "collector.grpc-server.host-port",
    "collector.http-server.host-port",
    "query.grpc-server.host-port",
    "http-server.host-port",
    "processor.jaeger-binary.server-host-port",
    "processor.jaeger-compact.server-host-port",
    "processor.zipkin-compact.server-host-port",
    "collector.zipkin.host-port",
];

/// A running Jaeger.
#[derive(Debug, Clone)]
pub struct Jaeger {
    /// Where people look, and the query API.
    pub url: String,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` (protocol `http/protobuf`).
    pub otlp_url: String,
    http: reqwest::Client,
}

/// A trace.
#[derive(Debug, Clone)]
pub struct Trace {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Its spans.
    pub spans: Vec<Span>,
}

/// A span.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// Its parent's id.
    pub parent: Option<String>,
    /// The service that it belongs to.
    pub service: String,
    /// Its attributes as text, with Jaeger's own (`otel.status_code`, `span.kind` …).
    pub tags: BTreeMap<String, String>,
    /// The service's resource attributes.
    pub resource: BTreeMap<String, String>,
    /// Its events: their attributes as text, the name under `event`.
    pub events: Vec<BTreeMap<String, String>>,
    /// When it started, microseconds since 1970.
    pub start_us: u64,
    /// How long it took, microseconds.
    pub duration_us: u64,
}

impl Trace {
    /// The first span with this name.
    pub fn span(&self, name: &str) -> Option<&Span> {
        self.spans.iter().find(|span| span.name == name)
    }

    /// The span without a parent in the trace.
    pub fn root(&self) -> Option<&Span> {
        self.spans.iter().find(|span| span.parent.is_none())
    }
}

impl Jaeger {
    /// Starts it.
    pub async fn start(site: &Site) -> Result<Self> {
        let addresses: Vec<String> = PORTS
            .iter()
            .map(|_| Ok(format!("127.0.0.1:{}", free_port()?)))
            .collect::<Result<_>>()?;
        let args = PORTS
            .iter()
            .zip(&addresses)
            .map(|(flag, address)| format!("--{flag}={address}"));
        let health = format!("http://{}/", addresses[2]);
        let mut recipe = Recipe::new("jaeger", site.programs.get("jaeger")?, health, args);
        recipe.env = vec![("SPAN_STORAGE_TYPE".to_owned(), "memory".to_owned())];
        site.start(recipe).await?;
        Ok(Self {
            url: format!("http://{}", addresses[1]),
            otlp_url: format!("http://{}", addresses[0]),
            http: http::client()?,
        })
    }

    /// A service's traces of the last hours, at most 1500.
    pub async fn traces(&self, service: &str) -> Result<Vec<Trace>> {
        self.get(
            "traces",
            &[("service", service), ("limit", "1500"), ("lookback", "48h")],
        )
        .await
    }

    /// A trace by its id; none if Jaeger has not (yet) got it.
    pub async fn trace(&self, id: &str) -> Result<Option<Trace>> {
        Ok(self
            .get(&format!("traces/{id}"), &[])
            .await?
            .into_iter()
            .next())
    }

    /// The services that have sent something.
    pub async fn services(&self) -> Result<Vec<String>> {
        let answer = self
            .http
            .get(format!("{}/api/services", self.url))
            .send()
            .await?;
        let names: Services = answer.error_for_status()?.json().await?;
        Ok(names.data.unwrap_or_default())
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<Trace>> {
        let answer = self
            .http
            .get(format!("{}/api/{path}", self.url))
            .query(query)
            .send()
            .await?;
        if answer.status().as_u16() == 404 {
            return Ok(Vec::new());
        }
        let raw: Traces = answer
            .error_for_status()?
            .json()
            .await
            .context("reading Jaeger's answer")?;
        Ok(raw.data.into_iter().map(RawTrace::into_trace).collect())
    }
}

#[derive(Deserialize)]
struct Services {
    data: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Traces {
    data: Vec<RawTrace>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTrace {
    #[serde(rename = "traceID")]
    trace_id: String,
    spans: Vec<RawSpan>,
    processes: BTreeMap<String, RawProcess>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawProcess {
    service_name: String,
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpan {
    #[serde(rename = "spanID")]
    span_id: String,
    operation_name: String,
    #[serde(default)]
    references: Vec<Reference>,
    start_time: u64,
    duration: u64,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(default)]
    logs: Vec<Log>,
    #[serde(rename = "processID")]
    process_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    ref_type: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Deserialize)]
struct Log {
    fields: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    key: String,
    value: Value,
}

impl RawTrace {
    fn into_trace(self) -> Trace {
        let processes = self.processes;
        let spans = self.spans.into_iter().map(|span| {
            let process = processes.get(&span.process_id);
            let parent = span
                .references
                .into_iter()
                .find(|reference| reference.ref_type == "CHILD_OF");
            Span {
                name: span.operation_name,
                id: span.span_id,
                parent: parent.map(|reference| reference.span_id),
                service: process.map_or_else(String::new, |process| process.service_name.clone()),
                tags: texts(&span.tags),
                resource: process
                    .map(|process| texts(&process.tags))
                    .unwrap_or_default(),
                events: span.logs.iter().map(|log| texts(&log.fields)).collect(),
                start_us: span.start_time,
                duration_us: span.duration,
            }
        });
        Trace {
            id: self.trace_id,
            spans: spans.collect(),
        }
    }
}

fn texts(tags: &[Tag]) -> BTreeMap<String, String> {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    tags.iter()
        .map(|tag| (tag.key.clone(), text(&tag.value)))
        .collect()
}
