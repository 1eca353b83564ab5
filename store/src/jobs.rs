//! Jobs: what is done to many deliveries, in the background, at a rate, and can be stopped. So far one kind: setting dead
//! letters going again (`retries`).
//!
//! A job walks along the dead letters that its filter lets through, from the oldest to the newest. Each step is one
//! transaction: it locks the job, sets some deliveries going, and writes how far it has come and what that used up of the
//! rate. So a crash or a hand-over between two steps, or in one, repeats nothing and leaves nothing out; two who work on
//! the same job wait for each other; and once [`stop`] has returned, nothing more is set going.
//!
//! What becomes a dead letter after a job was created, also what the job itself has set going and failed again, is not its
//! business: else a job on a broken destination would never end.

use crate::{
    Pool,
    deliveries::{self, Cursor, Filter},
    error::{Error, Result},
    listen,
    pool::{On, Session},
    retries::{self, Request, Retried},
    time::{from_sql, to_sql},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{Row, postgres::PgRow, types::Json};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// What to do. Kept as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub filter: Filter,
    pub rate_per_second: u32,
    /// Stop after this many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u64>,
}

/// Deliveries set going in a second unless somebody says otherwise, and at most.
pub const DEFAULT_RATE: u32 = 10;
pub const MOST_RATE: u32 = 1_000;

/// Jobs of a namespace that may run at the same time: each costs a query a second and holds the others up.
pub const RUNNING: u32 = 5;

/// A job that has ended is forgotten after this.
pub const KEPT: Duration = Duration::from_secs(30 * 86_400);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    /// By somebody; it can be resumed.
    Stopped,
    Done,
    /// The same step would fail again; it can be resumed once the reason is gone.
    Failed,
}

impl State {
    pub const ALL: [State; 4] = [State::Running, State::Stopped, State::Done, State::Failed];

    pub const fn as_str(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Stopped => "stopped",
            State::Done => "done",
            State::Failed => "failed",
        }
    }

    fn parse(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub id: Uuid,
    pub namespace: String,
    pub asked: Asked,
    /// Now; `asked` has the one that it began with.
    pub rate_per_second: u32,
    pub state: State,
    pub created_by: String,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<String>,
    /// What matched when it was created; `None`: more than 10,000, or not known without looking into bodies.
    pub total: Option<u64>,
    pub retried: u64,
    /// By the word for [`retries::Refusal`].
    pub refused: BTreeMap<String, u64>,
}

impl Job {
    /// Deliveries that it has dealt with.
    pub fn processed(&self) -> u64 {
        self.retried + self.refused.values().sum::<u64>()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("{limit} jobs run in this namespace already: wait until one has ended, or stop one")]
    TooMany { limit: u32 },
    #[error(
        "this idempotency key belongs to job {job}, which was asked for something else: use another key"
    )]
    IdempotencyMismatch { job: Uuid },
    #[error("{0}")]
    Invalid(&'static str),
    #[error(transparent)]
    Store(#[from] Error),
}

/// Either way there is such a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    New(Job),
    /// The same was asked for before, under the same key.
    Before(Job),
}

impl Created {
    pub fn job(&self) -> &Job {
        match self {
            Created::New(job) | Created::Before(job) => job,
        }
    }
}

/// Key of an advisory lock, beside those of `migrate`: creations one after the other, since each counts what runs.
const JOBS_LOCK: i64 = 0x686b_7374_0000_0003;

macro_rules! job_columns {
    () => {
        "id, namespace, asked, rate_per_second, state, created_by, created_at, ended_at, error, total, retried, refused, cursor_at, cursor_id"
    };
}

const BY_KEY: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE namespace = $1 AND kind = 'retry' AND idempotency_key = $2"
);

/// What the rate allows begins a second ago: the first step needn't wait.
const INSERT: &str = concat!(
    "INSERT INTO jobs (id, kind, namespace, asked, state, rate_per_second, created_by, idempotency_key, created_at, total,
                   cursor_at, cursor_id, used_until)
VALUES ($1, 'retry', $2, $3, 'running', $4, $5, $6, now(), $7, 'epoch', '00000000-0000-0000-0000-000000000000', now() - interval '1 s')
RETURNING ",
    job_columns!()
);

