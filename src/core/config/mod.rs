//! Configuration: raw documents in, validated types out, every mistake at once.
//! What comes out of here cannot be wrong any more.

mod check;
mod connection;
mod findings;
mod policy;
mod presence;
mod rule;
pub mod scenario;
mod settings;
mod shape;
#[cfg(test)]
mod tests;
mod tie;
mod window;
mod yaml;

pub use check::{Checked, Counts, Role, check, is_settings};
pub use policy::{policies, policy, policy_schema, stored_policy};
pub use rule::{check_signals, rules};
pub use settings::{
    Basic, ClientCertificate, Named, Pattern, TlsFiles, TokenReview, WebhookAuth, named, settings,
    settings_schema,
};
pub use tie::tied_with;
pub use window::Window;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::api::{
    Action, LaunchTemplate, Mode, NodeSelector, OnUnreachable, Per, Severity, Strategy, When,
};
use crate::model::Span;

/// The jobs that speak for the whole cluster, if no others are configured.
pub const CLUSTER_JOBS: [&str; 1] = ["kube-state-metrics"];

/// The labels that name a node's pool, if no others are configured: of Karpenter, EKS,
/// GKE, AKS and kOps.
pub const POOL_LABELS: [&str; 5] = [
    "karpenter.sh/nodepool",
    "eks.amazonaws.com/nodegroup",
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
    "kops.k8s.io/instancegroup",
];

/// A text to read: the core opens no files.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// How problems call it.
    pub file: &'a str,
    /// YAML; one file may hold several documents.
    pub text: &'a str,
}

/// What was read, or else every mistake, in the order of the text.
fn sorted<T>(read: T, mut problems: Vec<Problem>) -> Result<T, Vec<Problem>> {
    if problems.is_empty() {
        return Ok(read);
    }
    problems.sort();
    problems.dedup();
    Err(problems)
}

/// A mistake, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file, or the object's name.
    pub file: String,
    /// The line, from 1; 0 where there is none.
    pub line: usize,
    /// The column, from 1; 0 where there is none.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do; empty where the message says it.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// A validated `RepairPolicy`.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Whether it may be followed. One that was refused only keeps its nodes from others.
    pub accepted: bool,
    /// Whether and how it acts.
    pub mode: Mode,
    /// The highest matching one wins.
    pub priority: i32,
    /// Which nodes.
    pub selector: NodeSelector,
    /// Whether it speaks for nodes of the control plane, too.
    pub control_plane: bool,
    /// Limits over its nodes; each name once.
    pub budgets: Vec<Budget>,
    /// When repairs may start; none: always.
    pub windows: Vec<Window>,
    /// In the order written; references resolve and are acyclic.
    pub faults: Vec<Fault>,
    /// Who makes the new node; always there when enforcing.
    pub strategy: Option<Strategy>,
    /// Where to launch from, if not from what the old instance was.
    pub launch_template: Option<LaunchTemplate>,
    /// How long a new node may take to be Ready.
    pub ready_timeout: Span,
    /// How many new nodes are tried.
    pub max_attempts: u32,
    /// How long a drain may take.
    pub drain_timeout: Span,
    /// The longest grace period a pod gets; at least one second.
    pub max_pod_grace_period: Option<Span>,
}

impl Policy {
    /// When the fault of this name is true.
    pub fn when(&self, fault: &str) -> Option<&When> {
        let mut faults = self.faults.iter();
        Some(&faults.find(|known| known.name == fault)?.when)
    }

    /// The signals that a fault rests on, those of its parts included.
    pub fn signals(&self, fault: &str) -> BTreeSet<&str> {
        let mut signals = BTreeSet::new();
        let parts = self.when(fault).into_iter().flat_map(policy::leaves);
        for (_, leaf) in parts {
            signals.extend(leaf.signal.as_deref());
            if let Some(part) = &leaf.fault {
                signals.extend(self.signals(part));
            }
        }
        signals
    }

