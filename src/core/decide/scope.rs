//! What guards count over: the cluster, its zones, its pools, and the nodes of a budget.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::efficacy::{self, Pool};
use super::{Verdict, World, deleted};
use crate::api::{NodeRepair, Per, Reservation};
use crate::config;
use crate::model::{NodeView, Reason, Span};

/// The part of the cluster that a breaker or a budget looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All nodes.
    Cluster,
    /// The nodes of a zone.
    Zone(String),
    /// The nodes of a pool.
    Pool(String),
}

impl Scope {
    /// Why a breaker of this scope holds.
    pub const fn breaker(&self) -> Reason {
        match self {
            Self::Cluster => Reason::ClusterBreaker,
            Self::Zone(_) => Reason::ZoneBreaker,
            Self::Pool(_) => Reason::PoolBreaker,
        }
    }
}

/// As records and messages call it.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Zone(zone) => write!(f, "zone/{zone}"),
            Self::Pool(pool) => write!(f, "pool/{pool}"),
        }
    }
}

/// Where a node is; empty where its labels do not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The zone.
    pub zone: String,
    /// The pool.
    pub pool: String,
}

impl Place {
    /// What a node's labels say.
    pub fn of(node: &NodeView, pool_labels: &[String]) -> Self {
        let (zone, pool) = node.zone_and_pool(pool_labels);
        Self {
            zone: zone.to_owned(),
            pool: pool.to_owned(),
        }
    }

    pub(super) fn of_repair(repair: &NodeRepair) -> Self {
        Self {
            zone: repair.spec.zone.clone(),
            pool: repair.spec.pool.clone(),
        }
    }

    /// Every scope that it is in; the cluster is one.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        let zone = (!self.zone.is_empty()).then(|| Scope::Zone(self.zone.clone()));
        let pool = (!self.pool.is_empty()).then(|| Scope::Pool(self.pool.clone()));
        [Some(Scope::Cluster), zone, pool].into_iter().flatten()
    }

    /// The scope that a budget counts a node of this place in. Nodes without the label are
    /// one scope of their own.
    pub(super) fn counted(&self, per: Per) -> Scope {
        match per {
            Per::Cluster => Scope::Cluster,
            Per::Zone => Scope::Zone(self.zone.clone()),
            Per::Pool => Scope::Pool(self.pool.clone()),
        }
    }
}

/// A node that fell sick lately, as the records have it: it may be well again, or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallen {
    /// The node's UID.
    pub uid: String,
    /// Where it was.
    pub place: Place,
    /// The policy that spoke for it; empty if none did.
    pub policy: String,
    /// When it fell sick.
    pub since: Timestamp,
    /// Whether it was sick still when it was last looked at.
    pub sick: bool,
    /// When it was first missing, sick as it was.
    pub gone: Option<Timestamp>,
}

/// Whether a scope lets repairs start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// As the other guards say.
    Closed,
    /// One at a time.
    Slow,
    /// None, but one for a fault that is older than the storm.
    Open {
        /// Faults true since `cooldown` before this are older than the storm.
        storm_since: Timestamp,
    },
}

/// What a scope looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// The breaker.
    pub breaker: BreakerState,
    /// Its nodes, with those that were lost or repaired away within the cooldown.
    pub nodes: usize,
    /// Those of them that are there and sick.
    pub sick: usize,
    /// How many fell sick within the cooldown, lost ones included.
    pub recent: usize,
    /// How many may be sick before the breaker acts.
    pub limit: usize,
    /// When an open breaker is open no longer, if no other node falls sick.
    pub until: Option<Timestamp>,
    /// Repairs that run in it.
    pub in_flight: usize,
}

/// What one budget counts in one scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Nodes that the policy speaks for, with those that went away sick or were repaired away
    /// within the cooldown; not those that never were Ready yet.
    pub nodes: usize,
    /// Those that are not available.
    pub unavailable: usize,
    /// Repairs that run.
    pub in_flight: usize,
    /// When repairs started.
    pub starts: Vec<Timestamp>,
}

/// Which budget in which scope: policy, name, scope.
pub type BudgetKey = (String, String, Scope);

/// What the cluster looks like.
#[derive(Clone, Debug, PartialEq)]
pub struct Scopes {
    /// Every scope that has nodes, had some lately, or has repairs.
    pub census: BTreeMap<Scope, Census>,
    /// What budgets count.
    pub tallies: BTreeMap<BudgetKey, Tally>,
    /// What became of the repairs of each pool.
    pub pools: BTreeMap<String, Pool>,
    /// When repairs started, newest windows only.
    pub starts: Vec<Timestamp>,
}

