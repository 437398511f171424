//! The second opinion before a repair: what the node's own exporter says of one metric.
//! It lasts a minute, so that each repair starts on a fresh one.

use jiff::Timestamp;

use super::Evidence;
use crate::api::OnUnreachable;
use crate::config::Confirm;
use crate::model::Span;

/// An opinion older than this says nothing.
pub const MAX_AGE: Span = Span::seconds(60);

/// What came of asking a node's exporter.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// The metric's samples, of a text that was read whole.
    Samples(Vec<f64>),
    /// Nothing answered, and why.
    Unreachable(String),
    /// What answered cannot be used, or nothing may be asked, and why.
    Unusable(String),
}

/// What a reading says of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// The fault is real.
    Confirmed,
    /// It is not.
    Refuted,
    /// Nothing.
    Unknown,
}

impl Opinion {
    /// Refuted only by samples that are all there, all numbers, and none above.
    pub fn of(reading: &Reading, confirm: &Confirm) -> Self {
        match reading {
            Reading::Samples(values) if values.iter().any(|value| *value > confirm.above) => {
                Self::Confirmed
            }
            Reading::Samples(values)
                if values.is_empty() || values.iter().any(|value| value.is_nan()) =>
            {
                Self::Unknown
            }
            Reading::Samples(_) => Self::Refuted,
            Reading::Unreachable(_) => match confirm.on_unreachable {
                OnUnreachable::Confirm => Self::Confirmed,
                OnUnreachable::Refute => Self::Refuted,
                OnUnreachable::Unknown => Self::Unknown,
            },
            Reading::Unusable(_) => Self::Unknown,
        }
    }
}

/// The opinion on one node, and the question.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Probed {
    uid: String,
    confirm: Confirm,
    opinion: Opinion,
    at: Timestamp,
}

impl Evidence {
    pub(super) fn fold_probe(
        &mut self,
        uid: String,
        confirm: Confirm,
        reading: &Reading,
        now: Timestamp,
    ) {
        self.probed.retain(|probed| {
            fresh(probed.at, now) && (&probed.uid, &probed.confirm) != (&uid, &confirm)
        });
        let opinion = Opinion::of(reading, &confirm);
        self.probed.push(Probed {
            uid,
            confirm,
            opinion,
            at: now,
        });
    }

    /// What the node of this UID said to this question lately, if it was asked.
    pub fn opinion(&self, uid: &str, confirm: &Confirm, now: Timestamp) -> Option<Opinion> {
        self.probed
            .iter()
            .find(|probed| probed.uid == uid && probed.confirm == *confirm)
            .filter(|probed| fresh(probed.at, now))
            .map(|probed| probed.opinion)
    }
}

/// A time to come is of a clock that went back.
fn fresh(at: Timestamp, now: Timestamp) -> bool {
    at <= now && now <= MAX_AGE.after(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Input;

    fn confirm(on_unreachable: OnUnreachable) -> Confirm {
        Confirm {
            port: 9100,
            path: "/metrics".into(),
            metric: "m".into(),
            above: 0.0,
            on_unreachable,
        }
    }

    #[test]
    fn h87_only_whole_readings_refute() {
        let samples = |values: &[f64]| Reading::Samples(values.to_vec());
        for (reading, expect) in [
            (samples(&[0.0, 1.0]), Opinion::Confirmed),
            (samples(&[f64::NAN, 1.0]), Opinion::Confirmed),
            (samples(&[f64::INFINITY]), Opinion::Confirmed),
            (samples(&[0.0, -1.0]), Opinion::Refuted),
            (samples(&[0.0, f64::NAN]), Opinion::Unknown),
            (samples(&[]), Opinion::Unknown),
            (Reading::Unusable("bent".into()), Opinion::Unknown),
        ] {
            for on_unreachable in [OnUnreachable::Confirm, OnUnreachable::Refute] {
                let found = Opinion::of(&reading, &confirm(on_unreachable));
                assert_eq!(found, expect, "{reading:?}");
            }
        }
        for (on_unreachable, expect) in [
            (OnUnreachable::Confirm, Opinion::Confirmed),
            (OnUnreachable::Refute, Opinion::Refuted),
            (OnUnreachable::Unknown, Opinion::Unknown),
        ] {
            let reading = Reading::Unreachable("refused".into());
            assert_eq!(Opinion::of(&reading, &confirm(on_unreachable)), expect);
        }
    }

    #[test]
    fn an_opinion_is_of_one_node_and_question_and_lasts_a_minute() {
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).expect("in range");
        let asked = confirm(OnUnreachable::Unknown);
        let mut evidence = Evidence::default();
        let says = |value: f64| Input::Probe {
            uid: "u".into(),
            confirm: asked.clone(),
            reading: Reading::Samples(vec![value]),
        };
        evidence.fold(says(0.0), at(0));
        evidence.fold(says(1.0), at(5));
        let opinion = |uid: &str, confirm: &Confirm, now| evidence.opinion(uid, confirm, at(now));
        assert_eq!(opinion("u", &asked, 65), Some(Opinion::Confirmed));
        assert_eq!(opinion("u", &asked, 66), None);
        assert_eq!(opinion("u", &asked, 4), None, "the clock went back");
        assert_eq!(opinion("v", &asked, 5), None);
        let other = Confirm {
            above: 1.0,
            ..asked.clone()
        };
        assert_eq!(opinion("u", &other, 5), None);
    }
}
