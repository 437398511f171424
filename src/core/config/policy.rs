//! `RepairPolicy` documents and objects to `Policy`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::findings::Findings;
use super::shape::{Shape, schema_of};
use super::window::Window;
use super::yaml::{self, Parsed, Places};
use super::{Amount, Budget, Confirm, Document, Fault, Policy, Problem, sorted, window};
use crate::api::{
    Action, BY_HAND, BudgetSpec, ConfirmSpec, FaultSpec, Leaf, Mode, NodeSelector, OnRecovered,
    OnTimeout, OnUnreachable, Operator, Order, Per, RepairPauseSpec, RepairPolicy,
    RepairPolicySpec, Strategy, When, WindowSpec,
};
use crate::model::Span;

const API_VERSION: &str = "nodemend.dev/v1alpha1";
const KIND: &str = "RepairPolicy";
const PAUSE: &str = "RepairPause";

static SHAPE: LazyLock<Shape> = LazyLock::new(Shape::of::<Raw>);
static PAUSE_SHAPE: LazyLock<Shape> = LazyLock::new(Shape::of::<RawPause>);

/// Which nodes to repair, for which faults, how and under which guards.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "RepairPolicy of nodemend")]
struct Raw {
    #[serde(rename = "apiVersion")]
    #[schemars(extend("const" = API_VERSION))]
    _api_version: String,
    #[serde(rename = "kind")]
    #[schemars(extend("const" = KIND))]
    _kind: String,
    metadata: Metadata,
    spec: RepairPolicySpec,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPause {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: RepairPauseSpec,
}

/// As of any object of Kubernetes.
#[derive(Deserialize, JsonSchema)]
struct Metadata {
    /// The policy's name.
    name: String,
}

/// The JSON Schema of a policy, for editors.
pub fn policy_schema() -> Value {
    schema_of::<Raw>()
}

/// The policies of some files. Names are unique over all of them.
pub fn policies(documents: &[Document<'_>]) -> Result<Vec<Policy>, Vec<Problem>> {
    let (mut policies, mut problems) = (Vec::new(), Vec::new());
    let mut names = BTreeMap::new();
    for document in documents {
        let parsed = yaml::parse(document).unwrap_or_else(|found| {
            problems.extend(found);
            Vec::new()
        });
        for part in &parsed {
            policies.extend(read_part(document.file, part, &mut names, &mut problems));
        }
    }
    sorted(policies, problems)
}

/// The policy of one document, whose name is not among the others' `names`.
pub(super) fn read_part(
    file: &str,
    part: &Parsed,
    names: &mut BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Option<Policy> {
    let mut findings = Findings::new(file, &part.places);
    let policy = read(&part.value, &mut findings);
    if let Some(name) = part.value.pointer("/metadata/name").and_then(Value::as_str) {
        let line = part.places.value("/metadata/name").0;
        if let Some(first) = names.get(name) {
            findings.add(
                "/metadata/name",
                format!("a policy `{name}` exists already"),
                &format!("the other is in {first}"),
            );
        } else {
            names.insert(name.to_owned(), format!("{file}:{line}"));
        }
    }
    problems.extend(findings.into_problems());
    policy
}

/// Checks a document that is a pause.
pub(super) fn check_pause(value: &Value, findings: &mut Findings<'_>) {
    if !is_ours(value, PAUSE, findings) {
        return;
    }
    if let Some(raw) = PAUSE_SHAPE.read::<RawPause>(value, findings) {
        check_name(&raw.metadata.name, findings);
        check_selector(&raw.spec.node_selector, findings);
    }
}

/// The policy of an object, under the same checks. Problems name the object and have no line.
pub fn policy(object: &RepairPolicy) -> Result<Policy, Vec<Problem>> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    stored_policy(name, &json!(object.spec))
}

/// The same of an object as it is stored, which may be of another version.
pub fn stored_policy(name: &str, spec: &Value) -> Result<Policy, Vec<Problem>> {
    let metadata = json!({"name": name});
    let value =
        json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec});
    let places = Places::default();
    let mut findings = Findings::new(name, &places);
    let policy = read(&value, &mut findings);
    Ok(sorted(policy, findings.into_problems())?.expect("without a problem there is a policy"))
}

