//! What must hold after every step, whoever was killed when.

use std::collections::BTreeSet;

use nodemend_core::api::{Entry, NodeHealth, NodeRepair, Phase, Step};
use nodemend_core::model::QUARANTINE_ANNOTATION;
use nodemend_core::{decide, repair};

use super::State;

impl State {
    fn claim(&mut self, holds: bool, message: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            let message = message();
            self.violated.push(message);
        }
    }

    fn open_intents(&self) -> Vec<(String, Entry)> {
        self.repairs
            .values()
            .filter(|repair| repair.open())
            .filter_map(|stored| Some((repair::identity(stored), repair::open_entry(stored)?)))
            .collect()
    }

    /// I1: the call matches an intent that is stored and open.
    pub(super) fn expect_intent(&mut self, field_manager: &str, step: Step) {
        let found = self.open_intents().iter().any(|(identity, entry)| {
            entry.intent.step == step && field_manager == format!("nodemend/{identity}/{step:?}")
        });
        self.claim(found, || format!("I1: {field_manager} has no open intent"));
    }

    /// I1 for a launch.
    pub(super) fn expect_launch(&mut self, token: &str) {
        let found = self
            .open_intents()
            .iter()
            .any(|(_, entry)| entry.intent.step == Step::Launch && entry.intent.target == token);
        self.claim(found, || format!("I1: launch {token} has no open intent"));
    }

    /// I1, I3 and I4 for a restart: one for each intent, of a drained node that is the one
    /// meant and has not restarted since.
    pub(super) fn expect_reboot(&mut self, id: &str) {
        let found = self.repairs.values().find_map(|repair| {
            let entry = repair::open_entry(repair).filter(|_| repair.open())?;
            let meant = entry.intent.step == Step::Reboot && entry.intent.target == id;
            meant.then(|| (repair.clone(), entry.intent))
        });
        self.claim(found.is_some(), || {
            format!("I1: restart of {id} has no open intent")
        });
        let Some((repair, intent)) = found else {
            return;
        };
        let drained = repair.last(Step::Drain);
        let drained = drained.and_then(|entry| entry.outcome.as_ref());
        self.claim(drained.is_some_and(|outcome| outcome.done), || {
            format!("I4: {id} restarts before its drain")
        });
        let same = self.nodes.get(&repair.spec.node_name).is_some_and(|node| {
            node.uid == repair.spec.node_uid
                && node.provider_id == repair.spec.provider_id
                && node.boot_id == intent.boot_id
        });
        self.claim(same, || {
            format!("I3: {id} is not the journalled node's, or restarted since")
        });
        let first = self.restarted.insert(intent.nonce);
        self.claim(first, || format!("I1: {id} restarts twice for one intent"));
    }

    /// I1, I3 and I4 for a termination.
    pub(super) fn expect_termination(&mut self, id: &str) {
        let steps = [Step::Terminate, Step::ReturnReplacement];
        let entry = self
            .open_intents()
            .into_iter()
            .find(|(_, entry)| steps.contains(&entry.intent.step) && entry.intent.target == id);
        self.claim(entry.is_some(), || {
            format!("I1: termination of {id} has no open intent")
        });
        let repair = self
            .repairs
            .values()
            .find(|repair| repair.in_flight() && repair.spec.plan.instance_id == id)
            .cloned();
        if let Some(repair) = repair {
            let drained = repair
                .last(Step::Drain)
                .and_then(|entry| entry.outcome.as_ref())
                .is_some_and(|outcome| outcome.done);
            self.claim(drained, || format!("I4: {id} ends before its drain"));
            let replacement = repair
                .status
                .as_ref()
                .and_then(|status| status.replacement.clone())
                .unwrap_or_default();
            let ready = self.nodes.get(&replacement.node_name).is_some_and(|node| {
                node.ready() && node.instance_id() == Some(&replacement.instance_id)
            });
            self.claim(ready, || {
                format!("I4: {id} ends before its replacement is Ready")
            });
            let same = self.nodes.get(&repair.spec.node_name).is_none_or(|node| {
                node.uid == repair.spec.node_uid && node.provider_id == repair.spec.provider_id
            });
            self.claim(same, || format!("I3: {id} is not the journalled node's"));
        }
    }

    /// I7: phase and epoch never go back, the journal only grows, terminal stays terminal.
    pub(super) fn check_journal(&mut self, next: &NodeRepair) {
        let name = next.name().to_owned();
        let Some(before) = self.repairs.get(&name).cloned() else {
            return;
        };
        let (old, new) = (
            before.status.clone().unwrap_or_default(),
            next.status.clone().unwrap_or_default(),
        );
        self.claim(new.phase >= old.phase, || {
            format!("I7: {name} went from {:?} to {:?}", old.phase, new.phase)
        });
        self.claim(new.epoch >= old.epoch, || {
            format!("I7: {name} went from epoch {} to {}", old.epoch, new.epoch)
        });
        self.claim(before.open() || old == new, || {
            format!("I7: {name} was terminal and changed")
        });
        let kept = old.journal.iter().zip(&new.journal).all(|(old, new)| {
            old.intent == new.intent && (old.outcome.is_none() || old.outcome == new.outcome)
        });
        self.claim(kept && new.journal.len() >= old.journal.len(), || {
            format!("I7: the journal of {name} lost something")
        });
        let open = new
            .journal
            .iter()
            .filter(|entry| entry.outcome.is_none())
            .count();
        self.claim(open <= 1, || format!("I1: {name} has {open} open intents"));
    }

    /// I8: the last decision on record comes to the same verdict again, as the API server
    /// would give it back. Those before it were the last.
    pub(super) fn check_decision(&mut self, health: &NodeHealth) {
        let status = health.status.as_ref();
        let Some(last) = status.and_then(|status| status.decisions.last()) else {
            return;
        };
        let read = serde_json::to_string(last);
        let read = read.and_then(|text| serde_json::from_str(&text));
        let replays = read.as_ref().is_ok_and(decide::replays);
        let node = &health.spec.node_name;
        self.claim(replays, || format!("I8: {node} does not replay: {last:?}"));
    }

    /// I2, I5 and I8: one repair in flight per node, no more of them than may be, and no
    /// cordon of ours that nobody answers for.
    pub(super) fn check(&mut self) {
        for node in self.nodes.values().cloned().collect::<Vec<_>>() {
            let Some(value) = node.annotations.get(QUARANTINE_ANNOTATION) else {
                continue;
            };
            let owner = value.split('=').next().unwrap_or_default().to_owned();
            let answers = self.repairs.iter().any(|(name, repair)| {
                let asks = repair.phase() == Phase::NeedsHuman && *name == owner;
                asks || (repair.open() && repair.spec.node_uid == node.uid)
            });
            self.claim(answers, || {
                format!("I8: {} is cordoned by {owner} for nothing", node.name)
            });
        }
        let open: Vec<String> = self
            .repairs
            .values()
            .filter(|repair| repair.in_flight())
            .map(|repair| repair.spec.node_uid.clone())
            .collect();
        let distinct: BTreeSet<&String> = open.iter().collect();
        let (count, distinct) = (open.len(), distinct.len());
        self.claim(count == distinct, || {
            "I2: a node has two repairs in flight".into()
        });
        self.claim(count <= 2, || format!("I5: {count} repairs in flight"));
    }
}
