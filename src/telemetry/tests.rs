//! What is told, and how often.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use nodemend_core::api::{GaveUp, Outcome, Score, Severity, Step};
use nodemend_core::repair::{self, Change};
use opentelemetry::trace::{SpanId, Status};
use serde_json::json;

use super::spans::{decision_span, repair_spans, unresolved_span};
use super::*;

// ---- records

fn t(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_750_000_000 + seconds).unwrap()
}

/// A repair of this node that was admitted at `start`.
fn admitted(node: &str, start: i64) -> NodeRepair {
    let uid = format!("uid-{node}");
    let name = repair::object_name(node, &uid, 1);
    serde_json::from_value(json!({
        "apiVersion": "nodemend.dev/v1alpha1", "kind": "NodeRepair", "metadata": {"name": name, "uid": name},
        "spec": {
            "nodeName": node, "nodeUid": uid, "providerId": "aws:///a/i-old", "ordinal": 1,
            "policy": "general", "fault": "DiskFailing", "faultSince": t(start - 600), "epoch": 1,
            "evidence": [
                {"name": "NodeDiskIOErrors", "state": "Firing", "since": t(start - 600)},
                {"name": "condition/Ready", "state": "Unknown"},
            ],
            "plan": {
                "strategy": "EC2", "instanceId": "i-old", "clusterTag": "c", "readyTimeout": "15m", "maxAttempts": 2, "drainTimeout": "15m",
                "launch": {"template": {"id": "lt-1", "version": "3"}, "subnet": "s", "instanceType": "m", "clusterTag": "c"},
            },
            "quarantine": repair::intent(&name, Step::Quarantine, 1, node.into(), 1, t(start)),
        },
    }))
    .unwrap()
}

fn done(at: i64, detail: &str) -> Change {
    let detail = detail.into();
    Change::Conclude(Outcome {
        at: t(at),
        done: true,
        detail,
    })
}

fn intend(step: Step, target: &str, phase: Phase) -> Change {
    Change::Intend(step, 1, target.into(), phase)
}

/// The first `steps` changes of a repair that succeeds, the n-th at `start + 10 n`.
fn walked(node: &str, start: i64, steps: usize) -> NodeRepair {
    let at = |n: i64| start + 10 * n;
    let changes = [
        done(at(1), ""),
        Change::Enter(Phase::Quarantined),
        intend(Step::Launch, "token", Phase::Launching),
        done(at(4), "i-new"),
        Change::Joined("n-new".into()),
        intend(Step::Drain, node, Phase::Draining),
        done(at(7), "3 pods"),
        intend(Step::Terminate, "i-old", Phase::Terminating),
        done(at(9), "terminated"),
        Change::Enter(Phase::Verifying),
        Change::Enter(Phase::Succeeded),
    ];
    let mut repair = admitted(node, start);
    for (change, n) in changes.into_iter().zip(1..).take(steps) {
        repair::apply(&mut repair, change, 1, t(at(n)));
    }
    repair
}

/// How many changes a whole repair has.
const ALL: usize = 11;

fn verdict(node: &str, kind: VerdictKind, reasons: &[Reason]) -> Verdict {
    Verdict {
        node: node.into(),
        uid: format!("uid-{node}"),
        kind,
        reasons: reasons.to_vec(),
        scopes: Vec::new(),
        place: Arc::default(),
        counts: true,
        joined: true,
        available: true,
        sick_since: None,
        sick_if_enforced: None,
        policy: "general".into(),
        fault: "DiskFailing".into(),
        severity: Severity::Warning,
        action: None,
        since: Some(t(0)),
        signals: Vec::new(),
        silences: Vec::new(),
        inputs: None,
    }
}

fn health(node: &str, kind: VerdictKind, since: i64) -> NodeHealth {
    serde_json::from_value(json!({
        "apiVersion": "nodemend.dev/v1alpha1", "kind": "NodeHealth", "metadata": {"name": node},
        "spec": {"nodeName": node, "nodeUid": "u"},
        "status": {
            "verdict": kind, "fault": "DiskFailing", "policy": "general", "reasons": ["ObserveMode"], "since": t(since),
            "signals": [{"name": "NodeDiskIOErrors", "state": "Firing", "since": t(since - 60)}],
            "traceId": nodemend_core::model::digest(&["decision", node], 32),
        },
    }))
    .unwrap()
}

