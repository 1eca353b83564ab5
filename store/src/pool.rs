//! The connections: one pool for everything but LISTEN, which needs a connection of its own.
//!
//! Two ways to reach Postgres:
//! - directly: statements are prepared once per connection, the planner's settings are given when connecting;
//! - through a transaction pooler (PgBouncer), when the URL has `?pooler=transaction`: nothing may be kept on a
//!   connection between transactions. sqlx sends Parse and Bind in two round trips, between which a pooler may change the
//!   server connection, so each call runs in a transaction there, with unnamed statements and `SET LOCAL`. LISTEN then
//!   needs [`Options::listen_url`], a direct URL.
//!
//! Every statement here is by key. The planner is told so ([`PLANNER`]), since a plan made while the queue was empty (a
//! sequential scan costs nothing then) stays in the connection's cache when the queue holds a million rows.

use crate::error::{Error, Result};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{PgPool, Postgres, Transaction, query::Query};
use std::{fmt, str::FromStr, time::Duration};

/// Settings of each of our sessions. No scan of a whole table, no join that reads one; no compiling of plans to machine
/// code, which a disabled scan's cost would trigger.
const PLANNER: [(&str, &str); 4] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// The same for a transaction behind a pooler, in the round trip that begins it.
const BEGIN_POOLED: &str = "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; \
                            SET LOCAL enable_mergejoin = off; SET LOCAL jit = off";

const BEGIN_POOLED_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_seqscan = off; \
                                     SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off";

/// The server gives up a statement of ours after this; callers see [`Error::Unavailable`].
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

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
        let inner = PgPoolOptions::new()
            .max_connections(options.max_connections.max(1))
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(Duration::from_secs(300))
            .max_lifetime(Duration::from_secs(3600))
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > TRUSTED_IDLE {
                        sqlx::Connection::ping(connection).await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(connect);
        Ok(Store {
            pool: Pool { inner, pooled },
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
        Ok(if self.pooled {
            Session::Transaction(self.inner.begin_with(BEGIN_POOLED).await?)
        } else {
            Session::Connection(self.inner.acquire().await?)
        })
    }

    /// A transaction for several statements.
    pub(crate) async fn begin(&self) -> Result<Session> {
        Ok(Session::Transaction(if self.pooled {
            self.inner.begin_with(BEGIN_POOLED).await?
        } else {
            self.inner.begin().await?
        }))
    }

    /// A read-only transaction that sees one moment throughout.
    pub(crate) async fn begin_snapshot(&self) -> Result<Session> {
        let begin = if self.pooled {
            BEGIN_POOLED_SNAPSHOT
        } else {
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        };
        Ok(Session::Transaction(self.inner.begin_with(begin).await?))
    }

    /// A statement that is prepared and kept, unless a pooler stands between.
    pub(crate) fn query(&self, sql: &'static str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(sql).persistent(!self.pooled)
    }
}

pub(crate) enum Session {
    Connection(sqlx::pool::PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

impl Session {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        match self {
            Session::Connection(connection) => connection,
            Session::Transaction(transaction) => transaction,
        }
    }

    /// Commits. A session that is dropped instead rolls back.
    pub(crate) async fn done(self) -> Result<()> {
        if let Session::Transaction(transaction) = self {
            transaction.commit().await?;
        }
        Ok(())
    }
}
