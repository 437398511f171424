//! Spans, built from records alone: ids, times and attributes come from the
//! journal, so that any leader builds the same bytes again.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use nodemend_core::api::{NodeHealth, NodeRepair, Phase, SignalRecord, Step};
use nodemend_core::evidence::identity::Unresolved;
use nodemend_core::model::{VerdictKind, digest};
use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

/// A part of a repair that is over.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stage<'a> {
    /// Which.
    pub(super) part: Part,
    /// Which try of it, from 1.
    pub(super) attempt: u32,
    /// From the intent …
    pub(super) from: Timestamp,
    /// … to the outcome.
    pub(super) to: Timestamp,
    /// Whether it came to what was wanted.
    pub(super) done: bool,
    /// What it acted on.
    pub(super) target: &'a str,
    /// What came of it.
    pub(super) detail: &'a str,
    /// How often it failed before.
    pub(super) failures: u32,
}

/// The parts of a repair: the steps, and the waits between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// An external effect.
    Step(Step),
    /// The replacement becomes Ready.
    Join,
    /// The end state comes.
    Verify,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => fmt::Debug::fmt(step, f),
            Self::Join | Self::Verify => fmt::Debug::fmt(self, f),
        }
    }
}

impl Stage<'_> {
    /// Tells the stages of one repair apart.
    pub(super) fn key(&self) -> (Part, u32) {
        (self.part, self.attempt)
    }
    /// How long it took.
    pub(super) fn seconds(&self) -> f64 {
        seconds(self.from, self.to)
    }
}

/// From one time to another; zero if the clock was set back.
pub(super) fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}

/// What of a repair is over, as its journal has it.
pub(super) fn stages(repair: &NodeRepair) -> Vec<Stage<'_>> {
    let concluded = repair.journal().iter().filter_map(|entry| {
        let outcome = entry.outcome.as_ref()?;
        Some(Stage {
            part: Part::Step(entry.intent.step),
            attempt: entry.intent.attempt,
            from: entry.intent.at,
            to: outcome.at,
            done: outcome.done,
            target: &entry.intent.target,
            detail: &outcome.detail,
            failures: entry.failures,
        })
    });
    concluded
        .chain(join(repair))
        .chain(verify(repair))
        .collect()
}

fn join(repair: &NodeRepair) -> Option<Stage<'_>> {
    let replacement = repair.status.as_ref()?.replacement.as_ref()?;
    let (from, attempt) = had(repair, Step::Launch)?;
    Some(Stage {
        part: Part::Join,
        attempt,
        from,
        to: replacement.ready_since?,
        done: true,
        target: &replacement.instance_id,
        detail: &replacement.node_name,
        failures: 0,
    })
}

fn verify(repair: &NodeRepair) -> Option<Stage<'_>> {
    let status = repair.status.as_ref()?;
    let act = [Step::Terminate, Step::Reboot];
    let (from, attempt) = act.into_iter().find_map(|step| had(repair, step))?;
    Some(Stage {
        part: Part::Verify,
        attempt,
        from,
        to: status.ended?,
        done: status.phase == Phase::Succeeded,
        target: &repair.spec.node_name,
        detail: &status.message,
        failures: 0,
    })
}

/// When the last try of a step had its effect.
fn had(repair: &NodeRepair, step: Step) -> Option<(Timestamp, u32)> {
    let entry = repair.last(step)?;
    let outcome = entry.outcome.as_ref().filter(|outcome| outcome.done)?;
    Some((outcome.at, entry.intent.attempt))
}

/// One span for each stage that is over, and the root once the repair is.
pub(super) fn repair_spans(repair: &NodeRepair) -> Vec<SpanData> {
    let Some(status) = &repair.status else {
        return Vec::new();
    };
    let Some(trace) = Trace::of(&status.trace_id) else {
        return Vec::new();
    };
    let root = trace.id(&["repair"]);
    let mut spans: Vec<SpanData> = stages(repair)
        .iter()
        .map(|stage| stage_span(&trace, root, repair, stage))
        .collect();
    if let Some(ended) = status.ended {
        let times = (repair.spec.quarantine.at, ended);
        let mut span = trace.span("repair", root, SpanId::INVALID, times);
        span.attributes = root_attributes(repair);
        span.events = evidence(&repair.spec.evidence, times.0);
        if status.phase == Phase::NeedsHuman {
            span.status = Status::error(status.message.clone());
        }
        spans.push(span);
    }
    spans
}

fn stage_span(trace: &Trace, root: SpanId, repair: &NodeRepair, stage: &Stage<'_>) -> SpanData {
    let name = stage.part.to_string();
    let id = trace.id(&["stage", &name, &stage.attempt.to_string()]);
    let mut span = trace.span(name, id, root, (stage.from, stage.to));
    span.attributes = vec![
        text("k8s.node.name", &repair.spec.node_name),
        KeyValue::new("nodemend.attempt", i64::from(stage.attempt)),
        text("nodemend.target", stage.target),
        text("nodemend.detail", stage.detail),
        KeyValue::new("nodemend.failures", i64::from(stage.failures)),
    ];
    if !stage.done {
        span.status = Status::error(stage.detail.to_owned());
    }
    span
}

