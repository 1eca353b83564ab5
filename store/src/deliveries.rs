//! Finished deliveries as people look at them: dead letters by page, and one with all that became of it.
//!
//! A delivery that was set going again (`retries`) keeps its row, in state `pending`, until it is finished once more.
//!
//! Every page costs a bounded amount of work, whatever is looked for: [`page`] reads [`LOOKED_AT`] dead letters along an
//! index and says where it stopped, also when it found less than it was asked for.

use crate::{
    Pool,
    error::Result,
    pool::{On, Session},
    time::{from_sql, to_sql},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{Row, postgres::PgRow, types::Json};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// Which dead letters. A field that is `None` excludes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Uuid>,
    /// Or the subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<Uuid>,
    /// The word for [`routing::retry::GaveUp`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Given up at this time or later…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// …and before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// In the event's path, query or the first 256 KiB of its body, or in the last attempt's error; as it is written,
    /// upper and lower case apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A dead letter in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub delivery_id: Uuid,
    pub event_id: Uuid,
    pub namespace: String,
    pub connection: Named,
    pub destination: Named,
    pub reason: String,
    /// Made in all.
    pub attempts: u32,
    /// Times that it was set going again.
    pub round: u32,
    pub created_at: Timestamp,
    /// When it was given up.
    pub finished_at: Timestamp,
    /// Of the last attempt.
    pub status: Option<u16>,
    pub error: Option<String>,
}

/// A resource as the routing table knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub id: Uuid,
    /// As in `routes.kind`, and its name; `None`: the table has forgotten it.
    pub kind: Option<String>,
    pub name: Option<String>,
    /// No longer in the table.
    pub deleted: bool,
}

/// A place in the list: behind the dead letter that was given up then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub finished_at: Timestamp,
    pub delivery_id: Uuid,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.finished_at.as_microsecond().to_be_bytes());
        bytes[8..].copy_from_slice(self.delivery_id.as_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// The text is no cursor.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this is not a cursor: give the one that the page before ended with, unchanged")]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Cursor, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let (time, id) = bytes.split_first_chunk::<8>().ok_or(InvalidCursor)?;
        Ok(Cursor {
            finished_at: Timestamp::from_microsecond(i64::from_be_bytes(*time))
                .map_err(|_| InvalidCursor)?,
            delivery_id: Uuid::from_slice(id).map_err(|_| InvalidCursor)?,
        })
    }
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Newest first.
    pub dead_letters: Vec<DeadLetter>,
    /// Where the next page begins, `None` after the last. A page may be short, or empty, and not be the last.
    pub next: Option<Cursor>,
}

/// Dead letters of one page at most.
pub const PAGE: u32 = 100;

/// Dead letters that one page looks at, and when their events' bodies are looked into.
pub const LOOKED_AT: u32 = 2_000;
pub const LOOKED_INTO: u32 = 200;

/// The dead letters that a filter lets through, along an index: what was looked at first, then what matches.
///
/// $1 namespace, $2 destination, $3 connection, $4 reason, $5 from, $6 until, $7 text, $8 and $9 the cursor, $10 rows to
/// look at, $11 rows to give, $12 a job whose own rows are left out. The last two columns are where the looking ended.
/// OFFSET keeps an EXISTS a look-up: Postgres 18 would read all attempts into a hash table first.
macro_rules! matching {
    ($key:literal, $than:literal, $order:literal) => {
        concat!(
            "WITH looked AS MATERIALIZED (
    SELECT d.id, d.event_id, d.connection_id, d.destination_id, d.namespace, d.reason, d.attempts, d.round, d.created_at,
           d.finished_at, d.job_id FROM deliveries d
    WHERE d.state = 'dead_letter' AND ",
            $key,
            " AND (d.finished_at, d.id) ",
            $than,
            " ($8, $9) AND d.finished_at >= $5 AND d.finished_at < $6
    ORDER BY d.finished_at ",
            $order,
            ", d.id ",
            $order,
            " LIMIT $10
), reached AS (
    SELECT count(*) AS looked, (array_agg(finished_at ORDER BY finished_at DESC, id DESC))[1] AS newest_at,
           (array_agg(id ORDER BY finished_at DESC, id DESC))[1] AS newest,
           (array_agg(finished_at ORDER BY finished_at, id))[1] AS oldest_at,
           (array_agg(id ORDER BY finished_at, id))[1] AS oldest FROM looked
), matched AS MATERIALIZED (
    SELECT l.* FROM looked l
    WHERE l.namespace = $1 AND ($2::uuid IS NULL OR l.destination_id = $2) AND ($3::uuid IS NULL OR l.connection_id = $3)
      AND ($4::text IS NULL OR l.reason = $4) AND ($12::uuid IS NULL OR l.job_id IS DISTINCT FROM $12)
      AND ($7::text IS NULL OR EXISTS (
              SELECT FROM events e WHERE e.id = l.event_id AND (
                  position($7 IN e.path) > 0 OR position($7 IN e.query) > 0
                  OR position(convert_to($7, 'UTF8') IN substring(e.body FROM 1 FOR 262144)) > 0) OFFSET 0)
          OR EXISTS (
              SELECT FROM attempts a WHERE a.delivery_id = l.id AND a.number = l.attempts AND position($7 IN a.error) > 0 OFFSET 0))
    ORDER BY l.finished_at ",
            $order,
            ", l.id ",
            $order,
            " LIMIT $11
)
"
        )
    };
}

