//! Why a node is, or is not, repaired.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use nodemend_core::api::{
    Action, BY_HAND, Decision, FaultRecord, FleetStateSpec, Inputs, NodeHealth, NodeHealthStatus,
    RepairPause, RepairPolicy, Severity, SignalRecord, SilenceRecord, SourceDown,
};
use nodemend_core::decide::{Pause, approval, by_hand::overridable};
use nodemend_core::evidence::CLEAR_AFTER;
use nodemend_core::model::{NodeView, Reason, SignalState, Span, Truth, VerdictKind};
use serde::Serialize;

use super::alone::left_alone;
use super::{
    LeftAlone, NoLeader, Records, RepairLine, Text, history, lasted, overrides, remedy, since, time,
};

/// How many repairs of the node are told.
const MAX_REPAIRS: usize = 10;

/// All that is known of one node, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// That nobody leads: then the rest is of the past.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_leader: Option<NoLeader>,
    /// The node.
    pub node: String,
    /// Whether its object says Ready, if it is there and may be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Why it is left alone, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_alone: Option<LeftAlone>,
    /// The verdict; none without a record.
    pub verdict: Option<VerdictKind>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When the node went away, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<Timestamp>,
    /// The policy that speaks for it.
    pub policy: String,
    /// The fault that leads.
    pub fault: String,
    /// What each signal says.
    pub signals: Vec<SignalRecord>,
    /// The faults that are true, or were and are not known now, or not over.
    pub faults: Vec<FaultLine>,
    /// What holds its repair.
    pub holds: Vec<Hold>,
    /// The silences that hold the fault.
    pub silences: Vec<SilenceRecord>,
    /// Sources that are down: what they would say is not known, of no node.
    pub sources_down: Vec<SourceDown>,
    /// Its repairs, the newest first.
    pub repairs: Vec<RepairLine>,
    /// The last changes of the verdict, the newest last, with what each rests on.
    pub decisions: Vec<Decision>,
    /// The trace of the last one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    #[serde(skip)]
    now: Timestamp,
}

/// How far a fault is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultLine {
    /// Its name.
    pub name: String,
    /// Whether it is true, or not known.
    pub truth: Truth,
    /// Since when it is false, if it is: it is over once that is so for `CLEAR_AFTER`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clearing_since: Option<Timestamp>,
    /// Since when it is true; of one that is not, since when it was before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How long that is, without gaps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lasted: Option<Span>,
    /// True this long before it is due.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub for_: Option<Span>,
    /// How urgent it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
}

/// A guard that says no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Its reason.
    pub reason: Reason,
    /// Over what it counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// How many may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// How many are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u32>,
    /// When time alone ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What else is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What would have to change.
    pub change: &'static str,
    /// Whether `nodemend repair --override` may ignore it.
    pub overridable: bool,
}

