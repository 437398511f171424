//! What is known of each node: `fold` takes in what the sources say, `settle`
//! keeps our own clocks, `signal` and `fault` answer with three values.
//! A source that is silent, stale or in contradiction makes Unknown, never Clear.

mod alerts;
mod clock;
pub mod identity;
pub mod lease;
mod plain;
pub mod probe;
mod reload;
mod rules;
pub mod silence;
mod suspend;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::api::{AlertGroupSpec, FaultRecord, Leaf, SignalRecord, SilenceRecord, When};
use crate::config::{Confirm, Fault, Policy, Rules};
use crate::model::{NodeView, SignalState, Span, Truth};
use clock::{Clock, Pace};
use identity::Labels;
use probe::Reading;

pub use alerts::{LATE, correct, forget, forget_ended, is_forgotten, last_word, merge, merge_one};
pub use rules::Answer;

/// A since is forgotten only after its signal was clear this long: flapping does not restart clocks.
pub const CLEAR_AFTER: Span = Span::minutes(2);
/// An alert not received again for this long is no longer known to fire.
pub const ALERT_TTL: Span = Span::minutes(15);
/// An alert not received for this long is dropped at the next write of its group.
pub const FORGET_AFTER: Span = Span::minutes(24 * 60);
/// How far Alertmanager's clock may be from ours: what differs by less has no order.
pub const CLOCK_SKEW: Span = Span::seconds(5);
/// An answer older than this says nothing.
pub const MAX_STALENESS: Span = Span::minutes(2);
/// After a gap a source must say the same for this long, or for its interval if that is more:
/// then it was evaluated twice.
pub const RESUME: Span = Span::seconds(30);
/// How often Alertmanager is asked, and an alert's receivers are told anew at the soonest.
const ALERTS_INTERVAL: Span = Span::minutes(1);
/// How the name of a condition begins among the records of signals.
pub const CONDITION: &str = "condition/";
/// A list of nodes older than this says nothing.
pub const NODES_STALE: Span = Span::seconds(90);

/// What a source says.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A consistent list of all nodes.
    Nodes(Vec<NodeView>),
    /// An answer to a rule's queries.
    Rule {
        /// The rule's name.
        name: String,
        /// When it was asked: the answer is from then on.
        asked: Timestamp,
        /// What Prometheus said.
        answer: Answer,
    },
    /// An alert group as it is stored.
    Alerts {
        /// The object's name.
        object: String,
        /// What it holds.
        group: AlertGroupSpec,
    },
    /// An alert group that was collected.
    AlertsGone {
        /// The object's name.
        object: String,
    },
    /// Whether something was heard of the alert groups lately, be it that none changed.
    AlertsHeard(bool),
    /// What Alertmanager said when asked.
    Asked(silence::Asked),
    /// No usable answer of Alertmanager, and why.
    AskFailed(String),
    /// The silences that an earlier leader knew for a node.
    Silenced {
        /// The node's UID.
        uid: String,
        /// Which.
        silences: Vec<SilenceRecord>,
    },
    /// What a node's own exporter said to a policy's question.
    Probe {
        /// The node's UID.
        uid: String,
        /// The question.
        confirm: Confirm,
        /// The answer.
        reading: Reading,
    },
    /// When Prometheus had nothing to say last, as an earlier leader knew it.
    Dark(Timestamp),
    /// What a node's Lease says of its last renewal.
    Lease {
        /// The node's UID.
        uid: String,
        /// None if there is no lease; an error if it could not be read.
        renewed: Result<Option<Timestamp>, String>,
    },
    /// What an earlier leader knew of the fleet.
    Led {
        /// The UIDs of young nodes that it saw Ready.
        joined: Vec<String>,
        /// The rules that it had suspended.
        suspended: Vec<String>,
    },
    /// An earlier leader saw this node fall sick.
    FellSick {
        /// The node's UID.
        uid: String,
        /// Since when it is sick, if it is still.
        since: Option<Timestamp>,
    },
    /// The clocks that an earlier leader kept for a node.
    Restore {
        /// The node's UID.
        uid: String,
        /// Its signals' clocks.
        signals: Vec<SignalRecord>,
        /// Its faults' clocks.
        faults: Vec<FaultRecord>,
        /// When the earlier leader was last known to look: from then on clocks stood still.
        last_seen: Timestamp,
    },
}

/// A signal of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// What it says.
    pub state: SignalState,
    /// Since when it fires, by our own clock.
    pub since: Option<Timestamp>,
}