macro_rules! listed {
    ($key:literal) => {
        concat!(
            matching!($key, "<", "DESC"),
            "SELECT r.looked, r.oldest_at, r.oldest, m.id, m.event_id, m.connection_id, m.destination_id, m.namespace, m.reason, m.attempts,
    m.round, m.created_at, m.finished_at, a.status, a.error,
    c.kind AS connection_kind, c.name AS connection_name, c.deleted AS connection_deleted,
    t.kind AS destination_kind, t.name AS destination_name, t.deleted AS destination_deleted
FROM reached r LEFT JOIN matched m ON true
LEFT JOIN LATERAL (SELECT status, error FROM attempts a WHERE a.delivery_id = m.id AND a.number = m.attempts LIMIT 1) a ON true
LEFT JOIN LATERAL (SELECT kind, name, deleted FROM routes WHERE kind IN ('connection', 'subscription') AND uid = m.connection_id LIMIT 1) c ON true
LEFT JOIN LATERAL (SELECT kind, name, deleted FROM routes WHERE kind = 'destination' AND uid = m.destination_id LIMIT 1) t ON true
ORDER BY m.finished_at DESC, m.id DESC"
        )
    };
}

pub(crate) const LIST: &str = listed!("d.namespace = $1");
pub(crate) const LIST_OF_DESTINATION: &str = listed!("d.destination_id = $2");

macro_rules! walked {
    ($key:literal) => {
        concat!(
            matching!($key, ">", "ASC"),
            "SELECT r.looked, r.newest_at, r.newest, m.id, m.destination_id, m.finished_at FROM reached r LEFT JOIN matched m ON true
ORDER BY m.finished_at, m.id"
        )
    };
}

pub(crate) const WALK: &str = walked!("d.namespace = $1");
pub(crate) const WALK_OF_DESTINATION: &str = walked!("d.destination_id = $2");

/// The dead letters of a namespace behind a place in the list, newest first, at most `limit` and [`PAGE`].
pub async fn page(
    pool: &Pool,
    namespace: &str,
    filter: &Filter,
    after: Option<Cursor>,
    limit: u32,
) -> Result<Page> {
    let limit = limit.clamp(1, PAGE);
    let after = after.unwrap_or(Cursor {
        finished_at: NEVER,
        delivery_id: Uuid::max(),
    });
    let sql = match filter.destination {
        Some(_) => LIST_OF_DESTINATION,
        None => LIST,
    };
    let mut session = pool.session().await?;
    let rows = filter
        .bind(pool, sql, namespace, after, looked_at(filter), limit, None)
        .all(&mut session)
        .await?;
    session.done().await?;
    let mut page = Page::default();
    for row in &rows {
        if row.try_get::<Option<Uuid>, _>("id")?.is_some() {
            page.dead_letters.push(dead_letter(row)?);
        }
    }
    page.next = reached(&rows, looked_at(filter), "oldest_at", "oldest")?;
    if let Some(last) = page.dead_letters.get(limit as usize - 1) {
        page.next = Some(Cursor {
            finished_at: last.finished_at,
            delivery_id: last.delivery_id,
        });
    }
    Ok(page)
}

/// One step of a walk from the oldest to the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Delivery and destination.
    pub(crate) matching: Vec<(Uuid, Uuid)>,
    /// Where the next step begins; `None`: there's nothing more.
    pub(crate) next: Option<Cursor>,
}

