//! Gateways as the operator sees them: rows in the `replica` table.

use std::time::Duration;
use store::{
    Store, replicas,
    routes::{self, Head},
};
use tokio::task::JoinHandle;

/// A gateway that acknowledges what the test says.
pub struct Pinned {
    store: Store,
    pub id: String,
}

fn row(id: &str, head: Head) -> replicas::Replica {
    replicas::Replica {
        id: id.to_owned(),
        address: "127.0.0.1:1".to_owned(),
        roles: vec!["ingest".to_owned(), "delivery".to_owned()],
        version: "test".to_owned(),
        started_at: service::clock::now(),
        route_epoch: head.epoch,
        applied_revision: head.revision,
        unreadable_rows: 0,
        shards: 0,
    }
}

impl Pinned {
    /// A gateway that routes by this revision.
    pub async fn at(store: &Store, id: &str, head: Head) -> Pinned {
        let pinned = Pinned {
            store: store.clone(),
            id: id.to_owned(),
        };
        pinned.acknowledge(head).await;
        pinned
    }

    pub async fn acknowledge(&self, head: Head) {
        replicas::heartbeat(&self.store.pool, &row(&self.id, head))
            .await
            .expect("a heartbeat");
    }

    pub async fn leave(self) {
        replicas::leave(&self.store.pool, &self.id)
            .await
            .expect("a replica leaves");
    }
}

/// A gateway that acknowledges every revision at once, until it is dropped.
pub struct Following(JoinHandle<()>);

impl Following {
    pub fn start(store: &Store, id: &str) -> Following {
        let (store, id) = (store.clone(), id.to_owned());
        Following(tokio::spawn(async move {
            // A gateway polls too; this one so often that it needs no notifications.
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            loop {
                tick.tick().await;
                if let Ok(head) = routes::head(&store.pool).await {
                    let _ = replicas::heartbeat(&store.pool, &row(&id, head)).await;
                }
            }
        }))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}
