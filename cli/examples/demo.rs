//! `make demo`: hookstream at work, from the outside.
//!
//! Starts `hookstream dev examples/quickstart` as a person would, plays GitHub and Stripe (each signs as it documents),
//! plays a forger, and plays the receiver, which is down when the first event comes. Says what happened to each and
//! ends with 0; anything that isn't as expected ends it with 1, and so does half a minute.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cli::folder::Folder;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use service::clock;
use sha2::Sha256;
use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::{mpsc, watch},
};

/// Of the whole demo. It takes about four seconds.
const BOUND: Duration = Duration::from_secs(30);

const RECEIVER: &str = "127.0.0.1:9900";

#[tokio::main]
async fn main() -> Result<()> {
    tokio::time::timeout(BOUND, demo())
        .await
        .context("not done within half a minute")?
}

async fn demo() -> Result<()> {
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/quickstart")
        .canonicalize()
        .context("examples/quickstart")?;
    let (folder, receiver, _copy) = with_free_receiver(&quickstart).await?;
    println!("\nhookstream dev {}\n", show(&folder));
    let mut dev = Dev::start(&folder).await?;

    println!("\n1. GitHub pushes; the receiver on {receiver} is down");
    let push = accepted(
        post(
            dev.address,
            "github",
            github(&secret(&folder, "github-webhook")?),
        )
        .await?,
    )?;
    dev.line(&[&push.event_id, "attempt 1", "next in"])
        .await
        .context("the first attempt should have failed and been set for a retry")?;

    println!("\n2. The receiver comes up; the retry finds it");
    let received = Received::listen(receiver).await?;
    let pushed = received.event(&push.event_id).await?;
    let push_took = clock::instant() - push.sent_at;

    println!("\n3. Stripe tells of a payment");
    let payment = accepted(
        post(
            dev.address,
            "stripe",
            stripe(&secret(&folder, "stripe-webhook")?),
        )
        .await?,
    )?;
    let paid = received.event(&payment.event_id).await?;
    let payment_took = clock::instant() - payment.sent_at;

    println!("\n4. Somebody who doesn't know the secret");
    let forged = post(dev.address, "github", github(b"a guess")).await?;
    ensure!(
        forged.status == 401,
        "a wrong signature got {} and not 401",
        forged.status
    );
    let request_id = forged.body["request_id"]
        .as_str()
        .context("an error has a request_id")?;

    dev.line(&[&payment.event_id, "delivered"]).await?;
    dev.line(&[request_id]).await?;
    dev.stop().await?;

    println!("\nWhat happened");
    println!(
        "  accepted   GitHub push      {}   answered in {}",
        push.event_id,
        millis(push.answered_in)
    );
    println!(
        "  delivered                   attempt {pushed}, {} after it was sent",
        millis(push_took)
    );
    println!(
        "  accepted   Stripe payment   {}   answered in {}",
        payment.event_id,
        millis(payment.answered_in)
    );
    println!(
        "  delivered                   attempt {paid}, {} after it was sent",
        millis(payment_took)
    );
    println!(
        "  refused    forged push      {request_id}   401 {} in {}",
        forged.body["code"].as_str().unwrap_or_default(),
        millis(forged.answered_in)
    );
    ensure!(
        pushed >= 2,
        "the push should have needed a retry, and came with attempt {pushed}"
    );
    println!("\nWhere to go next");
    println!(
        "  target/debug/hookstream dev examples/quickstart     keeps running: edit the manifests, and a save is live at once"
    );
    println!(
        "  target/debug/hookstream lint -f examples/quickstart checks them, as a pull request would"
    );
    println!(
        "  README.md                                           the same files on a cluster: helm install, kubectl apply\n"
    );
    Ok(())
}

/// The quickstart as it is; or a copy with another port, when something else listens on the receiver's.
async fn with_free_receiver(
    quickstart: &Path,
) -> Result<(PathBuf, SocketAddr, Option<tempfile::TempDir>)> {
    let usual: SocketAddr = RECEIVER.parse().context("an address")?;
    if TcpListener::bind(usual).await.is_ok() {
        return Ok((quickstart.to_owned(), usual, None));
    }
    let free = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let copy = tempfile::tempdir()?;
    for file in std::fs::read_dir(quickstart)? {
        let file = file?;
        let text = std::fs::read_to_string(file.path())?.replace(RECEIVER, &free.to_string());
        std::fs::write(copy.path().join(file.file_name()), text)?;
    }
    println!("{usual} is taken: using a copy of the quickstart with {free}");
    Ok((copy.path().to_owned(), free, Some(copy)))
}

