//! What to do about each node: `judge` gives each a verdict, `survey` counts what guards
//! count, `admit` lets the first of the due ones start. Pure.

mod admit;
pub mod approval;
pub mod by_hand;
mod conclude;
mod efficacy;
mod gather;
mod ladder;
mod retain;
mod scope;
pub mod score;
mod shadow;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::api::{
    Action, Approval, BY_HAND, FaultInput, Inputs, Mode, NodeRepair, NodeSelector, ObservedStart,
    RepairPauseSpec, RepairRequest, Reservation, Severity, SignalRecord, SilenceRecord, Step,
};
use crate::config::{Confirm, Fault, Limits, Policy, Rules};
use crate::evidence::Evidence;
use crate::evidence::lease::{self, Word};
use crate::model::{DO_NOT_REPAIR_ANNOTATION, NodeView, Reason, Span, Truth, VerdictKind};

use gather::{Gathered, gather};

pub use admit::{Admission, admit};
pub use conclude::{Conclusion, replay, replays};
pub use efficacy::Pool;
pub use gather::{decision, detail, remember, unplanned};
pub use retain::forgettable;
pub use scope::{BreakerState, Census, Fallen, Place, Scope, Scopes, Tally, survey};
pub use shadow::{Shadow, shadow};

/// How many nodes one pass asks for a second opinion.
const PROBES_AT_ONCE: usize = 4;
/// How many leases one pass reads.
const LEASES_AT_ONCE: usize = 32;

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

impl From<RepairPauseSpec> for Pause {
    fn from(spec: RepairPauseSpec) -> Self {
        Self {
            selector: spec.node_selector,
            policy: spec.policy,
            until: spec.until,
        }
    }
}

impl Pause {
    /// Whether it holds the repair of a node that this policy speaks for. Where nothing is
    /// known of the node, it may.
    pub fn covers(&self, node: Option<&NodeView>, policy: &str, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
            && self.policy.as_ref().is_none_or(|name| *name == policy)
            && node.is_none_or(|node| self.selector.matches(&node.labels))
    }
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
    /// Admissions whose records may yet appear: in flight as far as is known.
    pub reserved: &'a [Reservation],
    /// The pauses in force or not.
    pub pauses: &'a [Pause],
    /// What policies that only observe would have done.
    pub observed: Observed<'a>,
}

impl<'a> World<'a> {
    /// The policy of this name.
    fn policy(&self, name: &str) -> Option<&'a Policy> {
        let mut policies = self.policies.iter();
        policies.find(|policy| policy.name == name)
    }
}

/// What would have been, had policies that only observe acted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed<'a> {
    /// What would have started.
    pub starts: &'a [ObservedStart],
    /// Nodes that fell sick lately, observed faults included.
    pub fallen: &'a [Fallen],
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
    pub place: Arc<Place>,
    /// Whether breakers count it: not while it starts, nor when its owner takes it away.
    pub counts: bool,
    /// Whether it was ever Ready, or had the time for it: before, no budget misses it.
    pub joined: bool,
    /// Whether it is Ready and takes pods, and nobody takes it away.
    pub available: bool,
    /// Since when it is sick as breakers count: not Ready, or with an enforced fault that
    /// is true, even before its `for`, or not known since it was last true.
    pub sick_since: Option<Timestamp>,
    /// Since when it would be, if policies that only observe enforced.
    pub sick_if_enforced: Option<Timestamp>,
    /// The policy that speaks for the node.
    pub policy: Arc<str>,
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
    /// What it rests on; none of a node that is plainly healthy, or that no policy speaks for.
    pub inputs: Option<Arc<Inputs>>,
}

/// How long a deleted record holds its node, from its start on.
const DELETED_HOLDS: Span = Span::minutes(60);
/// Starts are remembered at least this long, also where a policy that counts them is refused
/// for a while.
const REMEMBERED: Span = Span::minutes(24 * 60);

/// How long starts are to be remembered: as long as any limit or budget counts them.
pub fn memory(limits: &Limits, policies: &[Policy]) -> Span {
    longest_window(limits, policies).max(REMEMBERED)
}

fn longest_window(limits: &Limits, policies: &[Policy]) -> Span {
    let budgets = policies.iter().flat_map(|policy| &policy.budgets);
    let windows = budgets.filter_map(|budget| budget.max_repairs.as_ref());
    let windows = limits.max_repairs.iter().chain(windows);
    windows.map(|(_, within)| *within).max().unwrap_or_default()
}

