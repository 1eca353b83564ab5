//! Everything that is written to or read from Postgres: history, queue, leases, routes.
//!
//! One file per table. No other crate has SQL, so a table's every reader and writer is in its file. Two statements are
//! hot and each is one round trip for a whole batch: [`events::record`] and [`outcomes::write`].
//!
//! What the room guarantees:
//! - an event and its deliveries are in the database together or not at all, and writing them twice is writing them once;
//! - a write that names a lease's epoch happens only while that lease is still its writer's: a late owner writes nothing;
//! - the database's clock decides who holds a lease, the local clock only when to stop trusting it.
//!
//! Not here: what an outcome means (`routing::retry`), when to retry a failed call (the callers; [`Error::is_transient`]).

pub mod attempts;
pub mod dedup;
pub mod deliveries;
pub mod destination_state;
pub mod error;
pub mod events;
pub mod idempotency;
pub mod installation;
pub mod jobs;
pub mod keyring;
pub mod lease;
pub mod listen;
mod migrate;
pub mod outcomes;
pub mod partitions;
pub mod pool;
pub mod private_server;
pub mod queue;
pub mod replicas;
pub mod retries;
pub mod routes;
pub mod scheduled;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;

pub use error::{Error, Result};
pub use keyring::Keyring;
pub use lease::{Held, Lease};
pub use migrate::{DEFAULT_SHARDS, Migrated, migrate};
pub use pool::{Options, Pool, Store};
pub use private_server::PrivateServer;