/// Everything that is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    nodes: BTreeMap<String, NodeView>,
    /// Of `nodes`, made once for each list.
    index: identity::Index,
    /// The names in order, and by UID the place in it: where answers keep their marks.
    names: Vec<String>,
    slots: BTreeMap<String, usize>,
    nodes_at: Option<Timestamp>,
    rules: BTreeMap<String, rules::RuleEvidence>,
    alerts: alerts::Delivered,
    /// Whether what was delivered may have changed unheard.
    deaf: bool,
    alertmanager: silence::Alertmanager,
    external_labels: Labels,
    /// By node UID; only nodes of which something is, or was a short while ago.
    clocks: BTreeMap<String, Clocks>,
    suspended: suspend::Suspended,
    /// By slot, whether the node was ever seen Ready.
    was_ready: Vec<bool>,
    /// The UIDs of nodes that an earlier leader saw Ready.
    joined: BTreeSet<String>,
    kinds: plain::Kinds,
    /// By slot, whether `settle` found the node plainly well; nothing after anything else was
    /// heard.
    plain: Vec<bool>,
    /// When Prometheus, as far as it is polled, had nothing to say last.
    dark: Option<Timestamp>,
    leases: BTreeMap<String, lease::Seen>,
    unresolved: BTreeMap<(&'static str, identity::Unresolved), u64>,
    probed: Vec<probe::Probed>,
}

/// The clocks of one node.
#[derive(Clone, Debug, Default, PartialEq)]
struct Clocks {
    signals: BTreeMap<String, Clock>,
    /// By policy and fault.
    faults: BTreeMap<String, BTreeMap<String, Clock>>,
    unready: Option<Clock>,
    /// Since when alert and poll of one name disagree.
    disputes: BTreeMap<String, Timestamp>,
}

impl Clocks {
    fn fault(&self, policy: &str, fault: &str) -> Option<&Clock> {
        self.faults.get(policy)?.get(fault)
    }

    fn empty(&self) -> bool {
        let clocks = self.signals.is_empty() && self.faults.values().all(BTreeMap::is_empty);
        clocks && self.unready.is_none() && self.disputes.is_empty()
    }
}

/// One node at one time, and what is asked again and again of it.
struct Look<'a> {
    node: &'a NodeView,
    slot: Option<usize>,
    clocks: Option<&'a Clocks>,
    rules: &'a Rules,
    now: Timestamp,
}

impl Look<'_> {
    fn signal(&self, name: &str) -> Option<&Clock> {
        self.clocks?.signals.get(name)
    }
}

impl Evidence {
    /// Nothing yet. Of these jobs' series the label `instance` says nothing of a node. What has
    /// one of `external_labels` with another value is of another cluster. Where silences are
    /// matched, what is not an alert has them too, as its alert would.
    pub fn new(cluster_jobs: Vec<String>, external_labels: Labels) -> Self {
        Self {
            index: identity::Index::new(cluster_jobs, external_labels.clone()),
            external_labels,
            ..Self::default()
        }
    }

