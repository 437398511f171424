//! What to do about each node: `judge` gives each a verdict, `survey` counts what guards
//! count, `admit` lets the first of the due ones start. Pure.

mod admit;
mod efficacy;
mod ladder;
mod scope;
pub mod score;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::api::{
    Action, Mode, NodeRepair, NodeSelector, Phase, Reservation, Severity, SignalRecord,
    SilenceRecord,
};
use crate::config::{Confirm, Fault, Limits, Policy, Rules};
use crate::evidence::Evidence;
use crate::evidence::lease::{self, Word};
use crate::evidence::probe::Opinion;
use crate::model::{
    APPROVED_ANNOTATION, DO_NOT_REPAIR_ANNOTATION, NodeView, QUARANTINE_ANNOTATION, Reason, Span,
    Truth, VerdictKind,
};

pub use admit::{Admission, admit};
pub use efficacy::Pool;
pub use scope::{BreakerState, Census, Fallen, Place, Scope, Scopes, Tally, survey};

/// How many nodes one pass asks for a second opinion.
const PROBES_AT_ONCE: usize = 4;
/// How many leases one pass reads.
const LEASES_AT_ONCE: usize = 32;

/// The longest time that an approval holds.
pub const APPROVED_FOR: Span = Span::minutes(24 * 60);

/// A pause as decisions see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pause {
    /// Which nodes.
    pub selector: NodeSelector,
    /// Only nodes of this policy.
    pub policy: Option<String>,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// All that a decision rests on, but for the node.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// What is known.
    pub evidence: &'a Evidence,
    /// The polled rules.
    pub rules: &'a Rules,
    /// The accepted policies.
    pub policies: &'a [Policy],
    /// The limits over all policies.
    pub limits: &'a Limits,
    /// Every repair on record, open and closed.
    pub repairs: &'a [NodeRepair],
    /// Nodes that fell sick lately, well again or gone.
    pub fallen: &'a [Fallen],
    /// Repairs that started lately, whatever became of their objects.
    pub starts: &'a [Reservation],
    /// The pauses in force or not.
    pub pauses: &'a [Pause],
}

/// The verdict on one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The node.
    pub node: String,
    /// Its UID.
    pub uid: String,
    /// The verdict.
    pub kind: VerdictKind,
    /// Why nothing is done; sorted, each once.
    pub reasons: Vec<Reason>,
    /// What reasons that count are counted over.
    pub scopes: Vec<String>,
    /// Where the node is.
    pub place: Place,
    /// Whether it counts in scopes: not while it starts, nor when its owner takes it away.
    pub counts: bool,
    /// Whether it is Ready and takes pods.
    pub available: bool,
    /// Since when it is sick as breakers count: not Ready, or with an enforced fault that
    /// is true, even before its `for`, or not known since it was last true.
    pub sick_since: Option<Timestamp>,
    /// The policy that speaks for the node.
    pub policy: String,
    /// The leading fault.
    pub fault: String,
    /// How urgent it is.
    pub severity: Severity,
    /// What is to be done about it, and what if that does not help; of due nodes.
    pub action: Option<(Action, Option<Action>)>,
    /// Since when it is true.
    pub since: Option<Timestamp>,
    /// What the policy's signals say.
    pub signals: Vec<SignalRecord>,
    /// The silences that hold the leading fault, be it due or not.
    pub silences: Vec<SilenceRecord>,
}

/// Starts whose record a person deleted.
fn deleted<'a>(world: &World<'a>) -> impl Iterator<Item = &'a Reservation> {
    let known: BTreeSet<String> = world.repairs.iter().map(name_of).collect();
    world
        .starts
        .iter()
        .filter(move |start| !known.contains(&start.repair))
}

fn name_of(repair: &NodeRepair) -> String {
    repair.metadata.name.clone().unwrap_or_default()
}

