//! Wiring: the simulated fleet joined to the shipped rules and policy, the webhook, the
//! decoding of query answers and the controller, step by step in virtual time, without
//! a runtime. `live` paces the same steps and listens.

mod live;
mod plan;
mod story;
mod summary;
#[cfg(test)]
mod tests;

pub(super) use live::pace;
pub use live::{Live, live};
pub(super) use story::Story;
pub use story::{Progress, Told};
pub(super) use summary::summarize;
pub use summary::{HeldLine, Invariants, ObservedLine, RepairLine, Summary};

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use jiff::Timestamp;
use nodemend_core::api::NodeRepair;
use nodemend_core::config::Rule;
use nodemend_core::decide::Verdict;
use nodemend_core::evidence::Input;
use nodemend_core::model::{Span, VerdictKind};

use crate::alertmanager::{Delivered, Intake};
use crate::controller::{Controller, Report, Setup};
use crate::exec::Clock as _;
use crate::http::{self, Auth, Limits, Refusal, Router};
use crate::prometheus;
use crate::sim::{Alerts, World};
use plan::Planned;

/// How far virtual time moves between two passes.
const STEP: Span = Span::seconds(10);
/// How long the planned story takes.
const LENGTH: Span = Span::minutes(95);
/// Who is on loopback is one person.
const LIMITS: Limits = Limits {
    max_body: 1 << 20,
    max_requests: 16,
};

