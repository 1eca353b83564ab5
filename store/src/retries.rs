//! Setting finished deliveries going again: a dead letter, or on explicit request one that was delivered.
//!
//! A delivery keeps its id, its attempts and their numbers, and gets another **round**: a row of `queue`, for which the
//! retry policy counts anew, while its row of `deliveries` waits in state `pending` with how the rounds before ended.
//!
//! What holds:
//! - both rows change in one transaction, so a crash leaves a delivery finished or going, never both or neither;
//! - of two who retry the same delivery at once, one sets it going and the other is told that it's pending;
//! - an outcome of an earlier round that is written once more, late, changes nothing (`outcomes` compares the rounds).
//!
//! The owner of the shard is told afterwards; a lost hint costs what the owner's timer takes. A paused destination or an
//! open circuit holds these as it holds others.

use crate::{
    Pool,
    error::Result,
    events::shard_to_sql,
    installation, listen, partitions,
    pool::{On, Session},
};
use routing::shard;
use sqlx::{Row, postgres::PgBindIterExt};
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

/// Deliveries that one call sets going at most.
pub const AT_ONCE: usize = 500;

/// The last attempt's number that a delivery may have to be set going again: numbers have 16 bits, and a round needs some.
pub const MOST_ATTEMPTS: u32 = 60_000;

/// Who asks, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Deliveries of other namespaces look as if they didn't exist; `None`: of every namespace, for an administrator.
    pub namespace: Option<&'a str>,
    /// Also what was delivered (or had nothing to send), not only dead letters.
    pub delivered_too: bool,
    /// As its history shows it, up to 200 characters of it.
    pub by: &'a str,
    pub job: Option<Uuid>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retried {
    pub going: Vec<Going>,
    pub refused: Vec<Refused>,
}

/// A delivery that is going again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Going {
    pub delivery_id: Uuid,
    pub destination_id: Uuid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub delivery_id: Uuid,
    /// `None`: there is no such delivery.
    pub destination_id: Option<Uuid>,
    pub why: Refusal,
}

/// Why a delivery was not set going. The message says what to do instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    #[error(
        "there is no finished delivery with this id; one that was never finished is still being attempted"
    )]
    NotFound,
    #[error("it is being delivered already: wait until it is finished again")]
    Pending,
    #[error("it did not fail: ask for delivered ones too, to send it once more")]
    Delivered,
    #[error("retention has removed its event, so there is nothing left to send")]
    EventGone,
    #[error("its destination was deleted: create a destination and replay the event to that one")]
    DestinationGone,
    #[error("its connection was deleted: create a connection and replay the event")]
    ConnectionGone,
    #[error("it has had more than 60000 attempts: replay the event, which is a new delivery")]
    TooManyAttempts,
}

impl Refusal {
    pub const ALL: [Refusal; 7] = [
        Refusal::NotFound,
        Refusal::Pending,
        Refusal::Delivered,
        Refusal::EventGone,
        Refusal::DestinationGone,
        Refusal::ConnectionGone,
        Refusal::TooManyAttempts,
    ];

    /// For programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Refusal::NotFound => "not_found",
            Refusal::Pending => "pending",
            Refusal::Delivered => "delivered",
            Refusal::EventGone => "event_gone",
            Refusal::DestinationGone => "destination_gone",
            Refusal::ConnectionGone => "connection_gone",
            Refusal::TooManyAttempts => "too_many_attempts",
        }
    }

    fn parse(word: &str) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|why| why.as_str() == word)
    }
}

/// Sets deliveries going again: [`AT_ONCE`] of them, the rest of `ids` is left out.
pub async fn deliveries(pool: &Pool, ids: &[Uuid], request: Request<'_>) -> Result<Retried> {
    let ids: BTreeSet<Uuid> = ids.iter().copied().collect();
    let ids: Vec<Uuid> = ids.into_iter().take(AT_ONCE).collect();
    let mut session = pool.begin().await?;
    let retried = set_going(pool, &mut session, &ids, request).await?;
    session.done().await?;
    tell(pool, &retried).await;
    Ok(retried)
}

/// What became of an event's deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfEvent {
    /// Each of those that were ever finished; those that still have their first round are not in it.
    Retried(Retried),
    NotFound,
    /// Retention has removed it.
    Gone,
}

/// An event's deliveries have ids of its own millisecond, and so one partition.
pub(crate) const OF_EVENT: &str = "\
SELECT id FROM deliveries WHERE event_id = $1 AND id >= $2 AND id < $3 AND id > $4 ORDER BY id LIMIT $5";

