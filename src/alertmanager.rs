//! What Alertmanager sends: the decoding of its webhook's payload, and the intake
//! that makes a delivery durable before it is acknowledged. And what it says when asked.

pub mod ask;
mod waiting;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use nodemend_core::api::{AlertGroup, AlertGroupSpec, StoredAlert};
use nodemend_core::evidence::{self, identity};
use nodemend_core::model::digest;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::controller::{Age, Groups};
use crate::exec::CallError;
use crate::fetch::quote;

pub use waiting::Waiting;

/// The most alerts of one delivery.
pub const MAX_ALERTS: usize = 10_000;
/// The most groups of one sender: each is kept for a day, in up to 16 objects. Grouped by
/// alert, as the shipped receiver does, no installation has as many.
pub const MAX_GROUPS: usize = 1_000;
/// The most labels of one alert.
pub const MAX_LABELS: usize = 64;
/// The most bytes of a name, a severity or an identity label.
const MAX_VALUE: usize = 1024;
/// The most bytes of a receiver or a group key.
const MAX_KEY: usize = 16 * 1024;
/// The most bytes of a stored group as JSON: an object of the API holds about 1.5 MB,
/// and the API server keeps who wrote which field beside it.
pub const MAX_GROUP: usize = 512 * 1024;
/// In how many objects a group is kept, by a digest of the fingerprint: 10,000 alerts of
/// 700 bytes fit. Fixed, so that an alert is always in the same one. A hexadecimal digit says which.
const BUCKETS: u8 = 16;
/// The objects of one delivery that are written at once.
const WRITES: usize = 4;
/// How often a write that another replica was faster with is tried.
const ATTEMPTS: usize = 5;

/// Why a delivery is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Not JSON, cut off, or not UTF-8.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// JSON, but not what Alertmanager sends.
    #[error("not Alertmanager's payload: {0}")]
    Shape(String),
    /// Another version of the payload.
    #[error("payload version `{0}`, only 4 is known")]
    Version(String),
    /// More alerts than any group has.
    #[error("{0} alerts, at most {MAX_ALERTS} are taken")]
    TooManyAlerts(usize),
    /// More labels than any alert has.
    #[error("{0} labels on an alert, at most {MAX_LABELS} are taken")]
    TooManyLabels(usize),
    /// A name, label or key that is longer than any.
    #[error("{0} is too long")]
    TooLong(&'static str),
    /// The group does not fit into one object.
    #[error("the group would take {0} bytes, at most {MAX_GROUP} are stored: group by more labels")]
    GroupTooLarge(usize),
    /// The sender has as many groups as one may have.
    #[error("this sender has {0} groups, and no new one is taken: group by fewer labels")]
    TooManyGroups(usize),
    /// Other replicas were faster, again and again.
    #[error("the group is being written by others")]
    Contended,
    /// It could not be stored.
    #[error("the group could not be stored")]
    Store(#[source] CallError),
}

/// What became of a delivery that is durable now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// How many of its alerts are on record.
    pub stored: usize,
    /// How many it had that can never match a signal, for want of a name.
    pub skipped: usize,
    /// Whether that took any write.
    pub written: bool,
}

/// A delivery as it is to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// What it says, by object name.
    pub groups: BTreeMap<String, AlertGroupSpec>,
    /// How many alerts have no name.
    pub skipped: usize,
    /// How many alerts Alertmanager left out.
    pub truncated: u64,
}

/// Takes deliveries, on every replica.
#[derive(Clone, Debug)]
pub struct Intake<G> {
    groups: G,
    max_groups: usize,
    external: identity::Labels,
}

impl<G: Groups> Intake<G> {
    /// An intake that stores into `groups`.
    pub const fn new(groups: G) -> Self {
        Self {
            groups,
            max_groups: MAX_GROUPS,
            external: identity::Labels::new(),
        }
    }

