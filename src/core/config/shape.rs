//! Shape before meaning: a document against the JSON Schema of its raw type, so
//! that all mistakes come at once; then the raw type itself. And that schema for editors.

use jsonschema::Validator;
use jsonschema::error::{TypeKind, ValidationError, ValidationErrorKind};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::findings::Findings;
use super::yaml::join;
use crate::model::Span;

/// The format that stands for `Span`'s pattern: the type itself decides.
const SPAN_FORMAT: &str = "nodemend-span";

/// Marks what may be a number or a text.
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// The schema of `T` for editors, in the draft that they know best.
pub(super) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let generator = settings.into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    walk(&mut schema, &|object| {
        drop_null(object);
        name_both_types(object);
        object.retain(|key, _| !key.starts_with("x-kubernetes-"));
    });
    schema
}

/// A raw type's schema, ready to check documents.
pub(super) struct Shape {
    schema: Value,
    validator: Validator,
}

impl Shape {
    /// The shape of `T`.
    pub(super) fn of<T: JsonSchema>() -> Self {
        let settings =
            SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let mut schema = settings
            .into_generator()
            .into_root_schema_for::<T>()
            .to_value();
        let span = Span::json_schema(&mut schemars::SchemaGenerator::default()).to_value();
        // Rewritten so that each mistake gives one plain error.
        walk(&mut schema, &|object| {
            drop_null(object);
            list_variants(object);
            name_format(object, &span["pattern"]);
            if name_both_types(object) {
                // What it means is checked later, with a better hint than a pattern.
                object.remove("pattern");
            }
        });
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .with_format(SPAN_FORMAT, |text: &str| text.parse::<Span>().is_ok())
            .build(&schema)
            .expect("a generated schema is valid; the tests build each");
        Self { schema, validator }
    }

    /// Notes every mistake of shape, then reads what is left; `None` if that cannot be read.
    pub(super) fn read<T: DeserializeOwned>(
        &self,
        value: &Value,
        findings: &mut Findings<'_>,
    ) -> Option<T> {
        let mut rest = value.clone();
        let mut reported = Vec::new();
        for error in self.validator.iter_errors(value) {
            self.note(&error, findings, &mut reported);
        }
        for pointer in &reported {
            prune(&mut rest, pointer);
            findings.ignore_around(pointer);
        }
        match serde_json::from_value(rest) {
            Ok(raw) => Some(raw),
            Err(error) => {
                if reported.is_empty() {
                    findings.add("", error.to_string(), "");
                }
                None
            }
        }
    }

    /// Notes one mistake, and in `reported` which parts are wrong.
    fn note(
        &self,
        error: &ValidationError<'_>,
        findings: &mut Findings<'_>,
        reported: &mut Vec<String>,
    ) {
        let pointer = error.instance_path().as_str();
        if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
            let hint = self.known_fields(error.schema_path().as_str());
            for name in unexpected {
                let below = join(pointer, name);
                findings.add_at_key(&below, format!("unknown field `{name}`"), &hint);
                reported.push(below);
            }
            return;
        }
        let (message, hint) = self.describe(error);
        findings.add(pointer, message, &hint);
        reported.push(pointer.to_owned());
    }

    /// What is wrong, and what to do.
    fn describe(&self, error: &ValidationError<'_>) -> (String, String) {
        let path = error.schema_path().as_str();
        let around = path.rsplit_once('/').map_or("", |(around, _)| around);
        let format = self.schema.pointer(&format!("{around}/format"));
        describe(error, format.and_then(Value::as_str))
    }

    fn known_fields(&self, schema_path: &str) -> String {
        let parent = schema_path
            .rsplit_once('/')
            .map_or("", |(parent, _)| parent);
        let fields = self
            .schema
            .pointer(&format!("{parent}/properties"))
            .and_then(Value::as_object);
        let names: Vec<&str> = fields
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect();
        if names.is_empty() {
            String::new()
        } else {
            format!("known here: {}", names.join(", "))
        }
    }
}

/// Takes an object's field out, so that the rest can be read and checked too.
/// Elements of arrays stay, or the others would move.
fn prune(rest: &mut Value, pointer: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return;
    };
    if let Some(object) = rest.pointer_mut(parent).and_then(Value::as_object_mut) {
        object.remove(&name.replace("~1", "/").replace("~0", "~"));
    }
}

