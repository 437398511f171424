//! Whether repairs help: a pool whose replacements fall sick too is left alone for longer
//! and longer, and one that twice asked for a person is left to people.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Verdict, World};
use crate::api::{GaveUp, NodeRepair, Phase};
use crate::model::Span;

/// A replacement that is well for this long proves that the pool can be repaired.
const PROBATION: Span = Span::minutes(60);
/// The longest time that a pool is left alone.
const LONGEST: Span = Span::minutes(6 * 60);
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
    // Since when each node that was a replacement is sick, now or when it was repaired.
    let mut sick: BTreeMap<&str, Timestamp> = verdicts
        .iter()
        .filter_map(|verdict| Some((verdict.node.as_str(), verdict.sick_since?)))
        .collect();
    for repair in world.repairs {
        let since = sick.entry(&repair.spec.node_name);
        let since = since.or_insert(repair.spec.fault_since);
        *since = repair.spec.fault_since.min(*since);
    }
    let breaker = &world.limits.breaker;
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
                repair.phase() == Phase::NeedsHuman
                    && world.evidence.has(&repair.spec.node_uid)
                    && last(repair)
            });
            let mut outcomes: Vec<(Timestamp, bool)> = repairs
                .iter()
                .filter_map(|repair| outcome(repair, &sick, now))
                .collect();
            outcomes.sort();
            let failed: Vec<Timestamp> = outcomes
                .iter()
                .rev()
                .take_while(|(_, failed)| *failed)
                .map(|(at, _)| *at)
                .collect();
            let wait = failed.len().checked_sub(1).map(|doublings| {
                let shift = u32::try_from(doublings).unwrap_or(u32::MAX).min(16);
                let seconds = breaker.cooldown.as_seconds().saturating_mul(1 << shift);
                let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
                Span::seconds(seconds).min(LONGEST)
            });
            let until = wait
                .zip(failed.first())
                .map(|(wait, last)| wait.after(*last));
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

/// When a repair failed (true) or proved to help; none while that is open.
fn outcome(
    repair: &NodeRepair,
    sick: &BTreeMap<&str, Timestamp>,
    now: Timestamp,
) -> Option<(Timestamp, bool)> {
    let status = repair.status.as_ref()?;
    if status.reason == Some(GaveUp::ReplacementNotReady) {
        return Some((status.ended.unwrap_or(now), true));
    }
    let replacement = status.replacement.as_ref()?;
    let ready = replacement.ready_since?;
    let proven = PROBATION.after(ready);
    let relapsed = sick.get(replacement.node_name.as_str());
    match relapsed.filter(|at| **at >= ready && **at < proven) {
        Some(at) => Some((*at, true)),
        None => (proven <= now).then_some((proven, false)),
    }
}
