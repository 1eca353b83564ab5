//! A topic in the table: who may publish to it, what, and where it goes.

use super::{Connection, index, matching, schema};
use crate::{
    event::EventView,
    filter::Index,
    ids::{self, Prefix},
    row::{self, Row},
    schema as schemas,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::{Choice, ConstantTimeEq};
use uuid::Uuid;

#[derive(Debug)]
pub struct Topic {
    pub uid: Uuid,
    /// `top_…`
    pub id: String,
    pub namespace: String,
    pub name: String,
    /// Sorted; empty: any.
    pub event_types: Vec<String>,
    /// What published events have to fit, compiled.
    pub schema: Option<Arc<schemas::Check>>,
    /// In the order of their UIDs.
    pub subscriptions: Vec<Arc<Connection>>,
    /// Of `subscriptions`, by their places.
    index: Index,
    /// SHA-256 of each publish key: of one length, whatever the keys' are.
    keys: Vec<[u8; 32]>,
}

/// A key that a publisher presents, as topics compare it: hashed once, however many topics are asked.
pub struct PublishKey([u8; 32]);

impl PublishKey {
    pub fn new(key: &[u8]) -> PublishKey {
        PublishKey(Sha256::digest(key).into())
    }
}

impl Topic {
    pub(super) fn new(
        row: &Row,
        spec: &row::TopicSpec,
        subscriptions: Vec<Arc<Connection>>,
        before: Option<&Topic>,
    ) -> Topic {
        let keys = spec.publish_keys.iter();
        Topic {
            uid: row.uid,
            id: ids::format(Prefix::Topic, row.uid),
            namespace: row.namespace.clone(),
            name: row.name.clone(),
            event_types: spec.event_types.clone(),
            schema: schema(
                spec.schema.as_ref(),
                before.and_then(|before| before.schema.as_ref()),
            ),
            index: index(&subscriptions),
            subscriptions,
            // An index that leads nowhere is a key that nobody has.
            keys: keys
                .filter_map(|key| row.secrets.get(usize::from(key.0)))
                .map(|secret| Sha256::digest(secret.expose()).into())
                .collect(),
        }
    }

    /// Whether anybody may publish.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Takes the same time for every key that is not one of this topic's, however much of it is right.
    pub fn admits(&self, presented: &PublishKey) -> bool {
        let found = self.keys.iter().fold(Choice::from(0), |found, known| {
            found | known.ct_eq(&presented.0)
        });
        found.into()
    }

    /// Whether events of this type may be published; `None`: the event says none.
    pub fn takes(&self, event_type: Option<&str>) -> bool {
        self.event_types.is_empty()
            || event_type.is_some_and(|found| {
                self.event_types
                    .binary_search_by(|known| known.as_str().cmp(found))
                    .is_ok()
            })
    }

    /// The subscriptions that this event goes by, in the order of their UIDs; as [`super::Source::route`].
    pub fn route<'t>(&'t self, event: &EventView<'_>) -> Vec<&'t Arc<Connection>> {
        matching(&self.subscriptions, &self.index, event)
    }
}
