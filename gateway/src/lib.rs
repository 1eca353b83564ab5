//! Accepts webhooks, records them, delivers them.
//!
//! A request's way, file by file: `server` (sockets) → `ingest` (read, verify, match) → `recorder` (one commit for many)
//! → 200 to the sender; then `scheduler` (what is due) → `deliver` (one attempt) → `outcomes` (one commit for many).
//! Beside it: `table` keeps the routing table current, `leases` says which shards are this replica's, `notifier` tells
//! other replicas what was recorded for theirs, `tasks` are the housekeeping, most of it a `duty` that one replica
//! does for all.
//!
//! `run` starts and stops these in order, and is the only file that knows them all.
//!
//! Not here: SQL (`store`), rules (`routing`), Kubernetes (nowhere in the gateway yet).

pub mod args;
pub mod bodies;
pub mod deliver;
pub mod duty;
pub mod egress;
pub mod errors;
pub mod hints;
pub mod ingest;
pub mod jobs;
pub mod leases;
pub mod metrics;
pub mod notifier;
pub mod outcomes;
pub mod recorder;
pub mod run;
pub mod scheduled;
pub mod scheduler;
pub mod seen;
pub mod server;
pub mod table;
pub mod tasks;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
