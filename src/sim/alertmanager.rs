//! The simulated Alertmanager: it groups what the hardware monitor reports, and says
//! which payload it posts when, by the intervals of the shipped receiver.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nodemend_core::model::{Span, digest};
use serde_json::{Value, json};

use super::{Fault, World};

/// The alert of the hardware monitor; no polled rule has its name.
pub const HARDWARE_ALERT: &str = "NodeHardwareFailure";

const GROUP_WAIT: Span = Span::seconds(30);
const GROUP_INTERVAL: Span = Span::minutes(1);
const REPEAT_INTERVAL: Span = Span::minutes(5);

/// The one group of this world, by node.
#[derive(Debug, Default)]
pub(super) struct Alertmanager {
    alerts: BTreeMap<String, Alert>,
    sent: Option<Timestamp>,
}

#[derive(Debug)]
struct Alert {
    starts: Timestamp,
    ends: Option<Timestamp>,
    /// Whether the receiver heard how it stands.
    told: bool,
}

impl World {
    /// The payload that Alertmanager posts now, if one is due.
    pub fn notification(&self) -> Option<Vec<u8>> {
        let state = &mut *self.0.borrow_mut();
        let broken: BTreeSet<String> = state
            .nodes
            .keys()
            .filter(|name| state.has(name, Fault::Hardware))
            .cloned()
            .collect();
        let now = state.now;
        state.alertmanager.take(&broken, now);
        state.alertmanager.notify(now)
    }
}

impl Alertmanager {
    fn take(&mut self, broken: &BTreeSet<String>, now: Timestamp) {
        for name in broken {
            self.alerts.entry(name.clone()).or_insert(Alert {
                starts: now,
                ends: None,
                told: false,
            });
        }
        for (name, alert) in &mut self.alerts {
            if alert.ends.is_none() && !broken.contains(name) {
                alert.ends = Some(now);
                alert.told = false;
            }
        }
    }

    fn notify(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        let first = self.alerts.values().map(|alert| alert.starts).min()?;
        let news = self.alerts.values().any(|alert| !alert.told);
        let due = match self.sent {
            None => GROUP_WAIT.after(first),
            Some(sent) if news => GROUP_INTERVAL.after(sent),
            Some(sent) => REPEAT_INTERVAL.after(sent),
        };
        if now < due {
            return None;
        }
        let body = self.payload().to_string().into_bytes();
        self.alerts.retain(|_, alert| alert.ends.is_none());
        for alert in self.alerts.values_mut() {
            alert.told = true;
        }
        // A group without alerts is forgotten, and the next one waits anew.
        self.sent = (!self.alerts.is_empty()).then_some(now);
        Some(body)
    }

    fn payload(&self) -> Value {
        let firing = self.alerts.values().any(|alert| alert.ends.is_none());
        let alerts: Vec<Value> = self
            .alerts
            .iter()
            .map(|(node, alert)| alert.payload(node))
            .collect();
        json!({
            "version": "4",
            "groupKey": format!("{{}}:{{alertname=\"{HARDWARE_ALERT}\"}}"),
            "truncatedAlerts": 0,
            "status": status(firing),
            "receiver": "nodemend",
            "groupLabels": {"alertname": HARDWARE_ALERT},
            "commonLabels": {"alertname": HARDWARE_ALERT, "severity": "critical"},
            "commonAnnotations": {},
            "externalURL": "http://alertmanager.sim:9093",
            "alerts": alerts,
        })
    }
}

impl Alert {
    fn payload(&self, node: &str) -> Value {
        json!({
            "status": status(self.ends.is_none()),
            "labels": {"alertname": HARDWARE_ALERT, "node": node, "severity": "critical"},
            "annotations": {"summary": "The hardware monitor reports uncorrectable errors."},
            "startsAt": self.starts,
            "endsAt": self.ends.map_or("0001-01-01T00:00:00Z".to_owned(), |end| end.to_string()),
            "generatorURL": "",
            "fingerprint": digest(&[HARDWARE_ALERT, node], 16),
        })
    }
}

fn status(firing: bool) -> &'static str {
    if firing { "firing" } else { "resolved" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which alerts are posted when, in seconds since the start, as `node+` or `node-`.
    fn posts(broken: impl Fn(i64) -> &'static [&'static str]) -> Vec<(i64, String)> {
        let mut alertmanager = Alertmanager::default();
        let mut posts = Vec::new();
        for second in (0..=900).step_by(10) {
            let now = Timestamp::from_second(second).unwrap();
            let broken = broken(second).iter().map(ToString::to_string).collect();
            alertmanager.take(&broken, now);
            let Some(body) = alertmanager.notify(now) else {
                continue;
            };
            let body: Value = serde_json::from_slice(&body).unwrap();
            let alerts: Vec<String> = body["alerts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|alert| {
                    let sign = if alert["status"] == "firing" {
                        "+"
                    } else {
                        "-"
                    };
                    format!("{}{sign}", alert["labels"]["node"].as_str().unwrap())
                })
                .collect();
            posts.push((second, alerts.join(" ")));
        }
        posts
    }

    #[test]
    fn news_wait_for_the_group_and_the_rest_is_repeated() {
        let posts = posts(|second| match second {
            0..100 => &["a"],
            100..500 => &["a", "b"],
            500..600 => &["b"],
            _ => &[],
        });
        let posts: Vec<(i64, &str)> = posts
            .iter()
            .map(|(second, alerts)| (*second, alerts.as_str()))
            .collect();
        assert_eq!(
            posts,
            [
                (30, "a+"),
                (100, "a+ b+"),
                (400, "a+ b+"),
                (500, "a- b+"),
                (600, "b-")
            ]
        );
    }
}
