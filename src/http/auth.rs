//! Who a sender is: by a certificate, a token, a password, or the Kubernetes API's word.
//! Secrets come from files that are read for each request, so a new one counts at once.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::header;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use nodemend_core::model::{Span, digest};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::tls::ClientNames;
use super::webhook::{Refusal, Refused};
use crate::controller::TokenReviews;

/// A secret is shorter than this, in bytes.
const MAX_SECRET: u64 = 4096;
/// How long the API's word on a token counts.
const REVIEW_TTL: Span = Span::seconds(60);
/// How many answers are remembered.
const MAX_REVIEWS: usize = 256;
/// Questions to the API at the same time.
const REVIEWS_AT_ONCE: usize = 8;
/// Requests that ask or wait for their turn: strangers' must not fill every place.
const REVIEW_LINE: usize = 32;

/// Who may deliver.
#[derive(Debug)]
pub enum Auth {
    /// Anyone.
    Anonymous,
    /// Whom one of these knows, the first that does; nobody if there are none.
    AnyOf(Vec<Method>),
}

/// A way to authenticate.
#[derive(Debug)]
pub enum Method {
    /// A client certificate with one of these DNS names or URIs.
    Certificate(Vec<String>),
    /// The bearer token that this file holds; no file or an empty one lets nobody in.
    TokenFile(PathBuf),
    /// This name, and the password that the file holds.
    Basic(String, PathBuf),
    /// The token of a service account.
    Review(Reviews),
}

impl Auth {
    /// The identity under which a delivery is stored. `now` is only for what is remembered.
    pub(super) async fn sender(&self, head: &Parts, now: Timestamp) -> Result<String, Refused> {
        let Self::AnyOf(methods) = self else {
            return Ok("anonymous".to_owned());
        };
        let mut refused = None;
        for method in methods {
            match method.sender(head, now).await {
                Ok(sender) => return Ok(sender),
                // What is our own fault, a 503, is worth another try: it must not look final.
                Err(why) if refused.is_none() || why.is_ours() => refused = Some(why),
                Err(_) => {}
            }
        }
        Err(refused.unwrap_or_else(|| unauthorized("nobody may deliver")))
    }
}

impl Method {
    async fn sender(&self, head: &Parts, now: Timestamp) -> Result<String, Refused> {
        match self {
            Self::Certificate(names) => {
                let Some(ClientNames(shown)) = head.extensions.get() else {
                    return Err(unauthorized("no client certificate"));
                };
                let found = names.iter().find(|name| shown.contains(name));
                let found = found.ok_or_else(|| {
                    let text = "the client certificate has none of the wanted names";
                    Refused::new(Refusal::Certificate, text)
                })?;
                Ok(format!("certificate/{found}"))
            }
            Self::TokenFile(file) => {
                let wanted = secret(file)?;
                let given = credentials(head, "bearer");
                same(given, &wanted, "the bearer token is missing or wrong")?;
                Ok("token".to_owned())
            }
            Self::Basic(name, file) => {
                let wanted = BASE64_STANDARD.encode(format!("{name}:{}", secret(file)?));
                let given = credentials(head, "basic");
                same(given, &wanted, "the name or password is missing or wrong")?;
                Ok(format!("basic/{name}"))
            }
            Self::Review(reviews) => reviews.sender(credentials(head, "bearer"), now).await,
        }
    }
}

/// What the `Authorization` header says under this scheme; empty if nothing.
fn credentials<'a>(head: &'a Parts, scheme: &str) -> &'a str {
    head.headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.split_once(' '))
        .filter(|(given, _)| given.eq_ignore_ascii_case(scheme))
        .map_or("", |(_, credentials)| credentials.trim())
}

fn same(given: &str, wanted: &str, text: &str) -> Result<(), Refused> {
    if bool::from(given.as_bytes().ct_eq(wanted.as_bytes())) {
        Ok(())
    } else {
        Err(unauthorized(text))
    }
}

fn unauthorized(text: &str) -> Refused {
    Refused::new(Refusal::Unauthorized, text)
}

/// The secret of a file, if there is one that could be. A small blocking read of a
/// mounted secret: the router may need no runtime.
fn secret(file: &Path) -> Result<String, Refused> {
    read_secret(file).ok_or_else(|| Refused::new(Refusal::NoToken, "no secret is configured"))
}

fn read_secret(file: &Path) -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(file).ok()?;
    let length = file.take(MAX_SECRET).read_to_string(&mut text).ok()?;
    let secret = text.trim();
    (!secret.is_empty() && (length as u64) < MAX_SECRET).then(|| secret.to_owned())
}

/// Asks the Kubernetes API whose token it is, and remembers the answer for a minute.
#[derive(Debug)]
pub struct Reviews {
    api: Arc<dyn TokenReviews>,
    audience: String,
    /// The users that may deliver.
    users: Vec<String>,
    known: Mutex<BTreeMap<String, Known>>,
    line: Semaphore,
    at_once: Semaphore,
}

#[derive(Debug)]
struct Known {
    user: Option<String>,
    at: Timestamp,
}

impl Reviews {
    /// Takes tokens for `audience` of these service accounts, each `namespace/name`.
    pub fn new(api: Arc<dyn TokenReviews>, audience: String, accounts: &[String]) -> Self {
        let user =
            |account: &String| format!("system:serviceaccount:{}", account.replace('/', ":"));
        Self {
            api,
            audience,
            users: accounts.iter().map(user).collect(),
            known: Mutex::default(),
            line: Semaphore::new(REVIEW_LINE),
            at_once: Semaphore::new(REVIEWS_AT_ONCE),
        }
    }

    async fn sender(&self, token: &str, now: Timestamp) -> Result<String, Refused> {
        if token.is_empty() {
            return Err(unauthorized("no bearer token"));
        }
        let user = self.user(token, now).await?;
        user.filter(|user| self.users.contains(user))
            .ok_or_else(|| unauthorized("the token is not valid here"))
    }

    async fn user(&self, token: &str, now: Timestamp) -> Result<Option<String>, Refused> {
        let key = digest(&[token], 64);
        if let Some(known) = self.lock().get(&key).filter(|known| known.counts(now)) {
            return Ok(known.user.clone());
        }
        let _place = self.line.try_acquire().map_err(|_| {
            let text = "too many tokens are being reviewed";
            Refused::new(Refusal::Overloaded, text)
        })?;
        let _turn = self.at_once.acquire().await;
        let answer = self.api.review(token, &self.audience).await;
        let user = answer.map_err(|error| {
            tracing::warn!(%error, "a sender's token could not be reviewed");
            Refused::new(Refusal::Review, "the token cannot be reviewed now")
        })?;
        self.remember(key, user.clone(), now);
        Ok(user)
    }

    /// Where room is needed, tokens that let nobody in go first, then the oldest.
    fn remember(&self, key: String, user: Option<String>, at: Timestamp) {
        let mut known = self.lock();
        known.retain(|_, known| known.counts(at));
        if known.len() >= MAX_REVIEWS {
            let worst = known
                .iter()
                .min_by_key(|(_, known)| (known.user.is_some(), known.at))
                .map(|(key, _)| key.clone());
            worst.map(|key| known.remove(&key));
        }
        known.insert(key, Known { user, at });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn counts(&self, now: Timestamp) -> bool {
        self.at <= now && now < REVIEW_TTL.after(self.at)
    }
}
