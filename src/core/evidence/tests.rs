//! Tables of what the evidence says.

mod both;
mod clocks;
mod delivered;
mod nodes;
mod polled;

use super::alerts::alert_state;
use super::clock::Pace;
use super::identity::Unresolved;
use super::*;
use crate::api::{
    Action, AlertGroupSpec, AtLeast, ConditionLeaf, ConditionStatus, Mode, StoredAlert,
};
use crate::config::{Fault, Rule};
use crate::model::Condition;

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).expect("in range")
}

pub(super) fn node(name: &str, ready: &str) -> NodeView {
    NodeView {
        name: name.into(),
        uid: format!("uid-{name}"),
        created: at(-1000),
        conditions: vec![Condition {
            type_: "Ready".into(),
            status: ready.into(),
            reason: String::new(),
        }],
        ..NodeView::default()
    }
}

pub(super) fn rule(for_: u32) -> Rule {
    Rule {
        name: "R".into(),
        expr: "e".into(),
        for_: Span::seconds(for_),
        keep_firing_for: Span::minutes(15),
        presence: Some("p".into()),
        interval: Span::seconds(30),
        labels: BTreeMap::new(),
    }
}

pub(super) fn policy() -> Policy {
    let when = When {
        any: vec![Leaf {
            signal: Some("R".into()),
            ..Leaf::default()
        }],
        ..When::default()
    };
    Policy {
        name: "p".into(),
        accepted: true,
        mode: Mode::Observe,
        priority: 0,
        selector: crate::api::NodeSelector::default(),
        control_plane: false,
        budgets: Vec::new(),
        windows: Vec::new(),
        faults: vec![Fault {
            name: "f".into(),
            severity: crate::api::Severity::Warning,
            when,
            for_: Span::default(),
            actions: vec![Action::Replace],
            confirm: None,
        }],
        strategy: None,
        launch_template: None,
        ready_timeout: Span::minutes(15),
        max_attempts: 2,
        drain_timeout: Span::minutes(15),
        max_pod_grace_period: None,
    }
}

fn series(names: &[&str]) -> Vec<Labels> {
    names
        .iter()
        .map(|name| Labels::from([("node".into(), (*name).into())]))
        .collect()
}

pub(super) fn answer(firing: &[&str], present: Option<&[&str]>) -> Input {
    Input::Rule {
        asked: Timestamp::MAX,
        name: "R".into(),
        answer: Answer::Series {
            firing: series(firing),
            present: present.map(series),
        },
    }
}

fn state(evidence: &mut Evidence, wait: u32, now: i64) -> SignalState {
    let rules = Rules::from_iter([rule(wait)]);
    evidence.settle(&rules, &[policy()], at(now));
    let node = evidence.node("a").expect("folded").clone();
    evidence.signal(&node, "R", &rules, at(now)).state
}

fn with_nodes(ready: &str) -> Evidence {
    let mut evidence = Evidence::default();
    evidence.fold(
        Input::Nodes(vec![node("a", ready), node("b", "True")]),
        at(0),
    );
    evidence
}

/// What the fault of R, and one of the absence of R, come to.
fn faults(evidence: &mut Evidence, wait: u32, now: i64) -> (Truth, Truth, Option<Timestamp>) {
    let rules = Rules::from_iter([rule(wait)]);
    let mut policy = policy();
    let mut absent = policy.faults[0].clone();
    absent.name = "absent".into();
    absent.when = When {
        none: std::mem::take(&mut absent.when.any),
        ..When::default()
    };
    policy.faults.push(absent);
    evidence.fold(
        Input::Nodes(vec![node("a", "True"), node("b", "True")]),
        at(now),
    );
    evidence.settle(&rules, std::slice::from_ref(&policy), at(now));
    let node = evidence.node("a").expect("folded");
    let of = |fault| evidence.fault(node, &policy, fault, &rules, at(now));
    let (truth, since) = of("f");
    (truth, of("absent").0, since)
}

fn failed() -> Input {
    Input::Rule {
        asked: Timestamp::MAX,
        name: "R".into(),
        answer: Answer::Failed("503".into()),
    }
}

