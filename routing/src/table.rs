//! The routing table that a gateway holds in memory: built from rows, never changed, replaced whole.
//!
//! Looking a source up and matching its connections allocates nothing but the list of matches. A new revision shares
//! with the last what has not changed (`Arc`s), so applying one changed row to a table of ten thousand is cheap.

use crate::{
    admission::{ContentTypes, Cors, CustomResponse, IpFilter, RateLimit},
    dedup,
    event::EventView,
    filter::{Index, Matcher},
    ids::{self, Prefix},
    retry,
    row::{self, Kind, Row, RowKey, Spec},
    schema, transform,
    verify::Verifier,
};
use http::Method;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};
use uuid::Uuid;

#[cfg(test)]
mod tests;
mod topic;

pub use topic::{PublishKey, Topic};

/// One immutable revision.
#[derive(Debug, Default, Clone)]
pub struct Table {
    rows: HashMap<RowKey, Arc<Row>>,
    sources: HashMap<Uuid, Arc<Source>>,
    /// Own paths, and who claims each. The compiler lets one source have a path; while a gateway has a row that it
    /// couldn't replace there may be two, and then the lower UID wins on every replica.
    paths: HashMap<String, BTreeSet<Uuid>>,
    /// Bytes of the longest own path: bounds how far into a URL a path is looked for.
    longest_path: usize,
    topics: HashMap<Uuid, Arc<Topic>>,
    /// Topics by their names, of all namespaces.
    slugs: HashMap<String, BTreeSet<Uuid>>,
    destinations: HashMap<Uuid, Arc<Destination>>,
    connections: HashMap<Uuid, Arc<Connection>>,
}

#[derive(Debug)]
pub struct Source {
    pub uid: Uuid,
    /// `src_…`
    pub id: String,
    pub namespace: String,
    pub name: String,
    pub suspended: bool,
    /// Empty: any.
    pub methods: Vec<Method>,
    pub max_body_bytes: u64,
    pub archived: bool,
    pub ip_filter: Option<IpFilter>,
    pub content_types: ContentTypes,
    pub rate_limit: Option<RateLimit>,
    pub cors: Option<Cors>,
    /// `None`: 200 with the event's id as JSON.
    pub response: Option<CustomResponse>,
    pub verifier: Option<Verifier>,
    pub schema: Option<Arc<schema::Check>>,
    pub dedup: Option<dedup::Rule>,
    /// In the order of their UIDs.
    pub connections: Vec<Arc<Connection>>,
    /// Of `connections`, by their places.
    index: Index,
}

/// A Subscription too: a connection whose source is a topic.
#[derive(Debug)]
pub struct Connection {
    pub uid: Uuid,
    pub namespace: String,
    pub name: String,
    pub source: Uuid,
    pub destination: Uuid,
    pub suspended: bool,
    pub matcher: Matcher,
    /// The filter's expression, which is evaluated at delivery.
    pub expression: Option<transform::Expression>,
    pub transform: Option<transform::Transform>,
    pub retry: Option<retry::Policy>,
}

#[derive(Debug)]
pub struct Destination {
    pub uid: Uuid,
    pub namespace: String,
    pub name: String,
    pub generation: i64,
    pub spec: row::DestinationSpec,
    pub secrets: Vec<crate::secret::Secret>,
}

impl Table {
    /// A table of all these rows.
    pub fn build(rows: impl IntoIterator<Item = Row>) -> Table {
        Table::default().with(rows, [])
    }

    /// The next revision: `changed` rows replaced or added, `removed` gone.
    ///
    /// The result depends on the rows that are left and on nothing else, so any way to them gives the same table.
    pub fn with(
        &self,
        changed: impl IntoIterator<Item = Row>,
        removed: impl IntoIterator<Item = RowKey>,
    ) -> Table {
        let mut next = self.clone();
        // Sources whose view of the world is another than before: they are made anew at the end, once each.
        let mut touched = HashSet::new();
        // Destinations that came or went.
        let mut moved = HashSet::new();

        for key in removed {
            next.take(key, &mut touched);
            if key.kind == Kind::Destination {
                moved.insert(key.uid);
            }
        }
        for row in changed {
            let key = row.key();
            if key.kind == Kind::Destination && !next.destinations.contains_key(&key.uid) {
                moved.insert(key.uid);
            }
            next.take(key, &mut touched);
            next.put(row, &mut touched);
        }

        let followers = next.connections.values();
        touched.extend(
            followers
                .filter(|c| moved.contains(&c.destination))
                .map(|c| c.source),
        );
        next.longest_path = next.paths.keys().map(String::len).max().unwrap_or_default();
        next.rebuild_sources(&touched);
        next
    }