/// Sets all of an event's deliveries going again that ended as dead letters; with `delivered_too`, all that ended.
pub async fn event(pool: &Pool, event: Uuid, request: Request<'_>) -> Result<OfEvent> {
    if let Some(missing) = missing(pool, event, request.namespace).await? {
        return Ok(missing);
    }
    let from = Uuid::from_u128(event.as_u128() >> 80 << 80);
    let until = Uuid::from_u128(((event.as_u128() >> 80) + 1) << 80);
    let mut all = Retried::default();
    let mut after = Uuid::nil();
    loop {
        let mut session = pool.begin().await?;
        let rows = pool
            .query(OF_EVENT)
            .bind(event)
            .bind(from)
            .bind(until)
            .bind(after)
            .bind(AT_ONCE as i64)
            .all(&mut session)
            .await?;
        let ids = rows
            .iter()
            .map(|row| Ok(row.try_get("id")?))
            .collect::<Result<Vec<Uuid>>>()?;
        let Some(last) = ids.last() else { break };
        after = *last;
        let retried = set_going(pool, &mut session, &ids, request).await?;
        session.done().await?;
        tell(pool, &retried).await;
        all.going.extend(retried.going);
        all.refused.extend(retried.refused);
    }
    Ok(OfEvent::Retried(all))
}

async fn missing(pool: &Pool, event: Uuid, namespace: Option<&str>) -> Result<Option<OfEvent>> {
    let mut session = pool.session().await?;
    let row = pool
        .query("SELECT namespace FROM events WHERE id = $1")
        .bind(event)
        .optional(&mut session)
        .await?;
    session.done().await?;
    match row {
        Some(row) => {
            let of: &str = row.try_get("namespace")?;
            Ok(namespace
                .is_some_and(|asked| asked != of)
                .then_some(OfEvent::NotFound))
        }
        None => {
            let gone = is_before_history(pool, event).await?;
            Ok(Some(if gone {
                OfEvent::Gone
            } else {
                OfEvent::NotFound
            }))
        }
    }
}

/// Was its day dropped by retention, if it ever was there?
async fn is_before_history(pool: &Pool, id: Uuid) -> Result<bool> {
    let days = partitions::complete_days(pool).await?;
    Ok(days
        .first()
        .is_some_and(|first| partitions::day_of_id(id) < *first))
}

/// One statement. Locked in the order of the ids, as everywhere, so that two of these wait for each other and never in a
/// ring. The state is asked again after the wait: what another has set going meanwhile is not in `locked`, and what is in
/// it stays as it is until the end.
///
/// Look-ups are LATERAL with a LIMIT and the update goes by an array, within the ids' bounds ($7, $8), which leave out
/// other days' partitions: a join or an EXISTS would, in a plan made while the tables were empty, read them whole.
///
/// Due one after the other, in the order of the request; a microsecond apart, so that the queue's key keeps it.
pub(crate) const SET_GOING: &str = "\
WITH wanted AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::smallint[]) WITH ORDINALITY AS w (id, shard, place) ORDER BY id
), locked AS MATERIALIZED (
    SELECT d.*, w.shard, w.place FROM wanted w CROSS JOIN LATERAL (
        SELECT id, event_id, connection_id, destination_id, namespace, attempts, round FROM deliveries
        WHERE id = w.id AND (state = 'dead_letter' OR ($3 AND state <> 'pending')) LIMIT 1 FOR UPDATE
    ) d
), judged AS MATERIALIZED (
    SELECT l.*, CASE
        WHEN (SELECT true FROM events WHERE id = l.event_id LIMIT 1) IS NULL THEN 'event_gone'
        WHEN (SELECT true FROM routes WHERE kind = 'destination' AND uid = l.destination_id AND NOT deleted LIMIT 1) IS NULL
            THEN 'destination_gone'
        WHEN (SELECT true FROM routes WHERE kind IN ('connection', 'subscription') AND uid = l.connection_id AND NOT deleted LIMIT 1) IS NULL
            THEN 'connection_gone'
        WHEN l.attempts > $4 THEN 'too_many_attempts' END AS refusal
    FROM locked l
), going AS (
    UPDATE deliveries SET state = 'pending', reason = NULL, round = round + 1, job_id = $5,
        retries = CASE WHEN jsonb_array_length(retries) >= 100 THEN retries - 0 ELSE coalesce(retries, '[]') END || jsonb_build_array(
            jsonb_build_object('state', state, 'reason', reason, 'attempts', attempts, 'finished_at', finished_at,
                'at', now(), 'by', $6::text, 'job', $5::uuid))
    WHERE id = ANY (ARRAY(SELECT id FROM judged WHERE refusal IS NULL)) AND id >= $7 AND id <= $8
), queued AS (
    INSERT INTO queue (shard, destination_id, due_at, delivery_id, event_id, connection_id, namespace, attempts, recorded_at, round,
                       attempts_before, job_id)
    SELECT shard, destination_id, now() + place * interval '1 microsecond', id, event_id, connection_id, namespace, attempts,
           now() + place * interval '1 microsecond', round + 1, attempts, $5
    FROM judged WHERE refusal IS NULL
)
SELECT id, destination_id, refusal FROM judged ORDER BY place";

