//! Circuits that somebody wants closed: an annotation on the Destination, whose value tells one wish from the next.
//!
//! The annotation is only read. What was asked for is in the database, so a new leader that asks for everything once more
//! asks for nothing new, and an annotation that stays where it is resets no circuit twice.

use crate::change::Change;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use routing::shard;
use service::log::chain;
use std::collections::{BTreeMap, btree_map::Entry};
use store::{
    Pool,
    destination_state::{self, Reset},
    installation,
};
use uuid::Uuid;

/// Of a value, so many characters tell one from another.
const MARK: usize = 128;

/// Wishes in one statement.
const BATCH: usize = 1000;

/// What an object of this kind asks for.
pub fn mark(kind: crds::Kind, metadata: &ObjectMeta) -> Option<String> {
    if kind != crds::Kind::Destination {
        return None;
    }
    let value = metadata.annotations.as_ref()?.get(crds::RESET_CIRCUIT)?;
    Some(value.chars().filter(|c| *c != '\0').take(MARK).collect())
}

/// The wishes of all destinations, and which of them were passed on.
#[derive(Debug, Default)]
pub(crate) struct Resets {
    /// With whether it was asked for.
    marks: BTreeMap<Uuid, (String, bool)>,
}

impl Resets {
    /// Takes note of what an object asks for.
    pub(crate) fn see(&mut self, change: &Change) {
        let (uid, mark) = match change {
            Change::Apply(object) => (object.meta.uid, &object.observed.reset),
            Change::Status(uid, observed) => (*uid, &observed.reset),
            Change::Remove(uid) => (*uid, &None),
            _ => return,
        };
        match (self.marks.entry(uid), mark) {
            (Entry::Occupied(known), None) => {
                known.remove();
            }
            (Entry::Occupied(known), Some(mark)) if known.get().0 == *mark => {}
            (Entry::Occupied(mut known), Some(mark)) => {
                known.insert((mark.clone(), false));
            }
            (Entry::Vacant(place), Some(mark)) => {
                place.insert((mark.clone(), false));
            }
            (Entry::Vacant(_), None) => {}
        }
    }

    /// Another operator leads: should this one lead again, what it had asked for may be in another database.
    pub(crate) fn follow(&mut self) {
        for (_, asked) in self.marks.values_mut() {
            *asked = false;
        }
    }

    /// Passes on what was not. False: the database didn't take it all; try again.
    pub(crate) async fn ask(&mut self, pool: &Pool) -> bool {
        loop {
            let some: Vec<(Uuid, String)> = self
                .marks
                .iter()
                .filter(|(_, (_, asked))| !asked)
                .take(BATCH)
                .map(|(uid, (mark, _))| (*uid, mark.clone()))
                .collect();
            if some.is_empty() {
                return true;
            }
            match ask(pool, &some).await {
                Ok(new) if !new.is_empty() => {
                    tracing::info!(destinations = new.len(), "circuits are to be reset")
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "resets of circuits can't be asked for; will try again"
                    );
                    return false;
                }
            }
            for (uid, _) in some {
                if let Some((_, asked)) = self.marks.get_mut(&uid) {
                    *asked = true;
                }
            }
        }
    }
}

async fn ask(pool: &Pool, marks: &[(Uuid, String)]) -> store::Result<Vec<Uuid>> {
    let shards = installation::load(pool).await?.shards;
    let resets: Vec<Reset> = marks
        .iter()
        .map(|(uid, mark)| Reset {
            destination_id: *uid,
            shard: shard::of(*uid, shards),
            mark: mark.clone(),
        })
        .collect();
    destination_state::ask_for_resets(pool, &resets).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Observed;
    use serde_json::json;
    use store::testing::{Database, SHARDS};

    fn seen(uid: u128, mark: Option<&str>) -> Change {
        Change::Status(
            Uuid::from_u128(uid),
            Observed {
                reset: mark.map(str::to_owned),
                ..Observed::default()
            },
        )
    }

    #[test]
    fn only_a_destination_asks_and_only_by_its_annotation() {
        let metadata: ObjectMeta = serde_json::from_value(
            json!({"annotations": {crds::RESET_CIRCUIT: "x".repeat(500), "a": "b"}}),
        )
        .unwrap();
        let asked = mark(crds::Kind::Destination, &metadata);
        assert_eq!(asked, Some("x".repeat(MARK)));
        assert_eq!(mark(crds::Kind::Source, &metadata), None);
        assert_eq!(mark(crds::Kind::Destination, &ObjectMeta::default()), None);
    }

    #[tokio::test]
    async fn a_value_is_passed_on_once_whoever_leads() {
        let database = Database::create().await;
        let pool = &database.store.pool;
        let wanted = |uid: u128| async move {
            let shard = shard::of(Uuid::from_u128(uid), SHARDS);
            let resets = destination_state::resets(pool, shard).await.unwrap();
            let ours = resets
                .into_iter()
                .find(|reset| reset.destination_id == Uuid::from_u128(uid));
            ours.map(|reset| reset.mark)
        };
        let mut first = Resets::default();
        for change in [
            seen(1, Some("a")),
            seen(2, None),
            seen(3, Some("a")),
            seen(3, None),
        ] {
            first.see(&change);
        }
        assert!(first.ask(pool).await);
        assert_eq!(
            (wanted(1).await.as_deref(), wanted(2).await, wanted(3).await),
            (Some("a"), None, None)
        );
        // Done by a gateway; neither the next leader nor a status that changes asks again.
        let done = "UPDATE destination_state SET reset_done = reset_wanted";
        sqlx::raw_sql(done).execute(pool.raw()).await.unwrap();
        let mut second = Resets::default();
        for resets in [&mut first, &mut second] {
            resets.see(&seen(1, Some("a")));
            assert!(resets.ask(pool).await);
        }
        assert_eq!(wanted(1).await, None);
        second.see(&seen(1, Some("b")));
        assert!(second.ask(pool).await);
        assert_eq!(wanted(1).await.as_deref(), Some("b"));
    }
}