/// The policies of the highest priority that select the node: one, unless they conflict.
fn policies_for<'a>(world: &World<'a>, node: &NodeView) -> Vec<&'a Policy> {
    let policies = world.policies.iter();
    highest(policies.filter(|policy| policy.selector.matches(&node.labels)))
}

fn highest<'a>(policies: impl Iterator<Item = &'a Policy>) -> Vec<&'a Policy> {
    let mut policies: Vec<&Policy> = policies.collect();
    let highest = policies.iter().map(|policy| policy.priority).max();
    policies.retain(|policy| Some(policy.priority) == highest);
    policies
}

/// What a fault comes to now.
struct Told<'a> {
    policy: &'a Policy,
    fault: &'a Fault,
    truth: Truth,
    since: Option<Timestamp>,
    /// What is next, if it is true and not all was tried.
    rung: Option<Action>,
}

/// The verdict on every node, before the guards that count over scopes. Of nodes that
/// `Evidence::settle` found plainly well by the same rules and policies no fault is asked.
pub fn judge_all(world: &World<'_>, now: Timestamp) -> Vec<Verdict> {
    let open: BTreeSet<&str> = world
        .repairs
        .iter()
        .filter(|repair| repair.open())
        .map(|repair| repair.spec.node_uid.as_str())
        .collect();
    let groups = world.evidence.plain_groups().iter();
    let groups: Vec<Vec<&Policy>> = groups
        .map(|group| highest(group.iter().filter_map(|index| world.policies.get(*index))))
        .collect();
    let nodes = world.evidence.nodes_by_group();
    let verdicts = nodes.map(|(node, group)| match group {
        Some(group) if !open.contains(node.uid.as_str()) => {
            let policies = &groups[group];
            let mut verdict = unjudged(node, policies, world, now);
            if !left_alone(&mut verdict, policies) {
                verdict.kind = VerdictKind::Healthy;
            }
            verdict
        }
        _ => judge(node, world, now),
    });
    verdicts.collect()
}

/// The verdict on one node, before the guards that count over scopes.
pub fn judge(node: &NodeView, world: &World<'_>, now: Timestamp) -> Verdict {
    let policies = policies_for(world, node);
    let told: Vec<Told<'_>> = policies
        .iter()
        .flat_map(|policy| policy.faults.iter().map(move |fault| (*policy, fault)))
        .filter(|(_, fault)| !fault.actions.is_empty())
        .map(|(policy, fault)| {
            let evidence = world.evidence;
            let (truth, since) = evidence.fault(node, policy, &fault.name, world.rules, now);
            let began = since.unwrap_or(now);
            let next = || ladder::next(fault, &node.uid, began, world.repairs);
            Told {
                policy,
                fault,
                truth,
                since,
                rung: (truth == Truth::True).then(next).flatten(),
            }
        })
        .collect();
    let mut verdict = unjudged(node, &policies, world, now);
    verdict.sick_since = sick_since(node, &told, world, now).filter(|_| verdict.counts);
    if left_alone(&mut verdict, &policies) {
        return verdict;
    }
    let policy = policies[0];
    let told = || told.iter().filter(|told| told.policy.name == policy.name);
    decide(&mut verdict, node, &policies, told(), world, now);
    // Most nodes are plainly healthy, and nobody asks what their signals say.
    if verdict.kind != VerdictKind::Healthy || world.evidence.watched(&node.uid) {
        verdict.signals = world.evidence.signals(node, policy, world.rules, now);
    }
    verdict
}

