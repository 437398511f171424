//! Who of the due nodes may start now: the guards that count over scopes, in order of
//! severity, fair between pools, then by age.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::efficacy::STOPPED;
use super::scope::{BreakerState, BudgetKey, Place, Scope, Scopes, Tally};
use super::{Verdict, World, longest_window};
use crate::api::{GuardRecord, MAX_STARTS, Severity};
use crate::config::{Budget, Policy};
use crate::model::{Reason, Span, VerdictKind};

/// Who may start, and what held the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admission {
    /// The UIDs of those who may start, first come first.
    pub admitted: Vec<String>,
    /// The numbers of each guard that held a node, once per scope; and of each breaker
    /// that is not closed.
    pub guards: Vec<GuardRecord>,
}

/// Lets the first of the due nodes start, and holds the others with their reasons.
pub fn admit(
    verdicts: &mut [Verdict],
    scopes: &Scopes,
    world: &World<'_>,
    now: Timestamp,
) -> Admission {
    let mut running = Running::new(scopes.clone(), world, now);
    let mut admitted = Vec::new();
    for index in order(verdicts, scopes, |one| one.kind == VerdictKind::Due) {
        let verdict = &mut verdicts[index];
        let held = running.hold(verdict);
        if held.is_empty() {
            running.count(verdict);
            admitted.push(verdict.uid.clone());
            continue;
        }
        verdict.kind = VerdictKind::Held;
        let (reasons, scopes): (Vec<Reason>, Vec<String>) = held.into_iter().unzip();
        (verdict.reasons, verdict.scopes) = (reasons, scopes);
        verdict.reasons.sort();
        verdict.reasons.dedup();
        verdict.scopes.sort();
        verdict.scopes.dedup();
    }
    Admission {
        admitted,
        guards: running.guards.into_values().collect(),
    }
}

/// The nodes that are wanted: the severe first, then those of pools whose replacements
/// helped, then each pool in its turn, then the oldest.
pub(super) fn order(
    verdicts: &[Verdict],
    scopes: &Scopes,
    wanted: impl Fn(&Verdict) -> bool,
) -> Vec<usize> {
    let mut due: Vec<usize> = (0..verdicts.len())
        .filter(|index| wanted(&verdicts[*index]))
        .collect();
    due.sort_by_key(|index| {
        let verdict = &verdicts[*index];
        (Reverse(verdict.severity), verdict.since, &verdict.node)
    });
    let mut turns: BTreeMap<(Severity, &str), usize> = BTreeMap::new();
    let mut ranked: Vec<_> = due
        .into_iter()
        .map(|index| {
            let verdict = &verdicts[index];
            let pool = scopes.pools.get(&verdict.place.pool);
            let started = pool.map_or(0, |pool| pool.started);
            let turn = turns
                .entry((verdict.severity, &verdict.place.pool))
                .or_insert(started);
            *turn += 1;
            let failures = pool.map_or(0, |pool| pool.failures);
            let rank = (Reverse(verdict.severity), failures, *turn, verdict.since);
            (rank, &verdict.node, index)
        })
        .collect();
    ranked.sort();
    ranked.into_iter().map(|(.., index)| index).collect()
}

/// The scopes as they are with those who were admitted so far.
pub(super) struct Running<'a> {
    /// The policies of whose windows none is open, and when the next opens: once for all nodes.
    shut: BTreeMap<&'a str, Option<Timestamp>>,
    pub scopes: Scopes,
    /// The starts on record that any window counts, and the longest of these.
    known: Vec<Timestamp>,
    longest: Span,
    world: &'a World<'a>,
    now: Timestamp,
    pub guards: BTreeMap<(Reason, String), GuardRecord>,
}

impl<'a> Running<'a> {
    pub fn new(scopes: Scopes, world: &'a World<'a>, now: Timestamp) -> Self {
        let longest = longest_window(world.limits, world.policies);
        let known = world.starts.iter().chain(world.reserved);
        let known: Vec<Timestamp> = known.map(|start| start.at).collect();
        let mut known = within_window(&known, longest, now);
        known.sort();
        let mut shut = BTreeMap::new();
        for policy in world.policies.iter().filter(|one| !one.windows.is_empty()) {
            let windows = || policy.windows.iter();
            if !windows().any(|window| window.is_open(now)) {
                let next = windows().filter_map(|window| window.next_start(now)).min();
                shut.insert(policy.name.as_str(), next);
            }
        }
        let mut running = Self {
            shut,
            scopes,
            known,
            longest,
            world,
            now,
            guards: BTreeMap::new(),
        };
        running.note_breakers();
        running
    }