pub(crate) async fn walk(
    pool: &Pool,
    session: &mut Session,
    namespace: &str,
    filter: &Filter,
    after: Cursor,
    limit: u32,
    job: Uuid,
) -> Result<Stretch> {
    let sql = match filter.destination {
        Some(_) => WALK_OF_DESTINATION,
        None => WALK,
    };
    let rows = filter
        .bind(
            pool,
            sql,
            namespace,
            after,
            looked_at(filter),
            limit,
            Some(job),
        )
        .all(session)
        .await?;
    let mut matching = Vec::with_capacity(rows.len());
    let mut last = None;
    for row in &rows {
        if let Some(id) = row.try_get::<Option<Uuid>, _>("id")? {
            matching.push((id, row.try_get("destination_id")?));
            last = Some(Cursor {
                finished_at: from_sql(row.try_get("finished_at")?),
                delivery_id: id,
            });
        }
    }
    let full = matching.len() >= limit as usize;
    let next = match last {
        Some(last) if full => Some(last),
        _ => reached(&rows, looked_at(filter), "newest_at", "newest")?,
    };
    Ok(Stretch { matching, next })
}

/// Dead letters that are counted before a job begins.
pub(crate) const COUNTED: u32 = 10_000;

macro_rules! counted {
    ($key:literal) => {
        concat!(
            "SELECT count(*) AS looked, count(*) FILTER (WHERE namespace = $1 AND ($2::uuid IS NULL OR destination_id = $2)
       AND ($3::uuid IS NULL OR connection_id = $3) AND ($4::text IS NULL OR reason = $4)) AS matching
FROM (SELECT namespace, destination_id, connection_id, reason FROM deliveries d
      WHERE state = 'dead_letter' AND ",
            $key,
            " AND finished_at >= $5 AND finished_at < $6 ORDER BY finished_at LIMIT $7) d"
        )
    };
}

pub(crate) const COUNT: &str = counted!("d.namespace = $1");
pub(crate) const COUNT_OF_DESTINATION: &str = counted!("d.destination_id = $2");

/// How many a filter lets through; `None`: too many to be counted, or only known by looking into the bodies.
pub(crate) async fn count(
    pool: &Pool,
    session: &mut Session,
    namespace: &str,
    filter: &Filter,
) -> Result<Option<u64>> {
    if filter.text.is_some() {
        return Ok(None);
    }
    let sql = match filter.destination {
        Some(_) => COUNT_OF_DESTINATION,
        None => COUNT,
    };
    let row = pool
        .query(sql)
        .bind(namespace.to_owned())
        .bind(filter.destination)
        .bind(filter.connection)
        .bind(filter.reason.clone())
        .bind(to_sql(filter.from.unwrap_or(Timestamp::UNIX_EPOCH)))
        .bind(to_sql(filter.until.unwrap_or(NEVER)))
        .bind(i64::from(COUNTED) + 1)
        .one(session)
        .await?;
    let count = |name: &str| -> Result<u64> { Ok(row.try_get::<i64, _>(name)?.unsigned_abs()) };
    (count("looked")? <= u64::from(COUNTED))
        .then(|| count("matching"))
        .transpose()
}

/// After everything that Postgres holds of ours.
const NEVER: Timestamp = Timestamp::MAX;

fn looked_at(filter: &Filter) -> u32 {
    match filter.text {
        Some(_) => LOOKED_INTO,
        None => LOOKED_AT,
    }
}

impl Filter {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parameters of two statements"
    )]
    fn bind(
        &self,
        pool: &Pool,
        sql: &'static str,
        namespace: &str,
        after: Cursor,
        looked: u32,
        limit: u32,
        job: Option<Uuid>,
    ) -> sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments> {
        pool.query(sql)
            .bind(namespace.to_owned())
            .bind(self.destination)
            .bind(self.connection)
            .bind(self.reason.clone())
            .bind(to_sql(self.from.unwrap_or(Timestamp::UNIX_EPOCH)))
            .bind(to_sql(self.until.unwrap_or(NEVER)))
            .bind(self.text.clone())
            .bind(to_sql(after.finished_at))
            .bind(after.delivery_id)
            .bind(i64::from(looked))
            .bind(i64::from(limit))
            .bind(job)
    }
}

/// Where the looking ended, if there may be more behind it.
fn reached(rows: &[PgRow], looked: u32, at: &str, id: &str) -> Result<Option<Cursor>> {
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    if row.try_get::<i64, _>("looked")? < i64::from(looked) {
        return Ok(None);
    }
    Ok(Some(Cursor {
        finished_at: from_sql(row.try_get(at)?),
        delivery_id: row.try_get(id)?,
    }))
}

fn dead_letter(row: &PgRow) -> Result<DeadLetter> {
    Ok(DeadLetter {
        delivery_id: row.try_get("id")?,
        event_id: row.try_get("event_id")?,
        namespace: row.try_get("namespace")?,
        connection: named(row, "connection")?,
        destination: named(row, "destination")?,
        reason: row.try_get("reason")?,
        attempts: row.try_get::<i32, _>("attempts")?.unsigned_abs(),
        round: row.try_get::<i32, _>("round")?.unsigned_abs(),
        created_at: from_sql(row.try_get("created_at")?),
        finished_at: from_sql(row.try_get("finished_at")?),
        status: row
            .try_get::<Option<i16>, _>("status")?
            .map(i16::unsigned_abs),
        error: row.try_get("error")?,
    })
}