    /// Stores of an alert also those labels that contradict these, which all alerts of our own
    /// Prometheus have.
    #[must_use]
    pub fn within(self, external: identity::Labels) -> Self {
        Self { external, ..self }
    }

    /// Merges the delivery into its group and stores that, if it says anything new.
    /// `sender` is the authenticated identity, `now` when the body was received.
    pub async fn deliver(
        &self,
        body: &[u8],
        sender: &str,
        now: Timestamp,
    ) -> Result<Delivered, Error> {
        let delivery = decode(body, sender, &self.external, now)?;
        if delivery.truncated > 0 {
            let left_out = delivery.truncated;
            tracing::warn!(
                left_out,
                "Alertmanager leaves alerts out: raise max_alerts of its receiver, or group by more labels"
            );
        }
        self.check_new(&delivery, sender)?;
        let stored = delivery.groups.values().map(|group| group.alerts.len());
        let (stored, skipped) = (stored.sum(), delivery.skipped);
        let writes = stream::iter(delivery.groups)
            .map(|(object, group)| async move { self.store(&object, &group, now).await })
            .buffer_unordered(WRITES);
        // One object that cannot be written keeps no other from it.
        let written: Vec<Result<bool, Error>> = writes.collect().await;
        let written: Result<Vec<bool>, Error> = written.into_iter().collect();
        Ok(Delivered {
            stored,
            skipped,
            written: written?.contains(&true),
        })
    }

    /// No new group for a sender that has very many. Of two at once both may be taken.
    fn check_new(&self, delivery: &Delivery, sender: &str) -> Result<(), Error> {
        let object = delivery.groups.keys().next();
        let group = object.and_then(|object| object.rsplit_once('-'));
        let others = group.and_then(|(group, _)| self.groups.others(sender, group));
        match others {
            Some(count) if count >= self.max_groups => Err(Error::TooManyGroups(count)),
            _ => Ok(()),
        }
    }

    /// Whether it took a write.
    async fn store(
        &self,
        object: &str,
        delivered: &AlertGroupSpec,
        now: Timestamp,
    ) -> Result<bool, Error> {
        for attempt in 0..ATTEMPTS {
            let age = if attempt == 0 { Age::Any } else { Age::Newest };
            let stored = self.groups.group(object, age).await;
            let stored = stored.map_err(Error::Store)?;
            let Some(group) = merged(stored, object, delivered, now)? else {
                if age == Age::Any {
                    // What is no news to an old object may be to the newest.
                    continue;
                }
                return Ok(false);
            };
            match self.groups.put_group(group).await {
                Ok(()) => return Ok(true),
                Err(CallError::Conflict(_)) => {}
                Err(error) => return Err(Error::Store(error)),
            }
        }
        Err(Error::Contended)
    }
}

/// The object to write; none if the stored one says it all.
fn merged(
    stored: Option<AlertGroup>,
    object: &str,
    delivered: &AlertGroupSpec,
    now: Timestamp,
) -> Result<Option<AlertGroup>, Error> {
    let mut group = match stored {
        None => AlertGroup::new(object, delivered.clone()),
        Some(mut group) => {
            let corrected = evidence::correct(&mut group.spec, now);
            if !evidence::merge(&mut group.spec, delivered) && !corrected {
                return Ok(None);
            }
            group
        }
    };
    evidence::forget(&mut group.spec, now);
    let size_of =
        |spec: &AlertGroupSpec| serde_json::to_vec(spec).map_or(usize::MAX, |text| text.len());
    let mut size = size_of(&group.spec);
    if size > MAX_GROUP {
        evidence::forget_ended(&mut group.spec, now);
        size = size_of(&group.spec);
    }
    if size > MAX_GROUP {
        return Err(Error::GroupTooLarge(size));
    }
    Ok(Some(group))
}

