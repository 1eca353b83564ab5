//! The connections: one pool for everything but LISTEN, which needs a connection of its own.
//!
//! Two ways to reach Postgres:
//! - directly: statements are prepared once per connection, the planner's settings are given when connecting;
//! - through a transaction pooler (PgBouncer), when the URL has `?pooler=transaction`: nothing may be kept on a
//!   connection between transactions. sqlx sends Parse and Bind in two round trips, between which a pooler may change the
//!   server connection, so each call runs in a transaction there, with unnamed statements and `SET LOCAL`. LISTEN then
//!   needs [`Options::listen_url`], a direct URL.
//!
//! A server that falls silent without a word (a failover, a partition) costs each call a bounded time: the server's own
//! time-outs don't reach us then, so [`Session`] has one for every wait, and a connection that doesn't answer leaves the pool.
//!
//! Every statement here is by key. The planner is told so ([`PLANNER`]), since a plan made while the queue was empty (a
//! sequential scan costs nothing then) stays in the connection's cache when the queue holds a million rows.

use crate::error::{Error, Result};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow};
use sqlx::{AssertSqlSafe, PgPool, Postgres, pool::PoolConnection, query::Query};
use std::{borrow::Cow, fmt, future::Future, str::FromStr, time::Duration};
use tokio::time::{Instant, timeout};

/// Settings of each of our sessions. No scan of a whole table, no join that reads one; no compiling of plans to machine
/// code, which a disabled scan's cost would trigger.
const PLANNER: [(&str, &str); 4] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// The same for a transaction behind a pooler, in the round trip that begins it, and the time-outs that a direct
/// connection gets when it's made: [`STATEMENT_TIMEOUT`].
macro_rules! pooled {
    ($begin:literal $($more:literal)?) => {
        concat!(
            $begin,
            $($more,)?
            "; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; \
             SET LOCAL jit = off; SET LOCAL statement_timeout = '30s'; \
             SET LOCAL idle_in_transaction_session_timeout = '30s'"
        )
    };
}

const BEGIN_POOLED_AS_IT_IS: &str = pooled!("BEGIN");
const BEGIN_POOLED: &str = pooled!("BEGIN" "; SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'");

const BEGIN_POOLED_SNAPSHOT: &str = pooled!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");

/// A sender forgets its event when we answer, so a commit must be on disk: a role or database that is set to answer before
/// that is overruled, unless the URL itself asks for it. The other values (`local`, `remote_apply`) all wait for the disk.
const COMMIT_TO_DISK: &str = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// The server gives up a statement of ours after this; callers see [`Error::Unavailable`].
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// We give up a statement after this: the server, if it can be heard at all, has said so before.
const ANSWER: Duration = Duration::from_secs(35);

/// How long a connection may take to say that nothing is under way on it, before it goes back into the pool or, after it
/// lay idle, comes out of it. Past it the connection is closed, and its place in the pool is free.
const AT_REST: Duration = Duration::from_secs(5);
const STILL_THERE: Duration = Duration::from_secs(1);

/// A connection that lay idle longer is tried before it is used: after a restart of Postgres all of them are dead.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Options {
    /// `postgres://user:password@host/database?sslmode=verify-full&sslrootcert=…`, optionally with `pooler=transaction`.
    pub url: String,
    /// A direct URL for the one connection that listens; `None`: the same as `url`.
    pub listen_url: Option<String>,
    /// Most connections of the pool, at least 1; the listening one is not counted.
    pub max_connections: u32,
    /// As `pg_stat_activity` shows it.
    pub application_name: String,
    /// How long a call waits for a free connection before it is [`Error::Unavailable`].
    pub acquire_timeout: Duration,
}

impl Options {
    /// The defaults: 8 connections, 5 s.
    pub fn new(url: impl Into<String>) -> Self {
        Options {
            url: url.into(),
            listen_url: None,
            max_connections: 8,
            application_name: "hookstream".to_owned(),
            acquire_timeout: Duration::from_secs(5),
        }
    }
}

/// Without the URLs: they hold passwords.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_connections", &self.max_connections)
            .field("application_name", &self.application_name)
            .field("acquire_timeout", &self.acquire_timeout)
            .finish_non_exhaustive()
    }
}

/// The connections to one database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub pool: Pool,
    listen: PgConnectOptions,
}

