//! The parsers that eat a sender's bytes, each as a function of bytes that must return, and say nothing that isn't so.
//!
//! `cargo fuzz run NAME fuzz/seeds/NAME --features libfuzzer` searches for as long as it is let; `tests/short.rs` runs each
//! with its seeds and some thousand mutations of them, as part of the test suite. A find becomes a seed.

pub mod client_address;
pub mod filter_paths;
pub mod filters;
pub mod proxy_protocol;
pub mod publication;
pub mod request;
pub mod schema;
pub mod verification;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; each has a folder of seeds.
pub const TARGETS: &[Target] = &[
    ("client_address", client_address::run),
    ("filter_paths", filter_paths::run),
    ("filters", filters::run),
    ("proxy_protocol", proxy_protocol::run),
    ("publication", publication::run),
    ("schema", schema::run),
    ("verification", verification::run),
];
