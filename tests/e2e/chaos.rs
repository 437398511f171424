//! Two Alertmanagers deliver to two replicas of which one or the other is dead half of
//! the time. In the end nodemend knows what Alertmanager knows, and nothing is undecided.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, ListParams};
use nodemend_core::api::{AlertGroup, NodeHealth};
use nodemend_core::evidence::last_word;
use nodemend_core::evidence::silence::WATCHDOG;
use nodemend_core::model::{Reason, SignalState, VerdictKind};
use nodemend_lab::{Alertmanager, Forwarded};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::lab;
use super::site::{NO_RULES, Setup, Site};

const NODES: usize = 100;
/// Each is of half of the nodes: an alert of more of them would be suspended.
const NAMES: usize = 40;
/// In one turn each name has its round. All turns together take two minutes.
const TURNS: usize = 8;
const TURN: Duration = Duration::from_secs(15);
/// How long an alert fires that is not posted again: longer than a turn, shorter than two,
/// and not near a delivery that says it fires.
const EXPIRES: SignedDuration = SignedDuration::from_secs(24);
/// How long until the word of all members counts for what does not fire: they run for five
/// minutes, of which the turns take two, then they are asked within one.
const SETTLED: Duration = Duration::from_mins(6);
/// The alerts that Prometheus posts at once.
const BATCH: usize = 64;

/// Which node, and which name.
type Alert = (String, String);

/// What an alert does in a turn; it goes through all of it, and each begins elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Move {
    Fire,
    GoOn,
    Resolve,
    /// It fires again and says that it started when it did before.
    FireAgain,
    /// It is not posted any more, and not resolved.
    Expire,
    Rest,
}

impl Move {
    fn of(node: usize, name: usize, turn: usize) -> Self {
        match (node + name + turn) % 8 {
            0 => Self::Fire,
            1 => Self::GoOn,
            2 => Self::Resolve,
            3 => Self::FireAgain,
            4 => Self::Expire,
            _ => Self::Rest,
        }
    }

    fn fires(self) -> bool {
        matches!(self, Self::Fire | Self::GoOn | Self::FireAgain)
    }
}

#[test]
fn replicas_that_die_neither_lose_nor_invent_alerts() {
    lab(async {
        let mut site = Site::start(&Setup {
            policy: &policy(),
            polled: NO_RULES,
            alerting: NO_RULES,
            nodes: NODES,
            doubled: true,
            // A leader that once misses it doubts for a quarter of an hour what ends.
            alerts: &[watchdog()],
            ..Setup::default()
        })
        .await?;
        // Nobody asks it here, and a hundred nodes are much to scrape.
        site.lab.stop("prometheus")?;
        let alertmanagers = site.lab.alertmanagers().to_vec();
        let over = AtomicBool::new(false);
        let load = async {
            let posted = turns(&alertmanagers).await;
            over.store(true, Ordering::Relaxed);
            posted
        };
        let (posted, killed) = tokio::try_join!(load, kill(&mut site, &over))?;
        let firing: BTreeSet<Alert> = every_alert()
            .filter(|(node, name)| Move::of(*node, *name, TURNS - 1).fires())
            .map(named)
            .collect();
        site.wait_for("both Alertmanagers to list what fires", || async {
            for member in &alertmanagers {
                same(&firing, &listed(member).await?)?;
            }
            Ok(Some(()))
        })
        .await?;
        let undecided = site
            .wait_for("nodemend to know the same", || async {
                let undecided = on_record(&site, &firing).await?;
                verdicts(&site, &firing).await?;
                Ok(Some(undecided))
            })
            .await?;
        // A record says when an alert was last heard of. Where that leaves open how it ended,
        // those who are asked know.
        let decided = || async {
            post(&alertmanagers, &[watchdog()]).await?;
            all_known(&site).await?;
            verdicts(&site, &firing).await?;
            Ok(Some(()))
        };
        let lab = &site.lab;
        lab.wait_for("nothing to be undecided", SETTLED, decided)
            .await?;
        ensure!(
            site.repairs().await?.is_empty(),
            "nothing is to be repaired"
        );

        let (mut tries, mut failed) = (0.0, 0.0);
        for member in &alertmanagers {
            let requests = "alertmanager_notification_requests";
            tries += member.metric(&format!("{requests}_total")).await?;
            failed += member.metric(&format!("{requests}_failed_total")).await?;
        }
        let Forwarded {
            answered,
            refused,
            broken,
        } = site.forwarded()?;
        println!(
            "{} alerts, {posted} posts; {tries} deliveries tried, {failed} failed; \
             {answered} connections answered, {refused} refused, {broken} broken off; \
             {} kills, {} of the leader; {} alerts fire, of {undecided} only Alertmanager \
             could say that they ended",
            every_alert().count(),
            killed.replicas,
            killed.leaders,
            firing.len(),
        );
        ensure!(killed.leaders > 0 && killed.replicas > 10, "too calm");
        ensure!(refused >= killed.replicas, "too few deliveries were lost");
        Ok(())
    });
}

