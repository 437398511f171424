//! Keeps a copy of all objects of a kind: a consistent list, then a watch with
//! bookmarks. kube's own watcher hides bookmarks and notices a dead stream only
//! after minutes; here every sign of life counts, so that silence can be told
//! from quiet.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, pin_mut};
use kube::api::{ListParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::{CALL_DEADLINE, Failure, Kubernetes, PAGE, name_of, plain};

/// The server ends a watch after this many seconds; beginning it anew is a sign of life.
const WATCH_SECONDS: u32 = 30;
/// A stream that says nothing for this long is dead.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
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

    /// Whether the API gave a sign of life within this time; never before the first list.
    pub fn heard_within(&self, time: Duration) -> bool {
        self.lock()
            .heard
            .is_some_and(|heard| heard.elapsed() <= time)
    }

    fn lock(&self) -> MutexGuard<'_, Copied<T>> {
        // A panic elsewhere leaves the map whole: every change is one statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, objects: BTreeMap<String, T>) {
        let mut copied = self.lock();
        copied.objects = objects;
        copied.alive();
    }

    /// Whether that made a difference: most changes of a node are its heartbeats.
    fn change(&self, name: String, object: Option<T>) -> bool {
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
        let ended = round(&cluster, &reduce, &into, &wake).await;
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
    loop {
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        let begun = tokio::time::timeout(CALL_DEADLINE, api.watch(&params, &version)).await;
        let stream = match begun {
            Err(_) => return Ended::Failed(Failure::Timeout.message()),
            Ok(Err(error)) => return expired_or(&error),
            Ok(Ok(stream)) => stream,
        };
        into.lock().alive();
        pin_mut!(stream);
        loop {
            let event = match tokio::time::timeout(SILENCE, stream.next()).await {
                Err(_) => return Ended::Failed("the watch is silent".into()),
                Ok(None) => break,
                Ok(Some(Err(error))) => return expired_or(&error),
                Ok(Some(Ok(event))) => event,
            };
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
