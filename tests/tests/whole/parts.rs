//! The processes of the whole, which can be killed and started again.

use crate::LEASE;
use anyhow::Context;
use std::path::Path;
use tests::process::{Process, free_port};

/// A process that can be killed and started again with the same arguments.
pub(crate) struct Part {
    pub(crate) program: &'static str,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    pub(crate) process: Option<Process>,
}

impl Part {
    pub(crate) fn start(
        program: &'static str,
        arguments: Vec<String>,
        variables: Vec<(&'static str, String)>,
    ) -> anyhow::Result<Part> {
        let mut part = Part {
            program,
            arguments,
            variables,
            process: None,
        };
        part.again()?;
        Ok(part)
    }

    pub(crate) fn again(&mut self) -> anyhow::Result<()> {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.process = Some(Process::start(self.program, &arguments, &self.variables)?);
        Ok(())
    }

    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("it runs")?.kill().await
    }

    pub(crate) fn output(&self) -> String {
        self.process
            .as_ref()
            .map_or_else(String::new, Process::output)
    }
}

pub(crate) fn gateway(name: &str, port: u16, url: &str, keyring: &Path) -> anyhow::Result<Part> {
    let arguments = [
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--admin-listen",
        &format!("127.0.0.1:{}", free_port()),
        "--replica",
        name,
        "--lease-ttl",
        LEASE,
        "--egress-allow",
        "127.0.0.0/8",
        "--log",
        "warn",
    ];
    Part::start(
        "hookstream-gateway",
        arguments.map(str::to_owned).to_vec(),
        vec![
            ("DATABASE_URL", url.to_owned()),
            ("HOOKSTREAM_KEYRING", keyring.display().to_string()),
        ],
    )
}
