//! A namespace of the cluster, a database and a key ring: what one test has to itself.

use super::{Cluster, SOON, operators::Operator};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{DynamicObject, ObjectMeta, PostParams},
};
use routing::Row;
use std::{
    sync::Arc,
    sync::atomic::{AtomicU32, Ordering},
};
use store::{Keyring, Store, listen, routes, testing::Database};

pub struct World {
    pub cluster: &'static Cluster,
    pub client: Client,
    pub namespace: String,
    pub database: Database,
    pub keyring: Keyring,
    pub keyring_file: tempfile::NamedTempFile,
}

impl World {
    pub async fn new() -> World {
        World::on(super::shared().await).await
    }

    /// On a cluster of the test's own (leaked: it ends with the process).
    pub async fn on(cluster: &'static Cluster) -> World {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let client = cluster.client().await;
        let namespace = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let keyring = Keyring::generate();
        let keyring_file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(keyring_file.path(), keyring.to_text().expose()).expect("a temporary file");
        let database = Database::create().await;
        let world = World {
            cluster,
            client,
            namespace,
            database,
            keyring,
            keyring_file,
        };
        world.make_namespace(&world.namespace, &[]).await;
        world
    }

    pub async fn make_namespace(&self, name: &str, labels: &[(&str, &str)]) {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        };
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.create(
            &PostParams::default(),
            &Namespace {
                metadata,
                ..Namespace::default()
            },
        )
        .await
        .expect("a new namespace");
    }

    pub fn store(&self) -> &Store {
        &self.database.store
    }

    /// An operator of this namespace and others that the flags name.
    pub async fn operator(&self, flags: &[&str]) -> Operator {
        self.operator_of(self.database.url(), flags).await
    }

    /// The same on another database. A flag given twice is taken from here first.
    pub async fn operator_of(&self, database_url: &str, flags: &[&str]) -> Operator {
        let mut all = flags.to_vec();
        for (flag, value) in [
            ("--watch-namespaces", self.namespace.as_str()),
            ("--lease-ttl", "2s"),
        ] {
            if !flags.contains(&flag) {
                all.extend([flag, value]);
            }
        }
        Operator::start(self.cluster, database_url, self.keyring_file.path(), &all).await
    }

    /// `kubectl apply -f -` in the namespace; what it printed.
    pub async fn apply(&self, yaml: &str) -> String {
        self.cluster
            .kubectl(&["-n", &self.namespace, "apply", "-f", "-"], yaml)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["-n", &self.namespace];
        all.extend(arguments);
        self.cluster.kubectl(&all, "").await
    }

    pub fn api(&self, kind: crds::Kind) -> Api<DynamicObject> {
        Api::namespaced_with(
            self.client.clone(),
            &self.namespace,
            &operator::kinds::api_resource(kind),
        )
    }

    /// Waits until the object's conditions are as `wanted` says.
    pub async fn until(
        &self,
        kind: crds::Kind,
        name: &str,
        wanted: impl Fn(&crds::Status) -> bool,
    ) -> crds::Status {
        let mut found = None;
        super::until(&self.api(kind), name, SOON, |object| {
            found = object.and_then(status_of);
            found.as_ref().is_some_and(&wanted)
        })
        .await;
        found.expect("the wait ended with it")
    }

    /// Waits for a condition of the newest generation: `("Ready", "True", "Ready")`.
    pub async fn condition(
        &self,
        kind: crds::Kind,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> crds::Status {
        let mut found = None;
        super::until(&self.api(kind), name, SOON, |object| {
            found = object.and_then(status_of);
            let generation = object.and_then(|object| object.metadata.generation);
            found
                .as_ref()
                .and_then(|found| operator::status::condition(found, type_))
                .is_some_and(|condition| {
                    condition.status == status
                        && condition.reason == reason
                        && condition.observed_generation == generation
                })
        })
        .await;
        found.expect("the wait ended with it")
    }

    pub async fn ready(&self, kind: crds::Kind, name: &str) -> crds::Status {
        self.condition(kind, name, "Ready", "True", "Ready").await
    }

    pub async fn get(&self, kind: crds::Kind, name: &str) -> DynamicObject {
        self.api(kind).get(name).await.expect("it is there")
    }

    pub async fn head(&self) -> routes::Head {
        routes::head(&self.store().pool).await.expect("a head")
    }

    /// The rows as gateways load them.
    pub async fn rows(&self) -> Vec<Arc<Row>> {
        routes::load_all(&self.store().pool, &self.keyring)
            .await
            .expect("a table")
            .rows
    }

    /// Waits until the published rows are as `wanted` says.
    pub async fn until_rows(&self, wanted: impl Fn(&[Arc<Row>]) -> bool) -> Vec<Arc<Row>> {
        let mut listener = listen::Listener::connect(self.store())
            .await
            .expect("Postgres answers");
        let mut last = Vec::new();
        let search = async {
            loop {
                last = self.rows().await;
                if wanted(&last) {
                    return;
                }
                // Each revision is announced.
                let _ = listener.next().await;
            }
        };
        if tokio::time::timeout(SOON, search).await.is_err() {
            panic!("the table did not become as it should: {last:#?}");
        }
        last
    }
}

fn status_of(object: &DynamicObject) -> Option<crds::Status> {
    serde_json::from_value(object.data.get("status")?.clone()).ok()
}