    /// Forgets a row and what was made of it.
    fn take(&mut self, key: RowKey, touched: &mut HashSet<Uuid>) {
        let Some(row) = self.rows.remove(&key) else {
            return;
        };
        match &row.spec {
            Spec::Source(spec) => {
                touched.insert(row.uid);
                self.sources.remove(&row.uid);
                let Some(path) = &spec.path else { return };
                if let Some(claims) = self.paths.get_mut(path) {
                    claims.remove(&row.uid);
                    if claims.is_empty() {
                        self.paths.remove(path);
                    }
                }
            }
            Spec::Destination(_) => {
                self.destinations.remove(&row.uid);
            }
            Spec::Topic(_) => {
                touched.insert(row.uid);
                self.topics.remove(&row.uid);
                if let Some(topics) = self.slugs.get_mut(&row.name) {
                    topics.remove(&row.uid);
                    if topics.is_empty() {
                        self.slugs.remove(&row.name);
                    }
                }
            }
            Spec::Connection(spec) | Spec::Subscription(spec) => {
                touched.insert(spec.source);
                self.connections.remove(&row.uid);
            }
        }
    }

    /// Adds a row that isn't there.
    fn put(&mut self, row: Row, touched: &mut HashSet<Uuid>) {
        let uid = row.uid;
        match &row.spec {
            Spec::Source(spec) => {
                touched.insert(uid);
                if let Some(path) = &spec.path {
                    self.paths.entry(path.clone()).or_default().insert(uid);
                }
            }
            Spec::Topic(_) => {
                touched.insert(uid);
                let slug = self.slugs.entry(row.name.clone()).or_default();
                slug.insert(uid);
            }
            Spec::Destination(spec) => {
                self.destinations
                    .insert(uid, Arc::new(Destination::new(&row, spec)));
            }
            Spec::Connection(spec) | Spec::Subscription(spec) => {
                touched.insert(spec.source);
                self.connections
                    .insert(uid, Arc::new(Connection::new(&row, spec)));
            }
        }
        self.rows.insert(row.key(), Arc::new(row));
    }

    /// One pass over the connections, whatever the number of sources.
    fn rebuild_sources(&mut self, touched: &HashSet<Uuid>) {
        let mut of_source: HashMap<Uuid, Vec<Arc<Connection>>> = HashMap::new();
        for connection in self.connections.values() {
            if touched.contains(&connection.source)
                && self.destinations.contains_key(&connection.destination)
            {
                of_source
                    .entry(connection.source)
                    .or_default()
                    .push(connection.clone());
            }
        }
        for &uid in touched {
            let row = |kind| self.rows.get(&RowKey { kind, uid });
            let Some(row) = row(Kind::Source).or_else(|| row(Kind::Topic)) else {
                continue;
            };
            let mut connections = of_source.remove(&uid).unwrap_or_default();
            connections.sort_by_key(|connection| connection.uid);
            match &row.spec {
                Spec::Source(spec) => {
                    let before = self.sources.get(&uid).map(Arc::as_ref);
                    let source = Source::new(row, spec, connections, before);
                    self.sources.insert(uid, Arc::new(source));
                }
                Spec::Topic(spec) => {
                    let before = self.topics.get(&uid).map(Arc::as_ref);
                    let topic = Topic::new(row, spec, connections, before);
                    self.topics.insert(uid, Arc::new(topic));
                }
                _ => {}
            }
        }
    }

    /// The source of an ingest URL: `src_<uid>` or the beginning of a path of its own.
    /// Answers the source and what of `path` follows its key (empty or beginning with `/`).
    /// `path` is what follows `/v1/ingest/`, percent-encoded as sent. The longest own path wins.
    pub fn source<'t, 'p>(&'t self, path: &'p str) -> Option<(&'t Arc<Source>, &'p str)> {
        let end = path.find('/').unwrap_or(path.len());
        if let Some(uid) = ids::parse(Prefix::Source, &path[..end]) {
            return self.sources.get(&uid).map(|source| (source, &path[end..]));
        }
        let (uid, rest) = self.own_path(path)?;
        self.sources.get(&uid).map(|source| (source, rest))
    }

