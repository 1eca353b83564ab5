//! The gateway as it ships: the release binary, a process of its own, on a database with published routes.

use crate::{
    load::{STAMP, Template},
    room::Room,
};
use anyhow::Context;
use hmac::{Hmac, KeyInit, Mac};
use routing::{compile::Compiler, row::Row, secret::Secret};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use store::{Keyring, Lease, Store, routes::Epoch};
use tests::process::{Process, free_port};
use uuid::Uuid;

pub(crate) const SECRET: &[u8] = b"a secret of the benchmark's own";

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    process: Process,
    compiler: Compiler,
    keyring: Keyring,
    leader: Lease,
    epoch: Epoch,
    _folder: tempfile::TempDir,
}

impl Gateway {
    /// On a new database, with a source `bench` (HMAC), a destination `sink` and a connection between them.
    pub(crate) async fn start(
        room: &Room,
        database: &str,
        destination: Value,
    ) -> anyhow::Result<Gateway> {
        let store = room.database(database).await?;
        let folder = tempfile::tempdir()?;
        let keyring = Keyring::generate();
        let file = folder.path().join("keyring");
        std::fs::write(&file, keyring.to_text().expose())?;
        let leader = store::lease::acquire(
            &store.pool,
            store::lease::OPERATOR,
            "bench",
            Duration::from_secs(3600),
        )
        .await?
        .context("a new database has no leader")?;
        let epoch = store::routes::begin_epoch(&store.pool, "bench", &leader).await?;
        let mut compiler = Compiler::new([]);
        compiler.set_namespace("default".into(), Some([].into()));
        compiler.set_secret(
            ("default".into(), "bench".into()),
            Some([("key".to_owned(), Secret::new(SECRET))].into()),
        );
        let (public, admin) = (free_port(), free_port());
        let address: SocketAddr = format!("127.0.0.1:{public}").parse()?;
        let process = Process::start(
            "hookstream-gateway",
            &[
                "--listen",
                &address.to_string(),
                "--admin-listen",
                &format!("127.0.0.1:{admin}"),
                "--egress-allow",
                "127.0.0.0/8",
                "--log",
                "warn",
            ],
            &[
                ("DATABASE_URL", room.url(database)),
                ("HOOKSTREAM_KEYRING", file.display().to_string()),
            ],
        )?;
        let mut gateway = Gateway {
            address,
            store,
            process,
            compiler,
            keyring,
            leader,
            epoch,
            _folder: folder,
        };
        let source = json!({"path": "bench", "verification": {"hmac": {"algorithm": "SHA256", "header": "x-signature", "encoding": "Hex", "prefix": "v1="}, "secretRefs": [{"name": "bench", "key": "key"}]}});
        gateway.apply(&[
            object("Source", 1, source, 1),
            object("Destination", 2, destination, 1),
            object(
                "Connection",
                3,
                json!({"source": {"name": "bench"}, "destination": {"name": "sink"}}),
                1,
            ),
        ])?;
        gateway.publish().await?;
        Ok(gateway)
    }

    /// Puts objects into the compiler, unpublished.
    pub(crate) fn apply(&mut self, objects: &[Value]) -> anyhow::Result<()> {
        for object in objects {
            self.compiler.apply(crds::parse(object.clone())?);
        }
        Ok(())
    }

    pub(crate) fn apply_all(&mut self, resources: Vec<crds::Resource>) {
        for resource in resources {
            self.compiler.apply(resource);
        }
    }

    /// Publishes what is compiled, and waits until the gateway has said that it routes by it.
    pub(crate) async fn publish(&mut self) -> anyhow::Result<Duration> {
        let delta = self.compiler.compile();
        if let Some((uid, verdict)) = delta
            .verdicts
            .iter()
            .find(|(_, verdict)| !verdict.findings.is_empty())
        {
            anyhow::bail!("{uid} does not compile: {:?}", verdict.findings);
        }
        let rows: &[Row] = &delta.changed;
        let start = service::clock::instant();
        let published = store::routes::publish(
            &self.store.pool,
            self.epoch,
            &self.leader.holder,
            rows,
            &delta.removed,
            &self.keyring,
        )
        .await?;
        let limit = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let live = store::replicas::live(&self.store.pool, Duration::from_secs(30)).await?;
                if live
                    .iter()
                    .any(|replica| replica.applied_revision >= published.revision)
                {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        limit.await.with_context(|| {
            format!(
                "the gateway did not load revision {}:\n{}",
                published.revision,
                self.process.output()
            )
        })??;
        Ok(start.elapsed())
    }

    pub(crate) fn destination(spec: Value, generation: i64) -> Value {
        object("Destination", 2, spec, generation)
    }

    /// A signed POST of this body to another source, with an id that differs each time.
    pub(crate) fn request_to(&self, source: &str, body: &[u8]) -> Template {
        let signature = sign(body);
        Template::post(
            self.address,
            &format!("/v1/ingest/{source}"),
            &format!("x-signature: v1={signature}\r\nx-id: {STAMP}\r\n"),
            body,
        )
    }

    /// A signed POST of this body.
    pub(crate) fn request(&self, body: &[u8]) -> Template {
        Template::post(
            self.address,
            "/v1/ingest/bench",
            &format!("x-signature: v1={}\r\n", sign(body)),
            body,
        )
    }

    /// The process's resident memory in MiB.
    pub(crate) fn memory_mib(&self) -> anyhow::Result<f64> {
        let id = self.process.id().context("the gateway has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .context("no VmRSS")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }

    /// CPU seconds that the process has used.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let id = self.process.id().context("the gateway has ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .context("no command in stat")?
            .1
            .split_whitespace()
            .collect();
        // utime and stime, in ticks of 10 ms.
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
    }

    pub(crate) async fn queued(&self) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar("select count(*) from queue")
            .fetch_one(self.store.pool.raw())
            .await?)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.process.stop(Duration::from_secs(30)).await?;
        self.store.pool.close().await;
        Ok(())
    }
}

pub(crate) fn sign(body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET).expect("any length is a key");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

pub(crate) fn object(kind: &str, series: u128, spec: Value, generation: i64) -> Value {
    let name = match kind {
        "Source" => "bench",
        "Destination" => "sink",
        _ => "bench-to-sink",
    };
    json!({
        "apiVersion": "hookstream.io/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "default", "generation": generation, "uid": Uuid::from_u128(series).to_string(), "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    })
}
