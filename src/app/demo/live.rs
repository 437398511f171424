//! The same fleet at a pace that can be followed, with an open door: deliveries of a
//! person are taken like those of the simulated Alertmanager.

use std::future::pending;
use std::io;
use std::net::SocketAddr;

use nodemend_core::model::Span;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

use super::plan::SPARE;
use super::{Demo, STEP, Summary, Told};
use crate::http::{Bounds, WEBHOOK_PATH, serve};
use crate::sim::HARDWARE_ALERT;

/// How a run is paced, and where it listens.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// A loopback address: whoever reaches it may deliver.
    pub listen: SocketAddr,
    /// Virtual seconds per real second, at least 1.
    pub speed: u32,
}

/// Runs until the planned story is told and what a person brought is done, or until
/// the process is interrupted.
pub fn live(
    seed: u64,
    how: Live,
    tell: impl FnMut(Told<'_>) -> io::Result<()>,
) -> io::Result<Summary> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(paced(Demo::new(seed, STEP, tell), how))
}

async fn paced<F: FnMut(Told<'_>) -> io::Result<()>>(
    mut demo: Demo<F>,
    how: Live,
) -> io::Result<Summary> {
    let listener = listen(&mut demo, how.listen).await?;
    let router = demo.webhook.router.clone();
    let server = tokio::spawn(serve(listener, router, Bounds::default(), pending()));
    pace(STEP, how.speed, || {
        let over = demo.over();
        if !over {
            demo.step()?;
        }
        Ok(!over)
    })
    .await?;
    server.abort();
    Ok(demo.summary())
}

/// Takes steps of this much virtual time at this many virtual seconds per real one, until
/// one says that there are no more, or until the process is interrupted.
pub(in crate::app) async fn pace(
    step: Span,
    speed: u32,
    mut take: impl FnMut() -> io::Result<bool>,
) -> io::Result<()> {
    let mut ticks = interval(step.signed().unsigned_abs() / speed.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            biased;
            interrupted = &mut interrupt => return interrupted,
            _ = ticks.tick() => if !take()? { return Ok(()) },
        }
    }
}

async fn listen<F: FnMut(Told<'_>) -> io::Result<()>>(
    demo: &mut Demo<F>,
    wanted: SocketAddr,
) -> io::Result<TcpListener> {
    let listener = match TcpListener::bind(wanted).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            demo.story
                .line(&format!("{wanted} is taken, so another port is used."))?;
            TcpListener::bind(SocketAddr::new(wanted.ip(), 0)).await?
        }
        bound => bound?,
    };
    let url = format!("http://{}{WEBHOOK_PATH}", listener.local_addr()?);
    demo.story.line(&format!(
        "Listening on {url}; to break a node yourself, paste:"
    ))?;
    demo.story.line(&format!("  {}", curl(&url)))?;
    Ok(listener)
}

fn curl(url: &str) -> String {
    let payload = format!(
        r#"{{"version":"4","groupKey":"mine","receiver":"nodemend","alerts":[{{"status":"firing","labels":{{"alertname":"{HARDWARE_ALERT}","node":"{SPARE}"}},"startsAt":"2026-01-01T00:00:00Z"}}]}}"#
    );
    format!("curl -sS -H 'Content-Type: application/json' -d '{payload}' {url}")
}
