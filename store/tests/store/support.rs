//! Events, outcomes and questions that the tests share.

use bytes::Bytes;
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use store::{
    Held, Lease, Pool,
    events::{Event, NewDelivery, Recorded},
    lease,
    outcomes::{Attempt, Finished, Outcome, Timings},
    queue::Pending,
};
use uuid::Uuid;

pub(crate) const TTL: Duration = Duration::from_secs(30);
pub(crate) const SHARD: u16 = 3;

pub(crate) fn destination(n: u128) -> Uuid {
    Uuid::from_u128(0xd0 << 64 | n)
}

/// A fresh UUIDv7 of now.
pub(crate) fn fresh_id() -> Uuid {
    Uuid::now_v7()
}

pub(crate) fn event(body: &[u8]) -> Event {
    Event {
        id: fresh_id(),
        namespace: "team".into(),
        source_id: Uuid::from_u128(7),
        revision: 5,
        received_at: Timestamp::now(),
        method: "POST".to_owned(),
        path: "/v1/ingest/é".to_owned(),
        query: "a=1&a=2".to_owned(),
        headers: Bytes::from_static(b"X-A: 1\r\nx-a: \xff\r\n"),
        body: Bytes::copy_from_slice(body),
        remote_addr: "2001:db8::1".parse().unwrap(),
    }
}

/// An event with one delivery to each of the destinations, all in [`SHARD`].
pub(crate) fn recorded(event: Event, destinations: &[Uuid]) -> Recorded {
    let delivery = |destination_id: &Uuid| NewDelivery {
        id: routing::ids::delivery(fresh_id()),
        connection_id: Uuid::from_u128(9),
        destination_id: *destination_id,
        shard: SHARD,
        ordered: false,
    };
    Recorded {
        event: Arc::new(event),
        deliveries: destinations.iter().map(delivery).collect(),
        ..Recorded::default()
    }
}

pub(crate) fn outcome(pending: &Pending, step: Finished) -> Outcome {
    Outcome {
        shard: pending.shard,
        destination_id: pending.destination_id,
        due_at: pending.due_at,
        delivery_id: pending.delivery_id,
        event_id: pending.event_id,
        connection_id: pending.connection_id,
        namespace: Arc::clone(&pending.namespace),
        recorded_at: pending.recorded_at,
        round: pending.round,
        attempts: u16::try_from(pending.attempts + 1).unwrap(),
        attempt: Some(Attempt {
            number: u16::try_from(pending.attempts + 1).unwrap(),
            started_at: Timestamp::now(),
            outcome: "delivered",
            status: Some(200),
            error: None,
            timings: Timings {
                dns_us: None,
                connect_us: Some(10),
                tls_us: None,
                first_byte_us: Some(20),
                total_us: Some(u32::MAX),
            },
            response_headers: Some(Bytes::from_static(b"a: b\r\n")),
            response_body: None,
            replica: "gateway-0".into(),
        }),
        step,
    }
}

/// Takes the lease of [`SHARD`].
pub(crate) async fn own(pool: &Pool, holder: &str) -> (Lease, Held) {
    let lease = lease::acquire(pool, &lease::shard_name(SHARD), holder, TTL)
        .await
        .unwrap()
        .expect("the shard is free");
    let held = Held {
        holder: holder.into(),
        epochs: [(SHARD, lease.epoch)].into(),
    };
    (lease, held)
}

/// All of a destination's queue.
pub(crate) async fn queued(pool: &Pool, destination: Uuid) -> Vec<Pending> {
    let rows = store::queue::head(pool, SHARD, destination, None, 10_000)
        .await
        .unwrap();
    rows.into_iter().map(|(pending, _)| pending).collect()
}

/// The one number that a query gives.
pub(crate) async fn number(pool: &Pool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool.raw()).await.unwrap()
}

/// Runs statements without parameters.
pub(crate) async fn execute(pool: &Pool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(pool.raw()).await.unwrap();
}

/// Makes a lease run out now, as if its time had passed.
pub(crate) async fn expire(pool: &Pool, name: &str) {
    sqlx::query("UPDATE lease SET expires_at = now() - interval '1 ms' WHERE name = $1")
        .bind(name)
        .execute(pool.raw())
        .await
        .unwrap();
}

/// Comes back when another session waits for a lock in this database.
pub(crate) async fn until_somebody_waits(pool: &Pool) {
    loop {
        let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database()";
        if number(pool, waiting).await > 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Sets the database's default, for connections from here on.
pub(crate) async fn set_synchronous_commit(pool: &Pool, value: &str) {
    let sql = format!(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = {value}', current_database()); END $$"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(pool.raw())
        .await
        .unwrap();
}
