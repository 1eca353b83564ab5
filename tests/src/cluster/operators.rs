//! Operators in this process, each in a runtime of its own: killing one is taking its runtime away.

use super::Cluster;
use clap::Parser;
use operator::Args;
use std::{net::SocketAddr, path::Path, time::Duration};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub struct Operator {
    runtime: Option<Runtime>,
    running: Option<JoinHandle<anyhow::Result<()>>>,
    token: CancellationToken,
    admin: SocketAddr,
}

impl Operator {
    /// Starts an operator with these flags beside those it needs.
    pub async fn start(
        cluster: &Cluster,
        database_url: &str,
        keyring: &Path,
        flags: &[&str],
    ) -> Operator {
        let admin: SocketAddr = ([127, 0, 0, 1], crate::process::free_port()).into();
        let keyring = keyring.to_str().expect("a temporary path is text");
        let admin_text = admin.to_string();
        let mut words = vec![
            "hookstream-operator",
            "--database-url",
            database_url,
            "--keyring",
            keyring,
            "--admin-listen",
            &admin_text,
        ];
        words.extend(["--public-url", "https://hooks.example.com/"]);
        words.extend(flags);
        let mut args = Args::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
        args.sandbox = sandbox::Program::of(crate::process::binary("hookstream-operator"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let token = CancellationToken::new();
        let kubeconfig =
            kube::config::Kubeconfig::read_from(cluster.kubeconfig()).expect("up.sh wrote it");
        let running = runtime.spawn({
            let token = token.clone();
            async move {
                let config =
                    kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
                operator::run::run(args, kube::Client::try_from(config)?, token).await
            }
        });
        Operator {
            runtime: Some(runtime),
            running: Some(running),
            token,
            admin,
        }
    }

    /// SIGTERM: it gives the lease back and ends.
    pub async fn stop(mut self) {
        self.token.cancel();
        let running = self.running.take().expect("runs until here");
        tokio::time::timeout(super::SOON, running)
            .await
            .expect("ends in time")
            .expect("doesn't panic")
            .expect("ends without an error");
    }

    /// What `kill -9` does: nothing is given back.
    pub fn kill(mut self) {
        self.runtime
            .take()
            .expect("runs until here")
            .shutdown_background();
    }

    /// The answer's status and body of the admin port; `None`: it doesn't answer.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = tokio::net::TcpStream::connect(self.admin).await.ok()?;
        stream
            .write_all(
                format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes(),
            )
            .await
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Waits until `path` answers as `wanted` says.
    pub async fn until(&self, path: &str, wanted: impl Fn(u16, &str) -> bool) -> String {
        let mut last = None;
        let search = async {
            loop {
                last = self.get(path).await;
                if let Some((status, body)) = &last
                    && wanted(*status, body)
                {
                    return body.clone();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match tokio::time::timeout(super::SOON, search).await {
            Ok(body) => body,
            Err(_) => panic!("{path} did not become as it should: {last:?}"),
        }
    }

    /// Waits until a metric without labels has this value.
    pub async fn metric(&self, name: &str, value: i64) {
        let line = format!("{name} {value}");
        self.until("/metrics", |_, body| {
            body.lines().any(|found| found == line)
        })
        .await;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
