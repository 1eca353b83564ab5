//! The `hookstream` command: `dev`, `lint`, `test`; `deliveries`, `events` and `jobs`.
//!
//! The first three read the manifests that a cluster gets, unchanged. `lint` and `test` are the operator's compiler and the
//! gateway's matching without a server; `dev` is operator and gateway themselves, in one process.
//!
//! Exit codes: 0 done, 1 failed (the reason is on stderr; for `lint`, there are findings), 2 wrong usage.

pub mod args;
#[cfg(feature = "dev")]
mod data;
#[cfg(feature = "dev")]
mod dev;
mod engine;
pub mod folder;
#[cfg(feature = "dev")]
mod keyring;
#[cfg(feature = "dev")]
mod lines;
mod lint;
pub mod locate;
pub mod manifests;
#[cfg(feature = "dev")]
pub mod operate;
mod output;
mod schema;
mod trial;
#[cfg(feature = "dev")]
mod watch;

pub use args::Command;

use std::process::ExitCode;

/// Carries out a command. What goes wrong is told on stderr.
pub fn run(command: Command) -> ExitCode {
    let done = match command.verb {
        #[cfg(feature = "dev")]
        args::Verb::Dev(options) => dev::run(options),
        args::Verb::Lint(options) => lint::run(&options),
        args::Verb::Test(options) => trial::run(&options),
        #[cfg(feature = "dev")]
        args::Verb::Deliveries(verb) => operate::run(operate::args::Verb::Deliveries(verb)),
        #[cfg(feature = "dev")]
        args::Verb::Events(verb) => operate::run(operate::args::Verb::Event(verb)),
        #[cfg(feature = "dev")]
        args::Verb::Jobs(verb) => operate::run(operate::args::Verb::Jobs(verb)),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hookstream: {error:#}");
            ExitCode::FAILURE
        }
    }
}
