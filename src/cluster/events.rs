//! Events, for people who look at a node or a repair with kubectl.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;
use nodemend_core::model::digest;

use crate::telemetry::{About, Notice};

/// Events of objects without a namespace live here.
pub(super) const NAMESPACE: &str = "default";
/// The API server's own limit of a note, in bytes.
const MAX_NOTE: usize = 1024;
/// Our own objects.
const OURS: &str = "nodemend.dev/v1alpha1";
/// Who reports.
const CONTROLLER: &str = "nodemend.dev/nodemend";

/// The Event of a notice. Its name says when, to the hour, and what: told again, it is the same.
pub(super) fn event(notice: &Notice, now: Timestamp) -> Event {
    let (api_version, kind, name, uid) = match &notice.about {
        About::Fleet => (OURS, "FleetState", "fleet", ""),
        About::Node { name, uid } => ("v1", "Node", name.as_str(), uid.as_str()),
        About::Repair { name, uid } => (OURS, "NodeRepair", name.as_str(), uid.as_str()),
    };
    let hour = (now.as_second() / 3600).to_string();
    let this = digest(&[uid, notice.reason, &notice.note, &hour], 16);
    let mut note = notice.note.clone();
    note.truncate(note.floor_char_boundary(MAX_NOTE));
    Event {
        metadata: ObjectMeta {
            name: Some(format!("nodemend-{this}")),
            namespace: Some(NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: Some(api_version.into()),
            kind: Some(kind.into()),
            name: Some(name.into()),
            uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        }),
        event_time: Some(MicroTime(now)),
        type_: Some(if notice.warning { "Warning" } else { "Normal" }.into()),
        reason: Some(notice.reason.into()),
        note: Some(note),
        action: Some("Repair".into()),
        reporting_controller: Some(CONTROLLER.into()),
        // The pod that speaks may change; the Event stays the same.
        reporting_instance: Some("nodemend".into()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_notice_within_an_hour_is_the_same_event() {
        let notice = |note: &str| Notice {
            about: About::Node {
                name: "a".into(),
                uid: "u".into(),
            },
            reason: "RepairHeld",
            note: note.into(),
            warning: true,
        };
        let name = |note: &str, second: i64| {
            event(&notice(note), Timestamp::from_second(second).unwrap())
                .metadata
                .name
        };
        assert_eq!(name("x", 7200), name("x", 10_799));
        assert_ne!(name("x", 7200), name("x", 10_800));
        assert_ne!(name("x", 7200), name("y", 7200));
        let long = event(&notice(&"ü".repeat(1000)), Timestamp::UNIX_EPOCH);
        assert!(long.note.is_some_and(|note| note.len() <= MAX_NOTE));
    }
}
