//! What Alertmanager says when it is asked: the alerts it lists, and the silences by
//! which people veto. A silence is matched by us against every signal, polled rules
//! and conditions included. Inhibition is no veto, so nothing here knows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use jiff::Timestamp;
use regex::{Regex, RegexBuilder};

use super::alerts::{About, Delivered, Said, alert_state, last_word};
use super::identity::{self, Index, Labels};
use super::{ALERT_TTL, Evidence, FORGET_AFTER, Look, MAX_STALENESS, evaluate, leaves, part};
use crate::api::{Leaf, SignalRecord, SilenceRecord, StoredAlert, When};
use crate::config::{Policy, Rules};
use crate::model::{NodeView, SignalState, Span, Truth};

/// A member that runs for less than this may not have been told of every alert yet.
const SETTLED_AFTER: Span = Span::minutes(5);
/// The alert that fires as long as Prometheus reaches Alertmanager, as kube-prometheus and
/// its kind call it.
pub const WATCHDOG: &str = "Watchdog";
/// For how long Prometheus may be thought alive by that alert. It sends it anew at the first
/// evaluation more than `--rules.alert.resend-delay` (1m) after the last, so every 2m where it
/// evaluates every minute. What it does not send any more ends 4m after it was sent, so 2m
/// after the death of Prometheus at the soonest: what ends then, and before this is over, is
/// unknown again before `CLEAR_AFTER`. Of both, `sendAlerts` in Prometheus' rules/manager.go.
const WATCHDOG_LASTS: Span = Span::seconds(150);
/// The series kept of one rule and node, and the alerts of one name, for silences to match.
const MAX_SERIES: usize = 16;
/// The silences that one record names.
const MAX_SILENCES: usize = 10;
/// The most memory that the regular expression of a silence may take, in bytes: enough for
/// some hundred addresses.
const MAX_PATTERN: usize = 1 << 18;
/// The longest id or author that a record repeats, in characters.
const MAX_TEXT: usize = 100;

/// What the members of an Alertmanager cluster answered, together.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// When they were asked, by our clock.
    pub at: Timestamp,
    /// Since when its members run, by their clocks: the one that started last.
    pub running_since: Timestamp,
    /// What was said of the members that did not answer; none if all did.
    pub missing: Option<String>,
    /// Alerts that are routed to none of these are left out of `alerts`, if there are any.
    pub receivers: Vec<String>,
    /// Every alert that any of them holds for firing, silenced and inhibited ones included.
    pub alerts: Vec<AskedAlert>,
    /// Their silences, of any age.
    pub silences: Vec<Silence>,
}

/// An alert of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct AskedAlert {
    /// Alertmanager's fingerprint.
    pub fingerprint: String,
    /// All labels.
    pub labels: Labels,
    /// When it started.
    pub starts_at: Timestamp,
    /// When Alertmanager was last told of it, by its clock.
    pub updated_at: Timestamp,
}

/// A silence.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    /// Its id.
    pub id: String,
    /// Who made it, as they said.
    pub created_by: String,
    /// It holds from here …
    pub starts_at: Timestamp,
    /// … to before here.
    pub ends_at: Timestamp,
    /// Whether it held when Alertmanager was asked, by its clock.
    pub holds: bool,
    /// All of them have to match.
    pub matchers: Vec<Matcher>,
}

/// One matcher of a silence.
#[derive(Clone, Debug, PartialEq)]
pub struct Matcher {
    name: String,
    equal: bool,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Text(String),
    Pattern(Pattern),
}

/// A regular expression, made when it is first asked: most silences have ended.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    /// None where it is not understood, or too large.
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// What is not understood matches everything, since to hold is the safe side.
    fn matches(&self, value: &str) -> Option<bool> {
        let compile = || {
            let whole = RegexBuilder::new(&format!("^(?:{})$", self.text))
                .size_limit(MAX_PATTERN)
                .build();
            whole.ok()
        };
        let compiled = self.compiled.get_or_init(compile);
        compiled.as_ref().map(|pattern| pattern.is_match(value))
    }
}

