//! Routing one event: what an index of 10,000 connections saves, and what the filter of the only connection costs.
//!
//! The ratio is to asking each of the same connections in the same run, which is what routing did without the index.

use crate::report::{Goal, Report};
use http::{HeaderMap, HeaderValue, Method};
use routing::{
    EventView, Row, Table,
    filter::{Filter, Op, Rule},
    row::{ConnectionSpec, DestinationSpec, SourceSpec, Spec},
    table::Source,
};
use serde_json::{Value, json};
use service::clock;
use std::{hint::black_box, sync::Arc};
use uuid::Uuid;

const CONNECTIONS: u128 = 10_000;
const SOURCE: Uuid = Uuid::from_u128(1);
const DESTINATION: Uuid = Uuid::from_u128(2);

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let body = body();
    let equal = Table::build(rows(CONNECTIONS, |n| vec![tenant(n)]));
    let (indexed_ns, naive_ns) = route(source(&equal)?, &body, 1)?;
    report.add(
        "10,000 eq filters: asking each / index",
        naive_ns / indexed_ns,
        "x",
        Goal::AtLeast(50.0),
        format!("{indexed_ns:.0} ns against {naive_ns:.0} ns, the body's parsing included"),
    );

    // No equality: each is evaluated, with the path looked up once for all.
    let greater = Table::build(rows(CONNECTIONS, |n| {
        vec![rule("body.data.amount", Op::Gt, json!(n as u64))]
    }));
    let (shared_ns, naive_ns) = route(source(&greater)?, &body, 4711)?;
    report.note(
        "10,000 gt filters: asking each / shared look-ups",
        naive_ns / shared_ns,
        format!("{shared_ns:.0} ns against {naive_ns:.0} ns"),
    );

    let one = Table::build(rows(1, |_| {
        vec![rule("headers.x-event", Op::Eq, json!("paid"))]
    }));
    let (header_ns, _) = route(source(&one)?, &body, 1)?;
    report.note("one filter on a header, ns", header_ns, "per event");
    let one = Table::build(rows(1, |_| vec![tenant(4711)]));
    let (body_ns, _) = route(source(&one)?, &body, 1)?;
    report.note(
        "one filter on the body, ns",
        body_ns,
        format!("per event, parsing {} bytes", body.len()),
    );

    let mut took = Vec::new();
    for turn in 0..20 {
        let changed = connection(turn, vec![tenant(CONNECTIONS + turn)]);
        let start = clock::instant();
        let next = equal.with([changed], []);
        took.push(start.elapsed());
        black_box(&next);
    }
    took.sort();
    report.add(
        "table with one changed of 10,000 of a source",
        took[10].as_secs_f64() * 1e3,
        "ms",
        Goal::AtMost(5.0),
        "median of 20, the index included",
    );
    Ok(())
}

/// Nanoseconds an event, by the index and by asking each connection; both find as many.
fn route(source: &Arc<Source>, body: &[u8], expected: usize) -> anyhow::Result<(f64, f64)> {
    let mut headers = HeaderMap::new();
    headers.insert("x-event", HeaderValue::from_static("paid"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let event = || {
        let address = [192, 0, 2, 1].into();
        EventView::new(&Method::POST, "", "", &headers, body, address)
    };
    let indexed = || source.route(&event()).len();
    let naive = || {
        let event = event();
        let matches = source
            .connections
            .iter()
            .filter(|c| c.matcher.matches(&event));
        matches.count()
    };
    anyhow::ensure!(
        indexed() == expected && naive() == expected,
        "{} and {} connections found, not {expected}",
        indexed(),
        naive()
    );
    Ok((nanoseconds(indexed), nanoseconds(naive)))
}

/// The median of 21 turns of a few milliseconds each.
pub(crate) fn nanoseconds(act: impl Fn() -> usize) -> f64 {
    let start = clock::instant();
    black_box(act());
    let once = start.elapsed().as_nanos().max(1);
    let times = (5_000_000 / once).clamp(1, 10_000) as u32;
    let mut turns: Vec<f64> = (0..21)
        .map(|_| {
            let start = clock::instant();
            for _ in 0..times {
                black_box(act());
            }
            start.elapsed().as_nanos() as f64 / f64::from(times)
        })
        .collect();
    turns.sort_by(f64::total_cmp);
    turns[10]
}

fn source(table: &Table) -> anyhow::Result<&Arc<Source>> {
    table
        .sources()
        .next()
        .ok_or_else(|| anyhow::anyhow!("the table has no source"))
}

/// About 1 KiB, as an order has.
pub(crate) fn body() -> Vec<u8> {
    let lines: Vec<Value> = (0..12)
        .map(|n| json!({"sku": format!("article-{n}"), "quantity": n, "price": 19.99, "currency": "EUR"}))
        .collect();
    json!({"type": "order.paid", "tenant": "tenant-4711", "data": {"amount": 4711, "lines": lines}})
        .to_string()
        .into_bytes()
}

fn tenant(n: u128) -> Rule {
    rule("body.tenant", Op::Eq, json!(format!("tenant-{n}")))
}

fn rule(path: &str, op: Op, value: Value) -> Rule {
    Rule::parse(path, op, Some(&value)).expect("the bench's rules compile")
}

fn rows(connections: u128, rules: impl Fn(u128) -> Vec<Rule>) -> Vec<Row> {
    let mut rows = vec![
        row(SOURCE, Spec::Source(SourceSpec::default())),
        row(DESTINATION, Spec::Destination(DestinationSpec::default())),
    ];
    rows.extend((0..connections).map(|n| connection(n, rules(n))));
    rows
}

fn connection(n: u128, all: Vec<Rule>) -> Row {
    let spec = ConnectionSpec {
        source: SOURCE,
        destination: DESTINATION,
        filter: Some(Filter {
            all,
            ..Filter::default()
        }),
        ..ConnectionSpec::default()
    };
    row(Uuid::from_u128(1 << 64 | n), Spec::Connection(spec))
}

fn row(uid: Uuid, spec: Spec) -> Row {
    Row {
        uid,
        namespace: "default".to_owned(),
        name: uid.to_string(),
        generation: 1,
        spec,
        secrets: Vec::new(),
    }
}
