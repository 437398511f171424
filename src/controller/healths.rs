//! What the leader keeps of each node: its verdict, clocks and decisions.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nodemend_core::api::{
    Decision, FaultRecord, GuardRecord, Inputs, NodeHealth, NodeHealthSpec, NodeHealthStatus,
    RepairRequest, SignalRecord,
};
use nodemend_core::config::Policy;
use nodemend_core::decide::{self, Fallen, Place, Scopes, Verdict, World};
use nodemend_core::evidence::CONDITION;
use nodemend_core::model::{Reason, SignalState, Truth, VerdictKind, digest};

use super::{Controller, Error, Known, Records};
use crate::exec::{CallError, Cloud, Cluster, Probes};

/// What becomes of a node's record.
enum Keep<'a> {
    AsItIs,
    Nothing(&'a NodeHealth),
    This(Box<NodeHealth>),
}

impl<C: Cluster + Records, K: Cloud, P: Probes> Controller<C, K, P> {
    /// Nodes that fell sick lately, by their records.
    pub(super) fn fallen(&self, healths: &[NodeHealth], now: Timestamp) -> Vec<Fallen> {
        let certain = self.evidence.nodes_fresh(now);
        let fallen = healths.iter().filter_map(|health| {
            let status = health.status.as_ref()?;
            let there = !certain || self.evidence.has(&health.spec.node_uid);
            let sick = status.sick_since.is_some();
            Some(Fallen {
                uid: health.spec.node_uid.clone(),
                place: place_of(status),
                policy: status.policy.clone(),
                since: status.fell_sick?,
                sick,
                gone: (sick && !there).then(|| status.gone.unwrap_or(now)),
            })
        });
        fallen.collect()
    }

    /// The same, with nodes that had a fault that is only observed, and are there.
    pub(super) fn observed_fallen(&self, fallen: &[Fallen], healths: &[NodeHealth]) -> Vec<Fallen> {
        let mut all = fallen.to_vec();
        let known: BTreeSet<&str> = fallen.iter().map(|one| one.uid.as_str()).collect();
        let others = healths.iter().filter(|health| {
            let uid = health.spec.node_uid.as_str();
            !known.contains(uid) && self.evidence.has(uid)
        });
        all.extend(others.filter_map(|health| {
            let status = health.status.as_ref()?;
            let faults = status.decisions.iter().flat_map(|one| &one.inputs.faults);
            Some(Fallen {
                uid: health.spec.node_uid.clone(),
                place: place_of(status),
                policy: status.policy.clone(),
                since: faults.filter_map(|fault| fault.since).max()?,
                // Since when those that are sick are so, their clocks say.
                sick: false,
                gone: None,
            })
        }));
        all
    }

    /// Writes what changed of each node that is not plainly healthy.
    pub(super) async fn record(
        &self,
        verdicts: &[Verdict],
        guards: &[GuardRecord],
        scopes: &Scopes,
        known: &Known<'_>,
        now: Timestamp,
    ) -> Result<Vec<NodeHealth>, Error> {
        let (mut written, mut refused) = (Vec::new(), None);
        let healths: BTreeMap<&str, &NodeHealth> = known
            .healths
            .iter()
            .map(|health| (health.spec.node_uid.as_str(), health))
            .collect();
        for verdict in verdicts {
            let before = healths.get(verdict.uid.as_str()).copied();
            let health = match self.keep(verdict, before, guards, scopes, known, now) {
                Keep::AsItIs => continue,
                Keep::Nothing(health) => {
                    self.cluster.delete_health(health).await?;
                    continue;
                }
                Keep::This(health) => health,
            };
            match self.cluster.put_health(&health).await {
                Ok(health) => written.push(health),
                // Whatever is wrong with one record, the others are written.
                Err(error @ CallError::Refused(_)) => refused = refused.or(Some(error)),
                Err(error) => return Err(error.into()),
            }
        }
        self.part(scopes, known, now).await?;
        match refused {
            Some(error) => Err(error.into()),
            None => Ok(written),
        }
    }

