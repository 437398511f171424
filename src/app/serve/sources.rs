//! What a leader hears: the watches, the rules' answers, Alertmanager's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nodemend_core::api::{AlertGroup, AlertGroupSpec, NodeSelector, RepairPause};
use nodemend_core::config::Rule;
use nodemend_core::decide::Pause;
use nodemend_core::evidence::{Answer, Input};
use nodemend_core::model::NodeView;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use super::clock::now;
use super::term::Leader;
use crate::alertmanager::{self, ask};
use crate::app::load::Loaded;
use crate::cluster::{Followed, StoredPolicy, follow, node_view};
use crate::prometheus;
use crate::telemetry::{About, Notice, Source};

/// A watch that gave no sign of life for this long is unknown, not quiet.
const SILENCE: Duration = Duration::from_secs(90);

/// What a leader listens to; it ends with the term.
pub(super) struct Sources {
    pub(super) wake: Arc<Notify>,
    nodes: Followed<NodeView>,
    groups: Followed<AlertGroupSpec>,
    pub(super) policies: Followed<StoredPolicy>,
    pub(super) pauses: Followed<RepairPause>,
    pub(super) paused: Vec<Pause>,
    /// The policy objects as they were last seen.
    pub(super) objects: BTreeMap<String, StoredPolicy>,
    pub(super) loaded: Arc<Loaded>,
    prometheus: Option<prometheus::Client>,
    polling: Option<AbortHandle>,
    /// To the rules that are in force.
    answers: prometheus::Waiting,
    /// What Alertmanager says, whatever rules are in force.
    said: alertmanager::Waiting,
    /// Whether Alertmanager, if there is one, answered or failed.
    asked: Arc<AtomicBool>,
    alerts: Alerts,
    /// What is to be told people.
    pub(super) notices: Vec<Notice>,
    /// They end when this is dropped.
    tasks: JoinSet<()>,
}

impl Sources {
    /// Follows everything at once.
    pub(super) fn start(leader: &Leader, loaded: Arc<Loaded>) -> Self {
        let wake = Arc::new(Notify::new());
        let mut sources = Self {
            wake: Arc::clone(&wake),
            nodes: Followed::default(),
            groups: Followed::default(),
            policies: Followed::default(),
            pauses: Followed::default(),
            paused: Vec::new(),
            objects: BTreeMap::new(),
            loaded,
            prometheus: leader.prometheus.clone(),
            polling: None,
            answers: prometheus::Waiting::default(),
            said: alertmanager::Waiting::default(),
            asked: Arc::new(AtomicBool::new(leader.alertmanager.is_none())),
            alerts: Alerts::default(),
            notices: Vec::new(),
            tasks: JoinSet::new(),
        };
        let cluster = || leader.cluster.clone();
        let (nodes, groups) = (sources.nodes.clone(), sources.groups.clone());
        let (policies, pauses) = (sources.policies.clone(), sources.pauses.clone());
        let tasks = &mut sources.tasks;
        tasks.spawn(follow(cluster(), followed_node, nodes, Arc::clone(&wake)));
        tasks.spawn(follow(
            cluster(),
            |group: &AlertGroup| group.spec.clone(),
            groups,
            Arc::clone(&wake),
        ));
        tasks.spawn(follow(
            cluster(),
            StoredPolicy::clone,
            policies,
            Arc::clone(&wake),
        ));
        tasks.spawn(follow(
            cluster(),
            RepairPause::clone,
            pauses,
            Arc::clone(&wake),
        ));
        if let Some(client) = leader.alertmanager.clone() {
            let (telemetry, asked) = (leader.telemetry.clone(), Arc::clone(&sources.asked));
            let (said, wake) = (sources.said.clone(), Arc::clone(&wake));
            let heard = move |input: Input| {
                let ok = matches!(input, Input::Asked(_));
                telemetry.source_up(Source::Alertmanager, ok);
                said.put(input);
                asked.store(true, Ordering::Relaxed);
                wake.notify_one();
            };
            tasks.spawn(ask::poll(client, now, heard));
        }
        sources.poll(leader);
        sources
    }