impl PartialEq for Test {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(two)) => one == two,
            (Self::Pattern(one), Self::Pattern(two)) => one.text == two.text,
            _ => false,
        }
    }
}

impl Matcher {
    /// `equal` is false for `!=` and `!~`. A regular expression has to match the whole value.
    pub fn new(name: &str, value: &str, regex: bool, equal: bool) -> Self {
        let value = value.to_owned();
        let test = if regex {
            Test::Pattern(Pattern {
                text: value,
                compiled: OnceLock::new(),
            })
        } else {
            Test::Text(value)
        };
        Self {
            name: name.to_owned(),
            equal,
            test,
        }
    }

    /// A label that is not there is empty. What a template will give is not known.
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.name).map_or("", String::as_str);
        match &self.test {
            _ if value.contains("{{") => true,
            Test::Text(text) => (value == text) == self.equal,
            Test::Pattern(pattern) => pattern.matches(value).is_none_or(|is| is == self.equal),
        }
    }
}

impl Asked {
    /// Whether all members answered that may know of anything: what is not listed is not.
    fn is_complete(&self) -> bool {
        self.missing.is_none() && SETTLED_AFTER.after(self.running_since) <= self.at
    }

    /// Adds those of the silences `known` from an answer at `at` that may still hold: a member
    /// that just started, or that does not answer, may know of them.
    pub fn keep_silences(&mut self, known: Vec<Silence>, at: Option<Timestamp>) {
        if self.is_complete() {
            return;
        }
        let told: BTreeSet<String> = self.silences.iter().map(|one| one.id.clone()).collect();
        let others = known.into_iter().filter(|one| !told.contains(&one.id));
        let lasts = |one: &Silence| self.at < one.ends_at || one.active(at, self.at);
        let others: Vec<Silence> = others.filter(lasts).collect();
        self.silences.extend(others);
    }
}

impl Silence {
    /// Whether it silences what carries exactly these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels))
    }

    /// Whether it silences a stored alert, of which not every label was kept: of the
    /// others any value is possible.
    fn may_match(&self, alert: &StoredAlert) -> bool {
        let mut labels = alert.labels.clone();
        labels.insert("alertname".into(), alert.name.clone());
        labels.insert("severity".into(), alert.severity.clone());
        self.may_match_with(&labels, identity::is_identity_label)
    }

    /// The same of what has these labels, and of others only such as are not `kept`.
    fn may_match_with(&self, labels: &Labels, kept: impl Fn(&str) -> bool) -> bool {
        let known = |name: &str| labels.contains_key(name) || kept(name);
        self.matchers
            .iter()
            .all(|matcher| !known(&matcher.name) || matcher.matches(labels))
    }

    /// Whether it silences all of a node: what has the node's labels and no other, or
    /// what a label that says which node alone gives. Every alert of the node has the
    /// `external` ones too.
    fn covers(&self, node: &NodeView, external: &Labels) -> bool {
        let labels = node_labels(node, external);
        let given =
            |matcher: &&Matcher| external.contains_key(&matcher.name) && matcher.matches(&labels);
        let asked: Vec<&Matcher> = self.matchers.iter().filter(|one| !given(one)).collect();
        let mut named = Labels::new();
        for matcher in &asked {
            if let (Test::Text(value), true) = (&matcher.test, matcher.equal)
                && identity::is_identity_label(&matcher.name)
            {
                named.insert(matcher.name.clone(), value.clone());
            }
        }
        let by_name = named.len() == asked.len() && identity::resolve(&named, &[node]).is_ok();
        // What asks for the absence of a label that no node has does not mean nodes.
        let mut asked = asked.into_iter();
        by_name || (asked.all(|one| labels.contains_key(&one.name)) && self.matches(&labels))
    }

    fn covers_time(&self, now: Timestamp) -> bool {
        self.starts_at <= now && now < self.ends_at
    }

    /// Where Alertmanager's clock was not ours, what it said of a silence holds until it is
    /// asked again.
    fn active(&self, asked: Option<Timestamp>, now: Timestamp) -> bool {
        let contradicts = |at| self.holds && !self.covers_time(at);
        self.covers_time(now) || asked.is_some_and(contradicts)
    }

    fn record(&self) -> SilenceRecord {
        let short = |text: &str| text.chars().take(MAX_TEXT).collect();
        SilenceRecord {
            id: short(&self.id),
            created_by: short(&self.created_by),
            ends_at: self.ends_at,
        }
    }
}