fn root_attributes(repair: &NodeRepair) -> Vec<KeyValue> {
    let spec = &repair.spec;
    let mut attributes = vec![
        text("k8s.node.name", &spec.node_name),
        text("k8s.node.uid", &spec.node_uid),
        text("cloud.resource_id", &spec.plan.instance_id),
        text("nodemend.repair", repair.name()),
        text("nodemend.fault", &spec.fault),
        text("nodemend.policy", &spec.policy),
        text("nodemend.phase", &format!("{:?}", repair.phase())),
        text("nodemend.action", &format!("{:?}", spec.plan.action)),
        text("nodemend.strategy", &super::events::strategy(repair)),
    ];
    if let Some(reason) = repair.status.as_ref().and_then(|status| status.reason) {
        attributes.push(text("nodemend.reason", &format!("{reason:?}")));
    }
    attributes
}

/// The span of a verdict; none for the good news that a node is well.
pub(super) fn decision_span(health: &NodeHealth) -> Option<SpanData> {
    let status = health.status.as_ref()?;
    if status.verdict == VerdictKind::Healthy {
        return None;
    }
    let trace = Trace::of(&status.trace_id)?;
    let mut span = trace.span(
        "decision",
        trace.id(&["decision"]),
        SpanId::INVALID,
        (status.since, status.since),
    );
    let reasons = status
        .reasons
        .iter()
        .map(|reason| StringValue::from(reason.to_string()))
        .collect();
    span.attributes = vec![
        text("k8s.node.name", &health.spec.node_name),
        text("k8s.node.uid", &health.spec.node_uid),
        text("nodemend.verdict", &format!("{:?}", status.verdict)),
        text("nodemend.fault", &status.fault),
        text("nodemend.policy", &status.policy),
        KeyValue::new("nodemend.reasons", Value::Array(Array::String(reasons))),
    ];
    span.events = evidence(&status.signals, status.since);
    Some(span)
}

/// The span of signals that could not be joined to a node: so many since this process began.
pub(super) fn unresolved_span(
    source: &'static str,
    why: Unresolved,
    count: u64,
    now: Timestamp,
) -> Option<SpanData> {
    let why = format!("{why:?}");
    let parts = [source, &why, &count.to_string(), &now.to_string()];
    let trace_id = digest(&parts, 32);
    let trace = Trace::of(&trace_id)?;
    let id = trace.id(&["unresolved"]);
    let mut span = trace.span("unresolved", id, SpanId::INVALID, (now, now));
    span.attributes = vec![
        text("nodemend.source", source),
        text("nodemend.reason", &why),
        KeyValue::new("nodemend.count", i64::try_from(count).unwrap_or(i64::MAX)),
    ];
    Some(span)
}

/// The span of another service that made a request, by its W3C `traceparent` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traceparent(SpanContext);

impl Traceparent {
    /// None if the header is not valid.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let mut hex = |length| {
            let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let part = parts.next()?;
            (part.len() == length && part.bytes().all(lower)).then_some(part)
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        // A later version may say more, the first may not.
        if version == "ff" || version == "00" && parts.next().is_some() {
            return None;
        }
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        );
        context.is_valid().then_some(Self(context))
    }
}

/// The span of a delivery that was stored, linked to the span that it came from.
pub(super) fn delivery_span(cause: &Traceparent, alerts: u64, at: Timestamp) -> Option<SpanData> {
    let from = cause.0.span_id().to_string();
    let parts = [
        "delivery",
        &cause.0.trace_id().to_string(),
        &from,
        &at.to_string(),
    ];
    let trace_id = digest(&parts, 32);
    let trace = Trace::of(&trace_id)?;
    let id = trace.id(&["delivery"]);
    let mut span = trace.span("delivery", id, SpanId::INVALID, (at, at));
    let alerts = i64::try_from(alerts).unwrap_or(i64::MAX);
    span.attributes = vec![KeyValue::new("nodemend.alerts", alerts)];
    span.links.links = vec![Link::with_context(cause.0.clone())];
    Some(span)
}

/// A trace whose id a record holds.
struct Trace<'a> {
    id: TraceId,
    text: &'a str,
}

impl<'a> Trace<'a> {
    /// None if the record holds no valid id.
    fn of(text: &'a str) -> Option<Self> {
        let id = TraceId::from_hex(text).ok()?;
        (text.len() == 32 && id != TraceId::INVALID).then_some(Self { id, text })
    }

    /// The id of the span that these words name within the trace; never zero.
    fn id(&self, what: &[&str]) -> SpanId {
        let hex = digest(&[&[self.text], what].concat(), 16);
        SpanId::from(u64::from_str_radix(&hex, 16).unwrap_or_default().max(1))
    }

    fn span(
        &self,
        name: impl Into<Cow<'static, str>>,
        id: SpanId,
        parent: SpanId,
        (start, end): (Timestamp, Timestamp),
    ) -> SpanData {
        let start = SystemTime::from(start);
        SpanData {
            span_context: SpanContext::new(
                self.id,
                id,
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: start,
            // Viewers hide what takes no time.
            end_time: SystemTime::from(end).max(start + Duration::from_micros(1)),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("nodemend").build(),
        }
    }
}

/// One event per signal, at its since; one that has none is told at `at`.
fn evidence(signals: &[SignalRecord], at: Timestamp) -> SpanEvents {
    let mut events = SpanEvents::default();
    events.events.extend(signals.iter().map(|signal| {
        let state = text("nodemend.state", &format!("{:?}", signal.state));
        Event::new(
            signal.name.clone(),
            signal.since.unwrap_or(at).into(),
            vec![state],
            0,
        )
    }));
    events
}

fn text(key: &'static str, value: &str) -> KeyValue {
    KeyValue::new(key, value.to_owned())
}
