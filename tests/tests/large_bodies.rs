//! 512 MiB through a real gateway process: into the object store as it arrives, out of it to the destination, and never in
//! its memory.

use anyhow::{Context, ensure};
use hmac::{Hmac, KeyInit, Mac};
use routing::{Row, row, row::Spec, secret::Secret, verify};
use std::time::Duration;
use store::{Store, lease, routes, testing::Database};
use tests::{
    process::{Process, free_port},
    sender::Sender,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

const SIZE: usize = 512 << 20;
const SECRET: &str = "It's a Secret to Everybody";

/// What the process may need beyond what it needed before: two parts of the upload, buffers, and the allocator's slack.
const FLAT: u64 = 48 << 20;

const LONG: Duration = Duration::from_secs(240);

fn piece() -> Vec<u8> {
    (0..1_u64 << 20)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

fn row(name: &str, spec: Spec, secrets: Vec<Secret>) -> Row {
    Row {
        uid: Uuid::now_v7(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        generation: 1,
        spec,
        secrets,
    }
}

fn rows(url: String) -> anyhow::Result<Vec<Row>> {
    let github = verify::templates::Template::named("github").context("a template")?;
    let source = row::SourceSpec {
        path: Some("large".to_owned()),
        verification: Some(verify::Verification {
            scheme: github.scheme().context("it says all")?,
            secrets: vec![row::SecretIndex(0)],
            handshake: None,
            verify_token: None,
        }),
        max_body_bytes: SIZE as u64,
        ..row::SourceSpec::default()
    };
    let source = row("large", Spec::Source(source), vec![Secret::new(SECRET)]);
    let destination = row::DestinationSpec {
        provider: row::Provider::Http(row::HttpSpec {
            url,
            timeout: LONG,
            ..row::HttpSpec::default()
        }),
        ..row::DestinationSpec::default()
    };
    let destination = row("all", Spec::Destination(destination), Vec::new());
    let connection = row::ConnectionSpec {
        source: source.uid,
        destination: destination.uid,
        ..row::ConnectionSpec::default()
    };
    let connection = row("all", Spec::Connection(connection), Vec::new());
    Ok(vec![source, destination, connection])
}

async fn publish(store: &Store, keyring: &store::Keyring, rows: &[Row]) -> anyhow::Result<()> {
    let pool = &store.pool;
    let lease = lease::acquire(pool, lease::OPERATOR, "a test", LONG).await?;
    let lease = lease.context("a test's database is its own")?;
    let epoch = routes::begin_epoch(pool, "a test", &lease).await?;
    routes::publish(pool, epoch, "a test", rows, &[], keyring).await?;
    Ok(())
}

/// Takes one request whose body is [`piece`] over and over, and answers 200. Returns its size.
async fn take(listener: TcpListener) -> anyhow::Result<usize> {
    let (mut stream, _) = listener.accept().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?.to_lowercase();
    ensure!(
        head.contains(&format!("content-length: {SIZE}\r\n")),
        "{head}"
    );
    let (piece, mut read) = (piece(), 0);
    let mut buffer = vec![0; piece.len()];
    while read < SIZE {
        stream.read_exact(&mut buffer).await?;
        ensure!(buffer == piece, "another body behind {read} bytes");
        read += buffer.len();
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .await?;
    Ok(read)
}

/// Peak of what the process ever had in memory.
fn peak(process: &Process) -> anyhow::Result<u64> {
    let id = process.id().context("it runs")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("a peak")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_gibibyte_goes_through_a_gateway_whose_memory_stays_flat() -> anyhow::Result<()> {
    let database = Database::create().await;
    let folder = tempfile::tempdir()?;
    let (keyring, path) = (store::Keyring::generate(), folder.path().join("keyring"));
    std::fs::write(&path, keyring.to_text().expose())?;
    let receiver = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/hooks", receiver.local_addr()?);
    publish(&database.store, &keyring, &rows(url)?).await?;
    let taken = tokio::spawn(take(receiver));

    let (port, admin) = (free_port(), free_port());
    let gateway = Process::start(
        "hookstream-gateway",
        &[
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--admin-listen",
            &format!("127.0.0.1:{admin}"),
            "--egress-allow",
            "127.0.0.0/8",
            "--object-store",
            &format!("file://{}", folder.path().join("bodies").display()),
            "--max-body",
            "512Mi",
            "--log",
            "warn",
        ],
        &[
            ("DATABASE_URL", database.url().to_owned()),
            ("HOOKSTREAM_KEYRING", path.display().to_string()),
        ],
    )?;
    let sender = Sender::default();
    for _ in 0..600 {
        let ready = sender
            .get(&format!("http://127.0.0.1:{admin}/readyz"))
            .await;
        if ready.is_ok_and(|answer| answer.status == 200) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = peak(&gateway)?;

    let piece = piece();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes())?;
    for _ in 0..SIZE / piece.len() {
        mac.update(&piece);
    }
    let tag = hex::encode(mac.finalize().into_bytes());
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let head = format!(
        "POST /v1/ingest/large HTTP/1.1\r\nhost: hooks\r\nconnection: close\r\ncontent-length: {SIZE}\r\nx-hub-signature-256: sha256={tag}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..SIZE / piece.len() {
        stream.write_all(&piece).await?;
    }
    let mut answer = String::new();
    tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await??;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "{answer}\n{}",
        gateway.output()
    );

    let taken = tokio::time::timeout(LONG, taken).await;
    let taken = taken.with_context(|| gateway.output())???;
    assert_eq!(taken, SIZE);
    let grown = peak(&gateway)? - before;
    println!(
        "{} MiB at most before, {} MiB more for it",
        before >> 20,
        grown >> 20
    );
    assert!(
        grown < FLAT,
        "{} MiB more for a body of {} MiB",
        grown >> 20,
        SIZE >> 20
    );
    assert!(gateway.stop(Duration::from_secs(30)).await?.success());
    Ok(())
}
