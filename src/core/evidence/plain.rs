//! Which nodes are plainly well, found without asking every fault of each: nodes of one kind,
//! of which nothing is heard, are judged alike, so one is asked for all of them. Most nodes
//! are such.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Evidence, Look, rules, signal_names};
use crate::api::NodeSelector;
use crate::config::{POOL_LABELS, Policy, Rules};
use crate::model::{NodeView, REQUEST_ANNOTATION, SignalState, Truth};

/// The nodes by kind: by all that a verdict on a node rests on of which nothing is heard, but
/// for its name. A fleet has few kinds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kinds {
    pool_labels: Vec<String>,
    /// Of the policies, in their order.
    selectors: Vec<NodeSelector>,
    by_slot: Vec<usize>,
    all: Vec<Kind>,
}

/// What is asked of a kind in every pass.
#[derive(Clone, Debug, PartialEq)]
struct Kind {
    ready: bool,
    /// Whether a person asks for a repair; what for is to be read of each node.
    asked: bool,
    /// The policies that select such nodes, by their places in what `settle` was given.
    policies: Vec<usize>,
}

impl Default for Kinds {
    fn default() -> Self {
        Self {
            pool_labels: POOL_LABELS.map(str::to_owned).to_vec(),
            selectors: Vec::new(),
            by_slot: Vec::new(),
            all: Vec::new(),
        }
    }
}

impl Kinds {
    /// Sorts nodes that changed.
    pub fn sort<'a>(&mut self, nodes: impl Iterator<Item = &'a NodeView>) {
        let mut known = BTreeMap::new();
        self.by_slot.clear();
        self.all.clear();
        for node in nodes {
            let all = self.selectors.iter().enumerate();
            let selecting = all.filter(|(_, selector)| selector.matches(&node.labels));
            let policies: Vec<usize> = selecting.map(|(index, _)| index).collect();
            let asked = node.annotations.contains_key(REQUEST_ANNOTATION);
            let taken = node.deleting || node.taken_by_other();
            let flags = [asked, taken, node.unschedulable, node.control_plane()];
            let place = node.zone_and_pool(&self.pool_labels);
            let key = (place, policies, flags, &node.conditions);
            let kind = known.entry(key).or_insert_with_key(|(_, policies, ..)| {
                self.all.push(Kind {
                    ready: node.ready(),
                    asked,
                    policies: policies.clone(),
                });
                self.all.len() - 1
            });
            self.by_slot.push(*kind);
        }
    }

    fn of(&self, slot: usize) -> &Kind {
        &self.all[self.by_slot[slot]]
    }

    /// Whether the node of this slot is Ready.
    pub fn ready(&self, slot: usize) -> bool {
        self.of(slot).ready
    }
}

/// What is found of the nodes of one kind.
struct Found<'a> {
    /// The rules whose data all of their signals rest on; none if a signal of theirs is not
    /// known to be clear.
    polled: Option<Vec<&'a rules::RuleEvidence>>,
    /// Whether such a node has no fault.
    well: Option<bool>,
}

impl Evidence {
    /// The labels that name a node's pool, the first that it has counts.
    pub fn name_pools_by(&mut self, labels: &[String]) {
        if self.kinds.pool_labels != labels {
            self.kinds.pool_labels = labels.to_vec();
            self.kinds.sort(self.nodes.values());
            self.plain.clear();
        }
    }

    /// Those labels.
    pub fn pool_labels(&self) -> &[String] {
        &self.kinds.pool_labels
    }

    /// Sorts the nodes anew if the policies select others than before.
    pub(super) fn sort_by(&mut self, policies: &[Policy]) {
        let selectors = policies.iter().map(|policy| &policy.selector);
        if !selectors.clone().eq(&self.kinds.selectors) {
            self.kinds.selectors = selectors.cloned().collect();
            self.kinds.sort(self.nodes.values());
        }
    }

    /// The nodes of which no fault of any policy can be anything but false, by slot: no clock
    /// runs for them, nothing was `heard` of them, and each signal is clear.
    pub(super) fn plain(
        &self,
        heard: &[bool],
        rules: &Rules,
        policies: &[Policy],
        now: Timestamp,
    ) -> Vec<bool> {
        let kinds = &self.kinds;
        let mut found: Vec<Option<Found<'_>>> = kinds.all.iter().map(|_| None).collect();
        let nodes = self.nodes.values().enumerate();
        let plain = nodes.map(|(slot, node)| {
            let kind = kinds.of(slot);
            if heard[slot] || kind.asked {
                return false;
            }
            let asked = || kind.policies.iter().map(|index| &policies[*index]);
            let look = || self.look_at(Some(slot), node, rules, now);
            let found = found[kinds.by_slot[slot]].get_or_insert_with(|| Found {
                polled: self.polled_alone(&look(), asked()),
                well: None,
            });
            let sees =
                |polled: &Vec<&rules::RuleEvidence>| polled.iter().all(|rule| rule.sees_at(slot));
            found.polled.as_ref().is_some_and(sees)
                && *found.well.get_or_insert_with(|| {
                    let look = look();
                    asked().all(|policy| {
                        let mut faults = policy.faults.iter();
                        faults.all(|fault| self.judged(&look, policy, &fault.when) == Truth::False)
                    })
                })
        });
        plain.collect()
    }

    /// The rules of these policies' signals, if the rules have answers, and the other signals
    /// are clear of a node of which nothing is heard.
    fn polled_alone<'a>(
        &self,
        look: &Look<'_>,
        policies: impl Iterator<Item = &'a Policy>,
    ) -> Option<Vec<&rules::RuleEvidence>> {
        let mut polled = Vec::new();
        for name in policies.flat_map(signal_names) {
            if look.rules.get(&name).is_some() {
                let evidence = self.rules.get(&name)?;
                polled.push(evidence.usable(look.now).then_some(evidence)?);
            } else if self.alerted(look, &name) != SignalState::Clear {
                return None;
            }
        }
        Some(polled)
    }

    /// Each node, and if `settle` found it plainly well and nothing was heard of it since, its
    /// kind. Such nodes of one kind are judged alike, but for repairs.
    pub fn nodes_by_kind(&self) -> impl Iterator<Item = (&NodeView, Option<usize>)> {
        let nodes = self.nodes.values().enumerate();
        nodes.map(|(slot, node)| {
            let plain = self.plain.get(slot) == Some(&true);
            (node, plain.then(|| self.kinds.by_slot[slot]))
        })
    }
}
