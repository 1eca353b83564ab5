//! Custom resources in, routing table out.
//!
//! Pure: no IO, no clock, no async, no randomness. Values in, values out; so it cannot fail half-way and every rule is
//! a table test. `compile` never stops at a bad object: what is wrong becomes a finding on that object and everything
//! else still routes.
//!
//! Not here: Kubernetes calls (`operator`), SQL (`store`), sockets (`gateway`).

pub mod admission;
pub mod cloudevents;
pub mod compile;
pub mod dedup;
pub mod delivery;
pub mod duration;
pub mod event;
pub mod filter;
pub mod ids;
pub mod ip;
pub mod payload;
pub mod publication;
pub mod retry;
pub mod row;
pub mod schema;
pub mod secret;
pub mod shard;
pub mod sign;
pub mod size;
pub mod table;
pub mod transform;
pub mod url;
pub mod verify;

pub use event::EventView;
pub use row::{Kind, Row, RowKey};
pub use table::Table;
