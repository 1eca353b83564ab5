//! Dead letters as a person meets them: the built command on the database of a `hookstream dev` that runs.
//!
//! Rows and jobs have no signal of their own, so what a test waits for is asked again and again, within a bound.

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tests::{
    process::{Process, binary},
    receiver::Receiver,
    sender::Sender,
    trial,
};
use tokio::process::Command;

const BOUND: Duration = Duration::from_secs(60);

struct Ground {
    root: tempfile::TempDir,
    receiver: Receiver,
    well: Arc<AtomicBool>,
    dev: Process,
    url: String,
}

impl Ground {
    /// `examples/retries` with a receiver that fails until it's told to be well.
    async fn new() -> Result<Ground> {
        let well = Arc::new(AtomicBool::new(false));
        let answers = well.clone();
        let receiver = Receiver::answering(move |_, _| match answers.load(Ordering::Relaxed) {
            true => StatusCode::OK,
            false => StatusCode::INTERNAL_SERVER_ERROR,
        })
        .await?;
        let root = tempfile::tempdir()?;
        for folder in ["", "manifests", "home", "tmp"] {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder)?;
            // Postgres doesn't run as root.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        }
        let manifests = trial::root().join("examples/retries/retries.yaml");
        let text = fs::read_to_string(manifests)?;
        let text = text.replace("127.0.0.1:9900", &receiver.address.to_string());
        fs::write(root.path().join("manifests/retries.yaml"), text)?;
        let mut command = Command::new(binary("hookstream"));
        command
            .env_remove("DATABASE_URL")
            .env("HOME", root.path().join("home"))
            .env("TMPDIR", root.path().join("tmp"))
            .args(["dev", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(root.path().join("data"))
            .arg(root.path().join("manifests"));
        let dev = Process::spawn(&mut command, "hookstream dev")?;
        let ready = dev.line(BOUND, |line| line.starts_with("ready: ")).await?;
        Ok(Ground {
            root,
            receiver,
            well,
            dev,
            url: ready.trim_start_matches("ready: ").to_owned(),
        })
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let output = Command::new(binary("hookstream"))
            .env_remove("DATABASE_URL")
            .env("USER", "anna")
            .args(arguments)
            .arg("--data-dir")
            .arg(self.data())
            .output()
            .await?;
        Ok(output)
    }

    /// What it prints for people.
    async fn text(&self, code: i32, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        let said = said(&output);
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?} ended with {:?}: {said}",
            output.status
        );
        Ok(said)
    }

