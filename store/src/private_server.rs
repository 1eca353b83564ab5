//! A Postgres of our own, from the binaries that are installed: for `hookstream dev`, tests and benchmarks.
//!
//! - Works as root, which Postgres refuses: the server then runs as `postgres`, or `nobody`.
//! - Leaves no orphan: the server is the child of a small shell that reads our end of a pipe. When we end in whatever
//!   way, `kill -9` included, the pipe closes and the shell stops the server. It runs in a process group of its own, so
//!   a ctrl-C that stops us doesn't stop it before us.
//! - Listens on loopback only, with a random password.
//! - A data folder is kept and used again; without one it is temporary and removed at the end, also by that shell.

use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions};
use std::{
    fmt,
    fs::{self, File},
    io::{self, Write},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::time::Instant;

/// The database that is made with the server.
pub const DATABASE: &str = "hookstream";
const USER: &str = "hookstream";

/// Crash recovery of a large data folder takes its time.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// A fast shutdown writes a checkpoint; past this the server is killed, and recovers when it starts again.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub struct Options {
    /// Made if missing, kept at the end. `None`: a temporary folder.
    pub data_dir: Option<PathBuf>,
    /// Off is for tests only: faster; a crash of the machine (not of Postgres) loses data.
    pub fsync: bool,
    /// Further settings as in `postgresql.conf`; they win over ours.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            data_dir: None,
            fsync: true,
            settings: Vec::new(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PrivateServerError {
    #[error(
        "no Postgres found in PATH, /usr/lib/postgresql, /usr/pgsql-*, /opt/homebrew or /usr/local: install PostgreSQL 14 or newer \
         (Debian, Ubuntu: `apt-get install postgresql`; Fedora: `dnf install postgresql-server`; macOS: `brew install postgresql@17`), \
         or set DATABASE_URL to a server of yours"
    )]
    NotInstalled,
    #[error(
        "{folder} was made by PostgreSQL {major}, which is not installed: install it, or choose another data folder"
    )]
    OtherVersion { folder: String, major: String },
    #[error(
        "{folder} is in use by another hookstream: stop that one, or choose another data folder"
    )]
    InUse { folder: String },
    #[error(
        "user {user}, as whom Postgres must run since we are root, cannot reach {folder}: choose a data folder outside of private folders"
    )]
    Unreachable { folder: String, user: String },
    #[error("cannot prepare the data folder {folder}")]
    Folder {
        folder: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} failed: {output}")]
    Program { program: String, output: String },
    #[error("Postgres did not start; the end of its log:\n{log}")]
    NotStarted { log: String },
}

/// A running server, stopped when this value is dropped.
pub struct PrivateServer {
    binaries: PathBuf,
    account: Option<Account>,
    folder: PathBuf,
    temporary: bool,
    password: String,
    port: u16,
    options: Options,
    child: Option<Child>,
    /// Keeps a second process out of the folder.
    _lock: File,
}