/// Reads the body of a delivery: what is needed of each alert, by its own status. A label
/// that contradicts one of the `external` ones is.
pub fn decode(
    body: &[u8],
    sender: &str,
    external: &identity::Labels,
    now: Timestamp,
) -> Result<Delivery, Error> {
    let Object(raw): Object<Payload<'_>> = serde_json::from_slice(body).map_err(|error| {
        let text = quote(&error.to_string());
        if error.is_data() {
            Error::Shape(text)
        } else {
            Error::NotJson(text)
        }
    })?;
    if raw.version != "4" {
        return Err(Error::Version(quote(&raw.version)));
    }
    if raw.group_key.is_empty() || raw.receiver.is_empty() {
        return Err(Error::Shape("groupKey or receiver is missing".into()));
    }
    short("receiver", &raw.receiver, MAX_KEY)?;
    short("groupKey", &raw.group_key, MAX_KEY)?;
    let count = raw.alerts.items.len() + raw.alerts.more;
    if count > MAX_ALERTS {
        return Err(Error::TooManyAlerts(count));
    }
    let part = |bucket| AlertGroupSpec {
        sender: sender.to_owned(),
        receiver: raw.receiver.clone(),
        group_key: raw.group_key.clone(),
        bucket,
        truncated_at: (raw.truncated_alerts > 0).then_some(now),
        alerts: BTreeMap::new(),
    };
    let (mut parts, mut skipped) = (BTreeMap::new(), 0);
    for Object(alert) in raw.alerts.items {
        match alert.reduce(external, now)? {
            Some((fingerprint, alert)) => {
                let bucket = bucket(&fingerprint);
                let group = parts.entry(bucket).or_insert_with(|| part(bucket));
                // The same alert twice in one delivery is merged like two deliveries.
                evidence::merge_one(group, fingerprint, alert);
            }
            None => skipped += 1,
        }
    }
    let name = object_name(sender, &raw.receiver, &raw.group_key);
    let named = |(bucket, group)| (format!("{name}-{bucket:x}"), group);
    Ok(Delivery {
        groups: parts.into_iter().map(named).collect(),
        skipped,
        truncated: raw.truncated_alerts,
    })
}

/// How the names of the objects begin that hold a group.
fn object_name(sender: &str, receiver: &str, group_key: &str) -> String {
    format!("alerts-{}", digest(&[sender, receiver, group_key], 20))
}

/// A digest, since senders may choose fingerprints that begin or end alike.
fn bucket(fingerprint: &str) -> u8 {
    u8::from_str_radix(&digest(&[fingerprint], 2), 16).unwrap_or_default() % BUCKETS
}

fn short(what: &'static str, text: &str, most: usize) -> Result<(), Error> {
    if text.len() > most {
        return Err(Error::TooLong(what));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Payload<'a> {
    version: String,
    group_key: String,
    truncated_alerts: u64,
    receiver: String,
    #[serde(borrow)]
    alerts: Capped<Object<Alert<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    status: Status,
    #[serde(borrow)]
    labels: Labels<Text<'a>>,
    starts_at: Timestamp,
    #[serde(default)]
    ends_at: Option<Timestamp>,
    #[serde(borrow, default)]
    fingerprint: Cow<'a, str>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Firing,
    Resolved,
}

impl Alert<'_> {
    /// Its fingerprint and what is stored of it; none if it has no name.
    fn reduce(
        self,
        external: &identity::Labels,
        now: Timestamp,
    ) -> Result<Option<(String, StoredAlert)>, Error> {
        let count = self.labels.pairs.len() + self.labels.more;
        if count > MAX_LABELS {
            return Err(Error::TooManyLabels(count));
        }
        let fingerprint = self.fingerprint();
        let given = |label| self.labels.get(label).unwrap_or_default().to_owned();
        let (name, severity) = (given("alertname"), given("severity"));
        if name.is_empty() {
            return Ok(None);
        }
        short("an alert's name", &name, MAX_VALUE)?;
        short("a severity", &severity, MAX_VALUE)?;
        let mut labels = identity::Labels::new();
        for (Text(name), Text(value)) in self.labels.pairs {
            if identity::is_identity_label(&name) || identity::contradicts(&name, &value, external)
            {
                short("a label's value", &value, MAX_VALUE)?;
                labels.insert(name.into_owned(), value.into_owned());
            }
        }
        let firing = self.status == Status::Firing;
        // Go's zero time is how Alertmanager writes that there is none. An end that
        // was received cannot lie ahead of that: then its clock is ahead of ours.
        let end = self.ends_at.filter(|end| *end > zero()).unwrap_or(now);
        let alert = StoredAlert {
            name,
            labels,
            severity,
            starts_at: self.starts_at.max(zero()),
            last_firing: firing.then_some(now),
            last_resolved: (!firing).then_some(now),
            ends_at: (!firing).then_some(end.min(now)),
            end_received: (!firing).then_some(now),
        };
        Ok(Some((fingerprint, alert)))
    }

    /// Alertmanager's, or one of our own for senders that give none.
    fn fingerprint(&self) -> String {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if self.fingerprint.len() == 16 && self.fingerprint.bytes().all(hex) {
            return self.fingerprint.clone().into_owned();
        }
        let labels = self.labels.pairs.iter();
        let parts: Vec<&str> = labels
            .flat_map(|(name, value)| [&*name.0, &*value.0])
            .collect();
        digest(&parts, 16)
    }
}

