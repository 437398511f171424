//! What others call: the webhook (`webhook`), probes and metrics (`service`), and
//! the serving of both within bounds (`serve`). The webhook's router needs no runtime;
//! `local` calls it in process.

mod local;
mod serve;
mod service;
mod webhook;

pub use axum::Router;
pub use local::{WEBHOOK_PATH, deliver};
pub use serve::{Bounds, serve};
pub use service::{Readiness, service};
pub use webhook::{Auth, Limits, Refusal, webhook};

#[cfg(test)]
mod tests;
