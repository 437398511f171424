//! Where the components' programs are: `tests/lab/build --print` knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The programs by name.
#[derive(Debug, Clone)]
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Asks the build script; it builds nothing.
    pub fn locate() -> Result<Self> {
        let script = crate::checkout().join("tests/lab/build");
        let output = Command::new(&script)
            .arg("--print")
            .output()
            .with_context(|| format!("running {}", script.display()))?;
        if !output.status.success() {
            bail!(
                "{} --print: {}",
                script.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let paths =
            serde_json::from_slice(&output.stdout).context("reading the build script's JSON")?;
        Ok(Self(paths))
    }

    /// The path of a program that must be there.
    pub fn get(&self, name: &str) -> Result<&Path> {
        match self.0.get(name) {
            Some(path) if path.exists() => Ok(path),
            Some(_) => bail!("{name} is not built: run tests/lab/build"),
            None => bail!("the build script knows no program {name}"),
        }
    }
}
