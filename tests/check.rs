//! `nodemend check` as a person runs it: on a folder of mistakes, and on what is shipped.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// Each file of `tests/mistakes/`, which is named for the one mistake in it: where that is,
/// and part of what is said of it.
const MISTAKES: [(&str, usize, usize, &str); 20] = [
    ("another-programs-file", 1, 1, "nothing that nodemend reads"),
    ("budget-that-limits-nothing", 10, 5, "limits nothing"),
    ("fault-for-in-words", 7, 66, "is not a duration"),
    (
        "fault-that-rests-on-itself",
        7,
        12,
        "Broken -> Sick -> Broken",
    ),
    ("fault-when-empty", 8, 11, "says nothing"),
    ("not-yaml", 4, 1, "is not YAML"),
    ("pause-without-reason", 5, 3, "`reason` is missing"),
    ("policies-that-tie", 11, 18, "ties with `all-of-tied`"),
    (
        "policy-field-misspelt",
        5,
        3,
        "unknown field `nodeSelektor`",
    ),
    ("policy-mode-in-lower-case", 5, 9, "`observe` is not known"),
    ("policy-name-twice", 11, 18, "`twice` exists already"),
    ("rule-for-without-unit", 6, 10, "`10` is not a duration"),
    ("rule-interval-too-long", 3, 13, "is above 1m"),
    ("rule-twice", 8, 13, "`NodeDiskIOErrors` exists already"),
    ("rule-without-expr", 4, 5, "`expr` is missing"),
    ("settings-rules-that-match-no-file", 4, 3, "matches no file"),
    ("settings-share-above-100", 3, 20, "is not a percentage"),
    ("settings-webhook-open-to-anyone", 3, 12, "open to anyone"),
    ("signal-misspelt", 10, 18, "no rule gives `NodeDiskIOError`"),
    ("window-in-no-time-zone", 10, 15, "is not a time zone"),
];

#[derive(Debug, Deserialize)]
struct Told {
    problems: Vec<Problem>,
    summary: BTreeMap<String, usize>,
}

#[derive(Debug, Deserialize)]
struct Problem {
    file: String,
    line: usize,
    column: usize,
    message: String,
    hint: String,
}

fn check(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodemend"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("check");
    Ok(command.args(arguments).output()?)
}

fn told(arguments: &[&str]) -> Result<(Option<i32>, Told)> {
    let arguments = [arguments, &["--format", "json"]].concat();
    let output = check(&arguments)?;
    let told = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code(), told))
}

#[test]
fn twenty_mistakes_are_told_in_one_run() -> Result<()> {
    let files = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/mistakes")
        .read_dir()?;
    assert_eq!(files.count(), MISTAKES.len(), "each file has a line above");
    let (code, told) = told(&["tests/mistakes"])?;
    for (name, line, column, part) in MISTAKES {
        let file = format!("tests/mistakes/{name}.yaml");
        let of: Vec<&Problem> = told
            .problems
            .iter()
            .filter(|one| one.file == file)
            .collect();
        let [problem] = of[..] else {
            anyhow::bail!("{name}: {of:?}");
        };
        ensure!(
            (problem.line, problem.column) == (line, column) && problem.message.contains(part),
            "{problem:?}"
        );
        ensure!(!problem.hint.is_empty(), "{problem:?}");
    }
    assert_eq!((code, told.problems.len()), (Some(1), MISTAKES.len()));
    assert_eq!(told.summary["problems"], MISTAKES.len());
    Ok(())
}

#[test]
fn people_see_the_line_and_what_to_do() -> Result<()> {
    let output = check(&["tests/mistakes/window-in-no-time-zone.yaml"])?;
    let expect = "\
tests/mistakes/window-in-no-time-zone.yaml:10:15: `Europe/Bern` is not a time zone
 10 |     timeZone: Europe/Bern
    |               ^
    = an IANA name such as Europe/Berlin

1 mistake in 1 file: 1 policy
";
    assert_eq!(String::from_utf8(output.stdout)?, expect);
    assert_eq!(output.status.code(), Some(1));
    Ok(())
}

#[test]
fn what_is_shipped_is_fine() -> Result<()> {
    let (code, told) = told(&["rules", "tests/scenarios"])?;
    ensure!(code == Some(0) && told.problems.is_empty(), "{told:?}");
    let summary = &told.summary;
    ensure!(
        summary["rules"] >= 5 && summary["policies"] == 2,
        "{summary:?}"
    );
    ensure!(
        summary["scenarios"] >= 20 && summary["leftOut"] >= 3,
        "{summary:?}"
    );
    Ok(())
}

#[test]
fn nothing_to_check_is_no_success() -> Result<()> {
    let others = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(&others, "apiVersion: v1\nkind: ConfigMap\n")?;
    let others = others.path().display().to_string();
    let empty = tempfile::tempdir()?;
    let empty = empty.path().display().to_string();
    for (arguments, said) in [
        (&["none.yaml"][..], "none.yaml: No such file"),
        (&["rules", "none"], "none: No such file"),
        (&[&empty], "there is no *.yaml"),
        (&[&others], "no rules, policies or nodemend.yaml"),
        (&[], "required arguments"),
    ] {
        let output = check(arguments)?;
        let told = String::from_utf8(output.stderr)?;
        ensure!(
            output.status.code() == Some(2) && told.contains(said),
            "{told}"
        );
        ensure!(output.stdout.is_empty());
    }
    Ok(())
}

#[test]
fn schemas_and_completions_are_generated() -> Result<()> {
    for (arguments, part) in [
        (&["schema"][..], "onUnreachable"),
        (&["schema", "settings"], "webhookAuth"),
        (&["completions", "bash"], "complete -F _nodemend"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodemend"));
        let output = command.arg("generate").args(arguments).output()?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(
            output.status.success() && text.contains(part),
            "{arguments:?}: {text}"
        );
    }
    Ok(())
}
