//! Tables of deliveries, good and bad, and what the store holds after them.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use nodemend_core::config::{Rule, Rules};
use nodemend_core::evidence::{ALERT_TTL, Answer, Evidence, Input};
use nodemend_core::model::{NodeView, SignalState, Span};

use super::*;
use crate::controller::other_groups;

mod kube_prometheus;

/// What Alertmanager 0.34 sends.
pub(crate) const PAYLOAD: &str = include_str!("payload-0.34.json");

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// A store in memory that can be told to fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    groups: BTreeMap<String, AlertGroup>,
    /// What reads of any age give from now on, if not what is stored.
    cached: Option<BTreeMap<String, AlertGroup>>,
    version: u64,
    writes: usize,
    failures: Vec<CallError>,
    failure: Option<(usize, CallError)>,
}

impl Memory {
    pub(crate) fn fail(&self, errors: &[CallError]) {
        self.0.lock().unwrap().failures = errors.to_vec();
    }
    /// Fails the write after so many.
    fn fail_at(&self, writes: usize, error: CallError) {
        self.0.lock().unwrap().failure = Some((writes, error));
    }
    /// Reads of any age give what is stored now, whatever comes.
    fn freeze_cache(&self) {
        let mut inner = self.0.lock().unwrap();
        inner.cached = Some(inner.groups.clone());
    }
    pub(crate) fn writes(&self) -> usize {
        self.0.lock().unwrap().writes
    }
    pub(crate) fn specs(&self) -> Vec<AlertGroupSpec> {
        let inner = self.0.lock().unwrap();
        inner
            .groups
            .values()
            .map(|group| group.spec.clone())
            .collect()
    }
    fn all(&self) -> Vec<AlertGroup> {
        self.0.lock().unwrap().groups.values().cloned().collect()
    }
    fn only(&self) -> AlertGroup {
        let inner = self.0.lock().unwrap();
        assert_eq!(inner.groups.len(), 1);
        inner.groups.values().next().unwrap().clone()
    }
}

impl Groups for Memory {
    async fn group(&self, name: &str, age: Age) -> Result<Option<AlertGroup>, CallError> {
        let inner = self.0.lock().unwrap();
        let cached = inner.cached.as_ref().filter(|_| age == Age::Any);
        Ok(cached.unwrap_or(&inner.groups).get(name).cloned())
    }
    async fn put_group(&self, mut group: AlertGroup) -> Result<(), CallError> {
        let mut inner = self.0.lock().unwrap();
        if let Some(error) = inner.failures.pop() {
            return Err(error);
        }
        let writes = inner.writes;
        if let Some((_, error)) = inner.failure.take_if(|(at, _)| *at == writes) {
            return Err(error);
        }
        let name = group.metadata.name.clone().unwrap();
        let known = inner.groups.get(&name);
        let read = group.metadata.resource_version.clone();
        if known.and_then(|group| group.metadata.resource_version.clone()) != read {
            return Err(CallError::Conflict("changed".into()));
        }
        inner.version += 1;
        inner.writes += 1;
        group.metadata.resource_version = Some(inner.version.to_string());
        inner.groups.insert(name, group);
        Ok(())
    }
    fn others(&self, sender: &str, group: &str) -> Option<usize> {
        let inner = self.0.lock().unwrap();
        let stored = inner.groups.iter();
        let stored = stored.map(|(name, stored)| (name.as_str(), stored.spec.sender.as_str()));
        other_groups(stored, sender, group)
    }
}

/// Polls once: nothing here may need a runtime.
fn deliver(store: &Memory, body: &str, now: Timestamp) -> Result<Delivered, Error> {
    Intake::new(store.clone())
        .deliver(body.as_bytes(), "token", now)
        .now_or_never()
        .expect("needs no runtime")
}

fn payload(alerts: &str) -> String {
    format!(
        r#"{{"version":"4","groupKey":"{{}}:{{}}","receiver":"nodemend","status":"firing","alerts":[{alerts}]}}"#
    )
}

fn alert(status: &str, ends: i64) -> String {
    let ends = if ends == 0 {
        "0001-01-01T00:00:00Z".into()
    } else {
        at(ends).to_string()
    };
    format!(
        r#"{{"status":"{status}","labels":{{"alertname":"A","node":"a"}},"startsAt":"{}","endsAt":"{ends}","fingerprint":"0123456789abcdef"}}"#,
        at(0)
    )
}

