//! The workflow of one repair: `next` looks at the journal and at what is
//! observed and says what to write, do or wait for; `apply` writes it down.
//! Every effect has its intent in the journal before and its outcome after.

mod rungs;

use jiff::Timestamp;

use crate::api::{
    Action, ConditionStatus, Entry, Failure, GaveUp, Held, Intent, LaunchPlan, NodeRepair,
    NodeRepairStatus, Outcome, Phase, Replacement, StatusCondition, Step,
};
use crate::model::{
    InstanceState, InstanceView, NodeView, QUARANTINE_ANNOTATION, Reason, Span, Truth, digest,
};

/// How often what is under way is looked at again.
const POLL: Span = Span::seconds(5);
/// How long the end state may take to come after the instance is gone, and how
/// long EC2 may not know an instance before a person is asked.
const PATIENCE: Span = Span::minutes(15);

/// What is seen of the world, read live.
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, none excludes another"
)]
pub struct Observed {
    /// The node with the journalled UID; none once it is gone.
    pub node: Option<NodeView>,
    /// The old instance, if the cloud knows it.
    pub old: Option<InstanceView>,
    /// The launched instance, if there is one and the cloud knows it.
    pub launched: Option<InstanceView>,
    /// The node that the launched instance became.
    pub replacement: Option<NodeView>,
    /// Whether the fault is true now.
    pub fault: Truth,
    /// Whether it has been false long enough to be called recovered.
    pub recovered: bool,
    /// Whether a person asked to give up.
    pub abort: bool,
    /// Whether the policy or the fault that it rests on is no longer configured.
    pub orphaned: bool,
    /// Whether another Node object stands for the old instance now.
    pub reborn: bool,
    /// Whether a further repair of the node is open.
    pub superseded: bool,
    /// Whether the open intent was committed just now and nothing was tried since.
    pub untried: bool,
    /// Whether the list of nodes is whole and young: only then is a missing node missing.
    pub current: bool,
    /// Why no disruptive step may begin.
    pub paused: Option<Reason>,
}

impl Observed {
    /// Why something is waited for; while no list of nodes is to be had, that comes first.
    fn unless_blind(&self, why: &str) -> String {
        let why = if self.current {
            why
        } else {
            "the list of nodes is empty or old"
        };
        why.to_owned()
    }

    /// Why what was begun is no longer wanted, while the fault is not latched.
    fn unwanted(&self) -> Option<(GaveUp, &'static str)> {
        if self.abort {
            Some((GaveUp::AbortRequested, "asked to give up"))
        } else if self.recovered {
            Some((GaveUp::Recovered, "the fault went away"))
        } else if self.orphaned {
            Some((
                GaveUp::PolicyGone,
                "its policy or fault is no longer configured",
            ))
        } else if self.node.is_none() {
            Some((GaveUp::NodeGone, "the node is gone"))
        } else {
            None
        }
    }
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Write this down, then ask again.
    Write(Change),
    /// Do this, write down what came of it, then ask again.
    Act(Command),
    /// Ask again at this time, or when something changes. The text goes on record, so nothing
    /// in it moves with time.
    Wait(Timestamp, String),
    /// Nothing, ever.
    Finished,
}

/// A change of the journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An intent, and the phase that it opens.
    Intend(Step, u32, String, Phase),
    /// The intent to restart the machine that booted as this: which try, and the bootID.
    IntendReboot(u32, String),
    /// What came of the open intent.
    Conclude(Outcome),
    /// The open intent failed and may be tried again.
    Fail(String),
    /// The replacement became Ready.
    Joined(String),
    /// What is waited for.
    Note(String),
    /// The last step is held from now on, and why: its time stands still.
    Hold(Reason),
    /// It is held no longer.
    Resume,
    /// Begin to give up.
    GiveUp(GaveUp, String),
    /// The next phase.
    Enter(Phase),
}

