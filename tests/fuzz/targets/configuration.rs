//! A file of rules, policies or settings: every mistake has a place in the text.

use nodemend_core::config::{
    Document, Problem, Role, check as check_all, policies, rules, settings,
};

pub fn target(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let document = Document { file: "f", text };
    // For YAML a carriage return ends a line too, and so does the end of the text.
    let lines = text.matches(['\n', '\r']).count() + 2;
    let check = |problems: &[Problem]| {
        assert!(!problems.is_empty());
        assert!(problems.iter().all(|one| one.line <= lines), "{problems:?}");
    };
    let found = rules(&[document]);
    assert_eq!(found, rules(&[document]));
    if let Err(problems) = &found {
        check(problems);
    }
    let found = policies(&[document]);
    assert_eq!(found, policies(&[document]));
    if let Err(problems) = &found {
        check(problems);
    }
    let found = settings(&document);
    assert_eq!(found, settings(&document));
    if let Err(problems) = &found {
        check(problems);
    }
    let sets = [vec![(document, Role::Any)]];
    let found = check_all(&sets);
    assert_eq!(found, check_all(&sets));
    if !found.problems.is_empty() {
        check(&found.problems);
    }
}
