//! The webhook: who may deliver what, and what is answered. A refusal has a reason,
//! which is also its metric label.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use jiff::Timestamp;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::auth::Auth;
use super::body::{self, PIECE};
use super::local::WEBHOOK_PATH;
use crate::alertmanager::{self, Delivered, Intake};
use crate::controller::Groups;
use crate::telemetry::Traceparent;

/// Bodies under way may together take this many times the largest one. Half of that is
/// divided among all requests, so that whoever sends large ones leaves room for small ones.
const BODIES: usize = 4;

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
    /// Compressed by anything but gzip.
    ContentEncoding,
    /// No token, password or certificate, or a wrong one.
    Unauthorized,
    /// A client certificate without any of the wanted names.
    Certificate,
    /// The file with the token or password is missing or empty.
    NoToken,
    /// The Kubernetes API could not say whose token it is.
    Review,
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
    /// The sender has as many groups as one may have.
    TooManyGroups,
    /// It could not be stored.
    Store,
    /// Our clock is not known to be right.
    Clock,
    /// The client left, or the deadline passed.
    Aborted,
    /// No TLS, too old a version of it, or a client certificate of another authority or none.
    Handshake,
    /// What should be the head of a request is none, too large or too slow.
    Head,
    /// The connection owed its head while others waited for a place.
    Displaced,
}

impl Refusal {
    /// Every refusal, for metrics that show zeros.
    pub const ALL: [Self; 22] = [
        Self::Method,
        Self::ContentType,
        Self::ContentEncoding,
        Self::Unauthorized,
        Self::Certificate,
        Self::NoToken,
        Self::Review,
        Self::Overloaded,
        Self::BodyTooLarge,
        Self::BodyBroken,
        Self::NotJson,
        Self::Shape,
        Self::Version,
        Self::TooMuch,
        Self::GroupTooLarge,
        Self::TooManyGroups,
        Self::Store,
        Self::Clock,
        Self::Aborted,
        Self::Handshake,
        Self::Head,
        Self::Displaced,
    ];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Method => "Method",
            Self::ContentType => "ContentType",
            Self::ContentEncoding => "ContentEncoding",
            Self::Unauthorized => "Unauthorized",
            Self::Certificate => "Certificate",
            Self::NoToken => "NoToken",
            Self::Review => "Review",
            Self::Overloaded => "Overloaded",
            Self::BodyTooLarge => "BodyTooLarge",
            Self::BodyBroken => "BodyBroken",
            Self::NotJson => "NotJson",
            Self::Shape => "Shape",
            Self::Version => "Version",
            Self::TooMuch => "TooMuch",
            Self::GroupTooLarge => "GroupTooLarge",
            Self::TooManyGroups => "TooManyGroups",
            Self::Store => "Store",
            Self::Clock => "Clock",
            Self::Aborted => "Aborted",
            Self::Handshake => "Handshake",
            Self::Head => "Head",
            Self::Displaced => "Displaced",
        }
    }

    /// What is answered. Alertmanager tries again after a 5xx and gives up after a 4xx;
    /// a 429 it would take for the latter. Of the last three it sees a closed connection.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unauthorized | Self::Certificate => StatusCode::UNAUTHORIZED,
            Self::BodyTooLarge | Self::GroupTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyBroken
            | Self::NotJson
            | Self::Shape
            | Self::Version
            | Self::TooMuch
            | Self::Handshake
            | Self::Head => StatusCode::BAD_REQUEST,
            Self::NoToken
            | Self::Review
            | Self::Overloaded
            | Self::TooManyGroups
            | Self::Store
            | Self::Clock
            | Self::Aborted
            | Self::Displaced => StatusCode::SERVICE_UNAVAILABLE,
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
            Error::TooManyGroups(_) => Self::TooManyGroups,
            Error::Contended | Error::Store(_) => Self::Store,
        }
    }
}

