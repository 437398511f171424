//! Ends the lab's components if this process dies without a chance to do so.
//!
//! `Drop` covers a panic; SIGKILL, Ctrl-C and a test runner's timeout it does
//! not. So a shell waits on a pipe from us: when it closes, the components
//! whose process ids are still on file are killed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

const SCRIPT: &str = r#"read -r word; for file in "$1"/*; do [ -e "$file" ] && kill -s KILL "${file##*/}"; done; rm -rf "$1""#;

/// The shell that waits, and the directory with a file per living component.
#[derive(Debug)]
pub struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
    pids: PathBuf,
}

impl Watchdog {
    /// Starts it; `pids` is a directory of its own.
    pub fn start(pids: &Path) -> Result<Self> {
        fs::create_dir_all(pids).with_context(|| format!("creating {}", pids.display()))?;
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "nodemend-lab-watchdog"])
            .arg(pids)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Its own group, so that a Ctrl-C at a terminal does not end it before its work.
            .process_group(0)
            .spawn()
            .context("starting the watchdog shell")?;
        let pipe = shell.stdin.take();
        Ok(Self {
            shell,
            pipe,
            pids: pids.to_owned(),
        })
    }

    /// Where a component's id is put while it lives.
    pub fn pids(&self) -> &Path {
        &self.pids
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // Best effort: the shell ends by itself once its pipe is closed.
        let _ = self.shell.wait();
    }
}
