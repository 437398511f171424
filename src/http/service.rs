//! Probes and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// Which parts of the service work. Not ready until each declared part is.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// By part: what is wrong with it.
    parts: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
    /// What is wrong but keeps nothing from working.
    remarks: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// These parts have to work; none does yet.
    pub fn declare(parts: &[&'static str]) -> Self {
        let readiness = Self::default();
        for part in parts {
            readiness.set(part, Err("has not started yet".into()));
        }
        readiness
    }

    /// Says that a part works, or why it does not.
    pub fn set(&self, part: &'static str, state: Result<(), String>) {
        lock(&self.parts).insert(part, state.err());
    }

    /// Says what is wrong with a part that works all the same: it shows, and the
    /// replica stays in service.
    pub fn remark(&self, part: &'static str, state: Result<(), String>) {
        let mut remarks = lock(&self.remarks);
        match state {
            Ok(()) => remarks.remove(part),
            Err(problem) => remarks.insert(part, problem),
        };
    }

    /// The remarks, one line each.
    pub fn remarks(&self) -> Vec<String> {
        lock(&self.remarks)
            .iter()
            .map(|(part, problem)| format!("{part}: {problem}"))
            .collect()
    }

    /// What is not ready and why, one line each.
    pub fn problems(&self) -> Vec<String> {
        lock(&self.parts)
            .iter()
            .filter_map(|(part, problem)| Some(format!("{part}: {}", problem.as_ref()?)))
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The router of `/livez`, `/readyz` and `/metrics`; `metrics` gives the last's text.
pub fn service<M>(readiness: Readiness, metrics: M) -> Router
where
    M: Fn() -> String + Clone + Send + Sync + 'static,
{
    let ready = move || async move {
        let problems = readiness.problems();
        let (status, first) = if problems.is_empty() {
            (StatusCode::OK, vec!["ok".to_owned()])
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, problems)
        };
        let lines = [first, readiness.remarks()].concat();
        (status, lines.join("\n") + "\n")
    };
    let metrics = move || async move {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], metrics()).into_response()
    };
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}
