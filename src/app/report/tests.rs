//! Reports by example: records as the API server gives them, and what a person reads.

use nodemend_core::model::{Condition, NodeView};
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "every caller makes it for this"
)]
fn object<T: serde::de::DeserializeOwned>(kind: &str, name: &str, rest: Value) -> T {
    let mut value = json!({
        "apiVersion": "nodemend.dev/v1alpha1", "kind": kind, "metadata": {"name": name},
    });
    for (key, part) in rest.as_object().unwrap() {
        value[key] = part.clone();
    }
    serde_json::from_value(value).unwrap()
}

/// The status of a policy object that was answered so.
fn answered(accepted: &str, reason: &str, message: &str) -> Value {
    json!({"conditions": [{"type": "Accepted", "status": accepted, "reason": reason, "message": message,
        "lastTransitionTime": NOW}]})
}

fn node(name: &str) -> NodeView {
    NodeView {
        name: name.into(),
        uid: format!("uid-{name}"),
        conditions: vec![Condition {
            type_: "Ready".into(),
            status: "True".into(),
            reason: "KubeletReady".into(),
        }],
        ..NodeView::default()
    }
}

fn repair(name: &str, phase: &str) -> NodeRepair {
    let ended = matches!(phase, "Succeeded" | "Aborted").then_some("2026-01-01T11:10:00Z");
    object(
        "NodeRepair",
        name,
        json!({
            "spec": {
                "nodeName": "a-9", "nodeUid": "uid-a-9", "providerId": "", "ordinal": 1,
                "policy": "general", "fault": "ByHand", "faultSince": "2026-01-01T11:00:00Z",
                "evidence": [], "epoch": 3,
                "request": {"uid": "uid-a-9", "at": "2026-01-01T11:00:00Z", "until": "2026-01-01T11:15:00Z",
                    "by": "eve", "reason": "smells\u{1b}[31m"},
                "plan": {"strategy": "EC2", "instanceId": "i-1", "readyTimeout": "15m", "maxAttempts": 2,
                    "drainTimeout": "15m",
                    "launch": {"template": {"id": "lt-1", "version": "1"}, "subnet": "s", "instanceType": "m",
                        "clusterTag": "t"}},
                "quarantine": {"step": "Quarantine", "attempt": 1, "at": "2026-01-01T11:00:01Z", "epoch": 3,
                    "nonce": "n"},
            },
            "status": {"epoch": 3, "phase": phase, "ended": ended,
                "replacement": {"instanceId": "i-2", "nodeName": "a-10"}},
        }),
    )
}

/// A Lease that `nodemend-0` renewed then.
fn held(renewed: &str) -> Lead {
    Lead::Lease {
        holder: "nodemend-0".into(),
        renewed: Some(renewed.parse().unwrap()),
        duration: Span::seconds(15),
    }
}

