//! What people ask and say: explain, status, history, pause, resume, approve, repair.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use nodemend_core::api::{
    Approval, NodeHealth, NodeHealthStatus, NodeRepair, NodeSelector, RepairPause, RepairPauseSpec,
    RepairRequest,
};
use nodemend_core::decide::approval::APPROVED_FOR;
use nodemend_core::decide::by_hand::{self, REQUESTED_FOR, overridable};
use nodemend_core::model::{
    APPROVED_ANNOTATION, NodeView, REQUEST_ANNOTATION, Reason, Span, VerdictKind, digest,
};
use serde::Serialize;

use crate::app::report::{self, Lead, Records};
use crate::app::serve::wall;
use crate::cluster::{Kubernetes, LeaseView, plain};
use crate::controller::Records as _;
use crate::exec::{CallError, Cluster as _};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Say why a node is, or is not, repaired.
    Explain {
        /// The node's name.
        node: String,
        /// Where nodemend runs, for whether anybody leads.
        #[arg(long, default_value = "nodemend")]
        namespace: String,
        #[command(flatten)]
        output: Output,
    },
    /// Say how the fleet is: who leads, what is down, what holds, what is under way.
    Status {
        /// Where nodemend runs, for who leads.
        #[arg(long, default_value = "nodemend")]
        namespace: String,
        #[command(flatten)]
        output: Output,
    },
    /// List repairs, the newest first.
    History {
        /// Of this node only.
        node: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        output: Output,
    },
    /// Let no repair start, on all nodes or on some. What runs stops before its next
    /// irreversible step.
    ///
    /// Exit code 1: it would cover no node, so it was not made.
    Pause {
        /// Only nodes of this policy.
        #[arg(long)]
        policy: Option<String>,
        /// Only nodes with these labels.
        #[arg(long, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = label)]
        selector: Vec<(String, String)>,
        /// Why, for those who find it.
        #[arg(long, value_parser = said)]
        reason: String,
        /// When it ends by itself, such as 2h; else when it is resumed.
        #[arg(long = "for", value_name = "TIME", value_parser = span)]
        for_: Option<Span>,
        /// Also if it covers no node now.
        #[arg(long)]
        force: bool,
    },
    /// End a pause.
    Resume {
        /// The pause, as `nodemend status` names it.
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// Every pause.
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Approve the repair of a node whose policy waits for that: this fault, this action, once.
    Approve {
        /// The node's name.
        node: String,
        /// How long the approval holds, a day at most.
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = day)]
        for_: Span,
        /// Also if it does not wait for one now.
        #[arg(long)]
        force: bool,
    },
    /// Ask for the repair of a node, and wait for nodemend's answer.
    ///
    /// No fault is needed, and nothing waited for; every other guard holds it as any repair.
    /// Exit code 1: one does, which is told, and what would ignore it.
    Repair(Repair),
}