/// If not, it is something else altogether: its fields say nothing to us.
fn is_ours(value: &Value, kind: &str, findings: &mut Findings<'_>) -> bool {
    for (field, wanted) in [("apiVersion", API_VERSION), ("kind", kind)] {
        if value[field] != wanted {
            findings.add(
                &format!("/{field}"),
                format!("`{field}` must be {wanted}"),
                &format!("write `{field}: {wanted}`"),
            );
        }
    }
    findings.is_empty()
}

fn read(value: &Value, findings: &mut Findings<'_>) -> Option<Policy> {
    if !is_ours(value, KIND, findings) {
        return None;
    }
    let raw: Raw = SHAPE.read(value, findings)?;
    check(&raw, findings);
    if findings.is_empty() {
        Some(build(raw))
    } else {
        None
    }
}

fn build(raw: Raw) -> Policy {
    let spec = raw.spec;
    Policy {
        name: raw.metadata.name,
        accepted: true,
        mode: spec.mode,
        priority: spec.priority,
        selector: spec.node_selector,
        control_plane: spec.control_plane,
        budgets: spec.budgets.into_iter().map(build_budget).collect(),
        windows: windows(&spec.windows),
        faults: spec.faults.into_iter().map(build_fault).collect(),
        strategy: spec.replacement.strategy,
        launch_template: spec.replacement.ec2.map(|ec2| ec2.launch_template),
        ready_timeout: spec.replacement.ready_timeout.unwrap_or(Span::minutes(15)),
        max_attempts: spec.replacement.max_attempts.unwrap_or(2),
        drain_timeout: spec.drain.timeout.unwrap_or(Span::minutes(15)),
        max_pod_grace_period: spec.drain.max_pod_grace_period,
    }
}

/// What was checked is always there.
fn windows(specs: &[WindowSpec]) -> Vec<Window> {
    let places = Places::default();
    let mut findings = Findings::new("", &places);
    let windows = specs.iter();
    windows
        .filter_map(|spec| window::read(spec, "", &mut findings))
        .collect()
}

fn build_budget(spec: BudgetSpec) -> Budget {
    Budget {
        name: spec.name,
        per: spec.per.unwrap_or(Per::Cluster),
        max_repairs: spec.max_repairs.zip(spec.within),
        max_in_flight: spec.max_in_flight,
        max_unavailable: spec.max_unavailable.as_ref().and_then(amount),
    }
}

fn amount(spec: &IntOrString) -> Option<Amount> {
    match spec {
        IntOrString::Int(count) => u32::try_from(*count).ok().map(Amount::Count),
        IntOrString::String(text) => text.parse().ok(),
    }
}

fn build_fault(fault: FaultSpec) -> Fault {
    Fault {
        name: fault.name,
        severity: fault.severity,
        when: fault.when,
        for_: fault.for_,
        actions: fault.actions,
        confirm: fault.confirm.and_then(build_confirm),
    }
}

/// What was checked is always there.
fn build_confirm(spec: ConfirmSpec) -> Option<Confirm> {
    Some(Confirm {
        port: spec.port.try_into().ok()?,
        above: above(&spec)?,
        path: spec.path.unwrap_or_else(|| "/metrics".into()),
        metric: spec.metric,
        on_unreachable: spec.on_unreachable.unwrap_or(OnUnreachable::Unknown),
    })
}

