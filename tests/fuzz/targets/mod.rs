//! What is fuzzed: nothing may panic, and what is read has to be what a second, naive
//! reading finds.

mod configuration;
mod exposition;
mod query;
mod webhook;

/// The target of a corpus.
pub fn target(name: &str) -> fn(&[u8]) {
    match name {
        "configuration" => configuration::target,
        "exposition" => exposition::target,
        "query" => query::target,
        "webhook" => webhook::target,
        other => panic!("no target is called {other}"),
    }
}
