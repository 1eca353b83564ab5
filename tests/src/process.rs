//! The project's own programs, started as a user starts them and ended when the test ends.
//!
//! A child dies with its handle: `kill -9` on drop, so that a failed test leaves nothing behind.

use anyhow::Context;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
};

/// Where `cargo build` puts the workspace's programs for the profile that the tests were built in.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test.ancestors().find(|folder| {
        folder
            .file_name()
            .is_some_and(|name| name == "debug" || name == "release")
    });
    let path = folder
        .expect("tests run from target/debug or target/release")
        .join(name);
    assert!(
        path.exists(),
        "{} is not built: `make test` builds it, or `cargo build --workspace --bins`",
        path.display()
    );
    path
}

/// A running program of ours, its output kept line by line.
pub struct Process {
    name: String,
    child: Child,
    lines: Lines,
}

#[derive(Clone)]
struct Lines {
    kept: Arc<Mutex<Vec<String>>>,
    count: watch::Sender<usize>,
}

impl Process {
    /// Starts `binary` with these arguments and variables; its output goes to [`Process::output`].
    pub fn start(
        binary_name: &str,
        arguments: &[&str],
        variables: &[(&str, String)],
    ) -> anyhow::Result<Process> {
        Process::spawn(
            Command::new(binary(binary_name))
                .args(arguments)
                .envs(variables.iter().map(|(name, value)| (name, value))),
            binary_name,
        )
    }

    /// As [`Process::start`], of a command made by the caller.
    pub fn spawn(command: &mut Command, name: &str) -> anyhow::Result<Process> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let lines = Lines {
            kept: Arc::default(),
            count: watch::Sender::new(0),
        };
        if let Some(stdout) = child.stdout.take() {
            lines.read(stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            lines.read(stderr);
        }
        Ok(Process {
            name: name.to_owned(),
            child,
            lines,
        })
    }

    /// The process id; `None` when it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for a line that `wanted` accepts (also among those already written), within `limit`.
    pub async fn line(
        &self,
        limit: Duration,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> anyhow::Result<String> {
        let mut count = self.lines.count.subscribe();
        let mut read = 0;
        let search = async {
            loop {
                {
                    let kept = self.lines.kept.lock().expect("no holder panics");
                    if let Some(found) = kept[read..].iter().find(|line| wanted(line)) {
                        return found.clone();
                    }
                    read = kept.len();
                }
                // The sender lives as long as `self`.
                let _ = count.changed().await;
            }
        };
        tokio::time::timeout(limit, search).await.map_err(|_| {
            anyhow::anyhow!(
                "{} wrote no such line within {limit:?}:\n{}",
                self.name,
                self.output()
            )
        })
    }

    /// All lines so far.
    pub fn output(&self) -> String {
        self.lines.kept.lock().expect("no holder panics").join("\n")
    }

    /// Sends a signal by name: `TERM`, `INT`, `KILL`, `STOP`, `CONT`.
    pub async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self
            .id()
            .with_context(|| format!("{} has ended", self.name))?;
        let status = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(id.to_string())
            .status()
            .await?;
        anyhow::ensure!(status.success(), "kill -{signal} {id} failed");
        Ok(())
    }

    /// Waits for the end, within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => anyhow::bail!(
                "{} did not end within {limit:?}:\n{}",
                self.name,
                self.output()
            ),
        }
    }

    /// SIGTERM, and the end within `limit`.
    pub async fn stop(mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.signal("TERM").await?;
        self.ended(limit).await
    }

    /// SIGKILL: what fate does.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        Ok(())
    }
}

impl Lines {
    fn read(&self, stream: impl AsyncRead + Unpin + Send + 'static) {
        let lines = self.clone();
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream).lines();
            while let Ok(Some(line)) = stream.next_line().await {
                if std::env::var_os("TEST_OUTPUT").is_some() {
                    eprintln!("  | {line}");
                }
                lines.kept.lock().expect("no holder panics").push(line);
                lines.count.send_modify(|count| *count += 1);
            }
        });
    }
}

/// A port that is free now, for programs that can't be given a socket. Never the same one twice: a program that is down for
/// a moment finds its port free when it comes back.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("loopback has a free port")
            .port();
        if GIVEN.lock().expect("no holder panics").insert(port) {
            return port;
        }
    }
}
