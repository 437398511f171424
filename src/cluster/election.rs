//! Who leads: a Lease of 15 s, renewed every 2 s. What others did is judged by our
//! own monotonic clock alone, so that clocks need not agree.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease as Record, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::ObjectMeta;
use tokio::sync::watch;

use super::{CALL_DEADLINE, Failure, Kubernetes, written};

/// How long a lease holds after its last renewal.
const DURATION: Duration = Duration::from_secs(SECONDS as u64);
const SECONDS: u32 = 15;
/// How often it is renewed, or looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// The Lease's name; RBAC allows this one only.
pub(super) const NAME: &str = "nodemend";

/// For how many seconds a Lease holds after its last renewal; one that does not say, as long
/// as ours.
pub(super) fn seconds(said: Option<i32>) -> u32 {
    let said = said.and_then(|seconds| u32::try_from(seconds).ok());
    said.unwrap_or(SECONDS)
}

/// How long we lead for certain. Every mutating call asks it first.
#[derive(Clone, Debug, Default)]
pub struct Lease(Arc<Mutex<Option<Instant>>>);

impl Lease {
    /// Whether a call that starts now and takes this long ends within the lease.
    pub fn outlives(&self, call: Duration) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| instant() + call <= until)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// One time of leading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Not before this may the leader act: the last one's calls have ended.
    pub act_from: Instant,
    /// When the last leader renewed for the last time, if there was one.
    pub last_renewal: Option<Timestamp>,
}

/// Where and as whom to stand for election.
#[derive(Clone, Debug)]
pub struct Election {
    /// The Lease's namespace.
    pub namespace: String,
    /// Names this process and no other, not even an earlier one of the same pod.
    pub holder: String,
}

/// Stands for election until `stop`, then gives the lease back. `terms` holds the
/// term while we lead; `heard` is told how it goes with the Lease. Who may not lead lets
/// the lease run out.
pub async fn elect(
    cluster: Kubernetes,
    election: Election,
    terms: watch::Sender<Option<Term>>,
    may_lead: impl Fn() -> bool,
    heard: impl Fn(Result<(), String>),
    mut stop: watch::Receiver<bool>,
) {
    let mut last = None;
    let mut candidate = Candidate {
        api: Api::namespaced(cluster.client.clone(), &election.namespace),
        cluster,
        holder: election.holder,
        seen: None,
        mine: None,
    };
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            _ = ticks.tick() => {}
        }
        if !may_lead() {
            candidate.step_down(&terms);
            continue;
        }
        let said = candidate.step(&terms).await;
        let said = said.map_err(|failure| format!("the Lease {NAME}: {}", failure.message()));
        if last.as_ref() != Some(&said) {
            if let Err(problem) = &said {
                tracing::warn!(problem, "the lease cannot be read or written, trying again");
            }
            heard(said.clone());
        }
        last = Some(said);
        if terms.borrow().is_some() && !candidate.cluster.lease.outlives(Duration::ZERO) {
            tracing::warn!("the lease ran out");
            candidate.step_down(&terms);
        }
    }
    candidate.give_back(&terms).await;
}

struct Candidate {
    api: Api<Record>,
    cluster: Kubernetes,
    holder: String,
    /// The Lease as another holds it, and since when by our clock it reads so.
    seen: Option<(Record, Instant)>,
    /// The Lease as we wrote it last.
    mine: Option<Record>,
}

impl Candidate {
    async fn step(&mut self, terms: &watch::Sender<Option<Term>>) -> Result<(), Failure> {
        if let Some(mine) = self.mine.clone() {
            return self.renew(mine, terms).await;
        }
        let now = instant();
        let found = match self.cluster.call(self.api.get(NAME)).await {
            Ok(found) => found,
            Err(Failure::Status(status)) if status.code == 404 => return self.create(terms).await,
            Err(failure) => return Err(failure),
        };
        let spec = found.spec.clone().unwrap_or_default();
        let free = spec
            .holder_identity
            .as_deref()
            .unwrap_or_default()
            .is_empty();
        let known = self
            .seen
            .as_ref()
            .filter(|(seen, _)| seen.spec == found.spec);
        let since = known.map_or(now, |(_, since)| *since);
        let duration = Duration::from_secs(seconds(spec.lease_duration_seconds).into());
        if free || now.duration_since(since) >= duration {
            let last = spec.renew_time.as_ref().map(|time| time.0);
            return self.take(found, free, last, terms).await;
        }
        if known.is_none() {
            tracing::info!(holder = spec.holder_identity, "another replica leads");
            self.seen = Some((found, now));
        }
        Ok(())
    }

