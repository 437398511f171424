//! Which nodes are plainly well, found without asking every fault of each: nodes of which
//! nothing is heard, with the same policies and conditions, are judged alike, so one is
//! asked for all of them. Most nodes are such.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Evidence, rules, signal_names};
use crate::config::{Policy, Rules};
use crate::model::{Condition, NodeView, SignalState, Truth};

/// Fleets have few different sets of conditions; nodes with others are asked themselves.
const MAX_KINDS: usize = 32;

/// The nodes that are plainly well.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plain {
    /// By slot, of which group; none for a node that has to be asked.
    by_slot: Vec<Option<usize>>,
    /// The policies of each group, by their places in what `settle` was given.
    groups: Vec<Vec<usize>>,
}

impl Plain {
    pub fn group(&self, slot: usize) -> Option<usize> {
        *self.by_slot.get(slot)?
    }

    pub fn forget(&mut self, slot: usize) {
        if let Some(group) = self.by_slot.get_mut(slot) {
            *group = None;
        }
    }

    pub fn clear(&mut self) {
        self.by_slot.clear();
        self.groups.clear();
    }
}

/// By slot, which set of conditions each node has.
pub(super) fn kinds<'a>(nodes: impl Iterator<Item = &'a NodeView>) -> Vec<Option<u8>> {
    let mut known: Vec<&[Condition]> = Vec::new();
    let kind = |node: &'a NodeView| {
        let found = known.iter().position(|known| *known == node.conditions);
        if found.is_none() && known.len() < MAX_KINDS {
            known.push(&node.conditions);
            return u8::try_from(known.len() - 1).ok();
        }
        found.and_then(|kind| u8::try_from(kind).ok())
    };
    nodes.map(kind).collect()
}

/// Nodes with the same policies.
struct Group<'a> {
    number: usize,
    /// The rules whose data all of their signals rest on; none if a signal of theirs is not
    /// known to be clear.
    polled: Option<Vec<&'a rules::RuleEvidence>>,
    /// By kind of conditions, whether such a node has no fault.
    well: [Option<bool>; MAX_KINDS],
}

impl Evidence {
    /// The nodes of which no fault of any policy can be anything but false: no clock runs
    /// for them, nothing was `heard` of them, and each signal is clear.
    pub(super) fn plain(
        &self,
        heard: &[bool],
        rules: &Rules,
        policies: &[Policy],
        now: Timestamp,
    ) -> Plain {
        let mut by_slot = vec![None; self.names.len()];
        let mut groups: BTreeMap<Vec<usize>, Group<'_>> = BTreeMap::new();
        let mut matching = Vec::new();
        for (slot, node) in self.nodes.values().enumerate() {
            let (false, Some(kind)) = (heard[slot], self.kinds[slot]) else {
                continue;
            };
            matching.clear();
            let all = policies.iter().enumerate();
            let selecting = all.filter(|(_, policy)| policy.selector.matches(&node.labels));
            matching.extend(selecting.map(|(index, _)| index));
            if !groups.contains_key(&matching) {
                let group = Group {
                    number: groups.len(),
                    polled: self.polled_alone(slot, node, &matching, rules, policies, now),
                    well: [None; MAX_KINDS],
                };
                groups.insert(matching.clone(), group);
            }
            let Some(group) = groups.get_mut(&matching) else {
                continue;
            };
            let Some(polled) = &group.polled else {
                continue;
            };
            if !polled.iter().all(|rule| rule.sees_at(slot)) {
                continue;
            }
            let well = &mut group.well[usize::from(kind)];
            let well = *well.get_or_insert_with(|| {
                let look = self.look_at(Some(slot), node, rules, now);
                let mut asked = matching.iter().map(|index| &policies[*index]);
                asked.all(|policy| {
                    let mut faults = policy.faults.iter();
                    faults.all(|fault| self.judged(&look, policy, &fault.when) == Truth::False)
                })
            });
            by_slot[slot] = well.then_some(group.number);
        }
        let mut numbered: Vec<(usize, Vec<usize>)> = groups
            .into_iter()
            .map(|(policies, group)| (group.number, policies))
            .collect();
        numbered.sort();
        let groups = numbered.into_iter().map(|(_, policies)| policies).collect();
        Plain { by_slot, groups }
    }

    /// The rules of these policies' signals, if the rules have answers, and the other signals
    /// are clear of a node of which nothing is heard.
    fn polled_alone(
        &self,
        slot: usize,
        node: &NodeView,
        matching: &[usize],
        rules: &Rules,
        policies: &[Policy],
        now: Timestamp,
    ) -> Option<Vec<&rules::RuleEvidence>> {
        let look = self.look_at(Some(slot), node, rules, now);
        let mut polled = Vec::new();
        let asked = matching.iter().map(|index| &policies[*index]);
        for name in asked.flat_map(signal_names) {
            if rules.get(&name).is_some() {
                let evidence = self.rules.get(&name)?;
                polled.push(evidence.usable(now).then_some(evidence)?);
            } else if self.alerted(&look, &name) != SignalState::Clear {
                return None;
            }
        }
        Some(polled)
    }

    /// Each node, and if `settle` found it plainly well and nothing was heard of it since, its
    /// group.
    pub fn nodes_by_group(&self) -> impl Iterator<Item = (&NodeView, Option<usize>)> {
        let nodes = self.nodes.values().enumerate();
        nodes.map(|(slot, node)| (node, self.plain.group(slot)))
    }

    /// Which policies select the nodes of each group, by their places in what `settle` was
    /// given.
    pub fn plain_groups(&self) -> &[Vec<usize>] {
        &self.plain.groups
    }
}
