//! Starting and stopping the lab that outlives the command.

mod background;
mod configuration;
mod serve;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nodemend_lab::wait_for;

use background::Background;
pub use serve::serve;

/// A cold start on a busy machine.
const START: Duration = Duration::from_mins(5);
const STOP: Duration = Duration::from_secs(30);

/// Where the lab left running lives; one per user.
fn home() -> Result<PathBuf> {
    let cache = std::env::var_os("NODEMEND_CACHE")
        .map(PathBuf::from)
        .or_else(|| {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let cache =
                cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
            Some(cache.join("nodemend"))
        });
    Ok(cache
        .context("neither NODEMEND_CACHE, XDG_CACHE_HOME nor HOME is set")?
        .join("up"))
}

/// What the background process writes once all is ready: how to use it.
fn guide() -> Result<PathBuf> {
    Ok(home()?.join("guide.txt"))
}

/// Starts the lab and prints how to use it; once up, it only prints.
pub fn up() -> Result<()> {
    let home = home()?;
    if Background::running(&home)?.is_none() {
        // Of an earlier lab: its data would meet new keys.
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).with_context(|| format!("creating {}", home.display()))?;
        eprintln!(
            "nodemend-lab: starting, log in {}",
            home.join("lab.log").display()
        );
        let started = Instant::now();
        let mut background = Background::start(&home)?;
        block_on(wait_for("the lab", START, || {
            let ended = background.ended();
            async move {
                if ended? {
                    return Ok(Some(false));
                }
                Ok(guide()?.exists().then_some(true))
            }
        }))
        .and_then(|ready| {
            if ready {
                Ok(())
            } else {
                bail!("it ended at once")
            }
        })
        .with_context(|| format!("starting; the end of its log:\n{}", background::tail(&home)))?;
        eprintln!(
            "nodemend-lab: up in {:.1} s",
            started.elapsed().as_secs_f32()
        );
    }
    status()
}

/// Prints how to use the running lab.
pub fn status() -> Result<()> {
    if Background::running(&home()?)?.is_none() {
        println!("no lab is up; tests/lab/up starts one");
        return Ok(());
    }
    print!(
        "{}",
        fs::read_to_string(guide()?).context("the lab is still starting")?
    );
    Ok(())
}

/// Stops the lab that `up` started, and nothing else.
pub fn down() -> Result<()> {
    let home = home()?;
    let Some(running) = Background::running(&home)? else {
        println!("no lab is up");
        return Ok(());
    };
    running.signal("TERM")?;
    let gone = || async { Ok(Background::running(&home)?.is_none().then_some(())) };
    if block_on(wait_for("the lab's end", STOP, gone)).is_err() {
        // Its watchdog then ends the components.
        running.signal("KILL")?;
        block_on(wait_for("the lab's end", STOP, gone))?;
    }
    fs::remove_dir_all(&home).context("removing what it left")?;
    println!("the lab is down");
    Ok(())
}

fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?
        .block_on(future)
}
