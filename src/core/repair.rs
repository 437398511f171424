//! The workflow of one repair: `next` looks at the journal and at what is
//! observed and says what to write, do or wait for; `apply` writes it down.
//! Every effect has its intent in the journal before and its outcome after.

use jiff::Timestamp;

use crate::api::{
    ConditionStatus, Entry, Failure, GaveUp, Intent, LaunchPlan, NodeRepair, NodeRepairStatus,
    Outcome, Phase, Replacement, StatusCondition, Step,
};
use crate::model::{InstanceState, InstanceView, NodeView, Reason, Span, Truth, digest};

/// How often what is under way is looked at again.
const POLL: Span = Span::seconds(5);
/// How long the end state may take to come after the instance is gone, and how
/// long EC2 may not know an instance before a person is asked.
const PATIENCE: Span = Span::minutes(15);

/// What is seen of the world, read live.
#[derive(Clone, Debug)]
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
    /// Why no disruptive step may begin.
    pub paused: Option<Reason>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Write this down, then ask again.
    Write(Change),
    /// Do this, write down what came of it, then ask again.
    Act(Command),
    /// Ask again at this time, or when something changes.
    Wait(Timestamp, String),
    /// Nothing, ever.
    Finished,
}

/// A change of the journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An intent, and the phase that it opens.
    Intend(Step, u32, String, Phase),
    /// What came of the open intent.
    Conclude(Outcome),
    /// The open intent failed and may be tried again.
    Fail(String),
    /// The replacement became Ready.
    Joined(String),
    /// What is waited for.
    Note(String),
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
    /// Evict what can be evicted now.
    Drain,
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
    }
}

/// The entry whose effect is not yet settled. Before the first status write it is the quarantine.
pub fn open_entry(repair: &NodeRepair) -> Option<Entry> {
    match repair.journal().last() {
        None => Some(Entry {
            intent: repair.spec.quarantine.clone(),
            failures: 0,
            last_failure: None,
            outcome: None,
        }),
        Some(entry) if entry.outcome.is_none() => Some(entry.clone()),
        Some(_) => None,
    }
}

/// When an open step that failed may be tried again.
pub fn retry_at(repair: &NodeRepair) -> Option<Timestamp> {
    let entry = open_entry(repair)?;
    Some(backoff(entry.failures).after(entry.last_failure?.at))
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
        return unwind(repair, reason, observed);
    }
    match phase {
        Phase::Pending => Next::Write(Change::Enter(Phase::Quarantined)),
        Phase::Quarantined => gate(observed, now, false).unwrap_or_else(|| launch(repair, 1)),
        Phase::Launching => launching(repair, observed, now),
        Phase::Draining => {
            gate(observed, now, true).unwrap_or_else(|| terminate(repair, observed, now))
        }
        Phase::Terminating => Next::Write(Change::Enter(Phase::Verifying)),
        Phase::Verifying => verify(repair, observed, now),
        Phase::Succeeded | Phase::Aborted | Phase::NeedsHuman | Phase::Unrecognized => {
            Next::Finished
        }
    }
}

/// What stops a disruptive step from beginning. A drain latches the fault: the
/// cure of a disk by moving its pods is no recovery.
fn gate(observed: &Observed, now: Timestamp, latched: bool) -> Option<Next> {
    if observed.abort {
        return Some(Next::Write(Change::GiveUp(
            GaveUp::AbortRequested,
            "asked to give up".into(),
        )));
    }
    if observed.recovered && !latched {
        return Some(Next::Write(Change::GiveUp(
            GaveUp::Recovered,
            "the fault went away".into(),
        )));
    }
    if let Some(reason) = observed.paused {
        return Some(Next::Wait(POLL.after(now), format!("paused: {reason}")));
    }
    if observed.fault != Truth::True && !latched {
        return Some(Next::Wait(
            POLL.after(now),
            format!("the fault is {:?} now", observed.fault),
        ));
    }
    None
}

fn launch(repair: &NodeRepair, attempt: u32) -> Next {
    let token = digest(
        &[
            "client-token",
            &repair.spec.node_uid,
            &repair.spec.ordinal.to_string(),
            &attempt.to_string(),
        ],
        32,
    );
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
    if let Some(node) = observed
        .replacement
        .as_ref()
        .filter(|node| node.ready() && !node.deleting)
    {
        let known = repair
            .status
            .as_ref()
            .and_then(|status| status.replacement.as_ref())
            .is_some_and(|replacement| replacement.ready_since.is_some());
        if !known {
            return Next::Write(Change::Joined(node.name.clone()));
        }
        return gate(observed, now, false).unwrap_or(Next::Write(Change::Intend(
            Step::Drain,
            1,
            repair.spec.node_name.clone(),
            Phase::Draining,
        )));
    }
    let lost = observed
        .launched
        .as_ref()
        .is_some_and(|instance| instance.state == InstanceState::Terminated);
    let deadline = repair.spec.plan.ready_timeout.after(since);
    if lost || now >= deadline {
        return Next::Write(Change::Intend(
            Step::ReturnReplacement,
            attempt,
            instance,
            Phase::Launching,
        ));
    }
    if observed.abort || observed.recovered {
        return gate(observed, now, false).unwrap_or(Next::Wait(POLL.after(now), String::new()));
    }
    Next::Wait(
        POLL.after(now).min(deadline),
        "the replacement is not Ready yet".into(),
    )
}

fn terminate(repair: &NodeRepair, observed: &Observed, now: Timestamp) -> Next {
    if !observed
        .replacement
        .as_ref()
        .is_some_and(|node| node.ready() && !node.deleting)
    {
        return Next::Wait(POLL.after(now), "the replacement is no longer Ready".into());
    }
    Next::Write(Change::Intend(
        Step::Terminate,
        1,
        repair.spec.plan.instance_id.clone(),
        Phase::Terminating,
    ))
}