/// Without the password.
impl fmt::Debug for PrivateServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateServer")
            .field("folder", &self.folder)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl PrivateServer {
    /// Starts the newest installed Postgres (or the version that made the data folder) and waits until it answers.
    pub async fn start(options: Options) -> Result<PrivateServer, PrivateServerError> {
        let prepared = tokio::task::spawn_blocking(move || PrivateServer::prepare(options)).await;
        let mut server =
            prepared.expect("preparing the folder does not panic and is never aborted")?;
        server.launch().await?;
        server.create_database(DATABASE).await?;
        Ok(server)
    }

    /// `postgres://…` of a database of this server; [`DATABASE`] exists, others see [`PrivateServer::create_database`].
    /// Holds the password.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{USER}:{}@127.0.0.1:{}/{database}",
            self.password, self.port
        )
    }

    /// The port on 127.0.0.1; stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the data folder, the log (`log`) and the password are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a database if it isn't there. `name`: lower-case letters, digits and underscores.
    pub async fn create_database(&self, name: &str) -> Result<(), PrivateServerError> {
        let failed = |error: sqlx::Error| PrivateServerError::Program {
            program: "CREATE DATABASE".to_owned(),
            output: error.to_string(),
        };
        assert!(
            name.bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_')),
            "a database name that needs no quotes"
        );
        let mut connection = self.connect_options().connect().await.map_err(failed)?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(name)
                .fetch_one(&mut connection)
                .await
                .map_err(failed)?;
        if !exists {
            sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
                .execute(&mut connection)
                .await
                .map_err(failed)?;
        }
        connection.close().await.map_err(failed)
    }

    /// A fast shutdown: connections are cut, data is written. The folder stays until this value is dropped.
    pub async fn stop(&mut self) -> Result<(), PrivateServerError> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        if let Some(mut stdin) = child.stdin.take() {
            // The line says that we are still there: the shell leaves a temporary folder to us. A failure means it has ended.
            let _ = stdin.write_all(b"stop\n");
            let deadline = Instant::now() + STOP_TIMEOUT;
            while Instant::now() < deadline {
                if ended(&mut child) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        self.kill_postmaster();
        let _ = child.wait();
        Ok(())
    }

    /// `kill -9`, as a crash of the server would be.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        self.kill_postmaster();
        if let Some(stdin) = &mut child.stdin {
            // As in `stop`: without the line the end of the pipe would mean that we have ended, and take a temporary folder.
            let _ = stdin.write_all(b"stop\n");
        }
        let _ = child.wait();
    }

    /// Stops (if it still runs) and starts on the same folder and port.
    pub async fn restart(&mut self) -> Result<(), PrivateServerError> {
        self.stop().await?;
        self.launch().await
    }

    fn prepare(options: Options) -> Result<PrivateServer, PrivateServerError> {
        let account = Account::needed();
        let temporary = options.data_dir.is_none();
        let folder = match &options.data_dir {
            Some(folder) => folder.clone(),
            None => std::env::temp_dir().join(format!("hookstream-postgres-{}", random_name())),
        };
        make_folder(&folder, account.as_ref())?;
        let folder = folder
            .canonicalize()
            .map_err(|source| folder_error(&folder, source))?;
        let lock =
            File::create(folder.join("lock")).map_err(|source| folder_error(&folder, source))?;
        if lock.try_lock().is_err() {
            return Err(PrivateServerError::InUse {
                folder: folder.display().to_string(),
            });
        }
        let binaries = find_binaries(&folder.join("data"))?;
        let password = password(&folder, account.as_ref())?;
        stop_orphan(&binaries, &folder.join("data"), account.as_ref());
        if !folder.join("data/PG_VERSION").exists() {
            initialise(&binaries, &folder, account.as_ref(), "scram-sha-256")?;
        }
        let port = free_port().map_err(|source| folder_error(&folder, source))?;
        Ok(PrivateServer {
            binaries,
            account,
            folder,
            temporary,
            password,
            port,
            options,
            child: None,
            _lock: lock,
        })
    }

    /// Starts the shell and in it the server, and waits until it answers.
    async fn launch(&mut self) -> Result<(), PrivateServerError> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let mut child = self
                .spawn()
                .map_err(|source| folder_error(&self.folder, source))?;
            loop {
                if let Ok(connection) = self.connect_options().connect().await {
                    let _ = connection.close().await;
                    self.child = Some(child);
                    return Ok(());
                }
                // After a crash the old server's processes may hold its memory for a moment; then another try works.
                if ended(&mut child) {
                    break;
                }
                if Instant::now() > deadline {
                    self.child = Some(child);
                    self.kill();
                    return Err(PrivateServerError::NotStarted {
                        log: log_tail(&self.folder.join("log")),
                    });
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let log = log_tail(&self.folder.join("log"));
            if Instant::now() > deadline
                || !["still in use", "lock file"]
                    .iter()
                    .any(|passing| log.contains(passing))
            {
                return Err(PrivateServerError::NotStarted { log });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        // Truncated: what an earlier start complained of must not be taken for this one's.
        let log = File::create(self.folder.join("log"))?;
        let mut command = command_as(Path::new("sh"), self.account.as_ref());
        command.arg("-c").arg(WATCHDOG).arg("hookstream-postgres");
        command.arg(if self.temporary {
            self.folder.as_os_str()
        } else {
            "".as_ref()
        });
        command
            .arg(self.binaries.join("postgres"))
            .arg("-D")
            .arg(self.folder.join("data"));
        for setting in settings(self.port, self.options.fsync, &self.options.settings) {
            command.arg("-c").arg(setting);
        }
        command
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
    }

    fn connect_options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(USER)
            .password(&self.password)
            .database("postgres")
            .ssl_mode(sqlx::postgres::PgSslMode::Disable)
    }

    fn kill_postmaster(&self) {
        if let Some(pid) = postmaster_pid(&self.folder.join("data")) {
            signal(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for PrivateServer {
    #[expect(
        clippy::disallowed_methods,
        reason = "a destructor cannot await, and must not leave the folder or the server behind"
    )]
    fn drop(&mut self) {
        if self.temporary {
            // Nobody reads this data again, so there's nothing to write out.
            self.kill();
            // Backends notice the death of their parent at once, but may still write a file while we remove.
            for _ in 0..50 {
                if fs::remove_dir_all(&self.folder).is_ok() || !self.folder.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        } else if let Some(mut child) = self.child.take() {
            // Closing the pipe is what stops it; the shell outlives us if need be.
            drop(child.stdin.take());
            for _ in 0..500 {
                if ended(&mut child) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Runs the server and stops it when the pipe closes. `$1`: the folder to remove when that happens unannounced, or empty.
/// A server that doesn't stop within 20 s is told to quit at once; it recovers when it's started again.
const WATCHDOG: &str = r#"
folder=$1; shift
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
(
    if ! read -r line <&3 && [ -n "$folder" ]; then : >"$folder/abandoned"; fi
    kill -INT $server 2>/dev/null
    n=0
    while kill -0 $server 2>/dev/null && [ $n -lt 200 ]; do sleep 0.1; n=$((n + 1)); done
    kill -QUIT $server 2>/dev/null
) >/dev/null 2>&1 &
watcher=$!
wait $server
status=$?
kill $watcher 2>/dev/null
if [ -n "$folder" ] && [ -e "$folder/abandoned" ]; then cd / && rm -rf "$folder"; fi
exit $status
"#;

/// The user that Postgres runs as when we are root.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// `None`: we are not root, so the server runs as ourselves.
    pub(crate) fn needed() -> Option<Account> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let find = |name: &str| {
            passwd.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(name)).then_some(())?;
                let uid = fields.nth(1)?.parse().ok()?;
                Some(Account {
                    name: name.to_owned(),
                    uid,
                    gid: fields.next()?.parse().ok()?,
                })
            })
        };
        find("postgres")
            .or_else(|| find("nobody"))
            .or(Some(Account {
                name: "nobody".to_owned(),
                uid: 65534,
                gid: 65534,
            }))
    }
}

pub(crate) fn command_as(program: &Path, account: Option<&Account>) -> Command {
    let mut command = Command::new(program);
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    // Settings of the caller's own server must not leak into this one.
    for name in [
        "PGDATA",
        "PGPORT",
        "PGHOST",
        "PGUSER",
        "PGPASSWORD",
        "PGDATABASE",
        "PGOPTIONS",
        "PGSSLMODE",
    ] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("TZ", "UTC");
    command
}

pub(crate) fn folder_error(folder: &Path, source: io::Error) -> PrivateServerError {
    PrivateServerError::Folder {
        folder: folder.display().to_string(),
        source,
    }
}

/// Makes the folder, gives it to the account and makes sure that the account gets there.
pub(crate) fn make_folder(
    folder: &Path,
    account: Option<&Account>,
) -> Result<(), PrivateServerError> {
    let failed = |source| folder_error(folder, source);
    fs::create_dir_all(folder).map_err(failed)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    let Some(account) = account else {
        return Ok(());
    };
    std::os::unix::fs::chown(folder, Some(account.uid), Some(account.gid)).map_err(failed)?;
    let reached = command_as(Path::new("test"), Some(account))
        .arg("-w")
        .arg(folder)
        .current_dir("/")
        .status()
        .map_err(failed)?;
    if reached.success() {
        Ok(())
    } else {
        Err(PrivateServerError::Unreachable {
            folder: folder.display().to_string(),
            user: account.name.clone(),
        })
    }
}

/// The password beside the data folder, made when there's none.
fn password(folder: &Path, account: Option<&Account>) -> Result<String, PrivateServerError> {
    let path = folder.join("password");
    let failed = |source| folder_error(folder, source);
    match fs::read_to_string(&path) {
        Ok(password) if !password.trim().is_empty() => return Ok(password.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let password = random_name();
    fs::write(&path, &password).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    if let Some(account) = account {
        // initdb reads it as that user.
        std::os::unix::fs::chown(&path, Some(account.uid), Some(account.gid)).map_err(failed)?;
    }
    Ok(password)
}

/// 32 hex digits of the operating system's randomness.
pub(crate) fn random_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Makes `folder/data`: first beside it, then renamed, so a crash never leaves half of it.
pub(crate) fn initialise(
    binaries: &Path,
    folder: &Path,
    account: Option<&Account>,
    auth: &str,
) -> Result<(), PrivateServerError> {
    let fresh = folder.join("data.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(|source| folder_error(folder, source))?;
    }
    let mut command = command_as(&binaries.join("initdb"), account);
    command.arg("-D").arg(&fresh).args([
        "-U",
        USER,
        "-A",
        auth,
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
        "--no-instructions",
    ]);
    if auth != "trust" {
        command.arg(format!("--pwfile={}", folder.join("password").display()));
    }
    run(command.current_dir(folder), "initdb")?;
    fs::rename(&fresh, folder.join("data")).map_err(|source| folder_error(folder, source))
}

pub(crate) fn run(command: &mut Command, program: &str) -> Result<(), PrivateServerError> {
    let failed = |output: String| PrivateServerError::Program {
        program: program.to_owned(),
        output,
    };
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )))
}

/// `name=value` of every setting, later ones win.
pub(crate) fn settings(port: u16, fsync: bool, more: &[(String, String)]) -> Vec<String> {
    let mut all = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        // A socket's path may be too long in a deep folder, and loopback is as fast.
        "unix_socket_directories=".to_owned(),
        "logging_collector=off".to_owned(),
        "log_timezone=UTC".to_owned(),
        "timezone=UTC".to_owned(),
    ];
    if !fsync {
        // Commits still reach the operating system, so they survive a crash of Postgres.
        all.extend(["fsync=off", "full_page_writes=off"].map(str::to_owned));
    }
    all.extend(more.iter().map(|(name, value)| format!("{name}={value}")));
    all
}