    /// What it prints for programs.
    async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.run(&[arguments, &["-o", "json"]].concat()).await?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{arguments:?}: {}", said(&output)))
    }

    /// Asks until the answer is like that.
    async fn until(&self, arguments: &[&str], like: impl Fn(&Value) -> bool) -> Result<Value> {
        let began = service::clock::instant();
        loop {
            let answer = self.json(arguments).await?;
            if like(&answer) {
                return Ok(answer);
            }
            ensure!(began.elapsed() < BOUND, "{arguments:?}: {answer:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

fn text<'v>(value: &'v Value, pointer: &str) -> Result<&'v str> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.with_context(|| format!("no text at {pointer} in {value:#}"))
}

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_lists_looks_at_and_sends_again_what_was_given_up() -> Result<()> {
    let ground = Ground::new().await?;
    let none = ground.text(0, &["deliveries", "list"]).await?;
    has(&none, &["no dead letters"]);
    // One attempt each, by the connection's own policy.
    let sender = Sender::default();
    for n in 0..4 {
        let (url, body) = (
            format!("{}/v1/ingest/hints", ground.url),
            format!("hint {n}"),
        );
        let answer = sender.post(&url, &[], body).await?;
        ensure!(answer.status == StatusCode::OK, "{answer:?}");
    }
    let four = |list: &Value| {
        list["dead_letters"]
            .as_array()
            .is_some_and(|all| all.len() == 4)
    };
    let list = ground.until(&["deliveries", "dlq"], four).await?;
    let id = text(&list, "/dead_letters/0/id")?.to_owned();
    let event = text(&list, "/dead_letters/0/event_id")?.to_owned();

    let shown = ["deliveries", "list", "--state", "dead-letter"];
    let found = [
        "--destination",
        "shop",
        "--reason",
        "retries_spent",
        "--from",
        "1h",
        "--text",
        "hint 3",
    ];
    let shown = ground.text(0, &[&shown[..], &found].concat()).await?;
    has(
        &shown,
        &["DELIVERY", "hints-to-shop", "retries_spent", "500"],
    );
    assert_eq!(shown.lines().count(), 2, "{shown}");
    let page = ground.json(&["deliveries", "list", "--limit", "3"]).await?;
    let cursor = text(&page, "/next_cursor")?;
    let rest = ground
        .json(&["deliveries", "list", "--cursor", cursor])
        .await?;
    assert_eq!(rest["dead_letters"].as_array().map(Vec::len), Some(1));
    let elsewhere = ground
        .text(0, &["deliveries", "list", "-n", "other"])
        .await?;
    has(&elsewhere, &["no dead letters", "other"]);
    let unknown = ["deliveries", "list", "--destination", "nowhere"];
    has(&ground.text(1, &unknown).await?, &["nowhere", "dst_"]);
    let nothing = ["deliveries", "get", "dlv_0192f3a4b5c67d8e9f00112233440000"];
    has(&ground.text(1, &nothing).await?, &["no such delivery"]);

    // By hand, one of them; whoever asks twice is told.
    ground.well.store(true, Ordering::Relaxed);
    let retried = ground.text(0, &["deliveries", "retry", &id]).await?;
    has(&retried, &[&id, "goes again"]);
    ground.receiver.until(5, BOUND).await?;
    let delivered = |one: &Value| one["state"] == "delivered";
    let one = ground.until(&["deliveries", "get", &id], delivered).await?;
    let attempt = |n: usize, key: &str| one["attempts"][n][key].clone();
    assert_eq!(attempt(0, "trigger"), "initial");
    assert_eq!(
        (attempt(0, "status"), attempt(1, "status")),
        (500.into(), 200.into())
    );
    assert_eq!(
        (attempt(1, "trigger"), attempt(1, "number")),
        ("manual".into(), 2.into())
    );
    assert_eq!(
        (attempt(0, "response_body"), &one["retries"][0]["by"]),
        ("ok".into(), &Value::from("anna"))
    );
    let by_attempt = text(&one, "/attempts/1/id")?;
    let history = ground.text(0, &["deliveries", "get", by_attempt]).await?;
    has(
        &history,
        &[
            &id,
            &event,
            "delivered",
            "by anna",
            "retries_spent",
            "manual",
        ],
    );
    let again = ground.text(1, &["deliveries", "retry", &id]).await?;
    has(&again, &["stays as it is", "did not fail"]);
    let event = ground.text(0, &["events", "retry", &event]).await?;
    has(&event, &["none of its deliveries is a dead letter"]);

    // The rest as a job, under a key.
    has(
        &ground.text(1, &["jobs", "create"]).await?,
        &["--destination", "--all"],
    );
    let create = [
        "jobs",
        "create",
        "--destination",
        "shop",
        "--rate-limit",
        "50",
        "--idempotency-key",
        "monday",
    ];
    let job = ground.json(&create).await?;
    let job = text(&job, "/id")?.to_owned();
    let done = |job: &Value| job["state"] == "done";
    let ended = ground.until(&["jobs", "get", &job], done).await?;
    assert_eq!((&ended["retried"], &ended["total"]), (&3.into(), &3.into()));
    ground.receiver.until(8, BOUND).await?;
    assert_eq!(ground.json(&create).await?["id"], *job);
    let other = [&create[..], &["--max-deliveries", "1"]].concat();
    has(&ground.text(1, &other).await?, &["idempotency key", &job]);
    let stopped = ground.text(0, &["jobs", "stop", &job]).await?;
    has(&stopped, &["done", "3 of 3"]);
    has(
        &ground.text(0, &["jobs", "list", "--state", "done"]).await?,
        &[&job, "50/s", "anna"],
    );
    has(
        &ground.text(0, &["deliveries", "list"]).await?,
        &["no dead letters"],
    );

    for wrong in [
        &["deliveries", "retry"][..],
        &["deliveries", "get", "evt_1"],
        &["deliveries", "list", "--from", "soon"],
        &["jobs", "create", "--all", "--rate-limit", "1001"],
    ] {
        ground.text(2, wrong).await?;
    }
    let file = ground.data().join("database-url");
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let Ground { dev, root, .. } = ground;
    assert_eq!(dev.stop(BOUND).await?.code(), Some(0));
    ensure!(!file.exists(), "nobody runs there any more");
    drop(root);
    Ok(())
}

#[tokio::test]
async fn a_database_that_is_not_named_or_not_there_is_told_without_its_password() -> Result<()> {
    for (url, words) in [
        (None, "DATABASE_URL"),
        (
            Some("postgres://user:hunter2@127.0.0.1:1/x"),
            "can't be reached",
        ),
    ] {
        let mut command = Command::new(binary("hookstream"));
        command
            .env_remove("DATABASE_URL")
            .args(["deliveries", "list"]);
        command.envs(url.map(|url| ("DATABASE_URL", url)));
        let output = command.output().await?;
        assert_eq!(output.status.code(), Some(1));
        has(&said(&output), &[words]);
        assert!(!said(&output).contains("hunter2"));
    }
    Ok(())
}