fn check(raw: &Raw, findings: &mut Findings<'_>) {
    let spec = &raw.spec;
    check_name(&raw.metadata.name, findings);
    check_selector(&spec.node_selector, findings);
    check_replacement(spec, findings);
    check_drain(spec, findings);
    check_budgets(&spec.budgets, findings);
    for (index, spec) in spec.windows.iter().enumerate() {
        window::read(spec, &format!("/spec/windows/{index}"), findings);
    }
    check_faults(&spec.faults, findings);
}

const ANOTHER_NAME: &str = "give it another name";

fn check_budgets(budgets: &[BudgetSpec], findings: &mut Findings<'_>) {
    let mut names = BTreeSet::new();
    for (index, budget) in budgets.iter().enumerate() {
        let at = format!("/spec/budgets/{index}");
        if !names.insert(budget.name.as_str()) {
            let message = format!("a budget `{}` exists already", budget.name);
            findings.add(&format!("{at}/name"), message, ANOTHER_NAME);
        }
        if budget.max_repairs.is_some() != budget.within.is_some() {
            let hint = "give both maxRepairs and within, or neither";
            findings.add(&at, "is half a rate", hint);
        }
        if budget.within == Some(Span::default()) {
            let hint = "such as 1h; to allow no repair at all, write maxRepairs: 0";
            findings.add(&format!("{at}/within"), "must be longer than 0s", hint);
        }
        let limits = [
            budget.max_repairs.is_some() || budget.within.is_some(),
            budget.max_in_flight.is_some(),
            budget.max_unavailable.is_some(),
        ];
        if !limits.contains(&true) {
            let hint = "give maxRepairs and within, maxInFlight or maxUnavailable";
            findings.add(&at, "limits nothing", hint);
        }
        if let Some(IntOrString::String(text)) = &budget.max_unavailable
            && text.parse::<Amount>().is_err()
        {
            let message = format!("`{text}` is neither a number nor a percentage");
            findings.add(&format!("{at}/maxUnavailable"), message, "such as 2 or 10%");
        }
    }
}

fn check_name(name: &str, findings: &mut Findings<'_>) {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        part.starts_with(plain)
            && part.ends_with(plain)
            && part.chars().all(|c| plain(c) || c == '-')
    };
    if name.len() > 253 || !name.split('.').all(part) {
        findings.add(
            "/metadata/name",
            format!("`{name}` is not a name"),
            "lower-case letters, digits, `-` and `.`",
        );
    }
}

fn check_selector(selector: &NodeSelector, findings: &mut Findings<'_>) {
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let at = format!("/spec/nodeSelector/matchExpressions/{index}");
        let listed = !requirement.values.is_empty();
        match requirement.operator {
            Operator::In | Operator::NotIn if !listed => {
                findings.add(
                    &at,
                    format!("{:?} needs values", requirement.operator),
                    "list them in `values`",
                );
            }
            Operator::Exists | Operator::DoesNotExist if listed => {
                let hint = "leave `values` out, or use In or NotIn";
                findings.add(
                    &format!("{at}/values"),
                    format!("{:?} takes no values", requirement.operator),
                    hint,
                );
            }
            _ => {}
        }
    }
}

fn check_replacement(spec: &RepairPolicySpec, findings: &mut Findings<'_>) {
    let replacement = &spec.replacement;
    match replacement.strategy {
        Some(Strategy::EC2) => {}
        Some(other) => {
            findings.not_supported(
                "/spec/replacement/strategy",
                &format!("strategy {other:?}"),
                "use EC2",
            );
        }
        None if spec.mode != Mode::Observe
            && !only_cordons(&spec.faults)
            && findings.is_free("/spec/replacement/strategy") =>
        {
            findings.add(
                "/spec/mode",
                format!("{:?} needs a strategy", spec.mode),
                "write `replacement.strategy: EC2`",
            );
        }
        None => {}
    }
    if replacement.order == Some(Order::TerminateFirst) {
        findings.not_supported(
            "/spec/replacement/order",
            "order TerminateFirst",
            "use LaunchFirst",
        );
    }
    if replacement.on_recovered == Some(OnRecovered::Keep) {
        findings.not_supported(
            "/spec/replacement/onRecovered",
            "onRecovered Keep",
            "use Return",
        );
    }
    not_zero(
        replacement.ready_timeout,
        "/spec/replacement/readyTimeout",
        findings,
    );
}

