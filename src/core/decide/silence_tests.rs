//! What silences do to verdicts and to repairs under way.

use serde_json::json;

use super::*;
use crate::config::{self, Document};
use crate::evidence::silence::{Asked, AskedAlert, Matcher, Silence, WATCHDOG};
use crate::evidence::{Input, identity::Labels};

const POLICY: &str = "
apiVersion: nodemend.dev/v1alpha1
kind: RepairPolicy
metadata: {name: p}
spec:
  mode: Enforce
  nodeSelector: {}
  faults:
  - name: Disk
    severity: Critical
    when: {all: [{signal: A}]}
    for: 60s
    actions: [Replace]
  - name: Nic
    when: {all: [{signal: B}]}
    for: 60s
    actions: [Replace]
  replacement: {strategy: EC2}
";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).expect("in range")
}

fn policies() -> Vec<Policy> {
    let document = Document {
        file: "p",
        text: POLICY,
    };
    config::policies(&[document]).expect("it is valid")
}

/// At this time these alerts fire on the node, and these are silenced from 100 to 200.
fn look(evidence: &mut Evidence, now: i64, firing: &[&str], silenced: &[&str]) {
    let node = NodeView {
        name: "a".into(),
        uid: "u".into(),
        provider_id: "aws:///z/i-1".into(),
        created: at(-1000),
        ..NodeView::default()
    };
    let alert = |name: &&str| AskedAlert {
        fingerprint: (*name).to_owned(),
        labels: Labels::from([
            ("alertname".into(), (*name).to_owned()),
            ("node".into(), "a".into()),
        ]),
        starts_at: at(0),
        updated_at: at(now),
    };
    let silence = |name: &&str| Silence {
        id: format!("of-{name}"),
        created_by: "ann".into(),
        starts_at: at(100),
        ends_at: at(200),
        holds: (100..200).contains(&now),
        matchers: vec![Matcher::new("alertname", name, false, true)],
    };
    evidence.fold(Input::Nodes(vec![node]), at(now));
    let asked = Asked {
        at: at(now),
        running_since: at(-1000),
        receivers: Vec::new(),
        missing: None,
        alerts: firing.iter().map(alert).collect(),
        silences: silenced.iter().map(silence).collect(),
    };
    evidence.fold(Input::Asked(asked), at(now));
    evidence.settle(&Rules::default(), &policies(), at(now));
}

fn with_world<T>(evidence: &Evidence, ask: impl FnOnce(&World<'_>) -> T) -> T {
    ask(&World {
        evidence,
        rules: &Rules::default(),
        policies: &policies(),
        limits: &Limits::default(),
        repairs: &[],
        fallen: &[],
        starts: &[],
        reserved: &[],
        pauses: &[],
        observed: Observed::default(),
    })
}

fn verdict(evidence: &Evidence, now: i64) -> Verdict {
    let node = evidence.node("a").expect("folded");
    with_world(evidence, |world| judge(node, world, at(now)))
}

#[test]
fn h84_a_silence_holds_names_itself_and_leaves_the_clock_alone() {
    let mut evidence = Evidence::default();
    for (now, kind) in [
        (0, VerdictKind::Pending),
        (50, VerdictKind::Pending),
        (70, VerdictKind::Due),
        (110, VerdictKind::Held),
        (190, VerdictKind::Held),
        (200, VerdictKind::Due),
    ] {
        look(&mut evidence, now, &["A"], &["A"]);
        let verdict = verdict(&evidence, now);
        assert_eq!((verdict.kind, verdict.since), (kind, Some(at(0))), "{now}");
        let held = kind == VerdictKind::Held;
        assert_eq!(verdict.reasons == [Reason::Silenced], held, "{now}");
        let ids: Vec<&str> = verdict.silences.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, if held { &["of-A"][..] } else { &[] }, "{now}");
    }
}

#[test]
fn h59_a_fault_that_rests_on_a_suspended_rule_says_so() {
    for (firing, expect) in [
        (
            &["A"][..],
            (VerdictKind::Unknown, vec![Reason::RuleSuspended]),
        ),
        (&["A", "B"], (VerdictKind::Due, vec![])),
    ] {
        let mut evidence = Evidence::default();
        let (joined, suspended) = (Vec::new(), vec!["A".to_owned()]);
        evidence.fold(Input::Led { joined, suspended }, at(0));
        for now in [0, 60, 120] {
            look(&mut evidence, now, firing, &[]);
        }
        let found = verdict(&evidence, 120);
        assert_eq!((found.kind, found.reasons), expect, "{firing:?}");
        let inputs = found.inputs.expect("not plainly healthy");
        let suspended: Vec<bool> = inputs.faults.iter().map(|one| one.suspended).collect();
        assert_eq!(suspended, [true, false]);
    }
}

#[test]
fn signals_are_told_of_nodes_that_are_watched_or_not_well() {
    let told = |evidence: &Evidence, now| {
        let found = verdict(evidence, now);
        (found.kind, found.signals.len())
    };
    let mut evidence = Evidence::default();
    look(&mut evidence, 0, &[WATCHDOG], &[]);
    assert_eq!(told(&evidence, 0), (VerdictKind::Healthy, 0));
    // Nobody answers.
    assert_eq!(told(&evidence, 300), (VerdictKind::Unknown, 2));
    // It fired a moment ago.
    look(&mut evidence, 30, &[WATCHDOG, "A"], &[]);
    look(&mut evidence, 60, &[WATCHDOG], &[]);
    assert_eq!(told(&evidence, 60), (VerdictKind::Healthy, 2));
}

