//! What is known of each node: `fold` takes in what the sources say, `settle`
//! keeps our own clocks, `signal` and `fault` answer with three values.
//! A source that is silent, stale or in contradiction makes Unknown, never Clear.

pub mod identity;
pub mod probe;
mod reload;
pub mod silence;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::api::{
    AlertGroupSpec, FaultRecord, Leaf, SignalRecord, SilenceRecord, StoredAlert, When,
};
use crate::config::{Confirm, Policy, Rule};
use crate::model::{NodeView, SignalState, Span, Truth};
use identity::Labels;
use probe::Reading;

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
/// After a gap a source must say the same for this long: two evaluations of the shipped rules.
pub const RESUME: Span = Span::seconds(30);
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

/// What Prometheus said to a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The series of the expression, and of its presence selector if it has one.
    Series {
        /// Series that fire.
        firing: Vec<Labels>,
        /// Series that show which nodes have fresh data.
        present: Option<Vec<Labels>>,
    },
    /// No usable answer, and why.
    Failed(String),
}

/// How long something is so, in time that was observed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Clock {
    since: Option<Timestamp>,
    clear_since: Option<Timestamp>,
    settled: Timestamp,
    /// Since when nothing is known. It ends only after a while of knowing.
    gap: Option<Timestamp>,
    known_again: Option<Timestamp>,
}

impl Clock {
    fn start(now: Timestamp) -> Self {
        Self {
            since: None,
            clear_since: None,
            settled: now,
            gap: None,
            known_again: None,
        }
    }

    /// Keeps the time. A gap pauses it, whether the source was silent or nobody looked (a
    /// wall clock that jumps is the same); one longer than `wait` starts it anew, a
    /// shorter one is over once the source said the same for `RESUME`. `CLEAR_AFTER` of
    /// clear resets it. A wall clock that went back never lengthens it.
    fn tick(&mut self, truth: Truth, wait: Span, now: Timestamp) {
        let before = self.settled.min(now);
        let passed = now.duration_since(before);
        self.settled = self.settled.max(now);
        if passed > NODES_STALE.signed() {
            self.gap.get_or_insert(before);
            self.known_again = None;
        }
        match truth {
            Truth::True => {
                self.clear_since = None;
                self.resume(wait, passed, now);
                self.since = Some(self.since.map_or(now, |since| since.min(now)));
            }
            Truth::Unknown => {
                self.gap.get_or_insert(before);
                (self.known_again, self.clear_since) = (None, None);
                self.pause(passed, now);
            }
            Truth::False => {
                (self.gap, self.known_again) = (None, None);
                let clear = *self.clear_since.get_or_insert(now);
                if CLEAR_AFTER.after(clear) <= now {
                    self.since = None;
                }
            }
        }
    }

    fn resume(&mut self, wait: Span, passed: SignedDuration, now: Timestamp) {
        let Some(gap) = self.gap else { return };
        if self.since.is_none() || now.duration_since(gap) > wait.signed() {
            (self.since, self.gap, self.known_again) = (None, None, None);
            return;
        }
        self.pause(passed, now);
        if RESUME.after(*self.known_again.get_or_insert(now)) <= now {
            (self.gap, self.known_again) = (None, None);
        }
    }

    fn pause(&mut self, passed: SignedDuration, now: Timestamp) {
        let since = self.since.and_then(|since| since.checked_add(passed).ok());
        self.since = since.map(|since| since.min(now));
    }
}