    /// What is to be kept of a node: nothing once it is plainly well, and was for a while.
    fn keep<'a>(
        &self,
        verdict: &Verdict,
        before: Option<&'a NodeHealth>,
        guards: &[GuardRecord],
        scopes: &Scopes,
        known: &Known<'_>,
        now: Timestamp,
    ) -> Keep<'a> {
        // A node whose only trouble is a source that is down for all gets no record.
        let watched = self.evidence.watched(&verdict.uid) || verdict.request().is_some();
        let plain = match verdict.kind {
            VerdictKind::Ignored => verdict.request().is_none(),
            VerdictKind::Healthy => !watched,
            VerdictKind::Unknown => !watched && verdict.since.is_none(),
            _ => false,
        };
        if plain && before.is_none() && verdict.sick_since.is_none() {
            return Keep::AsItIs;
        }
        let world = self.world(known);
        let recorded = before.and_then(|health| health.status.as_ref());
        let observed = recorded.and_then(|status| status.observed.as_ref());
        let observed = decide::score::follow(observed, verdict, self.scored(), &world, now);
        let status = NodeHealthStatus {
            observed,
            ..self.health(verdict, recorded, guards, &world, now)
        };
        let cooldown = self.setup.limits.breaker.cooldown;
        let past = |at: Timestamp| cooldown.after(at) <= now;
        let well = verdict.sick_since.is_none()
            && plain
            && verdict.kind != VerdictKind::Unknown
            && status.observed.is_none();
        let fell_sick = status.fell_sick;
        let told = fell_sick.is_none_or(|at| past(at) && !storms(&verdict.place, scopes));
        if well && past(status.since) && told {
            return before.map_or(Keep::AsItIs, Keep::Nothing);
        }
        if recorded == Some(&status) {
            return Keep::AsItIs;
        }
        let mut health = before.cloned().unwrap_or_else(|| {
            let spec = NodeHealthSpec {
                node_name: verdict.node.clone(),
                node_uid: verdict.uid.clone(),
            };
            NodeHealth::new(&format!("node-{}", digest(&[&verdict.uid], 20)), spec)
        });
        health.status = Some(status);
        Keep::This(Box::new(health))
    }

    /// Marks the records of nodes that went away sick, and deletes those of nodes that are
    /// gone: once the cooldown is over, and no storm is left that they may have begun.
    async fn part(&self, scopes: &Scopes, known: &Known<'_>, now: Timestamp) -> Result<(), Error> {
        // A list that is empty or old says nothing of who is gone.
        if !self.evidence.nodes_fresh(now) {
            return Ok(());
        }
        let cooldown = self.setup.limits.breaker.cooldown;
        let lately = |at: Option<Timestamp>| at.is_some_and(|at| cooldown.after(at) > now);
        let counts = |status: &NodeHealthStatus| {
            let storm = || status.fell_sick.is_some() && storms(&place_of(status), scopes);
            lately(status.gone) || lately(status.fell_sick) || storm()
        };
        let is_there = |health: &&NodeHealth| self.evidence.has(&health.spec.node_uid);
        for health in known.healths.iter().filter(|health| !is_there(health)) {
            // What became of it has to be counted first.
            if !decide::score::is_done(health, self.scored()) {
                continue;
            }
            let status = health.status.as_ref();
            let sick = status.filter(|status| status.sick_since.is_some());
            match sick.map(|status| status.gone) {
                Some(None) => {
                    let mut parted = health.clone();
                    if let Some(status) = &mut parted.status {
                        status.gone = Some(now);
                    }
                    self.cluster.put_health(&parted).await?;
                }
                _ if status.is_some_and(counts) => {}
                _ => self.cluster.delete_health(health).await?,
            }
        }
        Ok(())
    }

    /// The decisions on a node as its record is to keep them, with this one if it is another
    /// or must be seen.
    fn decisions(
        &self,
        verdict: &Verdict,
        before: Option<&NodeHealthStatus>,
        changed: bool,
        guards: &[GuardRecord],
        world: &World<'_>,
        now: Timestamp,
    ) -> Vec<Decision> {
        let mut decisions = before.map_or_else(Vec::new, |status| status.decisions.clone());
        let asked = |request: Option<&RepairRequest>| request.map(|request| request.at);
        let known = decisions.last();
        let known = asked(known.and_then(|known| known.inputs.request.as_ref()));
        // Who is to approve must see of what.
        let action = |inputs: &Inputs| {
            let mut faults = inputs.faults.iter();
            faults.find(|fault| fault.name == verdict.fault)?.action
        };
        let waits = verdict.reasons.contains(&Reason::AwaitingApproval);
        let last = decisions.last().and_then(|last| action(&last.inputs));
        let another = waits && last != verdict.inputs.as_deref().and_then(action);
        // Who asks is answered, also if nothing changes.
        if changed || another || known != asked(verdict.request()) {
            let mut decision = decide::decision(verdict, guards, now);
            if let Some(node) = self.evidence.node(&verdict.node) {
                decide::detail(&mut decision, node, world);
            }
            decide::remember(&mut decisions, decision);
        }
        decisions
    }

    fn health(
        &self,
        verdict: &Verdict,
        before: Option<&NodeHealthStatus>,
        guards: &[GuardRecord],
        world: &World<'_>,
        now: Timestamp,
    ) -> NodeHealthStatus {
        let same = before.filter(|status| {
            status.verdict == verdict.kind
                && status.fault == verdict.fault
                && status.reasons == verdict.reasons
        });
        let since = same.map_or(now, |status| status.since);
        let decisions = self.decisions(verdict, before, same.is_none(), guards, world, now);
        // It moves with clocks that stand still; the first time that was known stays.
        let sick_since = verdict.sick_since.map(|since| {
            let known = before.and_then(|status| status.sick_since);
            known.map_or(since, |known| known.min(since))
        });
        NodeHealthStatus {
            verdict: verdict.kind,
            fault: verdict.fault.clone(),
            policy: verdict.policy.to_string(),
            reasons: verdict.reasons.clone(),
            scopes: verdict.scopes.clone(),
            since,
            signals: signal_records(&verdict.signals, before, now),
            faults: self.fault_records(verdict, before, now),
            silences: verdict.silences.clone(),
            sick_since,
            fell_sick: sick_since.or(before.and_then(|status| status.fell_sick)),
            zone: verdict.place.zone.clone(),
            pool: verdict.place.pool.clone(),
            gone: None,
            observed: None,
            trace_id: digest(
                &[
                    "decision",
                    &verdict.uid,
                    &format!("{:?}", verdict.kind),
                    &since.to_string(),
                ],
                32,
            ),
            decisions,
        }
    }

    /// The clocks of the faults that run for the node.
    fn fault_records(
        &self,
        verdict: &Verdict,
        before: Option<&NodeHealthStatus>,
        now: Timestamp,
    ) -> Vec<FaultRecord> {
        let Some(node) = self.evidence.node(&verdict.node) else {
            return Vec::new();
        };
        let record = |policy: &Policy, fault: &str| {
            let rules = &self.setup.rules;
            let (truth, since) = self.evidence.fault(node, policy, fault, rules, now);
            let mut known = before.into_iter().flat_map(|status| &status.faults);
            let known = known.find(|record| record.fault == fault);
            let known = known.map(|known| (Some(known.since), known.paused));
            let (since, paused) = standing_clock(truth == Truth::Unknown, since, known, now);
            Some(FaultRecord {
                policy: policy.name.clone(),
                fault: fault.to_owned(),
                since: since?,
                paused,
                clearing_since: self.evidence.clearing(node, &policy.name, fault),
            })
        };
        let policies = self.setup.policies.iter();
        let policies = policies.filter(|policy| policy.name == *verdict.policy);
        let faults = policies.flat_map(|policy| {
            let faults = policy.faults.iter();
            faults.filter_map(|fault| record(policy, &fault.name))
        });
        faults.collect()
    }
}

