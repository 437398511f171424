//! An exporter's text: either every line of a metric is read as it is written, or none is.

use std::collections::BTreeSet;

use nodemend::prometheus::samples;

/// So many metrics of a text are asked for.
const ASKED: usize = 8;

pub fn target(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let names: BTreeSet<&str> = lines(text).map(name).collect();
    for metric in names.into_iter().take(ASKED).chain(["absent"]) {
        let bits =
            |values: Vec<f64>| -> Vec<u64> { values.into_iter().map(f64::to_bits).collect() };
        if let Ok(found) = samples(text, metric) {
            let naive = values(text, metric).map(bits);
            assert_eq!(Some(bits(found)), naive, "{metric} of {text}");
        }
    }
}

/// Every line that has to be a sample.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn name(line: &str) -> &str {
    let end = line.find(|c: char| c == '{' || c.is_whitespace());
    &line[..end.unwrap_or(line.len())]
}

/// A metric's values, if every line has one.
fn values(text: &str, metric: &str) -> Option<Vec<f64>> {
    let mut found = Vec::new();
    for line in lines(text) {
        let value = value(line)?;
        if name(line) == metric {
            found.push(value);
        }
    }
    Some(found)
}

/// The first word after the name and its labels.
fn value(line: &str) -> Option<f64> {
    let rest = &line[name(line).len()..];
    let rest = match rest.strip_prefix('{') {
        Some(labels) => after_labels(labels)?,
        None => rest,
    };
    let word = rest.split_whitespace().next()?;
    match word.to_ascii_lowercase().as_str() {
        "nan" => Some(f64::NAN),
        number => number.parse().ok(),
    }
}

/// What follows the brace that no quotes are around.
fn after_labels(text: &str) -> Option<&str> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return Some(&text[at + 1..]),
            _ => {}
        }
    }
    None
}
