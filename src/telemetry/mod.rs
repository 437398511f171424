//! What nodemend tells of itself: metrics, log lines and traces. One handle for
//! all; nothing here blocks or fails the work that it tells of.

mod events;
mod export;
mod logs;
mod metrics;
mod spans;
#[cfg(test)]
mod tests;

pub use logs::logs;
pub use spans::Traceparent;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use nodemend_core::api::{NodeHealth, NodeRepair, Phase, Score};
use nodemend_core::decide::Verdict;
use nodemend_core::evidence::identity::Unresolved;
use nodemend_core::model::{Reason, Span, VerdictKind};
use opentelemetry_sdk::trace::SpanData;

use export::Exporter;
use metrics::{Labels, Metrics, call_labels, label, text_label};
use spans::Part;

/// The content type of `Telemetry::encode`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many repairs the history shows.
const SHOWN: usize = 100;
/// How long after its end a repair's spans are exported again by a new leader.
const RECENT: Span = Span::minutes(10);

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The `OTEL_*` variables are wrong.
    #[error("the OTEL_* variables cannot be used")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// No thread.
    #[error("the exporter's thread cannot be started")]
    Thread(#[from] std::io::Error),
}

/// What a pass of the leader came to.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// The time that the pass decided with: a record whose `since` it is was decided in this pass.
    pub now: Timestamp,
    /// The leader's epoch.
    pub epoch: u64,
    /// The verdict on every node.
    pub verdicts: &'a [Verdict],
    /// The node records that this pass wrote.
    pub healths: &'a [NodeHealth],
    /// Every repair on record.
    pub repairs: &'a [NodeRepair],
    /// How often labels could not be joined to a node, since the evidence began.
    pub unresolved: &'a BTreeMap<(&'static str, Unresolved), u64>,
    /// What became of the faults that were only observed.
    pub score: &'a [Score],
    /// How long the pass took; none in virtual time.
    pub duration_seconds: Option<f64>,
}

/// What people should hear of who look at an object with kubectl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The object.
    pub about: About,
    /// In one word. Closed.
    pub reason: &'static str,
    /// In a sentence.
    pub note: String,
    /// Whether somebody may have to do something.
    pub warning: bool,
}

/// An object that a notice is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// The fleet as a whole: its `FleetState`.
    Fleet,
    /// A node.
    Node {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// A `NodeRepair`.
    Repair {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
}

/// A source of evidence. Closed: these are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The rules that are polled.
    Prometheus,
    /// The watch of nodes.
    Kubernetes,
    /// The members of an Alertmanager cluster, where they are asked.
    Alertmanager,
}

impl Source {
    /// Those that every site has.
    const ALL: [Self; 2] = [Self::Prometheus, Self::Kubernetes];
}

/// Whom nodemend calls. Closed: these are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// The Kubernetes API.
    Kubernetes,
    /// The EC2 API.
    EC2,
    /// Prometheus.
    Prometheus,
}

impl System {
    const ALL: [Self; 3] = [Self::Kubernetes, Self::EC2, Self::Prometheus];
}

/// What a call came to. Closed: these are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// As wanted.
    Ok,
    /// The other side said no.
    Refused,
    /// No answer in time.
    Timeout,
    /// No usable answer.
    Failed,
}

impl CallResult {
    const ALL: [Self; 4] = [Self::Ok, Self::Refused, Self::Timeout, Self::Failed];
}

/// Where everything is told. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    metrics: Metrics,
    exporter: Option<Exporter>,
    state: Mutex<State>,
}

/// What was told already, so that each event is told once.
#[derive(Debug, Default)]
struct State {
    /// Whether a pass was seen: what the first one shows is no event.
    primed: bool,
    /// The verdicts that say something, by the nodes' UIDs.
    verdicts: BTreeMap<String, Judged>,
    repairs: BTreeMap<String, Progress>,
    unresolved: BTreeMap<(&'static str, Unresolved), u64>,
    /// Spans of what is open or recent, by id.
    exported: BTreeSet<[u8; 8]>,
    /// The labels of the repairs that the history shows.
    shown: BTreeSet<Labels>,
    /// What is shown of the score.
    scored: BTreeMap<Labels, u64>,
}

#[derive(Debug, PartialEq)]
struct Judged {
    kind: VerdictKind,
    fault: String,
    reasons: Vec<Reason>,
}

#[derive(Debug, Default)]
struct Progress {
    stages: BTreeSet<(Part, u32)>,
    ended: bool,
}

impl Telemetry {
    /// Counts, and exports no spans.
    pub fn silent() -> Self {
        Self::new(Metrics::new(env!("CARGO_PKG_VERSION")), None)
    }