/// From the columns that begin with `what`.
fn named(row: &PgRow, what: &str) -> Result<Named> {
    let column = |part: &str| format!("{what}_{part}");
    Ok(Named {
        id: row.try_get(&*column("id"))?,
        kind: row.try_get(&*column("kind"))?,
        name: row.try_get(&*column("name"))?,
        deleted: row
            .try_get::<Option<bool>, _>(&*column("deleted"))?
            .unwrap_or(true),
    })
}

/// A delivery that was finished at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: Uuid,
    pub event_id: Uuid,
    pub namespace: String,
    pub connection: Named,
    pub destination: Named,
    pub state: State,
    /// Up to when it was last finished.
    pub attempts: u32,
    pub round: u32,
    pub created_at: Timestamp,
    /// The last time.
    pub finished_at: Timestamp,
    /// How earlier rounds ended, and who set it going again; oldest first, the newest hundred.
    pub retries: Vec<Retry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Delivered,
    DeadLetter {
        reason: String,
    },
    /// There was nothing to send.
    Filtered,
    /// Set going again, and not finished since.
    Pending,
}

impl State {
    pub const fn as_str(&self) -> &'static str {
        match self {
            State::Delivered => "delivered",
            State::DeadLetter { .. } => "dead_letter",
            State::Filtered => "filtered",
            State::Pending => "pending",
        }
    }
}

/// A delivery was set going again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// How it had ended before: `delivered` or `dead_letter`.
    pub state: String,
    pub reason: Option<String>,
    /// Made until then.
    pub attempts: u32,
    pub finished_at: Timestamp,
    /// When it was set going again, and by whom.
    pub at: Timestamp,
    pub by: String,
    pub job: Option<Uuid>,
}

pub(crate) const GET: &str = "\
SELECT d.id, d.event_id, d.connection_id, d.destination_id, d.namespace, d.state, d.reason, d.attempts, d.round, d.created_at,
       d.finished_at, d.retries, c.kind AS connection_kind, c.name AS connection_name, c.deleted AS connection_deleted,
       t.kind AS destination_kind, t.name AS destination_name, t.deleted AS destination_deleted
FROM deliveries d
LEFT JOIN LATERAL (SELECT kind, name, deleted FROM routes WHERE kind IN ('connection', 'subscription') AND uid = d.connection_id LIMIT 1) c ON true
LEFT JOIN LATERAL (SELECT kind, name, deleted FROM routes WHERE kind = 'destination' AND uid = d.destination_id LIMIT 1) t ON true
WHERE d.id = $1";

/// A delivery that was finished at least once; `None`: there's none, it was never finished, or retention has dropped it.
pub async fn get(pool: &Pool, id: Uuid) -> Result<Option<Delivery>> {
    let mut session = pool.session().await?;
    let row = pool.query(GET).bind(id).optional(&mut session).await?;
    session.done().await?;
    row.map(|row| delivery(&row)).transpose()
}

fn delivery(row: &PgRow) -> Result<Delivery> {
    let state = match row.try_get::<&str, _>("state")? {
        "delivered" => State::Delivered,
        "dead_letter" => State::DeadLetter {
            reason: row.try_get("reason")?,
        },
        "pending" => State::Pending,
        _ => State::Filtered,
    };
    let retries: Option<Json<Vec<Retry>>> = row.try_get("retries")?;
    Ok(Delivery {
        id: row.try_get("id")?,
        event_id: row.try_get("event_id")?,
        namespace: row.try_get("namespace")?,
        connection: named(row, "connection")?,
        destination: named(row, "destination")?,
        state,
        attempts: row.try_get::<i32, _>("attempts")?.unsigned_abs(),
        round: row.try_get::<i32, _>("round")?.unsigned_abs(),
        created_at: from_sql(row.try_get("created_at")?),
        finished_at: from_sql(row.try_get("finished_at")?),
        retries: retries.map(|Json(retries)| retries).unwrap_or_default(),
    })
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_cursor_survives_being_written_and_nothing_else_is_one() {
        let cursor = Cursor {
            finished_at: "2026-11-21T12:00:00.000001Z".parse().unwrap(),
            delivery_id: Uuid::from_u128(7 << 64),
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in [
            "",
            "x",
            "AAAA",
            &"A".repeat(31),
            &"A".repeat(33),
            &"f".repeat(32),
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text}");
        }
    }
}