    /// Polls the rules that are in force, and no others; an answer that is still under
    /// way to an earlier question is not heard.
    pub(super) fn poll(&mut self, leader: &Leader) {
        if let Some(polling) = self.polling.take() {
            polling.abort();
        }
        self.answers = prometheus::Waiting::default();
        let Some(client) = self.prometheus.clone() else {
            return;
        };
        let (telemetry, wake) = (leader.telemetry.clone(), Arc::clone(&self.wake));
        let answers = self.answers.clone();
        let rules = self.loaded.rules.to_vec();
        let (failing, count) = (Failing::default(), rules.len());
        let heard = move |rule: &Rule, answer: Answer, took: Duration| {
            let ok = matches!(answer, Answer::Series { .. });
            telemetry.rule_evaluated(took.as_secs_f64(), ok);
            // One rule that it refuses does not make the source look down.
            telemetry.source_up(
                Source::Prometheus,
                failing.heard(&rule.name, &answer) < count,
            );
            let now = now();
            let asked = now.checked_sub(took).unwrap_or(now);
            answers.put(&rule.name, asked, answer);
            wake.notify_one();
        };
        let polling = self.tasks.spawn(prometheus::poll(client, rules, heard));
        self.polling = Some(polling);
    }

    /// Whether every list was read, and not too long ago.
    pub(super) fn heard(&self) -> bool {
        self.nodes.heard_within(SILENCE) && self.groups.heard_within(SILENCE) && self.steered()
    }

    /// Whether what people wrote is known.
    fn steered(&self) -> bool {
        self.policies.heard_within(SILENCE) && self.pauses.heard_within(SILENCE)
    }

    /// The pauses. A kill switch that cannot be read is on.
    pub(super) fn pauses(&self) -> Vec<Pause> {
        let everything = Pause {
            selector: NodeSelector::default(),
            policy: None,
            until: None,
        };
        let unknown = (!self.steered()).then_some(everything);
        self.paused.iter().cloned().chain(unknown).collect()
    }

    /// Whether Alertmanager, if there is one, answered or failed.
    pub(super) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// What happened since the last pass.
    pub(super) fn inputs(&mut self) -> impl Iterator<Item = Input> + use<> {
        let mut inputs = vec![Input::AlertsHeard(self.groups.heard_within(SILENCE))];
        // During a long pass the watch may have fallen silent.
        if let Some(nodes) = self.nodes.news_within(SILENCE) {
            if let Some(prometheus) = &self.prometheus {
                prometheus.expect(nodes.len());
            }
            inputs.push(Input::Nodes(nodes.into_values().collect()));
        }
        if let Some(groups) = self.groups.news() {
            let (changed, notices) = self.alerts.changed(groups);
            inputs.extend(changed);
            self.notices.extend(notices);
        }
        let said = self.said.take();
        inputs.into_iter().chain(said).chain(self.answers.take())
    }
}

/// The alert groups as they were last seen.
#[derive(Default)]
struct Alerts {
    known: BTreeMap<String, AlertGroupSpec>,
    /// Receivers that get deliveries with alerts left out.
    shortened: BTreeSet<String>,
}

impl Alerts {
    /// What differs now, and what people are to be told of that.
    fn changed(&mut self, groups: BTreeMap<String, AlertGroupSpec>) -> (Vec<Input>, Vec<Notice>) {
        let gone = self.known.keys();
        let gone = gone.filter(|object| !groups.contains_key(*object));
        let gone = gone.map(|object| Input::AlertsGone {
            object: object.clone(),
        });
        let other = groups.iter();
        let other = other.filter(|(object, group)| self.known.get(*object) != Some(group));
        let other = other.map(|(object, group)| Input::Alerts {
            object: object.clone(),
            group: group.clone(),
        });
        let inputs = gone.chain(other).collect();
        let shortened = shortened(&groups);
        let new = shortened.difference(&self.shortened);
        let notices = new.map(|receiver| left_out(receiver)).collect();
        (self.known, self.shortened) = (groups, shortened);
        (inputs, notices)
    }
}