/// An external effect. Each can be repeated without harm.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Cordon the node and note who did it.
    Cordon,
    /// Take the cordon off, if the quarantine put it on.
    Uncordon,
    /// Start an instance under this client token.
    Launch(String, LaunchPlan),
    /// Find out whether this client token made an instance, and start none.
    Settle(String),
    /// Evict what can be evicted now.
    Drain,
    /// Restart this instance.
    Reboot(String),
    /// End this instance.
    Terminate(String),
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// It is had; for a launch, the instance's id.
    Done(String),
    /// Under way.
    Progress(String),
    /// Certain not to be had, and not tried again.
    Nothing(String),
    /// Not had, or not known; to be tried again.
    Failed(String),
    /// Will never be had.
    Refused(GaveUp, String),
}

/// The repair's own short name, part of every field manager and client token.
pub fn identity(repair: &NodeRepair) -> String {
    format!(
        "{}-{}",
        digest(&[&repair.spec.node_uid], 12),
        repair.spec.ordinal
    )
}

/// The object's own UID: a repair that is deleted and made again under its old name is another.
fn uid(repair: &NodeRepair) -> &str {
    repair.metadata.uid.as_deref().unwrap_or_default()
}

/// `nodemend/<uid hash>-<ordinal>/<step>`, as the audit log shows it.
pub fn field_manager(repair: &NodeRepair, step: Step) -> String {
    format!("nodemend/{}/{step:?}", identity(repair))
}

/// The object's name: readable, valid, never generated.
pub fn object_name(node: &str, uid: &str, ordinal: u32) -> String {
    let head: String = node.chars().take(40).collect();
    format!(
        "{}-{}-{ordinal}",
        head.trim_end_matches(['.', '-']),
        digest(&[uid], 10)
    )
}

/// The intent to write; its nonce tells the writer its own write from another's.
pub fn intent(
    repair: &str,
    step: Step,
    attempt: u32,
    target: String,
    epoch: u64,
    at: Timestamp,
) -> Intent {
    let nonce = digest(
        &[
            repair,
            &format!("{step:?}"),
            &attempt.to_string(),
            &epoch.to_string(),
            &at.to_string(),
        ],
        16,
    );
    Intent {
        step,
        attempt,
        at,
        epoch,
        nonce,
        target,
        boot_id: String::new(),
    }
}

fn open(intent: Intent) -> Entry {
    Entry {
        intent,
        failures: 0,
        last_failure: None,
        held: None,
        outcome: None,
    }
}

/// The entry whose effect is not yet settled. Before the first status write it is the quarantine.
pub fn open_entry(repair: &NodeRepair) -> Option<Entry> {
    match repair.journal().last() {
        None => Some(open(repair.spec.quarantine.clone())),
        Some(entry) if entry.outcome.is_none() => Some(entry.clone()),
        Some(_) => None,
    }
}

/// When an open step that failed may be tried again.
pub fn retry_at(repair: &NodeRepair) -> Option<Timestamp> {
    let entry = open_entry(repair)?;
    Some(backoff(entry.failures).after(entry.last_failure?.at))
}

/// How to write down what is waited for; none if that is on record. Why a repair is given up
/// stays, and so does what a newer version wrote.
pub fn note(repair: &NodeRepair, message: String) -> Option<Change> {
    let status = repair.status.as_ref();
    let ends = status.is_some_and(|status| status.reason.is_some());
    let ours = repair.phase() != Phase::Unrecognized;
    let news = !message.is_empty() && repair.message() != message;
    (ours && news && !ends).then_some(Change::Note(message))
}

