//! The days of the history: made ahead, dropped whole.
//!
//! The three tables of history have one partition per UTC day each, `events_20261121` and so on. A day's bound is the
//! UUID whose first 48 bits are its midnight's milliseconds. A new partition is made beside its parent and then attached,
//! which locks out neither readers nor writers; dropping one does for a moment, and gives up rather than make them wait.

use crate::{
    Pool,
    error::{Error, Result},
    migrate::PARTITIONS_LOCK,
    pool::{On, Session},
};
use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date, tz::TimeZone};
use sqlx::Row;
use std::collections::BTreeSet;
use uuid::Uuid;

const TABLES: [&str; 3] = ["events", "deliveries", "attempts"];

/// Days made ahead: the daily task may fail for that long before anything else does.
const AHEAD: i64 = 3;

/// The clocks of a replica and of the database may be that far apart.
const MOST_APART: SignedDuration = SignedDuration::from_hours(24);

/// Makes the partitions of yesterday, today and the three days after, where missing; days are UTC. Returns how many were made.
///
/// Yesterday too: a gateway whose clock is a little behind writes into it after midnight.
///
/// [`Error::Clock`] when `now` is more than a day off the database's clock: days made by a clock that is far behind would
/// be dropped by the next retention, with events in them that were answered for.
pub async fn ensure(pool: &Pool, now: Timestamp) -> Result<u32> {
    let database = database_clock(pool).await?;
    if now.duration_since(database).abs() > MOST_APART {
        return Err(Error::Clock { now, database });
    }
    ensure_around(pool, now).await
}

/// The same whatever the database's clock says.
pub async fn ensure_around(pool: &Pool, now: Timestamp) -> Result<u32> {
    let mut session = pool.begin().await?;
    let made = ensure_within(pool, &mut session, now).await?;
    session.done().await?;
    Ok(made)
}

/// The same by the database's clock.
pub(crate) async fn ensure_now(pool: &Pool) -> Result<u32> {
    let mut session = pool.begin().await?;
    let now = database_now(pool, &mut session).await?;
    let made = ensure_within(pool, &mut session, now).await?;
    session.done().await?;
    Ok(made)
}

/// The database's clock. What is older than the retention must not be decided by a replica whose clock has jumped ahead.
pub async fn database_clock(pool: &Pool) -> Result<Timestamp> {
    let mut session = pool.session().await?;
    let now = database_now(pool, &mut session).await?;
    session.done().await?;
    Ok(now)
}

pub(crate) async fn database_now(pool: &Pool, session: &mut Session) -> Result<Timestamp> {
    let row = pool
        .query("SELECT clock_timestamp() AS now")
        .one(session)
        .await?;
    Ok(crate::time::from_sql(row.try_get("now")?))
}

/// The same inside a transaction.
pub(crate) async fn ensure_within(
    pool: &Pool,
    session: &mut Session,
    now: Timestamp,
) -> Result<u32> {
    pool.query("SELECT pg_advisory_xact_lock($1)")
        .bind(PARTITIONS_LOCK)
        .run(session)
        .await?;
    let today = day_of(now);
    let mut made = 0;
    for table in TABLES {
        let there = days(pool, session, table).await?;
        for day in (-1..=AHEAD)
            .map(|n| today.saturating_add(n.days()))
            .filter(|day| !there.contains(day))
        {
            let (partition, from, to) = (
                partition_name(table, day),
                bound(day),
                bound(day.saturating_add(1.day())),
            );
            // All parts are our own words, digits and hex.
            let sql = format!(
                "CREATE TABLE {partition} (LIKE {table} INCLUDING ALL); \
                 ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ('{from}') TO ('{to}')"
            );
            session.raw(sql).await?;
            made += 1;
        }
    }
    Ok(made)
}

/// Drops the partitions of all days before `day`, and what the queue still has of them: `lost` is told of how many
/// deliveries, as they go. Returns the days dropped.
///
/// Each table is dropped in a transaction of its own. [`crate::Error::Unavailable`] when a long query holds one: nobody
/// is made to wait for it, and the next call goes on where this one stopped.
pub async fn drop_before(pool: &Pool, day: Date, lost: impl Fn(u64)) -> Result<Vec<Date>> {
    let mut doomed = BTreeSet::new();
    let mut tables = Vec::new();
    let mut session = pool.session().await?;
    for table in TABLES {
        for old in days(pool, &mut session, table)
            .await?
            .into_iter()
            .filter(|old| *old < day)
        {
            doomed.insert(old);
            tables.push(partition_name(table, old));
        }
    }
    session.done().await?;
    if doomed.is_empty() {
        return Ok(Vec::new());
    }
    forget_queued_before(pool, day, lost).await?;
    // The oldest days first, so that what is left after an error is one range.
    tables.sort_by(|a, b| a.rsplit('_').next().cmp(&b.rsplit('_').next()));
    for partition in tables {
        let mut session = pool.begin().await?;
        session
            .raw(format!(
                "SET LOCAL lock_timeout = '1s'; DROP TABLE IF EXISTS {partition}"
            ))
            .await?;
        session.done().await?;
    }
    Ok(doomed.into_iter().collect())
}

/// Rows of the queue that one statement looks at: short enough for any time-out, and what it has deleted stays deleted.
const PAGE: i64 = 10_000;

/// Along the key, which grows with each retry: a row that is moved meanwhile comes again.
const FORGET: &str = "\
WITH page AS MATERIALIZED (
    SELECT ctid AS place, shard, destination_id, due_at, delivery_id, event_id FROM queue
    WHERE (shard, destination_id, due_at, delivery_id) > ($1, $2, $3, $4)
    ORDER BY shard, destination_id, due_at, delivery_id LIMIT $5
), gone AS (
    DELETE FROM queue WHERE ctid = ANY (ARRAY(SELECT place FROM page WHERE event_id < $6)) RETURNING 1
)
SELECT shard, destination_id, due_at, delivery_id, (SELECT count(*) FROM gone) AS gone FROM page
ORDER BY shard DESC, destination_id DESC, due_at DESC, delivery_id DESC LIMIT 1";

