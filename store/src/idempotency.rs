//! Answers to requests that named themselves by an idempotency key: a request that is made again gets the answer that the
//! first one got, for as long as the key is remembered.
//!
//! A key is claimed in the transaction that does what the request asks for. Of two that are made at once, on whatever
//! replicas, the second waits for the first's commit and then finds its answer; should the first fail, the key is free.

use crate::{
    Pool,
    error::{Error, Result},
    pool::{On, Session},
};
use bytes::Bytes;
use sqlx::Row;
use std::time::Duration;
use uuid::Uuid;

/// How long an answer is kept, by the database's clock.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// What a request claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// 128 bits of a hash over the topic and the key.
    pub key: Uuid,
    /// Of this request and no other, fixed before its first try: by it a request that is tried again knows its own claim.
    pub token: Uuid,
    /// 128 bits of a hash over all that the request says.
    pub fingerprint: Uuid,
    /// What it is answered, if it is the first.
    pub answer: Bytes,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It was the first of its key, or had none: it is done now.
    Now,
    /// It was done before, with this answer.
    Before(Bytes),
    /// Another request had this key. Nothing was done.
    Mismatch,
}

/// It writes the row also where it stays as it is: that waits for a transaction which is just claiming the same key.
const CLAIM: &str = "\
INSERT INTO idempotency AS i (key, token, fingerprint, answer, expires_at)
VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))
ON CONFLICT (key) DO UPDATE SET
    token = CASE WHEN i.expires_at <= now() THEN excluded.token ELSE i.token END,
    fingerprint = CASE WHEN i.expires_at <= now() THEN excluded.fingerprint ELSE i.fingerprint END,
    answer = CASE WHEN i.expires_at <= now() THEN excluded.answer ELSE i.answer END,
    expires_at = CASE WHEN i.expires_at <= now() THEN excluded.expires_at ELSE i.expires_at END
RETURNING token, fingerprint, answer";

/// [`Done::Now`]: the key is ours, once the session's transaction commits.
pub(crate) async fn claim(pool: &Pool, session: &mut Session, claim: &Claim) -> Result<Done> {
    let query = pool
        .query(CLAIM)
        .bind(claim.key)
        .bind(claim.token)
        .bind(claim.fingerprint)
        .bind(&claim.answer[..])
        .bind(KEPT.as_secs_f64());
    let row = query.one(session).await?;
    if row.try_get::<Uuid, _>("token")? == claim.token {
        return Ok(Done::Now);
    }
    if row.try_get::<Uuid, _>("fingerprint")? != claim.fingerprint {
        return Ok(Done::Mismatch);
    }
    Ok(Done::Before(Bytes::from(
        row.try_get::<Vec<u8>, _>("answer")?,
    )))
}

/// In the order of their expiry, by its index. A row that a claim holds is about to be taken over.
const EXPIRE: &str = "\
WITH gone AS (
    DELETE FROM idempotency WHERE key = ANY (ARRAY(
        SELECT key FROM idempotency WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) AS gone FROM gone";

/// Forgets up to `limit` answers that have expired; returns how many there were.
pub async fn expire(pool: &Pool, limit: u32) -> Result<u64> {
    let mut session = pool.session().await?;
    let row = pool
        .query(EXPIRE)
        .bind(i64::from(limit))
        .one(&mut session)
        .await?;
    session.done().await?;
    Ok(row.try_get::<i64, _>("gone")?.unsigned_abs())
}

/// Records events in one commit of their own, together with the claim: all of them or none.
///
/// May be called again with the same arguments when it is not known whether the first call committed.
/// [`Error::MissingPartition`]: make the partitions and call again.
pub async fn record(
    pool: &Pool,
    claim: Option<&Claim>,
    batch: &[crate::events::Recorded],
) -> Result<Done> {
    let mut session = pool.begin().await?;
    if let Some(claim) = claim {
        match self::claim(pool, &mut session, claim).await? {
            Done::Now => {}
            other => {
                session.done().await?;
                return Ok(other);
            }
        }
    }
    crate::events::record_within(pool, &mut session, batch).await?;
    session.done().await?;
    Ok(Done::Now)
}

/// The caller's batch is bounded, so a refusal of Postgres is about its content.
pub(crate) fn bounded(count: usize, most: usize) -> Result<()> {
    if count > most {
        return Err(Error::Data(
            format!("{count} at once; at most {most} are possible").into(),
        ));
    }
    Ok(())
}