    fn note(
        &mut self,
        reason: Reason,
        scope: String,
        (limit, current): (usize, usize),
        until: Option<Timestamp>,
    ) -> (Reason, String) {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let record = GuardRecord {
            scope: scope.clone(),
            reason,
            limit: number(limit),
            current: number(current),
            until,
        };
        // Of several windows that are spent, what holds longest; one that lets nothing start
        // holds for ever.
        let end = |record: &GuardRecord| record.until.unwrap_or(Timestamp::MAX);
        let known = self.guards.get(&(reason, scope.clone()));
        if known.is_none_or(|known| end(known) <= end(&record)) {
            self.guards.insert((reason, scope.clone()), record);
        }
        (reason, scope)
    }

    fn note_breakers(&mut self) {
        for scope in self.scopes.census.keys().cloned().collect::<Vec<_>>() {
            self.note_breaker(&scope);
        }
    }

    fn note_breaker(&mut self, scope: &Scope) {
        let Some(census) = self.scopes.census.get(scope) else {
            return;
        };
        let numbers = match census.breaker {
            BreakerState::Closed => return,
            BreakerState::Slow => (1, census.in_flight),
            BreakerState::Open { .. } => (census.limit, census.recent.max(census.sick)),
        };
        let until = census.until;
        self.note(scope.breaker(), scope.to_string(), numbers, until);
    }

    /// Every guard that says no.
    pub fn hold(&mut self, verdict: &Verdict) -> Vec<(Reason, String)> {
        let mut held = Vec::new();
        for scope in verdict.place.scopes() {
            if self.broken(&scope, verdict) {
                // One of this pass may run by now.
                self.note_breaker(&scope);
                held.push((scope.breaker(), scope.to_string()));
            }
        }
        let limits = self.world.limits;
        let cluster = Scope::Cluster.to_string();
        let (in_flight, most) = (
            self.scopes.cluster().in_flight,
            limits.max_in_flight as usize,
        );
        if in_flight >= most {
            held.push(self.note(Reason::InFlight, cluster.clone(), (most, in_flight), None));
        }
        for (count, within) in &limits.max_repairs {
            let starts = within_window(&self.scopes.starts, *within, self.now);
            if starts.len() >= *count as usize {
                let until = free_again(&starts, *count as usize, *within);
                let numbers = (*count as usize, starts.len());
                held.push(self.note(Reason::RateLimit, cluster.clone(), numbers, until));
            }
        }
        // One more, and the oldest would be forgotten while it counts.
        if self.known.len() >= MAX_STARTS {
            let until = free_again(&self.known, MAX_STARTS, self.longest);
            let numbers = (MAX_STARTS, self.known.len());
            held.push(self.note(Reason::RateLimit, "fleet/starts".into(), numbers, until));
        }
        if let Some(policy) = self.world.policy(&verdict.policy) {
            for budget in &policy.budgets {
                held.extend(self.spent(policy, budget, verdict));
            }
            held.extend(self.shut(policy, verdict));
        }
        held.extend(self.backed_off(verdict));
        held.retain(|(reason, _)| !verdict.overrides(*reason));
        held
    }

    fn broken(&self, scope: &Scope, verdict: &Verdict) -> bool {
        let Some(census) = self.scopes.census.get(scope) else {
            return false;
        };
        let cooldown = self.world.limits.breaker.cooldown;
        let old = |storm: Timestamp| {
            let since = verdict.since;
            since.is_some_and(|since| cooldown.after(since) <= storm)
        };
        match census.breaker {
            BreakerState::Closed => false,
            BreakerState::Slow => census.in_flight > 0,
            BreakerState::Open { storm_since } => !old(storm_since) || census.in_flight > 0,
        }
    }

    /// Whether a budget of the policy is spent where the node is.
    fn spent(
        &mut self,
        policy: &Policy,
        budget: &Budget,
        verdict: &Verdict,
    ) -> Option<(Reason, String)> {
        let key = key(policy, budget, &verdict.place);
        let tally = self.scopes.tallies.get(&key).cloned().unwrap_or_default();
        let (limit, current, until) = over(budget, &tally, verdict.available, self.now)?;
        let scope = match &key.2 {
            Scope::Cluster => format!("budget/{}/{}", policy.name, budget.name),
            part => format!("budget/{}/{}/{part}", policy.name, budget.name),
        };
        Some(self.note(Reason::Budget, scope, (limit, current), until))
    }

