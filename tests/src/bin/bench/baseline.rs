//! What the gateway is measured against: the same rows into the same Postgres, with nothing around them. Batches of 50,
//! four connections, one statement a batch, for as long as a scenario runs.

use crate::room::Room;
use service::clock;
use std::time::Duration;

const BATCH: usize = 50;
const CONNECTIONS: u32 = 4;
const LENGTH: Duration = Duration::from_secs(5);

/// Events (each with its queue row) per second.
pub(crate) async fn run(room: &Room) -> anyhow::Result<f64> {
    let store = room.database("baseline").await?;
    // Plain connections of the driver: none of our settings.
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect(&room.url("baseline"))
        .await?;
    let (start, end) = (clock::instant(), clock::instant() + LENGTH);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let pool = pool.clone();
        writers.spawn(async move {
            let mut rows = 0_u64;
            let destination = uuid::Uuid::now_v7();
            while clock::instant() < end {
                insert(&pool, destination).await?;
                rows += BATCH as u64;
            }
            anyhow::Ok(rows)
        });
    }
    let mut rows = 0;
    while let Some(writer) = writers.join_next().await {
        rows += writer??;
    }
    let rate = rows as f64 / start.elapsed().as_secs_f64();
    pool.close().await;
    store.pool.close().await;
    Ok(rate)
}

async fn insert(pool: &sqlx::PgPool, destination: uuid::Uuid) -> anyhow::Result<()> {
    let ids: Vec<uuid::Uuid> = (0..BATCH).map(|_| uuid::Uuid::now_v7()).collect();
    let headers = "content-type: application/json\r\nhost: bench\r\ncontent-length: 1024\r\nx-signature: v1=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n";
    let headers: Vec<&[u8]> = vec![headers.as_bytes(); BATCH];
    let body = crate::scenarios::body(0);
    let bodies: Vec<&[u8]> = vec![&body; BATCH];
    sqlx::query(
        "with e as (insert into events (id, namespace, source_id, revision, received_at, method, path, query, headers, body, remote_addr)
           select id, 'default', $4, 1, now(), 'POST', '', '', headers, body, '127.0.0.1'::inet from unnest($1::uuid[], $2::bytea[], $3::bytea[]) as t(id, headers, body))
         insert into queue (shard, destination_id, due_at, delivery_id, event_id, connection_id, namespace, attempts, recorded_at)
           select 7, $4, now(), id, id, $4, 'default', 0, now() from unnest($1::uuid[]) as t(id)",
    )
    .bind(&ids)
    .bind(&headers)
    .bind(&bodies)
    .bind(destination)
    .execute(pool)
    .await?;
    Ok(())
}
