//! The `hookstream` command.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: a child of the sandbox is this binary too.
    sandbox::child_main_if_asked();
    // Before anything opens a connection: rustls has no provider of its own.
    #[cfg(feature = "dev")]
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run(cli::Command::parse())
}