/// The receivers of which some group was not told whole.
fn shortened(groups: &BTreeMap<String, AlertGroupSpec>) -> BTreeSet<String> {
    let groups = groups.values().filter(|group| group.truncated_at.is_some());
    groups.map(|group| group.receiver.clone()).collect()
}

fn left_out(receiver: &str) -> Notice {
    Notice {
        about: About::Fleet,
        reason: "AlertsLeftOut",
        note: format!(
            "Alertmanager leaves alerts out of what it sends to `{receiver}`: raise max_alerts \
             there, or group by more labels"
        ),
        warning: true,
    }
}

/// Which rules have no usable answer now; each change of that is told once.
#[derive(Default)]
struct Failing(Mutex<BTreeSet<String>>);

impl Failing {
    /// How many there are after this answer.
    fn heard(&self, rule: &str, answer: &Answer) -> usize {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Answer::Failed(error) => {
                if failing.insert(rule.to_owned()) {
                    tracing::warn!(
                        rule,
                        error,
                        "a rule has no usable answer, what it says is unknown"
                    );
                }
            }
            Answer::Series { .. } => {
                if failing.remove(rule) {
                    tracing::info!(rule, "a rule has an answer again");
                }
            }
        }
        failing.len()
    }
}

/// A node as it is followed: heartbeats change nothing of it, and patches read it live.
fn followed_node(node: &k8s_openapi::api::core::v1::Node) -> NodeView {
    NodeView {
        resource_version: String::new(),
        boot_id: String::new(),
        ..node_view(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h4_receivers_that_alerts_are_left_out_for_are_told() {
        let group = |receiver: &str, truncated_at| AlertGroupSpec {
            receiver: receiver.into(),
            truncated_at,
            ..AlertGroupSpec::default()
        };
        let mut alerts = Alerts::default();
        let mut changed = |groups: &[(&str, AlertGroupSpec)]| {
            let groups = groups.iter();
            let groups = groups.map(|(object, group)| ((*object).to_owned(), group.clone()));
            let (inputs, notices) = alerts.changed(groups.collect());
            let notes: Vec<String> = notices.into_iter().map(|notice| notice.note).collect();
            (inputs, notes)
        };
        let (whole, short) = (group("whole", None), group("short", Some(now())));
        let groups = [
            ("1", whole.clone()),
            ("2", short.clone()),
            ("3", short.clone()),
        ];
        let (inputs, notes) = changed(&groups);
        assert_eq!(inputs.len(), 3);
        assert_eq!(notes.len(), 1, "once for a receiver");
        assert!(notes[0].contains("sends to `short`"), "{notes:?}");
        assert_eq!(changed(&groups), (vec![], vec![]), "nothing changed");
        let (inputs, notes) = changed(&[("1", whole.clone()), ("2", group("short", None))]);
        let object = || "3".to_owned();
        assert_eq!(inputs[0], Input::AlertsGone { object: object() });
        assert!(matches!(&inputs[1..], [Input::Alerts { object, .. }] if object == "2"));
        assert!(notes.is_empty(), "all is whole now");
        assert_eq!(changed(&[("2", short)]).1.len(), 1, "and again not");
    }

    #[test]
    fn a_rule_that_breaks_breaks_alone() {
        let failing = Failing::default();
        let failed = || Answer::Failed("too hard".into());
        let sound = || Answer::Series {
            firing: vec![],
            present: None,
        };
        for (rule, answer, expect) in [
            ("a", sound(), 0),
            ("b", failed(), 1),
            ("b", failed(), 1),
            ("a", failed(), 2),
            ("b", sound(), 1),
            ("a", sound(), 0),
        ] {
            assert_eq!(failing.heard(rule, &answer), expect);
        }
    }
}
