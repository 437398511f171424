//! A deterministic world in virtual time: nodes, pods, instances and records that
//! behave as the real ones do. It answers calls at once. At any of them it can stop the
//! leader before or after, as a kill would, answer with a conflict or lose the answer.

mod alertmanager;
mod alerts;
mod cloud;
mod cluster;
mod invariants;
mod probes;
mod prometheus;
#[cfg(test)]
mod tests;

pub use alertmanager::HARDWARE_ALERT;
pub use alerts::Alerts;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::exec::{CallError, Clock};
use jiff::Timestamp;
use nodemend_core::api::{FleetState, NodeHealth, NodeRepair};
use nodemend_core::config::Rule;
use nodemend_core::model::{
    Condition, InstanceState, InstanceView, NodeView, PodView, Span, ZONE_LABEL,
};

/// How long the cloud is waited for.
const CLOUD_DEADLINE: Span = Span::seconds(10);

/// What goes wrong once, at the n-th mutating call, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// The leader is killed; the call never reaches the world.
    KillBefore(usize),
    /// The call has its effect; the leader is killed and never learns of it.
    KillAfter(usize),
    /// The call has its effect only once it is released; who made it never learns of that.
    Late(usize),
    /// The call is answered with a conflict and has no effect.
    Conflict(usize),
    /// The call has its effect, and its answer is lost.
    NoAnswer(usize),
}

/// What becomes of repairs that are created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Creates {
    /// They are there.
    #[default]
    Answered,
    /// There is no answer, and they land later.
    Late,
    /// They are refused for good.
    Refused,
}

/// What is wrong with a machine. What shows it is up to monitoring, what it means to
/// rules and policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The kernel mounted a file system read-only.
    DiskReadOnly,
    /// The disk is full.
    DiskFull,
    /// The disk does not answer.
    DiskSilent,
    /// The NIC receives garbage.
    NicErrors,
    /// The kubelet stopped.
    KubeletDown,
    /// The hardware monitor sees errors; no exporter shows them.
    Hardware,
}

/// What the simulated fleet consists of.
#[derive(Debug, Default)]
pub struct State {
    /// The time.
    pub now: Timestamp,
    nodes: BTreeMap<String, NodeView>,
    pods: BTreeMap<String, (String, PodView)>,
    /// Pods that are gone but for their kubelet's word, by node.
    left: Vec<(String, PodView)>,
    instances: BTreeMap<String, Instance>,
    tokens: BTreeMap<String, String>,
    repairs: BTreeMap<String, NodeRepair>,
    healths: BTreeMap<String, NodeHealth>,
    fleet: Option<FleetState>,
    creates: Creates,
    cloud_hangs: bool,
    /// Repairs whose creation got no answer and may land yet.
    late: Vec<NodeRepair>,
    faults: BTreeMap<String, BTreeSet<Fault>>,
    /// When the kubelets that are down went down, by node.
    silent: BTreeMap<String, Timestamp>,
    restarting: BTreeMap<String, Restart>,
    /// The intents that a machine was restarted for.
    restarted: BTreeSet<String>,
    queries: BTreeMap<String, prometheus::Query>,
    alertmanager: alertmanager::Alertmanager,
    alerts: Alerts,
    version: u64,
    calls: Vec<String>,
    strike: Option<Strike>,
    released: bool,
    reads: u64,
    checked: u64,
    violated: Vec<String>,
}

#[derive(Debug)]
struct Instance {
    view: InstanceView,
    changed: Timestamp,
    node: Option<String>,
}

/// A machine that restarts: when it is back, and what was heard of its node before.
#[derive(Debug)]
struct Restart {
    back: Timestamp,
    conditions: Vec<Condition>,
    silent: Option<Timestamp>,
}

/// A handle on the world; the leader gets a copy of it.
#[derive(Clone, Debug, Default)]
pub struct World(Rc<RefCell<State>>);

