//! A real kube-apiserver for tests, and what tests do with it.
//!
//! One server a test process ([`shared`]), each test in a namespace of its own; a test that stops the server or takes CRDs
//! away starts its own ([`Cluster::start`]). Servers end with the test process however that dies: a small shell waits
//! for the end of a pipe that only the test process holds open.

pub mod gateways;
pub mod operators;
pub mod world;

use anyhow::Context;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config,
    api::{DynamicObject, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{
        wait::{await_condition, conditions::is_crd_established},
        watcher,
    },
};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};
use tokio::sync::OnceCell;

/// The limit of every wait for something that takes a second at most when nothing is wrong.
pub const SOON: Duration = Duration::from_secs(30);

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testground/kubernetes");

/// Where the manifests of the contract, the CEL examples and so on are.
pub const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");

/// An API server with its etcd, ours alone.
pub struct Cluster {
    state: PathBuf,
    port: u16,
    /// Its standard input is the pipe whose end ends the servers.
    watchdog: Child,
}

static SHARED: OnceCell<Cluster> = OnceCell::const_new();

/// The API server that the tests of this process share, with our CRDs.
pub async fn shared() -> &'static Cluster {
    SHARED
        .get_or_init(|| async {
            let cluster = Cluster::start().await;
            cluster.install_crds().await;
            cluster
        })
        .await
}

impl Cluster {
    /// A new API server, without our CRDs. Three to five seconds.
    pub async fn start() -> Cluster {
        let _ = rustls::crypto::ring::default_provider().install_default();
        tokio::task::spawn_blocking(|| {
            sweep();
            let port = free_ports();
            let state = std::env::temp_dir()
                .join(format!("hookstream-cluster-{}-{port}", std::process::id()));
            std::fs::create_dir_all(&state).expect("the temporary folder can be written");
            let watchdog = watchdog(&state, port).expect("bash starts");
            let cluster = Cluster {
                state,
                port,
                watchdog,
            };
            cluster.up();
            cluster
        })
        .await
        .expect("starting an API server doesn't panic: see testground/kubernetes/up.sh")
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(format!("{SCRIPTS}/{name}"));
        command
            .env("TG_STATE", &self.state)
            .env("TG_PORT", self.port.to_string())
            .stdin(Stdio::null());
        command
    }

    /// Starts the servers, with the data that they had.
    pub fn up(&self) {
        // Not piped: the servers would hold the pipe open.
        let log = self.state.join("up.log");
        let file = std::fs::File::create(&log).expect("our own folder");
        let status = self
            .script("up.sh")
            .arg("api")
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .status()
            .expect("up.sh runs");
        assert!(
            status.success(),
            "up.sh failed:\n{}",
            std::fs::read_to_string(log).unwrap_or_default()
        );
    }

    /// Ends the servers; their data stays for [`Cluster::up`].
    pub fn down(&self) {
        let status = self
            .script("down.sh")
            .env("KEEP", "1")
            .status()
            .expect("down.sh runs");
        assert!(status.success(), "down.sh failed");
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("admin.kubeconfig")
    }

    /// A client of its administrator. Make it inside the runtime that uses it.
    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).expect("up.sh wrote it");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("up.sh wrote it");
        Client::try_from(config).expect("the configuration is complete")
    }

    /// `kubectl` with these arguments; its output, or what it complained of.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        use tokio::io::AsyncWriteExt;
        let mut child = tokio::process::Command::new(kubectl())
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("kubectl")?;
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
            .await
            .context("kubectl took too long")??;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::ensure!(
            output.status.success(),
            "kubectl {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }

    /// Our CRDs, established.
    pub async fn install_crds(&self) {
        let client = self.client().await;
        let api: Api<CustomResourceDefinition> = Api::all(client);
        for crd in crds::definitions::all() {
            let name = crd.metadata.name.clone().expect("a CRD has a name");
            api.patch(
                &name,
                &PatchParams::apply("tests").force(),
                &Patch::Apply(&crd),
            )
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for kind in crds::Kind::ALL {
            let name = format!("{}.{}", kind.plural(), crds::GROUP);
            tokio::time::timeout(
                SOON,
                await_condition(api.clone(), &name, is_crd_established()),
            )
            .await
            .expect("in time")
            .expect("watched");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The pipe's end; and wait, so that the next test finds the memory free.
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// Waits for its standard input to end, then takes the servers down.
fn watchdog(state: &Path, port: u16) -> std::io::Result<Child> {
    Command::new("setsid")
        .args(["bash", "-c", &format!("read -r; exec {SCRIPTS}/down.sh")])
        .env("TG_STATE", state)
        .env("TG_PORT", port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// Takes down what test processes left behind whose watchdog died too (a machine that ran out of memory).
fn sweep() {
    let Ok(folder) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in folder.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((pid, port)) = name
            .strip_prefix("hookstream-cluster-")
            .and_then(|rest| rest.split_once('-'))
        else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            let _ = Command::new(format!("{SCRIPTS}/down.sh"))
                .env("TG_STATE", entry.path())
                .env("TG_PORT", port)
                .status();
        }
    }
}

/// The first of three ports that are free now, below those that the system gives to clients.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 1000) as u16;
    for _ in 0..1000 {
        let port = 18_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 1000 * 8;
        if (port..port + 3).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return port;
        }
    }
    panic!("no three free ports in a row");
}

fn kubectl() -> PathBuf {
    static PATH: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PATH.get_or_init(|| {
        let output = Command::new(format!("{SCRIPTS}/build.sh"))
            .arg("control")
            .output()
            .expect("build.sh runs");
        assert!(
            output.status.success(),
            "build.sh: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        PathBuf::from(text.lines().last().expect("build.sh prints the folder")).join("kubectl")
    })
    .clone()
}

/// Waits until an object is as `wanted` says, by watching it; `None`: it isn't there. Says what it was at last, in time.
pub async fn until(
    api: &Api<DynamicObject>,
    name: &str,
    limit: Duration,
    mut wanted: impl FnMut(Option<&DynamicObject>) -> bool,
) -> Option<DynamicObject> {
    use futures::StreamExt;
    let mut last = None;
    let search = async {
        let mut stream = std::pin::pin!(watcher::watch_object(api.clone(), name));
        while let Some(object) = stream.next().await {
            // An API server that is away is part of some tests; the watch asks again.
            let Ok(object) = object else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            last = object;
            if wanted(last.as_ref()) {
                return;
            }
        }
    };
    if tokio::time::timeout(limit, search).await.is_err() {
        let shown =
            serde_json::to_string_pretty(&last.map(|object| object.data)).unwrap_or_default();
        panic!("{name} was not as it should be within {limit:?}; at last: {shown}");
    }
    last
}
