//! Hands libFuzzer the target that `FUZZ_TARGET` names. `tests/run fuzz` builds it. It is an
//! example, since a test would need the program too, which lacks libFuzzer's hooks.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod targets;

#[cfg(fuzzing)]
mod run {
    use std::sync::LazyLock;

    static CHOSEN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET says which");
        crate::targets::target(&name)
    });

    libfuzzer_sys::fuzz_target!(|input: &[u8]| CHOSEN(input));
}

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("run it by tests/run fuzz");
}
