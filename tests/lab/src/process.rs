//! One component: a child process with its log, stopped when dropped.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::wait::wait_for;

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
}

impl Recipe {
    /// A recipe without environment.
    pub fn new<S: Into<String>>(name: &str, program: &Path, args: impl IntoIterator<Item = S>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
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
        let mut process = Self { recipe, log, pids: pids.to_owned(), child: None };
        process.start_again()?;
        Ok(process)
    }

    /// Starts the same program with the same arguments, after [`Self::kill`].
    pub fn start_again(&mut self) -> Result<()> {
        let name = &self.recipe.name;
        if self.child.is_some() {
            bail!("{name} is running already");
        }
        let log = File::options().create(true).append(true).open(&self.log).context("opening its log")?;
        let child = Command::new(&self.recipe.program)
            .args(&self.recipe.args)
            .env_clear()
            // A proxy of the machine's must not get between loopback ports.
            .envs(std::env::vars().filter(|(key, _)| matches!(key.as_str(), "PATH" | "HOME" | "TMPDIR")))
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

    /// Waits until `ready`; an early end or the deadline is an error with the log's tail.
    pub async fn ready<F, Fut>(&mut self, deadline: Duration, mut ready: F) -> Result<()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<bool>>,
    {
        let name = self.recipe.name.clone();
        let mut ended = None;
        let outcome = wait_for(&format!("{name} to be ready"), deadline, || {
            ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            let look = if ended.is_some() { None } else { Some(ready()) };
            async move {
                match look {
                    Some(look) => Ok(look.await?.then_some(true)),
                    None => Ok(Some(false)),
                }
            }
        })
        .await;
        match outcome {
            Ok(true) => Ok(()),
            Ok(false) => Err(anyhow!("{name} ended at start ({})", ended.map_or_else(String::new, |s| s.to_string()))),
            Err(error) => Err(error),
        }
        .with_context(|| format!("the end of {}:\n{}", self.log.display(), self.tail()))
    }

    /// SIGKILL, and waits for the end. Nothing if it is stopped.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let name = &self.recipe.name;
        // The id is free for others once we have waited: off the watchdog's list before.
        let pid = self.pids.join(child.id().to_string());
        child.kill().with_context(|| format!("killing {name}"))?;
        let _ = fs::remove_file(pid);
        child.wait().with_context(|| format!("waiting for the end of {name}"))?;
        Ok(())
    }

    /// Sends a signal by name, as `STOP`, `CONT`, `TERM`, `HUP`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} is not running", self.recipe.name))?;
        // The shell's kill: sending a signal from Rust would need unsafe code.
        let status = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "kill", signal, &child.id().to_string()])
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
