//! The alert groups, which any replica reads and writes: what can be known of them without
//! a question is not asked.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use kube::api::{GetParams, PartialObjectMeta};
use nodemend_core::api::AlertGroup;
use serde::Deserialize;

use super::{Failure, Followed, Kubernetes, follow, found, name_of, plain, written};
use crate::controller::{Age, Groups, other_groups};
use crate::exec::CallError;

/// Asks the API for no more than an object's metadata.
const METADATA_ALONE: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// A copy of which nothing was heard for this long is asked nothing.
const SILENCE: Duration = Duration::from_secs(90);
/// The most objects that are kept as they were written.
const KEPT: usize = 64;
/// Their most bytes as JSON; in memory they take three to seven times as much.
const KEPT_BYTES: usize = 8 << 20;

/// What a replica knows of all groups; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Every object, by the watch and by what was written here.
    copy: Followed<Stored>,
    kept: Arc<Mutex<Kept>>,
}

/// What was written here last, the latest at the end, and its bytes as JSON.
#[derive(Debug, Default)]
struct Kept(VecDeque<(Arc<AlertGroup>, usize)>);

/// What is remembered of every object.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    sender: String,
    version: Option<String>,
}

/// An object of which no more is read than is remembered: a large delivery changes many.
#[derive(Clone, Debug, Deserialize)]
struct Seen {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Whose,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Whose {
    #[serde(default)]
    sender: String,
}

impl Known {
    /// Takes in an object as it was stored just now.
    fn note(&self, group: AlertGroup, bytes: usize) {
        let stored = Stored {
            sender: group.spec.sender.clone(),
            version: group.metadata.resource_version.clone(),
        };
        self.copy.note(name_of(&group), stored);
        self.lock().put(group, bytes);
    }

    /// The object of this name, if this version of it was written here.
    fn kept(&self, name: &str, version: &str) -> Option<Arc<AlertGroup>> {
        self.lock().get(name, version)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A panic elsewhere leaves whole objects.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn put(&mut self, group: AlertGroup, bytes: usize) {
        let name = &group.metadata.name;
        self.0.retain(|(known, _)| known.metadata.name != *name);
        self.0.push_back((Arc::new(group), bytes));
        let mut total: usize = self.0.iter().map(|(_, bytes)| bytes).sum();
        while self.0.len() > KEPT || total > KEPT_BYTES {
            total -= self.0.pop_front().map_or(total, |(_, bytes)| bytes);
        }
    }

    fn get(&self, name: &str, version: &str) -> Option<Arc<AlertGroup>> {
        let is = |group: &AlertGroup| {
            let meta = &group.metadata;
            meta.name.as_deref() == Some(name) && meta.resource_version.as_deref() == Some(version)
        };
        let found = self.0.iter().find(|(group, _)| is(group));
        found.map(|(group, _)| Arc::clone(group))
    }
}

impl Kubernetes {
    /// Keeps in mind which alert groups there are and whose, until dropped. Every replica does:
    /// each takes deliveries.
    pub async fn follow_groups(self) {
        let stored = |seen: &Seen| Stored {
            sender: seen.spec.sender.clone(),
            version: seen.metadata.resource_version.clone(),
        };
        let copy = self.groups.copy.clone();
        follow(self, stored, copy, Arc::default()).await;
    }

