//! Writes statuses to the API server: a queue with one entry an object, the newest wins.
//!
//! Server-side apply of the status subresource under a field manager of our own. The patch names the object's UID, so
//! a status never lands on an object that was deleted and made again under the same name. Bounded by the number of objects.

use crate::change::Meta;
use crds::Status;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use service::log::chain;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;

pub const FIELD_MANAGER: &str = "hookstream-operator";

/// A call that takes longer is given up and made again.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A status to write.
#[derive(Debug, Clone)]
pub struct Write {
    pub meta: Arc<Meta>,
    pub status: Arc<Status>,
}

/// What came of a write.
#[derive(Debug)]
pub enum Outcome {
    Written {
        write: Write,
        resource_version: Option<u64>,
    },
    /// The object is gone, or another one has its name.
    Gone(Write),
    /// Will fail again as it is: says so in the log and waits for something to change.
    Refused(Write, String),
    /// Worth another try, of this object: not a word about the others.
    Denied(Write, String),
    /// Worth another try; the API server has trouble with everything.
    Failed(Write, String),
}

/// What waits, in the order in which it began to wait.
#[derive(Debug, Default)]
pub struct Queue {
    order: VecDeque<Uuid>,
    waiting: HashMap<Uuid, Write>,
    /// An object has one write under way at most, so that the newest is the last to land.
    in_flight: HashSet<Uuid>,
}

impl Queue {
    pub fn put(&mut self, write: Write) {
        let uid = write.meta.uid;
        if self.waiting.insert(uid, write).is_none() {
            self.order.push_back(uid);
        }
    }

    /// What waits for this object, not what is under way.
    pub fn waiting(&self, uid: Uuid) -> Option<&Write> {
        self.waiting.get(&uid)
    }

    /// The object is gone, or its status is right as it is.
    pub fn forget(&mut self, uid: Uuid) {
        // Its place in the order is skipped later.
        self.waiting.remove(&uid);
    }

    pub fn clear(&mut self) {
        self.order.clear();
        self.waiting.clear();
    }

    pub fn take(&mut self) -> Option<Write> {
        for _ in 0..self.order.len() {
            let uid = self.order.pop_front()?;
            if self.in_flight.contains(&uid) {
                self.order.push_back(uid);
            } else if let Some(write) = self.waiting.remove(&uid) {
                self.in_flight.insert(uid);
                return Some(write);
            }
        }
        None
    }

    pub fn done(&mut self, uid: Uuid) {
        self.in_flight.remove(&uid);
    }

    pub fn is_in_flight(&self, uid: Uuid) -> bool {
        self.in_flight.contains(&uid)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Writes one status.
pub async fn write(client: Client, write: Write) -> Outcome {
    let meta = &write.meta;
    let resource = crate::kinds::api_resource(meta.kind);
    let api: Api<DynamicObject> = Api::namespaced_with(client, &meta.namespace, &resource);
    let patch = Patch::Apply(serde_json::json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "name": meta.name, "uid": meta.uid.to_string() },
        "status": &*write.status,
    }));
    // Forced: nobody else owns a field of our status, and one who took one is to lose it.
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let call = api.patch_status(&meta.name, &parameters, &patch);
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(Ok(object)) => Outcome::Written {
            resource_version: crate::kinds::version(&object.metadata),
            write,
        },
        Ok(Err(kube::Error::Api(status))) => answered(write, status.code, status.message),
        Ok(Err(error)) => Outcome::Failed(write, chain(&error)),
        Err(_) => Outcome::Failed(write, "the API server does not answer".to_owned()),
    }
}

/// What an error's code says.
fn answered(write: Write, code: u16, message: String) -> Outcome {
    match code {
        404 => Outcome::Gone(write),
        // The UID differs.
        409 => Outcome::Gone(write),
        // Roles are given by namespace, and so are admission webhooks: one that is broken is a 500.
        401 | 403 | 500 => Outcome::Denied(write, message),
        429 | 501.. => Outcome::Failed(write, message),
        _ => Outcome::Refused(write, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_namespace_denies_holds_no_other_up() {
        for code in [401, 403, 500] {
            let outcome = answered(a_write(1, 1), code, String::new());
            assert!(matches!(outcome, Outcome::Denied(..)), "{code}");
        }
        for code in [429, 503, 504] {
            let outcome = answered(a_write(1, 1), code, String::new());
            assert!(matches!(outcome, Outcome::Failed(..)), "{code}");
        }
        let outcome = answered(a_write(1, 1), 422, String::new());
        assert!(matches!(outcome, Outcome::Refused(..)));
    }

    fn a_write(uid: u128, generation: i64) -> Write {
        let meta = Meta {
            kind: crds::Kind::Source,
            uid: Uuid::from_u128(uid),
            namespace: "n".into(),
            name: "s".into(),
            generation,
            path: None,
        };
        Write {
            meta: Arc::new(meta),
            status: Arc::new(Status::default()),
        }
    }

    #[test]
    fn the_newest_status_of_an_object_wins_and_keeps_its_place() {
        let mut queue = Queue::default();
        queue.put(a_write(1, 1));
        queue.put(a_write(2, 1));
        queue.put(a_write(1, 2));
        assert_eq!(queue.len(), 2);
        let first = queue.take().unwrap();
        assert_eq!(
            (first.meta.uid, first.meta.generation),
            (Uuid::from_u128(1), 2)
        );
    }

    #[test]
    fn an_object_has_one_write_under_way() {
        let mut queue = Queue::default();
        queue.put(a_write(1, 1));
        let first = queue.take().unwrap();
        queue.put(a_write(1, 2));
        assert!(queue.take().is_none());
        queue.done(first.meta.uid);
        assert_eq!(queue.take().unwrap().meta.generation, 2);
    }

    #[test]
    fn a_deleted_object_is_not_written() {
        let mut queue = Queue::default();
        queue.put(a_write(1, 1));
        queue.forget(Uuid::from_u128(1));
        assert!(queue.take().is_none());
    }
}
