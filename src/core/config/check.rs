//! Documents of all kinds, told apart by what they say: each is checked as the service
//! does it, and against those that it belongs to.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::findings::Findings;
use super::tie::{Tie, tie};
use super::yaml::{self, Parsed, Places};
use super::{Document, Policy, Problem, policy, rule, scenario, settings};

/// Shorter names are not taken for others that were misspelt.
const LONG: usize = 8;

/// What a file is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Whatever its documents say.
    Any,
    /// nodemend.yaml.
    Settings,
    /// It is named as a rule file.
    Rules,
    /// It is named as a policy file.
    Policies,
}

/// What was found in some documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Every mistake, in the order of files and lines.
    pub problems: Vec<Problem>,
    /// What is worth a look, and may be meant.
    pub notes: Vec<Problem>,
    /// What there was.
    pub counts: Counts,
}

/// How many there were of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Alerting rules.
    pub rules: usize,
    /// Policies.
    pub policies: usize,
    /// Pauses.
    pub pauses: usize,
    /// Files like nodemend.yaml.
    pub settings: usize,
    /// Scenarios.
    pub scenarios: usize,
    /// What others check: promtool's tests, other objects of Kubernetes.
    pub left_out: usize,
}

impl Counts {
    /// Whether nothing was checked.
    pub fn is_empty(&self) -> bool {
        let left_out = self.left_out;
        *self
            == Self {
                left_out,
                ..Self::default()
            }
    }
}

/// Whether this is nodemend.yaml, by its name or by what it says.
pub fn is_settings(document: &Document<'_>) -> bool {
    let name = document.file.rsplit('/').next();
    matches!(name, Some("nodemend.yaml" | "nodemend.yml"))
        || yaml::parse(document).is_ok_and(|parsed| {
            parsed.first().is_some_and(|first| {
                let has = |field: &str| first.value.get(field).is_some();
                has("cluster") && !has("kind") && !has("groups")
            })
        })
}

