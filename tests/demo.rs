//! The demo as a person runs it: a process that listens, and a payload posted to it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStderr, Command};
use tokio::time::timeout;

type Story = Lines<BufReader<ChildStderr>>;

/// At this speed the whole story takes ten seconds.
const SPEED: &str = "600";

#[tokio::test]
async fn a_payload_that_a_person_posts_leads_to_a_repair() -> Result<()> {
    timeout(Duration::from_mins(1), post_and_follow()).await?
}

async fn post_and_follow() -> Result<()> {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_nodemend"))
        .args(["demo", "--listen", "127.0.0.1:0", "--speed", SPEED])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let told = demo.stderr.take().context("stderr is a pipe")?;
    let mut story = BufReader::new(told).lines();
    let line = line_with(&mut story, &["Listening on http://127.0.0.1:"]).await?;
    let url = line
        .split([' ', ';'])
        .find(|word| word.starts_with("http"))
        .context("no URL")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client.post(url).json(&payload("general-3")).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    line_with(&mut story, &["webhook", "received: stored 1 alert"]).await?;
    let start = ["general-3", "repair starts", "ReportedBroken"];
    line_with(&mut story, &start).await?;
    Ok(())
}

fn payload(node: &str) -> serde_json::Value {
    serde_json::json!({
        "version": "4",
        "groupKey": "mine",
        "receiver": "nodemend",
        "alerts": [{
            "status": "firing",
            "labels": {"alertname": "NodeHardwareFailure", "node": node},
            "startsAt": "2026-01-01T00:00:00Z",
        }],
    })
}

/// The next line of the story that has all of these parts.
async fn line_with(story: &mut Story, parts: &[&str]) -> Result<String> {
    let mut told = String::new();
    while let Some(line) = story.next_line().await? {
        if parts.iter().all(|part| line.contains(part)) {
            return Ok(line);
        }
        told = told + &line + "\n";
    }
    bail!("the story ended without {parts:?}:\n{told}");
}
