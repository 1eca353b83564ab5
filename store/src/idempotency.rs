//! Answers to requests that named themselves by an idempotency key: a request that is made again gets the answer that the
//! first one got, for as long as the key is remembered.
//!
//! A key is claimed in the transaction that does what the request asks for. Of two that are made at once, on whatever
//! replicas, the second waits for the first's commit and then finds its answer; should the first fail, the key is free.

use crate::{
    Pool,
    error::Result,
    pool::{On, Session},
};
use bytes::Bytes;
use sqlx::{Row, postgres::PgRow};
use std::time::Duration;
use uuid::Uuid;

/// How long an answer is kept, by the database's clock.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
pub(crate) const KEPT_MS: i64 = KEPT.as_secs() as i64 * 1000;

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

/// The end of an INSERT INTO idempotency AS i. It writes the row also where it stays as it is: that waits for a transaction
/// which is just claiming the same key. One that has expired is taken over.
macro_rules! or_find {
    () => {
        "ON CONFLICT (key) DO UPDATE SET
    token = CASE WHEN i.expires_at <= now() THEN excluded.token ELSE i.token END,
    fingerprint = CASE WHEN i.expires_at <= now() THEN excluded.fingerprint ELSE i.fingerprint END,
    answer = CASE WHEN i.expires_at <= now() THEN excluded.answer ELSE i.answer END,
    expires_at = CASE WHEN i.expires_at <= now() THEN excluded.expires_at ELSE i.expires_at END
RETURNING key, token, fingerprint, answer"
    };
}

pub(crate) use or_find;

const CLAIM: &str = concat!(
    "INSERT INTO idempotency AS i (key, token, fingerprint, answer, expires_at)
SELECT $1, $2, $3, $4, now() + $5 * interval '1 ms' ",
    or_find!()
);

/// [`Done::Now`]: the key is ours, once the session's transaction commits.
pub(crate) async fn claim(pool: &Pool, session: &mut Session, claim: &Claim) -> Result<Done> {
    let query = pool
        .query(CLAIM)
        .bind(claim.key)
        .bind(claim.token)
        .bind(claim.fingerprint)
        .bind(&claim.answer[..])
        .bind(KEPT_MS);
    let row = query.one(session).await?;
    Done::of(&row, claim)
}

/// What is known of a request that was not carried out, if it was made before.
pub async fn find(pool: &Pool, claim: &Claim) -> Result<Option<Done>> {
    let mut session = pool.session().await?;
    let query = pool
        .query("SELECT token, fingerprint, answer FROM idempotency WHERE key = $1 AND expires_at > now()")
        .bind(claim.key);
    let rows = query.all(&mut session).await?;
    session.done().await?;
    rows.first().map(|row| Done::of(row, claim)).transpose()
}

impl Done {
    fn of(row: &PgRow, claim: &Claim) -> Result<Done> {
        if row.try_get::<Uuid, _>("token")? == claim.token {
            return Ok(Done::Now);
        }
        if row.try_get::<Uuid, _>("fingerprint")? != claim.fingerprint {
            return Ok(Done::Mismatch);
        }
        let answer: Vec<u8> = row.try_get("answer")?;
        Ok(Done::Before(answer.into()))
    }
}

/// In the order of their expiry, by its index. A row that a claim holds is about to be taken over.
pub(crate) const EXPIRE: &str = "\
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