/// What is known of a node of this name; none if it is on no record. `node` is its object, if
/// it is there and may be read.
pub fn explain(
    name: &str,
    node: Option<&NodeView>,
    records: &Records,
    now: Timestamp,
) -> Option<Explanation> {
    let repairs = history(&records.repairs, Some(name), MAX_REPAIRS);
    let health = health_of(name, node, &records.healths);
    if node.is_none() && health.is_none() && repairs.is_empty() {
        return None;
    }
    let fleet = records.fleet.as_ref().map(|fleet| &fleet.spec);
    let mut explanation = Explanation {
        no_leader: records.lead.nobody(now),
        node: name.to_owned(),
        ready: node.map(NodeView::ready),
        left_alone: node.and_then(|node| left_alone(node, &records.policies)),
        verdict: None,
        since: None,
        gone: None,
        policy: String::new(),
        fault: String::new(),
        signals: Vec::new(),
        faults: Vec::new(),
        holds: Vec::new(),
        silences: Vec::new(),
        sources_down: fleet.map_or_else(Vec::new, |fleet| fleet.sources_down.clone()),
        repairs,
        decisions: Vec::new(),
        trace_id: String::new(),
        now,
    };
    let Some(status) = health.and_then(|health| health.status.as_ref()) else {
        // A policy from a file may speak for it and find nothing.
        if explanation.ready == Some(true) && explanation.left_alone == Some(LeftAlone::NoPolicy) {
            explanation.left_alone = None;
        }
        return Some(explanation);
    };
    if status.verdict != VerdictKind::Ignored {
        explanation.left_alone = None;
    }
    explanation.verdict = Some(status.verdict);
    explanation.since = Some(status.since);
    explanation.gone = status.gone;
    explanation.policy.clone_from(&status.policy);
    explanation.fault.clone_from(&status.fault);
    explanation.signals.clone_from(&status.signals);
    explanation.faults = faults(status, &records.policies, now);
    explanation.holds = holds(status, node, fleet, &records.pauses, now);
    explanation.silences.clone_from(&status.silences);
    explanation.decisions.clone_from(&status.decisions);
    explanation.trace_id.clone_from(&status.trace_id);
    Some(explanation)
}

/// Of records of one name, that of the node that is there; else the newest.
fn health_of<'a>(
    name: &str,
    node: Option<&NodeView>,
    healths: &'a [NodeHealth],
) -> Option<&'a NodeHealth> {
    let of = |health: &&NodeHealth| match node {
        Some(node) => health.spec.node_uid == node.uid,
        None => health.spec.node_name == name,
    };
    let since = |health: &&NodeHealth| health.status.as_ref().map(|status| status.since);
    healths.iter().filter(of).max_by_key(since)
}

fn faults(status: &NodeHealthStatus, policies: &[RepairPolicy], now: Timestamp) -> Vec<FaultLine> {
    let last = status.decisions.last().map(|decision| &decision.inputs);
    let inputs = last.map_or(&[][..], |inputs| &inputs.faults);
    let object = policies
        .iter()
        .find(|policy| policy.metadata.name.as_ref() == Some(&status.policy));
    let clocks = status.faults.iter().map(|clock| {
        let FaultRecord { fault, since, .. } = clock;
        let truth = match (clock.paused, clock.clearing_since) {
            (Some(_), _) => Truth::Unknown,
            (None, Some(_)) => Truth::False,
            (None, None) => Truth::True,
        };
        let stopped = clock.paused.or(clock.clearing_since).unwrap_or(now);
        (fault, truth, Some(*since), Some(lasted(*since, stopped)))
    });
    let clearing = |name: &str| {
        let mut clocks = status.faults.iter();
        clocks.find(|clock| clock.fault == name)?.clearing_since
    };
    let clocked = |name: &str| status.faults.iter().any(|clock| clock.fault == name);
    let others = inputs.iter().filter(|fault| !clocked(&fault.name));
    let others = others.map(|fault| (&fault.name, fault.truth, fault.since, None));
    clocks
        .chain(others)
        .map(|(name, truth, since, lasted)| {
            let input = inputs.iter().find(|fault| fault.name == *name);
            let written = object.and_then(|policy| {
                let mut faults = policy.spec.faults.iter();
                faults.find(|fault| fault.name == *name)
            });
            let known = input.map(|fault| (fault.for_, fault.severity));
            let known = known.or_else(|| written.map(|fault| (fault.for_, fault.severity)));
            FaultLine {
                name: name.clone(),
                truth,
                clearing_since: clearing(name),
                since,
                lasted,
                for_: known.map(|(for_, _)| for_),
                severity: known.map(|(_, severity)| severity),
            }
        })
        .collect()
}