// ---- passes

static NONE: BTreeMap<(&'static str, Unresolved), u64> = BTreeMap::new();

fn pass<'a>(now: i64, verdicts: &'a [Verdict], repairs: &'a [NodeRepair]) -> Pass<'a> {
    Pass {
        now: t(now),
        epoch: 1,
        verdicts,
        healths: &[],
        repairs,
        unresolved: &NONE,
        score: &[],
        duration_seconds: None,
    }
}

/// The value of a series, by the start of its line.
fn value(telemetry: &Telemetry, series: &str) -> Option<f64> {
    let text = telemetry.encode();
    let line = text.lines().find_map(|line| line.strip_prefix(series))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A telemetry whose spans come out of the receiver, batch by batch.
fn collecting() -> (Telemetry, Receiver<Vec<SpanData>>) {
    let (out, spans) = channel();
    let sink = Box::new(move |batch| out.send(batch).map_err(|error| error.to_string()));
    (with_sink(sink, export::CAPACITY), spans)
}

fn with_sink(sink: export::Sink, capacity: usize) -> Telemetry {
    let metrics = Metrics::new("0");
    let exporter = Exporter::start(sink, capacity, &metrics).unwrap();
    Telemetry::new(metrics, Some(exporter))
}

const PATIENCE: Duration = Duration::from_mins(1);

fn names(telemetry: &Telemetry, spans: &Receiver<Vec<SpanData>>) -> Vec<String> {
    assert!(telemetry.flush(PATIENCE));
    let spans = spans.try_iter().flatten();
    spans.map(|span| span.name.into_owned()).collect()
}

// ---- spans

#[test]
fn a_delivery_is_linked_to_the_span_that_it_came_from() {
    let (telemetry, spans) = collecting();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let cause = format!("00-{trace}-b7ad6b7169203331-01");
    telemetry.delivery(&Traceparent::parse(&cause).unwrap(), 3, t(0));
    assert!(telemetry.flush(PATIENCE));
    let sent: Vec<SpanData> = spans.try_iter().flatten().collect();
    let [span] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!(span.name, "delivery");
    let link = &span.links.links[0].span_context;
    assert_eq!(link.trace_id().to_string(), trace);
    assert!(link.is_remote() && link.is_sampled());
    // A link only: the sender is neither the parent nor chooses the trace.
    assert_eq!(span.parent_span_id, opentelemetry::trace::SpanId::INVALID);
    assert_ne!(span.span_context.trace_id(), link.trace_id());
}

#[test]
fn a_traceparent_is_read_as_the_w3c_says() {
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let valid = |text: &str| Traceparent::parse(text).is_some();
    assert!(valid(&format!("00-{trace}-{span}-00")));
    assert!(valid(&format!("cc-{trace}-{span}-01-later")));
    for wrong in [
        String::new(),
        format!("ff-{trace}-{span}-01"),
        format!("00-{trace}-{span}"),
        format!("00-{trace}-{span}-1"),
        format!("00-{trace}-{span}-01-more"),
        format!("00-{}-{span}-01", "0".repeat(32)),
        format!("00-{trace}-{}-01", "0".repeat(16)),
        format!("00-{}-{span}-01", trace.to_uppercase()),
        format!("00-{trace}é-{span}-01"),
    ] {
        assert!(!valid(&wrong), "{wrong}");
    }
}

#[test]
fn a_repair_has_a_span_for_each_stage_and_a_root() {
    let times = |span: &SpanData| {
        let seconds = |at: std::time::SystemTime| {
            Timestamp::try_from(at).unwrap().as_second() - t(0).as_second()
        };
        (seconds(span.start_time), seconds(span.end_time))
    };
    let spans = repair_spans(&walked("n1", 0, ALL));
    let told: Vec<_> = spans
        .iter()
        .map(|span| (&*span.name, times(span)))
        .collect();
    assert_eq!(
        told,
        [
            ("Quarantine", (0, 10)),
            ("Launch", (30, 40)),
            ("Drain", (60, 70)),
            ("Terminate", (80, 90)),
            ("Join", (40, 50)),
            ("Verify", (90, 110)),
            ("repair", (0, 110)),
        ]
    );
    let (root, children) = spans.split_last().unwrap();
    assert_eq!(root.parent_span_id, SpanId::INVALID);
    for child in children {
        assert_eq!(child.parent_span_id, root.span_context.span_id());
        assert_eq!(child.status, Status::Unset);
    }
    let events: Vec<_> = root
        .events
        .iter()
        .map(|event| (&*event.name, event.timestamp))
        .collect();
    assert_eq!(
        events,
        [
            ("NodeDiskIOErrors", t(-600).into()),
            ("condition/Ready", t(0).into())
        ]
    );
    let attributes: Vec<_> = root
        .attributes
        .iter()
        .map(|pair| format!("{}={}", pair.key, pair.value))
        .collect();
    assert_eq!(
        attributes,
        [
            "k8s.node.name=n1".to_owned(),
            "k8s.node.uid=uid-n1".into(),
            "cloud.resource_id=i-old".into(),
            format!("nodemend.repair={}", repair::object_name("n1", "uid-n1", 1)),
            "nodemend.fault=DiskFailing".into(),
            "nodemend.policy=general".into(),
            "nodemend.phase=Succeeded".into(),
            "nodemend.action=Replace".into(),
            "nodemend.strategy=EC2".into(),
        ]
    );
}

#[test]
fn another_leader_builds_the_same_bytes() {
    let again = |repair: &NodeRepair| -> NodeRepair {
        let mut stored: NodeRepair =
            serde_json::from_str(&serde_json::to_string(repair).unwrap()).unwrap();
        if let Some(status) = &mut stored.status {
            status.epoch += 1;
        }
        stored
    };
    let whole = repair_spans(&walked("n1", 0, ALL));
    for steps in 0..=ALL {
        let repair = walked("n1", 0, steps);
        let spans = repair_spans(&repair);
        let copy = repair_spans(&again(&repair));
        assert_eq!(format!("{spans:?}"), format!("{copy:?}"));
        // What is told early is told no other way later.
        for span in spans {
            assert!(whole.contains(&span), "{steps}: {}", span.name);
        }
    }
    let held = health("n1", VerdictKind::Held, 0);
    assert_eq!(decision_span(&held), decision_span(&held.clone()));
}

#[test]
fn ids_are_valid_and_each_is_another() {
    let mut spans = repair_spans(&walked("n1", 0, ALL));
    spans.extend(repair_spans(&walked("n2", 0, ALL)));
    spans.extend(decision_span(&health("n1", VerdictKind::Held, 0)));
    spans.extend(unresolved_span("Prometheus", Unresolved::Unknown, 1, t(0)));
    spans.extend(unresolved_span("Prometheus", Unresolved::Unknown, 2, t(0)));
    assert_eq!(spans.len(), 17);
    let ids: BTreeSet<_> = spans
        .iter()
        .map(|span| span.span_context.span_id().to_bytes())
        .collect();
    assert_eq!(ids.len(), spans.len());
    assert!(spans.iter().all(|span| span.span_context.is_valid()));
    for bad in [
        "",
        "0",
        "00000000000000000000000000000000",
        "not hex not hex not hex not hex!!",
    ] {
        let mut repair = walked("n1", 0, ALL);
        repair.status.as_mut().unwrap().trace_id = bad.into();
        assert_eq!(repair_spans(&repair), [], "{bad}");
    }
}

#[test]
fn only_what_is_over_has_a_span() {
    for (steps, expect) in [
        (0, &[] as &[&str]),
        (1, &["Quarantine"]),
        (3, &["Quarantine"]),
        (4, &["Quarantine", "Launch"]),
        (5, &["Quarantine", "Launch", "Join"]),
        (10, &["Quarantine", "Launch", "Drain", "Terminate", "Join"]),
    ] {
        let spans = repair_spans(&walked("n1", 0, steps));
        let told: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(told, expect, "{steps}");
    }
}

#[test]
fn a_step_that_failed_is_an_error() {
    let mut repair = walked("n1", 0, 6);
    let budget = "no budget";
    repair::apply(
        &mut repair,
        Change::GiveUp(GaveUp::DrainTimeout, budget.into()),
        1,
        t(99),
    );
    repair::apply(&mut repair, Change::Enter(Phase::NeedsHuman), 1, t(99));
    let spans = repair_spans(&repair);
    let errors: Vec<&str> = spans
        .iter()
        .filter(|span| span.status == Status::error(budget))
        .map(|span| &*span.name)
        .collect();
    assert_eq!(errors, ["Drain", "repair"]);
    let root = spans.last().unwrap();
    let reason = root
        .attributes
        .iter()
        .find(|pair| pair.key.as_str() == "nodemend.reason");
    assert_eq!(reason.unwrap().value.as_str(), "DrainTimeout");
}

#[test]
fn a_decision_is_told_with_its_reasons_and_evidence() {
    let span = decision_span(&health("n1", VerdictKind::Held, 0)).unwrap();
    assert!(span.end_time > span.start_time);
    let told: Vec<_> = span
        .attributes
        .iter()
        .map(|pair| format!("{}={}", pair.key, pair.value))
        .collect();
    assert!(
        told.contains(&"nodemend.verdict=Held".to_owned()),
        "{told:?}"
    );
    assert!(
        told.contains(&"nodemend.reasons=[\"ObserveMode\"]".to_owned()),
        "{told:?}"
    );
    assert_eq!(span.events[0].name, "NodeDiskIOErrors");
    assert_eq!(decision_span(&health("n1", VerdictKind::Healthy, 0)), None);
}

// ---- exports

#[test]
fn each_span_goes_out_once_and_again_from_a_new_process() {
    let (first, out) = collecting();
    for (steps, expect) in [
        (1, &["Quarantine"] as &[&str]),
        (4, &["Launch"]),
        (4, &[]),
        (ALL, &["Drain", "Terminate", "Join", "Verify", "repair"]),
        (ALL, &[]),
    ] {
        first.pass(&pass(120, &[], &[walked("n1", 0, steps)]));
        assert_eq!(names(&first, &out), expect, "{steps}");
    }
    for (now, expect) in [(120, 7), (110 + 600, 7), (110 + 601, 0)] {
        let (second, out) = collecting();
        second.pass(&pass(now, &[], &[walked("n1", 0, ALL)]));
        assert_eq!(names(&second, &out).len(), expect, "{now}");
    }
}

#[test]
fn a_decision_goes_out_when_it_is_made() {
    let (telemetry, out) = collecting();
    let healths = [
        health("n1", VerdictKind::Held, 0),
        health("n2", VerdictKind::Due, 5),
    ];
    for (now, expect) in [(0, 1), (0, 0), (5, 1), (6, 0)] {
        let pass = Pass {
            healths: &healths,
            ..pass(now, &[], &[])
        };
        telemetry.pass(&pass);
        assert_eq!(names(&telemetry, &out).len(), expect, "{now}");
    }
}

#[test]
fn unresolved_signals_are_counted_and_traced_when_they_rise() {
    let (telemetry, out) = collecting();
    let series = "nodemend_unresolved_signals_total{source=\"Prometheus\",reason=\"Ambiguous\"} ";
    // The evidence of a new leader begins anew.
    for (now, count, spans, total) in [(0, 2, 1, 2.), (1, 2, 0, 2.), (2, 5, 1, 5.), (3, 1, 1, 6.)] {
        let unresolved = BTreeMap::from([(("Prometheus", Unresolved::Ambiguous), count)]);
        let pass = Pass {
            unresolved: &unresolved,
            ..pass(now, &[], &[])
        };
        telemetry.pass(&pass);
        assert_eq!(names(&telemetry, &out), vec!["unresolved"; spans]);
        assert_eq!(value(&telemetry, series), Some(total));
    }
}

#[test]
fn what_was_observed_is_counted_as_the_fleet_has_it() {
    let (telemetry, _) = collecting();
    let score = |recovered, went_away| Score {
        policy: "p".into(),
        fault: "F".into(),
        since: t(0),
        recovered,
        recovery_seconds: 60,
        longest_recovery_seconds: 60,
        went_on: 0,
        went_away,
    };
    let is = |outcome: &str| {
        let series =
            format!("nodemend_observed_total{{policy=\"p\",fault=\"F\",outcome=\"{outcome}\"}} ");
        value(&telemetry, &series)
    };
    let check = |scores: &[Score], expect: [Option<f64>; 3]| {
        telemetry.pass(&Pass {
            score: scores,
            ..pass(10, &[], &[])
        });
        let found = ["Recovered", "WentOn", "WentAway"].map(is);
        assert_eq!(found, expect, "{scores:?}");
    };
    check(&[], [None; 3]);
    check(&[score(2, 0)], [Some(2.0), Some(0.0), Some(0.0)]);
    check(&[score(3, 1)], [Some(3.0), Some(0.0), Some(1.0)]);
    // Begun anew, and gone.
    check(&[score(1, 1)], [Some(1.0), Some(0.0), Some(1.0)]);
    check(&[], [None; 3]);
}

#[test]
fn h54_a_collector_that_hangs_costs_spans_and_no_time() {
    let (entered, inside) = channel();
    let (release, gate) = channel::<()>();
    let sink = Box::new(move |_| {
        let _ = entered.send(());
        let _ = gate.recv();
        Ok(())
    });
    let telemetry = with_sink(sink, 10);
    let first = [walked("n0", 0, 1)];
    telemetry.pass(&pass(120, &[], &first));
    inside.recv().unwrap();
    let repairs: Vec<_> = (0..9).map(|n| walked(&format!("n{n}"), 0, ALL)).collect();
    telemetry.pass(&pass(120, &[], &repairs));
    let (all, dropped) = (9. * 7., "nodemend_spans_dropped_total ");
    assert_eq!(value(&telemetry, dropped), Some(all - 1. - 10.));
    assert!(!telemetry.flush(Duration::ZERO));
    drop(release);
    assert!(telemetry.flush(PATIENCE));
    assert_eq!(
        value(&telemetry, "nodemend_spans_exported_total "),
        Some(11.)
    );
    assert_eq!(value(&telemetry, dropped), Some(all - 11.));
}

#[test]
fn spans_that_a_collector_refuses_are_counted() {
    let telemetry = with_sink(Box::new(|_| Err("no".into())), export::CAPACITY);
    telemetry.pass(&pass(120, &[], &[walked("n1", 0, ALL)]));
    assert!(telemetry.flush(PATIENCE));
    assert_eq!(value(&telemetry, "nodemend_spans_dropped_total "), Some(7.));
}

#[test]
fn spans_are_asked_for_by_the_standard_variables() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
    let traces = (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "http://c:4318/v1/traces",
    );
    for (variables, expect) in [
        (&[] as &[(&str, &str)], false),
        (&[endpoint], true),
        (&[traces], true),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], false),
        (&[endpoint, ("OTEL_SDK_DISABLED", "True")], false),
        (&[endpoint, ("OTEL_SDK_DISABLED", "false")], true),
        (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], false),
        (&[endpoint, ("OTEL_TRACES_EXPORTER", "console, otlp")], true),
    ] {
        let read = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(export::wanted(read), expect, "{variables:?}");
    }
}