fn place_of(status: &NodeHealthStatus) -> Place {
    Place {
        zone: status.zone.clone(),
        pool: status.pool.clone(),
    }
}

/// Whether a breaker is open over this place: its storm may have begun with any node there.
fn storms(place: &Place, scopes: &Scopes) -> bool {
    scopes.storms(place).next().is_some()
}

/// A clock as it is stored. One that stands still moves with every pass; so what is
/// kept is where it stopped, and when. One that is younger than that began anew.
fn standing_clock(
    unknown: bool,
    since: Option<Timestamp>,
    known: Option<(Option<Timestamp>, Option<Timestamp>)>,
    now: Timestamp,
) -> (Option<Timestamp>, Option<Timestamp>) {
    let Some(running) = since.filter(|_| unknown) else {
        return (since, None);
    };
    let stopped = known.and_then(|(stopped, paused)| stopped.zip(paused));
    let same = |stopped: &(Timestamp, Timestamp)| {
        now.duration_since(running) >= stopped.1.duration_since(stopped.0)
    };
    let (stopped, paused) = stopped.filter(same).unwrap_or((running, now));
    (Some(stopped), Some(paused))
}

/// A verdict's signals, with their clocks as they are stored.
fn signal_records(
    signals: &[SignalRecord],
    before: Option<&NodeHealthStatus>,
    now: Timestamp,
) -> Vec<SignalRecord> {
    let signals = signals.iter().cloned().map(|mut signal| {
        let mut known = before.into_iter().flat_map(|status| &status.signals);
        let known = known.find(|record| record.name == signal.name);
        // A condition that no clock runs for is known to hold since it was first seen to.
        if signal.name.starts_with(CONDITION) && signal.state == SignalState::Firing {
            let known = known.filter(|known| known.state != SignalState::Clear);
            let known = known.and_then(|known| known.since);
            signal.since = signal.since.into_iter().chain(known).min().or(Some(now));
        }
        // Of a rule for which no clock runs it says more.
        let lost = signal.paused.filter(|_| signal.since.is_none());
        (signal.since, signal.paused) = standing_clock(
            signal.state == SignalState::Unknown || signal.paused.is_some(),
            signal.since,
            known.map(|known| (known.since, known.paused)),
            now,
        );
        signal.paused = signal.paused.or(lost);
        signal
    });
    signals.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_without_a_clock_keeps_since_when_it_lost_its_node() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let lost = SignalRecord {
            name: "R".into(),
            state: SignalState::Unknown,
            since: None,
            last_firing: None,
            paused: Some(at(30)),
        };
        let signals = std::slice::from_ref(&lost);
        assert_eq!(signal_records(signals, None, at(90)), signals);
    }
}
