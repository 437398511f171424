//! Scenarios: a fleet, its policies, and a timeline of what happens to it and of what is
//! expected of the decisions.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::findings::Findings;
use super::settings::{self, RawLimits};
use super::shape::Shape;
use super::yaml;
use super::{Document, Limits, Policy, Problem, Rule, Rules, policy, sorted};
use crate::api::{RepairPolicy, RepairPolicySpec};
use crate::model::{Reason, Span, VerdictKind};

static SHAPE: LazyLock<Shape> = LazyLock::new(Shape::of::<Raw>);

/// When a scenario begins, if it does not say: a Thursday in UTC.
pub const BEGIN: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// A validated scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// What it is about, for people.
    pub about: String,
    /// When it begins.
    pub begin: Timestamp,
    /// How far apart passes are.
    pub step: Span,
    /// How long it takes.
    pub length: Span,
    /// The nodes that are there from the beginning.
    pub fleet: Vec<Group>,
    /// Policies, each accepted.
    pub policies: Vec<Policy>,
    /// The polled signals.
    pub rules: Rules,
    /// The limits over all policies.
    pub limits: Limits,
    /// The most repairs that may run at any time.
    pub in_flight: usize,
    /// What happens and what is expected, in order.
    pub timeline: Vec<Moment>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    about: String,
    #[serde(default)]
    begin: Option<Timestamp>,
    #[serde(default)]
    step: Option<Span>,
    length: Span,
    #[schemars(length(min = 1))]
    fleet: Vec<Group>,
    #[serde(default)]
    signals: BTreeMap<String, Signal>,
    policies: BTreeMap<String, RepairPolicySpec>,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    in_flight_at_most: Option<usize>,
    timeline: Vec<Moment>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Signal {
    #[serde(rename = "for", default)]
    for_: Span,
}

/// Nodes that are alike: `NAME-1`, `NAME-2` …
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Group {
    /// How many.
    #[schemars(range(min = 1, max = 100_000))]
    pub count: usize,
    /// How their names begin.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Their zone.
    #[serde(default)]
    pub zone: Option<String>,
    /// Their pool.
    #[serde(default)]
    pub pool: Option<String>,
    /// Further labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// New nodes that never were Ready.
    #[serde(default)]
    pub starting: bool,
}

/// What happens at one time, and what is expected then. Nodes are named by patterns:
/// `*` stands for any text, `a-1..a-8` for eight nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Moment {
    /// When, from the beginning.
    pub at: Span,
    /// These say that they are not Ready.
    #[serde(default)]
    pub not_ready: Vec<String>,
    /// Of these nothing is heard any more.
    #[serde(default)]
    pub silent: Vec<String>,
    /// These are Ready again.
    #[serde(default)]
    pub ready: Vec<String>,
    /// Signals that fire now, and on which nodes.
    #[serde(default)]
    pub fire: BTreeMap<String, Vec<String>>,
    /// Signals that are clear again.
    #[serde(default)]
    pub clear: BTreeMap<String, Vec<String>>,
    /// Signals that have no data of these nodes.
    #[serde(default)]
    pub blind: BTreeMap<String, Vec<String>>,
    /// Signals that have data of these nodes again.
    #[serde(default)]
    pub see: BTreeMap<String, Vec<String>>,
    /// Signals that Prometheus gives no answer to.
    #[serde(default)]
    pub fail: Vec<String>,
    /// Signals that it answers again.
    #[serde(default)]
    pub answer: Vec<String>,
    /// Nodes that join.
    #[serde(default)]
    pub add: Vec<Group>,
    /// Nodes whose object goes away.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Nodes that somebody cordons.
    #[serde(default)]
    pub cordon: Vec<String>,
    /// Nodes that he uncordons.
    #[serde(default)]
    pub uncordon: Vec<String>,
    /// Taints that somebody puts on nodes, by key.
    #[serde(default)]
    pub taint: BTreeMap<String, Vec<String>>,
    /// Annotations that somebody puts on nodes.
    #[serde(default)]
    pub annotate: BTreeMap<String, BTreeMap<String, String>>,
    /// Nodes whose repair a person asks for, for 15 minutes, and the guards to be ignored.
    #[serde(default)]
    pub request: BTreeMap<String, Vec<Reason>>,
    /// Whether a pause of all nodes begins or ends.
    #[serde(default)]
    pub pause: Option<bool>,
    /// Whether the API lists no node from now on.
    #[serde(default)]
    pub empty_list: Option<bool>,
    /// For how long the leader does not look.
    #[serde(default)]
    pub stalled: Option<Span>,
    /// Another replica takes over.
    #[serde(default)]
    pub new_leader: bool,
    /// From now on, each replacement fires this signal once it joined.
    #[serde(default)]
    pub replacements_fire: Option<String>,
    /// A restart makes these well again from now on.
    #[serde(default)]
    pub reboots_cure: Vec<String>,
    /// What is expected after that.
    #[serde(default)]
    pub expect: Option<Expect>,
}

