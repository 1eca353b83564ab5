//! Removes objects that no event refers to.
//!
//! Two kinds: an orphan, whose event was never recorded since its gateway or its sender went away in between; and all of a
//! day that retention has dropped. The database decides both, and its clock what is old: an object is looked at once it
//! is older than any commit that may still be under way.
//!
//! Keys of a day are in the order of their events' ids, which is the order of time. So a pass looks only at what came
//! since the last one, and the first pass of a new holder of the lease at everything that is kept.

use super::Bodies;
use crate::duty::Duty;
use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use object_store::{ObjectMeta, ObjectStore, path::Path};
use routing::ids::{self, Prefix};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::{Pool, events, partitions};
use uuid::Uuid;

/// Between two passes. The longest pass is ended then too, and goes on with the next.
pub const EVERY: Duration = Duration::from_secs(600);

/// No upload and no commit is under way for so long.
pub const GRACE: Duration = Duration::from_secs(3600);

/// Objects that one question to the database is about.
const ASKED: usize = 500;

/// Objects of a dropped day that one pass removes: a store that bills or limits deletions has its peace in between.
const RETIRED: usize = 100_000;

#[derive(Debug)]
pub struct Sweep {
    pub pool: Pool,
    pub bodies: Bodies,
    pub grace: Duration,
    /// Everything from before was looked at. `None`: nothing was.
    pub from: Option<Timestamp>,
}

impl Duty for Sweep {
    const NAME: &'static str = "bodies";

    async fn perform(&mut self) -> anyhow::Result<()> {
        match tokio::time::timeout(EVERY, self.pass()).await {
            Ok(done) => done,
            Err(_) => anyhow::bail!("a pass took longer than {} s", EVERY.as_secs()),
        }
    }

    fn relieved(&mut self) {
        // Whoever did it meanwhile may have seen less.
        self.from = None;
    }
}

impl Sweep {
    async fn pass(&mut self) -> anyhow::Result<()> {
        let bodies = self.bodies.clone();
        let Some((store, root, metrics)) = bodies.swept() else {
            return Ok(());
        };
        let now = partitions::database_clock(&self.pool)
            .await
            .context("the database's clock")?;
        let until = now
            .checked_sub(self.grace)
            .context("the database's clock")?;
        let kept = partitions::event_days(&self.pool)
            .await
            .context("looking for days")?;
        let first = *kept.first().context("history has no day at all")?;
        let mut swept_to = until;
        for day in days(store, root).await? {
            if day < first {
                let gone = retire(store, root.clone().join(day.to_string())).await?;
                metrics.retired(gone);
                tracing::info!(%day, gone, "bodies of a day that retention has dropped");
            } else if self.from.is_none_or(|from| day >= date(from)) {
                let (orphans, youngest_left) = self.sweep_day(store, root, day, until).await?;
                metrics.orphans(orphans);
                swept_to = swept_to.min(youngest_left);
                if orphans > 0 {
                    tracing::info!(%day, orphans, "bodies without an event");
                }
            }
        }
        self.from = Some(swept_to);
        Ok(())
    }

    /// Removes the orphans of a day. Returns how many, and until when everything was looked at.
    async fn sweep_day(
        &self,
        store: &Arc<dyn ObjectStore>,
        root: &Path,
        day: Date,
        until: Timestamp,
    ) -> anyhow::Result<(u64, Timestamp)> {
        let folder = root.clone().join(day.to_string());
        let objects = match self.from.filter(|from| date(*from) == day) {
            Some(from) => {
                let after = folder
                    .clone()
                    .join(ids::format(Prefix::Event, first_of(from)));
                store.list_with_offset(Some(&folder), &after)
            }
            None => store.list(Some(&folder)),
        };
        let (mut gone, mut left) = (0, until);
        let mut chunks = objects.try_chunks(ASKED);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| error.1).context("listing objects")?;
            let mut old = Vec::with_capacity(chunk.len());
            for object in chunk {
                // What isn't named as ours isn't ours.
                let Some(id) = id_of(&object) else { continue };
                if modified(&object) < until {
                    old.push((id, object.location));
                } else {
                    left = left.min(partitions::time_of_id(id));
                }
            }
            let ids: Vec<Uuid> = old.iter().map(|(id, _)| *id).collect();
            let there = events::existing(&self.pool, &ids)
                .await
                .context("looking for events")?;
            old.retain(|(id, _)| !there.contains(id));
            let orphans = old.into_iter().map(|(_, key)| Ok(key));
            gone += remove(store, futures::stream::iter(orphans).boxed()).await?;
        }
        Ok((gone, left))
    }
}

/// The days that have objects, oldest first.
async fn days(store: &Arc<dyn ObjectStore>, root: &Path) -> anyhow::Result<BTreeSet<Date>> {
    let listed = store
        .list_with_delimiter(Some(root))
        .await
        .context("listing days")?;
    let days = listed.common_prefixes.iter();
    Ok(days
        .filter_map(|day| day.filename()?.parse().ok())
        .collect())
}

async fn retire(store: &Arc<dyn ObjectStore>, folder: Path) -> anyhow::Result<u64> {
    let objects = store.list(Some(&folder)).take(RETIRED);
    remove(store, objects.map_ok(|object| object.location).boxed()).await
}

async fn remove(
    store: &Arc<dyn ObjectStore>,
    keys: BoxStream<'static, object_store::Result<Path>>,
) -> anyhow::Result<u64> {
    let mut removed = store.delete_stream(keys);
    let mut gone = 0;
    while let Some(key) = removed.next().await {
        match key {
            Ok(_) => gone += 1,
            // Somebody else was quicker.
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error).context("removing objects"),
        }
    }
    Ok(gone)
}

fn id_of(object: &ObjectMeta) -> Option<Uuid> {
    ids::parse(Prefix::Event, object.location.filename()?)
}

fn modified(object: &ObjectMeta) -> Timestamp {
    // What no clock can say is not old.
    Timestamp::from_millisecond(object.last_modified.timestamp_millis()).unwrap_or(Timestamp::MAX)
}

fn date(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// Before every id of that millisecond.
fn first_of(time: Timestamp) -> Uuid {
    Uuid::from_u128(u128::from(time.as_millisecond().unsigned_abs()) << 80)
}