/// The head and body of a request.
fn request(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap().to_lowercase();
    let (_, length) = head.split_once("content-length: ").unwrap();
    let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

#[test]
fn spans_go_over_the_wire_as_otlp() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", collector.local_addr().unwrap());
    let telemetry = with_sink(
        export::otlp("prod", Some(endpoint), Some(PATIENCE)).unwrap(),
        9,
    );
    telemetry.pass(&pass(120, &[], &[walked("n1", 0, ALL)]));
    let (mut stream, _) = collector.accept().unwrap();
    let (head, body) = request(&mut stream);
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .unwrap();
    assert!(head.starts_with("post /v1/traces "), "{head}");
    let has = |part: &[u8]| body.windows(part.len()).any(|window| window == part);
    let trace = repair_spans(&walked("n1", 0, ALL))[0]
        .span_context
        .trace_id();
    assert!(has(&trace.to_bytes()));
    for part in [
        "Quarantine",
        "service.name",
        "nodemend",
        "k8s.cluster.name",
        "prod",
    ] {
        assert!(has(part.as_bytes()), "{part}");
    }
    drop(collector);
    drop(stream);
    assert!(telemetry.flush(PATIENCE));
}

#[test]
fn h54_a_collector_that_never_answers_is_given_up() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let deadline = Some(Duration::from_millis(20));
    let telemetry = with_sink(export::otlp("prod", Some(endpoint), deadline).unwrap(), 9);
    telemetry.pass(&pass(120, &[], &[walked("n1", 0, 1)]));
    assert!(telemetry.flush(PATIENCE));
    assert_eq!(value(&telemetry, "nodemend_spans_dropped_total "), Some(1.));
}

