//! A fresh database per test, in one private server per user of the machine.
//!
//! The first test that asks starts the server (from the installed binaries, `private_server` tells which) and lays out a
//! template; each test copies it, which takes some 30 ms. All test processes share the server through a folder in the
//! temporary directory; a file lock keeps two of them from starting it at once, and being a lock of the kernel's it ends
//! with its process, whatever killed that. The server stops by itself when nobody has connected for 15 minutes. Nothing
//! in it is worth keeping: it runs without fsync, and a folder that doesn't start is made anew.
//!
//! Tests that kill Postgres, and benchmarks, start a [`Server`] of their own instead.

use crate::{Options, Store, migrate, partitions, private_server as server};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    collections::hash_map::DefaultHasher,
    fs::{self, File},
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

mod network;
pub use network::Network;

/// A private server of one test's own, with fsync on by default: see [`crate::PrivateServer`].
pub use crate::private_server::{Options as ServerOptions, PrivateServer as Server};

/// Shards of a test's database.
pub const SHARDS: u16 = 8;

/// What a test run left behind is swept after this.
const STALE: Duration = Duration::from_secs(3600);

/// A migrated database of one test's own; dropped with this value.
#[derive(Debug)]
pub struct Database {
    pub store: Store,
    url: String,
    name: String,
    port: u16,
}

impl Database {
    /// With [`SHARDS`] shards and the partitions around today. Panics with what to do when there's no Postgres to start.
    pub async fn create() -> Database {
        let (port, _lock) = ensure_server().await;
        let template = ensure_template(port).await;
        drop(_lock);
        Database::copy(port, &template).await
    }

    /// Without tables: never migrated.
    pub async fn empty() -> Database {
        let (port, lock) = ensure_server().await;
        drop(lock);
        Database::copy(port, "template1").await
    }

    async fn copy(port: u16, template: &str) -> Database {
        let name = format!("t_{}_{}", unix_seconds(), server::random_name());
        let mut admin = connect(port, "postgres")
            .await
            .expect("the test server answered a moment ago");
        run(
            &mut admin,
            format!("CREATE DATABASE {name} TEMPLATE {template}"),
        )
        .await
        .expect("a database can be copied");
        let _ = admin.close().await;
        let url = format!("postgres://hookstream@127.0.0.1:{port}/{name}");
        let store = Store::connect(Options::new(&url))
            .await
            .expect("the database was just made");
        Database {
            store,
            url,
            name,
            port,
        }
    }

    /// `postgres://…`, for processes that a test starts.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Options for further pools on the same database.
    pub fn options(&self) -> Options {
        Options::new(&self.url)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (port, name) = (self.port, std::mem::take(&mut self.name));
        // The test's own runtime is in use or gone.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            runtime.block_on(async {
                let mut admin = connect(port, "postgres").await.ok()?;
                run(
                    &mut admin,
                    format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
                )
                .await
                .ok()
            })
        });
        // What could not be dropped is swept by a later run.
        let _ = dropped.join();
    }
}

/// Makes sure that the server runs. The lock goes on keeping others from starting or laying out.
async fn ensure_server() -> (u16, File) {
    let account = server::Account::needed();
    let folder = folder();
    server::make_folder(&folder, account.as_ref()).unwrap_or_else(|error| panic!("{error}"));
    let lock = File::create(folder.join("lock")).expect("the folder is ours");
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock))
        .await
        .expect("locking does not panic");
    let lock = lock.expect("the file system has locks");
    let known: Option<u16> = fs::read_to_string(folder.join("port"))
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if let Some(port) = known
        && connect(port, "postgres").await.is_ok()
    {
        return (port, lock);
    }
    let port = tokio::task::spawn_blocking(move || start(&folder, account.as_ref()))
        .await
        .expect("starting does not panic");
    let port = port.unwrap_or_else(|error| panic!("tests need a Postgres: {error}"));
    sweep(port).await;
    (port, lock)
}

fn folder() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    std::env::temp_dir().join(format!("hookstream-test-postgres-{uid}"))
}

