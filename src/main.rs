//! The `nodemend` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    nodemend::cli::main()
}
