//! The way out of the process: a thread of its own behind a bounded queue, so
//! that a collector that hangs or fails costs spans and never time.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use std::{io, iter, thread};

use futures_util::FutureExt as _;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus_client::metrics::counter::Counter;

use super::Error;
use super::metrics::Metrics;

/// How many spans may wait.
pub(super) const CAPACITY: usize = 4_096;
/// How many spans go out in one request.
const BATCH: usize = 512;

/// Takes a batch to the collector within a deadline of its own.
pub(super) type Sink = Box<dyn FnMut(Vec<SpanData>) -> Result<(), String> + Send>;

/// The near end of the queue.
#[derive(Debug)]
pub(super) struct Exporter {
    queue: SyncSender<SpanData>,
    waiting: Arc<Waiting>,
    dropped: Counter,
}

/// How many spans are queued or on their way.
#[derive(Debug, Default)]
struct Waiting {
    count: Mutex<usize>,
    none: Condvar,
}

impl Exporter {
    /// Starts the thread. It ends when the exporter is dropped.
    pub(super) fn start(sink: Sink, capacity: usize, metrics: &Metrics) -> io::Result<Self> {
        let (queue, spans) = sync_channel(capacity);
        let waiting = Arc::new(Waiting::default());
        let (exported, dropped) = (
            metrics.spans_exported.clone(),
            metrics.spans_dropped.clone(),
        );
        let far = (Arc::clone(&waiting), dropped.clone());
        thread::Builder::new()
            .name("spans".into())
            .spawn(move || carry(&spans, sink, &far.0, &exported, &far.1))?;
        Ok(Self {
            queue,
            waiting,
            dropped,
        })
    }

    /// Hands a span over, or drops and counts it. Never waits.
    pub(super) fn send(&self, span: SpanData) {
        self.waiting.add(1);
        if self.queue.try_send(span).is_err() {
            self.waiting.take(1);
            self.dropped.inc();
        }
    }

    /// Waits until every span is gone, at most this long; whether they are.
    pub(super) fn flush(&self, deadline: Duration) -> bool {
        let count = self.waiting.lock();
        let (count, _) = self
            .waiting
            .none
            .wait_timeout_while(count, deadline, |count| *count > 0)
            .unwrap_or_else(PoisonError::into_inner);
        *count == 0
    }
}

impl Waiting {
    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn add(&self, spans: usize) {
        *self.lock() += spans;
    }
    fn take(&self, spans: usize) {
        let mut count = self.lock();
        *count -= spans;
        if *count == 0 {
            self.none.notify_all();
        }
    }
}

/// Carries batches until the near end is gone.
fn carry(
    spans: &Receiver<SpanData>,
    mut sink: Sink,
    waiting: &Waiting,
    exported: &Counter,
    dropped: &Counter,
) {
    let mut failing = false;
    while let Ok(first) = spans.recv() {
        let batch: Vec<SpanData> = iter::once(first)
            .chain(spans.try_iter())
            .take(BATCH)
            .collect();
        let count = batch.len();
        let outcome = sink(batch);
        // Told once per change: a collector may be away for days.
        match &outcome {
            Err(error) if !failing => tracing::warn!(error, "spans cannot be exported"),
            Ok(()) if failing => tracing::info!("spans are exported again"),
            _ => {}
        }
        failing = outcome.is_err();
        let counter = if failing { dropped } else { exported };
        counter.inc_by(count as u64);
        waiting.take(count);
    }
}

/// Whether the standard `OTEL_*` variables ask for spans.
pub(super) fn wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty());
    let disabled =
        given("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let otlp = given("OTEL_TRACES_EXPORTER")
        .is_none_or(|value| value.split(',').any(|name| name.trim() == "otlp"));
    let endpoint = given("OTEL_EXPORTER_OTLP_ENDPOINT")
        .or_else(|| given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"));
    !disabled && otlp && endpoint.is_some()
}

/// OTLP over HTTP, as the environment says; `endpoint` and `timeout` win over it.
/// Its deadline is 10 s unless `OTEL_EXPORTER_OTLP_TIMEOUT` says otherwise.
pub(super) fn otlp(
    cluster: &str,
    endpoint: Option<String>,
    timeout: Option<Duration>,
) -> Result<Sink, Error> {
    let mut builder = OtlpExporter::builder().with_http();
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(timeout) = timeout {
        builder = builder.with_timeout(timeout);
    }
    let mut exporter = builder.build()?;
    exporter.set_resource(&resource(cluster, std::env::var("OTEL_SERVICE_NAME").ok()));
    Ok(Box::new(move |batch| {
        // The client blocks: the future never waits for a waker.
        let outcome = exporter.export(batch).now_or_never();
        outcome
            .ok_or("the client did not finish")?
            .map_err(|error| error.to_string())
    }))
}

/// Who speaks. Alike on every replica and for every version, else a span that a new
/// leader exports again would count as another.
fn resource(cluster: &str, name: Option<String>) -> Resource {
    let builder = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.name", "nodemend"))
        .with_attribute(KeyValue::new("k8s.cluster.name", cluster.to_owned()))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match name.filter(|name| !name.is_empty()) {
        Some(name) => builder.with_service_name(name).build(),
        None => builder.build(),
    }
}