/// What is expected of the decisions so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    /// How many repairs started since the beginning.
    #[serde(default)]
    pub started: Option<usize>,
    /// … at least.
    #[serde(default)]
    pub started_at_least: Option<usize>,
    /// … at most.
    #[serde(default)]
    pub started_at_most: Option<usize>,
    /// How many repairs run.
    #[serde(default)]
    pub running: Option<usize>,
    /// How many nodes have a verdict.
    #[serde(default)]
    pub count: BTreeMap<VerdictKind, usize>,
    /// The verdict on nodes, with its reasons: `Held ZoneBreaker`.
    #[serde(default)]
    pub nodes: BTreeMap<String, String>,
    /// Nodes whose repair started.
    #[serde(default)]
    pub repaired: Vec<String>,
    /// Nodes whose repair did not start.
    #[serde(default)]
    pub spared: Vec<String>,
    /// What became of what was only observed, by policy and fault: `p/F: 2 recovered, 1 went
    /// on, 0 went away`.
    #[serde(default)]
    pub score: BTreeMap<String, String>,
    /// What was done to nodes, in order, and what it came to: `Reboot Succeeded`.
    #[serde(default)]
    pub repairs: BTreeMap<String, Vec<String>>,
}

/// Reads one scenario.
pub fn scenario(document: &Document<'_>) -> Result<Scenario, Vec<Problem>> {
    let mut parsed = yaml::parse(document)?;
    if parsed.len() != 1 {
        return Err(vec![Problem {
            file: document.file.to_owned(),
            line: 0,
            column: 0,
            message: format!("has {} documents", parsed.len()),
            hint: "write one scenario in one file".to_owned(),
        }]);
    }
    let first = parsed.remove(0);
    let mut findings = Findings::new(document.file, &first.places);
    let scenario = SHAPE
        .read::<Raw>(&first.value, &mut findings)
        .map(|raw| build(raw, &mut findings));
    Ok(sorted(scenario, findings.into_problems())?.expect("without a problem there is a scenario"))
}

fn build(raw: Raw, findings: &mut Findings<'_>) -> Scenario {
    let step = raw.step.unwrap_or(Span::seconds(30));
    if step < Span::seconds(1) {
        findings.add("/step", "is below 1s", "passes need time between them");
    }
    let rules: Rules = raw
        .signals
        .into_iter()
        .map(|(name, signal)| Rule {
            expr: name.clone(),
            presence: Some(name.clone()),
            name,
            for_: signal.for_,
            keep_firing_for: Span::minutes(15),
            interval: step.min(Span::minutes(1)),
            labels: BTreeMap::new(),
        })
        .collect();
    let mut policies = Vec::new();
    for (name, spec) in raw.policies {
        match policy(&RepairPolicy::new(&name, spec)) {
            Ok(policy) => policies.push(policy),
            Err(problems) => {
                let at = yaml::join("/policies", &name);
                for problem in problems {
                    findings.add(&at, problem.message, &problem.hint);
                }
            }
        }
    }
    let mut before = Span::default();
    for (index, moment) in raw.timeline.iter().enumerate() {
        if moment.at < before || moment.at > raw.length {
            let hint = "write moments in order, none after the length";
            findings.add(&format!("/timeline/{index}/at"), "is out of order", hint);
        }
        before = moment.at;
        let maps = [&moment.fire, &moment.clear, &moment.blind, &moment.see];
        let named = maps.into_iter().flat_map(BTreeMap::keys);
        let named = named.chain(&moment.fail).chain(&moment.answer);
        for name in named.chain(&moment.replacements_fire) {
            if rules.get(name).is_none() {
                let message = format!("no signal `{name}` in `signals`");
                findings.add(&format!("/timeline/{index}"), message, "name it there");
            }
        }
    }
    let limits = settings::limits(raw.limits, None, findings);
    Scenario {
        about: raw.about,
        begin: raw.begin.unwrap_or(BEGIN),
        step,
        length: raw.length,
        fleet: raw.fleet,
        policies,
        rules,
        in_flight: raw
            .in_flight_at_most
            .unwrap_or(limits.max_in_flight as usize),
        limits,
        timeline: raw.timeline,
    }
}

