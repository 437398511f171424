//! The command line.

mod check;
mod person;

use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use nodemend_core::{api, config};

use crate::app::demo::{Live, Progress, Told};
use crate::app::scenario::Relay;
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
    ///
    /// On a terminal it takes its time, and takes Alertmanager payloads that you post to
    /// it; elsewhere it runs at once, unless told to listen.
    Demo(Demo),
    /// Run the service until SIGTERM: take webhooks, and on the leader watch, decide and repair.
    Run {
        /// The service's configuration, nodemend.yaml.
        #[arg(long, value_name = "FILE", env = "NODEMEND_CONFIG")]
        config: PathBuf,
        /// How log lines are written to stderr; `RUST_LOG` says which (default: info).
        #[arg(long, value_enum, default_value_t = Log::Json)]
        log: Log,
    },
    /// Check rules, policies and nodemend.yaml, and tell every mistake at once.
    ///
    /// Prometheus rule files, `RepairPolicy` and `RepairPause` documents, nodemend.yaml and
    /// scenarios are told apart by what they say. A nodemend.yaml is checked together with
    /// the rules and policies that it names, other files together with those of their
    /// folder: names must be unique, policies must not tie. promtool's tests and other
    /// objects of Kubernetes are left out; what is nothing of this is a mistake.
    ///
    /// Exit code: 0 fine (notes may be meant), 1 mistakes, 2 nothing to check.
    #[command(after_help = check::EXAMPLES)]
    Check(check::Check),
    #[command(flatten)]
    Person(person::Command),
    /// Write what is derived from the types.
    Generate {
        /// What to write.
        #[command(subcommand)]
        what: Generate,
    },
}

#[derive(Debug, Args)]
struct Demo {
    /// Which faults strike which nodes; the same seed gives the same run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the summary, at full speed.
    #[arg(long)]
    headless: bool,
    /// How the summary is written.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Where to take Alertmanager payloads, on loopback; on a terminal 127.0.0.1:9095.
    #[arg(long, value_name = "ADDR", conflicts_with = "headless", value_parser = loopback)]
    listen: Option<SocketAddr>,
    /// A scenario instead: a file, or a name in tests/scenarios. Says what was not as expected.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["seed", "listen"])]
    scenario: Option<String>,
    /// Virtual seconds per real second, where it takes its time: by default 60, and for a
    /// scenario as many as let it last a minute.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    speed: Option<u32>,
}

/// Virtual seconds per real second of a demo on a terminal.
const SPEED: u32 = 60;

impl Demo {
    /// Whether somebody looks on.
    fn watched(&self) -> bool {
        !self.headless && std::io::stderr().is_terminal()
    }

    /// How it is paced; none runs at once.
    fn live(&self) -> Option<Live> {
        let listen = self.listen.or(self.watched().then_some(LISTEN))?;
        Some(Live {
            listen,
            speed: self.speed.unwrap_or(SPEED),
        })
    }
}

/// Where a demo on a terminal listens.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9095);

fn loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err("only loopback: anyone who reaches it may deliver".into()),
        Err(_) => Err("write it like 127.0.0.1:9095".into()),
    }
}

#[derive(Debug, Subcommand)]
enum Generate {
    /// The custom resource definitions, one document each, for kubectl apply.
    Crds,
    /// A JSON Schema, for editors to complete and check files while they are written.
    Schema {
        /// Of which files.
        #[arg(value_enum, default_value_t = Schema::Policy)]
        of: Schema,
    },
    /// What a shell needs to complete commands, such as `source <(nodemend generate completions bash)`.
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Schema {
    /// `RepairPolicy` documents.
    Policy,
    /// nodemend.yaml.
    Settings,
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
        Command::Demo(options) => demo(&options),
        Command::Run { config, log } => {
            telemetry::logs(log == Log::Json);
            app::serve::run(&config)
                .map(|()| ExitCode::SUCCESS)
                .map_err(std::io::Error::other)
        }
        Command::Check(options) => check::run(&options),
        Command::Generate { what } => match what {
            Generate::Crds => generate_crds(),
            Generate::Schema { of } => generate_schema(of),
            Generate::Completions { shell } => generate_completions(shell),
        },
        Command::Person(command) => person::run(command),
    };
    outcome.unwrap_or_else(|error| {
        // A reader that went away, as `head` does, is no failure worth a message.
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            eprintln!("nodemend: {error}");
        }
        ExitCode::from(2)
    })
}