    async fn create(&mut self, terms: &watch::Sender<Option<Term>>) -> Result<(), Failure> {
        let record = Record {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec(0)),
        };
        let before = instant();
        let created = self
            .cluster
            .call(self.api.create(&written(), &record))
            .await;
        self.won(won_or_lost(created)?, before, before, None, terms);
        Ok(())
    }

    async fn take(
        &mut self,
        mut found: Record,
        free: bool,
        last: Option<Timestamp>,
        terms: &watch::Sender<Option<Term>>,
    ) -> Result<(), Failure> {
        let transitions = found
            .spec
            .and_then(|spec| spec.lease_transitions)
            .unwrap_or(0);
        found.spec = Some(self.spec(transitions.saturating_add(1)));
        let before = instant();
        let taken = self
            .cluster
            .call(self.api.replace(NAME, &written(), &found))
            .await;
        // One who gave it back has no call under way; one who vanished may have.
        let from = if free { before } else { before + CALL_DEADLINE };
        self.won(won_or_lost(taken)?, before, from, last, terms);
        Ok(())
    }

    async fn renew(
        &mut self,
        mut mine: Record,
        terms: &watch::Sender<Option<Term>>,
    ) -> Result<(), Failure> {
        if let Some(spec) = &mut mine.spec {
            spec.renew_time = Some(MicroTime(now()));
        }
        let before = instant();
        match self
            .cluster
            .call(self.api.replace(NAME, &written(), &mine))
            .await
        {
            Ok(renewed) => {
                self.cluster.lease.set(Some(before + DURATION));
                self.mine = Some(renewed);
                Ok(())
            }
            // Either an answer was lost and this is our own write, or it was taken from us.
            Err(Failure::Status(status)) if status.code == 409 => self.settle(terms).await,
            Err(failure) => Err(failure),
        }
    }

    async fn settle(&mut self, terms: &watch::Sender<Option<Term>>) -> Result<(), Failure> {
        let found = self.cluster.call(self.api.get(NAME)).await?;
        let holder = found
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.as_deref());
        if holder == Some(self.holder.as_str()) {
            self.mine = Some(found);
        } else {
            tracing::warn!(holder, "another replica took the lease");
            self.step_down(terms);
        }
        Ok(())
    }

    fn won(
        &mut self,
        record: Option<Record>,
        before: Instant,
        act_from: Instant,
        last_renewal: Option<Timestamp>,
        terms: &watch::Sender<Option<Term>>,
    ) {
        let Some(record) = record else { return };
        tracing::info!("this replica leads");
        self.mine = Some(record);
        self.seen = None;
        self.cluster.lease.set(Some(before + DURATION));
        terms.send_replace(Some(Term {
            act_from,
            last_renewal,
        }));
    }

    fn step_down(&mut self, terms: &watch::Sender<Option<Term>>) {
        self.mine = None;
        self.cluster.lease.set(None);
        terms.send_if_modified(|term| term.take().is_some());
    }

    /// Another need not wait for the lease to run out.
    async fn give_back(mut self, terms: &watch::Sender<Option<Term>>) {
        terms.send_replace(None);
        self.cluster.lease.set(None);
        let Some(mut mine) = self.mine.take() else {
            return;
        };
        if let Some(spec) = &mut mine.spec {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(now()));
        }
        if let Err(failure) = self
            .cluster
            .call(self.api.replace(NAME, &written(), &mine))
            .await
        {
            tracing::warn!(
                error = failure.message(),
                "the lease could not be given back"
            );
        }
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        let now = now();
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// A conflict means that another was faster.
fn won_or_lost(written: Result<Record, Failure>) -> Result<Option<Record>, Failure> {
    match written {
        Ok(record) => Ok(Some(record)),
        Err(Failure::Status(status)) if status.code == 409 => Ok(None),
        Err(failure) => Err(failure),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a lease is measured by this process' monotonic clock"
)]
fn instant() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time that others read in the Lease"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h50_a_call_starts_only_if_the_lease_outlives_it() {
        let lease = Lease::default();
        assert!(!lease.outlives(Duration::ZERO), "never led");
        lease.set(Some(instant() + DURATION));
        assert!(lease.outlives(CALL_DEADLINE));
        lease.set(Some(instant() + CALL_DEADLINE / 2));
        assert!(!lease.outlives(CALL_DEADLINE), "too short for a call");
        assert!(lease.outlives(Duration::ZERO));
    }
}
