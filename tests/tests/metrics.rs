//! What Prometheus scrapes, judged by its own tool: names, units and types of every metric of both processes, after some
//! traffic so that all series are there.

use anyhow::Context;
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};
use store::testing::Database;
use tests::{
    cluster::{self, SOON},
    process::{Process, free_port},
    sender::Sender,
};

fn promtool() -> PathBuf {
    let cache = std::env::var_os("TG_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache/test-ground"),
        PathBuf::from,
    );
    cache.join("bin/promtool")
}

/// `promtool check metrics`: no complaint.
fn lint(name: &str, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut child = Command::new(promtool())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool, which testground/install.sh promtool installs")?;
    child
        .stdin
        .take()
        .context("piped")?
        .write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    anyhow::ensure!(
        output.status.success() && said.trim().is_empty(),
        "{name}: {said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_both_processes_satisfy_promtool_and_name_no_sender() -> anyhow::Result<()> {
    let cluster = cluster::shared().await;
    let database = Database::empty().await;
    let folder = tempfile::tempdir()?;
    let keyring = folder.path().join("keyring");
    std::fs::write(&keyring, store::Keyring::generate().to_text().expose())?;
    let variables = [
        ("DATABASE_URL", database.url().to_owned()),
        ("HOOKSTREAM_KEYRING", keyring.display().to_string()),
        ("KUBECONFIG", cluster.kubeconfig().display().to_string()),
    ];
    let (public, gateway_admin, operator_admin) = (free_port(), free_port(), free_port());
    let gateway = Process::start(
        "hookstream-gateway",
        &[
            "--listen",
            &format!("127.0.0.1:{public}"),
            "--admin-listen",
            &format!("127.0.0.1:{gateway_admin}"),
            "--log",
            "warn",
        ],
        &variables,
    )?;
    let operator = Process::start(
        "hookstream-operator",
        &[
            "--admin-listen",
            &format!("127.0.0.1:{operator_admin}"),
            "--log",
            "warn",
        ],
        &variables,
    )?;
    let source = "apiVersion: hookstream.io/v1alpha1\nkind: Source\nmetadata: {name: metrics}\nspec: {path: metrics-of-both}\n";
    cluster
        .kubectl(&["apply", "-n", "default", "-f", "-"], source)
        .await?;
    cluster
        .kubectl(
            &[
                "wait",
                "--for=condition=Ready",
                "-n",
                "default",
                "hsrc/metrics",
                "--timeout=60s",
            ],
            "",
        )
        .await
        .with_context(|| format!("{}\n{}", gateway.output(), operator.output()))?;

    let sender = Sender::default();
    let accepted = sender
        .post(
            &format!("http://127.0.0.1:{public}/v1/ingest/metrics-of-both"),
            &[],
            "{}",
        )
        .await?;
    assert_eq!(accepted.status, 200, "{accepted:?}");
    let refused = sender
        .post(
            &format!("http://127.0.0.1:{public}/v1/ingest/no-such-source"),
            &[("x-a-header", "of-a-sender")],
            "{}",
        )
        .await?;
    assert_eq!(refused.status, 404);

    for (name, port, wanted) in [
        ("gateway", gateway_admin, "hookstream_ingest_accepted_total"),
        ("operator", operator_admin, "hookstream_operator_"),
    ] {
        let answer = sender
            .get(&format!("http://127.0.0.1:{port}/metrics"))
            .await?;
        assert_eq!(answer.status, 200);
        let text = String::from_utf8(answer.body.to_vec())?;
        assert!(text.contains(wanted), "{name} has no {wanted}:\n{text}");
        assert!(
            !text.contains("no-such-source") && !text.contains("of-a-sender"),
            "{name} has a label that a sender controls:\n{text}"
        );
        lint(name, &text)?;
    }
    assert_eq!(
        sender
            .get(&format!("http://127.0.0.1:{public}/metrics"))
            .await?
            .status,
        404,
        "the public port has no metrics"
    );
    assert!(gateway.stop(SOON).await?.success());
    assert!(operator.stop(Duration::from_secs(30)).await?.success());
    Ok(())
}
