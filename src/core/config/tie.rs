//! Which policies tie: of one priority, they select the same nodes, and such nodes are held.

use std::collections::BTreeMap;

use super::Policy;
use crate::api::{NodeSelector, Operator, Requirement};

/// How far two policies of one priority select the same nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tie {
    /// Every node of one is a node of the other: one of them can do nothing.
    Whole,
    /// Their labels allow a node of both.
    Part,
}

/// Whether and how two policies tie.
pub(super) fn tie(one: &Policy, other: &Policy) -> Option<Tie> {
    if one.priority != other.priority || !overlap(&one.selector, &other.selector) {
        return None;
    }
    let whole = within(&one.selector, &other.selector) || within(&other.selector, &one.selector);
    Some(if whole { Tie::Whole } else { Tie::Part })
}

/// The first policy of the same priority that selects every node that this one does.
pub fn tied_with<'a>(policy: &Policy, all: &'a [Policy]) -> Option<&'a Policy> {
    all.iter().find(|other| {
        other.name != policy.name
            && other.accepted
            && policy.accepted
            && other.priority == policy.priority
            && within(&policy.selector, &other.selector)
    })
}

/// Whether some labels match both.
fn overlap(one: &NodeSelector, other: &NodeSelector) -> bool {
    let mut all = requirements(one);
    all.extend(requirements(other));
    possible(&all)
}

/// Whether all labels that match `inner` match `outer`, and some do.
fn within(inner: &NodeSelector, outer: &NodeSelector) -> bool {
    let inner = requirements(inner);
    possible(&inner)
        && requirements(outer).into_iter().all(|requirement| {
            let mut outside = inner.clone();
            outside.push(negated(requirement));
            !possible(&outside)
        })
}

fn requirements(selector: &NodeSelector) -> Vec<Requirement> {
    let named = selector
        .match_labels
        .iter()
        .map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        });
    named.chain(selector.match_expressions.clone()).collect()
}

fn negated(requirement: Requirement) -> Requirement {
    Requirement {
        operator: match requirement.operator {
            Operator::In => Operator::NotIn,
            Operator::NotIn => Operator::In,
            Operator::Exists => Operator::DoesNotExist,
            Operator::DoesNotExist => Operator::Exists,
        },
        ..requirement
    }
}

/// Whether some labels meet all of these: each label can be there or not by itself.
fn possible(requirements: &[Requirement]) -> bool {
    let mut by_label: BTreeMap<&str, Vec<&Requirement>> = BTreeMap::new();
    for requirement in requirements {
        let of = by_label.entry(&requirement.key).or_default();
        of.push(requirement);
    }
    by_label.values().all(|of| absent(of) || present(of))
}

fn absent(of: &[&Requirement]) -> bool {
    let allows = |operator| matches!(operator, Operator::NotIn | Operator::DoesNotExist);
    of.iter().all(|requirement| allows(requirement.operator))
}

fn present(of: &[&Requirement]) -> bool {
    let allows = |value: Option<&String>| {
        of.iter().all(|requirement| {
            let listed = value.is_some_and(|value| requirement.values.contains(value));
            match requirement.operator {
                Operator::In => listed,
                Operator::NotIn => !listed,
                Operator::Exists => true,
                Operator::DoesNotExist => false,
            }
        })
    };
    // A value that nobody lists, or one that somebody does.
    allows(None)
        || of
            .iter()
            .flat_map(|requirement| &requirement.values)
            .any(|value| allows(Some(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selector(text: &str) -> NodeSelector {
        let requirement = |part: &str| {
            let words: Vec<&str> = part.split(' ').collect();
            Requirement {
                key: words[0].into(),
                operator: match words[1] {
                    "in" => Operator::In,
                    "not" => Operator::NotIn,
                    "is" => Operator::Exists,
                    other => panic!("{other}"),
                },
                values: words[2..].iter().map(ToString::to_string).collect(),
            }
        };
        NodeSelector {
            match_expressions: text.split_terminator(", ").map(requirement).collect(),
            ..NodeSelector::default()
        }
    }

    fn policy(name: &str, priority: i32, text: &str) -> Policy {
        Policy::refused(name.into(), priority, selector(text))
    }

    #[test]
    fn policies_tie_where_labels_can_meet_both() {
        for (one, other, expect) in [
            ("", "", Some(Tie::Whole)),
            ("", "pool in a", Some(Tie::Whole)),
            ("pool in a", "pool in a", Some(Tie::Whole)),
            ("pool in a", "pool in b", None),
            ("pool in a b", "pool in b c", Some(Tie::Part)),
            ("pool in a b", "pool not b", Some(Tie::Part)),
            ("pool in a", "pool not b", Some(Tie::Whole)),
            ("pool not a", "pool not a b", Some(Tie::Whole)),
            ("pool is", "pool in a", Some(Tie::Whole)),
            ("pool is", "zone in a", Some(Tie::Part)),
            ("pool in a, pool in b", "", None),
            ("pool in a, zone in b", "pool in a", Some(Tie::Whole)),
            ("pool in a, pool not a", "pool is", None),
        ] {
            let (one, other) = (policy("a", 0, one), policy("b", 0, other));
            assert_eq!(tie(&one, &other), expect, "{one:?} {other:?}");
            assert_eq!(tie(&other, &one), expect, "{other:?} {one:?}");
        }
        assert_eq!(tie(&policy("a", 0, ""), &policy("b", 1, "")), None);
    }

    #[test]
    fn a_policy_is_tied_if_another_has_all_its_nodes() {
        let mut all = [
            policy("all", 0, ""),
            policy("part", 0, "pool in a"),
            policy("high", 1, "pool in a"),
        ];
        for policy in &mut all {
            policy.accepted = true;
        }
        let with = |index: usize| tied_with(&all[index], &all).map(|other| other.name.as_str());
        assert_eq!([with(0), with(1), with(2)], [None, Some("all"), None]);
    }

    fn any_requirement() -> impl Strategy<Value = Requirement> {
        let operator = prop::sample::select(vec![
            Operator::In,
            Operator::NotIn,
            Operator::Exists,
            Operator::DoesNotExist,
        ]);
        let value = prop::sample::select(vec!["1", "2"]);
        let key = prop::sample::select(vec!["a", "b"]);
        (key, operator, prop::collection::vec(value, 1..3)).prop_map(|(key, operator, values)| {
            Requirement {
                key: key.into(),
                operator,
                values: values.into_iter().map(str::to_owned).collect(),
            }
        })
    }

    fn any_selector() -> impl Strategy<Value = NodeSelector> {
        prop::collection::vec(any_requirement(), 0..4).prop_map(|match_expressions| NodeSelector {
            match_expressions,
            ..NodeSelector::default()
        })
    }

    proptest! {
        /// Held against every way in which two labels can be.
        #[test]
        fn overlaps_are_those_of_some_labels(one in any_selector(), other in any_selector()) {
            let values = [None, Some("1"), Some("2"), Some("3")];
            let (mut both, mut inside, mut outside) = (false, false, false);
            for a in values {
                for b in values {
                    let labels = [("a", a), ("b", b)].into_iter();
                    let labels = labels.filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned()))).collect();
                    let (here, there) = (one.matches(&labels), other.matches(&labels));
                    both |= here && there;
                    inside |= here;
                    outside |= here && !there;
                }
            }
            prop_assert_eq!(overlap(&one, &other), both);
            prop_assert_eq!(within(&one, &other), inside && !outside);
        }
    }
}