/// What is known of these.
pub(crate) const ABOUT: &str = "\
SELECT d.* FROM unnest($1::uuid[]) AS w (id) CROSS JOIN LATERAL (
    SELECT id, destination_id, namespace, state FROM deliveries WHERE id = w.id LIMIT 1
) d";

/// Sets deliveries going again in the caller's transaction; call [`tell`] once it's committed. `ids` are bounded and
/// differ from each other.
pub(crate) async fn set_going(
    pool: &Pool,
    session: &mut Session,
    ids: &[Uuid],
    request: Request<'_>,
) -> Result<Retried> {
    let mut retried = Retried::default();
    if ids.is_empty() {
        return Ok(retried);
    }
    let shards = installation::load_within(pool, session).await?.shards;
    let rows = pool.query(ABOUT).bind(ids.to_vec()).all(session).await?;
    let mut destinations = HashMap::with_capacity(rows.len());
    for row in &rows {
        let namespace: &str = row.try_get("namespace")?;
        if request.namespace.is_none_or(|asked| asked == namespace) {
            let (id, destination): (Uuid, Uuid) =
                (row.try_get("id")?, row.try_get("destination_id")?);
            destinations.insert(id, destination);
        }
    }
    let wanted: Vec<(Uuid, Uuid)> = ids
        .iter()
        .filter_map(|id| Some((*id, *destinations.get(id)?)))
        .collect();
    let by: String = request
        .by
        .chars()
        .filter(|c| *c != '\0')
        .take(200)
        .collect();
    let rows = pool
        .query(SET_GOING)
        .bind(wanted.iter().map(|(id, _)| *id).bind_iter())
        .bind(
            wanted
                .iter()
                .map(|(_, destination)| shard_to_sql(shard::of(*destination, shards)))
                .bind_iter(),
        )
        .bind(request.delivered_too)
        .bind(i32::try_from(MOST_ATTEMPTS).unwrap_or(i32::MAX))
        .bind(request.job)
        .bind(by)
        .bind(ids.iter().min().copied())
        .bind(ids.iter().max().copied())
        .all(session)
        .await?;
    let mut told = BTreeSet::new();
    for row in &rows {
        let (delivery_id, destination_id): (Uuid, Uuid) =
            (row.try_get("id")?, row.try_get("destination_id")?);
        told.insert(delivery_id);
        match row
            .try_get::<Option<&str>, _>("refusal")?
            .and_then(Refusal::parse)
        {
            None => retried.going.push(Going {
                delivery_id,
                destination_id,
            }),
            Some(why) => retried.refused.push(Refused {
                delivery_id,
                destination_id: Some(destination_id),
                why,
            }),
        }
    }
    let others: Vec<Uuid> = ids
        .iter()
        .copied()
        .filter(|id| !told.contains(id))
        .collect();
    retried
        .refused
        .extend(explain(pool, session, &others, &destinations).await?);
    Ok(retried)
}

/// Why these were not set going.
async fn explain(
    pool: &Pool,
    session: &mut Session,
    ids: &[Uuid],
    visible: &HashMap<Uuid, Uuid>,
) -> Result<Vec<Refused>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = pool.query(ABOUT).bind(ids.to_vec()).all(session).await?;
    let mut states = HashMap::with_capacity(rows.len());
    for row in &rows {
        let (id, state): (Uuid, String) = (row.try_get("id")?, row.try_get("state")?);
        states.insert(id, state);
    }
    let first = match states.len() == ids.len() {
        true => None,
        false => partitions::complete_days_within(pool, session)
            .await?
            .first()
            .copied(),
    };
    let why = |id: &Uuid| match visible
        .get(id)
        .and_then(|_| states.get(id))
        .map(String::as_str)
    {
        // A dead letter: it became one after the look that did not find it.
        Some("pending" | "dead_letter") => Refusal::Pending,
        Some(_) => Refusal::Delivered,
        None if first.is_some_and(|first| partitions::day_of_id(*id) < first) => Refusal::EventGone,
        None => Refusal::NotFound,
    };
    Ok(ids
        .iter()
        .map(|id| Refused {
            delivery_id: *id,
            destination_id: visible.get(id).copied(),
            why: why(id),
        })
        .collect())
}

/// Tells the owners, once it's committed.
pub(crate) async fn tell(pool: &Pool, retried: &Retried) {
    let destinations: BTreeSet<Uuid> = retried
        .going
        .iter()
        .map(|going| going.destination_id)
        .collect();
    let destinations: Vec<Uuid> = destinations.into_iter().collect();
    if let Err(error) = listen::notify_queue(pool, &destinations).await {
        tracing::debug!(%error, "a hint to the replicas was not sent; their timers will do");
    }
}