fn holds(
    status: &NodeHealthStatus,
    node: Option<&NodeView>,
    fleet: Option<&FleetStateSpec>,
    pauses: &[RepairPause],
    now: Timestamp,
) -> Vec<Hold> {
    let last = status.decisions.last().map(|decision| &decision.inputs);
    let mut found = Vec::new();
    for reason in &status.reasons {
        // The fleet's numbers are of now, the decision's of when it was come to.
        let current = fleet.map_or(&[][..], |fleet| &fleet.guards);
        let then = last.map_or(&[][..], |inputs| &inputs.guards);
        let mut guards: Vec<Hold> = Vec::new();
        for guard in current.iter().chain(then) {
            let here = guard.reason == *reason && status.scopes.contains(&guard.scope);
            let known = guards
                .iter()
                .any(|hold| hold.scope.as_ref() == Some(&guard.scope));
            if here && !known {
                guards.push(Hold {
                    scope: Some(guard.scope.clone()),
                    limit: Some(guard.limit),
                    current: Some(guard.current),
                    until: guard.until,
                    ..hold(*reason)
                });
            }
        }
        if guards.is_empty() {
            let (until, detail) = match reason {
                Reason::Paused => paused_by(status, node, pauses, now),
                Reason::Silenced => (ends(&status.silences), None),
                Reason::AwaitingApproval => (None, Some(approval(status, node, now))),
                _ => (last.and_then(|inputs| until(*reason, inputs)), None),
            };
            guards.push(Hold {
                until,
                detail,
                ..hold(*reason)
            });
        }
        found.extend(guards);
    }
    found
}

/// What is next about the fault that leads, as its last decision has it.
pub fn next_action(status: &NodeHealthStatus) -> Option<Action> {
    let decision = status.decisions.last()?;
    let mut faults = decision.inputs.faults.iter();
    faults.find(|fault| fault.name == status.fault)?.action
}

/// What waits for approval, and what the node's annotation approves instead.
fn approval(status: &NodeHealthStatus, node: Option<&NodeView>, now: Timestamp) -> String {
    let action = next_action(status).map(|action| format!("{action:?} for "));
    let mut told = format!(
        "{}{}/{}",
        action.unwrap_or_default(),
        status.policy,
        status.fault
    );
    let written = node.and_then(|node| approval::read(node, now));
    let _ = match written {
        None => Ok(()),
        Some(Err(why)) => write!(told, "; the approval on the node does not count: {why}"),
        Some(Ok(other)) => write!(
            told,
            "; the approval on the node is of {:?} for {}/{} until {}, once",
            other.action,
            other.policy,
            other.fault,
            time(other.until)
        ),
    };
    told
}

/// When a silence's hold ends, if each ends by itself.
fn ends(silences: &[SilenceRecord]) -> Option<Timestamp> {
    silences.iter().map(|silence| silence.ends_at).max()
}

fn hold(reason: Reason) -> Hold {
    Hold {
        reason,
        scope: None,
        limit: None,
        current: None,
        until: None,
        detail: None,
        change: remedy(reason),
        overridable: overridable(reason),
    }
}

/// When time alone ends what was known of the node itself.
fn until(reason: Reason, inputs: &Inputs) -> Option<Timestamp> {
    let standing = inputs.standing.as_ref()?;
    match reason {
        Reason::TooYoung => standing.mature_at,
        Reason::OptedOut => standing
            .opted_out_until
            .filter(|until| *until < Timestamp::MAX),
        _ => None,
    }
}

/// The pauses that may cover a node, by name and reason, and when the last of them ends.
fn paused_by(
    status: &NodeHealthStatus,
    node: Option<&NodeView>,
    pauses: &[RepairPause],
    now: Timestamp,
) -> (Option<Timestamp>, Option<String>) {
    let covers =
        |pause: &&RepairPause| Pause::from(pause.spec.clone()).covers(node, &status.policy, now);
    let covering: Vec<&RepairPause> = pauses.iter().filter(covers).collect();
    let ends: Option<Vec<Timestamp>> = covering.iter().map(|pause| pause.spec.until).collect();
    let told: Vec<String> = covering
        .iter()
        .map(|pause| {
            let name = pause.metadata.name.as_deref().unwrap_or_default();
            format!("{name}: {}", pause.spec.reason)
        })
        .collect();
    let detail = Some(told.join("; ")).filter(|told| !told.is_empty());
    (ends.and_then(|ends| ends.into_iter().max()), detail)
}