/// The driver's options print the password.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Connects once, so that a wrong URL or an unreachable server is told at once.
    pub async fn connect(options: Options) -> Result<Store> {
        let store = Store::connect_lazy(options)?;
        store.pool.session().await?.done().await?;
        Ok(store)
    }

    /// Checks the URL only; connections are made when they are needed.
    pub fn connect_lazy(options: Options) -> Result<Store> {
        let (connect, pooled) = parse(&options.url, &options.application_name)?;
        let listen = match &options.listen_url {
            Some(url) => parse(url, &format!("{} listener", options.application_name))?.0,
            None => connect
                .clone()
                .application_name(&format!("{} listener", options.application_name)),
        };
        let to_disk = !connect
            .get_options()
            .is_some_and(|options| options.contains("synchronous_commit"));
        let inner = PgPoolOptions::new()
            .max_connections(options.max_connections.max(1))
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(Duration::from_secs(300))
            .max_lifetime(Duration::from_secs(3600))
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUSTED_IDLE {
                        timeout(STILL_THERE, sqlx::Connection::ping(connection))
                            .await
                            .unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if to_disk && !pooled {
                        sqlx::raw_sql(COMMIT_TO_DISK).execute(connection).await?;
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(connect);
        Ok(Store {
            pool: Pool {
                inner,
                pooled,
                to_disk,
            },
            listen,
        })
    }

    pub(crate) fn listen_options(&self) -> &PgConnectOptions {
        &self.listen
    }
}

fn parse(url: &str, application_name: &str) -> Result<(PgConnectOptions, bool)> {
    let (url, pooled) = take_pooler(url)?;
    // The driver's message may quote the URL, and the URL holds the password. It takes any scheme.
    let unusable =
        || Error::Url("expected postgres://user:password@host:port/database?sslmode=…".to_owned());
    if !["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return Err(unusable());
    }
    let options = PgConnectOptions::from_str(&url)
        .map_err(|_| unusable())?
        .application_name(application_name);
    let options = if pooled {
        options.statement_cache_capacity(0).extra_float_digits(None)
    } else {
        options.options(PLANNER).options([
            (
                "statement_timeout",
                format!("{}", STATEMENT_TIMEOUT.as_millis()),
            ),
            (
                "idle_in_transaction_session_timeout",
                format!("{}", STATEMENT_TIMEOUT.as_millis()),
            ),
        ])
    };
    Ok((options, pooled))
}

/// Cuts our own `pooler=…` out of the URL, which the driver would not understand.
fn take_pooler(url: &str) -> Result<(String, bool)> {
    let Some((base, query)) = url.split_once('?') else {
        return Ok((url.to_owned(), false));
    };
    let mut pooled = false;
    let mut rest = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("pooler", "transaction")) => pooled = true,
            Some(("pooler", "none" | "session")) => {}
            Some(("pooler", _)) => {
                return Err(Error::Url(
                    "`pooler` is `transaction`, `session` or `none`".to_owned(),
                ));
            }
            _ => rest.push(pair),
        }
    }
    let url = if rest.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", rest.join("&"))
    };
    Ok((url, pooled))
}

/// The pool that every call of this crate takes. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    inner: PgPool,
    pooled: bool,
    /// Commits wait for the disk whatever the role's default.
    to_disk: bool,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.size())
            .field("idle", &self.idle())
            .field("pooled", &self.pooled)
            .finish()
    }
}

impl Pool {
    /// The driver's pool, for tests that look at tables directly.
    pub fn raw(&self) -> &PgPool {
        &self.inner
    }

    /// Connections open now, idle ones included.
    pub fn size(&self) -> u32 {
        self.inner.size()
    }

    /// Connections open now that nobody uses.
    pub fn idle(&self) -> usize {
        self.inner.num_idle()
    }

    /// Waits until the connections in use are given back, then closes all of them.
    pub async fn close(&self) {
        self.inner.close().await;
    }

    /// A connection for one statement. Behind a pooler it is a transaction: call [`Session::done`] after it.
    pub(crate) async fn session(&self) -> Result<Session> {
        self.session_within(ANSWER).await
    }

    /// The same with another bound for each wait, that for a connection included.
    pub(crate) async fn session_within(&self, patience: Duration) -> Result<Session> {
        if self.pooled {
            self.begin_with(self.begin_pooled(), patience).await
        } else {
            self.take(patience).await
        }
    }

    /// A transaction for several statements.
    pub(crate) async fn begin(&self) -> Result<Session> {
        let begin = if self.pooled {
            self.begin_pooled()
        } else {
            "BEGIN"
        };
        self.begin_with(begin, ANSWER).await
    }

    /// A read-only transaction that sees one moment throughout.
    pub(crate) async fn begin_snapshot(&self) -> Result<Session> {
        let begin = if self.pooled {
            BEGIN_POOLED_SNAPSHOT
        } else {
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        };
        self.begin_with(begin, ANSWER).await
    }

    fn begin_pooled(&self) -> &'static str {
        if self.to_disk {
            BEGIN_POOLED
        } else {
            BEGIN_POOLED_AS_IT_IS
        }
    }

    async fn begin_with(&self, begin: &'static str, patience: Duration) -> Result<Session> {
        let mut session = self.take(patience).await?;
        // Before it is sent: whatever becomes of it, this connection must not be used by others until it has ended.
        session.in_transaction = true;
        session.raw(begin).await?;
        Ok(session)
    }

    async fn take(&self, patience: Duration) -> Result<Session> {
        Ok(Session {
            connection: within(patience, self.inner.acquire()).await?,
            in_transaction: false,
            patience,
        })
    }

    /// A statement that is prepared and kept, unless a pooler stands between.
    pub(crate) fn query(&self, sql: &'static str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(sql).persistent(!self.pooled)
    }
}

