//! The alerts that were delivered: how deliveries are merged, what an alert says, and
//! which alerts speak of which node.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::identity::Index;
use super::{ALERT_TTL, CLOCK_SKEW, FORGET_AFTER};
use crate::api::{AlertGroupSpec, StoredAlert};
use crate::model::{NodeView, SignalState, Span};

/// A resolve that is received this long after the end that it tells of is late: Alertmanager
/// flushes a group every minute, or as often as its receiver says.
pub const LATE: Span = Span::seconds(90);

/// Which alerts speak of which node: keys of alerts by alert and node name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct About<K>(BTreeMap<String, BTreeMap<String, BTreeSet<K>>>);

impl<K> Default for About<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> About<K> {
    pub fn note(&mut self, alert: &StoredAlert, index: &Index, key: K) {
        if let Ok(node) = index.resolve(&alert.labels) {
            let named = self.0.entry(alert.name.clone()).or_default();
            named.entry(node.to_owned()).or_default().insert(key);
        }
    }

    fn forget(&mut self, alert: &StoredAlert, index: &Index, key: &K) {
        let Ok(node) = index.resolve(&alert.labels) else {
            return;
        };
        let Some(named) = self.0.get_mut(&alert.name) else {
            return;
        };
        if let Some(keys) = named.get_mut(node) {
            keys.remove(key);
            if keys.is_empty() {
                named.remove(node);
            }
        }
        if named.is_empty() {
            self.0.remove(&alert.name);
        }
    }

    pub fn of(&self, alert: &str, node: &str) -> impl Iterator<Item = &K> {
        let keys = self.0.get(alert).and_then(|named| named.get(node));
        keys.into_iter().flatten()
    }

    /// The names of the nodes that alerts of this name speak of.
    pub fn nodes(&self, alert: &str) -> impl Iterator<Item = &str> {
        let named = self.0.get(alert).into_iter().flatten();
        named.map(|(node, _)| node.as_str())
    }
}

/// The groups as they are stored, by object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Delivered {
    groups: BTreeMap<String, AlertGroupSpec>,
    /// Object and fingerprint.
    about: About<(String, String)>,
    /// The objects that were told of alerts that were left out.
    truncated: BTreeSet<String>,
}

/// An alert, and where it was said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'a> {
    pub fingerprint: &'a String,
    pub alert: &'a StoredAlert,
    pub group: &'a AlertGroupSpec,
}

impl Delivered {
    pub fn put(&mut self, object: String, group: AlertGroupSpec, index: &Index) {
        self.remove(&object, index);
        if group.truncated_at.is_some() {
            self.truncated.insert(object.clone());
        }
        for (fingerprint, alert) in &group.alerts {
            let key = (object.clone(), fingerprint.clone());
            self.about.note(alert, index, key);
        }
        self.groups.insert(object, group);
    }

    /// `index` is the one that the alerts were joined by.
    pub fn remove(&mut self, object: &str, index: &Index) {
        self.truncated.remove(object);
        for (fingerprint, alert) in self.groups.remove(object).unwrap_or_default().alerts {
            let key = (object.to_owned(), fingerprint);
            self.about.forget(&alert, index, &key);
        }
    }

    /// Joins all alerts anew: the nodes are others, or called otherwise.
    pub fn join(&mut self, index: &Index) {
        self.about = About::default();
        for (object, group) in &self.groups {
            for (fingerprint, alert) in &group.alerts {
                let key = (object.clone(), fingerprint.clone());
                self.about.note(alert, index, key);
            }
        }
    }

    /// The alerts of a name about a node.
    pub fn of<'a>(&'a self, name: &str, node: &str) -> impl Iterator<Item = Said<'a>> {
        self.about.of(name, node).filter_map(|(object, key)| {
            let group = self.groups.get(object)?;
            let (fingerprint, alert) = group.alerts.get_key_value(key)?;
            Some(Said {
                fingerprint,
                alert,
                group,
            })
        })
    }

    /// When alerts were last left out of what this one's sender told this one's receiver, in
    /// whichever part of a group.
    pub fn truncated(&self, said: Said<'_>) -> Option<Timestamp> {
        let groups = self.truncated.iter().filter_map(|of| self.groups.get(of));
        let with = said.group;
        let same = |group: &&AlertGroupSpec| {
            group.sender == with.sender && group.receiver == with.receiver
        };
        let times = groups.filter(same).filter_map(|group| group.truncated_at);
        times.max()
    }

    /// The names of the nodes that alerts of this name speak of.
    pub fn nodes(&self, name: &str) -> impl Iterator<Item = &str> {
        self.about.nodes(name)
    }

    /// The objects whose every alert is to be forgotten.
    pub fn forgotten(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        let groups = self.groups.iter();
        groups
            .filter(move |(_, group)| is_forgotten(group, now))
            .map(|(object, _)| object.as_str())
    }
}

