//! A repair that a person asks for, by an annotation of the node. It passes every guard but
//! a fault's `for`; some of them it may tell to be ignored.

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::{World, was_deleted};
use crate::api::{NodeRepair, RepairRequest};
use crate::model::{NodeView, REQUEST_ANNOTATION, Reason, Span};

/// The longest time that a request holds.
pub const REQUESTED_FOR: Span = Span::minutes(24 * 60);
/// How far the clock of who asks, or approves, may be ahead of ours.
const AHEAD: Span = Span::minutes(5);
/// The longest text of a request, or an approval, in bytes.
const MAX_TEXT: usize = 2048;
/// The longest name, in characters.
pub const MAX_BY: usize = 256;
/// The longest reason, in characters.
pub const MAX_REASON: usize = 1024;

/// Why a request, or an approval, does not count.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Too long.
    #[error("it is longer than {MAX_TEXT} bytes")]
    TooLong,
    /// Not what `nodemend repair` or `nodemend approve` writes.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// For another node object.
    #[error("it is for another node object")]
    OtherNode,
    /// Its times make no sense.
    #[error("it holds for longer than a day, or is from a time to come")]
    Times,
    /// What earlier versions wrote: it does not say what is approved.
    #[error("it is a time alone, which does not say what is approved: `nodemend approve` it again")]
    TimeAlone,
    /// Of a policy or fault that there cannot be.
    #[error("its policy or its fault is longer than such a name may be")]
    Names,
    /// Without who.
    #[error("it does not say who approves, in {MAX_BY} characters")]
    Anonymous,
    /// Without who or why.
    #[error("it does not say who asks and why, in {MAX_BY} and {MAX_REASON} characters")]
    Unsigned,
    /// Tells a guard to be ignored that cannot be.
    #[error("{0} cannot be overridden")]
    NotOverridable(Reason),
}

/// Whether a person may tell a guard to be ignored, for one repair. What keeps the pace and
/// what waits for a better time, yes; not what other people said, nor what makes sure that
/// the right machine is ended, and by one repairer.
pub const fn overridable(reason: Reason) -> bool {
    match reason {
        Reason::Budget
        | Reason::RateLimit
        | Reason::InFlight
        | Reason::OutsideWindow
        | Reason::ClusterBreaker
        | Reason::ZoneBreaker
        | Reason::PoolBreaker
        | Reason::PoolBackoff
        | Reason::PoolStopped
        | Reason::TooYoung
        // Who cordons a node by hand often wants it replaced; what was found is kept.
        | Reason::CordonedByOther
        | Reason::SilencesUnknown
        // A person took the last one away, or was asked for; a person asks for this one.
        | Reason::RepairDeleted
        | Reason::NeedsHuman => true,
        Reason::Paused
        | Reason::ObserveMode
        | Reason::OptedOut
        | Reason::Silenced
        | Reason::PolicyConflict
        | Reason::PolicyRefused
        | Reason::AwaitingApproval
        | Reason::EvidenceUnknown
        | Reason::Contradicted
        | Reason::Unconfirmed
        | Reason::Refuted
        | Reason::RuleSuspended
        | Reason::NodesStale
        | Reason::NodeDeleting
        | Reason::OtherActor
        | Reason::NoOwner
        | Reason::NotOurInstance
        | Reason::OwnedByOther
        | Reason::CloudUnavailable => false,
    }
}

/// What the node's annotation asks for, if it has one: be it over by now.
pub fn read(node: &NodeView, now: Timestamp) -> Option<Result<RepairRequest, Unusable>> {
    let text = node.annotations.get(REQUEST_ANNOTATION)?;
    Some(parse(text, &node.uid, now))
}

/// Reads what a person wrote into an annotation.
pub(super) fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Unusable> {
    if text.len() > MAX_TEXT {
        return Err(Unusable::TooLong);
    }
    serde_json::from_str(text).map_err(|error| Unusable::Unreadable(error.to_string()))
}

/// What was written at `at` may hold for no longer than `longest`.
pub(super) fn check_times(
    at: Timestamp,
    until: Timestamp,
    longest: Span,
    now: Timestamp,
) -> Result<(), Unusable> {
    if at > AHEAD.after(now) || until > longest.after(at) {
        return Err(Unusable::Times);
    }
    Ok(())
}

/// Whether what was written at `at` made a repair of the node, be it that a person deleted
/// its record. `made` says when what made a repair was written.
pub(super) fn is_used(
    at: Timestamp,
    made: impl Fn(&NodeRepair) -> Option<Timestamp>,
    node: &NodeView,
    world: &World<'_>,
) -> bool {
    let mut repairs = world.repairs.iter();
    repairs.any(|repair| repair.spec.node_uid == node.uid && made(repair) == Some(at))
        || was_deleted(world, &node.uid, |start| start >= at)
}

fn parse(text: &str, uid: &str, now: Timestamp) -> Result<RepairRequest, Unusable> {
    let mut request: RepairRequest = decode(text)?;
    let within = |text: &str, most: usize| !text.is_empty() && text.chars().count() <= most;
    if request.uid != uid {
        return Err(Unusable::OtherNode);
    }
    check_times(request.at, request.until, REQUESTED_FOR, now)?;
    if !within(&request.by, MAX_BY) || !within(&request.reason, MAX_REASON) {
        return Err(Unusable::Unsigned);
    }
    request.overrides.sort();
    request.overrides.dedup();
    let mut overrides = request.overrides.iter();
    match overrides.find(|reason| !overridable(**reason)) {
        Some(reason) => Err(Unusable::NotOverridable(*reason)),
        None => Ok(request),
    }
}

/// Whether a request still holds.
pub(super) fn holds(request: &RepairRequest, now: Timestamp) -> bool {
    request.until > now
}

/// What is asked for now. One request makes one repair, whatever comes of that, be it that a
/// person deletes its record.
pub(super) fn request(node: &NodeView, world: &World<'_>, now: Timestamp) -> Option<RepairRequest> {
    let request = read(node, now)?.ok().filter(|one| holds(one, now))?;
    let made = |repair: &NodeRepair| Some(repair.spec.request.as_ref()?.at);
    (!is_used(request.at, made, node, world)).then_some(request)
}

#[cfg(test)]
mod tests;