#[derive(Debug, Args)]
pub(super) struct Repair {
    /// The node's name.
    node: String,
    /// Why, for the record.
    #[arg(long, value_parser = said)]
    reason: String,
    /// A guard that is not to hold it; may be given more than once.
    #[arg(long = "override", value_name = "GUARD", value_parser = guard)]
    overrides: Vec<Reason>,
    /// How long the request holds, a day at most: if a guard holds it, it starts once that
    /// lets it.
    #[arg(long = "for", value_name = "TIME", default_value = "15m", value_parser = day)]
    for_: Span,
    /// How long to wait for the answer.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = span)]
    timeout: Span,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Output {
    /// How it is written.
    #[arg(short, long, value_enum, default_value_t = Format::Human)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
}

/// How often records are read while an answer is waited for.
const LOOK: Duration = Duration::from_secs(1);

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no access to a Kubernetes API, by KUBECONFIG or as a pod: {0}")]
    Access(String),
    #[error("{0}: {1}")]
    Call(&'static str, CallError),
    #[error("there is no node `{0}`, and no record of one")]
    NoNode(String),
    #[error("`{0}` is on no record, and you may not read whether there is such a node")]
    NoRecord(String),
    #[error("there is no pause `{0}`")]
    NoPause(String),
    #[error("nodemend did not answer within {0}: does it run? The request stands until {1}")]
    NoAnswer(Span, Timestamp),
    #[error(transparent)]
    Write(#[from] io::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Names what a call was for.
trait For<T> {
    fn to(self, what: &'static str) -> Result<T, Error>;
}

impl<T> For<T> for Result<T, CallError> {
    fn to(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|error| Error::Call(what, error))
    }
}

/// Runs one of them. Exit codes: 0 fine, 1 the answer is no, 2 usage or environment.
pub(super) fn run(command: Command) -> io::Result<ExitCode> {
    // kube and reqwest each bring TLS; both must use the same provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(async {
        let cluster = Kubernetes::connect_as_person().await;
        let cluster = cluster.map_err(|error| Error::Access(plain(&error)))?;
        Box::pin(perform(&cluster, command)).await
    });
    done.map_err(|error| match error {
        Error::Write(error) => error,
        error => io::Error::other(error.to_string()),
    })
}

async fn perform(cluster: &Kubernetes, command: Command) -> Result<ExitCode, Error> {
    let now = now(cluster).await;
    match command {
        Command::Explain {
            node,
            namespace,
            output,
        } => {
            let (object, missing) = match cluster.node(&node).await {
                // The records alone say much.
                Err(CallError::Refused(_)) => (None, Error::NoRecord(node.clone())),
                read => (read.to("reading the node")?, Error::NoNode(node.clone())),
            };
            let records = Records {
                lead: lead(cluster, &namespace).await,
                ..records(cluster).await?
            };
            let told = report::explain(&node, object.as_ref(), &records, now);
            let told = told.ok_or(missing)?;
            output.write(&told, &told.to_string())
        }
        Command::Status { namespace, output } => {
            let records = Records {
                lead: lead(cluster, &namespace).await,
                ..records_and_nodes(cluster).await?
            };
            let told = report::status(&records, now);
            output.write(&told, &told.to_string())
        }
        Command::History {
            node,
            limit,
            output,
        } => {
            let repairs = cluster.repairs().await.to("listing repairs")?;
            let lines = report::history(&repairs, node.as_deref(), limit);
            output.write(&lines, &report::history_text(&lines, now))
        }
        Command::Pause {
            policy,
            selector,
            reason,
            for_,
            force,
        } => {
            let spec = RepairPauseSpec {
                node_selector: NodeSelector {
                    match_labels: selector.into_iter().collect::<BTreeMap<_, _>>(),
                    ..NodeSelector::default()
                },
                policy,
                reason,
                until: for_.map(|span| span.after(now)),
            };
            pause(cluster, spec, force, now).await
        }
        Command::Resume { name, .. } => resume(cluster, name).await,
        Command::Approve { node, for_, force } => approve(cluster, &node, for_, force, now).await,
        Command::Repair(options) => repair(cluster, options, now).await,
    }
}

/// The time as the API server has it, by which nodemend judges what is written.
async fn now(cluster: &Kubernetes) -> Timestamp {
    let mine = wall();
    let ahead = match cluster.time().await {
        Ok(theirs) => theirs.duration_since(mine).as_secs(),
        Err(_) => 0,
    };
    mine.checked_add(SignedDuration::from_secs(ahead))
        .unwrap_or(mine)
}

impl Output {
    fn write(self, told: &impl Serialize, text: &str) -> Result<ExitCode, Error> {
        let mut out = io::stdout().lock();
        match self.output {
            Format::Json => writeln!(out, "{}", serde_json::to_string(told)?)?,
            Format::Human => out.write_all(text.as_bytes())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn records(cluster: &Kubernetes) -> Result<Records, Error> {
    Ok(Records {
        healths: cluster.healths().await.to("listing the records of nodes")?,
        fleet: cluster
            .fleet()
            .await
            .to("reading the record of the fleet")?,
        repairs: cluster.repairs().await.to("listing repairs")?,
        policies: cluster.policies().await.to("listing policies")?,
        pauses: cluster.pauses().await.to("listing pauses")?,
        nodes: None,
        lead: Lead::Unknown,
    })
}

/// Who may read the records may not be let to read the Lease.
async fn lead(cluster: &Kubernetes, namespace: &str) -> Lead {
    match cluster.lease(namespace).await {
        Err(_) => Lead::Unknown,
        Ok(None) => Lead::NoLease(namespace.to_owned()),
        Ok(Some(LeaseView {
            holder,
            renewed,
            duration,
        })) => Lead::Lease {
            holder,
            renewed,
            duration,
        },
    }
}

/// With the nodes, of which there may be many: only to say how many a pause covers.
async fn records_and_nodes(cluster: &Kubernetes) -> Result<Records, Error> {
    Ok(Records {
        // Who may read the records may not be let to list nodes.
        nodes: cluster.nodes().await.ok(),
        ..records(cluster).await?
    })
}

async fn pause(
    cluster: &Kubernetes,
    spec: RepairPauseSpec,
    force: bool,
    now: Timestamp,
) -> Result<ExitCode, Error> {
    // What cannot be counted must not be in the way of who stops everything.
    let covers = match records_and_nodes(cluster).await {
        Ok(records) => report::covered(&spec, &records),
        Err(error) => {
            eprintln!("nodemend: how many nodes that covers is not known: {error}");
            None
        }
    };
    if covers == Some(0) && !force {
        let why = "that covers no node of a policy that is on record; --force pauses all the same, as for a policy in a file that did nothing yet";
        eprintln!("nodemend: nothing is paused: {why}");
        return Ok(ExitCode::FAILURE);
    }
    let name = format!("pause-{}", digest(&[&spec.reason, &now.to_string()], 8));
    let until = spec.until;
    let pause = RepairPause::new(&name, spec);
    cluster.create_pause(&pause).await.to("pausing")?;
    let mut out = io::stdout().lock();
    let until = until.map_or_else(String::new, |until| format!("{until}, or "));
    let nodes = report::nodes(covers);
    writeln!(
        out,
        "{name} ({nodes}) holds until {until}`nodemend resume {name}`"
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Pauses that are over are no more than remembered: they are deleted too.
async fn resume(cluster: &Kubernetes, name: Option<String>) -> Result<ExitCode, Error> {
    let mut pauses = cluster.pauses().await.to("listing pauses")?;
    if let Some(name) = &name {
        pauses.retain(|pause| pause.metadata.name.as_ref() == Some(name));
        if pauses.is_empty() {
            return Err(Error::NoPause(name.clone()));
        }
    }
    let mut out = io::stdout().lock();
    for pause in &pauses {
        cluster.delete_pause(pause).await.to("resuming")?;
        let name = pause.metadata.name.as_deref().unwrap_or_default();
        writeln!(out, "{name} is over")?;
    }
    if pauses.is_empty() {
        writeln!(out, "nothing is paused")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn approve(
    cluster: &Kubernetes,
    name: &str,
    for_: Span,
    force: bool,
    now: Timestamp,
) -> Result<ExitCode, Error> {
    let node = there(cluster, name).await?;
    let health = health(cluster, &node).await?;
    let status = health.as_ref().and_then(|health| health.status.as_ref());
    let waits = |status: &&NodeHealthStatus| status.reasons.contains(&Reason::AwaitingApproval);
    // An approval is of one fault and one action: without them there is nothing to approve.
    let next = status.and_then(|status| Some((status, report::next_action(status)?)));
    let Some((status, action)) = next.filter(|(status, _)| force || waits(status)) else {
        let hint = match next {
            Some(_) => "; --force approves what is next all the same",
            None => ", and nothing is known that is to be done about it",
        };
        eprintln!("nodemend: {name} does not wait for approval (`nodemend explain {name}`){hint}");
        return Ok(ExitCode::FAILURE);
    };
    let approval = Approval {
        uid: node.uid.clone(),
        policy: status.policy.clone(),
        fault: status.fault.clone(),
        action,
        at: now,
        until: for_.after(now),
        by: me(cluster).await,
    };
    let text = serde_json::to_string(&approval)?;
    let written = cluster.annotate(name, &node.uid, APPROVED_ANNOTATION, &text);
    written.await.to("approving")?;
    writeln!(
        io::stdout().lock(),
        "{action:?} of {name} for {}/{} may start until {}",
        approval.policy,
        approval.fault,
        approval.until
    )?;
    Ok(ExitCode::SUCCESS)
}

async fn repair(cluster: &Kubernetes, options: Repair, now: Timestamp) -> Result<ExitCode, Error> {
    let node = there(cluster, &options.node).await?;
    let request = RepairRequest {
        uid: node.uid.clone(),
        at: now,
        until: options.for_.after(now),
        by: me(cluster).await,
        reason: options.reason,
        overrides: options.overrides,
    };
    let text = serde_json::to_string(&request)?;
    let written = cluster.annotate(&node.name, &node.uid, REQUEST_ANNOTATION, &text);
    written.await.to("asking")?;
    let answered = async {
        loop {
            if let Some(answer) = answer(cluster, &node, &request).await? {
                return Ok(answer);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let timeout = Duration::from_secs(options.timeout.as_seconds().unsigned_abs());
    let answered = tokio::time::timeout(timeout, answered).await;
    answered.unwrap_or(Err(Error::NoAnswer(options.timeout, request.until)))
}

/// What nodemend says to a request, once it did.
async fn answer(
    cluster: &Kubernetes,
    node: &NodeView,
    request: &RepairRequest,
) -> Result<Option<ExitCode>, Error> {
    let repairs = cluster.repairs().await.to("listing repairs")?;
    let mine = |repair: &&NodeRepair| {
        let made = repair.spec.request.as_ref();
        repair.spec.node_uid == node.uid && made.is_some_and(|made| made.at == request.at)
    };
    if let Some(repair) = repairs.iter().find(mine) {
        writeln!(io::stdout().lock(), "{}", repair.name())?;
        return Ok(Some(ExitCode::SUCCESS));
    }
    let Some(health) = health(cluster, node).await? else {
        return Ok(None);
    };
    let decisions = health.status.iter().flat_map(|status| &status.decisions);
    let answered = decisions.last().filter(|decision| {
        let heard = decision.inputs.request.as_ref();
        heard.is_some_and(|heard| heard.at == request.at)
    });
    let Some(decision) = answered else {
        return Ok(None);
    };
    let told = match decision.verdict {
        VerdictKind::Ignored if decision.inputs.refused => {
            format!("its policy {} was refused\n", decision.inputs.policy)
        }
        VerdictKind::Ignored => "no policy speaks for it\n".to_owned(),
        VerdictKind::Repairing => {
            let open = decision.inputs.repair.as_ref();
            let open = open.map_or("", |open| open.name.as_str());
            format!("its repair {open} is open already\n")
        }
        VerdictKind::Held => {
            let records = records(cluster).await?;
            let told = report::explain(&node.name, Some(node), &records, now(cluster).await);
            let held = told.as_ref().map(report::hold_by_hand).unwrap_or_default();
            format!("held\n{held}")
        }
        // It is about to start.
        _ => return Ok(None),
    };
    let (name, until) = (&node.name, request.until);
    eprint!("{name} is not repaired: {told}");
    eprintln!(
        "the request stands until {until}; to take it back: kubectl annotate node {name} {REQUEST_ANNOTATION}-"
    );
    Ok(Some(ExitCode::FAILURE))
}

/// Who this is, as far as anybody knows.
async fn me(cluster: &Kubernetes) -> String {
    let by = cluster.whoami().await.unwrap_or_default();
    let by = Some(by).filter(|by| !by.is_empty());
    let by = by.or_else(|| std::env::var("USER").ok().filter(|by| !by.is_empty()));
    let by = by.unwrap_or_else(|| "somebody".into());
    by.chars().take(by_hand::MAX_BY).collect()
}

async fn there(cluster: &Kubernetes, name: &str) -> Result<NodeView, Error> {
    let node = cluster.node(name).await.to("reading the node")?;
    node.ok_or_else(|| Error::NoNode(name.to_owned()))
}

async fn health(cluster: &Kubernetes, node: &NodeView) -> Result<Option<NodeHealth>, Error> {
    let healths = cluster.healths().await.to("listing the records of nodes")?;
    let mut healths = healths.into_iter();
    Ok(healths.find(|health| health.spec.node_uid == node.uid))
}

fn span(text: &str) -> Result<Span, String> {
    match text.parse::<Span>() {
        Ok(span) if span >= Span::seconds(1) => Ok(span),
        Ok(_) => Err("write a second or more".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Both approvals and requests hold a day at most.
fn day(text: &str) -> Result<Span, String> {
    let span = span(text)?;
    if span > APPROVED_FOR.min(REQUESTED_FOR) {
        return Err("write a day (24h) or less".into());
    }
    Ok(span)
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.starts_with('=') => {
            Ok((key.into(), value.into()))
        }
        _ => Err("write it like workload=general".into()),
    }
}

fn said(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("say why".into()),
        text if text.chars().count() > by_hand::MAX_REASON => {
            Err(format!("at most {} characters", by_hand::MAX_REASON))
        }
        text => Ok(text.to_owned()),
    }
}

fn guard(text: &str) -> Result<Reason, String> {
    let known = Reason::ALL.into_iter();
    let known: Vec<Reason> = known.filter(|reason| overridable(*reason)).collect();
    let found = known.iter().find(|reason| reason.to_string() == text);
    found.copied().ok_or_else(|| {
        let names: Vec<String> = known.iter().map(ToString::to_string).collect();
        format!("can be overridden: {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_ignored_can_be_named() {
        assert_eq!(guard("Budget"), Ok(Reason::Budget));
        for text in ["Paused", "budget", "NodesStale", ""] {
            let told = guard(text).unwrap_err();
            assert!(told.starts_with("can be overridden: "), "{told}");
            assert!(told.contains("OutsideWindow") && !told.contains("OtherActor"));
        }
    }

    #[test]
    fn what_is_written_is_checked_before_anything_is_asked() {
        assert_eq!(label("a/b=c"), Ok(("a/b".into(), "c".into())));
        assert_eq!(label("a="), Ok(("a".into(), String::new())));
        assert!(label("a").is_err() && label("=b").is_err() && label("a==b").is_err());
        assert!(day("24h").is_ok() && day("25h").is_err() && day("0s").is_err());
        assert_eq!(said(" x "), Ok("x".into()));
        assert!(said(" ").is_err() && said(&"x".repeat(1025)).is_err());
    }
}