#[derive(Clone, Debug, PartialEq, Default)]
struct RuleEvidence {
    at: Option<Timestamp>,
    failed: Option<String>,
    down_since: Option<Timestamp>,
    firing: BTreeSet<String>,
    present: Option<BTreeSet<String>>,
    /// When each node's series was last seen, for those whose exporter dies.
    last_firing: BTreeMap<String, Timestamp>,
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
    nodes_at: Option<Timestamp>,
    rules: BTreeMap<String, RuleEvidence>,
    alerts: BTreeMap<String, AlertGroupSpec>,
    alertmanager: silence::Alertmanager,
    /// By node UID and signal.
    signals: BTreeMap<(String, String), Clock>,
    /// By node UID, policy and fault.
    faults: BTreeMap<(String, String, String), Clock>,
    /// By node UID: not Ready.
    unready: BTreeMap<String, Clock>,
    unresolved: BTreeMap<(&'static str, identity::Unresolved), u64>,
    probed: Vec<probe::Probed>,
}

impl Evidence {
    /// Takes in what one source says.
    pub fn fold(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Nodes(nodes) => {
                self.index = identity::Index::of(&nodes);
                self.nodes = nodes
                    .into_iter()
                    .map(|node| (node.name.clone(), node))
                    .collect();
                self.nodes_at = Some(now);
            }
            Input::Rule { name, answer } => self.fold_rule(name, answer, now),
            Input::Alerts { object, group } => {
                for alert in group.alerts.values() {
                    self.count_unresolved("Alertmanager", &alert.labels);
                }
                self.alerts.insert(object, group);
            }
            Input::AlertsGone { object } => {
                self.alerts.remove(&object);
            }
            Input::Asked(asked) => self.alertmanager.answered(asked),
            Input::AskFailed(message) => self.alertmanager.failed(message, now),
            Input::Silenced { uid, silences } => self.alertmanager.restore(uid, silences),
            Input::Probe {
                uid,
                confirm,
                reading,
            } => self.fold_probe(uid, confirm, &reading, now),
            Input::Restore {
                uid,
                signals,
                faults,
                last_seen,
            } => {
                let resumed = |since: Option<Timestamp>, paused: Option<Timestamp>| {
                    let stood = paused.unwrap_or(last_seen).min(last_seen).min(now);
                    Clock {
                        since: since.map(|since| since.min(stood)),
                        settled: stood,
                        gap: Some(stood),
                        ..Clock::start(stood)
                    }
                };
                for record in signals {
                    self.signals
                        .entry((uid.clone(), record.name))
                        .or_insert_with(|| resumed(record.since, record.paused));
                }
                for record in faults {
                    self.faults
                        .entry((uid.clone(), record.policy, record.fault))
                        .or_insert_with(|| resumed(Some(record.since), record.paused));
                }
            }
        }
    }

    fn fold_rule(&mut self, name: String, answer: Answer, now: Timestamp) {
        let (firing, present) = match answer {
            Answer::Failed(message) => {
                let rule = self.rules.entry(name).or_default();
                rule.failed = Some(message);
                rule.down_since.get_or_insert(now);
                return;
            }
            Answer::Series { firing, present } => (firing, present),
        };
        for labels in &firing {
            self.count_unresolved("Prometheus", labels);
        }
        let nodes: Vec<&NodeView> = self.nodes.values().collect();
        let about = |labels: &Labels| self.nodes.get(self.index.resolve(labels).ok()?);
        self.alertmanager.fired(&name, &firing, about, &nodes);
        let join = |series: Vec<Labels>| -> BTreeSet<String> {
            series
                .iter()
                .filter_map(about)
                .map(|node| node.uid.clone())
                .collect()
        };
        let (firing, present) = (join(firing), present.map(join));
        let rule = self.rules.entry(name).or_default();
        for uid in &firing {
            rule.last_firing.insert(uid.clone(), now);
        }
        let known: BTreeSet<&String> = nodes.iter().map(|node| &node.uid).collect();
        rule.last_firing.retain(|uid, _| known.contains(uid));
        *rule = RuleEvidence {
            at: Some(now),
            failed: None,
            down_since: None,
            firing,
            present,
            last_firing: std::mem::take(&mut rule.last_firing),
        };
    }

    fn count_unresolved(&mut self, source: &'static str, labels: &Labels) {
        if let Err(why) = self.index.resolve(labels) {
            *self.unresolved.entry((source, why)).or_default() += 1;
        }
    }

