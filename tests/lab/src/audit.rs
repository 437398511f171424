//! The API server's audit log: the independent record of every write.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// One request that the API server has answered.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// `create`, `update`, `patch`, `delete` …
    pub verb: String,
    /// The resource's plural, as `nodes`.
    pub resource: String,
    /// As `eviction` or `status`.
    pub subresource: Option<String>,
    /// The API group; empty for the core.
    pub group: String,
    /// The object's namespace.
    pub namespace: Option<String>,
    /// The object's name; a creation may have none here.
    pub name: Option<String>,
    /// Who asked.
    pub user: String,
    /// What identified the client's program.
    pub user_agent: String,
    /// Path and query.
    pub request_uri: String,
    /// The query's `fieldManager`, decoded.
    pub field_manager: Option<String>,
    /// Whether it was a dry run.
    pub dry_run: bool,
    /// What was sent.
    pub request: Option<Value>,
    /// What came back.
    pub response: Option<Value>,
    /// The status code.
    pub code: u16,
    /// When it was received.
    pub received: String,
    /// When it was answered.
    pub answered: String,
}

/// Every completed request of the log, in the order of answers.
pub fn read(log: &Path) -> Result<Vec<AuditEvent>> {
    let text = fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
    // A line without its end is still being written.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut events = Vec::new();
    for line in complete.lines() {
        let raw: Raw = serde_json::from_str(line)
            .with_context(|| format!("an odd line in the audit log: {line}"))?;
        if raw.stage == "ResponseComplete" {
            events.push(raw.into_event()?);
        }
    }
    Ok(events)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    request_object: Option<Value>,
    response_object: Option<Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    subresource: Option<String>,
    api_group: String,
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl Raw {
    fn into_event(self) -> Result<AuditEvent> {
        let object = self.object_ref.unwrap_or_default();
        let query = query_of(&self.request_uri)?;
        Ok(AuditEvent {
            verb: self.verb,
            resource: object.resource,
            subresource: object.subresource,
            group: object.api_group,
            namespace: object.namespace,
            name: object.name,
            user: self.user.username,
            user_agent: self.user_agent,
            field_manager: query.get("fieldManager").cloned(),
            dry_run: query.contains_key("dryRun"),
            request_uri: self.request_uri,
            request: self.request_object,
            response: self.response_object,
            code: self.response_status.unwrap_or_default().code,
            received: self.request_received_timestamp,
            answered: self.stage_timestamp,
        })
    }
}

fn query_of(uri: &str) -> Result<BTreeMap<String, String>> {
    let url = reqwest::Url::parse("http://lab")
        .and_then(|base| base.join(uri))
        .context("a bad request URI")?;
    Ok(url.query_pairs().into_owned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_field_manager() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("audit.jsonl");
        let line = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","stage":"ResponseComplete","verb":"patch","requestURI":"/api/v1/nodes/n?fieldManager=nodemend%2Fab-1%2Fquarantine","user":{"username":"u"},"objectRef":{"resource":"nodes","name":"n","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"a","stageTimestamp":"b"}"#;
        fs::write(&log, format!("{line}\n{{\"half")).unwrap();
        let events = read(&log).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(
            events[0].field_manager.as_deref(),
            Some("nodemend/ab-1/quarantine")
        );
        assert_eq!(
            (events[0].code, events[0].resource.as_str()),
            (200, "nodes")
        );
    }
}
