//! How the fleet is, in one look.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use jiff::Timestamp;
use nodemend_core::api::{GuardRecord, NodeRepair, RepairPause, Score, SourceDown};
use nodemend_core::model::{Span, VerdictKind};
use serde::Serialize;

use super::{
    Leader, NoLeader, Records, RepairLine, Text, covered, history, line, nodes, since, time,
};

/// How many of the last repairs are told.
const MAX_LAST: usize = 5;

/// How the fleet is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// That nobody leads: then the rest is of the past.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_leader: Option<NoLeader>,
    /// Who leads, or led last, if that may be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<Leader>,
    /// How often leaders changed; none before the first one.
    pub epoch: Option<u64>,
    /// How many nodes have each verdict, of those on record.
    pub verdicts: BTreeMap<VerdictKind, usize>,
    /// The sources that are down.
    pub sources_down: Vec<SourceDown>,
    /// The guards that hold a node, and the breakers that are not closed.
    pub guards: Vec<GuardRecord>,
    /// The pauses in force.
    pub pauses: Vec<Pause>,
    /// The repairs that are open.
    pub open: Vec<RepairLine>,
    /// The last ones that ended.
    pub last: Vec<RepairLine>,
    /// What became of the faults that were only observed.
    pub score: Vec<Score>,
    #[serde(skip)]
    now: Timestamp,
}

/// A pause in force.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Of which nodes.
    pub of: String,
    /// How many nodes that are now, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covers: Option<usize>,
    /// Until when; none: until it is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// How the fleet is now.
pub fn status(records: &Records, now: Timestamp) -> Status {
    let fleet = records.fleet.as_ref().map(|fleet| &fleet.spec);
    let mut verdicts: BTreeMap<VerdictKind, usize> = BTreeMap::new();
    let there = records
        .healths
        .iter()
        .filter_map(|health| health.status.as_ref());
    for status in there.filter(|status| status.gone.is_none()) {
        *verdicts.entry(status.verdict).or_default() += 1;
    }
    let (open, ended): (Vec<NodeRepair>, Vec<NodeRepair>) =
        records.repairs.iter().cloned().partition(NodeRepair::open);
    let mut last: Vec<RepairLine> = ended.iter().map(line).collect();
    last.sort_by(|one, other| (other.ended, &one.name).cmp(&(one.ended, &other.name)));
    last.truncate(MAX_LAST);
    let in_force = |pause: &&RepairPause| pause.spec.until.is_none_or(|until| until > now);
    Status {
        no_leader: records.lead.nobody(now),
        leader: records.lead.leader(),
        epoch: fleet.map(|fleet| fleet.epoch),
        verdicts,
        sources_down: fleet.map_or_else(Vec::new, |fleet| fleet.sources_down.clone()),
        guards: fleet.map_or_else(Vec::new, |fleet| fleet.guards.clone()),
        pauses: records
            .pauses
            .iter()
            .filter(in_force)
            .map(|one| pause(one, records))
            .collect(),
        open: history(&open, None, usize::MAX),
        last,
        score: fleet.map_or_else(Vec::new, |fleet| fleet.score.clone()),
        now,
    }
}

fn pause(pause: &RepairPause, records: &Records) -> Pause {
    let spec = &pause.spec;
    let labels = spec.node_selector.match_labels.iter();
    let mut parts: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let expressions = spec.node_selector.match_expressions.iter();
    parts.extend(expressions.map(|one| {
        let values = one.values.join(",");
        format!("{} {:?} {values}", one.key, one.operator)
    }));
    parts.extend(spec.policy.iter().map(|name| format!("policy {name}")));
    let of = match parts.join(", ") {
        all if all.is_empty() => "all nodes".into(),
        some => some,
    };
    Pause {
        name: pause.metadata.name.clone().unwrap_or_default(),
        reason: spec.reason.clone(),
        of,
        covers: covered(spec, records),
        until: spec.until,
    }
}

