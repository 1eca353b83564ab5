//! The figures of the issue, each against its goal.

use crate::{
    gateway::{Gateway, sign},
    load::{self, OpenTemplate},
    receiver::Receiver,
    report::{Goal, Report},
    room::{self, Room},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(180);

/// 1 KiB of JSON that begins with a due time.
pub(crate) fn body(due: u64) -> Vec<u8> {
    let mut body =
        format!("{{\"due\":\"{due:016}\",\"type\":\"order.created\",\"pad\":\"").into_bytes();
    body.resize(1022, b'x');
    body.extend_from_slice(b"\"}");
    body
}

/// Durable ingest: one source with HMAC, one matching connection to a paused destination, 128 connections.
pub(crate) async fn ingest(room: &Room, baseline: f64, report: &mut Report) -> anyhow::Result<()> {
    let gateway = Gateway::start(
        room,
        "ingest",
        json!({"suspend": true, "http": {"url": "http://127.0.0.1:9/never"}}),
    )
    .await?;
    report.add(
        "gateway memory, idle",
        gateway.memory_mib()?,
        "MiB",
        Goal::AtMost(25.0),
        "",
    );
    let request = gateway.request(&body(0));
    load::closed(&request, 128, Duration::from_secs(1)).await?;
    let cpu = gateway.cpu_seconds()?;
    let seen = load::closed(&request, 128, Duration::from_secs(8)).await?;
    let memory = gateway.memory_mib()?;
    anyhow::ensure!(seen.refused == 0, "{} requests were refused", seen.refused);
    let note = format!(
        "{:.0}/s, p50 {:.1} ms, p99 {:.1} ms, {:.0} µs of gateway CPU an event",
        seen.per_second(),
        ms(&seen.micros, 50.0),
        ms(&seen.micros, 99.0),
        (gateway.cpu_seconds()? - cpu) * 1e6 / seen.accepted as f64,
    );
    report.add(
        "durable ingest / baseline",
        seen.per_second() / baseline * 100.0,
        "%",
        Goal::AtLeast(40.0),
        note,
    );
    report.add(
        "gateway memory, ingest load",
        memory,
        "MiB",
        Goal::AtMost(60.0),
        "",
    );
    gateway.stop().await
}

/// Accepted and delivered, one destination, 64 in flight.
pub(crate) async fn delivery(
    room: &Room,
    baseline: f64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let receiver = Receiver::start(Instant::now()).await?;
    let gateway = Gateway::start(room, "delivery", sink(&receiver)).await?;
    let request = gateway.request(&body(0));
    load::closed(&request, 64, Duration::from_secs(1)).await?;
    drained(&gateway, &receiver).await?;
    room::reset_statements(&gateway.store).await?;
    let (before, cpu, start) = (receiver.received(), gateway.cpu_seconds()?, Instant::now());
    let seen = load::closed(&request, 64, Duration::from_secs(10)).await?;
    let arrived = receiver.until(before + seen.accepted, LIMIT).await?;
    drained(&gateway, &receiver).await?;
    let rate = seen.accepted as f64 / (arrived - start).as_secs_f64();
    let statements = room::statements(&gateway.store).await? as f64 / seen.accepted as f64;
    let note = format!(
        "{rate:.0}/s (accepted at {:.0}/s), {:.0} µs of gateway CPU an event, {:.0} MiB",
        seen.per_second(),
        (gateway.cpu_seconds()? - cpu) * 1e6 / seen.accepted as f64,
        gateway.memory_mib()?
    );
    report.add(
        "accepted and delivered / baseline",
        rate / baseline * 100.0,
        "%",
        Goal::AtLeast(15.0),
        note,
    );
    report.add(
        "SQL statements an event, end to end",
        statements,
        "",
        Goal::AtMost(0.2),
        "pg_stat_statements",
    );
    gateway.stop().await
}

/// POST → receiver in an open loop.
pub(crate) async fn latency(room: &Room, rate: u32, report: &mut Report) -> anyhow::Result<()> {
    let epoch = Instant::now();
    let receiver = Receiver::start(epoch).await?;
    let gateway = Gateway::start(room, &format!("latency{rate}"), sink(&receiver)).await?;
    let make = |due: u64| {
        let body = body(due);
        let mut request = format!("POST /v1/ingest/bench HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-signature: v1={}\r\n\r\n", body.len(), sign(&body)).into_bytes();
        request.extend_from_slice(&body);
        request
    };
    let template = OpenTemplate {
        address: gateway.address,
        make: Arc::new(make),
    };
    load::open(&template, rate, Duration::from_secs(2), epoch).await?;
    drained(&gateway, &receiver).await?;
    receiver.take_micros();
    let before = receiver.received();
    let seen = load::open(&template, rate, Duration::from_secs(10), epoch).await?;
    receiver.until(before + seen.accepted, LIMIT).await?;
    let way = receiver.take_micros();
    anyhow::ensure!(seen.refused == 0, "{} requests were refused", seen.refused);
    let note = format!(
        "answered p50 {:.2}, p99 {:.2} ms",
        ms(&seen.micros, 50.0),
        ms(&seen.micros, 99.0)
    );
    report.add(
        format!("POST → receiver at {rate}/s, p50"),
        ms(&way, 50.0),
        "ms",
        Goal::AtMost(3.0),
        note,
    );
    report.add(
        format!("POST → receiver at {rate}/s, p99"),
        ms(&way, 99.0),
        "ms",
        Goal::AtMost(8.0),
        "",
    );
    gateway.stop().await
}

/// A long queue of a paused destination, released: how fast it drains against a short one, in the same process.
pub(crate) async fn drain(room: &Room, report: &mut Report) -> anyhow::Result<()> {
    let receiver = Receiver::start(Instant::now()).await?;
    let mut gateway = Gateway::start(room, "drain", paused(&receiver)).await?;
    let mut rates = Vec::new();
    let mut memory: f64 = 0.0;
    for (turn, rows) in [10_000_i64, 1_000_000].into_iter().enumerate() {
        fill(&gateway, rows).await?;
        let before = receiver.received();
        let start = Instant::now();
        gateway.apply(&[Gateway::destination(sink(&receiver), 2 * turn as i64 + 2)])?;
        gateway.publish().await?;
        // Steady draining of the first 10,000, whatever is behind them, and all of them for memory.
        let first = receiver.until(before + 10_000, LIMIT).await?;
        let rate = 10_000.0 / (first - start).as_secs_f64();
        rates.push(rate);
        memory = memory.max(gateway.memory_mib()?);
        if rows > 10_000 {
            let deep = receiver.until(before + 100_000, LIMIT).await?;
            report.note(
                "drain rate, steady, of a million",
                90_000.0 / (deep - first).as_secs_f64(),
                "deliveries/s",
            );
            memory = memory.max(gateway.memory_mib()?);
        } else {
            drained(&gateway, &receiver).await?;
        }
        gateway.apply(&[Gateway::destination(paused(&receiver), 2 * turn as i64 + 3)])?;
        gateway.publish().await?;
    }
    let note = format!(
        "{:.0}/s of 10,000, {:.0}/s of 1,000,000",
        rates[0], rates[1]
    );
    report.add(
        "drain of 10,000 / drain of a million",
        rates[0] / rates[1],
        "x",
        Goal::AtMost(1.2),
        note,
    );
    report.add(
        "gateway memory, a million pending",
        memory,
        "MiB",
        Goal::AtMost(60.0),
        "",
    );
    gateway.stop().await
}

/// 10,000 connections published to an idle gateway: until it says that it routes by them.
pub(crate) async fn publish(room: &Room, report: &mut Report) -> anyhow::Result<()> {
    let receiver = Receiver::start(Instant::now()).await?;
    let mut gateway = Gateway::start(room, "publish", sink(&receiver)).await?;
    gateway.apply_all(crate::compile::resources()?);
    let took = gateway.publish().await?;
    report.add(
        "publish 10,000 connections to a gateway",
        took.as_secs_f64(),
        "s",
        Goal::AtMost(1.0),
        format!("{:.0} MiB after", gateway.memory_mib()?),
    );
    gateway.stop().await
}

/// Pending deliveries with 1 KiB events, written straight into the tables.
async fn fill(gateway: &Gateway, rows: i64) -> anyhow::Result<()> {
    let shard = i32::from(routing::shard::of(uuid::Uuid::from_u128(2), 64));
    let mut left = rows;
    while left > 0 {
        let batch = left.min(20_000) as usize;
        let events: Vec<uuid::Uuid> = (0..batch).map(|_| uuid::Uuid::now_v7()).collect();
        let deliveries: Vec<uuid::Uuid> = events
            .iter()
            .map(|id| routing::ids::delivery(*id))
            .collect();
        // Ids of one millisecond may agree but for the last 16 bits; a number there keeps deliveries apart.
        let deliveries: Vec<uuid::Uuid> = deliveries
            .iter()
            .enumerate()
            .map(|(n, id)| uuid::Uuid::from_u128(id.as_u128() ^ ((n as u128) << 16)))
            .collect();
        sqlx::query(
            "with e as (insert into events (id, namespace, source_id, revision, received_at, method, path, query, headers, body, remote_addr)
               select id, 'default', '00000000-0000-0000-0000-000000000001', 1, now(), 'POST', '', '', 'content-type: application/json', $3, '127.0.0.1'::inet from unnest($1::uuid[]) as t(id))
             insert into queue (shard, destination_id, due_at, delivery_id, event_id, connection_id, namespace, attempts, recorded_at)
               select $4, '00000000-0000-0000-0000-000000000002', now(), d, e, '00000000-0000-0000-0000-000000000003', 'default', 0, now() from unnest($1::uuid[], $2::uuid[]) as t(e, d)",
        )
        .bind(&events)
        .bind(&deliveries)
        .bind(body(0))
        .bind(shard as i16)
        .execute(gateway.store.pool.raw())
        .await?;
        left -= batch as i64;
    }
    // As a replica that had recorded them would.
    store::listen::notify_queue(&gateway.store.pool, &[uuid::Uuid::from_u128(2)]).await?;
    Ok(())
}

/// Waits until nothing is pending.
async fn drained(gateway: &Gateway, receiver: &Receiver) -> anyhow::Result<()> {
    let end = Instant::now() + LIMIT;
    while gateway.queued().await? > 0 {
        anyhow::ensure!(
            Instant::now() < end,
            "{} still queued, {} received",
            gateway.queued().await?,
            receiver.received()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn sink(receiver: &Receiver) -> serde_json::Value {
    json!({"http": {"url": format!("http://{}/hooks", receiver.address)}, "concurrency": 64})
}

fn paused(receiver: &Receiver) -> serde_json::Value {
    json!({"suspend": true, "http": {"url": format!("http://{}/hooks", receiver.address)}, "concurrency": 64})
}

fn ms(histogram: &hdrhistogram::Histogram<u64>, percentile: f64) -> f64 {
    histogram.value_at_percentile(percentile) as f64 / 1e3
}