fn node_labels(node: &NodeView, external: &Labels) -> Labels {
    let mut labels = external.clone();
    labels.extend(node.labels.clone());
    labels.insert("node".into(), node.name.clone());
    labels
}

/// What is known from asking.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Alertmanager {
    at: Option<Timestamp>,
    /// Whether what it does not list does not fire.
    complete: bool,
    /// It lists only what is routed to one of these, if there are any.
    receivers: Vec<String>,
    /// When it last listed that Prometheus lives.
    watchdog: Option<Timestamp>,
    /// By name and fingerprint, with all labels.
    listed: BTreeMap<String, BTreeMap<String, StoredAlert>>,
    /// Fingerprints of listed alerts.
    about: About<String>,
    silences: Vec<Silence>,
    failed: Option<(Timestamp, String)>,
    /// By node UID, from the records of an earlier leader.
    restored: BTreeMap<String, Vec<SilenceRecord>>,
    /// The series of a rule that fired last, by rule and node UID.
    fired: BTreeMap<String, BTreeMap<String, Vec<Labels>>>,
    /// The alerts that were listed last of signals whose clocks ran, by name and node UID.
    last: BTreeMap<String, BTreeMap<String, Last>>,
}

/// What was listed last of one name about one node: when, and the labels by fingerprint.
#[derive(Clone, Debug, PartialEq)]
struct Last {
    at: Timestamp,
    alerts: BTreeMap<String, Labels>,
}

/// What a signal did, as far as silences ask.
#[derive(Clone, Copy)]
enum Fired<'a> {
    Not,
    Now,
    /// When a repair began that is still open, and not now.
    Before(&'a SignalRecord),
}

impl<'a> Fired<'a> {
    fn of(leaf: &Leaf, truth: Truth, before: &'a [SignalRecord]) -> Self {
        if truth == Truth::True {
            return Self::Now;
        }
        let mut before = before.iter();
        let found = before.find(|record| {
            record.state == SignalState::Firing && leaf.signal.as_ref() == Some(&record.name)
        });
        found.map_or(Self::Not, Self::Before)
    }
}

impl Alertmanager {
    pub(super) fn answered(&mut self, mut asked: Asked, index: &Index, external: &Labels) {
        self.complete = asked.is_complete();
        self.receivers = std::mem::take(&mut asked.receivers);
        asked.keep_silences(std::mem::take(&mut self.silences), self.at);
        self.listed.clear();
        for alert in asked.alerts {
            let name = alert.labels.get("alertname").cloned().unwrap_or_default();
            let stored = StoredAlert {
                name: name.clone(),
                labels: alert.labels,
                severity: String::new(),
                starts_at: alert.starts_at,
                last_firing: Some(alert.updated_at.min(asked.at)),
                last_resolved: None,
                ends_at: None,
                end_received: None,
            };
            let named = self.listed.entry(name).or_default();
            named.insert(alert.fingerprint, stored);
        }
        self.silences = asked.silences;
        if self.complete {
            self.restored.clear();
        } else {
            // What a member tells of a silence is later than the record.
            for known in self.restored.values_mut() {
                known.retain(|known| self.silences.iter().all(|told| told.id != known.id));
            }
        }
        self.at = Some(asked.at);
        if self.lists_watchdog(asked.at, external) {
            self.watchdog = Some(asked.at);
        }
        match asked.missing {
            Some(message) => self.failed(message, asked.at),
            None => self.failed = None,
        }
        self.join(index);
    }

