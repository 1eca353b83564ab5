//! Compiling 10,000 connections, in full and with one changed.

use crate::report::{Goal, Report};
use routing::compile::Compiler;
use serde_json::json;
use service::clock;
use std::collections::BTreeMap;

const CONNECTIONS: usize = 10_000;
const ENDS: usize = 100;

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let resources = resources()?;
    let mut full = Vec::new();
    let mut compiler = Compiler::new([]);
    for _ in 0..5 {
        compiler = Compiler::new([]);
        compiler.set_namespace("default".into(), Some(BTreeMap::new()));
        let copy = resources.clone();
        let start = clock::instant();
        for resource in copy {
            compiler.apply(resource);
        }
        let delta = compiler.compile();
        full.push(start.elapsed());
        anyhow::ensure!(
            delta.changed.len() == CONNECTIONS + 2 * ENDS,
            "{} rows of {}",
            delta.changed.len(),
            CONNECTIONS + 2 * ENDS
        );
    }
    let mut one = Vec::new();
    for turn in 0..20 {
        let changed = crds::parse(connection(turn, 1_000_000 + turn as i64, 2))?;
        let start = clock::instant();
        compiler.apply(changed);
        let delta = compiler.compile();
        one.push(start.elapsed());
        anyhow::ensure!(
            delta.changed.len() == 1,
            "{} rows changed, not 1",
            delta.changed.len()
        );
    }
    full.sort();
    one.sort();
    report.add(
        "compile 10,000 connections",
        full[2].as_secs_f64() * 1e3,
        "ms",
        Goal::AtMost(300.0),
        "full, median of 5",
    );
    report.add(
        "compile one changed of 10,000",
        one[10].as_secs_f64() * 1e3,
        "ms",
        Goal::AtMost(5.0),
        "median of 20",
    );
    Ok(())
}

/// 100 sources, 100 destinations, 10,000 connections between them, each with a filter of two rules.
pub(crate) fn resources() -> anyhow::Result<Vec<crds::Resource>> {
    let mut all = Vec::with_capacity(CONNECTIONS + 2 * ENDS);
    for n in 0..ENDS {
        all.push(crds::parse(object(
            "Source",
            1,
            n,
            1,
            &format!("source-{n}"),
            json!({"path": format!("many/{n}")}),
        ))?);
        all.push(crds::parse(object(
            "Destination",
            2,
            n,
            1,
            &format!("destination-{n}"),
            json!({"http": {"url": format!("https://d{n}.example.com/hooks")}}),
        ))?);
    }
    for n in 0..CONNECTIONS {
        all.push(crds::parse(connection(n, n as i64, 1))?);
    }
    Ok(all)
}

fn connection(n: usize, amount: i64, generation: i64) -> serde_json::Value {
    let spec = json!({
        "source": {"name": format!("source-{}", n % ENDS)},
        "destination": {"name": format!("destination-{}", (n / ENDS) % ENDS)},
        "filter": {"all": [
            {"path": "body.type", "op": "in", "value": ["order.created", format!("order.{n}")]},
            {"path": "body.amount", "op": "gte", "value": amount},
        ]},
    });
    object(
        "Connection",
        3,
        n,
        generation,
        &format!("connection-{n}"),
        spec,
    )
}

fn object(
    kind: &str,
    series: u128,
    n: usize,
    generation: i64,
    name: &str,
    spec: serde_json::Value,
) -> serde_json::Value {
    json!({
        "apiVersion": "hookstream.io/v1alpha1", "kind": kind,
        "metadata": {
            "name": name, "namespace": "default", "generation": generation,
            "uid": uuid::Uuid::from_u128(series << 96 | n as u128).to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": spec,
    })
}
