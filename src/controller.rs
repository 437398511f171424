//! The loop of the leader: take in what changed, decide, commit, act. One `pass`
//! reads the records afresh, so that nothing rests on having seen an edge.

mod fleet;
mod healths;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use futures_util::future::join_all;
use jiff::Timestamp;
use nodemend_core::api::{
    Action, AlertGroup, AlertGroupSpec, BY_HAND, FINALIZER, FleetState, GuardRecord, Mode,
    NodeHealth, NodeRepair, NodeRepairSpec, ObservedStart, Plan, Reservation, Score, Step,
};
use nodemend_core::config::{Limits, Policy, Rule, Rules};
use nodemend_core::decide::{self, Admission, Fallen, Observed, Pause, Scopes, Verdict, World};
use nodemend_core::evidence::{self, Evidence, Input};
use nodemend_core::model::{
    APPROVED_ANNOTATION, NodeView, REQUEST_ANNOTATION, Reason, Span, Truth, VerdictKind,
};
use nodemend_core::repair;

use self::fleet::{nodes_down, reserved};
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
    /// Deletes a repair that ended, if it is still the one that was read.
    async fn forget_repair(&self, repair: &NodeRepair) -> Result<(), CallError>;
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
    /// Repairs that a call without answer held up in the last pass.
    stuck: BTreeSet<String>,
}

/// `FleetState` holds so many guards.
const MAX_GUARDS: usize = 100;
/// How long a node for which no plan could be made is left alone.
const REPLAN: Span = Span::minutes(1);
/// How often admission begins again without nodes that turned out to have no plan.
const MAX_ADMISSIONS: usize = 10;

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
            stuck: BTreeSet::new(),
        }
    }

    /// Takes these policies from now on. Faults that mean the same keep their clocks, also
    /// while their policy is refused: what it last meant is watched on, and nothing acts on it.
    pub fn adopt(&mut self, mut policies: Vec<Policy>) {
        for old in &self.setup.policies {
            let mut new = policies.iter_mut().find(|new| new.name == old.name);
            if let Some(refused) = new.as_mut().filter(|new| !new.accepted) {
                refused.faults.clone_from(&old.faults);
            }
            for fault in &old.faults {
                if !new
                    .as_ref()
                    .is_some_and(|new| old.same_fault(new, &fault.name))
                {
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
        let (mut verdicts, mut starting, mut guards) = self
            .admit(judged, &scopes, &known, (fleet.spec.epoch, now), clock)
            .await;
        let shadow = decide::shadow(&mut verdicts, &self.world(&known), now);
        fleet.spec.observed = shadow.starts;
        guards.extend(shadow.guards);
        fleet.spec.guards = guards.iter().take(MAX_GUARDS).cloned().collect();
        // What was seen is too old by now to begin something on.
        if !clock.may_begin() {
            starting.clear();
        }
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
        self.stuck = stuck.iter().map(|(repair, _)| repair.clone()).collect();
        let (healths, unrecorded) = match recorded {
            Ok(healths) => (healths, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        self.collect(&known, now).await;
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

    /// Deletes repairs that ended long ago, and alert groups of which every alert is
    /// forgotten. What somebody changed meanwhile is left, and whatever fails is for a later
    /// pass.
    async fn collect(&self, known: &Known<'_>, now: Timestamp) {
        let world = self.world(known);
        let past = decide::forgettable(&world, now);
        let past = past.filter(|repair| !has_finalizer(repair));
        for repair in past.take(MAX_COLLECTED) {
            match self.cluster.forget_repair(repair).await {
                Ok(()) | Err(CallError::Conflict(_)) => {}
                Err(_) => return,
            }
        }
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

    /// Those who may start, each with a complete repair, and the numbers of the guards. Who
    /// cannot be planned for is held, and takes nobody's place.
    async fn admit<T: Clock>(
        &mut self,
        judged: Vec<Verdict>,
        scopes: &Scopes,
        known: &Known<'_>,
        (epoch, now): (u64, Timestamp),
        clock: &T,
    ) -> (Vec<Verdict>, Vec<NodeRepair>, Vec<GuardRecord>) {
        let mut hangs = false;
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
                let asks = verdict
                    .action
                    .is_none_or(|(next, _)| next != Action::Cordon);
                let plan = if hangs && asks {
                    Err(Reason::CloudUnavailable)
                } else {
                    self.plan(verdict).await
                };
                match plan {
                    Ok(plan) => {
                        plans.insert(verdict.uid.clone(), plan);
                    }
                    Err(reason) => {
                        // One that took all of the pass would take the next for each of them.
                        hangs |= reason == Reason::CloudUnavailable && !clock.may_begin();
                        let until = REPLAN.after(clock.now());
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

    async fn advance<T: Clock>(
        &self,
        repairs: &mut [NodeRepair],
        known: &Known<'_>,
        scopes: &Scopes,
        clock: &T,
        now: Timestamp,
    ) -> (Option<Timestamp>, Vec<(String, CallError)>) {
        let (mut wake, mut stuck): (Option<Timestamp>, Vec<_>) = (None, Vec::new());
        let open = repairs.iter_mut();
        let mut open: Vec<_> = open
            .filter(|repair| repair.open() || has_finalizer(repair))
            .collect();
        // Who waits for a call that hangs comes last, and leaves the others time.
        open.sort_by_key(|repair| self.stuck.contains(repair.name()));
        for repair in open {
            if !stuck.is_empty() && !clock.may_begin() {
                return (Some(now), stuck);
            }
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
            !policy.accepted || by_hand || faults.any(|fault| fault.name == repair.spec.fault)
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

fn has_finalizer(repair: &NodeRepair) -> bool {
    repair
        .metadata
        .finalizers
        .as_ref()
        .is_some_and(|finalizers| finalizers.iter().any(|name| name == FINALIZER))
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
