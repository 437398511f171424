//! Keeps a copy of all objects of a kind: a consistent list, then a watch with
//! bookmarks. kube's own watcher hides bookmarks and notices a dead stream only
//! after minutes; here lists, events and bookmarks are the signs of life, so that silence
//! can be told from quiet. That a watch begins is none: whoever answers may know nothing.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, pin_mut};
use kube::api::{ListParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::{CALL_DEADLINE, Failure, Kubernetes, PAGE, name_of, plain};

/// The server ends a watch after this many seconds, just before that it sends a bookmark.
const WATCH_SECONDS: u32 = 30;
/// After so many watches without an event or a bookmark all is listed again.
const MUTE: u32 = 2;
/// A stream that says nothing for this long is dead.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// A server that ends watches sooner than this is not asked more often.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long to wait after a failure, doubled each time up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// A copy that a `follow` keeps up to date.
#[derive(Debug)]
pub struct Followed<T>(Arc<Mutex<Copied<T>>>);

#[derive(Debug)]
struct Copied<T> {
    objects: BTreeMap<String, T>,
    alive: u64,
    read: u64,
    heard: Option<Instant>,
}

impl<T> Clone for Followed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Followed<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Copied {
            objects: BTreeMap::new(),
            alive: 0,
            read: 0,
            heard: None,
        })))
    }
}

impl<T: Clone + PartialEq> Followed<T> {
    /// All objects by name, if the API gave a sign of life since this was asked last.
    pub fn news(&self) -> Option<BTreeMap<String, T>> {
        let mut copied = self.lock();
        if copied.alive == copied.read {
            return None;
        }
        copied.read = copied.alive;
        Some(copied.objects.clone())
    }

    /// The same, if the last sign of life is not older than this.
    pub fn news_within(&self, time: Duration) -> Option<BTreeMap<String, T>> {
        self.news().filter(|_| self.heard_within(time))
    }

    /// Whether the API gave a sign of life within this time; never before the first list.
    pub fn heard_within(&self, time: Duration) -> bool {
        self.lock()
            .heard
            .is_some_and(|heard| heard.elapsed() <= time)
    }

    /// Asks the copy itself; nothing before the first list.
    pub(super) fn ask<R>(&self, ask: impl FnOnce(&BTreeMap<String, T>) -> R) -> Option<R> {
        let copied = self.lock();
        copied.heard.map(|_| ask(&copied.objects))
    }

    /// The same, if the last sign of life is not older than this.
    pub(super) fn ask_within<R>(
        &self,
        time: Duration,
        ask: impl FnOnce(&BTreeMap<String, T>) -> R,
    ) -> Option<R> {
        let copied = self.lock();
        let lately = copied.heard.filter(|heard| heard.elapsed() <= time);
        lately.map(|_| ask(&copied.objects))
    }

    /// Notes an object that was written here, ahead of the watch. It is no sign of life.
    pub(super) fn note(&self, name: String, object: T) {
        self.lock().objects.insert(name, object);
    }

    /// As if nothing had been heard for this long.
    #[cfg(test)]
    pub(super) fn silent_for(&self, time: Duration) {
        let mut copied = self.lock();
        copied.heard = copied.heard.and_then(|heard| heard.checked_sub(time));
    }

    fn lock(&self) -> MutexGuard<'_, Copied<T>> {
        // A panic elsewhere leaves the map whole: every change is one statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, objects: BTreeMap<String, T>) {
        let mut copied = self.lock();
        copied.objects = objects;
        copied.alive();
    }

    /// Whether that made a difference: most changes of a node are its heartbeats.
    pub(super) fn change(&self, name: String, object: Option<T>) -> bool {
        let mut copied = self.lock();
        copied.alive();
        if copied.objects.get(&name) == object.as_ref() {
            return false;
        }
        match object {
            Some(object) => copied.objects.insert(name, object),
            None => copied.objects.remove(&name),
        };
        true
    }
}