    /// Exports spans by OTLP over HTTP if the standard `OTEL_*` variables name an
    /// endpoint. Blocks for a moment to set up its client. The spans carry no
    /// version and no instance, so that every replica's are alike.
    pub fn from_environment(version: &str, cluster: &str) -> Result<Self, Error> {
        let metrics = Metrics::new(version);
        let exporter = if export::wanted(|name| std::env::var(name).ok()) {
            let sink = export::otlp(cluster, None, None)?;
            Some(Exporter::start(sink, export::CAPACITY, &metrics)?)
        } else {
            None
        };
        Ok(Self::new(metrics, exporter))
    }

    fn new(metrics: Metrics, exporter: Option<Exporter>) -> Self {
        Self(Arc::new(Inner {
            metrics,
            exporter,
            state: Mutex::default(),
        }))
    }

    /// Tells of a pass, at its end. Whoever has a pass leads. Never waits for a collector.
    /// Gives back what people should hear of.
    pub fn pass(&self, pass: &Pass<'_>) -> Vec<Notice> {
        let mut notices = Vec::new();
        let (metrics, mut state) = (&self.0.metrics, self.state());
        metrics.leader.set(1);
        metrics.epoch.set(signed(pass.epoch));
        if let Some(seconds) = pass.duration_seconds {
            metrics.pass_duration.observe(seconds);
        }
        count_nodes(pass.verdicts, metrics);
        count_open(pass.repairs, metrics);
        state.judge(pass.verdicts, metrics, &mut notices);
        state.follow(pass.repairs, metrics, &mut notices);
        state.show(pass.repairs, metrics);
        state.score(pass.score, metrics);
        let unresolved = state.unresolved(pass, metrics);
        if let Some(exporter) = &self.0.exporter {
            state.export(pass, unresolved, exporter);
        }
        state.primed = true;
        notices
    }

    /// This replica leads no longer. When it leads again, what happened meanwhile is not its news.
    pub fn stepped_down(&self) {
        self.0.metrics.leader.set(0);
        let mut state = self.state();
        *state = State {
            unresolved: std::mem::take(&mut state.unresolved),
            shown: std::mem::take(&mut state.shown),
            scored: std::mem::take(&mut state.scored),
            ..State::default()
        };
    }

    /// A webhook request was answered with this status, and why; so many of its alerts were
    /// stored, so many name no node.
    pub fn webhook(&self, code: u16, reason: &'static str, stored: u64, skipped: u64) {
        let metrics = &self.0.metrics;
        let labels = vec![("code", code.to_string()), ("reason", reason.to_owned())];
        metrics.webhook_requests.get_or_create(&labels).inc();
        for (result, count) in [("Stored", stored), ("Unresolved", skipped)] {
            let labels = text_label("result", result);
            metrics.webhook_alerts.get_or_create(&labels).inc_by(count);
        }
    }

    /// A delivery was stored that says which span it comes from. Never waits for a collector.
    pub fn delivery(&self, cause: &Traceparent, alerts: u64, at: Timestamp) {
        if let Some(exporter) = &self.0.exporter
            && let Some(span) = spans::delivery_span(cause, alerts, at)
        {
            exporter.send(span);
        }
    }

    /// The webhook's certificates changed, and could be used or not.
    pub fn certificates_changed(&self, usable: bool) {
        let labels = text_label("result", if usable { "Ok" } else { "Error" });
        let counter = self.0.metrics.webhook_certificates.get_or_create(&labels);
        counter.inc();
    }

    /// A rule was evaluated.
    pub fn rule_evaluated(&self, seconds: f64, ok: bool) {
        let metrics = &self.0.metrics;
        let labels = text_label("result", if ok { "Ok" } else { "Error" });
        metrics.rule_evaluations.get_or_create(&labels).inc();
        metrics.rule_evaluation_duration.observe(seconds);
    }

    /// Whether a source answers. Down until it first does.
    pub fn source_up(&self, source: Source, up: bool) {
        let labels = label("source", source);
        let gauge = self.0.metrics.source_up.get_or_create(&labels);
        gauge.set(up.into());
    }

    /// The configuration was read, and is in force or not.
    pub fn configuration(&self, valid: bool, now: Timestamp) {
        let metrics = &self.0.metrics;
        metrics.configuration_valid.set(valid.into());
        if valid {
            metrics.configuration_loaded.set(now.as_second());
        }
    }

    /// A call to another system ended.
    pub fn external_call(&self, system: System, result: CallResult) {
        let labels = call_labels(system, result);
        self.0.metrics.external_calls.get_or_create(&labels).inc();
    }

    /// The metrics, of type `CONTENT_TYPE`.
    pub fn encode(&self) -> String {
        // Not in the middle of a pass.
        let _state = self.state();
        self.0.metrics.encode()
    }

