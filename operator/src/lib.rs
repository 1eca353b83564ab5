//! The operator: watches the custom resources, compiles them, publishes the routing table and writes their statuses.
//!
//! ```text
//! watch ─┐                                           ┌─► Postgres: routes, by revision and epoch
//! secrets├─► Change ─► core (compile) ─► publisher ──┤
//! dev's  ┘                                           └─► Report ─► statuses ─► status_writer, events
//! folder                                                             ▲
//!                                     gateways' heartbeats ─► fleet ─┘
//! ```
//!
//! - `core`, `guard`, `status`, `affected` are pure. `publisher` adds Postgres; it and what is above the line knows no Kubernetes, so that
//!   `hookstream dev` runs the same code on a folder.
//! - Only the leader publishes and writes statuses; the others follow, warm.
//! - Nothing transient ends the process: an API server or a database that is away is asked again.
//!
//! Not here, on purpose: finalizers, webhooks, and any write to a user's spec, labels or annotations.

pub mod affected;
pub mod args;
pub mod backoff;
pub mod change;
pub mod circuits;
pub mod core;
pub mod events;
pub mod fleet;
pub mod guard;
pub mod health;
pub mod kinds;
pub mod leadership;
pub mod metrics;
pub mod notice;
pub mod publisher;
pub mod resets;
pub mod run;
pub mod secrets;
pub mod status;
pub mod status_writer;
pub mod statuses;
pub mod watch;
pub mod watching;

pub use args::Args;