    /// Keeps every clock that rules and policies need; call once per pass, before asking.
    pub fn settle(&mut self, rules: &[Rule], policies: &[Policy], now: Timestamp) {
        let names: BTreeSet<String> = policies.iter().flat_map(signal_names).collect();
        let nodes: Vec<NodeView> = self.nodes.values().cloned().collect();
        for node in &nodes {
            for name in &names {
                let truth = Truth::from(self.raw(node, name, rules, now));
                self.signals
                    .entry((node.uid.clone(), name.clone()))
                    .or_insert_with(|| Clock::start(now))
                    .tick(truth, wait_of(rules, name), now);
            }
            let known = if self.nodes_fresh(now) {
                Truth::from(if node.ready() {
                    SignalState::Clear
                } else {
                    SignalState::Firing
                })
            } else {
                Truth::Unknown
            };
            self.unready
                .entry(node.uid.clone())
                .or_insert_with(|| Clock::start(now))
                .tick(known, Span::minutes(24 * 60), now);
            for policy in policies {
                for fault in &policy.faults {
                    let truth = self.truth(node, policy, &fault.when, rules, now);
                    let key = (node.uid.clone(), policy.name.clone(), fault.name.clone());
                    self.faults
                        .entry(key)
                        .or_insert_with(|| Clock::start(now))
                        .tick(truth, fault.for_, now);
                }
            }
        }
        if !self.nodes_fresh(now) {
            // Who is gone is not known; clocks that an earlier leader kept wait for the first list.
            return;
        }
        let alive: BTreeSet<&str> = nodes.iter().map(|node| node.uid.as_str()).collect();
        self.signals
            .retain(|(uid, _), _| alive.contains(uid.as_str()));
        self.faults
            .retain(|(uid, _, _), _| alive.contains(uid.as_str()));
        self.unready.retain(|uid, _| alive.contains(uid.as_str()));
    }

    /// Every node of the last list.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.values()
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&NodeView> {
        self.nodes.get(name)
    }

    /// Whether the list of nodes is there, not empty, and not too old.
    pub fn nodes_fresh(&self, now: Timestamp) -> bool {
        let young = |at| NODES_STALE.after(at) >= now && at <= CLOCK_SKEW.after(now);
        !self.nodes.is_empty() && self.nodes_at.is_some_and(young)
    }

    /// Since when a node is not Ready, by our own clock.
    pub fn unready_since(&self, uid: &str) -> Option<Timestamp> {
        self.unready.get(uid).and_then(|clock| clock.since)
    }

    /// Rules that gave no usable answer: name, since, what was said.
    pub fn failing_rules(&self) -> impl Iterator<Item = (&str, Timestamp, &str)> {
        self.rules.iter().filter_map(|(name, rule)| {
            Some((name.as_str(), rule.down_since?, rule.failed.as_deref()?))
        })
    }

    /// How often labels could not be joined to a node, by source and why.
    pub fn unresolved(&self) -> &BTreeMap<(&'static str, identity::Unresolved), u64> {
        &self.unresolved
    }

    /// What a signal says of a node, its rule's `for` applied.
    pub fn signal(&self, node: &NodeView, name: &str, rules: &[Rule], now: Timestamp) -> Signal {
        let raw = self.raw(node, name, rules, now);
        let since = self
            .signals
            .get(&(node.uid.clone(), name.to_owned()))
            .and_then(|clock| clock.since);
        let wait = wait_of(rules, name);
        let held = since.is_some_and(|since| wait.after(since) <= now) || wait == Span::default();
        let state = if raw == SignalState::Firing && !held {
            SignalState::Clear
        } else {
            raw
        };
        Signal {
            state,
            since: since.filter(|_| state != SignalState::Clear),
        }
    }

    /// The signals of a policy for a node, for its record.
    pub fn signals(
        &self,
        node: &NodeView,
        policy: &Policy,
        rules: &[Rule],
        now: Timestamp,
    ) -> Vec<SignalRecord> {
        signal_names(policy)
            .into_iter()
            .map(|name| {
                let signal = self.signal(node, &name, rules, now);
                SignalRecord {
                    name,
                    state: signal.state,
                    since: signal.since,
                    paused: None,
                }
            })
            .collect()
    }