    /// Joins the listed alerts anew: they or the nodes are others.
    pub(super) fn join(&mut self, index: &Index) {
        self.about = About::default();
        for (fingerprint, alert) in self.listed.values().flatten() {
            self.about.note(alert, index, fingerprint.clone());
        }
    }

    /// The names of the nodes that listed alerts of this name speak of.
    pub(super) fn nodes(&self, alert: &str) -> impl Iterator<Item = &str> {
        self.about.nodes(alert)
    }

    /// Whether an alert of this name about this node is listed.
    pub(super) fn lists(&self, alert: &str, node: &NodeView) -> bool {
        self.about.of(alert, &node.name).next().is_some()
    }

    fn listed<'a>(
        &'a self,
        name: &str,
        node: &str,
    ) -> impl Iterator<Item = (&'a String, &'a StoredAlert)> {
        let alerts = self.listed.get(name);
        let keys = self.about.of(name, node);
        keys.filter_map(move |key| alerts?.get_key_value(key))
    }

    pub(super) fn failed(&mut self, message: String, now: Timestamp) {
        let since = self.failed.take().map_or(now, |(since, _)| since);
        self.failed = Some((since, message));
    }

    pub(super) fn restore(&mut self, uid: String, silences: Vec<SilenceRecord>) {
        self.restored.insert(uid, silences);
    }

    /// Keeps the labels of the series that fire, by node. A node whose series went away
    /// keeps its last, as a fault under repair outlives them.
    pub(super) fn fired<'a>(
        &mut self,
        rule: &str,
        series: &[Labels],
        about: impl Fn(&Labels) -> Option<&'a NodeView>,
        known: impl Fn(&str) -> bool,
    ) {
        let mut fired: BTreeMap<String, Vec<Labels>> = BTreeMap::new();
        for labels in series {
            if let Some(node) = about(labels) {
                let kept = fired.entry(node.uid.clone()).or_default();
                if kept.len() < MAX_SERIES {
                    kept.push(labels.clone());
                }
            }
        }
        let kept = self.fired.entry(rule.to_owned()).or_default();
        kept.retain(|uid, _| known(uid));
        kept.extend(fired);
    }

    /// Whether Prometheus, by its `external` labels, lately sent the alert that always fires.
    /// When Prometheus dies, Alertmanager lists it for minutes, and other alerts may end
    /// before it.
    pub(super) fn lists_watchdog(&self, now: Timestamp, external: &Labels) -> bool {
        let lately = |alert: &StoredAlert| {
            let told = alert.last_firing.zip(self.at);
            told.is_some_and(|(told, at)| WATCHDOG_LASTS.after(told) >= at)
        };
        let ours = |alert: &StoredAlert| {
            let mut external = external.iter();
            external.all(|(name, value)| alert.labels.get(name) == Some(value))
        };
        let mut listed = self.listed.get(WATCHDOG).into_iter().flatten();
        self.fresh(now) && listed.any(|(_, alert)| lately(alert) && ours(alert))
    }

    /// Whether the alert that always fires was listed within `FORGET_AFTER`, and is not:
    /// Prometheus, alive or not, does not reach Alertmanager.
    pub(super) fn lost_watchdog(&self, now: Timestamp, external: &Labels) -> bool {
        let known = self
            .watchdog
            .is_some_and(|at| FORGET_AFTER.after(at) >= now);
        known && self.fresh(now) && !self.lists_watchdog(now, external)
    }

    /// Whether it ever answered.
    pub(super) const fn was_asked(&self) -> bool {
        self.at.is_some()
    }

    /// Whether what is not listed does not fire.
    pub(super) fn whole(&self, now: Timestamp) -> bool {
        self.fresh(now) && self.complete
    }

    fn fresh(&self, now: Timestamp) -> bool {
        self.at.is_some_and(|at| MAX_STALENESS.after(at) >= now)
    }

    /// What a listed alert says.
    fn listed_state(
        &self,
        alert: &StoredAlert,
        node: &NodeView,
        now: Timestamp,
    ) -> Option<SignalState> {
        if !self.fresh(now) {
            return alert_state(alert, node, now);
        }
        // What Alertmanager was told before this node object was, was told of another machine.
        Some(if Some(node.created) <= alert.last_firing {
            SignalState::Firing
        } else {
            SignalState::Unknown
        })
    }

    /// What is said of a node by the alerts of one name that were delivered about it, and by
    /// those that are listed: of each the later word counts.
    pub(super) fn state(
        &self,
        name: &str,
        delivered: &Delivered,
        Look { node, now, .. }: &Look<'_>,
    ) -> SignalState {
        let (node, now) = (*node, *now);
        let whole = self.whole(now);
        let listed = self.listed.get(name);
        let (mut states, mut later) = (Vec::new(), BTreeSet::new());
        // Where alerts were left out, the end of one proves nothing of the others, until
        // Alertmanager lists them all.
        let left_out = |one: Said<'_>| {
            let at = delivered.truncated(one);
            let at = at.filter(|at| ALERT_TTL.after(*at) >= now);
            at.is_some() && !(whole && self.at > at)
        };
        let mut said = Vec::new();
        for one in delivered.of(name, &node.name) {
            let state = alert_state(one.alert, node, now);
            said.extend(state.map(|state| (one, state)));
        }
        for (one, state) in &said {
            let (fingerprint, alert) = (one.fingerprint, one.alert);
            let listed = listed.and_then(|all| all.get(fingerprint));
            // A resolve that came late ends nothing that Alertmanager was told of after its end.
            let past = *state == SignalState::Clear
                && listed.is_some_and(|listed| alert.ends_at < listed.last_firing);
            let received = alert.last_firing.max(alert.last_resolved);
            if past {
                continue;
            }
            let routed = &one.group.receiver;
            let listable = self.receivers.is_empty() || self.receivers.contains(routed);
            if self.at.is_none() || received > self.at || !listable {
                // What one sender ends may go on by another's word, be that older than the list.
                let denied = *state != SignalState::Firing
                    && said.iter().any(|(other, _)| {
                        other.fingerprint == fingerprint
                            && other.group.sender != one.group.sender
                            && last_word(other.alert) != SignalState::Clear
                    });
                if !denied {
                    later.insert(fingerprint);
                }
                states.push(if *state == SignalState::Clear && left_out(*one) {
                    SignalState::Unknown
                } else {
                    *state
                });
            } else if !whole && listed.is_none() {
                // Delivered, then not listed, by a list that is old or from a new member.
                states.push(match state {
                    SignalState::Clear if !left_out(*one) => SignalState::Clear,
                    _ => SignalState::Unknown,
                });
            }
        }
        let listed = self.listed(name, &node.name);
        let listed = listed.filter(|(fingerprint, _)| !later.contains(fingerprint));
        states.extend(listed.filter_map(|(_, alert)| self.listed_state(alert, node, now)));
        // One firing is enough; a clear needs every alert of the name to be clear.
        let silent = if whole {
            SignalState::Clear
        } else {
            SignalState::Unknown
        };
        let most = states.into_iter().max_by_key(|state| Truth::from(*state));
        most.unwrap_or(silent)
    }
}