/// Runs a fleet of twelve nodes at once. `tell` hears of all that changes, and its
/// error ends the run.
pub fn run(seed: u64, tell: impl FnMut(Told<'_>) -> io::Result<()>) -> io::Result<Summary> {
    let mut demo = Demo::new(seed, STEP, tell);
    while !demo.over() {
        demo.step()?;
    }
    Ok(demo.summary())
}

/// A fleet, and the leader that looks after it.
struct Demo<F> {
    seed: u64,
    step: Span,
    now: Timestamp,
    end: Timestamp,
    world: World,
    plan: Vec<Planned>,
    setup: Setup,
    leader: Leader,
    webhook: Webhook,
    last: Option<Report>,
    story: Story<F>,
    /// Whether someone delivered to the webhook from outside.
    visited: bool,
}

/// A controller, and what it was given so far.
struct Leader {
    controller: Controller<World, World, World>,
    polled: BTreeMap<String, Timestamp>,
    /// The versions of the alert groups that it knows.
    groups: BTreeMap<String, Option<String>>,
}

impl Leader {
    fn new(world: &World, setup: &Setup, last_seen: Option<Timestamp>) -> Self {
        Self {
            controller: Controller::new(
                world.clone(),
                world.clone(),
                world.clone(),
                setup.clone(),
                last_seen,
            ),
            polled: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }

    fn inputs(
        &mut self,
        world: &World,
        alerts: &Alerts,
        rules: &[Rule],
        now: Timestamp,
    ) -> Vec<Input> {
        let mut inputs = vec![Input::Nodes(world.list_nodes())];
        for rule in rules {
            let polled = self.polled.get(&rule.name);
            if polled.is_none_or(|at| rule.interval.after(*at) <= now) {
                self.polled.insert(rule.name.clone(), now);
                inputs.push(poll(world, rule));
            }
        }
        let groups = alerts.list();
        let gone = self.groups.extract_if(.., |object, _| {
            !groups
                .iter()
                .any(|group| group.metadata.name.as_ref() == Some(object))
        });
        inputs.extend(gone.map(|(object, _)| Input::AlertsGone { object }));
        for group in groups {
            let object = group.metadata.name.unwrap_or_default();
            let version = group.metadata.resource_version;
            if self.groups.get(&object) != Some(&version) {
                self.groups.insert(object.clone(), version);
                let group = group.spec;
                inputs.push(Input::Alerts { object, group });
            }
        }
        inputs
    }
}

fn poll(world: &World, rule: &Rule) -> Input {
    let ask = |text: &String| prometheus::decode(&world.query(text), prometheus::MAX_SERIES);
    Input::Rule {
        asked: world.now(),
        name: rule.name.clone(),
        answer: prometheus::answer(ask(&rule.expr), rule.presence.as_ref().map(ask)),
    }
}

/// The real router over the simulated store, in virtual time.
struct Webhook {
    router: Router,
    alerts: Alerts,
    clock: Arc<AtomicI64>,
    outcomes: Arc<Mutex<Vec<Result<Delivered, Refusal>>>>,
}

impl Webhook {
    fn new(start: Timestamp, alerts: Alerts) -> Self {
        let clock = Arc::new(AtomicI64::new(start.as_second()));
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let (time, sink) = (Arc::clone(&clock), Arc::clone(&outcomes));
        let now = move || Timestamp::from_second(time.load(Ordering::Relaxed)).ok();
        let observe = move |outcome, _| {
            sink.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(outcome);
        };
        let intake = Intake::new(alerts.clone());
        let router = http::webhook(intake, Auth::Anonymous, LIMITS, now, observe);
        Self {
            router,
            alerts,
            clock,
            outcomes,
        }
    }

    /// What became of the deliveries since it was last asked.
    fn outcomes(&self) -> Vec<Result<Delivered, Refusal>> {
        std::mem::take(&mut self.lock())
    }

    /// Whether nothing was delivered since then.
    fn silent(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Result<Delivered, Refusal>>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: FnMut(Told<'_>) -> io::Result<()>> Demo<F> {
    fn new(seed: u64, step: Span, tell: F) -> Self {
        let start = Timestamp::constant(1_767_225_600, 0);
        let setup = plan::setup();
        let world = World::new(start, &setup.rules);
        let plan = plan::populate(&world, seed, start);
        let leader = Leader::new(&world, &setup, None);
        let webhook = Webhook::new(start, world.alerts());
        Self {
            seed,
            step,
            now: start,
            end: LENGTH.after(start),
            world,
            plan,
            setup,
            leader,
            webhook,
            last: None,
            story: Story::new(tell, LENGTH.after(start)),
            visited: false,
        }
    }

    /// Whether the planned story is told, and what came of a visitor's delivery too.
    fn over(&self) -> bool {
        self.end < self.now && self.webhook.silent() && !(self.visited && self.busy())
    }

    /// Whether a repair is open, or may soon be.
    fn busy(&self) -> bool {
        let coming = [VerdictKind::Pending, VerdictKind::Due];
        self.last.as_ref().is_some_and(|last| {
            let coming = |verdict: &Verdict| coming.contains(&verdict.kind);
            last.verdicts.iter().any(coming) || last.repairs.iter().any(NodeRepair::open)
        })
    }

    /// One pass, and the time until the next.
    fn step(&mut self) -> io::Result<()> {
        self.break_machines()?;
        let visitor = self.hear_webhook()?;
        let rules = &self.setup.rules;
        let alerts = &self.webhook.alerts;
        let inputs = self.leader.inputs(&self.world, alerts, rules, self.now);
        let pass = self.leader.controller.pass(inputs, &[], &self.world);
        match pass.now_or_never() {
            Some(Ok(report)) => {
                let unresolved = self.leader.controller.evidence().unresolved();
                self.story
                    .hear_unresolved(unresolved.values().sum(), visitor, self.now)?;
                self.story.hear(&report, self.now)?;
                self.last = Some(report);
            }
            Some(Err(_)) => {}
            // The leader was killed: another one starts from the records alone.
            None => {
                self.leader = Leader::new(&self.world, &self.setup, Some(self.now));
            }
        }
        self.tick();
        Ok(())
    }

    fn tick(&mut self) {
        self.world.tick(self.step);
        self.now = self.step.after(self.now);
        let clock = &self.webhook.clock;
        clock.store(self.now.as_second(), Ordering::Relaxed);
    }

    fn break_machines(&mut self) -> io::Result<()> {
        let now = self.now;
        let due = self.plan.extract_if(.., |planned| planned.start <= now);
        for planned in due {
            self.world.break_machine(&planned.node, planned.fault);
            self.story.breaks(&planned.node, planned.fault, now)?;
        }
        Ok(())
    }

    /// Tells what visitors delivered, then lets Alertmanager deliver. Gives back whether
    /// there were visitors.
    fn hear_webhook(&mut self) -> io::Result<bool> {
        let visits = self.webhook.outcomes();
        let visitor = !visits.is_empty();
        self.visited |= visitor;
        for outcome in visits {
            self.story.received(outcome, self.now)?;
        }
        if let Some(payload) = self.world.notification() {
            http::deliver(&self.webhook.router, payload)
                .now_or_never()
                .expect("the router and the store in memory never wait");
        }
        for outcome in self.webhook.outcomes() {
            // An unchanged re-send is no news.
            if !outcome.is_ok_and(|delivered| !delivered.written) {
                self.story.received(outcome, self.now)?;
            }
        }
        Ok(visitor)
    }

    fn summary(&self) -> Summary {
        summary::summarize(self.seed, &self.world, self.last.as_ref())
    }
}