/// Folds this every half minute, from and to these times; the faults at the end.
fn during(
    evidence: &mut Evidence,
    input: impl Fn() -> Input,
    wait: u32,
    (from, to): (i64, i64),
) -> (Truth, Truth, Option<Timestamp>) {
    let mut found = None;
    for now in (from..=to).step_by(30) {
        evidence.fold(input(), at(now));
        let truths = faults(evidence, wait, now);
        let recovered = truths.0 == Truth::False && truths.2.is_none();
        assert!(!recovered, "at {now}");
        found = Some(truths);
    }
    found.expect("some time")
}

pub(super) fn alert(starts: i64, firing: Option<i64>, ends: Option<i64>) -> StoredAlert {
    StoredAlert {
        name: "A".into(),
        labels: Labels::from([("node".into(), "a".into())]),
        severity: String::new(),
        starts_at: at(starts),
        last_firing: firing.map(at),
        last_resolved: None,
        ends_at: ends.map(at),
        end_received: None,
    }
}

/// What a new leader makes of the records of one that looked until then.
fn restored(records: &[SignalRecord], last_seen: i64, ready: &str, now: i64) -> Evidence {
    let mut evidence = Evidence::default();
    let restore = Input::Restore {
        uid: "uid-a".into(),
        signals: records.to_vec(),
        faults: vec![],
        last_seen: at(last_seen),
    };
    evidence.fold(restore, at(now));
    let nodes = vec![node("a", ready), node("b", "True")];
    evidence.fold(Input::Nodes(nodes), at(now));
    evidence
}

fn record(state: SignalState, since: i64, last_firing: Option<i64>) -> SignalRecord {
    SignalRecord {
        name: "R".into(),
        state,
        since: Some(at(since)),
        last_firing: last_firing.map(at),
        paused: None,
    }
}

/// What a rule that fires says at a time, once it was asked at this one and heard at 100.
fn answered_at_100(asked: i64) -> impl Fn(i64) -> SignalState {
    let mut evidence = with_nodes("True");
    let Input::Rule { name, answer, .. } = answer(&["a"], Some(&["a", "b"])) else {
        panic!("a rule's");
    };
    let asked = at(asked);
    evidence.fold(
        Input::Rule {
            name,
            asked,
            answer,
        },
        at(100),
    );
    let rules = Rules::from_iter([rule(0)]);
    move |now| {
        let node = evidence.node("a").expect("folded");
        evidence.signal(node, "R", &rules, at(now)).state
    }
}

/// All of Alertmanager lists nothing.
fn lists_nothing(now: i64) -> Input {
    Input::Asked(silence::Asked {
        at: at(now),
        running_since: at(-1000),
        receivers: Vec::new(),
        missing: None,
        alerts: vec![],
        silences: vec![],
    })
}

/// The fault of node a, whose conditions are these.
fn of_conditions(conditions: &[(&str, &str, &str)], when: When) -> Truth {
    let mut policy = policy();
    policy.faults[0].when = when;
    let condition = |(type_, status, reason): &(&str, &str, &str)| Condition {
        type_: (*type_).into(),
        status: (*status).into(),
        reason: (*reason).into(),
    };
    let mut evidence = Evidence::default();
    let node = NodeView {
        conditions: conditions.iter().map(condition).collect(),
        ..node("a", "True")
    };
    evidence.fold(Input::Nodes(vec![node]), at(0));
    let node = evidence.node("a").expect("folded");
    evidence
        .fault(node, &policy, "f", &Rules::default(), at(0))
        .0
}

fn condition(type_: &str, statuses: &[ConditionStatus], reasons: &[&str]) -> Leaf {
    Leaf {
        condition: Some(ConditionLeaf {
            type_: type_.into(),
            statuses: statuses.to_vec(),
            reasons: reasons.iter().map(ToString::to_string).collect(),
        }),
        ..Leaf::default()
    }
}

fn says(alert: StoredAlert) -> Input {
    let alert = StoredAlert {
        name: "R".into(),
        ..alert
    };
    Input::Alerts {
        object: "o".into(),
        group: AlertGroupSpec {
            alerts: [("f".to_owned(), alert)].into(),
            ..AlertGroupSpec::default()
        },
    }
}