/// The folder of the binaries: those of the version that made `data`, else the newest.
pub(crate) fn find_binaries(data: &Path) -> Result<PathBuf, PrivateServerError> {
    let mut found: Vec<(u32, PathBuf)> = candidates()
        .into_iter()
        .filter_map(|folder| Some((major_version(&folder)?, folder)))
        .collect();
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    let Ok(made_by) = fs::read_to_string(data.join("PG_VERSION")) else {
        return found
            .into_iter()
            .map(|(_, folder)| folder)
            .next()
            .ok_or(PrivateServerError::NotInstalled);
    };
    let made_by = made_by.trim();
    found
        .into_iter()
        .find(|(major, _)| major.to_string() == made_by)
        .map(|(_, folder)| folder)
        .ok_or_else(|| PrivateServerError::OtherVersion {
            folder: data.display().to_string(),
            major: made_by.to_owned(),
        })
}

fn candidates() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/usr/libexec", "postgresql"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
        ("/Applications/Postgres.app/Contents/Versions", ""),
    ] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let matching =
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        folders.extend(matching.flat_map(|entry| [entry.path().join("bin"), entry.path()]));
    }
    folders.extend(["/usr/local/pgsql/bin", "/usr/local/bin"].map(PathBuf::from));
    folders.retain(|folder| {
        folder.join("postgres").is_file()
            && folder.join("initdb").is_file()
            && folder.join("pg_ctl").is_file()
    });
    folders
}

