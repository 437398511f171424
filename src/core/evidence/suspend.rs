//! A rule that fires on most of the nodes it can speak of says more about itself, or about
//! monitoring, than about nodes: it is suspended. What it says of a node that it is wrong
//! is Unknown then, and counts in no breaker; what it says that is fine stays.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Evidence, evaluate, rules};
use crate::api::When;
use crate::config::{Policy, Rules};
use crate::model::{NodeView, Span, Truth};

/// How long a rule stays suspended below half, if nobody says else.
const LIFT_AFTER: Span = Span::minutes(10);
/// A signal that fires on fewer nodes is never taken for one that fires on all.
const MIN_NODES: usize = 3;

/// The suspended rules.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Suspended {
    /// Each with since when it fires on fewer nodes again.
    rules: BTreeMap<String, Option<Timestamp>>,
    lift_after: Span,
}

impl Default for Suspended {
    fn default() -> Self {
        Self {
            rules: BTreeMap::new(),
            lift_after: LIFT_AFTER,
        }
    }
}

impl Suspended {
    pub fn contains(&self, signal: &str) -> bool {
        self.rules.contains_key(signal)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    /// Takes in on how many nodes each signal fires, and how many it can speak of. Of the
    /// `blind` ones that is not known: their wait begins anew.
    pub fn settle(
        &mut self,
        firing: &BTreeMap<String, (usize, usize)>,
        blind: &BTreeSet<String>,
        now: Timestamp,
    ) {
        let over: BTreeSet<&String> = firing
            .iter()
            .filter(|(_, (count, of))| most(*count, *of))
            .map(|(name, _)| name)
            .collect();
        for name in over.iter().copied().chain(blind) {
            self.rules.insert(name.clone(), None);
        }
        let lift_after = self.lift_after;
        self.rules.retain(|name, below| {
            let waits = over.contains(name) || blind.contains(name);
            waits || lift_after.after(*below.get_or_insert(now)) > now
        });
    }

    /// As an earlier leader left them; how long each has to wait begins anew.
    pub fn restore(&mut self, rules: Vec<String>) {
        for rule in rules {
            self.rules.entry(rule).or_insert(None);
        }
    }
}

impl Evidence {
    /// How long a suspended rule has to fire on no more than half of its nodes.
    pub const fn lift_after(&mut self, cooldown: Span) {
        self.suspended.lift_after = cooldown;
    }

    /// The rules that are suspended, and since when each fires on fewer nodes again.
    pub fn suspended(&self) -> impl Iterator<Item = (&str, Option<Timestamp>)> {
        let all = self.suspended.rules.iter();
        all.map(|(name, below)| (name.as_str(), *below))
    }

    /// Whether a fault is not known to be false for suspended rules alone.
    pub fn only_suspended(
        &self,
        node: &NodeView,
        policy: &Policy,
        fault: &str,
        rules: &Rules,
        now: Timestamp,
    ) -> bool {
        let look = self.look(node, rules, now);
        let without = |when| self.without_suspended(&look, policy, when);
        !self.suspended.rules.is_empty() && policy.when(fault).map(without) == Some(Truth::False)
    }

    fn without_suspended(&self, look: &super::Look<'_>, policy: &Policy, when: &When) -> Truth {
        evaluate(policy, when, &|leaf| match &leaf.signal {
            Some(name) if self.suspended.contains(name) => Truth::False,
            _ => self.leaf(look, leaf),
        })
    }

    /// Whether it is known on how many nodes a signal fires, if it is not clear of `unclear`:
    /// its source answers and sees nodes, and those of which nothing is known are few.
    pub(super) fn counts(
        &self,
        signal: &str,
        unclear: usize,
        rules: &Rules,
        now: Timestamp,
    ) -> bool {
        let few = |count: usize| !most(count, self.covered(signal));
        let Some(polled) = rules.get(signal) else {
            let heard = !self.deaf || self.alertmanager.whole(now);
            let present = rules.iter().any(|rule| rule.presence.is_some());
            let sees = !present || self.tells_alerts(rules, now);
            // Without either its end is never known, so that it is not says nothing.
            let ends = present || self.alertmanager.was_asked();
            return heard && sees && (!ends || few(unclear));
        };
        // Where nobody asks for presence, whoever does not fire is unknown.
        let few = |rule: &rules::RuleEvidence| {
            polled.presence.is_none() || few(rule.fired(|uid| self.has(uid)).max(unclear))
        };
        let rule = self.rules.get(signal);
        rule.is_some_and(|rule| rule.speaks(now) && few(rule))
    }

