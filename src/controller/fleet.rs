//! What one leader leaves to the next: the epoch, starts, and what only it knew.

use std::cmp::Ordering;

use jiff::Timestamp;
use nodemend_core::api::{
    FleetState, FleetStateSpec, MAX_STARTS, NodeRepair, Phase, Reservation, SourceDown,
};
use nodemend_core::decide;
use nodemend_core::evidence::Input;
use nodemend_core::model::Span;

use super::{Controller, Error, Records};
use crate::exec::{Cloud, Cluster, Probes};

/// How long a reservation without a record counts. Our calls end after 5 s, and the API server
/// works on one for a minute (its `--request-timeout`): what did not land by then never will.
const RESERVED_FOR: Span = Span::seconds(90);
/// `FleetState` holds so many.
const MAX_SOURCES: usize = 100;
/// The source that lists the nodes.
const NODES: &str = "nodes";
const MAX_SUSPENDED: usize = 100;
const MAX_JOINED: usize = 1000;

impl<C: Cluster + Records, K: Cloud, P: Probes> Controller<C, K, P> {
    /// The fleet's object while it is still ours. If somebody deleted it, or put an older
    /// one in its place, it is taken over again.
    pub(super) async fn lead(&mut self, now: Timestamp) -> Result<FleetState, Error> {
        if let Some(known) = &self.fleet
            && let Some(stored) = self.cluster.fleet().await?
        {
            match stored.spec.epoch.cmp(&known.spec.epoch) {
                Ordering::Greater => return Err(Error::Deposed),
                Ordering::Equal => return Ok(stored),
                Ordering::Less => {}
            }
        }
        let fleet = self.take_over(now).await?;
        self.fleet = Some(fleet.clone());
        Ok(fleet)
    }

    /// Raises the epoch, writes it into every open repair, and takes up the clocks.
    async fn take_over(&mut self, now: Timestamp) -> Result<FleetState, Error> {
        let stored = self.cluster.fleet().await?;
        let mut fleet =
            stored.unwrap_or_else(|| FleetState::new("fleet", FleetStateSpec::default()));
        let repairs = self.cluster.repairs().await?;
        let known = self.epoch().into_iter().chain(repairs.iter().map(epoch_of));
        fleet.spec.epoch = known.fold(fleet.spec.epoch, u64::max) + 1;
        let fleet = self.cluster.put_fleet(&fleet).await?;
        // What a newer version wrote, it alone can read.
        let ours = |repair: &NodeRepair| repair.open() && repair.phase() != Phase::Unrecognized;
        for mut repair in repairs.into_iter().filter(ours) {
            let Some(status) = &mut repair.status else {
                continue;
            };
            status.epoch = fleet.spec.epoch;
            self.cluster.put_repair(&repair).await?;
        }
        if let Some(dark) = fleet.spec.dark {
            self.evidence.fold(Input::Dark(dark), now);
        }
        let nodes_down = nodes_down(&fleet.spec);
        let led = Input::Led {
            joined: fleet.spec.joined.clone(),
            suspended: fleet.spec.suspended.clone(),
        };
        self.evidence.fold(led, now);
        for health in self.cluster.healths().await? {
            let Some(status) = health.status else {
                continue;
            };
            if status.fell_sick.is_some() {
                let sick = Input::FellSick {
                    uid: health.spec.node_uid.clone(),
                    since: status.sick_since,
                };
                self.evidence.fold(sick, now);
            }
            let silenced = Input::Silenced {
                uid: health.spec.node_uid.clone(),
                silences: status.silences,
            };
            self.evidence.fold(silenced, now);
            // If nobody knows for how long nobody looked, it was too long for any clock. Who did
            // not know the nodes wrote of none that its clocks stood still.
            let last_seen = self.last_seen.unwrap_or(Timestamp::MIN);
            let restore = Input::Restore {
                uid: health.spec.node_uid,
                signals: status.signals,
                faults: status.faults,
                last_seen: nodes_down.map_or(last_seen, |at| at.min(last_seen)),
            };
            self.evidence.fold(restore, now);
        }
        Ok(fleet)
    }

