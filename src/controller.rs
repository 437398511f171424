//! The loop of the leader: take in what changed, decide, commit, act. One `pass`
//! reads the records afresh, so that nothing rests on having seen an edge.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use futures_util::future::join_all;
use jiff::Timestamp;
use nodemend_core::api::{
    AlertGroup, AlertGroupSpec, BY_HAND, Decision, FINALIZER, FaultRecord, FleetState,
    FleetStateSpec, GuardRecord, Inputs, MAX_STARTS, Mode, NodeHealth, NodeHealthSpec,
    NodeHealthStatus, NodeRepair, NodeRepairSpec, ObservedStart, Plan, RepairRequest, Reservation,
    Score, SourceDown, Step,
};
use nodemend_core::config::{Limits, Policy, Rule, Rules};
use nodemend_core::decide::{
    self, Admission, Fallen, Observed, Pause, Place, Scopes, Verdict, World,
};
use nodemend_core::evidence::{self, CONDITION, Evidence, Input};
use nodemend_core::model::{
    APPROVED_ANNOTATION, NodeView, REQUEST_ANNOTATION, Reason, SignalState, Span, Truth,
    VerdictKind, digest,
};
use nodemend_core::repair;

use crate::exec::{self, CallError, Clock, Cloud, Cluster, Context, Probes};

/// The leader's records. Every write carries the resourceVersion that was read.
#[allow(
    async_fn_in_trait,
    reason = "used with one concrete type per program; no Send bound is wanted"
)]
pub trait Records {
    /// A consistent list of all repairs.
    async fn repairs(&self) -> Result<Vec<NodeRepair>, CallError>;
    /// Creates a repair. Its name is the guard against a second one.
    async fn create_repair(&self, repair: &NodeRepair) -> Result<(), CallError>;
    /// The fleet's one object.
    async fn fleet(&self) -> Result<Option<FleetState>, CallError>;
    /// Creates or replaces it by compare-and-swap.
    async fn put_fleet(&self, fleet: &FleetState) -> Result<FleetState, CallError>;
    /// A consistent list of all node records.
    async fn healths(&self) -> Result<Vec<NodeHealth>, CallError>;
    /// Creates or replaces one; gives back what is stored.
    async fn put_health(&self, health: &NodeHealth) -> Result<NodeHealth, CallError>;
    /// Deletes one, if it is still the one that was read.
    async fn delete_health(&self, health: &NodeHealth) -> Result<(), CallError>;
    /// Deletes the alert group of this name if, read now, it is `past`, and if it is still
    /// the one that was read. One that is gone or not past is left alone.
    async fn collect_group(
        &self,
        name: &str,
        past: impl Fn(&AlertGroupSpec) -> bool,
    ) -> Result<(), CallError>;
}

/// How old an object may be that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// As it was stored at some time, mostly a moment ago: enough for who writes with its
    /// resourceVersion, or finds in it what was to be stored.
    Any,
    /// As it is stored now.
    Newest,
}

/// The alerts that any replica remembers. A write carries the resourceVersion that was read.
pub trait Groups: Clone + Send + Sync + 'static {
    /// The group of this object name; none if there is none.
    fn group(
        &self,
        name: &str,
        age: Age,
    ) -> impl Future<Output = Result<Option<AlertGroup>, CallError>> + Send;
    /// Creates it, or replaces what was read. A conflict if that changed or is gone.
    fn put_group(&self, group: AlertGroup) -> impl Future<Output = Result<(), CallError>> + Send;
    /// How many groups of this sender are stored, if this one is none of them; nothing as long
    /// as that is not known. The names of a group's objects are `group`, a dash and a digit.
    fn others(&self, sender: &str, group: &str) -> Option<usize>;
}

/// How many groups of this sender there are among objects of these names and senders, in the
/// order of their names, if this one is none of them.
pub fn other_groups<'a>(
    stored: impl Iterator<Item = (&'a str, &'a str)>,
    sender: &str,
    group: &str,
) -> Option<usize> {
    let (mut count, mut last) = (0, "");
    for (object, _) in stored.filter(|(_, of)| *of == sender) {
        let name = object.rsplit_once('-').map_or(object, |(name, _)| name);
        if name == group {
            return None;
        }
        count += usize::from(name != last);
        last = name;
    }
    Some(count)
}

/// Who holds a token, as the Kubernetes API says. Any replica asks.
pub trait TokenReviews: std::fmt::Debug + Send + Sync {
    /// The user of a token that is valid and meant for this audience; none for any other token.
    fn review<'a>(
        &'a self,
        token: &'a str,
        audience: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Option<String>, CallError>> + Send + 'a>>;
}

/// The alert groups that one pass deletes.
const MAX_COLLECTED: usize = 20;

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call had no usable answer; the next pass tries again.
    #[error("a call failed")]
    Call(#[from] CallError),
    /// Another leader raised the epoch.
    #[error("another leader took over")]
    Deposed,
}

