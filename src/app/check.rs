//! `nodemend check`: finds the files, and hands those that belong together to the core.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nodemend_core::config::{self, Checked, Document, Problem, Role};

use super::load::{self, Text};

/// What was found in some files and folders.
#[derive(Debug)]
pub struct Report {
    /// Mistakes, notes and counts.
    pub checked: Checked,
    /// How many files were read.
    pub files: usize,
    /// What is written in each.
    texts: BTreeMap<String, String>,
}

impl Report {
    /// A line of a file, from 1.
    pub fn line(&self, file: &str, line: usize) -> Option<&str> {
        let text = self.texts.get(file)?;
        text.lines().nth(line.checked_sub(1)?)
    }
}

/// Why nothing was checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path that cannot be looked at.
    #[error("{0}: {1}")]
    Path(String, io::Error),
    /// A folder without files for us.
    #[error("{0}: there is no *.yaml or *.yml in it")]
    Empty(String),
    /// Files, but all of others.
    #[error("there are no rules, policies or nodemend.yaml to check")]
    Nothing,
}

/// Checks files, and in folders whatever is called *.yaml or *.yml.
///
/// A nodemend.yaml and the files that it names are one set, as the service reads it; of
/// the other files those of one folder are.
pub fn check(paths: &[PathBuf]) -> Result<Report, Error> {
    let mut files = Vec::new();
    for path in paths {
        let told = |error| Error::Path(shown(path), error);
        let before = files.len();
        if fs::metadata(path).map_err(told)?.is_dir() {
            walk(path, &mut files).map_err(told)?;
            if files.len() == before {
                return Err(Error::Empty(shown(path)));
            }
        } else {
            files.push(path.clone());
        }
    }
    let mut found = Found::default();
    for path in &files {
        found.read(path);
    }
    let report = found.check();
    if report.checked.problems.is_empty() && report.checked.counts.is_empty() {
        return Err(Error::Nothing);
    }
    Ok(report)
}

/// The path as people write it.
fn shown(path: &Path) -> String {
    let path = path.strip_prefix(".").unwrap_or(path);
    if path.as_os_str().is_empty() {
        return ".".to_owned();
    }
    path.display().to_string()
}

/// The files of a folder in the order of their names, then those of its folders. What is
/// hidden stays so: a mounted `ConfigMap` keeps its versions there.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries: io::Result<Vec<_>> = fs::read_dir(folder)?.collect();
    let mut entries = entries?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // A link to a folder could lead round in a circle.
        if entry.file_type()?.is_dir() {
            folders.push(path);
        } else if path.is_file()
            && path
                .extension()
                .is_some_and(|ending| ending == "yaml" || ending == "yml")
        {
            found.push(path);
        }
    }
    folders.iter().try_for_each(|folder| walk(folder, found))
}

/// Files, by the sets that they belong to.
#[derive(Default)]
struct Found {
    /// Each nodemend.yaml with the files that it names.
    settings: Vec<load::Files>,
    /// The others by their folders.
    folders: BTreeMap<PathBuf, Vec<(PathBuf, Text)>>,
    /// What was read, whatever it is called.
    seen: BTreeSet<PathBuf>,
    problems: Vec<Problem>,
}

impl Found {
    fn read(&mut self, path: &Path) {
        if !self.seen.insert(real(path)) {
            return;
        }
        let name = shown(path);
        let text = match fs::read_to_string(path) {
            Ok(text) => Text { name, text },
            Err(error) => return self.problems.push(load::unreadable(&name, &error)),
        };
        if config::is_settings(&text.document()) {
            self.settings.push(load::read(Path::new(&text.name)));
        } else {
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            let files = self.folders.entry(folder).or_default();
            files.push((real(path), text));
        }
    }

    fn check(mut self) -> Report {
        let named = self
            .settings
            .iter()
            .flat_map(|files| files.rules.iter().chain(&files.policies));
        let named: BTreeSet<PathBuf> = named.map(|text| real(Path::new(&text.name))).collect();
        for files in self.folders.values_mut() {
            files.retain(|(path, _)| !named.contains(path));
        }
        let mut sets: Vec<Vec<(Document<'_>, Role)>> = Vec::new();
        for files in &self.settings {
            let mut set = vec![(files.config.document(), Role::Settings)];
            set.extend(as_role(&files.rules, Role::Rules));
            set.extend(as_role(&files.policies, Role::Policies));
            sets.push(set);
        }
        for files in self.folders.values() {
            let files = files.iter();
            sets.push(
                files
                    .map(|(_, text)| (text.document(), Role::Any))
                    .collect(),
            );
        }
        let mut checked = config::check(&sets);
        let mut texts = BTreeMap::new();
        for (document, _) in sets.iter().flatten() {
            texts.insert(document.file.to_owned(), document.text.to_owned());
        }
        let files = texts.len() + self.problems.len();
        checked.problems.append(&mut self.problems);
        for files in &mut self.settings {
            checked.problems.append(&mut files.problems);
            checked.notes.append(&mut files.absent);
        }
        for list in [&mut checked.problems, &mut checked.notes] {
            list.sort();
            list.dedup();
        }
        Report {
            checked,
            files,
            texts,
        }
    }
}

fn as_role(texts: &[Text], role: Role) -> impl Iterator<Item = (Document<'_>, Role)> {
    texts.iter().map(move |text| (text.document(), role))
}

/// The same for all names of one file.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