// ---- events

#[test]
fn what_the_first_pass_shows_is_no_event() {
    let telemetry = Telemetry::silent();
    let held = [verdict("n2", VerdictKind::Held, &[Reason::Paused])];
    for repairs in [walked("n1", 0, ALL), walked("n1", 0, 5)] {
        telemetry.pass(&pass(120, &held, &[repairs]));
        let text = telemetry.encode();
        assert!(!text.contains("nodemend_repairs_started_total{"));
        assert!(!text.contains("nodemend_repairs_finished_total{"));
        assert!(!text.contains("nodemend_repair_step_duration_seconds_count{"));
        let decided = "nodemend_decisions_total{verdict=\"Held\"} ";
        assert_eq!(value(&telemetry, decided), Some(0.));
        telemetry.stepped_down();
        assert_eq!(value(&telemetry, "nodemend_leader "), Some(0.));
    }
}

#[test]
fn transitions_are_counted_once() {
    let telemetry = Telemetry::silent();
    telemetry.pass(&pass(0, &[], &[]));
    assert_eq!(value(&telemetry, "nodemend_leader "), Some(1.));
    for steps in [0, 0, 4, 5, 5, ALL, ALL] {
        telemetry.pass(&pass(120, &[], &[walked("n1", 0, steps)]));
    }
    for (series, expect) in [
        (
            "repairs_started_total{action=\"Replace\",strategy=\"EC2\"} ",
            1.,
        ),
        (
            "repairs_finished_total{action=\"Replace\",strategy=\"EC2\",outcome=\"Succeeded\"} ",
            1.,
        ),
        ("repair_duration_seconds_sum{outcome=\"Succeeded\"} ", 110.),
        ("repair_duration_seconds_count{outcome=\"Succeeded\"} ", 1.),
        (
            "repair_step_duration_seconds_count{step=\"Quarantine\"} ",
            1.,
        ),
        ("repair_step_duration_seconds_sum{step=\"Join\"} ", 10.),
        ("repair_step_duration_seconds_sum{step=\"Verify\"} ", 20.),
        ("repairs_open{phase=\"Draining\"} ", 0.),
    ] {
        assert_eq!(
            value(&telemetry, &format!("nodemend_{series}")),
            Some(expect),
            "{series}"
        );
    }
    let trace = walked("n1", 0, ALL).status.unwrap().trace_id;
    assert!(
        telemetry
            .encode()
            .contains(&format!("# {{trace_id=\"{trace}\"}} 110"))
    );
    // A record that is gone, and one that is new and over at once.
    telemetry.pass(&pass(120, &[], &[walked("n2", 0, ALL)]));
    let finished = "nodemend_repairs_finished_total{action=\"Replace\",strategy=\"EC2\",outcome=\"Succeeded\"} ";
    assert_eq!(value(&telemetry, finished), Some(2.));
}

