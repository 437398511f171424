//! Whole histories: many seeds, and one struck at every call: killed, contradicted, unanswered.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use futures_util::future::LocalBoxFuture;
use nodemend_core::api::{Action, OnUnreachable, Phase};
use nodemend_core::config::Confirm;
use nodemend_core::model::Reason;
use tokio::sync::oneshot;

use super::*;
use crate::sim::{Fault, Strike};

/// Coarser than what people see: hundreds of whole histories are run.
const COARSE: Span = Span::seconds(30);

fn finish<F: FnMut(Told<'_>) -> io::Result<()>>(mut demo: Demo<F>) -> (Summary, World) {
    while !demo.over() {
        demo.step().unwrap();
    }
    (demo.summary(), demo.world)
}

fn history(seed: u64, step: Span) -> (Summary, World) {
    finish(Demo::new(seed, step, |_| Ok(())))
}

type End = (
    usize,
    Vec<(String, Phase)>,
    Vec<HeldLine>,
    Vec<ObservedLine>,
);

/// The effects on nodes, pods and instances, counted per object; records are means, not ends.
fn effects(world: &World) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in world.calls() {
        if ["launch", "reboot", "terminate", "evict", "create repair"]
            .iter()
            .any(|kind| call.starts_with(kind))
        {
            *counts.entry(call).or_default() += 1;
        }
    }
    counts
}

fn end(summary: &Summary) -> End {
    (
        summary.nodes,
        summary
            .repairs
            .iter()
            .map(|repair| (repair.node.clone(), repair.phase))
            .collect(),
        summary.held.clone(),
        summary.observed.clone(),
    )
}

#[test]
fn every_seed_repairs_holds_and_observes() {
    for seed in 1..=20 {
        let (summary, _) = history(seed, STEP);
        assert!(
            summary
                .repairs
                .iter()
                .any(|repair| repair.phase == Phase::Succeeded),
            "{summary:?}"
        );
        assert!(
            summary
                .repairs
                .iter()
                .all(|repair| repair.phase == Phase::Succeeded),
            "{summary:?}"
        );
        assert!(
            !summary.held.is_empty() && !summary.observed.is_empty(),
            "{summary:?}"
        );
        assert_eq!(summary.invariants.violated, Vec::<String>::new());
    }
}

#[test]
fn one_seed_gives_one_history() {
    let document = || serde_json::to_string(&history(7, STEP).0).unwrap();
    assert_eq!(document(), document());
}

/// A history in which every fault of the enforcing policy has this ladder.
fn climbed(actions: &[Action], strike: Option<Strike>) -> (Summary, World) {
    let demo = climbing(actions);
    demo.world.strike_at(strike);
    finish(demo)
}

/// The same at its beginning.
fn climbing(actions: &[Action]) -> Demo<impl FnMut(Told<'_>) -> io::Result<()> + use<>> {
    let mut demo = Demo::new(1, COARSE, |_| Ok(()));
    for fault in &mut demo.setup.policies[0].faults {
        if !fault.actions.is_empty() {
            fault.actions = actions.to_vec();
        }
    }
    demo.leader = Leader::new(&demo.world, &demo.setup, None);
    demo
}

/// What may strike at the n-th call, which is this one.
type StrikeAt = fn(usize, &str) -> Option<Strike>;

const KILLS: [StrikeAt; 2] = [
    |index, _| Some(Strike::KillBefore(index)),
    |index, _| Some(Strike::KillAfter(index)),
];

/// A cloud knows no conflicts.
const CONTRADICTIONS: [StrikeAt; 2] = [
    |index, what| {
        let cloud = ["launch", "reboot", "terminate"];
        let kubernetes = !cloud.iter().any(|kind| what.starts_with(kind));
        kubernetes.then_some(Strike::Conflict(index))
    },
    |index, _| Some(Strike::NoAnswer(index)),
];

