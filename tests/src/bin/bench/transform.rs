//! JSONata through the sandbox's pool: evaluations a second of a small expression, from many callers at once as deliveries are.
//!
//! Everything shares two cores: the callers, the pool, and its children.

use crate::report::{Goal, Report};
use anyhow::ensure;
use sandbox::{Evaluation, Input, Metrics, Options, Pool};
use service::clock;
use std::{sync::Arc, time::Duration};

/// Deliveries that wait for their evaluation at once.
const CALLERS: usize = 256;

const FOR: Duration = Duration::from_secs(5);

const EXPRESSION: &str = r#"{ "event": body.type, "id": body.data.id, "total": body.data.amount / 100, "shard": headers.`x-shard` }"#;

pub(crate) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let mut figures = Vec::new();
    for children in [1, 2] {
        let figure = through(children).await?;
        figures.push(figure);
    }
    report.note("transforms/s, one child", figures[0], "256 callers");
    report.add(
        "transforms/s, two children",
        figures[1],
        "/s",
        Goal::AtLeast(30_000.0),
        format!("{} bytes of JSON, a result of four fields", body().len()),
    );
    Ok(())
}

async fn through(children: usize) -> anyhow::Result<f64> {
    let options = Options {
        children,
        ..Options::default()
    };
    let pool = Pool::new(options, Metrics::default());
    let expression: Arc<str> = Arc::from(EXPRESSION);
    let input = Input {
        head: r#"{"method":"POST","path":"","query":{},"headers":{"content-type":"application/json","x-shard":"7"},"source_ip":"10.0.0.1"}"#.into(),
        body: body().into(),
        envelope: true,
    };
    let first = pool.evaluate(&expression, input.clone()).await;
    ensure!(
        matches!(&first, Evaluation::Value(value) if value.ends_with(br#""shard":"7"}"#)),
        "{first:?}"
    );
    let start = clock::instant();
    let callers = (0..CALLERS).map(|_| {
        let (pool, expression, input) = (pool.clone(), expression.clone(), input.clone());
        tokio::spawn(async move {
            let mut done = 0_u64;
            while start.elapsed() < FOR {
                if !matches!(
                    pool.evaluate(&expression, input.clone()).await,
                    Evaluation::Value(_)
                ) {
                    return None;
                }
                done += 1;
            }
            Some(done)
        })
    });
    let mut all = 0;
    for caller in callers.collect::<Vec<_>>() {
        all += caller
            .await?
            .ok_or_else(|| anyhow::anyhow!("an evaluation failed"))?;
    }
    Ok(all as f64 / start.elapsed().as_secs_f64())
}

/// As large as the events that the engine's choice was measured with.
fn body() -> String {
    let lines: Vec<_> = (0..6)
        .map(|n| serde_json::json!({"sku": format!("sku-{n}"), "price": 12.5 * f64::from(n), "quantity": n, "tags": ["a", "b"]}))
        .collect();
    serde_json::json!({"type": "order.created", "data": {"id": "ord_123", "amount": 4711, "lines": lines}}).to_string()
}