#[test]
fn verdicts_are_counted_when_they_change() {
    use VerdictKind::{Due, Healthy, Held, Ignored, Unknown};
    let blind = Verdict {
        since: None,
        ..verdict("n1", Unknown, &[Reason::EvidenceUnknown])
    };
    let telemetry = Telemetry::silent();
    telemetry.pass(&pass(0, &[verdict("n1", Healthy, &[])], &[]));
    let mut total = 0.;
    for (verdict, counted) in [
        // A source that is down for all is no news of this node.
        (blind.clone(), 0.),
        (verdict("n1", Ignored, &[]), 0.),
        (verdict("n1", Held, &[Reason::Paused]), 1.),
        (verdict("n1", Held, &[Reason::Paused]), 0.),
        (verdict("n1", Held, &[Reason::Paused, Reason::InFlight]), 1.),
        (blind, 1.),
        (verdict("n1", Due, &[]), 1.),
        (verdict("n1", Healthy, &[]), 1.),
        (verdict("n1", Healthy, &[]), 0.),
    ] {
        total += counted;
        telemetry.pass(&pass(0, std::slice::from_ref(&verdict), &[]));
        let text = telemetry.encode();
        let decisions = text
            .lines()
            .filter(|line| line.starts_with("nodemend_decisions_total{"));
        let sum: f64 = decisions
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum();
        assert!(
            (sum - total).abs() < f64::EPSILON,
            "{verdict:?}: {sum}, not {total}"
        );
    }
}

