//! `nodemend-lab`: the lab for a person, left running in the background.

mod person;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The real components that nodemend is tested against, on loopback.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start it in the background and print how to use it.
    Up,
    /// Stop what `up` started.
    Down,
    /// Tell whether it runs, and how to use it.
    Status,
    /// What `up` leaves in the background.
    #[command(hide = true)]
    Serve,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up => person::up(),
        Command::Down => person::down(),
        Command::Status => person::status(),
        Command::Serve => person::serve(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nodemend-lab: {error:#}");
            ExitCode::from(2)
        }
    }
}