fn records() -> Records {
    let sick: NodeHealth = object(
        "NodeHealth",
        "node-1",
        json!({
            "spec": {"nodeName": "a-1", "nodeUid": "uid-a-1"},
            "status": {
                "verdict": "Held", "fault": "DiskFailing", "policy": "general",
                "reasons": ["Paused", "Budget"], "scopes": ["budget/general/zone/zone/a"],
                "since": "2026-01-01T11:56:00Z", "traceId": "t",
                "signals": [
                    {"name": "NodeDiskIOErrors", "state": "Firing", "since": "2026-01-01T11:41:00Z"},
                    {"name": "NodeFilesystemReadOnly", "state": "Clear"},
                    {"name": "NodeNetworkReceiveErrs", "state": "Unknown", "since": "2026-01-01T11:00:00Z",
                        "paused": "2026-01-01T11:30:00Z"},
                ],
                "faults": [
                    {"policy": "general", "fault": "DiskFailing", "since": "2026-01-01T11:41:00Z"},
                    {"policy": "general", "fault": "NicFailing", "since": "2026-01-01T11:00:00Z",
                        "paused": "2026-01-01T11:30:00Z"},
                ],
                "decisions": [
                    {"at": "2026-01-01T11:41:00Z", "verdict": "Pending", "fault": "DiskFailing",
                        "since": "2026-01-01T11:41:00Z",
                        "inputs": {"policy": "general", "faults": [
                            {"name": "DiskFailing", "truth": "True", "since": "2026-01-01T11:41:00Z", "for": "10m",
                                "severity": "Critical"}]}},
                    {"at": "2026-01-01T11:56:00Z", "verdict": "Held", "fault": "DiskFailing",
                        "since": "2026-01-01T11:41:00Z", "reasons": ["Paused", "Budget"],
                        "inputs": {"policy": "general", "faults": [
                            {"name": "DiskFailing", "truth": "True", "since": "2026-01-01T11:41:00Z", "for": "10m",
                                "severity": "Critical"},
                            {"name": "NotReady", "truth": "Unknown", "for": "5m"}],
                            "guards": [{"scope": "budget/general/zone/zone/a", "reason": "Budget", "limit": 1,
                                "current": 1}]}},
                ],
            },
        }),
    );
    let fleet = object(
        "FleetState",
        "fleet",
        json!({"spec": {
            "epoch": 4,
            "sourcesDown": [{"source": "rule/R", "since": "2026-01-01T11:59:00Z", "message": "no\nanswer"}],
            "guards": [
                {"scope": "budget/general/zone/zone/a", "reason": "Budget", "limit": 1, "current": 2,
                    "until": "2026-01-01T12:30:00Z"},
                {"scope": "window/general", "reason": "OutsideWindow", "limit": 0, "current": 0,
                    "until": "2026-01-02T02:00:00Z"},
            ],
            "score": [
                {"policy": "batch", "fault": "NotReady", "since": "2026-01-01T02:00:00Z", "recovered": 3,
                    "recoverySeconds": 540, "longestRecoverySeconds": 420, "wentOn": 1, "wentAway": 0},
                {"policy": "batch", "fault": "Slow", "since": "2026-01-01T03:00:00Z", "recovered": 0,
                    "recoverySeconds": 0, "longestRecoverySeconds": 0, "wentOn": 0, "wentAway": 2},
            ],
        }}),
    );
    let pause = |name: &str, rest: Value| object("RepairPause", name, json!({"spec": rest}));
    let policy = object(
        "RepairPolicy",
        "general",
        json!({"spec": {
            "faults": [{"name": "NicFailing", "when": {"all": [{"signal": "S"}]}, "for": "20m"}],
        }, "status": answered("True", "Valid", "")}),
    );
    Records {
        healths: vec![sick],
        fleet: Some(fleet),
        repairs: vec![repair("a-9-1", "Succeeded"), repair("a-9-2", "Draining")],
        policies: vec![policy],
        pauses: vec![
            pause(
                "pause-1",
                json!({"reason": "upgrade", "until": "2026-01-01T14:00:00Z"}),
            ),
            pause(
                "pause-2",
                json!({"reason": "over", "until": "2026-01-01T11:00:00Z"}),
            ),
            pause(
                "pause-3",
                json!({"reason": "other", "policy": "other",
                "nodeSelector": {"matchLabels": {"zone": "b"}}}),
            ),
        ],
        nodes: Some(vec![node("a-1"), node("a-2")]),
        lead: held("2026-01-01T11:59:58Z"),
    }
}