/// Starts whose record a person deleted. Names are given again: a start is its record's if
/// it is of the same time.
fn deleted<'a>(world: &World<'a>) -> impl Iterator<Item = &'a Reservation> {
    let known = world.repairs.iter();
    let known: BTreeSet<_> = known
        .map(|repair| (repair.name(), repair.spec.quarantine.at))
        .collect();
    let starts = world.starts.iter();
    starts.filter(move |start| !known.contains(&(start.repair.as_str(), start.at)))
}

/// Whether a repair of this node began at such a time, and a person deleted its record.
fn was_deleted(world: &World<'_>, uid: &str, at: impl Fn(Timestamp) -> bool) -> bool {
    let is_listed = |start: &Reservation| {
        let mut repairs = world.repairs.iter();
        repairs.any(|one| one.name() == start.repair && one.spec.quarantine.at == start.at)
    };
    let mut starts = world.starts.iter();
    starts.any(|start| start.node_uid == uid && at(start.at) && !is_listed(start))
}

/// The policies of the highest priority that select the node: one, unless they conflict.
fn policies_for<'a>(world: &World<'a>, node: &NodeView) -> Vec<&'a Policy> {
    let policies = world.policies.iter();
    let selecting = policies.filter(|policy| policy.selector.matches(&node.labels));
    let mut policies: Vec<&Policy> = selecting.collect();
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