/// None for what was said of an earlier machine of this name, before the node object existed.
pub(super) fn alert_state(
    alert: &StoredAlert,
    node: &NodeView,
    now: Timestamp,
) -> Option<SignalState> {
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

/// What the deliveries say together, whatever their order. Its end is Alertmanager's
/// word by its clock, the rest is when we received it; where the two disagree on
/// which came last, a delayed delivery or the clocks are to blame, and until Alertmanager is
/// asked, nothing is known.
pub fn last_word(alert: &StoredAlert) -> SignalState {
    match (alert.last_firing, alert.ends_at) {
        (Some(_), None) => SignalState::Firing,
        (None, Some(_)) => SignalState::Clear,
        (Some(firing), Some(end)) if CLOCK_SKEW.after(firing) < end => {
            // A late end may be overtaken by a firing too soon after that one to be written.
            let written = ALERT_TTL.signed() / 3 + CLOCK_SKEW.signed();
            let unwritten = end.duration_since(firing) < written;
            let late = |resolved| LATE.after(end) < resolved;
            if unwritten && alert.end_received.is_some_and(late) {
                SignalState::Unknown
            } else {
                SignalState::Clear
            }
        }
        (Some(firing), Some(end))
            if CLOCK_SKEW.after(end) < firing && alert.last_resolved <= alert.last_firing =>
        {
            SignalState::Firing
        }
        _ => SignalState::Unknown,
    }
}

/// Merges a stored group with a delivery of the same group, per alert by maxima, so that
/// any order and any repetition of deliveries gives the same. Whether that is news: a later
/// time of receipt alone is only once in a third of `ALERT_TTL`, so that re-sends cost little.
pub fn merge(stored: &mut AlertGroupSpec, delivered: &AlertGroupSpec) -> bool {
    let truncated = stored.truncated_at.max(delivered.truncated_at);
    let mut news = is_later(truncated, stored.truncated_at);
    stored.truncated_at = truncated;
    for (fingerprint, alert) in &delivered.alerts {
        news |= match stored.alerts.get_mut(fingerprint) {
            None => {
                stored.alerts.insert(fingerprint.clone(), alert.clone());
                true
            }
            Some(known) => merge_alert(known, alert),
        };
    }
    news
}

/// The same with one alert, whether or not it is news.
pub fn merge_one(stored: &mut AlertGroupSpec, fingerprint: String, alert: StoredAlert) {
    match stored.alerts.entry(fingerprint) {
        Entry::Vacant(place) => {
            place.insert(alert);
        }
        Entry::Occupied(mut known) => {
            merge_alert(known.get_mut(), &alert);
        }
    }
}

fn merge_alert(known: &mut StoredAlert, alert: &StoredAlert) -> bool {
    let before = (last_word(known), known.starts_at, known.ends_at);
    let mut news = is_later(alert.last_firing, known.last_firing);
    // Alertmanager gives no two alerts one fingerprint; of a sender that does, the larger
    // counts, whichever came first.
    if what(known) < what(alert) {
        known.name.clone_from(&alert.name);
        known.labels.clone_from(&alert.labels);
        known.severity.clone_from(&alert.severity);
        news = true;
    }
    known.starts_at = known.starts_at.max(alert.starts_at);
    known.last_firing = known.last_firing.max(alert.last_firing);
    known.last_resolved = known.last_resolved.max(alert.last_resolved);
    // That a resolve is told again, late, makes it no late one.
    let end = |of: &StoredAlert| (of.ends_at, of.end_received.map(Reverse));
    let (ends_at, received) = end(known).max(end(alert));
    known.ends_at = ends_at;
    known.end_received = received.map(|Reverse(at)| at);
    news || before != (last_word(known), known.starts_at, known.ends_at)
}

/// What an alert is about, whatever it says.
fn what(alert: &StoredAlert) -> (&String, &BTreeMap<String, String>, &String) {
    (&alert.name, &alert.labels, &alert.severity)
}

/// Whether a time of receipt is so much later that it is worth a write.
fn is_later(new: Option<Timestamp>, old: Option<Timestamp>) -> bool {
    match (new, old) {
        (Some(new), Some(old)) => new.duration_since(old) >= ALERT_TTL.signed() / 3,
        (new, _) => new.is_some(),
    }
}

/// Takes times of receipt from our future for a moment ago: the clock of who wrote them was
/// ahead, and they would hide all that is received until then. Whether there were any.
pub fn correct(group: &mut AlertGroupSpec, now: Timestamp) -> bool {
    let (limit, before) = (CLOCK_SKEW.after(now), Span::seconds(1).before(now));
    let mut corrected = false;
    let mut correct = |time: &mut Option<Timestamp>| {
        if time.is_some_and(|time| time > limit) {
            *time = Some(before);
            corrected = true;
        }
    };
    correct(&mut group.truncated_at);
    for alert in group.alerts.values_mut() {
        correct(&mut alert.last_firing);
        correct(&mut alert.last_resolved);
        correct(&mut alert.ends_at);
        correct(&mut alert.end_received);
    }
    corrected
}

/// Drops the alerts of which nothing was received for `FORGET_AFTER`, and the mark of a
/// truncated delivery that is older than any alert that counts.
pub fn forget(group: &mut AlertGroupSpec, now: Timestamp) {
    group.alerts.retain(|_, alert| !is_past(alert, now));
    group.truncated_at = group.truncated_at.filter(|at| ALERT_TTL.after(*at) >= now);
}

/// Drops the alerts that ended and of which nothing was received for `ALERT_TTL`: they say
/// nothing that their absence does not, and a group has no room for ever.
pub fn forget_ended(group: &mut AlertGroupSpec, now: Timestamp) {
    group.alerts.retain(|_, alert| {
        let received = alert.last_firing.max(alert.last_resolved);
        let late = received.is_some_and(|at| ALERT_TTL.after(at) >= now);
        late || last_word(alert) != SignalState::Clear
    });
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