/// Creates a job that sets dead letters of a namespace going again. `id` is a fresh UUIDv7.
///
/// With an idempotency key that is known, the job of then is the answer if it was asked for the same. Keys are known as
/// long as their jobs are, [`KEPT`] after the end.
pub async fn create(
    pool: &Pool,
    id: Uuid,
    namespace: &str,
    asked: &Asked,
    created_by: &str,
    idempotency_key: Option<&str>,
) -> Result<Created, CreateError> {
    check_rate(asked.rate_per_second)?;
    if idempotency_key.is_some_and(|key| key.is_empty() || key.len() > 255 || key.contains('\0')) {
        return Err(CreateError::Invalid(
            "an idempotency key has 1 to 255 bytes",
        ));
    }
    if asked
        .filter
        .text
        .as_ref()
        .is_some_and(|text| text.is_empty() || text.contains('\0'))
    {
        return Err(CreateError::Invalid(
            "the text to look for is empty or has a NUL",
        ));
    }
    let mut session = pool.begin().await?;
    lock(pool, &mut session).await?;
    if let Some(key) = idempotency_key
        && let Some(row) = pool
            .query(BY_KEY)
            .bind(namespace.to_owned())
            .bind(key.to_owned())
            .optional(&mut session)
            .await?
    {
        let job = job(&row)?;
        if job.asked != *asked {
            return Err(CreateError::IdempotencyMismatch { job: job.id });
        }
        session.done().await?;
        return Ok(Created::Before(job));
    }
    room(pool, &mut session, namespace).await?;
    let total = deliveries::count(pool, &mut session, namespace, &asked.filter).await?;
    let total = total.map(|total| total.min(asked.most.unwrap_or(u64::MAX)));
    let row = pool
        .query(INSERT)
        .bind(id)
        .bind(namespace.to_owned())
        .bind(Json(asked.clone()))
        .bind(rate_to_sql(asked.rate_per_second))
        .bind(
            created_by
                .chars()
                .filter(|c| *c != '\0')
                .take(200)
                .collect::<String>(),
        )
        .bind(idempotency_key.map(str::to_owned))
        .bind(total.map(|total| i64::try_from(total).unwrap_or(i64::MAX)))
        .one(&mut session)
        .await?;
    let job = job(&row)?;
    session.done().await?;
    tell(pool).await;
    Ok(Created::New(job))
}

/// Tells the replicas, once it's committed.
async fn tell(pool: &Pool) {
    if let Err(error) = listen::notify_jobs(pool).await {
        tracing::debug!(%error, "a hint to the replicas was not sent; their timers will do");
    }
}

async fn lock(pool: &Pool, session: &mut Session) -> Result<()> {
    pool.query("SELECT pg_advisory_xact_lock($1)")
        .bind(JOBS_LOCK)
        .run(session)
        .await?;
    Ok(())
}

/// May another job of this namespace run?
async fn room(pool: &Pool, session: &mut Session, namespace: &str) -> Result<(), CreateError> {
    let row = pool
        .query("SELECT count(*) FROM jobs WHERE state = 'running' AND namespace = $1")
        .bind(namespace.to_owned())
        .one(session)
        .await?;
    match row.try_get::<i64, _>(0).map_err(Error::from)? < i64::from(RUNNING) {
        true => Ok(()),
        false => Err(CreateError::TooMany { limit: RUNNING }),
    }
}

fn check_rate(rate: u32) -> Result<(), CreateError> {
    match (1..=MOST_RATE).contains(&rate) {
        true => Ok(()),
        false => Err(CreateError::Invalid(
            "the rate is 1 to 1000 deliveries a second",
        )),
    }
}

fn rate_to_sql(rate: u32) -> i32 {
    i32::try_from(rate).unwrap_or(i32::MAX)
}

const GET: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE id = $1 AND ($2::text IS NULL OR namespace = $2)"
);

/// A job; `None`: there's none in this namespace (`None`: in any).
pub async fn get(pool: &Pool, id: Uuid, namespace: Option<&str>) -> Result<Option<Job>> {
    one(pool, GET, id, namespace).await
}

const STOP: &str = concat!(
    "UPDATE jobs SET state = 'stopped', ended_at = now() WHERE id = $1 AND ($2::text IS NULL OR namespace = $2) AND state = 'running'
RETURNING ",
    job_columns!()
);

/// Stops a job. Once this has returned it sets nothing more going; what it has set going goes on. A job that has ended is
/// left as it is. Returns it as it is now.
pub async fn stop(pool: &Pool, id: Uuid, namespace: Option<&str>) -> Result<Option<Job>> {
    match one(pool, STOP, id, namespace).await? {
        Some(job) => Ok(Some(job)),
        None => get(pool, id, namespace).await,
    }
}

async fn one(
    pool: &Pool,
    sql: &'static str,
    id: Uuid,
    namespace: Option<&str>,
) -> Result<Option<Job>> {
    let mut session = pool.session().await?;
    let row = pool
        .query(sql)
        .bind(id)
        .bind(namespace.map(str::to_owned))
        .optional(&mut session)
        .await?;
    session.done().await?;
    row.map(|row| job(&row)).transpose()
}

const RESUME: &str = concat!(
    "UPDATE jobs SET state = 'running', ended_at = NULL, error = NULL
WHERE id = $1 AND ($2::text IS NULL OR namespace = $2) AND state IN ('stopped', 'failed') RETURNING ",
    job_columns!()
);

