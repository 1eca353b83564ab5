//! `make bench`: what the gateway reaches on this machine, as ratios to what plain inserts reach in the same run.
//!
//! Everything shares the machine's cores: Postgres (private, fsync on), the gateway (its release binary, a process of
//! its own), the load generator and the receiver (this process). Only ratios taken in one run mean anything; absolute
//! figures move with the machine.
//!
//! Prints a table, writes `target/bench.json`, and ends with 1 if a figure falls short of its goal.

mod baseline;
mod checks;
mod compile;
mod dedup;
mod filters;
mod gateway;
mod http1;
mod load;
mod receiver;
mod report;
mod room;
mod rules;
mod scenarios;
mod transform;

use anyhow::Context;
use report::Report;

fn main() -> anyhow::Result<()> {
    // The pool's children are this binary too.
    sandbox::child_main_if_asked();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("a TLS provider is installed once")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(run(&wanted))?;
    report.print();
    report.write("target/bench.json")?;
    std::process::exit(if report.all_reached() { 0 } else { 1 })
}

/// Runs the scenarios whose names begin with one of `wanted`, or all.
async fn run(wanted: &[String]) -> anyhow::Result<Report> {
    let wants =
        |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.starts_with(w.as_str()));
    let mut report = Report::default();
    if wants("compile") {
        compile::run(&mut report)?;
    }
    if wants("filters") {
        filters::run(&mut report)?;
    }
    if wants("checks") {
        checks::run(&mut report)?;
    }
    if wants("transform") {
        transform::run(&mut report).await?;
    }
    if ![
        "ingest", "rules", "delivery", "latency", "drain", "publish", "dedup",
    ]
    .into_iter()
    .any(wants)
    {
        return Ok(report);
    }
    let room = room::Room::start().await?;
    let baseline = baseline::run(&room).await?;
    report.note(
        "baseline rows/s",
        baseline,
        "event + queue row, batches of 50, 4 connections",
    );
    if wants("ingest") {
        scenarios::ingest(&room, baseline, &mut report).await?;
    }
    if wants("rules") {
        rules::run(&room, &mut report).await?;
    }
    if wants("delivery") {
        scenarios::delivery(&room, baseline, &mut report).await?;
    }
    if wants("latency") {
        scenarios::latency(&room, 200, &mut report).await?;
        scenarios::latency(&room, 500, &mut report).await?;
    }
    if wants("drain") {
        scenarios::drain(&room, &mut report).await?;
    }
    if wants("publish") {
        scenarios::publish(&room, &mut report).await?;
    }
    if wants("dedup") {
        dedup::run(&room, &mut report).await?;
    }
    room.stop().await?;
    Ok(report)
}