impl Scopes {
    /// What the cluster as a whole looks like.
    pub fn cluster(&self) -> &Census {
        &self.census[&Scope::Cluster]
    }

    /// The scopes of a place whose breaker is open, and since when their storms are.
    pub fn storms(&self, place: &Place) -> impl Iterator<Item = (Scope, Timestamp)> {
        place
            .scopes()
            .filter_map(|scope| match self.census.get(&scope)?.breaker {
                BreakerState::Open { storm_since } => Some((scope, storm_since)),
                _ => None,
            })
    }
}

/// The nodes of a scope while they are counted.
#[derive(Default)]
struct Ward {
    nodes: usize,
    sick: usize,
    /// Since when the first of the sick is.
    first: Option<Timestamp>,
    /// When nodes fell sick, of whatever age that is known; they may be well again, or gone.
    fell: Vec<Timestamp>,
    in_flight: usize,
}

impl Ward {
    fn census(mut self, whole: bool, breaker: &config::Breaker, now: Timestamp) -> Census {
        let share = self.nodes * breaker.share as usize / 100;
        let mut limit = share
            .min(breaker.nodes as usize)
            .max(breaker.min_nodes.saturating_sub(1) as usize);
        self.fell.sort();
        let horizon = breaker.cooldown.before(now);
        let old = self.fell.partition_point(|at| *at < horizon);
        let recent = self.fell.len() - old;
        let over = recent > limit;
        let until = over.then(|| {
            let last = self.fell[self.fell.len() - 1 - limit];
            breaker.cooldown.after(last)
        });
        let state = if whole {
            // Nothing starts, however long it lasts: nobody is older than the first.
            let storm_since = self.first.unwrap_or(horizon);
            BreakerState::Open { storm_since }
        } else if over {
            let storm_since = storm_since(&self.fell, limit, breaker.cooldown, horizon);
            BreakerState::Open { storm_since }
        } else if self.sick > limit {
            BreakerState::Slow
        } else {
            BreakerState::Closed
        };
        if whole && !over {
            // However many may be sick, all of them may not.
            limit = limit.min(self.sick.saturating_sub(1));
        }
        Census {
            breaker: state,
            nodes: self.nodes,
            sick: self.sick,
            recent,
            limit,
            until: until.filter(|_| !whole),
            in_flight: self.in_flight,
        }
    }

    fn fall(&mut self, since: Timestamp) {
        self.sick += 1;
        self.first = Some(self.first.map_or(since, |first| first.min(since)));
        self.fell.push(since);
    }
}

/// When the first node of a storm fell sick: not longer than `cooldown` before a node that
/// fell when more than `limit` had within `cooldown`, and so on back to the first such node.
fn storm_since(fell: &[Timestamp], limit: usize, cooldown: Span, horizon: Timestamp) -> Timestamp {
    let within = |last: Timestamp, first: Timestamp| cooldown.after(first) >= last;
    let crowded = |last: &usize| within(fell[*last], fell[*last - limit]);
    let earliest = (limit..fell.len()).rev().take_while(crowded).last();
    let from = earliest.map_or(horizon, |earliest| cooldown.before(fell[earliest]));
    let from = from.min(horizon);
    let storm = fell.iter().copied().find(|at| *at >= from);
    storm.unwrap_or(horizon)
}