fn describe(error: &ValidationError<'_>, format: Option<&str>) -> (String, String) {
    let instance = error.instance().as_ref();
    let shown = show(instance);
    let unquoted = instance.is_boolean() || instance.is_number();
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            (
                format!("field `{name}` is missing"),
                format!("add `{name}: …` here"),
            )
        }
        ValidationErrorKind::Enum { options } => {
            let names: Vec<String> = options.as_array().into_iter().flatten().map(show).collect();
            let end = if unquoted { ", in quotes" } else { "" };
            (
                format!("{shown} is not known here"),
                format!("one of {}{end}", names.join(", ")),
            )
        }
        ValidationErrorKind::Type { .. } if instance.is_null() => (
            "is empty".to_owned(),
            "give a value or leave the field out".to_owned(),
        ),
        ValidationErrorKind::Format { .. } | ValidationErrorKind::Type { .. }
            if format == Some(SPAN_FORMAT) =>
        {
            (
                format!("{shown} is not a duration"),
                "write it like 90s, 10m or 1h30m".to_owned(),
            )
        }
        ValidationErrorKind::Format { .. } => (
            format!("{shown} is not a time"),
            "write it like 2026-01-31T06:00:00Z".to_owned(),
        ),
        ValidationErrorKind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(one) => one.to_string(),
                TypeKind::Multiple(_) => "integer or string".to_owned(),
            };
            let hint = match wanted.as_str() {
                "string" if unquoted => "put it in quotes".to_owned(),
                "integer" => "write a whole number, without quotes".to_owned(),
                "boolean" => "write true or false, without quotes".to_owned(),
                "array" => "write a list: [a, b], or one line with `- ` for each".to_owned(),
                "object" => "write a mapping: {field: value}, or one line for each".to_owned(),
                "string" => "write a text".to_owned(),
                _ => "write a number or a text".to_owned(),
            };
            (format!("{shown} is not of type {wanted}"), hint)
        }
        ValidationErrorKind::Minimum { limit } => (
            format!("{shown} is less than {limit}"),
            format!("at least {limit}"),
        ),
        ValidationErrorKind::Maximum { limit } => (
            format!("{shown} is more than {limit}"),
            format!("at most {limit}"),
        ),
        ValidationErrorKind::MinItems { limit } => (
            format!("has fewer than {limit} items"),
            format!("at least {limit}"),
        ),
        ValidationErrorKind::MaxItems { limit } => (
            format!("has more than {limit} items"),
            format!("at most {limit}"),
        ),
        ValidationErrorKind::MinLength { .. } => {
            ("is empty".to_owned(), "give it a value".to_owned())
        }
        ValidationErrorKind::MaxLength { limit } => (
            format!("is longer than {limit} characters"),
            "shorten it".to_owned(),
        ),
        ValidationErrorKind::Pattern { pattern } => (
            format!("{shown} is not written as expected"),
            format!("must match {pattern}"),
        ),
        _ => (error.to_string(), "write it otherwise".to_owned()),
    }
}

fn show(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(_) => return "a list".to_owned(),
        Value::Object(_) => return "a mapping".to_owned(),
        other => other.to_string(),
    };
    format!("`{}`", text.chars().take(60).collect::<String>())
}

/// Rewrites each part of a schema, from the outside in.
fn walk(schema: &mut Value, rewrite: &dyn Fn(&mut Map<String, Value>)) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, rewrite)),
        Value::Object(object) => {
            rewrite(object);
            object.values_mut().for_each(|part| walk(part, rewrite));
        }
        _ => {}
    }
}

/// Says in plain JSON Schema what may be a number or a text, if this may.
fn name_both_types(object: &mut Map<String, Value>) -> bool {
    let both = object.contains_key(INT_OR_STRING);
    if both {
        object.insert("type".to_owned(), json!(["integer", "string"]));
    }
    both
}

/// A field that can be left out need not be null as well.
fn drop_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(mut branches)) = object.remove("anyOf") {
        branches.retain(|branch| branch["type"] != "null");
        match branches.as_slice() {
            [Value::Object(only)] => object.extend(only.clone()),
            _ => {
                object.insert("anyOf".to_owned(), Value::Array(branches));
            }
        }
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
}

/// Documented variants become a plain `enum`, which alone says what is wrong.
fn list_variants(object: &mut Map<String, Value>) {
    let branches = object.get("oneOf").and_then(Value::as_array);
    let variants: Option<Vec<Value>> = branches.and_then(|branches| {
        branches
            .iter()
            .map(|branch| branch.get("const").cloned())
            .collect()
    });
    if let Some(variants) = variants {
        object.remove("oneOf");
        object.insert("enum".to_owned(), Value::Array(variants));
    }
    if object.contains_key("enum") {
        object.remove("type");
    }
}

/// Durations become a format of ours, and integers get the bounds of their type.
fn name_format(object: &mut Map<String, Value>, span_pattern: &Value) {
    if object.get("pattern") == Some(span_pattern) {
        object.remove("pattern");
        object.remove("minLength");
        object.remove("maxLength");
        object.insert("format".to_owned(), json!(SPAN_FORMAT));
    }
    let (least, most) = match object.get("format").and_then(Value::as_str) {
        Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
        Some("uint32") => (0, i64::from(u32::MAX)),
        _ => return,
    };
    object.entry("minimum").or_insert(json!(least));
    object.entry("maximum").or_insert(json!(most));
}