    /// Whether no window is open for a fault that has to wait for one.
    fn shut(&mut self, policy: &Policy, verdict: &Verdict) -> Option<(Reason, String)> {
        if verdict.severity == Severity::Critical {
            return None;
        }
        let next = *self.shut.get(policy.name.as_str())?;
        let scope = format!("window/{}", policy.name);
        Some(self.note(Reason::OutsideWindow, scope, (0, 0), next))
    }

    fn backed_off(&mut self, verdict: &Verdict) -> Option<(Reason, String)> {
        // Nodes without a pool are no pool, as for breakers.
        let pool = Some(&verdict.place.pool).filter(|pool| !pool.is_empty())?;
        let pool = self.scopes.pools.get(pool)?.clone();
        let scope = Scope::Pool(verdict.place.pool.clone()).to_string();
        if pool.need_human >= STOPPED {
            let numbers = (STOPPED - 1, pool.need_human);
            return Some(self.note(Reason::PoolStopped, scope, numbers, None));
        }
        let until = pool.backoff_until?;
        Some(self.note(Reason::PoolBackoff, scope, (0, pool.failures), Some(until)))
    }

    /// Counts one that was admitted.
    pub fn count(&mut self, verdict: &Verdict) {
        let running = Some(verdict.available);
        self.count_start(&verdict.place, &verdict.policy, self.now, running);
    }

    /// Counts a start; if it is under way, whether its node would be available without it.
    pub fn count_start(
        &mut self,
        place: &Place,
        policy: &str,
        at: Timestamp,
        running: Option<bool>,
    ) {
        let in_flight = usize::from(running.is_some());
        for scope in place.scopes() {
            if let Some(census) = self.scopes.census.get_mut(&scope) {
                census.in_flight += in_flight;
            }
        }
        insert(&mut self.scopes.starts, at);
        insert(&mut self.known, at);
        let Some(policy) = self.world.policy(policy) else {
            return;
        };
        for budget in &policy.budgets {
            let tally = self.scopes.tallies.entry(key(policy, budget, place));
            let tally = tally.or_default();
            tally.in_flight += in_flight;
            tally.unavailable += usize::from(running == Some(true));
            insert(&mut tally.starts, at);
        }
    }
}

/// They stay sorted.
fn insert(starts: &mut Vec<Timestamp>, at: Timestamp) {
    starts.insert(starts.partition_point(|known| *known <= at), at);
}

fn key(policy: &Policy, budget: &Budget, place: &Place) -> BudgetKey {
    let scope = place.counted(budget.per);
    (policy.name.clone(), budget.name.clone(), scope)
}

/// The first limit of a budget that one more repair would exceed: limit, current, and
/// when time alone will free it.
fn over(
    budget: &Budget,
    tally: &Tally,
    available: bool,
    now: Timestamp,
) -> Option<(usize, usize, Option<Timestamp>)> {
    if let Some((count, within)) = budget.max_repairs {
        let starts = within_window(&tally.starts, within, now);
        if starts.len() >= count as usize {
            let until = free_again(&starts, count as usize, within);
            return Some((count as usize, starts.len(), until));
        }
    }
    if let Some(most) = budget.max_in_flight
        && tally.in_flight >= most as usize
    {
        return Some((most as usize, tally.in_flight, None));
    }
    let most = budget.max_unavailable?.of(tally.nodes);
    // A node that is down already adds nothing; where too many are, one at a time.
    let fits = if available {
        tally.unavailable < most
    } else {
        most > 0 && (tally.unavailable <= most || tally.in_flight == 0)
    };
    (!fits).then_some((most, tally.unavailable, None))
}

fn within_window(starts: &[Timestamp], within: Span, now: Timestamp) -> Vec<Timestamp> {
    let all = starts.iter().copied();
    all.filter(|at| within.after(*at) > now).collect()
}

/// When enough of these sorted starts are so old that one more may follow.
fn free_again(starts: &[Timestamp], count: usize, within: Span) -> Option<Timestamp> {
    let last = starts.len().checked_sub(count)?;
    starts.get(last).map(|at| within.after(*at))
}