/// What binds the controller.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The tag that says which cluster an instance belongs to.
    pub cluster_tag: String,
    /// The polled rules.
    pub rules: Rules,
    /// The accepted policies.
    pub policies: Vec<Policy>,
    /// The limits over all policies.
    pub limits: Limits,
    /// The jobs whose series say nothing of a node by their `instance`.
    pub cluster_jobs: Vec<String>,
    /// The labels that Prometheus puts on what it sends to Alertmanager.
    pub external_labels: BTreeMap<String, String>,
}

/// The records that a pass rests on, as they were read.
struct Known<'a> {
    repairs: Vec<NodeRepair>,
    healths: Vec<NodeHealth>,
    fallen: Vec<Fallen>,
    starts: Vec<Reservation>,
    reserved: Vec<Reservation>,
    observed: Vec<ObservedStart>,
    observed_fallen: Vec<Fallen>,
    pauses: &'a [Pause],
}

/// What a pass came to.
#[derive(Debug)]
pub struct Report {
    /// The time that it decided on.
    pub now: Timestamp,
    /// The verdict on every node.
    pub verdicts: Vec<Verdict>,
    /// Every repair on record.
    pub repairs: Vec<NodeRepair>,
    /// What the guards counted.
    pub scopes: Scopes,
    /// The node records written.
    pub healths: Vec<NodeHealth>,
    /// Repairs that a call without answer held up, and what it said.
    pub stuck: Vec<(String, CallError)>,
    /// A record that could not be written; the next pass tries again.
    pub unwritten: Option<Error>,
    /// When to look again at the latest.
    pub wake: Option<Timestamp>,
    /// What people ask for in a way that does not count, and why; each told once.
    pub unusable: Vec<(NodeView, String)>,
    /// No node has any of the labels that name a pool; told once.
    pub unpooled: bool,
}

/// The leader.
#[derive(Debug)]
pub struct Controller<C, K, P> {
    cluster: C,
    cloud: K,
    probes: P,
    setup: Setup,
    evidence: Evidence,
    fleet: Option<FleetState>,
    last_seen: Option<Timestamp>,
    /// Due nodes for which no plan could be made: why, and until when that stands.
    unplanned: BTreeMap<String, (Reason, Timestamp)>,
    /// By node UID, why its request does not count, as it was told.
    unusable: BTreeMap<String, String>,
    unpooled: bool,
    /// Repairs that were reserved, but of which it is known that they do not come.
    dropped: BTreeSet<String>,
}

/// `FleetState` holds so many guards.
const MAX_GUARDS: usize = 100;
/// How long a node for which no plan could be made is left alone.
const REPLAN: Span = Span::minutes(1);
/// How often admission begins again without nodes that turned out to have no plan.
const MAX_ADMISSIONS: usize = 10;
/// How long a reservation without a record counts. Our calls end after 5 s, and the API server
/// works on one for a minute (its `--request-timeout`): what did not land by then never will.
const RESERVED_FOR: Span = Span::seconds(90);
/// `FleetState` holds so many.
const MAX_SOURCES: usize = 100;
/// The source that lists the nodes.
const NODES: &str = "nodes";
const MAX_SUSPENDED: usize = 100;
const MAX_JOINED: usize = 1000;

impl<C: Cluster + Records, K: Cloud, P: Probes> Controller<C, K, P> {
    /// A leader that has not yet acted. `last_seen` is when the one before was last
    /// known to look; from then on no clock ran.
    pub fn new(
        cluster: C,
        cloud: K,
        probes: P,
        setup: Setup,
        last_seen: Option<Timestamp>,
    ) -> Self {
        let external = setup.external_labels.clone();
        let mut evidence = Evidence::new(setup.cluster_jobs.clone(), external);
        evidence.lift_after(setup.limits.breaker.cooldown);
        evidence.name_pools_by(&setup.limits.pool_labels);
        Self {
            cluster,
            cloud,
            probes,
            evidence,
            setup,
            fleet: None,
            last_seen,
            unplanned: BTreeMap::new(),
            unusable: BTreeMap::new(),
            unpooled: false,
            dropped: BTreeSet::new(),
        }
    }

    /// Takes these policies from now on. Faults that mean the same keep their clocks.
    pub fn adopt(&mut self, policies: Vec<Policy>) {
        for old in &self.setup.policies {
            let new = policies.iter().find(|new| new.name == old.name);
            for fault in &old.faults {
                if !new.is_some_and(|new| old.same_fault(new, &fault.name)) {
                    self.evidence.forget_fault(&old.name, &fault.name);
                }
            }
        }
        self.setup.policies = policies;
    }

