//! One component: a child process with its log, stopped when dropped.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

/// How many lines of its log an error shows.
const TAIL: usize = 25;

/// What to run; kept so that the same can be started again on the same ports.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The component's name, also of its log.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, over a nearly empty one.
    pub env: Vec<(String, String)>,
    /// The address that gives a success when it is ready.
    pub health: String,
}

impl Recipe {
    /// A recipe without environment.
    pub fn new<S: Into<String>>(
        name: &str,
        program: &Path,
        health: String,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            health,
        }
    }
}

/// A component, running or stopped.
#[derive(Debug)]
pub struct Process {
    recipe: Recipe,
    log: PathBuf,
    pids: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts it, its output appended to `NAME.log` in `logs`.
    pub fn start(recipe: Recipe, logs: &Path, pids: &Path) -> Result<Self> {
        let log = logs.join(format!("{}.log", recipe.name));
        let mut process = Self {
            recipe,
            log,
            pids: pids.to_owned(),
            child: None,
        };
        process.start_again()?;
        Ok(process)
    }

    /// Starts the same program with the same arguments, after [`Self::kill`].
    pub fn start_again(&mut self) -> Result<()> {
        let name = &self.recipe.name;
        if self.child.is_some() {
            bail!("{name} is running already");
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .context("opening its log")?;
        let child = Command::new(&self.recipe.program)
            .args(&self.recipe.args)
            .env_clear()
            // A proxy of the machine's must not get between loopback ports.
            .envs(
                std::env::vars()
                    .filter(|(key, _)| matches!(key.as_str(), "PATH" | "HOME" | "TMPDIR")),
            )
            .envs(self.recipe.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing its log")?)
            .stderr(log)
            // Its own group: a Ctrl-C at a terminal is for the one who started the lab.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name} ({})", self.recipe.program.display()))?;
        fs::write(self.pids.join(child.id().to_string()), name).context("noting its process id")?;
        self.child = Some(child);
        Ok(())
    }

    /// The error of an early end, if it has ended.
    pub fn ended(&mut self) -> Option<anyhow::Error> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        Some(anyhow!("{} ended at start ({status})", self.recipe.name))
    }

    /// Adds the end of its log to an error.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        error.context(format!(
            "the end of {}:\n{}",
            self.log.display(),
            self.tail()
        ))
    }

    /// The address that tells whether it is ready.
    pub fn health(&self) -> &str {
        &self.recipe.health
    }

    /// SIGKILL, and waits for the end. Nothing if it is stopped.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let name = &self.recipe.name;
        // The id is free for others once we have waited: off the watchdog's list before.
        let pid = self.pids.join(child.id().to_string());
        child.kill().with_context(|| format!("killing {name}"))?;
        let _ = fs::remove_file(pid);
        child
            .wait()
            .with_context(|| format!("waiting for the end of {name}"))?;
        Ok(())
    }

    /// Sends a signal by name, as `STOP`, `CONT`, `TERM`, `HUP`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let child = self
            .child
            .as_ref()
            .with_context(|| format!("{} is not running", self.recipe.name))?;
        // The shell's kill: sending a signal from Rust would need unsafe code.
        let status = Command::new("sh")
            .args([
                "-c",
                r#"kill -s "$1" "$2""#,
                "kill",
                signal,
                &child.id().to_string(),
            ])
            .status()
            .context("running kill")?;
        if !status.success() {
            bail!("kill -s {signal} of {}: {status}", self.recipe.name);
        }
        Ok(())
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.recipe.name
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody to tell: at worst the watchdog gets it.
        let _ = self.kill();
    }
}