fn verify(repair: &NodeRepair, observed: &Observed, now: Timestamp) -> Next {
    let ready = observed
        .replacement
        .as_ref()
        .is_some_and(|node| node.ready() && !node.deleting);
    if ready && observed.node.is_none() {
        return Next::Write(Change::Enter(Phase::Succeeded));
    }
    let since = repair
        .last(Step::Terminate)
        .and_then(|entry| entry.outcome.as_ref())
        .map_or(now, |outcome| outcome.at);
    if PATIENCE.after(since) <= now {
        return Next::Write(Change::GiveUp(
            GaveUp::NotVerified,
            if ready {
                "the old node object is still there"
            } else {
                "the replacement is not Ready"
            }
            .into(),
        ));
    }
    Next::Wait(POLL.after(now), "the end state is not there yet".into())
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
        Step::Quarantine if observed.node.is_none() => {
            Next::Write(Change::GiveUp(GaveUp::NodeGone, "the node is gone".into()))
        }
        Step::Quarantine => Next::Act(Command::Cordon),
        Step::Launch => Next::Act(Command::Launch(
            intent.target.clone(),
            repair.spec.plan.launch.clone(),
        )),
        Step::Drain if observed.abort => Next::Write(Change::GiveUp(
            GaveUp::AbortRequested,
            "asked to give up".into(),
        )),
        Step::Drain | Step::Release if observed.node.is_none() => {
            conclude(true, "the node is gone")
        }
        Step::Drain if repair.spec.plan.drain_timeout.after(intent.at) <= now => {
            Next::Write(Change::GiveUp(
                GaveUp::DrainTimeout,
                format!("the drain was not allowed in time: {}", repair.message()),
            ))
        }
        Step::Drain if observed.paused.is_some() => Next::Wait(POLL.after(now), "paused".into()),
        Step::Drain => Next::Act(Command::Drain),
        Step::Terminate => end_instance(
            &intent.target,
            observed.old.as_ref(),
            intent.at,
            now,
            conclude,
            observed.paused,
        ),
        Step::ReturnReplacement => end_instance(
            &intent.target,
            observed.launched.as_ref(),
            intent.at,
            now,
            conclude,
            None,
        ),
        Step::Release => Next::Act(Command::Uncordon),
    }
}

/// Only an observed `terminated` is an end; that EC2 does not know it proves nothing.
fn end_instance(
    id: &str,
    seen: Option<&InstanceView>,
    since: Timestamp,
    now: Timestamp,
    conclude: impl Fn(bool, &str) -> Next,
    paused: Option<Reason>,
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
        Some(_) if paused.is_some() => {
            Next::Wait(POLL.after(now), "paused before termination".into())
        }
        Some(InstanceState::Pending | InstanceState::Running | InstanceState::Other) => {
            Next::Act(Command::Terminate(id.to_owned()))
        }
    }
}

/// Undoes what can be undone. What asks for a person keeps its quarantine.
fn unwind(repair: &NodeRepair, reason: GaveUp, observed: &Observed) -> Next {
    let undo = matches!(reason, GaveUp::Recovered | GaveUp::AbortRequested);
    if undo {
        if let Some(launched) = repair.last(Step::Launch) {
            let instance = launched
                .outcome
                .as_ref()
                .filter(|outcome| outcome.done)
                .map(|outcome| outcome.detail.clone());
            let returned = repair
                .last(Step::ReturnReplacement)
                .is_some_and(|entry| entry.intent.attempt == launched.intent.attempt);
            if let (Some(instance), false) = (instance, returned) {
                return Next::Write(Change::Intend(
                    Step::ReturnReplacement,
                    launched.intent.attempt,
                    instance,
                    repair.phase(),
                ));
            }
        }
        if observed.node.is_some() && repair.last(Step::Release).is_none() {
            return Next::Write(Change::Intend(
                Step::Release,
                1,
                repair.spec.node_name.clone(),
                repair.phase(),
            ));
        }
    }
    Next::Write(Change::Enter(if undo || reason == GaveUp::NodeGone {
        Phase::Aborted
    } else {
        Phase::NeedsHuman
    }))
}

/// 2 s, doubled with each failure, at most 2 minutes.
fn backoff(failures: u32) -> Span {
    Span::seconds((1 << failures.min(7)).clamp(2, 120))
}

/// Writes a change into the status. Phases never go back.
pub fn apply(repair: &mut NodeRepair, change: Change, epoch: u64, now: Timestamp) {
    let name = repair.metadata.name.clone().unwrap_or_default();
    let first = open_entry(repair);
    let trace_id = digest(
        &[
            "trace",
            &repair.spec.node_uid,
            &repair.spec.ordinal.to_string(),
        ],
        32,
    );
    let status = repair.status.get_or_insert_with(NodeRepairStatus::default);
    status.epoch = status.epoch.max(epoch);
    status.trace_id = trace_id;
    if status.journal.is_empty() {
        status.journal.extend(first);
    }
    match change {
        Change::Intend(step, attempt, target, phase) => {
            let intent = intent(&name, step, attempt, target, epoch, now);
            status.journal.push(Entry {
                intent,
                failures: 0,
                last_failure: None,
                outcome: None,
            });
            enter(status, phase, now);
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
            status.message = message;
        }
        Change::Joined(node) => {
            let replacement = status.replacement.get_or_insert_with(Replacement::default);
            replacement.node_name = node;
            replacement.ready_since = Some(now);
        }
        Change::Note(message) => status.message = message,
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
    status.message.clear();
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
