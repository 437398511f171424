//! Each scenario of `tests/scenarios/`, as it is written and with another leader taking
//! over whenever something happens.

use std::io;
use std::path::PathBuf;

use nodemend::app::scenario::{self, Relay};

/// What was not as expected, of each scenario.
fn play(relay: Relay) -> io::Result<Vec<String>> {
    let folder = nodemend_lab::checkout().join("tests/scenarios");
    let files: io::Result<Vec<PathBuf>> =
        folder.read_dir()?.map(|entry| Ok(entry?.path())).collect();
    let mut files = files?;
    files.sort();
    assert!(files.len() >= 20, "{} scenarios", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        match scenario::read(&name, &std::fs::read_to_string(&file)?) {
            Ok(read) => {
                let played = scenario::play(&read, relay, |_| Ok(()))?;
                wrong.extend(played.unmet.iter().map(|unmet| format!("{name} {unmet}")));
            }
            Err(problems) => wrong.extend(problems.iter().map(ToString::to_string)),
        }
    }
    Ok(wrong)
}

#[test]
fn each_scenario_goes_as_expected() -> io::Result<()> {
    assert_eq!(play(Relay::Never)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn each_scenario_goes_as_expected_with_a_new_leader_before_anything_is_seen() -> io::Result<()> {
    assert_eq!(play(Relay::Unseen)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn each_scenario_goes_as_expected_with_a_new_leader_after_anything_is_seen() -> io::Result<()> {
    assert_eq!(play(Relay::Seen)?, Vec::<String>::new());
    Ok(())
}