/// What to do now. Pure; asking again gives the same answer.
pub fn next(repair: &NodeRepair, observed: &Observed, now: Timestamp) -> Next {
    let phase = repair.phase();
    if phase.terminal() {
        return Next::Finished;
    }
    if phase == Phase::Unrecognized {
        return Next::Wait(
            PATIENCE.after(now),
            "a newer version wrote this phase".into(),
        );
    }
    if let Some(entry) = open_entry(repair) {
        return pursue(repair, &entry, observed, now);
    }
    if let Some(reason) = repair.status.as_ref().and_then(|status| status.reason) {
        return rungs::rest(repair, observed, now)
            .unwrap_or_else(|| unwind(repair, reason, observed));
    }
    match phase {
        Phase::Pending => Next::Write(Change::Enter(Phase::Quarantined)),
        Phase::Quarantined => match repair.spec.plan.action {
            Action::Cordon => rungs::cordoned(repair, observed, now),
            Action::Reboot => gate(observed, now, false)
                .or_else(|| disturbed(repair, observed))
                .unwrap_or_else(|| drain(repair)),
            Action::Replace => gate(observed, now, false).unwrap_or_else(|| launch(repair, 1)),
        },
        Phase::Launching => launching(repair, observed, now),
        Phase::Draining if observed.abort => give_up(GaveUp::AbortRequested, "asked to give up"),
        Phase::Draining => held(repair.last(Step::Drain), observed, now).unwrap_or_else(|| {
            match repair.spec.plan.action {
                Action::Reboot => rungs::reboot(repair, observed, now),
                _ => terminate(repair, observed, now),
            }
        }),
        Phase::Rebooting => rungs::rebooting(repair, observed, now),
        Phase::Terminating => Next::Write(Change::Enter(Phase::Verifying)),
        Phase::Verifying => match repair.spec.plan.action {
            Action::Reboot => rungs::verify(repair, observed, now),
            _ => verify(repair, observed, now),
        },
        Phase::Succeeded
        | Phase::Aborted
        | Phase::NeedsHuman
        | Phase::Escalated
        | Phase::Unrecognized => Next::Finished,
    }
}

/// What stops a disruptive step from beginning. A drain latches the fault: the
/// cure of a disk by moving its pods is no recovery.
fn gate(observed: &Observed, now: Timestamp, latched: bool) -> Option<Next> {
    if observed.abort {
        return Some(give_up(GaveUp::AbortRequested, "asked to give up"));
    }
    if let (Some((reason, why)), false) = (observed.unwanted(), latched) {
        return Some(give_up(reason, why));
    }
    if let Some(reason) = observed.paused {
        return Some(Next::Wait(POLL.after(now), paused(reason)));
    }
    if observed.fault == Truth::True || latched {
        return None;
    }
    let why = match observed.fault {
        Truth::False => "the fault is not true now",
        _ => "it is not known now whether the fault is true",
    };
    Some(Next::Wait(POLL.after(now), observed.unless_blind(why)))
}

/// Waits while a pause or a breaker holds a drain, or what follows it, and writes down when
/// that begins and ends: the time in between does not count, whoever leads.
fn held(entry: Option<&Entry>, observed: &Observed, now: Timestamp) -> Option<Next> {
    let noted = entry.and_then(|entry| entry.held.as_ref());
    let noted = noted.is_some_and(|held| held.until.is_none());
    match observed.paused {
        Some(reason) if noted || entry.is_none() => {
            Some(Next::Wait(POLL.after(now), paused(reason)))
        }
        Some(reason) => Some(Next::Write(Change::Hold(reason))),
        None => noted.then_some(Next::Write(Change::Resume)),
    }
}

fn paused(reason: Reason) -> String {
    format!("paused: {reason}")
}

/// When a drain took too long, without the time that it was held.
fn drain_deadline(repair: &NodeRepair, entry: &Entry, now: Timestamp) -> Timestamp {
    let held = entry.held.as_ref().map(|held| held.total(now));
    let deadline = repair.spec.plan.drain_timeout.after(entry.intent.at);
    held.unwrap_or_default().after(deadline)
}

/// Since when what follows the drain can go on.
fn drained(repair: &NodeRepair) -> Option<Timestamp> {
    let held = repair.last(Step::Drain)?.held.as_ref();
    let resumed = held.and_then(|held| held.until);
    concluded(repair, Step::Drain).max(resumed)
}

