//! The command line.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use nodemend_core::api;

use crate::{app, telemetry};

/// Replaces broken Kubernetes nodes at a pace that cannot hurt the cluster, and says why.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a simulated fleet with faults and tell what becomes of it.
    Demo {
        /// Which faults strike which nodes; the same seed gives the same run.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only the summary, at full speed.
        #[arg(long)]
        headless: bool,
        /// How the summary is written.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Run the service until SIGTERM: take webhooks, and on the leader watch, decide and repair.
    Run {
        /// The service's configuration, nodemend.yaml.
        #[arg(long, value_name = "FILE", env = "NODEMEND_CONFIG")]
        config: PathBuf,
        /// How log lines are written to stderr; `RUST_LOG` says which (default: info).
        #[arg(long, value_enum, default_value_t = Log::Json)]
        log: Log,
    },
    /// Write what is derived from the types.
    Generate {
        /// What to write.
        #[command(subcommand)]
        what: Generate,
    },
}

#[derive(Debug, Subcommand)]
enum Generate {
    /// The custom resource definitions, one document each, for kubectl apply.
    Crds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Log {
    Human,
    Json,
}

/// Runs the command of this process. Exit codes: 0 fine, 1 the thing checked is wrong, 2 usage.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo {
            seed,
            headless,
            format,
        } => demo(seed, headless, format),
        Command::Run { config, log } => {
            telemetry::logs(log == Log::Json);
            app::serve::run(&config)
                .map(|()| ExitCode::SUCCESS)
                .map_err(std::io::Error::other)
        }
        Command::Generate {
            what: Generate::Crds,
        } => generate_crds(),
    };
    outcome.unwrap_or_else(|error| {
        // A reader that went away, as `head` does, is no failure worth a message.
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            eprintln!("nodemend: {error}");
        }
        ExitCode::from(2)
    })
}

fn demo(seed: u64, headless: bool, format: Format) -> std::io::Result<ExitCode> {
    let mut told = Ok(());
    let (summary, _) = app::demo::run(seed, None, |event| {
        if !headless && told.is_ok() {
            told = writeln!(
                std::io::stderr(),
                "{}  {}",
                event.at.strftime("%H:%M:%S"),
                event.text
            );
        }
    });
    told?;
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string(&summary)?)?,
        Format::Human => human(&mut out, &summary)?,
    }
    Ok(if summary.invariants.violated.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn human(out: &mut impl std::io::Write, summary: &app::demo::Summary) -> std::io::Result<()> {
    let bold = if std::io::stdout().is_terminal() {
        ("\u{1b}[1m", "\u{1b}[0m")
    } else {
        ("", "")
    };
    writeln!(
        out,
        "{}{} nodes, seed {}{}",
        bold.0, summary.nodes, summary.seed, bold.1
    )?;
    for repair in &summary.repairs {
        writeln!(
            out,
            "repaired  {}  {}  {:?}",
            repair.node, repair.fault, repair.phase
        )?;
    }
    for held in &summary.held {
        let reasons: Vec<String> = held.reasons.iter().map(ToString::to_string).collect();
        writeln!(out, "held      {}  {}", held.node, reasons.join(", "))?;
    }
    for observed in &summary.observed {
        writeln!(out, "observed  {}  {}", observed.node, observed.fault)?;
    }
    writeln!(
        out,
        "{} invariants checked, {} violated",
        summary.invariants.checked,
        summary.invariants.violated.len()
    )?;
    summary
        .invariants
        .violated
        .iter()
        .try_for_each(|violated| writeln!(out, "violated  {violated}"))
}

fn generate_crds() -> std::io::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for definition in api::definitions() {
        // JSON is YAML; kubectl takes either, and no YAML writer is needed.
        writeln!(out, "---\n{}", serde_json::to_string_pretty(&definition)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
