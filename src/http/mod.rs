//! What others call: the webhook (`webhook`), probes and metrics (`service`), and
//! the serving of both within bounds (`serve`). The webhook's router needs no runtime.

mod serve;
mod service;
mod webhook;

pub use serve::{Bounds, serve};
pub use service::{Readiness, service};
pub use webhook::{Auth, Limits, Refusal, webhook};

#[cfg(test)]
mod tests;
