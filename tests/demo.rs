//! The demo as a person runs it: a process that listens, and a payload posted to it.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStderr, Command};

type Story = Lines<BufReader<ChildStderr>>;

/// At this speed the whole story takes ten seconds.
const SPEED: &str = "600";

#[tokio::test]
async fn a_payload_that_a_person_posts_leads_to_a_repair() {
    tokio::time::timeout(Duration::from_secs(60), post_and_follow())
        .await
        .expect("the story comes in time");
}

async fn post_and_follow() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_nodemend"))
        .args(["demo", "--listen", "127.0.0.1:0", "--speed", SPEED])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut story = BufReader::new(demo.stderr.take().unwrap()).lines();
    let line = line_with(&mut story, &["Listening on http://127.0.0.1:"]).await;
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("http"))
        .unwrap()
        .trim_end_matches(';');
    let status = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(url)
        .json(&payload("general-3"))
        .send()
        .await
        .unwrap()
        .status();
    assert_eq!(status, 200);
    line_with(&mut story, &["webhook", "received: stored 1 alert"]).await;
    line_with(
        &mut story,
        &["general-3", "repair starts", "ReportedBroken"],
    )
    .await;
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
async fn line_with(story: &mut Story, parts: &[&str]) -> String {
    let mut told = String::new();
    while let Some(line) = story.next_line().await.unwrap() {
        if parts.iter().all(|part| line.contains(part)) {
            return line;
        }
        told = told + &line + "\n";
    }
    panic!("the story ended without {parts:?}:\n{told}");
}
