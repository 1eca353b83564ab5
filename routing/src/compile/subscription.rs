//! A Subscription is a Connection whose source is a Topic: what a connection can do, it can do by the same code.

use crds::{ConnectionSpec, ObjectRef, SubscriptionSpec};

/// Taken apart by name, so that a field which joins one of the two doesn't compile until it is thought of here.
pub(super) fn as_connection(spec: SubscriptionSpec) -> ConnectionSpec {
    let SubscriptionSpec {
        display_name,
        topic,
        destination,
        suspend,
        filter,
        transform,
        retry,
    } = spec;
    ConnectionSpec {
        display_name,
        source: ObjectRef {
            name: topic.name,
            namespace: None,
        },
        destination,
        suspend,
        filter,
        transform,
        retry,
    }
}