#[test]
fn a_held_node_is_explained_with_its_numbers() {
    let told = explain("a-1", Some(&node("a-1")), &records(), now()).unwrap();
    let expect = "\
a-1 is Held: Paused, Budget
  since 2026-01-01T11:56:00Z (4m), fault DiskFailing, policy general

held
  Paused (pause-1: upgrade)
    until the pause ends, or `nodemend resume`; by time 2026-01-01T14:00:00Z (in 2h)
  Budget budget/general/zone/zone/a: 2, 1 allowed
    until the policy's budget has room again; by time 2026-01-01T12:30:00Z (in 30m)

faults
  DiskFailing  true     for 19m of 10m, since 2026-01-01T11:41:00Z  Critical
  NicFailing   unknown  for 30m of 20m, since 2026-01-01T11:00:00Z  Warning
  NotReady     unknown  of 5m                                       Warning

signals
  NodeDiskIOErrors        firing   since 2026-01-01T11:41:00Z (19m)
  NodeFilesystemReadOnly  clear
  NodeNetworkReceiveErrs  unknown  fired since 2026-01-01T11:00:00Z, not known since 2026-01-01T11:30:00Z (30m)

sources that do not answer, for all nodes
  rule/R  2026-01-01T11:59:00Z (1m)  no\u{fffd}answer

decisions
  2026-01-01T11:56:00Z  Held     DiskFailing  Paused, Budget; budget/general/zone/zone/a 1 of 1
  2026-01-01T11:41:00Z  Pending  DiskFailing
";
    assert_eq!(told.to_string(), expect);
    let json = serde_json::to_value(&told).unwrap();
    assert_eq!(json["verdict"], "Held");
    assert_eq!(json["holds"][1]["scope"], "budget/general/zone/zone/a");
    assert_eq!(json["holds"][1]["current"], 2);
    assert_eq!(json["holds"][0]["overridable"], false);
    assert_eq!(json["faults"][0]["lasted"], "19m");
    assert_eq!(json["decisions"][1]["inputs"]["guards"][0]["current"], 1);
}

#[test]
fn who_asked_is_told_what_could_be_ignored() {
    let told = explain("a-1", Some(&node("a-1")), &records(), now()).unwrap();
    let text = hold_by_hand(&told);
    assert!(
        text.contains("  Budget budget/general/zone/zone/a: 2, 1 allowed\n"),
        "{text}"
    );
    assert!(
        text.ends_with("ignored with --override Budget, but for Paused\n"),
        "{text}"
    );
}

#[test]
fn a_node_without_record_is_told_from_one_that_is_not_there() {
    let records = records();
    let well = explain("a-2", Some(&node("a-2")), &records, now()).unwrap();
    assert_eq!(well.verdict, None);
    let text = well.to_string();
    assert!(
        text.starts_with("a-2 is on no record: nothing is known against it\n"),
        "{text}"
    );
    assert!(text.contains("rule/R"), "{text}");
    assert_eq!(explain("a-2", None, &records, now()), None);
    // Its repairs tell of one that was replaced.
    let gone = explain("a-9", None, &records, now()).unwrap();
    assert_eq!(gone.repairs.len(), 2);
    // A reborn node is another: the record of the old one says nothing of it.
    let mut reborn = node("a-1");
    reborn.uid = "other".into();
    assert_eq!(
        explain("a-1", Some(&reborn), &records, now())
            .unwrap()
            .verdict,
        None
    );
}

#[test]
fn a_node_that_is_not_ready_and_on_no_record_is_not_called_well() {
    let mut sick = node("a-2");
    sick.conditions[0].status = "Unknown".into();
    let told = explain("a-2", Some(&sick), &records(), now()).unwrap();
    let text = told.to_string();
    assert!(
        text.starts_with("a-2 is on no record, though not Ready\n"),
        "{text}"
    );
    assert_eq!(serde_json::to_value(&told).unwrap()["ready"], false);
}

#[test]
fn a_fault_that_is_clearing_is_not_called_true() {
    let mut records = records();
    let status = records.healths[0].status.as_mut().unwrap();
    status.faults[0].clearing_since = Some("2026-01-01T11:59:00Z".parse().unwrap());
    let told = explain("a-1", Some(&node("a-1")), &records, now()).unwrap();
    let text = told.to_string();
    let line = "  DiskFailing  false    since 2026-01-01T11:59:00Z (1m), over after 2m of that; \
                was true for 18m of 10m, since 2026-01-01T11:41:00Z  Critical\n";
    assert!(text.contains(line), "{text}");
    let json = serde_json::to_value(&told).unwrap();
    assert_eq!(json["faults"][0]["truth"], "False");
    assert_eq!(json["faults"][0]["clearingSince"], "2026-01-01T11:59:00Z");
    assert!(json["faults"][1].get("clearingSince").is_none(), "{json}");
}