impl Moment {
    /// Whether nothing happens: it only expects.
    pub fn is_quiet(&self) -> bool {
        let expects = Self {
            at: self.at,
            expect: self.expect.clone(),
            ..Self::default()
        };
        *self == expects
    }
}

impl Moment {
    /// What happens, in words, and to whom.
    pub fn told(&self) -> Vec<(String, String)> {
        let lists = [
            ("not Ready: ", &self.not_ready),
            ("nothing is heard any more: ", &self.silent),
            ("Ready again: ", &self.ready),
            ("removed: ", &self.remove),
            ("cordoned by somebody: ", &self.cordon),
            ("uncordoned by somebody: ", &self.uncordon),
            ("a restart will help: ", &self.reboots_cure),
            ("Prometheus gives no answer: ", &self.fail),
            ("Prometheus answers again: ", &self.answer),
        ];
        let lists = lists.into_iter().filter(|(_, nodes)| !nodes.is_empty());
        let mut told: Vec<(String, String)> = lists
            .map(|(what, nodes)| (what.to_owned(), nodes.join(", ")))
            .collect();
        for (what, of) in [
            ("fires", &self.fire),
            ("is clear", &self.clear),
            ("has no data", &self.blind),
            ("has data again", &self.see),
            ("taint", &self.taint),
        ] {
            let each = of
                .iter()
                .map(|(name, nodes)| (format!("{name} {what}: "), nodes.join(", ")));
            told.extend(each);
        }
        for group in &self.add {
            told.push((format!("{} nodes join: ", group.count), group.name.clone()));
        }
        let marks = [
            (self.pause == Some(true), "all is paused"),
            (self.pause == Some(false), "the pause ends"),
            (self.empty_list == Some(true), "the API lists no node"),
            (
                self.empty_list == Some(false),
                "the API lists all nodes again",
            ),
            (self.new_leader, "another replica leads"),
            (self.stalled.is_some(), "the leader stalls"),
            (
                self.replacements_fire.is_some(),
                "from now on replacements are sick",
            ),
            (!self.annotate.is_empty(), "somebody annotates nodes"),
            (!self.request.is_empty(), "somebody asks for repairs"),
        ];
        let marks = marks.into_iter().filter(|(is, _)| *is);
        told.extend(marks.map(|(_, what)| (what.to_owned(), String::new())));
        told
    }
}

/// Whether a pattern means this node.
pub fn means(pattern: &str, node: &str) -> bool {
    if let Some((from, to)) = pattern.split_once("..") {
        let numbered = |name: &str| {
            let (stem, number) = name.rsplit_once('-')?;
            Some((stem.to_owned(), number.parse::<usize>().ok()?))
        };
        let (Some(from), Some(to), Some(node)) = (numbered(from), numbered(to), numbered(node))
        else {
            return false;
        };
        return from.0 == node.0 && to.0 == node.0 && (from.1..=to.1).contains(&node.1);
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = node.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        last = Some(part);
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    last.map_or(rest.is_empty(), |part| {
        part.is_empty() || node.ends_with(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_nodes() {
        for (pattern, node, expect) in [
            ("a-1", "a-1", true),
            ("a-1", "a-10", false),
            ("a-*", "a-10", true),
            ("*", "a", true),
            ("a-*-1", "a-b-1", true),
            ("a-*-1", "a-b-2", false),
            ("a-2..a-4", "a-2", true),
            ("a-2..a-4", "a-4", true),
            ("a-2..a-4", "a-5", false),
            ("a-2..a-4", "b-3", false),
        ] {
            assert_eq!(means(pattern, node), expect, "{pattern} {node}");
        }
    }

    #[test]
    fn mistakes_in_a_scenario_are_told_at_once() {
        let text = "\
about: x
length: 10m
fleet: [{count: 1, name: a}]
policies:
  p: {faults: [{name: F, when: {any: [{signal: A}]}}]}
timeline:
- {at: 5m, fire: {B: [a-1]}}
- {at: 4m, nonsense: 1}
";
        let document = Document { file: "s", text };
        let problems = scenario(&document).unwrap_err();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 4, "{told:?}");
        for (told, expect) in told.iter().zip([
            "s:5:6: spec.faults: no fault has an action",
            "s:7:3: no signal `B` in `signals`",
            "s:8:8: is out of order",
            "s:8:12: unknown field `nonsense`",
        ]) {
            assert!(told.starts_with(expect), "{told}");
        }
    }
}