/// Of `postgres (PostgreSQL) 15.14 (Debian …)`: 15. `None` below 14, which we don't support.
fn major_version(folder: &Path) -> Option<u32> {
    let output = Command::new(folder.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().nth(2)?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|major| *major >= 14)
}

pub(crate) fn postmaster_pid(data: &Path) -> Option<i32> {
    fs::read_to_string(data.join("postmaster.pid"))
        .ok()?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
}

/// Whether the process is a Postgres and not another one that was given the same number since.
pub(crate) fn is_postgres(pid: i32) -> bool {
    let output = Command::new("ps")
        .args(["-o", "command=", "-p", &pid.to_string()])
        .output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("postgres"))
}

/// Stops a server that an earlier process left in `data`: whoever calls this holds the folder's lock, so nobody uses it.
pub(crate) fn stop_orphan(binaries: &Path, data: &Path, account: Option<&Account>) {
    let Some(pid) = postmaster_pid(data).filter(|pid| is_postgres(*pid)) else {
        return;
    };
    let mut command = command_as(&binaries.join("pg_ctl"), account);
    command
        .args(["stop", "-w", "-t", "20", "-m", "fast", "-D"])
        .arg(data)
        .current_dir("/");
    if run(&mut command, "pg_ctl").is_err() {
        signal(pid, rustix::process::Signal::KILL);
    }
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // It may have ended meanwhile.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

pub(crate) fn log_tail(path: &Path) -> String {
    let text = fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
