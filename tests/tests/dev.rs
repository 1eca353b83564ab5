//! `hookstream` as a person runs it: the built binary, a folder of manifests, a terminal's signals.
//!
//! Every wait is for a line, a request or the end of a process, and bounded.

use anyhow::{Context, Result, ensure};
use hmac::{KeyInit, Mac};
use http::StatusCode;
use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};
use tests::{
    process::{Process, binary, free_port},
    receiver::Receiver,
    sender::{Answer, Sender},
};
use tokio::process::Command;

/// Of any wait. A first start makes a database, on two cores that are busy.
const BOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_manifests_runs_follows_every_save_and_ends_with_nothing_left_behind()
-> Result<()> {
    let receiver = Receiver::start().await?;
    let place = Place::new()?;
    let manifests = |path: &str| manifests(path, &receiver.url("/hooks"));
    place.write("hooks.yaml", &manifests("github"))?;
    let data = place.root.join("data");
    let flags = ["--data-dir", data.to_str().context("UTF-8")?];
    let mut dev = Dev::start(&place, &flags).await?;

    // What is posted is delivered, and both are told.
    let event = dev.post("github", r#"{"a": 1}"#).await?.event_id()?;
    let received = receiver.until(1, BOUND).await?;
    assert_eq!(
        (received[0].event_id(), &received[0].body[..]),
        (&event[..], &br#"{"a": 1}"#[..])
    );
    dev.line(&["github", "POST 200", &event]).await?;
    dev.line(&["ci", "attempt 1", "200", "delivered", &event])
        .await?;
    dev.line(&["private addresses"]).await?;

    // A saved file is live within a second, also when it replaces the old one.
    place.write("hooks.yaml.draft", &manifests("gitlab"))?;
    let saved_at = service::clock::instant();
    fs::rename(
        place.manifests.join("hooks.yaml.draft"),
        place.manifests.join("hooks.yaml"),
    )?;
    while dev.post("gitlab", "{}").await?.status != StatusCode::OK {
        ensure!(saved_at.elapsed() < BOUND, "the saved path is never live");
    }
    let took = saved_at.elapsed();
    assert!(took < Duration::from_secs(1), "live after {took:?}");
    assert_eq!(
        dev.post("github", "{}").await?.status,
        StatusCode::NOT_FOUND,
        "the old path is gone"
    );

    // A mistake is told with its file and line, and what was there before goes on.
    place.write(
        "hooks.yaml",
        &manifests("gitlab").replace("path: gitlab", "pth: gitlab"),
    )?;
    dev.line(&["hooks.yaml:5:", "pth"]).await?;
    dev.post("gitlab", "{}").await?.event_id()?;
    // So is one that only the compiler can see.
    place.write(
        "hooks.yaml",
        &manifests("gitlab").replace("op: exists", "op: exits"),
    )?;
    dev.line(&["hooks.yaml:24:"]).await?;
    let event = dev.post("gitlab", "{}").await?.event_id()?;
    dev.line(&["ci", "delivered", &event]).await?;

    // Ctrl-C drains, ends with 0, and nothing keeps running. The data stays, and is used again.
    ensure!(!postgres_in(&data)?.is_empty(), "a private Postgres runs");
    dev.process.signal("INT").await?;
    assert_eq!(
        dev.process.ended(BOUND).await?.code(),
        Some(0),
        "{}",
        dev.process.output()
    );
    assert_eq!(postgres_in(&data)?, Vec::<String>::new());
    let ring = data.join("keyring");
    assert_eq!(fs::metadata(&ring)?.permissions().mode() & 0o777, 0o600);
    let before = fs::read(&ring)?;
    place.write("hooks.yaml", &manifests("gitlab"))?;
    let dev = Dev::start(&place, &flags).await?;
    dev.post("gitlab", "{}").await?.event_id()?;
    assert_eq!(fs::read(&ring)?, before);
    assert_eq!(dev.process.stop(BOUND).await?.code(), Some(0));
    assert_eq!(postgres_in(&data)?, Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_closes_the_circuit_of_a_receiver_that_was_mended() -> Result<()> {
    let receiver = Receiver::answering(|_, before| match before {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    })
    .await?;
    let place = Place::new()?;
    let manifests = manifests("github", &receiver.url("/hooks")).replace(
        "  retry:",
        "  circuitBreaker: {failures: 1, cooldown: 1h}\n  retry:",
    );
    place.write("hooks.yaml", &manifests)?;
    let dev = Dev::start(&place, &["--ephemeral"]).await?;
    let first = dev.post("github", "1").await?.event_id()?;
    dev.line(&["ci", "attempt 1", "503", &first]).await?;
    let second = dev.post("github", "2").await?.event_id()?;
    dev.line(&["github", "POST 200", &second]).await?;
    let annotated = "metadata: {name: ci, annotations: {hookstream.io/reset-circuit: mended}}";
    let manifests = manifests.replace("metadata: {name: ci}", annotated);
    let waited = receiver.received().len();
    place.write("hooks.yaml", &manifests)?;
    let received = receiver.until(3, BOUND).await?;
    assert_eq!(waited, 1, "before that nothing went");
    assert_eq!(received[1].event_id(), second);
    assert_eq!(received[2].event_id(), first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_survives_kill_9_which_leaves_no_postgres() -> Result<()> {
    let place = Place::new()?;
    // Nobody listens there, so the delivery is still to be made when the process dies.
    place.write(
        "hooks.yaml",
        &manifests("github", &format!("http://127.0.0.1:{}/", free_port())),
    )?;
    let data = place.root.join("data");
    let flags = ["--data-dir", data.to_str().context("UTF-8")?];
    let dev = Dev::start(&place, &flags).await?;
    let event = dev.post("github", "{}").await?.event_id()?;
    dev.line(&["ci", "attempt 1", "next in", &event]).await?;
    dev.process.kill().await?;
    until("no Postgres is left", || Ok(postgres_in(&data)?.is_empty())).await?;
    let dev = Dev::start(&place, &flags).await?;
    dev.line(&["ci", "attempt", &event]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_run_leaves_nothing_on_the_disk() -> Result<()> {
    let place = Place::new()?;
    place.write("hooks.yaml", &manifests("github", "http://127.0.0.1:9/"))?;
    let mut dev = Dev::start(&place, &["--ephemeral"]).await?;
    ensure!(
        !entries(&place.temporary).is_empty(),
        "the database is in the temporary folder"
    );
    dev.process.signal("INT").await?;
    assert_eq!(
        dev.process.ended(BOUND).await?.code(),
        Some(0),
        "{}",
        dev.process.output()
    );
    assert_eq!(entries(&place.temporary), BTreeSet::new());
    assert_eq!(entries(&place.home), BTreeSet::new());
    let dev = Dev::start(&place, &["--ephemeral"]).await?;
    dev.process.kill().await?;
    until("what a kill -9 left is removed", || {
        Ok(entries(&place.temporary).is_empty())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_run_it_too() -> Result<()> {
    let place = Place::new()?;
    place.write("hooks.yaml", &manifests("github", "http://127.0.0.1:9/"))?;
    // Elsewhere, in case the checkout is in a folder that is closed to others.
    let copy = place.root.join("hookstream");
    fs::copy(binary("hookstream"), &copy)?;
    let mut command = if is_root().await? {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy);
        command
    } else {
        Command::new(&copy)
    };
    let mut dev = Dev::spawn(&place, command.arg("dev").arg(&place.manifests)).await?;
    dev.post("github", "{}").await?.event_id()?;
    let kept = entries(&place.home.join(".local/share/hookstream"));
    assert!(
        kept.len() == 1 && kept.iter().all(|name| name.starts_with("dev-")),
        "{kept:?}"
    );
    dev.process.signal("INT").await?;
    assert_eq!(
        dev.process.ended(BOUND).await?.code(),
        Some(0),
        "{}",
        dev.process.output()
    );
    assert_eq!(postgres_in(&place.home)?, Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why_and_ends_with_1() -> Result<()> {
    let place = Place::new()?;
    place.write("hooks.yaml", &manifests("github", "http://127.0.0.1:9/"))?;
    let folder = place.folder()?;
    let taken = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let held = TcpListener::bind(&taken)?;
    let dev = ["dev", "--ephemeral", "--admin-listen", "127.0.0.1:0"];
    assert_failed(
        &place
            .run(&[&dev[..], &["--listen", &taken, folder]].concat())
            .await?,
        &[&taken],
    );
    drop(held);
    assert_failed(
        &place
            .run(&["dev", "--ephemeral", "/nowhere/at/all"])
            .await?,
        &["/nowhere/at/all"],
    );
    let away = format!("postgres://user:hunter2@{taken}/x");
    let failed = place
        .run(
            &[
                &dev[..],
                &["--listen", "127.0.0.1:0", "--database-url", &away, folder],
            ]
            .concat(),
        )
        .await?;
    assert_failed(&failed, &["database"]);
    assert!(!said(&failed).contains("hunter2"));
    assert_eq!(entries(&place.temporary), BTreeSet::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_ends_with_2() -> Result<()> {
    let place = Place::new()?;
    for wrong in [
        &["dev", "--listen", "nowhere"][..],
        &["dev", "--ephemeral", "--data-dir", "x"],
        &["lint"],
        &["test", "-f", "x"],
        &["cook"],
        &[],
    ] {
        let output = place.run(wrong).await?;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(!output.stderr.is_empty(), "{wrong:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lint_ends_with_0_when_clean_and_with_1_and_a_line_when_not() -> Result<()> {
    let place = Place::new()?;
    let clean = manifests("github", "https://example.com/");
    for (text, code, words) in [
        (clean.clone(), 0, &["no findings"][..]),
        (
            clean.replace("destination: {name: ci}", "destination: {name: nowhere}"),
            1,
            &["hooks.yaml:21: ", "nowhere"],
        ),
        (
            clean.replace("op: exists", "op: exits"),
            1,
            &["hooks.yaml:24: "],
        ),
        ("kind: [".to_owned(), 1, &["hooks.yaml:", "YAML"]),
    ] {
        place.write("hooks.yaml", &text)?;
        let output = place.run(&["lint", "-f", place.folder()?]).await?;
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(
            words.iter().all(|word| said(&output).contains(word)),
            "{words:?} in {}",
            said(&output)
        );
    }
    assert_failed(
        &place.run(&["lint", "-f", "/nowhere/at/all"]).await?,
        &["/nowhere/at/all"],
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn test_tells_what_would_happen_to_an_event() -> Result<()> {
    let place = Place::new()?;
    let event = place.root.join("event.json");
    fs::write(&event, "{}")?;
    let quickstart = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/quickstart");
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"It's a Secret to Everybody")?;
    mac.update(b"{}");
    let right = format!(
        "X-Hub-Signature-256: sha256={}",
        hex::encode(mac.finalize().into_bytes())
    );
    let wrong = format!("X-Hub-Signature-256: sha256={}", "0".repeat(64));
    for (signature, kind, code, words) in [
        (
            &right,
            "push",
            0,
            &["accepted", "github-to-ci", "takes it"][..],
        ),
        (
            &right,
            "star",
            0,
            &["accepted", "github-to-ci", "filtered out"],
        ),
        (&wrong, "push", 1, &["refused", "401"]),
    ] {
        let kind = format!("X-GitHub-Event: {kind}");
        let event = event.to_str().context("UTF-8")?;
        let output = place
            .run(&[
                "test", "-f", quickstart, "--source", "github", "--event", event, "--header",
                signature, "--header", &kind,
            ])
            .await?;
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(
            words.iter().all(|word| said(&output).contains(word)),
            "{words:?} in {}",
            said(&output)
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn test_shows_step_by_step_what_becomes_of_an_event() -> Result<()> {
    let place = Place::new()?;
    let event = place.root.join("event.json");
    let order = r#"{"id":"o1","vip":false,"customer":{"name":"Jo","country":"NL"},"card":{"country":"US"},"lines":[{"sku":"a","price":300,"quantity":2}]}"#;
    for (folder, source, body, code, words) in [
        (
            "transforms",
            "orders",
            order,
            0,
            &[
                "orders-to-warehouse  takes it",
                r#"{"id":"o1","total":600,"skus":["a"]}"#,
                "orders-to-chat  filtered out  `body.vip eq true` does not hold",
                "expression  of the body (input Body) gives true",
            ][..],
        ),
        (
            "schema",
            "orders",
            r#"{"type":"order.paid","order":{"amount":-1}}"#,
            1,
            &["refused", "/order/amount: ", "(minimum)", "422"],
        ),
        (
            "schema",
            "old-orders",
            "[1]",
            0,
            &["schema", "recorded with a mark"],
        ),
        (
            "deduplication",
            "orders",
            r#"{"order":{}}"#,
            0,
            &["dedup", "always taken as new"],
        ),
        (
            "ip-filter",
            "office",
            "{}",
            1,
            &["192.0.2.9 may not send", "403"],
        ),
    ] {
        fs::write(&event, body)?;
        let event = event.to_str().context("UTF-8")?;
        let folder = format!("{}/../examples/{folder}", env!("CARGO_MANIFEST_DIR"));
        let output = place
            .run(&[
                "test",
                "-f",
                &folder,
                "--source",
                source,
                "--event",
                event,
                "--from",
                "192.0.2.9",
            ])
            .await?;
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        for word in words {
            assert!(said(&output).contains(word), "{word} in {}", said(&output));
        }
    }
    Ok(())
}

/// A source without verification, a destination that retries every second, and a connection between them.
fn manifests(path: &str, destination: &str) -> String {
    format!(
        "\
apiVersion: hookstream.io/v1alpha1
kind: Source
metadata: {{name: github}}
spec:
  path: {path}
---
apiVersion: hookstream.io/v1alpha1
kind: Destination
metadata: {{name: ci}}
spec:
  http:
    url: {destination}
  retry: {{backoff: Fixed, intervals: [1s], maxRetries: 100}}
---
apiVersion: hookstream.io/v1alpha1
kind: Connection
metadata:
  name: github-to-ci
spec:
  source: {{name: github}}
  destination: {{name: ci}}
  filter:
    all:
    - {{path: headers.host, op: exists, value: true}}
"
    )
}

/// A folder of manifests, and places that stand for the user's home and the temporary folder.
struct Place {
    root: PathBuf,
    manifests: PathBuf,
    home: PathBuf,
    temporary: PathBuf,
    _root: tempfile::TempDir,
}

impl Place {
    fn new() -> Result<Place> {
        let root = tempfile::tempdir()?;
        let place = Place {
            manifests: root.path().join("manifests"),
            home: root.path().join("home"),
            temporary: root.path().join("tmp"),
            root: root.path().to_owned(),
            _root: root,
        };
        for folder in [&place.root, &place.manifests, &place.home, &place.temporary] {
            fs::create_dir_all(folder)?;
            // Postgres doesn't run as root, and one test doesn't either.
            fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?;
        }
        Ok(place)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.manifests.join(name), text)?)
    }

    fn folder(&self) -> Result<&str> {
        self.manifests.to_str().context("UTF-8")
    }

    /// A user's environment here: nothing of the test's own.
    fn environment(&self, command: &mut Command) {
        for name in [
            "DATABASE_URL",
            "XDG_DATA_HOME",
            "HOOKSTREAM_KEYRING",
            "HOOKSTREAM_LISTEN",
            "HOOKSTREAM_LOG",
        ] {
            command.env_remove(name);
        }
        command
            .env("HOME", &self.home)
            .env("TMPDIR", &self.temporary);
    }

    async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary("hookstream"));
        self.environment(&mut command);
        tokio::time::timeout(BOUND, command.args(arguments).kill_on_drop(true).output())
            .await
            .context("it doesn't end")?
            .context("it runs")
    }
}

/// A running `hookstream dev` that is ready.
struct Dev {
    process: Process,
    address: String,
    sender: Sender,
}

impl Dev {
    async fn start(place: &Place, flags: &[&str]) -> Result<Dev> {
        Dev::spawn(
            place,
            Command::new(binary("hookstream"))
                .arg("dev")
                .args(flags)
                .arg(&place.manifests),
        )
        .await
    }

    async fn spawn(place: &Place, command: &mut Command) -> Result<Dev> {
        place.environment(command);
        let process = Process::spawn(
            command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]),
            "hookstream dev",
        )?;
        let ready = process
            .line(BOUND, |line| line.starts_with("ready: http://127.0.0.1:"))
            .await?;
        let address = ready.trim_start_matches("ready: ").to_owned();
        Ok(Dev {
            process,
            address,
            sender: Sender::default(),
        })
    }

    async fn line(&self, words: &[&str]) -> Result<String> {
        self.process
            .line(BOUND, |line| words.iter().all(|word| line.contains(word)))
            .await
            .with_context(|| format!("a line with {words:?}"))
    }

    async fn post(&self, source: &str, body: &'static str) -> Result<Answer> {
        self.sender
            .post(&format!("{}/v1/ingest/{source}", self.address), &[], body)
            .await
    }
}

/// Command lines of running Postgres servers on a data folder below `folder`.
fn postgres_in(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.to_str().context("UTF-8")?;
    let processes = fs::read_dir("/proc")?.flatten().filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|b| b.is_ascii_digit())
    });
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    Ok(lines
        .filter(|line| line.contains("postgres") && line.contains(folder))
        .collect())
}

fn entries(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

async fn is_root() -> Result<bool> {
    Ok(Command::new("id")
        .arg("-u")
        .output()
        .await?
        .stdout
        .trim_ascii()
        == b"0")
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn assert_failed(output: &Output, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{}", said(output));
    assert!(
        words.iter().all(|word| stderr.contains(word)),
        "{words:?} in {stderr}"
    );
}

/// For what sends no signal: a process table, a folder.
async fn until(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let watching = async {
        while !holds()? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    tokio::time::timeout(BOUND, watching)
        .await
        .with_context(|| format!("never: {what}"))?
}

/// As with `| head -1`.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_failure() -> Result<()> {
    let place = Place::new()?;
    let event = place.root.join("event.json");
    fs::write(&event, r#"{"type":"order.paid","data":{"id":7}}"#)?;
    let topics = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/topics");
    let event = event.to_str().context("UTF-8")?;
    for arguments in [
        &["lint", "-f", topics][..],
        &["test", "-f", topics, "--topic", "orders", "--event", event],
    ] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let output = Command::new(binary("hookstream"))
            .args(arguments)
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .spawn()?
            .wait_with_output()
            .await?;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(said(&output), "");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn test_shows_what_becomes_of_a_publication() -> Result<()> {
    let place = Place::new()?;
    let event = place.root.join("event.json");
    let file = event.to_str().context("UTF-8")?;
    let topics = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/topics");
    let (right, wrong) = (
        "X-API-Key: an-example-key-of-the-shop",
        "X-API-Key: another-one-of-theirs",
    );
    let paid = r#"{"type":"order.paid","data":{"id":7}}"#;
    let batch = format!(r#"{{"events":[{paid},{{"type":"order.created","data":{{"id":8}}}}]}}"#);
    for (body, more, code, words) in [
        (
            paid,
            &["--header", right][..],
            0,
            &[
                "publish key   one of the topic's",
                "schema        the body fits",
                "published at once",
                "subscription  orders-to-shop  takes it      → shop",
                "subscription  paid-orders-to-warehouse  takes it      → warehouse",
                r#"{"pack":7}"#,
            ][..],
        ),
        (
            &batch,
            &["--batch", "--path", "?postIn=2h"],
            0,
            &[
                "none was given",
                "schema        event 1: the body fits",
                "scheduled     for 2",
                "event         1 of the batch",
                "paid-orders-to-warehouse  filtered out  `body.type eq",
            ],
        ),
        (
            paid,
            &["--header", wrong],
            1,
            &["refused", "no publish key of the topic: 401"],
        ),
        (
            r#"{"type":"order.lost"}"#,
            &[],
            1,
            &["order.lost is not among", "order.created, order.paid: 422"],
        ),
        (
            r#"{"type":"order.paid","data":{}}"#,
            &[],
            1,
            &["/data: ", "(required)", "422"],
        ),
        ("[1]", &[], 1, &["an event is a JSON object", "400"]),
        (
            paid,
            &["--path", "?postAt=2020-01-01T00:00:00Z"],
            1,
            &["refused", "400"],
        ),
    ] {
        fs::write(&event, body)?;
        let always = ["test", "-f", topics, "--topic", "orders", "--event", file];
        let output = place.run(&[&always, more].concat()).await?;
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        for word in words {
            assert!(said(&output).contains(word), "{word} in {}", said(&output));
        }
    }
    for (wrong, code) in [
        (&["--topic", "nobodys"][..], 1),
        (&["--topic", "orders", "--source", "orders"], 2),
        (&["--source", "orders", "--batch"], 2),
    ] {
        let always = ["test", "-f", topics, "--event", file];
        let output = place.run(&[&always, wrong].concat()).await?;
        assert_eq!(
            output.status.code(),
            Some(code),
            "{wrong:?} {}",
            said(&output)
        );
    }
    Ok(())
}