    /// Takes in what one source says.
    pub fn fold(&mut self, input: Input, now: Timestamp) {
        self.forget_plain(&input);
        match input {
            Input::Nodes(nodes) => self.fold_nodes(nodes, now),
            Input::Rule {
                name,
                asked,
                answer,
            } => self.fold_rule(name, answer, asked.min(now)),
            Input::Alerts { object, group } => {
                for alert in group.alerts.values() {
                    self.count_unresolved("Alertmanager", &alert.labels);
                }
                self.alerts.put(object, group, &self.index);
            }
            Input::AlertsGone { object } => self.alerts.remove(&object, &self.index),
            Input::AlertsHeard(heard) => self.deaf = !heard,
            Input::Asked(asked) => self.fold_asked(asked),
            Input::AskFailed(message) => self.alertmanager.failed(message, now),
            Input::Silenced { uid, silences } => self.alertmanager.restore(uid, silences),
            Input::Probe {
                uid,
                confirm,
                reading,
            } => self.fold_probe(uid, confirm, &reading, now),
            Input::Dark(at) => self.dark = self.dark.max(Some(at.min(now))),
            Input::Lease { uid, renewed } => self.fold_lease(uid, renewed.map_err(|_| ()), now),
            Input::Led { joined, suspended } => {
                self.joined.extend(joined);
                self.suspended.restore(suspended);
            }
            Input::FellSick { uid, since } => {
                if let Some(since) = since {
                    let clocks = self.clocks.entry(uid.clone()).or_default();
                    let clock = Clock::restored(since, now, true);
                    clocks.unready.get_or_insert(clock);
                }
                // Who was starting still would not have counted.
                self.joined.insert(uid);
            }
            Input::Restore {
                uid,
                signals,
                faults,
                last_seen,
            } => {
                let stood = |paused: Option<Timestamp>| {
                    let stood = paused.unwrap_or(last_seen);
                    stood.min(last_seen).min(now)
                };
                // Conditions are seen anew, and their records' clocks go on in the record.
                let signals = signals.into_iter();
                let signals = signals.filter(|record| !record.name.starts_with(CONDITION));
                let signals: Vec<SignalRecord> = signals.collect();
                for record in &signals {
                    let rule = self.rules.entry(record.name.clone()).or_default();
                    if record.state == SignalState::Firing {
                        let at = record.last_firing.unwrap_or(last_seen).min(now);
                        rule.restore(uid.clone(), at);
                    }
                    let until = match record.state {
                        SignalState::Unknown => record.paused,
                        SignalState::Firing | SignalState::Clear => Some(now),
                    };
                    if let Some(until) = until {
                        rule.restore_sight(uid.clone(), until.min(now));
                    }
                }
                let clocks = self.clocks.entry(uid).or_default();
                for record in signals {
                    if let Some(since) = record.since {
                        let clear = record.state == SignalState::Clear;
                        let clock = Clock::restored(since, stood(record.paused), clear);
                        clocks.signals.entry(record.name).or_insert(clock);
                    }
                }
                for record in faults {
                    let clock = Clock::restored(record.since, stood(record.paused), true);
                    let faults = clocks.faults.entry(record.policy).or_default();
                    faults.entry(record.fault).or_insert(clock);
                }
            }
        }
    }

    fn fold_nodes(&mut self, nodes: Vec<NodeView>, now: Timestamp) {
        let index = self.index.of(&nodes);
        let before = std::mem::take(&mut self.nodes);
        self.nodes = nodes
            .into_iter()
            .map(|node| (node.name.clone(), node))
            .collect();
        self.nodes_at = Some(now);
        let uids = |nodes| BTreeMap::values(nodes).map(|node: &NodeView| &node.uid);
        if !uids(&before).eq(uids(&self.nodes)) {
            self.names = self.nodes.keys().cloned().collect();
            let places = uids(&self.nodes).cloned().enumerate();
            self.slots = places.map(|(slot, uid)| (uid, slot)).collect();
            let now_at = |uid| self.slots.get(uid).copied();
            let moved: Vec<Option<usize>> = uids(&before).map(now_at).collect();
            for rule in self.rules.values_mut() {
                rule.renumber(|slot| moved[slot]);
            }
            let was_ready = std::mem::take(&mut self.was_ready);
            self.was_ready = vec![false; self.names.len()];
            for (slot, _) in was_ready.iter().enumerate().filter(|(_, ready)| **ready) {
                if let Some(slot) = moved[slot] {
                    self.was_ready[slot] = true;
                }
            }
        }
        for (slot, node) in self.nodes.values().enumerate() {
            self.was_ready[slot] |= node.ready();
        }
        self.kinds.sort(self.nodes.values());
        if index != self.index {
            self.index = index;
            self.alerts.join(&self.index);
            self.alertmanager.join(&self.index);
        }
    }

    /// What was heard of one node says nothing of the others.
    fn forget_plain(&mut self, input: &Input) {
        match input {
            Input::Lease { uid, .. } | Input::Probe { uid, .. } => {
                let slot = self.slots.get(uid);
                if let Some(plain) = slot.and_then(|slot| self.plain.get_mut(*slot)) {
                    *plain = false;
                }
            }
            _ => self.plain.clear(),
        }
    }

    fn count_unresolved(&mut self, source: &'static str, labels: &Labels) {
        if let Err(why) = self.index.resolve(labels) {
            *self.unresolved.entry((source, why)).or_default() += 1;
        }
    }

    /// Keeps every clock that rules and policies need; call once per pass, before asking.
    pub fn settle(&mut self, rules: &Rules, policies: &[Policy], now: Timestamp) {
        self.rules.retain(|name, _| rules.get(name).is_some());
        for rule in rules.iter() {
            if let Some(evidence) = self.rules.get_mut(&rule.name) {
                evidence.prune(rule.keep_firing_for, now);
            }
        }
        if self.sight_asked(rules) && !self.tells_alerts(rules, now) {
            self.dark = Some(now);
        }
        self.sort_by(policies);
        let mut touched = self.settle_signals(rules, policies, now);
        self.settle_readiness(now, &mut touched);
        self.plain = self.plain(&touched, rules, policies, now);
        self.settle_faults(rules, policies, now);
        if self.nodes_fresh(now) {
            // Else who is gone is not known; clocks that an earlier leader kept wait for the
            // first list.
            self.forget_unasked(policies);
            let slots = &self.slots;
            self.clocks
                .retain(|uid, clocks| slots.contains_key(uid) && !clocks.empty());
            self.leases.retain(|uid, _| slots.contains_key(uid));
            self.joined.retain(|uid| slots.contains_key(uid));
        }
    }