fn check_drain(spec: &RepairPolicySpec, findings: &mut Findings<'_>) {
    if spec.drain.on_timeout == Some(OnTimeout::Force) {
        findings.not_supported("/spec/drain/onTimeout", "onTimeout Force", "use Hold");
    }
    not_zero(spec.drain.timeout, "/spec/drain/timeout", findings);
    if spec
        .drain
        .max_pod_grace_period
        .is_some_and(|grace| grace < Span::seconds(1))
    {
        findings.add(
            "/spec/drain/maxPodGracePeriod",
            "is below 1s",
            "0 would kill pods at once; give 1s or more",
        );
    }
}

fn not_zero(span: Option<Span>, pointer: &str, findings: &mut Findings<'_>) {
    if span == Some(Span::default()) {
        findings.add(
            pointer,
            "must be longer than 0s",
            "leave it out for the default of 15m",
        );
    }
}

fn check_faults(faults: &[FaultSpec], findings: &mut Findings<'_>) {
    let mut names = BTreeSet::new();
    for (index, fault) in faults.iter().enumerate() {
        let at = format!("/spec/faults/{index}");
        if !names.insert(fault.name.as_str()) {
            findings.add(
                &format!("{at}/name"),
                format!("a fault `{}` exists already", fault.name),
                ANOTHER_NAME,
            );
        }
        if fault.name == BY_HAND {
            let hint = "repairs that people ask for have this name";
            findings.add(&format!("{at}/name"), format!("`{BY_HAND}` is taken"), hint);
        }
        check_actions(&fault.actions, &at, findings);
        if let Some(confirm) = &fault.confirm {
            check_confirm(confirm, &format!("{at}/confirm"), findings);
        }
        if fault.actions.is_empty() {
            let hint = "move it to a fault that has an action";
            if fault.confirm.is_some() {
                findings.add_at_key(&format!("{at}/confirm"), "confirms nothing", hint);
            }
            if fault.for_ != Span::default() {
                findings.add_at_key(&format!("{at}/for"), "nothing waits for it", hint);
            }
        }
        check_when(&fault.when, &format!("{at}/when"), findings);
    }
    if faults.iter().all(|fault| fault.actions.is_empty()) {
        findings.add_at_key(
            "/spec/faults",
            "no fault has an action",
            "write `actions: [Replace]` for one",
        );
    }
    check_references(faults, findings);
}

/// Only after a reboot there is something left to try: a cordon lasts as long as its fault,
/// and a replacement ends the node or asks for a person.
fn check_actions(actions: &[Action], fault: &str, findings: &mut Findings<'_>) {
    for (number, action) in actions.iter().enumerate() {
        let at = format!("{fault}/actions/{number}");
        let before = &actions[..number];
        if before.contains(action) {
            let hint = "each action is tried once";
            findings.add(&at, format!("{action:?} is there already"), hint);
        } else if let Some(last) = before.iter().find(|one| **one != Action::Reboot) {
            let hint = "write Reboot first; Replace and Cordon end a list";
            findings.add(&at, format!("{action:?} can never follow {last:?}"), hint);
        }
    }
}

fn only_cordons(faults: &[FaultSpec]) -> bool {
    let mut actions = faults.iter().flat_map(|fault| &fault.actions);
    actions.all(|action| *action == Action::Cordon)
}