/// What holds the repair that a person asked for, and how it may be told to be ignored.
pub fn hold_by_hand(explanation: &Explanation) -> String {
    let mut text = Text::default();
    text.holds(&explanation.holds, explanation.now);
    let reasons = explanation.holds.iter().map(|hold| hold.reason);
    let mut reasons: Vec<Reason> = reasons.collect();
    reasons.dedup();
    let flags = overrides(&reasons);
    let rest: Vec<String> = reasons
        .iter()
        .filter(|reason| !overridable(**reason))
        .map(ToString::to_string)
        .collect();
    match (flags.is_empty(), rest.is_empty()) {
        (false, true) => text.line(format_args!("ignored with{flags}")),
        (false, false) => text.line(format_args!(
            "ignored with{flags}, but for {}",
            rest.join(", ")
        )),
        (true, _) => text.line(format_args!("no --override ignores that")),
    }
    text.0
}

impl Text {
    fn verdict(&mut self, told: &Explanation, verdict: VerdictKind, at: Timestamp) {
        let now = told.now;
        let mut reasons: Vec<String> = told
            .holds
            .iter()
            .map(|hold| hold.reason.to_string())
            .collect();
        reasons.dedup();
        let reasons = match reasons.join(", ") {
            none if none.is_empty() => none,
            some => format!(": {some}"),
        };
        self.line(format_args!("{} is {verdict:?}{reasons}", told.node));
        let mut about = format!("  since {}", since(at, now));
        if !told.fault.is_empty() {
            let _ = write!(about, ", fault {}", told.fault);
        }
        if !told.policy.is_empty() {
            let _ = write!(about, ", policy {}", told.policy);
        }
        self.line(format_args!("{about}"));
        if let Some(gone) = told.gone {
            self.line(format_args!(
                "  the node is gone since {}",
                since(gone, now)
            ));
        }
    }

    fn no_record(&mut self, told: &Explanation) {
        let known = match (told.ready, &told.left_alone) {
            (None, _) => ": nothing is known against it, or no policy speaks for it",
            (Some(false), _) => ", though not Ready",
            (Some(true), None) => ": nothing is known against it",
            (Some(true), Some(_)) => "",
        };
        self.line(format_args!("{} is on no record{known}", told.node));
    }

    fn holds(&mut self, holds: &[Hold], now: Timestamp) {
        for hold in holds {
            let mut what = format!("  {}", hold.reason);
            if let Some(scope) = &hold.scope {
                let _ = write!(what, " {scope}");
            }
            if let (Some(current), Some(limit)) = (hold.current, hold.limit)
                && (current, limit) != (0, 0)
            {
                let _ = write!(what, ": {current}, {limit} allowed");
            }
            if let Some(detail) = &hold.detail {
                let _ = write!(what, " ({detail})");
            }
            self.line(format_args!("{what}"));
            let mut change = format!("    until {}", hold.change);
            if let Some(until) = hold.until {
                let _ = write!(
                    change,
                    "; by time {} (in {})",
                    time(until),
                    lasted(now, until)
                );
            }
            self.line(format_args!("{change}"));
        }
    }

    fn signals(&mut self, signals: &[SignalRecord], now: Timestamp) {
        let rows: Vec<Vec<String>> = signals
            .iter()
            .map(|signal| {
                let state = match signal.state {
                    SignalState::Firing => "firing",
                    SignalState::Clear => "clear",
                    SignalState::Unknown => "unknown",
                };
                let clock = match (signal.since, signal.paused) {
                    (Some(at), Some(paused)) => format!(
                        "fired since {}, not known since {}",
                        time(at),
                        since(paused, now)
                    ),
                    (Some(at), None) => format!("since {}", since(at, now)),
                    (None, _) => String::new(),
                };
                vec![signal.name.clone(), state.into(), clock]
            })
            .collect();
        self.table(&rows);
    }

