//! YAML text to JSON values that remember where each part was written.
//! Aliases, duplicate keys and deep nesting are refused.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};
use serde_json::{Map, Number, Value};

use super::{Document, Problem};

/// The longest run of indentation and indicators at the start of a line. It bounds
/// nesting in block style; the parser itself bounds flow style at 255.
const MAX_INDENT: usize = 128;
/// The largest text that is read, in bytes.
const MAX_TEXT: usize = 4 << 20;

/// A line and a column, both from 1.
pub(super) type Place = (usize, usize);

/// Where the parts of a document were written, by JSON pointer.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    keys: BTreeMap<String, Place>,
    values: BTreeMap<String, Place>,
}

impl Places {
    /// Where the value at `pointer` starts, or the nearest part around it; (0, 0) if nowhere.
    pub(super) fn value(&self, pointer: &str) -> Place {
        nearest(pointer, |part| self.values.get(part))
    }
    /// Where the key of `pointer` is, or the nearest part around it; (0, 0) if nowhere.
    pub(super) fn key(&self, pointer: &str) -> Place {
        nearest(pointer, |part| {
            self.keys.get(part).or_else(|| self.values.get(part))
        })
    }
    /// Whether there is no text behind the document.
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

fn nearest<'a>(pointer: &str, find: impl Fn(&str) -> Option<&'a Place>) -> Place {
    let mut part = pointer;
    loop {
        if let Some(place) = find(part) {
            return *place;
        }
        match part.rfind('/') {
            Some(end) => part = &part[..end],
            None => return (0, 0),
        }
    }
}

/// One YAML document.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) value: Value,
    pub(super) places: Places,
}

/// The documents of a text, but for the empty ones.
pub(super) fn parse(document: &Document<'_>) -> Result<Vec<Parsed>, Vec<Problem>> {
    let problem = |(line, column): Place, message: String, hint: &str| Problem {
        file: document.file.to_owned(),
        line,
        column,
        message,
        hint: hint.to_owned(),
    };
    if document.text.len() > MAX_TEXT {
        return Err(vec![problem(
            (0, 0),
            "is larger than 4 MiB".to_owned(),
            "split it",
        )]);
    }
    if let Some(line) = too_deep(document.text) {
        return Err(vec![problem(
            (line, 1),
            "is nested too deeply".to_owned(),
            "indent less",
        )]);
    }
    let nodes = MarkedYaml::load_from_str(document.text).map_err(|error| {
        vec![problem(
            place(*error.marker()),
            format!("is not YAML: {}", error.info()),
            "look here and just before; a text with `: `, ` #` or brackets may need quotes",
        )]
    })?;
    let chars: Vec<char> = document.text.chars().collect();
    let (mut parsed, mut problems) = (Vec::new(), Vec::new());
    for node in &nodes {
        let mut reader = Reader {
            chars: &chars,
            places: Places::default(),
            mistakes: Vec::new(),
        };
        let value = reader.read(node, "");
        problems.extend(
            reader
                .mistakes
                .into_iter()
                .map(|(place, message, hint)| problem(place, message, hint)),
        );
        if !value.is_null() {
            parsed.push(Parsed {
                value,
                places: reader.places,
            });
        }
    }
    if problems.is_empty() {
        Ok(parsed)
    } else {
        Err(problems)
    }
}

fn too_deep(text: &str) -> Option<usize> {
    let deep = |line: &str| {
        line.chars()
            .take_while(|c| matches!(c, ' ' | '-' | '?' | ':'))
            .count()
            > MAX_INDENT
    };
    text.lines().position(deep).map(|index| index + 1)
}

fn place(marker: Marker) -> Place {
    (marker.line(), marker.col() + 1)
}

/// `pointer` and one more part, escaped.
pub(super) fn join(pointer: &str, part: &str) -> String {
    format!("{pointer}/{}", part.replace('~', "~0").replace('/', "~1"))
}

struct Reader<'a> {
    chars: &'a [char],
    places: Places,
    mistakes: Vec<(Place, String, &'static str)>,
}

impl Reader<'_> {
    fn read(&mut self, node: &MarkedYaml<'_>, pointer: &str) -> Value {
        let at = place(node.span.start);
        self.places.values.insert(pointer.to_owned(), at);
        if self.is_alias(node) {
            self.mistakes.push((
                at,
                "aliases are not supported".to_owned(),
                "write the value out",
            ));
            return Value::Bool(false);
        }
        match &node.data {
            YamlData::Value(scalar) => self.scalar(scalar, node),
            YamlData::Sequence(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| self.read(item, &format!("{pointer}/{index}")))
                .collect(),
            YamlData::Mapping(entries) => {
                let mut object = Map::new();
                for (key, value) in entries {
                    self.entry(&mut object, key, value, pointer);
                }
                Value::Object(object)
            }
            // What an empty document is.
            YamlData::BadValue if pointer.is_empty() => Value::Null,
            YamlData::Tagged(..)
            | YamlData::Alias(_)
            | YamlData::BadValue
            | YamlData::Representation(..) => {
                self.mistakes.push((
                    at,
                    "tags are not supported".to_owned(),
                    "leave out the `!…`",
                ));
                Value::Bool(false)
            }
        }
    }

    fn entry(
        &mut self,
        object: &mut Map<String, Value>,
        key: &MarkedYaml<'_>,
        value: &MarkedYaml<'_>,
        pointer: &str,
    ) {
        let at = place(key.span.start);
        let YamlData::Value(Scalar::String(name)) = &key.data else {
            self.mistakes
                .push((at, "a key must be a string".to_owned(), "put it in quotes"));
            return;
        };
        let below = join(pointer, name);
        let read = self.read(value, &below);
        if read.is_null() {
            // An empty value has no place of its own.
            self.places.values.insert(below.clone(), at);
        }
        self.places.keys.insert(below, at);
        object.insert(name.to_string(), read);
    }

    fn scalar(&self, scalar: &Scalar<'_>, node: &MarkedYaml<'_>) -> Value {
        match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => Value::Bool(*value),
            Scalar::Integer(value) => Value::Number((*value).into()),
            // JSON knows no NaN: it stays the text that it was.
            Scalar::FloatingPoint(value) => Number::from_f64(value.into_inner())
                .map_or_else(|| Value::String(self.source(node)), Value::Number),
            Scalar::String(value) => Value::String(value.to_string()),
        }
    }

    /// The parser resolves aliases; what stays is that the text there is `*name`.
    fn is_alias(&self, node: &MarkedYaml<'_>) -> bool {
        let source = self.source(node);
        let name = source.trim_end();
        // A block scalar's text may start with a star as well: then it is its own value.
        let literal = matches!(&node.data, YamlData::Value(Scalar::String(value)) if value.trim_end() == name);
        name.starts_with('*') && !name.contains(char::is_whitespace) && !literal
    }

    fn source(&self, node: &MarkedYaml<'_>) -> String {
        let (start, end) = (node.span.start.index(), node.span.end.index());
        self.chars
            .get(start..end)
            .unwrap_or_default()
            .iter()
            .take(80)
            .collect()
    }
}
