//! The node's Lease, which its kubelet renews while it lives. It is asked for only where
//! the Ready condition has no word of the kubelet and a fault is true. One that is alive
//! contradicts that, be it a condition or a signal that says so: both look the same way.
//! One of which that is not known yet refutes nothing.

use jiff::Timestamp;

use super::Evidence;
use crate::config::{Policy, Rules};
use crate::model::{NodeView, Span, Truth};

/// The kubelet's default for `nodeLeaseDurationSeconds`; it renews every quarter of it.
pub const DURATION: Span = Span::seconds(40);
/// A read that is older says nothing.
pub const MAX_AGE: Span = Span::seconds(30);
/// How often one lease is read.
pub const INTERVAL: Span = Span::seconds(10);

/// What a node's lease says of its kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It renews its lease.
    Renewing,
    /// It did not renew it for as long as a lease lasts, by our clock.
    Silent,
}

/// A lease as it was read, more than once if need be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    asked: Timestamp,
    read: Option<Read>,
}

#[derive(Clone, Debug, PartialEq)]
struct Read {
    at: Timestamp,
    renewed: Option<Timestamp>,
    /// Since when it reads so.
    since: Timestamp,
    /// Whether it read otherwise before.
    changed: bool,
}

impl Read {
    /// Between reads that are far apart it may have been anything.
    fn then(before: Option<Self>, renewed: Option<Timestamp>, now: Timestamp) -> Self {
        let known = before.filter(|before| before.at <= now && now <= MAX_AGE.after(before.at));
        let (since, changed) = match known {
            Some(before) if before.renewed == renewed => (before.since, before.changed),
            before => (now, before.is_some()),
        };
        Self {
            at: now,
            renewed,
            since,
            changed,
        }
    }

    /// By its change, since the kubelet's clock may be wrong.
    fn word(&self, now: Timestamp) -> Option<Word> {
        if now < self.at || MAX_AGE.after(self.at) < now {
            return None;
        }
        let lasted = DURATION.after(self.since) <= now;
        let young = |at: Timestamp| DURATION.after(at) >= now && at <= DURATION.after(now);
        if (self.changed && !lasted) || self.renewed.is_some_and(young) {
            Some(Word::Renewing)
        } else {
            lasted.then_some(Word::Silent)
        }
    }
}

impl Evidence {
    /// `renewed` is what the lease says of its last renewal; none if there is no lease, an
    /// error if it could not be read.
    pub(super) fn fold_lease(
        &mut self,
        uid: String,
        renewed: Result<Option<Timestamp>, ()>,
        now: Timestamp,
    ) {
        let before = self.leases.remove(&uid).and_then(|seen| seen.read);
        let read = match renewed {
            Ok(renewed) => Some(Read::then(before, renewed, now)),
            Err(()) => before,
        };
        self.leases.insert(uid, Seen { asked: now, read });
    }

    /// What is known of a node's lease.
    pub fn lease(&self, uid: &str, now: Timestamp) -> Option<Word> {
        self.leases.get(uid)?.read.as_ref()?.word(now)
    }

    /// When a node's lease was last asked for.
    pub fn lease_asked(&self, uid: &str) -> Option<Timestamp> {
        self.leases.get(uid).map(|seen| seen.asked)
    }

    /// Whether a fault is true of a node of which nothing is heard: whatever says so, it is
    /// repaired only if its kubelet is dead.
    pub fn needs_lease(
        &self,
        node: &NodeView,
        policy: &Policy,
        fault: &str,
        rules: &Rules,
        now: Timestamp,
    ) -> bool {
        let Some(when) = policy.when(fault) else {
            return false;
        };
        let look = self.look(node, rules, now);
        unheard(node) && self.truth(&look, policy, when) == Truth::True
    }
}

/// Whether nothing is heard of the node's kubelet.
pub(super) fn unheard(node: &NodeView) -> bool {
    let ready = node.condition("Ready");
    ready.is_some_and(|ready| ready.status == "Unknown")
}

#[cfg(test)]
mod tests;
