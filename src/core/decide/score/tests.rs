//! What is counted of what was only observed.

use super::super::tests::{at, node, policy};
use super::super::{Observed, Pause, judge};
use super::*;
use crate::api::{FleetState, NodeHealthSpec, NodeHealthStatus};
use crate::config::{Limits, Policy, Rules};
use crate::evidence::{Evidence, Input};

/// One node, its policy, and what is on record.
struct Site {
    evidence: Evidence,
    policies: Vec<Policy>,
    limits: Limits,
    pauses: Vec<Pause>,
    fleet: FleetStateSpec,
    health: Option<NodeHealth>,
    /// Whether the node's record can be written.
    writable: bool,
}

impl Site {
    fn new() -> Self {
        Self {
            evidence: Evidence::default(),
            policies: vec![policy("p", Mode::Observe, 0)],
            limits: Limits::default(),
            pauses: Vec::new(),
            fleet: FleetStateSpec::default(),
            health: None,
            writable: true,
        }
    }

    fn world<'a>(&'a self, rules: &'a Rules) -> World<'a> {
        World {
            evidence: &self.evidence,
            rules,
            policies: &self.policies,
            limits: &self.limits,
            repairs: &[],
            fallen: &[],
            starts: &[],
            reserved: &[],
            pauses: &self.pauses,
            observed: Observed::default(),
        }
    }

    /// A pass: what is counted is committed, then what is recorded of the node. `ready` is
    /// none where the node is gone.
    fn pass(&mut self, ready: Option<bool>, second: i64) {
        let mut nodes = vec![node("other", true)];
        nodes.extend(ready.map(|ready| node("n", ready)));
        self.evidence.fold(Input::Nodes(nodes), at(second));
        let rules = Rules::default();
        self.evidence.settle(&rules, &self.policies, at(second));
        let world = World {
            evidence: &self.evidence,
            rules: &rules,
            policies: &self.policies,
            limits: &self.limits,
            repairs: &[],
            fallen: &[],
            starts: &[],
            reserved: &[],
            pauses: &self.pauses,
            observed: Observed::default(),
        };
        count(&mut self.fleet, self.health.as_slice(), &world, at(second));
        if !self.writable {
            return;
        }
        let Some(node) = self.evidence.node("n") else {
            self.health = self
                .health
                .take()
                .filter(|one| !is_done(one, &self.fleet.scored));
            return;
        };
        let verdict = judge(node, &world, at(second));
        let before = self.health.as_ref().and_then(|one| one.status.as_ref());
        let before = before.and_then(|status| status.observed.as_ref());
        let observed = follow(before, &verdict, &self.fleet.scored, &world, at(second));
        let spec = NodeHealthSpec {
            node_name: "n".into(),
            node_uid: "n".into(),
        };
        let mut health = NodeHealth::new("h", spec);
        health.status = Some(NodeHealthStatus {
            observed,
            ..serde_json::from_value(serde_json::json!({"verdict": "Held", "since": at(0)}))
                .unwrap()
        });
        self.health = Some(health);
    }

    fn passes(&mut self, ready: Option<bool>, from: i64, to: i64) {
        for second in (from..=to).step_by(30) {
            self.pass(ready, second);
        }
    }

    /// Recovered, gone on, gone away.
    fn check(&self, expect: (u32, u32, u32)) {
        let scores = &self.fleet.score;
        let found = match scores.as_slice() {
            [] => (0, 0, 0),
            [score] => (score.recovered, score.went_on, score.went_away),
            _ => panic!("{scores:?}"),
        };
        assert_eq!(found, expect, "{:?}", self.fleet);
    }
}

#[test]
fn a_fault_that_goes_by_itself_is_counted_once_with_its_time() {
    let mut site = Site::new();
    // Over before it was due.
    site.passes(Some(false), 0, 30);
    site.passes(Some(true), 60, 300);
    site.check((0, 0, 0));
    // Due at 660, clear from 990 on, and over two minutes later.
    site.passes(Some(false), 600, 960);
    site.check((0, 0, 0));
    site.passes(Some(true), 990, 2000);
    site.check((1, 0, 0));
    let score = &site.fleet.score[0];
    assert_eq!(
        (score.policy.as_str(), score.fault.as_str()),
        ("p", "NotReady")
    );
    assert_eq!(
        (score.recovery_seconds, score.longest_recovery_seconds),
        (450, 450)
    );
    assert!(site.fleet.scored.is_empty());
    // It flaps: that is one episode.
    site.passes(Some(false), 2010, 2400);
    site.passes(Some(true), 2430, 2490);
    site.passes(Some(false), 2520, 2700);
    site.passes(Some(true), 2730, 3000);
    site.check((2, 0, 0));
}

#[test]
fn what_is_there_after_an_hour_went_on_and_is_not_counted_again() {
    let mut site = Site::new();
    site.passes(Some(false), 0, 60 + 3570);
    site.check((0, 0, 0));
    site.passes(Some(false), 60 + 3600, 9000);
    site.check((0, 1, 0));
    assert!(site.fleet.scored.is_empty(), "the node's record says so");
    // Neither when it ends at last, but the next one is.
    site.passes(Some(true), 9030, 9600);
    site.check((0, 1, 0));
    site.passes(Some(false), 9630, 9900);
    site.passes(Some(true), 9930, 10_200);
    site.check((1, 1, 0));
}

#[test]
fn a_node_that_goes_first_went_away() {
    let mut site = Site::new();
    site.passes(Some(false), 0, 300);
    site.passes(None, 330, 600);
    site.check((0, 0, 1));
    assert!(site.health.is_none());
}

