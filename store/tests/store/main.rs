//! The store against a real Postgres: each test has a database of its own.

#![expect(
    clippy::disallowed_methods,
    reason = "tests stand for the processes that read the clock"
)]

mod crash;
mod dedup;
mod destination_state;
mod history;
mod idempotency;
mod jobs;
mod leases;
mod listen;
mod migrations;
mod outcomes;
mod plans;
mod pooler;
mod private_server;
mod queue;
mod replicas;
mod retries;
mod routes;
mod scheduled;
mod silent;
mod support;
mod tls;