    /// Forgets the clocks of which no policy of their node asks any more: nobody ticks them.
    fn forget_unasked(&mut self, policies: &[Policy]) {
        for (uid, clocks) in &mut self.clocks {
            let Some(slot) = self.slots.get(uid) else {
                continue;
            };
            let node = &self.nodes[&self.names[*slot]];
            let policies = policies.iter();
            let asking: Vec<&Policy> = policies
                .filter(|policy| policy.selector.matches(&node.labels))
                .collect();
            let names: BTreeSet<String> = asking
                .iter()
                .flat_map(|policy| signal_names(policy))
                .collect();
            clocks.signals.retain(|name, _| names.contains(name));
            clocks.disputes.retain(|name, _| names.contains(name));
            clocks.faults.retain(|name, faults| {
                let policy = asking.iter().find(|policy| policy.name == *name);
                faults.retain(|fault, _| policy.is_some_and(|policy| policy.when(fault).is_some()));
                !faults.is_empty()
            });
        }
    }

    /// Only where something fires or did: elsewhere no clock runs. Gives back which nodes,
    /// by slot, something is heard of or a clock runs for.
    fn settle_signals(&mut self, rules: &Rules, policies: &[Policy], now: Timestamp) -> Vec<bool> {
        let names: BTreeSet<String> = policies.iter().flat_map(signal_names).collect();
        let mut touched: BTreeSet<(&str, &str)> = BTreeSet::new();
        for name in &names {
            let fired = self.rules.get(name).into_iter();
            let fired = fired.flat_map(rules::RuleEvidence::firing);
            let fired = fired.map(|slot| self.names[slot].as_str());
            let delivered = self.alerts.nodes(name);
            let all = fired.chain(delivered).chain(self.alertmanager.nodes(name));
            touched.extend(all.map(|node| (node, name.as_str())));
        }
        for (uid, clocks) in &self.clocks {
            let Some(slot) = self.slots.get(uid) else {
                continue;
            };
            let running = clocks.signals.keys().chain(clocks.disputes.keys());
            let wanted = running.filter(|name| names.contains(*name));
            touched.extend(wanted.map(|name| (self.names[*slot].as_str(), name.as_str())));
        }
        let mut heard = vec![false; self.names.len()];
        let (mut found, mut firing) = (Vec::new(), BTreeMap::<String, (usize, usize)>::new());
        let mut unclear = BTreeMap::<String, usize>::new();
        for (node, name) in touched {
            let Some(node) = self.nodes.get(node) else {
                continue;
            };
            let look = self.look(node, rules, now);
            if let Some(slot) = look.slot {
                heard[slot] = true;
            }
            let truth = Truth::from(self.raw(&look, name));
            let disputed = rules.get(name).map(|rule| self.disagree(&look, rule));
            if truth == Truth::True {
                let covered = || (0, self.covered(name));
                firing.entry(name.to_owned()).or_insert_with(covered).0 += 1;
            }
            if truth != Truth::False {
                *unclear.entry(name.to_owned()).or_default() += 1;
            }
            found.push((node.uid.clone(), name.to_owned(), truth, disputed));
        }
        let blind: BTreeSet<String> = self
            .suspended
            .names()
            .filter(|name| {
                let unclear = unclear.get(*name).copied().unwrap_or(0);
                !self.counts(name, unclear, rules, now)
            })
            .map(str::to_owned)
            .collect();
        self.suspended.settle(&firing, &blind, now);
        for (uid, name, truth, disputed) in found {
            let truth = match truth {
                Truth::True if self.suspended.contains(&name) => Truth::Unknown,
                truth => truth,
            };
            let slot = self.slots.get(&uid).copied();
            let clocks = self.clocks.entry(uid).or_default();
            if disputed == Some(true) {
                clocks.disputes.entry(name.clone()).or_insert(now);
            } else {
                clocks.disputes.remove(&name);
            }
            let pace = Pace {
                wait: rules.get(&name).map_or(Span::default(), |rule| rule.for_),
                resume: resume(rules, [&*name]),
            };
            let mut clock = clocks.signals.remove(&name);
            clock::tick(&mut clock, truth, pace, now);
            let since = clock.as_ref().and_then(|clock| clock.since);
            let over = since.is_some_and(|since| pace.wait.after(since) <= now);
            if truth == Truth::True
                && over
                && pace.wait != Span::default()
                && let (Some(slot), Some(rule)) = (slot, self.rules.get_mut(&name))
            {
                rule.fulfil(slot, &self.nodes[&self.names[slot]].uid);
            }
            clocks.signals.extend(clock.map(|clock| (name, clock)));
        }
        for slot in self.clocks.keys().filter_map(|uid| self.slots.get(uid)) {
            heard[*slot] = true;
        }
        heard
    }