pub(crate) fn firing() -> String {
    payload(&alert("firing", 0))
}

fn resolved(ends: i64) -> String {
    payload(&alert("resolved", ends))
}

impl Memory {
    /// What the leader makes of what is stored about the alert `A` of the node `a`.
    pub(crate) fn signal(&self, now: Timestamp) -> SignalState {
        let node = NodeView {
            name: "a".into(),
            uid: "u".into(),
            created: at(-1000),
            ..NodeView::default()
        };
        let mut evidence = Evidence::default();
        evidence.fold(Input::Nodes(vec![node.clone()]), now);
        for (object, stored) in &self.0.lock().unwrap().groups {
            let (object, group) = (object.clone(), stored.spec.clone());
            evidence.fold(Input::Alerts { object, group }, now);
        }
        // A Prometheus that is seen to live.
        let present = Some(vec![[("node".to_owned(), "a".to_owned())].into()]);
        let answer = Answer::Series {
            firing: vec![],
            present,
        };
        let (name, asked) = ("Seen".to_owned(), now);
        evidence.fold(
            Input::Rule {
                name: name.clone(),
                asked,
                answer,
            },
            now,
        );
        let rule = Rule {
            name,
            expr: "up == 0".into(),
            for_: Span::default(),
            keep_firing_for: Span::default(),
            presence: Some("up".into()),
            interval: Span::seconds(30),
            labels: BTreeMap::new(),
        };
        let rules = Rules::from_iter([rule]);
        evidence.signal(&node, "A", &rules, now).state
    }
}

#[test]
fn h10_a_delivered_alert_of_another_cluster_speaks_of_no_node() {
    let external: identity::Labels = [("cluster".to_owned(), "ours".to_owned())].into();
    for (label, kept, expect) in [
        ("", None, Ok("a")),
        (r#","cluster":"ours""#, None, Ok("a")),
        (
            r#","cluster":"theirs""#,
            Some("theirs"),
            Err(identity::Unresolved::Conflicting),
        ),
    ] {
        let alert = alert("firing", 0);
        let alert = alert.replace(r#""node":"a""#, &format!(r#""node":"a"{label}"#));
        let store = Memory::default();
        let intake = Intake::new(store.clone()).within(external.clone());
        let body = payload(&alert);
        let done = intake.deliver(body.as_bytes(), "token", at(0));
        done.now_or_never().expect("needs no runtime").unwrap();
        let stored = store.only().spec;
        let stored = stored.alerts.values().next().unwrap();
        assert_eq!(stored.labels.get("cluster").map(String::as_str), kept);
        let node = NodeView {
            name: "a".into(),
            ..NodeView::default()
        };
        let index = identity::Index::new(Vec::new(), external.clone()).of([&node]);
        assert_eq!(index.resolve(&stored.labels), expect, "{label}");
    }
}

#[test]
fn h71_a_sender_has_so_many_groups_and_those_it_has_are_still_taken() {
    let store = Memory::default();
    let mut intake = Intake::new(store.clone());
    intake.max_groups = 2;
    let deliver = |sender: &str, key: &str, alerts: &str, now| {
        let body = payload(alerts).replace("{}:{}", key);
        let done = intake.deliver(body.as_bytes(), sender, now);
        done.now_or_never().expect("needs no runtime")
    };
    // Alerts of several objects of one group.
    let many: Vec<String> = (0..40).map(numbered).collect();
    let (one, many) = (numbered(0), many.join(","));
    for key in ["a", "b"] {
        assert!(deliver("token", key, &many, at(0)).is_ok());
    }
    let stored = store.specs();
    assert!(stored.len() > 2 * 2, "{} objects", stored.len());
    let full = deliver("token", "c", &one, at(0));
    assert_eq!(full, Err(Error::TooManyGroups(2)));
    assert_eq!(store.specs(), stored);
    assert!(deliver("token", "a", &numbered(50), at(0)).unwrap().written);
    assert!(deliver("other", "c", &one, at(0)).unwrap().written);
    // A delivery without alerts that count makes no group.
    assert!(deliver("token", "d", "", at(0)).is_ok());
}

/// An alert of this number.
fn numbered(number: usize) -> String {
    alert("firing", 0).replace("0123456789abcdef", &format!("{number:016x}"))
}

fn holding<'a>(delivery: &'a Delivery, fingerprint: &str) -> (&'a String, &'a AlertGroupSpec) {
    let mut groups = delivery.groups.iter();
    let found = groups.find(|(_, group)| group.alerts.contains_key(fingerprint));
    found.expect("it is in one of them")
}

#[test]
fn a_payload_of_alertmanager_0_34_is_read() {
    let delivery = decode(PAYLOAD.as_bytes(), "token", &identity::Labels::new(), at(0)).unwrap();
    let (object, group) = holding(&delivery, "c0ffee0123456789");
    assert_eq!(
        (group.sender.as_str(), group.receiver.as_str()),
        ("token", "nodemend")
    );
    assert_eq!(
        group.group_key,
        r#"{}/{team="nodes"}:{alertname="NodeDiskIOErrors"}"#
    );
    assert_eq!((group.truncated_at, delivery.truncated), (None, 0));
    assert!(object.starts_with("alerts-") && object.len() == 29);
    assert!(object.ends_with(&format!("-{:x}", group.bucket)));
    let alert = &group.alerts["c0ffee0123456789"];
    assert_eq!(alert.name, "NodeDiskIOErrors");
    assert_eq!(alert.severity, "critical");
    let labels: Vec<&str> = alert.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["instance", "job", "node"]);
    assert_eq!(
        (alert.last_firing, alert.last_resolved, alert.ends_at),
        (Some(at(0)), None, None)
    );
}