/// `0001-01-01T00:00:00Z`
fn zero() -> Timestamp {
    Timestamp::constant(-62_135_596_800, 0)
}

/// Read from an object alone; serde would take a list of its fields as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        from.deserialize_map(Fields(PhantomData))
    }
}

/// A list of which so many are kept and the rest is only counted, so that a small body
/// cannot take much memory.
struct Capped<T, const MOST: usize = MAX_ALERTS> {
    items: Vec<T>,
    more: usize,
}

impl<T, const MOST: usize> Default for Capped<T, MOST> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            more: 0,
        }
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Capped<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List<T, const MOST: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
            type Value = Capped<T, MOST>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Capped::default();
                while list.items.len() < MOST {
                    match seq.next_element()? {
                        Some(item) => list.items.push(item),
                        None => return Ok(list),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    list.more += 1;
                }
                Ok(list)
            }
        }
        from.deserialize_seq(List(PhantomData))
    }
}

/// Labels, in the order of their names, of which so many are kept and the rest is only counted.
struct Labels<T = String, const MOST: usize = MAX_LABELS> {
    pairs: Vec<(T, T)>,
    more: usize,
}

impl<T: AsRef<str>, const MOST: usize> Labels<T, MOST> {
    /// The value of a label.
    fn get(&self, name: &str) -> Option<&str> {
        let place = self.place(name).ok()?;
        Some(self.pairs[place].1.as_ref())
    }

    /// Where it is, or would be.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.pairs
            .binary_search_by(|(known, _)| known.as_ref().cmp(name))
    }
}

impl<'de, T: Deserialize<'de> + AsRef<str>, const MOST: usize> Deserialize<'de>
    for Labels<T, MOST>
{
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pairs<T, const MOST: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + AsRef<str>, const MOST: usize> Visitor<'de> for Pairs<T, MOST> {
            type Value = Labels<T, MOST>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("labels")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut labels = Labels {
                    pairs: Vec::new(),
                    more: 0,
                };
                while labels.pairs.len() < MOST {
                    let Some((name, value)) = map.next_entry::<T, T>()? else {
                        return Ok(labels);
                    };
                    match labels.place(name.as_ref()) {
                        Ok(_) => return Err(serde::de::Error::custom("a label twice")),
                        Err(place) => labels.pairs.insert(place, (name, value)),
                    }
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    labels.more += 1;
                }
                Ok(labels)
            }
        }
        from.deserialize_map(Pairs(PhantomData))
    }
}

/// Text that is read in place, where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
pub(crate) mod tests;