/// Checks sets of files. In a set names are unique, and policies must not tie.
pub fn check(sets: &[Vec<(Document<'_>, Role)>]) -> Checked {
    let mut read = Reader::default();
    let mut placed = Vec::new();
    for set in sets {
        for (document, role) in set {
            read.document(document, *role);
        }
        read.ties();
        read.never_clear();
        placed.append(&mut read.policies);
        read.names.clear();
        read.alerts.clear();
        (read.asks, read.presence) = (None, false);
    }
    for policy in &placed {
        policy.check_signals(&read.signals, &mut read.checked);
    }
    let mut checked = read.checked;
    for list in [&mut checked.problems, &mut checked.notes] {
        list.sort();
        list.dedup();
    }
    checked
}

/// A policy and where it is written.
struct Placed {
    file: String,
    places: Places,
    policy: Policy,
}

#[derive(Default)]
struct Reader {
    checked: Checked,
    /// The files that were counted: several sets may have one.
    files: BTreeSet<String>,
    /// Policies of this set, by name.
    names: BTreeMap<String, String>,
    /// Alerts of this set, by name.
    alerts: BTreeMap<String, String>,
    policies: Vec<Placed>,
    /// The alerts of all sets, those with mistakes included.
    signals: BTreeSet<String>,
    /// Whether the settings of this set, if they are there and sound, name an Alertmanager to
    /// ask.
    asks: Option<bool>,
    /// Whether a rule of this set says which nodes have data.
    presence: bool,
}

impl Reader {
    fn document(&mut self, document: &Document<'_>, role: Role) {
        let before = self.checked.counts;
        self.read(document, role);
        if !self.files.insert(document.file.to_owned()) {
            self.checked.counts = before;
        }
    }

    fn read(&mut self, document: &Document<'_>, role: Role) {
        let Checked {
            problems, counts, ..
        } = &mut self.checked;
        if role == Role::Settings {
            counts.settings += 1;
            match settings::settings(document) {
                Ok(settings) => self.asks = Some(!settings.alertmanager.urls.is_empty()),
                Err(found) => problems.extend(found),
            }
            return;
        }
        let parsed = match yaml::parse(document) {
            Ok(parsed) => parsed,
            Err(found) => return problems.extend(found),
        };
        if role == Role::Any
            && parsed
                .first()
                .is_some_and(|first| is_scenario(&first.value))
        {
            counts.scenarios += 1;
            problems.extend(scenario::scenario(document).err().into_iter().flatten());
            return;
        }
        for part in parsed {
            self.part(document.file, part, role);
        }
    }

    fn part(&mut self, file: &str, part: Parsed, role: Role) {
        let kind = match role {
            Role::Rules => Kind::Rules,
            Role::Policies => Kind::Policy,
            Role::Any | Role::Settings => Kind::of(&part.value),
        };
        let Checked {
            problems, counts, ..
        } = &mut self.checked;
        match kind {
            Kind::Rules => {
                self.signals.extend(alerts(&part.value));
                let rules = rule::read_part(file, &part, &mut self.alerts, problems);
                counts.rules += rules.len();
                self.presence |= rules.iter().any(|rule| rule.presence.is_some());
            }
            Kind::Policy => {
                counts.policies += 1;
                let read = policy::read_part(file, &part, &mut self.names, problems);
                self.policies.extend(read.map(|policy| Placed {
                    file: file.to_owned(),
                    places: part.places,
                    policy,
                }));
            }
            Kind::Pause => {
                counts.pauses += 1;
                let mut findings = Findings::new(file, &part.places);
                policy::check_pause(&part.value, &mut findings);
                problems.extend(findings.into_problems());
            }
            Kind::LeftOut => counts.left_out += 1,
            Kind::Ours => {
                let mut findings = Findings::new(file, &part.places);
                let message = "no such kind is written by people";
                findings.add("/kind", message, "write RepairPolicy or RepairPause");
                problems.extend(findings.into_problems());
            }
            Kind::Strange => {
                let mut findings = Findings::new(file, &part.places);
                let hint =
                    "rules have `groups`, policies and pauses `kind`, nodemend.yaml `cluster`";
                findings.add("", "is nothing that nodemend reads", hint);
                problems.extend(findings.into_problems());
            }
        }
    }

    /// Tells the ties of this set.
    fn ties(&mut self) {
        for (index, later) in self.policies.iter().enumerate() {
            for earlier in &self.policies[..index] {
                let (name, priority) = (&earlier.policy.name, earlier.policy.priority);
                if *name == later.policy.name {
                    continue;
                }
                let (list, message) = match tie(&earlier.policy, &later.policy) {
                    Some(Tie::Whole) => (
                        &mut self.checked.problems,
                        format!(
                            "ties with `{name}`: both select these nodes with priority {priority}"
                        ),
                    ),
                    Some(Tie::Part) => (
                        &mut self.checked.notes,
                        format!(
                            "may tie with `{name}`: a node that both select with priority {priority} is held"
                        ),
                    ),
                    None => continue,
                };
                let line = earlier.places.value("/metadata/name").0;
                let hint = format!(
                    "give one a higher priority; the other is in {}:{line}",
                    earlier.file
                );
                let mut findings = Findings::new(&later.file, &later.places);
                findings.add("/metadata/name", message, &hint);
                list.extend(findings.into_problems());
            }
        }
    }
}

impl Reader {
    /// Tells of signals of this set that can fire, and never be clear again: only deliveries
    /// bring them, and nothing shows that Prometheus lives, without which no end counts.
    fn never_clear(&mut self) {
        if self.asks != Some(false) || self.presence {
            return;
        }
        for placed in &self.policies {
            let faults = placed.policy.faults.iter();
            let leaves = faults.flat_map(|fault| policy::leaves(&fault.when));
            let signals = leaves.filter_map(|(_, leaf)| leaf.signal.as_deref());
            let others: BTreeSet<&str> = signals
                .filter(|signal| !self.signals.contains(*signal))
                .collect();
            if others.is_empty() {
                continue;
            }
            let others: Vec<&str> = others.into_iter().collect();
            let message = format!("nothing can clear {}", others.join(", "));
            let hint = "a resolved alert is unknown until Prometheus is seen to live: give \
                        alertmanager.urls, or a rule with the annotation nodemend_presence";
            let mut findings = Findings::new(&placed.file, &placed.places);
            findings.add_at_key("/spec/faults", message, hint);
            self.checked.notes.extend(findings.into_problems());
        }
    }
}

impl Placed {
    /// Signals that no rule gives are misspelt, or come from Alertmanager alone. Without
    /// any rules nothing is known of them.
    fn check_signals(&self, known: &BTreeSet<String>, checked: &mut Checked) {
        let mut findings = Findings::new(&self.file, &self.places);
        let mut others = BTreeSet::new();
        for (index, fault) in self.policy.faults.iter().enumerate() {
            for (below, leaf) in policy::leaves(&fault.when) {
                let signal = leaf.signal.as_deref();
                let Some(signal) = signal.filter(|signal| !known.contains(*signal)) else {
                    continue;
                };
                let Some(alike) = known.iter().find(|known| are_alike(known, signal)) else {
                    others.insert(signal);
                    continue;
                };
                let at = format!("/spec/faults/{index}/when/{below}/signal");
                let message = format!("no rule gives `{signal}`");
                findings.add(&at, message, &format!("there is a rule `{alike}`"));
            }
        }
        checked.problems.extend(findings.into_problems());
        if known.is_empty() || others.is_empty() {
            return;
        }
        let mut findings = Findings::new(&self.file, &self.places);
        let others: Vec<&str> = others.into_iter().collect();
        let message = format!("no rule here gives {}", others.join(", "));
        let hint = "then Alertmanager alone can, if alertmanager.urls names one";
        findings.add_at_key("/spec/faults", message, hint);
        checked.notes.extend(findings.into_problems());
    }
}

/// What a document is, by what it says.
enum Kind {
    Rules,
    Policy,
    Pause,
    /// Others check it.
    LeftOut,
    /// It has our group, and a kind that nobody writes.
    Ours,
    Strange,
}

impl Kind {
    fn of(value: &Value) -> Self {
        let has = |field: &str| value.get(field).is_some();
        let group = value["apiVersion"].as_str();
        match value["kind"].as_str() {
            Some("RepairPolicy") => Self::Policy,
            Some("RepairPause") => Self::Pause,
            Some(_) if group.is_some_and(|group| group.starts_with("nodemend.dev/")) => Self::Ours,
            Some(_) if group.is_some() => Self::LeftOut,
            None if has("groups") => Self::Rules,
            None if has("tests") && (has("rule_files") || has("evaluation_interval")) => {
                Self::LeftOut
            }
            _ => Self::Strange,
        }
    }
}

fn is_scenario(value: &Value) -> bool {
    ["fleet", "timeline"]
        .into_iter()
        .all(|field| value.get(field).is_some())
}

/// The names of the alerts, whatever is wrong with them.
fn alerts(rules: &Value) -> impl Iterator<Item = String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let groups = list(&rules["groups"]).into_iter();
    let rules = groups.flat_map(move |group| list(&group["rules"]));
    rules.filter_map(|rule| rule["alert"].as_str().map(str::to_owned))
}

/// Whether one is the other with one letter more, less or changed, or two that swapped.
fn are_alike(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    if one.len().min(other.len()) < LONG {
        return false;
    }
    while let (Some((a, rest)), Some((b, others))) = (one.split_first(), other.split_first())
        && a == b
    {
        (one, other) = (rest, others);
    }
    while let (Some((a, rest)), Some((b, others))) = (one.split_last(), other.split_last())
        && a == b
    {
        (one, other) = (rest, others);
    }
    match (one, other) {
        ([a, b], [c, d]) => (a, b) == (d, c),
        _ => one.len().max(other.len()) <= 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "groups:\n- name: g\n  rules:\n  - {alert: NodeDiskIOErrors, expr: up}\n";

    fn policy(name: &str, selector: &str, signal: &str) -> String {
        format!(
            "---\napiVersion: nodemend.dev/v1alpha1\nkind: RepairPolicy\nmetadata: {{name: {name}}}\n\
             spec:\n  nodeSelector: {{matchLabels: {{{selector}}}}}\n  faults:\n  \
             - {{name: f, when: {{all: [{{signal: {signal}}}]}}, actions: [Replace]}}\n"
        )
    }

    fn read(sets: &[&[(&str, &str, Role)]]) -> Checked {
        let sets: Vec<Vec<(Document<'_>, Role)>> = sets
            .iter()
            .map(|set| {
                let entries = set.iter().copied();
                entries
                    .map(|(file, text, role)| (Document { file, text }, role))
                    .collect()
            })
            .collect();
        check(&sets)
    }

    fn shown(problems: &[Problem]) -> Vec<String> {
        assert!(problems.iter().all(|problem| !problem.hint.is_empty()));
        let line = |problem: &Problem| {
            let Problem {
                file,
                line,
                column,
                message,
                ..
            } = problem;
            format!("{file}:{line}:{column} {message}")
        };
        problems.iter().map(line).collect()
    }

    #[test]
    fn documents_are_told_apart_by_what_they_say() {
        let all = [
            ("rules.yaml", RULES, Role::Any),
            (
                "tests.yaml",
                "rule_files: [rules.yaml]\ntests: []\n",
                Role::Any,
            ),
            ("map.yaml", "apiVersion: v1\nkind: ConfigMap\n", Role::Any),
            (
                "health.yaml",
                "apiVersion: nodemend.dev/v1alpha1\nkind: NodeHealth\n",
                Role::Any,
            ),
            ("none.yaml", "# nothing\n", Role::Any),
            ("prometheus.yaml", "rule_files: []\n", Role::Any),
            ("text.yaml", "text\n", Role::Any),
            ("nodemend.yaml", "cluster: c\n", Role::Settings),
            (
                "pause.yaml",
                "apiVersion: nodemend.dev/v1alpha1\nkind: RepairPause\nmetadata: {name: p}\nspec: {}\n",
                Role::Any,
            ),
            ("scenario.yaml", "fleet: []\ntimeline: []\n", Role::Any),
        ];
        let checked = read(&[&all]);
        let problems = shown(&checked.problems);
        let expect = [
            "health.yaml:2:7 no such kind is written by people",
            "pause.yaml:4:7 field `reason` is missing",
            "prometheus.yaml:1:1 is nothing that nodemend reads",
        ];
        assert_eq!(problems[..3], expect);
        assert!(
            problems[3..7]
                .iter()
                .all(|line| line.starts_with("scenario.yaml:1:"))
        );
        assert_eq!(
            problems.last().unwrap(),
            "text.yaml:1:1 is nothing that nodemend reads"
        );
        let expect = Counts {
            rules: 1,
            policies: 0,
            pauses: 1,
            settings: 1,
            scenarios: 1,
            left_out: 2,
        };
        assert_eq!(checked.counts, expect);
        assert!(read(&[&all[1..3]]).counts.is_empty());
    }

    #[test]
    fn a_pause_is_checked_like_a_policy() {
        let pause = "apiVersion: nodemend.dev/v1alpha1\nkind: RepairPause\nmetadata: {name: Up}\n\
            spec: {reason: r, until: tomorrow, nodeSelector: {matchExpressions: [{key: a, operator: In}]}}\n";
        let expect = [
            "p:3:18 `Up` is not a name",
            "p:4:26 `tomorrow` is not a time",
            "p:4:70 In needs values",
        ];
        assert_eq!(shown(&read(&[&[("p", pause, Role::Any)]]).problems), expect);
    }

    #[test]
    fn a_file_that_is_named_for_something_must_be_that() {
        let named = [
            ("a.yaml", RULES, Role::Policies),
            ("b.yaml", "kind: RepairPolicy\n", Role::Rules),
        ];
        let expect = [
            "a.yaml:1:1 `apiVersion` must be nodemend.dev/v1alpha1",
            "a.yaml:1:1 `kind` must be RepairPolicy",
            "b.yaml:1:1 field `groups` is missing",
            "b.yaml:1:1 unknown field `kind`",
        ];
        assert_eq!(shown(&read(&[&named]).problems), expect);
        let file = |file| is_settings(&Document { file, text: "" });
        assert!(file("a/nodemend.yaml") && !file("a/nodemend.yaml.bak"));
        let text = |text| is_settings(&Document { file: "a", text });
        assert!(text("cluster: c") && !text("cluster: c\nkind: Cluster") && !text("a: ["));
    }

    #[test]
    fn policies_of_one_set_must_not_tie() {
        let two = |other: &str| policy("a", "pool: a", "x") + &policy("b", other, "x");
        let same = two("pool: a");
        let checked = read(&[&[("p.yaml", same.as_str(), Role::Any)]]);
        assert_eq!(
            shown(&checked.problems),
            ["p.yaml:12:18 ties with `a`: both select these nodes with priority 0"]
        );
        assert!(
            checked.problems[0]
                .hint
                .ends_with("the other is in p.yaml:4")
        );
        let maybe = two("zone: a");
        let checked = read(&[&[("p.yaml", maybe.as_str(), Role::Any)]]);
        assert!(checked.problems.is_empty());
        assert_eq!(
            shown(&checked.notes),
            ["p.yaml:12:18 may tie with `a`: a node that both select with priority 0 is held"]
        );
        let never = two("pool: b");
        let checked = read(&[&[("p.yaml", never.as_str(), Role::Any)]]);
        assert!(checked.problems.is_empty() && checked.notes.is_empty());
        // Each by itself, in sets of their own; names are then free, too.
        let (one, other) = (policy("a", "pool: a", "x"), policy("a", "pool: a", "x"));
        let checked = read(&[
            &[("p", one.as_str(), Role::Any)],
            &[("q", other.as_str(), Role::Any)],
        ]);
        assert!(checked.problems.is_empty() && checked.notes.is_empty());
    }

    #[test]
    fn a_signal_that_no_rule_gives_is_misspelt_or_comes_from_elsewhere() {
        let check = |signal: &str, rules: &str| {
            let policy = policy("a", "", signal);
            let files = [("p", policy.as_str(), Role::Any), ("r", rules, Role::Any)];
            let checked = read(&[&files[..1], &files[1..]]);
            (shown(&checked.problems), shown(&checked.notes))
        };
        assert_eq!(check("NodeDiskIOErrors", RULES), (vec![], vec![]));
        let misspelt = vec!["p:8:37 no rule gives `NodeDiskIOError`".to_owned()];
        assert_eq!(check("NodeDiskIOError", RULES), (misspelt, vec![]));
        let elsewhere = vec!["p:7:3 no rule here gives KubeNodeNotReady".to_owned()];
        assert_eq!(check("KubeNodeNotReady", RULES), (vec![], elsewhere));
        assert_eq!(check("KubeNodeNotReady", "groups: []"), (vec![], vec![]));
        // A rule with a mistake is a rule.
        let wrong = RULES.replace(", expr: up", "");
        assert_eq!(check("NodeDiskIOErrors", &wrong).0.len(), 1);
    }

    #[test]
    fn a_signal_that_nothing_can_clear_is_told_with_the_settings() {
        let policy = policy("a", "", "KubeNodeNotReady");
        let deaf = "cluster: c\nprometheus: {urls: ['http://p']}\n";
        let asking = "cluster: c\nalertmanager: {urls: ['http://a']}\n";
        let seeing = RULES.replace("expr: up", "expr: up, annotations: {nodemend_presence: up}");
        let expect = "p:7:3 nothing can clear KubeNodeNotReady";
        for (settings, rules, told) in [
            (deaf, RULES, true),
            (deaf, "groups: []", true),
            (deaf, &seeing, false),
            (asking, RULES, false),
            // Of those nothing is known.
            ("cluster: [c]", RULES, false),
        ] {
            let set = [
                ("nodemend.yaml", settings, Role::Settings),
                ("r", rules, Role::Rules),
                ("p", policy.as_str(), Role::Policies),
            ];
            let notes = shown(&read(&[&set]).notes);
            assert_eq!(notes.iter().any(|note| note == expect), told, "{notes:?}");
            let without = shown(&read(&[&set[1..]]).notes);
            assert!(without.iter().all(|note| note != expect), "{without:?}");
        }
        let known = self::policy("a", "", "NodeDiskIOErrors");
        let set = [
            ("nodemend.yaml", deaf, Role::Settings),
            ("r", RULES, Role::Rules),
            ("p", known.as_str(), Role::Policies),
        ];
        assert_eq!(shown(&read(&[&set]).notes), Vec::<String>::new());
    }

    #[test]
    fn names_are_alike_but_for_a_slip() {
        for (one, other, expect) in [
            ("NodeDiskIOErrors", "NodeDiskIOErrors", true),
            ("NodeDiskIOErrors", "NodeDiksIOErrors", true),
            ("NodeDiskIOErrors", "NodeDiskIOError", true),
            ("NodeDiskIOErrors", "NodeDisk1OErrors", true),
            ("NodeDiskIOErrors", "NodeDiskErrors", false),
            // Another's alert may well be called so.
            ("NodeNetworkReceiveErrors", "NodeNetworkReceiveErrs", false),
            ("NodeNotReady", "KubeNodeNotReady", false),
            ("NodeDown", "NodeGone", false),
            ("Disk", "Disc", false),
        ] {
            assert_eq!(are_alike(one, other), expect, "{one} {other}");
        }
    }
}