    fn settle_readiness(&mut self, now: Timestamp, heard: &mut [bool]) {
        let fresh = self.nodes_fresh(now);
        for (slot, node) in self.nodes.values().enumerate() {
            let ready = self.kinds.ready(slot);
            if ready && !heard[slot] {
                continue;
            }
            heard[slot] = true;
            let truth = match (fresh, ready) {
                (false, _) => Truth::Unknown,
                (true, ready) => !Truth::from(ready),
            };
            let clocks = self.clocks.entry(node.uid.clone()).or_default();
            clock::tick(&mut clocks.unready, truth, UNREADY, now);
        }
    }

    fn settle_faults(&mut self, rules: &Rules, policies: &[Policy], now: Timestamp) {
        let mut found = Vec::new();
        for (slot, node) in self.nodes.values().enumerate() {
            if self.plain[slot] {
                continue;
            }
            let look = self.look_at(Some(slot), node, rules, now);
            for policy in policies {
                if !policy.selector.matches(&node.labels) {
                    continue;
                }
                for fault in &policy.faults {
                    let truth = self.judged(&look, policy, &fault.when);
                    let clock = look
                        .clocks
                        .and_then(|of| of.fault(&policy.name, &fault.name));
                    if truth == Truth::True || clock.is_some() {
                        found.push((node.uid.clone(), policy, fault, truth));
                    }
                }
            }
        }
        for (uid, policy, fault, truth) in found {
            let clocks = self.clocks.entry(uid).or_default();
            let faults = clocks.faults.entry(policy.name.clone()).or_default();
            let mut clock = faults.remove(&fault.name);
            let pace = Pace {
                wait: fault.for_,
                resume: resume(rules, policy.signals(&fault.name)),
            };
            clock::tick(&mut clock, truth, pace, now);
            faults.extend(clock.map(|clock| (fault.name.clone(), clock)));
        }
    }

