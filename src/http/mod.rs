//! What others call: the webhook (`webhook`; who may, `auth`; what is read, `body`),
//! probes and metrics (`service`), and the serving of both within bounds (`serve`, `tls`). The webhook's router needs no runtime;
//! `local` calls it in process.

mod auth;
mod body;
mod local;
mod serve;
mod service;
mod tls;
mod webhook;

pub use auth::{Auth, Method, Reviews};
pub use axum::Router;
pub use local::{WEBHOOK_PATH, deliver};
pub use serve::{Bounds, Socket, serve};
pub use service::{Readiness, service};
pub use tls::{Error as TlsError, Tls, TlsFiles};
pub use webhook::{Limits, Refusal, webhook};

#[cfg(test)]
mod tests;