fn check_confirm(confirm: &ConfirmSpec, at: &str, findings: &mut Findings<'_>) {
    let sound = |path: &str| {
        path.starts_with('/')
            && path
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    };
    if !confirm.path.as_deref().is_none_or(sound) {
        let hint = "such as /metrics, from the first `/` on, without spaces or `#`";
        findings.add(&format!("{at}/path"), "is not a path", hint);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = &confirm.metric;
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') || !name.chars().all(plain)
    {
        let message = format!("`{name}` is not a metric's name");
        let hint = "the name alone, without labels";
        findings.add(&format!("{at}/metric"), message, hint);
    }
    if above(confirm).is_none() {
        let message = format!("`{}` is not a finite number", confirm.above);
        findings.add(&format!("{at}/above"), message, "such as \"0\"");
    }
}

fn above(confirm: &ConfirmSpec) -> Option<f64> {
    let number: f64 = confirm.above.parse().ok()?;
    number.is_finite().then_some(number)
}

fn check_when(when: &When, at: &str, findings: &mut Findings<'_>) {
    if when.all.is_empty() && when.any.is_empty() && when.none.is_empty() && when.at_least.is_none()
    {
        findings.add(
            at,
            "says nothing",
            "give at least one of all, any, none, atLeast",
        );
    }
    if let Some(part) = &when.at_least
        && usize::try_from(part.count).is_ok_and(|count| count > part.of.len())
    {
        let message = format!("{} of {} can never hold", part.count, part.of.len());
        findings.add(
            &format!("{at}/atLeast/count"),
            message,
            "at most as many as `of` has",
        );
    }
    for (below, leaf) in leaves(when) {
        let given = [
            leaf.signal.is_some(),
            leaf.condition.is_some(),
            leaf.fault.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() != 1 {
            findings.add(
                &format!("{at}/{below}"),
                "is not one thing",
                "give exactly one of signal, condition, fault",
            );
        }
    }
}

/// Every leaf, with its pointer below `when`.
pub(super) fn leaves(when: &When) -> Vec<(String, &Leaf)> {
    let of = when.at_least.as_ref().map_or(&[][..], |part| &part.of);
    [
        ("all", &when.all[..]),
        ("any", &when.any),
        ("none", &when.none),
        ("atLeast/of", of),
    ]
    .into_iter()
    .flat_map(|(part, list)| {
        list.iter()
            .enumerate()
            .map(move |(index, leaf)| (format!("{part}/{index}"), leaf))
    })
    .collect()
}

fn check_references(faults: &[FaultSpec], findings: &mut Findings<'_>) {
    let names: BTreeSet<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
    let mut references: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (index, fault) in faults.iter().enumerate() {
        for (below, leaf) in leaves(&fault.when) {
            let Some(target) = leaf.fault.as_deref() else {
                continue;
            };
            references.entry(&fault.name).or_default().push(target);
            if !names.contains(target) {
                let known: Vec<&str> = names.iter().copied().collect();
                let at = format!("/spec/faults/{index}/when/{below}/fault");
                findings.add(
                    &at,
                    format!("no fault `{target}` in this policy"),
                    &format!("known: {}", known.join(", ")),
                );
            }
        }
    }
    let mut reported = BTreeSet::new();
    for (index, fault) in faults.iter().enumerate() {
        let Some(cycle) = cycle_from(&fault.name, &references) else {
            continue;
        };
        if !cycle.iter().any(|name| reported.contains(name)) {
            let message = format!("rests on itself: {} -> {}", cycle.join(" -> "), fault.name);
            findings.add(
                &format!("/spec/faults/{index}/name"),
                message,
                "break the circle",
            );
        }
        reported.extend(cycle);
    }
}

/// The way from `start` back to itself, if there is one.
fn cycle_from<'a>(
    start: &'a str,
    references: &BTreeMap<&'a str, Vec<&'a str>>,
) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        let last = way.last().copied().unwrap_or(start);
        for next in references.get(last).into_iter().flatten() {
            if *next == start {
                return Some(way);
            }
            if seen.insert(*next) {
                ways.push(way.iter().copied().chain([*next]).collect());
            }
        }
    }
    None
}