impl World {
    /// An empty world at this time, whose Prometheus knows the queries of these rules.
    pub fn new(now: Timestamp, rules: &[Rule]) -> Self {
        Self(Rc::new(RefCell::new(State {
            now,
            queries: prometheus::queries(rules),
            ..State::default()
        })))
    }

    /// The alert groups of this world, for those who deliver and who read.
    pub fn alerts(&self) -> Alerts {
        self.0.borrow().alerts.clone()
    }

    /// Strikes at a call, once; none lets all of them be.
    pub fn strike_at(&self, strike: Option<Strike>) {
        self.0.borrow_mut().strike = strike;
    }

    /// Lets the call that is late have its effect.
    pub fn release(&self) {
        self.0.borrow_mut().released = true;
    }

    /// What becomes of the repairs that are created from now on.
    pub fn answer_creates(&self, creates: Creates) {
        self.0.borrow_mut().creates = creates;
    }

    /// What was created without an answer lands now.
    pub fn land(&self) {
        let mut state = self.0.borrow_mut();
        for repair in std::mem::take(&mut state.late) {
            let name = repair.name().to_owned();
            state.repairs.entry(name).or_insert(repair);
        }
        state.check();
    }

    /// A person deletes the record of a repair.
    pub fn forget_repair(&self, name: &str) {
        self.0.borrow_mut().repairs.remove(name);
    }

    /// Every mutating call so far: what, and on which object.
    pub fn calls(&self) -> Vec<String> {
        self.0.borrow().calls.clone()
    }

    /// How many invariants were checked, and which were violated.
    pub fn invariants(&self) -> (u64, Vec<String>) {
        let state = self.0.borrow();
        (state.checked, state.violated.clone())
    }

    /// All nodes.
    pub fn list_nodes(&self) -> Vec<NodeView> {
        self.0.borrow().nodes.values().cloned().collect()
    }

    /// All repairs.
    pub fn list_repairs(&self) -> Vec<NodeRepair> {
        self.0.borrow().repairs.values().cloned().collect()
    }

    /// Adds a Ready node on a running instance.
    pub fn add_node(&self, name: &str, zone: &str, labels: &[(&str, &str)]) {
        let mut state = self.0.borrow_mut();
        let id = format!("i-{:017x}", state.instances.len() + 1);
        let now = state.now;
        let tags = [
            ("kubernetes.io/cluster/sim", "owned"),
            ("aws:ec2launchtemplate:id", "lt-0001"),
            ("aws:ec2launchtemplate:version", "1"),
        ];
        let view = InstanceView {
            id: id.clone(),
            state: InstanceState::Running,
            tags: tags
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            subnet: format!("subnet-{zone}"),
            instance_type: "m7i.large".into(),
        };
        state.instances.insert(
            id.clone(),
            Instance {
                view,
                changed: now,
                node: Some(name.to_owned()),
            },
        );
        let mut node = node_view(&mut state, name, zone, &id, labels);
        // It was there long before.
        node.created = Span::minutes(24 * 60).before(now);
        state.nodes.insert(name.to_owned(), node);
    }

    /// Adds a pod with an owner to a node.
    pub fn add_pod(&self, name: &str, node: &str) {
        let mut state = self.0.borrow_mut();
        let uid = state.fresh("pod");
        let pod = PodView {
            namespace: "default".into(),
            name: name.into(),
            uid,
            owner_kind: "ReplicaSet".into(),
            mirror: false,
            finished: false,
            gone_by: None,
            local_data: false,
            tolerates_unschedulable: false,
            do_not_disrupt: false,
            grace_seconds: 30,
        };
        state.pods.insert(name.to_owned(), (node.to_owned(), pod));
    }

    /// Annotates a node.
    pub fn annotate(&self, node: &str, key: &str, value: &str) {
        let mut state = self.0.borrow_mut();
        if let Some(node) = state.nodes.get_mut(node) {
            node.annotations.insert(key.to_owned(), value.to_owned());
        }
    }

