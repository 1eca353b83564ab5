//! The gateway's process: flags, logs, then [`gateway::run`].

use clap::Parser;
use gateway::{args::Args, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: a child of the sandbox is this binary too.
    sandbox::child_main_if_asked();
    // Before anything may open a connection: with none installed, the first handshake would panic.
    let installed = rustls::crypto::ring::default_provider().install_default();
    assert!(installed.is_ok(), "nothing else has run yet");
    match start(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hookstream-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start(args: Args) -> anyhow::Result<()> {
    service::log::init(&args.common.log)?;
    let token = service::signals::shutdown_token()?;
    run::run(run::Options::from_args(args).await?, token).await
}