    /// Every node of the last list.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.values()
    }

    /// Every node of the last list, by name.
    pub const fn by_name(&self) -> &BTreeMap<String, NodeView> {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&NodeView> {
        self.nodes.get(name)
    }

    /// Whether the last list has a node of this UID.
    pub fn has(&self, uid: &str) -> bool {
        self.slots.contains_key(uid)
    }

    /// Whether the list of nodes is there, not empty, and not too old.
    pub fn nodes_fresh(&self, now: Timestamp) -> bool {
        let young = |at| NODES_STALE.after(at) >= now && at <= CLOCK_SKEW.after(now);
        !self.nodes.is_empty() && self.nodes_at.is_some_and(young)
    }

    /// Since when a node is not Ready, by our own clock.
    pub fn unready_since(&self, uid: &str) -> Option<Timestamp> {
        self.clocks.get(uid)?.unready.as_ref()?.since
    }

    /// Whether a node may still be starting: it never was Ready, and is younger than `grace`.
    pub fn is_starting(&self, node: &NodeView, grace: Span, now: Timestamp) -> bool {
        let was_ready = || {
            let slot = self.slots.get(&node.uid).copied();
            slot.and_then(|slot| self.was_ready.get(slot)) == Some(&true)
        };
        grace.after(node.created) > now && !was_ready() && !self.joined.contains(&node.uid)
    }

    /// The UIDs of nodes younger than `grace` that were Ready, the next leader's to know.
    pub fn joined(&self, grace: Span, now: Timestamp) -> impl Iterator<Item = &str> {
        let young = self.nodes.values().filter(move |node| {
            grace.after(node.created) > now && !self.is_starting(node, grace, now)
        });
        young.map(|node| node.uid.as_str())
    }

    /// Whether a clock runs for a signal or a fault of this node: it is not plainly healthy.
    pub fn watched(&self, uid: &str) -> bool {
        self.clocks.get(uid).is_some_and(|clocks| {
            !clocks.signals.is_empty() || clocks.faults.values().any(|faults| !faults.is_empty())
        })
    }

    /// Rules that gave no usable answer: name, since, what was said.
    pub fn failing_rules(&self) -> impl Iterator<Item = (&str, Timestamp, &str)> {
        self.rules.iter().filter_map(|(name, rule)| {
            let (since, message) = rule.failure()?;
            Some((name.as_str(), since, message))
        })
    }

    /// How often labels could not be joined to a node, by source and why.
    pub fn unresolved(&self) -> &BTreeMap<(&'static str, identity::Unresolved), u64> {
        &self.unresolved
    }

    /// When Prometheus had nothing to say last, for the record: what is `known` there stays
    /// while it is no more than a third of `ALERT_TTL` later, as each change costs a write.
    pub fn dark(&self, known: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let dark = self.dark.filter(|at| ALERT_TTL.after(*at) >= now)?;
        let latest = Span::minutes(5).after(dark);
        known
            .filter(|known| (dark..=latest).contains(known))
            .or(Some(latest))
    }

    /// The objects whose every alert is to be forgotten.
    pub fn forgotten(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        self.alerts.forgotten(now)
    }

    /// What a signal says of a node, its rule's `for` applied.
    pub fn signal(&self, node: &NodeView, name: &str, rules: &Rules, now: Timestamp) -> Signal {
        self.told(&self.look(node, rules, now), name)
    }

    /// The signals of a policy for a node, for its record. A since is there also while a
    /// rule's `for` is not over, and a while after it cleared: it must survive us.
    pub fn signals(
        &self,
        node: &NodeView,
        policy: &Policy,
        rules: &Rules,
        now: Timestamp,
    ) -> Vec<SignalRecord> {
        let look = self.look(node, rules, now);
        let signals = signal_names(policy).into_iter().map(|name| SignalRecord {
            state: self.told(&look, &name).state,
            since: look.signal(&name).and_then(|clock| clock.since),
            paused: self.paused(&look, &name),
            last_firing: self.held_since(&look, &name),
            name,
        });
        signals.chain(self.conditions(&look, policy)).collect()
    }

    /// Since when a signal's clock stands still; of a rule for which none runs, since when it
    /// has no data of the node, as the next leader has to know that it had some.
    fn paused(&self, look: &Look<'_>, name: &str) -> Option<Timestamp> {
        match look.signal(name) {
            Some(clock) => clock.gap,
            None => self.rules.get(name)?.lost_since(look),
        }
    }

    /// The conditions that a policy names: one fires while any of its leaves holds. Only
    /// Ready has a clock of its own; another's is that of a fault which rests on it alone.
    fn conditions(&self, look: &Look<'_>, policy: &Policy) -> Vec<SignalRecord> {
        let mut types: BTreeMap<&str, Vec<&Leaf>> = BTreeMap::new();
        for leaf in policy.faults.iter().flat_map(|fault| leaves(&fault.when)) {
            if let Some(condition) = &leaf.condition {
                types.entry(&condition.type_).or_default().push(leaf);
            }
        }
        let alone = |fault: &&Fault, type_: &str| {
            let mut leaves = leaves(&fault.when);
            let first = leaves.next().and_then(|leaf| leaf.condition.as_ref());
            first.is_some_and(|first| first.type_ == type_) && leaves.next().is_none()
        };
        let record = |(type_, leaves): (&str, Vec<&Leaf>)| {
            let holds = leaves.into_iter().map(|leaf| self.leaf(look, leaf));
            let state = match Truth::any(holds) {
                Truth::True => SignalState::Firing,
                Truth::Unknown => SignalState::Unknown,
                Truth::False => SignalState::Clear,
            };
            let clocks = look.clocks;
            let unready = clocks.and_then(|of| of.unready.as_ref());
            let unready = unready.filter(|_| type_ == "Ready" && !look.node.ready());
            let mut faults = policy.faults.iter();
            let fault = faults.find(|fault| alone(fault, type_));
            let fault = fault.and_then(|fault| clocks?.fault(&policy.name, &fault.name));
            let clock = fault.or(unready).filter(|_| state != SignalState::Clear);
            SignalRecord {
                name: format!("{CONDITION}{type_}"),
                state,
                since: clock.and_then(|clock| clock.since),
                paused: clock.and_then(|clock| clock.gap),
                last_firing: None,
            }
        };
        types.into_iter().map(record).collect()
    }

    /// Whether a fault is true of a node, and since when by our own clock.
    pub fn fault(
        &self,
        node: &NodeView,
        policy: &Policy,
        fault: &str,
        rules: &Rules,
        now: Timestamp,
    ) -> (Truth, Option<Timestamp>) {
        let Some(when) = policy.when(fault) else {
            return (Truth::Unknown, None);
        };
        let look = self.look(node, rules, now);
        let clock = look.clocks.and_then(|of| of.fault(&policy.name, fault));
        let since = clock.and_then(|clock| clock.since);
        match self.judged(&look, policy, when) {
            // One word after a gap is not enough.
            Truth::True if clock.is_some_and(|clock| clock.gap.is_some()) => {
                (Truth::Unknown, since)
            }
            truth => (truth, since),
        }
    }

    /// Since when a fault is false that was true: its clock is forgotten after `CLEAR_AFTER`.
    pub fn clearing(&self, node: &NodeView, policy: &str, fault: &str) -> Option<Timestamp> {
        let clock = self.clocks.get(&node.uid)?.fault(policy, fault)?;
        clock.clear_since
    }

    fn look<'a>(&'a self, node: &'a NodeView, rules: &'a Rules, now: Timestamp) -> Look<'a> {
        self.look_at(self.slots.get(&node.uid).copied(), node, rules, now)
    }

    fn look_at<'a>(
        &'a self,
        slot: Option<usize>,
        node: &'a NodeView,
        rules: &'a Rules,
        now: Timestamp,
    ) -> Look<'a> {
        Look {
            node,
            slot,
            clocks: self.clocks.get(&node.uid),
            rules,
            now,
        }
    }

    /// What a combination comes to, if no kubelet that is alive contradicts it.
    fn judged(&self, look: &Look<'_>, policy: &Policy, when: &When) -> Truth {
        let truth = self.truth(look, policy, when);
        let alive = || self.lease(&look.node.uid, look.now) == Some(lease::Word::Renewing);
        if truth == Truth::True && lease::unheard(look.node) && alive() {
            return Truth::Unknown;
        }
        truth
    }

    /// What each leaf of a combination comes to, in order.
    pub fn leaves(
        &self,
        node: &NodeView,
        policy: &Policy,
        when: &When,
        rules: &Rules,
        now: Timestamp,
    ) -> Vec<Truth> {
        let look = self.look(node, rules, now);
        let truth = |leaf| match part(leaf, policy) {
            Some(part) => self.truth(&look, policy, part),
            None => self.leaf(&look, leaf),
        };
        leaves(when).map(truth).collect()
    }

    fn truth(&self, look: &Look<'_>, policy: &Policy, when: &When) -> Truth {
        evaluate(policy, when, &|leaf| self.leaf(look, leaf))
    }

    fn leaf(&self, look: &Look<'_>, leaf: &Leaf) -> Truth {
        if let Some(name) = &leaf.signal {
            return self.told(look, name).state.into();
        }
        if let Some(wanted) = &leaf.condition {
            if !self.nodes_fresh(look.now) {
                return Truth::Unknown;
            }
            let Some(found) = look.node.condition(&wanted.type_) else {
                return Truth::Unknown;
            };
            let mut statuses = wanted.statuses.iter();
            let status = statuses.any(|status| status.as_str() == found.status);
            let reason = wanted.reasons.is_empty() || wanted.reasons.contains(&found.reason);
            return Truth::from(status && reason);
        }
        Truth::Unknown
    }

    fn told(&self, look: &Look<'_>, name: &str) -> Signal {
        let raw = match self.raw(look, name) {
            SignalState::Firing if self.suspended.contains(name) => SignalState::Unknown,
            raw => raw,
        };
        if raw == SignalState::Clear {
            let since = None;
            return Signal { state: raw, since };
        }
        let clock = look.signal(name);
        let since = clock.and_then(|clock| clock.since);
        let wait = look
            .rules
            .get(name)
            .map_or(Span::default(), |rule| rule.for_);
        let over = since.is_some_and(|since| wait.after(since) <= look.now);
        if raw == SignalState::Firing && !over && wait != Span::default() {
            if clock.is_some_and(|clock| clock.restarted) {
                // It may have fired all along.
                let state = SignalState::Unknown;
                return Signal { state, since };
            }
            let (state, since) = (SignalState::Clear, None);
            return Signal { state, since };
        }
        Signal { state: raw, since }
    }

    /// What the source says, before any `for`. A polled rule decides over alerts of its
    /// name, unless they disagree for long.
    fn raw(&self, look: &Look<'_>, name: &str) -> SignalState {
        let Some(rule) = look.rules.get(name) else {
            return self.alerted(look, name);
        };
        let patience = Span::seconds(2 * u32::try_from(rule.interval.as_seconds()).unwrap_or(0));
        let disputed = look.clocks.and_then(|clocks| clocks.disputes.get(name));
        if disputed.is_some_and(|since| patience.after(*since) < look.now) {
            return SignalState::Unknown;
        }
        self.polled(look, rule)
    }

    fn alerted(&self, look: &Look<'_>, name: &str) -> SignalState {
        // What Alertmanager lists needs no delivery.
        if look.slot.is_none() || (self.deaf && !self.alertmanager.whole(look.now)) {
            return SignalState::Unknown;
        }
        let state = self.alertmanager.state(name, &self.alerts, look);
        // Alerts also end because Prometheus is dead, or its targets are cut off: all, or those
        // of the node. A poll of the same name sees for itself.
        let dark = || self.dark.is_some_and(|at| ALERT_TTL.after(at) >= look.now);
        let lost = || look.rules.get(name).is_none() && self.misses(look);
        let blind = || !self.tells_alerts(look.rules, look.now);
        let sick = look.signal(name).is_some();
        if state == SignalState::Clear && (blind() || (sick && (dark() || lost()))) {
            return SignalState::Unknown;
        }
        state
    }
}

