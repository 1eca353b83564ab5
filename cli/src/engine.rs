//! The sandbox, for commands that run from top to bottom and have no runtime of their own.

use anyhow::{Context, Result};
use routing::compile::{self, Compiler};
use sandbox::{Evaluation, Input, Metrics, Options, Pool, Refused};
use std::{sync::Arc, time::Duration};

/// For all expressions of a folder.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Engine {
    runtime: tokio::runtime::Runtime,
    pool: Pool,
}

impl Engine {
    pub(crate) fn new() -> Result<Engine> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the sandbox")?;
        Ok(Engine {
            runtime,
            pool: Pool::new(Options::default(), Metrics::default()),
        })
    }

    /// Tells the compiler what it has to know of the expressions of its objects. Without any nothing is started.
    pub(crate) fn check(&self, compiler: &mut Compiler) -> Result<()> {
        let wanted = compiler.wanted_expressions();
        if wanted.is_empty() {
            return Ok(());
        }
        let checked = self.runtime.block_on(self.pool.check_all(wanted, PATIENCE));
        for (text, checked) in checked {
            let checked = match checked {
                Ok(checked) => compile::Checked::Roots(checked.roots),
                Err(Refused::Wrong(message)) => compile::Checked::Wrong(message),
                Err(Refused::Unavailable(why)) => {
                    anyhow::bail!("expressions can't be checked: {why}")
                }
            };
            compiler.set_expression(text, checked);
        }
        Ok(())
    }

    pub(crate) fn evaluate(&self, expression: &Arc<str>, input: Input) -> Evaluation {
        self.runtime.block_on(self.pool.evaluate(expression, input))
    }
}
