//! The one row that says how this database was laid out: the number of shards, which never changes.

use crate::{
    Pool,
    error::Result,
    pool::{On, Session},
};
use sqlx::Row;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installation {
    /// At least 1.
    pub shards: u16,
}

/// [`crate::Error::Schema`] when the database was never migrated.
pub async fn load(pool: &Pool) -> Result<Installation> {
    let mut session = pool.session().await?;
    let installation = load_within(pool, &mut session).await?;
    session.done().await?;
    Ok(installation)
}

pub(crate) async fn load_within(pool: &Pool, session: &mut Session) -> Result<Installation> {
    let row = pool
        .query("SELECT shards FROM installation")
        .one(session)
        .await?;
    let shards: i16 = row.try_get("shards")?;
    Ok(Installation {
        shards: shards.unsigned_abs(),
    })
}
