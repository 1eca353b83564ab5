//! The chart, by its own tools: helm, kubeconform, a real API server. The checks are scripts, so that a person can run
//! them too; here they count as tests.

use std::process::Command;

fn run(script: &str) {
    let path = format!("{}/../testground/{script}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(&path)
        .env("TG_PORT", tests::process::free_port().to_string())
        .output()
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{text}");
    assert!(
        text.lines().any(|line| line.starts_with("ok ")),
        "no check ran: {text}"
    );
}

#[test]
fn the_chart_lints_renders_and_refuses_unknown_values() {
    run("chart-check.sh");
}

#[test]
fn the_chart_installs_upgrades_and_uninstalls_on_a_real_api_server() {
    run("chart-install.sh");
}
