//! The webhook: who may deliver what, and what is answered. A refusal has a reason,
//! which is also its metric label.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use jiff::Timestamp;
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::local::WEBHOOK_PATH;
use crate::alertmanager::{self, Delivered, Intake};
use crate::controller::Groups;

/// A token is shorter than this, in bytes.
const MAX_TOKEN: u64 = 4096;
/// Bodies under way may together take this many times the largest one.
const BODIES: usize = 4;

/// Who may deliver.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Anyone; for loopback only.
    Anonymous,
    /// Who has the token that this file holds. It is read for each request, so a
    /// new token counts at once; no file or an empty one lets nobody in.
    TokenFile(PathBuf),
}

/// What the webhook takes at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest body in bytes.
    pub max_body: usize,
    /// The most requests at the same time.
    pub max_requests: usize,
}

/// Why a delivery was not taken. Closed: these are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Not a POST.
    Method,
    /// Not `application/json`.
    ContentType,
    /// A compressed body.
    ContentEncoding,
    /// No token, or a wrong one.
    Unauthorized,
    /// The file with the token is missing or empty.
    NoToken,
    /// Too many requests or bytes at once.
    Overloaded,
    /// The body is too large.
    BodyTooLarge,
    /// The body did not arrive whole.
    BodyBroken,
    /// The body is not JSON.
    NotJson,
    /// JSON, but not Alertmanager's payload.
    Shape,
    /// Another version of the payload.
    Version,
    /// Too many alerts, labels or bytes of one.
    TooMuch,
    /// The group does not fit into one object.
    GroupTooLarge,
    /// It could not be stored.
    Store,
    /// The client left, or the deadline passed.
    Aborted,
}

impl Refusal {
    /// Every refusal, for metrics that show zeros.
    pub const ALL: [Self; 15] = [
        Self::Method,
        Self::ContentType,
        Self::ContentEncoding,
        Self::Unauthorized,
        Self::NoToken,
        Self::Overloaded,
        Self::BodyTooLarge,
        Self::BodyBroken,
        Self::NotJson,
        Self::Shape,
        Self::Version,
        Self::TooMuch,
        Self::GroupTooLarge,
        Self::Store,
        Self::Aborted,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Method => "Method",
            Self::ContentType => "ContentType",
            Self::ContentEncoding => "ContentEncoding",
            Self::Unauthorized => "Unauthorized",
            Self::NoToken => "NoToken",
            Self::Overloaded => "Overloaded",
            Self::BodyTooLarge => "BodyTooLarge",
            Self::BodyBroken => "BodyBroken",
            Self::NotJson => "NotJson",
            Self::Shape => "Shape",
            Self::Version => "Version",
            Self::TooMuch => "TooMuch",
            Self::GroupTooLarge => "GroupTooLarge",
            Self::Store => "Store",
            Self::Aborted => "Aborted",
        }
    }

    /// What is answered. Alertmanager tries again after a 5xx and gives up after a 4xx;
    /// a 429 it would take for the latter.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::BodyTooLarge | Self::GroupTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyBroken | Self::NotJson | Self::Shape | Self::Version | Self::TooMuch => {
                StatusCode::BAD_REQUEST
            }
            Self::NoToken | Self::Overloaded | Self::Store | Self::Aborted => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}

impl From<&alertmanager::Error> for Refusal {
    fn from(error: &alertmanager::Error) -> Self {
        use alertmanager::Error;
        match error {
            Error::NotJson(_) => Self::NotJson,
            Error::Shape(_) => Self::Shape,
            Error::Version(_) => Self::Version,
            Error::TooManyAlerts(_) | Error::TooManyLabels(_) | Error::TooLong(_) => Self::TooMuch,
            Error::GroupTooLarge(_) => Self::GroupTooLarge,
            Error::Contended | Error::Store(_) => Self::Store,
        }
    }
}

/// The router of `POST /webhook/alertmanager`. `clock` says when a body was received;
/// `observe` is told what became of each request, once.
pub fn webhook<G, C, O>(
    intake: Intake<G>,
    auth: Auth,
    limits: Limits,
    clock: C,
    observe: O,
) -> Router
where
    G: Groups,
    C: Fn() -> Timestamp + Clone + Send + Sync + 'static,
    O: Fn(Result<Delivered, Refusal>) + Clone + Send + Sync + 'static,
{
    let room = limits.max_body.saturating_mul(BODIES).div_ceil(1024);
    let room = room.clamp(limits.max_requests, Semaphore::MAX_PERMITS);
    let door = Door {
        intake,
        auth,
        limits,
        clock,
        observe,
        least: room / limits.max_requests.max(1),
        room: Semaphore::new(room),
    };
    Router::new()
        .route(WEBHOOK_PATH, any(receive::<G, C, O>))
        .with_state(Arc::new(door))
}

struct Door<G, C, O> {
    intake: Intake<G>,
    auth: Auth,
    limits: Limits,
    clock: C,
    observe: O,
    /// In KiB of bodies under way.
    room: Semaphore,
    /// What the smallest request takes of it, which bounds their number.
    least: usize,
}