/// Lets a job go on that was stopped or has failed, where it was. One that runs or is done is left as it is.
pub async fn resume(
    pool: &Pool,
    id: Uuid,
    namespace: Option<&str>,
) -> Result<Option<Job>, CreateError> {
    let mut session = pool.begin().await?;
    lock(pool, &mut session).await?;
    let bound = || pool.query(GET).bind(id).bind(namespace.map(str::to_owned));
    let Some(row) = bound().optional(&mut session).await? else {
        return Ok(None);
    };
    let before = job(&row)?;
    let job = match before.state {
        State::Running | State::Done => before,
        State::Stopped | State::Failed => {
            room(pool, &mut session, &before.namespace).await?;
            let row = pool
                .query(RESUME)
                .bind(id)
                .bind(namespace.map(str::to_owned))
                .one(&mut session)
                .await?;
            job(&row)?
        }
    };
    session.done().await?;
    tell(pool).await;
    Ok(Some(job))
}

const SET_RATE: &str = concat!(
    "UPDATE jobs SET rate_per_second = $3 WHERE id = $1 AND ($2::text IS NULL OR namespace = $2) RETURNING ",
    job_columns!()
);

/// Changes a job's rate, from its next step on.
pub async fn set_rate(
    pool: &Pool,
    id: Uuid,
    namespace: Option<&str>,
    rate: u32,
) -> Result<Option<Job>, CreateError> {
    check_rate(rate)?;
    let mut session = pool.session().await?;
    let row = pool
        .query(SET_RATE)
        .bind(id)
        .bind(namespace.map(str::to_owned))
        .bind(rate_to_sql(rate))
        .optional(&mut session)
        .await?;
    session.done().await?;
    Ok(row.map(|row| job(&row)).transpose()?)
}

pub(crate) const LIST: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs WHERE namespace = $1 AND id < $2 AND ($3::text IS NULL OR state = $3) ORDER BY id DESC LIMIT $4"
);

/// Jobs of one page at most.
pub const PAGE: u32 = 100;

/// The jobs of a namespace, newest first, those behind `before` if it's given, at most `limit` and [`PAGE`].
pub async fn list(
    pool: &Pool,
    namespace: &str,
    state: Option<State>,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Job>> {
    let mut session = pool.session().await?;
    let rows = pool
        .query(LIST)
        .bind(namespace.to_owned())
        .bind(before.unwrap_or(Uuid::max()))
        .bind(state.map(State::as_str))
        .bind(i64::from(limit.clamp(1, PAGE)))
        .all(&mut session)
        .await?;
    session.done().await?;
    rows.iter().map(job).collect()
}

/// Jobs that run, of all namespaces.
pub async fn running(pool: &Pool) -> Result<u64> {
    let mut session = pool.session().await?;
    let row = pool
        .query("SELECT count(*) FROM jobs WHERE state = 'running'")
        .one(&mut session)
        .await?;
    session.done().await?;
    Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
}

/// Forgets jobs that ended [`KEPT`] ago, a bounded number of them. Returns how many.
pub async fn forget(pool: &Pool) -> Result<u64> {
    let mut session = pool.session().await?;
    let done = pool
        .query(
            "DELETE FROM jobs WHERE id = ANY (ARRAY(
                 SELECT id FROM jobs WHERE ended_at < now() - make_interval(secs => $1) ORDER BY ended_at LIMIT 1000))",
        )
        .bind(KEPT.as_secs_f64())
        .run(&mut session)
        .await?;
    session.done().await?;
    Ok(done.rows_affected())
}

/// Deliveries that one step sets going: some 20 ms of Postgres' time.
const STEP: u32 = 250;

/// The running job whose rate has allowed something for the longest time. Nobody waits here for one that is worked on.
/// A rate allows what it has allowed in the last second, so a job that nobody worked on does not make up for it at once.
pub(crate) const DUE: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", greatest(1, floor(least(1, extract(epoch FROM clock_timestamp() - used_until)) * rate_per_second))::bigint AS allowed
FROM jobs WHERE state = 'running' AND used_until <= clock_timestamp() - make_interval(secs => 1.0 / rate_per_second)
ORDER BY used_until LIMIT 1 FOR UPDATE SKIP LOCKED"
);

/// `used_until` never lies more than a second back, so bursts are a second's worth.
const ADVANCE: &str = "\
UPDATE jobs SET cursor_at = $2, cursor_id = $3, retried = retried + $4, refused = $5,
    used_until = greatest(used_until, clock_timestamp() - interval '1 s') + make_interval(secs => $6::double precision / rate_per_second),
    state = CASE WHEN $7 THEN 'done' ELSE state END, ended_at = CASE WHEN $7 THEN now() END
WHERE id = $1";

