//! Checks the table of `src/ARCHITECTURE.md` against the sources, for what
//! Cargo cannot: who may use whom, which crate belongs to which module, and
//! that the core has no runtime, I/O or clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const MAP: &str = "src/ARCHITECTURE.md";
const NO_TOKIO: [&str; 3] = ["exec", "controller", "sim"];
const IMPURE_CRATES: [&str; 8] = [
    "tokio",
    "reqwest",
    "kube",
    "kube-client",
    "axum",
    "aws-*",
    "opentelemetry*",
    "prometheus-parse",
];
const IMPURE_STD: [&str; 4] = ["fs", "env", "process", "thread"];
/// Addresses of `std::net` are plain values; these open sockets or ask a resolver.
const SOCKETS: [&str; 4] = ["TcpStream", "TcpListener", "UdpSocket", "ToSocketAddrs"];

/// One row of the table.
#[derive(Debug)]
struct Row {
    level: u8,
    core: bool,
    planned: bool,
    may_use: BTreeSet<String>,
    owned: Vec<String>,
}

type Table = BTreeMap<String, Row>;

#[test]
fn sources_follow_the_table() {
    let table = read_table(&fs::read_to_string(root().join(MAP)).unwrap());
    assert!(table.len() >= 6, "{MAP}: the table was not found");
    let mut problems = check_table(&table);
    let mut seen = BTreeSet::new();
    for file in rust_files(&root().join("src")) {
        let path = file.strip_prefix(root()).unwrap().display().to_string();
        let Some((module, core)) = module_of(&path) else {
            continue;
        };
        seen.insert(module.clone());
        problems.extend(check_source(
            &table,
            &module,
            core,
            &path,
            &fs::read_to_string(&file).unwrap(),
        ));
    }
    for (module, row) in &table {
        match (row.planned, seen.contains(module)) {
            (false, false) => problems.push(format!(
                "{MAP}: `{module}` does not exist and is not marked planned"
            )),
            (true, true) => problems.push(format!(
                "{MAP}: `{module}` exists, take off its mark `planned`"
            )),
            _ => {}
        }
    }
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn the_core_depends_on_nothing_impure() {
    let path = "src/core/Cargo.toml";
    let problems = check_manifest(path, &fs::read_to_string(root().join(path)).unwrap());
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn root() -> PathBuf {
    nodemend_lab::checkout()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The module that a file belongs to, and whether that is the core's; none for
/// the roots of the packages, which only list modules.
fn module_of(path: &str) -> Option<(String, bool)> {
    let path = path.strip_prefix("src/")?;
    let (path, core) = path
        .strip_prefix("core/")
        .map_or((path, false), |rest| (rest, true));
    let module = path.split('/').next()?.trim_end_matches(".rs");
    (!matches!(module, "lib" | "main")).then(|| (module.to_owned(), core))
}

fn read_table(text: &str) -> Table {
    let names = |cell: &str| -> Vec<String> {
        let cell = cell
            .split(',')
            .map(|name| name.trim().trim_matches('`').to_owned());
        cell.filter(|name| !name.is_empty()).collect()
    };
    let mut table = Table::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [module, level, may_use, owned] = cells[..] else {
            panic!("{MAP}: not four columns: {line}")
        };
        let words: Vec<&str> = level.split_whitespace().collect();
        let row = Row {
            level: words[0].parse().expect("a level is a number"),
            core: words.contains(&"core"),
            planned: words.contains(&"planned"),
            may_use: names(may_use).into_iter().collect(),
            owned: names(owned),
        };
        let again = table.insert(module.trim_matches('`').to_owned(), row);
        assert!(again.is_none(), "{MAP}: twice in the table: {module}");
    }
    table
}

fn check_table(table: &Table) -> Vec<String> {
    let mut problems = Vec::new();
    for (module, row) in table {
        for used in &row.may_use {
            match table.get(used) {
                None => problems.push(format!(
                    "{MAP}: `{module}` may use `{used}`, which is not in the table"
                )),
                Some(other) if other.level >= row.level => {
                    problems.push(format!(
                        "{MAP}: `{module}` may use `{used}`, which is not of a lower level"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    problems
}

fn check_source(table: &Table, module: &str, core: bool, path: &str, source: &str) -> Vec<String> {
    let Some(row) = table.get(module).filter(|row| row.core == core) else {
        return vec![format!(
            "{path}:1: module `{module}` is not in the table of {MAP}"
        )];
    };
    let mut problems = Vec::new();
    for reference in references(source) {
        let names = &reference.names;
        let complaint = match reference.root.as_str() {
            "crate" | "nodemend_core" => names
                .iter()
                .find(|name| {
                    table.contains_key(*name) && *name != module && !row.may_use.contains(*name)
                })
                .map(|name| format!("`{module}` may not use `{name}`")),
            "std" | "core" if core && !reference.in_test && !path.ends_with("/tests.rs") => {
                impure_std(&reference)
                    .map(|what| format!("the core may not use {what}: pass it in as an argument"))
            }
            krate => misplaced(table, module, core, krate),
        };
        problems.extend(complaint.map(|text| format!("{path}:{}: {text}", reference.line)));
    }
    problems
}

fn impure_std(reference: &Reference) -> Option<String> {
    if let Some(name) = reference
        .names
        .iter()
        .find(|name| IMPURE_STD.contains(&name.as_str()))
    {
        return Some(format!("std::{name}"));
    }
    let clock = ["SystemTime", "Instant"]
        .into_iter()
        .chain(SOCKETS)
        .find(|clock| reference.text.contains(clock));
    clock.map(str::to_owned)
}

fn misplaced(table: &Table, module: &str, core: bool, krate: &str) -> Option<String> {
    if krate == "tokio" && (core || NO_TOKIO.contains(&module)) {
        return Some(format!(
            "`{module}` may not use tokio: it has to run in the simulator"
        ));
    }
    let owners: Vec<String> = table
        .iter()
        .filter(|(_, row)| row.owned.iter().any(|owned| covers(owned, krate)))
        .map(|(owner, _)| format!("`{owner}`"))
        .collect();
    let owned_here = owners.contains(&format!("`{module}`"));
    (!owners.is_empty() && !owned_here).then(|| {
        format!(
            "`{module}` may not use `{krate}`, only {} may",
            owners.join(" and ")
        )
    })
}

/// Whether a name of the table, perhaps with a `*` at its end, means this crate.
fn covers(pattern: &str, krate: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == krate, |start| krate.starts_with(start))
}

/// A path in the source: its root, and the names that can follow it at once.
#[derive(Debug)]
struct Reference {
    line: usize,
    root: String,
    names: Vec<String>,
    text: String,
    in_test: bool,
}

/// Every path of the source with a `::`, braces of a `use` opened one level.
fn references(source: &str) -> Vec<Reference> {
    let code = without_comments_and_strings(source);
    // Test modules stand last in a file here.
    let tests_from = code.find("#[cfg(test)]").unwrap_or(code.len());
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = code[at..].find("::") {
        let colons = at + next;
        at = colons + 2;
        let before = &code[..colons];
        let start = before.rfind(|c: char| !is_name(c)).map_or(0, |i| i + 1);
        let root = &before[start..];
        // The middle of a longer path, or a turbofish or `<T>::`.
        if root.is_empty() || before[..start].ends_with("::") {
            continue;
        }
        let rest = code[at..].trim_start();
        let text = if rest.starts_with('{') {
            group(rest)
        } else {
            &rest[..path_end(rest)]
        };
        found.push(Reference {
            line: code[..start].matches('\n').count() + 1,
            root: root.to_owned(),
            names: first_names(text),
            text: text.to_owned(),
            in_test: start > tests_from,
        });
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where a path ends; a group of a `use` inside of it belongs to it.
fn path_end(text: &str) -> usize {
    let end = text
        .find(|c: char| !is_name(c) && c != ':')
        .unwrap_or(text.len());
    if text[..end].ends_with("::") && text[end..].starts_with('{') {
        end + group(&text[end..]).len()
    } else {
        end
    }
}

/// From an opening brace to the one that closes it.
fn group(text: &str) -> &str {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return &text[..=i];
        }
    }
    text
}

fn first_names(text: &str) -> Vec<String> {
    let Some(inner) = text.strip_prefix('{') else {
        return vec![text.chars().take_while(|c| is_name(*c)).collect()];
    };
    let (mut names, mut depth, mut item) = (Vec::new(), 0, String::new());
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => names.push(std::mem::take(&mut item)),
            _ if depth == 0 => item.push(c),
            _ => {}
        }
    }
    let first = |item: &String| item.trim().chars().take_while(|c| is_name(*c)).collect();
    names
        .iter()
        .map(first)
        .filter(|name: &String| !name.is_empty())
        .collect()
}

/// The same lines, with comments and the content of strings blanked out.
fn without_comments_and_strings(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest).filter(|_| !code.ends_with(is_name)) {
            length
        } else if c == '"' {
            string_end(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.extend(
            rest[..skip]
                .chars()
                .map(|c| if c == '\n' { '\n' } else { ' ' }),
        );
        rest = &rest[skip..];
    }
    code
}

fn raw_string(text: &str) -> Option<usize> {
    let hashes = text
        .strip_prefix('r')?
        .chars()
        .take_while(|c| *c == '#')
        .count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(
        body.find(&close)
            .map_or(text.len(), |end| 2 + hashes + end + close.len()),
    )
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

fn check_manifest(path: &str, manifest: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut section = String::new();
    for (i, line) in manifest.lines().map(str::trim).enumerate() {
        if line.starts_with('[') {
            line.trim_matches(['[', ']']).clone_into(&mut section);
        }
        let inline = section.ends_with("dependencies")
            && !section.contains("dev-")
            && !line.starts_with('[');
        let named = section
            .rsplit_once("dependencies.")
            .filter(|_| line.starts_with('['));
        let krate = named.map_or(if inline { line } else { "" }, |(_, krate)| krate);
        let krate = krate.split(['.', '=', ' ']).next().unwrap_or_default();
        if IMPURE_CRATES.iter().any(|pattern| covers(pattern, krate)) {
            problems.push(format!(
                "{path}:{}: the core may not depend on {krate}",
                i + 1
            ));
        }
    }
    problems
}

#[cfg(test)]
mod the_checker {
    use super::*;

    const TABLE: &str = "\
| module | level | may use | external crates only here |\n| --- | --- | --- | --- |\n\
| `model` | 0 core | | |\n| `decide` | 1 core | `model` | |\n| `repair` | 1 core | `model` | |\n\
| `exec` | 2 | `model`, `decide` | |\n| `cluster` | 3 planned | `exec` | `kube`, `aws_*` |\n";

    fn check(module: &str, core: bool, source: &str, expect: &[&str]) {
        let problems = check_source(&read_table(TABLE), module, core, "f.rs", source);
        assert_eq!(problems, expect, "{source}");
    }

    #[test]
    fn allows_what_the_table_allows() {
        check(
            "decide",
            true,
            "use crate::model::Node;\nuse crate::decide::judge;\nuse serde::Serialize;",
            &[],
        );
        check(
            "cluster",
            false,
            "use kube::Api;\nuse crate::exec::{Cluster, Clock};\nuse aws_config::load;",
            &[],
        );
        check(
            "exec",
            false,
            "// crate::cluster\n/* tokio::x */ let s = \"kube::Api\"; let r = r#\"tokio::\"x\"#;",
            &[],
        );
    }

    #[test]
    fn sees_a_module_that_may_not_be_used() {
        check(
            "decide",
            true,
            "\nuse crate::repair::next;",
            &["f.rs:2: `decide` may not use `repair`"],
        );
        check(
            "decide",
            true,
            "use crate::{\n model::{A, B},\n repair};",
            &["f.rs:1: `decide` may not use `repair`"],
        );
        check(
            "exec",
            false,
            "use nodemend_core::repair;",
            &["f.rs:1: `exec` may not use `repair`"],
        );
        check(
            "exec",
            false,
            "fn f() { crate::cluster::g() }",
            &["f.rs:1: `exec` may not use `cluster`"],
        );
    }

    #[test]
    fn sees_a_crate_outside_its_module() {
        check(
            "exec",
            false,
            "use kube::Api;",
            &["f.rs:1: `exec` may not use `kube`, only `cluster` may"],
        );
        check(
            "exec",
            false,
            "aws_sdk_ec2::f();",
            &["f.rs:1: `exec` may not use `aws_sdk_ec2`, only `cluster` may"],
        );
        let both = "| `a` | 1 | | `reqwest` |\n| `b` | 1 | | `reqwest` |\n| `c` | 1 | | |\n";
        for (module, expect) in [
            ("a", &[][..]),
            ("b", &[]),
            (
                "c",
                &["f.rs:1: `c` may not use `reqwest`, only `a` and `b` may"],
            ),
        ] {
            let problems = check_source(&read_table(both), module, false, "f.rs", "reqwest::get()");
            assert_eq!(problems, expect);
        }
        let tokio = "may not use tokio: it has to run in the simulator";
        check(
            "exec",
            false,
            "use tokio::time;",
            &[&format!("f.rs:1: `exec` {tokio}")],
        );
        check(
            "model",
            true,
            "use tokio::time;",
            &[&format!("f.rs:1: `model` {tokio}")],
        );
    }

    #[test]
    fn sees_io_and_clocks_in_the_core_but_not_in_its_tests() {
        let rest = "pass it in as an argument";
        check(
            "model",
            true,
            "use std::fs::read;",
            &[&format!("f.rs:1: the core may not use std::fs: {rest}")],
        );
        check(
            "model",
            true,
            "std::time::Instant::now();",
            &[&format!("f.rs:1: the core may not use Instant: {rest}")],
        );
        check(
            "model",
            true,
            "use std::{collections::BTreeMap, env};",
            &[&format!("f.rs:1: the core may not use std::env: {rest}")],
        );
        check(
            "model",
            true,
            "use std::time::{Duration, SystemTime};",
            &[&format!("f.rs:1: the core may not use SystemTime: {rest}")],
        );
        check("model", true, "use std::net::IpAddr;", &[]);
        check(
            "model",
            true,
            "use std::net::{IpAddr, TcpStream};",
            &[&format!("f.rs:1: the core may not use TcpStream: {rest}")],
        );
        check(
            "model",
            true,
            "#[cfg(test)]\nmod tests { use std::fs::read; }",
            &[],
        );
        check("exec", false, "use std::fs::read;", &[]);
    }

    #[test]
    fn sees_a_module_without_a_row() {
        check(
            "extra",
            false,
            "",
            &["f.rs:1: module `extra` is not in the table of src/ARCHITECTURE.md"],
        );
        check(
            "model",
            false,
            "",
            &["f.rs:1: module `model` is not in the table of src/ARCHITECTURE.md"],
        );
    }

    #[test]
    fn sees_a_row_that_points_up() {
        let table = read_table("| `a` | 1 | `b`, `c` | |\n| `b` | 1 | | |\n");
        let expect = [
            "`b`, which is not of a lower level",
            "`c`, which is not in the table",
        ];
        for (problem, end) in check_table(&table).iter().zip(expect) {
            assert_eq!(*problem, format!("{MAP}: `a` may use {end}"));
        }
        assert_eq!(check_table(&table).len(), 2);
    }

    #[test]
    fn sees_an_impure_dependency_of_the_core() {
        let manifest = "[dependencies]\nserde = \"1\"\nkube-core.workspace = true\ntokio.workspace = true\n\
            [dependencies.aws-config]\n[dev-dependencies]\ntokio = \"1\"\n";
        let expect = [
            "f:4: the core may not depend on tokio",
            "f:5: the core may not depend on aws-config",
        ];
        assert_eq!(check_manifest("f", manifest), expect);
    }
}