    /// Whether the first list of the alert groups is there.
    pub fn knows_groups(&self) -> bool {
        self.groups.copy.ask(|_| ()).is_some()
    }
}

impl kube::Resource for Seen {
    type DynamicType = ();
    type Scope = <AlertGroup as kube::Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        AlertGroup::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        AlertGroup::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        AlertGroup::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        AlertGroup::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Groups for Kubernetes {
    async fn group(&self, name: &str, age: Age) -> Result<Option<AlertGroup>, CallError> {
        let params = match age {
            Age::Any => {
                let copy = &self.groups.copy;
                let stored = copy.ask_within(SILENCE, |copy| copy.get(name).cloned());
                if stored == Some(None) {
                    return Ok(None);
                }
                // The same version is the same object.
                let version = stored.flatten().and_then(|stored| stored.version);
                let kept = version.and_then(|version| self.groups.kept(name, &version));
                if let Some(kept) = kept {
                    return Ok(Some(AlertGroup::clone(&kept)));
                }
                // From the API server's cache.
                GetParams::any()
            }
            Age::Newest => GetParams::default(),
        };
        found(
            self.call(self.api::<AlertGroup>().get_with(name, &params))
                .await,
        )
    }

    /// Any replica writes groups, so no lease is asked for.
    async fn put_group(&self, mut group: AlertGroup) -> Result<(), CallError> {
        let body = serde_json::to_vec(&group).expect("text keys and plain values");
        let bytes = body.len();
        let api = kube::core::Request::new(AlertGroup::url_path(&(), None));
        let is_new = group.metadata.resource_version.is_none();
        let request = if is_new {
            api.create(&written(), body)
        } else {
            api.replace(&name_of(&group), &written(), body)
        };
        let mut request = request.map_err(|error| CallError::Refused(plain(&error)))?;
        // Else all of it would come back.
        let accept = METADATA_ALONE.parse().expect("plain ASCII");
        request.headers_mut().insert("accept", accept);
        let answer = self
            .client
            .request::<PartialObjectMeta<AlertGroup>>(request);
        group.metadata = match self.call(answer).await {
            Ok(stored) => stored.metadata,
            Err(failure) => {
                let is_gone = matches!(&failure, Failure::Status(status) if status.code == 404);
                return Err(if is_gone && !is_new {
                    // It was deleted after it was read.
                    CallError::Conflict(failure.message())
                } else {
                    failure.into()
                });
            }
        };
        // A write without them leaves them as they are.
        group.metadata.managed_fields = None;
        self.groups.note(group, bytes);
        Ok(())
    }

    fn others(&self, sender: &str, group: &str) -> Option<usize> {
        // What one object of a group says all do, and the names of a group's lie together.
        let first = format!("{group}-");
        let counted = self.groups.copy.ask(|stored| {
            let mut known = stored.range(first.clone()..);
            if known
                .next()
                .is_some_and(|(name, _)| name.starts_with(&first))
            {
                return None;
            }
            let stored = stored.iter();
            let stored = stored.map(|(name, stored)| (name.as_str(), stored.sender.as_str()));
            other_groups(stored, sender, group)
        });
        counted.flatten()
    }
}

#[cfg(test)]
mod tests {
    use nodemend_core::api::AlertGroupSpec;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::fake::api;

    /// How long anything may take here.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn group(name: &str, sender: &str) -> AlertGroup {
        let spec = AlertGroupSpec {
            sender: sender.into(),
            ..AlertGroupSpec::default()
        };
        AlertGroup::new(name, spec)
    }

    fn at_version(version: &str) -> AlertGroup {
        let mut group = group("alerts-a-0", "x");
        group.metadata.resource_version = Some(version.into());
        group
    }

    /// What the API says of a write that it took.
    fn taken(version: &str) -> Vec<Value> {
        vec![
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata":
            {"name": "alerts-a-0", "uid": "u", "resourceVersion": version,
            "annotations": {"of": "somebody"}, "managedFields": [{"manager": "nodemend"}]}}),
        ]
    }

