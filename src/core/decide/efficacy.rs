//! Whether repairs help: a pool whose replacements fall sick too is left alone for longer
//! and longer, and one that twice asked for a person is left to people.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Verdict, World};
use crate::api::{GaveUp, NodeRepair, Phase};
use crate::model::{Span, instance_id};

/// A replacement that is well for this long proves that the pool can be repaired.
pub(super) const PROBATION: Span = Span::minutes(60);
/// The longest time that a pool is left alone.
pub(super) const LONGEST: Span = Span::minutes(6 * 60);
/// So many nodes of a pool that ask for a person stop it.
pub(super) const STOPPED: usize = 2;
/// Starts within this time count for fairness between pools.
const FAIRNESS: Span = Span::minutes(60);

/// What became of the repairs of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Replacements that did not help, since one last did.
    pub failures: usize,
    /// Until when the pool is left alone for that.
    pub backoff_until: Option<Timestamp>,
    /// Nodes that ask for a person.
    pub need_human: usize,
    /// Repairs that started within the last hour.
    pub started: usize,
}

/// What became of the repairs of each pool that had any.
pub(super) fn pools(
    verdicts: &[Verdict],
    world: &World<'_>,
    now: Timestamp,
) -> BTreeMap<String, Pool> {
    let mut of: BTreeMap<&str, Vec<&NodeRepair>> = BTreeMap::new();
    for repair in world.repairs {
        of.entry(&repair.spec.pool).or_default().push(repair);
    }
    let sick = sick(verdicts, world);
    let breaker = &world.limits.breaker;
    let unwell: BTreeSet<&str> = verdicts
        .iter()
        .filter(|verdict| verdict.sick_since.is_some())
        .map(|verdict| verdict.uid.as_str())
        .collect();
    // It is gone, or well and not cordoned.
    let is_mended = |repair: &NodeRepair| {
        let node = world.evidence.node(&repair.spec.node_name);
        let node = node.filter(|node| node.uid == repair.spec.node_uid);
        node.is_none_or(|node| {
            node.ready() && !node.unschedulable && !unwell.contains(node.uid.as_str())
        })
    };
    of.into_iter()
        .map(|(pool, repairs)| {
            let started = repairs
                .iter()
                .filter(|repair| FAIRNESS.after(repair.spec.quarantine.at) > now);
            let last = |repair: &NodeRepair| {
                let uid = &repair.spec.node_uid;
                let others = repairs.iter().filter(|other| other.spec.node_uid == *uid);
                others.map(|other| other.spec.ordinal).max() == Some(repair.spec.ordinal)
            };
            let asks = repairs.iter().filter(|repair| {
                repair.phase() == Phase::NeedsHuman && !is_mended(repair) && last(repair)
            });
            let mut outcomes: Vec<(Timestamp, Option<Timestamp>)> = repairs
                .iter()
                .filter_map(|repair| outcome(repair, &sick, now))
                .collect();
            outcomes.sort();
            let last = outcomes.iter().rev().map_while(|(_, failed)| *failed);
            let failed: Vec<Timestamp> = last.collect();
            let wait = failed.len().checked_sub(1).map(|doublings| {
                let shift = u32::try_from(doublings).unwrap_or(u32::MAX).min(16);
                let seconds = breaker.cooldown.as_seconds().saturating_mul(1 << shift);
                let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
                Span::seconds(seconds).min(LONGEST)
            });
            let until = wait
                .zip(failed.iter().max())
                .map(|(wait, due)| wait.after(*due));
            let found = Pool {
                failures: failed.len(),
                backoff_until: until.filter(|until| *until > now),
                need_human: asks.count(),
                started: started.count(),
            };
            (pool.to_owned(), found)
        })
        .collect()
}

/// That a machine is sick, or was when it was repaired.
struct Sick {
    since: Timestamp,
    /// When it is due, or was: a wait from an earlier time might be over before it counts.
    due: Timestamp,
}

/// By instance: names of nodes are given again. What a person asks for says nothing of the
/// machine.
fn sick<'a>(verdicts: &'a [Verdict], world: &World<'a>) -> BTreeMap<&'a str, Vec<Sick>> {
    let now = verdicts.iter().filter_map(|verdict| {
        let since = verdict.sick_since?;
        let node = world.evidence.node(&verdict.node)?;
        let faults = verdict.inputs.iter().flat_map(|inputs| &inputs.faults);
        let due = faults.filter_map(|fault| Some(fault.for_.after(fault.since?)));
        // A fault that takes long to be due is no reason to wait longer than the longest.
        let due = due
            .min()
            .map_or(since, |due| due.max(since).min(LONGEST.after(since)));
        Some((node.instance_id()?, Sick { since, due }))
    });
    let unasked = world.repairs.iter();
    let unasked = unasked.filter(|repair| repair.spec.request.is_none());
    let repaired = unasked.filter_map(|repair| {
        let spec = &repair.spec;
        let planned = Some(spec.plan.instance_id.as_str()).filter(|id| !id.is_empty());
        let instance = planned.or_else(|| instance_id(&spec.provider_id))?;
        let policy = world.policy(&spec.policy);
        let mut faults = policy.into_iter().flat_map(|policy| &policy.faults);
        let fault = faults.find(|fault| fault.name == spec.fault);
        let (since, began) = (spec.fault_since, spec.quarantine.at);
        let due = fault.map_or(began, |fault| fault.for_.after(since).min(began));
        Some((instance, Sick { since, due }))
    });
    let mut sick: BTreeMap<&str, Vec<Sick>> = BTreeMap::new();
    for (instance, found) in now.chain(repaired) {
        sick.entry(instance).or_default().push(found);
    }
    sick
}

/// When a repair failed or proved to help, and if it failed, from when on its pool is left
/// alone; none while that is open.
fn outcome(
    repair: &NodeRepair,
    sick: &BTreeMap<&str, Vec<Sick>>,
    now: Timestamp,
) -> Option<(Timestamp, Option<Timestamp>)> {
    let status = repair.status.as_ref()?;
    if status.reason == Some(GaveUp::ReplacementNotReady) {
        let ended = status.ended.unwrap_or(now);
        return Some((ended, Some(ended)));
    }
    let replacement = status.replacement.as_ref()?;
    let ready = replacement.ready_since?;
    let proven = PROBATION.after(ready);
    let relapses = sick.get(replacement.instance_id.as_str()).into_iter();
    // A fault that comes and goes may be older than the time it was first Ready.
    let relapses = relapses.flatten().filter(|sick| sick.since < proven);
    let relapses = relapses.map(|sick| (sick.since.max(ready), sick.due.max(ready)));
    let failed = relapses.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
    match failed {
        Some((at, due)) => Some((at, Some(due))),
        None => (proven <= now).then_some((proven, None)),
    }
}