#[test]
fn h5_each_alert_counts_by_its_own_status() {
    let delivery = decode(PAYLOAD.as_bytes(), "token", &identity::Labels::new(), at(0)).unwrap();
    let alert = &holding(&delivery, "deadbeef01234567").1.alerts["deadbeef01234567"];
    assert_eq!(alert.last_firing, None);
    assert_eq!(alert.last_resolved, Some(at(0)));
    assert_eq!(
        alert.ends_at,
        Some("2026-11-24T09:12:30.5Z".parse().unwrap())
    );
}

#[test]
fn h6_an_end_of_zero_is_no_end() {
    let read = |body: &str| {
        let groups = decode(body.as_bytes(), "s", &identity::Labels::new(), at(9))
            .unwrap()
            .groups;
        let mut alerts = groups.into_values().flat_map(|group| group.alerts);
        alerts.next().unwrap().1
    };
    assert_eq!(read(&firing()).ends_at, None);
    assert_eq!(
        read(&resolved(0)).ends_at,
        Some(at(9)),
        "it ended by its receipt"
    );
    assert_eq!(read(&resolved(5)).ends_at, Some(at(5)));
    assert_eq!(
        read(&resolved(5000)).ends_at,
        Some(at(9)),
        "no later than its receipt"
    );
    let without =
        r#"{"status":"resolved","labels":{"alertname":"A"},"startsAt":"-000001-01-01T00:00:00Z"}"#;
    let alert = read(&payload(without));
    assert_eq!((alert.starts_at, alert.ends_at), (zero(), Some(at(9))));
}

fn check_refused(body: &[u8], expect: &str) {
    let store = Memory::default();
    let error = Intake::new(store.clone())
        .deliver(body, "token", at(0))
        .now_or_never()
        .expect("needs no runtime")
        .expect_err(expect);
    assert!(error.to_string().contains(expect), "{error}, not {expect}");
    assert!(
        error.to_string().len() < 300,
        "a message repeats little: {error}"
    );
    assert_eq!(store.writes(), 0);
}