    /// Takes these rules and limits from now on. Rules that ask the same keep their
    /// answers and their signals' clocks.
    pub fn adopt_rules(&mut self, rules: Rules, limits: Limits) {
        let asks = |rule: &Rule| (rule.name.clone(), rule.expr.clone(), rule.presence.clone());
        for old in self.setup.rules.iter() {
            if !rules.iter().any(|new| asks(new) == asks(old)) {
                self.evidence.forget_rule(&old.name);
                for policy in &self.setup.policies {
                    for fault in &policy.faults {
                        if policy.signals(&fault.name).contains(old.name.as_str()) {
                            self.evidence.forget_fault(&policy.name, &fault.name);
                        }
                    }
                }
            }
        }
        self.setup.rules = rules;
        self.evidence.lift_after(limits.breaker.cooldown);
        self.evidence.name_pools_by(&limits.pool_labels);
        self.setup.limits = limits;
    }

    /// What is known.
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The epoch of this leader, once it took over.
    pub fn epoch(&self) -> Option<u64> {
        self.fleet.as_ref().map(|fleet| fleet.spec.epoch)
    }

    /// What became of the faults that were only observed.
    pub fn score(&self) -> &[Score] {
        self.fleet.as_ref().map_or(&[], |fleet| &fleet.spec.score)
    }

    /// Which episodes of them are committed, but may not be marked as counted.
    fn scored(&self) -> &[String] {
        self.fleet.as_ref().map_or(&[], |fleet| &fleet.spec.scored)
    }