impl Text {
    pub(super) fn sources(&mut self, sources: &[SourceDown], now: Timestamp) {
        let rows: Vec<Vec<String>> = sources
            .iter()
            .map(|down| {
                let at = since(down.since, now);
                vec![down.source.clone(), at, down.message.clone()]
            })
            .collect();
        self.table(&rows);
    }

    fn guards(&mut self, guards: &[GuardRecord]) {
        let rows: Vec<Vec<String>> = guards
            .iter()
            .map(|guard| {
                let mut numbers = String::new();
                if (guard.current, guard.limit) != (0, 0) {
                    let _ = write!(numbers, "{}, {} allowed", guard.current, guard.limit);
                }
                if let Some(until) = guard.until {
                    let _ = write!(numbers, " until {}", time(until));
                }
                vec![
                    guard.reason.to_string(),
                    guard.scope.clone(),
                    numbers.trim_start().to_owned(),
                ]
            })
            .collect();
        self.table(&rows);
    }

    fn score(&mut self, scores: &[Score]) {
        let span = |seconds: u64| Span::seconds(u32::try_from(seconds).unwrap_or(u32::MAX));
        let rows: Vec<Vec<String>> = scores
            .iter()
            .map(|score| {
                let recovered = match score.recovery_seconds.checked_div(score.recovered.into()) {
                    None => "0 recovered".into(),
                    Some(mean) => format!(
                        "{} recovered (after {}, at most {})",
                        score.recovered,
                        span(mean),
                        span(score.longest_recovery_seconds)
                    ),
                };
                let rest = format!("{} went on, {} went away", score.went_on, score.went_away);
                let since = format!("since {}", time(score.since));
                let (policy, fault) = (score.policy.clone(), score.fault.clone());
                vec![policy, fault, format!("{recovered}, {rest}"), since]
            })
            .collect();
        self.table(&rows);
    }

    fn pauses(&mut self, pauses: &[Pause]) {
        let rows: Vec<Vec<String>> = pauses
            .iter()
            .map(|pause| {
                let until = pause.until.map_or_else(
                    || "until it is resumed".to_owned(),
                    |until| format!("until {}", time(until)),
                );
                vec![
                    pause.name.clone(),
                    pause.of.clone(),
                    nodes(pause.covers),
                    until,
                    pause.reason.clone(),
                ]
            })
            .collect();
        self.table(&rows);
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut text, now) = (Text::default(), self.now);
        if let Some(nobody) = &self.no_leader {
            text.line(format_args!("{nobody}"));
        }
        let epoch = self.epoch.map_or_else(
            || "no leader yet".to_owned(),
            |epoch| format!("epoch {epoch}"),
        );
        match &self.leader {
            Some(leader) => {
                let renewed = leader
                    .renewed
                    .map(|at| format!(", renewed {}", since(at, now)));
                let renewed = renewed.unwrap_or_default();
                text.line(format_args!("leader  {}, {epoch}{renewed}", leader.holder));
            }
            None if self.no_leader.is_some() => text.line(format_args!("leader  none, {epoch}")),
            None => text.line(format_args!("leader  not known, {epoch}")),
        }
        let counts = self.verdicts.iter();
        let counts: Vec<String> = counts
            .map(|(verdict, count)| format!("{count} {verdict:?}"))
            .collect();
        let counts = match counts.join(", ") {
            none if none.is_empty() => "none on record".to_owned(),
            some => some,
        };
        text.line(format_args!("nodes   {counts}"));
        if !self.pauses.is_empty() {
            text.heading("paused");
            text.pauses(&self.pauses);
        }
        if !self.sources_down.is_empty() {
            text.heading("sources that do not answer");
            text.sources(&self.sources_down, now);
        }
        if !self.guards.is_empty() {
            text.heading("guards that hold nodes, and breakers that are not closed");
            text.guards(&self.guards);
        }
        if !self.open.is_empty() {
            text.heading("open repairs");
            text.repairs(&self.open, now);
        }
        if !self.last.is_empty() {
            text.heading("last repairs");
            text.repairs(&self.last, now);
        }
        if !self.score.is_empty() {
            text.heading("only observed: what became of it without a repair");
            text.score(&self.score);
        }
        f.write_str(&text.0)
    }
}