fn start(
    folder: &Path,
    account: Option<&server::Account>,
) -> Result<u16, server::PrivateServerError> {
    let data = folder.join("data");
    let binaries = match server::find_binaries(&data) {
        Ok(binaries) => binaries,
        Err(server::PrivateServerError::OtherVersion { .. }) => {
            fs::remove_dir_all(&data).map_err(|source| server::folder_error(folder, source))?;
            server::find_binaries(&data)?
        }
        Err(error) => return Err(error),
    };
    server::stop_orphan(&binaries, &data, account);
    let fresh = !data.join("PG_VERSION").exists();
    if fresh {
        server::initialise(&binaries, folder, account, "trust")?;
    }
    match launch(&binaries, folder, account) {
        Err(_) if !fresh => {
            // Without fsync a crash of the machine may have left anything.
            fs::remove_dir_all(&data).map_err(|source| server::folder_error(folder, source))?;
            server::initialise(&binaries, folder, account, "trust")?;
            launch(&binaries, folder, account)
        }
        result => result,
    }
}

fn launch(
    binaries: &Path,
    folder: &Path,
    account: Option<&server::Account>,
) -> Result<u16, server::PrivateServerError> {
    let failed = |source| server::folder_error(folder, source);
    let port = server::free_port().map_err(failed)?;
    let more = [
        ("max_connections", "400"),
        ("shared_buffers", "256MB"),
        ("max_locks_per_transaction", "128"),
    ];
    let more: Vec<_> = more
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    // Quoted for the shell that pg_ctl starts.
    let settings: Vec<String> = server::settings(port, false, &more)
        .iter()
        .map(|setting| format!("-c '{setting}'"))
        .collect();
    let log = folder.join("data/server.log");
    let mut command = server::command_as(&binaries.join("pg_ctl"), account);
    command
        .args(["start", "-w", "-t", "60", "-D"])
        .arg(folder.join("data"))
        .arg("-l")
        .arg(&log)
        .args(["-o", &settings.join(" ")]);
    server::run(command.current_dir("/"), "pg_ctl").map_err(|_| {
        server::PrivateServerError::NotStarted {
            log: server::log_tail(&log),
        }
    })?;
    fs::write(folder.join("port"), port.to_string()).map_err(failed)?;
    stop_when_unused(binaries, folder, account, port);
    Ok(port)
}

