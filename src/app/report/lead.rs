//! Who leads, and since when nobody does.

use std::fmt;

use jiff::Timestamp;
use nodemend_core::model::Span;
use serde::Serialize;

use super::since;

/// How far the holder's clock may be from ours: the election itself compares none.
const CLOCK_SKEW: Span = Span::seconds(30);

/// What the Lease says of who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lead {
    /// It could not be read.
    #[default]
    Unknown,
    /// There is none in this namespace.
    NoLease(String),
    /// As it reads.
    Lease {
        /// The replica; empty if it was given back.
        holder: String,
        /// When it was last renewed.
        renewed: Option<Timestamp>,
        /// How long that holds.
        duration: Span,
    },
}

/// Who leads, or led last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leader {
    /// The replica.
    pub holder: String,
    /// When it last renewed its Lease.
    pub renewed: Option<Timestamp>,
}

/// That nobody leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NoLeader {
    /// Since when, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Where there is no Lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip)]
    now: Timestamp,
}

impl Lead {
    /// Who holds the Lease, be it in time or not.
    pub(super) fn leader(&self) -> Option<Leader> {
        match self {
            Self::Lease {
                holder, renewed, ..
            } if !holder.is_empty() => Some(Leader {
                holder: holder.clone(),
                renewed: *renewed,
            }),
            _ => None,
        }
    }

    /// That nobody leads; none if somebody does, or it is not known.
    pub(super) fn nobody(&self, now: Timestamp) -> Option<NoLeader> {
        let (since, namespace) = match self {
            Self::Unknown => return None,
            Self::NoLease(namespace) => (None, Some(namespace.clone())),
            Self::Lease {
                holder,
                renewed,
                duration,
            } => {
                let over = |at: &Timestamp| CLOCK_SKEW.after(duration.after(*at)) < now;
                if !holder.is_empty() && !renewed.as_ref().is_some_and(over) {
                    return None;
                }
                (*renewed, None)
            }
        };
        Some(NoLeader {
            since,
            namespace,
            now,
        })
    }
}

impl fmt::Display for NoLeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.since, &self.namespace) {
            (Some(at), _) => write!(
                f,
                "no leader since {}: nothing is decided or repaired, what follows is as of then",
                since(at, self.now)
            ),
            (None, Some(namespace)) => write!(
                f,
                "no leader: namespace {namespace} has no Lease of nodemend (--namespace says where \
                 it runs); then nothing is decided or repaired"
            ),
            (None, None) => f.write_str("no leader: nothing is decided or repaired"),
        }
    }
}