    /// Breaks the machine of a node.
    pub fn break_machine(&self, node: &str, fault: Fault) {
        let mut state = self.0.borrow_mut();
        let faults = state.faults.entry(node.to_owned()).or_default();
        faults.insert(fault);
        if fault == Fault::KubeletDown {
            drop(state);
            self.fall_silent(node);
        }
    }

    /// Changes a node object as somebody else would.
    pub fn edit_node(&self, name: &str, edit: impl FnOnce(&mut NodeView)) {
        let mut state = self.0.borrow_mut();
        let version = state.bump();
        if let Some(node) = state.nodes.get_mut(name) {
            edit(node);
            node.resource_version = version;
        }
    }

    /// The kubelet of a node says whether it is Ready: `True` or `False`.
    pub fn say_ready(&self, node: &str, status: &str) {
        self.0.borrow_mut().silent.remove(node);
        self.edit_node(node, |node| node.conditions = ready(status));
    }

    /// The kubelet of a node stops, and with it its lease.
    pub fn fall_silent(&self, node: &str) {
        let now = self.now();
        let mut state = self.0.borrow_mut();
        state.silent.entry(node.to_owned()).or_insert(now);
        drop(state);
        self.lose_sight(node);
    }

    /// Somebody else ends the machine of a node, and its object goes.
    pub fn remove_node(&self, name: &str) {
        let mut state = self.0.borrow_mut();
        state.nodes.remove(name);
        let on = |instance: &&mut Instance| instance.node.as_deref() == Some(name);
        if let Some(instance) = state.instances.values_mut().find(on) {
            instance.view.state = InstanceState::Terminated;
            instance.node = None;
        }
    }

    /// The control plane no longer hears of a node's kubelet, though it runs.
    pub fn lose_sight(&self, node: &str) {
        let mut state = self.0.borrow_mut();
        let version = state.bump();
        if let Some(node) = state.nodes.get_mut(node) {
            node.conditions = ready("Unknown");
            node.resource_version = version;
        }
    }

    /// From now on the cloud takes calls and does not answer, or does again.
    pub fn hang_cloud(&self, hangs: bool) {
        self.0.borrow_mut().cloud_hangs = hangs;
    }

    /// Waits until an answer is given up, if there is none.
    fn wait_for_cloud(&self) -> Result<(), CallError> {
        let mut state = self.0.borrow_mut();
        if state.cloud_hangs {
            state.now = CLOUD_DEADLINE.after(state.now);
            return Err(CallError::NoAnswer("nothing within 10 s".into()));
        }
        Ok(())
    }

    /// Lets time pass, and what was begun go on.
    pub fn tick(&self, by: Span) {
        let mut state = self.0.borrow_mut();
        state.now = by.after(state.now);
        state.move_instances();
        state.restart_machines();
        state.place_pods();
        state.check();
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        self.0.borrow().now
    }
    fn may_begin(&self) -> bool {
        true
    }
}

impl State {
    fn has(&self, node: &str, fault: Fault) -> bool {
        self.faults
            .get(node)
            .is_some_and(|faults| faults.contains(&fault))
    }

    /// Kubelets that run renew their lease every ten seconds.
    fn renewed(&self, node: &str) -> Option<Timestamp> {
        let until = self.silent.get(node).copied().unwrap_or(self.now);
        let known = self.nodes.contains_key(node);
        let second = until.as_second();
        Timestamp::from_second(second - second.rem_euclid(10))
            .ok()
            .filter(|_| known)
    }

