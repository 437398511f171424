//! What became of faults that a policy in mode Observe would have acted on: the
//! counterfactual that a person judges it by before it may act.
//!
//! An episode begins when nothing but the mode holds the node, and no guard that counts over
//! scopes would have (`shadow`). It is kept in the node's record, and counted once: as
//! recovered when the fault is over, as gone on when it is still true an hour later, as gone
//! away when the node goes first. What is counted is written into the fleet's one object
//! before the node's record says so; so between the two writes its key is kept there, and
//! whoever is killed in between counts it once all the same. An episode whose policy acts by
//! now, or no longer speaks for the node, is dropped.

use jiff::Timestamp;

use super::shadow::only_observed;
use super::{Verdict, World};
use crate::api::{Episode, FleetStateSpec, Mode, NodeHealth, Score};
use crate::model::{Span, Truth, digest};

/// What is still there so long after it would have been acted on went on.
const WENT_ON: Span = Span::minutes(60);
/// `FleetState` holds so many of each.
const MAX_SCORES: usize = 200;
const MAX_SCORED: usize = 100;

/// What became of a fault that nobody acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was over after so many seconds.
    Recovered(u64),
    /// It was still there after an hour.
    WentOn,
    /// The node went away before that.
    WentAway,
}

/// Counts the episodes on record of which it is known by now what became of them.
pub fn count(
    fleet: &mut FleetStateSpec,
    healths: &[NodeHealth],
    world: &World<'_>,
    now: Timestamp,
) {
    let mut open: Vec<(String, &NodeHealth, &Episode)> = healths
        .iter()
        .filter_map(|health| {
            let episode = health.status.as_ref()?.observed.as_ref()?;
            let key = key(&health.spec.node_uid, episode);
            (!episode.counted).then_some((key, health, episode))
        })
        .collect();
    open.sort_by(|one, other| one.0.cmp(&other.0));
    let is_open = |key: &String| open.binary_search_by(|known| known.0.cmp(key)).is_ok();
    fleet.scored.retain(is_open);
    let exists = |score: &Score| world.policy(&score.policy).is_some();
    fleet.score.retain(exists);
    for (key, health, episode) in open {
        if fleet.scored.contains(&key) || fleet.scored.len() >= MAX_SCORED {
            continue;
        }
        if let Some(outcome) = outcome(
            &health.spec.node_uid,
            &health.spec.node_name,
            episode,
            world,
            now,
        ) {
            add(&mut fleet.score, episode, outcome, now);
            fleet.scored.push(key);
        }
    }
    fleet.scored.sort();
}

/// The episode that a node's record keeps from now on. `scored` is what is committed.
pub fn follow(
    before: Option<&Episode>,
    verdict: &Verdict,
    scored: &[String],
    world: &World<'_>,
    now: Timestamp,
) -> Option<Episode> {
    let begins = || {
        only_observed(verdict).then(|| Episode {
            policy: verdict.policy.to_string(),
            fault: verdict.fault.clone(),
            due: now,
            counted: false,
        })
    };
    let Some(before) = before.filter(|before| observes(before, verdict, world)) else {
        return begins();
    };
    let counted = before.counted || scored.contains(&key(&verdict.uid, before));
    let of = (&*before.policy, &*before.fault);
    let over = fault(&verdict.uid, &verdict.node, of, world, now) == Some(Truth::False);
    if counted && over {
        return begins();
    }
    Some(Episode {
        counted,
        ..before.clone()
    })
}

/// Whether an episode of a node that is gone may be forgotten.
pub fn is_done(health: &NodeHealth, scored: &[String]) -> bool {
    let status = health.status.as_ref();
    let episode = status.and_then(|status| status.observed.as_ref());
    episode.is_none_or(|episode| {
        episode.counted || scored.contains(&key(&health.spec.node_uid, episode))
    })
}

fn key(uid: &str, episode: &Episode) -> String {
    let due = episode.due.to_string();
    digest(&[uid, &episode.policy, &episode.fault, &due], 16)
}

/// Whether the policy of an episode still speaks for the node, and still only observes.
fn observes(episode: &Episode, verdict: &Verdict, world: &World<'_>) -> bool {
    *verdict.policy == episode.policy && is_observed(&episode.policy, &episode.fault, world)
}

/// Whether a policy has this fault, and only observes it. One that was refused says nothing
/// of that.
pub(super) fn is_observed(policy: &str, fault: &str, world: &World<'_>) -> bool {
    world.policy(policy).is_some_and(|policy| {
        let observes = policy.mode == Mode::Observe && policy.when(fault).is_some();
        !policy.accepted || observes
    })
}

/// Whether the fault of a policy is true; false only once it is over, and not just for a moment.
pub(super) fn fault(
    uid: &str,
    name: &str,
    (of, fault): (&str, &str),
    world: &World<'_>,
    now: Timestamp,
) -> Option<Truth> {
    let node = world.evidence.node(name).filter(|node| node.uid == uid)?;
    let policy = world.policy(of)?;
    let told = world.evidence.fault(node, policy, fault, world.rules, now);
    Some(match told {
        (Truth::False, Some(_)) => Truth::Unknown,
        (truth, _) => truth,
    })
}

fn outcome(
    uid: &str,
    name: &str,
    episode: &Episode,
    world: &World<'_>,
    now: Timestamp,
) -> Option<Outcome> {
    if !world.evidence.nodes_fresh(now) {
        return None;
    }
    if !world.evidence.has(uid) {
        return Some(Outcome::WentAway);
    }
    match fault(uid, name, (&episode.policy, &episode.fault), world, now)? {
        Truth::False => {
            let took = now.duration_since(episode.due).as_secs();
            Some(Outcome::Recovered(u64::try_from(took).unwrap_or(0)))
        }
        Truth::True => (WENT_ON.after(episode.due) <= now).then_some(Outcome::WentOn),
        Truth::Unknown => None,
    }
}

fn add(scores: &mut Vec<Score>, episode: &Episode, outcome: Outcome, now: Timestamp) {
    let of = (&episode.policy, &episode.fault);
    let place = scores.binary_search_by(|score| (&score.policy, &score.fault).cmp(&of));
    let place = match place {
        Ok(place) => place,
        Err(_) if scores.len() >= MAX_SCORES => return,
        Err(place) => {
            let score = Score {
                policy: episode.policy.clone(),
                fault: episode.fault.clone(),
                since: now,
                recovered: 0,
                recovery_seconds: 0,
                longest_recovery_seconds: 0,
                went_on: 0,
                went_away: 0,
            };
            scores.insert(place, score);
            place
        }
    };
    let score = &mut scores[place];
    match outcome {
        Outcome::Recovered(seconds) => {
            score.recovered = score.recovered.saturating_add(1);
            score.recovery_seconds = score.recovery_seconds.saturating_add(seconds);
            score.longest_recovery_seconds = score.longest_recovery_seconds.max(seconds);
        }
        Outcome::WentOn => score.went_on = score.went_on.saturating_add(1),
        Outcome::WentAway => score.went_away = score.went_away.saturating_add(1),
    }
}

#[cfg(test)]
mod tests;
