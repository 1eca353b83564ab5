//! The project as its users meet it: real Postgres, real API server, real processes.
//!
//! What tests and the benchmark share. The tests themselves are in `tests/tests/`.

pub mod cluster;
pub mod process;
pub mod receiver;
pub mod sender;
pub mod trial;
