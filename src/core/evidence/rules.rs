//! What Prometheus answers to the polled rules, and whether the alerts of the same
//! name agree.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{ALERT_TTL, CLOCK_SKEW, Evidence, FORGET_AFTER, Look, MAX_STALENESS};
use crate::config::{Rule, Rules};
use crate::evidence::identity::Labels;
use crate::model::{NodeView, SignalState, Span};

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

/// The last usable answer to a rule, and whether there was one since.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct RuleEvidence {
    at: Option<Timestamp>,
    failed: Option<(Timestamp, String)>,
    firing: Slots,
    present: Option<Slots>,
    /// When each node's series was last seen, by UID; not longer ago than its
    /// `keep_firing_for`.
    fired: BTreeMap<String, Fired>,
    /// By slot, the nodes that it had data of and has none of, or had none of a while ago.
    lost: BTreeMap<usize, Lost>,
    /// By UID, the nodes that an earlier leader's answers had data of, and until when they are
    /// known to have; until the first answer.
    had: BTreeMap<String, Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Lost {
    since: Timestamp,
    /// The last answer that had no data of the node.
    last: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Fired {
    at: Timestamp,
    /// Whether the node was seen without it since.
    cleared: bool,
    /// Whether the rule's own `for` was over while the series was there.
    fulfilled: bool,
}

/// Some of the nodes, by their slots.
#[derive(Clone, Debug, PartialEq, Default)]
struct Slots {
    marks: Vec<bool>,
    count: usize,
}

impl Slots {
    fn of(slots: impl Iterator<Item = usize>) -> Self {
        let mut found = Self::default();
        for slot in slots {
            if found.marks.len() <= slot {
                found.marks.resize(slot + 1, false);
            }
            found.count += usize::from(!found.marks[slot]);
            found.marks[slot] = true;
        }
        found
    }

    fn contains(&self, slot: Option<usize>) -> bool {
        slot.and_then(|slot| self.marks.get(slot)) == Some(&true)
    }

    fn moved(&self, to: impl Fn(usize) -> Option<usize>) -> Self {
        Self::of(self.iter().filter_map(to))
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        let marked = self.marks.iter().enumerate();
        marked.filter(|(_, mark)| **mark).map(|(slot, _)| slot)
    }
}

impl RuleEvidence {
    /// The slots of the nodes that it fires for.
    pub fn firing(&self) -> impl Iterator<Item = usize> {
        self.firing.iter()
    }

    /// Since when there is no usable answer, and what was said.
    pub fn failure(&self) -> Option<(Timestamp, &str)> {
        let (since, message) = self.failed.as_ref()?;
        Some((*since, message))
    }

    /// The nodes have other slots now; those without one are gone.
    pub fn renumber(&mut self, slot: impl Fn(usize) -> Option<usize>) {
        self.firing = self.firing.moved(&slot);
        self.present = self.present.as_ref().map(|present| present.moved(&slot));
        let lost = std::mem::take(&mut self.lost).into_iter();
        let lost = lost.filter_map(|(at, lost)| Some((slot(at)?, lost)));
        self.lost = lost.collect();
    }

    /// Whether presence shows data of any node.
    fn sees(&self) -> bool {
        self.present
            .as_ref()
            .is_some_and(|present| present.count > 0)
    }

    /// Whether it has fresh data of the node of this slot.
    pub fn sees_at(&self, slot: usize) -> bool {
        let present = self.present.as_ref();
        present.is_some_and(|present| present.contains(Some(slot)))
    }

    /// Since when it has no data of a node of which it had some before; not longer ago than
    /// `FORGET_AFTER`.
    pub fn lost_since(&self, look: &Look<'_>) -> Option<Timestamp> {
        let slot = look.slot.filter(|slot| !self.sees_at(*slot))?;
        let lost = self.lost.get(&slot).map(|lost| lost.since);
        let since = lost.or_else(|| self.had.get(&look.node.uid).copied());
        since.filter(|since| FORGET_AFTER.after(*since) >= look.now)
    }

    /// Whether alerts of a node may have ended for want of data: it has none of it any more,
    /// or has some again and other rules may still wait for their `for`.
    fn misses(&self, look: &Look<'_>) -> bool {
        let seen = look.slot.filter(|slot| self.sees_at(*slot));
        let lost = seen.and_then(|slot| self.lost.get(&slot));
        let lately = lost.is_some_and(|lost| ALERT_TTL.after(lost.last) >= look.now);
        lately || self.lost_since(look).is_some()
    }

    /// Notes which nodes it had data of and has none of any more.
    fn note_lost(
        &mut self,
        present: Option<&Slots>,
        slots: &BTreeMap<String, usize>,
        now: Timestamp,
    ) {
        let Some(present) = present else {
            self.lost.clear();
            self.had.clear();
            return;
        };
        let misses = |slot: usize| !present.contains(Some(slot));
        let had = self.present.iter().flat_map(Slots::iter);
        let mut had: Vec<(usize, Timestamp)> = had.map(|slot| (slot, now)).collect();
        self.had.retain(|uid, since| {
            let slot = slots.get(uid);
            had.extend(slot.map(|slot| (*slot, *since)));
            slot.is_none()
        });
        for (slot, since) in had.into_iter().filter(|(slot, _)| misses(*slot)) {
            self.lost.insert(slot, Lost { since, last: now });
        }
        self.lost.retain(|slot, lost| {
            if misses(*slot) {
                lost.last = now;
            }
            ALERT_TTL.after(lost.last) >= now
        });
    }

    /// How many nodes it can speak of, if presence says so.
    pub fn covered(&self) -> Option<usize> {
        let present = self.present.as_ref()?;
        let others = self
            .firing
            .iter()
            .filter(|slot| !present.contains(Some(*slot)));
        Some(present.count + others.count())
    }

    /// As an earlier leader knew it: the node's series was there then.
    pub fn restore(&mut self, uid: String, at: Timestamp) {
        self.fired.entry(uid).or_insert(Fired {
            at,
            cleared: false,
            fulfilled: true,
        });
    }

    /// As an earlier leader knew it: it had data of the node until then.
    pub fn restore_sight(&mut self, uid: String, until: Timestamp) {
        self.had.insert(uid, until);
    }

    /// The rule's own `for` is over for a node; that counts while its series is there.
    pub fn fulfil(&mut self, slot: usize, uid: &str) {
        if self.firing.contains(Some(slot))
            && let Some(fired) = self.fired.get_mut(uid)
        {
            fired.fulfilled = true;
        }
    }

    /// Whether the last answer was one, and is not too old.
    pub fn usable(&self, now: Timestamp) -> bool {
        let young = |at| MAX_STALENESS.after(at) >= now && at <= CLOCK_SKEW.after(now);
        self.failed.is_none() && self.at.is_some_and(young)
    }

    /// For how many nodes it fired, of those that are `known` by UID, that were not seen
    /// without since.
    pub fn fired(&self, known: impl Fn(&str) -> bool) -> usize {
        let fired = self.fired.iter();
        let fired = fired.filter(|(uid, fired)| !fired.cleared && known(uid));
        fired.count()
    }

    /// Whether it is usable, and not for want of data of any node.
    pub fn speaks(&self, now: Timestamp) -> bool {
        self.usable(now) && (self.present.is_none() || self.sees())
    }

    /// Forgets series that were last seen too long ago to count.
    pub fn prune(&mut self, keep: Span, now: Timestamp) {
        self.fired.retain(|_, fired| keep.after(fired.at) >= now);
    }

    fn state(
        &self,
        rule: &Rule,
        node: &NodeView,
        slot: Option<usize>,
        now: Timestamp,
    ) -> SignalState {
        if !self.usable(now) {
            return SignalState::Unknown;
        }
        let seen = |yes| {
            if yes {
                SignalState::Firing
            } else {
                SignalState::Clear
            }
        };
        match &self.present {
            None if self.firing.contains(slot) => return SignalState::Firing,
            None => return SignalState::Unknown,
            Some(present) if present.contains(slot) => return seen(self.firing.contains(slot)),
            // What fires without a fresh sample is what Prometheus remembers.
            Some(_) => {}
        }
        // A dying node takes its exporter along: its last word holds for a while. What was
        // still waiting said nothing yet.
        let alone = self.sees() && !node.ready();
        let whole = |fired: &Fired| fired.fulfilled || rule.for_ == Span::default();
        let fired = self.fired.get(&node.uid);
        if alone && fired.is_some_and(|fired| !fired.cleared && whole(fired)) {
            return SignalState::Firing;
        }
        SignalState::Unknown
    }
}

impl Evidence {
    /// Whether all that `prometheus_sees` rests on was answered, well or not.
    pub(super) fn sight_asked(&self, rules: &Rules) -> bool {
        let mut asked = rules
            .iter()
            .filter(|rule| rule.presence.is_some())
            .peekable();
        if asked.peek().is_none() {
            return self.alertmanager.was_asked();
        }
        asked.all(|rule| {
            let evidence = self.rules.get(&rule.name);
            evidence.is_some_and(|rule| rule.at.is_some() || rule.failed.is_some())
        })
    }

    /// Whether Prometheus lives and has data of some node, by the rules with a presence; if
    /// there are none, by the alert that always fires while it does.
    pub(super) fn prometheus_sees(&self, rules: &Rules, now: Timestamp) -> bool {
        let mut asked = rules
            .iter()
            .filter(|rule| rule.presence.is_some())
            .peekable();
        if asked.peek().is_none() {
            let external = &self.external_labels;
            return self.alertmanager.lists_watchdog(now, external);
        }
        asked.any(|rule| {
            let evidence = self.rules.get(&rule.name);
            evidence.is_some_and(|evidence| evidence.usable(now) && evidence.sees())
        })
    }

    /// Whether Prometheus sees, and what it sees reaches Alertmanager: else alerts end that
    /// go on.
    pub(super) fn tells_alerts(&self, rules: &Rules, now: Timestamp) -> bool {
        let lost = self.alertmanager.lost_watchdog(now, &self.external_labels);
        !lost && self.prometheus_sees(rules, now)
    }

    /// Whether alerts of a node may have ended because Prometheus had no data of it.
    pub(super) fn misses(&self, look: &Look<'_>) -> bool {
        self.rules.values().any(|rule| rule.misses(look))
    }

    pub(super) fn fold_rule(&mut self, name: String, answer: Answer, now: Timestamp) {
        let (firing, present) = match answer {
            Answer::Failed(message) => {
                let rule = self.rules.entry(name).or_default();
                let since = rule.failed.take().map_or(now, |(since, _)| since);
                rule.failed = Some((since, message));
                return;
            }
            Answer::Series { firing, present } => (firing, present),
        };
        for labels in &firing {
            self.count_unresolved("Prometheus", labels);
        }
        let about = |labels: &Labels| self.nodes.get(self.index.resolve(labels).ok()?);
        self.alertmanager
            .fired(&name, &firing, about, |uid| self.slots.contains_key(uid));
        let slots = |series: &[Labels]| {
            let nodes = series.iter().filter_map(about);
            Slots::of(nodes.filter_map(|node| self.slots.get(&node.uid).copied()))
        };
        let (firing, present) = (slots(&firing), present.as_deref().map(slots));
        let rule = self.rules.entry(name).or_default();
        for (uid, fired) in &mut rule.fired {
            let slot = self.slots.get(uid).copied();
            fired.cleared |= present
                .as_ref()
                .is_some_and(|present| present.contains(slot));
        }
        let seen = |slot: &usize| present.as_ref().is_none_or(|of| of.contains(Some(*slot)));
        for node in firing
            .iter()
            .filter(seen)
            .filter_map(|slot| self.nodes.get(&self.names[slot]))
        {
            let before = rule.fired.get(&node.uid);
            let fired = Fired {
                at: now,
                cleared: false,
                fulfilled: before.is_some_and(|fired| fired.fulfilled && !fired.cleared),
            };
            rule.fired.insert(node.uid.clone(), fired);
        }
        rule.note_lost(present.as_ref(), &self.slots, now);
        (rule.at, rule.failed) = (Some(now), None);
        (rule.firing, rule.present) = (firing, present);
    }

    /// What the poll says of a node, whatever alerts of the same name say.
    pub(super) fn polled(&self, look: &Look<'_>, rule: &Rule) -> SignalState {
        self.rules
            .get(&rule.name)
            .map_or(SignalState::Unknown, |evidence| {
                evidence.state(rule, look.node, look.slot, look.now)
            })
    }

    /// When the series of a signal was last seen, if it fires on without it.
    pub(super) fn held_since(&self, look: &Look<'_>, name: &str) -> Option<Timestamp> {
        let (rule, evidence) = (look.rules.get(name)?, self.rules.get(name)?);
        let held =
            self.polled(look, rule) == SignalState::Firing && !evidence.firing.contains(look.slot);
        let fired = evidence.fired.get(&look.node.uid);
        fired.filter(|_| held).map(|fired| fired.at)
    }

    /// Whether the alerts of a rule's name say otherwise than the poll. A silence of either
    /// is no word; nor is a resolve from before the poll fired, nor an alert that outlives
    /// a series that was there within `keep_firing_for`.
    pub(super) fn disagree(&self, look: &Look<'_>, rule: &Rule) -> bool {
        let mut about = self.alerts.of(&rule.name, &look.node.name).peekable();
        if about.peek().is_none() && !self.alertmanager.lists(&rule.name, look.node) {
            return false;
        }
        let alerted = self.alerted(look, &rule.name);
        match (self.polled(look, rule), alerted) {
            (SignalState::Firing, SignalState::Clear) => {
                let resolved =
                    about.filter_map(|said| said.alert.ends_at.max(said.alert.last_resolved));
                let since = look.signal(&rule.name).and_then(|clock| clock.since);
                resolved.max() > since && since.is_some()
            }
            (SignalState::Clear, SignalState::Firing) => {
                let evidence = self.rules.get(&rule.name);
                evidence.is_none_or(|evidence| !evidence.fired.contains_key(&look.node.uid))
            }
            _ => false,
        }
    }
}
