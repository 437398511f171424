//! When to ask: each rule on its own interval, a few at once, never one twice at once.

use std::time::Duration;

use futures_util::future::join_all;
use nodemend_core::config::Rule;
use nodemend_core::evidence::Answer;
use nodemend_core::model::digest;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Client;

/// How many rules are asked for at once.
const AT_ONCE: usize = 4;
/// No rule is asked for more often.
const SHORTEST: Duration = Duration::from_millis(10);

/// Asks for every rule at once, and again on its interval, until it is dropped.
/// `send` gets each answer and how long it took; it must not block.
pub async fn poll(client: Client, rules: Vec<Rule>, send: impl Fn(&Rule, Answer, Duration)) {
    let slots = Semaphore::new(AT_ONCE);
    let loops = rules
        .iter()
        .map(|rule| repeat(&client, rule, &slots, &send));
    join_all(loops).await;
}

async fn repeat(
    client: &Client,
    rule: &Rule,
    slots: &Semaphore,
    send: &impl Fn(&Rule, Answer, Duration),
) {
    let interval = rule.interval.signed().unsigned_abs().max(SHORTEST);
    let second = Instant::now() + jitter(&rule.name, interval);
    let mut ticks = interval_at(second, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // Nobody closes the semaphore.
    while let Ok(slot) = slots.acquire().await {
        let began = Instant::now();
        let answer = client.ask(rule).await;
        drop(slot);
        send(rule, answer, began.elapsed());
        ticks.tick().await;
    }
}

/// Where in the interval a rule is asked for: always the same for one name, so that
/// rules, and restarts of ours, do not all ask in the same moment.
fn jitter(name: &str, interval: Duration) -> Duration {
    let share = u32::from_str_radix(&digest(&[name], 8), 16).unwrap_or_default();
    interval.mul_f64(f64::from(share) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodemend_core::config::Connection;
    use nodemend_core::model::Span;
    use nodemend_lab::{Double, Reply};
    use std::collections::BTreeMap;
    use tokio::sync::mpsc;

    fn rules(count: usize, interval: &str) -> Vec<Rule> {
        let rule = |number| Rule {
            name: format!("R{number}"),
            expr: "up == 0".into(),
            for_: Span::default(),
            keep_firing_for: Span::default(),
            presence: None,
            interval: interval.parse().unwrap(),
            labels: BTreeMap::new(),
        };
        (0..count).map(rule).collect()
    }

    fn client(double: &Double, timeout: &str) -> Client {
        let connection = Connection {
            urls: vec![double.url.clone()],
            timeout: timeout.parse().unwrap(),
            ..Connection::default()
        };
        Client::new(&connection, None).unwrap()
    }

    #[test]
    fn jitter_is_stable_and_spread_over_the_interval() {
        let minute = Duration::from_mins(1);
        let mut quarters = [0; 4];
        for number in 0..100 {
            let name = format!("R{number}");
            let found = jitter(&name, minute);
            assert_eq!(found, jitter(&name, minute));
            quarters[usize::try_from(found.as_millis()).unwrap() * 4 / 60_001] += 1;
        }
        assert!(quarters.iter().all(|count| *count > 10), "{quarters:?}");
    }

    #[tokio::test]
    async fn each_rule_is_asked_for_again_and_again_until_dropped() {
        let double = Double::start(|_| Reply::Answer(503, String::new()))
            .await
            .unwrap();
        let (send, mut answers) = mpsc::unbounded_channel();
        let polling = tokio::spawn(poll(
            client(&double, "20s"),
            rules(6, "20ms"),
            move |rule, answer, _| send.send((rule.name.clone(), answer)).unwrap(),
        ));
        let mut counts = BTreeMap::<String, usize>::new();
        while counts.len() < 6 || counts.values().any(|count| *count < 3) {
            let (name, answer) = answers.recv().await.unwrap();
            assert!(matches!(answer, Answer::Failed(_)));
            *counts.entry(name).or_default() += 1;
        }
        polling.abort();
        // What is left arrives, and then the sender is gone.
        while answers.recv().await.is_some() {}
    }

    #[tokio::test]
    async fn only_so_many_are_asked_for_at_once_and_the_first_at_once() {
        let double = Double::start(|_| Reply::Hang).await.unwrap();
        let (tell, mut answers) = mpsc::unbounded_channel();
        let asked = || double.sent().len();
        // An interval of an hour: all of these are first polls.
        let polling = poll(client(&double, "300ms"), rules(6, "1h"), |_, _, took| {
            tell.send((asked(), took)).unwrap();
        });
        let reading = async {
            for number in 0..6 {
                let (asked, took) = answers.recv().await.unwrap();
                assert!(
                    asked <= AT_ONCE + number,
                    "{asked} asked for after {number} answers"
                );
                assert!(took >= Duration::from_millis(300), "{took:?}");
            }
        };
        tokio::select! {
            () = polling => panic!("it ended"),
            () = reading => {}
        }
    }
}