/// What must hold of the old node for as long as it is there, from the drain on.
fn disturbed(repair: &NodeRepair, observed: &Observed) -> Option<Next> {
    if observed.reborn {
        return Some(give_up(
            GaveUp::NodeReborn,
            "the machine joined again as another node, which may have taken pods",
        ));
    }
    let node = observed.node.as_ref()?;
    let name = repair.name();
    let ours = node
        .annotations
        .get(QUARANTINE_ANNOTATION)
        .and_then(|value| value.split_once('='))
        .is_some_and(|(owner, _)| owner == name);
    (!ours || !node.unschedulable).then(|| {
        give_up(
            GaveUp::QuarantineLifted,
            "somebody took the cordon or its annotation off",
        )
    })
}

fn give_up(reason: GaveUp, why: &str) -> Next {
    Next::Write(Change::GiveUp(reason, why.to_owned()))
}

fn launch(repair: &NodeRepair, attempt: u32) -> Next {
    let token = digest(&["client-token", uid(repair), &attempt.to_string()], 32);
    Next::Write(Change::Intend(
        Step::Launch,
        attempt,
        token,
        Phase::Launching,
    ))
}

fn launching(repair: &NodeRepair, observed: &Observed, now: Timestamp) -> Next {
    let Some(launched) = repair.last(Step::Launch) else {
        return launch(repair, 1);
    };
    let attempt = launched.intent.attempt;
    let instance = launched
        .outcome
        .as_ref()
        .filter(|outcome| outcome.done)
        .map(|outcome| outcome.detail.clone());
    let returned = repair
        .last(Step::ReturnReplacement)
        .is_some_and(|entry| entry.intent.attempt == attempt);
    let (Some(instance), false) = (instance, returned) else {
        // The attempt is proven to have left nothing behind.
        return if attempt < repair.spec.plan.max_attempts {
            gate(observed, now, false).unwrap_or_else(|| launch(repair, attempt + 1))
        } else {
            Next::Write(Change::GiveUp(
                GaveUp::ReplacementNotReady,
                format!("no replacement became Ready in {attempt} attempts"),
            ))
        };
    };
    let since = launched
        .outcome
        .as_ref()
        .map_or(launched.intent.at, |outcome| outcome.at);
    let joined = repair
        .status
        .as_ref()
        .and_then(|status| status.replacement.as_ref())
        .is_some_and(|replacement| replacement.ready_since.is_some());
    if let Some(node) = ready(observed) {
        if !joined {
            return Next::Write(Change::Joined(node.name.clone()));
        }
        return gate(observed, now, false)
            .or_else(|| disturbed(repair, observed))
            .unwrap_or_else(|| drain(repair));
    }
    let lost = observed
        .launched
        .as_ref()
        .is_some_and(|instance| instance.state == InstanceState::Terminated);
    let deadline = repair.spec.plan.ready_timeout.after(since);
    // Once it was Ready it may have pods: then only its end is an end.
    if lost || (!joined && observed.current && now >= deadline) {
        return Next::Write(Change::Intend(
            Step::ReturnReplacement,
            attempt,
            instance,
            Phase::Launching,
        ));
    }
    if let Some((reason, why)) = observed.unwanted() {
        return give_up(reason, why);
    }
    let why = observed.unless_blind("the replacement is not Ready yet");
    Next::Wait(POLL.after(now), why)
}

fn drain(repair: &NodeRepair) -> Next {
    let node = repair.spec.node_name.clone();
    Next::Write(Change::Intend(Step::Drain, 1, node, Phase::Draining))
}

/// The new node, while it can take pods.
fn ready(observed: &Observed) -> Option<&NodeView> {
    observed
        .replacement
        .as_ref()
        .filter(|node| node.ready() && !node.deleting)
}