/// What the provider would know: the secret, read from the manifest so that the demo follows an edited one.
fn secret(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let declared = Folder::new([folder.to_owned()]).read(clock::now())?;
    let data = declared
        .secrets
        .get(&("default".to_owned(), name.to_owned()))
        .with_context(|| format!("Secret {name} in {}", folder.display()))?;
    Ok(data
        .get("secret")
        .context("its key `secret`")?
        .expose()
        .to_vec())
}

/// `hookstream dev`, running.
struct Dev {
    child: Child,
    address: SocketAddr,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Dev {
    async fn start(folder: &Path) -> Result<Dev> {
        let binary = std::env::current_exe()?
            .ancestors()
            .nth(2)
            .context("target/debug")?
            .join("hookstream");
        let mut child = Command::new(&binary)
            .arg("dev")
            .arg(folder)
            .args([
                "--ephemeral",
                "--listen",
                &free_or_any("127.0.0.1:8080").await,
                "--admin-listen",
                &free_or_any("127.0.0.1:9090").await,
            ])
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!("{} (build it with `cargo build -p cli`)", binary.display())
            })?;
        let stdout = child.stdout.take().context("its stdout is piped")?;
        // A line is read at once; the bound only has to hold what arrives while the demo looks elsewhere.
        let (sender, lines) = mpsc::channel(1024);
        tokio::spawn(async move {
            let mut stdout = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = stdout.next_line().await {
                println!("   │ {line}");
                if sender.send(line).await.is_err() {
                    return;
                }
            }
        });
        let mut dev = Dev {
            child,
            address: ([127, 0, 0, 1], 0).into(),
            lines,
            seen: Vec::new(),
        };
        let ready = dev
            .line(&["ready: http://"])
            .await
            .context("hookstream dev didn't become ready: what it says is above")?;
        dev.address = ready
            .trim_start_matches("ready: http://")
            .trim()
            .parse()
            .with_context(|| format!("an address in {ready:?}"))?;
        Ok(dev)
    }

    /// The line that holds all these words, printed already or to come.
    async fn line(&mut self, words: &[&str]) -> Result<String> {
        let fits = |line: &String| words.iter().all(|word| line.contains(word));
        loop {
            if let Some(line) = self.seen.iter().find(|line| fits(line)) {
                return Ok(line.clone());
            }
            match self.lines.recv().await {
                Some(line) => self.seen.push(line),
                None => bail!("hookstream dev ended before it printed {words:?}"),
            }
        }
    }

    /// As ctrl-C does: it drains and ends with 0.
    async fn stop(mut self) -> Result<()> {
        let id = self
            .child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()))
            .context("hookstream dev has ended by itself")?;
        rustix::process::kill_process(id, rustix::process::Signal::INT)?;
        let status = self.child.wait().await?;
        ensure!(status.success(), "hookstream dev ended with {status}");
        Ok(())
    }
}

async fn free_or_any(address: &str) -> String {
    match TcpListener::bind(address).await {
        Ok(_) => address.to_owned(),
        Err(_) => {
            println!("{address} is taken: using another port");
            "127.0.0.1:0".to_owned()
        }
    }
}

