//! Plays a scenario: the real core and controller over a simulated fleet, in virtual time,
//! and compares what they decide with what the scenario expects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use nodemend_core::api::{NodeRepair, NodeSelector, RepairRequest};
use nodemend_core::config::scenario::{Expect, Group, Moment, Scenario, means};
use nodemend_core::config::{self, Document};
use nodemend_core::decide::{Pause, Verdict};
use nodemend_core::evidence::{Answer, Input, identity::Labels};
use nodemend_core::model::{REQUEST_ANNOTATION, Reason, Span};

use super::demo::Story;
use super::demo::{Summary, Told, pace, summarize};
use crate::controller::{Controller, Report, Setup};
use crate::exec::Clock as _;
use crate::sim::World;

/// The label that names a pool here.
const POOL_LABEL: &str = "karpenter.sh/nodepool";

/// What a scenario came to.
#[derive(Debug)]
pub struct Played {
    /// As of any other run.
    pub summary: Summary,
    /// Each expectation that was not met, with its time.
    pub unmet: Vec<String>,
}

/// Reads a scenario, or says all that is wrong with it.
pub fn read(file: &str, text: &str) -> Result<Scenario, Vec<config::Problem>> {
    config::scenario::scenario(&Document { file, text })
}

/// Nobody decides for so long while another leader takes over, and what is expected may
/// come so much later.
const GAP: Span = Span::seconds(30);
/// A leader stays for so long: clocks stand still for a third of it, and were there a new
/// leader every minute, for all of it.
const TERM: Span = Span::minutes(3);

/// When another leader takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// Only when the scenario says so.
    Never,
    /// Also whenever something happens, before the leader sees it.
    Unseen,
    /// Also whenever something happens, after the leader has decided on it.
    Seen,
}

