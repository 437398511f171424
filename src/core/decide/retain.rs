//! Which repairs that ended may be forgotten: nothing counts them any more, and they are old
//! or too many.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::efficacy::{LONGEST, PROBATION};
use super::{World, memory};
use crate::api::NodeRepair;
use crate::model::Span;

/// How long people may read of a repair that ended, unless there are more than `MAX_ENDED`.
const KEPT: Span = Span::minutes(90 * 24 * 60);
/// Every pass reads all of them.
const MAX_ENDED: usize = 1000;
/// Of a node that is there, what was tried last says what is next.
const PER_NODE: usize = 10;

/// Those repairs, oldest first; none while the nodes are not known.
pub fn forgettable<'a>(
    world: &World<'a>,
    now: Timestamp,
) -> impl Iterator<Item = &'a NodeRepair> + use<'a> {
    let known = world.evidence.nodes_fresh(now);
    let counted = memory(world.limits, world.policies).max(PROBATION.max(LONGEST));
    let ended = world.repairs.iter().filter_map(|repair| {
        let at = repair.status.as_ref()?.ended?;
        (!repair.open()).then_some((at, repair))
    });
    let mut ended: Vec<(Timestamp, &NodeRepair)> = ended.filter(|_| known).collect();
    ended.sort_by_key(|(at, repair)| (Reverse(*at), Reverse(repair.spec.ordinal)));
    let mut tried: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for (place, (at, repair)) in ended.into_iter().enumerate() {
        let of_node = tried.entry(&repair.spec.node_uid).or_default();
        *of_node += 1;
        let needed = world.evidence.has(&repair.spec.node_uid) && *of_node <= PER_NODE;
        let old = place >= MAX_ENDED || KEPT.after(at) <= now;
        // A day more than anything counts it: its start is forgotten before.
        if old && !needed && counted.after(at) < Span::minutes(24 * 60).before(now) {
            found.push(repair);
        }
    }
    found.into_iter().rev()
}