#[test]
fn a_fault_that_no_silence_holds_goes_before_one_that_is_held() {
    let mut evidence = Evidence::default();
    for now in [60, 130] {
        look(&mut evidence, now, &["A", "B"], &["A"]);
    }
    let found = verdict(&evidence, 130);
    assert_eq!(
        (found.kind, found.fault.as_str()),
        (VerdictKind::Due, "Nic")
    );
    look(&mut evidence, 140, &["A", "B"], &["A", "B"]);
    let found = verdict(&evidence, 140);
    assert_eq!(
        (found.kind, found.fault.as_str()),
        (VerdictKind::Held, "Disk")
    );
}

#[test]
fn h85_an_alert_that_another_inhibits_is_still_due() {
    // Alertmanager lists it as suppressed, like a silenced one; only a silence is a veto.
    let mut evidence = Evidence::default();
    for now in [0, 60] {
        look(&mut evidence, now, &["A"], &[]);
    }
    assert_eq!(verdict(&evidence, 60).kind, VerdictKind::Due);
}

/// A repair that is about to launch.
fn running() -> NodeRepair {
    let intent =
        json!({"step": "Quarantine", "attempt": 1, "at": at(70), "epoch": 1, "nonce": "n"});
    serde_json::from_value(json!({
        "apiVersion": "nodemend.dev/v1alpha1", "kind": "NodeRepair", "metadata": {"name": "r"},
        "spec": {
            "nodeName": "a", "nodeUid": "u", "providerId": "aws:///z/i-1", "ordinal": 1, "policy": "p",
            "fault": "Disk", "faultSince": at(0), "epoch": 1, "quarantine": intent,
            "evidence": [{"name": "A", "state": "Firing", "since": at(0)}],
            "plan": {
                "strategy": "EC2", "instanceId": "i-1", "readyTimeout": "15m", "maxAttempts": 2, "drainTimeout": "15m",
                "launch": {"template": {"id": "lt-1", "version": "1"}, "subnet": "s", "instanceType": "t", "clusterTag": "c"},
            },
        },
        "status": {
            "phase": "Quarantined", "epoch": 1,
            "journal": [{"intent": intent, "outcome": {"at": at(71), "done": true}}],
        },
    }))
    .expect("a repair")
}

/// Why the repair pauses.
fn paused(evidence: &Evidence, now: i64) -> Option<Reason> {
    paused_one(evidence, &running(), now)
}

fn paused_one(evidence: &Evidence, repair: &NodeRepair, now: i64) -> Option<Reason> {
    let node = evidence.node("a");
    with_world(evidence, |world| {
        let scopes = survey(&[], world, at(now));
        pause_reason(node, repair, world, &scopes, at(now))
    })
}

#[test]
fn h12_a_silence_pauses_a_running_repair() {
    let mut evidence = Evidence::default();
    look(&mut evidence, 70, &["A"], &["A"]);
    assert_eq!(paused(&evidence, 70), None);
    look(&mut evidence, 100, &["A"], &["A"]);
    assert_eq!(paused(&evidence, 100), Some(Reason::Silenced));
    look(&mut evidence, 200, &["A"], &["A"]);
    assert_eq!(paused(&evidence, 200), None);
}

#[test]
fn h12_a_running_repair_stays_paused_when_the_silenced_alert_ends() {
    let mut evidence = Evidence::default();
    for (now, firing, expect) in [
        (70, &[WATCHDOG, "A"][..], None),
        (100, &[WATCHDOG, "A"], Some(Reason::Silenced)),
        (130, &[WATCHDOG], Some(Reason::Silenced)),
        (190, &[WATCHDOG], Some(Reason::Silenced)),
        (200, &[WATCHDOG], None),
    ] {
        look(&mut evidence, now, firing, &["A"]);
        assert_eq!(paused(&evidence, now), expect, "{now}");
    }
}

#[test]
fn h12_a_repair_begins_no_drain_while_silences_are_unknown() {
    let unknown = Some(Reason::SilencesUnknown);
    let mut evidence = Evidence::default();
    look(&mut evidence, 70, &["A"], &[]);
    let later = |step: &str| {
        let mut repair = serde_json::to_value(running()).expect("a repair");
        let mut entry = repair["status"]["journal"][0].clone();
        entry["intent"]["step"] = json!(step);
        let journal = repair["status"]["journal"].as_array_mut();
        journal.expect("a list").push(entry);
        serde_json::from_value(repair).expect("a repair")
    };
    let mut asked_for = running();
    asked_for.spec.request = serde_json::from_value(json!({
        "uid": "u", "by": "ann", "reason": "r", "at": at(60), "until": at(600), "override": ["SilencesUnknown"],
    }))
    .expect("a request");
    for (repair, expect) in [
        (running(), unknown),
        (later("Launch"), unknown),
        // From here on the fault is latched.
        (later("Drain"), None),
        (later("Reboot"), None),
        (later("Terminate"), None),
        (asked_for, None),
    ] {
        assert_eq!(paused_one(&evidence, &repair, 190), None);
        assert_eq!(paused_one(&evidence, &repair, 191), expect);
    }
    // A new leader that it does not answer.
    let mut evidence = Evidence::default();
    let node = NodeView {
        name: "a".into(),
        ..NodeView::default()
    };
    evidence.fold(Input::Nodes(vec![node]), at(0));
    assert_eq!(paused(&evidence, 0), None, "nobody asks");
    evidence.fold(Input::AskFailed("refused".into()), at(0));
    assert_eq!(paused(&evidence, 0), unknown);
}
