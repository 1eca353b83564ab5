//! A fresh database per test, in one private server per user of the machine.

use crate::{Options, Store};

/// A migrated database of one test's own; dropped with this value.
pub struct Database {
    pub store: Store,
    url: String,
}

impl Database {
    /// With 8 shards and today's partitions. Panics with what to do when there's no Postgres to start.
    pub async fn create() -> Database {
        unimplemented!()
    }

    /// Without tables: never migrated.
    pub async fn empty() -> Database {
        unimplemented!()
    }

    /// `postgres://…`, for processes that a test starts.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Options for further pools on the same database.
    pub fn options(&self) -> Options {
        Options::new(&self.url)
    }
}
