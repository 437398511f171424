//! A term of leadership: sources run, passes follow each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nodemend_core::config::Policy;
use nodemend_core::model::NodeView;
use tokio::sync::watch;

use super::clock::{instant, now};
use super::leased::Leased;
use super::policies;
use super::sources::Sources;
use super::{Ec2, RETRY, stopped};
use crate::alertmanager::ask;
use crate::app::load::Loaded;
use crate::app::reload::Current;
use crate::cluster::{Kubernetes, Term};
use crate::controller::{self, Controller, Setup};
use crate::exec::Clock;
use crate::prometheus::{self, Prober};
use crate::telemetry::{About, Notice, Pass, Source, Telemetry};

/// A pass is made at least this often.
const IDLE: Duration = Duration::from_secs(5);
/// Changes within this time make one pass.
const COALESCE: Duration = Duration::from_millis(100);
/// Events written after one pass, at most.
const MAX_NOTICES: usize = 20;
/// What a pass saw at its start is too old to begin something on after this.
const PASS: Duration = Duration::from_secs(10);

type Leading<'a> = Controller<Kubernetes, &'a Leased<Ec2>, Prober>;

/// What a replica leads with.
pub(super) struct Leader {
    pub(super) cluster: Kubernetes,
    pub(super) cloud: Leased<Ec2>,
    pub(super) prometheus: Option<prometheus::Client>,
    pub(super) alertmanager: Option<ask::Client>,
    pub(super) prober: Prober,
    pub(super) telemetry: Telemetry,
    pub(super) files: watch::Receiver<Current>,
}

impl Leader {
    /// Leads whenever it is elected, until it is to stop.
    pub(super) async fn run(
        &self,
        mut term: watch::Receiver<Option<Term>>,
        stop: watch::Receiver<bool>,
    ) {
        loop {
            let elected = tokio::select! {
                biased;
                () = stopped(stop.clone()) => return,
                elected = term.wait_for(Option::is_some) => elected.map(|term| term.clone()),
            };
            let Ok(Some(elected)) = elected else { return };
            let over = async {
                let mut term = term.clone();
                let _ = term.wait_for(|now| now.as_ref() != Some(&elected)).await;
            };
            tokio::select! {
                biased;
                () = over => {}
                () = self.lead(&elected, &stop) => {}
            }
            self.telemetry.stepped_down();
            if *stop.borrow() {
                return;
            }
        }
    }

