//! The pool with real children: those of this very test binary.

mod hostile;
mod life;
mod suite;

use bytes::Bytes;
use sandbox::{Evaluation, Input, Metrics, Options, Pool};
use std::sync::Arc;

sandbox::child_for_tests!();

fn options() -> Options {
    sandbox::testing::options("sandbox_child")
}

fn pool(options: Options) -> Pool {
    Pool::new(options, Metrics::default())
}

fn body(body: impl Into<Bytes>) -> Input {
    Input {
        head: Bytes::from_static(b"{}"),
        body: body.into(),
        envelope: false,
    }
}

/// The result as text, or what went wrong in angle brackets.
async fn evaluate(pool: &Pool, expression: &str, input: Input) -> String {
    match pool.evaluate(&Arc::from(expression), input).await {
        Evaluation::Value(value) => String::from_utf8(value.into()).expect("JSON is text"),
        Evaluation::Undefined => "<undefined>".to_owned(),
        Evaluation::Failed(message) => format!("<failed: {message}>"),
        Evaluation::Unavailable(message) => format!("<unavailable: {message}>"),
    }
}