    /// Whether a fault of this name rests on the same things in both.
    pub fn same_fault(&self, other: &Self, name: &str) -> bool {
        let (Some(here), Some(there)) = (self.when(name), other.when(name)) else {
            return false;
        };
        let parts = policy::leaves(here);
        let mut faults = parts.iter().filter_map(|(_, leaf)| leaf.fault.as_deref());
        here == there && faults.all(|part| self.same_fault(other, part))
    }
}

/// A limit over a policy's nodes. What is not given does not limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Its name, unique within the policy.
    pub name: String,
    /// Over what it counts.
    pub per: Per,
    /// Starts within a rolling window.
    pub max_repairs: Option<(u32, Span)>,
    /// Repairs at once.
    pub max_in_flight: Option<u32>,
    /// Nodes that are not available, at once.
    pub max_unavailable: Option<Amount>,
}

/// A number of nodes, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many of a hundred, at most 100.
    Percent(u32),
}

impl Amount {
    /// How many that is of `total`. Rounded down, but never to none unless none is meant.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(0) => 0,
            Self::Percent(percent) => (total * percent as usize / 100).max(1),
        }
    }
}

impl FromStr for Amount {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent) if percent <= 100 => Ok(Self::Percent(percent)),
                _ => Err(()),
            },
            None => text.parse().map(Self::Count).map_err(|_| ()),
        }
    }
}

/// A validated fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Its name.
    pub name: String,
    /// How urgent.
    pub severity: Severity,
    /// When it is true.
    pub when: When,
    /// True this long before it is due.
    pub for_: Span,
    /// What to do, in this order, each once; none: it is a named part.
    pub actions: Vec<Action>,
    /// The second opinion that it needs before it is due.
    pub confirm: Option<Confirm>,
}

/// A question to a node's own exporter: whether a sample of this metric is above a bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Confirm {
    /// The exporter's port, from 1.
    pub port: u16,
    /// The path of its metrics, with its query if it has one.
    pub path: String,
    /// The metric's name.
    pub metric: String,
    /// The bound, finite.
    pub above: f64,
    /// What it means if nothing answers.
    pub on_unreachable: OnUnreachable,
}

/// A validated alerting rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The alert's name, which is the signal's.
    pub name: String,
    /// The expression.
    pub expr: String,
    /// How long it must hold.
    pub for_: Span,
    /// How long a series that vanished stays firing.
    pub keep_firing_for: Span,
    /// The selector that says which nodes have data.
    pub presence: Option<String>,
    /// How often to ask.
    pub interval: Span,
    /// The labels that the rule and its group add, templates as they are written.
    pub labels: BTreeMap<String, String>,
}

/// The polled rules, each name once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// The rule of this name.
    pub fn get(&self, name: &str) -> Option<&Rule> {
        let found = self.0.binary_search_by(|rule| rule.name.as_str().cmp(name));
        self.0.get(found.ok()?)
    }
}

/// Of rules of one name the first counts.
impl FromIterator<Rule> for Rules {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        let mut rules: Vec<Rule> = rules.into_iter().collect();
        rules.sort_by(|one, other| one.name.cmp(&other.name));
        rules.dedup_by(|one, other| one.name == other.name);
        Self(rules)
    }
}

impl std::ops::Deref for Rules {
    type Target = [Rule];
    fn deref(&self) -> &[Rule] {
        &self.0
    }
}

/// The limits that bind all policies together.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Repairs at once.
    pub max_in_flight: u32,
    /// Starts within rolling windows.
    pub max_repairs: Vec<(u32, Span)>,
    /// The breaker of the cluster, of each zone and of each pool.
    pub breaker: Breaker,
    /// A younger node is left alone.
    pub min_node_age: Span,
    /// A node that never was Ready is left alone and counts nowhere until it is this old.
    pub startup_grace: Span,
    /// The labels that name a node's pool; the first that it has counts.
    pub pool_labels: Vec<String>,
}