async fn receive<G, C, O>(State(door): State<Arc<Door<G, C, O>>>, request: Request) -> Response
where
    G: Groups,
    C: Fn() -> Timestamp + Send + Sync,
    O: Fn(Result<Delivered, Refusal>) + Clone,
{
    let mut report = Report {
        observe: door.observe.clone(),
        outcome: Err(Refusal::Aborted),
    };
    match door.take(request).await {
        Ok(delivered) => {
            report.outcome = Ok(delivered);
            StatusCode::OK.into_response()
        }
        Err(refused) => {
            report.outcome = Err(refused.reason);
            refused.into_response()
        }
    }
}

/// Tells the outcome when it goes, which is also when the request is dropped halfway.
struct Report<O: Fn(Result<Delivered, Refusal>)> {
    observe: O,
    outcome: Result<Delivered, Refusal>,
}

impl<O: Fn(Result<Delivered, Refusal>)> Drop for Report<O> {
    fn drop(&mut self) {
        (self.observe)(self.outcome);
    }
}

impl<G: Groups, C: Fn() -> Timestamp, O> Door<G, C, O> {
    async fn take(&self, request: Request) -> Result<Delivered, Refused> {
        if request.method() != Method::POST {
            return Err(Refused::new(Refusal::Method, "only POST is taken"));
        }
        let headers = request.headers();
        let sender = self.auth.sender(headers)?;
        check_type(headers)?;
        let _room = self.room(headers)?;
        let body = self.body(request.into_body()).await?;
        let now = (self.clock)();
        let delivered = self.intake.deliver(&body, sender, now).await;
        delivered.map_err(|error| Refused::from(&error))
    }

    /// A place among the requests under way, as large as the body says it is.
    fn room(&self, headers: &HeaderMap) -> Result<SemaphorePermit<'_>, Refused> {
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .unwrap_or(self.limits.max_body);
        if length > self.limits.max_body {
            return Err(self.too_large());
        }
        let wanted = u32::try_from(length.div_ceil(1024).max(self.least)).unwrap_or(u32::MAX);
        self.room
            .try_acquire_many(wanted)
            .map_err(|_| Refused::new(Refusal::Overloaded, "too many deliveries at once"))
    }

    async fn body(&self, body: Body) -> Result<axum::body::Bytes, Refused> {
        let whole = Limited::new(body, self.limits.max_body).collect().await;
        match whole {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(self.too_large()),
            Err(_) => Err(Refused::new(
                Refusal::BodyBroken,
                "the body did not arrive whole",
            )),
        }
    }

    fn too_large(&self) -> Refused {
        let most = self.limits.max_body;
        Refused::new(
            Refusal::BodyTooLarge,
            format!("at most {most} bytes are taken"),
        )
    }
}

impl Auth {
    /// The identity under which a delivery is stored.
    fn sender(&self, headers: &HeaderMap) -> Result<&'static str, Refused> {
        let Self::TokenFile(path) = self else {
            return Ok("anonymous");
        };
        let wanted = read_token(path)
            .ok_or_else(|| Refused::new(Refusal::NoToken, "no token is configured"))?;
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map_or("", |(_, token)| token.trim());
        if bool::from(given.as_bytes().ct_eq(wanted.as_bytes())) {
            Ok("token")
        } else {
            let text = "the bearer token is missing or wrong";
            Err(Refused::new(Refusal::Unauthorized, text))
        }
    }
}

/// The token of a file; none if there is none, or none that could be one. A small
/// blocking read of a mounted secret: the router may need no runtime.
fn read_token(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    let length = file.take(MAX_TOKEN).read_to_string(&mut text).ok()?;
    let token = text.trim();
    (!token.is_empty() && (length as u64) < MAX_TOKEN).then(|| token.to_owned())
}

fn check_type(headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text(header::CONTENT_TYPE)
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("application/json") {
        let hint = "send application/json";
        return Err(Refused::new(Refusal::ContentType, hint));
    }
    let plain = |value: &str| value.trim().eq_ignore_ascii_case("identity");
    if headers.contains_key(header::CONTENT_ENCODING)
        && !text(header::CONTENT_ENCODING).is_some_and(plain)
    {
        let hint = "send the body uncompressed";
        return Err(Refused::new(Refusal::ContentEncoding, hint));
    }
    Ok(())
}

/// A refusal with what the sender is told.
#[derive(Debug)]
pub(super) struct Refused {
    reason: Refusal,
    error: String,
}

impl Refused {
    pub(super) fn new(reason: Refusal, error: impl Into<String>) -> Self {
        Self {
            reason,
            error: error.into(),
        }
    }
}

impl From<&alertmanager::Error> for Refused {
    fn from(error: &alertmanager::Error) -> Self {
        // What the store said is for the log, not for the sender.
        if let alertmanager::Error::Store(source) = error {
            tracing::warn!(error = %source, "a delivery could not be stored");
        }
        Self::new(Refusal::from(error), error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        tracing::debug!(reason = ?self.reason, error = self.error, "a delivery was refused");
        let status = self.reason.status();
        let body = serde_json::json!({"error": self.error, "reason": format!("{:?}", self.reason)});
        let mut response = (status, axum::Json(body)).into_response();
        let hint = match status {
            StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, "POST")),
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, "5")),
            _ => None,
        };
        if let Some((name, value)) = hint {
            let value = header::HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}
