//! What Prometheus says: rules are asked on their intervals, over several servers,
//! and whatever is not a plain, complete answer is an error, never a zero.

mod client;
mod decode;
mod poll;
mod probe;
mod waiting;

use std::collections::BTreeSet;

use nodemend_core::evidence::identity::{Labels, is_identity_label};
use nodemend_core::evidence::{Answer, MAX_STALENESS};

use crate::fetch;

pub use client::Client;
pub use decode::{Sample, decode};
pub use poll::poll;
pub use probe::{Prober, samples};
pub use waiting::Waiting;

/// More series than this in one answer are a mistake in the rule, in a small fleet.
pub const MAX_SERIES: usize = 10_000;
/// And this many for each node in a large one: each may have some disks.
const SERIES_PER_NODE: usize = 20;

/// Why an answer cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It cannot be asked, or there is no whole answer.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// A status other than 200, and what Prometheus said to it.
    #[error("HTTP status {0}: {1}")]
    Status(u16, String),
    /// It is not what Prometheus answers.
    #[error("not an answer of Prometheus: {0}")]
    Shape(String),
    /// Prometheus refused the query.
    #[error("Prometheus refused: {0}")]
    Refused(String),
    /// Prometheus says that the answer may be incomplete.
    #[error("answer with warnings: {0}")]
    Warnings(String),
    /// A scalar, a matrix, a string, a histogram.
    #[error("an instant vector was asked for, the answer is a {0}")]
    Type(String),
    /// Not a finite number.
    #[error("a sample is {0}")]
    Value(String),
    /// More series than any fleet has.
    #[error("{0} series, more than {1}")]
    TooMany(usize, usize),
}

/// What the series of a rule's expression and those of the `timestamp()` of its
/// presence selector, if it has one, say together.
pub fn answer(
    firing: Result<Vec<Sample>, Error>,
    presence: Option<Result<Vec<Sample>, Error>>,
) -> Answer {
    match (firing, presence.transpose()) {
        (Ok(firing), Ok(presence)) => Answer::Series {
            firing: labels(firing),
            present: presence.map(|samples| nodes(samples.into_iter().filter(fresh))),
        },
        (Err(error), _) | (_, Err(error)) => Answer::Failed(error.to_string()),
    }
}

fn labels(samples: impl IntoIterator<Item = Sample>) -> Vec<Labels> {
    samples.into_iter().map(|sample| sample.labels).collect()
}

/// Of a series of presence it only counts which node it is about, and each node once.
fn nodes(samples: impl Iterator<Item = Sample>) -> Vec<Labels> {
    let identity = samples.map(|mut sample| {
        sample.labels.retain(|name, _| is_identity_label(name));
        sample.labels
    });
    let distinct: BTreeSet<Labels> = identity.collect();
    distinct.into_iter().collect()
}

/// Both times are the server's, so that our clock does not matter.
fn fresh(sample: &Sample) -> bool {
    (sample.at - sample.value).abs() <= MAX_STALENESS.signed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(node: &str, at: f64, value: f64) -> Sample {
        Sample {
            labels: [("node".to_owned(), node.to_owned())].into(),
            at,
            value,
        }
    }

    #[test]
    fn h16_only_series_with_fresh_samples_are_present() {
        for (scraped, expect) in [
            (1000.0, true),
            (880.0, true),
            (879.0, false),
            (1120.0, true),
            (1121.0, false),
            (1.0, false),
        ] {
            let found = answer(Ok(vec![]), Some(Ok(vec![sample("a", 1000.0, scraped)])));
            let present = labels(expect.then(|| sample("a", 0.0, 0.0)));
            let expect = Answer::Series {
                firing: vec![],
                present: Some(present),
            };
            assert_eq!(found, expect, "scraped at {scraped}");
        }
    }

    #[test]
    fn presence_is_kept_once_for_each_node_and_firing_series_whole() {
        let disk = |name: &str| {
            let mut sample = sample("a", 1000.0, 1000.0);
            sample.labels.insert("device".into(), name.into());
            sample
        };
        let disks = || Ok(vec![disk("x"), disk("y")]);
        let expect = Answer::Series {
            firing: labels(disks().unwrap()),
            present: Some(labels([sample("a", 0.0, 0.0)])),
        };
        assert_eq!(answer(disks(), Some(disks())), expect);
    }

    #[test]
    fn h14_a_series_fires_whatever_its_value_and_one_failure_fails_both() {
        let firing = || Ok(vec![sample("a", 1000.0, 0.0)]);
        let expect = Answer::Series {
            firing: labels(firing().unwrap()),
            present: None,
        };
        assert_eq!(answer(firing(), None), expect);
        let failed = || Err(Error::Refused("bad".into()));
        let expect = Answer::Failed("Prometheus refused: bad".into());
        assert_eq!(answer(failed(), Some(firing())), expect);
        assert_eq!(answer(firing(), Some(failed())), expect);
    }
}
