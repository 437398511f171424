//! The process in the background, found again by its id and start time.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Who it is: an id alone may belong to another by now.
#[derive(Debug, Serialize, Deserialize)]
pub struct Identity {
    pid: u32,
    /// In clock ticks after boot.
    started: u64,
}

/// The process that this command started.
pub struct Background(Child);

impl Background {
    /// Starts it, away from the terminal, and writes down who it is.
    pub fn start(home: &Path) -> Result<Self> {
        let log = File::create(home.join("lab.log")).context("creating its log")?;
        let child = Command::new(std::env::current_exe().context("finding this program")?)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing its log")?)
            .stderr(log)
            // Meant for tests; here it would keep the lab from ending.
            .env_remove("NODEMEND_LAB_KEEP")
            .process_group(0)
            .spawn()
            .context("starting it")?;
        let pid = child.id();
        let started = start_time(pid).context("it ended at once")?;
        let text =
            serde_json::to_string(&Identity { pid, started }).context("writing its identity")?;
        fs::write(identity_file(home), text).context("writing its identity")?;
        Ok(Self(child))
    }

    /// Whether it has ended already.
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait().context("looking after it")?.is_some())
    }

    /// The one that runs, if it is truly that one.
    pub fn running(home: &Path) -> Result<Option<Identity>> {
        let Ok(text) = fs::read_to_string(identity_file(home)) else {
            return Ok(None);
        };
        let identity: Identity = serde_json::from_str(&text).context("reading its identity")?;
        Ok((start_time(identity.pid) == Some(identity.started)).then_some(identity))
    }
}

impl Identity {
    /// Sends it a signal by name.
    pub fn signal(&self, signal: &str) -> Result<()> {
        // The shell's kill: sending a signal from Rust would need unsafe code.
        let status = Command::new("sh")
            .args([
                "-c",
                r#"kill -s "$1" "$2""#,
                "kill",
                signal,
                &self.pid.to_string(),
            ])
            .status()
            .context("running kill")?;
        if !status.success() {
            bail!("kill -s {signal} {}: {status}", self.pid);
        }
        Ok(())
    }
}

/// The end of its log.
pub fn tail(home: &Path) -> String {
    let text = fs::read_to_string(home.join("lab.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn identity_file(home: &Path) -> PathBuf {
    home.join("lab.json")
}

/// When a process started; none if it is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name in parentheses, which may hold anything: state is field 3, start time 22.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if *fields.first()? == "Z" {
        None
    } else {
        fields.get(19)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_process_counts_as_running() {
        let home = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let started = start_time(pid).unwrap();
        let write = |started| {
            fs::write(
                identity_file(home.path()),
                serde_json::to_string(&Identity { pid, started }).unwrap(),
            )
            .unwrap();
        };
        assert!(Background::running(home.path()).unwrap().is_none());
        write(started);
        assert!(Background::running(home.path()).unwrap().is_some());
        write(started + 1);
        assert!(Background::running(home.path()).unwrap().is_none());
    }
}