/// What a combination comes to if its signals and conditions come to this; the faults that
/// it names are combined alike.
fn evaluate(policy: &Policy, when: &When, leaf: &dyn Fn(&Leaf) -> Truth) -> Truth {
    combine(when, |one| match part(one, policy) {
        Some(part) => evaluate(policy, part, leaf),
        None => leaf(one),
    })
}

/// The combination of a leaf that names another fault.
fn part<'a>(leaf: &Leaf, policy: &'a Policy) -> Option<&'a When> {
    policy.when(leaf.fault.as_ref()?)
}

/// A node that is not Ready counts as sick since then, whatever gaps there were.
const UNREADY: Pace = Pace {
    wait: Span::minutes(24 * 60),
    resume: RESUME,
};

/// How long signals take to be evaluated twice.
fn resume<'a>(rules: &Rules, signals: impl IntoIterator<Item = &'a str>) -> Span {
    let interval = |name| {
        let rule = rules.get(name);
        rule.map_or(ALERTS_INTERVAL, |rule| rule.interval)
    };
    let longest = signals.into_iter().map(interval).max();
    longest.map_or(RESUME, |interval| interval.max(RESUME))
}

/// What a combination comes to; an empty one says nothing and must not read as true.
fn combine(when: &When, leaf: impl Fn(&Leaf) -> Truth) -> Truth {
    let mut parts = Vec::new();
    if !when.all.is_empty() {
        parts.push(Truth::all(when.all.iter().map(&leaf)));
    }
    if !when.any.is_empty() {
        parts.push(Truth::any(when.any.iter().map(&leaf)));
    }
    if !when.none.is_empty() {
        parts.push(!Truth::any(when.none.iter().map(&leaf)));
    }
    if let Some(at_least) = &when.at_least {
        parts.push(Truth::at_least(
            at_least.count as usize,
            at_least.of.iter().map(&leaf),
        ));
    }
    if parts.is_empty() {
        Truth::Unknown
    } else {
        Truth::all(parts)
    }
}

/// What a combination comes to if its leaves came to these, in order; none if they are not
/// as many.
pub fn combined(when: &When, truths: &[Truth]) -> Option<Truth> {
    if leaves(when).count() != truths.len() {
        return None;
    }
    // `combine` asks in the same order.
    let next = std::cell::Cell::new(0);
    let told = |_: &Leaf| {
        let at = next.replace(next.get() + 1);
        truths.get(at).copied().unwrap_or(Truth::Unknown)
    };
    Some(combine(when, told))
}

/// Every signal that a policy names.
pub fn signal_names(policy: &Policy) -> BTreeSet<String> {
    policy
        .faults
        .iter()
        .flat_map(|fault| leaves(&fault.when))
        .filter_map(|leaf| leaf.signal.clone())
        .collect()
}

fn leaves(when: &When) -> impl Iterator<Item = &Leaf> {
    let counted = when.at_least.iter().flat_map(|at_least| &at_least.of);
    when.all
        .iter()
        .chain(&when.any)
        .chain(&when.none)
        .chain(counted)
}

#[cfg(test)]
mod tests;