    /// The longest own path that is a beginning of `path`, by whole segments. Paths that lie within each other are of one
    /// namespace (the compiler refuses others), so nobody takes what is sent below a stranger's path.
    fn own_path<'p>(&self, path: &'p str) -> Option<(Uuid, &'p str)> {
        // No key is longer than this, so a URL of a thousand slashes costs no more look-ups than a key has.
        let reach = path.len().min(self.longest_path.saturating_add(1));
        let bytes = path.as_bytes();
        let whole = (path.len() <= self.longest_path).then_some(path.len());
        let slashes = (0..reach).rev().filter(|&at| bytes[at] == b'/');
        whole.into_iter().chain(slashes).find_map(|end| {
            let claims = self.paths.get(&path[..end])?;
            claims.first().map(|&uid| (uid, &path[end..]))
        })
    }

    pub fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.sources.values()
    }

    /// The topics that the URL of a publication can mean: the one of this id, or those of this name in any namespace. Which
    /// of them is meant, the key says that comes with it.
    pub fn topics_named<'t>(&'t self, slug: &str) -> impl Iterator<Item = &'t Arc<Topic>> {
        let by_id = ids::parse(Prefix::Topic, slug);
        let by_name = match by_id {
            Some(_) => None,
            None => self.slugs.get(slug),
        };
        let uids = by_id
            .into_iter()
            .chain(by_name.into_iter().flatten().copied());
        uids.filter_map(|uid| self.topics.get(&uid))
    }

    pub fn topic(&self, uid: Uuid) -> Option<&Arc<Topic>> {
        self.topics.get(&uid)
    }

    pub fn destination(&self, uid: Uuid) -> Option<&Arc<Destination>> {
        self.destinations.get(&uid)
    }

    pub fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.destinations.values()
    }

    pub fn connection(&self, uid: Uuid) -> Option<&Arc<Connection>> {
        self.connections.get(&uid)
    }

    /// The rows that this table was built from.
    pub fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }
}

impl Source {
    fn new(
        row: &Row,
        spec: &row::SourceSpec,
        connections: Vec<Arc<Connection>>,
        before: Option<&Source>,
    ) -> Source {
        let schema = schema(
            spec.schema.as_ref(),
            before.and_then(|before| before.schema.as_ref()),
        );
        let methods = spec
            .methods
            .iter()
            .map(|method| Method::from_bytes(method.as_bytes()));
        Source {
            uid: row.uid,
            id: ids::format(Prefix::Source, row.uid),
            namespace: row.namespace.clone(),
            name: row.name.clone(),
            suspended: spec.suspended,
            // The compiler wrote none that isn't one. Should a row hold such a thing, no request has it either; POST in its
            // place keeps the list from becoming empty, which would let everything in.
            methods: methods
                .map(|method| method.unwrap_or(Method::POST))
                .collect(),
            max_body_bytes: spec.max_body_bytes,
            archived: spec.archived,
            ip_filter: spec.ip_filter.as_ref().map(IpFilter::new),
            content_types: ContentTypes::new(&spec.content_types),
            rate_limit: spec.rate_limit.clone(),
            cors: spec.cors.as_ref().map(Cors::new),
            response: spec.response.as_ref().map(CustomResponse::new),
            verifier: spec
                .verification
                .as_ref()
                .map(|verification| Verifier::new(verification, &row.secrets)),
            schema,
            dedup: spec.dedup.clone(),
            index: index(&connections),
            connections,
        }
    }

    /// The connections that this event goes by, in the order of their UIDs. A connection whose destination is not in the
    /// table is not among them.
    pub fn route<'s>(&'s self, event: &EventView<'_>) -> Vec<&'s Arc<Connection>> {
        matching(&self.connections, &self.index, event)
    }
}

/// Compiling a large schema takes milliseconds, and most changes are a connection's.
fn schema(
    rule: Option<&schema::Rule>,
    before: Option<&Arc<schema::Check>>,
) -> Option<Arc<schema::Check>> {
    rule.map(|rule| match before {
        Some(check) if check.rule == *rule => check.clone(),
        _ => Arc::new(schema::Check::new(rule.clone())),
    })
}

fn index(connections: &[Arc<Connection>]) -> Index {
    Index::new(
        connections
            .iter()
            .map(|c| (!c.suspended).then_some(&c.matcher)),
    )
}

/// Those of the indexed connections that this event goes by, in the order of their UIDs.
fn matching<'c>(
    connections: &'c [Arc<Connection>],
    index: &Index,
    event: &EventView<'_>,
) -> Vec<&'c Arc<Connection>> {
    let connection = |place: u32| &connections[place as usize];
    let mut found = Vec::new();
    let matcher = |place| &connection(place).matcher;
    index.matching(event, matcher, |place| found.push(connection(place)));
    found.sort_unstable_by_key(|connection| connection.uid);
    found.dedup_by_key(|connection| connection.uid);
    found
}

impl Connection {
    fn new(row: &Row, spec: &row::ConnectionSpec) -> Connection {
        Connection {
            uid: row.uid,
            namespace: row.namespace.clone(),
            name: row.name.clone(),
            source: spec.source,
            destination: spec.destination,
            suspended: spec.suspended,
            matcher: spec.filter.as_ref().map(Matcher::new).unwrap_or_default(),
            expression: spec.expression.clone(),
            transform: spec.transform.clone(),
            retry: spec.retry.clone(),
        }
    }
}

impl Destination {
    fn new(row: &Row, spec: &row::DestinationSpec) -> Destination {
        Destination {
            uid: row.uid,
            namespace: row.namespace.clone(),
            name: row.name.clone(),
            generation: row.generation,
            spec: spec.clone(),
            secrets: row.secrets.clone(),
        }
    }
}