#[test]
fn who_is_killed_between_the_two_writes_counts_once() {
    for end in [Some(true), None] {
        let mut site = Site::new();
        site.passes(Some(false), 0, 300);
        site.writable = false;
        site.passes(end, 330, 900);
        assert_eq!(site.fleet.scored.len(), 1);
        site.writable = true;
        site.passes(end, 930, 1200);
        let away = u32::from(end.is_none());
        site.check((1 - away, 0, away));
        assert!(site.fleet.scored.is_empty());
    }
}

#[test]
fn what_another_guard_holds_or_the_policy_acts_on_by_now_is_not_counted() {
    let mut site = Site::new();
    site.pauses = vec![Pause {
        selector: crate::api::NodeSelector::default(),
        policy: None,
        until: None,
    }];
    site.passes(Some(false), 0, 300);
    site.passes(Some(true), 330, 900);
    site.check((0, 0, 0));
    let mut site = Site::new();
    site.passes(Some(false), 0, 300);
    site.policies = vec![policy("p", Mode::Enforce, 0)];
    site.passes(Some(true), 330, 900);
    site.check((0, 0, 0));
    // What was counted of a policy is forgotten with it.
    let mut site = Site::new();
    site.passes(Some(false), 0, 300);
    site.passes(Some(true), 330, 900);
    site.check((1, 0, 0));
    site.policies.clear();
    site.passes(Some(true), 930, 960);
    site.check((0, 0, 0));
}

#[test]
fn an_empty_or_an_old_list_of_nodes_ends_nothing() {
    let mut site = Site::new();
    site.passes(Some(false), 0, 300);
    let counted = |site: &Site, second: i64| {
        let (rules, mut fleet) = (Rules::default(), site.fleet.clone());
        let world = site.world(&rules);
        count(&mut fleet, site.health.as_slice(), &world, at(second));
        fleet.score.len()
    };
    assert_eq!(counted(&site, 50_000), 0);
    site.evidence.fold(Input::Nodes(Vec::new()), at(330));
    assert_eq!(counted(&site, 330), 0);
    let other = vec![node("other", true)];
    site.evidence.fold(Input::Nodes(other), at(360));
    assert_eq!(counted(&site, 360), 1);
}

#[test]
fn a_score_reads_what_it_wrote() {
    let mut site = Site::new();
    site.passes(Some(false), 0, 300);
    site.passes(None, 330, 360);
    let fleet = FleetState::new("fleet", site.fleet);
    let text = serde_json::to_string(&fleet).unwrap();
    assert!(text.contains(r#""wentAway":1"#), "{text}");
    assert_eq!(
        serde_json::from_str::<FleetState>(&text).unwrap().spec,
        fleet.spec
    );
}

#[test]
fn no_more_is_counted_at_once_than_the_record_holds() {
    let mut site = Site::new();
    let other = vec![node("other", true)];
    site.evidence.fold(Input::Nodes(other), at(60));
    let health = |number: usize| {
        let name = format!("gone{number}");
        let spec = NodeHealthSpec {
            node_name: name.clone(),
            node_uid: name,
        };
        let mut health = NodeHealth::new("h", spec);
        health.status = Some(NodeHealthStatus {
            observed: Some(Episode {
                policy: "p".into(),
                fault: "NotReady".into(),
                due: at(0),
                counted: false,
            }),
            ..serde_json::from_value(serde_json::json!({"verdict": "Held", "since": at(0)}))
                .unwrap()
        });
        health
    };
    let mut healths: Vec<NodeHealth> = (0..=MAX_SCORED).map(health).collect();
    let (rules, mut fleet) = (Rules::default(), FleetStateSpec::default());
    let world = site.world(&rules);
    for _ in 0..2 {
        count(&mut fleet, &healths, &world, at(60));
        let found = (fleet.scored.len(), fleet.score[0].went_away);
        assert_eq!(found, (MAX_SCORED, 100));
    }
    // Once the nodes' records say so, there is room for the last one.
    healths.retain(|health| !is_done(health, &fleet.scored));
    assert_eq!(healths.len(), 1);
    count(&mut fleet, &healths, &world, at(60));
    assert_eq!((fleet.scored.len(), fleet.score[0].went_away), (1, 101));
}

#[test]
fn a_record_that_is_full_of_faults_counts_those_it_has() {
    let episode = |number: usize| Episode {
        policy: "p".into(),
        fault: format!("F{number:03}"),
        due: at(0),
        counted: false,
    };
    let mut scores = Vec::new();
    for number in (0..=MAX_SCORES).chain([0, MAX_SCORES]) {
        add(&mut scores, &episode(number), Outcome::WentOn, at(0));
    }
    assert_eq!(scores.len(), MAX_SCORES);
    let twice: Vec<&str> = scores
        .iter()
        .filter(|score| score.went_on == 2)
        .map(|score| score.fault.as_str())
        .collect();
    assert_eq!(twice, ["F000"]);
}

#[test]
fn an_episode_outlives_its_policys_refusal_but_not_its_fault() {
    let mut site = Site::new();
    site.passes(Some(false), 0, 300);
    let accepted = site.policies.clone();
    let selector = crate::api::NodeSelector::default();
    site.policies = vec![Policy::refused("p".into(), 0, selector)];
    site.passes(Some(false), 330, 360);
    site.policies = accepted;
    site.passes(Some(true), 390, 900);
    site.check((1, 0, 0));
    let mut site = Site::new();
    site.passes(Some(false), 0, 300);
    site.policies[0].faults[0].name = "Other".into();
    site.passes(Some(true), 330, 360);
    let status = site.health.and_then(|health| health.status);
    assert!(status.unwrap().observed.is_none());
}