    /// Waits until every span is exported or dropped, at most this long; whether they are. Blocks.
    pub fn flush(&self, deadline: Duration) -> bool {
        let exporter = self.0.exporter.as_ref();
        exporter.is_none_or(|exporter| exporter.flush(deadline))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count_nodes(verdicts: &[Verdict], metrics: &Metrics) {
    let mut kinds: BTreeMap<VerdictKind, i64> = BTreeMap::new();
    let mut reasons: BTreeMap<Reason, i64> = BTreeMap::new();
    for verdict in verdicts {
        *kinds.entry(verdict.kind).or_default() += 1;
        if verdict.kind == VerdictKind::Held {
            for reason in &verdict.reasons {
                *reasons.entry(*reason).or_default() += 1;
            }
        }
    }
    for kind in VerdictKind::ALL {
        let gauge = metrics.nodes.get_or_create(&label("verdict", kind));
        gauge.set(kinds.get(&kind).copied().unwrap_or(0));
    }
    for reason in Reason::ALL {
        let gauge = metrics.held_nodes.get_or_create(&label("reason", reason));
        gauge.set(reasons.get(&reason).copied().unwrap_or(0));
    }
}

fn count_open(repairs: &[NodeRepair], metrics: &Metrics) {
    for phase in Phase::OPEN.into_iter().chain([Phase::Unrecognized]) {
        let count = repairs.iter().filter(|repair| repair.phase() == phase);
        let gauge = metrics.repairs_open.get_or_create(&label("phase", phase));
        gauge.set(signed(count.count() as u64));
    }
}

impl State {
    /// Finds the verdicts that changed. Only those that say something are remembered: a
    /// source that is down for a whole fleet is not news of each node.
    fn judge(&mut self, verdicts: &[Verdict], metrics: &Metrics, notices: &mut Vec<Notice>) {
        let mut before = std::mem::take(&mut self.verdicts);
        let mut changed = |verdict: &Verdict, kind| {
            if self.primed {
                notices.extend(events::verdict_changed(verdict, kind, metrics));
            }
        };
        for verdict in verdicts.iter().filter(|verdict| !plain(verdict)) {
            let (uid, known) = before
                .remove_entry(&verdict.uid)
                .map_or((verdict.uid.clone(), None), |(uid, known)| {
                    (uid, Some(known))
                });
            let judged = Judged {
                kind: verdict.kind,
                fault: verdict.fault.clone(),
                reasons: verdict.reasons.clone(),
            };
            if known.as_ref() != Some(&judged) {
                changed(
                    verdict,
                    known.map_or(VerdictKind::Healthy, |known| known.kind),
                );
            }
            self.verdicts.insert(uid, judged);
        }
        if before.is_empty() {
            return;
        }
        for verdict in verdicts.iter().filter(|verdict| plain(verdict)) {
            if let Some(known) = before.remove(&verdict.uid) {
                changed(verdict, known.kind);
            }
        }
    }

    /// Finds the repairs and stages that are new or over.
    fn follow(&mut self, repairs: &[NodeRepair], metrics: &Metrics, notices: &mut Vec<Notice>) {
        for repair in repairs {
            if !self.repairs.contains_key(repair.name()) {
                if self.primed {
                    notices.push(events::repair_started(repair, metrics));
                }
                self.repairs
                    .insert(repair.name().to_owned(), Progress::default());
            }
            let Some(known) = self
                .repairs
                .get_mut(repair.name())
                .filter(|known| !known.ended)
            else {
                continue;
            };
            for stage in spans::stages(repair) {
                if known.stages.insert(stage.key()) && self.primed {
                    events::stage_ended(repair, &stage, metrics);
                }
            }
            let status = repair.status.as_ref();
            if let Some(status) = status.filter(|status| status.phase.terminal()) {
                known.ended = true;
                if self.primed {
                    notices.push(events::repair_ended(repair, status, metrics));
                }
            }
        }
        if self.repairs.len() > repairs.len() {
            let kept: BTreeSet<&str> = repairs.iter().map(NodeRepair::name).collect();
            self.repairs.retain(|name, _| kept.contains(name.as_str()));
        }
    }

    /// Shows the newest repairs, and takes away what was shown of others and of earlier phases.
    fn show(&mut self, repairs: &[NodeRepair], metrics: &Metrics) {
        let mut newest: Vec<&NodeRepair> = repairs.iter().collect();
        newest.sort_by_key(|repair| (std::cmp::Reverse(repair.spec.quarantine.at), repair.name()));
        newest.truncate(SHOWN);
        let rows: BTreeMap<Labels, i64> = newest
            .into_iter()
            .map(|repair| (row(repair), repair.spec.quarantine.at.as_second()))
            .collect();
        for gone in self
            .shown
            .iter()
            .filter(|labels| !rows.contains_key(*labels))
        {
            metrics.repair_info.remove(gone);
        }
        for (labels, started) in &rows {
            metrics.repair_info.get_or_create(labels).set(*started);
        }
        self.shown = rows.into_keys().collect();
    }

    /// Shows the score as the fleet's object has it. A count that fell began anew.
    fn score(&mut self, scores: &[Score], metrics: &Metrics) {
        let rows = scores.iter().flat_map(|score| {
            let of = |(outcome, count): (&str, u32)| {
                let names = [("policy", &score.policy), ("fault", &score.fault)];
                let mut labels: Labels = names.map(|(name, of)| (name, of.clone())).to_vec();
                labels.push(("outcome", outcome.to_owned()));
                (labels, u64::from(count))
            };
            [
                ("Recovered", score.recovered),
                ("WentOn", score.went_on),
                ("WentAway", score.went_away),
            ]
            .map(of)
        });
        let rows: BTreeMap<Labels, u64> = rows.collect();
        let fell = |labels: &Labels, known: u64| rows.get(labels).is_none_or(|now| *now < known);
        self.scored.retain(|labels, known| {
            let gone = fell(labels, *known);
            if gone {
                metrics.observed.remove(labels);
            }
            !gone
        });
        for (labels, count) in &rows {
            let known = self.scored.get(labels).copied().unwrap_or(0);
            let counter = metrics.observed.get_or_create(labels);
            counter.inc_by(count - known);
        }
        self.scored = rows;
    }

    /// Counts what rose, and builds a span for each. A count that fell began anew.
    fn unresolved(&mut self, pass: &Pass<'_>, metrics: &Metrics) -> Vec<SpanData> {
        let mut spans = Vec::new();
        for ((source, why), count) in pass.unresolved {
            let known = self.unresolved.insert((source, *why), *count).unwrap_or(0);
            let rise = count.checked_sub(known).unwrap_or(*count);
            if rise > 0 {
                let labels = [text_label("source", source), label("reason", why)].concat();
                metrics
                    .unresolved_signals
                    .get_or_create(&labels)
                    .inc_by(rise);
                spans.extend(spans::unresolved_span(source, *why, *count, pass.now));
            }
        }
        spans
    }

    /// Hands over the spans that were not yet: of open and newly closed repairs, and of
    /// what this pass decided.
    fn export(&mut self, pass: &Pass<'_>, unresolved: Vec<SpanData>, exporter: &Exporter) {
        let decided = |health: &&NodeHealth| {
            let status = health.status.as_ref();
            status.is_some_and(|status| status.since == pass.now)
        };
        let repairs = pass
            .repairs
            .iter()
            .filter(|repair| recent(repair, pass.now))
            .flat_map(spans::repair_spans);
        let decisions = pass
            .healths
            .iter()
            .filter(decided)
            .filter_map(spans::decision_span);
        let before = std::mem::take(&mut self.exported);
        for span in repairs.chain(decisions).chain(unresolved) {
            let id = span.span_context.span_id().to_bytes();
            if self.exported.insert(id) && !before.contains(&id) {
                exporter.send(span);
            }
        }
    }
}

/// Whether a verdict says nothing of the node itself, as for the records.
fn plain(verdict: &Verdict) -> bool {
    match verdict.kind {
        VerdictKind::Healthy | VerdictKind::Ignored => true,
        VerdictKind::Unknown => verdict.since.is_none(),
        VerdictKind::Pending | VerdictKind::Held | VerdictKind::Due | VerdictKind::Repairing => {
            false
        }
    }
}

fn recent(repair: &NodeRepair, now: Timestamp) -> bool {
    let ended = repair.status.as_ref().and_then(|status| status.ended);
    ended.is_none_or(|ended| RECENT.after(ended) >= now)
}

/// A repair's row in the history.
fn row(repair: &NodeRepair) -> Labels {
    let spec = &repair.spec;
    let time = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let ended = repair.status.as_ref().and_then(|status| status.ended);
    vec![
        ("repair", repair.name().to_owned()),
        ("node", spec.node_name.clone()),
        ("policy", spec.policy.clone()),
        ("fault", spec.fault.clone()),
        ("phase", format!("{:?}", repair.phase())),
        ("action", format!("{:?}", spec.plan.action)),
        ("strategy", events::strategy(repair)),
        ("trace_id", events::trace_id(repair).to_owned()),
        ("started", time(spec.quarantine.at)),
        ("ended", ended.map(time).unwrap_or_default()),
    ]
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
