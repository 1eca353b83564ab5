//! The custom resources of `hookstream.io/v1alpha1`: their types, rules and generated definitions.
//!
//! The documentation of each field ships: it is what `kubectl explain` says. What a field does is the compiler's
//! business (`routing`); here is only what a manifest may say. Nothing has a default in the schema, since the API server
//! would write it into people's objects.
//!
//! `rules.rs` holds what CEL checks, `definitions.rs` makes the CustomResourceDefinitions from types and rules, and
//! `resource.rs` reads a manifest without an API server.

mod alerting;
mod collection;
mod common;
mod connection;
pub mod definitions;
mod destination;
mod kind;
mod providers;
mod resource;
mod rules;
mod source;
mod status;
mod topic;

pub use alerting::*;
pub use collection::*;
pub use common::*;
pub use connection::*;
pub use destination::*;
pub use kind::Kind;
pub use providers::*;
pub use resource::{ParseError, Resource, parse};
pub use source::*;
pub use status::*;
pub use topic::*;

/// The API group.
pub const GROUP: &str = "hookstream.io";
/// The API version.
pub const VERSION: &str = "v1alpha1";