    /// One term: sources run, passes follow each other.
    async fn lead(&self, term: &Term, stop: &watch::Receiver<bool>) {
        tokio::time::sleep_until(term.act_from.into()).await;
        let mut files = self.files.clone();
        let current = files.borrow_and_update().clone();
        self.tell(&current).await;
        let loaded = &current.loaded;
        let mut sources = Sources::start(self, Arc::clone(loaded));
        // A pass before the first lists would not know of pauses, policies, alerts or nodes,
        // one before Alertmanager answered or failed would decide without the silences.
        while !*stop.borrow() && (!sources.heard() || !sources.asked()) {
            tokio::select! {
                biased;
                () = stopped(stop.clone()) => {}
                () = sources.wake.notified() => {}
            }
        }
        let setup = Setup {
            cluster_tag: format!("kubernetes.io/cluster/{}", loaded.settings.cluster),
            rules: loaded.rules.clone(),
            policies: loaded.policies.clone(),
            limits: loaded.settings.limits.clone(),
            cluster_jobs: loaded.settings.cluster_jobs.clone(),
            external_labels: loaded.settings.external_labels.clone(),
        };
        let mut controller = Controller::new(
            self.cluster.clone(),
            &self.cloud,
            self.prober.clone(),
            setup,
            term.last_renewal,
        );
        while !*stop.borrow() {
            if files.has_changed().unwrap_or(false) {
                let current = files.borrow_and_update().clone();
                self.tell(&current).await;
                self.reload(&mut controller, &mut sources, current.loaded)
                    .await;
            }
            let wait = self.pass(&mut controller, &mut sources, stop).await;
            tokio::select! {
                biased;
                () = stopped(stop.clone()) => {}
                () = sources.wake.notified() => tokio::time::sleep(COALESCE).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes a good set that differs from what is in force.
    async fn reload(
        &self,
        controller: &mut Leading<'_>,
        sources: &mut Sources,
        loaded: Arc<Loaded>,
    ) {
        if Arc::ptr_eq(&loaded, &sources.loaded) {
            return;
        }
        controller.adopt_rules(loaded.rules.clone(), loaded.settings.limits.clone());
        sources.loaded = loaded;
        sources.poll(self);
        controller.adopt(self.policies(sources).await);
    }

    /// Says on the fleet's object that the files are not what is in force.
    async fn tell(&self, current: &Current) {
        let Some(mistakes) = &current.mistakes else {
            return;
        };
        let notice = Notice {
            about: About::Fleet,
            reason: "ConfigurationRefused",
            note: format!("the last good configuration is in force: {mistakes}"),
            warning: true,
        };
        if let Err(error) = self.cluster.publish(&notice, now()).await {
            tracing::warn!(%error, "an Event could not be written");
        }
    }

    /// One pass. Gives back how long to rest if nothing happens.
    async fn pass(
        &self,
        controller: &mut Leading<'_>,
        sources: &mut Sources,
        stop: &watch::Receiver<bool>,
    ) -> Duration {
        let clock = PassClock {
            began: instant(),
            stop,
        };
        if let Some(objects) = sources.policies.news() {
            sources.objects = objects;
            controller.adopt(self.policies(sources).await);
        }
        if let Some(pauses) = sources.pauses.news() {
            sources.paused = pauses
                .into_values()
                .map(|pause| pause.spec.into())
                .collect();
        }
        let inputs = sources.inputs();
        let pauses = sources.pauses();
        let passed = Box::pin(controller.pass(inputs, &pauses, &clock)).await;
        let report = match passed {
            Ok(report) => report,
            Err(error) => {
                let cause = match &error {
                    controller::Error::Call(cause) => cause.to_string(),
                    controller::Error::Deposed => String::new(),
                };
                tracing::warn!(%error, cause, "a pass ended early, trying again");
                return RETRY;
            }
        };
        let now = report.now;
        if let Some(error) = &report.unwritten {
            tracing::warn!(%error, "a record could not be written, trying again");
        }
        for (repair, error) in &report.stuck {
            tracing::warn!(repair, %error, "a repair cannot go on now");
        }
        if report.unpooled {
            tracing::warn!("no node has any of poolLabels: no guard counts over pools");
        }
        self.telemetry
            .source_up(Source::Kubernetes, controller.evidence().nodes_fresh(now));
        let notices = self.telemetry.pass(&Pass {
            now,
            epoch: controller.epoch().unwrap_or(0),
            verdicts: &report.verdicts,
            healths: &report.healths,
            repairs: &report.repairs,
            unresolved: controller.evidence().unresolved(),
            score: controller.score(),
            duration_seconds: Some(clock.began.elapsed().as_secs_f64()),
        });
        let heard = std::mem::take(&mut sources.notices);
        let unusable: Vec<Notice> = report.unusable.into_iter().map(unusable).collect();
        // In a storm the log has the rest.
        for notice in heard
            .iter()
            .chain(&unusable)
            .chain(&notices)
            .take(MAX_NOTICES)
        {
            if let Err(error) = self.cluster.publish(notice, now).await {
                tracing::warn!(%error, "an Event could not be written");
                break;
            }
        }
        let wake = report.wake.map(|at| at.duration_since(now));
        wake.and_then(|wait| Duration::try_from(wait).ok())
            .map_or(IDLE, |wait| wait.clamp(COALESCE, IDLE))
    }

    async fn policies(&self, sources: &Sources) -> Vec<Policy> {
        policies::accept_all(&self.cluster, &sources.objects, &sources.loaded.policies).await
    }
}

/// A person asks for a repair, or approves one, in a way that does not count.
fn unusable((node, why): (NodeView, String)) -> Notice {
    tracing::warn!(
        node = node.name,
        why,
        "what a person asks for or approves does not count"
    );
    Notice {
        about: About::Node {
            name: node.name,
            uid: node.uid,
        },
        reason: "RepairRequestRefused",
        note: why,
        warning: true,
    }
}

/// The clock of one pass.
struct PassClock<'a> {
    began: Instant,
    stop: &'a watch::Receiver<bool>,
}

impl Clock for PassClock<'_> {
    fn now(&self) -> Timestamp {
        now()
    }
    fn may_begin(&self) -> bool {
        self.began.elapsed() < PASS && !*self.stop.borrow()
    }
}