    /// What the next leader cannot know else.
    pub(super) fn remember(&self, fleet: &mut FleetStateSpec, now: Timestamp) {
        let suspended = self.evidence.suspended().take(MAX_SUSPENDED);
        fleet.suspended = suspended.map(|(rule, _)| rule.to_owned()).collect();
        if self.evidence.nodes_fresh(now) {
            let joined = self.evidence.joined(self.setup.limits.startup_grace, now);
            fleet.joined = joined.take(MAX_JOINED).map(str::to_owned).collect();
        }
    }

    pub(super) async fn commit_fleet(&self, fleet: FleetState) -> Result<FleetState, Error> {
        let stored = self.cluster.fleet().await?;
        match stored {
            Some(stored) if stored.spec.epoch > fleet.spec.epoch => Err(Error::Deposed),
            Some(stored) if stored.spec == fleet.spec => Ok(stored),
            _ => Ok(self.cluster.put_fleet(&fleet).await?),
        }
    }

    /// `nodes_down`: since when the nodes were not known, if they were not.
    pub(super) fn sources_down(
        &self,
        nodes_down: Option<Timestamp>,
        now: Timestamp,
    ) -> Vec<SourceDown> {
        let down = |source: String, since: Timestamp, message: &str| SourceDown {
            source,
            since,
            message: message.chars().take(200).collect(),
        };
        let unknown = !self.evidence.nodes_fresh(now);
        let nodes = unknown.then(|| {
            let since = nodes_down.unwrap_or(now);
            down(NODES.into(), since, "the list of nodes is empty or old")
        });
        let asking = self.evidence.asking_failed().into_iter();
        let asking = asking.map(|(since, message)| down("alertmanager".into(), since, message));
        nodes
            .into_iter()
            .chain(asking)
            .chain(
                self.evidence
                    .failing_rules()
                    .map(|(rule, since, message)| down(format!("rule/{rule}"), since, message)),
            )
            .take(MAX_SOURCES)
            .collect()
    }

    /// Keeps the reservations that still count. What is listed needs none any more; what is
    /// not may have been created without an answer, and land yet.
    pub(super) fn keep_pending(
        &self,
        reservations: &mut Vec<Reservation>,
        repairs: &[NodeRepair],
        now: Timestamp,
    ) {
        reservations.retain(|one| {
            let listed = repairs.iter().any(|repair| repair.name() == one.repair);
            let recent = RESERVED_FOR.after(one.at) > now && RESERVED_FOR.after(now) > one.at;
            recent && !listed && !self.dropped.contains(&one.repair)
        });
    }

    /// The starts that some rate still counts, also those whose records are gone. Where there
    /// are more than fit, the newest: so many that nothing starts until there is room.
    pub(super) fn starts(
        &self,
        fleet: &FleetState,
        repairs: &[NodeRepair],
        now: Timestamp,
    ) -> Vec<Reservation> {
        let memory = decide::memory(&self.setup.limits, &self.setup.policies);
        let listed = repairs
            .iter()
            .map(|repair| reserved(repair, repair.spec.quarantine.at));
        let mut starts: Vec<Reservation> =
            fleet.spec.starts.iter().cloned().chain(listed).collect();
        starts.retain(|start| memory.after(start.at) > now);
        starts.sort_by(|one, other| (one.at, &one.repair).cmp(&(other.at, &other.repair)));
        starts.dedup();
        starts.split_off(starts.len().saturating_sub(MAX_STARTS))
    }
}

/// Since when the nodes are not known, as it is on record.
pub(super) fn nodes_down(fleet: &FleetStateSpec) -> Option<Timestamp> {
    let mut down = fleet.sources_down.iter();
    Some(down.find(|down| down.source == NODES)?.since)
}

pub(super) fn reserved(repair: &NodeRepair, at: Timestamp) -> Reservation {
    Reservation {
        repair: repair.name().to_owned(),
        node_uid: repair.spec.node_uid.clone(),
        at,
    }
}

fn epoch_of(repair: &NodeRepair) -> u64 {
    let acting = repair.status.as_ref().map_or(0, |status| status.epoch);
    acting.max(repair.spec.epoch)
}