/// A connection while it is ours. Every wait on it ends: [`Error::Unavailable`] when the server doesn't answer.
///
/// Dropped at any moment, it goes back to the pool if the server then says that nothing is under way on it, and is closed
/// otherwise; a transaction that is not [`Session::done`] is always closed, by which the server rolls it back.
pub(crate) struct Session {
    connection: PoolConnection<Postgres>,
    in_transaction: bool,
    /// For each statement.
    patience: Duration,
}

impl Session {
    /// Gives each statement from here on this long, for those that may wait for others' work.
    pub(crate) fn wait_for(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Runs statements without parameters. Never with anything in them that isn't ours.
    pub(crate) async fn raw(&mut self, sql: impl Into<Cow<'static, str>>) -> Result<()> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.into()));
        within(self.patience, sql.execute(&mut *self.connection))
            .await
            .map(drop)
    }

    /// Commits.
    pub(crate) async fn done(mut self) -> Result<()> {
        if self.in_transaction {
            self.raw("COMMIT").await?;
            self.in_transaction = false;
        }
        Ok(())
    }
}

/// How long [`Reused`] keeps a connection; the pool's own rules for its age and its health hold again afterwards.
const REUSED_FOR: Duration = Duration::from_secs(1);

/// A session for one statement after another, which stays as long as they follow each other: giving it back costs a round
/// trip, and the next one's server process hasn't the tables at hand.
pub(crate) struct Reused {
    pub(crate) pool: Pool,
    /// And since when.
    session: Option<(Session, Instant)>,
}

impl Reused {
    pub(crate) fn new(pool: Pool) -> Reused {
        Reused {
            pool,
            session: None,
        }
    }

    /// If the caller is given up before it gives the session back, the session goes with it.
    pub(crate) async fn take(&mut self) -> Result<(Session, Instant)> {
        if let Some((session, since)) = self.session.take() {
            if since.elapsed() < REUSED_FOR {
                return Ok((session, since));
            }
            // Before another one is waited for: the pool may have no more than this.
            drop(session);
        }
        Ok((self.pool.session().await?, Instant::now()))
    }

    /// Gives the session back to the pool; for whoever is going to wait for work.
    pub(crate) fn rest(&mut self) {
        self.session = None;
    }

    /// For the next statement; behind a pooler a session is a transaction, which ends here.
    pub(crate) async fn give(&mut self, session: Session, since: Instant) -> Result<()> {
        match self.pool.pooled {
            true => session.done().await?,
            false => self.session = Some((session, since)),
        }
        Ok(())
    }
}

/// Another one, with a session of its own.
impl Clone for Reused {
    fn clone(&self) -> Reused {
        Reused::new(self.pool.clone())
    }
}

impl fmt::Debug for Reused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reused")
            .field("pool", &self.pool)
            .field("session", &self.session.is_some())
            .finish()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.in_transaction {
            // The driver does so in the background and gives it 5 s.
            self.connection.close_on_drop();
            return;
        }
        // What the driver would do itself, but for ever when the server is silent: the place in the pool would be lost.
        let returned = self.connection.return_to_pool();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(timeout(AT_REST, returned)));
        }
    }
}

/// Runs a statement on a session.
pub(crate) trait On: Sized {
    /// For what it does.
    fn run(self, session: &mut Session) -> impl Future<Output = Result<PgQueryResult>> + Send;
    fn all(self, session: &mut Session) -> impl Future<Output = Result<Vec<PgRow>>> + Send;
    fn one(self, session: &mut Session) -> impl Future<Output = Result<PgRow>> + Send;
    fn optional(self, session: &mut Session) -> impl Future<Output = Result<Option<PgRow>>> + Send;
}

impl On for Query<'_, Postgres, PgArguments> {
    async fn run(self, session: &mut Session) -> Result<PgQueryResult> {
        within(session.patience, self.execute(&mut *session.connection)).await
    }

    async fn all(self, session: &mut Session) -> Result<Vec<PgRow>> {
        within(session.patience, self.fetch_all(&mut *session.connection)).await
    }

    async fn one(self, session: &mut Session) -> Result<PgRow> {
        within(session.patience, self.fetch_one(&mut *session.connection)).await
    }

    async fn optional(self, session: &mut Session) -> Result<Option<PgRow>> {
        within(
            session.patience,
            self.fetch_optional(&mut *session.connection),
        )
        .await
    }
}

/// A wait for the server that ends.
pub(crate) async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T> {
    match timeout(patience, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Unavailable("Postgres does not answer".into())),
    }
}