/// What one step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub job: Uuid,
    pub retried: Retried,
    /// What the job is after it.
    pub state: State,
}

/// Makes one step of the job that is due first; `None`: none is. A step that can't succeed ends its job as failed.
pub async fn step(pool: &Pool) -> Result<Option<Step>> {
    let mut session = pool.begin().await?;
    let Some(row) = pool.query(DUE).optional(&mut session).await? else {
        session.done().await?;
        return Ok(None);
    };
    let id: Uuid = row.try_get("id")?;
    let stepped = match job(&row) {
        Ok(job) => advance(pool, &mut session, job, &row).await,
        Err(error) => Err(error),
    };
    match stepped {
        Ok(step) => {
            session.done().await?;
            retries::tell(pool, &step.retried).await;
            Ok(Some(step))
        }
        Err(error) if error.is_transient() => Err(error),
        Err(error) => {
            drop(session);
            fail(pool, id, &error).await?;
            Ok(Some(Step {
                job: id,
                retried: Retried::default(),
                state: State::Failed,
            }))
        }
    }
}

async fn advance(pool: &Pool, session: &mut Session, job: Job, row: &PgRow) -> Result<Step> {
    let after = Cursor {
        finished_at: from_sql(row.try_get("cursor_at")?),
        delivery_id: row.try_get("cursor_id")?,
    };
    let allowed = row.try_get::<i64, _>("allowed")?.unsigned_abs();
    let left = job
        .asked
        .most
        .map_or(u64::MAX, |most| most.saturating_sub(job.processed()));
    let limit = allowed.min(left).min(u64::from(STEP)) as u32;
    let until = job.asked.filter.until.unwrap_or(job.created_at);
    let filter = Filter {
        until: Some(until.min(job.created_at)),
        ..job.asked.filter.clone()
    };
    let stretch = deliveries::walk(
        pool,
        session,
        &job.namespace,
        &filter,
        after,
        limit.max(1),
        job.id,
    )
    .await?;
    // The last of those that are allowed at all may be done: then there are none to set going.
    let matching = &stretch.matching[..stretch.matching.len().min(limit as usize)];
    let ids: Vec<Uuid> = matching.iter().map(|(id, _)| *id).collect();
    let request = Request {
        namespace: Some(&job.namespace),
        delivered_too: false,
        by: &job.created_by,
        job: Some(job.id),
    };
    let retried = retries::set_going(pool, session, &ids, request).await?;
    let mut refused = job.refused.clone();
    for one in &retried.refused {
        *refused.entry(one.why.as_str().to_owned()).or_default() += 1;
    }
    let done = stretch.next.is_none() || left <= ids.len() as u64;
    let next = stretch.next.unwrap_or(after);
    pool.query(ADVANCE)
        .bind(job.id)
        .bind(to_sql(next.finished_at))
        .bind(next.delivery_id)
        .bind(i64::try_from(retried.going.len()).unwrap_or(i64::MAX))
        .bind(Json(refused))
        // A stretch without any that match has its price as well, or nothing would bound the looking.
        .bind(ids.len().max(1) as f64)
        .bind(done)
        .run(session)
        .await?;
    Ok(Step {
        job: job.id,
        retried,
        state: if done { State::Done } else { State::Running },
    })
}

async fn fail(pool: &Pool, id: Uuid, error: &Error) -> Result<()> {
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        why = format!("{why}: {source}");
        cause = source.source();
    }
    let why: String = why.chars().filter(|c| *c != '\0').take(500).collect();
    let mut session = pool.session().await?;
    pool.query("UPDATE jobs SET state = 'failed', ended_at = now(), error = $2 WHERE id = $1 AND state = 'running'")
        .bind(id)
        .bind(why)
        .run(&mut session)
        .await?;
    session.done().await
}

fn job(row: &PgRow) -> Result<Job> {
    let Json(asked): Json<Asked> = row.try_get("asked")?;
    let Json(refused): Json<BTreeMap<String, u64>> = row.try_get("refused")?;
    let state: &str = row.try_get("state")?;
    let ended: Option<chrono::DateTime<chrono::Utc>> = row.try_get("ended_at")?;
    Ok(Job {
        id: row.try_get("id")?,
        namespace: row.try_get("namespace")?,
        asked,
        rate_per_second: row.try_get::<i32, _>("rate_per_second")?.unsigned_abs(),
        state: State::parse(state)
            .ok_or_else(|| Error::Data(format!("a job's state is {state:?}").into()))?,
        created_by: row.try_get("created_by")?,
        created_at: from_sql(row.try_get("created_at")?),
        ended_at: ended.map(from_sql),
        error: row.try_get("error")?,
        total: row
            .try_get::<Option<i64>, _>("total")?
            .map(i64::unsigned_abs),
        retried: row.try_get::<i64, _>("retried")?.unsigned_abs(),
        refused,
    })
}
