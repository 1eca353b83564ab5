//! `hookstream-operator`.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: a child of the sandbox is this binary too.
    sandbox::child_main_if_asked();
    // Before anything opens a TLS connection: kube and sqlx must agree on one provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = operator::Args::parse();
    match operator::run::main(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hookstream-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}
