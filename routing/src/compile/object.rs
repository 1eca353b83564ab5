//! A resource as the compiler sees it: who it is, what it says, what it refers to.

use super::{SecretName, index::Age};
use crds::{AllowedNamespaces, FromNamespaces, Kind, ObjectRef, Resource};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ObjectName {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

#[derive(Debug)]
pub(super) struct Object {
    pub(super) kind: Kind,
    pub(super) uid: Uuid,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) generation: i64,
    created: Option<jiff::Timestamp>,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Source(Box<crds::SourceSpec>),
    Destination(Box<crds::DestinationSpec>),
    /// Also a Subscription: a connection whose source is a Topic.
    Connection(Box<crds::ConnectionSpec>),
    Topic(Box<crds::TopicSpec>),
    /// A kind whose behaviour joins later.
    Later,
}

impl Object {
    pub(super) fn new(resource: Resource) -> Option<Object> {
        let kind = resource.kind();
        let meta = resource.metadata();
        let uid = meta
            .uid
            .as_deref()
            .and_then(|uid| Uuid::try_parse(uid).ok())?;
        Some(Object {
            kind,
            uid,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            body: match resource {
                Resource::Source(source) => Body::Source(Box::new(source.spec)),
                Resource::Destination(destination) => Body::Destination(Box::new(destination.spec)),
                Resource::Connection(connection) => Body::Connection(Box::new(connection.spec)),
                Resource::Topic(topic) => Body::Topic(Box::new(topic.spec)),
                Resource::Subscription(subscription) => Body::Connection(Box::new(
                    super::subscription::as_connection(subscription.spec),
                )),
                Resource::AlertRule(_)
                | Resource::NotificationChannel(_)
                | Resource::Collection(_) => Body::Later,
            },
        })
    }

    pub(super) fn name(&self) -> ObjectName {
        ObjectName {
            kind: self.kind,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    pub(super) fn age(&self) -> Age {
        (self.created.is_none(), self.created, self.uid)
    }

    /// Where a manifest names the source of a connection.
    pub(super) fn source_path(&self) -> &'static str {
        match self.kind {
            Kind::Subscription => "spec.topic",
            _ => "spec.source",
        }
    }

    /// The path that a source asks for.
    pub(super) fn path(&self) -> Option<&str> {
        match &self.body {
            Body::Source(spec) => spec.path.as_deref(),
            _ => None,
        }
    }

    pub(super) fn source(&self) -> Option<ObjectName> {
        match &self.body {
            Body::Connection(spec) => {
                let kind = match self.kind {
                    Kind::Subscription => Kind::Topic,
                    _ => Kind::Source,
                };
                Some(self.target(kind, &spec.source))
            }
            _ => None,
        }
    }

    pub(super) fn destination(&self) -> Option<ObjectName> {
        match &self.body {
            Body::Connection(spec) => Some(self.target(Kind::Destination, &spec.destination)),
            _ => None,
        }
    }

    pub(super) fn references(&self) -> impl Iterator<Item = ObjectName> {
        self.source().into_iter().chain(self.destination())
    }

    fn target(&self, kind: Kind, reference: &ObjectRef) -> ObjectName {
        ObjectName {
            kind,
            namespace: reference
                .namespace
                .clone()
                .unwrap_or_else(|| self.namespace.clone()),
            name: reference.name.clone(),
        }
    }

    /// The Secrets that are needed for what this version does.
    pub(super) fn secrets(&self) -> impl Iterator<Item = SecretName> {
        let names: Vec<&String> = match &self.body {
            Body::Source(spec) => {
                let references = spec
                    .verification
                    .iter()
                    .flat_map(|verification| &verification.secret_refs);
                references.map(|reference| &reference.name).collect()
            }
            Body::Destination(spec) => {
                let auth = spec.http.as_ref().and_then(|http| http.auth.as_ref());
                let basic = auth
                    .and_then(|auth| auth.basic.as_ref())
                    .map(|basic| &basic.secret_ref.name);
                let bearer = auth
                    .and_then(|auth| auth.bearer.as_ref())
                    .map(|bearer| &bearer.secret_ref.name);
                let api_key = auth
                    .and_then(|auth| auth.api_key.as_ref())
                    .map(|api_key| &api_key.secret_ref.name);
                let oauth2 = auth
                    .and_then(|auth| auth.oauth2.as_ref())
                    .map(|oauth2| &oauth2.secret_ref.name);
                let aws = auth
                    .and_then(|auth| auth.aws_sig_v4.as_ref()?.credentials_ref.as_ref())
                    .map(|credentials| &credentials.name);
                let tls = spec.http.as_ref().and_then(|http| http.tls.as_ref());
                let ca = tls.and_then(|tls| tls.ca_ref.as_ref()).map(|ca| &ca.name);
                let certificate = tls
                    .and_then(|tls| tls.client_certificate_ref.as_ref())
                    .map(|certificate| &certificate.name);
                let signing = spec.signing.iter().flat_map(|signing| &signing.secret_refs);
                [basic, bearer, api_key, oauth2, aws, ca, certificate]
                    .into_iter()
                    .flatten()
                    .chain(signing.map(|reference| &reference.name))
                    .collect()
            }
            Body::Topic(spec) => {
                let references = spec.publish_key_refs.iter();
                references.map(|reference| &reference.name).collect()
            }
            Body::Connection(_) | Body::Later => Vec::new(),
        };
        names
            .into_iter()
            .map(|name| (self.namespace.clone(), name.clone()))
    }

    /// The JSONata expressions that must be known to compile.
    pub(super) fn expressions(&self) -> impl Iterator<Item = &str> {
        let (filter, transform) = match &self.body {
            Body::Connection(spec) => (
                spec.filter
                    .as_ref()
                    .and_then(|filter| filter.expression.as_deref()),
                spec.transform
                    .as_ref()
                    .map(|transform| transform.jsonata.as_str()),
            ),
            Body::Source(_) | Body::Destination(_) | Body::Topic(_) | Body::Later => (None, None),
        };
        filter.into_iter().chain(transform)
    }

    fn allowed_namespaces(&self) -> Option<&AllowedNamespaces> {
        match &self.body {
            Body::Source(spec) => spec.allowed_namespaces.as_ref(),
            Body::Destination(spec) => spec.allowed_namespaces.as_ref(),
            Body::Connection(_) | Body::Topic(_) | Body::Later => None,
        }
    }

    /// Whether another namespace with these labels may refer to this object; `None`: nothing is known of that namespace.
    pub(super) fn admits(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let Some(allowed) = self.allowed_namespaces() else {
            return false;
        };
        match allowed.from {
            None | Some(FromNamespaces::Same) => false,
            Some(FromNamespaces::All) => true,
            // Without a selector nothing is selected; a selector without labels would select everything, and must say All.
            Some(FromNamespaces::Selector) => {
                let wanted = allowed
                    .selector
                    .as_ref()
                    .map(|selector| &selector.match_labels);
                wanted.zip(labels).is_some_and(|(wanted, labels)| {
                    !wanted.is_empty()
                        && wanted
                            .iter()
                            .all(|(name, value)| labels.get(name) == Some(value))
                })
            }
        }
    }

    pub(super) fn admits_like(&self, other: &Object) -> bool {
        self.allowed_namespaces() == other.allowed_namespaces()
    }
}