fn terminate(repair: &NodeRepair, observed: &Observed, now: Timestamp) -> Next {
    if let Some(disturbed) = disturbed(repair, observed) {
        return disturbed;
    }
    if ready(observed).is_none() {
        let since = drained(repair).unwrap_or(now);
        if PATIENCE.after(since) <= now {
            return give_up(
                GaveUp::ReplacementNotReady,
                "the replacement was Ready and is no longer",
            );
        }
        let why = observed.unless_blind("the replacement is no longer Ready");
        return Next::Wait(POLL.after(now), why);
    }
    Next::Write(Change::Intend(
        Step::Terminate,
        1,
        repair.spec.plan.instance_id.clone(),
        Phase::Terminating,
    ))
}

/// When the last try of a step had its outcome.
fn concluded(repair: &NodeRepair, step: Step) -> Option<Timestamp> {
    Some(repair.last(step)?.outcome.as_ref()?.at)
}

fn verify(repair: &NodeRepair, observed: &Observed, now: Timestamp) -> Next {
    let ready = ready(observed).is_some();
    if ready && observed.node.is_none() {
        return Next::Write(Change::Enter(Phase::Succeeded));
    }
    let why = if ready {
        "the old node object is still there"
    } else {
        "the replacement is not Ready"
    };
    let since = concluded(repair, Step::Terminate).unwrap_or(now);
    if PATIENCE.after(since) <= now {
        return give_up(GaveUp::NotVerified, why);
    }
    Next::Wait(POLL.after(now), observed.unless_blind(why))
}

/// Settles the open intent: look first, then do, and after a failure wait.
fn pursue(repair: &NodeRepair, entry: &Entry, observed: &Observed, now: Timestamp) -> Next {
    if let (Some(until), Some(failure)) = (retry_at(repair), &entry.last_failure)
        && until > now
    {
        return Next::Wait(until, failure.message.clone());
    }
    let intent = &entry.intent;
    let conclude = |done: bool, detail: &str| {
        Next::Write(Change::Conclude(Outcome {
            at: now,
            done,
            detail: detail.into(),
        }))
    };
    match intent.step {
        Step::Quarantine => gate(observed, now, false).unwrap_or(Next::Act(Command::Cordon)),
        Step::Launch => pursue_launch(repair, entry, observed, now),
        Step::Drain if observed.abort => give_up(GaveUp::AbortRequested, "asked to give up"),
        Step::Drain if observed.node.is_none() && !observed.reborn => {
            conclude(true, "the node is gone")
        }
        Step::Drain => held(Some(entry), observed, now).unwrap_or_else(|| {
            if drain_deadline(repair, entry, now) <= now {
                let why = format!("the drain did not end in time: {}", repair.message());
                return give_up(GaveUp::DrainTimeout, &why);
            }
            disturbed(repair, observed).unwrap_or(Next::Act(Command::Drain))
        }),
        Step::Release if observed.node.is_none() => conclude(true, "the node is gone"),
        Step::Reboot => rungs::pursue_reboot(intent, observed, now, conclude),
        Step::Terminate => end_instance(
            &intent.target,
            observed.old.as_ref(),
            intent.at,
            now,
            conclude,
            || disturbed(repair, observed).or_else(|| hold(observed, now)),
        ),
        Step::ReturnReplacement => end_instance(
            &intent.target,
            observed.launched.as_ref(),
            intent.at,
            now,
            conclude,
            || None,
        ),
        Step::Release => Next::Act(Command::Uncordon),
    }
}

fn hold(observed: &Observed, now: Timestamp) -> Option<Next> {
    let reason = observed.paused?;
    Some(Next::Wait(
        POLL.after(now),
        format!("paused before termination: {reason}"),
    ))
}

/// How long after its last try EC2 may still come to know an instance under a token.
const TOKEN_SETTLES: Span = Span::minutes(5);