/// The router of `POST /webhook/alertmanager`. `clock` says when a body was received, none
/// while that is not known: then nothing is taken;
/// `observe` is told what became of each request, once, and which span it says it comes from.
pub fn webhook<G, C, O>(
    intake: Intake<G>,
    auth: Auth,
    limits: Limits,
    clock: C,
    observe: O,
) -> Router
where
    G: Groups,
    C: Fn() -> Option<Timestamp> + Clone + Send + Sync + 'static,
    O: Fn(Result<Delivered, Refusal>, Option<Traceparent>) + Clone + Send + Sync + 'static,
{
    let half = limits.max_body.saturating_mul(BODIES / 2).div_ceil(PIECE);
    let half = half.min(Semaphore::MAX_PERMITS);
    let door = Door {
        intake,
        auth,
        limits,
        clock,
        observe,
        places: Semaphore::new(limits.max_requests),
        own: half / limits.max_requests.max(1),
        shared: Semaphore::new(half),
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
    /// For requests under way.
    places: Semaphore,
    /// In KiB of a body, what each has for itself.
    own: usize,
    /// In KiB, what is for those that are larger.
    shared: Semaphore,
}

async fn receive<G, C, O>(State(door): State<Arc<Door<G, C, O>>>, request: Request) -> Response
where
    G: Groups,
    C: Fn() -> Option<Timestamp> + Send + Sync,
    O: Fn(Result<Delivered, Refusal>, Option<Traceparent>) + Clone,
{
    let mut report = Report {
        observe: door.observe.clone(),
        outcome: Err(Refusal::Aborted),
        cause: cause(request.headers()),
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
struct Report<O: Fn(Result<Delivered, Refusal>, Option<Traceparent>)> {
    observe: O,
    outcome: Result<Delivered, Refusal>,
    cause: Option<Traceparent>,
}

impl<O: Fn(Result<Delivered, Refusal>, Option<Traceparent>)> Drop for Report<O> {
    fn drop(&mut self) {
        (self.observe)(self.outcome, self.cause.take());
    }
}

fn cause(headers: &HeaderMap) -> Option<Traceparent> {
    let mut given = headers.get_all("traceparent").iter();
    let (only, None) = (given.next()?, given.next()) else {
        return None;
    };
    Traceparent::parse(only.to_str().ok()?)
}

impl<G: Groups, C: Fn() -> Option<Timestamp>, O> Door<G, C, O> {
    async fn take(&self, request: Request) -> Result<Delivered, Refused> {
        if request.method() != Method::POST {
            return Err(Refused::new(Refusal::Method, "only POST is taken"));
        }
        let (head, body) = request.into_parts();
        let sender = self.auth.sender(&head, self.now()?).await?;
        check_type(&head.headers)?;
        let gzip = gzip(&head.headers)?;
        let _place = self.place(&head.headers)?;
        let bounds = body::Bounds {
            most: self.limits.max_body,
            own: self.own,
            shared: &self.shared,
        };
        let (body, _room) = body::read(body, gzip, bounds)
            .await
            .map_err(|reason| self.refuse(reason))?;
        let now = self.now()?;
        let delivered = self.intake.deliver(&body, &sender, now).await;
        delivered.map_err(|error| Refused::from(&error))
    }

    fn now(&self) -> Result<Timestamp, Refused> {
        (self.clock)().ok_or_else(|| self.refuse(Refusal::Clock))
    }

    /// A place among the requests under way, unless the body says that it is too large.
    fn place(&self, headers: &HeaderMap) -> Result<SemaphorePermit<'_>, Refused> {
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > self.limits.max_body) {
            return Err(self.refuse(Refusal::BodyTooLarge));
        }
        let place = self.places.try_acquire();
        place.map_err(|_| self.refuse(Refusal::Overloaded))
    }

    fn refuse(&self, reason: Refusal) -> Refused {
        let text = match reason {
            Refusal::BodyTooLarge => format!("at most {} bytes are taken", self.limits.max_body),
            Refusal::Overloaded => "too many deliveries at once".into(),
            Refusal::Clock => "the clock here is not known to be right, see /readyz".into(),
            _ => "the body did not arrive whole".into(),
        };
        Refused::new(reason, text)
    }
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
    Ok(())
}

/// Whether the body is compressed.
fn gzip(headers: &HeaderMap) -> Result<bool, Refused> {
    let given: Vec<&[u8]> = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .map(|value| value.as_bytes().trim_ascii())
        .collect();
    match given[..] {
        [] => Ok(false),
        [one] if one.eq_ignore_ascii_case(b"identity") => Ok(false),
        [one] if one.eq_ignore_ascii_case(b"gzip") => Ok(true),
        _ => {
            let hint = "send the body uncompressed or as gzip";
            Err(Refused::new(Refusal::ContentEncoding, hint))
        }
    }
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

    /// Whether trying again may help.
    pub(super) fn is_ours(&self) -> bool {
        self.reason.status().is_server_error()
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
            StatusCode::UNAUTHORIZED => {
                Some((header::WWW_AUTHENTICATE, "Bearer, Basic realm=\"nodemend\""))
            }
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