impl Evidence {
    pub(super) fn fold_asked(&mut self, asked: Asked) {
        self.keep_listed(asked.at);
        let external = &self.external_labels;
        self.alertmanager.answered(asked, &self.index, external);
    }

    /// Keeps the labels of the alerts that are listed until now: a fault under repair outlives
    /// them.
    fn keep_listed(&mut self, now: Timestamp) {
        let mut last = std::mem::take(&mut self.alertmanager.last);
        let lasts = |uid: &str, last: &Last| {
            self.slots.contains_key(uid) && FORGET_AFTER.after(last.at) >= now
        };
        last.retain(|_, nodes| {
            nodes.retain(|uid, last| lasts(uid, last));
            !nodes.is_empty()
        });
        for (uid, clocks) in &self.clocks {
            let (Some(slot), Some(at)) = (self.slots.get(uid), self.alertmanager.at) else {
                continue;
            };
            for name in clocks.signals.keys() {
                let listed = self.alertmanager.listed(name, &self.names[*slot]);
                let alerts: BTreeMap<String, Labels> = listed
                    .take(MAX_SERIES)
                    .map(|(fingerprint, alert)| (fingerprint.clone(), alert.labels.clone()))
                    .collect();
                if !alerts.is_empty() {
                    let nodes = last.entry(name.clone()).or_default();
                    nodes.insert(uid.clone(), Last { at, alerts });
                }
            }
        }
        self.alertmanager.last = last;
    }

