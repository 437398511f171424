//! `nodemend check`: what it takes, and how it tells what it found.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use nodemend_core::config::{Counts, Problem};
use serde::Serialize;

use super::Format;
use crate::app::check::{Report, check};

pub(super) const EXAMPLES: &str = "\
Examples:
  nodemend check rules/               what is in a folder
  nodemend check nodemend.yaml        what `nodemend run` would read
  nodemend check rules/ --format json | jq '.problems[]'";

/// As much of a line is shown, around the place.
const WIDTH: usize = 100;

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Files, and folders that are searched for *.yaml and *.yml.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// How mistakes are told: with the lines they are in, or as one JSON document.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

/// Exit code 1 if there is any mistake.
pub(super) fn run(options: &Check) -> io::Result<ExitCode> {
    let report = check(&options.paths).map_err(io::Error::other)?;
    let mut out = io::stdout().lock();
    match options.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string(&told(&report))?)?,
        Format::Human => {
            let coloured = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            human(&mut out, &report, Colours::new(coloured))?;
        }
    }
    Ok(if report.checked.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[derive(Serialize)]
struct Told<'a> {
    problems: &'a [Problem],
    notes: &'a [Problem],
    summary: Summary,
}

#[derive(Serialize)]
struct Summary {
    files: usize,
    #[serde(flatten)]
    counts: Counts,
    problems: usize,
    notes: usize,
}

fn told(report: &Report) -> Told<'_> {
    let checked = &report.checked;
    Told {
        problems: &checked.problems,
        notes: &checked.notes,
        summary: Summary {
            files: report.files,
            counts: checked.counts,
            problems: checked.problems.len(),
            notes: checked.notes.len(),
        },
    }
}

/// Escape sequences, or nothing.
#[derive(Clone, Copy)]
struct Colours {
    bold: &'static str,
    red: &'static str,
    dim: &'static str,
    plain: &'static str,
}

impl Colours {
    fn new(coloured: bool) -> Self {
        let on = |sequence| if coloured { sequence } else { "" };
        Self {
            bold: on("\u{1b}[1m"),
            red: on("\u{1b}[1;31m"),
            dim: on("\u{1b}[2m"),
            plain: on("\u{1b}[0m"),
        }
    }
}

fn human(out: &mut impl Write, report: &Report, colours: Colours) -> io::Result<()> {
    let checked = &report.checked;
    for problem in &checked.problems {
        excerpt(
            out,
            problem,
            report.line(&problem.file, problem.line),
            colours,
        )?;
    }
    for note in &checked.notes {
        writeln!(
            out,
            "{}note{} {}",
            colours.bold,
            colours.plain,
            printable(&note.to_string())
        )?;
    }
    let mistakes = match checked.problems.len() {
        0 => "no mistakes".to_owned(),
        1 => format!("{}1 mistake{}", colours.red, colours.plain),
        count => format!("{}{count} mistakes{}", colours.red, colours.plain),
    };
    writeln!(
        out,
        "{mistakes} in {}",
        counted(report.files, checked.counts)
    )
}

/// A mistake, the line that it is in, and what to do.
fn excerpt(
    out: &mut impl Write,
    problem: &Problem,
    line: Option<&str>,
    colours: Colours,
) -> io::Result<()> {
    let Colours {
        bold,
        red,
        dim,
        plain,
    } = colours;
    let place = if problem.line > 0 {
        format!("{}:{}:{}", problem.file, problem.line, problem.column)
    } else {
        problem.file.clone()
    };
    let message = printable(&problem.message);
    writeln!(
        out,
        "{bold}{}{plain}: {red}{message}{plain}",
        printable(&place)
    )?;
    let number = problem.line.to_string();
    let margin = " ".repeat(number.len());
    if let Some(line) = line {
        let (shown, before) = around(line, problem.column);
        writeln!(out, " {dim}{number} |{plain} {shown}")?;
        writeln!(
            out,
            " {dim}{margin} |{plain} {}{red}^{plain}",
            " ".repeat(before)
        )?;
    }
    if !problem.hint.is_empty() {
        writeln!(out, " {dim}{margin} ={plain} {}", printable(&problem.hint))?;
    }
    writeln!(out)
}

/// The part of a line around a column, from 1, and how much of it comes before that.
fn around(line: &str, column: usize) -> (String, usize) {
    let line: Vec<char> = printable(line).chars().collect();
    let at = column.saturating_sub(1).min(line.len());
    let start = at
        .saturating_sub(WIDTH / 2)
        .min(line.len().saturating_sub(WIDTH));
    let end = line.len().min(start + WIDTH);
    let mark = |cut: bool| if cut { "…" } else { "" };
    let part: String = line[start..end].iter().collect();
    let shown = format!("{}{part}{}", mark(start > 0), mark(end < line.len()));
    (shown, at - start + usize::from(start > 0))
}

/// Nothing in a file moves the cursor or the colours of a terminal.
fn printable(text: &str) -> String {
    let one = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(one).collect()
}

fn counted(files: usize, counts: Counts) -> String {
    let kinds = [
        (counts.rules, "rule", "rules"),
        (counts.policies, "policy", "policies"),
        (counts.pauses, "pause", "pauses"),
        (counts.settings, "nodemend.yaml", "nodemend.yaml"),
        (counts.scenarios, "scenario", "scenarios"),
        (
            counts.left_out,
            "document left to others",
            "documents left to others",
        ),
    ];
    let number = |count: usize, one: &str, more: &str| {
        format!("{count} {}", if count == 1 { one } else { more })
    };
    let there = kinds.into_iter().filter(|(count, ..)| *count > 0);
    let kinds: Vec<String> = there
        .map(|(count, one, more)| number(count, one, more))
        .collect();
    let files = number(files, "file", "files");
    if kinds.is_empty() {
        files
    } else {
        format!("{files}: {}", kinds.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, column: usize) -> Vec<String> {
        let problem = Problem {
            file: "a.yaml".into(),
            line: 12,
            column,
            message: "is\u{1b}[31m wrong".into(),
            hint: "do better".into(),
        };
        let mut out = Vec::new();
        excerpt(&mut out, &problem, Some(line), Colours::new(false)).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let expect = [
            "a.yaml:12:4: is\u{fffd}[31m wrong",
            " 12 | \u{e9} a: b",
            "    |    ^",
            "    = do better",
            "",
        ];
        assert_eq!(shown("\u{e9}\ta: b", 4), expect);
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let line = format!("{}!{}", "a".repeat(300), "b".repeat(300));
        let lines = shown(&line, 301);
        let caret = lines[2].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[1].chars().nth(caret), Some('!'));
        assert!(
            lines[1].chars().count() < 120 && lines[1].ends_with('…'),
            "{lines:?}"
        );
        // A place behind the end, where something is missing.
        assert_eq!(around("ab", 9), ("ab".to_owned(), 2));
    }
}