/// A launch goes on until it is had, no longer wanted, or takes too long. Then it is
/// first made certain that it made nothing.
fn pursue_launch(repair: &NodeRepair, entry: &Entry, observed: &Observed, now: Timestamp) -> Next {
    let intent = &entry.intent;
    let late = repair.spec.plan.ready_timeout.after(intent.at) <= now;
    if let (None, false, Some(plan)) = (observed.unwanted(), late, &repair.spec.plan.launch) {
        return Next::Act(Command::Launch(intent.target.clone(), plan.clone()));
    }
    let tried = entry
        .last_failure
        .as_ref()
        .map_or(intent.at, |failure| failure.at);
    let certain = TOKEN_SETTLES.after(tried);
    if certain > now {
        return Next::Wait(
            certain,
            "it is not certain yet that nothing was launched".into(),
        );
    }
    Next::Act(Command::Settle(intent.target.clone()))
}

/// Only an observed `terminated` is an end; that EC2 does not know it proves nothing.
fn end_instance(
    id: &str,
    seen: Option<&InstanceView>,
    since: Timestamp,
    now: Timestamp,
    conclude: impl Fn(bool, &str) -> Next,
    gate: impl FnOnce() -> Option<Next>,
) -> Next {
    match seen.map(|instance| instance.state) {
        Some(InstanceState::Terminated) => conclude(true, "terminated"),
        Some(InstanceState::ShuttingDown) => {
            Next::Wait(Span::seconds(2).after(now), "shutting down".into())
        }
        None if PATIENCE.after(since) <= now => Next::Write(Change::GiveUp(
            GaveUp::NotVerified,
            format!("EC2 does not know {id}"),
        )),
        None => Next::Wait(POLL.after(now), format!("EC2 does not know {id}")),
        Some(InstanceState::Pending | InstanceState::Running | InstanceState::Other) => {
            gate().unwrap_or_else(|| Next::Act(Command::Terminate(id.to_owned())))
        }
    }
}

/// Undoes what can be undone. What asks for a person keeps its quarantine. A
/// replacement that was Ready stays: pods may run on it.
fn unwind(repair: &NodeRepair, reason: GaveUp, observed: &Observed) -> Next {
    let undo = matches!(
        reason,
        GaveUp::Recovered | GaveUp::AbortRequested | GaveUp::PolicyGone | GaveUp::NodeGone
    );
    if undo {
        let replacement = repair
            .status
            .as_ref()
            .and_then(|status| status.replacement.as_ref())
            .filter(|replacement| replacement.ready_since.is_none());
        if let (Some(replacement), Some(launched)) = (replacement, repair.last(Step::Launch)) {
            return Next::Write(Change::Intend(
                Step::ReturnReplacement,
                launched.intent.attempt,
                replacement.instance_id.clone(),
                repair.phase(),
            ));
        }
        if observed.node.is_some() && repair.last(Step::Release).is_none() {
            return release(repair);
        }
    }
    Next::Write(Change::Enter(if undo {
        Phase::Aborted
    } else {
        Phase::NeedsHuman
    }))
}

fn release(repair: &NodeRepair) -> Next {
    let node = repair.spec.node_name.clone();
    Next::Write(Change::Intend(Step::Release, 1, node, repair.phase()))
}

/// 2 s, doubled with each failure, at most 2 minutes.
fn backoff(failures: u32) -> Span {
    Span::seconds((1 << failures.min(7)).clamp(2, 120))
}

