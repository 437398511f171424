//! What of a person's request counts.

use serde_json::{Value, json};

use super::*;
use crate::api::{BY_HAND, Inputs, Mode, Severity, Standing};
use crate::decide::conclude::conclude;
use crate::decide::tests::{at, fault_input};
use crate::model::{Truth, VerdictKind};

fn asked(change: impl FnOnce(&mut Value)) -> Result<RepairRequest, Unusable> {
    let mut request = json!({
        "uid": "u", "at": at(0), "until": at(900), "by": "eve", "reason": "smells", "override": ["Budget"],
    });
    change(&mut request);
    parse(&request.to_string(), "u", at(10))
}

#[test]
fn what_of_a_request_cannot_be_used_is_told() {
    let request = asked(|_| {}).unwrap();
    assert_eq!(
        (request.by.as_str(), request.reason.as_str()),
        ("eve", "smells")
    );
    assert_eq!(request.overrides, [Reason::Budget]);
    // The records hold few of them.
    let again = asked(|it| it["override"] = json!(vec!["Budget"; 100])).unwrap();
    assert_eq!(again.overrides, request.overrides);
    let check = |change: &dyn Fn(&mut Value), expect: &str| {
        let told = asked(change).unwrap_err().to_string();
        assert!(told.contains(expect), "{told}");
    };
    check(&|it| it["uid"] = json!("v"), "another node object");
    check(&|it| it["at"] = json!(at(400)), "a time to come");
    check(&|it| it["until"] = json!(at(86_401)), "longer than a day");
    check(&|it| it["by"] = json!(""), "who asks");
    check(
        &|it| it["reason"] = json!("x".repeat(1025)),
        "who asks and why",
    );
    check(
        &|it| it["reason"] = json!("x".repeat(2049)),
        "longer than 2048 bytes",
    );
    check(
        &|it| it["override"] = json!(["Paused"]),
        "Paused cannot be overridden",
    );
    check(
        &|it| it["override"] = json!(["Everything"]),
        "cannot be read",
    );
    check(&|it| *it = json!("yes"), "cannot be read");
    assert!(matches!(
        parse("true", "u", at(0)),
        Err(Unusable::Unreadable(_))
    ));
}

#[test]
fn who_asks_may_take_a_node_up_that_was_given_up() {
    assert!(overridable(Reason::NeedsHuman) && overridable(Reason::RepairDeleted));
    assert!(!overridable(Reason::OwnedByOther) && !overridable(Reason::Paused));
}

#[test]
fn a_request_may_be_as_long_and_as_early_as_is_said() {
    type Change = fn(&mut Value);
    let check = |change: Change, expect: bool| {
        let found = asked(change);
        assert_eq!(found.is_ok(), expect, "{found:?}");
    };
    // Asked at 10, by a clock that may be five minutes ahead.
    check(|it| it["at"] = json!(at(310)), true);
    check(|it| it["at"] = json!(at(311)), false);
    check(|it| it["until"] = json!(at(86_400)), true);
    check(|it| it["by"] = json!("x".repeat(256)), true);
    check(|it| it["by"] = json!("x".repeat(257)), false);
    check(|it| it["reason"] = json!("x".repeat(1024)), true);
    check(|it| it["reason"] = json!(""), false);
    let request = asked(|_| {}).unwrap();
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(parse(&format!("{text:2048}"), "u", at(10)), Ok(request));
    let long = parse(&format!("{text:2049}"), "u", at(10));
    assert_eq!(long, Err(Unusable::TooLong));
}

/// Each guard that looks at the node alone.
#[test]
fn guards_hold_what_a_person_asks_for_and_few_can_be_overridden() {
    type Holds = fn(&mut Standing);
    let guards: [(Holds, Reason); 14] = [
        (|it| it.conflict = true, Reason::PolicyConflict),
        (|it| it.paused = true, Reason::Paused),
        (|it| it.mode = Mode::Observe, Reason::ObserveMode),
        (|it| it.mature_at = Some(at(11)), Reason::TooYoung),
        (|it| it.taken_by_other = true, Reason::OtherActor),
        (|it| it.opted_out_until = Some(at(11)), Reason::OptedOut),
        (|it| it.silences_unknown = true, Reason::SilencesUnknown),
        (|it| it.silenced = true, Reason::Silenced),
        (|it| it.nodes_stale = true, Reason::NodesStale),
        (|it| it.deleting = true, Reason::NodeDeleting),
        (|it| it.cordoned_by_other = true, Reason::CordonedByOther),
        (|it| it.needs_human = true, Reason::NeedsHuman),
        (|it| it.repair_deleted = true, Reason::RepairDeleted),
        (|it| it.no_owner = true, Reason::NoOwner),
    ];
    for (holds, reason) in guards {
        let conclude = |overrides: Vec<Reason>| {
            let mut standing = Standing {
                mode: Mode::Approve,
                ..Standing::default()
            };
            holds(&mut standing);
            let inputs = Inputs {
                policy: "p".into(),
                request: Some(RepairRequest {
                    overrides,
                    ..asked(|_| {}).unwrap()
                }),
                standing: Some(standing),
                ..Inputs::default()
            };
            let found = conclude(&inputs, at(10));
            (found.kind, found.reasons)
        };
        assert_eq!(conclude(vec![]), (VerdictKind::Held, vec![reason]));
        let told = asked(|it| it["override"] = json!([reason]));
        assert_eq!(told.is_ok(), overridable(reason), "{reason}");
        if overridable(reason) {
            assert_eq!(
                conclude(vec![reason]),
                (VerdictKind::Due, vec![]),
                "{reason}"
            );
        }
    }
}

#[test]
fn a_request_is_as_urgent_and_as_old_as_what_is_due_anyway() {
    let unasked = Some(Truth::Unknown);
    let fault = |since: i64, severity| fault_input("F", at(since), severity, unasked);
    for (fault, expect) in [
        (
            fault(-100, Severity::Critical),
            (Severity::Critical, at(-100)),
        ),
        (fault(-10, Severity::Critical), (Severity::Warning, at(0))),
    ] {
        let inputs = Inputs {
            policy: "p".into(),
            request: Some(asked(|_| {}).unwrap()),
            faults: vec![fault],
            ..Inputs::default()
        };
        let found = conclude(&inputs, at(10));
        assert_eq!(
            (found.kind, found.fault.as_str()),
            (VerdictKind::Due, BY_HAND)
        );
        assert_eq!((found.severity, found.since), (expect.0, Some(expect.1)));
    }
}