    /// The silences that hold a fault of a node: those of the whole node, and those of
    /// signals without which the fault would not be true. By id, each once. Of a repair that
    /// is open, the signals as it began are `before`: what fired then is not over for it.
    pub fn silences(
        &self,
        node: &NodeView,
        policy: &Policy,
        fault: &str,
        rules: &Rules,
        now: Timestamp,
        before: &[SignalRecord],
    ) -> Vec<SilenceRecord> {
        let look = self.look(node, rules, now);
        let mut found: Vec<SilenceRecord> = self
            .active(now)
            .filter(|silence| silence.covers(node, &self.external_labels))
            .map(Silence::record)
            .collect();
        if let Some(when) = policy.when(fault)
            && self.unsilenced(&look, policy, when, &[]) != Truth::True
        {
            self.matched(&look, policy, when, &[], &mut found);
            let outlived = !before.is_empty();
            if outlived && self.unsilenced(&look, policy, when, before) != Truth::True {
                self.matched(&look, policy, when, before, &mut found);
            }
        }
        // Until all of an Alertmanager that is asked answered us, what an earlier leader
        // knew holds.
        let alertmanager = &self.alertmanager;
        if alertmanager.at.is_some() || alertmanager.failed.is_some() {
            let known = alertmanager.restored.get(&node.uid);
            let known = known.into_iter().flatten();
            found.extend(known.filter(|known| now < known.ends_at).cloned());
        }
        found.sort_by(|one, two| one.id.cmp(&two.id));
        found.dedup_by(|one, two| one.id == two.id);
        found.truncate(MAX_SILENCES);
        found
    }

    /// Whether Alertmanager is asked and did not answer lately, be it that it fails or that the
    /// answer is long in coming: there may be any silence.
    pub fn silences_unknown(&self, now: Timestamp) -> bool {
        let asked = self.alertmanager.was_asked() || self.alertmanager.failed.is_some();
        asked && !self.alertmanager.fresh(now)
    }

    /// Since when Alertmanager does not answer, and what was said.
    pub fn asking_failed(&self) -> Option<(Timestamp, &str)> {
        let (since, message) = self.alertmanager.failed.as_ref()?;
        Some((*since, message))
    }

    fn active(&self, now: Timestamp) -> impl Iterator<Item = &Silence> {
        let silences = self.alertmanager.silences.iter();
        silences.filter(move |silence| silence.active(self.alertmanager.at, now))
    }

    /// The truth of a combination as if nothing were known of silenced signals, and what
    /// fired `before` did still.
    fn unsilenced(
        &self,
        look: &Look<'_>,
        policy: &Policy,
        when: &When,
        before: &[SignalRecord],
    ) -> Truth {
        evaluate(policy, when, &|leaf| {
            let truth = self.leaf(look, leaf);
            let fired = Fired::of(leaf, truth, before);
            let mut active = self.active(look.now);
            match fired {
                Fired::Not => truth,
                _ if active.any(|one| self.mutes(one, leaf, look, fired)) => Truth::Unknown,
                _ => Truth::True,
            }
        })
    }