/// What is known of a node before its faults are; the verdict is none yet.
fn unjudged(node: &NodeView, policies: &[&Policy], world: &World<'_>, now: Timestamp) -> Verdict {
    let limits = world.limits;
    let ready = node.ready();
    let starting = || world.evidence.is_starting(node, limits.startup_grace, now);
    let policy = policies.first();
    let policy = policy.filter(|policy| policy.control_plane || !node.control_plane());
    Verdict {
        node: node.name.clone(),
        uid: node.uid.clone(),
        kind: VerdictKind::Ignored,
        reasons: Vec::new(),
        scopes: Vec::new(),
        place: Place::of(node, limits),
        counts: !(node.deleting || node.taken_by_other() || (!ready && starting())),
        available: ready && !node.unschedulable && !node.deleting,
        sick_since: None,
        policy: policy.map_or_else(String::new, |policy| policy.name.clone()),
        fault: String::new(),
        severity: Severity::Warning,
        action: None,
        since: None,
        signals: Vec::new(),
        silences: Vec::new(),
    }
}

/// Whether no policy may speak for the node, whatever its faults are.
fn left_alone(verdict: &mut Verdict, policies: &[&Policy]) -> bool {
    let refused = policies.iter().any(|policy| !policy.accepted);
    if verdict.policy.is_empty() {
        return true;
    }
    if refused {
        verdict.reasons = vec![Reason::PolicyRefused];
    }
    refused
}

/// Suspended rules make nobody sick.
fn sick_since(
    node: &NodeView,
    told: &[Told<'_>],
    world: &World<'_>,
    now: Timestamp,
) -> Option<Timestamp> {
    let unready = || world.evidence.unready_since(&node.uid).unwrap_or(now);
    let unready = (!node.ready()).then(unready);
    let enforced = told.iter().filter(|told| told.policy.mode != Mode::Observe);
    let faults = enforced.filter_map(|told| match told.truth {
        Truth::True => Some(told.since.unwrap_or(now)),
        Truth::Unknown => told
            .since
            .filter(|_| !only_suspended(node, told, world, now)),
        Truth::False => None,
    });
    faults.chain(unready).min()
}

fn only_suspended(node: &NodeView, told: &Told<'_>, world: &World<'_>, now: Timestamp) -> bool {
    let (policy, fault) = (told.policy, &told.fault.name);
    world
        .evidence
        .only_suspended(node, policy, fault, world.rules, now)
}

fn decide<'a>(
    verdict: &mut Verdict,
    node: &NodeView,
    policies: &[&Policy],
    told: impl Iterator<Item = &'a Told<'a>> + Clone,
    world: &World<'_>,
    now: Timestamp,
) {
    let policy = policies[0];
    let open = world.repairs.iter();
    let open = open.filter(|repair| repair.spec.node_uid == node.uid && repair.open());
    let open = open.max_by_key(|repair| (repair.spec.ordinal, name_of(repair)));
    let rests = open.is_some_and(NodeRepair::at_rest);
    if open.is_none() || rests {
        // What can be done goes before what has been tried in vain.
        let left = told.clone().filter(|told| told.is_open(rests));
        lead(verdict, node, policy, left, world, now);
    }
    if let Some(open) = open.filter(|_| verdict.kind != VerdictKind::Due) {
        verdict.kind = VerdictKind::Repairing;
        verdict.reasons.clear();
        verdict.fault.clone_from(&open.spec.fault);
        verdict.since = Some(open.spec.fault_since);
        verdict.silences = silences(node, open, world, now);
        return;
    }
    if verdict.kind != VerdictKind::Due && told.clone().any(|told| !told.is_open(false)) {
        lead(verdict, node, policy, told.clone(), world, now);
    }
    if verdict.kind == VerdictKind::Due {
        let mut told = told;
        let leading = told.find(|told| told.fault.name == verdict.fault);
        let rung = leading.and_then(|told| Some((told.fault, told.rung?)));
        verdict.action = rung.map(|(fault, action)| (action, ladder::after(fault, action)));
        verdict.reasons = standing(verdict, node, policies, world, now);
        if !verdict.silences.is_empty() {
            verdict.reasons.push(Reason::Silenced);
        }
        if unsettled(node, policy, &verdict.fault, world, now) {
            verdict.reasons.push(Reason::Contradicted);
        }
        verdict.reasons.sort();
        if verdict.reasons.is_empty() {
            verdict.reasons.extend(doubt(verdict, world, now));
        }
        if !verdict.reasons.is_empty() {
            verdict.kind = VerdictKind::Held;
        }
    }
}

