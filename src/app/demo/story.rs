//! The story: what changed between two passes, in plain short sentences.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use nodemend_core::api::{Action, NodeRepair, Phase};
use nodemend_core::config::scenario::Moment;
use nodemend_core::decide::Verdict;
use nodemend_core::model::{Reason, VerdictKind};

use crate::alertmanager::Delivered;
use crate::controller::Report;
use crate::http::Refusal;
use crate::sim::Fault;

/// More nodes than this with the same news at once are told of in one sentence.
const EACH: usize = 2;

/// Something worth telling.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// Something happened.
    Event {
        /// When.
        at: Timestamp,
        /// To whom.
        who: &'a str,
        /// What and why.
        what: &'a str,
    },
    /// A line for whoever reads along.
    Line(&'a str),
    /// Where it stands, once per pass.
    Progress(&'a Progress),
}

/// Where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The virtual time.
    pub at: Timestamp,
    /// When the planned story ends.
    pub end: Timestamp,
    /// How many nodes have which verdict.
    pub nodes: BTreeMap<VerdictKind, usize>,
    /// How many repairs are open.
    pub open: usize,
}

type Known = (VerdictKind, String, Vec<Reason>);

/// Tells what it has not told yet, of a story planned until `end`.
pub(in crate::app) struct Story<F> {
    tell: F,
    end: Timestamp,
    verdicts: BTreeMap<String, Known>,
    phases: BTreeMap<String, Phase>,
    /// How many alerts named no node.
    unresolved: u64,
}

impl<F: FnMut(Told<'_>) -> io::Result<()>> Story<F> {
    pub(in crate::app) const fn new(tell: F, end: Timestamp) -> Self {
        Self {
            tell,
            end,
            verdicts: BTreeMap::new(),
            phases: BTreeMap::new(),
            unresolved: 0,
        }
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        (self.tell)(Told::Line(text))
    }

    fn event(&mut self, at: Timestamp, who: &str, what: &str) -> io::Result<()> {
        (self.tell)(Told::Event { at, who, what })
    }

    /// A machine breaks.
    pub(super) fn breaks(&mut self, node: &str, fault: Fault, at: Timestamp) -> io::Result<()> {
        let what = match fault {
            Fault::DiskReadOnly => "breaks: its disk is read-only",
            Fault::DiskFull => "breaks: its disk is full",
            Fault::DiskSilent => "breaks: its disk does not answer",
            Fault::NicErrors => "breaks: its network card receives garbage",
            Fault::KubeletDown => "breaks: its kubelet is not ready",
            Fault::Hardware => "breaks: its hardware monitor sees errors",
        };
        self.event(at, node, what)
    }

    /// Something of a scenario happens.
    pub(in crate::app) fn happens(&mut self, moment: &Moment, at: Timestamp) -> io::Result<()> {
        for (what, nodes) in moment.told() {
            self.event(at, "scenario", &format!("{what}{nodes}"))?;
        }
        Ok(())
    }

    /// A delivery came to the webhook.
    pub(super) fn received(
        &mut self,
        outcome: Result<Delivered, Refusal>,
        at: Timestamp,
    ) -> io::Result<()> {
        let what = match outcome {
            Ok(done) => {
                let alerts = if done.stored == 1 { "alert" } else { "alerts" };
                let skipped = match done.skipped {
                    0 => String::new(),
                    count => format!(", skipped {count} without a name"),
                };
                let news = if done.written { "" } else { ", nothing new" };
                format!("received: stored {} {alerts}{skipped}{news}", done.stored)
            }
            Err(refusal) => format!("refused: {refusal:?}"),
        };
        self.event(at, "webhook", &what)
    }

    /// A pass was made.
    pub(in crate::app) fn hear(&mut self, report: &Report, at: Timestamp) -> io::Result<()> {
        self.hear_verdicts(&report.verdicts, at)?;
        for repair in &report.repairs {
            self.hear_repair(repair, at)?;
        }
        let mut progress = Progress {
            at,
            end: self.end,
            nodes: BTreeMap::new(),
            open: report.repairs.iter().filter(|repair| repair.open()).count(),
        };
        for verdict in &report.verdicts {
            *progress.nodes.entry(verdict.kind).or_default() += 1;
        }
        (self.tell)(Told::Progress(&progress))
    }

    /// So many alerts named no node. A machine that was replaced leaves such alerts
    /// behind, so only a visitor's is worth telling.
    pub(super) fn hear_unresolved(
        &mut self,
        count: u64,
        visitor: bool,
        at: Timestamp,
    ) -> io::Result<()> {
        let before = std::mem::replace(&mut self.unresolved, count);
        if visitor && count > before {
            self.event(at, "webhook", "an alert names no node that is there now")?;
        }
        Ok(())
    }

    fn hear_verdicts(&mut self, verdicts: &[Verdict], at: Timestamp) -> io::Result<()> {
        let mut news: Vec<(String, Vec<&str>)> = Vec::new();
        for verdict in verdicts {
            let now = (verdict.kind, verdict.fault.clone(), verdict.reasons.clone());
            let before = self.verdicts.insert(verdict.node.clone(), now.clone());
            if before.as_ref() == Some(&now) {
                continue;
            }
            let Some(what) = sentence(verdict, before.is_none()) else {
                continue;
            };
            match news.iter_mut().find(|(known, _)| *known == what) {
                Some((_, nodes)) => nodes.push(&verdict.node),
                None => news.push((what, vec![&verdict.node])),
            }
        }
        for (what, nodes) in news {
            if nodes.len() > EACH {
                let what = format!("{what}: {}", nodes.join(", "));
                self.event(at, &format!("{} nodes", nodes.len()), &what)?;
                continue;
            }
            for node in nodes {
                self.event(at, node, &what)?;
            }
        }
        Ok(())
    }

    fn hear_repair(&mut self, repair: &NodeRepair, at: Timestamp) -> io::Result<()> {
        let name = repair.name().to_owned();
        let (node, phase) = (&repair.spec.node_name, repair.phase());
        let before = self.phases.insert(name, phase);
        if before.is_none() {
            let what = format!("repair starts: cordoned ({})", repair.spec.fault);
            self.event(at, node, &what)?;
        }
        if before == Some(phase) {
            return Ok(());
        }
        match progress_of(repair) {
            Some(what) => self.event(at, node, &what),
            None => Ok(()),
        }
    }
}