/// Counts what guards count. There is a verdict on each node.
pub fn survey(verdicts: &[Verdict], world: &World<'_>, now: Timestamp) -> Scopes {
    let breaker = &world.limits.breaker;
    let horizon = breaker.cooldown.before(now);
    let fallen: BTreeMap<&str, &Fallen> = world
        .fallen
        .iter()
        .map(|fallen| (fallen.uid.as_str(), fallen))
        .collect();
    let mut wards = by_scope(verdicts, &fallen);
    let all = wards[&Scope::Cluster].nodes;
    let is_gone = |uid: &str| !world.evidence.has(uid);
    // Who fell sick and is well again fell sick all the same: recovery may be ragged.
    let well = |verdict: &&Verdict| verdict.counts && verdict.sick_since.is_none();
    for verdict in verdicts.iter().filter(well) {
        let Some(fallen) = fallen.get(verdict.uid.as_str()) else {
            continue;
        };
        for scope in verdict.place.scopes() {
            wards.entry(scope).or_default().fell.push(fallen.since);
        }
    }
    // Nodes that were repaired away or lost were sick, and those of late were nodes.
    let repairs = in_order(world);
    let mut gone: BTreeMap<&str, (Place, Option<Timestamp>, bool)> = BTreeMap::new();
    for repair in repairs
        .iter()
        .filter(|repair| is_gone(&repair.spec.node_uid))
    {
        let ended = repair.status.as_ref().and_then(|status| status.ended);
        // What a person asks for says nothing of the others.
        let asked = repair.spec.request.is_some();
        let since = (!asked).then_some(repair.spec.fault_since);
        let known = gone
            .entry(repair.spec.node_uid.as_str())
            .or_insert_with(|| (Place::of_repair(repair), None, false));
        known.1 = known.1.max(since);
        known.2 |= ended.is_none_or(|ended| ended >= horizon);
    }
    for lost in world.fallen.iter().filter(|fallen| is_gone(&fallen.uid)) {
        let late = lost.gone.is_some_and(|at| at >= horizon);
        let known = gone
            .entry(lost.uid.as_str())
            .or_insert_with(|| (lost.place.clone(), None, false));
        known.1 = Some(lost.since);
        known.2 |= late;
    }
    for (place, since, late) in gone.values() {
        for scope in place.scopes() {
            let ward = wards.entry(scope).or_default();
            ward.nodes += usize::from(*late);
            ward.fell.extend(*since);
        }
    }
    for repair in world.repairs.iter().filter(|repair| repair.in_flight()) {
        for scope in Place::of_repair(repair).scopes() {
            wards.entry(scope).or_default().in_flight += 1;
        }
    }
    // Those too of which nobody knows yet whether they run. Their nodes may be gone by now.
    for reserved in world.reserved {
        let mut verdicts = verdicts.iter();
        let verdict = verdicts.find(|verdict| verdict.uid == reserved.node_uid);
        let place = verdict.map_or_else(Arc::default, |verdict| Arc::clone(&verdict.place));
        for scope in place.scopes() {
            wards.entry(scope).or_default().in_flight += 1;
        }
    }
    let census = wards.into_iter().map(|(scope, ward)| {
        let whole = scope == Scope::Cluster
            && ward.sick == all
            && ward.sick > 0
            && ward.sick >= breaker.min_nodes as usize;
        let census = ward.census(whole, breaker, now);
        (scope, census)
    });
    Scopes {
        census: census.collect(),
        tallies: tallies(verdicts, &repairs, world, horizon, now),
        pools: efficacy::pools(verdicts, world, now),
        starts: starts(world, now),
    }
}

/// What the nodes that are there come to. Places repeat, so each is counted by itself first.
fn by_scope<'a>(
    verdicts: &[Verdict],
    fallen: &BTreeMap<&'a str, &'a Fallen>,
) -> BTreeMap<Scope, Ward> {
    let mut places: BTreeMap<&Place, Ward> = BTreeMap::new();
    for verdict in verdicts.iter().filter(|verdict| verdict.counts) {
        let ward = places.entry(&*verdict.place).or_default();
        ward.nodes += 1;
        if let Some(since) = verdict.sick_since {
            // It moves with clocks that stand still, and begins anew with a leader; what is
            // on record does not.
            let known = fallen.get(verdict.uid.as_str());
            let known = known.filter(|fallen| fallen.sick);
            ward.fall(known.map_or(since, |known| known.since.min(since)));
        }
    }
    let mut wards: BTreeMap<Scope, Ward> = BTreeMap::new();
    wards.entry(Scope::Cluster).or_default();
    for (place, found) in places {
        for scope in place.scopes() {
            let ward = wards.entry(scope).or_default();
            ward.nodes += found.nodes;
            ward.sick += found.sick;
            ward.first = [ward.first, found.first].into_iter().flatten().min();
            ward.fell.extend(&found.fell);
        }
    }
    wards
}

/// Nodes that went away lately while they were sick.
fn lost<'a>(world: &World<'a>, horizon: Timestamp) -> impl Iterator<Item = &'a Fallen> {
    let lately = move |fallen: &&Fallen| fallen.gone.is_some_and(|at| at >= horizon);
    let evidence = world.evidence;
    let fallen = world.fallen.iter().filter(lately);
    fallen.filter(|fallen| !evidence.has(&fallen.uid))
}

/// By name, whatever the order of the list.
fn in_order<'a>(world: &World<'a>) -> Vec<&'a NodeRepair> {
    let mut repairs: Vec<&NodeRepair> = world.repairs.iter().collect();
    repairs.sort_by_key(|repair| repair.name());
    repairs
}

/// When repairs started that a rate still counts.
fn starts(world: &World<'_>, now: Timestamp) -> Vec<Timestamp> {
    let windows = world.limits.max_repairs.iter();
    let longest = windows.map(|(_, within)| *within).max().unwrap_or_default();
    let listed = world.repairs.iter().map(|repair| repair.spec.quarantine.at);
    let unlisted = deleted(world).chain(world.reserved).map(|start| start.at);
    let mut starts: Vec<Timestamp> = listed.chain(unlisted).collect();
    starts.retain(|at| longest.after(*at) > now);
    starts.sort();
    starts
}

