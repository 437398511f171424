//! The metrics `nodemend_*`. Labels are closed enums, but for the newest repairs.

use std::fmt::Debug;

use nodemend_core::api::Phase;
use nodemend_core::model::{Reason, VerdictKind};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::{CallResult, Source, System};

/// Names and values of labels.
pub(super) type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge>;

/// Every metric, and the registry that writes them out.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub(super) leader: Gauge,
    pub(super) epoch: Gauge,
    pub(super) nodes: Gauges,
    pub(super) held_nodes: Gauges,
    pub(super) decisions: Counters,
    pub(super) observed: Counters,
    pub(super) repairs_started: Counters,
    pub(super) repairs_finished: Counters,
    pub(super) repairs_open: Gauges,
    pub(super) repair_duration: Family<Labels, HistogramWithExemplars<Labels>>,
    pub(super) step_duration: Family<Labels, Histogram>,
    pub(super) repair_info: Gauges,
    pub(super) webhook_requests: Counters,
    pub(super) webhook_alerts: Counters,
    pub(super) webhook_certificates: Counters,
    pub(super) unresolved_signals: Counters,
    pub(super) rule_evaluations: Counters,
    pub(super) rule_evaluation_duration: Histogram,
    pub(super) source_up: Gauges,
    pub(super) configuration_valid: Gauge,
    pub(super) configuration_loaded: Gauge,
    pub(super) pass_duration: Histogram,
    pub(super) external_calls: Counters,
    pub(super) spans_dropped: Counter,
    pub(super) spans_exported: Counter,
}

impl Metrics {
    /// Every metric at zero.
    pub(super) fn new(version: &str) -> Self {
        let mut registry = Registry::with_prefix("nodemend");
        let r = &mut registry;
        let build: Gauges = plain(r, "build_info", "The running version");
        build
            .get_or_create(&vec![("version", version.to_owned())])
            .set(1);
        let metrics = Self {
            leader: plain(r, "leader", "Whether this replica leads"),
            epoch: plain(r, "epoch", "The epoch of this replica's last leadership"),
            nodes: plain(r, "nodes", "Nodes by verdict"),
            held_nodes: plain(
                r,
                "held_nodes",
                "Held nodes by reason; a node can have several",
            ),
            decisions: plain(r, "decisions", "Verdicts that changed, by what they became"),
            observed: plain(
                r,
                "observed",
                "Faults that a policy in mode Observe would have acted on, by what became of them",
            ),
            repairs_started: plain(r, "repairs_started", "Repairs that began"),
            repairs_finished: plain(r, "repairs_finished", "Repairs that ended"),
            repairs_open: plain(r, "repairs_open", "Repairs under way, by phase"),
            repair_duration: put(
                r,
                "repair_duration_seconds",
                "From admission to the end of a repair",
                Family::new_with_constructor(|| HistogramWithExemplars::new(REPAIR.into_iter())),
            ),
            step_duration: put(
                r,
                "repair_step_duration_seconds",
                "From the intent of a step to its outcome",
                Family::new_with_constructor(|| Histogram::new(STEP)),
            ),
            repair_info: plain(
                r,
                "repair_info",
                "The newest repairs; the value is the start in unix seconds",
            ),
            webhook_requests: plain(r, "webhook_requests", "Webhook requests by answer"),
            webhook_alerts: plain(r, "webhook_alerts", "Alerts received by webhook"),
            webhook_certificates: plain(
                r,
                "webhook_certificates",
                "Changes of the webhook's certificates, by whether they could be used",
            ),
            unresolved_signals: plain(
                r,
                "unresolved_signals",
                "Series and alerts that could not be joined to one node",
            ),
            rule_evaluations: plain(r, "rule_evaluations", "Evaluations of rules"),
            rule_evaluation_duration: put(
                r,
                "rule_evaluation_duration_seconds",
                "How long a rule took to evaluate",
                Histogram::new(QUERY),
            ),
            source_up: plain(r, "source_up", "Whether a source answers"),
            configuration_valid: plain(
                r,
                "configuration_valid",
                "Whether what the files say is in force",
            ),
            configuration_loaded: plain(
                r,
                "configuration_loaded_seconds",
                "When what is in force was read, in unix seconds",
            ),
            pass_duration: put(
                r,
                "pass_duration_seconds",
                "How long a pass of the leader took",
                Histogram::new(PASS),
            ),
            external_calls: plain(r, "external_calls", "Calls to other systems"),
            spans_dropped: plain(r, "spans_dropped", "Spans that were not exported"),
            spans_exported: plain(r, "spans_exported", "Spans that were exported"),
            registry,
        };
        metrics.show_zeros();
        metrics
    }

    /// The exposition as text.
    pub(super) fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a String takes every write");
        text
    }

    /// A series that is only made by its first event hides that event from `increase`.
    fn show_zeros(&self) {
        let counted = |family: &Counters, labels| drop(family.get_or_create(&labels));
        let measured = |family: &Gauges, labels| drop(family.get_or_create(&labels));
        for kind in VerdictKind::ALL {
            measured(&self.nodes, label("verdict", kind));
            counted(&self.decisions, label("verdict", kind));
        }
        for reason in Reason::ALL {
            measured(&self.held_nodes, label("reason", reason));
        }
        for phase in Phase::OPEN {
            measured(&self.repairs_open, label("phase", phase));
        }
        for source in Source::ALL {
            measured(&self.source_up, label("source", source));
        }
        for result in ["Ok", "Error"] {
            counted(&self.rule_evaluations, text_label("result", result));
            counted(&self.webhook_certificates, text_label("result", result));
        }
        for result in ["Stored", "Unresolved"] {
            counted(&self.webhook_alerts, text_label("result", result));
        }
        for system in System::ALL {
            for result in CallResult::ALL {
                counted(&self.external_calls, call_labels(system, result));
            }
        }
    }
}

/// One label whose value is an enum's name.
pub(super) fn label(name: &'static str, value: impl Debug) -> Labels {
    vec![(name, format!("{value:?}"))]
}

/// One label whose value is a fixed word.
pub(super) fn text_label(name: &'static str, value: &'static str) -> Labels {
    vec![(name, value.to_owned())]
}

/// Which call came to what.
pub(super) fn call_labels(system: System, result: CallResult) -> Labels {
    [label("system", system), label("result", result)].concat()
}

const REPAIR: [f64; 10] = [
    60., 120., 300., 600., 900., 1_200., 1_800., 2_700., 3_600., 7_200.,
];
const STEP: [f64; 11] = [
    1., 5., 15., 30., 60., 120., 300., 600., 900., 1_800., 3_600.,
];
const QUERY: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1., 2.5, 10.];
const PASS: [f64; 11] = [
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1., 5.,
];

fn plain<M: Metric + Clone + Default>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
) -> M {
    put(registry, name, help, M::default())
}

fn put<M: Metric + Clone>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    metric: M,
) -> M {
    registry.register(name, help, metric.clone());
    metric
}