/// The verdict on every node, before the guards that count over scopes. Of nodes of one kind
/// that `Evidence::settle` found plainly well, by the same rules and policies, one is judged.
pub fn judge_all(world: &World<'_>, now: Timestamp) -> Vec<Verdict> {
    let open: BTreeSet<&str> = world
        .repairs
        .iter()
        .filter(|repair| repair.open())
        .map(|repair| repair.spec.node_uid.as_str())
        .collect();
    let mut alike: BTreeMap<usize, Verdict> = BTreeMap::new();
    let nodes = world.evidence.nodes_by_kind();
    let verdicts = nodes.map(|(node, kind)| {
        let kind = kind.filter(|_| !open.contains(node.uid.as_str()));
        let Some(kind) = kind else {
            return judge(node, world, now);
        };
        let like = alike.entry(kind).or_insert_with(|| Verdict {
            node: String::new(),
            uid: String::new(),
            ..judge(node, world, now)
        });
        Verdict {
            node: node.name.clone(),
            uid: node.uid.clone(),
            ..like.clone()
        }
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
    let counts = verdict.counts;
    let sick = |all| sick_since(node, &told, all, world, now).filter(|_| counts);
    (verdict.sick_since, verdict.sick_if_enforced) = (sick(false), sick(true));
    let speaks = !verdict.policy.is_empty();
    let Some(policy) = policies.first().filter(|_| speaks) else {
        // Who asks for a repair is told so.
        let request = by_hand::request(node, world, now);
        let asked = request.map(|request| Inputs {
            request: Some(request),
            ..Inputs::default()
        });
        verdict.inputs = asked.map(Arc::new);
        return verdict;
    };
    let gathered = if policies.iter().any(|policy| !policy.accepted) {
        Some(Gathered::refused(policy, node, world, now))
    } else {
        // Of policies that conflict, what one of them finds counts: it holds.
        let finds = |truth| told.iter().find(|told| told.truth == truth);
        let finder = finds(Truth::True).or_else(|| finds(Truth::Unknown));
        let finder = finder.map_or(&policy.name, |told| &told.policy.name);
        let told = told.iter().filter(|told| told.policy.name == *finder);
        gather(node, &policies, told, world, now)
    };
    match gathered {
        Some(gathered) => verdict.rest_on(gathered, now),
        None => verdict.kind = VerdictKind::Healthy,
    }
    if verdict.kind == VerdictKind::Ignored {
        return verdict;
    }
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
    let starting = !ready && world.evidence.is_starting(node, limits.startup_grace, now);
    let taken = node.deleting || node.taken_by_other();
    let policy = policies.first();
    let policy = policy.filter(|policy| policy.control_plane || !node.control_plane());
    Verdict {
        node: node.name.clone(),
        uid: node.uid.clone(),
        kind: VerdictKind::Ignored,
        reasons: Vec::new(),
        scopes: Vec::new(),
        place: Place::of(node, world.evidence.pool_labels()).into(),
        counts: !(taken || starting),
        joined: !starting,
        available: ready && !node.unschedulable && !taken,
        sick_since: None,
        sick_if_enforced: None,
        policy: policy.map_or("", |policy| &policy.name).into(),
        fault: String::new(),
        severity: Severity::Warning,
        action: None,
        since: None,
        signals: Vec::new(),
        silences: Vec::new(),
        inputs: None,
    }
}

/// Suspended rules make nobody sick, nor do faults that are only observed, unless `all` are
/// to count.
fn sick_since(
    node: &NodeView,
    told: &[Told<'_>],
    all: bool,
    world: &World<'_>,
    now: Timestamp,
) -> Option<Timestamp> {
    let unready = || world.evidence.unready_since(&node.uid).unwrap_or(now);
    let unready = (!node.ready()).then(unready);
    let counted = told.iter();
    let counted = counted.filter(|told| all || told.policy.mode != Mode::Observe);
    let faults = counted.filter_map(|told| match told.truth {
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

impl Verdict {
    /// Comes to what was gathered.
    fn rest_on(&mut self, mut gathered: Gathered, now: Timestamp) {
        let found = conclude::conclude(&gathered.inputs, now);
        (self.kind, self.reasons) = (found.kind, found.reasons);
        (self.severity, self.since) = (found.severity, found.since);
        self.action = found.action;
        self.silences = gathered.silences(&found.fault);
        self.fault = found.fault;
        self.inputs = Some(Arc::new(gathered.inputs));
    }

    /// What a person asks for, if somebody does.
    pub fn request(&self) -> Option<&RepairRequest> {
        self.inputs.as_ref()?.request.as_ref()
    }

    /// Who approved what it comes to, if its policy waits for that.
    pub fn approval(&self) -> Option<&Approval> {
        let standing = self.inputs.as_ref()?.standing.as_ref()?;
        let waits = standing.mode == Mode::Approve && self.fault != BY_HAND;
        standing.approval.as_ref().filter(|_| waits)
    }

    /// Whether who asks for this repair tells a guard to be ignored.
    fn overrides(&self, reason: Reason) -> bool {
        let request = self.request().filter(|_| self.fault == BY_HAND);
        request.is_some_and(|request| request.overrides.contains(&reason))
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
        let policy = world.policy(&verdict.policy)?;
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

/// The question of a fault, if one is asked before it is acted on.
fn question<'a>(verdict: &Verdict, fault: &str, world: &World<'a>) -> Option<&'a Confirm> {
    let policy = world.policy(&verdict.policy)?;
    let fault = policy.faults.iter().find(|one| one.name == fault)?;
    fault.confirm.as_ref()
}

/// What a node would come to if every exporter that was not asked yet confirmed; none if
/// no such answer matters.
fn if_confirmed(verdict: &Verdict, world: &World<'_>, now: Timestamp) -> Option<Verdict> {
    let mut inputs = Inputs::clone(verdict.inputs.as_ref()?);
    let mut asks = false;
    for fault in &mut inputs.faults {
        let unknown = fault.confirmed == Some(Truth::Unknown);
        let confirm = question(verdict, &fault.name, world).filter(|_| unknown);
        if confirm.is_some_and(|of| world.evidence.opinion(&verdict.uid, of, now).is_none()) {
            (fault.confirmed, asks) = (Some(Truth::True), true);
        }
    }
    if !asks {
        return None;
    }
    let found = conclude::conclude(&inputs, now);
    let mut confirmed = verdict.clone();
    (confirmed.kind, confirmed.reasons) = (found.kind, found.reasons);
    (confirmed.severity, confirmed.since) = (found.severity, found.since);
    (confirmed.fault, confirmed.action) = (found.fault, found.action);
    Some(confirmed)
}

/// Which nodes to ask for a second opinion now, by UID: those that would start for a fault
/// if it were confirmed, and were not asked lately; then those that would if their policy
/// did more than observe. Few, as all have to answer within this pass.
pub fn to_probe(
    verdicts: &[Verdict],
    scopes: &Scopes,
    world: &World<'_>,
    now: Timestamp,
) -> Vec<(String, Confirm)> {
    let doubtful = |fault: &FaultInput| fault.confirmed == Some(Truth::Unknown);
    let mut questions: BTreeMap<String, Confirm> = BTreeMap::new();
    let mut asked: Vec<(usize, Verdict)> = Vec::new();
    for (index, verdict) in verdicts.iter().enumerate() {
        let inputs = verdict.inputs.as_ref();
        let inputs = inputs.filter(|inputs| inputs.faults.iter().any(doubtful));
        let sure = inputs.and_then(|_| if_confirmed(verdict, world, now));
        let Some((inputs, sure)) = inputs.zip(sure) else {
            continue;
        };
        let mut faults = inputs.faults.iter();
        let leads = faults.find(|fault| fault.name == sure.fault);
        let starts = sure.kind == VerdictKind::Due || shadow::only_observed(&sure);
        let waits = starts && leads.is_some_and(doubtful);
        if let Some(confirm) = question(verdict, &sure.fault, world).filter(|_| waits) {
            questions.insert(verdict.uid.clone(), confirm.clone());
            asked.push((index, sure));
        }
    }
    if questions.is_empty() {
        return Vec::new();
    }
    let mut confirmed = verdicts.to_vec();
    for (index, sure) in asked {
        confirmed[index] = sure;
    }
    let admitted = admit(&mut confirmed, scopes, world, now).admitted;
    let observed = shadow(&mut confirmed, world, now).starts.into_iter();
    let observed = observed.filter(|start| start.at == now);
    let observed = observed.map(|start| start.node_uid);
    admitted
        .into_iter()
        .chain(observed)
        .filter_map(|uid| Some((uid.clone(), questions.get(&uid)?.clone())))
        .take(PROBES_AT_ONCE)
        .collect()
}

/// Whether the opt-out annotation holds.
pub fn opted_out(node: &NodeView, now: Timestamp) -> bool {
    opted_out_until(node).is_some_and(|until| until > now)
}

/// Until when the opt-out annotation holds; the end of time if it has none. What cannot be
/// read holds too.
fn opted_out_until(node: &NodeView) -> Option<Timestamp> {
    match node.annotations.get(DO_NOT_REPAIR_ANNOTATION)?.as_str() {
        "false" | "" => None,
        text => Some(text.parse().unwrap_or(Timestamp::MAX)),
    }
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
    let request = repair.spec.request.as_ref();
    let ignored =
        |scope: &Scope| request.is_some_and(|request| request.overrides.contains(&scope.breaker()));
    let holds = |storm: &(Scope, Timestamp)| {
        cooldown.after(repair.spec.fault_since) > storm.1 && !ignored(&storm.0)
    };
    if let Some((scope, _)) = scopes.storms(&place).find(holds) {
        return Some(scope.breaker());
    }
    // The policy may be gone by now, and the node: its name and a doubt are enough to pause.
    let mut pauses = world.pauses.iter();
    if pauses.any(|pause| pause.covers(node, &repair.spec.policy, now)) {
        return Some(Reason::Paused);
    }
    let policy = world.policy(&repair.spec.policy);
    let refused = policy.is_some_and(|policy| !policy.accepted);
    node.and_then(|node| silence_reason(node, repair, world, now))
        .or(refused.then_some(Reason::PolicyRefused))
}

/// Whether a silence holds a running repair, or may.
fn silence_reason(
    node: &NodeView,
    repair: &NodeRepair,
    world: &World<'_>,
    now: Timestamp,
) -> Option<Reason> {
    if !silences(node, repair, world, now).is_empty() {
        return Some(Reason::Silenced);
    }
    // What has begun to disturb the node goes on: its fault is latched.
    let unknown = Reason::SilencesUnknown;
    let request = repair.spec.request.as_ref();
    let ignored = request.is_some_and(|request| request.overrides.contains(&unknown));
    let mut steps = repair.journal().iter().map(|entry| entry.intent.step);
    let disturbs = steps.any(|step| step == Step::Drain || step.irreversible());
    let waits = world.evidence.silences_unknown(now) && !ignored && !disturbs;
    waits.then_some(unknown)
}

/// The silences that hold the fault of a repair.
fn silences(
    node: &NodeView,
    repair: &NodeRepair,
    world: &World<'_>,
    now: Timestamp,
) -> Vec<SilenceRecord> {
    let spec = &repair.spec;
    let policy = world.policy(&spec.policy);
    policy.map_or_else(Vec::new, |policy| {
        let evidence = world.evidence;
        let (fault, before) = (&spec.fault, &spec.evidence);
        evidence.silences(node, policy, fault, world.rules, now, before)
    })
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod silence_tests;
#[cfg(test)]
mod tests;