#[test]
fn that_nobody_leads_is_told_first() {
    let since = "no leader since 2026-01-01T11:59:14Z (46s): nothing is decided or repaired, \
                 what follows is as of then";
    // Given back, it need not run out.
    let given_back = Lead::Lease {
        holder: String::new(),
        renewed: Some("2026-01-01T11:59:50Z".parse().unwrap()),
        duration: Span::seconds(15),
    };
    let nowhere = Lead::NoLease("elsewhere".into());
    let check = |lead: &Lead, expect: Option<&str>, leader: &str| {
        let mut records = records();
        records.lead = lead.clone();
        let explained = explain("a-1", Some(&node("a-1")), &records, now()).unwrap();
        let fleet = status(&records, now());
        let texts = [explained.to_string(), fleet.to_string()];
        for text in &texts {
            assert_eq!(text.starts_with("no leader"), expect.is_some(), "{text}");
            assert!(text.starts_with(expect.unwrap_or_default()), "{text}");
        }
        assert!(texts[1].contains(&format!("leader  {leader}")), "{texts:?}");
        let explained = serde_json::to_value(&explained).unwrap();
        let fleet = serde_json::to_value(&fleet).unwrap();
        assert_eq!(explained["noLeader"], fleet["noLeader"]);
        fleet["noLeader"].clone()
    };
    let led = "nodemend-0, epoch 4, renewed";
    let at = json!({"since": "2026-01-01T11:59:14Z"});
    assert_eq!(check(&held("2026-01-01T11:59:14Z"), Some(since), led), at);
    let since = "no leader since 2026-01-01T11:59:50Z (10s)";
    let at = json!({"since": "2026-01-01T11:59:50Z"});
    assert_eq!(check(&given_back, Some(since), "none, epoch 4"), at);
    let told = check(&nowhere, Some("no leader: namespace elsewhere"), "none");
    assert_eq!(told, json!({"namespace": "elsewhere"}));
    // In time but for half a minute, as clocks differ; and what may not be read says nothing.
    check(&held("2026-01-01T11:59:15Z"), None, led);
    check(&Lead::Unknown, None, "not known");
}

#[test]
fn why_a_node_is_left_alone_is_told() {
    let policy = |name: &str, priority: i32, rest: Value| {
        let mut spec = json!({
            "priority": priority, "nodeSelector": {"matchLabels": {"workload": "batch"}},
            "faults": [{"name": "F", "when": {"all": [{"signal": "S"}]}}],
        });
        spec["controlPlane"] = rest["controlPlane"].as_bool().unwrap_or_default().into();
        let parts = json!({"spec": spec, "status": rest["status"]});
        object::<RepairPolicy>("RepairPolicy", name, parts)
    };
    let of = |name: &str, priority: i32, accepted: &str, reason: &str, message: &str| {
        let status = answered(accepted, reason, message);
        policy(name, priority, json!({"status": status}))
    };
    let mut master = node("a-2");
    let batch = ("workload".to_owned(), "batch".to_owned());
    let role = ("node-role.kubernetes.io/control-plane", "");
    let mut worker = node("a-2");
    worker.labels = [batch.clone()].into();
    master.labels = [batch, (role.0.into(), role.1.into())].into();
    let check = |node: &NodeView, policies: Vec<RepairPolicy>, expect: &str, why: &str| {
        let records = Records {
            policies,
            ..Records::default()
        };
        let told = explain("a-2", Some(node), &records, now()).unwrap();
        let expect = match expect {
            "" => "a-2 is on no record: nothing is known against it\n".into(),
            some => format!("a-2 is on no record\n  {some}\n"),
        };
        assert_eq!(told.to_string(), expect);
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(json["leftAlone"]["why"].as_str().unwrap_or_default(), why);
    };
    let good = || of("good", 1, "True", "Valid", "");
    let bad = |priority| {
        let mistakes = "spec.faults: empty; spec.mode: unknown";
        of("bad", priority, "False", "Invalid", mistakes)
    };
    let refused =
        "RepairPolicy bad selects it and is refused: spec.faults: empty; spec.mode: unknown";
    check(&worker, vec![good()], "", "");
    check(&worker, vec![bad(1)], refused, "PolicyRefused");
    check(&worker, vec![good(), bad(2)], refused, "PolicyRefused");
    check(&worker, vec![bad(1), good()], refused, "PolicyRefused");
    check(&worker, vec![good(), bad(0)], "", "");
    // A file has its name: it speaks for no node.
    let named = || {
        of(
            "named",
            7,
            "False",
            "NameTaken",
            "a policy file has this name",
        )
    };
    check(&worker, vec![named(), good()], "", "");
    let why = "RepairPolicy named selects it and is refused: a policy file has this name";
    check(&worker, vec![named()], why, "PolicyRefused");
    let fresh = policy("fresh", 1, json!({"status": {"conditions": []}}));
    let why = "RepairPolicy fresh selects it and is not accepted yet";
    check(&worker, vec![fresh], why, "PolicyNotAccepted");
    let why = "it is of the control plane, which RepairPolicy good leaves alone \
               (controlPlane: true opts it in)";
    check(&master, vec![good()], why, "ControlPlane");
    let opted = json!({"controlPlane": true, "status": answered("True", "Valid", "")});
    check(&master, vec![policy("all", 1, opted)], "", "");
    let why = "no RepairPolicy object selects it; policies from files are not seen from here";
    let told = explain("a-2", Some(&node("a-2")), &Records::default(), now()).unwrap();
    assert_eq!(
        told.left_alone, None,
        "a file may speak for one that is well"
    );
    let mut sick = node("a-2");
    sick.conditions[0].status = "False".into();
    let told = explain("a-2", Some(&sick), &Records::default(), now()).unwrap();
    assert_eq!(told.left_alone, Some(LeftAlone::NoPolicy));
    assert!(told.to_string().contains(why), "{told}");

    // A policy that was told of is in a file.
    let mut records = records();
    records.policies.clear();
    let told = |records: &Records| {
        let told = explain("a-1", Some(&node("a-1")), records, now()).unwrap();
        told.left_alone
    };
    assert_eq!(told(&records), None);
    let status = records.healths[0].status.as_mut().unwrap();
    status.verdict = nodemend_core::model::VerdictKind::Ignored;
    assert_eq!(told(&records), Some(LeftAlone::NoPolicy));
}