    fn refused(code: u16) -> Vec<Value> {
        vec![
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
            "code": code, "reason": "x", "message": "no"}),
        ]
    }

    /// An API with these answers, and a copy that was heard just now, of no objects.
    fn known(mut answers: Vec<Vec<Value>>) -> (Kubernetes, Arc<Mutex<Vec<String>>>) {
        // The last one has no end.
        answers.push(vec![]);
        let (cluster, asked) = api(answers);
        cluster.groups.copy.set([].into());
        (cluster, asked)
    }

    async fn read(cluster: &Kubernetes, age: Age) -> Option<AlertGroup> {
        let group = cluster.group("alerts-a-0", age).await;
        group.unwrap()
    }

    #[tokio::test]
    async fn an_object_that_the_copy_does_not_know_is_not_asked_for() {
        let (cluster, asked) = known(vec![refused(404), vec![json!(at_version("7"))]]);
        assert_eq!(read(&cluster, Age::Any).await, None);
        assert!(asked.lock().unwrap().is_empty());
        assert_eq!(read(&cluster, Age::Newest).await, None);
        // Silence is no knowledge.
        cluster.groups.copy.silent_for(SILENCE);
        assert_eq!(read(&cluster, Age::Any).await, Some(at_version("7")));
        let path = "GET /apis/nodemend.dev/v1alpha1/alertgroups/alerts-a-0";
        let any = format!("{path}?&resourceVersion=0");
        assert_eq!(*asked.lock().unwrap(), [path.to_owned(), any]);

        let (cluster, asked) = api(vec![vec![json!(at_version("7"))], vec![]]);
        assert_eq!(read(&cluster, Age::Any).await, Some(at_version("7")));
        assert_eq!(asked.lock().unwrap().len(), 1, "nothing is listed yet");
    }

    #[tokio::test]
    async fn what_was_written_here_is_not_read_again_as_long_as_it_is_so() {
        let newer = vec![json!(at_version("8"))];
        let answers = vec![taken("6"), taken("7"), newer.clone(), newer];
        let (cluster, asked) = known(answers);
        cluster.put_group(group("alerts-a-0", "x")).await.unwrap();
        let kept = read(&cluster, Age::Any).await.unwrap();
        assert_eq!(kept.spec, group("", "x").spec);
        assert_eq!(kept.metadata.uid.as_deref(), Some("u"));
        assert_eq!(kept.metadata.managed_fields, None);
        cluster.put_group(kept).await.unwrap();
        let kept = read(&cluster, Age::Any).await.unwrap();
        assert_eq!(kept.metadata.resource_version.as_deref(), Some("7"));
        {
            let asked = asked.lock().unwrap();
            let [create, replace] = &asked[..] else {
                panic!("{asked:?}")
            };
            assert!(create.starts_with("POST ") && replace.starts_with("PUT "));
            for part in [r#""resourceVersion":"6""#, r#""of":"somebody""#] {
                assert!(replace.contains(part), "{replace}");
            }
            assert!(!replace.contains("managedFields"), "{replace}");
        }
        // Another replica wrote, and an event of before that comes late.
        for (index, version) in ["8", "6"].into_iter().enumerate() {
            let stored = Stored {
                sender: "x".into(),
                version: Some(version.into()),
            };
            cluster
                .groups
                .copy
                .change("alerts-a-0".into(), Some(stored));
            assert_eq!(read(&cluster, Age::Any).await, Some(at_version("8")));
            assert_eq!(asked.lock().unwrap().len(), 3 + index);
        }
        // The leader forgot it.
        cluster.groups.copy.change("alerts-a-0".into(), None);
        assert_eq!(read(&cluster, Age::Any).await, None);
    }

    #[tokio::test]
    async fn the_list_says_whether_what_was_written_here_is_still_so() {
        for (listed, questions) in [("7", 3), ("8", 4)] {
            let page = json!({"apiVersion": "nodemend.dev/v1alpha1", "kind": "AlertGroupList",
                "metadata": {"resourceVersion": "9"}, "items": [at_version(listed)]});
            let event = json!({"type": "MODIFIED", "object": at_version(listed)});
            let answers = vec![
                taken("7"),
                vec![page],
                vec![event],
                vec![json!(at_version("8"))],
            ];
            let (cluster, asked) = known(answers);
            cluster.put_group(group("alerts-a-0", "x")).await.unwrap();
            cluster.groups.copy.silent_for(SILENCE);
            let mut looks = tokio::time::interval(Duration::from_millis(5));
            let heard = async {
                while asked.lock().unwrap().len() < 3 || !cluster.groups.copy.heard_within(SILENCE)
                {
                    looks.tick().await;
                }
            };
            tokio::select! {
                () = cluster.clone().follow_groups() => panic!("it ended"),
                done = tokio::time::timeout(PATIENCE, heard) => done.expect("in time"),
            }
            let version = read(&cluster, Age::Any).await.unwrap();
            assert_eq!(version.metadata.resource_version.as_deref(), Some(listed));
            assert_eq!(asked.lock().unwrap().len(), questions, "{listed}");
        }
    }

    #[tokio::test]
    async fn h2_an_object_that_is_not_as_it_was_known_is_a_conflict() {
        let answers = [409, 409, 404, 404].map(refused).to_vec();
        let (cluster, asked) = known(answers);
        let (new, old) = (group("alerts-a-0", "x"), at_version("6"));
        for (group, why) in [
            (&new, "somebody created it"),
            (&old, "somebody changed it, or made another of this name"),
            (&old, "it was deleted"),
        ] {
            let error = cluster.put_group(group.clone()).await.unwrap_err();
            assert!(matches!(error, CallError::Conflict(_)), "{why}: {error}");
        }
        let undefined = cluster.put_group(new).await.unwrap_err();
        assert!(matches!(undefined, CallError::Refused(_)), "{undefined}");
        assert_eq!(asked.lock().unwrap().len(), 4);
        assert_eq!(read(&cluster, Age::Any).await, None, "nothing was noted");
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let known = Known::default();
        let names = |range: std::ops::Range<usize>| range.map(|number| number.to_string());
        let note = |name: String, bytes| {
            let mut group = group(&name, "x");
            group.metadata.resource_version = Some("1".into());
            known.note(group, bytes);
        };
        let kept = |range| names(range).filter(|name| known.kept(name, "1").is_some());
        names(0..KEPT).for_each(|name| note(name, 1));
        // It is there but once, and the latest.
        note("0".into(), 1);
        assert_eq!(kept(0..KEPT).count(), KEPT);
        note(KEPT.to_string(), 1);
        assert_eq!(kept(0..KEPT + 1).count(), KEPT);
        assert_eq!(known.kept("1", "1"), None);
        note("half".into(), KEPT_BYTES / 2);
        assert_eq!(kept(0..KEPT + 1).count(), KEPT - 1);
        note("all".into(), KEPT_BYTES);
        assert_eq!(known.lock().0.len(), 1);
        note("more".into(), KEPT_BYTES + 1);
        assert!(known.lock().0.is_empty());
    }

    #[tokio::test]
    async fn h71_the_groups_of_a_sender_are_counted_from_what_is_stored() {
        let stored = [
            ("alerts-a-0", "x"),
            ("alerts-a-f", "x"),
            ("alerts-b-3", "y"),
            ("alerts-c-0", "x"),
        ];
        let items = stored.map(|(name, sender)| json!(group(name, sender)));
        let page = json!({"apiVersion": "nodemend.dev/v1alpha1", "kind": "AlertGroupList",
            "metadata": {"resourceVersion": "5"}, "items": items});
        let (cluster, _) = api(vec![vec![page], vec![]]);
        assert_eq!(
            cluster.others("x", "alerts-d"),
            None,
            "nothing is known yet"
        );
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        let listed = async {
            while !cluster.knows_groups() {
                looks.tick().await;
            }
        };
        tokio::select! {
            () = cluster.clone().follow_groups() => panic!("it ended"),
            done = tokio::time::timeout(PATIENCE, listed) => done.expect("in time"),
        }
        let check = |sender: &str, name: &str, expect| {
            assert_eq!(cluster.others(sender, name), expect, "{sender} {name}");
        };
        check("x", "alerts-d", Some(2));
        check("x", "alerts-a", None);
        check("y", "alerts-d", Some(1));
        check("z", "alerts-d", Some(0));
        // What was written here counts before the watch tells of it.
        cluster.groups.note(group("alerts-d-1", "x"), 1);
        check("x", "alerts-d", None);
        check("x", "alerts-e", Some(3));
    }
}