    /// Whether a fault is true of a node, and since when by our own clock.
    pub fn fault(
        &self,
        node: &NodeView,
        policy: &Policy,
        fault: &str,
        rules: &[Rule],
        now: Timestamp,
    ) -> (Truth, Option<Timestamp>) {
        let Some(found) = policy
            .faults
            .iter()
            .find(|candidate| candidate.name == fault)
        else {
            return (Truth::Unknown, None);
        };
        let truth = self.truth(node, policy, &found.when, rules, now);
        let key = (node.uid.clone(), policy.name.clone(), fault.to_owned());
        match self.faults.get(&key) {
            // One word after a gap is not enough.
            Some(clock) if truth == Truth::True && clock.gap.is_some() => {
                (Truth::Unknown, clock.since)
            }
            clock => (truth, clock.and_then(|clock| clock.since)),
        }
    }

    fn truth(
        &self,
        node: &NodeView,
        policy: &Policy,
        when: &When,
        rules: &[Rule],
        now: Timestamp,
    ) -> Truth {
        combine(when, |leaf| self.leaf(node, policy, leaf, rules, now))
    }

    fn leaf(
        &self,
        node: &NodeView,
        policy: &Policy,
        leaf: &Leaf,
        rules: &[Rule],
        now: Timestamp,
    ) -> Truth {
        if let Some(name) = &leaf.signal {
            return self.signal(node, name, rules, now).state.into();
        }
        if let Some(wanted) = &leaf.condition {
            if !self.nodes_fresh(now) {
                return Truth::Unknown;
            }
            return match node.condition(&wanted.type_) {
                None => Truth::Unknown,
                Some(found) => {
                    let status = wanted
                        .statuses
                        .iter()
                        .any(|status| status.as_str() == found.status);
                    let reason =
                        wanted.reasons.is_empty() || wanted.reasons.contains(&found.reason);
                    if status && reason {
                        Truth::True
                    } else {
                        Truth::False
                    }
                }
            };
        }
        let Some(part) = leaf
            .fault
            .as_ref()
            .and_then(|name| policy.faults.iter().find(|fault| fault.name == *name))
        else {
            return Truth::Unknown;
        };
        self.truth(node, policy, &part.when, rules, now)
    }

    /// What the source says, before any `for`. A polled rule decides over alerts of its name.
    fn raw(&self, node: &NodeView, name: &str, rules: &[Rule], now: Timestamp) -> SignalState {
        match rules.iter().find(|rule| rule.name == name) {
            Some(rule) => self.polled(node, rule, now),
            None => self.alerted(node, name, now),
        }
    }

    fn polled(&self, node: &NodeView, rule: &Rule, now: Timestamp) -> SignalState {
        let Some(evidence) = self.rules.get(&rule.name) else {
            return SignalState::Unknown;
        };
        let fresh = evidence
            .at
            .is_some_and(|at| MAX_STALENESS.after(at) >= now && at <= CLOCK_SKEW.after(now));
        if evidence.failed.is_some() || !fresh {
            return SignalState::Unknown;
        }
        if evidence.firing.contains(&node.uid) {
            return SignalState::Firing;
        }
        match &evidence.present {
            Some(present) if present.contains(&node.uid) => SignalState::Clear,
            Some(present) if !present.is_empty() && !node.ready() => {
                // A dying node takes its exporter along: its last word holds for a while.
                match evidence.last_firing.get(&node.uid) {
                    Some(last) if rule.keep_firing_for.after(*last) >= now => SignalState::Firing,
                    _ => SignalState::Unknown,
                }
            }
            _ => SignalState::Unknown,
        }
    }

    fn alerted(&self, node: &NodeView, name: &str, now: Timestamp) -> SignalState {
        let about = |alert: &StoredAlert| {
            let found = || self.nodes.get(self.index.resolve(&alert.labels).ok()?);
            alert.name == name && found().is_some_and(|found| found.uid == node.uid)
        };
        let delivered: Vec<(&String, &StoredAlert)> = self
            .alerts
            .values()
            .flat_map(|group| &group.alerts)
            .filter(|(_, alert)| about(alert))
            .collect();
        self.alertmanager.state(name, &delivered, about, node, now)
    }

