//! Where a lab lives on disk, and the components it runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::http;
use crate::process::{Process, Recipe};
use crate::programs::Programs;
use crate::wait::wait_for;
use crate::watchdog::Watchdog;

/// How long a component may take to be ready. Generous: builds share the machine.
pub const READY: Duration = Duration::from_secs(90);

/// Directory, watchdog and running components of one lab.
#[derive(Debug)]
pub struct Site {
    processes: Mutex<Vec<Process>>,
    /// Where the programs are.
    pub programs: Programs,
    root: PathBuf,
    // Dropped after the processes: it kills what is left.
    watchdog: Watchdog,
    temporary: Option<TempDir>,
}

impl Site {
    /// In the given directory, or in a temporary one that goes with the lab.
    pub fn create(directory: Option<&Path>) -> Result<Self> {
        let programs = Programs::locate()?;
        let (root, temporary) = if let Some(path) = directory {
            (path.to_owned(), None)
        } else {
            let temporary = tempfile::Builder::new()
                .prefix("nodemend-lab-")
                .tempdir()
                .context("creating a directory")?;
            (temporary.path().to_owned(), Some(temporary))
        };
        for name in ["logs", "config", "pki"] {
            fs::create_dir_all(root.join(name)).context("creating the lab's directories")?;
        }
        let watchdog = Watchdog::start(&root.join("pids"))?;
        Ok(Self {
            processes: Mutex::default(),
            programs,
            root,
            watchdog,
            temporary,
        })
    }

    /// The lab's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the components' logs are.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// A path in the lab's directory, as text for a command line.
    pub fn path(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }

    /// Writes a file of the lab and gives its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Starts a component and waits until it is ready.
    pub async fn start(&self, recipe: Recipe) -> Result<()> {
        let name = recipe.name.clone();
        let process = Process::start(recipe, &self.logs(), self.watchdog.pids())?;
        {
            let mut processes = self.lock();
            // Of an attempt that failed with another one.
            processes.retain(|process| process.name() != name);
            processes.push(process);
        }
        let outcome = self.ready(&name).await;
        if outcome.is_err() {
            // Dropped, so that another attempt can take its name.
            self.lock().retain(|process| process.name() != name);
        }
        outcome
    }

    /// Waits until a started component is ready; its early end is an error at once.
    pub async fn ready(&self, name: &str) -> Result<()> {
        let http = http::loopback_client()?;
        let health = self.with(name, |process| Ok(process.health().to_owned()))?;
        let look = || async {
            if let Some(error) = self.with(name, |process| Ok(process.ended()))? {
                return Ok(Some(Err(error)));
            }
            Ok(http::answers(&http, &health).await?.then_some(Ok(())))
        };
        let outcome = wait_for(&format!("{name} to be ready"), READY, look)
            .await
            .flatten();
        outcome.or_else(|error| self.with(name, |process| Err(process.explain(error))))
    }

    /// Does something with a component that is there.
    pub fn with<T>(&self, name: &str, act: impl FnOnce(&mut Process) -> Result<T>) -> Result<T> {
        let mut processes = self.lock();
        let process = processes.iter_mut().find(|process| process.name() == name);
        act(process.with_context(|| format!("this lab runs no {name}"))?)
    }

    /// The components' names and process ids.
    pub fn running(&self) -> Vec<(String, u32)> {
        self.lock()
            .iter()
            .filter_map(|process| Some((process.name().to_owned(), process.pid()?)))
            .collect()
    }

    /// Keeps a temporary directory's logs for a look, without etcd's data.
    pub fn keep_logs(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            let path = temporary.keep();
            // Best effort: it is only disk space.
            let _ = fs::remove_dir_all(path.join("etcd"));
            eprintln!("the lab's logs are kept in {}", path.display());
        }
    }

    /// Kills all, the last started first.
    pub fn kill_all(&self) {
        for process in self.lock().iter_mut().rev() {
            // The watchdog gets what this could not.
            let _ = process.kill();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Process>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts something on fresh ports, again if another process took one of them.
pub async fn on_free_ports<T, F, Fut>(mut attempt: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let mut clashes = 0;
    loop {
        match attempt().await {
            Err(error)
                if clashes < 3 && format!("{error:#}").contains("address already in use") =>
            {
                clashes += 1;
            }
            other => return other,
        }
    }
}