#[test]
fn h8_other_versions_and_custom_payloads_are_refused_and_extra_fields_are_not() {
    check_refused(
        firing()
            .replace(r#""version":"4""#, r#""version":"5""#)
            .as_bytes(),
        "version `5`",
    );
    check_refused(br#"{"text":"NodeDown","room":"ops"}"#, "version ``");
    check_refused(
        firing()
            .replace(r#""version":"4""#, r#""version":4"#)
            .as_bytes(),
        "invalid type",
    );
    check_refused(
        br#"{"version":"4","receiver":"r","alerts":[]}"#,
        "groupKey or receiver",
    );
    check_refused(
        payload(&alert("pending", 0)).as_bytes(),
        "unknown variant `pending`",
    );
    check_refused(
        payload(r#"{"status":"firing","startsAt":"2026-11-24T09:12:30Z"}"#).as_bytes(),
        "missing field `labels`",
    );
    check_refused(
        payload(r#"{"status":"firing","labels":{},"startsAt":"today"}"#).as_bytes(),
        "not Alertmanager's",
    );
    let extra = firing().replace(r#""version""#, r#""new":{"a":[1,null]},"version""#);
    assert_eq!(
        deliver(&Memory::default(), &extra, at(0)).unwrap().stored,
        1
    );
}

#[test]
fn h9_what_is_cut_off_doubled_nested_or_oversized_is_refused() {
    let good = firing();
    for end in (0..good.len()).step_by(7) {
        check_refused(&good.as_bytes()[..end], "not JSON");
    }
    check_refused(b"<html></html>", "not JSON");
    check_refused(b"\xff\xfe{}", "not JSON");
    let mut bad_text = good.clone().into_bytes();
    let name = good.find("nodemend").unwrap();
    bad_text[name] = 0xff;
    check_refused(&bad_text, "not JSON");
    check_refused(br#"{"version":"\ud800"}"#, "not JSON");
    check_refused(b"4", "not Alertmanager's");
    check_refused(br#"["4","{}:{}",0,"nodemend",[]]"#, "expected an object");
    let fields = r#"["firing",{"alertname":"A"},"2026-11-24T09:12:30Z"]"#;
    check_refused(payload(fields).as_bytes(), "expected an object");
    check_refused(
        br#"{"version":"4","version":"4"}"#,
        "duplicate field `version`",
    );
    check_refused(
        good.replace(r#""node":"a""#, r#""node":"a","node":"b""#)
            .as_bytes(),
        "a label twice",
    );
    let deep = "[".repeat(1_000_000);
    check_refused(
        format!(r#"{{"version":"4","receiver":{deep}"#).as_bytes(),
        "not",
    );
    check_refused(
        format!(r#"{{"version":"4","extra":{deep}"#).as_bytes(),
        "not JSON",
    );
    check_refused(
        payload(&format!("{}{{}}", "{},".repeat(3))).as_bytes(),
        "missing field",
    );
    let many = vec![alert("firing", 0); MAX_ALERTS + 2].join(",");
    check_refused(payload(&many).as_bytes(), "10002 alerts");
    let labels: Vec<String> = (0..10_000)
        .map(|label| format!(r#""l{label}":"x""#))
        .collect();
    let alert = format!(
        r#"{{"status":"firing","labels":{{{}}},"startsAt":"2026-11-24T09:12:30Z"}}"#,
        labels.join(",")
    );
    check_refused(payload(&alert).as_bytes(), "10000 labels");
    let long = "x".repeat(2000);
    check_refused(
        good.replace(r#""node":"a""#, &format!(r#""node":"{long}""#))
            .as_bytes(),
        "a label's value is too long",
    );
    check_refused(
        good.replace(r#""A""#, &format!(r#""{long}""#)).as_bytes(),
        "an alert's name is too long",
    );
    check_refused(
        good.replace("{}:{}", &"x".repeat(20_000)).as_bytes(),
        "groupKey is too long",
    );
    check_refused(
        good.replace(r#""4""#, &format!(r#""{long}""#)).as_bytes(),
        "version `xxx",
    );
}

proptest::proptest! {
    #[test]
    fn h9_no_bytes_make_the_decoder_panic(
        edits in proptest::collection::vec((0..PAYLOAD.len(), proptest::num::u8::ANY), 1..8),
        end in 0..=PAYLOAD.len(),
    ) {
        let mut body = PAYLOAD.as_bytes().to_vec();
        for (place, byte) in edits {
            body[place] = byte;
        }
        let _ = decode(&body, "token", &identity::Labels::new(), at(0));
        let _ = decode(&body[..end], "token", &identity::Labels::new(), at(0));
    }
}

#[test]
fn an_alert_without_a_name_is_skipped() {
    let nameless = r#"{"status":"firing","labels":{"node":"a"},"startsAt":"2026-11-24T09:12:30Z"}"#;
    let store = Memory::default();
    let only = deliver(&store, &payload(nameless), at(0)).unwrap();
    assert_eq!(
        (only.stored, only.skipped, only.written, store.writes()),
        (0, 1, false, 0)
    );
    let both = payload(&format!("{nameless},{}", alert("firing", 0)));
    let both = deliver(&store, &both, at(0)).unwrap();
    assert_eq!((both.stored, both.skipped, both.written), (1, 1, true));
}

#[test]
fn a_sender_without_fingerprints_gets_our_own() {
    let keys = |fingerprint: &str, node: &str| {
        let body = firing()
            .replace("0123456789abcdef", fingerprint)
            .replace(r#""node":"a""#, &format!(r#""node":"{node}""#));
        let groups = decode(body.as_bytes(), "s", &identity::Labels::new(), at(0))
            .unwrap()
            .groups;
        let mut alerts = groups.into_values().flat_map(|group| group.alerts);
        alerts.next().unwrap().0
    };
    let own = keys("", "a");
    assert_eq!(own.len(), 16);
    assert_eq!(keys("../../etc/passwd", "a"), own);
    assert_eq!(keys("0123456789ABCDEF", "a"), own);
    assert_ne!(keys("", "b"), own);
    assert_eq!(keys("00000000000000ff", "b"), "00000000000000ff");
}

#[test]
fn labels_are_the_same_in_any_order_and_however_they_are_escaped() {
    let read = |labels: &str| {
        let alert = format!(
            r#"{{"status":"firing","labels":{{{labels}}},"startsAt":"2026-11-24T09:12:30Z"}}"#
        );
        decode(
            payload(&alert).as_bytes(),
            "s",
            &identity::Labels::new(),
            at(0),
        )
    };
    let plain = read(r#""alertname":"A","job":"x","node":"a","severity":"b","zone":"z""#);
    let alerts = plain.as_ref().unwrap().groups.values().next().unwrap();
    let alert = alerts.alerts.values().next().unwrap();
    assert_eq!((alert.name.as_str(), alert.severity.as_str()), ("A", "b"));
    let labels = [("job", "x"), ("node", "a")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(alert.labels, labels.into());
    let other = r#""zone":"z","n\u006fde":"\u0061","severity":"b","job":"x","alertname":"A""#;
    assert_eq!(read(other), plain);
    let twice = read(r#""n\u006fde":"a","alertname":"A","node":"a""#);
    assert!(
        matches!(&twice, Err(Error::Shape(why)) if why.starts_with("a label twice")),
        "{twice:?}"
    );
}

#[test]
fn groups_of_other_senders_receivers_and_keys_are_apart() {
    let names = [
        object_name("a", "b", "c"),
        object_name("x", "b", "c"),
        object_name("a", "x", "c"),
        object_name("a", "b", "x"),
        object_name("ab", "", "c"),
    ];
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
}

#[test]
fn h1_a_delivery_that_comes_twice_writes_nothing() {
    let store = Memory::default();
    assert!(deliver(&store, &firing(), at(0)).unwrap().written);
    let before = store.only();
    let again = deliver(&store, &firing(), at(1)).unwrap();
    assert_eq!((again.stored, again.written), (1, false));
    assert_eq!(store.only(), before);
    deliver(&store, &resolved(60), at(61)).unwrap();
    let before = store.only();
    assert!(!deliver(&store, &resolved(60), at(70)).unwrap().written);
    assert_eq!((store.only(), store.writes()), (before, 2));
}

#[test]
fn h2_what_could_not_be_stored_is_not_acknowledged() {
    for error in [
        CallError::NoAnswer("timeout".into()),
        CallError::Refused("403".into()),
        CallError::NotNow("429".into()),
    ] {
        let store = Memory::default();
        store.fail(std::slice::from_ref(&error));
        assert_eq!(
            deliver(&store, &firing(), at(0)),
            Err(Error::Store(error.clone()))
        );
        assert!(
            deliver(&store, &firing(), at(0)).unwrap().written,
            "the next try"
        );
    }
}

#[test]
fn a_conflict_is_tried_again_but_not_for_ever() {
    let conflict = CallError::Conflict("changed".into());
    for (times, expect) in [(1, None), (4, None), (5, Some(Error::Contended))] {
        let store = Memory::default();
        store.fail(&vec![conflict.clone(); times]);
        assert_eq!(
            deliver(&store, &firing(), at(0)).err(),
            expect,
            "{times} conflicts"
        );
    }
}

#[test]
fn a_resend_refreshes_the_record_once_in_a_third_of_its_life() {
    let store = Memory::default();
    let mut last = 0;
    for now in (0..=3600).step_by(60) {
        let written = deliver(&store, &firing(), at(now)).unwrap().written;
        assert_eq!(written, now == 0 || now - last >= 300, "at {now}");
        if written {
            last = now;
        }
        assert_eq!(store.signal(at(now)), SignalState::Firing);
    }
    assert_eq!(store.signal(ALERT_TTL.after(at(last))), SignalState::Firing);
    assert_eq!(
        store.signal(at(last + ALERT_TTL.as_seconds() + 1)),
        SignalState::Unknown
    );
}

/// Deliveries as (received, end; none while firing), and what the last of them leaves.
fn check_history(deliveries: &[(i64, Option<i64>)], expect: SignalState) {
    let store = Memory::default();
    for (received, end) in deliveries {
        let body = end.map_or_else(firing, resolved);
        deliver(&store, &body, at(*received)).unwrap();
    }
    let now = at(deliveries
        .iter()
        .map(|(received, _)| *received)
        .max()
        .unwrap());
    assert_eq!(store.signal(now), expect, "{deliveries:?}");
}

#[test]
fn h76_an_alert_that_fires_again_with_its_old_start_is_firing() {
    use SignalState::{Clear, Firing, Unknown};
    check_history(&[(10, None), (70, Some(60))], Clear);
    check_history(&[(10, None), (70, Some(60)), (130, None)], Firing);
    // Received so soon that the clocks cannot tell; the next re-send can.
    check_history(&[(10, None), (61, Some(60)), (63, None)], Unknown);
    check_history(
        &[(10, None), (61, Some(60)), (63, None), (123, None)],
        Firing,
    );
    // A resolve of which no firing was known.
    check_history(&[(70, Some(60))], Clear);
    // The old resolve once more after the new firing: the two contradict.
    check_history(
        &[(10, None), (70, Some(60)), (130, None), (131, Some(60))],
        Unknown,
    );
    check_history(
        &[
            (10, None),
            (70, Some(60)),
            (130, None),
            (131, Some(60)),
            (190, None),
        ],
        Firing,
    );
}

#[test]
fn a_firing_delivery_that_was_held_up_until_after_the_end_is_not_firing() {
    // Alertmanager tries a delivery again as it was, then sends the resolve.
    check_history(
        &[(10, None), (150, None), (155, Some(95))],
        SignalState::Clear,
    );
    check_history(&[(150, None), (155, Some(95))], SignalState::Unknown);
    check_history(&[(150, None), (155, Some(148))], SignalState::Unknown);
}

#[test]
fn a_clock_of_alertmanager_that_is_ahead_or_behind_does_no_harm() {
    use SignalState::{Clear, Firing, Unknown};
    for (ahead, resolved) in [(0, Clear), (-3, Clear), (3, Clear), (3600, Clear)] {
        check_history(&[(10, None), (70, Some(60 + ahead))], resolved);
        check_history(&[(10, None), (70, Some(60 + ahead)), (130, None)], Firing);
    }
    check_history(&[(10, None), (70, Some(60 - 120))], Unknown);
    check_history(&[(10, None), (70, Some(60 - 120)), (130, None)], Firing);
}

#[test]
fn a_group_forgets_alerts_after_a_day() {
    let store = Memory::default();
    let same = |fingerprint: &String| bucket(fingerprint) == bucket("0123456789abcdef");
    let other = (0..1000).map(|n| format!("{n:016x}")).find(same).unwrap();
    let other = firing()
        .replace("0123456789abcdef", &other)
        .replace(r#""node":"a""#, r#""node":"b""#);
    let day = 24 * 3600;
    deliver(&store, &other, at(0)).unwrap();
    deliver(&store, &firing(), at(day)).unwrap();
    assert_eq!(store.only().spec.alerts.len(), 2);
    deliver(&store, &firing(), at(day + 1)).unwrap();
    assert_eq!(
        store.only().spec.alerts.len(),
        2,
        "to forget is no reason to write"
    );
    deliver(&store, &firing(), at(day + 300)).unwrap();
    assert_eq!(store.only().spec.alerts.len(), 1);
}

/// So many alerts of one group, each about a node with a long name.
fn many(count: usize) -> String {
    let one = |n| {
        let name = format!(r#""node":"ip-10-0-{n}.eu-central-1.compute.internal""#);
        alert("firing", 0)
            .replace("0123456789abcdef", &format!("{n:016x}"))
            .replace(r#""node":"a""#, &name)
    };
    let alerts: Vec<String> = (0..count).map(one).collect();
    payload(&alerts.join(","))
}

#[test]
fn ten_thousand_alerts_are_stored_in_buckets_and_their_resend_writes_nothing() {
    let store = Memory::default();
    let body = many(MAX_ALERTS);
    let done = deliver(&store, &body, at(0)).unwrap();
    assert_eq!((done.stored, done.written), (MAX_ALERTS, true));
    let buckets = store.all();
    assert_eq!((buckets.len(), store.writes()), (16, 16));
    let mut seen = std::collections::BTreeSet::new();
    for group in &buckets {
        let name = group.metadata.name.as_deref().unwrap();
        assert!(
            name.ends_with(&format!("-{:x}", group.spec.bucket)),
            "{name}"
        );
        let size = serde_json::to_vec(&group.spec).unwrap().len();
        // So alerts may be three times as long as these.
        assert!(size < MAX_GROUP / 3, "{name} has {size} bytes");
        seen.extend(group.spec.alerts.keys().cloned());
        assert_eq!(group.spec.receiver, "nodemend");
    }
    assert_eq!(seen.len(), MAX_ALERTS);
    let again = deliver(&store, &body, at(60)).unwrap();
    assert_eq!((again.stored, again.written), (MAX_ALERTS, false));
    // News of one alert is one write.
    deliver(&store, &resolved(60), at(61)).unwrap();
    assert_eq!(store.writes(), 17);
}

#[test]
fn h2_a_delivery_is_acknowledged_only_when_every_bucket_is_stored() {
    let body = many(200);
    for failing in 0..16 {
        let store = Memory::default();
        store.fail_at(failing, CallError::NoAnswer("timeout".into()));
        let error = deliver(&store, &body, at(0)).unwrap_err();
        assert!(matches!(error, Error::Store(_)), "{failing}: {error}");
        // The next try stores what is missing, and only that.
        deliver(&store, &body, at(1)).unwrap();
        assert_eq!((store.all().len(), store.writes()), (16, 16));
    }
}

#[test]
fn a_group_that_fits_no_object_is_refused() {
    let store = Memory::default();
    let long = "x".repeat(900);
    let body = many(MAX_ALERTS).replace(".eu-central-1", &long);
    let error = deliver(&store, &body, at(0)).unwrap_err();
    assert!(matches!(error, Error::GroupTooLarge(_)), "{error}");
}

#[test]
fn h4_a_delivery_that_leaves_alerts_out_is_taken_and_marks_its_group() {
    let store = Memory::default();
    let body = firing().replace(
        r#""status":"firing","alerts""#,
        r#""truncatedAlerts":3,"alerts""#,
    );
    let marked = || store.only().spec.truncated_at;
    assert_eq!(deliver(&store, &body, at(0)).unwrap().stored, 1);
    assert_eq!(marked(), Some(at(0)));
    assert!(!deliver(&store, &body, at(60)).unwrap().written);
    // Whole deliveries leave the mark until it is old.
    for (now, expect) in [(300, Some(at(0))), (600, Some(at(0))), (901, None)] {
        assert!(deliver(&store, &firing(), at(now)).unwrap().written);
        assert_eq!(marked(), expect, "{now}");
    }
    deliver(&store, &body, at(960)).unwrap();
    assert_eq!(marked(), Some(at(960)), "it is new again");
}

#[test]
fn h77_a_resend_to_any_replica_refreshes_what_the_leader_reads() {
    let store = Memory::default();
    deliver(&store, &firing(), at(0)).unwrap();
    // The leader hears of none of these; a follower stores them.
    for now in (300..=7200).step_by(300) {
        deliver(&store, &firing(), at(now)).unwrap();
        assert_eq!(store.signal(at(now + 299)), SignalState::Firing, "{now}");
    }
}

#[test]
fn h2_a_group_that_was_read_old_is_read_anew_and_loses_nothing() {
    let store = Memory::default();
    deliver(&store, &payload(&alert("firing", 0)), at(0)).unwrap();
    store.freeze_cache();
    deliver(&store, &payload(&alert("resolved", 50)), at(60)).unwrap();
    // The cache still shows the first delivery alone, to which this one is no news.
    deliver(&store, &payload(&alert("firing", 0)), at(120)).unwrap();
    let group = store.only();
    let stored = group.spec.alerts.values().next().unwrap();
    assert_eq!(stored.last_firing, Some(at(120)));
    assert_eq!(stored.last_resolved, Some(at(60)));
    assert_eq!(stored.ends_at, Some(at(50)));
}
