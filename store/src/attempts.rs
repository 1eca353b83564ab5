//! Attempts as they are read again: what was sent when, and what came back. They are written with their outcome
//! (`outcomes`).

use crate::{Pool, error::Result, outcomes::Timings, pool::On, time::from_sql};
use bytes::Bytes;
use jiff::Timestamp;
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

/// Why an attempt was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The first one.
    Initial,
    /// The one before failed, and the retry policy wanted another.
    Automatic,
    /// Somebody set the delivery going again.
    Manual,
    /// A job did.
    Job(Uuid),
}

impl Trigger {
    pub const WORDS: [&str; 4] = ["initial", "automatic", "manual", "job"];

    pub const fn as_str(self) -> &'static str {
        match self {
            Trigger::Initial => "initial",
            Trigger::Automatic => "automatic",
            Trigger::Manual => "manual",
            Trigger::Job(_) => "job",
        }
    }

    /// The columns: what the policy does by itself, nearly all, takes no room.
    pub(crate) fn to_sql(self) -> (Option<&'static str>, Option<Uuid>) {
        match self {
            Trigger::Initial | Trigger::Automatic => (None, None),
            Trigger::Manual => (Some("manual"), None),
            Trigger::Job(id) => (Some("job"), Some(id)),
        }
    }

    fn from_sql(number: u32, word: Option<&str>, job: Option<Uuid>) -> Trigger {
        match (word, job) {
            (_, Some(job)) => Trigger::Job(job),
            (Some(_), None) => Trigger::Manual,
            (None, None) if number == 1 => Trigger::Initial,
            (None, None) => Trigger::Automatic,
        }
    }
}

/// One attempt as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// From 1, across all rounds.
    pub number: u32,
    pub trigger: Trigger,
    pub started_at: Timestamp,
    /// The word for [`routing::retry::Outcome`].
    pub outcome: String,
    pub status: Option<u16>,
    pub error: Option<String>,
    pub timings: Timings,
    /// `name: value\r\n` lines.
    pub response_headers: Option<Bytes>,
    pub response_body: Option<Bytes>,
    pub replica: String,
}

/// Attempts that one call gives at most: with 16 KiB of answer each, 1.6 MB.
pub const PAGE: u32 = 100;

pub(crate) const OF_DELIVERY: &str = "\
SELECT number, trigger, job_id, started_at, outcome, status, error, dns_us, connect_us, tls_us, first_byte_us, total_us,
       response_headers, response_body, replica
FROM attempts WHERE delivery_id = $1 AND number > $2 ORDER BY number LIMIT $3";

/// The attempts of a delivery behind the number `after`, in their order, at most [`PAGE`].
pub async fn of_delivery(pool: &Pool, delivery: Uuid, after: u32) -> Result<Vec<Made>> {
    let mut session = pool.session().await?;
    let rows = pool
        .query(OF_DELIVERY)
        .bind(delivery)
        .bind(i32::try_from(after).unwrap_or(i32::MAX))
        .bind(i64::from(PAGE))
        .all(&mut session)
        .await?;
    session.done().await?;
    rows.iter().map(made).collect()
}

fn made(row: &PgRow) -> Result<Made> {
    let number = row.try_get::<i32, _>("number")?.unsigned_abs();
    let us = |name: &str| -> Result<Option<u32>> {
        Ok(row.try_get::<Option<i32>, _>(name)?.map(i32::unsigned_abs))
    };
    let bytes = |name: &str| -> Result<Option<Bytes>> {
        Ok(row.try_get::<Option<Vec<u8>>, _>(name)?.map(Bytes::from))
    };
    Ok(Made {
        number,
        trigger: Trigger::from_sql(number, row.try_get("trigger")?, row.try_get("job_id")?),
        started_at: from_sql(row.try_get("started_at")?),
        outcome: row.try_get("outcome")?,
        status: row
            .try_get::<Option<i16>, _>("status")?
            .map(i16::unsigned_abs),
        error: row.try_get("error")?,
        timings: Timings {
            dns_us: us("dns_us")?,
            connect_us: us("connect_us")?,
            tls_us: us("tls_us")?,
            first_byte_us: us("first_byte_us")?,
            total_us: us("total_us")?,
        },
        response_headers: bytes("response_headers")?,
        response_body: bytes("response_body")?,
        replica: row.try_get("replica")?,
    })
}