/// When too much is sick to act.
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    /// Percent of the nodes.
    pub share: u32,
    /// A number of nodes; the smaller of both counts.
    pub nodes: u32,
    /// At least this many must be sick.
    pub min_nodes: u32,
    /// How far back it looks.
    pub cooldown: Span,
}

impl Policy {
    /// In place of a policy that was refused: the nodes it selects are left alone, and
    /// fall to no other policy of a lower priority.
    pub fn refused(name: String, priority: i32, selector: NodeSelector) -> Self {
        Self {
            name,
            accepted: false,
            mode: Mode::Observe,
            priority,
            selector,
            control_plane: false,
            budgets: Vec::new(),
            windows: Vec::new(),
            faults: Vec::new(),
            strategy: None,
            launch_template: None,
            ready_timeout: Span::default(),
            max_attempts: 0,
            drain_timeout: Span::default(),
            max_pod_grace_period: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_in_flight: 2,
            max_repairs: vec![(6, Span::minutes(60))],
            breaker: Breaker {
                share: 20,
                nodes: 20,
                min_nodes: 3,
                cooldown: Span::minutes(10),
            },
            min_node_age: Span::minutes(10),
            startup_grace: Span::minutes(15),
            pool_labels: POOL_LABELS.map(str::to_owned).to_vec(),
        }
    }
}

/// How a server is asked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// Base URLs, http or https, in order of preference.
    pub urls: Vec<String>,
    /// How long one request may take.
    pub timeout: Span,
    /// Who asks.
    pub credentials: Credentials,
    /// The certificates, as PEM, that sign the server's; none: those of the system.
    pub ca_file: Option<String>,
    /// Our own certificate and its key, as PEM.
    pub identity: Option<(String, String)>,
    /// Headers of every request, by their names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// Shows of headers only the names: a value may be a secret.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("urls", &self.urls)
            .field("timeout", &self.timeout)
            .field("credentials", &self.credentials)
            .field("ca_file", &self.ca_file)
            .field("identity", &self.identity)
            .field("headers", &self.headers.keys())
            .finish()
    }
}

/// Who asks. Secrets are in files, which are read again whenever they are needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// The file of a bearer token.
    BearerFile(String),
    /// A name, without a colon, and the file of its password.
    Basic {
        /// The name.
        username: String,
        /// The file.
        password_file: String,
    },
    /// The account that the AWS SDK finds, by signatures of this region.
    SigV4 {
        /// The region.
        region: String,
    },
}

/// The service's own configuration, `nodemend.yaml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The cluster's name; its instances carry it in a tag.
    pub cluster: String,
    /// Where the webhook listens.
    pub listen_webhook: std::net::SocketAddr,
    /// Where metrics and probes listen.
    pub listen_metrics: std::net::SocketAddr,
    /// Who may deliver to the webhook. If it neither guards nor says anonymous, the
    /// webhook listens on loopback only.
    pub webhook_auth: WebhookAuth,
    /// The webhook's certificate; none for plain HTTP.
    pub webhook_tls: Option<TlsFiles>,
    /// The largest webhook body in bytes, uncompressed.
    pub max_body: usize,
    /// How the members of one Alertmanager cluster are asked.
    pub alertmanager: Connection,
    /// Of the alerts that it lists those count that are routed to one of these receivers;
    /// without any, all.
    pub receivers: Vec<String>,
    /// How Prometheus is asked.
    pub prometheus: Connection,
    /// The labels that Prometheus puts on what it sends to Alertmanager, where there is no other
    /// of that name; what has one with another value is of another cluster.
    pub external_labels: BTreeMap<String, String>,
    /// Whether nodes may be probed at loopback addresses: in tests, where they have no others.
    pub probe_loopback: bool,
    /// Jobs that speak for the whole cluster: their `instance` is their own address.
    pub cluster_jobs: Vec<String>,
    /// Glob patterns of rule files, relative to this file.
    pub rules: Vec<String>,
    /// Glob patterns of policy files, relative to this file.
    pub policies: Vec<String>,
    /// The limits that bind all policies together.
    pub limits: Limits,
}
