//! Collects the mistakes of one document and says where each is.

use super::Problem;
use super::yaml::{Place, Places};

/// The mistakes of one document.
pub(super) struct Findings<'a> {
    file: &'a str,
    places: &'a Places,
    /// Parts already reported: what follows from them is not a mistake of its own.
    ignored: Vec<String>,
    problems: Vec<Problem>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(file: &'a str, places: &'a Places) -> Self {
        Self {
            file,
            places,
            ignored: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Notes a mistake in the value at `pointer`.
    pub(super) fn add(&mut self, pointer: &str, message: impl Into<String>, hint: &str) {
        self.note(self.places.value(pointer), pointer, message.into(), hint);
    }

    /// Notes a mistake in the field itself, whatever its value.
    pub(super) fn add_at_key(&mut self, pointer: &str, message: impl Into<String>, hint: &str) {
        self.note(self.places.key(pointer), pointer, message.into(), hint);
    }

    /// Notes a field or value of the design that is not built yet.
    pub(super) fn not_supported(&mut self, pointer: &str, what: &str, hint: &str) {
        self.add_at_key(pointer, format!("NotSupportedYet: {what}"), hint);
    }

    /// From now on, mistakes at, above or below `pointer` are left out.
    pub(super) fn ignore_around(&mut self, pointer: &str) {
        self.ignored.push(pointer.to_owned());
    }

    /// Whether nothing was reported at, above or below `pointer`.
    pub(super) fn is_free(&self, pointer: &str) -> bool {
        !self
            .ignored
            .iter()
            .any(|ignored| within(ignored, pointer) || within(pointer, ignored))
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// What was found.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    fn note(&mut self, (line, column): Place, pointer: &str, message: String, hint: &str) {
        if !self.is_free(pointer) {
            return;
        }
        // Without a text to point into, the path must say where.
        let message = if self.places.is_empty() && !pointer.is_empty() {
            format!("{}: {message}", path(pointer))
        } else {
            message
        };
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            column,
            message,
            hint: hint.to_owned(),
        });
    }
}

/// Whether `inner` is `outer` or below it.
fn within(inner: &str, outer: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `/spec/faults/0` as people write it: `spec.faults[0]`.
fn path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push('[');
            path.push_str(part);
            path.push(']');
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part.replace("~1", "/").replace("~0", "~"));
        }
    }
    path
}