/// Writes a change into the status. Phases never go back.
pub fn apply(repair: &mut NodeRepair, change: Change, epoch: u64, now: Timestamp) {
    let name = repair.name().to_owned();
    let first = open_entry(repair);
    let trace_id = digest(&["trace", uid(repair)], 32);
    let status = repair.status.get_or_insert_with(NodeRepairStatus::default);
    status.epoch = status.epoch.max(epoch);
    status.trace_id = trace_id;
    if status.journal.is_empty() {
        status.journal.extend(first);
    }
    let goes_on = matches!(
        change,
        Change::Intend(..) | Change::IntendReboot(..) | Change::Joined(_) | Change::Enter(_)
    );
    // What was waited for is over; why it is given up stays.
    if goes_on && status.reason.is_none() {
        status.message.clear();
    }
    match change {
        Change::Intend(step, attempt, target, phase) => {
            let intent = intent(&name, step, attempt, target, epoch, now);
            status.journal.push(open(intent));
            enter(status, phase, now);
        }
        Change::IntendReboot(attempt, boot_id) => {
            let target = repair.spec.plan.instance_id.clone();
            let intent = Intent {
                boot_id,
                ..intent(&name, Step::Reboot, attempt, target, epoch, now)
            };
            status.journal.push(open(intent));
            enter(status, Phase::Rebooting, now);
        }
        Change::Conclude(outcome) => conclude(status, outcome),
        Change::Fail(message) => {
            if let Some(entry) = status.journal.last_mut() {
                entry.failures += 1;
                entry.last_failure = Some(Failure {
                    at: now,
                    message: message.clone(),
                });
            }
            if status.reason.is_none() {
                status.message = message;
            }
        }
        Change::Joined(node) => {
            let replacement = status.replacement.get_or_insert_with(Replacement::default);
            replacement.node_name = node;
            replacement.ready_since = Some(now);
        }
        Change::Note(message) => status.message = message,
        Change::Hold(reason) => {
            if let Some(entry) = status.journal.last_mut() {
                let before = entry
                    .held
                    .take()
                    .map_or(0, |held| held.total(now).as_seconds());
                entry.held = Some(Held {
                    since: now,
                    until: None,
                    seconds_before: u32::try_from(before).unwrap_or(u32::MAX),
                });
            }
            status.message = paused(reason);
        }
        Change::Resume => {
            let last = status.journal.last_mut();
            if let Some(held) = last.and_then(|entry| entry.held.as_mut()) {
                held.until = Some(now);
            }
            status.message.clear();
        }
        Change::GiveUp(reason, message) => {
            if let Some(entry) = status
                .journal
                .last_mut()
                .filter(|entry| entry.outcome.is_none())
            {
                entry.outcome = Some(Outcome {
                    at: now,
                    done: false,
                    detail: message.clone(),
                });
            }
            status.reason = Some(reason);
            status.message = message;
        }
        Change::Enter(phase) => enter(status, phase, now),
    }
}

fn conclude(status: &mut NodeRepairStatus, outcome: Outcome) {
    let Some(entry) = status.journal.last_mut() else {
        return;
    };
    match (entry.intent.step, outcome.done) {
        (Step::Quarantine, true) => {
            status.was_unschedulable = outcome.detail == WAS_UNSCHEDULABLE;
        }
        (Step::Launch, true) => {
            status.replacement = Some(Replacement {
                instance_id: outcome.detail.clone(),
                ..Replacement::default()
            });
        }
        (Step::ReturnReplacement, true) => status.replacement = None,
        _ => {}
    }
    entry.outcome = Some(outcome);
    if status.reason.is_none() {
        status.message.clear();
    }
}

/// What a quarantine reports of a node that was cordoned before.
pub const WAS_UNSCHEDULABLE: &str = "was unschedulable";

fn enter(status: &mut NodeRepairStatus, phase: Phase, now: Timestamp) {
    status.phase = status.phase.max(phase);
    if phase.terminal() {
        status.ended = Some(now);
        let done = phase == Phase::Succeeded;
        status.conditions = vec![StatusCondition {
            type_: "Succeeded".into(),
            status: if done {
                ConditionStatus::True
            } else {
                ConditionStatus::False
            },
            reason: status
                .reason
                .map_or_else(|| format!("{phase:?}"), |reason| format!("{reason:?}")),
            message: status.message.clone(),
            last_transition_time: now,
        }];
    }
}

#[cfg(test)]
mod tests;
