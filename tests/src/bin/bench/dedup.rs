//! What remembering keys costs the commit, and that it costs the same with ten million of them.

use crate::{
    report::{Goal, Report},
    room::Room,
};
use service::clock;
use std::{sync::Arc, time::Duration};
use store::{
    dedup::Key,
    events::{Event, Kept, Recorded, Verification, record},
};
use uuid::Uuid;

const FEW: i64 = 100_000;
const MANY: i64 = 10_000_000;

/// As the recorder's under load: what came while the last commit was on its way.
const BATCH: usize = 64;

const FOR: Duration = Duration::from_secs(5);

pub(crate) async fn run(room: &Room, report: &mut Report) -> anyhow::Result<()> {
    let store = room.database("dedup").await?;
    let pool = &store.pool;
    remember(pool, FEW).await?;
    // In turns, so that the machine's moods meet both.
    let (mut plain, mut few) = (0.0, 0.0);
    for _ in 0..2 {
        plain += rate(pool, false).await? / 2.0;
        few += rate(pool, true).await? / 2.0;
    }
    report.add(
        "recording with a key / without",
        few / plain * 100.0,
        "%",
        Goal::AtLeast(60.0),
        format!("{few:.0}/s against {plain:.0}/s, one connection, {FEW} keys remembered"),
    );
    remember(pool, MANY - FEW).await?;
    let (mut plain_then, mut many) = (0.0, 0.0);
    for _ in 0..2 {
        plain_then += rate(pool, false).await? / 2.0;
        many += rate(pool, true).await? / 2.0;
    }
    report.add(
        "the same with ten million keys / with a hundred thousand",
        (many / plain_then) / (few / plain),
        "x",
        Goal::AtLeast(0.8),
        format!("{many:.0}/s against {plain_then:.0}/s"),
    );
    // A hundred thousand of them expire; the sweep takes them in its own batches.
    sqlx::query("update dedup set expires_at = now() - interval '1 s' where key in (select key from dedup limit 100000)")
        .execute(pool.raw())
        .await?;
    let start = clock::instant();
    let mut gone = 0;
    loop {
        match store::dedup::expire(pool, 10_000).await? {
            0 => break,
            some => gone += some,
        }
    }
    report.add(
        "expired keys swept",
        gone as f64 / start.elapsed().as_secs_f64(),
        "/s",
        Goal::AtLeast(20_000.0),
        format!("{gone} among ten million"),
    );
    store.pool.close().await;
    Ok(())
}

/// Keys of events that came over the last hour.
async fn remember(pool: &store::Pool, keys: i64) -> anyhow::Result<()> {
    let mut left = keys;
    while left > 0 {
        let batch = left.min(500_000);
        sqlx::query(
            "insert into dedup (key, event_id, expires_at)
             select gen_random_uuid(), gen_random_uuid(), now() + interval '1 hour' + n * interval '1 ms' from generate_series(1, $1::bigint) as t(n)",
        )
        .bind(batch)
        .execute(pool.raw())
        .await?;
        left -= batch;
    }
    sqlx::query("vacuum analyze dedup")
        .execute(pool.raw())
        .await?;
    sqlx::query("checkpoint").execute(pool.raw()).await?;
    Ok(())
}

/// Events a second over one connection, one commit after the other.
async fn rate(pool: &store::Pool, keyed: bool) -> anyhow::Result<f64> {
    let start = clock::instant();
    let mut events = 0;
    while start.elapsed() < FOR {
        let batch: Vec<Recorded> = (0..BATCH).map(|_| recorded(keyed)).collect();
        let kept = record(pool, &batch).await?;
        anyhow::ensure!(
            kept.iter().all(|kept| *kept == Kept::New),
            "each key is new"
        );
        events += BATCH;
    }
    Ok(events as f64 / start.elapsed().as_secs_f64())
}

fn recorded(keyed: bool) -> Recorded {
    Recorded {
        event: Arc::new(Event {
            id: Uuid::now_v7(),
            namespace: "default".into(),
            source_id: Uuid::from_u128(1),
            received_at: clock::now(),
            method: "POST".into(),
            headers: "content-type: application/json\r\n".into(),
            body: crate::scenarios::body(0).into(),
            ..Event::default()
        }),
        deliveries: Vec::new(),
        verification: Verification::Verified,
        dedup: keyed.then(|| Key {
            key: Uuid::from_u128(rand::random()),
            window: Duration::from_secs(3600),
        }),
        claim: None,
    }
}