/// Whether a fault needs the word of the node's lease that its kubelet is dead, and lacks it.
pub fn unsettled(
    node: &NodeView,
    policy: &Policy,
    fault: &str,
    world: &World<'_>,
    now: Timestamp,
) -> bool {
    let evidence = world.evidence;
    evidence.needs_lease(node, policy, fault, world.rules, now)
        && evidence.lease(&node.uid, now) != Some(Word::Silent)
}

/// Whose leases to read now, of nodes with a fault that needs its word. The reads of some
/// passes make one word, so they begin while the fault is pending, and those that are
/// begun go on before others begin; then the fault that is oldest.
pub fn to_read(verdicts: &[Verdict], world: &World<'_>, now: Timestamp) -> Vec<NodeView> {
    let asked = |verdict: &Verdict| {
        let node = world.evidence.node(&verdict.node)?;
        let mut policies = world.policies.iter();
        let policy = policies.find(|policy| policy.name == verdict.policy)?;
        let needed = world
            .evidence
            .needs_lease(node, policy, &verdict.fault, world.rules, now);
        let asked = world.evidence.lease_asked(&node.uid);
        let early = asked.is_some_and(|at| at <= now && now < lease::INTERVAL.after(at));
        let begun = asked.is_some_and(|at| lease::MAX_AGE.after(at) >= now);
        (needed && !early).then_some((!begun, verdict.since, node))
    };
    let mut wanted: Vec<(bool, Option<Timestamp>, &NodeView)> = verdicts
        .iter()
        .filter(|verdict| verdict.since.is_some())
        .filter_map(asked)
        .collect();
    wanted.sort_by(|one, other| {
        let rank = |of: &(bool, Option<Timestamp>, &NodeView)| (of.0, of.1, of.2.name.clone());
        rank(one).cmp(&rank(other))
    });
    wanted.truncate(LEASES_AT_ONCE);
    wanted.into_iter().map(|(.., node)| node.clone()).collect()
}

/// Why a fault that needs a second opinion is not confirmed.
fn doubt(verdict: &Verdict, world: &World<'_>, now: Timestamp) -> Option<Reason> {
    match world
        .evidence
        .opinion(&verdict.uid, question(verdict, world)?, now)
    {
        Some(Opinion::Confirmed) => None,
        Some(Opinion::Refuted) => Some(Reason::Refuted),
        Some(Opinion::Unknown) | None => Some(Reason::Unconfirmed),
    }
}

fn question<'a>(verdict: &Verdict, world: &World<'a>) -> Option<&'a Confirm> {
    let policy = world
        .policies
        .iter()
        .find(|policy| policy.name == verdict.policy)?;
    let fault = policy
        .faults
        .iter()
        .find(|fault| fault.name == verdict.fault)?;
    fault.confirm.as_ref()
}

/// Which nodes to ask for a second opinion now, by UID: those that would start if it
/// confirmed, and were not asked lately. Few, as all have to answer within this pass.
pub fn to_probe(
    verdicts: &[Verdict],
    scopes: &Scopes,
    world: &World<'_>,
    now: Timestamp,
) -> Vec<(String, Confirm)> {
    let asked = |verdict: &Verdict| {
        let confirm = question(verdict, world)?;
        let waits = verdict.kind == VerdictKind::Held && verdict.reasons == [Reason::Unconfirmed];
        let known = world.evidence.opinion(&verdict.uid, confirm, now).is_some();
        (waits && !known).then(|| (verdict.uid.clone(), confirm.clone()))
    };
    let questions: BTreeMap<String, Confirm> = verdicts.iter().filter_map(asked).collect();
    if questions.is_empty() {
        return Vec::new();
    }
    let mut confirmed: Vec<Verdict> = verdicts
        .iter()
        .filter(|verdict| verdict.kind == VerdictKind::Due || questions.contains_key(&verdict.uid))
        .cloned()
        .collect();
    for verdict in &mut confirmed {
        verdict.kind = VerdictKind::Due;
    }
    admit(&mut confirmed, scopes, world, now)
        .admitted
        .into_iter()
        .filter_map(|uid| Some((uid.clone(), questions.get(&uid)?.clone())))
        .take(PROBES_AT_ONCE)
        .collect()
}