    fn faults(&mut self, faults: &[FaultLine], now: Timestamp) {
        let rows: Vec<Vec<String>> = faults
            .iter()
            .map(|fault| {
                let truth = match fault.truth {
                    Truth::True => "true",
                    Truth::Unknown => "unknown",
                    Truth::False => "false",
                };
                let mut far = String::new();
                if let Some(at) = fault.clearing_since {
                    let at = since(at, now);
                    let _ = write!(
                        far,
                        "since {at}, over after {CLEAR_AFTER} of that; was true "
                    );
                }
                if let Some(lasted) = fault.lasted {
                    let _ = write!(far, "for {lasted}");
                }
                if let Some(wait) = fault.for_ {
                    let _ = write!(far, " of {wait}");
                }
                if let Some(since) = fault.since {
                    let _ = write!(far, ", since {}", time(since));
                }
                let far = far.trim_start_matches([',', ' ']).to_owned();
                let severity = fault.severity.map(|severity| format!("{severity:?}"));
                let severity = severity.unwrap_or_default();
                vec![fault.name.clone(), truth.into(), far, severity]
            })
            .collect();
        self.table(&rows);
    }

    fn decisions(&mut self, decisions: &[Decision]) {
        let rows: Vec<Vec<String>> = decisions
            .iter()
            .rev()
            .map(|decision| {
                let reasons = decision.reasons.iter().map(ToString::to_string);
                let reasons: Vec<String> = reasons.collect();
                let mut why = reasons.join(", ");
                for guard in &decision.inputs.guards {
                    let _ = write!(
                        why,
                        "; {} {} of {}",
                        guard.scope, guard.current, guard.limit
                    );
                }
                let asked = decision.inputs.request.as_ref();
                if let Some(asked) = asked.filter(|_| decision.fault == BY_HAND) {
                    let _ = write!(why, "; {} asks: {}", asked.by, asked.reason);
                }
                let verdict = format!("{:?}", decision.verdict);
                let why = why.trim_start_matches("; ").to_owned();
                vec![time(decision.at), verdict, decision.fault.clone(), why]
            })
            .collect();
        self.table(&rows);
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Text::default();
        let now = self.now;
        if let Some(nobody) = &self.no_leader {
            text.line(format_args!("{nobody}"));
            text.line(format_args!(""));
        }
        match (self.verdict, self.since) {
            (Some(verdict), Some(at)) => text.verdict(self, verdict, at),
            _ => text.no_record(self),
        }
        if let Some(why) = &self.left_alone {
            text.line(format_args!("  {why}"));
        }
        if !self.holds.is_empty() {
            text.heading("held");
            text.holds(&self.holds, now);
        }
        if !self.faults.is_empty() {
            text.heading("faults");
            text.faults(&self.faults, now);
        }
        if !self.signals.is_empty() {
            text.heading("signals");
            text.signals(&self.signals, now);
        }
        if !self.silences.is_empty() {
            text.heading("silences");
            for silence in &self.silences {
                let until = time(silence.ends_at);
                text.line(format_args!(
                    "  {} by {} until {until}",
                    silence.id, silence.created_by
                ));
            }
        }
        if !self.sources_down.is_empty() {
            text.heading("sources that do not answer, for all nodes");
            text.sources(&self.sources_down, now);
        }
        if !self.repairs.is_empty() {
            text.heading("repairs");
            text.repairs(&self.repairs, now);
        }
        if !self.decisions.is_empty() {
            text.heading("decisions");
            text.decisions(&self.decisions);
        }
        f.write_str(&text.0)
    }
}
