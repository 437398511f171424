//! A person's approval of a repair, by an annotation of the node. It is bound to the policy,
//! the fault and the action that were due when it was given, and makes one repair.

use jiff::Timestamp;

use super::World;
use super::by_hand::{MAX_BY, Unusable, check_times, decode, is_used};
use crate::api::{Action, Approval, NodeRepair};
use crate::model::{APPROVED_ANNOTATION, NodeView, Span};

/// The longest time that an approval holds.
pub const APPROVED_FOR: Span = Span::minutes(24 * 60);
/// The longest names of a policy and of a fault, in characters: records can hold no longer ones.
const MAX_POLICY: usize = 253;
const MAX_FAULT: usize = 63;

/// What the node's annotation approves, if it has one: be it over by now.
pub fn read(node: &NodeView, now: Timestamp) -> Option<Result<Approval, Unusable>> {
    let text = node.annotations.get(APPROVED_ANNOTATION)?;
    Some(parse(text, &node.uid, now))
}

fn parse(text: &str, uid: &str, now: Timestamp) -> Result<Approval, Unusable> {
    let approval: Approval = decode(text).map_err(|why| match why {
        Unusable::Unreadable(_) if text.parse::<Timestamp>().is_ok() => Unusable::TimeAlone,
        why => why,
    })?;
    if approval.uid != uid {
        return Err(Unusable::OtherNode);
    }
    check_times(approval.at, approval.until, APPROVED_FOR, now)?;
    let (policy, fault) = (
        approval.policy.chars().count(),
        approval.fault.chars().count(),
    );
    if policy > MAX_POLICY || fault > MAX_FAULT {
        return Err(Unusable::Names);
    }
    let by = approval.by.chars().count();
    if approval.by.is_empty() || by > MAX_BY {
        return Err(Unusable::Anonymous);
    }
    Ok(approval)
}

/// What is approved now. One approval makes one repair, whatever comes of that, be it that a
/// person deletes its record.
pub(super) fn approval(node: &NodeView, world: &World<'_>, now: Timestamp) -> Option<Approval> {
    let approval = read(node, now)?.ok().filter(|one| one.until > now)?;
    let made = |repair: &NodeRepair| Some(repair.spec.approval.as_ref()?.at);
    (!is_used(approval.at, made, node, world)).then_some(approval)
}

/// Whether it is this that was approved.
pub(super) fn covers(
    approval: &Approval,
    (policy, fault, action): (&str, &str, Action),
    now: Timestamp,
) -> bool {
    let same = (&*approval.policy, &*approval.fault, approval.action) == (policy, fault, action);
    same && approval.until > now
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::decide::tests::at;

    fn approved() -> Value {
        json!({
            "uid": "u", "policy": "p", "fault": "F", "action": "Reboot",
            "at": at(0), "until": at(3600), "by": "eve",
        })
    }

    #[test]
    fn what_is_not_exactly_an_approval_is_none() {
        let check = |change: &dyn Fn(&mut Value), expect: &str| {
            let mut value = approved();
            change(&mut value);
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let found = parse(&text, "u", at(10));
            let told = found.map_or_else(|why| why.to_string(), |_| "approved".into());
            assert!(told.starts_with(expect), "{text}: {told}");
        };
        check(&|_| {}, "approved");
        check(
            &|it| *it = json!(at(3600).to_string()),
            "it is a time alone",
        );
        for text in ["yes", "", "true", "{}", "[]"] {
            check(&|it| *it = json!(text), "it cannot be read");
        }
        check(&|it| it["more"] = json!(1), "it cannot be read");
        check(&|it| it["action"] = json!("reboot"), "it cannot be read");
        check(
            &|it| it["uid"] = json!("v"),
            "it is for another node object",
        );
        check(&|it| it["until"] = json!(at(86_400)), "approved");
        check(&|it| it["until"] = json!(at(86_401)), "it holds for longer");
        check(&|it| it["at"] = json!(at(311)), "it holds for longer");
        check(&|it| it["policy"] = json!("p".repeat(253)), "approved");
        check(&|it| it["policy"] = json!("p".repeat(254)), "its policy or");
        check(&|it| it["fault"] = json!("F".repeat(63)), "approved");
        check(&|it| it["fault"] = json!("F".repeat(64)), "its policy or");
        check(&|it| it["by"] = json!(""), "it does not say who");
        check(&|it| it["by"] = json!("e".repeat(256)), "approved");
        check(
            &|it| it["by"] = json!("e".repeat(257)),
            "it does not say who",
        );
        check(&|it| it["by"] = json!("e".repeat(2048)), "it is longer");
    }

    #[test]
    fn an_approval_is_of_one_policy_fault_and_action_until_it_ends() {
        let approval: Approval = serde_json::from_value(approved()).unwrap();
        let of =
            |policy, fault, action, second| covers(&approval, (policy, fault, action), at(second));
        assert!(of("p", "F", Action::Reboot, 3599));
        assert!(!of("p", "F", Action::Reboot, 3600));
        assert!(!of("p", "F", Action::Replace, 10));
        assert!(!of("p", "G", Action::Reboot, 10));
        assert!(!of("q", "F", Action::Reboot, 10));
    }
}