fn tallies(
    verdicts: &[Verdict],
    repairs: &[&NodeRepair],
    world: &World<'_>,
    horizon: Timestamp,
    now: Timestamp,
) -> BTreeMap<BudgetKey, Tally> {
    let mut tallies: BTreeMap<BudgetKey, Tally> = BTreeMap::new();
    let with_budgets = world.policies.iter();
    let repaired = repairs.iter().map(|repair| repair.spec.node_uid.as_str());
    // Starts without a record, and whether they may run.
    let reserved = world.reserved.iter().map(|start| (start, true));
    let unlisted = deleted(world).map(|start| (start, false));
    let unlisted: Vec<(&Reservation, bool)> = unlisted.chain(reserved).collect();
    let without = unlisted.iter().map(|(start, _)| start.node_uid.as_str());
    let started: BTreeSet<&str> = repaired.chain(without).collect();
    for policy in with_budgets.filter(|policy| !policy.budgets.is_empty()) {
        let spoken = || verdicts.iter().filter(|one| *one.policy == policy.name);
        // Those of them that anything is asked of by UID.
        let members: BTreeMap<&str, &Verdict> = spoken()
            .filter(|one| started.contains(one.uid.as_str()))
            .map(|verdict| (verdict.uid.as_str(), verdict))
            .collect();
        let mut places: BTreeMap<&Place, (usize, usize)> = BTreeMap::new();
        // Those too that others take away: they are missed all the same.
        for verdict in spoken() {
            let (nodes, unavailable) = places.entry(&*verdict.place).or_default();
            *nodes += usize::from(verdict.joined);
            *unavailable += usize::from(verdict.joined && !verdict.available);
        }
        let mut ours = repairs.to_vec();
        ours.retain(|repair| {
            let member = members.contains_key(repair.spec.node_uid.as_str());
            member || repair.spec.policy == policy.name
        });
        for budget in &policy.budgets {
            let key = |place: &Place| {
                let scope = place.counted(budget.per);
                (policy.name.clone(), budget.name.clone(), scope)
            };
            for (place, (nodes, unavailable)) in &places {
                let tally = tallies.entry(key(place)).or_default();
                tally.nodes += nodes;
                tally.unavailable += unavailable;
            }
            let mut gone = BTreeSet::new();
            for lost in lost(world, horizon).filter(|lost| lost.policy == policy.name) {
                if gone.insert(lost.uid.as_str()) {
                    let tally = tallies.entry(key(&lost.place)).or_default();
                    tally.nodes += 1;
                    tally.unavailable += 1;
                }
            }
            for repair in &ours {
                let tally = tallies.entry(key(&Place::of_repair(repair))).or_default();
                let at = repair.spec.quarantine.at;
                let within = budget
                    .max_repairs
                    .map_or(Span::default(), |(_, within)| within);
                tally
                    .starts
                    .extend(Some(at).filter(|at| within.after(*at) > now));
                tally.in_flight += usize::from(repair.in_flight());
                let ended = repair.status.as_ref().and_then(|status| status.ended);
                let lately = ended.is_none_or(|ended| ended >= horizon);
                let uid = repair.spec.node_uid.as_str();
                // It is taken, also before its cordon shows.
                let taken = members.get(uid).is_some_and(|member| member.available);
                tally.unavailable += usize::from(taken && repair.in_flight());
                if lately && !world.evidence.has(uid) && gone.insert(uid) {
                    tally.nodes += 1;
                    tally.unavailable += 1;
                }
            }
            // They count where their node is, or everywhere.
            for &(start, runs) in &unlisted {
                let within = budget
                    .max_repairs
                    .map_or(Span::default(), |(_, within)| within);
                let counted = Some(start.at).filter(|at| within.after(*at) > now);
                let member = members.get(start.node_uid.as_str());
                let taken = runs && member.is_some_and(|member| member.available);
                let add = |tally: &mut Tally| {
                    tally.starts.extend(counted);
                    tally.in_flight += usize::from(runs);
                    tally.unavailable += usize::from(taken);
                };
                if let Some(member) = member {
                    add(tallies.entry(key(&member.place)).or_default());
                } else {
                    let all = tallies.iter_mut();
                    let same =
                        all.filter(|((of, name, _), _)| (of, name) == (&policy.name, &budget.name));
                    same.for_each(|(_, tally)| add(tally));
                }
            }
        }
    }
    for tally in tallies.values_mut() {
        tally.starts.sort();
    }
    tallies
}
