//! Prometheus rule files to `Rule`: alerting rules only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Deserialize;

use super::findings::Findings;
use super::shape::Shape;
use super::yaml::{self, Parsed};
use super::{Document, Policy, Problem, Rule, Rules, policy, presence, sorted};
use crate::model::Span;

/// The annotation that names the selector which says which nodes have data.
const PRESENCE: &str = "nodemend_presence";

/// Two evaluations fit into the time for which an answer counts.
const LONGEST_INTERVAL: Span = Span::minutes(1);

static SHAPE: LazyLock<Shape> = LazyLock::new(Shape::of::<RuleFile>);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    groups: Vec<Group>,
}

/// Fields with an underscore are Prometheus' own: they may be there and say nothing to us.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Group {
    #[schemars(length(min = 1))]
    name: String,
    #[serde(default)]
    interval: Option<Span>,
    #[serde(default, rename = "limit")]
    _limit: Option<u32>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default, rename = "query_offset")]
    _query_offset: Option<Span>,
    #[serde(default)]
    rules: Vec<RawRule>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawRule {
    #[serde(default)]
    record: Option<String>,
    #[serde(default)]
    alert: Option<String>,
    expr: String,
    #[serde(default, rename = "for")]
    for_: Span,
    #[serde(default)]
    keep_firing_for: Span,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The alerting rules of some Prometheus rule files. Alert names are unique over all
/// of them. `limit` and `query_offset` are accepted and not used.
pub fn rules(documents: &[Document<'_>]) -> Result<Rules, Vec<Problem>> {
    let (mut rules, mut problems) = (Vec::new(), Vec::new());
    let mut alerts = BTreeMap::new();
    for document in documents {
        let parsed = yaml::parse(document).unwrap_or_else(|found| {
            problems.extend(found);
            Vec::new()
        });
        for part in &parsed {
            rules.extend(read_part(document.file, part, &mut alerts, &mut problems));
        }
    }
    sorted(rules.into_iter().collect(), problems)
}

/// The rules of one document, whose names are not among the others' `alerts`.
pub(super) fn read_part(
    file: &str,
    part: &Parsed,
    alerts: &mut BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Vec<Rule> {
    let mut findings = Findings::new(file, &part.places);
    let place = |pointer: &str| format!("{file}:{}", part.places.value(pointer).0);
    let raw = SHAPE.read::<RuleFile>(&part.value, &mut findings);
    let rules = raw.map(|raw| read_groups(raw.groups, &place, alerts, &mut findings));
    problems.extend(findings.into_problems());
    rules.unwrap_or_default()
}

/// The signals of the policies that no rule provides: only a webhook can bring them.
pub fn check_signals(policies: &[Policy], rules: &[Rule]) -> Vec<String> {
    let polled: BTreeSet<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    let named: BTreeSet<&str> = policies
        .iter()
        .flat_map(|policy| &policy.faults)
        .flat_map(|fault| policy::leaves(&fault.when))
        .filter_map(|(_, leaf)| leaf.signal.as_deref())
        .collect();
    named.difference(&polled).map(ToString::to_string).collect()
}

fn read_groups(
    groups: Vec<Group>,
    place: &dyn Fn(&str) -> String,
    alerts: &mut BTreeMap<String, String>,
    findings: &mut Findings<'_>,
) -> Vec<Rule> {
    let (mut rules, mut names) = (Vec::new(), BTreeSet::new());
    for (number, group) in groups.into_iter().enumerate() {
        let at = format!("/groups/{number}");
        let interval = group.interval.unwrap_or(Span::minutes(1));
        if interval < Span::seconds(1) {
            findings.add(
                &format!("{at}/interval"),
                "is below 1s",
                "leave it out for the default of 1m",
            );
        }
        if interval > LONGEST_INTERVAL {
            findings.add(
                &format!("{at}/interval"),
                format!(
                    "is above {LONGEST_INTERVAL}: an answer that is older than 2m says nothing"
                ),
                "leave it out for the default of 1m",
            );
        }
        for (index, raw) in group.rules.into_iter().enumerate() {
            let at = format!("{at}/rules/{index}");
            let Some(mut rule) = read_rule(raw, interval, &at, findings) else {
                continue;
            };
            for (name, value) in &group.labels {
                let of_rule = rule.labels.entry(name.clone());
                of_rule.or_insert_with(|| value.clone());
            }
            let pointer = format!("{at}/alert");
            if let Some(first) = alerts.get(&rule.name) {
                let hint = format!("the other is in {first}; join the expressions with `or`");
                findings.add(
                    &pointer,
                    format!("an alert `{}` exists already", rule.name),
                    &hint,
                );
            } else {
                alerts.insert(rule.name.clone(), place(&pointer));
            }
            rules.push(rule);
        }
        if !names.insert(group.name.clone()) {
            findings.add(
                &format!("{at}/name"),
                format!("a group `{}` exists already in this file", group.name),
                "give it another name",
            );
        }
    }
    rules
}

fn read_rule(
    mut raw: RawRule,
    interval: Span,
    at: &str,
    findings: &mut Findings<'_>,
) -> Option<Rule> {
    if raw.expr.trim().is_empty() {
        findings.add(
            &format!("{at}/expr"),
            "is empty",
            "write a PromQL expression",
        );
    }
    let presence = raw.annotations.remove(PRESENCE);
    if let Some(selector) = &presence {
        let pointer = format!("{at}/annotations/{PRESENCE}");
        if selector.trim().is_empty() {
            findings.add(
                &pointer,
                "is empty",
                "write a selector such as node_uname_info, or leave it out",
            );
        } else if !presence::is_selector(selector) {
            findings.add(
                &pointer,
                "is not a plain selector: of anything else Prometheus gives the time at which \
                 it is asked, and data of any age looks fresh",
                "write a name and its matchers, such as node_uname_info{job=\"node-exporter\"}; \
                 only `offset` may follow",
            );
        }
    }
    if raw.record.is_some() {
        let hint = "let Prometheus load it, and use its result in an alert's expr";
        findings.add_at_key(
            &format!("{at}/record"),
            "recording rules are not polled",
            hint,
        );
        return None;
    }
    match raw.alert {
        Some(name) if !name.trim().is_empty() => Some(Rule {
            name,
            expr: raw.expr,
            for_: raw.for_,
            keep_firing_for: raw.keep_firing_for,
            presence,
            interval,
            labels: raw.labels,
        }),
        Some(_) => {
            findings.add(&format!("{at}/alert"), "is empty", "give the alert a name");
            None
        }
        None => {
            findings.add(at, "field `alert` is missing", "give the alert a name");
            None
        }
    }
}