/// Plays it at once. With relays there are twice as many passes.
pub fn play(
    scenario: &Scenario,
    relay: Relay,
    tell: impl FnMut(Told<'_>) -> io::Result<()>,
) -> io::Result<Played> {
    let mut stage = Stage::new(scenario, tell);
    if relay != Relay::Never {
        stage.relay = relay;
        let half = (scenario.step.as_seconds() + 1) / 2;
        stage.apart = Span::seconds(u32::try_from(half).unwrap_or(u32::MAX));
        stage.end = GAP.after(stage.end);
    }
    while stage.now <= stage.end {
        stage.step()?;
    }
    Ok(stage.played())
}

/// Plays it at a pace that can be followed, `speed` virtual seconds per real one; none
/// takes a minute for all of it. What an interruption leaves out is not expected.
pub fn live(
    scenario: &Scenario,
    speed: Option<u32>,
    tell: impl FnMut(Told<'_>) -> io::Result<()>,
) -> io::Result<Played> {
    let mut stage = Stage::new(scenario, tell);
    let minute = u32::try_from(scenario.length.as_seconds() / 60).unwrap_or(u32::MAX);
    let paced = pace(scenario.step, speed.unwrap_or(minute), || {
        stage.step()?;
        Ok(stage.now <= stage.end)
    });
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(paced)?;
    Ok(stage.played())
}

struct Stage<'a, F> {
    scenario: &'a Scenario,
    world: World,
    setup: Setup,
    leader: Controller<World, World, World>,
    now: Timestamp,
    end: Timestamp,
    timeline: std::slice::Iter<'a, Moment>,
    next: Option<&'a Moment>,
    relay: Relay,
    /// Since when another than the first leader leads.
    leads_since: Option<Timestamp>,
    /// How far apart passes are.
    apart: Span,
    /// What is expected, and when it is looked at.
    expected: VecDeque<(Timestamp, &'a Expect)>,
    stalled_until: Option<Timestamp>,
    seen: Timestamp,
    /// By signal, the nodes that it fires for, and those that it has no data of.
    firing: BTreeMap<String, BTreeSet<String>>,
    blind: BTreeMap<String, BTreeSet<String>>,
    failing: BTreeSet<String>,
    paused: bool,
    empty: bool,
    relapse: Option<String>,
    /// The nodes that a restart cures, and each node's last bootID.
    curable: Vec<String>,
    booted: BTreeMap<String, String>,
    known: BTreeSet<String>,
    last: Option<Report>,
    unmet: Vec<String>,
    story: Story<F>,
}

impl<'a, F: FnMut(Told<'_>) -> io::Result<()>> Stage<'a, F> {
    fn new(scenario: &'a Scenario, tell: F) -> Self {
        let world = World::new(scenario.begin, &[]);
        let setup = Setup {
            cluster_tag: "kubernetes.io/cluster/sim".into(),
            rules: scenario.rules.clone(),
            policies: scenario.policies.clone(),
            limits: scenario.limits.clone(),
            cluster_jobs: Vec::new(),
            external_labels: BTreeMap::new(),
        };
        let leader = lead(&world, &setup, None);
        let end = scenario.length.after(scenario.begin);
        let mut timeline = scenario.timeline.iter();
        let next = timeline.next();
        let mut stage = Self {
            scenario,
            world,
            setup,
            leader,
            now: scenario.begin,
            end,
            timeline,
            next,
            relay: Relay::Never,
            leads_since: None,
            apart: scenario.step,
            expected: VecDeque::new(),
            stalled_until: None,
            seen: scenario.begin,
            firing: BTreeMap::new(),
            blind: BTreeMap::new(),
            failing: BTreeSet::new(),
            paused: false,
            empty: false,
            relapse: None,
            curable: Vec::new(),
            booted: BTreeMap::new(),
            known: BTreeSet::new(),
            last: None,
            unmet: Vec::new(),
            story: Story::new(tell, end),
        };
        for group in &scenario.fleet {
            stage.add(group);
        }
        stage
    }

    fn played(mut self) -> Played {
        let (_, violated) = self.world.invariants();
        self.unmet.extend(violated);
        Played {
            summary: summarize(0, &self.world, self.last.as_ref()),
            unmet: self.unmet,
        }
    }

    fn step(&mut self) -> io::Result<()> {
        self.settle_replacements();
        self.settle_reboots();
        let happens = self.happen_until_now()?;
        let stalled = self.stalled_until.is_some_and(|until| until > self.now);
        let settled = self.leads_since.is_none_or(|at| TERM.after(at) <= self.now);
        let relay = if happens && settled && !stalled {
            self.relay
        } else {
            Relay::Never
        };
        if !stalled && relay != Relay::Unseen {
            self.pass()?;
        }
        self.compare_until(Some(self.now));
        let gap = match relay {
            Relay::Never => None,
            Relay::Unseen => Some(self.apart),
            Relay::Seen => Some(GAP),
        };
        if let Some(gap) = gap {
            self.take_over();
            self.stalled_until = Some(gap.after(self.now));
        }
        self.world.tick(self.apart);
        self.now = self.apart.after(self.now);
        Ok(())
    }

    /// Whether anything happened.
    fn happen_until_now(&mut self) -> io::Result<bool> {
        let (mut happened, mut expected) = (false, Vec::new());
        let patience = match self.relay {
            Relay::Never => Span::default(),
            Relay::Unseen | Relay::Seen => GAP,
        };
        while let Some(moment) = self
            .next
            .filter(|moment| moment.at.after(self.scenario.begin) <= self.now)
        {
            if !moment.is_quiet() {
                happened = true;
                // What was expected before this has to be so by now.
                self.compare_until(None);
            }
            self.next = self.timeline.next();
            self.happen(moment)?;
            expected.extend(moment.expect.as_ref());
        }
        let then = patience.after(self.now);
        let expected = expected.into_iter().map(|expect| (then, expect));
        self.expected.extend(expected);
        Ok(happened)
    }

    /// Compares what is to be so by then; everything if there is no such time.
    fn compare_until(&mut self, then: Option<Timestamp>) {
        let is_due = |(at, _): &mut (Timestamp, _)| then.is_none_or(|then| *at <= then);
        while let Some((_, expect)) = self.expected.pop_front_if(is_due) {
            self.compare(expect);
        }
    }

    fn pass(&mut self) -> io::Result<()> {
        let pauses: Vec<Pause> = self
            .paused
            .then(|| Pause {
                selector: NodeSelector::default(),
                policy: None,
                until: None,
            })
            .into_iter()
            .collect();
        let inputs = self.inputs();
        let pass = self.leader.pass(inputs, &pauses, &self.world);
        match pass.now_or_never() {
            Some(Ok(report)) => {
                let running = report.repairs.iter().filter(|repair| repair.in_flight());
                let running = running.count();
                if running > self.scenario.in_flight {
                    self.miss(&format!("{running} repairs run"));
                }
                self.story.hear(&report, self.now)?;
                self.last = Some(report);
            }
            Some(Err(error)) => self.miss(&format!("a pass failed: {error}")),
            None => self.miss("a pass waits for ever"),
        }
        self.seen = self.now;
        Ok(())
    }

    fn inputs(&self) -> Vec<Input> {
        let nodes = self.world.list_nodes();
        let labels = |name: &String| -> Labels { [("node".to_owned(), name.clone())].into() };
        let rules = self.scenario.rules.iter().map(|rule| {
            let of = |map: &BTreeMap<String, BTreeSet<String>>| {
                map.get(&rule.name).cloned().unwrap_or_default()
            };
            let (firing, blind) = (of(&self.firing), of(&self.blind));
            let seen = || {
                let names = nodes.iter().map(|node| &node.name);
                names.filter(|name| !blind.contains(*name))
            };
            let answer = if self.failing.contains(&rule.name) {
                Answer::Failed("no answer".into())
            } else {
                Answer::Series {
                    firing: seen()
                        .filter(|name| firing.contains(*name))
                        .map(labels)
                        .collect(),
                    present: Some(seen().map(labels).collect()),
                }
            };
            Input::Rule {
                asked: self.world.now(),
                name: rule.name.clone(),
                answer,
            }
        });
        let rules: Vec<Input> = rules.collect();
        let listed = if self.empty { Vec::new() } else { nodes };
        let mut inputs = vec![Input::Nodes(listed)];
        inputs.extend(rules);
        inputs
    }

    fn take_over(&mut self) {
        self.leads_since = Some(self.now);
        self.leader = lead(&self.world, &self.setup, Some(self.seen));
    }

    /// The nodes that patterns mean; each pattern has to mean one.
    fn meant(&mut self, patterns: &[String]) -> Vec<String> {
        let names: Vec<String> = self
            .world
            .list_nodes()
            .into_iter()
            .map(|node| node.name)
            .collect();
        let mut meant = Vec::new();
        for pattern in patterns {
            let before = meant.len();
            meant.extend(names.iter().filter(|name| means(pattern, name)).cloned());
            if meant.len() == before {
                self.miss(&format!("`{pattern}` means no node"));
            }
        }
        meant
    }

    fn happen(&mut self, moment: &Moment) -> io::Result<()> {
        if !moment.is_quiet() {
            self.story.happens(moment, self.now)?;
        }
        for name in self.meant(&moment.not_ready) {
            self.world.say_ready(&name, "False");
        }
        for name in self.meant(&moment.silent) {
            self.world.fall_silent(&name);
        }
        for name in self.meant(&moment.ready) {
            self.world.say_ready(&name, "True");
        }
        for (signal, patterns) in &moment.fire {
            let nodes = self.meant(patterns);
            self.firing.entry(signal.clone()).or_default().extend(nodes);
        }
        for (signal, patterns) in &moment.clear {
            let nodes = self.meant(patterns);
            let firing = self.firing.entry(signal.clone()).or_default();
            firing.retain(|name| !nodes.contains(name));
        }
        for (signal, patterns) in &moment.blind {
            let nodes = self.meant(patterns);
            self.blind.entry(signal.clone()).or_default().extend(nodes);
        }
        for (signal, patterns) in &moment.see {
            let nodes = self.meant(patterns);
            let blind = self.blind.entry(signal.clone()).or_default();
            blind.retain(|name| !nodes.contains(name));
        }
        self.failing.extend(moment.fail.iter().cloned());
        self.failing
            .retain(|signal| !moment.answer.contains(signal));
        for group in &moment.add {
            self.add(group);
        }
        for name in self.meant(&moment.remove) {
            self.world.remove_node(&name);
        }
        for name in self.meant(&moment.cordon) {
            self.world
                .edit_node(&name, |node| node.unschedulable = true);
        }
        for name in self.meant(&moment.uncordon) {
            self.world
                .edit_node(&name, |node| node.unschedulable = false);
        }
        for (taint, patterns) in &moment.taint {
            for name in self.meant(patterns) {
                self.world
                    .edit_node(&name, |node| node.taints.push(taint.clone()));
            }
        }
        for (pattern, annotations) in &moment.annotate {
            for name in self.meant(std::slice::from_ref(pattern)) {
                for (key, value) in annotations {
                    self.world.annotate(&name, key, value);
                }
            }
        }
        self.curable.extend(moment.reboots_cure.iter().cloned());
        for (pattern, overrides) in &moment.request {
            for name in self.meant(std::slice::from_ref(pattern)) {
                self.request(&name, overrides)?;
            }
        }
        self.paused = moment.pause.unwrap_or(self.paused);
        self.empty = moment.empty_list.unwrap_or(self.empty);
        if let Some(stalled) = moment.stalled {
            self.stalled_until = Some(stalled.after(self.now));
        }
        if moment.new_leader {
            self.take_over();
        }
        if let Some(signal) = &moment.replacements_fire {
            self.relapse = Some(signal.clone());
        }
        Ok(())
    }

    /// A person asks for the repair of a node, as `nodemend repair` does.
    fn request(&self, name: &str, overrides: &[Reason]) -> io::Result<()> {
        let nodes = self.world.list_nodes().into_iter();
        for node in nodes.filter(|node| node.name == name) {
            let request = RepairRequest {
                uid: node.uid,
                at: self.now,
                until: Span::minutes(15).after(self.now),
                by: "somebody".into(),
                reason: "as the scenario says".into(),
                overrides: overrides.to_vec(),
            };
            let text = serde_json::to_string(&request)?;
            self.world.annotate(name, REQUEST_ANNOTATION, &text);
        }
        Ok(())
    }

    fn add(&mut self, group: &Group) {
        for number in 1..=group.count {
            let name = format!("{}-{number}", group.name);
            let mut labels: Vec<(&str, &str)> = group
                .labels
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect();
            labels.extend(group.pool.as_deref().map(|pool| (POOL_LABEL, pool)));
            let zone = group.zone.as_deref().unwrap_or("a");
            self.world.add_node(&name, zone, &labels);
            if group.starting {
                let now = self.now;
                self.world.edit_node(&name, |node| node.created = now);
                self.world.say_ready(&name, "False");
            }
            self.known.insert(name);
        }
    }

    /// A replacement joins the pool of the node that it replaces.
    fn settle_replacements(&mut self) {
        for node in self.world.list_nodes() {
            if !self.known.insert(node.name.clone()) {
                continue;
            }
            let repairs = self.world.list_repairs();
            let of = repairs.iter().find(|repair| {
                let replacement = repair
                    .status
                    .as_ref()
                    .and_then(|of| of.replacement.as_ref());
                replacement.is_some_and(|new| node.instance_id() == Some(&new.instance_id))
            });
            if let Some(pool) = of.map(|repair| repair.spec.pool.clone()) {
                self.world.edit_node(&node.name, |node| {
                    node.labels.insert(POOL_LABEL.to_owned(), pool);
                });
            }
            if let Some(signal) = &self.relapse {
                let firing = self.firing.entry(signal.clone()).or_default();
                firing.insert(node.name);
            }
        }
    }

    /// Who restarted is well again, if that is what it takes.
    fn settle_reboots(&mut self) {
        for node in self.world.list_nodes() {
            let before = self.booted.insert(node.name.clone(), node.boot_id.clone());
            let restarted = before.is_some_and(|before| before != node.boot_id);
            let mut curable = self.curable.iter();
            if restarted && curable.any(|pattern| means(pattern, &node.name)) {
                self.world.say_ready(&node.name, "True");
                for firing in self.firing.values_mut() {
                    firing.remove(&node.name);
                }
            }
        }
    }

    fn compare(&mut self, expect: &Expect) {
        let repairs = self.world.list_repairs();
        let started = repairs.len();
        let running = repairs.iter().filter(|repair| repair.in_flight()).count();
        let mut missed = Vec::new();
        let mut check = |met: bool, what: String| {
            if !met {
                missed.push(what);
            }
        };
        let said = |what: usize| format!("{what} repairs started");
        check(
            expect.started.is_none_or(|count| count == started),
            said(started),
        );
        check(
            expect.started_at_least.is_none_or(|count| count <= started),
            said(started),
        );
        check(
            expect.started_at_most.is_none_or(|count| count >= started),
            said(started),
        );
        check(
            expect.running.is_none_or(|count| count == running),
            format!("{running} repairs run"),
        );
        let is_started = |pattern: &str| {
            let mut all = repairs.iter();
            all.any(|repair| means(pattern, &repair.spec.node_name))
        };
        for pattern in &expect.repaired {
            check(
                is_started(pattern),
                format!("no repair of {pattern} started"),
            );
        }
        for pattern in &expect.spared {
            check(
                !is_started(pattern),
                format!("a repair of {pattern} started"),
            );
        }
        let known = |pattern: &&String| self.known.iter().any(|name| means(pattern, name));
        let named = expect.spared.iter().chain(expect.repairs.keys());
        for pattern in named.filter(|pattern| !known(pattern)) {
            check(false, format!("there never was a {pattern}"));
        }
        for (pattern, wanted) in &expect.repairs {
            let mut of: Vec<&NodeRepair> = repairs.iter().collect();
            of.retain(|repair| means(pattern, &repair.spec.node_name));
            of.sort_by_key(|repair| (&repair.spec.node_name, repair.spec.ordinal));
            let done = |repair: &&NodeRepair| {
                format!("{:?} {:?}", repair.spec.plan.action, repair.phase())
            };
            let found: Vec<String> = of.iter().map(done).collect();
            check(
                found == *wanted,
                format!("{pattern} had {found:?}, not {wanted:?}"),
            );
        }
        for (of, wanted) in &expect.score {
            let mut scores = self.leader.score().iter();
            let found = scores.find(|one| *of == format!("{}/{}", one.policy, one.fault));
            let found = found.map_or_else(
                || "nothing".to_owned(),
                |one| {
                    let (recovered, on, away) = (one.recovered, one.went_on, one.went_away);
                    format!("{recovered} recovered, {on} went on, {away} went away")
                },
            );
            check(found == *wanted, format!("{of}: {found}, not {wanted}"));
        }
        let verdicts = self.last.as_ref().map_or(&[][..], |last| &last.verdicts);
        for (kind, count) in &expect.count {
            let found = verdicts
                .iter()
                .filter(|verdict| verdict.kind == *kind)
                .count();
            check(
                found == *count,
                format!("{found} nodes are {kind:?}, not {count}"),
            );
        }
        for (pattern, wanted) in &expect.nodes {
            let meant: Vec<&Verdict> = verdicts
                .iter()
                .filter(|verdict| means(pattern, &verdict.node))
                .collect();
            check(!meant.is_empty(), format!("there is no {pattern}"));
            for verdict in meant {
                let found = told(verdict);
                check(
                    found == *wanted,
                    format!("{} is {found}, not {wanted}", verdict.node),
                );
            }
        }
        for what in missed {
            self.miss(&what);
        }
    }

    fn miss(&mut self, what: &str) {
        let passed = self.now.duration_since(self.scenario.begin).as_secs();
        let passed = Span::seconds(u32::try_from(passed).unwrap_or(u32::MAX));
        self.unmet.push(format!("at {passed}: {what}"));
    }
}

/// A verdict as scenarios write it: `Held ZoneBreaker`.
fn told(verdict: &Verdict) -> String {
    let reasons = verdict.reasons.iter().map(ToString::to_string);
    let words = std::iter::once(format!("{:?}", verdict.kind)).chain(reasons);
    words.collect::<Vec<_>>().join(" ")
}

fn lead(
    world: &World,
    setup: &Setup,
    last_seen: Option<Timestamp>,
) -> Controller<World, World, World> {
    let (cluster, cloud, probes) = (world.clone(), world.clone(), world.clone());
    Controller::new(cluster, cloud, probes, setup.clone(), last_seen)
}
