//! A Postgres of our own: kept, killed, started again, and gone with us.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};
use store::{
    Options, Store, events,
    private_server::{DATABASE, Options as ServerOptions, PrivateServer, PrivateServerError},
};

use crate::support::*;

/// A folder that user `postgres` can reach, removed at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Folder {
        Folder(std::env::temp_dir().join(format!("hookstream-test-{:x}", rand::random::<u64>())))
    }

    fn options(&self) -> ServerOptions {
        ServerOptions {
            data_dir: Some(self.0.clone()),
            fsync: false,
            settings: vec![("shared_buffers".into(), "16MB".into())],
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn runs(pid: &str) -> bool {
    // A zombie has ended, too: whoever is to reap it may be slow.
    let output = Command::new("ps")
        .args(["-o", "stat=", "-p", pid])
        .output()
        .unwrap();
    let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

fn postmaster(folder: &std::path::Path) -> String {
    std::fs::read_to_string(folder.join("data/postmaster.pid"))
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn a_kept_folder_is_used_again_and_survives_a_kill_of_the_server() {
    let folder = Folder::new();
    let mut server = PrivateServer::start(folder.options()).await.unwrap();
    let store = Store::connect(Options::new(server.url(DATABASE)))
        .await
        .unwrap();
    store::migrate(&store.pool, 8).await.unwrap();
    events::record(&store.pool, &[recorded(event(b"x"), &[destination(1)])])
        .await
        .unwrap();

    server.kill();
    let error = events::record(&store.pool, &[recorded(event(b"y"), &[destination(1)])])
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    server.restart().await.unwrap();
    // Idle connections of before are found dead and replaced.
    let mut tries = 0;
    while let Err(error) =
        events::record(&store.pool, &[recorded(event(b"z"), &[destination(1)])]).await
    {
        assert!(error.is_transient() && tries < 10, "{error:?}");
        tries += 1;
    }
    assert_eq!(queued(&store.pool, destination(1)).await.len(), 2);

    assert!(matches!(
        PrivateServer::start(folder.options()).await,
        Err(PrivateServerError::InUse { .. })
    ));
    let pid = postmaster(server.folder());
    drop((store, server));
    assert!(!runs(&pid));
    let server = PrivateServer::start(folder.options()).await.unwrap();
    let store = Store::connect(Options::new(server.url(DATABASE)))
        .await
        .unwrap();
    assert_eq!(queued(&store.pool, destination(1)).await.len(), 2);
}

#[tokio::test]
async fn a_temporary_folder_is_gone_afterwards() {
    let server = PrivateServer::start(ServerOptions {
        fsync: false,
        ..ServerOptions::default()
    })
    .await
    .unwrap();
    let (folder, pid) = (server.folder().to_owned(), postmaster(server.folder()));
    drop(server);
    assert!(!folder.exists());
    assert!(!runs(&pid));
}

#[tokio::test]
async fn a_folder_of_a_version_that_is_not_installed_is_refused() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.0.join("data")).unwrap();
    std::fs::write(folder.0.join("data/PG_VERSION"), "9.6\n").unwrap();
    let error = PrivateServer::start(folder.options()).await.unwrap_err();
    assert!(
        matches!(&error, PrivateServerError::OtherVersion { major, .. } if major == "9.6"),
        "{error}"
    );
}

const CHILD: &str = "HOOKSTREAM_TEST_SERVER_CHILD";

/// Not a check of its own: run again by the test below in a process that is then killed.
#[tokio::test]
async fn a_server_whose_process_is_killed_is_stopped_and_its_folder_removed() {
    if std::env::var_os(CHILD).is_some() {
        let server = PrivateServer::start(ServerOptions {
            fsync: false,
            ..ServerOptions::default()
        })
        .await
        .unwrap();
        println!(
            "started {} {}",
            postmaster(server.folder()),
            server.folder().display()
        );
        std::future::pending::<()>().await;
    }
    let name = "private_server::a_server_whose_process_is_killed_is_stopped_and_its_folder_removed";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("started ")?.1.to_owned()))
        .unwrap();
    let (pid, folder) = line.split_once(' ').unwrap();
    assert!(runs(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    let ended = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while runs(pid) || std::path::Path::new(folder).exists() {
        assert!(
            std::time::Instant::now() < ended,
            "the server {pid} in {folder} is still there"
        );
        std::thread::yield_now();
    }
}