    /// The objects whose every alert is to be forgotten.
    pub fn forgotten(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        let groups = self.alerts.iter();
        groups
            .filter(move |(_, group)| is_forgotten(group, now))
            .map(|(object, _)| object.as_str())
    }
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

/// None for what was said of an earlier machine of this name, before the node object existed.
fn alert_state(alert: &StoredAlert, node: &NodeView, now: Timestamp) -> Option<SignalState> {
    let word = alert.last_firing.max(alert.ends_at)?;
    if word < node.created {
        return None;
    }
    let state = last_word(alert);
    let expired = state == SignalState::Firing && ALERT_TTL.after(word) < now;
    // What comes from our future was received by a clock that jumped.
    Some(if expired || word > CLOCK_SKEW.after(now) {
        SignalState::Unknown
    } else {
        state
    })
}

fn wait_of(rules: &[Rule], name: &str) -> Span {
    rules
        .iter()
        .find(|rule| rule.name == name)
        .map_or(Span::default(), |rule| rule.for_)
}

/// What the deliveries say together, whatever their order. Its end is Alertmanager's
/// word by its clock, the rest is when we received it; where the two disagree on
/// which came last, a delayed delivery or the clocks are to blame.
fn last_word(alert: &StoredAlert) -> SignalState {
    match (alert.last_firing, alert.ends_at) {
        (Some(_), None) => SignalState::Firing,
        (None, Some(_)) => SignalState::Clear,
        (Some(firing), Some(end)) if CLOCK_SKEW.after(firing) < end => SignalState::Clear,
        (Some(firing), Some(end))
            if CLOCK_SKEW.after(end) < firing && alert.last_resolved <= alert.last_firing =>
        {
            SignalState::Firing
        }
        _ => SignalState::Unknown,
    }
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

/// Merges a stored group with a delivery of the same group, per alert by maxima,
/// so that any order and any repetition of deliveries gives the same.
pub fn merge(stored: &mut AlertGroupSpec, delivered: &AlertGroupSpec) {
    stored.truncated_at = stored.truncated_at.max(delivered.truncated_at);
    for (fingerprint, alert) in &delivered.alerts {
        match stored.alerts.get_mut(fingerprint) {
            None => {
                stored.alerts.insert(fingerprint.clone(), alert.clone());
            }
            Some(known) => {
                known.starts_at = known.starts_at.max(alert.starts_at);
                known.last_firing = known.last_firing.max(alert.last_firing);
                known.last_resolved = known.last_resolved.max(alert.last_resolved);
                known.ends_at = known.ends_at.max(alert.ends_at);
            }
        }
    }
}

/// Whether a merged group says something that the stored one does not. A later time of
/// receipt alone is news only once in a third of `ALERT_TTL`, so that re-sends cost little.
pub fn is_news(stored: &AlertGroupSpec, merged: &AlertGroupSpec) -> bool {
    let later = |new: Option<Timestamp>, old: Option<Timestamp>| {
        new.zip(old)
            .is_some_and(|(new, old)| new.duration_since(old) >= ALERT_TTL.signed() / 3)
    };
    let news = |(fingerprint, alert): (&String, &StoredAlert)| {
        stored.alerts.get(fingerprint).is_none_or(|known| {
            later(alert.last_firing, known.last_firing)
                || last_word(alert) != last_word(known)
                || (alert.starts_at, alert.ends_at) != (known.starts_at, known.ends_at)
        })
    };
    later(merged.truncated_at, stored.truncated_at)
        || merged.truncated_at.is_some() != stored.truncated_at.is_some()
        || merged.alerts.iter().any(news)
}

/// Drops the alerts of which nothing was received for `FORGET_AFTER`, and the mark of a
/// truncated delivery that is older than any alert that counts.
pub fn forget(group: &mut AlertGroupSpec, now: Timestamp) {
    group.alerts.retain(|_, alert| !is_past(alert, now));
    group.truncated_at = group.truncated_at.filter(|at| ALERT_TTL.after(*at) >= now);
}

/// Whether nothing would be left of a group.
pub fn is_forgotten(group: &AlertGroupSpec, now: Timestamp) -> bool {
    let truncated = group
        .truncated_at
        .is_some_and(|at| ALERT_TTL.after(at) >= now);
    !truncated && group.alerts.values().all(|alert| is_past(alert, now))
}

fn is_past(alert: &StoredAlert, now: Timestamp) -> bool {
    let received = alert.last_firing.max(alert.last_resolved);
    received.is_none_or(|at| FORGET_AFTER.after(at) < now)
}

#[cfg(test)]
mod tests;