impl<T> Copied<T> {
    #[expect(
        clippy::disallowed_methods,
        reason = "silence is measured by this process' monotonic clock"
    )]
    fn alive(&mut self) {
        self.alive += 1;
        self.heard = Some(Instant::now());
    }
}

/// Follows every object of a kind until dropped; `wake` hears of each change.
pub async fn follow<K, T>(
    cluster: Kubernetes,
    reduce: impl Fn(&K) -> T,
    into: Followed<T>,
    wake: Arc<Notify>,
) where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Clone + PartialEq,
{
    let kind = K::kind(&()).into_owned();
    let mut pause = RETRY.0;
    loop {
        let started = into.lock().alive;
        let ended = round(&cluster, &reduce, &into, &wake, SILENCE).await;
        // The list alone does not make it sound.
        if into.lock().alive > started + 1 {
            pause = RETRY.0;
        }
        match ended {
            Ended::Expired => tracing::debug!(kind, "the watch is too old, listing again"),
            Ended::Failed(message) => {
                tracing::warn!(kind, error = message, "watching failed, trying again");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Why a round of list and watches ended.
enum Ended {
    Expired,
    Failed(String),
}

async fn round<K, T>(
    cluster: &Kubernetes,
    reduce: &impl Fn(&K) -> T,
    into: &Followed<T>,
    wake: &Notify,
    silence: Duration,
) -> Ended
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Clone + PartialEq,
{
    let mut version = match list(cluster, reduce, into).await {
        Ok(version) => version,
        Err(failure) => return Ended::Failed(failure.message()),
    };
    wake.notify_one();
    let api = cluster.api::<K>();
    let mut mute = 0;
    while mute < MUTE {
        mute += 1;
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        let begun = tokio::time::timeout(CALL_DEADLINE, api.watch(&params, &version)).await;
        let stream = match begun {
            Err(_) => return Ended::Failed(Failure::Timeout.message()),
            Ok(Err(error)) => return expired_or(&error),
            Ok(Ok(stream)) => stream,
        };
        let next = tokio::time::Instant::now() + SHORTEST;
        pin_mut!(stream);
        loop {
            let event = match tokio::time::timeout(silence, stream.next()).await {
                Err(_) => return Ended::Failed("the watch is silent".into()),
                Ok(None) => {
                    sleep_until(next).await;
                    break;
                }
                Ok(Some(Err(error))) => return expired_or(&error),
                Ok(Some(Ok(event))) => event,
            };
            mute = 0;
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    version = version_of(&object).unwrap_or(version);
                    if into.change(name_of(&object), Some(reduce(&object))) {
                        wake.notify_one();
                    }
                }
                WatchEvent::Deleted(object) => {
                    version = version_of(&object).unwrap_or(version);
                    if into.change(name_of(&object), None) {
                        wake.notify_one();
                    }
                }
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    into.lock().alive();
                }
                WatchEvent::Error(status) if status.code == 410 => return Ended::Expired,
                WatchEvent::Error(status) => return Ended::Failed(status.message.clone()),
            }
        }
    }
    Ended::Failed("watches end without a word".into())
}

fn expired_or(error: &kube::Error) -> Ended {
    match error {
        kube::Error::Api(status) if status.code == 410 => Ended::Expired,
        other => Ended::Failed(plain(other)),
    }
}

fn version_of<K: kube::Resource>(object: &K) -> Option<String> {
    object.meta().resource_version.clone()
}

/// Gives back the version to watch from.
async fn list<K, T>(
    cluster: &Kubernetes,
    reduce: &impl Fn(&K) -> T,
    into: &Followed<T>,
) -> Result<String, Failure>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    T: Clone + PartialEq,
{
    let api = cluster.api::<K>();
    let mut objects = BTreeMap::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = cluster.call(api.list(&params)).await?;
        for object in page.items {
            objects.insert(name_of(&object), reduce(&object));
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            into.set(objects);
            return Ok(page.metadata.resource_version.unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::fake::api;

    /// How long anything may take here.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn node(name: &str, version: &str) -> Value {
        json!({"metadata": {"name": name, "resourceVersion": version, "uid": name}})
    }

    fn list(version: &str, nodes: &[Value]) -> Vec<Value> {
        let meta = json!({"resourceVersion": version});
        vec![json!({"apiVersion": "v1", "kind": "NodeList", "metadata": meta, "items": nodes})]
    }

    fn event(kind: &str, object: &Value) -> Value {
        json!({"type": kind, "object": object})
    }

    fn bookmark(version: &str) -> Value {
        let meta = json!({"resourceVersion": version});
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": meta});
        event("BOOKMARK", &object)
    }

    /// Follows until the copy is as expected, and `count` questions were asked.
    async fn check(answers: Vec<Vec<Value>>, expect: &[&str], count: usize) -> Vec<String> {
        let (cluster, asked) = api(answers);
        let (copy, wake) = (Followed::default(), Arc::new(Notify::new()));
        assert!(!copy.heard_within(PATIENCE), "before the first list");
        let name = |node: &Node| node.metadata.name.clone();
        let following = follow(cluster, name, copy.clone(), Arc::clone(&wake));
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        let arrived = async {
            loop {
                looks.tick().await;
                let names: Vec<String> = copy.lock().objects.keys().cloned().collect();
                if names == expect && asked.lock().unwrap().len() >= count {
                    return;
                }
            }
        };
        tokio::select! {
            () = following => panic!("it ended"),
            done = tokio::time::timeout(PATIENCE, arrived) => done.expect("in time"),
        }
        assert!(copy.heard_within(PATIENCE) && !copy.heard_within(Duration::ZERO));
        let asked = asked.lock().unwrap();
        asked.clone()
    }

    #[tokio::test]
    async fn h24_a_watch_that_is_too_old_lists_again_what_is_there_now() {
        let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
            "code": 410, "reason": "Expired", "message": "too old"});
        let answers = vec![
            list("5", &[node("a", "3"), node("b", "4")]),
            vec![event("ADDED", &node("c", "6")), event("ERROR", &gone)],
            // The deletions of `a` and `c` were missed.
            list("20", &[node("b", "4")]),
            vec![
                event("DELETED", &node("b", "21")),
                event("ADDED", &node("d", "22")),
            ],
        ];
        let asked = check(answers, &["d"], 4).await;
        for list in [&asked[0], &asked[2]] {
            // Without a version: the newest, not what some cache has.
            assert!(
                list.contains("limit=500") && !list.contains("resourceVersion"),
                "{list}"
            );
        }
        for (watch, version) in [(&asked[1], "5"), (&asked[3], "20")] {
            for part in [
                "watch=true",
                "allowWatchBookmarks=true",
                "timeoutSeconds=30",
            ] {
                assert!(watch.contains(part), "{watch}");
            }
            assert!(
                watch.ends_with(&format!("resourceVersion={version}")),
                "{watch}"
            );
        }
    }

    #[tokio::test]
    async fn h88_an_object_that_cannot_be_read_spoils_no_list() {
        use crate::cluster::StoredPolicy;
        let policy = |name: &str, spec: Value| {
            json!({"apiVersion": "nodemend.dev/v1alpha1", "kind": "RepairPolicy",
                "metadata": {"name": name, "resourceVersion": "3"}, "spec": spec})
        };
        let page = json!({"apiVersion": "nodemend.dev/v1alpha1", "kind": "RepairPolicyList",
            "metadata": {"resourceVersion": "5"},
            "items": [policy("bad", json!({"mode": "Dream"})), policy("good", json!({}))]});
        let none = policy("none", Value::Null);
        let changes = vec![
            event("ADDED", &none),
            event("MODIFIED", &policy("bad", json!(1))),
        ];
        let (cluster, _) = api(vec![vec![page], changes, vec![]]);
        let (copy, wake) = (Followed::default(), Arc::new(Notify::new()));
        let following = follow(cluster, StoredPolicy::clone, copy.clone(), wake);
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        let arrived = async {
            loop {
                looks.tick().await;
                let objects = copy.lock().objects.clone();
                let names: Vec<&str> = objects.keys().map(String::as_str).collect();
                if names == ["bad", "good", "none"] && objects["bad"].spec == 1 {
                    return;
                }
            }
        };
        tokio::select! {
            () = following => panic!("it ended"),
            done = tokio::time::timeout(PATIENCE, arrived) => done.expect("in time"),
        }
    }

    #[tokio::test]
    async fn h24_a_watch_goes_on_from_the_last_bookmark() {
        let answers = vec![
            list("5", &[node("a", "3")]),
            vec![event("MODIFIED", &node("a", "6")), bookmark("90")],
            vec![],
        ];
        let asked = check(answers, &["a"], 3).await;
        assert!(asked[2].ends_with("resourceVersion=90"), "{}", asked[2]);
    }

    #[tokio::test]
    async fn a_watch_without_a_sign_of_life_is_dead() {
        let answers = vec![
            list("5", &[node("a", "3")]),
            vec![event("ADDED", &node("b", "6"))],
        ];
        let (cluster, asked) = api(answers);
        let copy = Followed::default();
        let name = |node: &Node| node.metadata.name.clone();
        let (wake, silence) = (Notify::new(), Duration::from_millis(20));
        let round = round(&cluster, &name, &copy, &wake, silence);
        let ended = tokio::time::timeout(PATIENCE, round).await;
        let ended = ended.expect("it notices");
        assert!(matches!(ended, Ended::Failed(why) if why == "the watch is silent"));
        assert_eq!(copy.lock().objects.len(), 2, "what was heard before counts");
        assert_eq!(asked.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn h24_watches_that_begin_and_end_are_no_sign_of_life() {
        let answers = vec![
            list("5", &[node("a", "3")]),
            vec![],
            // A word, and two watches without any after it.
            vec![bookmark("6")],
            vec![],
            vec![],
            list("9", &[node("a", "3"), node("b", "8")]),
            vec![],
        ];
        let (cluster, asked) = api(answers);
        let copy = Followed::default();
        let name = |node: &Node| node.metadata.name.clone();
        let wake = Notify::new();
        let once = round(&cluster, &name, &copy, &wake, SILENCE);
        let ended = tokio::time::timeout(PATIENCE, once).await;
        let ended = ended.expect("it gives up");
        assert!(matches!(ended, Ended::Failed(why) if why == "watches end without a word"));
        assert_eq!(asked.lock().unwrap().len(), 5);
        assert_eq!(copy.lock().alive, 2, "the list and the bookmark");
        let again = round(&cluster, &name, &copy, &wake, Duration::from_millis(20));
        tokio::time::timeout(PATIENCE, again).await.expect("silent");
        assert_eq!(copy.lock().objects.len(), 2, "what was missed is found");
    }

    #[test]
    fn each_sign_of_life_is_news_and_only_a_change_is_a_change() {
        let copy = Followed::default();
        assert_eq!(copy.news(), None);
        copy.set([("a".to_owned(), 1)].into());
        assert_eq!(copy.news(), Some([("a".to_owned(), 1)].into()));
        assert_eq!(copy.news(), None);
        assert!(!copy.change("a".into(), Some(1)), "a heartbeat");
        assert!(copy.news().is_some());
        copy.lock().alive();
        assert!(copy.news().is_some(), "a bookmark");
        assert!(copy.change("a".into(), None));
        assert_eq!(copy.news(), Some(BTreeMap::new()));
        copy.lock().alive();
        assert_eq!(copy.news_within(Duration::ZERO), None, "too old by now");
        copy.lock().alive();
        assert!(copy.news_within(PATIENCE).is_some());
    }
}