/// Exit code 1 if anything is not as the scenario expects.
fn scenario(name: &str, options: &Demo) -> std::io::Result<ExitCode> {
    let named = PathBuf::from(format!("tests/scenarios/{name}.yaml"));
    let file = if named.exists() { named } else { name.into() };
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(&file)
        .map_err(|error| std::io::Error::other(format!("{shown}: {error}")))?;
    let scenario = match app::scenario::read(&shown, &text) {
        Ok(scenario) => scenario,
        Err(problems) => {
            for problem in problems {
                eprintln!("{problem}");
            }
            return Ok(ExitCode::from(2));
        }
    };
    let mut teller = Teller {
        quiet: options.headless,
        terminal: std::io::stderr().is_terminal(),
    };
    teller.tell(Told::Line(&scenario.about))?;
    let tell = |told: Told<'_>| teller.tell(told);
    let played = if options.watched() {
        app::scenario::live(&scenario, options.speed, tell)?
    } else {
        app::scenario::play(&scenario, Relay::Never, tell)?
    };
    teller.end()?;
    let mut out = std::io::stdout().lock();
    match options.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string(&played.summary)?)?,
        Format::Human => human(&mut out, &played.summary)?,
    }
    for unmet in &played.unmet {
        eprintln!("not as expected: {unmet}");
    }
    Ok(if played.unmet.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn demo(options: &Demo) -> std::io::Result<ExitCode> {
    if let Some(name) = &options.scenario {
        return scenario(name, options);
    }
    let mut teller = Teller {
        quiet: options.headless,
        terminal: std::io::stderr().is_terminal(),
    };
    let tell = |told: Told<'_>| teller.tell(told);
    let summary = match options.live() {
        Some(live) => app::demo::live(options.seed, live, tell)?,
        None => app::demo::run(options.seed, tell)?,
    };
    teller.end()?;
    let mut out = std::io::stdout().lock();
    match options.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string(&summary)?)?,
        Format::Human => human(&mut out, &summary)?,
    }
    Ok(if summary.invariants.violated.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Back to the start of the line, which is cleared.
const REWRITE: &str = "\r\u{1b}[K";

/// Writes the story to stderr; on a terminal the last line is the progress.
struct Teller {
    quiet: bool,
    terminal: bool,
}

impl Teller {
    fn tell(&mut self, told: Told<'_>) -> std::io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        let mut out = std::io::stderr().lock();
        let start = if self.terminal { REWRITE } else { "" };
        match told {
            Told::Line(text) => writeln!(out, "{start}{text}"),
            Told::Event { at, who, what } => {
                writeln!(out, "{start}{}  {who:<10} {what}", at.strftime("%H:%M:%S"))
            }
            Told::Progress(progress) if self.terminal => {
                // Without wrapping: what is not on this very line would stay.
                write!(
                    out,
                    "{start}\u{1b}[?7l{}\u{1b}[?7h",
                    progress_line(progress)
                )?;
                out.flush()
            }
            Told::Progress(_) => Ok(()),
        }
    }

    fn end(&self) -> std::io::Result<()> {
        if self.quiet || !self.terminal {
            return Ok(());
        }
        write!(std::io::stderr(), "{REWRITE}")
    }
}

fn progress_line(progress: &Progress) -> String {
    let nodes: Vec<String> = progress
        .nodes
        .iter()
        .map(|(verdict, count)| format!("{count} {}", format!("{verdict:?}").to_lowercase()))
        .collect();
    let repairs = match progress.open {
        1 => "1 repair open".to_owned(),
        count => format!("{count} repairs open"),
    };
    format!(
        "{} of {}  nodes: {}; {repairs}",
        progress.at.strftime("%H:%M:%S"),
        progress.end.strftime("%H:%M:%S"),
        nodes.join(", ")
    )
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
            "repair    {}  {}  {:?}",
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

fn generate_schema(of: Schema) -> std::io::Result<ExitCode> {
    let schema = match of {
        Schema::Policy => config::policy_schema(),
        Schema::Settings => config::settings_schema(),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string_pretty(&schema)?)?;
    Ok(ExitCode::SUCCESS)
}

fn generate_completions(shell: Shell) -> std::io::Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "nodemend", &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}