/// Finds the leading fault: a due one before a pending one, one that no silence holds
/// before one that is held, the severe and the old first.
fn lead<'a>(
    verdict: &mut Verdict,
    node: &NodeView,
    policy: &Policy,
    told: impl Iterator<Item = &'a Told<'a>>,
    world: &World<'_>,
    now: Timestamp,
) {
    verdict.kind = VerdictKind::Healthy;
    let mut best: Option<(_, &Fault, Vec<SilenceRecord>)> = None;
    for told in told {
        let (fault, since) = (told.fault, told.since);
        match told.truth {
            Truth::False => {}
            Truth::Unknown => {
                // A fault that was true, and is no longer known, holds: it is not healthy.
                if verdict.kind == VerdictKind::Healthy {
                    verdict.kind = VerdictKind::Unknown;
                    verdict.reasons = vec![Reason::EvidenceUnknown];
                    verdict.fault.clone_from(&fault.name);
                }
                if let Some(since) = since {
                    verdict.fault.clone_from(&fault.name);
                    verdict.since = Some(since);
                }
                if verdict.fault == fault.name {
                    if since.is_some() && unsettled(node, policy, &fault.name, world, now) {
                        verdict.reasons = vec![Reason::Contradicted];
                    } else if only_suspended(node, told, world, now) {
                        verdict.reasons = vec![Reason::RuleSuspended];
                    }
                }
            }
            Truth::True => {
                let since = since.unwrap_or(now).min(now);
                let due = fault.for_.after(since) <= now;
                let silences = world
                    .evidence
                    .silences(node, policy, &fault.name, world.rules, now);
                let rank = (
                    !due,
                    !silences.is_empty(),
                    std::cmp::Reverse(fault.severity),
                    since,
                    fault.name.clone(),
                );
                if best.as_ref().is_none_or(|(known, ..)| rank < *known) {
                    best = Some((rank, fault, silences));
                }
            }
        }
    }
    if let Some(((pending, _, _, since, name), fault, silences)) = best {
        verdict.kind = if pending {
            VerdictKind::Pending
        } else {
            VerdictKind::Due
        };
        verdict.reasons.clear();
        verdict.fault = name;
        verdict.severity = fault.severity;
        verdict.since = Some(since);
        verdict.silences = silences;
    }
}

