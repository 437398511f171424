//! Every input that fuzzing ever learnt from, replayed. `tests/run fuzz` looks for more.

#![expect(clippy::unwrap_used, reason = "a panic is what a target reports by")]

mod targets;

fn check(name: &str) {
    let root = nodemend_lab::checkout();
    let corpus = root.join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(corpus)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        // The last one is the culprit.
        println!("{}", file.display());
        targets::target(name)(&std::fs::read(file).unwrap());
    }
}

#[test]
fn configuration() {
    check("configuration");
}

#[test]
fn exposition() {
    check("exposition");
}

#[test]
fn query() {
    check("query");
}

#[test]
fn webhook() {
    check("webhook");
}