    fn bump(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn fresh(&mut self, kind: &str) -> String {
        format!("{kind}-{}", self.bump())
    }

    fn move_instances(&mut self) {
        let now = self.now;
        let ids: Vec<String> = self.instances.keys().cloned().collect();
        for id in ids {
            let Some(instance) = self.instances.get(&id) else {
                continue;
            };
            let age = now.duration_since(instance.changed).as_secs();
            let zone = instance
                .view
                .subnet
                .trim_start_matches("subnet-")
                .to_owned();
            match (instance.view.state, &instance.node) {
                (InstanceState::Pending, None) if age >= 60 => {
                    let name = format!(
                        "sim-{}",
                        id.trim_start_matches("i-").trim_start_matches('0')
                    );
                    let node = node_view(self, &name, &zone, &id, &[("workload", "general")]);
                    self.nodes.insert(name.clone(), node);
                    self.set(&id, InstanceState::Running, Some(name));
                }
                (InstanceState::ShuttingDown, node) if age >= 30 => {
                    let node = node.clone();
                    if let Some(name) = &node {
                        self.nodes.remove(name);
                        self.faults.remove(name);
                        self.silent.remove(name);
                        self.restarting.remove(name);
                        self.pods.retain(|_, (on, _)| on != name);
                        self.left.retain(|(on, _)| on != name);
                    }
                    self.set(&id, InstanceState::Terminated, None);
                }
                _ => {}
            }
        }
    }

    fn set(&mut self, id: &str, to: InstanceState, node: Option<String>) {
        let now = self.now;
        if let Some(instance) = self.instances.get_mut(id) {
            instance.view.state = to;
            instance.changed = now;
            instance.node = node;
        }
    }

    /// A restart takes a while. It brings a kubelet back, and leaves the rest as it was.
    fn restart_machines(&mut self) {
        let now = self.now;
        let is_back = |_: &String, restart: &mut Restart| restart.back <= now;
        let back: Vec<_> = self.restarting.extract_if(.., is_back).collect();
        for (name, before) in back {
            let faults = self.faults.entry(name.clone()).or_default();
            let dead = faults.remove(&Fault::KubeletDown);
            self.silent.remove(&name);
            let silent = before.silent.filter(|_| !dead);
            self.silent
                .extend(silent.map(|since| (name.clone(), since)));
            self.left.retain(|(on, _)| *on != name);
            let (boot_id, version) = (self.fresh("boot"), self.bump());
            if let Some(node) = self.nodes.get_mut(&name) {
                node.boot_id = boot_id;
                node.conditions = if dead {
                    ready("True")
                } else {
                    before.conditions
                };
                node.resource_version = version;
            }
        }
    }

    /// Evicted pods come back elsewhere.
    fn place_pods(&mut self) {
        let target = self
            .nodes
            .values()
            .filter(|node| node.ready() && !node.unschedulable)
            .map(|node| node.name.clone())
            .next_back();
        let Some(target) = target else { return };
        let moving: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, (_, pod))| pod.gone_by.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for name in moving {
            let uid = self.fresh("pod");
            if let Some((node, pod)) = self.pods.get_mut(&name) {
                // A dead kubelet ends no pod: it stays until its machine goes.
                if self.nodes.get(node).is_some_and(|node| !node.ready()) {
                    self.left.push((node.clone(), pod.clone()));
                }
                node.clone_from(&target);
                pod.uid = uid;
                pod.gone_by = None;
            }
        }
    }
}

fn ready(status: &str) -> Vec<Condition> {
    vec![Condition {
        type_: "Ready".into(),
        status: status.into(),
        reason: String::new(),
    }]
}

fn node_view(
    state: &mut State,
    name: &str,
    zone: &str,
    instance: &str,
    labels: &[(&str, &str)],
) -> NodeView {
    let mut labels: BTreeMap<String, String> = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    labels.insert(ZONE_LABEL.to_owned(), zone.to_owned());
    NodeView {
        name: name.to_owned(),
        uid: state.fresh("node"),
        resource_version: state.bump(),
        provider_id: format!("aws:///{zone}/{instance}"),
        created: state.now,
        labels,
        conditions: ready("True"),
        boot_id: state.fresh("boot"),
        ..NodeView::default()
    }
}