/// The guards that look at the node alone.
fn standing(
    verdict: &Verdict,
    node: &NodeView,
    policies: &[&Policy],
    world: &World<'_>,
    now: Timestamp,
) -> Vec<Reason> {
    let policy = policies[0];
    let mut reasons = BTreeSet::new();
    let mut when = |holds: bool, reason: Reason| {
        if holds {
            reasons.insert(reason);
        }
    };
    when(policies.len() > 1, Reason::PolicyConflict);
    when(
        world
            .pauses
            .iter()
            .any(|pause| covers(pause, node, policy, now)),
        Reason::Paused,
    );
    when(policy.mode == Mode::Observe, Reason::ObserveMode);
    when(
        policy.mode == Mode::Approve && !approved(node, now),
        Reason::AwaitingApproval,
    );
    when(
        world.limits.min_node_age.after(node.created) > now,
        Reason::TooYoung,
    );
    when(node.taken_by_other(), Reason::OtherActor);
    when(opted_out(node, now), Reason::OptedOut);
    when(
        world.evidence.silences_unknown(now),
        Reason::SilencesUnknown,
    );
    when(!world.evidence.nodes_fresh(now), Reason::NodesStale);
    when(node.deleting, Reason::NodeDeleting);
    when(
        node.unschedulable && !node.annotations.contains_key(QUARANTINE_ANNOTATION),
        Reason::CordonedByOther,
    );
    let ended = |phase: Phase| {
        world
            .repairs
            .iter()
            .any(|repair| repair.spec.node_uid == node.uid && repair.phase() == phase)
    };
    when(
        ended(Phase::NeedsHuman) || verdict.action.is_none(),
        Reason::NeedsHuman,
    );
    when(
        deleted(world).any(|start| start.node_uid == node.uid),
        Reason::RepairDeleted,
    );
    let cordons = matches!(verdict.action, Some((Action::Cordon, _)));
    when(
        policy.mode != Mode::Observe && !cordons && node.instance_id().is_none(),
        Reason::NoOwner,
    );
    reasons.into_iter().collect()
}

fn covers(pause: &Pause, node: &NodeView, policy: &Policy, now: Timestamp) -> bool {
    pause.until.is_none_or(|until| until > now)
        && pause
            .policy
            .as_ref()
            .is_none_or(|name| *name == policy.name)
        && pause.selector.matches(&node.labels)
}

/// Whether the opt-out annotation holds. What cannot be read holds too.
pub fn opted_out(node: &NodeView, now: Timestamp) -> bool {
    match node
        .annotations
        .get(DO_NOT_REPAIR_ANNOTATION)
        .map(String::as_str)
    {
        None | Some("false" | "") => false,
        Some(text) => text.parse::<Timestamp>().map_or(true, |until| until > now),
    }
}

/// Whether a person approved a repair of the node. What cannot be read does not count.
fn approved(node: &NodeView, now: Timestamp) -> bool {
    let text = node.annotations.get(APPROVED_ANNOTATION);
    let until = text.and_then(|text| text.parse::<Timestamp>().ok());
    until.is_some_and(|until| until > now && until <= APPROVED_FOR.after(now))
}

/// Whether a running repair of this node must pause before its next irreversible step.
pub fn pause_reason(
    node: Option<&NodeView>,
    repair: &NodeRepair,
    world: &World<'_>,
    scopes: &Scopes,
    now: Timestamp,
) -> Option<Reason> {
    let place = Place::of_repair(repair);
    let cooldown = world.limits.breaker.cooldown;
    let young = |storm: &(Scope, Timestamp)| cooldown.after(repair.spec.fault_since) > storm.1;
    if let Some((scope, _)) = scopes.storms(&place).find(young) {
        return Some(scope.breaker());
    }
    // The policy may be gone by now, and the node: its name and a doubt are enough to pause.
    let covers = |pause: &Pause| {
        let policy = pause.policy.as_ref();
        pause.until.is_none_or(|until| until > now)
            && policy.is_none_or(|name| *name == repair.spec.policy)
            && node.is_none_or(|node| pause.selector.matches(&node.labels))
    };
    if world.pauses.iter().any(covers) {
        return Some(Reason::Paused);
    }
    (!silences(node?, repair, world, now).is_empty()).then_some(Reason::Silenced)
}

/// The silences that hold the fault of a repair.
fn silences(
    node: &NodeView,
    repair: &NodeRepair,
    world: &World<'_>,
    now: Timestamp,
) -> Vec<SilenceRecord> {
    let spec = &repair.spec;
    let mut policies = world.policies.iter();
    let policy = policies.find(|policy| policy.name == spec.policy);
    policy.map_or_else(Vec::new, |policy| {
        let evidence = world.evidence;
        evidence.silences(node, policy, &spec.fault, world.rules, now)
    })
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod silence_tests;
#[cfg(test)]
mod tests;
