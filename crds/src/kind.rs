//! The eight kinds, by name.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    Source,
    Destination,
    Connection,
    Topic,
    Subscription,
    AlertRule,
    NotificationChannel,
    Collection,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Kind; 8] = [
        Kind::Source,
        Kind::Destination,
        Kind::Connection,
        Kind::Topic,
        Kind::Subscription,
        Kind::AlertRule,
        Kind::NotificationChannel,
        Kind::Collection,
    ];

    /// As in `kind:`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Source => "Source",
            Kind::Destination => "Destination",
            Kind::Connection => "Connection",
            Kind::Topic => "Topic",
            Kind::Subscription => "Subscription",
            Kind::AlertRule => "AlertRule",
            Kind::NotificationChannel => "NotificationChannel",
            Kind::Collection => "Collection",
        }
    }

    /// As in URLs and RBAC rules.
    pub const fn plural(self) -> &'static str {
        match self {
            Kind::Source => "sources",
            Kind::Destination => "destinations",
            Kind::Connection => "connections",
            Kind::Topic => "topics",
            Kind::Subscription => "subscriptions",
            Kind::AlertRule => "alertrules",
            Kind::NotificationChannel => "notificationchannels",
            Kind::Collection => "collections",
        }
    }

    /// As in `kubectl get hsrc`: prefixed, since other groups have Subscriptions and Sources too.
    pub const fn short_name(self) -> &'static str {
        match self {
            Kind::Source => "hsrc",
            Kind::Destination => "hdst",
            Kind::Connection => "hconn",
            Kind::Topic => "htop",
            Kind::Subscription => "hsub",
            Kind::AlertRule => "halert",
            Kind::NotificationChannel => "hnc",
            Kind::Collection => "hcol",
        }
    }

    /// What the id of such a resource begins with.
    pub const fn id_prefix(self) -> &'static str {
        match self {
            Kind::Source => "src_",
            Kind::Destination => "dst_",
            Kind::Connection => "conn_",
            Kind::Topic => "top_",
            Kind::Subscription => "sub_",
            Kind::AlertRule => "ar_",
            Kind::NotificationChannel => "nc_",
            Kind::Collection => "col_",
        }
    }

    /// The id of a resource: the prefix and its UID without dashes.
    pub fn id(self, uid: Uuid) -> String {
        format!("{}{}", self.id_prefix(), uid.simple())
    }

    /// The kind that `kind:` names.
    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