/// Looks every minute; after 15 minutes without a connection it stops the server and ends. Ends too when the server did.
const STOP_WHEN_UNUSED: &str = r#"
binaries=$1; data=$2; port=$3; unused=0
while sleep 60; do
    connections=$("$binaries/psql" -h 127.0.0.1 -p "$port" -U hookstream -d postgres -Atc \
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()") || exit 0
    if [ "$connections" = 0 ]; then unused=$((unused + 1)); else unused=0; fi
    if [ $unused -ge 15 ]; then exec "$binaries/pg_ctl" stop -m fast -D "$data"; fi
done
"#;

fn stop_when_unused(binaries: &Path, folder: &Path, account: Option<&server::Account>, port: u16) {
    use std::os::unix::process::CommandExt;
    let mut command: Command = server::command_as(Path::new("sh"), account);
    command
        .arg("-c")
        .arg(STOP_WHEN_UNUSED)
        .arg("hookstream-test-postgres")
        .arg(binaries)
        .arg(folder.join("data"))
        .arg(port.to_string());
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    // Without it the server merely runs on.
    let _ = command.spawn();
}

/// Drops what earlier runs left: databases older than an hour, and templates of other days.
async fn sweep(port: u16) {
    let Ok(mut admin) = connect(port, "postgres").await else {
        return;
    };
    let names: Vec<String> = sqlx::query_scalar("SELECT datname::text FROM pg_database")
        .fetch_all(&mut admin)
        .await
        .unwrap_or_default();
    let oldest = unix_seconds().saturating_sub(STALE.as_secs());
    let today = template_name();
    for name in names {
        let made: Option<u64> = name
            .strip_prefix("t_")
            .and_then(|rest| rest.split('_').next()?.parse().ok());
        let stale_template =
            name.starts_with("template_") && name[..name.len().min(17)] != today[..17];
        if made.is_some_and(|made| made < oldest) || stale_template {
            let _ = run(
                &mut admin,
                format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            )
            .await;
        }
    }
}

/// `template_20261121_<hash>`: the partitions in it are of its day, the tables of its migrations.
fn template_name() -> String {
    let mut hasher = DefaultHasher::new();
    (migrate::sources(), SHARDS).hash(&mut hasher);
    let today = partitions::day_of(
        jiff::Timestamp::from_second(unix_seconds() as i64).expect("now is a Timestamp"),
    );
    format!(
        "template_{:04}{:02}{:02}_{:016x}",
        today.year(),
        today.month(),
        today.day(),
        hasher.finish()
    )
}

/// Called with the lock held.
async fn ensure_template(port: u16) -> String {
    let name = template_name();
    let mut admin = connect(port, "postgres")
        .await
        .expect("the test server answered a moment ago");
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&name)
            .fetch_one(&mut admin)
            .await
            .expect("the catalogue can be read");
    if !exists {
        // Under another name until it is whole.
        let draft = format!("t_{}_{}", unix_seconds(), server::random_name());
        run(&mut admin, format!("CREATE DATABASE {draft}"))
            .await
            .expect("a database can be made");
        let store = Store::connect(Options::new(format!(
            "postgres://hookstream@127.0.0.1:{port}/{draft}"
        )))
        .await;
        let store = store.expect("the database was just made");
        crate::migrate(&store.pool, SHARDS)
            .await
            .unwrap_or_else(|error| panic!("the migrations do not apply: {error:?}"));
        store.pool.close().await;
        run(
            &mut admin,
            format!("ALTER DATABASE {draft} RENAME TO {name}"),
        )
        .await
        .expect("nobody else uses the draft");
    }
    let _ = admin.close().await;
    name
}

/// The statements that run at every event, for tests of their plans: a name and the text.
pub const HOT_STATEMENTS: [(&str, &str); 26] = [
    ("record", crate::events::recording::RECORD),
    ("record_keyed", crate::events::recording::RECORD_KEYED),
    ("record_firsts", crate::events::recording::RECORD_FIRSTS),
    ("record_new", crate::events::recording::RECORD_NEW),
    ("get_many", crate::events::GET_MANY),
    ("write", crate::outcomes::WRITE),
    ("write_new", crate::outcomes::WRITE_NEW),
    ("destinations", crate::queue::DESTINATIONS),
    ("head", crate::queue::HEAD),
    ("head_but", crate::queue::HEAD_BUT),
    ("next_due", crate::queue::NEXT_DUE),
    ("count", crate::queue::COUNT),
    ("acquire", crate::lease::ACQUIRE),
    ("renew", crate::lease::RENEW),
    ("expire", crate::dedup::EXPIRE),
    ("expire_answers", crate::idempotency::EXPIRE),
    ("find_due", crate::scheduled::FIND_DUE),
    ("dead_letters", crate::deliveries::LIST),
    (
        "dead_letters_of_destination",
        crate::deliveries::LIST_OF_DESTINATION,
    ),
    ("walk", crate::deliveries::WALK),
    (
        "walk_of_destination",
        crate::deliveries::WALK_OF_DESTINATION,
    ),
    ("get", crate::deliveries::GET),
    ("of_delivery", crate::attempts::OF_DELIVERY),
    ("of_event", crate::retries::OF_EVENT),
    ("set_going", crate::retries::SET_GOING),
    ("jobs", crate::jobs::LIST),
];

async fn connect(port: u16, database: &str) -> Result<PgConnection, sqlx::Error> {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username("hookstream")
        .database(database);
    options
        .ssl_mode(sqlx::postgres::PgSslMode::Disable)
        .connect()
        .await
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map(|_| ())
}

#[expect(
    clippy::disallowed_methods,
    reason = "names of test databases hold their age; no product code asks"
)]
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
