//! Polling a condition with a deadline, in place of sleeps.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long between two looks. Short, as most things in the lab take milliseconds.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks `condition` until it gives `Some`, at most until `deadline` has passed.
///
/// An error of the condition counts as "not yet" and is shown if the time runs out.
pub async fn wait_for<T, F, Fut>(what: &str, deadline: Duration, mut condition: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let started = Instant::now();
    let mut last = String::new();
    loop {
        let left = deadline.saturating_sub(started.elapsed());
        last = match tokio::time::timeout(left.max(PAUSE), condition()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => String::new(),
            Ok(Err(error)) => format!("; last error: {error:#}"),
            Err(_) => format!("{last}; the last look did not come back"),
        };
        if started.elapsed() >= deadline {
            bail!("waited {deadline:?} in vain for {what}{last}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