    /// Decides on what is known now, and takes every open repair as far as it goes.
    pub async fn pass<T: Clock>(
        &mut self,
        inputs: impl IntoIterator<Item = Input>,
        pauses: &[Pause],
        clock: &T,
    ) -> Result<Report, Error> {
        let now = clock.now();
        // Before anything can fail: each input is handed over once.
        for input in inputs {
            self.evidence.fold(input, now);
        }
        let mut fleet = self.lead(now).await?;
        self.evidence
            .settle(&self.setup.rules, &self.setup.policies, now);
        let repairs = self.cluster.repairs().await?;
        self.keep_pending(&mut fleet.spec.reservations, &repairs, now);
        fleet.spec.starts = self.starts(&fleet, &repairs, now);
        fleet.spec.sources_down = self.sources_down(nodes_down(&fleet.spec), now);
        fleet.spec.dark = self.evidence.dark(fleet.spec.dark, now);
        self.remember(&mut fleet.spec, now);
        let healths = self.cluster.healths().await?;
        let mut known = Known {
            fallen: self.fallen(&healths, now),
            healths,
            starts: fleet.spec.starts.clone(),
            reserved: fleet.spec.reservations.clone(),
            observed: fleet.spec.observed.clone(),
            observed_fallen: Vec::new(),
            repairs,
            pauses,
        };
        let mut policies = self.setup.policies.iter();
        if policies.any(|policy| policy.mode == Mode::Observe) {
            known.observed_fallen = self.observed_fallen(&known.fallen, &known.healths);
        }
        let (mut judged, mut scopes) = self.judge(&known, now);
        if self.read_leases(&judged, &known, now).await {
            (judged, scopes) = self.judge(&known, now);
        }
        if self.probe(&judged, &scopes, &known, now).await {
            (judged, scopes) = self.judge(&known, now);
        }
        decide::score::count(&mut fleet.spec, &known.healths, &self.world(&known), now);
        let (mut verdicts, starting, mut guards) = self
            .admit(judged, &scopes, &known, fleet.spec.epoch, now)
            .await;
        let shadow = decide::shadow(&mut verdicts, &self.world(&known), now);
        fleet.spec.observed = shadow.starts;
        guards.extend(shadow.guards);
        fleet.spec.guards = guards.iter().take(MAX_GUARDS).cloned().collect();
        // What is under way must go on, also when a record cannot be written.
        let started = self.start(fleet, &starting, now).await;
        let recorded = match &started {
            Err(Error::Deposed) => return Err(Error::Deposed),
            _ => self.record(&verdicts, &guards, &scopes, &known, now).await,
        };
        if !starting.is_empty() {
            known.repairs = self.cluster.repairs().await?;
        }
        let mut repairs = known.repairs.clone();
        let (wake, stuck) = self
            .advance(&mut repairs, &known, &scopes, clock, now)
            .await;
        let (healths, unrecorded) = match recorded {
            Ok(healths) => (healths, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        self.collect(now).await;
        let pooled = |verdict: &Verdict| !verdict.place.pool.is_empty();
        let unpooled = !verdicts.is_empty() && !verdicts.iter().any(pooled);
        let known = std::mem::replace(&mut self.unpooled, unpooled);
        Ok(Report {
            unpooled: unpooled && !known,
            now,
            verdicts,
            repairs,
            scopes,
            healths,
            stuck,
            unwritten: started.err().or(unrecorded),
            wake,
            unusable: self.unusable(now),
        })
    }

    /// Deletes alert groups of which every alert is forgotten. One to which a delivery was
    /// faster is left, and whatever fails is for a later pass.
    async fn collect(&self, now: Timestamp) {
        let past = |group: &AlertGroupSpec| evidence::is_forgotten(group, now);
        for name in self.evidence.forgotten(now).take(MAX_COLLECTED) {
            match self.cluster.collect_group(name, past).await {
                Ok(()) | Err(CallError::Conflict(_)) => {}
                Err(_) => return,
            }
        }
    }

    /// Requests and approvals that do not count, but for those that are known not to.
    fn unusable(&mut self, now: Timestamp) -> Vec<(NodeView, String)> {
        let read = |node: &NodeView| {
            let request = decide::by_hand::read(node, now).and_then(Result::err);
            let request = request.map(|why| format!("{REQUEST_ANNOTATION}: {why}"));
            let approval = decide::approval::read(node, now).and_then(Result::err);
            let approval = approval.map(|why| format!("{APPROVED_ANNOTATION}: {why}"));
            let all: Vec<String> = request.into_iter().chain(approval).collect();
            (!all.is_empty()).then(|| all.join("; "))
        };
        let nodes = self.evidence.nodes();
        let all = nodes.filter_map(|node| {
            let why = read(node)?;
            Some((node.clone(), why))
        });
        let all: Vec<(NodeView, String)> = all.collect();
        let known = std::mem::take(&mut self.unusable);
        self.unusable = all
            .iter()
            .map(|(node, why)| (node.uid.clone(), why.clone()))
            .collect();
        let new = |(node, why): &(NodeView, String)| known.get(&node.uid) != Some(why);
        all.into_iter().filter(new).collect()
    }

    fn judge(&self, known: &Known<'_>, now: Timestamp) -> (Vec<Verdict>, Scopes) {
        let world = self.world(known);
        let verdicts = decide::judge_all(&world, now);
        let scopes = decide::survey(&verdicts, &world, now);
        (verdicts, scopes)
    }

    /// Nodes that fell sick lately, by their records.
    fn fallen(&self, healths: &[NodeHealth], now: Timestamp) -> Vec<Fallen> {
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
    fn observed_fallen(&self, fallen: &[Fallen], healths: &[NodeHealth]) -> Vec<Fallen> {
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

    /// Those who may start, each with a complete repair, and the numbers of the guards. Who
    /// cannot be planned for is held, and takes nobody's place.
    async fn admit(
        &mut self,
        judged: Vec<Verdict>,
        scopes: &Scopes,
        known: &Known<'_>,
        epoch: u64,
        now: Timestamp,
    ) -> (Vec<Verdict>, Vec<NodeRepair>, Vec<GuardRecord>) {
        self.unplanned.retain(|_, (_, until)| *until > now);
        let mut plans: BTreeMap<String, Plan> = BTreeMap::new();
        for round in 1.. {
            let mut verdicts = judged.clone();
            for verdict in &mut verdicts {
                if let (VerdictKind::Due, Some((reason, _))) =
                    (verdict.kind, self.unplanned.get(&verdict.uid))
                {
                    decide::unplanned(verdict, *reason);
                }
            }
            let world = self.world(known);
            let Admission { admitted, guards } = decide::admit(&mut verdicts, scopes, &world, now);
            let mut failed = false;
            for verdict in verdicts
                .iter()
                .filter(|verdict| admitted.contains(&verdict.uid))
            {
                if plans.contains_key(&verdict.uid) {
                    continue;
                }
                match self.plan(verdict).await {
                    Ok(plan) => {
                        plans.insert(verdict.uid.clone(), plan);
                    }
                    Err(reason) => {
                        let until = REPLAN.after(now);
                        self.unplanned.insert(verdict.uid.clone(), (reason, until));
                        failed = true;
                    }
                }
            }
            if failed && round < MAX_ADMISSIONS {
                continue;
            }
            let starting = verdicts
                .iter()
                .filter(|verdict| admitted.contains(&verdict.uid))
                .filter_map(|verdict| {
                    let node = self.evidence.node(&verdict.node)?;
                    let plan = plans.get(&verdict.uid)?.clone();
                    Some(new_repair(node, verdict, plan, &known.repairs, epoch, now))
                })
                .collect();
            return (verdicts, starting, guards);
        }
        (judged, Vec::new(), Vec::new())
    }

    async fn plan(&self, verdict: &Verdict) -> Result<Plan, Reason> {
        let node = self.evidence.node(&verdict.node);
        let mut policies = self.setup.policies.iter();
        let policy = policies.find(|policy| policy.name == *verdict.policy);
        match (node, policy) {
            (Some(node), Some(policy)) => {
                let action = verdict.action.ok_or(Reason::NeedsHuman)?;
                exec::plan(&self.cloud, node, policy, action, &self.setup.cluster_tag).await
            }
            _ => Err(Reason::NoOwner),
        }
    }

    /// Reserves, then creates.
    async fn start(
        &mut self,
        mut fleet: FleetState,
        starting: &[NodeRepair],
        now: Timestamp,
    ) -> Result<(), Error> {
        let pending = &mut fleet.spec.reservations;
        let again = |one: &Reservation| starting.iter().any(|repair| repair.name() == one.repair);
        let name = |repair: &NodeRepair| repair.name().to_owned();
        // Of one that is tried again, the first try may land whatever becomes of this one.
        let new = starting.iter().map(name);
        let new = new.filter(|name| !pending.iter().any(|one| one.repair == *name));
        self.dropped = new.collect();
        pending.retain(|one| !again(one));
        pending.extend(starting.iter().map(|repair| reserved(repair, now)));
        self.fleet = Some(self.commit_fleet(fleet).await?);
        for repair in starting {
            let created = self.cluster.create_repair(repair).await;
            if matches!(created, Ok(()) | Err(CallError::NoAnswer(_))) {
                self.dropped.remove(repair.name());
            }
            created?;
        }
        Ok(())
    }

    /// Keeps the reservations that still count. What is listed needs none any more; what is
    /// not may have been created without an answer, and land yet.
    fn keep_pending(
        &self,
        reservations: &mut Vec<Reservation>,
        repairs: &[NodeRepair],
        now: Timestamp,
    ) {
        reservations.retain(|one| {
            let listed = repairs.iter().any(|repair| repair.name() == one.repair);
            let recent = RESERVED_FOR.after(one.at) > now && RESERVED_FOR.after(now) > one.at;
            recent && !listed && !self.dropped.contains(&one.repair)
        });
    }

    /// The starts that some rate still counts, also those whose records are gone. Where there
    /// are more than fit, the newest: so many that nothing starts until there is room.
    fn starts(
        &self,
        fleet: &FleetState,
        repairs: &[NodeRepair],
        now: Timestamp,
    ) -> Vec<Reservation> {
        let memory = decide::memory(&self.setup.limits, &self.setup.policies);
        let listed = repairs
            .iter()
            .map(|repair| reserved(repair, repair.spec.quarantine.at));
        let mut starts: Vec<Reservation> =
            fleet.spec.starts.iter().cloned().chain(listed).collect();
        starts.retain(|start| memory.after(start.at) > now);
        starts.sort_by(|one, other| (one.at, &one.repair).cmp(&(other.at, &other.repair)));
        starts.dedup();
        starts.split_off(starts.len().saturating_sub(MAX_STARTS))
    }

    /// Reads some leases, all at once, that verdicts wait for; whether there was any.
    async fn read_leases(
        &mut self,
        verdicts: &[Verdict],
        known: &Known<'_>,
        now: Timestamp,
    ) -> bool {
        let nodes = decide::to_read(verdicts, &self.world(known), now);
        let cluster = &self.cluster;
        let reads = nodes.into_iter().map(async |node| {
            let renewed = cluster.renewed(&node.name).await;
            Input::Lease {
                uid: node.uid,
                renewed: renewed.map_err(|error| error.to_string()),
            }
        });
        let reads = join_all(reads).await;
        self.learn(reads, now)
    }

    /// Asks some nodes, all at once, for the opinions that repairs wait for; whether any
    /// was asked.
    async fn probe(
        &mut self,
        verdicts: &[Verdict],
        scopes: &Scopes,
        known: &Known<'_>,
        now: Timestamp,
    ) -> bool {
        let planless = |one: &Verdict| {
            let until = self.unplanned.get(&one.uid).map(|(_, until)| *until);
            until.is_some_and(|until| until > now)
        };
        // They would not start, whatever their exporters say.
        let mut verdicts = Cow::Borrowed(verdicts);
        if verdicts.iter().any(planless) {
            verdicts.to_mut().retain(|one| !planless(one));
        }
        let questions = decide::to_probe(&verdicts, scopes, &self.world(known), now);
        let (probes, evidence) = (&self.probes, &self.evidence);
        let asked = questions.into_iter().filter_map(|(uid, confirm)| {
            let node = evidence.nodes().find(|node| node.uid == uid)?;
            Some(async move {
                let reading = probes.probe(node, &confirm).await;
                Input::Probe {
                    uid,
                    confirm,
                    reading,
                }
            })
        });
        let readings = join_all(asked).await;
        self.learn(readings, now)
    }

    /// Whether there was anything to take in.
    fn learn(&mut self, inputs: Vec<Input>, now: Timestamp) -> bool {
        let any = !inputs.is_empty();
        for input in inputs {
            self.evidence.fold(input, now);
        }
        any
    }

    fn world<'a>(&'a self, known: &'a Known<'_>) -> World<'a> {
        World {
            evidence: &self.evidence,
            rules: &self.setup.rules,
            policies: &self.setup.policies,
            limits: &self.setup.limits,
            repairs: &known.repairs,
            fallen: &known.fallen,
            starts: &known.starts,
            reserved: &known.reserved,
            pauses: known.pauses,
            observed: Observed {
                starts: &known.observed,
                fallen: &known.observed_fallen,
            },
        }
    }

    /// The fleet's object while it is still ours. If somebody deleted it, or put an older
    /// one in its place, it is taken over again.
    async fn lead(&mut self, now: Timestamp) -> Result<FleetState, Error> {
        if let Some(known) = &self.fleet
            && let Some(stored) = self.cluster.fleet().await?
        {
            match stored.spec.epoch.cmp(&known.spec.epoch) {
                Ordering::Greater => return Err(Error::Deposed),
                Ordering::Equal => return Ok(stored),
                Ordering::Less => {}
            }
        }
        let fleet = self.take_over(now).await?;
        self.fleet = Some(fleet.clone());
        Ok(fleet)
    }

    /// What the next leader cannot know else.
    fn remember(&self, fleet: &mut FleetStateSpec, now: Timestamp) {
        let suspended = self.evidence.suspended().take(MAX_SUSPENDED);
        fleet.suspended = suspended.map(|(rule, _)| rule.to_owned()).collect();
        if self.evidence.nodes_fresh(now) {
            let joined = self.evidence.joined(self.setup.limits.startup_grace, now);
            fleet.joined = joined.take(MAX_JOINED).map(str::to_owned).collect();
        }
    }

    /// Raises the epoch, writes it into every open repair, and takes up the clocks.
    async fn take_over(&mut self, now: Timestamp) -> Result<FleetState, Error> {
        let stored = self.cluster.fleet().await?;
        let mut fleet =
            stored.unwrap_or_else(|| FleetState::new("fleet", FleetStateSpec::default()));
        let repairs = self.cluster.repairs().await?;
        let known = self.epoch().into_iter().chain(repairs.iter().map(epoch_of));
        fleet.spec.epoch = known.fold(fleet.spec.epoch, u64::max) + 1;
        let fleet = self.cluster.put_fleet(&fleet).await?;
        for mut repair in repairs.into_iter().filter(NodeRepair::open) {
            let Some(status) = &mut repair.status else {
                continue;
            };
            status.epoch = fleet.spec.epoch;
            self.cluster.put_repair(&repair).await?;
        }
        if let Some(dark) = fleet.spec.dark {
            self.evidence.fold(Input::Dark(dark), now);
        }
        let nodes_down = nodes_down(&fleet.spec);
        let led = Input::Led {
            joined: fleet.spec.joined.clone(),
            suspended: fleet.spec.suspended.clone(),
        };
        self.evidence.fold(led, now);
        for health in self.cluster.healths().await? {
            let Some(status) = health.status else {
                continue;
            };
            if status.fell_sick.is_some() {
                let sick = Input::FellSick {
                    uid: health.spec.node_uid.clone(),
                    since: status.sick_since,
                };
                self.evidence.fold(sick, now);
            }
            let silenced = Input::Silenced {
                uid: health.spec.node_uid.clone(),
                silences: status.silences,
            };
            self.evidence.fold(silenced, now);
            // If nobody knows for how long nobody looked, it was too long for any clock. Who did
            // not know the nodes wrote of none that its clocks stood still.
            let last_seen = self.last_seen.unwrap_or(Timestamp::MIN);
            let restore = Input::Restore {
                uid: health.spec.node_uid,
                signals: status.signals,
                faults: status.faults,
                last_seen: nodes_down.map_or(last_seen, |at| at.min(last_seen)),
            };
            self.evidence.fold(restore, now);
        }
        Ok(fleet)
    }

    async fn commit_fleet(&self, fleet: FleetState) -> Result<FleetState, Error> {
        let stored = self.cluster.fleet().await?;
        match stored {
            Some(stored) if stored.spec.epoch > fleet.spec.epoch => Err(Error::Deposed),
            Some(stored) if stored.spec == fleet.spec => Ok(stored),
            _ => Ok(self.cluster.put_fleet(&fleet).await?),
        }
    }

    /// `nodes_down`: since when the nodes were not known, if they were not.
    fn sources_down(&self, nodes_down: Option<Timestamp>, now: Timestamp) -> Vec<SourceDown> {
        let down = |source: String, since: Timestamp, message: &str| SourceDown {
            source,
            since,
            message: message.chars().take(200).collect(),
        };
        let unknown = !self.evidence.nodes_fresh(now);
        let nodes = unknown.then(|| {
            let since = nodes_down.unwrap_or(now);
            down(NODES.into(), since, "the list of nodes is empty or old")
        });
        let asking = self.evidence.asking_failed().into_iter();
        let asking = asking.map(|(since, message)| down("alertmanager".into(), since, message));
        nodes
            .into_iter()
            .chain(asking)
            .chain(
                self.evidence
                    .failing_rules()
                    .map(|(rule, since, message)| down(format!("rule/{rule}"), since, message)),
            )
            .take(MAX_SOURCES)
            .collect()
    }

    /// Writes what changed of each node that is not plainly healthy.
    async fn record(
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
        let cooldown = self.setup.limits.breaker.cooldown;
        for verdict in verdicts {
            let before = healths.get(verdict.uid.as_str()).copied();
            // A node whose only trouble is a source that is down for all gets no record.
            let watched = self.evidence.watched(&verdict.uid) || verdict.request().is_some();
            let plain = match verdict.kind {
                VerdictKind::Ignored => verdict.request().is_none(),
                VerdictKind::Healthy => !watched,
                VerdictKind::Unknown => !watched && verdict.since.is_none(),
                _ => false,
            };
            if plain && before.is_none() && verdict.sick_since.is_none() {
                continue;
            }
            let recorded = before.and_then(|health| health.status.as_ref());
            let observed = recorded.and_then(|status| status.observed.as_ref());
            let observed =
                decide::score::follow(observed, verdict, self.scored(), &self.world(known), now);
            let status = NodeHealthStatus {
                observed,
                ..self.health(verdict, recorded, guards, &self.world(known), now)
            };
            let well = verdict.sick_since.is_none()
                && match verdict.kind {
                    VerdictKind::Healthy => !watched,
                    kind => plain && kind == VerdictKind::Ignored,
                };
            let past = |at: Timestamp| cooldown.after(at) <= now;
            let well = well && status.observed.is_none();
            let fell_sick = status.fell_sick;
            let told = fell_sick.is_none_or(|at| past(at) && !storms(&verdict.place, scopes));
            if well && past(status.since) && told {
                if let Some(health) = before {
                    self.cluster.delete_health(health).await?;
                }
                continue;
            }
            if before.and_then(|health| health.status.as_ref()) == Some(&status) {
                continue;
            }
            let spec = NodeHealthSpec {
                node_name: verdict.node.clone(),
                node_uid: verdict.uid.clone(),
            };
            let mut health = before.cloned().unwrap_or_else(|| {
                NodeHealth::new(&format!("node-{}", digest(&[&verdict.uid], 20)), spec)
            });
            health.status = Some(status);
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
        let faults = self
            .setup
            .policies
            .iter()
            .filter(|policy| policy.name == *verdict.policy)
            .flat_map(|policy| {
                policy.faults.iter().filter_map(|fault| {
                    let node = self.evidence.node(&verdict.node)?;
                    let (truth, since) =
                        self.evidence
                            .fault(node, policy, &fault.name, &self.setup.rules, now);
                    let known = before.and_then(|status| {
                        status
                            .faults
                            .iter()
                            .find(|record| record.fault == fault.name)
                    });
                    let (since, paused) = standing_clock(
                        truth == Truth::Unknown,
                        since,
                        known.map(|known| (Some(known.since), known.paused)),
                        now,
                    );
                    let clearing = self.evidence.clearing(node, &policy.name, &fault.name);
                    Some(FaultRecord {
                        policy: policy.name.clone(),
                        fault: fault.name.clone(),
                        since: since?,
                        paused,
                        clearing_since: clearing,
                    })
                })
            });
        let signals = verdict.signals.iter().cloned().map(|mut signal| {
            let known = before.and_then(|status| {
                status
                    .signals
                    .iter()
                    .find(|record| record.name == signal.name)
            });
            // A condition that no clock runs for is known to hold since it was first seen to.
            if signal.name.starts_with(CONDITION) && signal.state == SignalState::Firing {
                let known = known.filter(|known| known.state != SignalState::Clear);
                let known = known.and_then(|known| known.since);
                signal.since = signal.since.into_iter().chain(known).min().or(Some(now));
            }
            (signal.since, signal.paused) = standing_clock(
                signal.state == SignalState::Unknown || signal.paused.is_some(),
                signal.since,
                known.map(|known| (known.since, known.paused)),
                now,
            );
            signal
        });
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
            signals: signals.collect(),
            faults: faults.collect(),
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

    async fn advance<T: Clock>(
        &self,
        repairs: &mut [NodeRepair],
        known: &Known<'_>,
        scopes: &Scopes,
        clock: &T,
        now: Timestamp,
    ) -> (Option<Timestamp>, Vec<(String, CallError)>) {
        let (mut wake, mut stuck): (Option<Timestamp>, _) = (None, Vec::new());
        for repair in repairs
            .iter_mut()
            .filter(|repair| repair.open() || has_finalizer(repair))
        {
            let context = self.context(repair, known, scopes, clock, now);
            match exec::advance(&self.cluster, &self.cloud, repair, &context).await {
                Ok(next) => wake = [wake, next].into_iter().flatten().min(),
                // One repair that cannot go on now does not stop the others.
                Err(error) => stuck.push((repair.name().to_owned(), error)),
            }
        }
        (wake, stuck)
    }

    fn context<'a, T>(
        &'a self,
        repair: &NodeRepair,
        known: &Known<'_>,
        scopes: &Scopes,
        clock: &'a T,
        now: Timestamp,
    ) -> Context<'a, T> {
        let world = self.world(known);
        let nodes = self.evidence.by_name();
        let node = nodes
            .get(&repair.spec.node_name)
            .filter(|node| node.uid == repair.spec.node_uid);
        let policy = self
            .setup
            .policies
            .iter()
            .find(|policy| policy.name == repair.spec.policy);
        let (fault, since) = match (node, policy) {
            (Some(node), Some(policy)) => {
                self.evidence
                    .fault(node, policy, &repair.spec.fault, &self.setup.rules, now)
            }
            _ => (Truth::Unknown, None),
        };
        // What a person asked for stays asked for.
        let fault = match repair.spec.request {
            Some(_) => Truth::True,
            None => fault,
        };
        let unsettled = node.zip(policy).is_some_and(|(node, policy)| {
            decide::unsettled(node, policy, &repair.spec.fault, &world, now)
        });
        let fault = if self.evidence.nodes_fresh(now) && !unsettled {
            fault
        } else {
            Truth::Unknown
        };
        let by_hand = repair.spec.request.is_some();
        let configured = policy.is_some_and(|policy| {
            let mut faults = policy.faults.iter();
            by_hand || faults.any(|fault| fault.name == repair.spec.fault)
        });
        Context {
            clock,
            epoch: self.epoch().unwrap_or(0),
            nodes,
            fault,
            recovered: fault == Truth::False && since.is_none(),
            abort: repair.metadata.deletion_timestamp.is_some()
                || node.is_some_and(|node| decide::opted_out(node, now)),
            orphaned: !configured,
            superseded: known.repairs.iter().any(|other| {
                let same = other.spec.node_uid == repair.spec.node_uid && other.open();
                same && other.spec.ordinal > repair.spec.ordinal
            }),
            current: self.evidence.nodes_fresh(now),
            paused: decide::pause_reason(node, repair, &world, scopes, now),
        }
    }
}

/// Since when the nodes are not known, as it is on record.
fn nodes_down(fleet: &FleetStateSpec) -> Option<Timestamp> {
    let mut down = fleet.sources_down.iter();
    Some(down.find(|down| down.source == NODES)?.since)
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

fn has_finalizer(repair: &NodeRepair) -> bool {
    repair
        .metadata
        .finalizers
        .as_ref()
        .is_some_and(|finalizers| finalizers.iter().any(|name| name == FINALIZER))
}

fn reserved(repair: &NodeRepair, at: Timestamp) -> Reservation {
    Reservation {
        repair: repair.name().to_owned(),
        node_uid: repair.spec.node_uid.clone(),
        at,
    }
}

fn epoch_of(repair: &NodeRepair) -> u64 {
    let acting = repair.status.as_ref().map_or(0, |status| status.epoch);
    acting.max(repair.spec.epoch)
}

fn new_repair(
    node: &NodeView,
    verdict: &Verdict,
    plan: Plan,
    repairs: &[NodeRepair],
    epoch: u64,
    now: Timestamp,
) -> NodeRepair {
    let ordinal = 1 + repairs
        .iter()
        .filter(|repair| repair.spec.node_uid == node.uid)
        .map(|repair| repair.spec.ordinal)
        .max()
        .unwrap_or(0);
    let name = repair::object_name(&node.name, &node.uid, ordinal);
    let spec = NodeRepairSpec {
        node_name: node.name.clone(),
        node_uid: node.uid.clone(),
        provider_id: node.provider_id.clone(),
        zone: verdict.place.zone.clone(),
        pool: verdict.place.pool.clone(),
        ordinal,
        policy: verdict.policy.to_string(),
        fault: verdict.fault.clone(),
        fault_since: verdict.since.unwrap_or(now),
        evidence: verdict.signals.clone(),
        request: verdict
            .request()
            .cloned()
            .filter(|_| verdict.fault == BY_HAND),
        approval: verdict.approval().cloned(),
        plan,
        epoch,
        quarantine: repair::intent(&name, Step::Quarantine, 1, node.name.clone(), epoch, now),
    };
    let mut repair = NodeRepair::new(&name, spec);
    repair.metadata.finalizers = Some(vec![FINALIZER.into()]);
    repair
}