/// A request as a provider sends it.
struct Webhook {
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn hmac_sha256(secret: &[u8], parts: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    hex::encode(mac.finalize().into_bytes())
}

/// <https://docs.github.com/webhooks/webhook-events-and-payloads#push>
fn github(secret: &[u8]) -> Webhook {
    let repository = json!({"id": 186853002, "name": "Hello-World", "full_name": "Codertocat/Hello-World", "private": false,
        "html_url": "https://github.com/Codertocat/Hello-World", "default_branch": "main", "owner": {"login": "Codertocat", "id": 21031067}});
    let commit = json!({"id": "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c", "message": "Update README.md", "timestamp": "2026-11-21T12:00:00+01:00",
        "author": {"name": "Codertocat", "email": "21031067+Codertocat@users.noreply.github.com"}, "added": [], "removed": [], "modified": ["README.md"]});
    let body = json!({"ref": "refs/heads/main", "before": "6113728f27ae82c7b1a177c8d03f9e96e0adf246", "after": "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c",
        "repository": repository, "pusher": {"name": "Codertocat", "email": "21031067+Codertocat@users.noreply.github.com"},
        "sender": {"login": "Codertocat", "id": 21031067, "type": "User"}, "created": false, "deleted": false, "forced": false, "base_ref": null,
        "compare": "https://github.com/Codertocat/Hello-World/compare/6113728f27ae...0d1a26e67d8f", "commits": [commit], "head_commit": commit})
    .to_string()
    .into_bytes();
    Webhook {
        headers: vec![
            ("user-agent", "GitHub-Hookshot/044aadd".into()),
            ("content-type", "application/json".into()),
            ("x-github-hook-id", "292430182".into()),
            ("x-github-event", "push".into()),
            ("x-github-delivery", uuid::Uuid::now_v7().to_string()),
            (
                "x-hub-signature-256",
                format!("sha256={}", hmac_sha256(secret, &[&body])),
            ),
        ],
        body,
    }
}

/// <https://docs.stripe.com/webhooks?verify=verify-manually>
fn stripe(secret: &[u8]) -> Webhook {
    let sent = clock::now().as_second().to_string();
    let body = json!({"id": "evt_1RqYzL2eZvKYlo2C8m0tTest", "object": "event", "api_version": "2026-10-28.basil", "created": clock::now().as_second(),
        "data": {"object": {"id": "pi_3RqYzL2eZvKYlo2C1gQ0Test", "object": "payment_intent", "amount": 2000, "currency": "usd", "status": "succeeded"}},
        "livemode": false, "pending_webhooks": 1, "request": {"id": "req_oyYFfuGzZ8Test", "idempotency_key": "d2ad8f4c"}, "type": "payment_intent.succeeded"})
    .to_string()
    .into_bytes();
    Webhook {
        headers: vec![
            (
                "user-agent",
                "Stripe/1.0 (+https://stripe.com/docs/webhooks)".into(),
            ),
            ("content-type", "application/json; charset=utf-8".into()),
            (
                "stripe-signature",
                format!(
                    "t={sent},v1={}",
                    hmac_sha256(secret, &[sent.as_bytes(), b".", &body])
                ),
            ),
        ],
        body,
    }
}

/// What the sender of a webhook sees.
struct Answer {
    status: u16,
    body: Value,
    sent_at: Instant,
    answered_in: Duration,
}

async fn post(address: SocketAddr, source: &str, webhook: Webhook) -> Result<Answer> {
    let mut request =
        Request::post(format!("/v1/ingest/{source}")).header("host", address.to_string());
    for (name, value) in webhook.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(webhook.body)))?;
    let sent_at = clock::instant();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(TcpStream::connect(address).await?))
            .await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    let answered_in = clock::instant() - sent_at;
    let body = serde_json::from_slice(&body).with_context(|| {
        format!(
            "an answer in JSON, and not {:?}",
            String::from_utf8_lossy(&body)
        )
    })?;
    Ok(Answer {
        status,
        body,
        sent_at,
        answered_in,
    })
}

struct Accepted {
    event_id: String,
    sent_at: Instant,
    answered_in: Duration,
}

fn accepted(answer: Answer) -> Result<Accepted> {
    ensure!(
        answer.status == 200,
        "got {} and not 200: {}",
        answer.status,
        answer.body
    );
    let event_id = answer.body["event_id"]
        .as_str()
        .context("an accepted event has an event_id")?
        .to_owned();
    Ok(Accepted {
        event_id,
        sent_at: answer.sent_at,
        answered_in: answer.answered_in,
    })
}

/// The receiver: answers 200 and remembers which attempt brought which event.
struct Received {
    attempts: watch::Receiver<HashMap<String, u32>>,
}

impl Received {
    async fn listen(address: SocketAddr) -> Result<Received> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("the receiver's {address}"))?;
        let (sender, attempts) = watch::channel(HashMap::new());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let header = |name: &str| {
                        request
                            .headers()
                            .get(name)
                            .and_then(|value| value.to_str().ok())
                            .unwrap_or_default()
                            .to_owned()
                    };
                    let (event, attempt) = (
                        header("x-hookstream-event-id"),
                        header("x-hookstream-delivery-attempt").parse().unwrap_or(0),
                    );
                    sender.send_modify(|attempts| {
                        attempts.insert(event, attempt);
                    });
                    async {
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(
                            b"thank you",
                        ))))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        Ok(Received { attempts })
    }

    /// Waits for an event and answers the number of the attempt that brought it.
    async fn event(&self, event_id: &str) -> Result<u32> {
        let mut attempts = self.attempts.clone();
        let attempts = attempts
            .wait_for(|attempts| attempts.contains_key(event_id))
            .await?;
        Ok(attempts[event_id])
    }
}

/// Relative to where the demo was started, when that is shorter.
fn show(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here)
        .unwrap_or(path)
        .display()
        .to_string()
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
