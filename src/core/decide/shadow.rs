//! What policies that only observe would have started: an admission of its own, by the same
//! guards, after the real one. It starts, reserves and takes nothing; but what it counts as
//! started counts against the limits of what it counts next, as a repair would, so that no
//! more is scored than would have been acted on. It is remembered in the fleet's one object.
//!
//! Guards look at a fleet in which every policy acts: nodes with an observed fault are sick.
//! A repair is taken to run until its fault is over, and for no longer than its policy gives
//! a replacement to be Ready and a drain to end.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::admit::{Running, order};
use super::{Place, Verdict, World, longest_window, score, survey};
use crate::api::{Action, BY_HAND, GuardRecord, ObservedStart};
use crate::model::{Reason, Span, Truth, VerdictKind};

/// `FleetState` holds so many.
const MAX_OBSERVED: usize = 200;
/// What is over is remembered at least this long.
const MIN_MEMORY: Span = Span::minutes(60);
/// The scopes of guards that count what would have started.
const SCOPE: &str = "observed/";

/// What would have started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shadow {
    /// As the fleet's one object is to remember it, oldest first.
    pub starts: Vec<ObservedStart>,
    /// The numbers of each guard that would have held a node.
    pub guards: Vec<GuardRecord>,
}

/// Whether nothing but its policy's mode holds a node that was not asked for.
pub(super) fn only_observed(verdict: &Verdict) -> bool {
    verdict.kind == VerdictKind::Held
        && verdict.reasons == [Reason::ObserveMode]
        && verdict.fault != BY_HAND
}

/// Tells each node that nothing but its policy's mode holds which guards would have held it
/// without that. To be called with what `admit` left: who is due starts.
pub fn shadow(verdicts: &mut [Verdict], world: &World<'_>, now: Timestamp) -> Shadow {
    let mut starts = remembered(world, now);
    if !verdicts.iter().any(only_observed) {
        let guards = Vec::new();
        return Shadow { starts, guards };
    }
    swap(verdicts);
    let enforced = World {
        fallen: world.observed.fallen,
        ..*world
    };
    let scopes = survey(verdicts, &enforced, now);
    swap(verdicts);
    let mut running = Running::new(scopes, world, now);
    for verdict in verdicts.iter().filter(|one| one.kind == VerdictKind::Due) {
        running.count(verdict);
    }
    count(&mut running, &starts, verdicts, now);
    let open = starts.iter().filter(|start| !start.over);
    let open: BTreeSet<String> = open.map(|start| start.node_uid.clone()).collect();
    let mut held: BTreeSet<(Reason, String)> = BTreeSet::new();
    for index in order(verdicts, &running.scopes, only_observed) {
        let verdict = &mut verdicts[index];
        if open.contains(&verdict.uid) {
            continue;
        }
        let holding = running.hold(verdict);
        if holding.is_empty() {
            running.count(verdict);
            starts.push(start(verdict, world, now));
            continue;
        }
        for (reason, scope) in holding {
            verdict.reasons.push(reason);
            verdict.scopes.push(format!("{SCOPE}{scope}"));
            held.insert((reason, scope));
        }
        verdict.reasons.sort();
        verdict.reasons.dedup();
        verdict.scopes.sort();
        verdict.scopes.dedup();
    }
    let starts = starts.split_off(starts.len().saturating_sub(MAX_OBSERVED));
    let guards = running.guards.into_iter();
    let guards = guards.filter(|(key, _)| held.contains(key));
    Shadow {
        starts,
        guards: guards
            .map(|(_, guard)| GuardRecord {
                scope: format!("{SCOPE}{}", guard.scope),
                ..guard
            })
            .collect(),
    }
}

/// Who is sick as if every policy acted.
fn swap(verdicts: &mut [Verdict]) {
    for verdict in verdicts {
        std::mem::swap(&mut verdict.sick_since, &mut verdict.sick_if_enforced);
    }
}

/// What would have started before, as far as it still counts.
fn remembered(world: &World<'_>, now: Timestamp) -> Vec<ObservedStart> {
    let memory = longest_window(world.limits, world.policies).max(MIN_MEMORY);
    let mut starts = world.observed.starts.to_vec();
    for start in &mut starts {
        start.over = start.over || is_over(start, world, now);
    }
    starts.retain(|start| !start.over || memory.after(start.at) > now);
    starts
}

/// Whether its fault is over, its node gone, or its policy no longer one that observes it.
fn is_over(start: &ObservedStart, world: &World<'_>, now: Timestamp) -> bool {
    if !world.evidence.nodes_fresh(now) {
        return false;
    }
    let observes = score::is_observed(&start.policy, &start.fault, world);
    let of = (&*start.policy, &*start.fault);
    let fault = || score::fault(&start.node_uid, &start.node_name, of, world, now);
    !observes || !world.evidence.has(&start.node_uid) || fault() == Some(Truth::False)
}

fn count(
    running: &mut Running<'_>,
    starts: &[ObservedStart],
    verdicts: &[Verdict],
    now: Timestamp,
) {
    let in_flight = |start: &ObservedStart| !start.over && start.until > now;
    let uids: BTreeSet<&str> = starts.iter().map(|start| start.node_uid.as_str()).collect();
    let known = verdicts
        .iter()
        .filter(|one| uids.contains(one.uid.as_str()));
    let available: BTreeMap<&str, bool> = known
        .map(|verdict| (verdict.uid.as_str(), verdict.available))
        .collect();
    for start in starts {
        let place = Place {
            zone: start.zone.clone(),
            pool: start.pool.clone(),
        };
        let available = available.get(start.node_uid.as_str()) == Some(&true);
        let under_way = in_flight(start).then_some(available);
        running.count_start(&place, &start.policy, start.at, under_way);
    }
}

fn start(verdict: &Verdict, world: &World<'_>, now: Timestamp) -> ObservedStart {
    let policy = world.policy(&verdict.policy);
    // A cordon is no work.
    let cordons = verdict
        .action
        .is_some_and(|(action, _)| action == Action::Cordon);
    let until = policy.filter(|_| !cordons).map_or(now, |policy| {
        let ready = policy.ready_timeout.after(now);
        policy.drain_timeout.after(ready)
    });
    ObservedStart {
        node_name: verdict.node.clone(),
        node_uid: verdict.uid.clone(),
        zone: verdict.place.zone.clone(),
        pool: verdict.place.pool.clone(),
        policy: verdict.policy.to_string(),
        fault: verdict.fault.clone(),
        at: now,
        until,
        over: false,
    }
}