#[test]
fn nodes_are_counted_by_verdict_and_reason() {
    let telemetry = Telemetry::silent();
    let held = [
        verdict("n1", VerdictKind::Held, &[Reason::Paused, Reason::InFlight]),
        verdict("n2", VerdictKind::Held, &[Reason::Paused]),
        verdict("n3", VerdictKind::Healthy, &[]),
    ];
    telemetry.pass(&pass(0, &held, &[]));
    for (series, expect) in [
        ("nodes{verdict=\"Held\"} ", 2.),
        ("nodes{verdict=\"Due\"} ", 0.),
        ("held_nodes{reason=\"Paused\"} ", 2.),
        ("held_nodes{reason=\"InFlight\"} ", 1.),
    ] {
        assert_eq!(
            value(&telemetry, &format!("nodemend_{series}")),
            Some(expect),
            "{series}"
        );
    }
    telemetry.pass(&pass(1, &[], &[]));
    assert_eq!(
        value(&telemetry, "nodemend_held_nodes{reason=\"Paused\"} "),
        Some(0.)
    );
}

#[test]
fn the_history_shows_the_newest_hundred_as_they_are_now() {
    let telemetry = Telemetry::silent();
    let rows = || {
        let text = telemetry.encode();
        let rows = text
            .lines()
            .filter(|line| line.starts_with("nodemend_repair_info{"));
        rows.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let mut repairs: Vec<_> = (0..150).map(|n| walked(&format!("n{n}"), n, ALL)).collect();
    telemetry.pass(&pass(900, &[], &repairs));
    assert_eq!(rows().len(), 100);
    assert!(rows().iter().all(|row| !row.contains("node=\"n49\"")));
    repairs.push(walked("new", 500, 3));
    telemetry.pass(&pass(900, &[], &repairs));
    assert_eq!(rows().len(), 100);
    assert!(rows().iter().all(|row| !row.contains("node=\"n50\"")));
    repairs.pop();
    repairs.push(walked("new", 500, ALL));
    telemetry.pass(&pass(900, &[], &repairs));
    let new: Vec<_> = rows()
        .into_iter()
        .filter(|row| row.contains("node=\"new\""))
        .collect();
    let trace = repairs
        .last()
        .unwrap()
        .status
        .as_ref()
        .unwrap()
        .trace_id
        .clone();
    let repair = repair::object_name("new", "uid-new", 1);
    let expect = format!(
        "nodemend_repair_info{{repair=\"{repair}\",node=\"new\",policy=\"general\",fault=\"DiskFailing\",\
         phase=\"Succeeded\",action=\"Replace\",strategy=\"EC2\",trace_id=\"{trace}\",started=\"2025-06-15T15:15:00Z\",\
         ended=\"2025-06-15T15:16:50Z\"}} {}",
        t(500).as_second()
    );
    assert_eq!(new, [expect]);
}

#[test]
fn calls_rules_and_webhooks_are_counted() {
    let telemetry = Telemetry::silent();
    telemetry.webhook(503, "Busy", 3, 2);
    telemetry.rule_evaluated(0.1, false);
    telemetry.source_up(Source::Kubernetes, true);
    telemetry.configuration(true, t(0));
    telemetry.configuration(false, t(60));
    telemetry.external_call(System::EC2, CallResult::Timeout);
    for (series, expect) in [
        ("build_info{version=\"0.1.0\"} ", 1.),
        ("webhook_requests_total{code=\"503\",reason=\"Busy\"} ", 1.),
        ("webhook_alerts_total{result=\"Stored\"} ", 3.),
        ("webhook_alerts_total{result=\"Unresolved\"} ", 2.),
        ("rule_evaluations_total{result=\"Error\"} ", 1.),
        ("rule_evaluations_total{result=\"Ok\"} ", 0.),
        ("rule_evaluation_duration_seconds_count ", 1.),
        ("source_up{source=\"Kubernetes\"} ", 1.),
        ("configuration_valid ", 0.),
        (
            "configuration_loaded_seconds ",
            t(0).duration_since(Timestamp::UNIX_EPOCH).as_secs_f64(),
        ),
        ("source_up{source=\"Prometheus\"} ", 0.),
        (
            "external_calls_total{system=\"EC2\",result=\"Timeout\"} ",
            1.,
        ),
        (
            "external_calls_total{system=\"Kubernetes\",result=\"Ok\"} ",
            0.,
        ),
    ] {
        assert_eq!(
            value(&telemetry, &format!("nodemend_{series}")),
            Some(expect),
            "{series}"
        );
    }
    assert!(telemetry.flush(Duration::ZERO));
}

#[test]
fn each_event_is_one_line() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&lines);
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(move || Lines(Arc::clone(&writer)))
        .finish();
    let held = [verdict(
        "n1",
        VerdictKind::Held,
        &[Reason::Paused, Reason::InFlight],
    )];
    let run = || {
        let telemetry = Telemetry::silent();
        telemetry.pass(&pass(0, &[], &[]));
        for _ in 0..2 {
            telemetry.pass(&pass(120, &held, &[walked("n1", 0, ALL)]));
        }
    };
    tracing::subscriber::with_default(subscriber, || {
        // A test beside this one may have met a log line first, when nobody listened.
        run();
        tracing::callsite::rebuild_interest_cache();
        lines.lock().unwrap().clear();
        run();
    });
    let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    let told: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let messages: Vec<_> = told
        .iter()
        .map(|line| line["message"].as_str().unwrap())
        .collect();
    let steps = ["step concluded"; 6];
    let expect = [
        &["verdict changed", "repair started"],
        &steps[..],
        &["repair ended"],
    ]
    .concat();
    assert_eq!(messages, expect);
    assert_eq!(told[0]["reasons"], "Paused,InFlight");
    assert_eq!(told[2]["step"], "Quarantine");
    assert_eq!(told[8]["phase"], "Succeeded");
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// ---- the dashboard