#[test]
fn the_fleet_is_told_in_one_look() {
    let told = status(&records(), now());
    let expect = "\
leader  nodemend-0, epoch 4, renewed 2026-01-01T11:59:58Z (2s)
nodes   1 Held

paused
  pause-1  all nodes             2 nodes  until 2026-01-01T14:00:00Z  upgrade
  pause-3  zone=b, policy other  0 nodes  until it is resumed         other

sources that do not answer
  rule/R  2026-01-01T11:59:00Z (1m)  no\u{fffd}answer

guards that hold nodes, and breakers that are not closed
  Budget         budget/general/zone/zone/a  2, 1 allowed until 2026-01-01T12:30:00Z
  OutsideWindow  window/general              until 2026-01-02T02:00:00Z

open repairs
  2026-01-01T11:00:01Z (59m59s)  a-9  ByHand  a-9-2  Draining, replaced by a-10, asked for by eve: smells\u{fffd}[31m

last repairs
  2026-01-01T11:00:01Z (took 9m59s)  a-9  ByHand  a-9-1  Succeeded, replaced by a-10, asked for by eve: smells\u{fffd}[31m

only observed: what became of it without a repair
  batch  NotReady  3 recovered (after 3m, at most 7m), 1 went on, 0 went away  since 2026-01-01T02:00:00Z
  batch  Slow      0 recovered, 0 went on, 2 went away                         since 2026-01-01T03:00:00Z
";
    assert_eq!(told.to_string(), expect);
    let json = serde_json::to_value(&told).unwrap();
    assert_eq!(json["verdicts"], json!({"Held": 1}));
    assert_eq!(json["open"][0]["name"], "a-9-2");
    assert!(json.get("noLeader").is_none(), "{json}");
    let none = status(&Records::default(), now());
    assert_eq!(
        none.to_string(),
        "leader  not known, no leader yet\nnodes   none on record\n"
    );
}

#[test]
fn a_pause_tells_how_many_nodes_it_covers() {
    let mut records = records();
    let labelled = |name: &str, workload: &str| NodeView {
        labels: [("workload".to_owned(), workload.to_owned())].into(),
        ..node(name)
    };
    records.nodes = Some(vec![
        labelled("a", "general"),
        labelled("b", "general"),
        labelled("c", "batch"),
    ]);
    let batch = json!({"spec": {
        "priority": 5, "nodeSelector": {"matchLabels": {"workload": "batch"}},
        "faults": [{"name": "F", "when": {"all": [{"signal": "S"}]}}],
    }});
    records
        .policies
        .push(object("RepairPolicy", "batch", batch));
    let count = |records: &Records, rest: Value| {
        let spec = json!({"reason": "r", "policy": rest["policy"], "nodeSelector": {"matchLabels": rest["of"]}});
        covered(&serde_json::from_value(spec).unwrap(), records)
    };
    for (pause, expect) in [
        (json!({"of": {}}), Some(3)),
        (json!({"of": {"workload": "general"}}), Some(2)),
        (json!({"of": {"workload": "generall"}}), Some(0)),
        // The policy of the higher priority speaks for the third node.
        (json!({"of": {}, "policy": "general"}), Some(2)),
        (json!({"of": {}, "policy": "batch"}), Some(1)),
        (
            json!({"of": {"workload": "general"}, "policy": "batch"}),
            Some(0),
        ),
        (json!({"of": {}, "policy": "genral"}), Some(0)),
    ] {
        assert_eq!(count(&records, pause.clone()), expect, "{pause}");
    }
    // One in a file is on no record, but for what came of it.
    records.policies.clear();
    assert_eq!(
        count(&records, json!({"of": {}, "policy": "general"})),
        None
    );
    records.nodes = None;
    assert_eq!(count(&records, json!({"of": {}})), None);
    assert_eq!(nodes(None), "how many nodes is not known");
}

#[test]
fn what_waits_for_approval_is_told_and_why_an_old_one_does_not_count() {
    let mut records = records();
    let status = records.healths[0].status.as_mut().unwrap();
    status.reasons = vec![Reason::AwaitingApproval];
    let last = status.decisions.last_mut().unwrap();
    last.inputs.faults[0].action = Some(nodemend_core::api::Action::Reboot);
    let mut node = node("a-1");
    let told = |node: &NodeView| {
        let told = explain("a-1", Some(node), &records, now()).unwrap();
        told.holds[0].detail.clone().unwrap()
    };
    assert_eq!(told(&node), "Reboot for general/DiskFailing");
    let mut approve = |text: &str| {
        let key = nodemend_core::model::APPROVED_ANNOTATION.to_owned();
        node.annotations.insert(key, text.to_owned());
        told(&node)
    };
    let old = approve("2026-01-01T14:00:00Z");
    assert!(old.contains("does not count: it is a time alone"), "{old}");
    let other = json!({"uid": "uid-a-1", "policy": "general", "fault": "DiskFailing", "action": "Replace",
        "at": NOW, "until": "2026-01-01T14:00:00Z", "by": "eve"});
    let other = approve(&other.to_string());
    assert!(
        other.contains("is of Replace for general/DiskFailing"),
        "{other}"
    );
}

#[test]
fn history_is_newest_first_and_of_one_node_if_that_is_named() {
    let mut repairs = records().repairs;
    repairs[0].spec.quarantine.at = "2026-01-01T11:30:00Z".parse().unwrap();
    let names = |node, most| -> Vec<String> {
        let lines = history(&repairs, node, most);
        lines.into_iter().map(|line| line.name).collect()
    };
    assert_eq!(names(None, 9), ["a-9-1", "a-9-2"]);
    assert_eq!(names(Some("a-9"), 1), ["a-9-1"]);
    assert!(names(Some("a-1"), 9).is_empty());
    assert_eq!(history_text(&[], now()), "no repair is on record\n");
}

#[test]
fn every_reason_has_a_remedy_and_those_that_may_be_ignored_a_flag() {
    for reason in Reason::ALL {
        assert!(!remedy(reason).is_empty());
        let flag = format!(" --override {reason}");
        assert_eq!(overrides(&[reason]) == flag, overridable(reason));
    }
}