fn policy() -> String {
    let mut text = "apiVersion: nodemend.dev/v1alpha1\nkind: RepairPolicy\n\
                    metadata: {name: observed}\nspec:\n  nodeSelector: {}\n  faults:\n"
        .to_owned();
    // A policy has 32 faults at most.
    for name in (0..NAMES).step_by(2) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  - {{name: Fault{name}, when: {{any: [{{signal: Alert{name}}}, {{signal: Alert{}}}]}}, for: 1s, actions: [Replace]}}",
            name + 1
        );
    }
    text
}

fn every_alert() -> impl Iterator<Item = (usize, usize)> {
    (0..NAMES).flat_map(|name| (0..NODES).map(move |node| (node, name)).filter(is_one))
}

/// Whether there is an alert of this name about this node.
fn is_one((node, name): &(usize, usize)) -> bool {
    (node + name).is_multiple_of(2)
}

fn named((node, name): (usize, usize)) -> Alert {
    (format!("node-{node}"), format!("Alert{name}"))
}

/// Posts as Prometheus does, to all members, name after name; how often in all.
async fn turns(alertmanagers: &[Alertmanager]) -> Result<usize> {
    let mut posted = 0;
    let mut started: BTreeMap<(usize, usize), Timestamp> = BTreeMap::new();
    let mut rounds = interval(TURN / u32::try_from(NAMES)?);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0..TURNS {
        post(alertmanagers, &[watchdog()]).await?;
        for name in 0..NAMES {
            rounds.tick().await;
            let now = now();
            let mut alerts = Vec::new();
            for node in (0..NODES).filter(|node| is_one(&(*node, name))) {
                let this = Move::of(node, name, turn);
                let started = started.entry((node, name)).or_insert(now);
                if this == Move::Fire {
                    *started = now;
                }
                let ends = match this {
                    Move::Expire | Move::Rest => continue,
                    Move::Resolve => now,
                    // It has to fire until all is compared.
                    _ if turn == TURNS - 1 => now + EXPIRES * 30,
                    _ => now + EXPIRES,
                };
                alerts.push(alert((node, name), *started, ends));
            }
            for batch in alerts.chunks(BATCH) {
                post(alertmanagers, batch).await?;
            }
            posted += alerts.len();
        }
    }
    Ok(posted)
}

async fn post(alertmanagers: &[Alertmanager], alerts: &[Value]) -> Result<()> {
    for member in alertmanagers {
        member.post_alerts(alerts).await?;
    }
    Ok(())
}

/// Says that Prometheus lives, without which no end of an alert counts.
fn watchdog() -> Value {
    json!({
        "labels": {"alertname": WATCHDOG, "severity": "none"},
        "startsAt": now(),
        "endsAt": now() + EXPIRES * 30,
    })
}

fn alert(this: (usize, usize), starts: Timestamp, ends: Timestamp) -> Value {
    let (node, name) = named(this);
    json!({
        "labels": {"alertname": name, "node": node, "severity": "warning"},
        "startsAt": starts,
        "endsAt": ends,
    })
}

struct Killed {
    replicas: usize,
    leaders: usize,
}

/// Kills one replica again and again; once the other leads, that one. Each time it is
/// back only after deliveries were lost, and the other lives meanwhile.
async fn kill(site: &mut Site, over: &AtomicBool) -> Result<Killed> {
    let mut victim = 0;
    let mut killed = Killed {
        replicas: 0,
        leaders: 0,
    };
    while !over.load(Ordering::Relaxed) {
        killed.leaders += usize::from(site.leads(victim).await?);
        killed.replicas += 1;
        let before = site.forwarded()?.refused;
        site.kill_replica(victim)?;
        site.wait_for("deliveries to be lost", || async {
            Ok((site.forwarded()?.refused > before).then_some(()))
        })
        .await?;
        site.spawn(victim)?;
        site.receiving(victim).await?;
        let other = 1 - victim;
        if site.leads(other).await? {
            victim = other;
        }
    }
    Ok(killed)
}

