//! The audit log as the judge: what nodemend did to nodes and pods, beside what its
//! journals say it meant to do.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use nodemend_core::api::{Entry, NodeRepair, Step};
use nodemend_core::repair::identity;
use nodemend_lab::AuditEvent;

use crate::site::{Site, USER};

const READS: [&str; 3] = ["get", "list", "watch"];

/// Every write of nodemend to nodes and pods matches a journalled intent: the same
/// repair, the same step, after it was committed, on the node it names. Gives back
/// these writes.
pub async fn every_write_was_intended(site: &Site) -> Result<Vec<AuditEvent>> {
    let events = site.lab.audit().await?;
    let repairs = site.repairs().await?;
    let bound = bindings(&events);
    let writes: Vec<AuditEvent> = events
        .into_iter()
        .filter(|event| event.user == USER && !event.dry_run)
        .filter(|event| !READS.contains(&event.verb.as_str()))
        .filter(|event| ["nodes", "pods"].contains(&event.resource.as_str()))
        .collect();
    for write in &writes {
        intended(write, &repairs, &bound).with_context(|| {
            format!(
                "{} {} by {:?}",
                write.verb, write.request_uri, write.field_manager
            )
        })?;
    }
    Ok(writes)
}

fn intended(
    write: &AuditEvent,
    repairs: &[NodeRepair],
    bound: &BTreeMap<String, String>,
) -> Result<()> {
    let manager = write.field_manager.as_deref().context("no field manager")?;
    let (repair, entry) = repairs
        .iter()
        .flat_map(|repair| repair.journal().iter().map(move |entry| (repair, entry)))
        .find(|(repair, entry)| {
            manager == format!("nodemend/{}/{:?}", identity(repair), entry.intent.step)
        })
        .context("no journal has this intent")?;
    let name = write.name.as_deref().context("no name")?;
    let (kind, node) = match (write.resource.as_str(), write.subresource.as_deref()) {
        ("nodes", None) => ("patch", Some(name)),
        ("pods", Some("eviction")) => ("create", bound.get(name).map(String::as_str)),
        (resource, subresource) => anyhow::bail!("{resource}/{subresource:?} is never written"),
    };
    ensure!(write.verb == kind, "a {}, not a {kind}", write.verb);
    ensure!(
        node == Some(&repair.spec.node_name),
        "the intent is for {}, not {node:?}",
        repair.spec.node_name
    );
    in_time(write, entry)?;
    ensure!(
        step_fits(write, entry),
        "{:?} does no such thing",
        entry.intent.step
    );
    Ok(())
}

fn in_time(write: &AuditEvent, entry: &Entry) -> Result<()> {
    let received: jiff::Timestamp = write.received.parse()?;
    ensure!(
        entry.intent.at <= received,
        "written at {received}, intended at {}",
        entry.intent.at
    );
    Ok(())
}

fn step_fits(write: &AuditEvent, entry: &Entry) -> bool {
    match entry.intent.step {
        Step::Quarantine | Step::Release => write.resource == "nodes",
        Step::Drain => write.resource == "pods",
        Step::Launch | Step::Reboot | Step::Terminate | Step::ReturnReplacement => false,
    }
}

/// On which node each pod was, as the scheduler says.
fn bindings(events: &[AuditEvent]) -> BTreeMap<String, String> {
    events
        .iter()
        .filter(|event| event.subresource.as_deref() == Some("binding"))
        .filter_map(|event| {
            let node = event.request.as_ref()?["target"]["name"].as_str()?;
            Some((event.name.clone()?, node.to_owned()))
        })
        .collect()
}