    /// The silences of every signal of a combination.
    fn matched(
        &self,
        look: &Look<'_>,
        policy: &Policy,
        when: &When,
        before: &[SignalRecord],
        into: &mut Vec<SilenceRecord>,
    ) {
        for leaf in leaves(when) {
            if let Some(part) = part(leaf, policy) {
                self.matched(look, policy, part, before, into);
                continue;
            }
            let fired = Fired::of(leaf, self.leaf(look, leaf), before);
            let active = self.active(look.now);
            let muting = active.filter(|silence| self.mutes(silence, leaf, look, fired));
            into.extend(muting.map(Silence::record));
        }
    }

    fn mutes(&self, silence: &Silence, leaf: &Leaf, look: &Look<'_>, fired: Fired<'_>) -> bool {
        if let Some(wanted) = &leaf.condition {
            let mut labels = node_labels(look.node, &self.external_labels);
            labels.insert("alertname".into(), wanted.type_.clone());
            labels.insert("condition".into(), wanted.type_.clone());
            return silence.matches(&labels);
        }
        leaf.signal
            .as_ref()
            .is_some_and(|name| self.mutes_signal(silence, name, look, fired))
    }

    /// One matched alert or series is enough: whoever silenced it looks at this node.
    fn mutes_signal(
        &self,
        silence: &Silence,
        name: &str,
        look: &Look<'_>,
        fired: Fired<'_>,
    ) -> bool {
        let alertmanager = &self.alertmanager;
        let uid = &look.node.uid;
        let polled = look.rules.get(name);
        let series = alertmanager.fired.get(name);
        let series = series
            .and_then(|of| of.get(uid))
            .filter(|_| polled.is_some());
        let labelled = |series: &Labels| {
            let mut labels = self.external_labels.clone();
            labels.extend(series.clone());
            labels.extend(polled.iter().flat_map(|rule| rule.labels.clone()));
            labels.insert("alertname".into(), name.to_owned());
            // People silence nodes by name, also where a series says its node otherwise.
            let node = labels.entry("node".into());
            node.or_insert_with(|| look.node.name.clone());
            labels
        };
        let listed = || alertmanager.listed(name, &look.node.name);
        let last = alertmanager.last.get(name).and_then(|of| of.get(uid));
        let last = last.filter(|_| matches!(fired, Fired::Before(_)));
        let is_listed = |fingerprint| {
            let all = alertmanager.listed.get(name);
            all.is_some_and(|all| all.contains_key(fingerprint))
                || last.is_some_and(|last| last.alerts.contains_key(fingerprint))
        };
        let counts = |alert: &StoredAlert| {
            let state = alert_state(alert, look.node, look.now);
            match fired {
                // Its last word may be from a while before its signal was seen to fire.
                Fired::Before(record) => {
                    let word = alert.last_firing.max(alert.ends_at);
                    state.is_some() && word.map(|at| ALERT_TTL.after(at)) >= record.since
                }
                _ => state == Some(SignalState::Firing),
            }
        };
        let delivered = || {
            let of = self.alerts.of(name, &look.node.name);
            of.filter(|said| !is_listed(said.fingerprint) && counts(said.alert))
        };
        // After a change of leader nobody knows the labels of what is not seen any more.
        let forgotten = match fired {
            Fired::Not => false,
            _ if polled.is_some() => series.is_none(),
            Fired::Now => false,
            Fired::Before(_) => {
                last.is_none() && listed().next().is_none() && delivered().next().is_none()
            }
        };
        listed().any(|(_, alert)| silence.matches(&alert.labels))
            || series
                .into_iter()
                .flatten()
                .any(|series| silence.matches(&labelled(series)))
            || last
                .into_iter()
                .flat_map(|last| last.alerts.values())
                .any(|labels| silence.matches(labels))
            || delivered().any(|said| silence.may_match(said.alert))
            || (forgotten && silence.may_match_with(&labelled(&Labels::new()), |_| false))
    }
}

#[cfg(test)]
mod tests;