    /// How many nodes a signal can speak of.
    pub(super) fn covered(&self, signal: &str) -> usize {
        let rule = self.rules.get(signal);
        let covered = rule.and_then(rules::RuleEvidence::covered);
        covered.unwrap_or(self.nodes.len())
    }
}

/// Whether so many nodes of a fleet are most of it.
const fn most(nodes: usize, of: usize) -> bool {
    nodes >= MIN_NODES && nodes * 2 > of
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{AlertGroupSpec, StoredAlert};
    use crate::config::Rule;
    use crate::evidence::tests::{alert, answer, at, node, policy, rule};
    use crate::evidence::{Answer, Input};

    const ALL: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

    /// What the fault of node a is, and whether only a suspension keeps it from that.
    fn look(evidence: &Evidence, now: i64) -> (Truth, bool) {
        let rules = Rules::from_iter([rule(0)]);
        let node = evidence.node("a").expect("folded");
        let truth = evidence.fault(node, &policy(), "f", &rules, at(now)).0;
        let only = evidence.only_suspended(node, &policy(), "f", &rules, at(now));
        (truth, only)
    }

    fn see(evidence: &mut Evidence, nodes: usize, firing: usize, present: &[&str], now: i64) {
        let rules = Rules::from_iter([rule(0)]);
        let fleet = ALL[..nodes].iter().map(|name| node(name, "True"));
        evidence.fold(Input::Nodes(fleet.collect()), at(now));
        evidence.fold(answer(&ALL[..firing], Some(present)), at(now));
        evidence.settle(&rules, &[policy()], at(now));
    }

    #[test]
    fn a_rule_that_fires_on_most_of_its_nodes_says_nothing() {
        let (fires, suspended) = ((Truth::True, false), (Truth::Unknown, true));
        for (nodes, firing, present, expect) in [
            (6, 4, &ALL[..], suspended),
            (6, 3, &ALL[..], fires),
            // Too few to say.
            (2, 2, &ALL[..2], fires),
            (4, 3, &ALL[..4], suspended),
            // A rule of one job, which has three of six nodes.
            (6, 3, &ALL[..3], suspended),
            // Two more for which it fires, of which nothing fresh is known.
            (6, 5, &["a", "b", "c", "f"], fires),
        ] {
            let mut evidence = Evidence::default();
            see(&mut evidence, nodes, firing, present, 0);
            let found = look(&evidence, 0);
            assert_eq!(found, expect, "{firing} of {} of {nodes}", present.len());
        }
    }

    #[test]
    fn a_suspension_is_not_lifted_by_what_nobody_answers() {
        let says = |evidence: &mut Evidence, input: Input, now| {
            let fleet = ALL.iter().map(|name| node(name, "True"));
            evidence.fold(Input::Nodes(fleet.collect()), at(now));
            evidence.fold(input, at(now));
            evidence.settle(&Rules::from_iter([rule(0)]), &[policy()], at(now));
        };
        let failed = || Input::Rule {
            asked: Timestamp::MAX,
            name: "R".into(),
            answer: crate::evidence::Answer::Failed("503".into()),
        };
        let below = |evidence: &Evidence| {
            let mut all = evidence.suspended();
            all.next().map(|(_, below)| below)
        };
        let mut evidence = Evidence::default();
        see(&mut evidence, 6, 6, &ALL, 0);
        // It fires on one for a while; then nobody answers, or Prometheus is empty.
        for now in (30..=300).step_by(30) {
            see(&mut evidence, 6, 1, &ALL, now);
        }
        assert_eq!(below(&evidence), Some(Some(at(30))));
        for now in (330..=1200).step_by(30) {
            says(&mut evidence, failed(), now);
            assert_eq!(below(&evidence), Some(None), "at {now}");
        }
        for now in (1230..=2400).step_by(30) {
            says(&mut evidence, answer(&[], Some(&[])), now);
            assert_eq!(below(&evidence), Some(None), "at {now}");
        }
        for now in (2430..3030).step_by(30) {
            see(&mut evidence, 6, 1, &ALL, now);
            assert_eq!(below(&evidence), Some(Some(at(2430))), "at {now}");
        }
        see(&mut evidence, 6, 1, &ALL, 3030);
        assert_eq!(below(&evidence), None);
    }

    #[test]
    fn a_suspension_of_a_rule_without_presence_is_lifted_too() {
        let mut evidence = Evidence::default();
        let rule = Rule {
            presence: None,
            ..rule(0)
        };
        for now in (0..=900).step_by(30) {
            let fleet = ALL.iter().map(|name| node(name, "True"));
            evidence.fold(Input::Nodes(fleet.collect()), at(now));
            let firing = if now < 60 { &ALL[..] } else { &ALL[..1] };
            evidence.fold(answer(firing, None), at(now));
            let rules = Rules::from_iter([rule.clone()]);
            evidence.settle(&rules, &[policy()], at(now));
            let suspended = evidence.suspended().next().is_some();
            assert_eq!(suspended, now < 660, "at {now}");
        }
    }

    #[test]
    fn a_suspended_alert_is_lifted_if_it_is_known_of_most_nodes_that_it_ended() {
        let ends = |end: i64| StoredAlert {
            last_resolved: Some(at(end)),
            ..alert(0, Some(0), Some(end))
        };
        // An end that is hardly later than the last word is none that can be relied on. Where
        // nothing tells of an end, none is waited for.
        for (polls, end, lifted) in [(true, 30, 640), (true, 3, 9999), (false, 30, 640)] {
            let mut evidence = Evidence::default();
            let mut policy = policy();
            policy.faults[0].when.any[0].signal = Some("A".into());
            let rules: Rules = polls.then(|| rule(0)).into_iter().collect();
            for now in (0..=900).step_by(10) {
                let fleet = ALL.iter().map(|name| node(name, "True"));
                evidence.fold(Input::Nodes(fleet.collect()), at(now));
                evidence.fold(answer(&[], Some(&ALL)), at(now));
                for name in ALL {
                    let said = if now < 40 {
                        alert(0, Some(0), None)
                    } else {
                        ends(end)
                    };
                    let said = StoredAlert {
                        labels: [("node".to_owned(), name.to_owned())].into(),
                        ..said
                    };
                    let group = AlertGroupSpec {
                        alerts: [("f".to_owned(), said)].into(),
                        ..AlertGroupSpec::default()
                    };
                    let object = name.into();
                    evidence.fold(Input::Alerts { object, group }, at(now));
                }
                evidence.settle(&rules, std::slice::from_ref(&policy), at(now));
                let suspended = evidence.suspended().next().is_some();
                assert_eq!(suspended, now < lifted, "{polls} {end} at {now}");
            }
        }
    }

    #[test]
    fn a_suspension_is_not_lifted_while_most_nodes_are_out_of_sight() {
        let mut evidence = Evidence::default();
        see(&mut evidence, 6, 6, &ALL, 0);
        for now in (30..=900).step_by(30) {
            // Of two of six there is data, and those are fine.
            see(&mut evidence, 6, 0, &ALL[4..], now);
            assert_eq!(evidence.suspended().next(), Some(("R", None)), "at {now}");
        }
    }

    #[test]
    fn a_suspension_is_lifted_though_the_nodes_that_it_fired_on_were_replaced() {
        let rules = Rules::from_iter([Rule {
            keep_firing_for: Span::minutes(60),
            ..rule(0)
        }]);
        let mut evidence = Evidence::default();
        for now in (0..=900).step_by(30) {
            // Five of six go away as they are: nobody saw them without it.
            let there = if now < 60 { &ALL[..] } else { &ALL[5..] };
            let new = ["g", "h", "i", "j", "k"];
            let new = if now < 60 { &[][..] } else { &new[..] };
            let all: Vec<&str> = there.iter().chain(new).copied().collect();
            let fleet = all.iter().map(|name| node(name, "True"));
            evidence.fold(Input::Nodes(fleet.collect()), at(now));
            let firing = if now < 60 { &ALL[..5] } else { &[][..] };
            evidence.fold(answer(firing, Some(&all)), at(now));
            evidence.settle(&rules, &[policy()], at(now));
            let suspended = evidence.suspended().next().is_some();
            assert_eq!(suspended, now < 660, "at {now}");
        }
    }

    #[test]
    fn h59_a_suspension_is_lifted_after_a_while_on_fewer_nodes_and_clocks_stood_still() {
        let mut evidence = Evidence::default();
        see(&mut evidence, 6, 1, &ALL, 0);
        see(&mut evidence, 6, 1, &ALL, 60);
        for now in (90..=180).step_by(30) {
            see(&mut evidence, 6, 6, &ALL, now);
            assert_eq!(look(&evidence, now), (Truth::Unknown, true), "at {now}");
        }
        for now in (210..810).step_by(30) {
            see(&mut evidence, 6, 1, &ALL, now);
            assert_eq!(look(&evidence, now).0, Truth::Unknown, "at {now}");
        }
        assert_eq!(
            evidence.suspended().collect::<Vec<_>>(),
            [("R", Some(at(210)))]
        );
        // One relapse begins the wait anew.
        let mut relapse = evidence.clone();
        see(&mut relapse, 6, 6, &ALL, 810);
        see(&mut relapse, 6, 1, &ALL, 840);
        assert_eq!(look(&relapse, 840), (Truth::Unknown, true));
        for now in (810..=870).step_by(30) {
            see(&mut evidence, 6, 1, &ALL, now);
            assert_eq!(evidence.suspended().count(), 0, "at {now}");
        }
        assert_eq!(look(&evidence, 870), (Truth::True, false));
        let node = evidence.node("a").expect("folded");
        let signal = evidence.signal(node, "R", &Rules::from_iter([rule(0)]), at(870));
        assert_eq!(signal.since, Some(at(810)));
    }

    #[test]
    fn a_fault_that_another_rule_leaves_open_is_not_suspended() {
        let other = Rule {
            name: "S".into(),
            ..rule(0)
        };
        let rules = Rules::from_iter([rule(0), other]);
        let mut policy = policy();
        let mut of_other = policy.faults[0].clone();
        of_other.name = "g".into();
        of_other.when.any[0].signal = Some("S".into());
        policy.faults.push(of_other);
        let says = |name: &str, answer: Answer| Input::Rule {
            name: name.into(),
            asked: at(0),
            answer,
        };
        let Input::Rule { answer: fires, .. } = answer(&ALL, Some(&ALL)) else {
            panic!("a rule's");
        };
        let mut evidence = Evidence::default();
        let fleet = ALL.iter().map(|name| node(name, "True"));
        evidence.fold(Input::Nodes(fleet.collect()), at(0));
        evidence.fold(says("S", fires), at(0));
        evidence.fold(says("R", Answer::Failed("503".into())), at(0));
        evidence.settle(&rules, std::slice::from_ref(&policy), at(0));
        let node = evidence.node("a").expect("folded");
        let only = |fault: &str| evidence.only_suspended(node, &policy, fault, &rules, at(0));
        assert!(only("g") && !only("f"));
    }

    #[test]
    fn h59_a_suspension_waits_the_cooldown_through_a_change_of_leader_and_blindness() {
        let rules = Rules::from_iter([rule(0)]);
        // As the leader before left it, when the rule had fallen below half.
        let mut evidence = Evidence::default();
        evidence.lift_after(Span::minutes(5));
        let (joined, suspended) = (Vec::new(), vec!["R".to_owned()]);
        evidence.fold(Input::Led { joined, suspended }, at(0));
        // No answer was heard yet.
        let fleet = ALL.iter().map(|name| node(name, "True"));
        evidence.fold(Input::Nodes(fleet.collect()), at(0));
        evidence.settle(&rules, &[policy()], at(0));
        for now in (30..=300).step_by(30) {
            see(&mut evidence, 6, 2, &ALL, now);
            assert_eq!(look(&evidence, now), (Truth::Unknown, true), "at {now}");
        }
        let mut blind = evidence.clone();
        for now in (330..=390).step_by(30) {
            see(&mut evidence, 6, 2, &ALL, now);
        }
        assert_eq!(look(&evidence, 390), (Truth::True, false));
        // What is not measured is not below half.
        let failed = Input::Rule {
            name: "R".to_owned(),
            asked: at(330),
            answer: crate::evidence::Answer::Failed("no answer".into()),
        };
        blind.fold(failed, at(330));
        blind.settle(&rules, &[policy()], at(330));
        for now in (360..=600).step_by(30) {
            see(&mut blind, 6, 2, &ALL, now);
            assert_eq!(look(&blind, now).0, Truth::Unknown, "at {now}");
        }
    }
}