#[test]
fn the_dashboard_finds_every_metric_and_label_that_it_asks_for() {
    let telemetry = Telemetry::silent();
    telemetry.pass(&pass(0, &[], &[]));
    let unresolved = BTreeMap::from([(("Prometheus", Unresolved::Unknown), 1)]);
    let repairs = [walked("n1", 0, ALL)];
    telemetry.pass(&Pass {
        unresolved: &unresolved,
        ..pass(120, &[], &repairs)
    });
    telemetry.webhook(200, "Ok", 1, 0);
    let text = telemetry.encode();
    let file = include_str!("../../dashboards/repair-history.json");
    let mut queries = Vec::new();
    expressions(&serde_json::from_str(file).unwrap(), &mut queries);
    assert!(queries.len() > 10);
    for query in &queries {
        let mut series = Vec::new();
        for (start, _) in query.match_indices("nodemend_") {
            let rest = &query[start..];
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let of = |line: &&str| {
                line.strip_prefix(&rest[..end])
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            let found: Vec<&str> = text.lines().filter(of).collect();
            assert!(!found.is_empty(), "{}: {query}", &rest[..end]);
            let selector = rest[end..]
                .strip_prefix('{')
                .and_then(|rest| rest.split_once('}'));
            let chosen = selector.is_none_or(|(selector, _)| {
                let (name, values) = selector.split_once('=').unwrap();
                let values = values.trim_matches(['~', '"']);
                let fits = |value: &str| {
                    let pair = format!("{name}=\"{value}\"");
                    found.iter().any(|line| line.contains(&pair))
                };
                values.split('|').any(fits)
            });
            // No repair of this test needs a person.
            assert!(chosen || query.contains("\"NeedsHuman\""), "{query}");
            series.extend(found);
        }
        for by in query.split("by (").skip(1) {
            for name in by.split(')').next().unwrap().split(", ") {
                let label = format!("{name}=\"");
                assert!(
                    series.iter().any(|line| line.contains(&label)),
                    "{name}: {query}"
                );
            }
        }
    }
}

/// Every value of a key `expr`.
fn expressions(json: &serde_json::Value, found: &mut Vec<String>) {
    match json {
        serde_json::Value::Object(fields) => {
            found.extend(
                fields
                    .get("expr")
                    .and_then(|expr| expr.as_str())
                    .map(ToOwned::to_owned),
            );
            fields.values().for_each(|value| expressions(value, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}