/// What is new about a node; none if that is told elsewhere, or is no news.
fn sentence(verdict: &Verdict, first: bool) -> Option<String> {
    let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
    let (reasons, fault) = (reasons.join(", "), &verdict.fault);
    match verdict.kind {
        VerdictKind::Healthy if first => None,
        VerdictKind::Healthy => Some("healthy again".into()),
        VerdictKind::Unknown => Some(format!("not known to be healthy: {reasons} ({fault})")),
        VerdictKind::Pending => Some(format!("pending: does it last? ({fault})")),
        VerdictKind::Held => Some(format!("held: {reasons} ({fault})")),
        VerdictKind::Ignored | VerdictKind::Due | VerdictKind::Repairing => None,
    }
}

fn progress_of(repair: &NodeRepair) -> Option<String> {
    let status = repair.status.as_ref();
    let replacement = status.and_then(|status| status.replacement.as_ref());
    let by = replacement.map_or("nobody", |replacement| &replacement.node_name);
    let action = repair.spec.plan.action;
    match repair.phase() {
        Phase::Draining if action == Action::Reboot => Some("repair: its pods move".into()),
        Phase::Rebooting => Some("repair: its machine restarts".into()),
        Phase::Succeeded if action == Action::Reboot => {
            Some("repair succeeded: the restart helped".into())
        }
        Phase::Succeeded if action == Action::Cordon => {
            Some("repair succeeded: the fault is over, the cordon is off".into())
        }
        Phase::Escalated => Some("repair did not help: another one takes over".into()),
        Phase::Launching => Some("repair: its replacement is launched".into()),
        Phase::Draining => Some(format!("repair: its pods move, {by} is Ready")),
        Phase::Terminating => Some("repair: its instance is terminated".into()),
        Phase::Succeeded => Some(format!("repair succeeded: replaced by {by}")),
        Phase::Aborted => Some(format!("repair aborted: {}", repair.message())),
        Phase::NeedsHuman => Some(format!("repair needs a person: {}", repair.message())),
        Phase::Pending | Phase::Quarantined | Phase::Verifying | Phase::Unrecognized => None,
    }
}
