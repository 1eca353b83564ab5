//! The `hookstream` command.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything opens a connection: two providers are compiled in, and rustls would not choose.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run(cli::Command::parse())
}