/// Strikes at every call of a history, so at every step of its plans.
fn struck(actions: &[Action], needed: &[&str], strikes: &[StrikeAt]) {
    let (reference, world) = climbed(actions, None);
    let (calls, expected) = (world.calls(), effects(&world));
    for part in needed {
        let made = calls.iter().any(|call| call.contains(part));
        assert!(made, "no {part} in {calls:#?}");
    }
    let check = |strike: Strike, what: &str| {
        let (summary, after) = climbed(actions, Some(strike));
        let violated = &summary.invariants.violated;
        assert_eq!(*violated, Vec::<String>::new(), "{strike:?} at {what}");
        assert_eq!(end(&summary), end(&reference), "{strike:?} at {what}");
        assert_eq!(effects(&after), expected, "{strike:?} at {what}");
    };
    let cases = AtomicUsize::new(0);
    // The worlds of a history stay on one thread; each kind of strike has its own.
    std::thread::scope(|scope| {
        for strike in strikes {
            let (calls, check, cases) = (&calls, &check, &cases);
            scope.spawn(move || {
                for (index, what) in calls.iter().enumerate() {
                    if let Some(strike) = strike(index, what) {
                        check(strike, what);
                        cases.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (calls, cases) = (calls.len(), cases.into_inner());
    println!("struck at each of {calls} calls: {cases} cases");
    assert!(cases > 50);
}

const LADDER: [Action; 2] = [Action::Reboot, Action::Replace];
const CLIMBED: [&str; 5] = ["reboot", "Reboot outcome", "Release", "launch", "terminate"];

#[test]
fn h48_killed_before_and_after_every_call_ends_the_same() {
    let needed = ["launch", "terminate", "evict"];
    struck(&[Action::Replace], &needed, &KILLS);
}

#[test]
fn h48_killed_at_every_call_a_ladder_ends_the_same() {
    struck(&LADDER, &CLIMBED, &KILLS);
}

#[test]
fn h48_killed_at_every_call_a_cordon_ends_the_same() {
    struck(&[Action::Cordon], &["patch node"], &KILLS);
}

#[test]
fn h25_h81_contradicted_or_unanswered_at_every_call_ends_the_same() {
    struck(&LADDER, &CLIMBED, &CONTRADICTIONS);
}

/// A history in which the n-th call has its effect only so many steps after another leader
/// took over.
fn overtaken(actions: &[Action], index: usize, steps: usize) -> (Summary, World) {
    let mut demo = climbing(actions);
    demo.world.strike_at(Some(Strike::Late(index)));
    let mut late = loop {
        assert!(!demo.over(), "call {index} was never made");
        if let Some(late) = step_until_late(&mut demo) {
            break late;
        }
    };
    for _ in 0..steps {
        demo.step().unwrap();
    }
    demo.world.release();
    assert_eq!(late.as_mut().now_or_never(), None, "it learns of nothing");
    finish(demo)
}

/// One step. If its leader waits for a call, that, and another leads from now on.
fn step_until_late<F>(demo: &mut Demo<F>) -> Option<LocalBoxFuture<'static, ()>>
where
    F: FnMut(Told<'_>) -> io::Result<()>,
{
    demo.break_machines().unwrap();
    demo.hear_webhook().unwrap();
    let successor = Leader::new(&demo.world, &demo.setup, Some(demo.now));
    let mut leader = std::mem::replace(&mut demo.leader, successor);
    let (alerts, rules) = (&demo.webhook.alerts, &demo.setup.rules);
    let inputs = leader.inputs(&demo.world, alerts, rules, demo.now);
    let (world, (sender, mut passed)) = (demo.world.clone(), oneshot::channel());
    let mut pass = async move {
        let report = leader.controller.pass(inputs, &[], &world).await;
        drop(sender.send((leader, report)));
    }
    .boxed_local();
    let over = pass.as_mut().now_or_never();
    if over.is_some() {
        let (leader, report) = passed.try_recv().unwrap();
        demo.leader = leader;
        demo.last = report.ok();
    }
    demo.tick();
    over.is_none().then_some(pass)
}

/// Has calls of a history whose names begin so land late, each by one of these steps.
fn late(actions: &[Action], needed: &[&str], begin: &str, late: [usize; 3]) {
    let (reference, world) = climbed(actions, None);
    let made = |world: &World| effects(world).into_keys().collect::<Vec<_>>();
    let (calls, expected) = (world.calls(), made(&world));
    for part in needed {
        assert!(calls.iter().any(|call| call.contains(part)), "no {part}");
    }
    let of = |what: &str| what.starts_with(begin);
    let calls: Vec<(usize, &String)> = calls.iter().enumerate().filter(|one| of(one.1)).collect();
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (calls, expected, reference) = (&calls, &expected, &reference);
            scope.spawn(move || {
                for (index, what) in calls.iter().skip(half).step_by(2) {
                    let steps = late[index % 3];
                    let (summary, world) = overtaken(actions, *index, steps);
                    let told = format!("{what} comes {steps} steps late");
                    let violated = &summary.invariants.violated;
                    assert_eq!(*violated, Vec::<String>::new(), "{told}");
                    assert_eq!(end(&summary), end(reference), "{told}");
                    assert_eq!(made(&world), *expected, "{told}");
                    let mut nodes = world.list_nodes().into_iter();
                    let cordoned = nodes.find(|node| node.unschedulable);
                    assert_eq!(cordoned, None, "{told}");
                }
            });
        }
    });
}

#[test]
fn h80_calls_that_land_after_another_took_over_change_no_end() {
    let needed = ["launch", "terminate", "evict", "create repair"];
    late(&[Action::Replace], &needed, "", [1, 4, 40]);
    // EC2 has no token for a restart: one that comes very late is one more.
    late(&LADDER, &CLIMBED, "reboot", [1, 2, 3]);
}

#[test]
fn rules_that_are_read_again_unchanged_change_no_history() {
    let mut demo = Demo::new(3, STEP, |_| Ok(()));
    while !demo.over() {
        let setup = demo.setup.clone();
        demo.leader
            .controller
            .adopt_rules(setup.rules, setup.limits);
        demo.leader.controller.adopt(setup.policies);
        demo.step().unwrap();
    }
    let document = |summary: &Summary| serde_json::to_string(summary).unwrap();
    let untouched = history(3, STEP).0;
    assert_eq!(document(&demo.summary()), document(&untouched));
}

/// Whose disk is read-only, and a history in which every fault of the enforcing policy
/// needs this metric's opinion.
fn confirmed_by(metric: &str, seed: u64) -> (Vec<String>, Summary) {
    let mut demo = Demo::new(seed, COARSE, |_| Ok(()));
    for fault in &mut demo.setup.policies[0].faults {
        fault.confirm = Some(Confirm {
            port: 9100,
            path: "/metrics".into(),
            metric: metric.into(),
            above: 0.0,
            on_unreachable: OnUnreachable::Unknown,
        });
    }
    demo.leader = Leader::new(&demo.world, &demo.setup, None);
    let shown = demo
        .plan
        .iter()
        .filter(|planned| planned.fault == Fault::DiskReadOnly)
        .map(|planned| planned.node.clone())
        .collect();
    (shown, finish(demo).0)
}

#[test]
fn what_the_exporter_refutes_or_does_not_know_is_not_repaired() {
    let mut repaired = 0;
    for seed in 1..=4 {
        let held = |summary: &Summary, reason: Reason| {
            assert_eq!(summary.invariants.violated, Vec::<String>::new());
            let held = summary.held.iter();
            held.filter(|line| line.reasons == [reason]).count()
        };
        let (shown, summary) = confirmed_by("node_filesystem_readonly", seed);
        let begun = summary.repairs.iter().map(|repair| repair.node.clone());
        assert_eq!(begun.collect::<Vec<String>>(), shown, "seed {seed}");
        repaired += shown.len();
        assert!(held(&summary, Reason::Refuted) >= 2, "{summary:?}");
        let (_, summary) = confirmed_by("another_metric", seed);
        assert!(summary.repairs.is_empty(), "{summary:?}");
        assert!(held(&summary, Reason::Unconfirmed) >= 2, "{summary:?}");
    }
    assert!(repaired > 0, "no seed has a disk that is read-only");
}

#[test]
fn the_world_answers_what_is_shipped_and_refuses_the_rest() {
    let demo = Demo::new(1, STEP, |_| Ok(()));
    let ask = |text: &str| prometheus::decode(&demo.world.query(text), prometheus::MAX_SERIES);
    for rule in demo.setup.rules.iter() {
        let present = rule.presence.as_ref().expect("shipped rules have one");
        assert_eq!(ask(&rule.expr).map(|series| series.len()), Ok(0));
        assert_eq!(ask(present).map(|series| series.len()), Ok(12));
    }
    let refused = ask("up == 0");
    assert!(matches!(refused, Err(prometheus::Error::Refused(_))));
}

#[test]
fn what_a_visitor_brings_at_the_end_is_still_told() {
    let mut told = Vec::new();
    let mut demo = Demo::new(1, STEP, |news| {
        if let Told::Event { who, what, .. } = news {
            told.push(format!("{who} {what}"));
        }
        Ok(())
    });
    while !demo.over() {
        demo.step().unwrap();
    }
    let payload = format!(
        r#"{{"version":"4","groupKey":"g","receiver":"r","alerts":[{{"status":"firing","startsAt":"{}","labels":{{"alertname":"{}","node":"{}"}}}}]}}"#,
        demo.now,
        crate::sim::HARDWARE_ALERT,
        plan::SPARE,
    );
    for payload in [payload.as_str(), "nonsense"] {
        let posted = http::deliver(&demo.webhook.router, payload.into());
        posted.now_or_never().unwrap();
    }
    let (summary, _) = finish(demo);
    let repair = summary.repairs.last().unwrap();
    assert_eq!(
        (repair.node.as_str(), repair.phase),
        (plan::SPARE, Phase::Succeeded)
    );
    for line in [
        "webhook received: stored 1 alert",
        "webhook refused: NotJson",
        "general-3 repair starts: cordoned (ReportedBroken)",
    ] {
        assert!(told.iter().any(|told| told == line), "{line}: {told:?}");
    }
}