/// Deliveries still queued lose their event with its day; without this their rows would stay for ever, seen by nobody.
///
/// Reads the whole queue, once a day, by one replica. What it misses (a row moved back by a clock that is behind) is
/// removed when its destination next reads its queue: [`crate::outcomes::drop_orphans`].
async fn forget_queued_before(pool: &Pool, day: Date, lost: impl Fn(u64)) -> Result<()> {
    let mut after = (
        -1_i16,
        Uuid::nil(),
        crate::time::to_sql(Timestamp::UNIX_EPOCH),
        Uuid::nil(),
    );
    let mut all = 0;
    loop {
        let mut session = pool.session().await?;
        let last = pool
            .query(FORGET)
            .bind(after.0)
            .bind(after.1)
            .bind(after.2)
            .bind(after.3)
            .bind(PAGE)
            .bind(bound(day))
            .optional(&mut session)
            .await?;
        session.done().await?;
        let Some(last) = last else { break };
        let gone = last.try_get::<i64, _>("gone")?.unsigned_abs();
        if gone > 0 {
            lost(gone);
        }
        all += gone;
        after = (
            last.try_get("shard")?,
            last.try_get("destination_id")?,
            last.try_get("due_at")?,
            last.try_get("delivery_id")?,
        );
    }
    if all > 0 {
        tracing::warn!(deliveries = all, %day, "deliveries were still queued when retention removed their events");
    }
    Ok(())
}

/// How far behind the two duties are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Days that exist although they are before `keep_from`: retention is that many days behind.
    pub overdue_days: u32,
    /// Days after today that have all their partitions; 0 means that tomorrow's events have nowhere to go.
    pub ahead_days: u32,
}

pub async fn lag(pool: &Pool, now: Timestamp, keep_from: Date) -> Result<Lag> {
    let mut session = pool.session().await?;
    let mut all = Vec::new();
    for table in TABLES {
        all.push(days(pool, &mut session, table).await?);
    }
    session.done().await?;
    let any: BTreeSet<Date> = all.iter().flatten().copied().collect();
    let today = day_of(now);
    let whole = |n: &i64| {
        all.iter()
            .all(|days| days.contains(&today.saturating_add(n.days())))
    };
    Ok(Lag {
        overdue_days: any.range(..keep_from).count() as u32,
        ahead_days: (1..=AHEAD).take_while(whole).count() as u32,
    })
}

/// The days for which history has all its partitions.
pub(crate) async fn complete_days(pool: &Pool) -> Result<BTreeSet<Date>> {
    let mut session = pool.session().await?;
    let complete = complete_days_within(pool, &mut session).await?;
    session.done().await?;
    Ok(complete)
}

pub(crate) async fn complete_days_within(
    pool: &Pool,
    session: &mut Session,
) -> Result<BTreeSet<Date>> {
    let mut complete = days(pool, session, TABLES[0]).await?;
    for table in &TABLES[1..] {
        let there = days(pool, session, table).await?;
        complete.retain(|day| there.contains(day));
    }
    Ok(complete)
}

async fn days(pool: &Pool, session: &mut Session, table: &str) -> Result<BTreeSet<Date>> {
    let rows = pool
        .query("SELECT c.relname::text AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass($1)")
        .bind(table.to_owned())
        .all(session)
        .await?;
    let mut days = BTreeSet::new();
    for row in rows {
        days.extend(parse_name(row.try_get("name")?));
    }
    Ok(days)
}

fn partition_name(table: &str, day: Date) -> String {
    format!(
        "{table}_{:04}{:02}{:02}",
        day.year(),
        day.month(),
        day.day()
    )
}

/// The inverse; `None` for a partition that somebody made by hand, which we leave alone.
fn parse_name(name: &str) -> Option<Date> {
    let digits = name.rsplit('_').next().filter(|digits| digits.len() == 8)?;
    let part = |range: std::ops::Range<usize>| digits.get(range)?.parse::<i16>().ok();
    Date::new(
        part(0..4)?,
        part(4..6)?.try_into().ok()?,
        part(6..8)?.try_into().ok()?,
    )
    .ok()
}

pub(crate) fn day_of(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// The day whose partition holds a row of this UUIDv7 key.
pub fn day_of_id(id: Uuid) -> Date {
    let ms = (id.as_u128() >> 80) as i64;
    Timestamp::from_millisecond(ms).map_or(Date::MAX, day_of)
}

/// The smallest key of a day.
fn bound(day: Date) -> Uuid {
    let midnight = day
        .to_zoned(TimeZone::UTC)
        .map_or(0, |zoned| zoned.timestamp().as_millisecond());
    Uuid::from_u128(u128::from(midnight.unsigned_abs()) << 80)
}

#[cfg(test)]
mod unit {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn a_day_begins_at_midnight_utc_and_its_name_is_read_back() {
        let day = date(2026, 11, 21);
        assert_eq!(day_of_id(bound(day)), day);
        assert_eq!(
            day_of_id(Uuid::from_u128(bound(day).as_u128() - 1)),
            date(2026, 11, 20)
        );
        assert_eq!(partition_name("events", day), "events_20261121");
        assert_eq!(parse_name("events_20261121"), Some(day));
    }

    #[test]
    fn names_of_other_tables_are_not_days() {
        for name in [
            "events",
            "events_2026112",
            "events_20261321",
            "events_2026112é",
            "events_default",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