async fn listed(member: &Alertmanager) -> Result<BTreeSet<Alert>> {
    let mut found = BTreeSet::new();
    for alert in member.alerts().await? {
        let label = |name: &str| alert.labels.get(name).cloned();
        if label("alertname").as_deref() == Some(WATCHDOG) {
            continue;
        }
        let about = label("node").zip(label("alertname"));
        found.insert(about.context("an alert of somebody else")?);
    }
    Ok(found)
}

/// Every alert is on record once, and fires by its last word if and only if it is
/// expected to; of how many others the last word is not known.
async fn on_record(site: &Site, firing: &BTreeSet<Alert>) -> Result<usize> {
    let groups = Api::<AlertGroup>::all(site.lab.admin());
    let groups = groups.list(&ListParams::default()).await?.items;
    let (mut all, mut found, mut undecided) = (BTreeSet::new(), BTreeSet::new(), 0);
    let alerts = groups.iter().flat_map(|group| &group.spec.alerts);
    for (fingerprint, alert) in alerts.filter(|(_, alert)| alert.name != WATCHDOG) {
        let node = alert.labels.get("node").context("an alert without node")?;
        let about = (node.clone(), alert.name.clone());
        ensure!(all.insert(about.clone()), "{fingerprint} is there twice");
        match last_word(alert) {
            SignalState::Firing => drop(found.insert(about)),
            SignalState::Clear => {}
            SignalState::Unknown => undecided += 1,
        }
    }
    same(&every_alert().map(named).collect(), &all).context("on record")?;
    same(firing, &found).context("on record as firing")?;
    Ok(undecided)
}

/// The leader says of every node what fires, and holds those, and no others.
async fn verdicts(site: &Site, firing: &BTreeSet<Alert>) -> Result<()> {
    let healths = Api::<NodeHealth>::all(site.lab.admin());
    let mut found = BTreeSet::new();
    for health in healths.list(&ListParams::default()).await? {
        let node = health.spec.node_name;
        let status = health.status.context("no status")?;
        let fires = |state| state == SignalState::Firing;
        let signals = status.signals.iter();
        let signals: Vec<&str> = signals
            .filter(|signal| fires(signal.state))
            .map(|signal| signal.name.as_str())
            .collect();
        let right = if signals.is_empty() {
            [VerdictKind::Healthy, VerdictKind::Unknown].contains(&status.verdict)
        } else {
            status.verdict == VerdictKind::Held && status.reasons.contains(&Reason::ObserveMode)
        };
        ensure!(
            right,
            "{node} is {:?} by {:?}: {signals:?}",
            status.verdict,
            status.reasons
        );
        found.extend(signals.iter().map(|&name| (node.clone(), name.to_owned())));
    }
    same(firing, &found).context("in verdicts")
}

/// The leader knows of every node whether each signal fires.
async fn all_known(site: &Site) -> Result<()> {
    let healths = Api::<NodeHealth>::all(site.lab.admin());
    for health in healths.list(&ListParams::default()).await? {
        let node = health.spec.node_name;
        let status = health.status.context("no status")?;
        let unknown = |state| state == SignalState::Unknown;
        let signals = status.signals.iter();
        let open = signals.filter(|signal| unknown(signal.state)).count();
        let verdict = status.verdict;
        ensure!(
            open == 0 && verdict != VerdictKind::Unknown,
            "{node} is {verdict:?}, {open} of its signals are unknown"
        );
    }
    Ok(())
}

fn same(expected: &BTreeSet<Alert>, found: &BTreeSet<Alert>) -> Result<()> {
    let differ = |one: &BTreeSet<Alert>, other: &BTreeSet<Alert>| {
        let few: Vec<&Alert> = one.difference(other).take(5).collect();
        format!("{}, as {few:?}", one.difference(other).count())
    };
    ensure!(
        expected == found,
        "lost: {}; invented: {}",
        differ(expected, found),
        differ(found, expected)
    );
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "Alertmanager lives by this clock"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
